// Against a real broker: the program that FANFARE_BIN names.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import WebSocket from 'ws';
import { Inbox, events, open, recorder, within } from './fake.js';

const { FANFARE_BIN } = process.env;
assert.ok(FANFARE_BIN, 'FANFARE_BIN must name the broker to test against');

test('publish, subscribe, snapshot and history', async (t) => {
  const broker = await serve(t);
  const client = open(t, broker.url);
  const { server } = await events(client, 'state').until('connected', ({ state }) => state === 'connected');
  assert.match(server, /^fanfare\/\d/);
  const first = await within('published', client.publish('room.1', { data: { x: [1, null] }, key: 'k' }));
  assert.deepEqual([first.offset, first.durability], [1, 'memory']);
  const again = { text: 'é', idempotencyKey: 'once' };
  const second = await within('published', client.publish('room.1', again));
  assert.deepEqual(await within('the same answer', client.publish('room.1', again)), second);
  await client.publish('room.1', { binary: Uint8Array.of(0, 255) });

  const payloads = new Inbox();
  client.subscribe('room.>', { last: 3, onMessage: (message) => payloads.push(message), onSnapshotEnd: () => payloads.push('end') });
  const got = [];
  for (let i = 0; i < 4; i += 1) got.push(await payloads.next('a message'));
  assert.deepEqual(got.map(({ data, text, binary, key }) => data ?? text ?? binary ?? key), [
    { x: [1, null] }, 'é', Uint8Array.of(0, 255), undefined,
  ]);
  assert.deepEqual([got[0].key, got[3]], ['k', 'end']);

  const page = await within('the page', client.history('room.1', { since: first, limit: 1 }));
  assert.deepEqual([page.messages.map(({ offset }) => offset), page.more, page.top.offset], [[2], true, 3]);
  assert.equal(page.messages[0].epoch, first.epoch);
  await assert.rejects(within('the refusal', client.publish('a..b', { data: 1 })), { code: 101, name: 'badTopic' });
  await assert.rejects(within('the refusal', client.history('room.1', { since: { ...first, offset: 99 } })), FanfareErrorLike);
  assert.ok((await within('the pong', client.ping())) >= 0);
});

test('after a dropped socket nothing is lost and nothing is doubled', async (t) => {
  const broker = await serve(t);
  const sockets = [];
  class Dropped extends WebSocket {
    constructor(...args) {
      super(...args);
      sockets.push(this);
    }
  }
  const subscriber = open(t, broker.url, { WebSocket: Dropped });
  const publisher = open(t, broker.url);
  const states = events(subscriber, 'state');
  const [exact, filter] = [recorder(), recorder()];
  const seen = new Inbox();
  const both = [
    subscriber.subscribe('room.1', { ...exact.options, onMessage: (m) => (exact.options.onMessage(m), seen.push(m)) }),
    subscriber.subscribe('room.*', { ...filter.options, onMessage: (m) => (filter.options.onMessage(m), seen.push(m)) }),
  ];
  await within('ready', Promise.all(both.map(({ ready }) => ready)));
  const publish = (n) => within('published', publisher.publish('room.1', { data: n }));
  const both_saw = async (n) => {
    await seen.until('a message', ({ data }) => data === n);
    await seen.until('a message', ({ data }) => data === n);
  };
  await publish(1);
  await both_saw(1);
  for (let round = 0; round < 5; round += 1) {
    sockets.at(-1).terminate();
    await states.until('waiting', ({ state }) => state === 'waiting');
    for (let i = 0; i < 10; i += 1) await publish(2 + round * 10 + i);
    await both_saw(11 + round * 10);
  }
  const expected = ['room.1 1'];
  for (let round = 0; round < 5; round += 1) {
    expected.push('recovered room.1');
    for (let i = 2 + round * 10; i < 12 + round * 10; i += 1) expected.push(`room.1 ${i}`);
  }
  // A round's messages may come after the reconnect, so only their order is certain.
  for (const { told } of [exact, filter]) {
    const messages = (lines) => lines.filter((line) => line.startsWith('room.1'));
    assert.deepEqual(messages(told), messages(expected));
    assert.deepEqual(told.filter((line) => !line.startsWith('room.1')), Array(5).fill('recovered room.1'));
  }
});

test('after a broker that was killed and started again the client is told and goes on', async (t) => {
  const first = await serve(t);
  const client = open(t, first.url);
  const [exact, filter] = [new Inbox(), new Inbox()];
  for (const [topic, inbox] of [['room.1', exact], ['room.>', filter]]) {
    const push = (event) => inbox.push(event);
    await within('ready', client.subscribe(topic, { snapshot: true, onMessage: push, onGap: push, onRecovered: push }).ready);
  }
  const before = await within('published', client.publish('room.1', { data: 'before' }));
  for (const inbox of [exact, filter]) assert.equal((await inbox.next('a message')).data, 'before');
  await first.kill();
  const waiting = client.publish('room.1', { data: 'meanwhile' });
  await serve(t, first.port);
  const meanwhile = await within('published', waiting);
  assert.notEqual(meanwhile.epoch, before.epoch);
  for (const inbox of [exact, filter]) {
    assert.deepEqual(await inbox.next('a recovery'), { topic: 'room.1', recovered: false, reason: 'epochChanged' });
    const { offset, data, epoch } = await inbox.next('a message');
    assert.deepEqual({ offset, data, epoch }, { offset: 1, data: 'meanwhile', epoch: meanwhile.epoch });
  }
  await within('published', client.publish('room.1', { data: 'after' }));
  for (const inbox of [exact, filter]) assert.equal((await inbox.next('a message')).data, 'after');
});

const FanfareErrorLike = (error) => typeof error.code === 'number' && error.code > 0;

/** Starts a broker that ends with the test. */
async function serve(t, port = 0) {
  const args = ['serve', '--listen', `127.0.0.1:${port}`, '--ingress', 'off', '--admin', 'off', '--log-format', 'json'];
  const broker = spawn(FANFARE_BIN, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((resolve) => broker.once('close', resolve));
  const kill = async () => {
    broker.kill('SIGKILL');
    await within('the end of the broker', ended);
  };
  t.after(kill);
  const log = new Inbox();
  createInterface({ input: broker.stderr }).on('line', (line) => log.push(line));
  const line = await log.until('the address', (text) => text.includes('listening for WebSocket and HTTP'));
  const [, listening] = /"address":"127\.0\.0\.1:(\d+)"/.exec(line) ?? assert.fail(line);
  return { port: Number(listening), url: `ws://127.0.0.1:${listening}/ws`, kill };
}
