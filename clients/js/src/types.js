/**
 * The shapes of what the application gives and gets: the whole public interface but for the error.
 *
 * Not here: anything that runs.
 *
 * @module
 */

/** @import { FanfareError } from './error.js' */

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
 * @property {(data: string | Uint8Array<ArrayBuffer>) => void} send
 * @property {(code?: number, reason?: string) => void} close
 * @property {string} [protocol]
 * @property {string} [binaryType]
 * @property {() => void} [terminate]
 */

/**
 * Another spelling of the protocol: that of `fanfare-client/proto`.
 * @typedef {object} Spelling
 * @property {string} protocol The subprotocol that is offered.
 * @property {(id: number, action: string, body: any) => string | Uint8Array<ArrayBuffer>} encode
 * @property {(data: any, batched: boolean) => any[]} decode The events of one WebSocket message.
 */

/**
 * @typedef {object} ClientOptions
 * @property {new (url: string, protocols: string[]) => WebSocketLike} [WebSocket] Default: the global
 *   one. Node 20 has none: give that of the package `ws`.
 * @property {'auto' | 'websocket' | 'sse'} [transport] `sse`: Server-Sent Events for what comes and HTTP
 *   for what goes. `auto`, the default: that, where two attempts by WebSocket in a row have failed and
 *   none has ever succeeded.
 * @property {Spelling} [spelling] Default: JSON. By SSE it is always JSON.
 * @property {string | (() => string | Promise<string>)} [token] Who this client is. A function is asked
 *   for each connection, and again before the token expires.
 * @property {string} [name] What others who look at a topic's presence see of this client.
 * @property {number} [backoffMs] The first wait before a reconnect is random up to this, and the bound
 *   doubles with each attempt. Default 500.
 * @property {number} [backoffMaxMs] The bound does not grow beyond this. Default 30,000.
 * @property {number} [stableMs] A connection that lasted so long starts the backoff anew. Default 10,000.
 * @property {number} [openMaxMs] How long connecting may take. Default 10,000.
 * @property {number} [silenceMs] How much longer than its ping interval the server may be silent.
 *   Default 10,000.
 * @property {number} [wakeMs] When the host wakes up or its network changes: how long the server may take
 *   to say that it is still there. Default 5,000.
 * @property {number} [queueMax] Calls that may wait for an answer, offline or not. Default 1,000.
 * @property {number} [retryMaxMs] A publish that was sent is repeated after a reconnect only for so
 *   long, because the server forgets idempotency keys. Default 240,000.
 * @property {number} [positionsMax] Topics of one filter that a reconnect can resume. Default 1,024.
 */

/**
 * A connection to a Fanfare server that mends itself. Made by `connect`.
 * @typedef {object} Client
 * @property {State} state Where the connection stands.
 * @property {'websocket' | 'sse'} transport What the connection is made of.
 * @property {<E extends keyof ClientEvents>(event: E, handler: (detail: ClientEvents[E]) => void) => () => void} on
 *   Calls `handler` for each event of a kind. Returns a function that ends that.
 * @property {<T = any>(topic: string, options?: SubscribeOptions<T>) => Subscription<T>} subscribe
 *   Subscribes to a topic, or to every topic that a filter matches: `*` stands for one segment, a final
 *   `>` for one or more.
 *
 *   Subscriptions to the same topic share one on the server, opened with the options of the first. A
 *   later one goes on from where that one is, on its terms; it may ask for a snapshot if the first did,
 *   and for no other past, which is what `history` is for. If it asks for what it cannot share, it is
 *   refused (`alreadySubscribed`).
 * @property {(topic: string, draft: Draft) => Promise<Published>} publish Publishes a message. While there
 *   is no connection it waits; after a reconnect it is sent again with the same idempotency key if its
 *   answer is missing. Rejected with a `FanfareError`; if nobody looks at the promise, that disturbs
 *   nobody. Throws a `TypeError` if the draft is none.
 * @property {<T = any>(topic: string, options?: HistoryOptions) => Promise<HistoryPage<T>>} history Asks
 *   for messages that a topic still holds.
 * @property {(topic: string) => Promise<PresenceState>} presence Asks who is subscribed to exactly this
 *   topic.
 * @property {() => Promise<number>} ping Asks the server for a sign of life. How long it took, in
 *   milliseconds.
 * @property {() => void} close Ends every subscription and the connection, for good.
 */

/**
 * A subscription: its callbacks run, or a `for await` loop gives its messages. Leaving the loop
 * unsubscribes. Made by `subscribe`.
 * @template [T=any]
 * @typedef {AsyncIterable<Message<T>> & SubscriptionParts} Subscription
 */

/**
 * @typedef {object} SubscriptionParts
 * @property {string} topic The topic or filter.
 * @property {Promise<void>} ready Fulfilled when the server has accepted, rejected when it has refused.
 * @property {TopicPosition[]} positions The last position of each topic, the one used last first: to be
 *   given as `since`.
 * @property {Terms['policy'] | undefined} policy What the server grants, which may be less than was asked
 *   for; undefined until it has said so.
 * @property {number | undefined} maxHz At most so many rounds a second for each topic, if the policy is
 *   `maxHz`.
 * @property {Terms['overflow']} overflow What the server does when this client falls behind; undefined if
 *   that is left to the topic's rule.
 * @property {boolean} stale Whether the topic is stale; of a filter, whether any of its topics is.
 * @property {number} duplicates How many messages were dropped because they had been given before.
 * @property {(change: TermsOptions) => Promise<Terms>} update Changes the terms while messages flow, also
 *   for others that share this subscription, and for after a reconnect. What is left out stays as it is.
 *   Changes that follow each other quickly may become one; the last one counts. Gives what is granted.
 *   Rejected with a `FanfareError` if the server refuses; then everything stays as it was. Throws a
 *   `TypeError` if `maxHz` is no number.
 * @property {() => void} unsubscribe
 */

export {};
