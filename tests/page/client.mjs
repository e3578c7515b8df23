// The client in a real page, against a real broker, over a network that fails.
// Not here: the dashboard (`dashboard.mjs`), what needs no browser (`clients/js/test`).

import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { folderOf, start } from './broker.mjs';
import { can, freeze, launch } from './engines.mjs';
import { link } from './link.mjs';
import { DEADLINE_MS, open, until, wrong } from './page.mjs';

/** A page of the broker that does nothing by itself. */
const BLANK = '/UPLOT-LICENSE';

/** All tests, in one engine. */
export function client(engine) {
  describe(`the client in ${engine}`, () => {
    let browser;
    before(async () => {
      browser = await launch(engine);
    });
    after(() => browser?.close());
    const suite = { engine, open: (t, url, options) => open(t, browser, url, options) };
    subscribing(suite);
    interruptions(suite);
    sleep(suite);
    company(suite);
    fallback(suite);
    tokens(suite);
    compression(suite);
  });
}

function subscribing(suite) {
  test('a page gets what was there, and then everything in order', async (t) => {
    const { broker, page } = await setUp(t, suite);
    await broker.publish(...numbers(1, 3));
    await subscribe(page, { last: 10 });
    await broker.publish(...numbers(4, 200));
    assert.deepEqual(await received(page, 200), range(1, 200));
    assert.deepEqual(await page.evaluate(() => window.told), []);
    assert.deepEqual(await wrong(page), []);
  });

  test('a page that asks for ten a second gets the last one, and all when it asks for all', async (t) => {
    const { broker, page } = await setUp(t, suite);
    await subscribe(page, { maxHz: 10 });
    for (let from = 1; from <= 400; from += 20) await broker.publish(...numbers(from, from + 19));
    await until(page, () => window.got.at(-1) === 400);
    const few = await page.evaluate(() => window.got);
    assert.ok(few.length < 200, `${few.length} of 400 messages came`);
    assert.deepEqual(few, [...few].sort((a, b) => a - b));
    const granted = await page.evaluate(() => window.subscription.update({ policy: 'all' }));
    assert.equal(granted.policy, 'all');
    await page.evaluate(() => (window.got = []));
    await broker.publish(...numbers(401, 500));
    assert.deepEqual(await received(page, 100), range(401, 500));
    assert.deepEqual(await wrong(page), []);
  });
}

function interruptions(suite) {
  test('a page resumes across a restart of the broker, with nothing lost and nothing twice', async (t) => {
    const folder = await folderOf(t);
    const settings = `shutdown.snapshot = "${join(folder, 'kept')}"\nshutdown.spread = "0s"\n`;
    const { broker, page, network } = await setUp(t, suite, { folder, settings });
    await subscribe(page, {});
    await broker.publish(...numbers(1, 20));
    await received(page, 20);
    network.cut();
    await until(page, () => window.states.includes('waiting'));
    await broker.publish(...numbers(21, 40));
    await broker.stop('SIGTERM');
    const next = await start(folder, { settings, port: broker.port });
    t.after(() => next.stop());
    await next.publish(...numbers(41, 60));
    network.mend();
    assert.deepEqual(await received(page, 60), range(1, 60));
    assert.deepEqual(await page.evaluate(() => window.told), [{ recovered: true }]);
    await next.publish(...numbers(61, 61));
    await received(page, 61);
    assert.deepEqual(await wrong(page), []);
  });

  test('a page that was offline comes back as soon as its browser says so', async (t) => {
    // Whoever waits for the backoff waits far beyond the deadline.
    const { broker, page, network } = await setUp(t, suite, { options: { backoffMs: 1e7, backoffMaxMs: 1e7 } });
    await subscribe(page, {});
    await broker.publish(...numbers(1, 5));
    await received(page, 5);
    await page.setOfflineMode(true);
    network.cut();
    await until(page, () => !navigator.onLine && window.states.at(-1) === 'waiting');
    await broker.publish(...numbers(6, 30));
    network.mend();
    await page.setOfflineMode(false);
    assert.deepEqual(await received(page, 30), range(1, 30));
    assert.deepEqual(await page.evaluate(() => window.told), [{ recovered: true }]);
    assert.deepEqual(await wrong(page), []);
  });

  test('a page in the background misses nothing', async (t) => {
    const { broker, page } = await setUp(t, suite);
    await subscribe(page, {});
    const other = await suite.open(t, 'about:blank', { beside: page });
    await other.bringToFront();
    await until(page, () => document.visibilityState === 'hidden');
    for (let from = 1; from <= 300; from += 50) await broker.publish(...numbers(from, from + 49));
    assert.deepEqual(await received(page, 300), range(1, 300));
    await page.bringToFront();
    await broker.publish(...numbers(301, 301));
    await received(page, 301);
    assert.deepEqual(await page.evaluate(() => [window.told, window.states]), [[], ['connecting', 'connected']]);
    assert.deepEqual(await wrong(page), []);
  });
}

function sleep(suite) {
  test('a page that its browser stopped gets what it missed when that lets it go on', { skip: !can(suite.engine).freeze }, async (t) => {
    const { broker, page } = await setUp(t, suite);
    await subscribe(page, {});
    const other = await suite.open(t, 'about:blank', { beside: page });
    await other.bringToFront();
    const goOn = await freeze(page);
    for (let from = 1; from <= 300; from += 50) await broker.publish(...numbers(from, from + 49));
    const before = await page.evaluate(() => window.got.length);
    assert.ok(before < 300, 'the page was not stopped');
    await goOn();
    assert.deepEqual(await received(page, 300), range(1, 300));
    assert.deepEqual(await wrong(page), []);
  });
}

function company(suite) {
  test('two tabs have a connection each, and one that is closed does not disturb the other', async (t) => {
    const { broker, page, network } = await setUp(t, suite);
    await subscribe(page, {});
    const other = await suite.open(t, network.origin + BLANK, { beside: page });
    await begin(other, {});
    await subscribe(other, {});
    await other.evaluate(() => window.client.publish('page.numbers', { data: 1 }));
    for (const each of [page, other]) assert.deepEqual(await received(each, 1), [1]);
    await page.evaluate(() => window.client.publish('page.numbers', { data: 2 }));
    for (const each of [page, other]) assert.deepEqual(await received(each, 2), [1, 2]);
    const names = await Promise.all([page, other].map((each) => each.evaluate(() => window.connection)));
    assert.notEqual(names[0], names[1]);
    await other.close();
    await broker.publish(...numbers(3, 3));
    assert.deepEqual(await received(page, 3), [1, 2, 3]);
    assert.deepEqual(await wrong(page), []);
  });
}

function fallback(suite) {
  test('a page that no WebSocket comes through to goes by server-sent events, and resumes there too', async (t) => {
    const { broker, page, network } = await setUp(t, suite, { webSockets: false });
    assert.equal(await page.evaluate(() => window.client.transport), 'sse');
    await broker.publish(...numbers(1, 3));
    await subscribe(page, { last: 10 });
    await broker.publish(...numbers(4, 50));
    await received(page, 50);
    const { offset } = await page.evaluate(() => window.client.publish('page.numbers', { data: 51 }));
    assert.equal(offset, 51);
    assert.deepEqual(await received(page, 51), range(1, 51));
    network.cut();
    await until(page, () => window.states.at(-1) !== 'connected');
    await broker.publish(...numbers(52, 80));
    network.mend();
    assert.deepEqual(await received(page, 80), range(1, 80));
    assert.deepEqual(await page.evaluate(() => window.told), [{ recovered: true }]);
    // Without a topic there are no events: the client asks so to learn whether there is a broker.
    const others = (await wrong(page)).filter((words) => !/status of 400.*\/sse$/.test(words));
    assert.deepEqual(others, []);
  });
}

function tokens(suite) {
  test('a page whose token expires shows the next one, and goes on as if nothing were', async (t) => {
    const folder = await folderOf(t);
    const { settings, mint } = await authority(folder);
    // A fifth of the time before it expires is left to show the next one.
    const expires = Math.ceil(Date.now() / 1000) + 6;
    const { page } = await setUp(t, suite, { folder, settings, options: { tokens: [mint(expires), mint(expires + 3600)] } });
    await subscribe(page, {});
    await page.evaluate(() => window.client.publish('page.numbers', { data: 1 }));
    await until(page, () => window.asked === 2);
    await until(page, (expires) => Date.now() > expires * 1000, expires);
    await page.evaluate(() => window.client.publish('page.numbers', { data: 2 }));
    assert.deepEqual(await received(page, 2), [1, 2]);
    assert.deepEqual(await page.evaluate(() => [window.told, window.states]), [[], ['connecting', 'connected']]);
    assert.deepEqual(await wrong(page), []);
  });

  test('a page whose token is refused is told so, and asks no more', async (t) => {
    const folder = await folderOf(t);
    const { settings, mint } = await authority(folder);
    const broker = await start(folder, { settings });
    t.after(() => broker.stop());
    const page = await suite.open(t, broker.origin + BLANK);
    const error = await page.evaluate(async (token) => {
      const { connect } = await import('/fanfare.js');
      const client = connect('/ws', { token: () => token });
      const { error } = await new Promise((resolve) => client.on('state', (event) => event.state === 'closed' && resolve(event)));
      return error.name;
    }, mint(Math.floor(Date.now() / 1000) + 60, 'another secret'));
    assert.equal(error, 'badToken');
    assert.deepEqual(await wrong(page), []);
  });
}

/** A broker's settings that demand a token, and who makes one that expires at a second. */
async function authority(folder) {
  const secret = randomBytes(32).toString('base64url');
  const file = join(folder, 'secret');
  await writeFile(file, secret);
  const settings = `auth = { audience = "page", leeway = "0s", keys = [{ algorithm = "HS256", file = "${file}" }] }\n`;
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const mint = (exp, key = secret) => {
    const claims = { sub: 'ann', aud: 'page', exp, fanfare: { subscribe: ['>'], publish: ['>'] } };
    const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
    return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
  };
  return { settings, mint };
}

function compression(suite) {
  test('the browser agrees on compression, and both sides compress', async (t) => {
    const { broker, page } = await setUp(t, suite, { settings: 'websocket.compression = true' });
    const before = await broker.metrics();
    // Far larger than a frame's short length, and not only ASCII.
    const rows = Array.from({ length: 500 }, (_, i) => ({ symbol: `Ä☃${i}`, price: i / 100, open: i / 99, volume: i * 1000 }));
    const { extensions, echo } = await page.evaluate(async (data) => {
      const socket = new WebSocket(`ws://${location.host}/ws`, 'fanfare.v1.json');
      const { extensions } = await new Promise((resolve) => (socket.onopen = () => resolve(socket)));
      socket.close();
      const subscription = window.client.subscribe('page.rows');
      await window.client.publish('page.rows', { data });
      for await (const message of subscription) return { extensions, echo: message.data };
    }, rows);
    assert.match(extensions, /^permessage-deflate(;|$)/);
    assert.deepEqual(echo, rows);
    const size = new TextEncoder().encode(JSON.stringify(rows)).length;
    assert.ok(size > 30_000);
    // What a scrape tells may be a second old.
    let after = before;
    const grown = (name) => after.get(name) - before.get(name);
    const deadline = Date.now() + DEADLINE_MS;
    while (grown('fanfare_deflate_in_bytes_total') < size && Date.now() < deadline) after = await broker.metrics();
    assert.ok(grown('fanfare_received_bytes_total') < size / 2, 'what the browser sent was not compressed');
    const saved = grown('fanfare_deflate_in_bytes_total') - grown('fanfare_deflate_out_bytes_total');
    assert.ok(saved > size / 2, 'what the browser received was not compressed');
    assert.deepEqual(await wrong(page), []);
  });
}

// === What the tests begin with ===

/** A broker, a network to it, and a page behind that with a client. */
async function setUp(t, suite, { folder, settings, webSockets, options = {} } = {}) {
  const broker = await start(folder ?? (await folderOf(t)), { settings });
  t.after(() => broker.stop());
  const network = await link(t, broker.port, { webSockets });
  const page = await suite.open(t, network.origin + BLANK);
  await begin(page, options);
  return { broker, page, network };
}

/** Connects a client in the page, and keeps what becomes of it. */
async function begin(page, options) {
  await page.evaluate(async ({ tokens, ...options }) => {
    const { connect } = await import('/fanfare.js');
    Object.assign(window, { got: [], told: [], states: ['connecting'], asked: 0 });
    if (tokens) options.token = async () => tokens[Math.min(window.asked++, tokens.length - 1)];
    window.client = connect('/ws', { backoffMs: 50, ...options });
    window.client.on('state', ({ state, connection }) => {
      window.states.push(state);
      if (connection) window.connection = connection;
    });
    window.client.on('gap', (gap) => window.told.push({ gap }));
    window.client.on('recovered', ({ recovered }) => window.told.push({ recovered }));
  }, options);
  await until(page, () => window.states.at(-1) === 'connected');
}

/** Subscribes to the numbers, and returns when that is granted. */
async function subscribe(page, terms) {
  await page.evaluate(async (terms) => {
    await new Promise((resolve) => {
      window.subscription = window.client.subscribe('page.numbers', {
        ...terms,
        onMessage: ({ data }) => window.got.push(data),
        onGranted: resolve,
      });
    });
  }, terms);
}

/** The numbers that the page has got, as soon as there are so many. */
async function received(page, count) {
  await until(page, (count) => window.got.length >= count, count);
  return page.evaluate(() => window.got);
}

function numbers(from, to) {
  return range(from, to).map((data) => ({ topic: 'page.numbers', data }));
}

function range(from, to) {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}
