/**
 * Fanfare client: subscribe and publish over one WebSocket that mends itself.
 *
 * Owns the connection and its reconnects (`Client`), where each subscription stands in its topics
 * (`Feed`), on which terms (`Agreement`), what the application holds (`Subscription`), and the commands
 * that have no answer yet.
 *
 * Invariants: on one subscription the offsets of a topic rise within an epoch; whatever is missing is
 * told, by `onGap` where the hole is known and by `onRecovered` where it is not, but for what the terms
 * allow to be passed over; commands reach the server in the order they were made; every queue, buffer
 * and map has a bound.
 *
 * Not here: what a topic may be called or who may use it (the server refuses), and the binary spelling
 * of the protocol.
 *
 * @module fanfare-client
 */

/**
 * A place in a topic: an offset means something only together with its epoch.
 * @typedef {{ epoch: string, offset: number }} Position
 */

/**
 * A place in one of the topics of a filter.
 * @typedef {Position & { topic: string }} TopicPosition
 */

/**
 * A message of a topic. Its payload is `data`, `text` or `binary`; a delete has none.
 * @template [T=any]
 * @typedef {object} Message
 * @property {string} topic
 * @property {number} offset
 * @property {string} [epoch] Absent until the server has told the epoch of the topic.
 * @property {number} time When the broker took it, in milliseconds since 1970.
 * @property {string} [key] What the message is about, for instance a row or a symbol.
 * @property {T} [data] A JSON value.
 * @property {string} [text]
 * @property {Uint8Array} [binary]
 * @property {true} [deleted] What `key` names is no more.
 */

/**
 * Messages that this subscription will not see.
 * @typedef {object} Gap
 * @property {string} topic
 * @property {number} from First missing offset.
 * @property {number} to Last missing offset.
 * @property {number} count
 * @property {'slow' | 'trimmed' | 'expired' | 'lost' | 'buffer' | (string & {})} reason `slow`: the server
 *   dropped them, because this connection read too slowly. `trimmed`: while this connection was catching
 *   up, the topic's history went past them. `expired`: they had become too old to be sent. `lost`: they
 *   did not arrive and nobody said why. `buffer`: they arrived, but the loop over the subscription was
 *   too slow.
 */

/** @typedef {'all' | 'latest' | 'maxHz'} Policy */
/** @typedef {'catchUp' | 'gap' | 'disconnect'} Overflow */

/**
 * Which messages of its topics a subscription asks for, and what happens when it is slow. What is left
 * out is left to the server, in a change as it is.
 * @typedef {object} TermsOptions
 * @property {Policy} [policy] `all`: every message. `latest`: every message while the connection takes
 *   them, else only the latest of each key. `maxHz`: as `latest`, and each topic at most `maxHz` times a
 *   second. The last message of a key always comes.
 * @property {number} [maxHz] From 0.01 to 1,000; alone it means the policy `maxHz`.
 * @property {Overflow} [overflow] What the server does under `all` when this client falls behind.
 *   `catchUp`: sends what the topic's history holds, at the client's pace. `gap`: leaves messages out,
 *   and says so. `disconnect`: closes the connection, which is then resumed.
 */

/**
 * What the server grants, which may be less than was asked for. Of a filter single topics may be
 * granted still less, and nobody tells which.
 * @typedef {object} Terms
 * @property {Policy | (string & {})} policy
 * @property {number} [maxHz]
 * @property {Overflow | (string & {})} [overflow] Absent where it is left to each topic's rule, and where
 *   the policy has no use for it.
 */

/**
 * Somebody who is subscribed to a topic.
 * @typedef {object} Member
 * @property {string} connection Names the connection.
 * @property {string} name What that one gave as `name` when it connected, or the empty string.
 */

/**
 * @typedef {object} PresenceState
 * @property {string} topic
 * @property {number} count How many there are.
 * @property {Member[]} members By connection.
 * @property {boolean} more There are others than those listed.
 */

/**
 * A topic that has been silent for longer than its rule expects.
 * @typedef {object} Staleness
 * @property {string} topic
 * @property {number} [since] When its last message was, in milliseconds since 1970, as far as is known.
 */

/**
 * What became of a topic when the connection came back.
 * @typedef {object} Recovery
 * @property {string} topic The topic; or the filter, which then stands for all of its topics that have
 *   no report of their own.
 * @property {boolean} recovered True: exactly the missing messages follow. False: messages may be
 *   missing, so state that was built from them must be loaded anew.
 * @property {'epochChanged' | 'trimmed' | 'expired' | 'tooMany' | 'notAllowed' | 'engineUnavailable' |
 *   'noPosition' | (string & {})} [reason] Why not. The server's reasons, and `noPosition`: the client
 *   held no position to resume from.
 */

/**
 * @template [T=any]
 * @typedef {TermsOptions & SubscribeExtras<T>} SubscribeOptions
 */

/**
 * @template [T=any]
 * @typedef {object} SubscribeExtras
 * @property {boolean} [snapshot] Send the latest message of each topic first, or of each key where the
 *   topic keeps those; and again after a reconnect that could not be resumed.
 * @property {number} [last] Send so many of the latest messages of each topic first.
 * @property {Position | TopicPosition[]} [since] Resume after this position; for a filter, after one
 *   position per topic. The `positions` of an earlier subscription fit both.
 * @property {boolean} [presence] Be told who joins and leaves; only with a topic, not with a filter.
 * @property {number} [bufferMax] Messages held for the loop over the subscription. Default 1,000. Up to
 *   64 KiB of them come in one batch, before the loop has its turn.
 * @property {(message: Message<T>) => void} [onMessage] Without it, loop over the subscription.
 * @property {(gap: Gap) => void} [onGap]
 * @property {(recovery: Recovery) => void} [onRecovered]
 * @property {() => void} [onSnapshotEnd] All that `snapshot` or `last` asked for has been given.
 * @property {(terms: Terms) => void} [onGranted] What the server grants: at first, and when it changes.
 * @property {(staleness: Staleness) => void} [onStale] A topic has fallen silent.
 * @property {(topic: { topic: string }) => void} [onFresh] A topic that was stale is so no more.
 * @property {(state: PresenceState) => void} [onPresence] With `presence`: who is there, at first and
 *   whenever joining and leaving may have been missed.
 * @property {(member: Member) => void} [onJoined] It may be one that `onPresence` has told already.
 * @property {(member: Member) => void} [onLeft]
 * @property {(error?: FanfareError) => void} [onEnd] Called once; with an error unless the
 *   application ended the subscription.
 */

/**
 * What to publish: exactly one of `data`, `text` and `binary`, or a delete.
 * @typedef {object} Draft
 * @property {unknown} [data] A JSON value.
 * @property {string} [text]
 * @property {Uint8Array | ArrayBuffer} [binary]
 * @property {string} [key] What the message is about, for instance a row or a symbol.
 * @property {boolean} [delete] What `key` names is no more: a message with a key and without a payload.
 * @property {number} [ttlMs] After so many milliseconds it is sent to nobody who has not had it yet.
 * @property {string} [idempotencyKey] Makes a retry safe. Default: a fresh random one.
 */

/** @typedef {Position & { durability: 'memory' | (string & {}) }} Published */

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
 * @property {string} [server] When `connected`: the server and its version.
 * @property {string} [connection] When `connected`: what the server's log calls this connection.
 * @property {FanfareError} [error] When `closed` by the server.
 */

/**
 * @typedef {object} ClientEvents
 * @property {StateEvent} state
 * @property {Gap} gap Any gap of any subscription.
 * @property {Recovery} recovered Any recovery of any subscription.
 * @property {{ message: string, detail?: unknown }} warning Something odd that the client has dealt with.
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
 * @property {string} [token] Who this client is, for a server that wants to know.
 * @property {string} [name] What others who look at a topic's presence see of this client.
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
 * @property {number} [positionsMax] Topics of one filter that a reconnect can resume. Default 1,024.
 */

/** @typedef {<E extends keyof ClientEvents>(event: E, detail: ClientEvents[E]) => void} Emit */

const PROTOCOL = 'fanfare.v1.json';
/** Bytes of positions in one command: the server takes messages up to 64 KiB. */
const RESUME_BYTES_MAX = 60_000;
/** Topics of one filter whose offsets are followed; of more of them a message may come twice. */
const PLACES_MAX = 65_536;
/** Messages that one feed keeps for subscriptions that join its snapshot later. */
const KEPT_MAX = 10_000;
/** The longest ping interval that is believed; a timer cannot count much further. */
const PING_MAX_MS = 3_600_000;
/** The longest time for which a server that stops is left alone. */
const AFTER_MAX_MS = 3_600_000;
/** What answers which command. */
const ANSWERS = new Map([
  ['connect', 'connected'],
  ['subscribe', 'subscribed'],
  ['unsubscribe', 'unsubscribed'],
  ['update', 'updated'],
  ['publish', 'published'],
  ['history', 'historyPage'],
  ['presence', 'presenceState'],
  ['ping', 'pong'],
]);
/** Commands that are sent again after a reconnect. */
const RESENT = new Set(['publish', 'history']);
/** The server does not take the positions themselves: badPosition, tooManyPositions. */
const POSITIONS_REFUSED = new Set([104, 111]);
/** The server does not take an option: badOption. */
const OPTION_REFUSED = 105;

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
 * @property {string} frame
 * @property {boolean} [counted] Whether `queueMax` counts it.
 * @property {WebSocketLike | null} [socket] Where it was sent last.
 * @property {number} [firstSent] By the wall clock.
 * @property {number} [lastSent] By the steady clock.
 * @property {(answer: any, call: Call) => void} resolve
 * @property {(error: FanfareError) => void} reject
 */

/** A connection to a Fanfare server that mends itself. Made by `connect`. */
export class Client {
  #url;
  #name;
  #token;
  #options;
  #WebSocket;
  /** @type {WebSocketLike | null} */
  #socket = null;
  /** Whether each message has an event on each of its lines. */
  #batched = false;
  /** @type {State} */
  #state = 'connecting';
  /** Why the client is closed. @type {FanfareError | undefined} */
  #end;
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #handlers = new Map();
  /** By topic or filter. @type {Map<string, Feed>} */
  #feeds = new Map();
  /** Left, though what they asked to come first is still coming. @type {Set<Feed>} */
  #left = new Set();
  /** By id, in the order they were made. @type {Map<number, Call>} */
  #calls = new Map();
  #lastId = 0;
  #counted = 0;
  #attempt = 0;
  /** How long the server has asked to stay away. */
  #afterMs = 0;
  #connectedAt = 0;
  #heardAt = 0;
  #silenceMs = 0;
  /** Watches for silence, or waits for the next attempt. @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {string | URL} url @param {ClientOptions} options */
  constructor(url, options) {
    // An option that is there but undefined is one that was not given.
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    /** @type {typeof DEFAULTS} */
    this.#options = { ...DEFAULTS, ...Object.fromEntries(given) };
    this.#url = absolute(url);
    this.#name = options.name;
    this.#token = options.token;
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
   * final `>` for one or more.
   *
   * Subscriptions to the same topic share one on the server, opened with the options of the first. A
   * later one goes on from where that one is, on its terms; it may ask for a snapshot if the first did,
   * and for no other past, which is what `history` is for. If it asks for what it cannot share, it is
   * refused (`alreadySubscribed`).
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
    const refusal = this.#end ?? feed.refusal(asked);
    const subscription = new Subscription(feed, options, this.#emit, {
      leave: () => this.#leave(feed, subscription),
      update: (change) => (refusal ? failed(refusal) : this.#change(feed, change)),
    });
    if (refusal) {
      // Later, because the application does not have its subscription yet.
      queueMicrotask(() => subscription.end(refusal));
      return subscription;
    }
    feed.add(subscription);
    if (!old) {
      this.#feeds.set(topic, feed);
      this.#subscribe(feed);
    }
    return subscription;
  }

  /**
   * Publishes a message. While there is no connection it waits; after a reconnect it is sent again
   * with the same idempotency key if its answer is missing.
   * @param {string} topic
   * @param {Draft} draft
   * @returns {Promise<Published>} Rejected with a `FanfareError`. If nobody looks at the promise, a
   *   rejection disturbs nobody.
   * @throws {TypeError} The draft is none.
   */
  publish(topic, draft) {
    return this.#request('publish', { topic, ...encode(draft) });
  }

  /**
   * Asks for messages that a topic still holds.
   * @template [T=any]
   * @param {string} topic
   * @param {HistoryOptions} [options]
   * @returns {Promise<HistoryPage<T>>}
   */
  history(topic, { since, limit } = {}) {
    const body = { topic, since: since && { epoch: since.epoch, offset: since.offset }, limit };
    return this.#request('history', body, decodePage);
  }

  /**
   * Asks who is subscribed to exactly this topic.
   * @param {string} topic
   * @returns {Promise<PresenceState>}
   */
  presence(topic) {
    return this.#request('presence', { topic }, decodePresence);
  }

  /** Asks the server for a sign of life. @returns {Promise<number>} How long it took, in milliseconds. */
  ping() {
    return this.#request('ping', {}, (_, { lastSent = 0 }) => performance.now() - lastSent);
  }

  /** Ends every subscription and the connection, for good. */
  close() {
    if (!this.#end) this.#finish({ state: 'closed', reason: 'the client was closed' });
  }

  // === Connection ===

  #open() {
    /** @type {WebSocketLike} */
    const socket = new this.#WebSocket(this.#url, [PROTOCOL]);
    this.#socket = socket;
    this.#batched = false;
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
    const refused = (/** @type {FanfareError} */ error) => {
      if (!this.#socket) return;
      if (error.retry === 'never') this.#finish({ state: 'closed', reason: error.message, error });
      else this.#drop(error.message);
    };
    const hello = { token: this.#token, name: this.#name, batch: true };
    this.#ask('connect', hello, (answer) => this.#connected(answer), refused);
  }

  /** @param {{ pingMs?: unknown, batch?: unknown, server?: string, connection?: string }} hello */
  #connected({ pingMs, batch, server, connection }) {
    this.#batched = batch === true;
    const interval = typeof pingMs === 'number' && pingMs > 0 ? Math.min(pingMs, PING_MAX_MS) : 25_000;
    this.#silenceMs = interval + this.#options.silenceMs;
    this.#watch();
    this.#connectedAt = Date.now();
    this.#state = 'connected';
    for (const feed of this.#feeds.values()) this.#subscribe(feed);
    for (const [id, call] of this.#calls) {
      if (call.socket === this.#socket) continue;
      const tooOld = call.firstSent && Date.now() - call.firstSent > this.#options.retryMaxMs;
      if (tooOld && call.action === 'publish') this.#settle(id, call).reject(unknownOutcome());
      else this.#send(call);
    }
    // Only now, so that what a handler publishes comes after what has been waiting.
    this.#become({ state: 'connected', server, connection });
  }

  /** Gives the connection up when the server has been silent for too long. */
  #watch() {
    clearTimeout(this.#timer);
    // The wall clock, because it goes on while a laptop sleeps; it may be set back, too.
    const left = Math.min(this.#heardAt + this.#silenceMs - Date.now(), this.#silenceMs);
    if (left > 0) this.#timer = setTimeout(() => this.#watch(), left);
    else this.#drop(`the server was silent for ${this.#silenceMs} ms`);
  }

  /** Leaves a connection that is good for nothing, without waiting for it to close. @param {string} reason */
  #drop(reason) {
    const socket = this.#socket;
    this.#lost(4410, reason);
    if (socket?.terminate) socket.terminate();
    else socket?.close(4410);
  }

  /** @param {number} code @param {string} reason */
  #lost(code, reason) {
    const stable = this.#state === 'connected' && Date.now() - this.#connectedAt >= this.#options.stableMs;
    const socket = this.#socket;
    this.#socket = null;
    this.#state = 'waiting';
    clearTimeout(this.#timer);
    for (const feed of this.#feeds.values()) feed.lost();
    this.#left.clear();
    const gone = new FanfareError(0, 'disconnected', 'later', 'the connection ended before the answer came');
    for (const [id, call] of this.#calls) {
      if (call.socket === socket && !RESENT.has(call.action)) this.#settle(id, call).reject(gone);
    }
    if (isTerminal(code)) {
      const error = closeError(code, reason);
      return this.#finish({ state: 'closed', reason: error.message, code, error });
    }
    if (stable) this.#attempt = 0;
    const delayMs = this.#afterMs + this.#backoff(this.#attempt++);
    this.#afterMs = 0;
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
   * The end: by the application, or because the server has said that coming back is of no use.
   * @param {StateEvent} event
   */
  #finish(event) {
    const socket = this.#socket;
    const end = event.error ?? new FanfareError(0, 'closed', 'never', 'the client was closed');
    this.#end = end;
    this.#socket = null;
    this.#state = 'closed';
    clearTimeout(this.#timer);
    globalThis.removeEventListener?.('online', this.#online);
    for (const [id, call] of this.#calls) {
      const unknown = call.action === 'publish' && call.firstSent;
      this.#settle(id, call).reject(unknown ? unknownOutcome() : end);
    }
    const feeds = [...this.#feeds.values()];
    this.#feeds.clear();
    for (const feed of feeds) feed.end(event.error);
    this.#become(event);
    socket?.close(1000);
  }

  /** @param {StateEvent} event */
  #become(event) {
    this.#state = event.state;
    this.#emit('state', event);
  }

  /** @template {keyof ClientEvents} E @param {E} event @param {ClientEvents[E]} detail */
  #emit = (event, detail) => {
    for (const handler of this.#handlers.get(event) ?? []) run(handler, detail);
  };

  // === Commands ===

  /**
   * A command on behalf of the application.
   * @param {string} action
   * @param {object} body
   * @param {(answer: any, call: Call) => any} [read]
   * @returns {Promise<any>}
   */
  #request(action, body, read = (answer) => answer) {
    const { queueMax } = this.#options;
    const { promise, resolve, reject } = deferred();
    if (this.#end) {
      reject(this.#end);
    } else if (this.#counted >= queueMax) {
      const text = `${queueMax} calls wait for an answer, and that is the limit`;
      reject(new FanfareError(0, 'queueFull', 'later', text));
    } else {
      this.#ask(action, body, (answer, call) => resolve(read(answer, call)), reject, true);
    }
    return promise;
  }

  /**
   * @param {string} action
   * @param {object} body
   * @param {(answer: any, call: Call) => void} resolve
   * @param {(error: FanfareError) => void} reject
   * @param {true} [counted]
   */
  #ask(action, body, resolve, reject, counted) {
    const id = this.#lastId + 1;
    /** @type {Call} */
    const call = { action, frame: JSON.stringify({ id, [action]: body }), counted, resolve, reject };
    this.#lastId = id;
    this.#calls.set(id, call);
    if (counted) this.#counted += 1;
    if (this.#state === 'connected' || action === 'connect') this.#send(call);
  }

  /** @param {Call} call */
  #send(call) {
    call.socket = this.#socket;
    call.firstSent ??= Date.now();
    call.lastSent = performance.now();
    this.#socket?.send(call.frame);
  }

  /** @param {number} id @param {Call} call */
  #settle(id, call) {
    this.#calls.delete(id);
    if (call.counted) this.#counted -= 1;
    return call;
  }

  // === Subscriptions ===

  /** @param {Feed} feed */
  #subscribe(feed) {
    if (this.#state !== 'connected') return;
    // By the time of the answer the application may have left, and even come back.
    const current = () => this.#feeds.get(feed.topic) === feed;
    this.#ask(
      'subscribe',
      feed.command(),
      (answer) => (current() ? this.#subscribed(feed, answer) : feed.fills && this.#left.add(feed)),
      (error) => current() && this.#refused(feed, error),
    );
  }

  /** @param {Feed} feed @param {any} answer */
  #subscribed(feed, answer) {
    feed.subscribed(answer);
    this.#update(feed);
    const ignore = () => {};
    if (feed.presence) this.#ask('presence', { topic: feed.topic }, (state) => this.#present(state), ignore);
  }

  /** @param {Feed} feed @param {FanfareError} error */
  #refused(feed, error) {
    if (this.#state !== 'connected') return;
    if (error.retry === 'later') {
      const message = `the subscription to ${feed.topic} is tried again later`;
      this.#emit('warning', { message, detail: error });
      feed.timer = setTimeout(() => this.#subscribe(feed), this.#backoff(feed.attempt++));
    } else if (feed.forget(error)) {
      this.#subscribe(feed);
    } else {
      this.#feeds.delete(feed.topic);
      feed.end(error);
    }
  }

  /** @param {Feed} feed @param {TermsOptions} change @returns {Promise<Terms>} */
  #change(feed, change) {
    const outcome = feed.agreement.change(change);
    this.#update(feed);
    return outcome;
  }

  /** Tells the server of a change of terms, one after the other. @param {Feed} feed */
  #update(feed) {
    const change = feed.live ? feed.agreement.next() : undefined;
    if (!change) return;
    const current = () => this.#feeds.get(feed.topic) === feed;
    const answered = (/** @type {any} */ answer) => {
      if (!current()) return;
      feed.granted(answer);
      this.#update(feed);
    };
    const refused = (/** @type {FanfareError} */ error) => {
      if (!current()) return;
      feed.agreement.refuse(error);
      this.#update(feed);
    };
    this.#ask('update', { topic: feed.topic, ...change }, answered, refused);
  }

  /** @param {Feed} feed @param {Subscription} subscription */
  #leave(feed, subscription) {
    if (feed.remove(subscription) > 0 || this.#feeds.get(feed.topic) !== feed) return;
    this.#feeds.delete(feed.topic);
    if (feed.filling) this.#left.add(feed);
    feed.end();
    const ignore = () => {};
    if (this.#state === 'connected') this.#ask('unsubscribe', { topic: feed.topic }, ignore, ignore);
  }

  // === Events ===

  /** @param {unknown} data */
  #receive(data) {
    this.#heardAt = Date.now();
    const socket = this.#socket;
    const texts = this.#batched ? String(data).split('\n').filter(Boolean) : [data];
    // What an event brings about may end the connection: then those behind it have come too late.
    for (const text of texts) if (this.#socket === socket) this.#heard(text);
  }

  /** @param {unknown} text */
  #heard(text) {
    let event;
    try {
      event = JSON.parse(/** @type {string} */ (text));
    } catch {
      return this.#emit('warning', { message: 'a message is not JSON', detail: text });
    }
    const understood = event?.id ? this.#answer(event) : this.#push(event ?? {});
    if (!understood) this.#emit('warning', { message: 'an event is not understood', detail: event });
  }

  /** Returns whether the event could be understood. @param {any} event */
  #answer(event) {
    const call = this.#calls.get(event.id);
    if (!call) return false;
    this.#settle(event.id, call);
    const expected = ANSWERS.get(call.action) ?? '';
    if (event.error) {
      call.reject(refusal(event.error));
    } else if (event[expected]) {
      call.resolve(event[expected], call);
    } else {
      call.reject(new FanfareError(0, 'badAnswer', 'never', `the server did not answer with ${expected}`));
      return false;
    }
    return true;
  }

  /** Returns whether the event could be understood. @param {any} event */
  #push(event) {
    const { message, position, gap, snapshotEnd, unsubscribed, presenceState, joined, left, stale, fresh, reconnect } =
      event;
    if (message) {
      if (!isTopicOffset(message) || !decode(message)) return false;
      const feeds = this.#takers(message.topic, message.offset);
      const epoch = feeds.map((feed) => feed.epoch(message.topic)).find(Boolean);
      const dense = this.#dense(message.topic);
      for (const feed of feeds) feed.take(message, epoch, dense);
    } else if (position) {
      if (!isTopicPosition(position)) return false;
      for (const feed of this.#route(position.topic)) feed.place(position);
    } else if (gap) {
      if (typeof gap.topic !== 'string' || !isOffset(gap.from) || !isOffset(gap.to)) return false;
      const dense = this.#dense(gap.topic);
      for (const feed of this.#takers(gap.topic, gap.from)) feed.gap(gap, dense);
    } else if (snapshotEnd) {
      const positions = Array.isArray(snapshotEnd.positions) ? snapshotEnd.positions : [];
      const left = [...this.#left].find((feed) => feed.topic === snapshotEnd.topic);
      if (left) this.#left.delete(left);
      else this.#feeds.get(snapshotEnd.topic)?.snapshotEnd(positions.filter(isTopicPosition));
    } else if (presenceState) {
      this.#present(presenceState);
    } else if (joined || left) {
      const member = decodeMember((joined ?? left).member);
      if (!member) return false;
      const feed = this.#feeds.get((joined ?? left).topic);
      if (feed?.live && feed.presence) feed.tell(joined ? 'onJoined' : 'onLeft', member);
    } else if (stale) {
      if (typeof stale.topic !== 'string') return false;
      for (const feed of this.#route(stale.topic)) feed.becameStale(stale.topic, stale.since);
    } else if (fresh) {
      if (typeof fresh.topic !== 'string') return false;
      for (const feed of this.#route(fresh.topic)) feed.becameFresh(fresh.topic);
    } else if (reconnect) {
      const afterMs = reconnect.afterMs ?? 0;
      if (typeof afterMs !== 'number' || !(afterMs >= 0)) return false;
      this.#afterMs = Math.min(afterMs, AFTER_MAX_MS);
    } else if (unsubscribed) {
      this.#unsubscribed(this.#feeds.get(unsubscribed.topic));
    } else {
      return Boolean(event.ping);
    }
    return true;
  }

  /** @param {any} state */
  #present(state) {
    const feed = this.#feeds.get(state.topic);
    if (feed?.live && feed.presence) feed.tell('onPresence', decodePresence(state));
  }

  /** @param {Feed} [feed] */
  #unsubscribed(feed) {
    // One that is not live yet has been opened anew: the event is about its predecessor.
    if (!feed?.live) return;
    this.#feeds.delete(feed.topic);
    const text = `the server ended the subscription to ${feed.topic}`;
    feed.end(new FanfareError(0, 'unsubscribed', 'never', text));
  }

  /**
   * The live feeds that a topic belongs to. There are few filters: the server allows 8.
   * @param {string} topic
   */
  #route(topic) {
    const feeds = [];
    for (const feed of this.#feeds.values()) if (feed.live && feed.matches(topic)) feeds.push(feed);
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
    const first = feeds.some(({ filling }) => filling) || [...this.#left].some((feed) => feed.matches(topic));
    return first ? feeds.filter((feed) => feed.filling || feed.follows(topic, offset)) : feeds;
  }

  /**
   * The terms under which the server passes over no message of a topic, if that is certain. It is where
   * there is a subscription to exactly this topic, because its terms are the ones that count. What comes
   * by a filter may be paced by a rule for some of its topics, and nobody tells for which.
   * @param {string} topic
   */
  #dense(topic) {
    const exact = this.#feeds.get(topic);
    return exact?.live && !exact.filter ? exact.agreement.dense : undefined;
  }
}

/**
 * The terms of one feed: what was asked for, what changes of it the server has not answered yet, and
 * what it grants. At most one change is under way; others meanwhile become one that comes after it.
 */
class Agreement {
  /** What the server grants; with each of its answers another object. @type {Terms | undefined} */
  granted;
  /** @type {TermsOptions} */
  #asked;
  /** In a command that has no answer yet. @type {Change | undefined} */
  #sent;
  /** @type {Change | undefined} */
  #waiting;

  /** @param {TermsOptions} asked */
  constructor(asked) {
    this.#asked = asked;
  }

  /** What granted says, if that is every message and nothing is about to change it. */
  get dense() {
    return this.#sent || this.granted?.policy !== 'all' ? undefined : this.granted;
  }

  /** What is asked for, whether the server has heard of it or not. */
  get wanted() {
    return changed(changed(this.#asked, this.#sent?.terms), this.#waiting?.terms);
  }

  /** @param {TermsOptions} terms @returns {Promise<Terms>} */
  change(terms) {
    const { terms: before, outcome = deferred() } = this.#waiting ?? {};
    this.#waiting = { terms: changed(before, terms), outcome };
    return outcome.promise;
  }

  /** The change to send now, if there is one and none is under way. */
  next() {
    if (this.#sent) return undefined;
    this.#sent = this.#waiting;
    this.#waiting = undefined;
    return this.#sent?.terms;
  }

  /** Everything, for a command to subscribe. */
  all() {
    this.next();
    return changed(this.#asked, this.#sent?.terms);
  }

  /** There will be no answer: what was under way has to be sent again. */
  lost() {
    const { terms, outcome } = this.#sent ?? {};
    if (!outcome) return;
    this.#sent = undefined;
    if (this.#waiting) outcome.resolve(this.#waiting.outcome.promise);
    this.#waiting = { terms: changed(terms, this.#waiting?.terms), outcome: this.#waiting?.outcome ?? outcome };
  }

  /** Returns whether that is another grant than before. @param {any} answer */
  grant({ policy, maxHz, overflow }) {
    const before = this.granted;
    this.granted = Object.freeze({
      policy: word(policy ?? 'all'),
      maxHz: Number.isFinite(maxHz) ? maxHz : undefined,
      overflow: word(overflow) || undefined,
    });
    this.#asked = changed(this.#asked, this.#sent?.terms);
    this.#sent?.outcome.resolve(this.granted);
    this.#sent = undefined;
    return !isSame(this.granted, before);
  }

  /** Forgets the change that is under way. Returns whether there was one. @param {FanfareError} error */
  refuse(error) {
    const sent = this.#sent;
    this.#sent = undefined;
    sent?.outcome.reject(error);
    return Boolean(sent);
  }

  /** @param {FanfareError} error */
  end(error) {
    this.lost();
    this.#waiting?.outcome.reject(error);
  }
}

/** @typedef {{ terms: TermsOptions, outcome: ReturnType<typeof deferred> }} Change */

/**
 * The latest message of each key of each topic, for subscriptions that join a snapshot later. Messages
 * without a key are of the same one.
 */
class Kept {
  /** Whether there were too many to keep. */
  full = false;
  /** @type {Map<string, Map<string, Message>>} */
  #topics = new Map();
  #size = 0;

  /** Returns how many keys of its topic there are. @param {Message} message */
  take(message) {
    const { topic, key = '', deleted } = message;
    const keys = this.#topics.get(topic) ?? new Map();
    if (keys.delete(key)) this.#size -= 1;
    if (!deleted && this.#size < KEPT_MAX) {
      // At the end, so that the offsets of a topic rise.
      this.#topics.set(topic, keys.set(key, message));
      this.#size += 1;
    } else if (!deleted) {
      this.full = true;
    }
    return keys.size;
  }

  /** @param {string} topic */
  messages(topic) {
    return this.#topics.get(topic)?.values() ?? [];
  }

  /** @param {string} topic */
  forget(topic) {
    this.#size -= this.#topics.get(topic)?.size ?? 0;
    this.#topics.delete(topic);
  }
}

/**
 * Where a feed stands in one topic.
 * @typedef {object} Place
 * @property {string | undefined} epoch Unknown while a filter's snapshot is under way.
 * @property {number} seen The last offset that was given; -1 until the first of what comes first.
 * @property {number} floor Live messages come after this; up to it, holes are not worth a word.
 * @property {Terms} [dense] The terms under which the message at `seen` came, if they pass over none.
 * @property {Gap} [gap] What is missing in what is kept, for subscriptions that join a snapshot later.
 */

/** One subscription on the server, shared by all that the application has to that topic or filter. */
class Feed {
  /** Whether the server has accepted it on this connection. */
  live = false;
  attempt = 0;
  duplicates = 0;
  agreement;
  /** The topics that are stale, and since when. @type {Map<string, number | undefined>} */
  stale = new Map();
  /** Waits to try again. @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  #asked;
  #positionsMax;
  #emit;
  #pattern;
  /** @type {Set<Subscription>} */
  #subscriptions = new Set();
  /** By topic, the one used last at the end. @type {Map<string, Place>} */
  #places = new Map();
  #kept = new Kept();
  /** What the last command resumed from, as far as it is unanswered. @type {Map<string, Position>} */
  #resuming = new Map();
  #opened = false;
  #filling = false;
  /** Whether a topic that turns up for the first time may have had messages while we were away. */
  #wasAway = false;
  /** Why the next command cannot resume everything. */
  #loss = '';

  /**
   * @param {string} topic
   * @param {ReturnType<typeof askedBy>} asked
   * @param {number} positionsMax
   * @param {Emit} emit
   */
  constructor(topic, asked, positionsMax, emit) {
    this.topic = topic;
    this.filter = isFilter(topic);
    this.#pattern = this.filter && pattern(topic);
    this.#asked = asked;
    this.agreement = new Agreement(asked.terms);
    this.#positionsMax = positionsMax;
    this.#emit = emit;
    for (const position of [...asked.past.positions].reverse()) this.#begin(position.topic, position);
  }

  /** Whether it is told who joins and leaves. */
  get presence() {
    return this.#asked.presence;
  }

  /** @param {string} topic */
  matches(topic) {
    return this.#pattern ? this.#pattern.test(topic) : this.topic === topic;
  }

  /** @param {string} topic */
  epoch(topic) {
    return this.#places.get(topic)?.epoch;
  }

  /**
   * Why a subscription that asks for this cannot be given it from here, if so.
   * @param {ReturnType<typeof askedBy>} asked
   */
  refusal(asked) {
    const { positions, snapshot, last, latest } = asked.past;
    const past =
      (latest === 0 && positions.length === 0) ||
      (snapshot && last === 0 && positions.length === 0 && this.#holdsSnapshot()) ||
      (!this.#opened && isSame(asked.past, this.#asked.past));
    const terms = isSame(this.agreement.wanted, changed(this.agreement.wanted, asked.terms));
    const presence = this.#asked.presence || !asked.presence;
    if (past && terms && presence) return undefined;
    const text = `there is a subscription to ${this.topic} with other options`;
    return new FanfareError(107, 'alreadySubscribed', 'never', text);
  }

  /** Whether a subscription that comes later can be given its snapshot from here. */
  #holdsSnapshot() {
    return this.#asked.past.snapshot && !this.#kept.full && this.#places.size <= this.#positionsMax;
  }

  /** @param {Subscription} subscription */
  add(subscription) {
    this.#subscriptions.add(subscription);
    if (!this.#opened) return;
    // Later, because the application does not have its subscription yet.
    subscription.holding = true;
    queueMicrotask(() => {
      subscription.holding = false;
      if (this.live) this.#open(subscription);
      if (!subscription.snapshot) return;
      for (const [topic, { gap }] of this.#places) {
        for (const message of this.#kept.messages(topic)) subscription.give(message);
        if (gap) subscription.tell('onGap', gap);
      }
      if (this.live && !this.#filling) subscription.tell('onSnapshotEnd', undefined);
    });
  }

  /** Tells a subscription where it stands from the beginning. @param {Subscription} subscription */
  #open(subscription) {
    subscription.opened();
    if (this.agreement.granted) subscription.tell('onGranted', this.agreement.granted);
    for (const [topic, since] of this.stale) subscription.tell('onStale', { topic, since });
  }

  /** Returns how many are left. @param {Subscription} subscription */
  remove(subscription) {
    this.#subscriptions.delete(subscription);
    return this.#subscriptions.size;
  }

  /** @param {FanfareError} [error] */
  end(error) {
    this.lost();
    this.agreement.end(error ?? ended());
    for (const subscription of this.#subscriptions) subscription.end(error);
  }

  lost() {
    clearTimeout(this.timer);
    this.live = false;
    this.agreement.lost();
    // What the rest of a filter's snapshot would have held is not known; nor is it of a topic's, before
    // the first of its messages: they rise, so from that one on it can be resumed.
    const { seen = -1 } = this.#places.get(this.topic) ?? {};
    if (this.#filling && (this.filter || seen < 0)) this.#loss ||= 'noPosition';
    this.#filling = false;
  }

  /** The places from which this feed can resume, the one used last first. @returns {TopicPosition[]} */
  positions() {
    const positions = [];
    for (const [topic, { epoch, seen }] of this.#places) {
      if (epoch && seen >= 0) positions.push({ topic, epoch, offset: seen });
    }
    return positions.reverse();
  }

  // === Opening and resuming ===

  /** Whether something is to come first, closed by `snapshotEnd`. */
  get fills() {
    return this.#asked.past.latest > 0;
  }

  /** Whether that is coming now. */
  get filling() {
    return this.#filling;
  }

  /** What to ask the server for. */
  command() {
    const { past, presence } = this.#asked;
    let bytes = 0;
    const fits = (/** @type {TopicPosition} */ position) =>
      (bytes += JSON.stringify(position).length + 1) <= RESUME_BYTES_MAX;
    const positions = this.positions().slice(0, this.#positionsMax).filter(fits);
    if (positions.length < this.#places.size) this.#loss ||= 'tooMany';
    this.#resuming = new Map(positions.map(({ topic, epoch, offset }) => [topic, { epoch, offset }]));
    for (const topic of this.#places.keys()) if (!this.#resuming.has(topic)) this.#drop(topic);
    // A loss is reported for all topics at once.
    this.#wasAway = !this.#loss && (this.#opened || positions.length > 0);
    return {
      topic: this.topic,
      // With `last` too, for its `snapshotEnd`.
      snapshot: past.latest > 0 || undefined,
      last: past.last || undefined,
      presence: presence || undefined,
      ...this.agreement.all(),
      since: this.filter ? undefined : this.#resuming.get(this.topic),
      positions: this.filter && positions.length > 0 ? positions : undefined,
    };
  }

  /**
   * Forgets a change of terms, or positions, that the server does not take. Returns whether another try
   * makes sense.
   * @param {FanfareError} error
   */
  forget(error) {
    if (error.code === OPTION_REFUSED) return this.agreement.refuse(error);
    if (!this.#opened || this.#resuming.size === 0 || !POSITIONS_REFUSED.has(error.code)) return false;
    for (const topic of this.#places.keys()) this.#drop(topic);
    this.#loss = error.name;
    return true;
  }

  /** @param {{ position?: unknown, recovered?: unknown, reason?: unknown, topics?: unknown, stale?: unknown }} answer */
  subscribed(answer) {
    const loss = this.#loss;
    this.#loss = '';
    this.live = true;
    this.attempt = 0;
    this.#opened = true;
    this.#filling = this.fills;
    for (const subscription of this.#subscriptions) subscription.opened();
    this.granted(answer);
    // Of a filter's topics it is told after what comes first.
    if (!this.filter && answer.stale === true) this.becameStale(this.topic);
    else if (!this.filter) this.becameFresh(this.topic);
    if (loss) this.#recovered({ topic: this.topic, recovered: false, reason: loss });
    const told = this.filter ? answer.topics : [{ ...answer, topic: this.topic }];
    for (const outcome of Array.isArray(told) ? told : []) this.#resumed(outcome?.topic, outcome ?? {});
    for (const topic of this.#resuming.keys()) this.#resumed(topic, {});
  }

  /** The server has answered what terms it grants. @param {any} answer */
  granted(answer) {
    if (!this.agreement.grant(answer) || !this.agreement.granted) return;
    this.tell('onGranted', this.agreement.granted);
  }

  /** @param {string} topic @param {{ position?: unknown, recovered?: unknown, reason?: unknown }} outcome */
  #resumed(topic, { position, recovered, reason = 'epochChanged' }) {
    const since = this.#resuming.get(topic);
    this.#resuming.delete(topic);
    const known = isPosition(position);
    const place = this.#places.get(topic);
    // A server that says yes to another epoch, or to a place behind, is not believed.
    if (since && place && recovered === true && known && isAtOrAfter(position, since)) {
      // Exactly the missing ones follow, whatever came first before.
      place.floor = 0;
      place.dense = this.#dense;
      return this.#recovered({ topic, recovered });
    }
    if (known) this.#begin(topic, position, this.#asked.past.latest);
    else this.#drop(topic);
    if (since) this.#recovered({ topic, recovered: false, reason: word(reason) });
    else if (this.#wasAway) this.#recovered({ topic, recovered: false, reason: 'noPosition' });
  }

  /**
   * Begins anew in a topic whose live messages come after `offset`.
   * @param {string} topic
   * @param {Position} position
   * @param {number} replayed How many before that may come first, at least.
   */
  #begin(topic, { epoch, offset }, replayed = 0) {
    this.#kept.forget(topic);
    this.#put(topic, { epoch, seen: replayed > 0 ? -1 : offset, floor: offset, dense: this.#dense });
  }

  /** The terms under which the next message of the topic follows the one before, if that is certain. */
  get #dense() {
    return this.filter ? undefined : this.agreement.dense;
  }

  /** @param {string} topic @param {Place} place */
  #put(topic, place) {
    this.#places.delete(topic);
    this.#places.set(topic, place);
    if (this.#places.size <= PLACES_MAX) return;
    for (const oldest of this.#places.keys()) {
      this.#drop(oldest);
      this.#loss = 'tooMany';
      break;
    }
  }

  /** @param {string} topic */
  #drop(topic) {
    this.#places.delete(topic);
    this.#kept.forget(topic);
  }

  // === Messages ===

  /** Whether this feed has had all that is before. @param {string} topic @param {number} offset */
  follows(topic, offset) {
    const place = this.#places.get(topic);
    return place !== undefined && offset <= place.seen + 1;
  }

  /**
   * @param {Message} message
   * @param {string} [epoch] As far as any feed knows it.
   * @param {Terms} [dense] The terms that count for the topic, if they pass over no message.
   */
  take(message, epoch, dense) {
    const { topic, offset } = message;
    const place = this.#places.get(topic) ?? this.#meet(topic, offset, epoch);
    if (offset <= place.seen) {
      this.duplicates += 1;
      return;
    }
    this.#advance(topic, place, offset, offset, dense);
    message.epoch = place.epoch;
    const keys = this.#asked.past.snapshot ? this.#kept.take(message) : 0;
    // Nothing is missed any more where there are no keys, and so nothing is kept of the time before.
    if (keys <= 1 && !message.key) place.gap = undefined;
    this.#put(topic, place);
    if (this.filter) this.becameFresh(topic);
    for (const subscription of this.#subscriptions) subscription.take(message);
  }

  /**
   * The first message of a topic whose position the server has told to another feed, or not at all.
   * @param {string} topic
   * @param {number} offset
   * @param {string} [epoch]
   * @returns {Place}
   */
  #meet(topic, offset, epoch) {
    if (this.#wasAway && offset > 1) this.#recovered({ topic, recovered: false, reason: 'noPosition' });
    const place = { epoch, seen: offset - 1, floor: 0 };
    this.#put(topic, place);
    return place;
  }

  /**
   * What is told next reaches from one offset to another: what should have come before it is lost. That
   * can be said where the same terms held all the way, and pass over nothing.
   * @param {string} topic
   * @param {Place} place
   * @param {number} from
   * @param {number} to
   * @param {Terms} [dense]
   */
  #advance(topic, place, from, to, dense) {
    const next = Math.max(place.seen, place.floor) + 1;
    const count = from - next;
    if (dense && dense === place.dense && count > 0) {
      this.#missed({ topic, from: next, to: from - 1, count, reason: 'lost' });
    }
    place.seen = to;
    // A filter's snapshot may skip offsets until its end.
    place.dense = this.filter && this.#filling ? undefined : dense;
  }

  /** @param {TopicPosition} position */
  place(position) {
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

  /** @param {Gap} gap @param {Terms} [dense] As for a message. */
  gap({ topic, from, to, count, reason }, dense) {
    const place = this.#places.get(topic) ?? this.#meet(topic, from, undefined);
    const first = Math.max(from, place.seen + 1);
    if (to < first) return;
    this.#advance(topic, place, from, to, dense);
    const most = to - first + 1;
    const missing = isOffset(count) ? Math.min(count, most) : most;
    this.#missed({ topic, from: first, to, count: missing, reason: word(reason) });
  }

  /** @param {TopicPosition[]} positions */
  snapshotEnd(positions) {
    this.#filling = false;
    for (const position of positions) {
      this.place(position);
      const place = this.#places.get(position.topic);
      if (place) place.seen = Math.max(place.seen, position.offset);
    }
    this.tell('onSnapshotEnd', undefined);
  }

  /** @param {string} topic @param {unknown} [since] */
  becameStale(topic, since) {
    if (this.stale.has(topic) || this.stale.size >= PLACES_MAX) return;
    const known = isOffset(since) && Number(since) > 0 ? Number(since) : undefined;
    this.stale.set(topic, known);
    this.tell('onStale', { topic, since: known });
  }

  /** @param {string} topic */
  becameFresh(topic) {
    if (this.stale.delete(topic)) this.tell('onFresh', { topic });
  }

  // === Telling ===

  /**
   * @template {Callback} C
   * @param {C} callback
   * @param {Detail<C>} detail
   */
  tell(callback, detail) {
    for (const subscription of this.#subscriptions) subscription.tell(callback, detail);
  }

  /** @param {Gap} gap */
  #missed(gap) {
    const place = this.#places.get(gap.topic);
    if (place) place.gap = { ...gap, from: place.gap?.from ?? gap.from, count: (place.gap?.count ?? 0) + gap.count };
    this.#emit('gap', gap);
    for (const subscription of this.#subscriptions) if (!subscription.holding) subscription.tell('onGap', gap);
  }

  /** @param {Recovery} recovery */
  #recovered(recovery) {
    const { topic, recovered } = recovery;
    // Of a filter's topics it is told anew which are stale.
    const doubtful = this.filter && !recovered ? [...this.stale.keys()] : [];
    for (const name of doubtful) if (topic === this.topic || topic === name) this.becameFresh(name);
    this.#emit('recovered', recovery);
    this.tell('onRecovered', recovery);
  }
}

/** @typedef {'onGap' | 'onRecovered' | 'onSnapshotEnd' | 'onGranted' | 'onStale' | 'onFresh' | 'onPresence' | 'onJoined' | 'onLeft'} Callback */
/** @template {Callback} C @typedef {Parameters<NonNullable<SubscribeOptions[C]>>[0]} Detail */

/**
 * A subscription: its callbacks run, or a `for await` loop gives its messages. Leaving the loop
 * unsubscribes. Made by `subscribe`.
 * @template [T=any]
 */
export class Subscription {
  /** Whether live messages pass by, because a snapshot comes first. @internal */
  holding = false;
  #feed;
  #options;
  #emit;
  #actions;
  #ready = deferred();
  #ended = false;
  /** @type {FanfareError | undefined} */
  #error;
  /** @type {Message<T>[]} */
  #buffer = [];
  /** Loops that wait for a message. @type {(() => void)[]} */
  #wake = [];

  /**
   * @param {Feed} feed
   * @param {SubscribeOptions<T>} options
   * @param {Emit} emit
   * @param {{ leave: () => void, update: (change: TermsOptions) => Promise<Terms> }} actions
   */
  constructor(feed, options, emit, actions) {
    this.#feed = feed;
    this.#options = { bufferMax: 1_000, ...options };
    this.#emit = emit;
    this.#actions = actions;
  }

  /** The topic or filter. */
  get topic() {
    return this.#feed.topic;
  }

  /** Fulfilled when the server has accepted, rejected when it has refused. @returns {Promise<void>} */
  get ready() {
    return this.#ready.promise;
  }

  /** The last position of each topic, the one used last first: to be given as `since`. */
  get positions() {
    return this.#feed.positions();
  }

  /** What the server grants, which may be less than was asked for; undefined until it has said so. */
  get policy() {
    return this.#feed.agreement.granted?.policy;
  }

  /** At most so many rounds a second for each topic, if the policy is `maxHz`. */
  get maxHz() {
    return this.#feed.agreement.granted?.maxHz;
  }

  /** What the server does when this client falls behind; undefined if that is left to the topic's rule. */
  get overflow() {
    return this.#feed.agreement.granted?.overflow;
  }

  /** Whether the topic is stale; of a filter, whether any of its topics is. */
  get stale() {
    return this.#feed.stale.size > 0;
  }

  /** How many messages were dropped because they had been given before. */
  get duplicates() {
    return this.#feed.duplicates;
  }

  /**
   * Changes the terms while messages flow, also for others that share this subscription, and for after a
   * reconnect. Changes that follow each other quickly may become one; the last one counts.
   * @param {TermsOptions} change What is left out stays as it is.
   * @returns {Promise<Terms>} What is granted. Rejected with a `FanfareError` if the server refuses; then
   *   everything stays as it was. If nobody looks at the promise, a rejection disturbs nobody.
   * @throws {TypeError} `maxHz` is no number.
   */
  update(change) {
    const terms = termsAsked(change);
    return this.#ended ? failed(this.#error ?? ended()) : this.#actions.update(terms);
  }

  unsubscribe() {
    if (this.#ended) return;
    this.#buffer = [];
    this.end();
    this.#actions.leave();
  }

  /** @returns {AsyncGenerator<Message<T>, void, void>} */
  async *[Symbol.asyncIterator]() {
    if (this.#options.onMessage) throw new TypeError('the messages of this subscription go to onMessage');
    try {
      for (;;) {
        const message = this.#buffer.shift();
        if (message) yield message;
        else if (!this.#ended) await new Promise((resolve) => this.#wake.push(() => resolve(undefined)));
        else if (this.#error) throw this.#error;
        else return;
      }
    } finally {
      this.unsubscribe();
    }
  }

  // What follows is for the feed.

  /** @internal */
  get snapshot() {
    return Boolean(this.#options.snapshot);
  }

  /** @internal */
  opened() {
    this.#ready.resolve(undefined);
  }

  /** @param {Message} message @internal */
  take(message) {
    if (!this.holding) this.give(message);
  }

  /** @param {Message} message @internal */
  give(message) {
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
      this.tell('onGap', gap);
    }
  }

  #wakeUp() {
    for (const resolve of this.#wake.splice(0)) resolve();
  }

  /**
   * @template {Callback} C
   * @param {C} callback
   * @param {Detail<C>} detail
   * @internal
   */
  tell(callback, detail) {
    /** @type {((detail: any) => void) | undefined} */
    const handler = this.#options[callback];
    if (!this.#ended) run(handler, detail);
  }

  /** @param {FanfareError} [error] @internal */
  end(error) {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#ready.reject(error ?? ended());
    this.#wakeUp();
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

/** A promise that others settle. Nobody is forced to look at its failure. */
function deferred() {
  /** @type {(value: any) => void} */
  let resolve = () => {};
  /** @type {(error: unknown) => void} */
  let reject = () => {};
  /** @type {Promise<any>} */
  const promise = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => {});
  return { promise, resolve, reject };
}

/** @param {FanfareError} error @returns {Promise<any>} */
function failed(error) {
  const { promise, reject } = deferred();
  reject(error);
  return promise;
}

/** @param {string | URL} url */
function absolute(url) {
  const { href } = new URL(url, globalThis.location?.href);
  return href.replace(/^http/, 'ws').replace(/#.*/, '');
}

/** What a subscription asks the server for. @param {string} topic @param {SubscribeOptions<any>} options */
function askedBy(topic, options) {
  const { since = [], snapshot = false, last = 0, presence = false } = options;
  const filter = isFilter(topic);
  /** @type {TopicPosition[]} */
  const list = Array.isArray(since) ? since : [{ ...since, topic }];
  const positions = list.filter((position) => filter || position.topic === topic);
  if (!positions.every(isTopicPosition) || (filter && !Array.isArray(since))) {
    throw new TypeError('since must be a position, or for a filter an array of positions with topics');
  }
  // A snapshot is at least the latest message.
  const past = { positions, snapshot, last, latest: Math.max(last, Number(snapshot)) };
  return { past, terms: termsAsked(options), presence };
}

/** @param {TermsOptions} options @returns {TermsOptions} */
function termsAsked({ policy, maxHz, overflow }) {
  // JSON would turn it into null, and the server would take that for no rate at all.
  if (maxHz !== undefined && !Number.isFinite(maxHz)) throw new TypeError('maxHz must be a number');
  return { policy: policy ?? (maxHz === undefined ? undefined : 'maxHz'), maxHz, overflow };
}

/** The terms after a change, which leaves as it is what it leaves out. @param {TermsOptions} terms @param {TermsOptions} [change] */
function changed({ policy, maxHz, overflow } = {}, change = {}) {
  const kept = change.policy === undefined ? { policy, maxHz } : { policy: change.policy, maxHz: change.maxHz };
  return { ...kept, overflow: change.overflow ?? overflow };
}

/** @param {string} topic */
function isFilter(topic) {
  return /(^|\.)(\*(\.|$)|>$)/.test(topic);
}

/** @param {string} filter */
function pattern(filter) {
  const escaped = filter.replace(/[\\^$+?()[\]{}|/.]/g, '\\$&');
  return new RegExp(`^${escaped.replace(/(^|\.)\*(?=\\\.|$)/g, '$1[^.]+').replace(/(^|\.)>$/, '$1.+')}$`);
}

/** Whether two plain values would be written in the same way. @param {unknown} one @param {unknown} other */
function isSame(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** A word of the server's; the empty one if it is none. @param {unknown} value */
function word(value) {
  return typeof value === 'string' ? value : '';
}

/** @param {unknown} value */
function isOffset(value) {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/** @param {any} value */
function isTopicOffset(value) {
  return typeof value.topic === 'string' && isOffset(value.offset);
}

/** @param {any} value @returns {value is Position} */
function isPosition(value) {
  return typeof value?.epoch === 'string' && isOffset(value.offset);
}

/** @param {Position} position @param {Position} other */
function isAtOrAfter(position, other) {
  return position.epoch === other.epoch && position.offset >= other.offset;
}

/** @param {any} value @returns {value is TopicPosition} */
function isTopicPosition(value) {
  return isPosition(value) && isTopicOffset(value);
}

/** @param {Draft} draft */
function encode(draft) {
  const { data, text, binary, key, ttlMs, idempotencyKey = randomKey() } = draft;
  const payloads = [data, text, binary].filter((payload) => payload !== undefined).length;
  if (draft.delete === true && (payloads > 0 || !key)) throw new TypeError('a delete has a key, and no payload');
  if (draft.delete !== true && payloads !== 1) {
    throw new TypeError('a message has exactly one of data, text and binary');
  }
  if (ttlMs !== undefined && !Number.isFinite(ttlMs)) throw new TypeError('ttlMs must be a number');
  const base64 = binary && toBase64(new Uint8Array(binary));
  return { data, text, base64, key, delete: draft.delete || undefined, ttlMs, idempotencyKey };
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

/** @param {any} page @returns {HistoryPage<any>} */
function decodePage({ topic, top, messages, more }) {
  const known = isPosition(top) ? top : undefined;
  const list = Array.isArray(messages) ? messages.filter((message) => isOffset(message?.offset)) : [];
  for (const message of list) {
    decode(message);
    message.epoch = known?.epoch;
  }
  return { topic, top: known, messages: list, more: more === true };
}

/** @param {any} state @returns {PresenceState} */
function decodePresence({ topic, count, members, more }) {
  const list = Array.isArray(members) ? members.flatMap((member) => decodeMember(member) ?? []) : [];
  return { topic, count: isOffset(count) ? count : list.length, members: list, more: more === true };
}

/** @param {any} member @returns {Member | undefined} */
function decodeMember(member) {
  if (typeof member?.connection !== 'string') return undefined;
  return { connection: member.connection, name: word(member.name) };
}

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
  let chars = '';
  for (const byte of bytes) chars += String.fromCharCode(byte);
  return btoa(chars);
}

function randomKey() {
  // Not `randomUUID`: a page that was not loaded by TLS has none.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Whether a close code says that coming back is of no use. @param {number} code */
function isTerminal(code) {
  return [1000, 1002, 1003, 1007, 1009].includes(code) || (code >= 4500 && code < 5000);
}

/** The reason of a close is written `name: sentence`. @param {number} code @param {string} reason */
function closeError(code, reason) {
  const [, name = 'closed', sentence = `the server closed the connection with code ${code}`] =
    /^(\w+): (.+)$/.exec(reason) ?? [];
  return new FanfareError(code, name, 'never', sentence);
}

/** @param {any} error */
function refusal({ code, name, retry, message }) {
  return new FanfareError(isOffset(code) ? code : 0, word(name), word(retry), word(message));
}

function ended() {
  return new FanfareError(0, 'unsubscribed', 'never', 'the application ended the subscription');
}

function unknownOutcome() {
  const text = 'the connection ended before the answer came, so the outcome is not known';
  return new FanfareError(0, 'unknown', 'later', text);
}
