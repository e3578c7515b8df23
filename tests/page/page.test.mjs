// The dashboard in a real browser, on a real `fanfare demo`: it moves, it does as it is told, and it
// mends itself.
// Needs FANFARE_BIN and CHROMIUM. Leaves screenshots in tests/artefacts.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const { FANFARE_BIN, CHROMIUM } = process.env;
assert.ok(FANFARE_BIN, 'FANFARE_BIN must name the broker to test');
assert.ok(CHROMIUM, 'CHROMIUM must name the browser to test with');

const ARTEFACTS = fileURLToPath(new URL('../artefacts/', import.meta.url));
const DEADLINE_MS = 30_000;
/** One topic falls silent soon, and one may not be sent often. */
const RULES = `[topics]
rules = [{ filter = "ticker.QUIET", stale_after = "1s" }, { filter = "ticker.IBM", max_hz = 2 }]
`;

let broker;
let browser;
let folder;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fanfare-'));
  broker = await demo();
  // Inside a container there is often no sandbox to be had, and only this host's page is opened.
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'];
  browser = await chromium.launch({ executablePath: CHROMIUM, args });
});

after(async () => {
  await browser?.close();
  await broker?.kill();
  await rm(folder, { recursive: true });
});

test('prices, charts and figures move', async (t) => {
  const page = await open(t);
  await isLive(page);
  await page.waitForFunction(() => Number(document.querySelector('#rate').textContent) > 0);
  assert.match(await page.textContent('#version'), /^fanfare\/\d+\.\d+/);
  assert.deepEqual(await wrong(page), []);
});

test('a page whose broker was killed comes back by itself and says that it started anew', async (t) => {
  const page = await open(t);
  await isLive(page);
  await control(page, 'AAPL').selectOption('1 Hz');
  await rate(page, 'AAPL', 0.5, 1.5);
  const { port } = broker;
  await broker.kill();
  await page.waitForSelector('#state[data-state="reconnecting"]');
  broker = await demo(port);
  await page.waitForSelector('#state[data-state="connected"]');
  await page.waitForSelector('#recovery[data-outcome="anew"]');
  assert.equal(await page.textContent('#recovery'), 'Started anew: epochChanged');
  await isLive(page);
  assert.equal(await control(page, 'AAPL').inputValue(), '1');
  await rate(page, 'AAPL', 0.5, 1.5);
  // The browser itself notes each attempt that finds no server.
  const others = (await wrong(page)).filter((text) => !text.includes('ERR_CONNECTION_REFUSED'));
  assert.deepEqual(others, []);
});

test('a row is sent as seldom as somebody chooses, and as often again', async (t) => {
  const page = await open(t);
  await isLive(page);
  await rate(page, 'AAPL', 2.5, 5);
  const box = () => page.locator('[data-symbol="AAPL"]').boundingBox();
  const before = await box();
  // By the keyboard, past the choices between; the last one counts.
  await control(page, 'AAPL').focus();
  for (let i = 0; i < 4; i += 1) await page.keyboard.press('ArrowDown');
  assert.equal(await control(page, 'AAPL').inputValue(), '1');
  await rate(page, 'AAPL', 0.5, 1.5);
  await rate(page, 'MSFT', 2.5, 5);
  await page.waitForFunction(() => document.querySelector('#announcement').textContent === 'AAPL: 1 Hz');
  await control(page, 'AAPL').selectOption('0.2 Hz');
  await rate(page, 'AAPL', 0.01, 0.6);
  await control(page, 'AAPL').selectOption('All');
  await rate(page, 'AAPL', 2.5, 5);
  assert.deepEqual(await box(), before);
  assert.equal(await page.textContent('#gaps'), '0');
  assert.deepEqual(await wrong(page), []);
});

test('a row says when it is granted less than was chosen', async (t) => {
  const page = await open(t);
  await isLive(page);
  await rate(page, 'IBM', 1.5, 2.5);
  await control(page, 'IBM').selectOption('10 Hz');
  await page.waitForFunction(() => document.querySelector('[data-symbol="IBM"] [data-field="cap"]').textContent === 'max 2 Hz');
  await control(page, 'IBM').selectOption('1 Hz');
  await page.waitForFunction(() => document.querySelector('[data-symbol="IBM"] [data-field="cap"]').textContent === '');
  await rate(page, 'IBM', 0.5, 1.5);
  assert.deepEqual(await wrong(page), []);
});

test('a topic that falls silent is shown as stale, and one that is deleted is gone', async (t) => {
  const page = await open(t);
  await isLive(page);
  const quote = { topic: 'ticker.QUIET', key: 'QUIET', data: { symbol: 'QUIET', price: 1.5 } };
  await publish(quote);
  await page.waitForSelector('[data-symbol="QUIET"][data-stale="true"]');
  assert.equal(await page.textContent('[data-symbol="QUIET"] [data-field="rate"]'), 'stale');
  // Who comes now is told, too.
  const other = await open(t);
  await other.waitForSelector('[data-symbol="QUIET"][data-stale="true"]');
  await publish(quote);
  await page.waitForSelector('[data-symbol="QUIET"][data-stale="false"]');
  await control(page, 'QUIET').focus();
  await publish({ topic: 'ticker.QUIET', key: 'QUIET', delete: true });
  for (const each of [page, other]) await each.waitForSelector('[data-symbol="QUIET"]', { state: 'detached' });
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'Delivery of MSFT');
  await publish(quote);
  await page.waitForSelector('[data-symbol="QUIET"]');
  assert.deepEqual(await wrong(page), []);
});

for (const colorScheme of ['light', 'dark']) {
  for (const [width, height] of [[1280, 900], [390, 844]]) {
    test(`the page fits ${width} pixels, ${colorScheme}`, async (t) => {
      const page = await open(t, { colorScheme, viewport: { width, height } });
      await isLive(page);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `the page is ${wide} pixels wide`);
      await page.screenshot({ path: `${ARTEFACTS}page-${width}-${colorScheme}.png`, fullPage: true });
      assert.deepEqual(await wrong(page), []);
    });
  }
}

test('the browser agrees on compression, and both sides compress', async (t) => {
  const compressing = await demo(0, 'websocket.compression = true');
  t.after(compressing.kill);
  const page = await open(t, {}, compressing);
  await isLive(page);
  const before = await compressing.metrics();
  // Far larger than a frame's short length, and not only ASCII.
  const rows = Array.from({ length: 500 }, (_, i) => ({ symbol: `Ä☃${i}`, price: i / 100, open: i / 99, volume: i * 1000 }));
  const { extensions, reply, echo } = await page.evaluate(async (data) => {
    const socket = new WebSocket(`ws://${location.host}/ws`, 'fanfare.v1.json');
    const events = [];
    let wake = () => {};
    socket.onmessage = ({ data }) => wake(events.push(JSON.parse(data)));
    const until = async (isRight) => {
      while (!events.some(isRight)) await new Promise((resolve) => (wake = resolve));
      return events.find(isRight);
    };
    await new Promise((resolve) => (socket.onopen = resolve));
    socket.send(JSON.stringify({ id: 1, subscribe: { topic: 'page.rows' } }));
    await until(({ id }) => id === 1);
    socket.send(JSON.stringify({ id: 2, publish: { topic: 'page.rows', data } }));
    const reply = await until(({ id }) => id === 2);
    const echo = await until(({ message }) => message);
    const { extensions } = socket;
    socket.close();
    return { extensions, reply, echo };
  }, rows);
  assert.match(extensions, /^permessage-deflate(;|$)/);
  assert.equal(reply.published?.offset, 1, JSON.stringify(reply));
  assert.deepEqual(echo.message.data, rows);
  const after = await compressing.metrics();
  const grown = (name) => after.get(name) - before.get(name);
  const size = new TextEncoder().encode(JSON.stringify(rows)).length;
  assert.ok(size > 30_000);
  assert.ok(grown('fanfare_received_bytes_total') < size / 2, 'what the browser sent was not compressed');
  const saved = grown('fanfare_deflate_in_bytes_total') - grown('fanfare_deflate_out_bytes_total');
  assert.ok(saved > size / 2, 'what the browser received was not compressed');
  assert.deepEqual(await wrong(page), []);
});

/** Opens the dashboard, in a context that ends with the test. */
async function open(t, options, { port } = broker) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.errors = [];
  page.on('console', (line) => ['error', 'warning'].includes(line.type()) && page.errors.push(line.text()));
  page.on('pageerror', (error) => page.errors.push(String(error)));
  await page.addInitScript(() => {
    window.violations = [];
    const note = ({ violatedDirective, blockedURI }) => window.violations.push(`${violatedDirective} ${blockedURI}`);
    document.addEventListener('securitypolicyviolation', note);
  });
  await page.goto(`http://127.0.0.1:${port}/`);
  return page;
}

/** Waits until at least three prices and two charts of the host have changed, and each chart has data. */
async function isLive(page) {
  await page.waitForSelector('#state[data-state="connected"]');
  await page.evaluate(() => delete window.before);
  await page.waitForFunction(() => {
    const texts = (selector) => Array.from(document.querySelectorAll(selector), (element) => element.textContent);
    const now = { prices: texts('[data-symbol] [data-field="price"]'), charts: texts('#charts .chart ul') };
    const ready = now.prices.length >= 3 && now.charts.length === 4 && now.charts.every((text) => /\d/.test(text));
    if (!ready) return false;
    window.before ??= { ...now, moved: new Set() };
    for (const kind of ['prices', 'charts']) {
      now[kind].forEach((text, i) => text !== window.before[kind][i] && window.before.moved.add(`${kind} ${i}`));
    }
    const count = (kind) => [...window.before.moved].filter((name) => name.startsWith(kind)).length;
    return count('prices') >= 3 && count('charts') >= 2;
  });
}

/** The control of a row, found as a screen reader names it. */
function control(page, symbol) {
  return page.getByRole('combobox', { name: `Delivery of ${symbol}` });
}

/** Waits until a row receives so many messages a second. */
async function rate(page, symbol, from, to) {
  const isBetween = ([name, low, high]) => {
    const value = Number(document.querySelector(`[data-symbol="${name}"] [data-field="rate"]`).textContent);
    return low <= value && value <= high;
  };
  await page.waitForFunction(isBetween, [symbol, from, to]);
}

async function publish(message) {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(`http://127.0.0.1:${broker.port}/v1/publish`, { method: 'POST', headers, body: JSON.stringify(message) });
  assert.equal(answer.status, 200, await answer.text());
}

/** All that the browser complained of. */
async function wrong(page) {
  return [...page.errors, ...(await page.evaluate(() => window.violations))];
}

/** Starts `fanfare demo`, with more settings. */
async function demo(port = 0, settings = '') {
  const config = join(folder, `${port}.toml`);
  await writeFile(config, `${settings}\n${RULES}`);
  const args = ['demo', '--config', config, '--listen', `127.0.0.1:${port}`, '--ingress', 'off', '--admin', '127.0.0.1:0', '--log-format', 'json'];
  const child = spawn(FANFARE_BIN, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const closed = once(child, 'close');
  const kill = async () => {
    child.kill('SIGKILL');
    await closed;
  };
  const lines = createInterface({ input: child.stderr });
  const deadline = setTimeout(kill, DEADLINE_MS);
  const log = [];
  const ports = {};
  for await (const line of lines) {
    log.push(line);
    const listening = /listening for (WebSocket|metrics)/.exec(line);
    if (listening) ports[listening[1]] = Number(/"address":"127\.0\.0\.1:(\d+)"/.exec(line)?.[1]);
    if (ports.WebSocket && ports.metrics) break;
  }
  clearTimeout(deadline);
  assert.ok(ports.WebSocket && ports.metrics, `the broker did not start: ${log.join('\n')}`);
  // Nobody reads the rest, but it must not fill the pipe.
  child.stderr.resume();
  const metrics = async () => {
    const text = await (await fetch(`http://127.0.0.1:${ports.metrics}/metrics`)).text();
    const series = text.split('\n').filter((line) => /^\w+ /.test(line)).map((line) => line.split(' '));
    return new Map(series.map(([name, value]) => [name, Number(value)]));
  };
  return { port: ports.WebSocket, metrics, kill };
}
