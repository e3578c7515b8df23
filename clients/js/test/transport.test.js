// Which transport is taken, what the fallback does when its server misbehaves, and that both spellings
// say the same.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import WebSocket from 'ws';
import { connect } from '../dist/fanfare.js';
import { EventStream } from '../dist/sse.js';
import { json } from '../src/json.js';
import { proto } from '../src/proto.js';
import { broker } from './broker.js';
import { Inbox, events, open, within } from './fake.js';

test('where WebSocket is blocked the client falls back to server-sent events', async (t) => {
  const { url } = await broker(t);
  let attempts = 0;
  class Blocked {
    constructor() {
      attempts += 1;
      queueMicrotask(() => this.onclose({ code: 1006, reason: '' }));
    }
    close() {}
  }
  for (const Blocking of [Blocked, class { constructor() { attempts += 1; throw new Error('not allowed here'); } }]) {
    attempts = 0;
    const client = connect(url, { WebSocket: Blocking, backoffMs: 5 });
    t.after(() => client.close());
    const told = new Inbox();
    await within('ready', client.subscribe('a.b', { onMessage: ({ data }) => told.push(data) }).ready);
    await within('published', client.publish('a.b', { data: 1 }));
    assert.equal(await told.next('the message'), 1);
    assert.deepEqual([client.transport, attempts], ['sse', 2]);
  }
});

test('who has had a WebSocket does not fall back', async (t) => {
  const first = await broker(t);
  const client = open(t, first.url);
  await within('published', client.publish('a', { data: 1 }));
  await first.kill();
  const states = events(client, 'state');
  for (let i = 0; i < 6; i += 1) await states.until('another attempt', ({ state }) => state === 'connecting');
  assert.equal(client.transport, 'websocket');
  client.close();
});

test('the fallback can be given as a WebSocket', async (t) => {
  const { url } = await broker(t);
  const client = open(t, url, { WebSocket: EventStream });
  assert.equal((await within('published', client.publish('a', { data: 1 }))).offset, 1);
});

test('a topic that turns up behind a change of streams is told as not recovered', async (t) => {
  const { url } = await broker(t);
  const [client, publisher] = [open(t, url, { transport: 'sse' }), open(t, url)];
  await within('published', publisher.publish('a.old', { data: 1 }));
  const told = new Inbox();
  const onRecovered = ({ topic, recovered, reason }) => told.push(`${topic} ${recovered} ${reason}`);
  await within('ready', client.subscribe('a.*', { onRecovered, onMessage: ({ topic, offset }) => told.push(`${topic} ${offset}`) }).ready);
  await within('ready', client.subscribe('other').ready);
  await within('published', publisher.publish('a.old', { data: 2 }));
  assert.deepEqual([await told.next('the doubt'), await told.next('the message')], ['a.old false noPosition', 'a.old 2']);
});

/** A server of server-sent events that says what the test says. */
async function scripted(t, answer) {
  const server = http.createServer((request, response) => {
    const asked = new URL(request.url, 'http://h');
    if (asked.pathname === '/sse' && !asked.search) return refuse(response, 400, { code: 400, name: 'badRequest', retry: 'never', message: 'no topic' });
    answer(response, request, asked);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  return `ws://127.0.0.1:${server.address().port}/ws`;
}

const refuse = (response, status, error) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ error }));
const say = (response, ...list) => list.forEach((event) => response.write(`data: ${JSON.stringify(event)}\n\n`));
const begin = (response) => response.writeHead(200, { 'content-type': 'text/event-stream' });

for (const [what, status, error, expected] of [
  ['wants nobody to come back', 204, undefined, [4500, 'closed']],
  ['takes no token', 401, { code: 4501, name: 'badToken', retry: 'never', message: 'no' }, [4500, 'badToken']],
  ['says that the token has expired', 401, { code: 4401, name: 'tokenExpired', retry: 'refresh', message: 'old' }, [4401, 'tokenExpired']],
]) {
  test(`a stream whose server ${what} ends the client with an error`, async (t) => {
    const url = await scripted(t, (response) => (error ? refuse(response, status, error) : response.writeHead(status).end()));
    const client = open(t, url, { transport: 'sse', token: 'a' });
    const subscription = client.subscribe('a');
    const { error: end } = await events(client, 'state').until('the end', ({ state }) => state === 'closed');
    assert.deepEqual([end.code, end.name], expected);
    await assert.rejects(subscription.ready, { name: expected[1] });
  });
}

test('a stream that ends anywhere is resumed, and what is no event ends it', async (t) => {
  const asked = [];
  const steps = [
    (response) => response.destroy(),
    (response) => response.writeHead(503).end('not JSON'),
    (response) => refuse(response, 503, { code: 431, name: 'tooManyConnections', retry: 'later', message: 'full' }),
    (response) => begin(response).end(),
    (response) => begin(response).end('data: {"id":1,"subs'),
    (response) => begin(response).end('data: {"nonsense\n\n'),
    (response) => say(begin(response), { connected: { pingMs: 25_000 } }, { id: 1, subscribed: { topic: 'a', position: { epoch: 'e', offset: 0 } } }, { message: { topic: 'a', offset: 1, time: 1, data: 1 } }, { message: { topic: 'a', offset: 'two' } }),
    (response) => response.destroy(),
    (response) => say(begin(response), { id: 1, subscribed: { topic: 'a', position: { epoch: 'e', offset: 2 }, recovered: true } }, { message: { topic: 'a', offset: 2, time: 1, data: 2 } }),
  ];
  const url = await scripted(t, (response, _, { searchParams }) => {
    asked.push(searchParams.get('since'));
    steps.shift()?.(response);
  });
  const told = new Inbox();
  open(t, url, { transport: 'sse' }).subscribe('a', { onMessage: ({ offset }) => told.push(offset) });
  assert.deepEqual([await told.next('the first'), await told.next('the second')], [1, 2]);
  assert.deepEqual(asked, [...Array(7).fill(null), 'e:1', 'e:1']);
});

test('an event without an end is given up', async (t) => {
  const url = await scripted(t, (response) => {
    begin(response);
    const more = () => response.write(`data: ${'x'.repeat(100_000)}\n`, (error) => error || more());
    more();
  });
  const client = open(t, url, { transport: 'sse' });
  client.subscribe('a');
  const { reason } = await events(client, 'state').until('the loss', ({ state }) => state === 'waiting');
  assert.match(reason, /an event is too long/);
  client.close();
});

test('line breaks, comments and cuts anywhere in the bytes of a stream change nothing', async (t) => {
  const bytes = Buffer.from(
    ': hello\r\nid: x\r\ndata: {"id":1,"subscribed":\r\ndata: {"topic":"a","position":{"epoch":"e","offset":0}}}\r\n\r\n' +
      'retry: 5\ndata:{"message":{"topic":"a","offset":1,"time":1,\ndata: "text":"é😀"}}\n\n',
  );
  for (let size = 1; size < 12; size += 3) {
    const url = await scripted(t, async (response) => {
      begin(response);
      for (let at = 0; at < bytes.length; at += size) {
        response.write(bytes.subarray(at, at + size));
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    const told = new Inbox();
    open(t, url, { transport: 'sse' }).subscribe('a', { onMessage: ({ text }) => told.push(text) });
    assert.equal(await told.next('the text'), 'é😀', `${size} bytes at a time`);
  }
});

test('both spellings say the same', async (t) => {
  const settings = '[topics]\nrules = [{ filter = "room.*", presence = true }, { filter = "keys", snapshot = "keys" }]\n[topics.history]\nmessages = 3\n';
  const script = (epoch) => [
    ['connect', { name: 'ann' }],
    ['subscribe', { topic: 'room.1', presence: true, snapshot: true }],
    ['subscribe', { topic: 'r.*', maxHz: 0.5, positions: [{ topic: 'r.a', epoch, offset: 7 }, { topic: 'b', epoch, offset: 0 }] }],
    ['subscribe', { topic: 'other', policy: 'latest', overflow: 'disconnect' }],
    ['subscribe', { topic: 'wide', overflow: 'gap', since: { epoch, offset: 3 }, last: 2 }],
    ...['room.1', 'other', 'r.a', 'keys'].map((topic) => ['publish', { topic, data: { x: [1.5, null, 'é'] }, key: 'k', ttlMs: 60_000 }]),
    ['publish', { topic: 'other', text: '' }],
    ['publish', { topic: 'other', binary: Uint8Array.of(0, 255, 128) }],
    ['publish', { topic: 'other', binary: new Uint8Array() }],
    ['publish', { topic: 'keys', key: 'k', delete: true }],
    ['update', { topic: 'other', maxHz: 100 }],
    ['update', { topic: 'other', policy: 'all' }],
    ['subscribe', { topic: 'keys', last: 2 }],
    ['history', { topic: 'other', limit: 2 }],
    ['history', { topic: 'nothing' }],
    ['history', { topic: 'other', since: { epoch, offset: 1 } }],
    ['presence', { topic: 'room.1' }],
    ['presence', { topic: 'other' }],
    ['publish', { topic: 'a..b', data: 1 }],
    ['publish', { topic: 'a', data: 1, ttlMs: 2 ** 50 }],
    ['subscribe', { topic: 'other' }],
    ['unsubscribe', { topic: 'other' }],
    ['unsubscribe', { topic: 'never' }],
    ['refresh', { token: 'x' }],
    ['ping', {}],
  ];
  for (const batch of [undefined, true]) {
    const [said, told] = [await converse(t, json, settings, script, batch), await converse(t, proto, settings, script, batch)];
    assert.ok(said.length > 30, `${said.length} events`);
    assert.deepEqual(told, said);
  }
});

/** All events of one conversation, with what differs from broker to broker replaced. */
async function converse(t, spelling, settings, script, batch) {
  const { url } = await broker(t, { settings });
  const socket = new WebSocket(url, [spelling.protocol]);
  t.after(() => socket.terminate());
  socket.binaryType = 'arraybuffer';
  const inbox = new Inbox();
  let batched = false;
  socket.onmessage = ({ data }) => {
    for (const event of spelling.decode(data, batched)) {
      batched ||= event.connected?.batch === true;
      inbox.push(event);
    }
  };
  await within('open', new Promise((resolve) => (socket.onopen = resolve)));
  const heard = [];
  for (const [i, [action, body]] of script('AAAAAAAAAAAAAAAAAAAAAA').entries()) {
    socket.send(spelling.encode(i + 1, action, action === 'connect' ? { ...body, batch } : body));
    // One after the other, so that the order is the same each time.
    for (let id; id !== i + 1; ) {
      const event = await inbox.next(action);
      heard.push(event);
      ({ id } = event);
    }
  }
  const names = new Map();
  const plain = (key, value) => {
    if (key === 'time') return 0;
    if (key === 'epoch' || key === 'connection') return names.get(value) ?? (names.set(value, names.size), names.size - 1);
    return value;
  };
  const bytes = (event) => {
    for (const message of [event.message, ...(event.historyPage?.messages ?? [])]) {
      if (message?.binary) message.base64 = Buffer.from(message.binary).toString('base64');
      delete message?.binary;
    }
    return sorted(JSON.parse(JSON.stringify(event, plain)));
  };
  return heard.map(bytes);
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

test('ten thousand subscriptions end in ten thousand answers', async (t) => {
  const { url } = await broker(t, { settings: '[limits]\nsubscribe_rate = 1000000\nsubscribe_burst = 1000000\n' });
  const client = open(t, url);
  const all = Array.from({ length: 10_000 }, (_, i) => client.subscribe(`many.${i}`).ready);
  const outcomes = await Promise.allSettled(all);
  const refused = outcomes.filter(({ status }) => status === 'rejected');
  assert.equal(refused.length, 10_000 - 128);
  assert.ok(refused.every(({ reason }) => reason.name === 'tooManySubscriptions'));
  assert.equal((await within('published', client.publish('a', { data: 1 }))).offset, 1);
});

test('what is subscribed to more often than may be is subscribed to later', async (t) => {
  const { url } = await broker(t, { settings: '[limits]\nsubscriptions_max = 50\nsubscribe_rate = 100\nsubscribe_burst = 50\n' });
  const client = open(t, url);
  const warnings = events(client, 'warning');
  const told = new Inbox();
  const many = (name) => Array.from({ length: 50 }, (_, i) => client.subscribe(`${name}.${i}`, { onMessage: ({ topic }) => told.push(topic) }));
  const first = many('first');
  await within('ready', Promise.all(first.map(({ ready }) => ready)));
  for (const subscription of first) subscription.unsubscribe();
  const second = many('second');
  await within('ready', Promise.all(second.map(({ ready }) => ready)));
  assert.match((await warnings.next('a warning')).message, /is tried again later$/);
  await within('published', client.publish('second.49', { data: 1 }));
  assert.equal(await told.next('the message'), 'second.49');
});
