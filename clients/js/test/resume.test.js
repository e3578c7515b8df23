// What becomes of subscriptions when the connection comes back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, events, recorder, start, within } from './fake.js';

const tell = (topic, epoch, offset) => ({ topic, ...at(epoch, offset) });

test('a topic is resumed after the last message that was given', async (t) => {
  const { server, client, peer } = await start(t);
  const recoveries = events(client, 'recovered');
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 40) });
  peer.messages('a.b', 41);
  await peer.settle(client);
  peer.drop();
  const next = await server.greet();
  const { since } = await next.accept({ position: at('e', 44), recovered: true });
  assert.deepEqual(since, at('e', 41));
  next.messages('a.b', 42, 43, 44, 45);
  await next.settle(client);
  assert.deepEqual(told, ['a.b 41', 'recovered a.b', 'a.b 42', 'a.b 43', 'a.b 44', 'a.b 45']);
  assert.deepEqual(recoveries.all(), [{ topic: 'a.b', recovered: true }]);
});

test('a resume that is dropped half way is resumed from there', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 1) });
  await peer.settle(client);
  peer.drop();
  const second = await server.greet();
  await second.accept({ position: at('e', 4), recovered: true });
  second.messages('a.b', 2);
  await second.settle(client);
  second.drop();
  const third = await server.greet();
  const { since } = await third.accept({ position: at('e', 4), recovered: true });
  assert.deepEqual(since, at('e', 2));
  third.messages('a.b', 3, 4);
  await third.settle(client);
  assert.deepEqual(told, ['recovered a.b', 'a.b 2', 'recovered a.b', 'a.b 3', 'a.b 4']);
});

for (const [reason, epoch] of [['epochChanged', 'f'], ['trimmed', 'e'], ['tooMany', 'e']]) {
  test(`a topic that cannot be resumed (${reason}) is told and begins anew`, async (t) => {
    const { server, client, peer } = await start(t);
    const { told, options } = recorder();
    const subscription = client.subscribe('a.b', { ...options, snapshot: true });
    await peer.accept({ position: at('e', 9) });
    peer.messages('a.b', 9);
    await peer.settle(client);
    peer.drop();
    const next = await server.greet();
    const { since, snapshot } = await next.accept({ position: at(epoch, 90), recovered: false, reason });
    assert.deepEqual([since, snapshot], [at('e', 9), true]);
    next.messages('a.b', 90);
    next.send({ snapshotEnd: { topic: 'a.b', positions: [tell('a.b', epoch, 90)] } });
    next.messages('a.b', 91);
    await next.settle(client);
    assert.deepEqual(told, ['a.b 9', `anew a.b ${reason}`, 'a.b 90', 'snapshotEnd', 'a.b 91']);
    assert.deepEqual(subscription.positions, [tell('a.b', epoch, 91)]);
  });
}

test('a new epoch may begin below the old offsets', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 100) });
  await peer.settle(client);
  peer.drop();
  const next = await server.greet();
  await next.accept({ position: at('f', 0), recovered: false, reason: 'epochChanged' });
  next.messages('a.b', 1, 2);
  await next.settle(client);
  assert.deepEqual(told, ['anew a.b epochChanged', 'a.b 1', 'a.b 2']);
});

test('a server that says yes to another epoch is not believed', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 5) });
  await peer.settle(client);
  peer.drop();
  const next = await server.greet();
  await next.accept({ position: at('f', 5), recovered: true });
  await next.settle(client);
  assert.deepEqual(told, ['anew a.b epochChanged']);
});

test('a filter is resumed from a position per topic, wherever that was told', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.>', { ...options, snapshot: true });
  await peer.accept();
  peer.messages('a.snapshot', 3);
  peer.send({ snapshotEnd: { topic: 'a.>', positions: [tell('a.snapshot', 'e1', 3), tell('a.quiet', 'e2', 5)] } });
  peer.send({ position: tell('a.pushed', 'e3', 7) });
  peer.messages('a.pushed', 8);
  peer.send({ gap: { topic: 'a.snapshot', from: 4, to: 6, count: 3, reason: 'slow' } });
  await peer.settle(client);
  peer.drop();
  told.length = 0;
  const next = await server.greet();
  const topics = [
    { topic: 'a.snapshot', position: at('e1', 7), recovered: true },
    { topic: 'a.quiet', position: at('f2', 1), recovered: false, reason: 'epochChanged' },
    { topic: 'a.pushed', recovered: false, reason: 'epochChanged' },
  ];
  const { positions } = await next.accept({ topics });
  const byTopic = new Map(positions.map(({ topic, epoch, offset }) => [topic, `${epoch} ${offset}`]));
  assert.deepEqual(byTopic, new Map([['a.pushed', 'e3 8'], ['a.quiet', 'e2 5'], ['a.snapshot', 'e1 6']]));
  next.messages('a.snapshot', 7);
  next.messages('a.quiet', 1);
  next.send({ snapshotEnd: { topic: 'a.>', positions: [tell('a.snapshot', 'e1', 7), tell('a.quiet', 'f2', 1)] } });
  next.send({ position: tell('a.pushed', 'f3', 0) });
  next.messages('a.pushed', 1);
  await next.settle(client);
  const expected = [
    'recovered a.snapshot', 'anew a.quiet epochChanged', 'anew a.pushed epochChanged',
    'a.snapshot 7', 'a.quiet 1', 'snapshotEnd', 'a.pushed 1',
  ];
  assert.deepEqual(told, expected);
});

test('a topic of a filter that nobody spoke of before may have had messages while we were away', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.>', options);
  await peer.accept();
  peer.send({ position: tell('a.b', 'e', 6) });
  peer.messages('a.b', 7);
  await peer.settle(client);
  peer.drop();
  const next = await server.greet();
  await next.accept({ topics: [{ topic: 'a.b', position: at('e', 7), recovered: true }] });
  next.send({ position: tell('a.met', 'e', 4) });
  next.messages('a.met', 5);
  next.send({ position: tell('a.new', 'e', 0) });
  next.messages('a.new', 1);
  await next.settle(client);
  assert.deepEqual(told, ['a.b 7', 'recovered a.b', 'anew a.met noPosition', 'a.met 5', 'a.new 1']);
});

test('a snapshot that is cut off is told and taken anew', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.>', { ...options, snapshot: true });
  await peer.accept();
  peer.messages('a.b', 5);
  await peer.settle(client);
  peer.drop();
  const next = await server.greet();
  const { positions, snapshot } = await next.accept();
  assert.deepEqual([positions, snapshot], [undefined, true]);
  next.messages('a.b', 5);
  next.send({ snapshotEnd: { topic: 'a.>', positions: [tell('a.b', 'e', 5)] } });
  await next.settle(client);
  assert.deepEqual(told, ['a.b 5', 'anew a.> noPosition', 'a.b 5', 'snapshotEnd']);
});

test('an epoch that changes on a living connection is told', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.>', options);
  await peer.accept();
  peer.send({ position: tell('a.b', 'e', 6) });
  peer.messages('a.b', 7);
  peer.send({ position: tell('a.b', 'e', 7) }, { position: tell('a.b', 'f', 0) });
  peer.messages('a.b', 1);
  await peer.settle(client);
  assert.deepEqual(told, ['a.b 7', 'anew a.b epochChanged', 'a.b 1']);
});

test('the positions of a filter are bounded, and what is forgotten is told', async (t) => {
  const { server, client, peer } = await start(t, { positionsMax: 2 });
  const { told, options } = recorder();
  client.subscribe('a.*', options);
  await peer.accept();
  for (const topic of ['a.1', 'a.2', 'a.3']) {
    peer.send({ position: tell(topic, 'e', 0) });
    peer.messages(topic, 1);
  }
  peer.messages('a.2', 2);
  await peer.settle(client);
  peer.drop();
  told.length = 0;
  const next = await server.greet();
  const topics = ['a.2', 'a.3'].map((topic) => ({ topic, position: at('e', 9), recovered: true }));
  const { positions } = await next.accept({ topics });
  assert.deepEqual(positions, [tell('a.2', 'e', 2), tell('a.3', 'e', 1)]);
  await next.settle(client);
  assert.deepEqual(told, ['anew a.* tooMany', 'recovered a.2', 'recovered a.3']);
});

test('a command to resume stays below the limit of a message', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  const name = (i) => `a.${'x'.repeat(200)}${i}`;
  const since = Array.from({ length: 1024 }, (_, i) => tell(name(i), 'e'.repeat(22), i));
  client.subscribe('a.*', { ...options, since });
  const { positions, ...rest } = await peer.accept();
  assert.ok(JSON.stringify({ subscribe: { ...rest, positions } }).length < 65_536);
  assert.ok(positions.length > 200);
  assert.deepEqual(positions, since.slice(0, positions.length));
  await peer.settle(client);
  assert.equal(told[0], 'anew a.* tooMany');
});

test('positions that the server does not take are forgotten, and that is told', async (t) => {
  const { server, client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 5) });
  await peer.settle(client);
  peer.drop();
  const next = await server.greet();
  assert.deepEqual((await next.refuse('subscribe', 104, 'badPosition')).since, at('e', 5));
  assert.equal((await next.accept({ position: at('f', 2) })).since, undefined);
  next.messages('a.b', 3);
  await next.settle(client);
  assert.deepEqual(told, ['anew a.b badPosition', 'a.b 3']);
});

test('a program resumes where an earlier one ended', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', { ...options, since: [tell('a.b', 'e', 4), tell('a.c', 'e', 9)] });
  const { since } = await peer.accept({ position: at('e', 5), recovered: true });
  assert.deepEqual(since, at('e', 4));
  peer.messages('a.b', 5, 6);
  await peer.settle(client);
  assert.deepEqual(told, ['recovered a.b', 'a.b 5', 'a.b 6']);
});

test('what the application left while offline is not subscribed again', async (t) => {
  const { server, client, peer, states } = await start(t);
  const left = client.subscribe('a');
  const kept = client.subscribe('b');
  await peer.accept({ position: at('e', 0) });
  await peer.accept({ position: at('e', 0) });
  await within('ready', kept.ready);
  peer.drop();
  await states.until('waiting', ({ state }) => state === 'waiting');
  left.unsubscribe();
  const next = await server.greet();
  assert.equal((await next.accept({ position: at('e', 0), recovered: true })).topic, 'b');
  await next.settle(client);
});
