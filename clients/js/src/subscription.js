/**
 * What the application holds: a subscription whose callbacks run, or a loop over which gives its
 * messages. Invariant: what waits for the loop is bounded, and what is dropped is told.
 * @module
 */

/** @import { FanfareError } from './error.js' */
/** @import { Feed } from './feed.js' */
/** @import { ClientEvents, Gap, Message, SubscribeOptions, Terms, TermsOptions } from './types.js' */

import { termsAsked } from './asked.js';
import { unsubscribed } from './errors.js';
import { deferred, rejected, run } from './small.js';

/** @typedef {<E extends keyof ClientEvents>(event: E, detail: ClientEvents[E]) => void} Emit */
/** @typedef {'onGap' | 'onRecovered' | 'onSnapshotEnd' | 'onGranted' | 'onStale' | 'onFresh' | 'onPresence' | 'onJoined' | 'onLeft'} Callback */
/** @template {Callback} C @typedef {Parameters<NonNullable<SubscribeOptions[C]>>[0]} Detail */

export class Subscription {
  /** Whether live messages pass by, because a snapshot comes first. */
  _holding = false;
  #feed;
  #options;
  #emit;
  #leave;
  #change;
  #ready = deferred();
  #ended = false;
  /** @type {FanfareError | undefined} */
  #error;
  /** @type {Message[]} */
  #buffer = [];
  /** Loops that wait for a message. @type {(() => void)[]} */
  #wake = [];

  /**
   * @param {Feed} feed
   * @param {SubscribeOptions<any>} options
   * @param {Emit} emit
   * @param {(feed: Feed, subscription: Subscription) => void} leave
   * @param {(feed: Feed, change: TermsOptions) => Promise<Terms>} change
   */
  constructor(feed, options, emit, leave, change) {
    this.#feed = feed;
    this.#options = { bufferMax: 1_000, ...options };
    this.#emit = emit;
    this.#leave = leave;
    this.#change = change;
  }

  get topic() {
    return this.#feed._topic;
  }

  get ready() {
    return this.#ready.promise;
  }

  get positions() {
    return this.#feed._positions();
  }

  get policy() {
    return this.#feed._agreement._granted?.policy;
  }

  get maxHz() {
    return this.#feed._agreement._granted?.maxHz;
  }

  get overflow() {
    return this.#feed._agreement._granted?.overflow;
  }

  get stale() {
    return this.#feed._stale.size > 0;
  }

  get duplicates() {
    return this.#feed._duplicates;
  }

  /** @param {TermsOptions} change */
  update(change) {
    const terms = termsAsked(change);
    return this.#ended ? rejected(this.#error ?? unsubscribed()) : this.#change(this.#feed, terms);
  }

  unsubscribe() {
    if (this.#ended) return;
    this.#buffer = [];
    this._end();
    this.#leave(this.#feed, this);
  }

  async *[Symbol.asyncIterator]() {
    if (this.#options.onMessage) throw new TypeError('the messages of this subscription go to onMessage');
    try {
      for (;;) {
        const message = this.#buffer.shift();
        if (message) yield message;
        else if (!this.#ended) await new Promise((resolve) => this.#wake.push(/** @type {() => void} */ (resolve)));
        else if (this.#error) throw this.#error;
        else return;
      }
    } finally {
      this.unsubscribe();
    }
  }

  // What follows is for the feed.

  get _snapshot() {
    return Boolean(this.#options.snapshot);
  }

  _opened() {
    this.#ready.resolve();
  }

  /** @param {Message} message */
  _take(message) {
    if (!this._holding) this._give(message);
  }

  /** @param {Message} message */
  _give(message) {
    if (this.#ended) return;
    if (this.#options.onMessage) return run(this.#options.onMessage, message);
    this.#buffer.push(message);
    if (this.#buffer.length > this.#options.bufferMax) this.#overflow();
    this.#wakeUp();
  }

  /** Drops the older half of the buffer at once, so that few gaps tell of it. */
  #overflow() {
    /** @type {Map<string, Gap>} */
    const gaps = new Map();
    for (const { topic, offset } of this.#buffer.splice(0, Math.ceil(this.#buffer.length / 2))) {
      const gap = gaps.get(topic) ?? { topic, from: offset, to: offset, count: 0, reason: 'buffer' };
      gaps.set(topic, { ...gap, to: offset, count: gap.count + 1 });
    }
    for (const gap of gaps.values()) {
      this.#emit('gap', gap);
      this._tell('onGap', gap);
    }
  }

  #wakeUp() {
    for (const resolve of this.#wake.splice(0)) resolve();
  }

  /**
   * @template {Callback} C
   * @param {C} callback
   * @param {Detail<C>} detail
   */
  _tell(callback, detail) {
    /** @type {((detail: any) => void) | undefined} */
    const handler = this.#options[callback];
    if (!this.#ended) run(handler, detail);
  }

  /** @param {FanfareError} [error] */
  _end(error) {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#ready.reject(error ?? unsubscribed());
    this.#wakeUp();
    const { onEnd, onMessage } = this.#options;
    // A loop throws it; callbacks alone would never know.
    if (error && onMessage && !onEnd) this.#emit('warning', { message: error.message, detail: error });
    run(onEnd, error);
  }
}
