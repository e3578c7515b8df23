/**
 * The connection: makes it, says hello, shows tokens, watches over it, and comes back when it is lost.
 *
 * Invariants: at most one socket is current, and no other is listened to; at most one timer waits for the
 * next attempt or for silence to last too long.
 * @module
 */

/** @import { FanfareError } from './error.js' */
/** @import { ClientEvents, ClientOptions, State, StateEvent, WebSocketLike } from './types.js' */

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

/**
 * Whom the link tells.
 * @typedef {object} Owner
 * @property {() => void} _up
 * @property {(socket: WebSocketLike | null) => void} _down
 * @property {(event: StateEvent) => void} _over
 * @property {(event: any) => void} _event
 * @property {<E extends keyof ClientEvents>(event: E, detail: ClientEvents[E]) => void} _emit
 */

/** @typedef {ReturnType<typeof makeLink>} Link */

/** @param {string | URL} address @param {ClientOptions} given @param {Owner} client */
export function makeLink(address, given, client) {
  const options = {
    backoffMs: 500,
    backoffMaxMs: 30_000,
    stableMs: 10_000,
    openMaxMs: 10_000,
    silenceMs: 10_000,
    wakeMs: 5_000,
    WebSocket: globalThis.WebSocket,
    ...given,
  };
  const url = new URL(address, globalThis.location?.href).href.replace(/^http/, 'ws').replace(/#.*/, '');
  const link = {
    _state: /** @type {State} */ ('connecting'),
    _socket: /** @type {WebSocketLike | null} */ (null),
    _transport: /** @type {'websocket' | 'sse'} */ ('websocket'),
    _spelling: options.spelling ?? json,
    /** How long the server has asked to stay away. */
    _afterMs: 0,
    _open: open,
    _backoff: backoff,
    _end: end,
  };
  /** Whether each message has several events. */
  let batched = false;
  let attempt = 0;
  /** Attempts in a row that have come to nothing. */
  let misses = 0;
  /** Whether a WebSocket has ever worked. */
  let proven = false;
  let connectedAt = 0;
  /** By when the server must have said something. */
  let deadline = 0;
  let silenceMs = 0;
  /** Watches for silence, or waits for the next attempt. @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** Waits for the time to show another token. @type {ReturnType<typeof setTimeout> | undefined} */
  let refreshTimer;

  if (!options.WebSocket && options.transport !== 'sse') {
    throw new TypeError('there is no WebSocket here: give one as an option');
  }
  for (const type of WAKES) globalThis.addEventListener?.(type, wake);
  return link;

  // === Opening ===

  function open() {
    clearTimeout(timer);
    become({ state: 'connecting' });
    const { transport, spelling = json, WebSocket } = options;
    const blocked = transport !== 'websocket' && !proven && misses % 4 > 1;
    link._transport = transport === 'sse' || blocked ? 'sse' : 'websocket';
    link._spelling = link._transport === 'sse' ? json : spelling;
    if (link._transport === 'websocket') return dial(WebSocket);
    import('./sse.js').then(
      ({ EventStream }) => link._state === 'connecting' && dial(EventStream),
      (error) => lost(1006, String(error)),
    );
  }

  /** @param {any} Socket */
  function dial(Socket) {
    /** @type {WebSocketLike} */
    let socket;
    try {
      socket = new Socket(url, [link._spelling.protocol]);
    } catch (error) {
      return lost(1006, String(error));
    }
    link._socket = socket;
    batched = false;
    const current = (/** @type {(event: any) => void} */ handle) => (/** @type {any} */ event) => {
      if (link._socket === socket) handle(event);
    };
    socket.binaryType = 'arraybuffer';
    socket.onopen = current(() => hello());
    socket.onmessage = current(({ data }) => receive(data));
    socket.onclose = current(({ code, reason }) => lost(code, reason));
    // A close follows each error. Where it is known what is wrong, and that it is for good, it is said.
    socket.onerror = current(({ message }) => /protocol/i.test(message) && badSubprotocol());
    expect(options.openMaxMs);
  }

  function hello() {
    const { protocol } = link._spelling;
    if ((link._socket?.protocol ?? protocol) !== protocol) return badSubprotocol();
    const { name } = options;
    withToken((token) => say('connect', { token, name, batch: true }));
  }

  function badSubprotocol() {
    fail(new Refusal(430, 'badSubprotocol', 'never', `the server does not speak ${link._spelling.protocol}`));
  }

  /** @param {any} hello */
  function greeted({ pingMs, batch, server, connection, expiresMs }) {
    batched = batch === true;
    expect(Math.min(pingMs > 0 ? pingMs : 25_000, LONG_MS) + options.silenceMs);
    connectedAt = Date.now();
    proven ||= link._transport === 'websocket';
    // Behind Server-Sent Events comes one attempt by WebSocket.
    misses = proven ? 0 : 1;
    link._state = 'connected';
    refreshIn(expiresMs);
    client._up();
    // Only now, so that what a handler publishes comes after what has been waiting.
    become({ state: 'connected', server, connection });
  }

  // === Tokens ===

  /** At once where the token is a value. @param {(token?: string) => void} then */
  function withToken(then) {
    const { token } = options;
    if (typeof token !== 'function') return then(token);
    const socket = link._socket;
    const current = (/** @type {(value: any) => void} */ handle) => (/** @type {any} */ value) => {
      if (link._socket === socket) handle(value);
    };
    new Promise((resolve) => resolve(token())).then(
      current(then),
      current((error) => noToken(error)),
    );
  }

  /** @param {any} error */
  function noToken(error) {
    if (link._state !== 'connected' && error.retry === 'never') return fail(error);
    client._emit('warning', { message: 'there is no token', detail: error });
    if (link._state === 'connected') refreshIn(10_000);
    else drop('there is no token');
  }

  /** Well before the token expires. @param {any} expiresMs */
  function refreshIn(expiresMs) {
    clearTimeout(refreshTimer);
    if (!(expiresMs > 0) || typeof options.token !== 'function') return;
    const show = () => withToken((token) => say('refresh', { token }));
    refreshTimer = setTimeout(show, Math.min(expiresMs * 0.8, LONG_MS));
  }

  // === Hearing ===

  /** @param {string} action @param {object} body */
  function say(action, body) {
    link._socket?.send(link._spelling.encode(OWN_ID, action, body));
  }

  /** @param {unknown} data */
  function receive(data) {
    deadline = Date.now() + silenceMs;
    const socket = link._socket;
    try {
      for (const event of link._spelling.decode(data, batched)) {
        // What an event brings about may end the connection: then those behind it have come too late.
        if (link._socket !== socket) return;
        if (event.id === OWN_ID) answered(event);
        else client._event(event);
      }
    } catch (error) {
      const message = 'an event is not understood';
      client._emit('warning', { message, detail: { data, error } });
      if (link._socket === socket) drop(message);
    }
  }

  /** @param {any} event */
  function answered({ error, connected, refreshed, pong }) {
    if (error) return refusedBy(refusal(error));
    if (connected) greeted(connected);
    else if (refreshed) refreshIn(refreshed.expiresMs);
    else need(pong);
  }

  /** @param {FanfareError} error */
  function refusedBy(error) {
    if (link._state === 'connected') noToken(error);
    else if (error.retry === 'never' || isExpired(error.code)) fail(error);
    else drop(error.message);
  }

  /** Whether there is no other token than the one that has expired. @param {number} code */
  function isExpired(code) {
    return code === 4401 && typeof options.token !== 'function';
  }

  // === Watching ===

  /** The server must say something within this time, and from then on. @param {number} ms */
  function expect(ms) {
    silenceMs = ms;
    deadline = Date.now() + ms;
    watch();
  }

  /** Gives the connection up when the server has been silent for too long. */
  function watch() {
    clearTimeout(timer);
    // The wall clock, because it goes on while a laptop sleeps; it may be set back, too.
    const left = Math.min(deadline - Date.now(), silenceMs);
    if (left > 0) timer = setTimeout(() => watch(), left);
    else drop(`the server was silent for ${silenceMs} ms`);
  }

  /** The host may have slept, or have another network: nobody should wait for timers that stood still. */
  function wake() {
    if (globalThis.document?.hidden) return;
    if (link._state === 'waiting') open();
    if (link._state !== 'connected') return;
    say('ping', {});
    deadline = Math.min(deadline, Date.now() + options.wakeMs);
    watch();
  }

  // === Losing ===

  /** Leaves a connection that is good for nothing, without waiting for it to close. @param {string} reason */
  function drop(reason) {
    const socket = link._socket;
    lost(4410, reason);
    if (socket?.terminate) socket.terminate();
    else socket?.close(4410);
  }

  /** @param {number} code @param {string} reason */
  function lost(code, reason) {
    const wasConnected = link._state === 'connected';
    const socket = leave('waiting');
    if (wasConnected && Date.now() - connectedAt >= options.stableMs) attempt = 0;
    if (!wasConnected) misses += 1;
    client._down(socket);
    if (isTerminal(code) || isExpired(code)) return fail(closeError(code, reason));
    const delayMs = link._afterMs + backoff(attempt++);
    link._afterMs = 0;
    timer = setTimeout(open, delayMs);
    become({ state: 'waiting', code, reason, delayMs });
  }

  /** @param {State} state */
  function leave(state) {
    const socket = link._socket;
    link._socket = null;
    link._state = state;
    clearTimeout(timer);
    clearTimeout(refreshTimer);
    return socket;
  }

  /**
   * Full jitter: all clients of a server that restarts must not come back at the same moment.
   * @param {number} tries
   */
  function backoff(tries) {
    return Math.random() * Math.min(options.backoffMaxMs, options.backoffMs * 2 ** tries);
  }

  /** @param {FanfareError} error */
  function fail(error) {
    end({ state: 'closed', reason: error.message, code: error.code, error });
  }

  /** @param {StateEvent} event */
  function end(event) {
    if (link._state === 'closed') return;
    const socket = leave('closed');
    for (const type of WAKES) globalThis.removeEventListener?.(type, wake);
    client._over(event);
    become(event);
    socket?.close(1000);
  }

  /** @param {StateEvent} event */
  function become(event) {
    link._state = event.state;
    client._emit('state', event);
  }
}
