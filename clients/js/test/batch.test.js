// Several events in one message, where the server has said that it does so.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, events, open, recorder, serve, start } from './fake.js';

const HELLO = { connection: '0-1', server: 'fanfare/0.0.0', pingMs: 25_000 };
const BATCH = { ...HELLO, batch: true };

const message = (topic, offset) => ({ message: { topic, offset, time: 1, data: offset } });

/** A client whose server sends batches. */
async function startBatched(t) {
  const server = await serve(t);
  const client = open(t, server.url);
  const peer = await server.greet(BATCH);
  return { server, client, peer };
}

/** Lets the client's next ping be answered in a batch. */
async function settle(client, peer) {
  const pong = client.ping();
  const { id } = await peer.expect('ping');
  peer.sendBatch({ id, pong: {} });
  await pong;
}

test('the hello asks for batches', async (t) => {
  const server = await serve(t);
  open(t, server.url);
  const peer = await server.accept();
  assert.equal((await peer.expect('connect')).batch, true);
});

test('the events of a batch are taken one by one, answers and messages alike', async (t) => {
  const { client, peer } = await startBatched(t);
  const { told, options } = recorder();
  const subscription = client.subscribe('a.b', { ...options, snapshot: true });
  const { id } = await peer.expect('subscribe');
  peer.sendBatch(
    { id, subscribed: { topic: 'a.b', position: at('e', 2) } },
    message('a.b', 2),
    { snapshotEnd: { topic: 'a.b', positions: [{ topic: 'a.b', ...at('e', 2) }] } },
    message('a.b', 3),
    { gap: { topic: 'a.b', from: 4, to: 5, count: 2, reason: 'slow' } },
    message('a.b', 6),
  );
  await subscription.ready;
  await settle(client, peer);
  assert.deepEqual(told, ['a.b 2', 'snapshotEnd', 'a.b 3', 'gap a.b 4-5 2 slow', 'a.b 6']);
});

test('a batch of one, and one without an end of its last line, are read too', async (t) => {
  const { client, peer } = await startBatched(t);
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  const { id } = await peer.expect('subscribe');
  peer.sendBatch({ id, subscribed: { topic: 'a.b', position: at('e', 0) } });
  peer.sendBatch(message('a.b', 1));
  peer.sendText(`${JSON.stringify(message('a.b', 2))}\n${JSON.stringify(message('a.b', 3))}`);
  await settle(client, peer);
  assert.deepEqual(told, ['a.b 1', 'a.b 2', 'a.b 3']);
});

test('a line that is not JSON ends the connection, and what came with it is asked for again', async (t) => {
  const { server, client, peer } = await startBatched(t);
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  const { id } = await peer.expect('subscribe');
  peer.sendBatch({ id, subscribed: { topic: 'a.b', position: at('e', 0) } });
  peer.sendText(`${JSON.stringify(message('a.b', 1))}\n{"mess\n${JSON.stringify(message('a.b', 2))}\n`);
  const next = await server.greet();
  const resumed = await next.accept({ position: at('e', 2), recovered: true });
  assert.deepEqual(resumed.since, at('e', told.length));
  next.messages('a.b', ...[1, 2].slice(told.length));
  await next.settle(client);
  assert.deepEqual(told.filter((line) => line.startsWith('a.b')), ['a.b 1', 'a.b 2']);
});

test('what follows in a batch after the application has closed is not given', async (t) => {
  const { client, peer } = await startBatched(t);
  const seen = [];
  client.subscribe('a.b', {
    onMessage: ({ offset }) => {
      seen.push(offset);
      if (offset === 2) client.close();
    },
  });
  const { id } = await peer.expect('subscribe');
  peer.sendBatch(
    { id, subscribed: { topic: 'a.b', position: at('e', 0) } },
    ...[1, 2, 3].map((offset) => message('a.b', offset)),
  );
  assert.equal(await peer.closed, 1000);
  assert.deepEqual(seen, [1, 2]);
});

test('a server that says nothing of batches sends one event in each message', async (t) => {
  const { client, peer } = await start(t);
  const { told, options } = recorder();
  client.subscribe('a.b', options);
  await peer.accept({ position: at('e', 0) });
  // Line ends are no more than white space there.
  peer.sendText(JSON.stringify(message('a.b', 1), null, 2));
  await peer.settle(client);
  assert.deepEqual(told, ['a.b 1']);
});

test('every connection agrees on batches anew', async (t) => {
  const { server, client, peer } = await startBatched(t);
  const { told, options } = recorder();
  const warnings = events(client, 'warning');
  client.subscribe('a.b', options);
  const { id } = await peer.expect('subscribe');
  peer.sendBatch({ id, subscribed: { topic: 'a.b', position: at('e', 0) } }, message('a.b', 1));
  await settle(client, peer);
  peer.drop();
  const plain = await server.accept();
  const hello = await plain.expect('connect');
  assert.equal(hello.batch, true);
  plain.sendText(JSON.stringify({ id: hello.id, connected: HELLO }, null, 2));
  await plain.accept({ position: at('e', 2), recovered: true });
  plain.sendText(JSON.stringify(message('a.b', 2), null, 2));
  await plain.settle(client);
  plain.drop();
  const batched = await server.greet(BATCH);
  const again = await batched.expect('subscribe');
  batched.sendBatch(
    { id: again.id, subscribed: { topic: 'a.b', position: at('e', 4), recovered: true } },
    message('a.b', 3),
    message('a.b', 4),
  );
  await settle(client, batched);
  assert.deepEqual(told.filter((line) => line.startsWith('a.b')), [1, 2, 3, 4].map((n) => `a.b ${n}`));
  assert.deepEqual(warnings.all(), []);
});
