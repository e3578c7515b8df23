/**
 * The connection: makes it, says hello, shows tokens, watches over it, and comes back when it is lost.
 *
 * Invariants: at most one socket is current, and no other is listened to; at most one timer waits for the
 * next attempt or for silence to last too long.
 * @module
 */

/** @import { Client } from './client.js' */
/** @import { FanfareError } from './error.js' */
/** @import { ClientOptions, Spelling, State, StateEvent, WebSocketLike } from './types.js' */

import { FanfareError as Refusal } from './error.js';
import { closeError, isTerminal, refusal } from './errors.js';
import { json } from './json.js';
import { need } from './words.js';

/** The longest time that the server's word is taken for; a timer cannot count much further. */
export const LONG_MS = 3_600_000;
/** The id of what the link asks for itself. */
const OWN_ID = 1;
/** What may mean that the host has slept or moved. */
const WAKES = ['online', 'offline', 'pageshow', 'visibilitychange'];

const DEFAULTS = {
  backoffMs: 500,
  backoffMaxMs: 30_000,
  stableMs: 10_000,
  openMaxMs: 10_000,
  silenceMs: 10_000,
  wakeMs: 5_000,
};

export class Link {
  /** @type {State} */
  _state = 'connecting';
  /** @type {WebSocketLike | null} */
  _socket = null;
  /** @type {'websocket' | 'sse'} */
  _transport = 'websocket';
  /** @type {Spelling} */
  _spelling;
  /** How long the server has asked to stay away. */
  _afterMs = 0;
  #url;
  #options;
  #client;
  /** Whether each message has several events. */
  #batched = false;
  #attempt = 0;
  /** Attempts in a row that have come to nothing. */
  #misses = 0;
  /** Whether a WebSocket has ever worked. */
  #proven = false;
  #connectedAt = 0;
  /** By when the server must have said something. */
  #deadline = 0;
  #silenceMs = 0;
  /** Watches for silence, or waits for the next attempt. @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** Waits for the time to show another token. @type {ReturnType<typeof setTimeout> | undefined} */
  #refresh;

  /** @param {string | URL} url @param {ClientOptions} options @param {Client} client */
  constructor(url, options, client) {
    this.#options = { ...DEFAULTS, WebSocket: globalThis.WebSocket, ...options };
    this.#url = new URL(url, globalThis.location?.href).href.replace(/^http/, 'ws').replace(/#.*/, '');
    this.#client = client;
    this._spelling = options.spelling ?? json;
    if (!this.#options.WebSocket && options.transport !== 'sse') {
      throw new TypeError('there is no WebSocket here: give one as the option WebSocket');
    }
    for (const wake of WAKES) globalThis.addEventListener?.(wake, this.#wake);
  }

  // === Opening ===

  _open = () => {
    clearTimeout(this.#timer);
    this.#become({ state: 'connecting' });
    const { transport, spelling = json, WebSocket } = this.#options;
    const blocked = transport !== 'websocket' && !this.#proven && this.#misses % 4 > 1;
    this._transport = transport === 'sse' || blocked ? 'sse' : 'websocket';
    this._spelling = this._transport === 'sse' ? json : spelling;
    if (this._transport === 'websocket') return this.#dial(WebSocket);
    import('./sse.js').then(
      ({ EventStream }) => this._state === 'connecting' && this.#dial(EventStream),
      (error) => this.#lost(1006, String(error)),
    );
  };

  /** @param {any} Socket */
  #dial(Socket) {
    /** @type {WebSocketLike} */
    let socket;
    try {
      socket = new Socket(this.#url, [this._spelling.protocol]);
    } catch (error) {
      return this.#lost(1006, String(error));
    }
    this._socket = socket;
    this.#batched = false;
    const current = (/** @type {(event: any) => void} */ handle) => (/** @type {any} */ event) => {
      if (this._socket === socket) handle(event);
    };
    socket.binaryType = 'arraybuffer';
    socket.onopen = current(() => this.#hello());
    socket.onmessage = current(({ data }) => this.#receive(data));
    socket.onclose = current(({ code, reason }) => this.#lost(code, reason));
    // A close follows each error. Where it is known what is wrong, and that it is for good, it is said.
    socket.onerror = current(({ message }) => /protocol/i.test(message) && this.#badSubprotocol());
    this.#expect(this.#options.openMaxMs);
  }

  #hello() {
    const { protocol } = this._spelling;
    if ((this._socket?.protocol ?? protocol) !== protocol) return this.#badSubprotocol();
    const { name } = this.#options;
    this.#withToken((token) => this.#say('connect', { token, name, batch: true }));
  }

  #badSubprotocol() {
    this.#fail(new Refusal(430, 'badSubprotocol', 'never', `the server does not speak ${this._spelling.protocol}`));
  }

  /** @param {any} hello */
  #connected({ pingMs, batch, server, connection, expiresMs }) {
    this.#batched = batch === true;
    this.#expect(Math.min(pingMs > 0 ? pingMs : 25_000, LONG_MS) + this.#options.silenceMs);
    this.#connectedAt = Date.now();
    this.#proven ||= this._transport === 'websocket';
    // Behind Server-Sent Events comes one attempt by WebSocket.
    this.#misses = this.#proven ? 0 : 1;
    this._state = 'connected';
    this.#refreshIn(expiresMs);
    this.#client._up();
    // Only now, so that what a handler publishes comes after what has been waiting.
    this.#become({ state: 'connected', server, connection });
  }

  // === Tokens ===

  /** At once where the token is a value. @param {(token?: string) => void} then */
  #withToken(then) {
    const { token } = this.#options;
    if (typeof token !== 'function') return then(token);
    const socket = this._socket;
    const current = (/** @type {(value: any) => void} */ handle) => (/** @type {any} */ value) => {
      if (this._socket === socket) handle(value);
    };
    new Promise((resolve) => resolve(token())).then(
      current(then),
      current((error) => this.#noToken(error)),
    );
  }

  /** @param {any} error */
  #noToken(error) {
    if (this._state !== 'connected' && error.retry === 'never') return this.#fail(error);
    this.#client._emit('warning', { message: 'there is no token', detail: error });
    if (this._state === 'connected') this.#refreshIn(10_000);
    else this.#drop('there is no token');
  }

  /** Well before the token expires. @param {any} expiresMs */
  #refreshIn(expiresMs) {
    clearTimeout(this.#refresh);
    if (!(expiresMs > 0) || typeof this.#options.token !== 'function') return;
    const show = () => this.#withToken((token) => this.#say('refresh', { token }));
    this.#refresh = setTimeout(show, Math.min(expiresMs * 0.8, LONG_MS));
  }

  // === Hearing ===

  /** @param {string} action @param {object} body */
  #say(action, body) {
    this._socket?.send(this._spelling.encode(OWN_ID, action, body));
  }

  /** @param {unknown} data */
  #receive(data) {
    this.#deadline = Date.now() + this.#silenceMs;
    const socket = this._socket;
    try {
      for (const event of this._spelling.decode(data, this.#batched)) {
        // What an event brings about may end the connection: then those behind it have come too late.
        if (this._socket !== socket) return;
        if (event.id === OWN_ID) this.#answer(event);
        else this.#client._event(event);
      }
    } catch (error) {
      const message = 'an event is not understood';
      this.#client._emit('warning', { message, detail: { data, error } });
      if (this._socket === socket) this.#drop(message);
    }
  }

  /** @param {any} event */
  #answer({ error, connected, refreshed, pong }) {
    if (error) return this.#refused(refusal(error));
    if (connected) this.#connected(connected);
    else if (refreshed) this.#refreshIn(refreshed.expiresMs);
    else need(pong);
  }

  /** @param {FanfareError} error */
  #refused(error) {
    if (this._state === 'connected') this.#noToken(error);
    else if (error.retry === 'never' || this.#isExpired(error.code)) this.#fail(error);
    else this.#drop(error.message);
  }

  /** Whether there is no other token than the one that has expired. @param {number} code */
  #isExpired(code) {
    return code === 4401 && typeof this.#options.token !== 'function';
  }

  // === Watching ===

  /** The server must say something within this time, and from then on. @param {number} ms */
  #expect(ms) {
    this.#silenceMs = ms;
    this.#deadline = Date.now() + ms;
    this.#watch();
  }

  /** Gives the connection up when the server has been silent for too long. */
  #watch() {
    clearTimeout(this.#timer);
    // The wall clock, because it goes on while a laptop sleeps; it may be set back, too.
    const left = Math.min(this.#deadline - Date.now(), this.#silenceMs);
    if (left > 0) this.#timer = setTimeout(() => this.#watch(), left);
    else this.#drop(`the server was silent for ${this.#silenceMs} ms`);
  }

  /** The host may have slept, or have another network: nobody should wait for timers that stood still. */
  #wake = () => {
    if (globalThis.document?.hidden) return;
    if (this._state === 'waiting') this._open();
    if (this._state !== 'connected') return;
    this.#say('ping', {});
    this.#deadline = Math.min(this.#deadline, Date.now() + this.#options.wakeMs);
    this.#watch();
  };

  // === Losing ===

  /** Leaves a connection that is good for nothing, without waiting for it to close. @param {string} reason */
  #drop(reason) {
    const socket = this._socket;
    this.#lost(4410, reason);
    if (socket?.terminate) socket.terminate();
    else socket?.close(4410);
  }

  /** @param {number} code @param {string} reason */
  #lost(code, reason) {
    const connected = this._state === 'connected';
    const socket = this.#leave('waiting');
    if (connected && Date.now() - this.#connectedAt >= this.#options.stableMs) this.#attempt = 0;
    if (!connected) this.#misses += 1;
    this.#client._down(socket);
    if (isTerminal(code) || this.#isExpired(code)) return this.#fail(closeError(code, reason));
    const delayMs = this._afterMs + this._backoff(this.#attempt++);
    this._afterMs = 0;
    this.#timer = setTimeout(this._open, delayMs);
    this.#become({ state: 'waiting', code, reason, delayMs });
  }

  /** @param {State} state */
  #leave(state) {
    const socket = this._socket;
    this._socket = null;
    this._state = state;
    clearTimeout(this.#timer);
    clearTimeout(this.#refresh);
    return socket;
  }

  /**
   * Full jitter: all clients of a server that restarts must not come back at the same moment.
   * @param {number} attempt
   */
  _backoff(attempt) {
    return Math.random() * Math.min(this.#options.backoffMaxMs, this.#options.backoffMs * 2 ** attempt);
  }

  /** @param {FanfareError} error */
  #fail(error) {
    this._end({ state: 'closed', reason: error.message, code: error.code, error });
  }

  /** @param {StateEvent} event */
  _end(event) {
    if (this._state === 'closed') return;
    const socket = this.#leave('closed');
    for (const wake of WAKES) globalThis.removeEventListener?.(wake, this.#wake);
    this.#client._over(event);
    this.#become(event);
    socket?.close(1000);
  }

  /** @param {StateEvent} event */
  #become(event) {
    this._state = event.state;
    this.#client._emit('state', event);
  }
}
