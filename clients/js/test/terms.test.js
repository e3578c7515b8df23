// Which messages a subscription asks for and what it is granted: policy, rate, overflow, changed live;
// and when a hole is one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, recorder, start, within } from './fake.js';

const tell = (topic, epoch, offset) => ({ topic, ...at(epoch, offset) });
const message = (topic, offset, key) => ({ message: { topic, offset, time: 1, key, data: offset } });

/** Answers a change of terms. */
async function updated(peer, granted) {
  const { id, ...command } = await peer.expect('update');
  peer.send({ id, updated: { topic: command.topic, ...granted } });
  return command;
}

test('terms are asked for as they were given', async (t) => {
  const { client, peer } = await start(t);
  const table = [
    [{}, {}],
    [{ policy: 'all', overflow: 'catchUp' }, { policy: 'all', overflow: 'catchUp' }],
    [{ policy: 'latest' }, { policy: 'latest' }],
    [{ maxHz: 0.5 }, { policy: 'maxHz', maxHz: 0.5 }],
    [{ policy: 'maxHz', maxHz: 10, overflow: undefined }, { policy: 'maxHz', maxHz: 10 }],
  ];
  for (const [terms, expected] of table) {
    const subscription = client.subscribe('a.b', terms);
    const { id, topic, ...command } = await peer.accept({ position: at('e', 0) });
    assert.deepEqual(command, expected);
    subscription.unsubscribe();
    await peer.expect('unsubscribe');
  }
  // In JSON they would be null, which means that nothing was given.
  for (const maxHz of [NaN, Infinity, null, '5']) {
    assert.throws(() => client.subscribe('a.b', { maxHz }), { name: 'TypeError', message: /maxHz/ });
    assert.throws(() => client.subscribe('b').update({ maxHz }), { name: 'TypeError', message: /maxHz/ });
  }
});

test('what is granted is told at first, and when it changes', async (t) => {
  const { server, client, peer } = await start(t);
  const told = [];
  const subscription = client.subscribe('a.b', { policy: 'latest', onGranted: (terms) => told.push(terms) });
  const shown = () => [subscription.policy, subscription.maxHz, subscription.overflow];
  assert.deepEqual(shown(), [undefined, undefined, undefined]);
  await peer.accept({ position: at('e', 0), policy: 'maxHz', maxHz: 2 });
  await peer.settle(client);
  assert.deepEqual(shown(), ['maxHz', 2, undefined]);
  peer.drop();
  const second = await server.greet();
  await second.accept({ position: at('e', 0), recovered: true, policy: 'maxHz', maxHz: 2 });
  await second.settle(client);
  second.drop();
  const third = await server.greet();
  await third.accept({ position: at('e', 0), recovered: true, overflow: 'gap' });
  await third.settle(client);
  assert.deepEqual(shown(), ['all', undefined, 'gap']);
  assert.deepEqual(told.map(({ policy, maxHz }) => [policy, maxHz]), [['maxHz', 2], ['all', undefined]]);
  const late = [];
  client.subscribe('a.b', { onGranted: ({ policy }) => late.push(policy) });
  await third.settle(client);
  assert.deepEqual(late, ['all']);
});

test('a change is made live, and kept for the next connection', async (t) => {
  const { server, client, peer } = await start(t);
  const subscription = client.subscribe('a.b', { overflow: 'gap' });
  await peer.accept({ position: at('e', 0), overflow: 'gap' });
  const changing = subscription.update({ maxHz: 100 });
  assert.deepEqual(await updated(peer, { policy: 'maxHz', maxHz: 10 }), { topic: 'a.b', policy: 'maxHz', maxHz: 100 });
  assert.deepEqual({ ...(await within('the grant', changing)) }, { policy: 'maxHz', maxHz: 10, overflow: undefined });
  assert.deepEqual([subscription.policy, subscription.maxHz], ['maxHz', 10]);
  peer.drop();
  const next = await server.greet();
  const { policy, maxHz, overflow } = await next.accept({ position: at('e', 0), recovered: true });
  assert.deepEqual([policy, maxHz, overflow], ['maxHz', 100, 'gap']);
  subscription.update({ policy: 'all' });
  await updated(next, { policy: 'all', overflow: 'gap' });
  await next.settle(client);
  assert.deepEqual([subscription.policy, subscription.maxHz, subscription.overflow], ['all', undefined, 'gap']);
});

test('quick changes become one, and the last one counts', async (t) => {
  const { client, peer } = await start(t);
  const subscription = client.subscribe('a.b');
  await peer.accept({ position: at('e', 0) });
  await within('ready', subscription.ready);
  const changing = [{ maxHz: 10 }, { maxHz: 5 }, { overflow: 'gap' }, { maxHz: 1 }].map((terms) => subscription.update(terms));
  assert.equal((await updated(peer, { policy: 'maxHz', maxHz: 10 })).maxHz, 10);
  const last = await updated(peer, { policy: 'maxHz', maxHz: 1 });
  assert.deepEqual(last, { topic: 'a.b', policy: 'maxHz', maxHz: 1, overflow: 'gap' });
  const granted = await within('the grants', Promise.all(changing));
  assert.deepEqual(granted.map(({ maxHz }) => maxHz), [10, 1, 1, 1]);
  await peer.settle(client);
});

test('a change that is refused changes nothing', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.b', { ...options, policy: 'all' });
  await peer.accept({ position: at('e', 0) });
  peer.messages('a.b', 1);
  await peer.settle(client);
  const changing = subscription.update({ maxHz: 5_000 });
  await peer.refuse('update', 105, 'badOption');
  await assert.rejects(within('the refusal', changing), { code: 105, name: 'badOption', retry: 'never' });
  assert.equal(subscription.policy, 'all');
  // Nothing was passed over meanwhile.
  peer.messages('a.b', 3);
  await peer.settle(client);
  assert.deepEqual(told, ['a.b 1', 'gap a.b 2-2 1 lost', 'a.b 3']);
  peer.drop();
  const next = await server.greet();
  const { policy, maxHz } = await next.accept({ position: at('e', 3), recovered: true });
  assert.deepEqual([policy, maxHz], ['all', undefined]);
});

test('a change without a connection is made when there is one', async (t) => {
  const { server, client, peer, states } = await start(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 0) });
  await within('ready', subscription.ready);
  const lost = subscription.update({ policy: 'latest' });
  await peer.expect('update');
  peer.drop();
  await states.until('waiting', ({ state }) => state === 'waiting');
  const offline = subscription.update({ maxHz: 2 });
  const second = await server.greet();
  assert.equal((await second.accept({ position: at('e', 0), recovered: true, policy: 'maxHz', maxHz: 2 })).maxHz, 2);
  for (const changing of [lost, offline]) assert.equal((await within('the grant', changing)).maxHz, 2);

  second.drop();
  await states.until('waiting', ({ state }) => state === 'waiting');
  const bad = subscription.update({ maxHz: -1 });
  const third = await server.greet();
  assert.equal((await third.refuse('subscribe', 105, 'badOption')).maxHz, -1);
  await assert.rejects(within('the refusal', bad), { name: 'badOption' });
  assert.equal((await third.accept({ position: at('e', 0), recovered: true, policy: 'maxHz', maxHz: 2 })).maxHz, 2);
  await third.settle(client);
  assert.deepEqual(told, ['recovered a.b', 'recovered a.b']);
});

test('a change that comes while the subscription is being opened follows it', async (t) => {
  const { client, peer } = await start(t);
  const subscription = client.subscribe('a.b');
  const changing = subscription.update({ policy: 'latest' });
  await peer.refuse('subscribe', 117, 'overloaded', 'later');
  await peer.accept({ position: at('e', 0), policy: 'latest' });
  assert.equal((await within('the grant', changing)).policy, 'latest');
});

test('a change of what has ended is refused', async (t) => {
  const { client, peer } = await start(t);
  const subscription = client.subscribe('a.b');
  await peer.accept({ position: at('e', 0) });
  await within('ready', subscription.ready);
  const under = subscription.update({ policy: 'latest' });
  const waiting = subscription.update({ policy: 'all' });
  subscription.unsubscribe();
  for (const changing of [under, waiting, subscription.update({ policy: 'all' })]) {
    await assert.rejects(within('the refusal', changing), { name: 'unsubscribed' });
  }
  const refused = client.subscribe('..');
  await peer.expect('update');
  await peer.expect('unsubscribe');
  await peer.refuse('subscribe', 101, 'badTopic');
  await assert.rejects(within('the end', refused.ready), { name: 'badTopic' });
  await assert.rejects(refused.update({ policy: 'all' }), { name: 'badTopic' });
});

test('those who share a subscription share its terms', async (t) => {
  const { client, peer } = await start(t);
  const first = client.subscribe('a.b', { maxHz: 2 });
  await peer.accept({ position: at('e', 0), policy: 'maxHz', maxHz: 2 });
  await peer.settle(client);
  for (const terms of [{ policy: 'all' }, { maxHz: 3 }, { policy: 'latest' }, { overflow: 'gap' }]) {
    const other = client.subscribe('a.b', terms);
    const changing = other.update({ policy: 'all' });
    await assert.rejects(within('the refusal', other.ready), { name: 'alreadySubscribed' });
    await assert.rejects(within('the refusal', changing), { name: 'alreadySubscribed' });
  }
  const told = [];
  const same = client.subscribe('a.b', { maxHz: 2, onGranted: ({ policy }) => told.push(policy) });
  const whatever = client.subscribe('a.b');
  await within('ready', Promise.all([same.ready, whatever.ready]));
  whatever.update({ policy: 'all' });
  await updated(peer, { policy: 'all', overflow: 'catchUp' });
  await peer.settle(client);
  assert.deepEqual([first.policy, same.policy, whatever.policy], ['all', 'all', 'all']);
  assert.deepEqual(told, ['maxHz', 'all']);
  client.subscribe('a.b', { policy: 'all' });
  await peer.settle(client);
});

for (const terms of [{ policy: 'latest' }, { policy: 'maxHz', maxHz: 1 }, { policy: 'newest' }]) {
  test(`under ${terms.policy} offsets may be skipped, and never fall`, async (t) => {
    const { server, client, peer } = await start(t);
    const { told, options } = recorder();
    // What counts is what is granted.
    const subscription = client.subscribe('a.b', { ...options, policy: 'all' });
    await peer.accept({ position: at('e', 4), ...terms });
    peer.messages('a.b', 7, 7, 5, 20);
    peer.send({ gap: { topic: 'a.b', from: 25, to: 26, count: 2, reason: 'expired' } });
    peer.messages('a.b', 30);
    await peer.settle(client);
    assert.equal(subscription.duplicates, 2);
    assert.deepEqual(subscription.positions, [tell('a.b', 'e', 30)]);
    peer.drop();
    const next = await server.greet();
    assert.deepEqual((await next.accept({ position: at('e', 40), recovered: true, ...terms })).since, at('e', 30));
    next.messages('a.b', 33, 40, 44);
    await next.settle(client);
    const before = ['a.b 7', 'a.b 20', 'gap a.b 25-26 2 expired', 'a.b 30'];
    assert.deepEqual(told, [...before, 'recovered a.b', 'a.b 33', 'a.b 40', 'a.b 44']);
  });
}

test('while terms change, and before the first message after that, a hole is none', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 0) });
  peer.messages('a.b', 2);
  await peer.settle(client);
  subscription.update({ policy: 'latest' });
  const latest = await peer.expect('update');
  peer.messages('a.b', 5);
  peer.send({ id: latest.id, updated: { topic: 'a.b', policy: 'latest' } });
  peer.messages('a.b', 7);
  await peer.settle(client);
  subscription.update({ policy: 'all' });
  const all = await peer.expect('update');
  peer.messages('a.b', 9);
  peer.send({ id: all.id, updated: { topic: 'a.b', policy: 'all', overflow: 'catchUp' } });
  peer.messages('a.b', 11, 12, 14);
  await peer.settle(client);
  const expected = ['gap a.b 1-1 1 lost', 'a.b 2', 'a.b 5', 'a.b 7', 'a.b 9', 'a.b 11', 'a.b 12', 'gap a.b 13-13 1 lost', 'a.b 14'];
  assert.deepEqual(told, expected);
});

test('through a filter a hole is one where an exact subscription rules the topic', async (t) => {
  const { client, peer } = await start(t);
  const [filter, exact] = [recorder(), recorder()];
  client.subscribe('a.*', { ...filter.options, policy: 'all' });
  await peer.accept();
  peer.send({ position: tell('a.b', 'e', 0) });
  // A rule may pace this one, though the filter was granted everything.
  peer.messages('a.b', 2, 5);
  const subscription = client.subscribe('a.b', exact.options);
  await peer.accept({ position: at('e', 6) });
  peer.messages('a.b', 7, 9);
  await peer.settle(client);
  subscription.update({ policy: 'latest' });
  await updated(peer, { policy: 'latest' });
  peer.messages('a.b', 12);
  await peer.settle(client);
  subscription.unsubscribe();
  peer.messages('a.b', 14, 16);
  await peer.expect('unsubscribe');
  await peer.settle(client);
  assert.deepEqual(filter.told, ['a.b 2', 'a.b 5', 'a.b 7', 'gap a.b 8-8 1 lost', 'a.b 9', 'a.b 12', 'a.b 14', 'a.b 16']);
  assert.deepEqual(exact.told, ['a.b 7', 'gap a.b 8-8 1 lost', 'a.b 9', 'a.b 12', 'end undefined']);
});

test('a snapshot of keys has holes, and what comes after it has none', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.b', { ...options, snapshot: true });
  await peer.accept({ position: at('e', 40) });
  peer.send(message('a.b', 3, 'k'), message('a.b', 17, 'l'), message('a.b', 38));
  // The keys of 39 and 40 were deleted.
  peer.send({ snapshotEnd: { topic: 'a.b', positions: [tell('a.b', 'e', 40)] } });
  peer.send(message('a.b', 41, 'k'), message('a.b', 43));
  await peer.settle(client);
  assert.deepEqual(told, ['a.b 3', 'a.b 17', 'a.b 38', 'snapshotEnd', 'a.b 41', 'gap a.b 42-42 1 lost', 'a.b 43']);
  assert.deepEqual(subscription.positions, [tell('a.b', 'e', 43)]);
});

test('a snapshot that is cut off is resumed after what came of it, or taken anew', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.b', { ...options, snapshot: true });
  await peer.accept({ position: at('e', 40) });
  await peer.settle(client);
  assert.deepEqual(subscription.positions, []);
  peer.drop();
  const second = await server.greet();
  // Which messages it would have held is not known.
  assert.equal((await second.accept({ position: at('e', 40) })).since, undefined);
  second.send(message('a.b', 3, 'k'), message('a.b', 17, 'l'));
  await second.settle(client);
  second.drop();
  const third = await server.greet();
  assert.deepEqual((await third.accept({ position: at('e', 41), recovered: true })).since, at('e', 17));
  third.messages('a.b', 18, 20);
  await third.settle(client);
  const resumed = ['recovered a.b', 'a.b 18', 'gap a.b 19-19 1 lost', 'a.b 20'];
  assert.deepEqual(told, ['anew a.b noPosition', 'a.b 3', 'a.b 17', ...resumed]);
});

test('what comes first is for who asked', async (t) => {
  const { client, peer } = await start(t);
  const [filter, exact] = [recorder(), recorder()];
  client.subscribe('a.*', filter.options);
  await peer.accept();
  client.subscribe('a.b', { ...exact.options, snapshot: true });
  await peer.accept({ position: at('e', 9) });
  peer.send(message('a.b', 4, 'k'), message('a.b', 9, 'l'));
  peer.send({ snapshotEnd: { topic: 'a.b', positions: [tell('a.b', 'e', 9)] } });
  peer.messages('a.b', 10);
  await peer.settle(client);
  assert.deepEqual(filter.told, ['a.b 10']);
  assert.deepEqual(exact.told, ['a.b 4', 'a.b 9', 'snapshotEnd', 'a.b 10']);
});

test('what comes first for somebody who has left is for nobody', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.*', options);
  await peer.accept();
  const early = client.subscribe('a.b', { snapshot: true });
  early.unsubscribe();
  await peer.accept({ position: at('e', 9) });
  await peer.expect('unsubscribe');
  peer.send(message('a.b', 4, 'k'));
  peer.send({ snapshotEnd: { topic: 'a.b', positions: [tell('a.b', 'e', 9)] } });
  const late = client.subscribe('a.b', { snapshot: true });
  await peer.accept({ position: at('e', 9) });
  peer.send(message('a.b', 5, 'k'));
  await peer.settle(client);
  late.unsubscribe();
  peer.send(message('a.b', 9, 'l'));
  peer.send({ snapshotEnd: { topic: 'a.b', positions: [tell('a.b', 'e', 9)] } });
  peer.messages('a.b', 10);
  await peer.expect('unsubscribe');
  await peer.settle(client);
  assert.deepEqual(told, ['a.b 10']);
});

test('who joins a snapshot of keys is given the latest of each', async (t) => {
  const { client, peer } = await start(t);
  client.subscribe('a.b', { snapshot: true, onMessage: () => {} });
  await peer.accept({ position: at('e', 20) });
  peer.send(message('a.b', 3, 'k'), message('a.b', 17, 'l'), message('a.b', 20, 'm'));
  peer.send({ snapshotEnd: { topic: 'a.b', positions: [tell('a.b', 'e', 20)] } });
  peer.send({ gap: { topic: 'a.b', from: 21, to: 21, count: 1, reason: 'slow' } });
  peer.send(message('a.b', 22, 'k'), { message: { topic: 'a.b', offset: 23, time: 1, key: 'm', deleted: true } });
  await peer.settle(client);
  const { told, options } = recorder();
  client.subscribe('a.b', { ...options, snapshot: true });
  await peer.settle(client);
  // Which key the missing one was of is not known, and stays so.
  assert.deepEqual(told, ['a.b 17', 'a.b 22', 'gap a.b 21-21 1 slow', 'snapshotEnd']);
});

test('a delete comes as one, without a payload', async (t) => {
  const { client, peer } = await start(t);
  const seen = [];
  client.subscribe('a.b', { onMessage: (each) => seen.push(each) });
  await peer.accept({ position: at('e', 0) });
  peer.send({ message: { topic: 'a.b', offset: 1, time: 1, key: 'k', deleted: true } });
  await peer.settle(client);
  assert.deepEqual(seen, [{ topic: 'a.b', offset: 1, time: 1, key: 'k', deleted: true, epoch: 'e' }]);
});

test('the server says why messages are missing', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 0) });
  for (const [offset, reason] of [[1, 'slow'], [3, 'trimmed'], [5, 'expired'], [7, 'unheardOf']]) {
    peer.send({ gap: { topic: 'a.b', from: offset, to: offset, count: 1, reason } });
    peer.send({ position: tell('a.b', 'e', offset) });
    peer.messages('a.b', offset + 1);
  }
  await peer.settle(client);
  assert.deepEqual(told, [
    'gap a.b 1-1 1 slow', 'a.b 2', 'gap a.b 3-3 1 trimmed', 'a.b 4',
    'gap a.b 5-5 1 expired', 'a.b 6', 'gap a.b 7-7 1 unheardOf', 'a.b 8',
  ]);
});
