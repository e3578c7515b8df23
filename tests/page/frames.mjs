// What the market tab costs in Chromium while so many updates a second come in: frames, and the time of
// the processor that the page's main thread takes, which does not depend on what else runs.
//   FANFARE_BIN=… CHROMIUM=… node frames.mjs [UPDATES_PER_SECOND [SECONDS]]
// Not a test: what it prints depends on the machine.

import { setInterval } from 'node:timers/promises';
import { folderOf, start } from './broker.mjs';
import { launch } from './engines.mjs';
import { open, until } from './page.mjs';

const [perSecond, seconds] = [Number(process.argv[2] ?? 2000), Number(process.argv[3] ?? 10)];
const TOPICS = 200;
const TURNS = 20;

const last = [];
const own = { after: (end) => last.push(end) };
const broker = await start(await folderOf(own));
const browser = await launch('chromium');
try {
  const page = await open(own, browser, broker.origin);
  await broker.publish(...quotes(0, TOPICS));
  await until(page, (topics) => document.querySelectorAll('[data-symbol]').length === topics, TOPICS);
  await page.evaluate(countFrames);
  await page.tracing.start({ categories: ['toplevel', 'devtools.timeline'] });
  let sent = TOPICS;
  for await (const _ of setInterval(1000 / TURNS)) {
    await broker.publish(...quotes(sent, perSecond / TURNS));
    sent += perSecond / TURNS;
    if (sent >= perSecond * seconds) break;
  }
  const { frames, took } = await page.evaluate(() => window.frames());
  const work = mainThread(JSON.parse(new TextDecoder().decode(await page.tracing.stop())).traceEvents);
  console.log(`${((sent - TOPICS) / took).toFixed(0)} updates/s, ${(frames / took).toFixed(1)} frames/s`);
  console.log(`main thread: ${(work / took).toFixed(0)} ms of the processor a second, ${(work / frames).toFixed(1)} ms a frame`);
} finally {
  for (const end of last.reverse()) await end();
  await browser.close();
  await broker.stop();
}

function quotes(from, count) {
  return Array.from({ length: count }, (_, i) => {
    const symbol = `S${String((from + i) % TOPICS).padStart(3, '0')}`;
    return { topic: `ticker.${symbol}`, key: symbol, data: { symbol, price: 100 + Math.sin(from + i), change: 1, changePercent: 1, volume: from + i } };
  });
}

/** Milliseconds of the processor that the busiest page's main thread took. */
function mainThread(events) {
  const mains = events.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain');
  const spent = mains.map(({ pid, tid }) => {
    const tasks = events.filter((event) => event.pid === pid && event.tid === tid && event.name === 'ThreadControllerImpl::RunTask');
    return tasks.reduce((sum, { tdur = 0 }) => sum + tdur, 0) / 1000;
  });
  return Math.max(...spent);
}

/** Runs in the page. */
function countFrames() {
  const begun = performance.now();
  let frames = 0;
  const next = () => {
    frames += 1;
    requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
  window.frames = () => ({ frames, took: (performance.now() - begun) / 1000 });
}
