// What depends on the very moment: a WebSocket that speaks when the test says so, and a clock that does too.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../src/fanfare.js';
import { at, recorder } from './fake.js';

test('a server that speaks is kept, and left when it stops', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const { client, socket } = start(t, { silenceMs: 50 });
  for (let i = 0; i < 5; i += 1) {
    t.mock.timers.tick(140);
    socket.hear({ ping: {} });
  }
  t.mock.timers.tick(149);
  assert.equal(client.state, 'connected');
  t.mock.timers.tick(1);
  assert.equal(client.state, 'waiting');
});

test('a host that is online again does not wait any longer', (t) => {
  const target = new EventTarget();
  globalThis.addEventListener = target.addEventListener.bind(target);
  globalThis.removeEventListener = target.removeEventListener.bind(target);
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  const [added, removed] = ['add', 'remove'].map((verb) => t.mock.method(globalThis, `${verb}EventListener`));
  const { client, socket } = start(t);
  target.dispatchEvent(new Event('online'));
  assert.equal(client.state, 'connected');
  socket.onclose({ code: 1006, reason: '' });
  assert.equal(client.state, 'waiting');
  target.dispatchEvent(new Event('online'));
  assert.equal(client.state, 'connecting');
  client.close();
  assert.equal(removed.mock.callCount(), added.mock.callCount());
});

test('a subscription made in a handler gets the snapshot and what follows, each once', async (t) => {
  const { client, socket } = start(t);
  const { told, options } = recorder();
  const onMessage = ({ offset }) => offset === 1 && client.subscribe('a.b', { ...options, snapshot: true });
  client.subscribe('a.b', { snapshot: true, onMessage });
  socket.answer('subscribed', { topic: 'a.b', position: at('e', 0) });
  socket.hear({ snapshotEnd: { topic: 'a.b', positions: [] } });
  for (const offset of [1, 2]) socket.hear({ message: { topic: 'a.b', offset, time: 1, data: 1 } });
  await Promise.resolve();
  socket.hear({ message: { topic: 'a.b', offset: 3, time: 1, data: 1 } });
  assert.deepEqual(told, ['a.b 2', 'snapshotEnd', 'a.b 3']);
});

test('a refusal that comes too late does not end the subscription that came after it', (t) => {
  const { client, socket } = start(t);
  const { told, options } = recorder();
  client.subscribe('a.b').unsubscribe();
  client.subscribe('a.b', options);
  const [first, , third] = socket.sent.slice(-3);
  const error = { code: 109, name: 'tooManySubscriptions', retry: 'never', message: 'too many' };
  socket.hear({ id: first.id, error });
  socket.hear({ id: third.id, subscribed: { topic: 'a.b', position: at('e', 0) } });
  socket.hear({ message: { topic: 'a.b', offset: 1, time: 1, data: 1 } });
  assert.deepEqual(told, ['a.b 1']);
});

test('a subscription that waits to be tried again does not outlive the client', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { client, socket } = start(t);
  client.subscribe('a.b');
  const cleared = t.mock.method(globalThis, 'clearTimeout');
  const set = t.mock.method(globalThis, 'setTimeout');
  socket.hear({ id: socket.sent.at(-1).id, error: { code: 117, name: 'overloaded', retry: 'later', message: '' } });
  const [{ result: timer }] = set.mock.calls;
  client.close();
  assert.ok(cleared.mock.calls.some((call) => call.arguments[0] === timer));
});

test('after a snapshot that held nothing, the positions are those of its end', (t) => {
  const { client, socket } = start(t);
  const subscription = client.subscribe('a.b', { last: 10 });
  socket.answer('subscribed', { topic: 'a.b', position: at('e', 44) });
  const end = [{ topic: 'a.b', epoch: 'e', offset: 44 }];
  socket.hear({ snapshotEnd: { topic: 'a.b', positions: end } });
  assert.deepEqual(subscription.positions, end);
});

test('of what comes first only the gaps are told', (t) => {
  const { client, socket } = start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', { ...options, last: 5 });
  socket.answer('subscribed', { topic: 'a.b', position: at('e', 9) });
  socket.hear({ message: { topic: 'a.b', offset: 5, time: 1, data: 1 } });
  socket.hear({ message: { topic: 'a.b', offset: 7, time: 1, data: 1 } });
  socket.hear({ gap: { topic: 'a.b', from: 8, to: 8, count: 1, reason: 'slow' } });
  socket.hear({ snapshotEnd: { topic: 'a.b', positions: [{ topic: 'a.b', epoch: 'e', offset: 9 }] } });
  socket.hear({ message: { topic: 'a.b', offset: 11, time: 1, data: 1 } });
  assert.deepEqual(told, ['a.b 5', 'a.b 7', 'gap a.b 8-8 1 slow', 'snapshotEnd', 'gap a.b 10-10 1 lost', 'a.b 11']);
});

test('a gap that is all that comes of a replay is told', (t) => {
  const { client, socket } = start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', { ...options, last: 5 });
  socket.answer('subscribed', { topic: 'a.b', position: at('e', 9) });
  socket.hear({ gap: { topic: 'a.b', from: 5, to: 9, count: 5, reason: 'slow' } });
  assert.deepEqual(told, ['gap a.b 5-9 5 slow']);
});

test('who joins a snapshot is told what is missing after it', async (t) => {
  const { client, socket } = start(t);
  client.subscribe('a.b', { snapshot: true, onMessage: () => {} });
  socket.answer('subscribed', { topic: 'a.b', position: at('e', 2) });
  socket.hear({ message: { topic: 'a.b', offset: 2, time: 1, data: 1 } });
  socket.hear({ snapshotEnd: { topic: 'a.b', positions: [{ topic: 'a.b', epoch: 'e', offset: 2 }] } });
  socket.hear({ gap: { topic: 'a.b', from: 3, to: 3, count: 1, reason: 'slow' } });
  socket.hear({ gap: { topic: 'a.b', from: 4, to: 6, count: 3, reason: 'slow' } });
  const { told, options } = recorder();
  client.subscribe('a.b', { ...options, snapshot: true });
  await Promise.resolve();
  socket.hear({ message: { topic: 'a.b', offset: 7, time: 1, data: 1 } });
  assert.deepEqual(told, ['a.b 2', 'gap a.b 3-6 4 slow', 'snapshotEnd', 'a.b 7']);
  const later = recorder();
  client.subscribe('a.b', { ...later.options, snapshot: true });
  await Promise.resolve();
  assert.deepEqual(later.told, ['a.b 7', 'snapshotEnd']);
});

test('a yes to a place behind is not believed', (t) => {
  const { client, socket } = start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', { ...options, since: at('e', 7) });
  socket.answer('subscribed', { topic: 'a.b', position: at('e', 3), recovered: true });
  socket.hear({ message: { topic: 'a.b', offset: 4, time: 1, data: 1 } });
  assert.deepEqual(told, ['anew a.b epochChanged', 'a.b 4']);
});

test('topics that cannot be resumed are followed all the same', (t) => {
  const { client, socket } = start(t, { positionsMax: 1 });
  const { told, options } = recorder();
  client.subscribe('a.*', { ...options, snapshot: true });
  socket.answer('subscribed', { topic: 'a.*' });
  for (const [topic, offset] of [['a.b', 1], ['a.c', 1], ['a.b', 1], ['a.b', 3]]) {
    socket.hear({ message: { topic, offset, time: 1, data: 1 } });
  }
  assert.deepEqual(told, ['a.b 1', 'a.c 1', 'a.b 3']);
});

test('who would join an incomplete snapshot is refused', async (t) => {
  const { client, socket } = start(t, { positionsMax: 1 });
  client.subscribe('a.*', { snapshot: true, onMessage: () => {} });
  socket.answer('subscribed', { topic: 'a.*' });
  for (const topic of ['a.b', 'a.c']) socket.hear({ message: { topic, offset: 1, time: 1, data: 1 } });
  await assert.rejects(client.subscribe('a.*', { snapshot: true }).ready, { name: 'alreadySubscribed' });
});

test('an option that is undefined is one that was not given', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  t.mock.method(Math, 'random', () => 1);
  const { client, socket } = start(t, { backoffMs: undefined, queueMax: undefined });
  const delays = [];
  client.on('state', ({ delayMs }) => delays.push(delayMs));
  socket.onclose({ code: 1006, reason: '' });
  assert.deepEqual(delays, [500]);
});

/** A client with a connection that hears what the test says, at once. */
function start(t, options) {
  class Direct {
    static latest;
    sent = [];

    constructor() {
      Direct.latest = this;
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close() {}

    hear(event) {
      this.onmessage({ data: JSON.stringify(event) });
    }

    /** Answers the latest command. */
    answer(kind, body) {
      this.hear({ id: this.sent.at(-1).id, [kind]: body });
    }
  }
  const client = connect('ws://nowhere/ws', { WebSocket: Direct, ...options });
  t.after(() => client.close());
  const socket = Direct.latest;
  socket.onopen();
  socket.answer('connected', { pingMs: 100 });
  return { client, socket };
}
