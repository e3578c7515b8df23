// Board: one row per quote, kept in the order of the symbols.
// Invariants: text goes into the page as text, never as markup; a draw touches only what changed,
// and of the rows out of sight only `HIDDEN_PER_DRAW`, so that a frame stays short.
// Not here: where quotes come from (`model.js`), what becomes of a chosen policy (`dashboard.js`).

import * as format from './format.js';
import { Quotes } from './model.js';
import { say } from './page.js';

const COMPANIES = new Map([
  ['AAPL', 'Apple'],
  ['FB', 'Facebook'],
  ['GOOG', 'Google'],
  ['IBM', 'Intl. Business Machines'],
  ['MSFT', 'Microsoft'],
]);

/** Those come into sight up to date; until then they only have to come in the end. */
const HIDDEN_PER_DRAW = 1;
const BLINK_EVERY_MS = 250;
const FADE_MS = 700;
/** Prices that light up at a time: each is a layer of its own to whoever paints the page, and where
 * everything blinks nothing stands out. */
const BLINKS_MAX = 6;
const FIELDS = ['symbol', 'name', 'price', 'change', 'percent', 'volume', 'date', 'rate', 'cap'];

const calm = matchMedia('(prefers-reduced-motion: reduce)');

export class Board {
  #body;
  #template;
  #choose;
  #rows = new Map();
  #sight = new IntersectionObserver((entries) => this.#see(entries), { rootMargin: '200px' });
  #visible = new WeakSet();
  /** The rows whose prices light up, and until when. */
  #blinks = new Map();

  /** `choose` is told of the terms that somebody chooses for a topic. */
  constructor(body, template, choose) {
    this.#body = body;
    this.#template = template;
    this.#choose = choose;
  }

  /** Takes away the rows of quotes that are no more. */
  prune(quotes) {
    for (const quote of quotes.removed) this.#remove(quote);
    quotes.removed.clear();
  }

  /** Draws the quotes that changed; true when some are left for the next frame. */
  draw(quotes, now) {
    let budget = HIDDEN_PER_DRAW;
    for (const quote of quotes.changed) {
      const row = this.#rows.get(quote) ?? this.#add(quote);
      const visible = this.#visible.has(row.element);
      if (!visible && row.shown && budget-- <= 0) continue;
      if (visible && !calm.matches) this.#blink(row, quote.moved, now);
      row.show(quote);
      quotes.changed.delete(quote);
    }
    return quotes.changed.size > 0;
  }

  /** Shows how often messages come, in the rows that can be seen. */
  tellRates() {
    for (const [quote, row] of this.#rows) if (this.#visible.has(row.element)) row.showRate(quote);
  }

  /** Takes away the placeholders that no quote has replaced. */
  settle() {
    for (const ghost of this.#body.querySelectorAll('.ghost')) ghost.remove();
  }

  #blink(row, moved, now) {
    for (const [other, until] of this.#blinks) if (until <= now) this.#blinks.delete(other);
    const hasPlace = this.#blinks.has(row) || this.#blinks.size < BLINKS_MAX;
    if (hasPlace && row.blink(moved, now)) this.#blinks.set(row, now + FADE_MS);
  }

  #see(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.#visible.add(target);
      else this.#visible.delete(target);
    }
  }

  #add(quote) {
    // One placeholder for one row: what is below stays where it is.
    this.#body.querySelector('.ghost')?.remove();
    const choose = (terms) => this.#choose(quote.topic, terms);
    const row = new Row(this.#template.content.firstElementChild.cloneNode(true), choose);
    row.element.dataset.symbol = quote.symbol;
    const follower = [...this.#body.children].find((other) => !(other.dataset.symbol <= quote.symbol));
    this.#body.insertBefore(row.element, follower ?? null);
    this.#rows.set(quote, row);
    quote.drawn = true;
    this.#sight.observe(row.element);
    return row;
  }

  #remove(quote) {
    const row = this.#rows.get(quote);
    if (!row) return;
    this.#rows.delete(quote);
    this.#sight.unobserve(row.element);
    const { element } = row;
    // Who was at its control goes on at the next one.
    const neighbour = element.nextElementSibling ?? element.previousElementSibling;
    if (element.contains(document.activeElement)) neighbour?.querySelector('select')?.focus();
    element.remove();
  }
}

class Row {
  #cells;
  #select;
  #svg;
  #flash;
  #blinked = -Infinity;
  #fading;

  /** Whether it has been filled in at all. */
  shown = false;

  constructor(element, choose) {
    this.element = element;
    this.#select = element.querySelector('select');
    this.#select.addEventListener('change', () => choose(this.#select.value));
    this.#cells = Object.fromEntries(FIELDS.map((name) => [name, element.querySelector(`[data-field="${name}"]`)]));
    this.#svg = element.querySelector('svg');
    this.#flash = element.querySelector('.flash');
  }

  show(quote) {
    this.shown = true;
    this.#write(quote);
    this.#deliver(quote);
    this.#trend(quote.prices);
  }

  showRate({ frequency, stale }) {
    say(this.#cells.rate, stale ? 'stale' : format.rate(frequency.rate));
  }

  /** Lets the price light up for a moment; false when there is no reason to, or it still does. */
  blink(moved, now) {
    if (moved === 'flat' || now - this.#blinked < BLINK_EVERY_MS) return false;
    this.#blinked = now;
    this.#flash.dataset.tone = moved;
    this.#fading?.cancel();
    this.#fading = this.#flash.animate({ opacity: [1, 0] }, { duration: FADE_MS, easing: 'ease-out' });
    return true;
  }

  #write(quote) {
    const cells = this.#cells;
    const change = Number.isNaN(quote.percent) ? quote.change : quote.percent;
    const tone = Number.isNaN(change) ? 'none' : format.tone(change);
    if (this.element.dataset.symbol !== quote.symbol) this.element.dataset.symbol = quote.symbol;
    if (this.element.dataset.tone !== tone) this.element.dataset.tone = tone;
    say(cells.symbol, quote.symbol);
    say(cells.name, COMPANIES.get(quote.symbol) ?? '');
    say(cells.price, format.price(quote.price));
    say(cells.change, format.difference(quote.change));
    say(cells.percent, format.share(quote.percent));
    say(cells.volume, format.amount(quote.volume));
    say(cells.date, format.date(quote.date));
  }

  /** On which terms the quote comes, and whether it still does. */
  #deliver(quote) {
    const select = this.#select;
    const name = `Delivery of ${quote.symbol}`;
    const stale = String(quote.stale !== false);
    if (select.getAttribute('aria-label') !== name) select.setAttribute('aria-label', name);
    if (select.value !== quote.terms) select.value = quote.terms;
    const capped = !quote.pending && quote.granted !== quote.terms;
    say(this.#cells.cap, capped ? format.cap(quote.granted) : '');
    if (this.element.dataset.stale === stale) return;
    this.element.dataset.stale = stale;
    this.#cells.rate.title = quote.stale?.since ? `no message since ${format.clock(quote.stale.since)}` : '';
    this.showRate(quote);
  }

  #trend(prices) {
    const [area, line, tip] = this.#svg.children;
    const path = trace(prices);
    const tone = format.tone(prices.at(-1) - prices[0]);
    if (this.#svg.dataset.tone !== tone) {
      this.#svg.dataset.tone = tone;
      area.setAttribute('fill', `url(#fade-${tone})`);
    }
    area.setAttribute('d', path.area);
    line.setAttribute('d', path.line);
    tip.setAttribute('d', path.tip);
  }
}

const WIDTH = Quotes.PRICES - 1;
const HEIGHT = 40;
const MARGIN = 4;

/** Paths in a box of 119 × 40: one step per price, the latest at the right edge. */
function trace(prices) {
  if (prices.length === 0) return { area: '', line: '', tip: '' };
  const low = prices.reduce((a, b) => Math.min(a, b));
  const span = prices.reduce((a, b) => Math.max(a, b)) - low;
  const left = WIDTH - prices.length + 1;
  const y = (price) => (span > 0 ? HEIGHT - MARGIN - ((price - low) / span) * (HEIGHT - 2 * MARGIN) : HEIGHT / 2).toFixed(2);
  const points = prices.map((price, i) => `${left + i} ${y(price)}`).join('L');
  const end = `M${WIDTH} ${y(prices.at(-1))}`;
  return { line: `M${points}`, area: `M${points}V${HEIGHT}H${left}Z`, tip: `${end}h0` };
}
