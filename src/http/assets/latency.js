// Latency: how long messages of the last ten seconds took, from the broker's clock to this page.
// Owns the counts, by second and by millisecond, and the picture of them.
// Invariants: counting a message is one addition; nothing here grows.
// Not here: which messages count (`dashboard.js`).

import * as format from './format.js';
import { find, say } from './page.js';

const MS_MAX = 1024;
/** From how many milliseconds on each bar counts; the last one counts all that took longer. */
const BARS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, MS_MAX];

/** Counts of lags, in whole milliseconds because that is how messages tell their time. */
export class Latency {
  static SECONDS = 10;

  #slots = Array.from({ length: Latency.SECONDS }, () => new Uint32Array(MS_MAX + 1));
  #second = 0;

  /** Counts a message; a lag that is not known is NaN. `now` is in milliseconds. */
  count(now, lag) {
    if (Number.isNaN(lag)) return;
    this.#turn(now);
    // A clock that is a little ahead makes lags below zero, which nothing can have.
    const cell = Math.min(MS_MAX, Math.max(0, Math.round(lag)));
    this.#slots[this.#second % Latency.SECONDS][cell] += 1;
  }

  /** The counts of the last ten seconds: how many, in which bar, and quantiles. */
  sum(now) {
    this.#turn(now);
    const cells = new Uint32Array(MS_MAX + 1);
    let total = 0;
    for (const slot of this.#slots) slot.forEach((count, ms) => count > 0 && (cells[ms] += count));
    const bars = new Array(BARS.length).fill(0);
    let bar = 0;
    cells.forEach((count, ms) => {
      if (ms >= BARS[bar + 1]) bar += 1;
      bars[bar] += count;
      total += count;
    });
    return { total, bars, quantile: (share) => quantile(cells, total * share) };
  }

  /** Empties the seconds that have passed since the last call. */
  #turn(now) {
    const second = Math.floor(now / 1000);
    const passed = Math.min(Latency.SECONDS, second - this.#second);
    for (let i = 0; i < passed; i += 1) this.#slots[(second - i) % Latency.SECONDS].fill(0);
    this.#second = Math.max(this.#second, second);
  }
}

/** The lag that so many messages do not exceed; NaN when there are none. */
function quantile(cells, wanted) {
  let seen = 0;
  for (let ms = 0; ms < cells.length; ms += 1) {
    seen += cells[ms];
    if (seen > 0 && seen >= wanted) return ms;
  }
  return NaN;
}

/** Draws what was counted; `differ` when the clocks do, so that lags mean nothing. */
export function tellLatency({ total, bars, quantile }, differ) {
  const shown = (share) => (differ ? format.NONE : `${longest(quantile(share))}\u2009ms`);
  say(find('lag-median'), shown(0.5));
  say(find('lag-95'), shown(0.95));
  say(find('lag-99'), shown(0.99));
  say(find('lag-max'), shown(1));
  say(find('lag-count'), `${format.count(total)} in 10 s`);
  const top = Math.max(1, ...bars);
  const path = differ ? [] : bars.map((count, i) => (count > 0 ? bar(i, 2 + (count / top) * 94) : ''));
  find('lag-bars').setAttribute('d', path.join(''));
}

function longest(ms) {
  return ms >= MS_MAX ? `≥\u2009${format.count(MS_MAX)}` : format.milliseconds(ms);
}

/** A bar in a box of 120 × 100, ten wide each. */
function bar(i, height) {
  return `M${i * 10 + 1} 100v${-height.toFixed(1)}h8V100z`;
}
