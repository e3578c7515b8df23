// The dashboard in a real browser, on real brokers: it moves, it does as it is told, it mends itself,
// and it shows nobody what is not theirs.
// Leaves screenshots in tests/artefacts.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { folderOf, start } from './broker.mjs';
import { ELSEWHERE, can, launch } from './engines.mjs';
import { open, text, until, wrong } from './page.mjs';
import { deaf } from './socket.mjs';

const ARTEFACTS = fileURLToPath(new URL('../artefacts/', import.meta.url));
const EXAMPLE = new URL('../../examples/ticker.html', import.meta.url);
/** One topic falls silent soon, and one may not be sent often. */
const RULES = `[topics]
rules = [{ filter = "ticker.QUIET", stale_after = "1s" }, { filter = "ticker.IBM", max_hz = 2 }]
`;
const TABS = ['market', 'host', 'broker'];
/** How much a page may move under its reader; a tenth is where it is called good. */
const SHIFT_MAX = 0.05;

/** All tests, in one engine. */
export function dashboard(engine) {
  describe(`the dashboard in ${engine}`, () => {
    const suite = { engine };
    before(async (t) => {
      mkdirSync(ARTEFACTS, { recursive: true });
      suite.folder = await folderOf({ after });
      suite.broker = await start(suite.folder, { mode: 'demo', settings: RULES });
      suite.browser = await launch(engine);
    });
    after(async () => {
      await suite.browser?.close();
      await suite.broker?.stop();
    });
    suite.open = (t, { at = '', on = suite.broker, ...options } = {}) => open(t, suite.browser, `${on.origin}/${at}`, options);
    market(suite);
    rows(suite);
    tabs(suite);
    host(suite);
    broker(suite);
    secrecy(suite);
    strangers(suite);
    work(suite);
    looks(suite);
    example(suite);
  });
}

function market(suite) {
  test('prices, figures and latencies move', async (t) => {
    const page = await suite.open(t);
    await isLive(page);
    await until(page, () => Number(document.querySelector('#rate').textContent) > 0);
    await until(page, () => /^(<.)?\d+.ms$/.test(document.querySelector('#lag-99').textContent));
    await until(page, () => document.querySelector('#lag-bars').getAttribute('d') !== '');
    assert.match(await text(page, '#version'), /^fanfare\/\d+\.\d+/);
    assert.deepEqual(await wrong(page), []);
  });

  test('a page whose broker was killed comes back by itself and says that it started anew', async (t) => {
    const folder = await folderOf(t);
    const first = await start(folder, { mode: 'demo' });
    const page = await suite.open(t, { on: first });
    await isLive(page);
    await page.select(control('AAPL'), '1');
    await rate(page, 'AAPL', 0.5, 1.5);
    await first.stop();
    await page.waitForSelector('#state[data-state="reconnecting"]');
    const next = await start(folder, { mode: 'demo', port: first.port });
    t.after(() => next.stop());
    await page.waitForSelector('#state[data-state="connected"]');
    await page.waitForSelector('#recovery[data-outcome="anew"]');
    assert.equal(await text(page, '#recovery'), 'Started anew: epochChanged');
    await isLive(page);
    assert.equal(await value(page, 'AAPL'), '1');
    await rate(page, 'AAPL', 0.5, 1.5);
    assert.deepEqual(await wrong(page), []);
  });
}

function rows(suite) {
  test('a row is sent as seldom as somebody chooses, and as often again', async (t) => {
    const page = await suite.open(t);
    await isLive(page);
    await rate(page, 'AAPL', 2.5, 5);
    const box = async () => (await page.$('[data-symbol="AAPL"]')).boundingBox();
    const before = await box();
    // By the keyboard, past the choices between; the last one counts.
    await page.focus(control('AAPL'));
    for (let i = 0; i < 4; i += 1) await page.keyboard.press('ArrowDown');
    assert.equal(await value(page, 'AAPL'), '1');
    await rate(page, 'AAPL', 0.5, 1.5);
    await rate(page, 'MSFT', 2.5, 5);
    await until(page, () => document.querySelector('#announcement').textContent === 'AAPL: 1 Hz');
    await page.select(control('AAPL'), 'all');
    await rate(page, 'AAPL', 2.5, 5);
    assert.deepEqual(await box(), before);
    assert.equal(await text(page, '#gaps'), '0');
    assert.deepEqual(await wrong(page), []);
  });

  test('a row says when it is granted less than was chosen', async (t) => {
    const page = await suite.open(t);
    await isLive(page);
    await page.select(control('IBM'), '10');
    await until(page, () => document.querySelector('[data-symbol="IBM"] [data-field="cap"]').textContent === 'max 2 Hz');
    await rate(page, 'IBM', 1.5, 2.5);
    await page.select(control('IBM'), '1');
    await until(page, () => document.querySelector('[data-symbol="IBM"] [data-field="cap"]').textContent === '');
    await rate(page, 'IBM', 0.5, 1.5);
    assert.deepEqual(await wrong(page), []);
  });

  test('a topic that falls silent is shown as stale, and one that is deleted is gone', async (t) => {
    const page = await suite.open(t);
    await isLive(page);
    const quote = { topic: 'ticker.QUIET', key: 'QUIET', data: { symbol: 'QUIET', price: 1.5 } };
    await suite.broker.publish(quote);
    await page.waitForSelector('[data-symbol="QUIET"][data-stale="true"]');
    assert.equal(await text(page, '[data-symbol="QUIET"] [data-field="rate"]'), 'stale');
    // Who comes now is told, too.
    const other = await suite.open(t);
    await other.waitForSelector('[data-symbol="QUIET"][data-stale="true"]');
    await page.bringToFront();
    // One message is fresh for a second, which a busy machine may look away.
    await during(() => suite.broker.publish(quote), page.waitForSelector('[data-symbol="QUIET"][data-stale="false"]'));
    await page.focus(control('QUIET'));
    await suite.broker.publish({ topic: 'ticker.QUIET', key: 'QUIET', delete: true });
    for (const each of [page, other]) {
      await each.bringToFront();
      await each.waitForSelector('[data-symbol="QUIET"]', { hidden: true });
    }
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'Delivery of MSFT');
    assert.deepEqual(await wrong(page), []);
  });
}

function tabs(suite) {
  test('tabs go by keys, by address and back, and each names its panel', async (t) => {
    const page = await suite.open(t, { at: '#host' });
    await shows(page, 'host');
    await page.focus('#tab-host');
    for (const [key, name] of [['ArrowRight', 'broker'], ['ArrowRight', 'market'], ['ArrowLeft', 'broker'], ['Home', 'market'], ['End', 'broker']]) {
      await page.keyboard.press(key);
      await shows(page, name);
      assert.equal(await page.evaluate(() => document.activeElement.id), `tab-${name}`);
      assert.equal(new URL(page.url()).hash, `#${name}`);
    }
    await page.click('#tab-market');
    await shows(page, 'market');
    await page.goBack();
    await shows(page, 'broker');
    // An address that names no tab changes nothing.
    await page.evaluate(() => (location.hash = '#none'));
    await shows(page, 'broker');
    assert.deepEqual(await unnamed(page), []);
    assert.deepEqual(await wrong(page), []);
  });
}

function host(suite) {
  test('a demo shows how its own host is', async (t) => {
    const page = await suite.open(t, { at: '#host' });
    await drawn(page, 'host');
    // Figures are written a frame after the charts at times.
    await until(page, () => ['cores', 'cpu', 'load', 'total'].every((name) => !document.querySelector(`#host-${name}`).textContent.includes('—')));
    const processors = cpus().length;
    assert.equal(await text(page, '#host-cores'), `of ${processors} ${processors === 1 ? 'processor' : 'processors'}`);
    assert.match(await text(page, '#host-cpu'), /^\d+(\.\d)?\u2009%$/);
    assert.match(await text(page, '#host-load'), /^\d+\.\d\d$/);
    assert.match(await text(page, '#host-total'), new RegExp(`^of ${(totalmem() / 2 ** 30).toFixed(1)}\u2009GiB`));
    assert.deepEqual(await wrong(page), []);
  });

  test('charts follow what is published', async (t) => {
    const plain = await start(await folderOf(t));
    t.after(() => plain.stop());
    const page = await suite.open(t, { on: plain, at: '#host' });
    const legend = '[data-topic="host.cpu"] ul';
    const picture = () => page.$eval('[data-topic="host.cpu"] canvas', (canvas) => canvas.toDataURL());
    await plain.publish({ topic: 'host.cpu', data: { percent: 12.5, cores: [10, 15] } });
    await until(page, (legend) => document.querySelector(legend).textContent.includes('12.5'), legend);
    await page.waitForSelector('[data-topic="host.cpu"] canvas');
    const before = await picture();
    await plain.publish({ topic: 'host.cpu', data: { percent: 87.5, cores: [100, 75] } });
    await until(page, (legend) => document.querySelector(legend).textContent.includes('87.5'), legend);
    assert.notEqual(await picture(), before);
    // Whatever is published, the page stands.
    for (const data of [null, 7, 'x', [], { percent: 'high', cores: 3 }, { percent: -1e300, cores: [{}] }]) await plain.publish({ topic: 'host.cpu', data });
    await plain.publish({ topic: 'host.cpu', data: { percent: 50 } });
    await until(page, (legend) => document.querySelector(legend).textContent.includes('50.0'), legend);
    assert.deepEqual(await wrong(page), []);
  });
}

function broker(suite) {
  test('a demo shows its own numbers, and who is slow', async (t) => {
    const folder = await folderOf(t);
    const own = await start(folder, { mode: 'demo' });
    t.after(() => own.stop());
    const page = await suite.open(t, { on: own, at: '#broker' });
    await until(page, () => Number(document.querySelector('#broker-published').textContent) > 10);
    await until(page, () => document.querySelector('#broker-connections').textContent === '1');
    // One message, one wire, one encode.
    await until(page, () => Math.abs(Number(document.querySelector('#broker-encodes').textContent) - 1) < 0.1);
    await drawn(page, 'broker');
    await until(page, () => /^(host|ticker)\./.test(document.querySelector('#busiest td').textContent));
    await page.waitForSelector('#slowest-none', { visible: true });
    await deaf(t, own.port, 'page.large');
    const large = Array.from({ length: 20 }, () => ({ topic: 'page.large', text: 'x'.repeat(40_000) }));
    for (let i = 0; i < 20; i += 1) await own.publish(...large);
    await until(page, () => Number(document.querySelectorAll('#slowest td')[3].textContent) === 1);
    await page.screenshot({ path: `${ARTEFACTS}broker-slow-${suite.engine}.png`, fullPage: true });
    assert.deepEqual(await wrong(page), []);
  });

  test('a broker with a token shows them to whoever has it, until that is forgotten', async (t) => {
    const token = 'the-token-of-the-operators-0123456789';
    const hash = execFileSync(process.env.FANFARE_BIN, ['token', 'hash'], { input: token }).toString().trim();
    const settings = `admin.dashboard = true\nadmin.token = "${hash}"\n`;
    const guarded = await start(await folderOf(t), { settings });
    t.after(() => guarded.stop());
    const page = await suite.open(t, { on: guarded, at: '#broker' });
    const asked = [];
    page.on('request', (request) => asked.push(request.url()));
    await part(page, 'ask');
    await page.screenshot({ path: `${ARTEFACTS}broker-ask-${suite.engine}.png` });
    await page.type('#token', 'another one');
    await page.keyboard.press('Enter');
    await until(page, () => document.querySelector('#token-wrong').textContent.includes('does not take'));
    await page.type('#token', token);
    await page.keyboard.press('Enter');
    await part(page, 'view');
    await until(page, () => document.activeElement.id === 'broker-view');
    assert.equal(await page.evaluate(() => Object.values(localStorage).length), 0);
    await page.reload();
    await part(page, 'view');
    await page.click('#token-forget');
    await part(page, 'ask');
    await page.reload();
    await part(page, 'ask');
    assert.ok(asked.every((url) => url.startsWith(guarded.origin) && !url.includes(token)), asked.join(' '));
    // The browser itself notes each answer that refuses.
    const others = (await wrong(page)).filter((words) => !/status of 40[13]/.test(words));
    assert.deepEqual(others, []);
  });
}

function secrecy(suite) {
  test('a page that came in plain text through a network does not ask for the token', async (t) => {
    const settings = `admin.dashboard = true\nadmin.token = "${'0'.repeat(64)}"\n`;
    const guarded = await start(await folderOf(t), { settings });
    t.after(() => guarded.stop());
    const page = await open(t, suite.browser, `http://${ELSEWHERE}:${guarded.port}/#broker`);
    await part(page, 'plain');
    assert.equal(await page.$eval('#token', (input) => input.checkVisibility()), false);
  });
}

function strangers(suite) {
  test('a broker that is no demo says what to publish, and shows nothing of itself', async (t) => {
    const plain = await start(await folderOf(t));
    t.after(() => plain.stop());
    const page = await suite.open(t, { on: plain });
    await page.waitForSelector('#empty', { visible: true });
    await page.screenshot({ path: `${ARTEFACTS}market-empty-${suite.engine}.png`, fullPage: true });
    await page.click('#tab-host');
    await page.waitForSelector('#panel-host .empty', { visible: true });
    await page.screenshot({ path: `${ARTEFACTS}host-empty-${suite.engine}.png`, fullPage: true });
    await page.click('#tab-broker');
    await part(page, 'closed');
    await page.screenshot({ path: `${ARTEFACTS}broker-closed-${suite.engine}.png`, fullPage: true });
    // What the page says is what works.
    await plain.publish({ topic: 'host.cpu', data: { percent: 12.5, cores: [10, 15], load: [0.5, 0.6, 0.7] } });
    await plain.publish({ topic: 'ticker.TEST', data: { symbol: 'TEST', price: 1 } });
    await page.click('#tab-host');
    await until(page, () => document.querySelector('#host-cpu').textContent.startsWith('12.5'));
    await page.click('#tab-market');
    await page.waitForSelector('[data-symbol="TEST"]', { visible: true });
    const others = (await wrong(page)).filter((words) => !words.includes('status of 404'));
    assert.deepEqual(others, []);
  });

  test('a page asks its own broker alone, and may run nothing else', async (t) => {
    const page = await suite.open(t, { at: 'favicon.svg' });
    const asked = [];
    page.on('request', (request) => asked.push(request.url()));
    const answer = await page.goto(`${suite.broker.origin}/`);
    const policy = answer.headers()['content-security-policy'];
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self';/);
    assert.doesNotMatch(policy, /unsafe|\*|https?:/);
    await isLive(page);
    for (const name of TABS) await page.click(`#tab-${name}`);
    await until(page, () => Number(document.querySelector('#broker-published').textContent) > 0);
    const own = (url) => url.startsWith('data:') || url.startsWith(`${suite.broker.origin}/`) || url.startsWith(suite.broker.origin.replace('http', 'ws'));
    assert.deepEqual(asked.filter((url) => !own(url)), []);
    assert.ok(asked.length > 10, 'requests were not seen');
    assert.deepEqual(await wrong(page), []);
  });
}

function work(suite) {
  test('thousands of messages are drawn once a frame, and only what can be seen', async (t) => {
    const topics = 200;
    const messages = 6000;
    const busy = await start(await folderOf(t));
    t.after(() => busy.stop());
    const page = await suite.open(t, { on: busy });
    const quotes = (from, count) => Array.from({ length: count }, (_, i) => {
      const symbol = `S${String((from + i) % topics).padStart(3, '0')}`;
      return { topic: `ticker.${symbol}`, key: symbol, data: { symbol, price: from + i, change: 1, changePercent: 1 } };
    });
    for (let from = 0; from < topics; from += 100) await busy.publish(...quotes(from, 100));
    await until(page, (topics) => document.querySelectorAll('[data-symbol]').length === topics, topics);
    await page.evaluate(countWork);
    for (let from = topics; from < topics + messages; from += 100) await busy.publish(...quotes(from, 100));
    const last = quotes(topics + messages - topics, 1)[0].data;
    await until(page, ({ symbol, price }) => document.querySelector(`[data-symbol="${symbol}"] [data-field="price"]`).textContent.replace(',', '').startsWith(price), last);
    const { inFrames, elsewhere, frames, rows, seconds } = await page.evaluate(() => window.work());
    assert.ok(inFrames > 0 && inFrames <= frames, `${inFrames} drawings in ${frames} frames`);
    // Figures and rates are written four times a second.
    assert.ok(elsewhere <= 5 * (seconds + 1), `${elsewhere} drawings outside of frames in ${seconds} s`);
    assert.ok(rows <= 40, `${rows} rows were drawn in one frame`);
    assert.equal(await text(page, '#gaps'), '0');
    assert.deepEqual(await wrong(page), []);
  });
}

function looks(suite) {
  const schemes = can(suite.engine).scheme ? ['light', 'dark'] : [undefined];
  for (const scheme of schemes) {
    for (const [width, height] of [[1280, 900], [360, 740]]) {
      test(`each tab fits ${width} pixels${scheme ? `, ${scheme}` : ''}, and does not move under its reader`, async (t) => {
        const page = await suite.open(t, { width, height, scheme });
        await isLive(page);
        for (const name of TABS) {
          await page.click(`#tab-${name}`);
          if (name !== 'market') await drawn(page, name);
          const [wide, shift] = await page.evaluate(() => [document.documentElement.scrollWidth, window.shift]);
          assert.ok(wide <= width, `${name} is ${wide} pixels wide`);
          assert.ok(shift <= SHIFT_MAX, `${name} moved by ${shift}`);
          const path = `${ARTEFACTS}${[name, width, scheme, suite.engine].filter(Boolean).join('-')}.png`;
          await page.screenshot({ path, fullPage: true });
        }
        assert.deepEqual(await wrong(page), []);
      });
    }
  }
}

function example(suite) {
  test('the example works by opening its file', async (t) => {
    const folder = await folderOf(t);
    // Only the port is another one.
    const source = await readFile(EXAMPLE, 'utf8');
    assert.ok(source.trim().split('\n').length <= 30);
    const file = join(folder, 'ticker.html');
    await writeFile(file, source.replaceAll('127.0.0.1:7600', `127.0.0.1:${suite.broker.port}`));
    const page = await open(t, suite.browser, pathToFileURL(file).href);
    await until(page, () => document.querySelectorAll('tr').length >= 5);
    await moves(page, 'td:nth-child(2)', 3);
    assert.equal(await text(page, '#state'), 'connected');
    await page.screenshot({ path: `${ARTEFACTS}example-${suite.engine}.png` });
    assert.deepEqual(await wrong(page), []);
  });
}

// === What the tests look at ===

/** Does something again and again until what is waited for has come. */
async function during(act, waiting) {
  let isOver = false;
  const over = waiting.finally(() => (isOver = true));
  while (!isOver) await Promise.all([act(), Promise.race([setTimeout(200), over])]);
  await over;
}

/** Waits until at least three prices have changed. */
async function isLive(page) {
  await page.waitForSelector('#state[data-state="connected"]');
  await moves(page, '[data-symbol] [data-field="price"]', 3);
}

/** Waits until every chart of a tab has values and a picture. */
function drawn(page, name) {
  return until(page, (name) => {
    const charts = [...document.querySelectorAll(`#${name}-charts .chart`)];
    return charts.length > 1 && charts.every((chart) => /\d/.test(chart.querySelector('ul').textContent) && chart.querySelector('canvas'));
  }, name);
}

/** Waits until the texts of so many elements have changed. */
async function moves(page, selector, count) {
  await page.evaluate(() => delete window.seen);
  await until(page, (selector, count) => {
    const texts = Array.from(document.querySelectorAll(selector), (element) => element.textContent);
    if (texts.length < count || !texts.every((words) => /\d/.test(words))) return false;
    window.seen ??= { texts, moved: new Set() };
    texts.forEach((words, i) => words !== window.seen.texts[i] && window.seen.moved.add(i));
    return window.seen.moved.size >= count;
  }, selector, count);
}

/** Waits until one tab and its panel are chosen, and no other. */
function shows(page, name) {
  return until(page, (name) => {
    const chosen = [...document.querySelectorAll('[role="tab"][aria-selected="true"]')];
    const visible = [...document.querySelectorAll('[role="tabpanel"]')].filter((panel) => panel.checkVisibility());
    const panel = visible[0];
    return chosen.length === 1 && visible.length === 1 && chosen[0].id === `tab-${name}` && chosen[0].tabIndex === 0
      && chosen[0].getAttribute('aria-controls') === panel.id && panel.getAttribute('aria-labelledby') === chosen[0].id;
  }, name);
}

/** Waits until the broker's panel shows one part. */
function part(page, name) {
  return page.waitForSelector(`#panel-broker[data-part="${name}"] [data-for="${name}"]`, { visible: true });
}

/** What somebody can act on and a screen reader has no name for. */
function unnamed(page) {
  return page.evaluate(() => {
    const name = (element) => element.getAttribute('aria-label') || element.labels?.[0]?.textContent || element.textContent.trim();
    const ids = new Set(Array.from(document.querySelectorAll('[id]'), ({ id }) => id));
    const dangling = [...document.querySelectorAll('[aria-labelledby], [aria-describedby], [aria-controls]')].filter((element) => {
      const refers = ['aria-labelledby', 'aria-describedby', 'aria-controls'].flatMap((key) => element.getAttribute(key)?.split(' ') ?? []);
      return refers.some((id) => !ids.has(id));
    });
    const nameless = [...document.querySelectorAll('a, button, input, select, [role="img"], [role="region"]')].filter((element) => !name(element) && !element.hasAttribute('aria-labelledby'));
    return [...dangling, ...nameless].map((element) => element.outerHTML);
  });
}

/** The control of a row. */
function control(symbol) {
  return `select[aria-label="Delivery of ${symbol}"]`;
}

function value(page, symbol) {
  return page.$eval(control(symbol), (select) => select.value);
}

/** Waits until a row receives so many messages a second. */
function rate(page, symbol, from, to) {
  return until(page, (symbol, from, to) => {
    const rate = Number(document.querySelector(`[data-symbol="${symbol}"] [data-field="rate"]`).textContent);
    return from <= rate && rate <= to;
  }, symbol, from, to);
}

/** Runs in the page: counts how often, where and how much it is drawn from now on. */
function countWork() {
  const counts = { inFrames: 0, elsewhere: 0, frames: 0, rows: 0 };
  const begun = performance.now();
  const request = window.requestAnimationFrame;
  let isFrame = false;
  window.requestAnimationFrame = (draw) => request.call(window, (now) => {
    counts.frames += 1;
    isFrame = true;
    draw(now);
    // Whoever observes is called before this.
    queueMicrotask(() => (isFrame = false));
  });
  new MutationObserver((changes) => {
    counts[isFrame ? 'inFrames' : 'elsewhere'] += 1;
    const rows = new Set(changes.map(({ target }) => (target.closest ? target : target.parentElement)?.closest('[data-symbol]')));
    if (isFrame) counts.rows = Math.max(counts.rows, rows.size);
  }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  window.work = () => ({ ...counts, seconds: (performance.now() - begun) / 1000 });
}
