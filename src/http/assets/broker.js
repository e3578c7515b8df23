// Broker: the broker's own numbers, asked for once a second while somebody looks at them.
// Owns the answers of the last seconds, and what is shown in their place when there are none.
// Invariants: nothing is asked while the tab is out of sight; one question at a time.
// Not here: how it is asked (`window.js`), curves (`charts.js`).

import { Charts, nice } from './charts.js';
import * as format from './format.js';
import { find, say } from './page.js';
import { ask, hasToken, isPrivate, useToken } from './window.js';

/** Rates are over so many answers. */
const ANSWERS = 6;
const ROWS = 8;

const CARDS = [
  {
    topic: 'messages',
    title: 'Messages/s',
    format: format.rate,
    lines: [
      { label: 'out', tone: 'a', read: ({ delivered }) => delivered },
      { label: 'in', tone: 'b', read: ({ published }) => published },
    ],
    top: (track) => nice(track.top(), 10),
  },
  {
    topic: 'bytes',
    title: 'Traffic',
    format: format.throughput,
    lines: [
      { label: 'out', tone: 'a', read: ({ sentBytes }) => sentBytes },
      { label: 'in', tone: 'b', read: ({ receivedBytes }) => receivedBytes },
    ],
    top: (track) => nice(track.top(), 10_000),
  },
];

/** What is told when the broker shows nothing, by the name of the refusal. */
const REFUSALS = {
  notFound: 'closed',
  unauthenticated: 'ask',
  badToken: 'ask',
};

export class Broker {
  #answers = [];
  #busy = false;
  #watching = false;
  #seen = () => {};

  /** `seen` is told the broker's time and when it was heard. */
  constructor(seen) {
    this.#seen = seen;
    this.charts = new Charts(CARDS, find('broker-charts'), () => {});
    for (const id of ['busiest', 'slowest']) makeRows(find(id));
    find('token-form').addEventListener('submit', (event) => {
      event.preventDefault();
      useToken(find('token').value.trim());
      find('token').value = '';
      this.look();
    });
    find('token-forget').addEventListener('click', () => {
      useToken('');
      this.look();
    });
  }

  /** Call it when the tab comes into sight, and once a second as long as it stays. */
  async look() {
    if (this.#busy || document.visibilityState === 'hidden') return;
    this.#busy = true;
    try {
      this.#take(await ask('overview'));
      this.#show('view');
      this.#watch();
    } catch (refused) {
      this.#refuse(refused);
    } finally {
      this.#busy = false;
    }
  }

  /** Fills the tables. It takes the broker a second to see which topics are busy. */
  async #watch() {
    if (this.#watching) return;
    this.#watching = true;
    try {
      tellSlowest((await ask(`connections/slowest?limit=${ROWS}`)).connections);
      tellBusiest((await ask(`topics/hottest?limit=${ROWS}`)).topics);
    } catch {
      // One watches at a time: whoever is second goes by what was seen last. What is refused for
      // another reason is so for the counters too, which tell it.
    } finally {
      this.#watching = false;
    }
  }

  #take(overview) {
    const before = this.#answers.at(-1);
    // Another process, or the same one anew: what was counted before is not its own.
    if (before && overview.uptimeMs < before.uptimeMs) this.#answers = [];
    this.#answers.push(overview);
    if (this.#answers.length > ANSWERS) this.#answers.shift();
    this.#seen(overview.timeMs);
    if (before && this.#answers.length > 1) {
      const rates = ratesBetween(before, overview);
      for (const { topic } of CARDS) this.charts.take(topic, overview.timeMs, rates);
    }
    tellOverview(overview, ratesBetween(this.#answers[0], overview));
  }

  #refuse({ name, message }) {
    if (name === 'noAnswer') {
      // What was seen last stays, but says that it is the past.
      if (this.#answers.length > 0) say(find('broker-note'), 'no answer');
      else this.#show('other', message);
      return;
    }
    this.#answers = [];
    const shown = REFUSALS[name] ?? 'other';
    if (name === 'badToken') useToken('');
    const wrong = name === 'badToken' ? 'The broker does not take this token.' : '';
    this.#show(shown === 'ask' && !isPrivate ? 'plain' : shown, shown === 'ask' ? wrong : `The broker says: ${message}.`);
  }

  /** Shows one part of the panel: the view, or why there is none. */
  #show(part, words = '') {
    const panel = find('panel-broker');
    const isNew = panel.dataset.part !== part;
    panel.dataset.part = part;
    find('token-forget').hidden = part !== 'view' || !hasToken();
    if (part === 'view') say(find('broker-note'), 'last 2 minutes');
    say(find('token-wrong'), part === 'ask' ? words : '');
    say(find('broker-other'), part === 'other' ? words : '');
    if (!isNew) return;
    // Whoever typed the token goes on where the answer is.
    if (part === 'view' && panel.contains(document.activeElement)) find('broker-view').focus();
    if (part === 'view') this.charts.age();
  }
}

/** What happened per second between two looks; NaN where there was only one. */
function ratesBetween(before, after) {
  const seconds = (after.uptimeMs - before.uptimeMs) / 1000;
  const rate = (name) => (seconds > 0 ? (after[name] - before[name]) / seconds : NaN);
  return {
    published: rate('publishedTotal'),
    delivered: rate('deliveredTotal'),
    encoded: rate('encodedTotal'),
    sentBytes: rate('sentBytesTotal'),
    receivedBytes: rate('receivedBytesTotal'),
    dropped: rate('droppedTotal'),
    conflated: rate('conflatedTotal'),
  };
}

function tellOverview(now, rates) {
  // Before there are two looks, and in silence, the whole life of the broker says it.
  const isLive = rates.published > 0;
  const [published, delivered, encoded] = isLive
    ? [rates.published, rates.delivered, rates.encoded]
    : [now.publishedTotal, now.deliveredTotal, now.encodedTotal];
  const words = {
    'broker-connections': format.count(now.connections),
    'broker-opened': `${format.amount(now.openedTotal)} since the start`,
    'broker-topics': format.count(now.topics),
    'broker-subscriptions': `${format.amount(now.topicSubscriptions + now.filterSubscriptions)} subscriptions`,
    'broker-published': format.rate(rates.published),
    'broker-published-total': `${format.amount(now.publishedTotal)} in all`,
    'broker-delivered': format.rate(rates.delivered),
    'broker-delivered-total': `${format.amount(now.deliveredTotal)} in all`,
    'broker-encodes': published > 0 ? (encoded / published).toFixed(2) : format.NONE,
    'broker-shared': encoded > 0 ? `${format.rate(delivered / encoded)} deliveries each` : 'nothing encoded yet',
    'fact-gaps': format.count(now.gapsTotal),
    'fact-dropped': format.amount(now.droppedTotal),
    'fact-conflated': format.amount(now.conflatedTotal),
    'fact-caught-up': format.amount(now.caughtUpTotal),
    'fact-blocked': format.count(now.blocked),
    'fact-queued': format.memory(now.queuedBytes),
    'fact-mailboxes': format.count(now.mailboxMessages),
    'fact-history': format.memory(now.historyBytes),
    'fact-memory': format.memory(now.memoryBytes),
    'fact-refused': format.amount(now.refusedTotal),
    'fact-shards': format.count(now.shards),
    'fact-uptime': format.duration(now.uptimeMs),
  };
  for (const [id, text] of Object.entries(words)) say(find(id), text);
  find('fact-gaps').dataset.alert = String(now.gapsTotal > 0);
}

// === Tables ===

/** Rows are there from the start, so that nothing moves when they are filled. */
function makeRows(body) {
  const width = body.parentElement.querySelectorAll('th').length;
  for (let i = 0; i < ROWS; i += 1) {
    const row = document.createElement('tr');
    for (let cell = 0; cell < width; cell += 1) row.append(document.createElement('td'));
    body.append(row);
  }
}

function tellBusiest(topics) {
  fill(find('busiest'), topics, ({ topic, perSecond, offset }) => [topic, format.rate(perSecond), format.count(offset)]);
  find('busiest-none').hidden = topics.length > 0;
}

function tellSlowest(connections) {
  fill(find('slowest'), connections, ({ id, subject, client, peer, wire, behind, queuedBytes }) => [
    id,
    format.text(subject, 60) || format.text(client, 60) || format.text(peer, 60),
    format.text(wire, 40).replace('_', ' '),
    format.count(behind),
    format.memory(queuedBytes),
  ]);
  find('slowest-none').hidden = connections.length > 0;
}

function fill(body, list, wordsOf) {
  for (const [i, row] of [...body.rows].entries()) {
    const words = list[i] ? wordsOf(list[i]) : [];
    [...row.cells].forEach((cell, at) => say(cell, words[at] ?? ''));
    row.cells[0].title = words[0] ?? '';
  }
}
