/**
 * The client: what the application calls, and its subscriptions on their way to the server and back.
 *
 * Invariant: a feed has one subscription on the server, or waits for one, until nobody wants it any more.
 * @module
 */

/** @import { FanfareError } from './error.js' */
/** @import { ClientEvents, ClientOptions, Draft, HistoryOptions, SubscribeOptions, Terms, TermsOptions } from './types.js' */

import { askedBy, drafted } from './asked.js';
import { makeCalls } from './calls.js';
import { closed } from './errors.js';
import { Feed } from './feed.js';
import { makeLink } from './link.js';
import { makePushes } from './pushes.js';
import { ignore, rejected, run } from './small.js';
import { Subscription } from './subscription.js';
import { historyPage, position, presenceState, published } from './words.js';

/** Subscriptions that are tried again at once when the server wanted to have them later. */
const LATER_MAX = 64;

/**
 * The public type is `Client` of `types.js`.
 * @param {string | URL} url
 * @param {ClientOptions} given
 */
export function makeClient(url, given) {
  // An option that is there but undefined is one that was not given.
  const said = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const options = { queueMax: 1_000, retryMaxMs: 240_000, positionsMax: 1_024, ...said };
  /** Why the client is closed. @type {FanfareError | undefined} */
  let end;
  /** @type {Map<string, Set<(detail: any) => void>>} */
  const handlers = new Map();
  /** @type {Map<string, Feed>} */
  const feeds = new Map();
  /** @type {Set<Feed>} */
  const filters = new Set();
  /** @type {Set<Feed>} */
  const left = new Set();
  /** To be tried again, because the server wanted to have them later. @type {Set<Feed>} */
  const later = new Set();
  let laterTries = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let laterTimer;

  const link = makeLink(url, options, { _up: up, _down: down, _over: over, _event: event, _emit: emit });
  const { _ask, _request, ...calls } = makeCalls(options, link);
  const pushes = makePushes({ _all: feeds, _filters: filters, _left: left, _forget: forget }, link);
  link._open();

  return {
    get state() {
      return link._state;
    },

    get transport() {
      return link._transport;
    },

    /**
     * @template {keyof ClientEvents} E
     * @param {E} kind
     * @param {(detail: ClientEvents[E]) => void} handler
     */
    on(kind, handler) {
      const others = handlers.get(kind) ?? new Set();
      handlers.set(kind, others.add(handler));
      return () => void others.delete(handler);
    },

    subscribe,

    /** @param {string} topic @param {Draft} draft */
    publish: (topic, draft) => _request('publish', 'published', { topic, ...drafted(draft) }, published),

    /** @param {string} topic @param {HistoryOptions} [wanted] */
    history: (topic, { since, limit } = {}) =>
      _request('history', 'historyPage', { topic, since: since && position(since), limit }, historyPage),

    /** @param {string} topic */
    presence: (topic) => _request('presence', 'presenceState', { topic }, presenceState),

    ping: () => _request('ping', 'pong', {}, (_, { _lastSent = 0 }) => performance.now() - _lastSent),

    close: () => link._end({ state: 'closed', reason: closed().message }),
  };

  // === What the link tells ===

  function up() {
    for (const feed of feeds.values()) open(feed);
    calls._up();
  }

  /** @param {any} socket The one that is lost. */
  function down(socket) {
    clearTimeout(laterTimer);
    laterTimer = undefined;
    later.clear();
    left.clear();
    for (const feed of feeds.values()) feed._lost();
    calls._down(socket);
  }

  /** @param {{ error?: FanfareError }} event */
  function over({ error }) {
    clearTimeout(laterTimer);
    end = calls._over(error);
    const ending = [...feeds.values()];
    feeds.clear();
    filters.clear();
    for (const feed of ending) feed._end(error);
  }

  /** Throws if the event is not what it must be; what is not known is passed over. @param {any} event */
  function event(event) {
    if (event.id) return calls._answer(event);
    for (const kind of Object.keys(event)) pushes[kind]?.(event[kind]);
  }

  /** @template {keyof ClientEvents} E @param {E} kind @param {ClientEvents[E]} detail */
  function emit(kind, detail) {
    for (const handler of handlers.get(kind) ?? []) run(handler, detail);
  }

  // === Subscriptions ===

  /** @param {string} topic @param {SubscribeOptions<any>} [wishes] */
  function subscribe(topic, wishes = {}) {
    if (typeof topic !== 'string') throw new TypeError('the topic must be a string');
    const asked = askedBy(topic, wishes);
    const old = feeds.get(topic);
    const feed = old ?? new Feed(topic, asked, options.positionsMax, emit);
    const refusal = end ?? feed._refusal(asked);
    const subscription = new Subscription(feed, wishes, emit, leave, refusal ? () => rejected(refusal) : change);
    if (refusal) {
      // Later, because the application does not have its subscription yet.
      queueMicrotask(() => subscription._end(refusal));
      return subscription;
    }
    feed._add(subscription);
    if (!old) {
      feeds.set(topic, feed);
      if (feed._filter) filters.add(feed);
      open(feed);
    }
    return subscription;
  }

  /** By the time of an answer the application may have left, and even come back. @param {Feed} feed */
  function isCurrent(feed) {
    return feeds.get(feed._topic) === feed;
  }

  /** @param {Feed} feed */
  function open(feed) {
    if (link._state !== 'connected') return;
    _ask(
      'subscribe',
      'subscribed',
      feed._command(),
      (answer) => (isCurrent(feed) ? opened(feed, answer) : feed._fills && left.add(feed)),
      (error) => isCurrent(feed) && refused(feed, error),
    );
  }

  /** @param {Feed} feed @param {any} answer */
  function opened(feed, answer) {
    laterTries = 0;
    feed._subscribed(answer);
    update(feed);
    if (feed._presence) _ask('presence', 'presenceState', { topic: feed._topic }, (state) => pushes.presenceState?.(state));
  }

  /** @param {Feed} feed @param {FanfareError} error */
  function refused(feed, error) {
    if (link._state !== 'connected') return;
    if (error.retry === 'later') {
      emit('warning', { message: `the subscription to ${feed._topic} is tried again later`, detail: error });
      later.add(feed);
      laterTimer ??= setTimeout(tryAgain, link._backoff(laterTries++));
    } else if (feed._forget(error)) {
      open(feed);
    } else {
      forget(feed);
      feed._end(error);
    }
  }

  /** Some at a time, so that most are not refused again. */
  function tryAgain() {
    laterTimer = undefined;
    for (const feed of [...later].slice(0, LATER_MAX)) {
      later.delete(feed);
      open(feed);
    }
    if (later.size > 0) laterTimer = setTimeout(tryAgain, link._backoff(laterTries));
  }

  /** @param {Feed} feed */
  function forget(feed) {
    feeds.delete(feed._topic);
    filters.delete(feed);
    later.delete(feed);
  }

  /** @param {Feed} feed @param {Subscription} subscription */
  function leave(feed, subscription) {
    if (feed._remove(subscription) > 0 || !isCurrent(feed)) return;
    forget(feed);
    if (feed._filling) left.add(feed);
    feed._end();
    if (link._state === 'connected') _ask('unsubscribe', 'unsubscribed', { topic: feed._topic }, ignore);
  }

  /** @param {Feed} feed @param {TermsOptions} terms @returns {Promise<Terms>} */
  function change(feed, terms) {
    const outcome = feed._agreement._change(terms);
    update(feed);
    return outcome;
  }

  /** Tells the server of a change of terms, one after the other. @param {Feed} feed */
  function update(feed) {
    const terms = feed._live ? feed._agreement._next() : undefined;
    if (!terms) return;
    const then = (/** @type {(word: any) => void} */ tell) => (/** @type {any} */ word) => {
      if (!isCurrent(feed)) return;
      tell(word);
      update(feed);
    };
    _ask(
      'update',
      'updated',
      { topic: feed._topic, ...terms },
      then((answer) => feed._granted(answer)),
      then((error) => feed._agreement._refuse(error)),
    );
  }
}
