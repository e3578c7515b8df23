// Dashboard: connects, hands each message to the model, and draws the model once per frame.
// Owns the one connection, the frame loop and the header.
// Invariants: message handlers do not touch the document; nothing is drawn while nothing changed.
// Not here: rows (`board.js`), charts (`charts.js`), bounds (`model.js`), colours (`theme.js`).

import { connect } from './fanfare.js';
import { Board } from './board.js';
import { Charts } from './charts.js';
import * as format from './format.js';
import { BrokerClock, Meter, Quotes, Topics } from './model.js';
import { find, say } from './page.js';

const TICK_MS = 250;
/** How long after connecting a feed may be silent before the page says that it is. */
const QUIET_MS = 1500;
/** Enough of the past to fill the sparklines and two minutes of charts at four samples a second. */
const QUOTES_BACK = Quotes.PRICES;
const SAMPLES_BACK = 480;
/** How long after connecting old messages may arrive. */
const HISTORY_MS = 3000;

const meter = new Meter();
const topics = new Topics();
const quotes = new Quotes();
const clock = new BrokerClock();
const link = { state: 'connecting', connections: 0, connectedAt: Infinity, retryAt: NaN, server: '', peer: '', reason: '' };
const gaps = { told: 0, messages: 0, latest: null };
const resume = { outcomes: [], messages: 0 };
/** The subscriptions of rows that have terms of their own, by topic. */
const paced = new Map();
/** What is to be announced next. */
let news = '';

const board = new Board(find('rows'), find('row-template'), choose);
const charts = new Charts(
  find('charts'),
  { chart: find('chart-template'), legend: find('legend-template') },
  (seconds) => say(find('host-note'), Number.isNaN(seconds) ? 'last 2 minutes' : `${seconds.toFixed(1)} s ago`),
);

// === Frames ===

let scheduled = false;

function touch() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(frame);
}

function frame(now) {
  scheduled = false;
  const rowsLeft = board.draw(quotes, now);
  const chartsLeft = charts.draw(now, clock.now(performance.now()));
  if (rowsLeft || chartsLeft) touch();
}

// === Messages ===

function takeQuote(message) {
  const { topic, data, deleted } = message;
  arrive(message);
  if (deleted) return forget(topic);
  quotes.take(topic, data);
  if (!isPast(message)) quotes.count(topic);
}

/** A deleted topic has no row, until it has a message again. */
function forget(topic) {
  paced.get(topic)?.unsubscribe();
  quotes.remove(topic);
}

function takeSample(message) {
  charts.take(message.topic, arrive(message), message.data);
}

/** Counts a message and says when the broker took it, in milliseconds since 1970. */
function arrive(message) {
  const arrival = Date.now();
  const time = format.number(message.time);
  const past = isPast(message);
  if (past) meter.countPast();
  else meter.countLive(performance.now(), arrival - time);
  if (past && link.connections > 1) resume.messages += 1;
  topics.add(message.topic);
  if (!Number.isNaN(time)) clock.see(time, performance.now());
  touch();
  return Number.isNaN(time) ? arrival : time;
}

/**
 * What was taken before this connection began is history: its age is not a lag. Only a fresh connection
 * sends history, so clocks that differ cannot mislead for long.
 */
function isPast({ time }) {
  return format.number(time) < link.connectedAt && Date.now() - link.connectedAt < HISTORY_MS;
}

function takeStaleness({ topic, since }, isStale) {
  quotes.note(topic, { stale: isStale && { since } });
  charts.note(topic, isStale);
  touch();
}

function takeGap(gap) {
  gaps.told += 1;
  gaps.messages += format.number(gap.count) || 0;
  gaps.latest = gap;
}

function takeRecovery(outcome) {
  if (resume.outcomes.length < Topics.MAX) resume.outcomes.push(outcome);
}

// === Connection ===

const client = connect('./ws');

client.on('state', (event) => {
  link.state = event.state;
  if (event.state === 'waiting') link.retryAt = performance.now() + event.delayMs;
  if (event.state === 'waiting' || event.state === 'closed') link.reason = why(event) || link.reason || 'the connection was lost';
  if (event.state === 'connected') greet(event);
  tell();
});
client.on('warning', ({ message, detail }) => console.warn(message, detail));

subscribe('ticker.>', QUOTES_BACK, takeQuote);
// Not `host.>`: one subscription may not be sent so much of the past of all of them.
for (const topic of ['host.cpu', 'host.memory', 'host.disk', 'host.network']) subscribe(topic, SAMPLES_BACK, takeSample);

/** Asks for some of the past too; where that is refused, for the latest messages only. */
function subscribe(topic, last, onMessage) {
  const common = {
    snapshot: true,
    onMessage,
    onGap: takeGap,
    onRecovered: takeRecovery,
    onStale: (staleness) => takeStaleness(staleness, true),
    onFresh: (topic) => takeStaleness(topic, false),
  };
  const refused = (error) => error && client.state !== 'closed' && say(find('board-note'), `${topic}: ${error.message}`);
  client.subscribe(topic, {
    ...common,
    last,
    onEnd: (error) => error && client.state !== 'closed' && client.subscribe(topic, { ...common, onEnd: refused }),
  });
}

// === Terms ===

/**
 * Somebody has chosen on which terms a row gets its messages: `all`, `latest`, or so many hertz. The row
 * then has a subscription to exactly its topic, whose terms count before those of the board; the
 * messages still come to the board.
 */
function choose(topic, chosen) {
  const terms = Number(chosen) > 0 ? { maxHz: Number(chosen) } : { policy: chosen };
  const subscription = paced.get(topic);
  quotes.note(topic, { terms: chosen, pending: true });
  touch();
  if (!subscription) return pace(topic, terms);
  subscription.update(terms).then((granted) => grant(topic, granted), (error) => refuse(topic, error));
}

function pace(topic, terms) {
  const subscription = client.subscribe(topic, {
    ...terms,
    onMessage: () => {},
    onGranted: (granted) => grant(topic, granted),
    onEnd: (error) => {
      paced.delete(topic);
      if (error) refuse(topic, error);
    },
  });
  paced.set(topic, subscription);
}

function grant(topic, { policy, maxHz }) {
  const granted = policy === 'maxHz' ? String(maxHz) : policy;
  quotes.note(topic, { granted, pending: false });
  news = `${symbol(topic)}: ${format.terms(granted)}`;
  touch();
}

/** What was refused is not shown as chosen. */
function refuse(topic, { message }) {
  const quote = quotes.get(topic);
  if (!quote || client.state === 'closed') return;
  const granted = paced.has(topic) ? quote.granted : 'all';
  quotes.note(topic, { granted, terms: granted, pending: false });
  news = `${symbol(topic)}: ${message}`;
  touch();
}

function symbol(topic) {
  return quotes.get(topic)?.symbol ?? topic;
}

function greet(event) {
  link.connections += 1;
  link.connectedAt = Date.now();
  link.server = format.text(event.server, 40);
  link.peer = [link.server, location.host].filter(Boolean).join(' · ');
  link.reason = '';
  resume.outcomes = [];
  resume.messages = 0;
  clock.reset();
}

/** An attempt that fails says nothing new: the reason that was told first is kept. */
function why({ reason, code }) {
  return format.text(reason, 200) || (link.reason === '' && code > 0 ? `the connection was lost (${code})` : '');
}

// === Header ===

/** The state as the page names it: `reconnecting` covers the wait and the attempt. */
function stateShown() {
  if (link.state === 'connected' || link.state === 'closed') return link.state;
  return link.state === 'waiting' || link.reason ? 'reconnecting' : 'connecting';
}

function stateWords(shown) {
  if (link.state !== 'waiting') return shown[0].toUpperCase() + shown.slice(1);
  const seconds = Math.max(1, Math.ceil((link.retryAt - performance.now()) / 1000) || 1);
  return `Reconnecting in ${seconds} s`;
}

function tell() {
  const shown = stateShown();
  const pill = find('state');
  if (pill.dataset.state !== shown) {
    pill.dataset.state = shown;
    document.body.dataset.link = shown;
    // The countdown is not announced, only that it began.
    say(find('announcement'), stateWords(shown));
    document.title = shown === 'connected' ? 'Fanfare' : `${shown} \u2013 Fanfare`;
  }
  if (news) say(find('announcement'), news);
  news = '';
  say(find('state-text'), stateWords(shown));
  const peer = shown === 'connected' ? link.peer : link.reason;
  say(find('peer'), peer);
  if (find('peer').title !== peer) find('peer').title = peer;
  if (link.server) say(find('version'), link.server);
}

function tellVitals(now) {
  const rate = meter.mark(now);
  const lag = meter.lag(now);
  say(find('rate'), format.rate(rate));
  say(find('lag'), lag < -1 ? format.NONE : format.milliseconds(lag));
  say(find('lag-note'), lag < -1 ? 'the clocks differ' : 'broker to page');
  say(find('topics'), topics.size < Topics.MAX ? format.count(topics.size) : `${format.count(Topics.MAX)}+`);
  say(find('total'), meter.total > 0 ? messages(meter.total) : 'no message yet');
  find('pulse').setAttribute('d', pulse(meter.beats));
  say(find('gaps'), format.count(gaps.told));
  if (gaps.latest) {
    find('gaps').dataset.alert = 'true';
    say(find('gaps-note'), `${messages(gaps.messages)} skipped: ${format.text(gaps.latest.reason, 40) || 'no reason given'}`);
  }
  tellRecovery();
}

function tellRecovery() {
  const results = resume.outcomes;
  if (results.length === 0) return;
  const failed = results.filter((result) => !result.recovered);
  const element = find('recovery');
  element.dataset.outcome = failed.length > 0 ? 'anew' : 'resumed';
  say(element, failed.length > 0 ? `Started anew: ${format.text(failed[0].reason, 40)}` : 'Resumed, nothing missed');
  say(find('recovery-note'), failed.length > 0
    ? `${format.count(failed.length)} of ${format.count(results.length)} topics, loaded afresh`
    : `${messages(resume.messages)} caught up on ${format.count(results.length)} topics`);
}

function messages(n) {
  if (n === 1) return '1 message';
  return `${n < 1e6 ? format.count(n) : format.amount(n)} messages`;
}

/** One bar per beat, in a box of 60 × 16. */
function pulse(beats) {
  const top = Math.max(4, ...beats);
  return beats.map((beat, i) => `M${i + 0.5} 16v${(-1 - (beat / top) * 15).toFixed(1)}`).join('');
}

// === Time ===

let ticks = 0;

function tick() {
  const now = performance.now();
  ticks += 1;
  tell();
  tellVitals(now);
  tellFeeds();
  quotes.mark();
  board.tellRates();
  if (ticks % 4 === 0) {
    charts.age();
    touch();
  }
}

/** Says which feeds there are: none after a while, but one message settles it for good. */
function tellFeeds() {
  const quiet = link.state === 'connected' && Date.now() - link.connectedAt > QUIET_MS;
  if (quiet) board.settle();
  const { dataset } = document.body;
  if (quotes.size > 0) dataset.tickers = 'some';
  else if (quiet) dataset.tickers = 'none';
  if (charts.seen) dataset.host = 'some';
  else if (quiet) dataset.host = 'none';
  if (quotes.refused > 0) say(find('board-note'), `${format.count(quotes.refused)} more topics are not shown`);
}

// === Page ===

for (const button of document.querySelectorAll('.copy')) {
  button.addEventListener('click', async () => {
    const code = button.parentElement.querySelector('code');
    try {
      await navigator.clipboard.writeText(code.textContent);
      say(button, 'Copied');
    } catch {
      // Without permission, or without a secure context: the visitor can copy the selection.
      getSelection()?.selectAllChildren(code);
      say(button, 'Selected');
    }
    setTimeout(() => say(button, 'Copy'), 1500);
  });
}

say(find('curl'), [
  `curl ${location.origin}/v1/publish -H 'content-type: application/json' \\`,
  `  -d '{"topic":"ticker.TEST","data":{"symbol":"TEST","price":2}}'`,
].join('\n'));
setInterval(tick, TICK_MS);
touch();
