/**
 * Fanfare client: subscribe and publish over one connection that mends itself.
 *
 * Not here: what a topic may be called or who may use it (the server refuses), and the binary spelling
 * of the protocol, which is `proto.js`.
 *
 * @module fanfare-client
 */

/** @import * as types from './types.js' */

/** @typedef {types.Client} Client */
/** @typedef {types.ClientEvents} ClientEvents */
/** @typedef {types.ClientOptions} ClientOptions */
/** @typedef {types.Draft} Draft */
/** @typedef {types.Gap} Gap */
/** @typedef {types.HistoryOptions} HistoryOptions */
/** @template [T=any] @typedef {types.HistoryPage<T>} HistoryPage */
/** @typedef {types.Member} Member */
/** @template [T=any] @typedef {types.Message<T>} Message */
/** @typedef {types.Overflow} Overflow */
/** @typedef {types.Policy} Policy */
/** @typedef {types.Position} Position */
/** @typedef {types.PresenceState} PresenceState */
/** @typedef {types.Published} Published */
/** @typedef {types.Recovery} Recovery */
/** @typedef {types.Spelling} Spelling */
/** @typedef {types.Staleness} Staleness */
/** @typedef {types.State} State */
/** @typedef {types.StateEvent} StateEvent */
/** @template [T=any] @typedef {types.SubscribeOptions<T>} SubscribeOptions */
/** @template [T=any] @typedef {types.Subscription<T>} Subscription */
/** @typedef {types.Terms} Terms */
/** @typedef {types.TermsOptions} TermsOptions */
/** @typedef {types.TopicPosition} TopicPosition */
/** @typedef {types.WebSocketLike} WebSocketLike */

import { makeClient } from './client.js';

export { FanfareError } from './error.js';

/**
 * Connects to a Fanfare server, and reconnects until `close()`.
 * @param {string | URL} url For instance `wss://example.org/ws`; in a page also `/ws`.
 * @param {ClientOptions} [options]
 * @returns {Client}
 */
export function connect(url, options = {}) {
  return makeClient(url, options);
}
