/**
 * Fanfare client: subscribe and publish over one connection that mends itself.
 *
 * Not here: what a topic may be called or who may use it (the server refuses), and the binary spelling
 * of the protocol, which is `proto.js`.
 *
 * @module fanfare-client
 */
import type * as types from './types.js';
export type Client = types.Client;
export type ClientEvents = types.ClientEvents;
export type ClientOptions = types.ClientOptions;
export type Draft = types.Draft;
export type Gap = types.Gap;
export type HistoryOptions = types.HistoryOptions;
export type HistoryPage<T = any> = types.HistoryPage<T>;
export type Member = types.Member;
export type Message<T = any> = types.Message<T>;
export type Overflow = types.Overflow;
export type Policy = types.Policy;
export type Position = types.Position;
export type PresenceState = types.PresenceState;
export type Published = types.Published;
export type Recovery = types.Recovery;
export type Spelling = types.Spelling;
export type Staleness = types.Staleness;
export type State = types.State;
export type StateEvent = types.StateEvent;
export type SubscribeOptions<T = any> = types.SubscribeOptions<T>;
export type Subscription<T = any> = types.Subscription<T>;
export type Terms = types.Terms;
export type TermsOptions = types.TermsOptions;
export type TopicPosition = types.TopicPosition;
export type WebSocketLike = types.WebSocketLike;
export { FanfareError } from './error.js';
/**
 * Connects to a Fanfare server, and reconnects until `close()`.
 * @param {string | URL} url For instance `wss://example.org/ws`; in a page also `/ws`.
 * @param {ClientOptions} [options]
 * @returns {Client}
 */
export declare function connect(url: string | URL, options?: ClientOptions): Client;
