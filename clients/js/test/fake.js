// A server whose every word the test writes, and waits that end.
// Owns the deadline: whatever a test waits for comes within it, or the test says what did not come.
// Not here: any knowledge of what a right answer would be.

import assert from 'node:assert/strict';
import WebSocket, { WebSocketServer } from 'ws';
import { connect } from '../src/fanfare.js';

const DEADLINE_MS = 10_000;

/** Gives what is pushed, in order, to whoever waits for it. */
export class Inbox {
  #items = [];
  #waiters = [];

  push(item) {
    const waiter = this.#waiters.shift();
    if (waiter) waiter(item);
    else this.#items.push(item);
  }

  /** Takes what has come, without waiting. */
  all() {
    return this.#items.splice(0);
  }

  next(what) {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift());
    return within(what, new Promise((resolve) => this.#waiters.push(resolve)));
  }

  /** The next one that fits; those before it are dropped. */
  async until(what, fits) {
    for (;;) {
      const item = await this.next(what);
      if (fits(item)) return item;
    }
  }
}

export async function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** One connection as the server sees it. */
class Peer {
  #socket;
  #commands = new Inbox();
  closed;

  constructor(socket) {
    this.#socket = socket;
    this.protocol = socket.protocol;
    this.closed = new Promise((resolve) => socket.on('close', (code) => resolve(code)));
    socket.on('message', (text) => this.#commands.push(JSON.parse(text)));
  }

  /** The body of the next command, which must be this one; its id is among its fields. */
  async expect(action) {
    const { id, ...command } = await this.#commands.next(`the command ${action}`);
    assert.deepEqual(Object.keys(command), [action]);
    return { id, ...command[action] };
  }

  /** Commands that have come and that nobody has looked at. */
  unread() {
    return this.#commands.all();
  }

  async hello(hello = { connection: '0-1', server: 'fanfare/0.0.0', pingMs: 25_000 }) {
    const { id } = await this.expect('connect');
    this.send({ id, connected: hello });
  }

  /** Answers a subscription. */
  async accept(answer = {}) {
    const command = await this.expect('subscribe');
    this.send({ id: command.id, subscribed: { topic: command.topic, ...answer } });
    return command;
  }

  async refuse(action, code, name, retry = 'never') {
    const command = await this.expect(action);
    this.send({ id: command.id, error: { code, name, retry, message: `refused: ${name}` } });
    return command;
  }

  send(...events) {
    for (const event of events) this.#socket.send(JSON.stringify(event));
  }

  /** Sends events in one message, as a server does that has said `batch: true`. */
  sendBatch(...events) {
    this.sendText(events.map((event) => `${JSON.stringify(event)}\n`).join(''));
  }

  sendText(text) {
    this.#socket.send(text);
  }

  messages(topic, ...offsets) {
    for (const offset of offsets) this.send({ message: { topic, offset, time: 1, data: offset } });
  }

  /** Waits until the client has handled all that was sent to it. */
  async settle(client) {
    const pong = client.ping();
    const { id } = await this.expect('ping');
    this.send({ id, pong: {} });
    await within('the pong', pong);
  }

  drop() {
    this.#socket.terminate();
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }
}

/** Starts a server that ends with the test. */
export async function serve(t) {
  const peers = new Inbox();
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  server.on('connection', (socket) => peers.push(new Peer(socket)));
  await within('the server', new Promise((resolve) => server.once('listening', resolve)));
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  return {
    url: `ws://127.0.0.1:${server.address().port}/ws`,
    accept: () => peers.next('a connection'),
    /** The next connection, greeted. */
    async greet(hello) {
      const peer = await peers.next('a connection');
      await peer.hello(hello);
      return peer;
    },
  };
}

/** A client that ends with the test and does not wait long before it reconnects. */
export function open(t, url, options = {}) {
  const client = connect(url, { WebSocket, backoffMs: 5, backoffMaxMs: 20, ...options });
  t.after(() => client.close());
  return client;
}

/** A client with its first connection. */
export async function start(t, options) {
  const server = await serve(t);
  const client = open(t, server.url, options);
  const states = events(client, 'state');
  const peer = await server.greet();
  await states.until('connected', ({ state }) => state === 'connected');
  return { server, client, peer, states };
}

export function events(client, kind) {
  const inbox = new Inbox();
  client.on(kind, (event) => inbox.push(event));
  return inbox;
}

/** Options that write down all that a subscription tells. */
export function recorder() {
  const told = [];
  return {
    told,
    options: {
      onMessage: ({ topic, offset }) => told.push(`${topic} ${offset}`),
      onGap: ({ topic, from, to, count, reason }) => told.push(`gap ${topic} ${from}-${to} ${count} ${reason}`),
      onRecovered: ({ topic, recovered, reason }) =>
        told.push(recovered ? `recovered ${topic}` : `anew ${topic} ${reason}`),
      onSnapshotEnd: () => told.push('snapshotEnd'),
      onEnd: (error) => told.push(`end ${error?.name}`),
    },
  };
}

export const at = (epoch, offset) => ({ epoch, offset });
