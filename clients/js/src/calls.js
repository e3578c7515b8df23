/**
 * The commands that have no answer yet.
 *
 * Invariants: commands leave in the order in which they were made; each is settled once; how many of the
 * application's wait is bounded.
 * @module
 */

/** @import { FanfareError } from './error.js' */
/** @import { Link } from './link.js' */
/** @import { WebSocketLike } from './types.js' */

import { closed, failure, refusal, unknownOutcome } from './errors.js';
import { deferred, ignore, rejected } from './small.js';
import { need } from './words.js';

/** Commands that are sent again after a reconnect. */
const RESENT = ['publish', 'history'];

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

/** @typedef {ReturnType<typeof makeCalls>} Calls */

/** @param {{ queueMax: number, retryMaxMs: number }} options @param {Link} link */
export function makeCalls({ queueMax, retryMaxMs }, link) {
  /** By id, in the order they were made. @type {Map<number, Call>} */
  const calls = new Map();
  /** The link has the id 1 for itself. */
  let lastId = 1;
  let counted = 0;
  /** Why there is no further one. @type {FanfareError | undefined} */
  let end;

  return { _ask: ask, _request: request, _answer: answer, _up: up, _down: down, _over: over };

  /**
   * A command on behalf of the application.
   * @param {string} action
   * @param {string} expects
   * @param {object} body
   * @param {(answer: any, call: Call) => any} read
   * @returns {Promise<any>}
   */
  function request(action, expects, body, read) {
    if (end) return rejected(end);
    if (counted >= queueMax) return rejected(failure('queueFull', `${queueMax} calls wait for an answer`, 'later'));
    const { promise, resolve, reject } = deferred();
    ask(action, expects, body, (answer, call) => resolve(read(answer, call)), reject, true);
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
  function ask(_action, _expects, _body, _resolve, _reject = ignore, _counted) {
    const { protocol, encode } = link._spelling;
    // Now, because the application may change its object later.
    const _frame = encode(lastId + 1, _action, _body);
    const call = { _action, _expects, _body, _protocol: protocol, _frame, _counted, _resolve, _reject };
    calls.set(++lastId, call);
    if (_counted) counted += 1;
    if (link._state === 'connected') send(lastId, call);
  }

  /** @param {number} id @param {Call} call */
  function send(id, call) {
    const { _socket, _spelling } = link;
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
  function settle(id, call) {
    calls.delete(id);
    if (call._counted) counted -= 1;
    return call;
  }

  /** @param {any} event */
  function answer(event) {
    const call = calls.get(event.id);
    if (!call) return;
    settle(event.id, call);
    if (event.error) return call._reject(refusal(event.error));
    const body = event[call._expects];
    try {
      need(body);
      call._resolve(body, call);
    } catch (error) {
      call._reject(failure('badAnswer', `the server did not answer with ${call._expects}`));
      throw error;
    }
  }

  /** There is a connection: what has not been sent by it is. */
  function up() {
    for (const [id, call] of calls) {
      if (call._socket === link._socket) continue;
      const tooOld = call._firstSent && Date.now() - call._firstSent > retryMaxMs;
      if (tooOld && call._action === 'publish') settle(id, call)._reject(unknownOutcome());
      else send(id, call);
    }
  }

  /** @param {WebSocketLike | null} socket The one that is lost. */
  function down(socket) {
    const gone = failure('disconnected', 'the connection ended before the answer came', 'later');
    for (const [id, call] of calls) {
      if (call._socket === socket && !RESENT.includes(call._action)) settle(id, call)._reject(gone);
    }
  }

  /** @param {FanfareError} [error] Why, unless the application closed. */
  function over(error = closed()) {
    end = error;
    for (const [id, call] of calls) {
      settle(id, call)._reject(call._action === 'publish' && call._firstSent ? unknownOutcome() : error);
    }
    return error;
  }
}
