// Board: one row per quote, kept in the order of the symbols.
// Invariants: text goes into the page as text, never as markup; a draw touches only what changed,
// and of the rows out of sight only `HIDDEN_PER_DRAW`, so that a frame stays short.
// Not here: where quotes come from (`model.js`).

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

const HIDDEN_PER_DRAW = 4;
const BLINK_EVERY_MS = 250;
const FIELDS = ['symbol', 'name', 'price', 'change', 'percent', 'volume', 'date'];

const calm = matchMedia('(prefers-reduced-motion: reduce)');

export class Board {
  #body;
  #template;
  #rows = new Map();
  #sight = new IntersectionObserver((entries) => this.#see(entries), { rootMargin: '200px' });
  #visible = new WeakSet();

  constructor(body, template) {
    this.#body = body;
    this.#template = template;
  }

  /** Draws the quotes that changed; true when some are left for the next frame. */
  draw(quotes, now) {
    let budget = HIDDEN_PER_DRAW;
    for (const quote of quotes.changed) {
      const row = this.#rows.get(quote) ?? this.#add(quote);
      const visible = this.#visible.has(row.element);
      if (!visible && row.shown && budget-- <= 0) continue;
      if (visible && !calm.matches) row.blink(quote.moved, now);
      row.show(quote);
      quotes.changed.delete(quote);
    }
    return quotes.changed.size > 0;
  }

  /** Takes away the placeholders that no quote has replaced. */
  settle() {
    for (const ghost of this.#body.querySelectorAll('.ghost')) ghost.remove();
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
    const row = new Row(this.#template.content.firstElementChild.cloneNode(true));
    row.element.dataset.symbol = quote.symbol;
    const follower = [...this.#body.children].find((other) => !(other.dataset.symbol <= quote.symbol));
    this.#body.insertBefore(row.element, follower ?? null);
    this.#rows.set(quote, row);
    this.#sight.observe(row.element);
    return row;
  }
}

class Row {
  #cells;
  #svg;
  #flash;
  #blinked = -Infinity;
  #fading;

  /** Whether it has been filled in at all. */
  shown = false;

  constructor(element) {
    this.element = element;
    this.#cells = Object.fromEntries(FIELDS.map((name) => [name, element.querySelector(`[data-field="${name}"]`)]));
    this.#svg = element.querySelector('svg');
    this.#flash = element.querySelector('.flash');
  }

  show(quote) {
    this.shown = true;
    this.#write(quote);
    this.#trend(quote.prices);
  }

  /** Lets the price light up for a moment. */
  blink(moved, now) {
    if (moved === 'flat' || now - this.#blinked < BLINK_EVERY_MS) return;
    this.#blinked = now;
    this.#flash.dataset.tone = moved;
    this.#fading?.cancel();
    this.#fading = this.#flash.animate({ opacity: [1, 0] }, { duration: 700, easing: 'ease-out' });
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
