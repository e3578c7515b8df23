// Against a real broker: the program that FANFARE_BIN names.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

test('a broker joins messages, and subscriptions see them one by one', async (t) => {
  const broker = await serve(t);
  let received = 0;
  class Counted extends WebSocket {
    constructor(...args) {
      super(...args);
      this.on('message', () => (received += 1));
    }
  }
  const subscriber = open(t, broker.url, { WebSocket: Counted });
  const publisher = open(t, broker.url);
  const warnings = events(subscriber, 'warning');
  const [{ told, options }, seen] = [recorder(), new Inbox()];
  const feed = subscriber.subscribe('room.1', { ...options, onMessage: (m) => (options.onMessage(m), seen.push(m)) });
  await within('ready', feed.ready);
  received = 0;
  const drafts = Array.from({ length: 500 }, (_, n) => publisher.publish('room.1', { data: n }));
  await within('published', Promise.all(drafts));
  await seen.until('the last message', ({ data }) => data === 499);
  assert.deepEqual(told, drafts.map((_, n) => `room.1 ${n + 1}`));
  assert.ok(received < 500, `${received} messages for 500 events`);
  assert.deepEqual(warnings.all(), []);
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

test('a policy paces a subscription, and is changed while messages flow', async (t) => {
  const broker = await serve(t);
  const [publisher, client] = [open(t, broker.url), open(t, broker.url)];
  const told = [];
  const latest = new Inbox();
  const subscription = client.subscribe('feed', {
    maxHz: 1,
    onMessage: ({ offset, key, data }) => {
      told.push({ offset, key, data });
      latest.push(data);
    },
    onGap: (gap) => told.push(gap),
  });
  await within('ready', subscription.ready);
  assert.deepEqual([subscription.policy, subscription.maxHz], ['maxHz', 1]);
  const publish = (n) => Promise.all(Array.from({ length: 20 }, (_, i) => publisher.publish('feed', { key: `k${i % 2}`, data: n + i })));

  // The first at once, then the last of each key.
  await within('published', publish(0));
  await latest.until('the last message', (data) => data === 19);
  assert.deepEqual(told.splice(0).map(({ data }) => data), [0, 18, 19]);

  // The latest of what is held back comes with the change, and then everything.
  await within('published', publish(100));
  const granted = await within('the grant', subscription.update({ policy: 'all' }));
  assert.deepEqual([granted.policy, granted.overflow], ['all', 'catchUp']);
  await latest.until('the last message', (data) => data === 119);
  const late = told.splice(0).map(({ data }) => data);
  assert.deepEqual(late, Array.from({ length: late.length }, (_, i) => 120 - late.length + i));
  await within('published', publish(200));
  await latest.until('the last message', (data) => data === 219);
  assert.deepEqual(told.splice(0).map(({ data }) => data), Array.from({ length: 20 }, (_, i) => 200 + i));
  await assert.rejects(within('the refusal', subscription.update({ maxHz: 5_000 })), { code: 105, name: 'badOption' });
  assert.equal(subscription.policy, 'all');
  assert.deepEqual(subscription.positions.map(({ offset }) => offset), [60]);
});

test('who reads slowly gets the latest of each key, or everything later, or is told what is missing', async (t) => {
  const broker = await serve(t, 0, '[limits]\noutbound_bytes_max = "64 KiB"\n[topics.history]\nbytes = "64 MiB"\nmessages = 4000\n');
  const publisher = open(t, broker.url);
  const text = 'x'.repeat(20_000);
  const readers = [{ policy: 'latest' }, { overflow: 'catchUp' }, { overflow: 'gap' }].map((terms) => {
    let socket;
    class Kept extends WebSocket {
      constructor(...args) {
        super(...args);
        socket = this;
      }
    }
    const { told, options } = recorder();
    const subscription = open(t, broker.url, { WebSocket: Kept }).subscribe('feed', { ...options, ...terms });
    return { told, subscription, pause: () => socket.pause(), resume: () => socket.resume() };
  });
  await within('ready', Promise.all(readers.map(({ subscription }) => subscription.ready)));
  for (const { pause } of readers) pause();
  const total = 1_000;
  for (let i = 0; i < total; i += 100) {
    await within('published', Promise.all(Array.from({ length: 100 }, () => publisher.publish('feed', { key: 'k', text }))));
  }
  for (const { resume } of readers) resume();
  const [latest, catchUp, gap] = readers;
  const atTop = ({ subscription: { positions } }) => positions[0]?.offset === total;
  await within('the last message', (async () => {
    while (!readers.every(atTop)) await new Promise((resolve) => setTimeout(resolve, 20));
  })());
  assert.ok(latest.told.every((line) => line.startsWith('feed')) && latest.told.at(-1) === `feed ${total}`);
  assert.ok(latest.told.length < total, 'some were passed over');
  assert.deepEqual(catchUp.told, Array.from({ length: total }, (_, i) => `feed ${i + 1}`));
  assert.ok(gap.told.some((line) => /^gap feed \d+-\d+ \d+ slow$/.test(line)), 'what is missing was told');
  assert.ok(gap.told.every((line) => !line.endsWith('lost')));
});

test('rules: a cap, a snapshot of keys, deletes, presence, staleness and time to live', async (t) => {
  const rules = [
    '{ filter = "paced.*", max_hz = 2 }',
    '{ filter = "table", snapshot = "keys" }',
    '{ filter = "room", presence = true }',
    '{ filter = "pulse.*", stale_after = "1s" }',
  ];
  const broker = await serve(t, 0, `[topics]\nrules = [${rules}]\n`);
  const client = open(t, broker.url, { name: 'ann' });
  const publish = (topic, draft) => within('published', client.publish(topic, draft));

  await t.test('a cap', async (t) => {
    const capped = client.subscribe('paced.one', { policy: 'all' });
    const filter = client.subscribe('paced.*');
    const wide = open(t, broker.url).subscribe('>');
    await within('ready', Promise.all([capped.ready, filter.ready, wide.ready]));
    assert.deepEqual([capped.policy, capped.maxHz], ['maxHz', 2]);
    assert.deepEqual([filter.policy, filter.maxHz], ['maxHz', 2]);
    // Single topics get less than a filter that reaches further is told.
    assert.equal(wide.policy, 'all');
    const told = [];
    const paced = open(t, broker.url);
    paced.on('gap', (gap) => told.push(gap));
    const seen = new Inbox();
    paced.subscribe('>', { onMessage: ({ topic, data }) => topic === 'paced.two' && seen.push(data) });
    await within('a pong', paced.ping());
    await Promise.all(Array.from({ length: 10 }, (_, data) => publish('paced.two', { data })));
    assert.deepEqual([await seen.next('the first'), await seen.next('the last')], [0, 9]);
    assert.deepEqual(told, []);
  });

  await t.test('a snapshot of keys, without those that were deleted', async () => {
    for (const key of ['a', 'b', 'c', 'a']) await publish('table', { key, data: key });
    await publish('table', { key: 'b', delete: true });
    const rows = new Inbox();
    const options = { snapshot: true, onMessage: (row) => rows.push(row), onSnapshotEnd: () => rows.push('end') };
    const live = client.subscribe('table', options);
    const row = async () => {
      const { key, offset, deleted } = await rows.next('a row');
      return [key, offset, deleted];
    };
    assert.deepEqual([await row(), await row()], [['c', 3, undefined], ['a', 4, undefined]]);
    assert.equal(await rows.next('the end'), 'end');
    assert.equal(live.positions[0].offset, 5);
    await publish('table', { key: 'c', delete: true });
    assert.deepEqual(await row(), ['c', 6, true]);
    await assert.rejects(client.publish('table', { key: 'c'.repeat(300), delete: true }), { name: 'badKey' });
  });

  await t.test('presence', async (t) => {
    const told = new Inbox();
    client.subscribe('room', {
      presence: true,
      onPresence: ({ count, members }) => told.push(['there', count, members.map(({ name }) => name)]),
      onJoined: ({ name }) => told.push(['joined', name]),
      onLeft: ({ name }) => told.push(['left', name]),
    });
    assert.deepEqual(await told.until('who is there', ([what]) => what === 'there'), ['there', 1, ['ann']]);
    const bob = open(t, broker.url, { name: 'bob' });
    await within('ready', bob.subscribe('room').ready);
    assert.deepEqual(await told.until('who joins', ([, name]) => name === 'bob'), ['joined', 'bob']);
    const { members, more } = await within('the answer', client.presence('room'));
    assert.deepEqual([members.map(({ name }) => name).sort(), more], [['ann', 'bob'], false]);
    bob.close();
    assert.deepEqual(await told.next('who leaves'), ['left', 'bob']);
    await assert.rejects(within('the refusal', client.presence('table')), { name: 'notAllowed' });
  });

  await t.test('staleness', async () => {
    const told = new Inbox();
    const options = {
      onStale: ({ topic, since }) => told.push(['stale', topic, since > 0]),
      onFresh: ({ topic }) => told.push(['fresh', topic]),
      onMessage: ({ topic }) => told.push(['message', topic]),
    };
    const exact = client.subscribe('pulse.1', options);
    await publish('pulse.1', { text: 'x' });
    assert.deepEqual(await told.next('the message'), ['message', 'pulse.1']);
    assert.deepEqual(await told.next('the silence'), ['stale', 'pulse.1', true]);
    assert.equal(exact.stale, true);
    const late = new Inbox();
    const filter = client.subscribe('pulse.*', { snapshot: true, onStale: ({ topic }) => late.push(topic) });
    assert.equal(await late.next('the silence'), 'pulse.1');
    assert.equal(filter.stale, true);
    await publish('pulse.1', { text: 'y' });
    assert.deepEqual([await told.next('the end of it'), await told.next('the message')], [['fresh', 'pulse.1'], ['message', 'pulse.1']]);
    assert.deepEqual([exact.stale, filter.stale], [false, false]);
  });

  await t.test('time to live', async () => {
    const first = await publish('news', { text: 'kept' });
    await publish('news', { text: 'gone', ttlMs: 1 });
    await publish('news', { text: 'kept too' });
    while ((await within('a page', client.history('news'))).messages.length > 2);
    const { told, options } = recorder();
    const resumed = client.subscribe('news', { ...options, since: first });
    await within('ready', resumed.ready);
    await within('a pong', client.ping());
    assert.deepEqual(told, ['recovered news', 'gap news 2-2 1 expired', 'news 3']);
  });
});

const FanfareErrorLike = (error) => typeof error.code === 'number' && error.code > 0;

/** Starts a broker that ends with the test, with these settings. */
async function serve(t, port = 0, settings = '') {
  const folder = await mkdtemp(join(tmpdir(), 'fanfare-'));
  t.after(() => rm(folder, { recursive: true }));
  const config = join(folder, 'fanfare.toml');
  await writeFile(config, settings);
  const args = ['serve', '--config', config, '--listen', `127.0.0.1:${port}`, '--ingress', 'off', '--admin', 'off', '--log-format', 'json'];
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
