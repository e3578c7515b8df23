/**
 * The client: what the application calls, the commands that have no answer yet, and which feed is told
 * of which event.
 *
 * Invariants: commands reach the server in the order they were made, but for a subscription that it wants
 * to have later; every call is settled once; what waits for an answer is bounded.
 * @module
 */

/** @import { FanfareError } from './error.js' */
/** @import { ClientEvents, ClientOptions, Draft, HistoryOptions, StateEvent, SubscribeOptions, Terms, TermsOptions, WebSocketLike } from './types.js' */

import { askedBy, drafted } from './asked.js';
import { closed, failure, refusal, unknownOutcome } from './errors.js';
import { Feed } from './feed.js';
import { LONG_MS, Link } from './link.js';
import { deferred, ignore, rejected, run } from './small.js';
import { Subscription } from './subscription.js';
import { historyPage, isOffset, isTopicPosition, listOf, member, message, need, position, presenceState, published } from './words.js';

/** Commands that are sent again after a reconnect. */
const RESENT = ['publish', 'history'];
/** Subscriptions that are tried again at once when the server wanted to have them later. */
const LATER_MAX = 64;

/**
 * A command that has no answer yet.
 * @typedef {object} Call
 * @property {string} _action
 * @property {string} _expects What answers it.
 * @property {any} _body
 * @property {string} _protocol In which its frame is spelt.
 * @property {string | Uint8Array<ArrayBuffer>} _frame
 * @property {boolean} [_counted] Whether `queueMax` counts it.
 * @property {WebSocketLike | null} [_socket] Where it was sent last.
 * @property {number} [_firstSent] By the wall clock.
 * @property {number} [_lastSent] By the steady clock.
 * @property {(answer: any, call: Call) => void} _resolve
 * @property {(error: FanfareError) => void} _reject
 */

/** The public type is `Client` of `types.js`. */
export class Client {
  #options;
  #link;
  /** Why the client is closed. @type {FanfareError | undefined} */
  #end;
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #handlers = new Map();
  /** By topic or filter. @type {Map<string, Feed>} */
  #feeds = new Map();
  /** Those with a filter; the server allows few. @type {Set<Feed>} */
  #filters = new Set();
  /** Left, though what they asked to come first is still coming. @type {Set<Feed>} */
  #left = new Set();
  /** To be tried again, because the server wanted to have them later. @type {Set<Feed>} */
  #later = new Set();
  #laterTries = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #laterTimer;
  /** By id, in the order they were made. @type {Map<number, Call>} */
  #calls = new Map();
  /** The link has the id 1 for itself. */
  #lastId = 1;
  #counted = 0;

  /** @param {string | URL} url @param {ClientOptions} given */
  constructor(url, given) {
    const options = { queueMax: 1_000, retryMaxMs: 240_000, positionsMax: 1_024, ...without(given) };
    this.#options = options;
    this.#link = new Link(url, options, this);
    this.#link._open();
  }

  get state() {
    return this.#link._state;
  }

  get transport() {
    return this.#link._transport;
  }

  /**
   * @template {keyof ClientEvents} E
   * @param {E} event
   * @param {(detail: ClientEvents[E]) => void} handler
   */
  on(event, handler) {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => void handlers.delete(handler);
  }

  /** @param {string} topic @param {SubscribeOptions<any>} [options] */
  subscribe(topic, options = {}) {
    if (typeof topic !== 'string') throw new TypeError('the topic must be a string');
    const asked = askedBy(topic, options);
    const old = this.#feeds.get(topic);
    const feed = old ?? new Feed(topic, asked, this.#options.positionsMax, this._emit);
    const refused = this.#end ?? feed._refusal(asked);
    const change = refused ? () => rejected(refused) : this.#change;
    const subscription = new Subscription(feed, options, this._emit, this.#leave, change);
    if (refused) {
      // Later, because the application does not have its subscription yet.
      queueMicrotask(() => subscription._end(refused));
      return subscription;
    }
    feed._add(subscription);
    if (!old) {
      this.#feeds.set(topic, feed);
      if (feed._filter) this.#filters.add(feed);
      this.#subscribe(feed);
    }
    return subscription;
  }

  /** @param {string} topic @param {Draft} draft */
  publish(topic, draft) {
    return this.#request('publish', 'published', { topic, ...drafted(draft) }, published);
  }

  /** @param {string} topic @param {HistoryOptions} [options] */
  history(topic, { since, limit } = {}) {
    const body = { topic, since: since && position(since), limit };
    return this.#request('history', 'historyPage', body, historyPage);
  }

  /** @param {string} topic */
  presence(topic) {
    return this.#request('presence', 'presenceState', { topic }, presenceState);
  }

  ping() {
    return this.#request('ping', 'pong', {}, (_, { _lastSent = 0 }) => performance.now() - _lastSent);
  }

  close() {
    this.#link._end({ state: 'closed', reason: closed().message });
  }

  // === What the link tells ===

  _up() {
    for (const feed of this.#feeds.values()) this.#subscribe(feed);
    for (const [id, call] of this.#calls) {
      if (call._socket === this.#link._socket) continue;
      const tooOld = call._firstSent && Date.now() - call._firstSent > this.#options.retryMaxMs;
      if (tooOld && call._action === 'publish') this.#settle(id, call)._reject(unknownOutcome());
      else this.#send(id, call);
    }
  }

  /** @param {WebSocketLike | null} socket The one that is lost. */
  _down(socket) {
    clearTimeout(this.#laterTimer);
    this.#laterTimer = undefined;
    this.#later.clear();
    this.#left.clear();
    for (const feed of this.#feeds.values()) feed._lost();
    const gone = failure('disconnected', 'the connection ended before the answer came', 'later');
    for (const [id, call] of this.#calls) {
      if (call._socket === socket && !RESENT.includes(call._action)) this.#settle(id, call)._reject(gone);
    }
  }

  /** The end: by the application, or because coming back is of no use. @param {StateEvent} event */
  _over({ error }) {
    const end = error ?? closed();
    this.#end = end;
    clearTimeout(this.#laterTimer);
    for (const [id, call] of this.#calls) {
      const unknown = call._action === 'publish' && call._firstSent;
      this.#settle(id, call)._reject(unknown ? unknownOutcome() : end);
    }
    const feeds = [...this.#feeds.values()];
    this.#feeds.clear();
    this.#filters.clear();
    for (const feed of feeds) feed._end(error);
  }

  /** @template {keyof ClientEvents} E @param {E} event @param {ClientEvents[E]} detail */
  _emit = (event, detail) => {
    for (const handler of this.#handlers.get(event) ?? []) run(handler, detail);
  };

  /** Throws if the event is not what it must be; what is not known is passed over. @param {any} event */
  _event(event) {
    if (event.id) return this.#answer(event);
    for (const kind of Object.keys(event)) this.#pushes[kind]?.(event[kind]);
  }

  // === Commands ===

  /**
   * A command on behalf of the application.
   * @param {string} action
   * @param {string} expects
   * @param {object} body
   * @param {(answer: any, call: Call) => any} read
   * @returns {Promise<any>}
   */
  #request(action, expects, body, read) {
    const { queueMax } = this.#options;
    if (this.#end) return rejected(this.#end);
    if (this.#counted >= queueMax) return rejected(failure('queueFull', `${queueMax} calls wait for an answer`, 'later'));
    const { promise, resolve, reject } = deferred();
    this.#ask(action, expects, body, (answer, call) => resolve(read(answer, call)), reject, true);
    return promise;
  }

  /**
   * @param {string} _action
   * @param {string} _expects
   * @param {any} _body
   * @param {(answer: any, call: Call) => void} _resolve
   * @param {(error: FanfareError) => void} [_reject]
   * @param {true} [_counted]
   */
  #ask(_action, _expects, _body, _resolve, _reject = ignore, _counted) {
    const id = this.#lastId + 1;
    const { protocol, encode } = this.#link._spelling;
    // Now, because the application may change its object later.
    const _frame = encode(id, _action, _body);
    const call = { _action, _expects, _body, _protocol: protocol, _frame, _counted, _resolve, _reject };
    this.#lastId = id;
    this.#calls.set(id, call);
    if (_counted) this.#counted += 1;
    if (this.state === 'connected') this.#send(id, call);
  }

  /** @param {number} id @param {Call} call */
  #send(id, call) {
    const { _socket, _spelling } = this.#link;
    if (call._protocol !== _spelling.protocol) {
      call._protocol = _spelling.protocol;
      call._frame = _spelling.encode(id, call._action, call._body);
    }
    call._socket = _socket;
    call._firstSent ??= Date.now();
    call._lastSent = performance.now();
    _socket?.send(call._frame);
  }

  /** @param {number} id @param {Call} call */
  #settle(id, call) {
    this.#calls.delete(id);
    if (call._counted) this.#counted -= 1;
    return call;
  }

  /** @param {any} event */
  #answer(event) {
    const call = this.#calls.get(event.id);
    if (!call) return;
    this.#settle(event.id, call);
    if (event.error) return call._reject(refusal(event.error));
    try {
      const answer = event[call._expects];
      need(answer);
      call._resolve(answer, call);
    } catch (error) {
      call._reject(failure('badAnswer', `the server did not answer with ${call._expects}`));
      throw error;
    }
  }

  // === Subscriptions ===

  /** @param {Feed} feed */
  #subscribe(feed) {
    if (this.state !== 'connected') return;
    // By the time of the answer the application may have left, and even come back.
    const current = () => this.#feeds.get(feed._topic) === feed;
    this.#ask(
      'subscribe',
      'subscribed',
      feed._command(),
      (answer) => (current() ? this.#subscribed(feed, answer) : feed._fills && this.#left.add(feed)),
      (error) => current() && this.#refused(feed, error),
    );
  }

  /** @param {Feed} feed @param {any} answer */
  #subscribed(feed, answer) {
    this.#laterTries = 0;
    feed._subscribed(answer);
    this.#update(feed);
    if (feed._presence) this.#ask('presence', 'presenceState', { topic: feed._topic }, (state) => this.#presence(state));
  }

  /** @param {Feed} feed @param {FanfareError} error */
  #refused(feed, error) {
    if (this.state !== 'connected') return;
    if (error.retry === 'later') {
      this._emit('warning', { message: `the subscription to ${feed._topic} is tried again later`, detail: error });
      this.#later.add(feed);
      this.#laterTimer ??= setTimeout(this.#tryAgain, this.#link._backoff(this.#laterTries++));
    } else if (feed._forget(error)) {
      this.#subscribe(feed);
    } else {
      this.#forget(feed);
      feed._end(error);
    }
  }

  /** Some at a time, so that most are not refused again. */
  #tryAgain = () => {
    this.#laterTimer = undefined;
    const feeds = [...this.#later].slice(0, LATER_MAX);
    for (const feed of feeds) {
      this.#later.delete(feed);
      this.#subscribe(feed);
    }
    if (this.#later.size > 0) this.#laterTimer = setTimeout(this.#tryAgain, this.#link._backoff(this.#laterTries));
  };

  /** @param {Feed} feed */
  #forget(feed) {
    this.#feeds.delete(feed._topic);
    this.#filters.delete(feed);
    this.#later.delete(feed);
  }

  /** @param {Feed} feed @param {TermsOptions} change @returns {Promise<Terms>} */
  #change = (feed, change) => {
    const outcome = feed._agreement._change(change);
    this.#update(feed);
    return outcome;
  };

  /** Tells the server of a change of terms, one after the other. @param {Feed} feed */
  #update(feed) {
    const change = feed._live ? feed._agreement._next() : undefined;
    if (!change) return;
    const then = (/** @type {(word: any) => void} */ tell) => (/** @type {any} */ word) => {
      if (this.#feeds.get(feed._topic) !== feed) return;
      tell(word);
      this.#update(feed);
    };
    this.#ask(
      'update',
      'updated',
      { topic: feed._topic, ...change },
      then((answer) => feed._granted(answer)),
      then((error) => feed._agreement._refuse(error)),
    );
  }

  /** @param {Feed} feed @param {Subscription} subscription */
  #leave = (feed, subscription) => {
    if (feed._remove(subscription) > 0 || this.#feeds.get(feed._topic) !== feed) return;
    this.#forget(feed);
    if (feed._filling) this.#left.add(feed);
    feed._end();
    if (this.state === 'connected') this.#ask('unsubscribe', 'unsubscribed', { topic: feed._topic }, ignore);
  };

  // === Events ===

  /** What the server tells unasked. @type {Record<string, (body: any) => void>} */
  #pushes = Object.setPrototypeOf(
    {
      /** @param {any} body */
      message: (body) => {
        const { topic, offset } = message(body);
        const feeds = this.#takers(topic, offset);
        const epoch = feeds.map((feed) => feed._epoch(topic)).find(Boolean);
        const dense = this.#dense(topic);
        for (const feed of feeds) feed._take(body, epoch, dense);
      },
      /** @param {any} body */
      position: (body) => {
        need(isTopicPosition(body));
        for (const feed of this.#route(body.topic)) feed._place(body);
      },
      /** @param {any} gap */
      gap: (gap) => {
        need(isOffset(gap.from) && isOffset(gap.to));
        const dense = this.#dense(gap.topic);
        for (const feed of this.#takers(gap.topic, gap.from)) feed._gap(gap, dense);
      },
      /** @param {any} end */
      snapshotEnd: ({ topic, positions }) => {
        listOf(positions, isTopicPosition);
        const left = [...this.#left].find((feed) => feed._topic === topic);
        if (left) this.#left.delete(left);
        else this.#feeds.get(topic)?._snapshotEnd(positions ?? []);
      },
      presenceState: (/** @type {any} */ state) => this.#presence(state),
      joined: (/** @type {any} */ body) => this.#present(body.topic, 'onJoined', member(body.member)),
      left: (/** @type {any} */ body) => this.#present(body.topic, 'onLeft', member(body.member)),
      /** @param {any} body */
      stale: ({ topic, since }) => {
        for (const feed of this.#route(topic)) feed._becameStale(topic, since);
      },
      /** @param {any} body */
      fresh: ({ topic }) => {
        for (const feed of this.#route(topic)) feed._becameFresh(topic);
      },
      /** @param {any} body */
      reconnect: ({ afterMs = 0 }) => {
        need(isOffset(afterMs));
        this.#link._afterMs = Math.min(afterMs, LONG_MS);
      },
      /** @param {any} body */
      unsubscribed: ({ topic, reason }) => {
        const feed = this.#feeds.get(topic);
        // One that is not live yet has been opened anew: the event is about its predecessor.
        if (!feed?._live) return;
        this.#forget(feed);
        const name = typeof reason === 'string' ? reason : 'unsubscribed';
        feed._end(failure(name, `the server ended the subscription to ${topic}`));
      },
    },
    null,
  );

  /** @param {any} state */
  #presence(state) {
    this.#present(state.topic, 'onPresence', presenceState(state));
  }

  /** @param {string} topic @param {'onPresence' | 'onJoined' | 'onLeft'} callback @param {any} detail */
  #present(topic, callback, detail) {
    const feed = this.#feeds.get(topic);
    if (feed?._live && feed._presence) feed._tell(callback, detail);
  }

  /** The live feeds that a topic belongs to. @param {string} topic */
  #route(topic) {
    need(typeof topic === 'string');
    const exact = this.#feeds.get(topic);
    const feeds = exact?._live && !exact._filter ? [exact] : [];
    for (const feed of this.#filters) if (feed._live && feed._matches(topic)) feeds.push(feed);
    return feeds;
  }

  /**
   * The feeds to be told of a message, or of a gap that begins at `offset`. What was asked to come first
   * is for who asked: it may have holes, and be older than what the others asked for.
   * @param {string} topic
   * @param {number} offset
   */
  #takers(topic, offset) {
    const feeds = this.#route(topic);
    const first = feeds.some((feed) => feed._filling) || [...this.#left].some((feed) => feed._matches(topic));
    return first ? feeds.filter((feed) => feed._filling || feed._follows(topic, offset)) : feeds;
  }

  /**
   * The terms under which the server passes over no message of a topic, if that is certain. It is where
   * there is a subscription to exactly this topic, because its terms are the ones that count. What comes
   * by a filter may be paced by a rule for some of its topics, and nobody tells for which.
   * @param {string} topic
   */
  #dense(topic) {
    const exact = this.#feeds.get(topic);
    return exact?._live && !exact._filter ? exact._agreement._dense : undefined;
  }
}

/** An option that is there but undefined is one that was not given. @param {ClientOptions} given */
function without(given) {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}
