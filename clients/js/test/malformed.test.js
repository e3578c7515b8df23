/** A server that answers anything: nothing throws, every call settles, and the client goes on. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../src/fanfare.js';

/** Values that a field may have instead of what it should. */
const ODD = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  '',
  'a',
  '__proto__',
  [],
  [null],
  {},
  { topic: null },
  { topic: 'a' },
  // What is no primitive value and cannot be made one.
  { toString: 0, valueOf: 0 },
];

const EVENTS = {
  message: { topic: 'a', offset: 1, time: 1, key: 'k', data: 1, base64: 'AA==', deleted: true },
  position: { topic: 'a', epoch: 'e', offset: 1 },
  gap: { topic: 'a', from: 1, to: 2, count: 1, reason: 'slow' },
  snapshotEnd: { topic: 'a', positions: [{ topic: 'a', epoch: 'e', offset: 1 }] },
  unsubscribed: { topic: 'b' },
  presenceState: { topic: 'a', count: 1, members: [{ connection: 'c', name: 'n' }], more: false },
  joined: { topic: 'a', member: { connection: 'c', name: 'n' } },
  left: { topic: 'a', member: { connection: 'c', name: 'n' } },
  stale: { topic: 'a', since: 1 },
  fresh: { topic: 'a' },
  reconnect: { afterMs: 1 },
  error: { code: 1, name: 'x', retry: 'later', message: 'm' },
  ping: {},
};

const ANSWERS = {
  connected: { connection: '1-1', server: 's', pingMs: 1 },
  subscribed: {
    topic: 'a',
    position: { epoch: 'e', offset: 1 },
    recovered: true,
    topics: [{ topic: 'a', recovered: true }],
    policy: 'maxHz',
    maxHz: 1,
    overflow: 'gap',
    stale: true,
  },
  updated: { topic: 'a', policy: 'maxHz', maxHz: 1, overflow: 'gap' },
  presenceState: { topic: 'a', count: 1, members: [{ connection: 'c', name: 'n' }], more: false },
  published: { epoch: 'e', offset: 1, durability: 'memory' },
  historyPage: {
    topic: 'a',
    top: { epoch: 'e', offset: 1 },
    messages: [{ topic: 'a', offset: 1, base64: 'AA==' }],
    more: true,
  },
  pong: {},
  error: { code: 151, name: 'x', retry: 'never', message: 'm' },
};

/** The value, and each way of having one field of it odd. */
function* variants(value) {
  yield value;
  yield* ODD;
  for (const key of Object.keys(value)) {
    const { [key]: _, ...rest } = value;
    yield rest;
    for (const odd of ODD) yield { ...value, [key]: odd };
  }
}

/** A WebSocket that says what the test says. */
class Scripted {
  sent = [];
  close() {}

  send(frame) {
    this.sent.push(JSON.parse(frame));
  }

  receive(event) {
    this.onmessage({ data: JSON.stringify(event) });
  }

  welcome() {
    this.onopen({});
    this.receive({ id: this.sent[0].id, connected: { pingMs: 25_000 } });
  }
}

/** A client with something open, and the socket that it uses. */
function start(t) {
  let socket;
  class Kept extends Scripted {
    constructor() {
      super();
      socket = this;
    }
  }
  const client = connect('ws://h/ws', { WebSocket: Kept });
  t.after(() => client.close());
  const ignore = () => {};
  const handlers = { onMessage: ignore, onPresence: ({ members }) => members.length, onJoined: ({ name }) => name.length };
  const open = client.subscribe('a', { snapshot: true, presence: true, ...handlers });
  client.subscribe('b', { last: 1, since: { epoch: 'e', offset: 1 } });
  client.subscribe('>', { since: [{ topic: 'a', epoch: 'e', offset: 1 }] });
  const calls = [client.publish('a', { data: 1 }), client.history('a'), client.presence('a'), client.ping()];
  calls.push(open.update({ policy: 'latest' }), open.update({ maxHz: 1 }));
  return { client, socket, calls };
}

for (const [kind, event] of Object.entries(EVENTS)) {
  test(`a malformed ${kind} does no harm`, (t) => {
    const states = new Set();
    for (const variant of variants(event)) {
      const { client, socket } = start(t);
      socket.welcome();
      for (const { id, subscribe } of [...socket.sent])
        if (subscribe) socket.receive({ id, subscribed: { topic: subscribe.topic } });
      socket.receive({ [kind]: variant });
      states.add(client.state);
      client.close();
    }
    states.delete('waiting');
    assert.deepEqual([...states], ['connected']);
  });
}

for (const [kind, answer] of Object.entries(ANSWERS)) {
  test(`a malformed ${kind} as an answer does no harm`, async (t) => {
    for (const variant of variants(answer)) {
      const { client, socket, calls } = start(t);
      if (kind === 'connected') {
        socket.onopen({});
        socket.receive({ id: socket.sent[0].id, [kind]: variant });
      } else {
        socket.welcome();
      }
      // What comes now may bring further questions; some rounds of them are enough.
      for (let round = 0, next = 1; round < 3; round += 1) {
        const asked = socket.sent.slice(next);
        next = socket.sent.length;
        for (const { id } of asked) socket.receive({ id, [kind]: variant });
      }
      client.close();
      await Promise.allSettled(calls);
    }
  });
}

test('bytes that are no JSON object end the connection and not the client', (t) => {
  const texts = ['', ' ', '{', '"', '[[[[', 'nul', '\u0000', '{"id":1}{"id":2}'];
  texts.push('{"message":{"topic":"a","offset":9007199254740993}}');
  for (const data of [...texts, undefined, new ArrayBuffer(3), { data: 1 }]) {
    const { client, socket } = start(t);
    socket.welcome();
    socket.onmessage({ data });
    assert.equal(client.state, 'waiting', String(data));
    client.close();
  }
});
