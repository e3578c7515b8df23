// Connecting, coming back, giving up, and ending.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../src/fanfare.js';
import { events, open, serve, start, within } from './fake.js';

test('the first command says hello and the state tells who answered', async (t) => {
  const server = await serve(t);
  const client = open(t, server.url);
  assert.equal(client.state, 'connecting');
  const states = events(client, 'state');
  const peer = await server.greet({ connection: '3-7', server: 'fanfare/9.8.7', pingMs: 1000 });
  const event = await states.next('the state');
  assert.deepEqual(event, { state: 'connected', server: 'fanfare/9.8.7', connection: '3-7' });
  assert.equal(client.state, 'connected');
  assert.equal(peer.protocol, 'fanfare.v1.json');
});

for (const code of [1000, 1002, 1003, 1007, 1009, 4500, 4503, 4999]) {
  test(`a close with ${code} is the end`, async (t) => {
    const { client, peer, states } = await start(t);
    peer.close(code, 'badProtocol: too many commands');
    const event = await states.next('the end');
    assert.equal(event.state, 'closed');
    assert.equal(event.code, code);
    assert.equal(event.error.code, code);
    assert.equal(event.error.name, 'badProtocol');
    assert.equal(event.reason, 'too many commands');
    await assert.rejects(client.publish('a', { data: 1 }), { name: 'badProtocol' });
  });
}

for (const code of [1001, 1011, 1012, 1013, 4000, 4408, 4499]) {
  test(`after a close with ${code} the client comes back`, async (t) => {
    const { server, peer, states } = await start(t);
    peer.close(code, 'slowConsumer: too slow');
    const waiting = await states.next('waiting');
    assert.deepEqual([waiting.state, waiting.code, waiting.reason], ['waiting', code, 'slowConsumer: too slow']);
    await server.greet();
    assert.equal((await states.next('connecting')).state, 'connecting');
    assert.equal((await states.next('connected')).state, 'connected');
  });
}

test('the wait before a reconnect is random below a bound that doubles up to a limit', async (t) => {
  const bounds = [];
  t.mock.method(Math, 'random', () => 0.5);
  // Nothing listens on port 1 of this host.
  const client = open(t, 'ws://127.0.0.1:1/ws', { backoffMs: 2, backoffMaxMs: 12 });
  const states = events(client, 'state');
  while (bounds.length < 5) {
    const { state, delayMs } = await states.next('an attempt');
    if (state === 'waiting') bounds.push(delayMs);
  }
  assert.deepEqual(bounds, [1, 2, 4, 6, 6]);
});

test('a connection that did not last does not start the backoff anew, one that did does', async (t) => {
  t.mock.method(Math, 'random', () => 0.5);
  for (const [stableMs, expected] of [[60_000, [2.5, 5, 10]], [0, [2.5, 2.5, 2.5]]]) {
    const server = await serve(t);
    const client = open(t, server.url, { backoffMs: 5, backoffMaxMs: 100, stableMs });
    const states = events(client, 'state');
    const delays = [];
    for (let i = 0; i < 3; i += 1) {
      const peer = await server.greet();
      await states.until('connected', ({ state }) => state === 'connected');
      peer.drop();
      delays.push((await states.next('waiting')).delayMs);
    }
    assert.deepEqual(delays, expected);
  }
});

test('a server that stops is left alone for as long as it asks, once', async (t) => {
  t.mock.method(Math, 'random', () => 0.5);
  const { server, peer, states } = await start(t, { backoffMs: 4, backoffMaxMs: 100 });
  peer.send({ reconnect: { afterMs: 7 } });
  peer.close(1001, 'goingAway: the server is stopping');
  assert.equal((await states.next('waiting')).delayMs, 9);
  const next = await server.greet();
  await states.until('connected', ({ state }) => state === 'connected');
  next.send({ reconnect: {} });
  next.close(1001, 'goingAway: the server is stopping');
  assert.equal((await states.next('waiting')).delayMs, 4);
});

test('a server that is silent for its ping interval and the patience is left', async (t) => {
  const server = await serve(t);
  const client = open(t, server.url, { silenceMs: 20 });
  const states = events(client, 'state');
  const peer = await server.greet({ pingMs: 10 });
  await states.until('connected', ({ state }) => state === 'connected');
  const waiting = await states.next('the end of patience');
  assert.deepEqual([waiting.state, waiting.code], ['waiting', 4410]);
  assert.equal(waiting.reason, 'the server was silent for 30 ms');
  await within('the close', peer.closed);
  await server.greet();
});

test('a server that does not answer the hello is left', async (t) => {
  const server = await serve(t);
  const client = open(t, server.url, { openMaxMs: 20 });
  const states = events(client, 'state');
  await server.accept();
  assert.equal((await states.next('waiting')).code, 4410);
  await server.accept();
});

test('pings of the server and what is new are no cause for a warning', async (t) => {
  const { client, peer } = await start(t);
  const warnings = events(client, 'warning');
  peer.send({ ping: {} }, { somethingNew: {} }, { id: 99, pong: {} });
  await peer.settle(client);
  assert.deepEqual(warnings.all(), []);
});

const MALFORMED = ['{', 'null', '{"message":{"topic":7}}', '{"position":{}}', '{"gap":{}}', '{"message":{"topic":"a","offset":1,"time":1,"base64":"?"}}'];
for (const text of MALFORMED) {
  test(`${text} ends the connection and not the client`, async (t) => {
    const { server, client, peer, states } = await start(t);
    const warnings = events(client, 'warning');
    peer.sendText(text);
    const { message, detail } = await warnings.next('a warning');
    assert.deepEqual([message, detail.data], ['an event is not understood', text]);
    const { state, code } = await states.next('the loss');
    assert.deepEqual([state, code], ['waiting', 4410]);
    await server.greet();
    await states.until('connected', ({ state }) => state === 'connected');
  });
}

test('a hello that is refused for ever is the end', async (t) => {
  const server = await serve(t);
  const states = events(open(t, server.url), 'state');
  const peer = await server.accept();
  await peer.refuse('connect', 115, 'notAllowed');
  const { state, error } = await states.next('the end');
  assert.deepEqual([state, error.code, error.name, error.retry], ['closed', 115, 'notAllowed', 'never']);
  assert.equal(await within('the close', peer.closed), 1000);
});

test('the first command shows the token, after a reconnect too', async (t) => {
  const server = await serve(t);
  open(t, server.url, { token: 'a.b.c', name: 'alice' });
  for (let turn = 0; turn < 2; turn++) {
    const peer = await server.accept();
    const { id: _, ...hello } = await peer.expect('connect');
    assert.deepEqual(hello, { token: 'a.b.c', name: 'alice', batch: true });
    peer.close(1012, 'restart: soon back');
  }
});

test('a closed client leaves no timer, no socket and no promise behind', async (t) => {
  const timers = timersOfClient(t);
  const { server, client, peer } = await start(t);
  assert.equal(timers.size, 1);
  const subscription = client.subscribe('a.b');
  const publish = client.publish('a.b', { data: 1 });
  const ping = client.ping();
  client.close();
  client.close();
  await assert.rejects(subscription.ready, { name: 'unsubscribed' });
  await assert.rejects(publish, { name: 'unknown', retry: 'later' });
  await assert.rejects(ping, { name: 'closed' });
  await assert.rejects(client.history('a'), { name: 'closed' });
  assert.equal(await within('the close', peer.closed), 1000);
  assert.equal(client.state, 'closed');
  assert.equal(timers.size, 0);

  const waiting = open(t, server.url);
  const states = events(waiting, 'state');
  (await server.greet()).drop();
  await states.until('waiting', ({ state }) => state === 'waiting');
  assert.equal(timers.size, 1);
  waiting.close();
  assert.equal(timers.size, 0);
  const late = client.subscribe('late', { onEnd: (error) => assert.equal(error.name, 'closed') });
  await assert.rejects(late.ready, { name: 'closed' });
});

test('what nobody looks at is no unhandled rejection', async (t) => {
  const rejections = [];
  const note = (error) => rejections.push(error);
  process.on('unhandledRejection', note);
  t.after(() => process.off('unhandledRejection', note));
  const { client, peer } = await start(t);
  client.subscribe('a.b');
  client.publish('a.b', { data: 1 });
  client.history('a.b');
  client.ping();
  await peer.refuse('subscribe', 101, 'badTopic');
  await peer.refuse('publish', 101, 'badTopic');
  client.close();
  await within('the close', peer.closed);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(rejections, []);
});

test('what a handler throws reaches the process and stops nobody else', async (t) => {
  const { client, peer } = await start(t);
  const thrown = [];
  t.mock.method(globalThis, 'queueMicrotask', (task) => {
    try {
      task();
    } catch (error) {
      thrown.push(error.message);
    }
  });
  const seen = [];
  client.subscribe('a.b', {
    onMessage: ({ offset }) => {
      seen.push(offset);
      if (offset === 1) throw new Error('mine');
    },
  });
  await peer.accept({ position: { epoch: 'e', offset: 0 } });
  peer.messages('a.b', 1, 2);
  await peer.settle(client);
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(thrown, ['mine']);
});

test('a client that cannot be made says why', () => {
  const { WebSocket } = globalThis;
  try {
    delete globalThis.WebSocket;
    assert.throws(() => connect('ws://127.0.0.1/ws'), { message: /there is no WebSocket here/ });
  } finally {
    if (WebSocket) globalThis.WebSocket = WebSocket;
  }
});

/** The timers that the client has and that have neither been cleared nor run. */
function timersOfClient(t) {
  const { setTimeout, clearTimeout } = globalThis;
  const timers = new Set();
  t.mock.method(globalThis, 'setTimeout', (task, ...rest) => {
    const [caller] = /\/js\/src\/|fake\.js|\/ws\//.exec(new Error().stack) ?? [];
    if (caller !== '/js/src/') return setTimeout(task, ...rest);
    const timer = setTimeout(() => timers.delete(timer) && task(), ...rest);
    timers.add(timer);
    return timer;
  });
  t.mock.method(globalThis, 'clearTimeout', (timer) => {
    timers.delete(timer);
    clearTimeout(timer);
  });
  return timers;
}
