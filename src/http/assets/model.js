// Model: what the page knows, fed by message handlers, read by whoever draws.
// Owns every array and map that grows with messages, and the bound of each.
// Invariants: nothing here throws, whatever a message holds; nothing here grows without end.
// Not here: the document, the connection, the clock (time is always an argument, in milliseconds).

import { number, text, tone } from './format.js';

/** Messages per second, and totals, of one connection. */
export class Meter {
  static #MARKS = 9;
  /** How many beats are kept: 15 seconds. */
  static BEATS = 60;

  #total = 0;
  #live = 0;
  #marks = [];
  #leastLags = [Infinity];

  /** Live messages between one mark and the next, oldest first. */
  beats = new Array(Meter.BEATS).fill(0);

  /** Messages since the page was opened. */
  get total() {
    return this.#total;
  }

  /** Counts a message of the past: it says nothing about the present rate or lag. */
  countPast() {
    this.#total += 1;
  }

  /** Counts a live message; a lag that is not known is NaN. */
  countLive(lag) {
    this.#total += 1;
    this.#live += 1;
    if (lag < this.#leastLags[0]) this.#leastLags[0] = lag;
  }

  /** Call four times a second: the rate over the last two seconds. */
  mark(now) {
    const live = this.#live;
    this.beats.shift();
    this.beats.push(live - (this.#marks.at(-1)?.live ?? 0));
    this.#marks.push({ now, live });
    if (this.#marks.length > Meter.#MARKS) this.#marks.shift();
    this.#leastLags.unshift(Infinity);
    this.#leastLags.length = Math.min(this.#leastLags.length, Meter.#MARKS);
    const first = this.#marks[0];
    const seconds = (now - first.now) / 1000;
    return seconds > 0 ? (live - first.live) / seconds : NaN;
  }

  /** The least lag of the last two seconds; Infinity when nothing came. */
  leastLag() {
    return Math.min(...this.#leastLags);
  }
}

/** Names of topics, counted up to a bound. */
export class Topics {
  static MAX = 10_000;
  #names = new Set();

  add(name) {
    if (this.#names.size < Topics.MAX) this.#names.add(name);
  }

  get size() {
    return this.#names.size;
  }
}

/** The latest quote of every ticker topic, and on which terms it comes. */
export class Quotes {
  static MAX = 250;
  static PRICES = 120;

  #byTopic = new Map();
  #refused = new Set();

  /** Quotes that changed; who draws one takes it out. */
  changed = new Set();
  /** Quotes that are no more; who takes one away takes it out. */
  removed = new Set();

  get size() {
    return this.#byTopic.size;
  }

  /** Topics that have no row because there are `Quotes.MAX` already. */
  get refused() {
    return this.#refused.size;
  }

  take(topic, data) {
    let quote = this.#byTopic.get(topic);
    if (!quote) {
      if (this.#byTopic.size >= Quotes.MAX) {
        if (this.#refused.size < Topics.MAX) this.#refused.add(topic);
        return;
      }
      quote = {
        topic,
        symbol: topic.slice(topic.indexOf('.') + 1),
        prices: [],
        moved: 'flat',
        frequency: new Frequency(),
        stale: false,
        terms: 'all',
        granted: 'all',
        pending: false,
        drawn: false,
      };
      this.#byTopic.set(topic, quote);
    }
    update(quote, data);
    this.changed.add(quote);
  }

  /** Counts a live message for the quote's rate. */
  count(topic) {
    this.#byTopic.get(topic)?.frequency.count();
  }

  /** Call four times a second. */
  mark() {
    for (const { frequency } of this.#byTopic.values()) frequency.mark();
  }

  remove(topic) {
    const quote = this.#byTopic.get(topic);
    if (!quote) return;
    this.#byTopic.delete(topic);
    this.changed.delete(quote);
    // One that has no row needs none to be taken away: so there are never more than rows.
    if (quote.drawn) this.removed.add(quote);
  }

  /** Notes facts about a quote: `stale`, the `terms` that were chosen, those `granted`, or `pending`. */
  note(topic, facts) {
    const quote = this.#byTopic.get(topic);
    if (!quote) return;
    this.changed.add(Object.assign(quote, facts));
    // What came before on other terms would only blur the rate.
    if ('granted' in facts) quote.frequency = new Frequency();
  }

  get(topic) {
    return this.#byTopic.get(topic);
  }
}

/** Messages per second: over the last four seconds, or over more if so few came. */
class Frequency {
  static #FEW = 8;
  static #MARKS_MIN = 16;
  static #MARKS_MAX = 80;
  #counts = [0];

  /** NaN until there is a second to speak of. */
  rate = NaN;

  count() {
    this.#counts[0] += 1;
  }

  mark() {
    let sum = 0;
    let marks = 0;
    for (const count of this.#counts) {
      if (marks >= Frequency.#MARKS_MIN && sum >= Frequency.#FEW) break;
      sum += count;
      marks += 1;
    }
    this.rate = marks < 4 ? NaN : (4 * sum) / marks;
    this.#counts.unshift(0);
    if (this.#counts.length > Frequency.#MARKS_MAX) this.#counts.pop();
  }
}

function update(quote, data) {
  const fields = data !== null && typeof data === 'object' ? data : {};
  const price = number(fields.price);
  const date = text(fields.date, 12);
  // A replay that begins again goes back in time: one line through both ends would be a false cliff.
  if (date && quote.date && date < quote.date) {
    quote.prices.length = 0;
    quote.price = NaN;
  }
  quote.symbol = text(fields.symbol, 24) || quote.symbol;
  quote.moved = tone(price - quote.price);
  quote.price = price;
  quote.change = number(fields.change);
  quote.percent = number(fields.changePercent);
  quote.volume = number(fields.volume);
  quote.date = date;
  if (Number.isNaN(price)) return;
  quote.prices.push(price);
  if (quote.prices.length > Quotes.PRICES) quote.prices.shift();
}

/** Columns of numbers over the last two minutes, in the shape that uPlot draws: seconds first. */
export class Track {
  static WINDOW_S = 120;
  /** Points closer together than this replace each other: bounds the columns and the drawing. */
  static #SPACING_S = 0.1;
  /** A silence longer than this is drawn as a hole. */
  static #HOLE_S = 3;

  columns;

  constructor(width) {
    this.columns = Array.from({ length: width + 1 }, () => []);
  }

  get width() {
    return this.columns.length - 1;
  }

  add(time, values) {
    const at = time / 1000;
    const seconds = this.columns[0];
    const last = seconds.at(-1) ?? -Infinity;
    // A clock that was set back starts the picture anew; a mere straggler is left out.
    if (at < last - 5) this.columns.forEach((column) => column.splice(0));
    else if (at < last) return;
    else if (at - last > Track.#HOLE_S && last > 0) this.#push((at + last) / 2, []);
    else if (at - (seconds.at(-2) ?? -Infinity) < Track.#SPACING_S) this.columns.forEach((column) => column.pop());
    this.#push(at, values);
    this.#trim(at - Track.WINDOW_S - 5);
  }

  /** The latest value of a column, from 1; NaN when there is none. */
  latest(column) {
    return number(this.columns[column]?.at(-1));
  }

  /** The largest value of all columns. */
  top() {
    let top = 0;
    for (let i = 1; i < this.columns.length; i += 1) {
      for (const value of this.columns[i]) if (value > top) top = value;
    }
    return top;
  }

  #push(at, values) {
    this.columns[0].push(at);
    for (let i = 1; i < this.columns.length; i += 1) {
      const value = number(values[i - 1]);
      this.columns[i].push(Number.isNaN(value) ? null : value);
    }
  }

  #trim(oldest) {
    let old = 0;
    while (this.columns[0][old] < oldest) old += 1;
    if (old > 0) this.columns.forEach((column) => column.splice(0, old));
  }
}

/** The broker's clock as seen from here: the least delayed message told it best. */
export class BrokerClock {
  #ahead = -Infinity;

  see(time, arrival) {
    this.#ahead = Math.max(this.#ahead, time - arrival);
  }

  /** Forgets what it saw: the next broker may have another clock. */
  reset() {
    this.#ahead = -Infinity;
  }

  now(arrival) {
    return this.#ahead === -Infinity ? NaN : arrival + this.#ahead;
  }
}
