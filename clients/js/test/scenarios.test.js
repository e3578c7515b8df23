// The scenarios that every client of Fanfare is held to: `clients/scenarios.md`. Where a broker cannot
// misbehave, a scripted server does.

import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { test } from 'node:test';
import WebSocket, { WebSocketServer } from 'ws';
import { connect } from '../dist/fanfare.js';
import { proto } from '../dist/proto.js';
import { broker, mint, wire } from './broker.js';
import { Inbox, serve, within } from './fake.js';

const WAYS = { json: {}, protobuf: { spelling: proto }, 'server-sent events': { transport: 'sse' } };
const SECRET = 'a secret of at least thirty-two bytes';
const AUTH = `[auth]\naudience = "fanfare"\nleeway = "0s"\n[[auth.keys]]\nalgorithm = "HS256"\nfile = "$SECRET"\n`;

/** A scenario that carries messages: in each spelling, over each transport. */
function everyWay(title, settings, play) {
  test(title, async (t) => {
    const place = await broker(t, settings);
    for (const [way, options] of Object.entries(WAYS)) {
      await t.test(way, (t) => play({ t, ...place, open: (more) => open(t, place.url, { ...options, ...more }), topic: `room.${way.at(0)}` }));
    }
  });
}

function open(t, url, options = {}) {
  const client = connect(url, { WebSocket, backoffMs: 5, backoffMaxMs: 50, ...options });
  t.after(() => client.close());
  return client;
}

/** Options that put all that a subscription tells into one inbox, as short lines. */
function teller() {
  const told = new Inbox();
  const say = (text) => told.push(text);
  const options = {
    onMessage: ({ offset, data, text }) => say(`${offset} ${JSON.stringify(data ?? text)}`),
    onGap: ({ from, to, reason }) => say(`gap ${from}-${to} ${reason}`),
    onRecovered: ({ recovered, reason }) => say(recovered ? 'recovered' : `anew ${reason}`),
    onSnapshotEnd: () => say('end'),
    onEnd: (error) => say(`over ${error?.name}`),
  };
  return { told, options, hears: async (...lines) => { for (const line of lines) assert.equal(await told.next(line), line); } };
}

const states = (client) => {
  const inbox = new Inbox();
  client.on('state', (event) => inbox.push(event));
  return { next: (state) => inbox.until(state, (event) => event.state === state) };
};

const ready = (...subscriptions) => within('ready', Promise.all(subscriptions.map((subscription) => subscription.ready)));

everyWay('a subscription gets what is published after it', {}, async ({ open, topic }) => {
  const client = open();
  await within('published', client.publish(topic, { data: 'before' }));
  const { options, hears } = teller();
  await ready(client.subscribe(topic, options));
  await within('published', client.publish(topic, { data: { x: [1, null, 'é'] } }));
  await hears('2 {"x":[1,null,"é"]}');
});

everyWay('a snapshot comes first and ends', {}, async ({ open, topic }) => {
  const client = open();
  for (const data of [1, 2]) await within('published', client.publish(topic, { data }));
  const [exact, filter] = [teller(), teller()];
  await ready(client.subscribe(topic, { ...exact.options, snapshot: true }), client.subscribe(`${topic.replace('room', '*')}`, { ...filter.options, snapshot: true }));
  for (const { hears } of [exact, filter]) await hears('2 2', 'end');
  await within('published', client.publish(topic, { data: 3 }));
  for (const { hears } of [exact, filter]) await hears('3 3');
});

everyWay('history is asked for page by page', {}, async ({ open, topic }) => {
  const client = open();
  const [first] = await within('published', Promise.all([1, 2, 3, 4, 5].map((data) => client.publish(topic, { data }))));
  let since = { ...first, offset: 0 };
  const pages = [];
  for (let more = true; more; ) {
    const page = await within('a page', client.history(topic, { since, limit: 2 }));
    pages.push(page.messages.map(({ data }) => data));
    more = page.more;
    since = { epoch: page.top.epoch, offset: page.messages.at(-1).offset };
  }
  assert.deepEqual(pages, [[1, 2], [3, 4], [5]]);
});

everyWay('a publish is answered with its position', {}, async ({ open, topic }) => {
  const client = open();
  const answers = await within('published', Promise.all([1, 2, 3].map((data) => client.publish(topic, { data }))));
  assert.deepEqual(answers.map(({ offset, durability }) => [offset, durability]), [[1, 'memory'], [2, 'memory'], [3, 'memory']]);
  assert.match(answers[0].epoch, /^[\w-]{22}$/);
});

everyWay('a publish repeated with its idempotency key is one message', {}, async ({ open, topic }) => {
  const client = open();
  const draft = { data: 1, idempotencyKey: 'once' };
  const first = await within('published', client.publish(topic, draft));
  assert.deepEqual(await within('published', client.publish(topic, draft)), first);
  assert.equal((await within('published', client.publish(topic, { data: 2 }))).offset, 2);
  await assert.rejects(client.publish(topic, { ...draft, data: 3 }), { code: 116, name: 'idempotencyMismatch' });
});

test('a connection that is cut is resumed without loss or double', async (t) => {
  const place = await broker(t);
  for (const [way, options] of Object.entries(WAYS)) {
    await t.test(way, async (t) => {
      const line = await wire(t, place.port);
      const [subscriber, publisher] = [open(t, line.url, options), open(t, place.url)];
      const told = states(subscriber);
      const topic = `cut.${way.at(0)}`;
      const seen = { exact: [], filter: [] };
      const last = new Inbox();
      const listen = (name) => ({ onMessage: ({ offset }) => (seen[name].push(offset), last.push(offset)), onRecovered: ({ recovered }) => assert.ok(recovered) });
      await ready(subscriber.subscribe(topic, listen('exact')), subscriber.subscribe(topic.replace('cut', '*'), listen('filter')));
      let offset = 0;
      for (let round = 0; round < 4; round += 1) {
        for (let i = 0; i < 10; i += 1) ({ offset } = await within('published', publisher.publish(topic, { data: i })));
        if (round % 2 === 0) {
          line.cut();
          await told.next('waiting');
        } else {
          for (let both = 0; both < 2; both += 1) await last.until('the last message', (each) => each === offset);
        }
      }
      const expected = Array.from({ length: offset }, (_, i) => i + 1);
      assert.deepEqual(seen, { exact: expected, filter: expected });
    });
  }
});

test('a broker that lost its history is told as not recovered', async (t) => {
  for (const [way, options] of Object.entries(WAYS)) {
    await t.test(way, async (t) => {
      const first = await broker(t);
      const client = open(t, first.url, options);
      const { options: tell, hears } = teller();
      await ready(client.subscribe('room.1', { ...tell, snapshot: true }));
      await hears('end');
      await within('published', client.publish('room.1', { data: 'before' }));
      await hears('1 "before"');
      await first.kill();
      await broker(t, { port: first.port });
      await hears('anew epochChanged', 'end');
      await within('published', client.publish('room.1', { data: 'after' }));
      await hears('1 "after"');
    });
  }
});

everyWay('a resume from before the history is told as not recovered', { settings: '[topics.history]\nmessages = 3\n' }, async ({ open, topic }) => {
  const client = open();
  const first = await within('published', client.publish(topic, { data: 1 }));
  for (let data = 2; data < 10; data += 1) await within('published', client.publish(topic, { data }));
  const { options, hears } = teller();
  await ready(client.subscribe(topic, { ...options, since: first }));
  await hears('anew trimmed');
  await within('published', client.publish(topic, { data: 10 }));
  await hears('10 10');
});

everyWay('a gap is told', {}, async ({ open, topic }) => {
  const client = open();
  const first = await within('published', client.publish(topic, { data: 1 }));
  await within('published', client.publish(topic, { data: 2, ttlMs: 1 }));
  await within('published', client.publish(topic, { data: 3 }));
  while ((await within('a page', client.history(topic))).messages.length > 2);
  const { options, hears } = teller();
  await ready(client.subscribe(topic, { ...options, since: first }));
  await hears('recovered', 'gap 2-2 expired', '3 3');
});

everyWay('terms are changed while messages flow', {}, async ({ open, topic }) => {
  const [client, publisher] = [open(), open()];
  const { told, options, hears } = teller();
  const subscription = client.subscribe(topic, { ...options, maxHz: 0.01 });
  await ready(subscription);
  assert.deepEqual([subscription.policy, subscription.maxHz], ['maxHz', 0.01]);
  for (const data of [1, 2, 3]) await within('published', publisher.publish(topic, { data }));
  await hears('1 1');
  const granted = await within('the grant', subscription.update({ policy: 'all' }));
  assert.deepEqual({ ...granted }, { policy: 'all', maxHz: undefined, overflow: 'catchUp' });
  // What the rate held back: the last of it where the connection stays, all of it where it is another.
  await told.until('the last message', (line) => line === '3 3');
  await within('published', publisher.publish(topic, { data: 4 }));
  await hears('4 4');
  await assert.rejects(within('the refusal', subscription.update({ maxHz: 5_000 })), { code: 105, name: 'badOption' });
  assert.equal(subscription.policy, 'all');
});

everyWay('presence tells who is there', { settings: '[topics]\nrules = [{ filter = "room.*", presence = true }]\n' }, async ({ t, url, open: way, topic }) => {
  const client = way();
  const told = new Inbox();
  const names = ({ members }) => told.push(`there ${members.map(({ name }) => name)}`);
  await ready(client.subscribe(topic, { presence: true, onPresence: names, onJoined: ({ name }) => told.push(`joined ${name}`), onLeft: ({ name }) => told.push(`left ${name}`), onMessage: () => {} }));
  assert.equal(await told.until('who is there', (line) => line.startsWith('there')), 'there ');
  const bob = open(t, url, { name: 'bob' });
  await ready(bob.subscribe(topic));
  assert.equal(await told.until('who joins', (line) => line.endsWith('bob')), 'joined bob');
  const { count, members } = await within('the answer', client.presence(topic));
  assert.deepEqual([count, members.map(({ name }) => name).sort()], [2, ['', 'bob']]);
  bob.close();
  assert.equal(await told.next('who leaves'), 'left bob');
});

everyWay('a token is refreshed before it expires', { settings: AUTH, secret: SECRET }, async ({ open, topic }) => {
  let asked = 0;
  const client = open({ token: async () => mint(SECRET, { ttlMs: (asked += 1) === 1 ? 2_000 : 60_000 }) });
  const told = new Inbox();
  client.on('state', ({ state }) => told.push(state));
  const { options, hears } = teller();
  await ready(client.subscribe(topic, options));
  const begun = Date.now();
  while (Date.now() - begun < 3_500) await new Promise((resolve) => setTimeout(resolve, 100));
  await within('published', client.publish(topic, { data: 1 }));
  await hears('1 1');
  assert.equal(asked, 2);
  assert.deepEqual(told.all().filter((state) => state !== 'connecting'), ['connected']);
});

everyWay('a token that is refused ends the client with an error', { settings: AUTH, secret: SECRET }, async ({ open }) => {
  for (const token of [mint('another secret of thirty-two bytes!!'), () => 'nonsense', mint(SECRET, { ttlMs: -5_000 })]) {
    const client = open({ token });
    const subscription = client.subscribe('room.1');
    const { error } = await states(client).next('closed');
    assert.match(error.name, /^(badToken|tokenExpired)$/);
    await assert.rejects(subscription.ready, { name: error.name });
    await assert.rejects(client.publish('room.1', { data: 1 }), { name: error.name });
  }
});

everyWay('a topic that is refused is an error of its own subscription', { settings: AUTH, secret: SECRET }, async ({ open, topic }) => {
  const client = open({ token: mint(SECRET, { subscribe: ['room.*'] }) });
  const { options, hears } = teller();
  const [good, secret, bad] = [client.subscribe(topic, options), client.subscribe('secret.1'), client.subscribe('a..b')];
  await assert.rejects(within('the refusal', secret.ready), { code: 115, name: 'notAllowed' });
  await assert.rejects(within('the refusal', bad.ready), { code: 101, name: 'badTopic' });
  await ready(good);
  await within('published', client.publish(topic, { data: 1 }));
  await hears('1 1');
});

test('a server that says when to come back is obeyed', async (t) => {
  const server = await serve(t);
  const client = open(t, server.url);
  const told = states(client);
  const peer = await server.greet();
  peer.send({ reconnect: { afterMs: 60_000 } });
  peer.close(1001, 'goingAway: the server is stopping');
  const { delayMs } = await told.next('waiting');
  assert.ok(delayMs >= 60_000 && delayMs <= 60_050, String(delayMs));
});

test('a wrong subprotocol ends the client with an error', async (t) => {
  for (const spelling of [undefined, proto]) {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'mqtt' });
    t.after(() => server.close());
    await within('the server', new Promise((resolve) => server.once('listening', resolve)));
    const client = open(t, `ws://127.0.0.1:${server.address().port}/ws`, { spelling });
    const subscription = client.subscribe('a');
    const { error } = await states(client).next('closed');
    assert.deepEqual([error.code, error.name, error.retry], [430, 'badSubprotocol', 'never']);
    await assert.rejects(subscription.ready, { name: 'badSubprotocol' });
  }
});

test('a server that is gone at any step of the handshake is tried again', async (t) => {
  const place = await broker(t);
  const head = 'HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n';
  const first = (socket, then) => socket.once('data', then);
  const steps = [
    (socket) => socket.destroy(),
    (socket) => socket.end(),
    (socket) => first(socket, () => socket.destroy()),
    (socket) => first(socket, () => socket.end(head)),
    (socket) => first(socket, () => socket.end('HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n')),
    (socket) => first(socket, () => socket.end('this is no HTTP\r\n\r\n')),
    // It agrees, and is gone before it has answered the hello.
    (socket) => agree(socket, (peer) => peer.terminate()),
    (socket) => agree(socket, (peer) => peer.once('message', () => peer.terminate())),
    (socket) => agree(socket, (peer) => peer.once('message', () => peer.send('{"id":1,"connected":{"ping', () => peer.terminate()))),
  ];
  let step = 0;
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    if (step < steps.length) return steps[step++](socket);
    const far = net.connect(place.port, '127.0.0.1').on('error', () => socket.destroy());
    socket.pipe(far).pipe(socket);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const client = open(t, `ws://127.0.0.1:${server.address().port}/ws`, { transport: 'websocket' });
  const published = client.publish('room.1', { data: 1 });
  assert.equal((await within('published', published)).offset, 1);
  assert.equal(step, steps.length);
  client.close();
});

function agree(socket, then) {
  const server = http.createServer();
  const sockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', (request, stream, head) => sockets.handleUpgrade(request, stream, head, (peer) => (peer.on('error', () => {}), then(peer))));
  server.emit('connection', socket);
}

test('a malformed event ends the connection and not the client', async (t) => {
  const server = await serve(t);
  const client = open(t, server.url);
  const { options, hears } = teller();
  client.subscribe('a.b', options);
  const warnings = new Inbox();
  client.on('warning', ({ message }) => warnings.push(message));
  const peer = await server.greet();
  await peer.accept({ position: { epoch: 'e', offset: 0 } });
  peer.messages('a.b', 1);
  await hears('1 1');
  peer.sendText('{"message":{"topic":"a.b","offset":"two"}}');
  assert.equal(await warnings.next('a warning'), 'an event is not understood');
  const next = await server.greet();
  const { since } = await next.accept({ position: { epoch: 'e', offset: 2 }, recovered: true });
  assert.deepEqual(since, { epoch: 'e', offset: 1 });
  next.messages('a.b', 2);
  await hears('recovered', '2 2');
});

everyWay('subscriptions beyond the limit are errors of their own', { settings: '[limits]\nsubscriptions_max = 20\n' }, async ({ open, topic }) => {
  const client = open();
  const all = Array.from({ length: 60 }, (_, i) => client.subscribe(`many.${i}`));
  const outcomes = await within('the answers', Promise.allSettled(all.map(({ ready }) => ready)));
  const refused = outcomes.filter(({ status }) => status === 'rejected');
  assert.equal(refused.length, 40);
  for (const { reason } of refused) assert.deepEqual([reason.code, reason.name], [109, 'tooManySubscriptions']);
  assert.equal((await within('published', client.publish(topic, { data: 1 }))).offset, 1);
  assert.equal(client.state, 'connected');
});

test('what is published offline waits up to a bound and is refused beyond it', async (t) => {
  const place = await broker(t);
  for (const [way, options] of Object.entries(WAYS)) {
    await t.test(way, async (t) => {
      const line = await wire(t, place.port);
      line.hold();
      const client = open(t, line.url, { ...options, queueMax: 3 });
      const waiting = [1, 2, 3].map((data) => client.publish(`offline.${way.at(0)}`, { data }));
      for (let i = 0; i < 3; i += 1) {
        await assert.rejects(client.publish('offline', { data: 4 }), { code: 0, name: 'queueFull', retry: 'later' });
      }
      line.release();
      const answers = await within('published', Promise.all(waiting));
      assert.deepEqual(answers.map(({ offset }) => offset), [1, 2, 3]);
    });
  }
});

test('a server that falls silent is given up', async (t) => {
  const server = await serve(t);
  const client = open(t, server.url, { silenceMs: 20 });
  const told = states(client);
  await server.greet({ connection: '1', server: 's', pingMs: 10 });
  const { code, reason } = await told.next('waiting');
  assert.deepEqual([code, reason], [4410, 'the server was silent for 30 ms']);
  await server.greet();
  await told.next('connected');
});

everyWay('a delete is delivered', {}, async ({ open, topic }) => {
  const client = open();
  const told = new Inbox();
  await ready(client.subscribe(topic, { onMessage: ({ key, data, deleted }) => told.push([key, data, deleted]) }));
  await within('published', client.publish(topic, { key: 'k', data: 1 }));
  await within('published', client.publish(topic, { key: 'k', delete: true }));
  assert.deepEqual([await told.next('a message'), await told.next('a delete')], [['k', 1, undefined], ['k', undefined, true]]);
});

everyWay('text and bytes come back as they were', {}, async ({ open, topic }) => {
  const client = open();
  const told = new Inbox();
  await ready(client.subscribe(topic, { onMessage: (message) => told.push(message) }));
  const bytes = Uint8Array.from({ length: 1_000 }, (_, i) => i % 256);
  const drafts = [{ text: '' }, { text: 'é\n\r\n"\\ \u2028 😀 data: x' }, { binary: new Uint8Array() }, { binary: bytes }, { data: null }, { data: { __proto__x: 1, 'a\nb': '\u0000' } }];
  for (const draft of drafts) {
    await within('published', client.publish(topic, draft));
    const { data, text, binary } = await told.next('the message');
    assert.deepEqual({ data, text, binary: binary && [...binary] }, { data: undefined, text: undefined, ...draft, binary: draft.binary && [...draft.binary] });
  }
  const page = await within('the page', client.history(topic));
  assert.deepEqual(page.messages.map(({ text, binary, data }) => text ?? (binary ? [...binary] : data)), drafts.map(({ text, binary, data }) => text ?? (binary ? [...binary] : data)));
});

everyWay('what waits for a slow reader is bounded', {}, async ({ open, topic }) => {
  const client = open();
  const gaps = [];
  const subscription = client.subscribe(topic, { bufferMax: 10, onGap: ({ from, to, reason }) => gaps.push([from, to, reason]) });
  await ready(subscription);
  await within('published', Promise.all(Array.from({ length: 100 }, (_, data) => client.publish(topic, { data }))));
  while (subscription.positions[0]?.offset !== 100) await new Promise((resolve) => setTimeout(resolve, 5));
  const seen = [];
  for await (const { offset } of subscription) {
    seen.push(offset);
    if (offset === 100) break;
  }
  assert.ok(seen.length <= 10 && gaps.every(([, , reason]) => reason === 'buffer'));
  const missing = gaps.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => from + i));
  assert.deepEqual([...missing, ...seen], Array.from({ length: 100 }, (_, i) => i + 1));
});
