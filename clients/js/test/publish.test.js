// Commands of the application: publishing, history, ping, and what becomes of them when a connection ends.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FanfareError } from '../src/fanfare.js';
import { at, open, serve, start, within } from './fake.js';

const published = (id, offset) => ({ id, published: { ...at('e', offset), durability: 'memory' } });

test('each kind of payload is published as what it is, with a key that makes a retry safe', async (t) => {
  const { client, peer } = await start(t);
  const table = [
    [{ data: { x: [1] }, key: 'k' }, { data: { x: [1] }, key: 'k' }],
    [{ data: null }, { data: null }],
    [{ text: '' }, { text: '' }],
    [{ binary: Uint8Array.of(0, 255) }, { base64: 'AP8=' }],
    [{ binary: Uint8Array.of(7).buffer }, { base64: 'Bw==' }],
    [{ delete: true, key: 'k' }, { delete: true, key: 'k' }],
    [{ delete: false, text: 'x', ttlMs: 500 }, { text: 'x', ttlMs: 500 }],
  ];
  const keys = new Set();
  for (const [draft, expected] of table) {
    const done = client.publish('a.b', draft);
    const { id, topic, idempotencyKey, ...rest } = await peer.expect('publish');
    assert.deepEqual([topic, rest], ['a.b', expected]);
    assert.match(idempotencyKey, /^[0-9a-f]{32}$/);
    keys.add(idempotencyKey);
    peer.send(published(id, 7));
    assert.deepEqual(await within('published', done), { epoch: 'e', offset: 7, durability: 'memory' });
  }
  assert.equal(keys.size, table.length);
  client.publish('a.b', { text: 'x', idempotencyKey: 'mine' });
  assert.equal((await peer.expect('publish')).idempotencyKey, 'mine');
});

test('a draft that is none is the mistake of the program', async (t) => {
  const { client } = await start(t);
  for (const draft of [{}, { data: 1, text: 'x' }, { key: 'k' }]) {
    assert.throws(() => client.publish('a.b', draft), { name: 'TypeError', message: /exactly one of/ });
  }
  for (const draft of [{ delete: true }, { delete: true, key: '' }, { delete: true, key: 'k', data: 1 }]) {
    assert.throws(() => client.publish('a.b', draft), { name: 'TypeError', message: /a delete has a key/ });
  }
  for (const ttlMs of [NaN, Infinity, null]) {
    assert.throws(() => client.publish('a.b', { data: 1, ttlMs }), { name: 'TypeError', message: /ttlMs/ });
  }
  const circle = {};
  circle.circle = circle;
  assert.throws(() => client.publish('a.b', { data: circle }), TypeError);
  assert.throws(() => client.subscribe('a.>', { since: at('e', 1) }), TypeError);
  assert.throws(() => client.subscribe(7), TypeError);
});

test('a refusal carries its code, its name and its advice', async (t) => {
  const { client, peer } = await start(t);
  const done = client.publish('', { data: 1 });
  await peer.refuse('publish', 101, 'badTopic');
  const error = await within('the refusal', done.catch((reason) => reason));
  assert.ok(error instanceof FanfareError && error instanceof Error);
  const { code, name, retry, message } = error;
  assert.deepEqual([code, name, retry, message], [101, 'badTopic', 'never', 'refused: badTopic']);
});

test('an answer of the wrong kind is no success', async (t) => {
  const { client, peer } = await start(t);
  const done = client.publish('a', { data: 1 });
  const { id } = await peer.expect('publish');
  peer.send({ id, pong: {} });
  await assert.rejects(within('the refusal', done), { code: 0, name: 'badAnswer' });
});

test('what is published without a connection waits, up to a bound, and goes in order', async (t) => {
  const server = await serve(t);
  const client = open(t, server.url, { queueMax: 3 });
  const done = [1, 2, 3].map((data) => client.publish('a', { data }));
  await assert.rejects(client.publish('a', { data: 4 }), { code: 0, name: 'queueFull', retry: 'later' });
  await assert.rejects(client.history('a'), { name: 'queueFull' });
  const peer = await server.greet();
  for (const [i, promise] of done.entries()) {
    const { id, data } = await peer.expect('publish');
    assert.equal(data, i + 1);
    peer.send(published(id, i + 1));
    assert.equal((await within('published', promise)).offset, i + 1);
  }
  client.publish('a', { data: 5 });
  assert.equal((await peer.expect('publish')).data, 5);
});

test('what has no answer when the connection ends is sent again, in order and with the same key', async (t) => {
  const { server, client, peer } = await start(t);
  const done = [1, 2, 3].map((data) => client.publish('a', { data }));
  const sent = [await peer.expect('publish'), await peer.expect('publish'), await peer.expect('publish')];
  peer.send(published(sent[0].id, 1));
  await within('the first answer', done[0]);
  peer.drop();
  const later = client.publish('a', { data: 4 });
  const next = await server.greet();
  const again = [await next.expect('publish'), await next.expect('publish'), await next.expect('publish')];
  assert.deepEqual(again.slice(0, 2), sent.slice(1));
  assert.equal(again[2].data, 4);
  for (const { id } of again) next.send(published(id, id));
  await within('the answers', Promise.all([...done, later]));
});

test('a publish that is older than its key lives is not sent again', async (t) => {
  const { server, client, peer } = await start(t, { retryMaxMs: -1 });
  const done = client.publish('a', { data: 1 });
  await peer.expect('publish');
  peer.drop();
  const next = await server.greet();
  await assert.rejects(within('the outcome', done), { code: 0, name: 'unknown', retry: 'later' });
  await next.settle(client);
});

test('history is asked again after a reconnect, a ping is not', async (t) => {
  const { server, client, peer } = await start(t);
  const page = client.history('a.b', { since: { ...at('e', 3), more: 'is not sent' }, limit: 2 });
  const ping = client.ping();
  const asked = await peer.expect('history');
  assert.deepEqual(asked, { id: asked.id, topic: 'a.b', since: at('e', 3), limit: 2 });
  await peer.expect('ping');
  peer.drop();
  await assert.rejects(within('the ping', ping), { name: 'disconnected', retry: 'later' });
  const next = await server.greet();
  const again = await next.expect('history');
  assert.deepEqual(again, asked);
  const messages = [{ topic: 'a.b', offset: 4, time: 1, base64: 'AA==' }];
  next.send({ id: again.id, historyPage: { topic: 'a.b', top: at('e', 6), messages, more: true } });
  assert.deepEqual(await within('the page', page), {
    topic: 'a.b',
    top: at('e', 6),
    messages: [{ topic: 'a.b', offset: 4, time: 1, epoch: 'e', binary: Uint8Array.of(0) }],
    more: true,
  });
});

test('the history of a topic that is not there is empty', async (t) => {
  const { client, peer } = await start(t);
  const page = client.history('a.b');
  const { id } = await peer.expect('history');
  peer.send({ id, historyPage: { topic: 'a.b' } });
  const empty = { topic: 'a.b', top: undefined, messages: [], more: false };
  assert.deepEqual(await within('the page', page), empty);
});

test('a ping tells how long it took', async (t) => {
  const { client, peer } = await start(t);
  const ping = client.ping();
  const { id } = await peer.expect('ping');
  peer.send({ id, pong: {} });
  const took = await within('the pong', ping);
  assert.ok(took >= 0 && took < 10_000, `${took}`);
});
