// Messages on one connection: order, duplicates, holes, payloads, loops.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, events, recorder, start, within } from './fake.js';

test('messages are given once and in order, and holes are told', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 4) });
  await within('ready', subscription.ready);
  peer.messages('a.b', 5, 5, 4, 6, 9, 8, 10);
  await peer.settle(client);
  assert.deepEqual(told, ['a.b 5', 'a.b 6', 'gap a.b 7-8 2 lost', 'a.b 9', 'a.b 10']);
  assert.equal(subscription.duplicates, 3);
  assert.deepEqual(subscription.positions, [{ topic: 'a.b', epoch: 'e', offset: 10 }]);
});

test('a gap that the server tells is told as it is, and is no hole', async (t) => {
  const { client, peer } = await start(t);
  const gaps = events(client, 'gap');
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 0) });
  peer.messages('a.b', 1);
  peer.send({ gap: { topic: 'a.b', from: 2, to: 5, count: 4, reason: 'slow' } });
  peer.send({ position: { topic: 'a.b', epoch: 'e', offset: 5 } });
  peer.messages('a.b', 6);
  // Of this one, 6 has come and 7 is not even spoken of.
  peer.send({ gap: { topic: 'a.b', from: 8, to: 9, count: 2, reason: 'slow' } });
  peer.send({ gap: { topic: 'a.b', from: 3, to: 6, count: 4, reason: 'slow' } });
  peer.messages('a.b', 10);
  await peer.settle(client);
  const expected = [
    'a.b 1', 'gap a.b 2-5 4 slow', 'a.b 6', 'gap a.b 7-7 1 lost', 'gap a.b 8-9 2 slow', 'a.b 10',
  ];
  assert.deepEqual(told, expected);
  assert.equal(gaps.all().length, 3);
});

test('a snapshot of a filter is followed by live messages without a seam', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.>', { ...options, snapshot: true, last: 2 });
  const command = await peer.accept();
  assert.deepEqual([command.snapshot, command.last], [true, 2]);
  peer.messages('a.b', 6, 7);
  peer.messages('a.c', 1);
  const positions = [['a.b', 7], ['a.c', 1], ['a.d', 3]].map(([topic, offset]) => ({ topic, ...at('e', offset) }));
  peer.send({ snapshotEnd: { topic: 'a.>', positions } });
  peer.messages('a.b', 8);
  peer.messages('a.d', 4);
  peer.messages('a.c', 3);
  await peer.settle(client);
  const expected = ['a.b 6', 'a.b 7', 'a.c 1', 'snapshotEnd', 'a.b 8', 'a.d 4', 'a.c 3'];
  assert.deepEqual(told, expected);
  assert.deepEqual(subscription.positions.map(({ topic, offset }) => `${topic} ${offset}`), ['a.c 3', 'a.d 4', 'a.b 8']);
});

test('the latest messages that a topic no longer holds are not called lost', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', { ...options, last: 10 });
  assert.equal((await peer.accept({ position: at('e', 44) })).snapshot, true);
  peer.messages('a.b', 43, 44);
  peer.send({ snapshotEnd: { topic: 'a.b', positions: [{ topic: 'a.b', ...at('e', 44) }] } });
  peer.messages('a.b', 45);
  await peer.settle(client);
  assert.deepEqual(told, ['a.b 43', 'a.b 44', 'snapshotEnd', 'a.b 45']);
});

test('names that objects know are only names here', async (t) => {
  const { client, peer } = await start(t);
  for (const topic of ['__proto__', 'constructor', 'hasOwnProperty', 'toString']) {
    const seen = [];
    client.subscribe(topic, { onMessage: (message) => seen.push(message) });
    await peer.accept({ position: at('e', 0) });
    peer.sendText(`{"message":{"topic":"${topic}","offset":1,"time":1,"key":"__proto__","data":{"__proto__":{"x":1}}}}`);
    await peer.settle(client);
    assert.deepEqual(seen.map(({ topic, key }) => [topic, key]), [[topic, '__proto__']]);
  }
  assert.equal({}.x, undefined);
});

test('a filter takes exactly the topics it matches', async (t) => {
  const table = [
    ['a.*', ['a.b', 'a.+'], ['a', 'a.b.c', 'b.a', 'axb']],
    ['*.b', ['a.b'], ['b', 'a.c']],
    ['a.>', ['a.b', 'a.b.c'], ['a', 'b.a']],
    ['>', ['a', 'a.b'], []],
    ['*', ['a'], ['a.b']],
    ['a.*.c', ['a.b.c'], ['a.c', 'a.b.d', 'a.b.b.c']],
    ['*.*', ['a.b'], ['a', 'a.b.c']],
    ['a*.b', ['a*.b'], ['ax.b', 'aa.b']],
  ];
  const { client, peer } = await start(t);
  for (const [filter, yes, no] of table) {
    const seen = [];
    const subscription = client.subscribe(filter, { onMessage: ({ topic }) => seen.push(topic) });
    await peer.accept(filter === 'a*.b' ? { position: at('e', 0) } : {});
    for (const topic of [...yes, ...no]) peer.messages(topic, 1);
    await peer.settle(client);
    assert.deepEqual(seen, yes, filter);
    subscription.unsubscribe();
    await peer.expect('unsubscribe');
  }
});

test('payloads come as what they are', async (t) => {
  const { client, peer } = await start(t);
  const seen = [];
  client.subscribe('a.b', { onMessage: (message) => seen.push(message) });
  await peer.accept({ position: at('e', 0) });
  const common = { topic: 'a.b', time: 5 };
  peer.send({ message: { ...common, offset: 1, data: null } });
  peer.send({ message: { ...common, offset: 2, text: 'é', key: 'k' } });
  peer.send({ message: { ...common, offset: 3, base64: 'AP8=' } });
  await peer.settle(client);
  assert.deepEqual(seen, [
    { ...common, offset: 1, epoch: 'e', data: null },
    { ...common, offset: 2, epoch: 'e', text: 'é', key: 'k' },
    { ...common, offset: 3, epoch: 'e', binary: Uint8Array.of(0, 255) },
  ]);
});

test('a loop gets the messages, and leaving it unsubscribes', async (t) => {
  const { client, peer } = await start(t);
  const subscription = client.subscribe('a.b');
  await peer.accept({ position: at('e', 0) });
  peer.messages('a.b', 1, 2, 3);
  const seen = [];
  const loop = async () => {
    for await (const { offset } of subscription) {
      seen.push(offset);
      if (offset === 3) break;
    }
  };
  await within('the loop', loop());
  assert.deepEqual(seen, [1, 2, 3]);
  assert.equal((await peer.expect('unsubscribe')).topic, 'a.b');
});

test('a loop that waits ends with the subscription', async (t) => {
  const { client, peer } = await start(t);
  const mine = client.subscribe('a.b');
  await peer.accept({ position: at('e', 0) });
  const next = mine[Symbol.asyncIterator]().next();
  mine.unsubscribe();
  assert.deepEqual(await within('the end', next), { done: true, value: undefined });
  await peer.expect('unsubscribe');

  const refused = client.subscribe('b');
  const failing = refused[Symbol.asyncIterator]().next();
  await peer.refuse('subscribe', 101, 'badTopic');
  await assert.rejects(within('the refusal', failing), { name: 'badTopic', code: 101, retry: 'never' });
});

test('a loop that is too slow is told what it does not get', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.b', { ...options, onMessage: undefined, bufferMax: 4 });
  await peer.accept({ position: at('e', 0) });
  peer.messages('a.b', 1, 2, 3, 4, 5, 6);
  await peer.settle(client);
  assert.deepEqual(told, ['gap a.b 1-3 3 buffer']);
  const seen = [];
  for await (const { offset } of subscription) {
    seen.push(offset);
    if (offset === 6) break;
  }
  assert.deepEqual(seen, [4, 5, 6]);
});

test('a subscription that the server ends is ended, one that was opened anew is not', async (t) => {
  const { client, peer } = await start(t);
  const first = recorder();
  client.subscribe('a.b', first.options);
  await peer.accept({ position: at('e', 0) });
  peer.send({ unsubscribed: { topic: 'a.b' } });
  await peer.settle(client);
  assert.deepEqual(first.told, ['end unsubscribed']);

  const second = recorder();
  client.subscribe('a.b', second.options);
  peer.send({ unsubscribed: { topic: 'a.b' } });
  await peer.accept({ position: at('e', 0) });
  peer.messages('a.b', 1);
  await peer.settle(client);
  assert.deepEqual(second.told, ['a.b 1']);
});

test('a refusal for now is tried again, a refusal for ever is the end', async (t) => {
  const { client, peer } = await start(t);
  const warnings = events(client, 'warning');
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.refuse('subscribe', 117, 'overloaded', 'later');
  await peer.refuse('subscribe', 117, 'overloaded', 'later');
  await peer.refuse('subscribe', 109, 'tooManySubscriptions');
  await peer.settle(client);
  assert.deepEqual(told, ['end tooManySubscriptions']);
  assert.equal(warnings.all().length, 2);
});

test('a refusal that nobody would see is a warning', async (t) => {
  const { client, peer } = await start(t);
  const warnings = [];
  client.on('warning', ({ message, detail }) => warnings.push([message, detail.name]));
  const seen = client.subscribe('a', { onMessage: () => {}, onEnd: () => {} });
  await peer.refuse('subscribe', 101, 'badTopic');
  await assert.rejects(within('the refusal', seen.ready), { name: 'badTopic' });
  assert.deepEqual(warnings, []);
  const unseen = client.subscribe('b', { onMessage: () => {} });
  await peer.refuse('subscribe', 101, 'badTopic');
  await assert.rejects(within('the refusal', unseen.ready), { name: 'badTopic' });
  assert.equal(warnings.length, 1);
  assert.equal(warnings[0][1], 'badTopic');
});
