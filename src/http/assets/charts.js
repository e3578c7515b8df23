// Charts: the last two minutes of some figures, one card each.
// Owns the uPlot instances and the samples they draw.
// Invariants: handlers only append to a bounded `Track`; the canvas is touched in `draw` alone,
// at most five times a second per chart.
// Not here: which cards there are (`host.js`, `broker.js`), where samples come from.

import uPlot from './uplot.js';
import * as format from './format.js';
import { Track } from './model.js';
import { find, say } from './page.js';

const DRAW_EVERY_MS = 190;

export class Charts {
  #byTopic;

  /** Whether a sample has arrived. */
  seen = false;

  /** Builds the cards; `onHover` is told how many seconds ago is pointed at, or NaN. */
  constructor(cards, container, onHover) {
    const charts = cards.map((card) => new Chart(card, container.id, onHover));
    this.#byTopic = new Map(charts.map((chart) => [chart.topic, chart]));
    container.replaceChildren(...charts.map((chart) => chart.element));
    document.addEventListener('themechange', () => charts.forEach((chart) => chart.repaint()));
  }

  /** Takes a sample; topics that no card shows are passed over. */
  take(topic, time, data) {
    const chart = this.#byTopic.get(topic);
    chart?.take(time, data !== null && typeof data === 'object' ? data : {});
    this.seen ||= chart !== undefined;
  }

  /** Notes whether a topic is stale. */
  note(topic, isStale) {
    this.#byTopic.get(topic)?.note(isStale);
  }

  /** Makes every chart due, so that time passes in them even when nothing arrives. */
  age() {
    for (const chart of this.#byTopic.values()) chart.due = true;
  }

  /** Draws what is due; true when some of it was drawn too recently and is still due. */
  draw(now, brokerNow) {
    let left = false;
    for (const chart of this.#byTopic.values()) left = chart.draw(now, brokerNow) || left;
    return left;
  }
}

class Chart {
  #card;
  #group;
  #onHover;
  #track;
  #plot;
  #box;
  #whole = NaN;
  #now = NaN;
  #top = 1;
  #stale = false;
  #drawn = -Infinity;
  #values = [];
  #about;

  /** Whether there is something to draw. */
  due = true;

  /** Cards of one group share their pointer. */
  constructor(card, group, onHover) {
    this.#card = card;
    this.#group = group;
    this.#onHover = onHover;
    this.#track = new Track(card.lines.length);
    this.element = find('chart-template').content.firstElementChild.cloneNode(true);
    this.element.dataset.topic = card.topic;
    this.#box = this.element.querySelector('.plot');
    this.#box.setAttribute('aria-label', `${card.title} over the last two minutes`);
    say(this.element.querySelector('h3'), card.title);
    this.#legend();
    new ResizeObserver(() => this.#fit()).observe(this.#box);
  }

  get topic() {
    return this.#card.topic;
  }

  take(time, data) {
    const values = this.#card.lines.map((line) => line.read(data));
    const extra = this.#card.extra?.(data) ?? [];
    const width = values.length + extra.length;
    // A host does not grow cores, but the broker may have moved to another host.
    if (width > values.length && width !== this.#track.width) this.#restart(width);
    if (this.#card.whole) this.#whole = this.#card.whole(data);
    this.#track.add(time, values.concat(extra));
    this.due = true;
  }

  note(isStale) {
    this.#stale = isStale;
    this.due = true;
  }

  draw(now, brokerNow) {
    if (!this.due) return false;
    if (now - this.#drawn < DRAW_EVERY_MS) return true;
    this.due = false;
    this.#drawn = now;
    this.element.dataset.stale = String(this.#stale);
    this.#now = (Number.isNaN(brokerNow) ? Date.now() : brokerNow) / 1000;
    this.#top = this.#card.top(this.#track, this.#whole);
    if (this.#plot) this.#plot.setData(this.#track.columns);
    else this.#build();
    this.#tell();
    return false;
  }

  repaint() {
    this.#plot?.redraw(false);
    this.due = true;
  }

  #restart(width) {
    this.#track = new Track(width);
    this.#plot?.destroy();
    this.#plot = undefined;
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (this.#plot && width > 0 && height > 0) this.#plot.setSize({ width, height });
  }

  // === Legend ===

  #legend() {
    const list = this.element.querySelector('ul');
    const item = (tone, label) => {
      const li = find('legend-template').content.firstElementChild.cloneNode(true);
      li.dataset.tone = tone;
      say(li.querySelector('.label'), label);
      list.append(li);
      return li.querySelector('.value');
    };
    this.#values = this.#card.lines.map((line) => item(line.tone, line.label));
    if (this.#card.extra) this.#about = item('c', 'cores');
    if (this.#card.whole) this.#about = item('none', 'of');
    this.#tell();
  }

  /** Writes the values under the pointer, or the latest ones. */
  #tell() {
    const pointed = this.#plot?.cursor.idx;
    this.#values.forEach((element, i) => {
      const column = this.#track.columns[i + 1];
      say(element, this.#card.format(pointed == null ? this.#track.latest(i + 1) : column[pointed]));
    });
    if (this.#card.extra) say(this.#about, String(this.#track.width - this.#card.lines.length || format.NONE));
    if (this.#card.whole) say(this.#about, this.#card.format(this.#whole));
  }

  #hover() {
    const at = this.#track.columns[0][this.#plot?.cursor.idx];
    this.#onHover(at === undefined ? NaN : Math.max(0, this.#now - at));
    this.#tell();
  }

  // === Plot ===

  #build() {
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (width === 0 || height === 0) return;
    const ago = [120, 90, 60, 30, 0];
    const font = `11px ${getComputedStyle(this.#box).fontFamily}`;
    const axis = { font, stroke: () => colour(this.#box, '--ink-2'), ticks: { show: false } };
    const grid = { stroke: () => colour(this.#box, '--line-soft'), width: 1 };
    this.#plot = new uPlot({
      width,
      height,
      padding: [8, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: this.#group, scales: ['x', null] } },
      scales: {
        x: { time: false, range: () => [this.#now - Track.WINDOW_S, this.#now] },
        y: { range: () => [0, this.#top] },
      },
      axes: [
        {
          ...axis,
          grid,
          size: 24,
          gap: 6,
          splits: () => ago.map((seconds) => this.#now - seconds),
          values: () => ['2 min ago', '', '1 min', '', 'now'],
        },
        {
          ...axis,
          grid,
          size: 62,
          gap: 8,
          splits: () => [0, this.#top / 2, this.#top],
          values: (_, splits) => splits.map((value) => (value === 0 ? '0' : this.#card.format(value).replace(/\.0(?=\D)/, ''))),
        },
      ],
      series: [{}, ...this.#track.columns.slice(1).map((_, i) => this.#series(i))],
      hooks: { setCursor: [() => this.#hover()] },
    }, this.#track.columns, this.#box);
  }

  #series(index) {
    const line = this.#card.lines[index];
    const points = { show: false };
    if (!line) return { points, width: 0.8, stroke: () => colour(this.#box, '--series-c') };
    return {
      points,
      width: 1.4,
      stroke: () => colour(this.#box, `--series-${line.tone}`),
      fill: (plot) => this.#fade(plot, line.tone),
    };
  }

  #fade(plot, tone) {
    const { top, height } = plot.bbox;
    const fade = plot.ctx.createLinearGradient(0, top, 0, top + height);
    fade.addColorStop(0, colour(this.#box, `--series-${tone}-fill`));
    fade.addColorStop(1, colour(this.#box, `--series-${tone}-none`));
    return fade;
  }
}

function colour(element, name) {
  return getComputedStyle(element).getPropertyValue(name).trim() || '#888';
}

/** The next of 1, 2, 5, 10, 20 … that holds `value`, so that the axis moves seldom. */
export function nice(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= wanted) ?? wanted;
}
