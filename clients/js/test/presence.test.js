// Who is there, and which topics have fallen silent.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, start, within } from './fake.js';

const ann = { connection: '0-1', name: 'ann' };
const bob = { connection: '0-2', name: '' };

/** Options that write down who is there and what is stale. */
function watcher() {
  const told = [];
  return {
    told,
    options: {
      presence: true,
      onPresence: ({ members, count, more }) => told.push(`${members.map(({ name }) => name)} ${count} ${more}`),
      onJoined: ({ connection, name }) => told.push(`+ ${connection} ${name}`),
      onLeft: ({ connection, name }) => told.push(`- ${connection} ${name}`),
      onStale: ({ topic, since }) => told.push(`stale ${topic} ${since}`),
      onFresh: ({ topic }) => told.push(`fresh ${topic}`),
      onMessage: ({ topic, offset }) => told.push(`${topic} ${offset}`),
    },
  };
}

/** Answers who is there. */
async function attend(peer, state) {
  const { id, topic } = await peer.expect('presence');
  peer.send({ id, presenceState: { topic, ...state } });
  return topic;
}

test('a client says by which name it is to be listed', async (t) => {
  const { server, client, peer } = await start(t, { name: 'ann' });
  await peer.settle(client);
  peer.drop();
  const next = await server.accept();
  assert.equal((await next.expect('connect')).name, 'ann');
});

test('who is there can be asked, also of a topic that is not subscribed to', async (t) => {
  const { client, peer } = await start(t);
  const asking = client.presence('room');
  const state = { count: 5, members: [ann, { connection: '0-2' }], more: true };
  assert.equal(await attend(peer, state), 'room');
  assert.deepEqual(await within('the answer', asking), { topic: 'room', count: 5, members: [ann, bob], more: true });
  const refused = client.presence('secret');
  await peer.refuse('presence', 115, 'notAllowed');
  await assert.rejects(within('the refusal', refused), { name: 'notAllowed' });
});

test('a subscription with presence is told who is there, who joins and who leaves', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = watcher();
  client.subscribe('room', options);
  assert.equal((await peer.accept({ position: at('e', 0) })).presence, true);
  await attend(peer, { count: 1, members: [ann], more: false });
  peer.send({ joined: { topic: 'room', member: bob } }, { left: { topic: 'room', member: ann } });
  // It could not be told of everybody in time.
  peer.send({ presenceState: { topic: 'room', count: 1, members: [bob], more: false } });
  peer.send({ joined: { topic: 'elsewhere', member: ann } });
  await peer.settle(client);
  assert.deepEqual(told.splice(0), ['ann 1 false', '+ 0-2 ', '- 0-1 ann', ' 1 false']);
  peer.drop();
  const next = await server.greet();
  await next.accept({ position: at('e', 0), recovered: true });
  await attend(next, { count: 0, members: [], more: false });
  await next.settle(client);
  assert.deepEqual(told, [' 0 false']);
});

test('who did not ask for presence is told nothing of it', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = watcher();
  client.subscribe('room', { ...options, presence: undefined });
  assert.equal((await peer.accept({ position: at('e', 0) })).presence, undefined);
  peer.send({ joined: { topic: 'room', member: bob } }, { presenceState: { topic: 'room', count: 0, members: [] } });
  await peer.settle(client);
  assert.deepEqual(told, []);
  const late = client.subscribe('room', options);
  await assert.rejects(within('the refusal', late.ready), { name: 'alreadySubscribed' });
});

test('a topic that falls silent is stale until it is fresh', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = watcher();
  const subscription = client.subscribe('a.b', { ...options, presence: false });
  await peer.accept({ position: at('e', 7), stale: true });
  await peer.settle(client);
  assert.equal(subscription.stale, true);
  const late = watcher();
  client.subscribe('a.b', { onStale: late.options.onStale });
  peer.send({ stale: { topic: 'a.b', since: 1_000 } }, { fresh: { topic: 'a.b' } });
  peer.messages('a.b', 8);
  peer.send({ fresh: { topic: 'a.b' } });
  await peer.settle(client);
  assert.equal(subscription.stale, false);
  peer.send({ stale: { topic: 'a.b', since: 2_000 } }, { stale: { topic: 'b', since: 1 } });
  await peer.settle(client);
  assert.deepEqual(told.splice(0), ['stale a.b undefined', 'fresh a.b', 'a.b 8', 'stale a.b 2000']);
  assert.deepEqual(late.told, ['stale a.b undefined', 'stale a.b 2000']);
  peer.drop();
  const second = await server.greet();
  // What is resumed does not make it fresh.
  await second.accept({ position: at('e', 9), recovered: true, stale: true });
  second.messages('a.b', 9);
  await second.settle(client);
  assert.equal(subscription.stale, true);
  second.drop();
  const third = await server.greet();
  await third.accept({ position: at('e', 9), recovered: true });
  await third.settle(client);
  assert.deepEqual([told, subscription.stale], [['a.b 9', 'fresh a.b'], false]);
});

test('a filter is told which of its topics are stale, and after a reconnect anew', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = watcher();
  const subscription = client.subscribe('a.*', { ...options, presence: false });
  await peer.accept();
  for (const topic of ['a.1', 'a.2', 'a.3']) {
    peer.send({ position: { topic, ...at('e', 0) } });
    peer.messages(topic, 1);
    peer.send({ stale: { topic, since: 5 } });
  }
  await peer.settle(client);
  told.length = 0;
  peer.drop();
  const next = await server.greet();
  const topics = [
    { topic: 'a.1', position: at('e', 2), recovered: true },
    { topic: 'a.2', position: at('e', 1), recovered: true },
    { topic: 'a.3', recovered: false, reason: 'epochChanged' },
  ];
  await next.accept({ topics });
  next.messages('a.1', 2);
  next.send({ stale: { topic: 'a.2', since: 5 } });
  await next.settle(client);
  assert.deepEqual(told, ['fresh a.3', 'fresh a.1', 'a.1 2']);
  assert.equal(subscription.stale, true);
  next.send({ fresh: { topic: 'a.2' } });
  await next.settle(client);
  assert.equal(subscription.stale, false);
});
