// Tokens that are asked for, shown again in time, or cannot be had; and hosts that sleep and move.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, FanfareError } from '../src/fanfare.js';
import { events, open, serve, within } from './fake.js';

const HELLO = { connection: '0-1', server: 's', pingMs: 25_000 };
const isIn = (state) => (event) => event.state === state;

test('a function is asked for a token for each connection', async (t) => {
  const server = await serve(t);
  let asked = 0;
  open(t, server.url, { token: async () => `token ${(asked += 1)}`, transport: 'websocket' });
  for (const token of ['token 1', 'token 2', 'token 3']) {
    const peer = await server.accept();
    assert.equal((await peer.expect('connect')).token, token);
    peer.close(4401, 'tokenExpired: the token has expired');
  }
});

test('a token that cannot be had is asked for again, unless that is for ever', async (t) => {
  const server = await serve(t);
  const failures = [new Error('offline'), new FanfareError(0, 'loggedOut', 'never', 'nobody is logged in')];
  const client = open(t, server.url, {
    token: () => {
      throw failures.shift();
    },
  });
  const [states, warnings] = [events(client, 'state'), events(client, 'warning')];
  const { message, detail } = await warnings.next('a warning');
  assert.deepEqual([message, detail.message], ['there is no token', 'offline']);
  assert.equal((await states.until('waiting', isIn('waiting'))).reason, 'there is no token');
  const { error } = await states.until('the end', isIn('closed'));
  assert.equal(error.name, 'loggedOut');
});

test('a token is shown again before it expires, and again when that is refused', async (t) => {
  const server = await serve(t);
  let asked = 0;
  const client = open(t, server.url, { token: () => `token ${(asked += 1)}` });
  const warnings = events(client, 'warning');
  const { setTimeout } = globalThis;
  const waits = [];
  t.mock.method(globalThis, 'setTimeout', (task, ms, ...rest) => {
    if (!/\/js\/src\/link/.test(new Error().stack) || ms === 35_000) return setTimeout(task, ms, ...rest);
    waits.push(ms);
    return setTimeout(task, 1, ...rest);
  });
  const peer = await server.accept();
  const { id } = await peer.expect('connect');
  peer.send({ id, connected: { ...HELLO, expiresMs: 60_000 } });
  const first = await peer.expect('refresh');
  assert.deepEqual([first.id, first.token, waits.pop()], [id, 'token 2', 48_000]);
  peer.send({ id, error: { code: 115, name: 'notAllowed', retry: 'never', message: 'another subject' } });
  assert.equal((await warnings.next('a warning')).detail.name, 'notAllowed');
  const second = await peer.expect('refresh');
  assert.deepEqual([second.token, waits.pop()], ['token 3', 8_000]);
  // As long as a token may live, it is shown again every hour.
  peer.send({ id, refreshed: { expiresMs: 10 ** 12 } });
  assert.equal((await peer.expect('refresh')).token, 'token 4');
  assert.equal(waits.pop(), 3_600_000);
  peer.send({ id, refreshed: {} });
  await peer.settle(client);
  assert.deepEqual([client.state, waits], ['connected', []]);
});

test('a token that is a value and has expired is the end', async (t) => {
  const server = await serve(t);
  for (const end of [(peer) => peer.close(4401, 'tokenExpired: the token has expired'), (peer) => peer.refuse('connect', 4401, 'tokenExpired', 'refresh')]) {
    const client = open(t, server.url, { token: 'old' });
    const states = events(client, 'state');
    await end(await server.accept());
    const { error } = await states.until('the end', isIn('closed'));
    assert.deepEqual([error.code, error.name], [4401, 'tokenExpired']);
  }
});

/** A host whose events the test makes. */
function host(t) {
  const target = new EventTarget();
  for (const verb of ['addEventListener', 'removeEventListener']) {
    globalThis[verb] = target[verb].bind(target);
    t.after(() => delete globalThis[verb]);
  }
  globalThis.document = { hidden: false };
  t.after(() => delete globalThis.document);
  return { says: (type) => target.dispatchEvent(new Event(type)), document: globalThis.document };
}

/** A client over a WebSocket that says what the test says. */
function start(t, options) {
  const sockets = [];
  class Socket {
    sent = [];
    constructor() {
      sockets.push(this);
    }
    send(frame) {
      this.sent.push(JSON.parse(frame));
    }
    close() {}
    welcome() {
      this.onopen({});
      this.onmessage({ data: JSON.stringify({ id: this.sent[0].id, connected: HELLO }) });
    }
  }
  const client = connect('ws://h/ws', { WebSocket: Socket, backoffMs: 60_000, transport: 'websocket', ...options });
  t.after(() => client.close());
  return { client, sockets };
}

for (const type of ['online', 'offline', 'pageshow', 'visibilitychange']) {
  test(`on ${type} a server must show that it is still there`, (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
    const { says, document } = host(t);
    const { client, sockets } = start(t, { wakeMs: 500 });
    sockets[0].welcome();
    document.hidden = true;
    says(type);
    assert.equal(sockets[0].sent.length, 1);
    document.hidden = false;
    says(type);
    const { id, ...ping } = sockets[0].sent[1];
    assert.deepEqual(ping, { ping: {} });
    t.mock.timers.tick(400);
    sockets[0].onmessage({ data: JSON.stringify({ id, pong: {} }) });
    t.mock.timers.tick(20_000);
    assert.equal(client.state, 'connected');
    says(type);
    t.mock.timers.tick(500);
    assert.equal(client.state, 'waiting');
    // And nobody waits for the backoff of a host that is awake.
    says(type);
    assert.deepEqual([client.state, sockets.length], ['connecting', 2]);
  });
}

test('after a sleep in which timers stood still the connection is not trusted', (t) => {
  let wall = 0;
  t.mock.method(Date, 'now', () => wall);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { client, sockets } = start(t);
  sockets[0].welcome();
  wall = 20_000;
  sockets[0].onmessage({ data: '{"ping":{}}' });
  wall = 3_600_000;
  t.mock.timers.tick(35_000);
  assert.equal(client.state, 'waiting');
});

test('names that every object has are no events, no actions and no topics', async (t) => {
  const { client, sockets } = start(t);
  const [socket] = sockets;
  socket.welcome();
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty'];
  for (const name of names) client.subscribe(name, { onMessage: () => {} });
  for (const { id, subscribe } of socket.sent.slice(1)) socket.onmessage({ data: JSON.stringify({ id, subscribed: { topic: subscribe.topic, position: { epoch: 'e', offset: 0 } } }) });
  for (const name of names) {
    socket.onmessage({ data: `{"${name}":{"topic":"a","polluted":true}}` });
    socket.onmessage({ data: `{"message":{"topic":"${name}","offset":1,"time":1,"key":"${name}","data":{"${name}":{"polluted":true}},"__proto__":{"polluted":true}}}` });
  }
  await within('the turn', Promise.resolve());
  assert.deepEqual([client.state, {}.polluted, Object.polluted], ['connected', undefined, undefined]);
});
