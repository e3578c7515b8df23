// Dashboard: connects, hands each message to the model, and draws what is in sight once per frame.
// Owns the one connection, the frame loop and the header.
// Invariants: message handlers do not touch the document; nothing is drawn that nobody sees, and
// nothing while nothing changed.
// Not here: rows (`board.js`), curves (`charts.js`), bounds (`model.js`), colours (`theme.js`).

import { connect } from './fanfare.js';
import { Board } from './board.js';
import { Broker } from './broker.js';
import * as format from './format.js';
import { Host, TOPICS } from './host.js';
import { Latency } from './latency.js';
import { BrokerClock, Meter, Quotes, Topics } from './model.js';
import { find, say } from './page.js';
import { Tabs } from './tabs.js';
import { Terms } from './terms.js';
import { tellVitals } from './vitals.js';

const TICK_MS = 250;
/** How long after connecting a feed may be silent before the page says that it is. */
const QUIET_MS = 1500;
/** Enough of the past to fill the sparklines and two minutes of charts at four samples a second. */
const QUOTES_BACK = Quotes.PRICES;
const SAMPLES_BACK = 480;
/** How long after connecting old messages may arrive. */
const HISTORY_MS = 3000;

const meter = new Meter();
const latency = new Latency();
const topics = new Topics();
const quotes = new Quotes();
const clock = new BrokerClock();
const link = { state: 'connecting', connections: 0, connectedAt: Infinity, retryAt: NaN, server: '', peer: '', reason: '' };
const gaps = { told: 0, messages: 0, latest: null };
const resume = { outcomes: [], messages: 0 };
/** What is to be announced next. */
let news = '';

const client = connect('./ws');
const terms = new Terms(client, quotes, announce);
const board = new Board(find('rows'), find('row-template'), (topic, chosen) => {
  terms.choose(topic, chosen);
  touch();
});
const host = new Host();
const broker = new Broker((time) => clock.see(time, performance.now()));

// === Frames ===

let scheduled = false;

function touch() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(frame);
}

function frame(now) {
  scheduled = false;
  board.prune(quotes);
  if (draw[tabs.chosen](now)) touch();
}

/** What is drawn while a tab is chosen; each says whether some of it is left for the next frame. */
const draw = {
  market: (now) => board.draw(quotes, now),
  host: (now) => host.charts.draw(now, clock.now(performance.now())),
  broker: (now) => broker.charts.draw(now, clock.now(performance.now())),
};

function announce(words) {
  news = words;
  touch();
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
  terms.forget(topic);
  quotes.remove(topic);
}

function takeSample(message) {
  host.take(message.topic, arrive(message), message.data);
}

/** Counts a message and says when the broker took it, in milliseconds since 1970. */
function arrive(message) {
  const arrival = Date.now();
  const time = format.number(message.time);
  const past = isPast(message);
  if (past) meter.countPast();
  else {
    meter.countLive(arrival - time);
    latency.count(performance.now(), arrival - time);
  }
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
  host.charts.note(topic, isStale);
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
for (const topic of TOPICS) subscribe(topic, SAMPLES_BACK, takeSample);

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

// === Time ===

let ticks = 0;

function tick() {
  const now = performance.now();
  ticks += 1;
  tell();
  tellVitals({ meter, latency, topics, gaps, resume }, now);
  tellFeeds();
  quotes.mark();
  if (tabs.chosen === 'market') board.tellRates();
  if (tabs.chosen === 'host') host.tell();
  if (ticks % 4 === 0) look(tabs.chosen);
}

/** What a tab does when it comes into sight, and once a second as long as it stays. */
function look(tab) {
  if (tab === 'host') host.tell();
  if (tab === 'host') host.charts.age();
  if (tab === 'broker') broker.look();
  if (tab === 'broker') broker.charts.age();
  touch();
}

/** Says which feeds there are: none after a while, but one message settles it for good. */
function tellFeeds() {
  const quiet = link.state === 'connected' && Date.now() - link.connectedAt > QUIET_MS;
  if (quiet) board.settle();
  const { dataset } = document.body;
  if (quotes.size > 0) dataset.tickers = 'some';
  else if (quiet) dataset.tickers = 'none';
  if (host.charts.seen) dataset.host = 'some';
  else if (quiet) dataset.host = 'none';
  if (quotes.refused > 0) say(find('board-note'), `${format.count(quotes.refused)} more topics are not shown`);
}

// === Page ===

const tabs = new Tabs(find('tabs'), look);
// Whoever comes back does not wait for the next second.
document.addEventListener('visibilitychange', () => look(tabs.chosen));

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
