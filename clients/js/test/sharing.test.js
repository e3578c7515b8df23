// Several subscriptions to one topic, and a topic that several subscriptions match.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, recorder, start, within } from './fake.js';

const tell = (topic, epoch, offset) => ({ topic, ...at(epoch, offset) });

test('subscriptions to one topic share one on the server, until the last has left', async (t) => {
  const { client, peer } = await start(t);
  const [one, two] = [recorder(), recorder()];
  const first = client.subscribe('a.b', one.options);
  await peer.accept({ position: at('e', 0) });
  const second = client.subscribe('a.b', two.options);
  await within('ready', second.ready);
  peer.messages('a.b', 1);
  await peer.settle(client);
  first.unsubscribe();
  first.unsubscribe();
  peer.messages('a.b', 2);
  await peer.settle(client);
  second.unsubscribe();
  assert.equal((await peer.expect('unsubscribe')).topic, 'a.b');
  peer.messages('a.b', 3);
  await peer.settle(client);
  assert.deepEqual(one.told, ['a.b 1', 'end undefined']);
  assert.deepEqual(two.told, ['a.b 1', 'a.b 2', 'end undefined']);
});

test('a subscription that comes later is given the snapshot that the first one had', async (t) => {
  const { client, peer } = await start(t);
  const [one, two] = [recorder(), recorder()];
  client.subscribe('a.>', { ...one.options, snapshot: true });
  await peer.accept();
  peer.messages('a.b', 6);
  peer.messages('a.c', 1);
  peer.send({ snapshotEnd: { topic: 'a.>', positions: [tell('a.b', 'e', 6), tell('a.c', 'e', 1)] } });
  peer.messages('a.b', 7);
  await peer.settle(client);
  client.subscribe('a.>', { ...two.options, snapshot: true });
  assert.deepEqual(two.told, []);
  await peer.settle(client);
  peer.messages('a.b', 8);
  await peer.settle(client);
  assert.deepEqual(two.told, ['a.c 1', 'a.b 7', 'snapshotEnd', 'a.b 8']);
  assert.deepEqual(one.told, ['a.b 6', 'a.c 1', 'snapshotEnd', 'a.b 7', 'a.b 8']);
});

test('a subscription that comes later and wants another past is refused', async (t) => {
  const { client, peer } = await start(t);
  client.subscribe('a.b');
  await peer.accept({ position: at('e', 0) });
  await peer.settle(client);
  for (const past of [{ snapshot: true }, { last: 3 }, { since: at('e', 1) }]) {
    const { told, options } = recorder();
    const refused = client.subscribe('a.b', { ...options, ...past });
    await assert.rejects(within('the refusal', refused.ready), { code: 107, name: 'alreadySubscribed' });
    assert.deepEqual(told, ['end alreadySubscribed']);
  }
  assert.deepEqual(peer.unread(), []);
});

test('subscriptions that want the same before there is a connection share it', async (t) => {
  const { server, client, peer, states } = await start(t);
  peer.drop();
  await states.until('waiting', ({ state }) => state === 'waiting');
  const [one, two] = [recorder(), recorder()];
  client.subscribe('a.b', { ...one.options, last: 2 });
  client.subscribe('a.b', { ...two.options, last: 2 });
  const next = await server.greet();
  await next.accept({ position: at('e', 2) });
  next.messages('a.b', 1, 2);
  await next.settle(client);
  assert.deepEqual(one.told, ['a.b 1', 'a.b 2']);
  assert.deepEqual(two.told, one.told);
});

test('a message is given once to each subscription that matches it', async (t) => {
  const { client, peer } = await start(t);
  const [exact, filter] = [recorder(), recorder()];
  const first = client.subscribe('a.b', exact.options);
  await peer.accept({ position: at('e', 3) });
  peer.messages('a.b', 4);
  const second = client.subscribe('a.*', { ...filter.options, snapshot: true });
  await peer.accept();
  // The snapshot comes on the same connection, and the first has had it.
  peer.messages('a.b', 4);
  peer.send({ snapshotEnd: { topic: 'a.*', positions: [tell('a.b', 'e', 4)] } });
  peer.messages('a.b', 5);
  await peer.settle(client);
  assert.deepEqual(exact.told, ['a.b 4', 'a.b 5']);
  assert.deepEqual(filter.told, ['a.b 4', 'snapshotEnd', 'a.b 5']);
  assert.deepEqual([first.duplicates, second.duplicates], [1, 0]);
});

test('what is resumed for one does not disturb another that is not open yet', async (t) => {
  const { server, client, peer } = await start(t);
  const [filter, exact] = [recorder(), recorder()];
  client.subscribe('a.*', { ...filter.options, snapshot: true });
  client.subscribe('a.b', exact.options);
  await peer.accept();
  peer.send({ snapshotEnd: { topic: 'a.*' } });
  await peer.accept({ position: at('e', 0) });
  peer.messages('a.b', 1);
  await peer.settle(client);
  peer.drop();
  const next = await server.greet();
  // The server has told the epoch only for the exact one; that serves both.
  assert.deepEqual((await next.expect('subscribe')).positions, [tell('a.b', 'e', 1)]);
  const resume = await next.expect('subscribe');
  assert.deepEqual(resume.since, at('e', 1));
  const topics = [{ topic: 'a.b', position: at('e', 3), recovered: true }];
  next.send({ id: resume.id - 1, subscribed: { topic: 'a.*', topics } });
  next.messages('a.b', 2, 3);
  next.send({ snapshotEnd: { topic: 'a.*', positions: [tell('a.b', 'e', 3)] } });
  next.send({ id: resume.id, subscribed: { topic: 'a.b', position: at('e', 3), recovered: true } });
  next.messages('a.b', 2, 3, 4);
  await next.settle(client);
  assert.deepEqual(filter.told, ['snapshotEnd', 'a.b 1', 'recovered a.b', 'a.b 2', 'a.b 3', 'snapshotEnd', 'a.b 4']);
  assert.deepEqual(exact.told, ['a.b 1', 'recovered a.b', 'a.b 2', 'a.b 3', 'a.b 4']);
});

test('leaving and coming back at once is a new subscription', async (t) => {
  const { client, peer } = await start(t);
  const [one, two] = [recorder(), recorder()];
  client.subscribe('a.b', one.options).unsubscribe();
  client.subscribe('a.b', two.options);
  const first = await peer.expect('subscribe');
  const left = await peer.expect('unsubscribe');
  peer.send({ id: first.id, subscribed: { topic: 'a.b', position: at('e', 5) } });
  peer.messages('a.b', 6);
  peer.send({ id: left.id, unsubscribed: { topic: 'a.b' } });
  await peer.accept({ position: at('e', 6) });
  peer.messages('a.b', 7);
  await peer.settle(client);
  assert.deepEqual(one.told, ['end undefined']);
  assert.deepEqual(two.told, ['a.b 7']);
});
