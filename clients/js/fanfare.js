/**
 * Fanfare client: subscribe and publish over one WebSocket that mends itself.
 *
 * Owns the connection and its reconnects, the positions of every subscription, and the commands that
 * have no answer yet.
 *
 * Invariants: on one subscription the offsets of a topic rise within an epoch; whatever is missing is
 * told, by `onGap` where the hole is known and by `onRecovered` where it is not; commands reach the
 * server in the order they were made; every queue, buffer and map has a bound.
 *
 * Not here: what a topic may be called or who may use it (the server refuses), and the binary spelling
 * of the protocol.
 *
 * @module fanfare-client
 */

/**
 * A place in a topic: an offset means something only together with its epoch.
 * @typedef {object} Position
 * @property {string} epoch
 * @property {number} offset
 */

/**
 * A place in one of the topics of a filter.
 * @typedef {Position & { topic: string }} TopicPosition
 */

/**
 * A message of a topic. Its payload is `data`, `text` or `binary`. A message is itself a position:
 * keep the last one you handled and give it as `since` later.
 * @template [T=any]
 * @typedef {object} Message
 * @property {string} topic
 * @property {number} offset
 * @property {string} [epoch] Absent only until the server has told the epoch of the topic.
 * @property {number} time When the broker took it, in milliseconds since 1970.
 * @property {string} [key] What the message is about, for instance a row or a symbol.
 * @property {T} [data] A JSON value.
 * @property {string} [text]
 * @property {Uint8Array} [binary]
 */

/**
 * Messages that this subscription will not see.
 * @typedef {object} Gap
 * @property {string} topic
 * @property {number} from First missing offset.
 * @property {number} to Last missing offset.
 * @property {number} count
 * @property {'slow' | 'lost' | 'buffer' | (string & {})} reason `slow`: the server dropped them, because
 *   this connection read too slowly. `lost`: they did not arrive and nobody said why. `buffer`: they
 *   arrived, but the loop over the subscription was too slow.
 */

/**
 * What became of a topic when the connection came back.
 * @typedef {object} Recovery
 * @property {string} topic The topic; or the filter, when topics are concerned that the client cannot
 *   name: then it stands for all topics that have no report of their own.
 * @property {boolean} recovered True: exactly the missing messages follow. False: messages may be
 *   missing, so state that was built from them must be loaded anew.
 * @property {'epochChanged' | 'trimmed' | 'expired' | 'tooMany' | 'notAllowed' | 'engineUnavailable' |
 *   'noPosition' | (string & {})} [reason] Why not. The server's reasons, and `noPosition`: the client
 *   held no position to resume from.
 */

/**
 * @template [T=any]
 * @typedef {object} SubscribeOptions
 * @property {boolean} [snapshot] Send the latest message of each topic first, and again after a
 *   reconnect that could not be resumed.
 * @property {number} [last] How many of the latest messages of each topic to send first.
 * @property {Position | TopicPosition[]} [since] Resume after this position; for a filter, after one
 *   position per topic. What `positions` of an earlier subscription gave fits either.
 * @property {'gap' | 'disconnect'} [overflow] What the server does when this client falls behind.
 * @property {number} [bufferMax] Messages held for the loop over the subscription. Default 1,000.
 * @property {(message: Message<T>) => void} [onMessage] Without it, loop over the subscription.
 * @property {(gap: Gap) => void} [onGap]
 * @property {(recovery: Recovery) => void} [onRecovered]
 * @property {() => void} [onSnapshotEnd] All that `snapshot` asked for has been given.
 * @property {(error?: FanfareError) => void} [onEnd] Called once. With an error unless the
 *   application ended the subscription.
 */

/**
 * @typedef {object} SubscriptionBase
 * @property {string} topic The topic or filter.
 * @property {Promise<void>} ready Fulfilled when the server has accepted, rejected when it has refused.
 * @property {TopicPosition[]} positions The last position of each topic, to be given as `since`.
 * @property {number} duplicates Messages that were dropped because they had been given before.
 * @property {() => void} unsubscribe
 */

/**
 * A subscription: its callbacks run, or a `for await` loop gives its messages. Leaving the loop
 * unsubscribes.
 * @template [T=any]
 * @typedef {SubscriptionBase & AsyncIterable<Message<T>>} Subscription
 */

/**
 * What to publish: exactly one of `data`, `text` and `binary`.
 * @typedef {object} Draft
 * @property {unknown} [data] A JSON value.
 * @property {string} [text]
 * @property {Uint8Array | ArrayBuffer} [binary]
 * @property {string} [key] What the message is about, for instance a row or a symbol.
 * @property {string} [idempotencyKey] Makes a retry safe. Default: a fresh random one.
 */

/**
 * @typedef {object} Published
 * @property {string} epoch
 * @property {number} offset
 * @property {'memory' | (string & {})} durability
 */

/**
 * @typedef {object} HistoryOptions
 * @property {Position} [since] Only messages after this position; without it the latest ones.
 * @property {number} [limit] At most so many. Default: as many as one page holds.
 */

/**
 * @template [T=any]
 * @typedef {object} HistoryPage
 * @property {string} topic
 * @property {Position} [top] The position of the latest message; absent if there is no such topic.
 * @property {Message<T>[]} messages Oldest first.
 * @property {boolean} more There are further messages between the last one here and `top`.
 */

/** @typedef {'connecting' | 'connected' | 'waiting' | 'closed'} State */

/**
 * @typedef {object} StateEvent
 * @property {State} state `closed` is the end; `waiting` becomes `connecting` by itself.
 * @property {string} [reason] Why the connection ended.
 * @property {number} [code] The WebSocket close code.
 * @property {number} [delayMs] When `waiting`: how long.
 * @property {FanfareError} [error] When `closed` by the server.
 */

/**
 * Something odd that the client has dealt with: worth a log line.
 * @typedef {object} Warning
 * @property {string} message
 * @property {unknown} [detail]
 */

/**
 * @typedef {object} ClientEvents
 * @property {StateEvent} state
 * @property {Gap} gap Any gap of any subscription.
 * @property {Recovery} recovered Any recovery of any subscription.
 * @property {Warning} warning
 */

/**
 * The part of a WebSocket that is used here.
 * @typedef {object} WebSocketLike
 * @property {((event: any) => void) | null} onopen
 * @property {((event: any) => void) | null} onmessage
 * @property {((event: any) => void) | null} onclose
 * @property {((event: any) => void) | null} onerror
 * @property {(data: string) => void} send
 * @property {(code?: number, reason?: string) => void} close
 * @property {() => void} [terminate]
 */

/**
 * @typedef {object} ClientOptions
 * @property {new (url: string, protocols: string[]) => WebSocketLike} [WebSocket] Default: the global
 *   one. Node 20 has none: give that of the package `ws`.
 * @property {number} [backoffMs] The first wait before a reconnect is random up to this, and the bound
 *   doubles with each attempt. Default 500.
 * @property {number} [backoffMaxMs] The bound does not grow beyond this. Default 30,000.
 * @property {number} [stableMs] A connection that lasted so long starts the backoff anew. Default 10,000.
 * @property {number} [openMaxMs] How long connecting may take. Default 10,000.
 * @property {number} [silenceMs] How much longer than its ping interval the server may be silent.
 *   Default 10,000.
 * @property {number} [queueMax] Calls that may wait for an answer, offline or not. Default 1,000.
 * @property {number} [retryMaxMs] A publish that was sent is repeated after a reconnect only for so
 *   long, because the server forgets idempotency keys. Default 240,000.
 * @property {number} [positionsMax] Topics of one filter whose position is kept. Default 1,024.
 */

const PROTOCOL = 'fanfare.v1.json';
/** Topics whose subscriptions are remembered, so that a message finds them by one look-up. */
const ROUTES_MAX = 4096;
/** Bytes of positions in one command: the server takes messages up to 64 KiB. */
const RESUME_BYTES_MAX = 60_000;
/** How long a snapshot of one filter may make the others patient with offsets that skip ahead. */
const FILL_MAX_MS = 10_000;
/** The longest ping interval that is believed; a timer cannot count much further. */
const PING_MAX_MS = 3_600_000;

const DEFAULTS = {
  backoffMs: 500,
  backoffMaxMs: 30_000,
  stableMs: 10_000,
  openMaxMs: 10_000,
  silenceMs: 10_000,
  queueMax: 1_000,
  retryMaxMs: 240_000,
  positionsMax: 1_024,
};

/**
 * Connects to a Fanfare server, and reconnects until `close()`.
 * @param {string | URL} url For instance `wss://example.org/ws`; in a page also `/ws`.
 * @param {ClientOptions} [options]
 * @returns {Client}
 */
export function connect(url, options = {}) {
  return new Client(url, options);
}

/** A refusal by the server, or by the client itself: then `code` is 0. */
export class FanfareError extends Error {
  /**
   * @param {number} code The number that programs compare.
   * @param {string} name The name of the reason: `badTopic`, `queueFull`, …
   * @param {'never' | 'later' | 'refresh' | 'resume' | (string & {})} retry What to do about it.
   * @param {string} message The sentence for a person.
   */
  constructor(code, name, retry, message) {
    super(message);
    this.name = name;
    this.code = code;
    this.retry = retry;
  }
}

/**
 * A command that has no answer yet.
 * @typedef {object} Call
 * @property {string} action
 * @property {object} body
 * @property {string} expects The name of the answer.
 * @property {boolean} [keep] Whether it is sent again after a reconnect.
 * @property {boolean} [counted] Whether `queueMax` counts it.
 * @property {string} [frame]
 * @property {WebSocketLike | null} [socket] Where it was sent last.
 * @property {number} [firstSent]
 * @property {number} [lastSent]
 * @property {(answer: any) => void} resolve
 * @property {(error: FanfareError) => void} [reject]
 */

/** A connection to a Fanfare server that mends itself. Made by `connect`. */
export class Client {
  #url;
  #options;
  #WebSocket;
  /** @type {WebSocketLike | null} */
  #socket = null;
  /** @type {State} */
  #state = 'connecting';
  /** Why the client is closed. @type {FanfareError | undefined} */
  #end;
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #handlers = new Map();
  /** By topic or filter. @type {Map<string, Feed>} */
  #feeds = new Map();
  /** Those that are for a filter. @type {Set<Feed>} */
  #filters = new Set();
  /** The feeds of a topic. @type {Map<string, Feed[]>} */
  #routes = new Map();
  /** By id, in the order they were made. @type {Map<number, Call>} */
  #calls = new Map();
  #lastId = 0;
  #counted = 0;
  #attempt = 0;
  #connectedAt = 0;
  #heardAt = 0;
  #silenceMs = 0;
  /** Watches for silence, or waits for the next attempt. @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {string | URL} url
   * @param {ClientOptions} options
   */
  constructor(url, options) {
    this.#options = { ...DEFAULTS, ...options };
    this.#url = absolute(url);
    const Constructor = options.WebSocket ?? globalThis.WebSocket;
    if (!Constructor) throw new TypeError('there is no WebSocket here: give one as the option WebSocket');
    this.#WebSocket = Constructor;
    this.#open();
    globalThis.addEventListener?.('online', this.#online);
  }

  /** Where the connection stands. */
  get state() {
    return this.#state;
  }

  /**
   * Calls `handler` for each event of a kind. Returns a function that ends that.
   * @template {keyof ClientEvents} E
   * @param {E} event
   * @param {(detail: ClientEvents[E]) => void} handler
   * @returns {() => void}
   */
  on(event, handler) {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => void handlers.delete(handler);
  }

  /**
   * Subscribes to a topic, or to every topic that a filter matches: `*` stands for one segment, a
   * final `>` for one or more. Subscriptions to the same topic share one on the server.
   * @template [T=any]
   * @param {string} topic
   * @param {SubscribeOptions<T>} [options]
   * @returns {Subscription<T>}
   */
  subscribe(topic, options = {}) {
    if (typeof topic !== 'string') throw new TypeError('the topic must be a string');
    const asked = askedBy(topic, options);
    const old = this.#feeds.get(topic);
    const feed = old ?? new Feed(topic, asked, this.#options.positionsMax, this.#emit);
    const listener = new Listener(feed, options, this.#emit, () => this.#leave(feed, listener));
    if (this.#end) {
      const error = this.#end;
      queueMicrotask(() => listener.end(error));
    } else if (old) {
      this.#join(feed, listener, asked);
    } else {
      this.#feeds.set(topic, feed);
      if (feed.filter) this.#filters.add(feed);
      this.#forgetRoutes(feed);
      feed.add(listener);
      this.#subscribe(feed);
    }
    return listener;
  }

  /**
   * Publishes a message. While there is no connection it waits; after a reconnect it is sent again
   * with the same idempotency key if its answer is missing.
   * @param {string} topic
   * @param {Draft} draft
   * @returns {Promise<Published>} Rejected with a `FanfareError`. If nobody looks at the promise, a
   *   rejection disturbs nobody.
   */
  publish(topic, draft) {
    return this.#request('publish', 'published', true, () => ({ topic, ...encode(draft) }));
  }

  /**
   * Asks for messages that a topic still holds.
   * @template [T=any]
   * @param {string} topic
   * @param {HistoryOptions} [options]
   * @returns {Promise<HistoryPage<T>>}
   */
  async history(topic, { since, limit } = {}) {
    const body = { topic, since: since && { epoch: since.epoch, offset: since.offset }, limit };
    return decodePage(await this.#request('history', 'historyPage', true, () => body));
  }

  /**
   * Asks the server for a sign of life.
   * @returns {Promise<number>} How long it took, in milliseconds.
   */
  ping() {
    return this.#request(
      'ping',
      'pong',
      false,
      () => ({}),
      (_, call) => performance.now() - (call.lastSent ?? 0),
    );
  }

  /** Ends every subscription and the connection, for good. */
  close() {
    if (this.#end) return;
    const socket = this.#socket;
    this.#finish({ state: 'closed', reason: 'the client was closed' });
    socket?.close(1000);
  }

  // === Connection ===

  #open() {
    /** @type {WebSocketLike} */
    const socket = new this.#WebSocket(this.#url, [PROTOCOL]);
    this.#socket = socket;
    const current = () => this.#socket === socket;
    socket.onopen = () => current() && this.#hello();
    socket.onmessage = (event) => current() && this.#receive(event.data);
    socket.onclose = (event) => current() && this.#lost(event.code, event.reason);
    // A close follows each error and says as much; but `ws` throws when nobody listens.
    socket.onerror = () => {};
    this.#heardAt = Date.now();
    this.#silenceMs = this.#options.openMaxMs;
    this.#watch();
    this.#become({ state: 'connecting' });
  }

  #hello() {
    this.#ask({
      action: 'connect',
      body: {},
      expects: 'connected',
      resolve: (answer) => this.#connected(answer),
      reject: (error) => {
        if (!this.#socket) return;
        if (error.retry === 'never') this.#stop(error);
        else this.#drop(error.message);
      },
    });
  }

  /** @param {{ pingMs?: unknown }} connected */
  #connected({ pingMs }) {
    const interval = typeof pingMs === 'number' && pingMs > 0 ? Math.min(pingMs, PING_MAX_MS) : 25_000;
    this.#silenceMs = interval + this.#options.silenceMs;
    this.#watch();
    this.#connectedAt = Date.now();
    this.#state = 'connected';
    for (const feed of this.#feeds.values()) this.#subscribe(feed);
    for (const [id, call] of this.#calls) {
      if (call.firstSent && Date.now() - call.firstSent > this.#options.retryMaxMs) this.#giveUp(id, call);
      else if (call.socket !== this.#socket) this.#send(call);
    }
    // Only now, so that what a handler publishes comes after what has been waiting.
    this.#become({ state: 'connected' });
  }

  /** Gives the connection up when the server has been silent for too long. */
  #watch() {
    clearTimeout(this.#timer);
    // The wall clock, because it goes on while a laptop sleeps; it may be set back, too.
    const left = Math.min(this.#heardAt + this.#silenceMs - Date.now(), this.#silenceMs);
    if (left > 0) this.#timer = setTimeout(() => this.#watch(), left);
    else this.#drop(`the server was silent for ${this.#silenceMs} ms`);
  }

  /**
   * Leaves a connection that is good for nothing, without waiting for it to close.
   * @param {string} reason
   */
  #drop(reason) {
    const socket = this.#socket;
    this.#lost(4410, reason);
    if (socket?.terminate) socket.terminate();
    else socket?.close(4410);
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #lost(code, reason) {
    const connected = this.#state === 'connected';
    const socket = this.#socket;
    this.#socket = null;
    this.#state = 'waiting';
    clearTimeout(this.#timer);
    for (const feed of this.#feeds.values()) feed.lost();
    const gone = new FanfareError(0, 'disconnected', 'later', 'the connection ended before the answer came');
    for (const [id, call] of this.#calls) {
      if (call.socket === socket && !call.keep) this.#settle(id, call)?.reject?.(gone);
    }
    if (terminal(code)) return this.#stop(closeError(code, reason), code);
    if (connected && Date.now() - this.#connectedAt >= this.#options.stableMs) this.#attempt = 0;
    const delayMs = this.#backoff(this.#attempt++);
    this.#timer = setTimeout(this.#again, delayMs);
    this.#become({ state: 'waiting', code, reason, delayMs });
  }

  #again = () => {
    clearTimeout(this.#timer);
    try {
      this.#open();
    } catch (error) {
      this.#lost(1006, String(error));
    }
  };

  #online = () => {
    if (this.#state === 'waiting') this.#again();
  };

  /**
   * Full jitter: all clients of a server that restarts must not come back at the same moment.
   * @param {number} attempt
   */
  #backoff(attempt) {
    return Math.random() * Math.min(this.#options.backoffMaxMs, this.#options.backoffMs * 2 ** attempt);
  }

  /**
   * The server has said that coming back is of no use.
   * @param {FanfareError} error
   * @param {number} [code]
   */
  #stop(error, code) {
    const socket = this.#socket;
    this.#finish({ state: 'closed', reason: error.message, code, error });
    socket?.close(1000);
  }

  /** @param {StateEvent} event */
  #finish(event) {
    this.#socket = null;
    this.#end = event.error ?? new FanfareError(0, 'closed', 'never', 'the client was closed');
    this.#state = 'closed';
    clearTimeout(this.#timer);
    globalThis.removeEventListener?.('online', this.#online);
    for (const [id, call] of this.#calls) {
      if (call.action === 'publish' && call.firstSent) this.#giveUp(id, call);
      else this.#settle(id, call)?.reject?.(this.#end);
    }
    const feeds = [...this.#feeds.values()];
    this.#feeds.clear();
    this.#filters.clear();
    this.#routes.clear();
    for (const feed of feeds) feed.end(event.error);
    this.#become(event);
  }

  /** @param {StateEvent} event */
  #become(event) {
    this.#state = event.state;
    this.#emit('state', event);
  }

  /**
   * @template {keyof ClientEvents} E
   * @param {E} event
   * @param {ClientEvents[E]} detail
   */
  #emit = (event, detail) => {
    for (const handler of this.#handlers.get(event) ?? []) run(handler, detail);
  };

  /**
   * @param {string} message
   * @param {unknown} [detail]
   */
  #warn(message, detail) {
    this.#emit('warning', { message, detail });
  }

  // === Commands ===

  /**
   * A command on behalf of the application.
   * @param {string} action
   * @param {string} expects
   * @param {boolean} keep
   * @param {() => object} body
   * @param {(answer: any, call: Call) => any} [finish]
   * @returns {Promise<any>}
   */
  #request(action, expects, keep, body, finish = (answer) => answer) {
    return handled(
      new Promise((resolve, reject) => {
        const { queueMax } = this.#options;
        if (this.#end) throw this.#end;
        if (this.#counted >= queueMax) {
          throw new FanfareError(
            0,
            'queueFull',
            'later',
            `${queueMax} calls wait for an answer, and that is the limit`,
          );
        }
        /** @type {Call} */
        const call = {
          action,
          body: body(),
          expects,
          keep,
          counted: true,
          resolve: (answer) => resolve(finish(answer, call)),
          reject,
        };
        this.#ask(call);
      }),
    );
  }

  /** @param {Call} call */
  #ask(call) {
    const id = this.#lastId + 1;
    call.frame = JSON.stringify({ id, [call.action]: call.body });
    this.#lastId = id;
    this.#calls.set(id, call);
    if (call.counted) this.#counted += 1;
    if (this.#state === 'connected' || call.action === 'connect') this.#send(call);
  }

  /** @param {Call} call */
  #send(call) {
    call.socket = this.#socket;
    call.firstSent ??= Date.now();
    call.lastSent = performance.now();
    this.#socket?.send(call.frame ?? '');
  }

  /**
   * @param {number} id
   * @param {Call} [call]
   */
  #settle(id, call) {
    if (this.#calls.delete(id) && call?.counted) this.#counted -= 1;
    return call;
  }

  /**
   * @param {number} id
   * @param {Call} call
   */
  #giveUp(id, call) {
    const text = 'the connection ended before the answer came, so the outcome is not known';
    this.#settle(id, call)?.reject?.(new FanfareError(0, 'unknown', 'later', text));
  }

  // === Subscriptions ===

  /** @param {Feed} feed */
  #subscribe(feed) {
    if (this.#state !== 'connected') return;
    const current = () => this.#feeds.get(feed.topic) === feed;
    this.#ask({
      action: 'subscribe',
      body: feed.command(),
      expects: 'subscribed',
      resolve: (answer) => current() && feed.subscribed(answer),
      reject: (error) => current() && this.#refused(feed, error),
    });
  }

  /**
   * @param {Feed} feed
   * @param {FanfareError} error
   */
  #refused(feed, error) {
    if (this.#state !== 'connected') return;
    if (error.retry === 'later') {
      this.#warn(`the subscription to ${feed.topic} is tried again later`, error);
      feed.timer = setTimeout(() => this.#subscribe(feed), this.#backoff(feed.attempt++));
    } else if (feed.forget(error)) {
      this.#subscribe(feed);
    } else {
      this.#remove(feed);
      feed.end(error);
    }
  }

  /**
   * Adds a subscription to a feed that others have opened.
   * @param {Feed} feed
   * @param {Listener} listener
   * @param {ReturnType<typeof askedBy>} asked
   */
  #join(feed, listener, asked) {
    const plain = asked.positions.length === 0 && asked.last === 0;
    listener.holding = !plain || asked.snapshot;
    feed.add(listener);
    if (plain && !asked.snapshot) {
      if (feed.live) listener.opened();
    } else if (plain && feed.holdsSnapshot()) {
      // Later, because the application does not have its subscription yet.
      queueMicrotask(() => feed.refill(listener));
    } else if (!feed.filter) {
      this.#replay(feed, listener, asked, asked.positions[0]);
    } else {
      const text = `there is a subscription to ${feed.topic} with other options`;
      queueMicrotask(() => {
        listener.end(new FanfareError(107, 'alreadySubscribed', 'never', text));
        this.#leave(feed, listener);
      });
    }
  }

  /**
   * Gives a subscription that came later the past it asked for. All that arrives for it before the
   * last page is on that page too, so it is passed over.
   * @param {Feed} feed
   * @param {Listener} listener
   * @param {ReturnType<typeof askedBy>} asked
   * @param {Position} [since]
   */
  #replay(feed, listener, asked, since) {
    const position = since && { epoch: since.epoch, offset: since.offset };
    this.#ask({
      action: 'history',
      body: { topic: feed.topic, since: position, limit: since ? undefined : asked.last || 1 },
      expects: 'historyPage',
      keep: true,
      resolve: (answer) => {
        const { messages, more, top } = decodePage(answer);
        if (since && since === asked.positions[0]) listener.recovered({ topic: feed.topic, recovered: true });
        for (const message of messages) listener.give(message);
        const last = messages.at(-1);
        if (since && more && last) {
          this.#replay(feed, listener, asked, { epoch: since.epoch, offset: last.offset });
        } else {
          if (asked.snapshot) listener.snapshotEnd();
          listener.release(top?.offset ?? 0);
        }
      },
      reject: (error) => {
        if (since && error.code >= 150 && error.code < 154) {
          listener.recovered({ topic: feed.topic, recovered: false, reason: error.name });
          listener.release(0);
        } else {
          listener.end(error);
          this.#leave(feed, listener);
        }
      },
    });
  }

  /**
   * @param {Feed} feed
   * @param {Listener} listener
   */
  #leave(feed, listener) {
    if (feed.remove(listener) > 0 || this.#feeds.get(feed.topic) !== feed) return;
    this.#remove(feed);
    feed.end();
    if (this.#state !== 'connected') return;
    this.#ask({
      action: 'unsubscribe',
      body: { topic: feed.topic },
      expects: 'unsubscribed',
      resolve: () => {},
    });
  }

  /** @param {Feed} feed */
  #remove(feed) {
    this.#feeds.delete(feed.topic);
    this.#filters.delete(feed);
    this.#forgetRoutes(feed);
  }

  /** @param {Feed} feed */
  #forgetRoutes(feed) {
    if (feed.filter) this.#routes.clear();
    else this.#routes.delete(feed.topic);
  }

  // === Events ===

  /** @param {unknown} text */
  #receive(text) {
    this.#heardAt = Date.now();
    let event;
    try {
      event = JSON.parse(/** @type {string} */ (text));
    } catch {
      return this.#warn('a message is not JSON', text);
    }
    if (typeof event?.message?.topic === 'string' && isOffset(event.message.offset))
      this.#message(event.message);
    else if (event?.id) this.#answer(event);
    else this.#push(event);
  }

  /** @param {Message & { base64?: string }} message */
  #message(message) {
    if (!decode(message)) return this.#warn('a message is not base64', message);
    const feeds = this.#route(message.topic);
    for (const feed of feeds) feed.take(message, feeds);
  }

  /** @param {any} event */
  #answer(event) {
    const call = this.#calls.get(event.id);
    if (!call) return this.#warn('an answer has no question', event);
    this.#settle(event.id, call);
    const answer = event[call.expects];
    if (event.error) return call.reject?.(refusal(event.error));
    if (typeof answer === 'object' && answer) return call.resolve(answer);
    this.#warn(`an answer is not ${call.expects}`, event);
    call.reject?.(
      new FanfareError(0, 'badAnswer', 'never', `the server did not answer with ${call.expects}`),
    );
  }

  /** @param {any} event */
  #push(event) {
    const { position, gap, snapshotEnd, unsubscribed, error, ping } = event ?? {};
    if (ping) return;
    if (isTopicPosition(position)) {
      for (const feed of this.#route(position.topic)) feed.place(position);
    } else if (typeof gap?.topic === 'string' && isOffset(gap.from) && isOffset(gap.to)) {
      const feeds = this.#route(gap.topic);
      for (const feed of feeds) feed.gap(gap, feeds);
    } else if (snapshotEnd) {
      this.#feeds.get(snapshotEnd.topic)?.snapshotEnd(snapshotEnd.positions);
    } else if (unsubscribed) {
      this.#unsubscribed(this.#feeds.get(unsubscribed.topic));
    } else if (error) {
      this.#warn('the server refused a command that has no id', refusal(error));
    } else {
      this.#warn('an event is not known', event);
    }
  }

  /** @param {Feed} [feed] */
  #unsubscribed(feed) {
    // One that is not live yet has been opened anew: the event is about its predecessor.
    if (!feed?.live) return;
    this.#remove(feed);
    feed.end(
      new FanfareError(0, 'unsubscribed', 'never', `the server ended the subscription to ${feed.topic}`),
    );
  }

  /**
   * @param {string} topic
   * @returns {Feed[]}
   */
  #route(topic) {
    let feeds = this.#routes.get(topic);
    if (feeds) return feeds;
    const exact = this.#feeds.get(topic);
    feeds = exact && !exact.filter ? [exact] : [];
    for (const feed of this.#filters) if (feed.matches(topic)) feeds.push(feed);
    if (this.#routes.size >= ROUTES_MAX) this.#routes.clear();
    this.#routes.set(topic, feeds);
    return feeds;
  }
}

/** Where a feed stands in one topic. */
class Place {
  /** Kept for subscriptions that join a snapshot later. @type {Message | undefined} */
  latest;
  /** Orders the places by when they were used last. */
  used = 0;

  /**
   * @param {string | undefined} epoch
   * @param {number} seen The last offset that was given.
   * @param {number} start Live messages come after this; up to it, holes are not worth a word.
   * @param {boolean} filling A snapshot has not arrived entirely: this is no place to resume from.
   */
  constructor(epoch, seen, start, filling) {
    this.epoch = epoch;
    this.seen = seen;
    this.start = start;
    this.filling = filling;
    /** Up to here the server replays for this feed what others may have seen. */
    this.top = start;
  }
}

/** One subscription on the server, shared by all that the application has to that topic or filter. */
class Feed {
  live = false;
  attempt = 0;
  duplicates = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  #asked;
  #placesMax;
  #emit;
  /** @type {readonly Listener[]} */
  #listeners = [];
  /** @type {Map<string, Place>} */
  #places = new Map();
  /** What the last command resumed from. @type {Map<string, Position>} */
  #resumed = new Map();
  #uses = 0;
  #opened = false;
  #filling = false;
  #fillEnd = 0;
  /** Whether a topic that turns up for the first time may have had messages while we were away. */
  #wasAway = false;
  /** Why the next command cannot resume everything. */
  #loss = '';

  /**
   * @param {string} topic
   * @param {ReturnType<typeof askedBy>} asked
   * @param {number} placesMax
   * @param {<E extends keyof ClientEvents>(event: E, detail: ClientEvents[E]) => void} emit
   */
  constructor(topic, asked, placesMax, emit) {
    this.topic = topic;
    this.segments = topic.split('.');
    this.filter = isFilter(topic);
    this.#asked = asked;
    this.#placesMax = placesMax;
    this.#emit = emit;
    for (const { topic, epoch, offset } of asked.positions) this.#put(topic, epoch, offset, offset);
  }

  /** @param {Listener} listener */
  add(listener) {
    this.#listeners = [...this.#listeners, listener];
  }

  /**
   * Returns how many are left.
   * @param {Listener} listener
   */
  remove(listener) {
    this.#listeners = this.#listeners.filter((other) => other !== listener);
    return this.#listeners.length;
  }

  /** @param {FanfareError} [error] */
  end(error) {
    this.lost();
    for (const listener of this.#listeners) listener.end(error);
  }

  lost() {
    clearTimeout(this.timer);
    this.live = false;
    if (this.#filling) this.#loss ||= 'noPosition';
    this.#filling = false;
    this.#fillEnd = 0;
  }

  /** @param {string} topic */
  matches(topic) {
    const { segments } = this;
    const names = topic.split('.');
    const open = segments.at(-1) === '>';
    if (open ? names.length < segments.length : names.length !== segments.length) return false;
    return segments.every(
      (segment, i) => segment === '*' || segment === names[i] || (open && i === segments.length - 1),
    );
  }

  /** The places from which this feed can resume, the one used last first. */
  positions() {
    const places = [...this.#places].filter(([, place]) => place.epoch && !place.filling);
    places.sort(([, a], [, b]) => b.used - a.used);
    return places.map(([topic, { epoch = '', seen }]) => ({ topic, epoch, offset: seen }));
  }

  // === Opening and resuming ===

  /** What to ask the server for. */
  command() {
    const { snapshot, last, overflow } = this.#asked;
    let positions = this.positions();
    if (this.filter) {
      let bytes = 0;
      const fitting = positions.filter(
        (position) => (bytes += JSON.stringify(position).length + 1) <= RESUME_BYTES_MAX,
      );
      if (fitting.length < positions.length) this.#loss ||= 'tooMany';
      positions = fitting;
    }
    // With a snapshot, a loss that cannot be named is mended by taking all anew, and by that alone:
    // a snapshot leaves out what was resumed.
    if (this.#loss && (snapshot || !this.filter)) positions = [];
    this.#resumed = new Map(positions.map(({ topic, epoch, offset }) => [topic, { epoch, offset }]));
    for (const topic of this.#places.keys()) if (!this.#resumed.has(topic)) this.#places.delete(topic);
    this.#wasAway = !this.#loss && (this.#opened || positions.length > 0);
    return {
      topic: this.topic,
      snapshot: snapshot || undefined,
      last: last || undefined,
      overflow,
      since: this.filter ? undefined : this.#resumed.get(this.topic),
      positions: this.filter && positions.length ? positions : undefined,
    };
  }

  /**
   * Forgets positions that the server does not take. Returns whether another try makes sense.
   * @param {FanfareError} error
   */
  forget({ code, name }) {
    if (!this.#opened || this.#resumed.size === 0 || (code !== 104 && code !== 111)) return false;
    this.#places.clear();
    this.#loss = name;
    return true;
  }

  /** @param {{ position?: unknown, recovered?: unknown, reason?: unknown, topics?: unknown }} answer */
  subscribed(answer) {
    const loss = this.#loss;
    this.#loss = '';
    this.live = true;
    this.attempt = 0;
    this.#opened = true;
    this.#filling = this.#asked.snapshot;
    if (loss) this.#recovered({ topic: this.topic, recovered: false, reason: loss });
    if (this.filter) {
      if (this.#filling) this.#fillEnd = Date.now() + FILL_MAX_MS;
      const told = Array.isArray(answer.topics) ? answer.topics : [];
      for (const outcome of told) this.#resume(outcome?.topic, outcome);
      for (const topic of this.#resumed.keys()) this.#resume(topic, {});
    } else if (this.#resumed.size > 0) {
      if (this.#resume(this.topic, answer)) this.#filling = false;
    } else {
      if (isPosition(answer.position)) this.#begin(this.topic, answer.position);
      if (this.#wasAway) this.#recovered({ topic: this.topic, recovered: false, reason: 'noPosition' });
    }
    for (const listener of this.#listeners) listener.opened();
  }

  /**
   * @param {string} topic
   * @param {{ position?: unknown, recovered?: unknown, reason?: unknown }} outcome
   */
  #resume(topic, { position, recovered, reason }) {
    const since = this.#resumed.get(topic);
    const place = this.#places.get(topic);
    if (!since || !place) return false;
    this.#resumed.delete(topic);
    const known = isPosition(position);
    // A server that says yes to another epoch is not believed.
    if (recovered === true && known && position.epoch === since.epoch && position.offset >= since.offset) {
      place.top = position.offset;
      this.#recovered({ topic, recovered });
      return true;
    }
    if (known) this.#begin(topic, position);
    else this.#places.delete(topic);
    this.#recovered({
      topic,
      recovered: false,
      reason: typeof reason === 'string' ? reason : 'epochChanged',
    });
    return false;
  }

  /**
   * @param {string} topic
   * @param {Position} position
   */
  #begin(topic, { epoch, offset }) {
    const before = this.#filling ? offset : Math.min(offset, this.#asked.last);
    this.#put(topic, epoch, offset - before, offset);
  }

  /**
   * @param {string} topic
   * @param {string | undefined} epoch
   * @param {number} seen
   * @param {number} start
   */
  #put(topic, epoch, seen, start) {
    if (this.#places.size >= this.#placesMax && !this.#places.has(topic)) this.#evict();
    const place = new Place(epoch, seen, start, this.#filling);
    place.used = ++this.#uses;
    this.#places.set(topic, place);
    return place;
  }

  /** Forgets a quarter of the places, those used longest ago. */
  #evict() {
    const oldest = [...this.#places].sort(([, a], [, b]) => a.used - b.used);
    for (const [topic] of oldest.slice(0, Math.ceil(this.#placesMax / 4))) this.#places.delete(topic);
    this.#loss = 'tooMany';
  }

  // === Messages ===

  /**
   * @param {Message} message
   * @param {Feed[]} feeds All that the message is for.
   */
  take(message, feeds) {
    if (!this.live) return;
    const { topic, offset } = message;
    const place = this.#places.get(topic) ?? this.#meet(topic, offset, feeds);
    if (offset <= place.seen) {
      this.duplicates += 1;
      return;
    }
    const next = Math.max(place.seen, place.start) + 1;
    if (offset > next && !place.filling) {
      // What is replayed for another feed may be ahead of the live messages of this one.
      if (feeds.some((feed) => feed !== this && feed.#replays(topic, offset))) return;
      this.#missed({ topic, from: next, to: offset - 1, count: offset - next, reason: 'lost' });
    }
    place.seen = offset;
    place.used = ++this.#uses;
    if (place.epoch) message.epoch = place.epoch;
    if (this.#asked.snapshot) place.latest = message;
    for (const listener of this.#listeners) listener.take(message);
  }

  /**
   * The first message of a topic whose position the server has told to another feed, or not at all.
   * @param {string} topic
   * @param {number} offset
   * @param {Feed[]} feeds
   */
  #meet(topic, offset, feeds) {
    if (this.#wasAway && offset > 1) this.#recovered({ topic, recovered: false, reason: 'noPosition' });
    const [epoch] = feeds.map((feed) => feed.#places.get(topic)?.epoch).filter(Boolean);
    return this.#put(topic, epoch, offset - 1, 0);
  }

  /**
   * @param {string} topic
   * @param {number} offset
   */
  #replays(topic, offset) {
    const top = this.#places.get(topic)?.top ?? 0;
    return this.live && (offset <= top || Date.now() < this.#fillEnd);
  }

  /** @param {TopicPosition} position */
  place(position) {
    if (!this.live) return;
    const { topic, epoch, offset } = position;
    const place = this.#places.get(topic);
    if (place && (place.epoch ?? epoch) === epoch) {
      place.epoch = epoch;
      return;
    }
    if (place) this.#recovered({ topic, recovered: false, reason: 'epochChanged' });
    else if (this.#wasAway && offset > 0) this.#recovered({ topic, recovered: false, reason: 'noPosition' });
    this.#begin(topic, position);
  }

  /**
   * @param {Gap} gap
   * @param {Feed[]} feeds
   */
  gap({ topic, from, to, count, reason }, feeds) {
    if (!this.live) return;
    const place = this.#places.get(topic) ?? this.#meet(topic, from, feeds);
    const next = Math.max(place.seen, place.start) + 1;
    if (to < next) return;
    if (from > next && !place.filling)
      this.#missed({ topic, from: next, to: from - 1, count: from - next, reason: 'lost' });
    const first = Math.max(from, next);
    const most = to - first + 1;
    place.seen = to;
    this.#missed({ topic, from: first, to, count: isOffset(count) ? Math.min(count, most) : most, reason });
  }

  /** @param {unknown} positions */
  snapshotEnd(positions) {
    if (!this.live) return;
    this.#filling = false;
    this.#fillEnd = 0;
    for (const position of Array.isArray(positions) ? positions.filter(isTopicPosition) : []) {
      const old = this.#places.get(position.topic);
      this.place(position);
      const place = this.#places.get(position.topic);
      // Where messages were resumed, only they move the place.
      if (place && (place !== old || old.filling)) place.seen = Math.max(place.seen, position.offset);
    }
    for (const place of this.#places.values()) {
      if (place.filling) place.seen = Math.max(place.seen, place.start);
      place.filling = false;
    }
    for (const listener of this.#listeners) if (!listener.holding) listener.snapshotEnd();
  }

  /** Whether a subscription that comes later can be given its snapshot from here. */
  holdsSnapshot() {
    return this.#asked.snapshot && !this.#loss;
  }

  /** @param {Listener} listener */
  refill(listener) {
    for (const { latest } of this.#loss ? [] : [...this.#places.values()]) if (latest) listener.give(latest);
    if (this.#opened && !this.#filling && !this.#loss) listener.snapshotEnd();
    listener.release(0);
  }

  // === Telling ===

  /** @param {Gap} gap */
  #missed(gap) {
    this.#emit('gap', gap);
    for (const listener of this.#listeners) listener.gap(gap);
  }

  /** @param {Recovery} recovery */
  #recovered(recovery) {
    this.#emit('recovered', recovery);
    for (const listener of this.#listeners) listener.recovered(recovery);
  }
}

/** A subscription as the application sees it. */
class Listener {
  /** Whether live messages pass by, because the past comes first. */
  holding = false;
  #feed;
  #options;
  #bufferMax;
  #emit;
  #leave;
  /** Up to this offset the past has been given. */
  #skip = 0;
  #ended = false;
  /** @type {FanfareError | undefined} */
  #error;
  /** @type {Message[]} */
  #buffer = [];
  /** @type {{ resolve: (result: IteratorResult<Message, undefined>) => void, reject: (error: unknown) => void }[]} */
  #waiters = [];
  /** @type {() => void} */
  #accept = () => {};
  /** @type {(error: FanfareError) => void} */
  #refuse = () => {};

  /**
   * @param {Feed} feed
   * @param {SubscribeOptions<any>} options
   * @param {<E extends keyof ClientEvents>(event: E, detail: ClientEvents[E]) => void} emit
   * @param {() => void} leave
   */
  constructor(feed, options, emit, leave) {
    this.#feed = feed;
    this.#options = options;
    this.#bufferMax = options.bufferMax ?? 1_000;
    this.#emit = emit;
    this.#leave = leave;
    /** @type {Promise<void>} */
    this.ready = handled(
      new Promise((resolve, reject) => {
        this.#accept = resolve;
        this.#refuse = reject;
      }),
    );
  }

  get topic() {
    return this.#feed.topic;
  }

  get positions() {
    return this.#feed.positions();
  }

  get duplicates() {
    return this.#feed.duplicates;
  }

  unsubscribe() {
    if (this.#ended) return;
    this.#buffer = [];
    this.end();
    this.#leave();
  }

  /** @returns {AsyncIterator<Message, undefined>} */
  [Symbol.asyncIterator]() {
    if (this.#options.onMessage) throw new TypeError('the messages of this subscription go to onMessage');
    return {
      next: () => this.#next(),
      return: async () => {
        this.unsubscribe();
        return { done: true, value: undefined };
      },
    };
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  async #next() {
    const value = this.#buffer.shift();
    if (value) return { done: false, value };
    if (!this.#ended) return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
    const error = this.#error;
    this.#error = undefined;
    if (error) throw error;
    return { done: true, value: undefined };
  }

  opened() {
    if (!this.holding) this.#accept();
  }

  /**
   * The past has been given: go on with what is live.
   * @param {number} offset
   */
  release(offset) {
    this.holding = false;
    this.#skip = offset;
    if (this.#feed.live) this.opened();
  }

  /** @param {Message} message */
  take(message) {
    if (!this.holding && message.offset > this.#skip) this.give(message);
  }

  /** @param {Message} message */
  give(message) {
    if (this.#ended) return;
    if (this.#options.onMessage) return run(this.#options.onMessage, message);
    const waiter = this.#waiters.shift();
    if (waiter) return waiter.resolve({ done: false, value: message });
    this.#buffer.push(message);
    if (this.#buffer.length > this.#bufferMax) this.#overflow();
  }

  /** Drops the older half of the buffer at once, so that few gaps tell of it. */
  #overflow() {
    /** @type {Map<string, Gap>} */
    const gaps = new Map();
    for (const { topic, offset } of this.#buffer.splice(0, Math.ceil(this.#bufferMax / 2))) {
      const gap = gaps.get(topic) ?? { topic, from: offset, to: offset, count: 0, reason: 'buffer' };
      gaps.set(topic, { ...gap, to: offset, count: gap.count + 1 });
    }
    for (const gap of gaps.values()) {
      this.#emit('gap', gap);
      this.gap(gap);
    }
  }

  /** @param {Gap} gap */
  gap(gap) {
    if (!this.#ended) run(this.#options.onGap, gap);
  }

  /** @param {Recovery} recovery */
  recovered(recovery) {
    if (!recovery.recovered) this.#skip = 0;
    if (!this.#ended) run(this.#options.onRecovered, recovery);
  }

  snapshotEnd() {
    if (!this.#ended && this.#options.snapshot) run(this.#options.onSnapshotEnd, undefined);
  }

  /** @param {FanfareError} [error] */
  end(error) {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#refuse(
      error ?? new FanfareError(0, 'unsubscribed', 'never', 'the subscription was ended by the application'),
    );
    const [first, ...others] = this.#waiters.splice(0);
    if (first && error) {
      this.#error = undefined;
      first.reject(error);
    } else {
      first?.resolve({ done: true, value: undefined });
    }
    for (const waiter of others) waiter.resolve({ done: true, value: undefined });
    run(this.#options.onEnd, error);
  }
}

// === Helpers ===

/**
 * Calls the application. What it throws is its own affair: it must not stop the others' messages, and
 * it must not vanish either.
 * @template D
 * @param {((detail: D) => void) | undefined} handler
 * @param {D} detail
 */
function run(handler, detail) {
  try {
    handler?.(detail);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * Marks a promise so that nobody is forced to look at its failure.
 * @template T
 * @param {Promise<T>} promise
 */
function handled(promise) {
  promise.catch(() => {});
  return promise;
}

/** @param {string | URL} url */
function absolute(url) {
  const { href } = new URL(url, globalThis.location?.href);
  return href.replace(/^http/, 'ws').replace(/#.*/, '');
}

/**
 * What a subscription asks the server for.
 * @param {string} topic
 * @param {SubscribeOptions<any>} options
 */
function askedBy(topic, { since = [], snapshot = false, last = 0, overflow }) {
  const filter = isFilter(topic);
  /** @type {TopicPosition[]} */
  const list = Array.isArray(since) ? since : [{ ...since, topic }];
  const positions = list.filter((position) => filter || position.topic === topic);
  if (!positions.every(isTopicPosition) || (filter && !Array.isArray(since))) {
    throw new TypeError('since must be a position, or for a filter an array of positions with topics');
  }
  return { positions, snapshot, last, overflow };
}

/** @param {string} topic */
function isFilter(topic) {
  return /(^|\.)(\*(\.|$)|>$)/.test(topic);
}

/** @param {unknown} value */
function isOffset(value) {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/**
 * @param {any} value
 * @returns {value is Position}
 */
function isPosition(value) {
  return typeof value?.epoch === 'string' && isOffset(value.offset);
}

/**
 * @param {any} value
 * @returns {value is TopicPosition}
 */
function isTopicPosition(value) {
  return typeof value?.topic === 'string' && isPosition(value);
}

/** @param {Draft} draft */
function encode({ data, text, binary, key, idempotencyKey = randomKey() }) {
  if ([data, text, binary].filter((payload) => payload !== undefined).length !== 1) {
    throw new TypeError('a message has exactly one of data, text and binary');
  }
  return { data, text, base64: binary && toBase64(new Uint8Array(binary)), key, idempotencyKey };
}

/**
 * Turns the payload into what the application sees. Returns whether it could.
 * @param {Message & { base64?: string }} message
 */
function decode(message) {
  if (message.base64 === undefined) return true;
  try {
    message.binary = Uint8Array.from(atob(message.base64), (char) => char.charCodeAt(0));
    delete message.base64;
    return true;
  } catch {
    return false;
  }
}

/**
 * @param {any} page
 * @returns {HistoryPage<any>}
 */
function decodePage({ topic, top, messages, more }) {
  const list = Array.isArray(messages) ? messages : [];
  for (const message of list) {
    decode(message);
    message.epoch = top?.epoch;
  }
  return { topic, top, messages: list, more: more === true };
}

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
  let chars = '';
  for (const byte of bytes) chars += String.fromCharCode(byte);
  return btoa(chars);
}

function randomKey() {
  // Pages that were not loaded by TLS have no `randomUUID`.
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');
}

/**
 * Whether a close code says that coming back is of no use.
 * @param {number} code
 */
function terminal(code) {
  return [1000, 1002, 1003, 1007, 1009].includes(code) || (code >= 4500 && code < 5000);
}

/**
 * The reason of a close is written `name: sentence`.
 * @param {number} code
 * @param {string} reason
 */
function closeError(code, reason) {
  const [, name, sentence] = /^(\w+): (.+)$/.exec(reason ?? '') ?? [];
  return new FanfareError(
    code,
    name ?? 'closed',
    'never',
    sentence ?? `the server closed the connection with code ${code}`,
  );
}

/** @param {any} error */
function refusal({ code, name, retry, message }) {
  return new FanfareError(Number(code) || 0, String(name), String(retry), String(message));
}
