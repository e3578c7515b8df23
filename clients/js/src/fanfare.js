/**
 * Fanfare client: subscribe and publish over one connection that mends itself.
 *
 * Not here: what a topic may be called or who may use it (the server refuses), and the binary spelling
 * of the protocol, which is `proto.js`.
 *
 * @module fanfare-client
 */

/** @import { Client as Made, ClientOptions } from './types.js' */

import { Client } from './client.js';

export { FanfareError } from './errors.js';
/** @typedef {ClientOptions} Options */

/**
 * Connects to a Fanfare server, and reconnects until `close()`.
 * @param {string | URL} url For instance `wss://example.org/ws`; in a page also `/ws`.
 * @param {ClientOptions} [options]
 * @returns {Made}
 */
export function connect(url, options = {}) {
  return new Client(url, options);
}
