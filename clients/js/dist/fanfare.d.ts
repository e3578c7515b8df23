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
export type Position = {
    epoch: string;
    offset: number;
};
export type TopicPosition = Position & {
    topic: string;
};
export type Message<T = any> = {
    topic: string;
    offset: number;
    /**
     * Absent until the server has told the epoch of the topic.
     */
    epoch?: string;
    /**
     * When the broker took it, in milliseconds since 1970.
     */
    time: number;
    /**
     * What the message is about, for instance a row or a symbol.
     */
    key?: string;
    /**
     * A JSON value.
     */
    data?: T;
    text?: string;
    binary?: Uint8Array;
    /**
     * What `key` names is no more.
     */
    deleted?: true;
};
export type Gap = {
    topic: string;
    /**
     * First missing offset.
     */
    from: number;
    /**
     * Last missing offset.
     */
    to: number;
    count: number;
    /**
     * `slow`: the server
     * dropped them, because this connection read too slowly. `trimmed`: while this connection was catching
     * up, the topic's history went past them. `expired`: they had become too old to be sent. `lost`: they
     * did not arrive and nobody said why. `buffer`: they arrived, but the loop over the subscription was
     * too slow.
     */
    reason: 'slow' | 'trimmed' | 'expired' | 'lost' | 'buffer' | (string & {});
};
export type Policy = 'all' | 'latest' | 'maxHz';
export type Overflow = 'catchUp' | 'gap' | 'disconnect';
export type TermsOptions = {
    /**
     * `all`: every message. `latest`: every message while the connection takes
     * them, else only the latest of each key. `maxHz`: as `latest`, and each topic at most `maxHz` times a
     * second. The last message of a key always comes.
     */
    policy?: Policy;
    /**
     * From 0.01 to 1,000; alone it means the policy `maxHz`.
     */
    maxHz?: number;
    /**
     * What the server does under `all` when this client falls behind.
     * `catchUp`: sends what the topic's history holds, at the client's pace. `gap`: leaves messages out,
     * and says so. `disconnect`: closes the connection, which is then resumed.
     */
    overflow?: Overflow;
};
export type Terms = {
    policy: Policy | (string & {});
    maxHz?: number;
    /**
     * Absent where it is left to each topic's rule, and where
     * the policy has no use for it.
     */
    overflow?: Overflow | (string & {});
};
export type Member = {
    /**
     * Names the connection.
     */
    connection: string;
    /**
     * What that one gave as `name` when it connected, or the empty string.
     */
    name: string;
};
export type PresenceState = {
    topic: string;
    /**
     * How many there are.
     */
    count: number;
    /**
     * By connection.
     */
    members: Member[];
    /**
     * There are others than those listed.
     */
    more: boolean;
};
export type Staleness = {
    topic: string;
    /**
     * When its last message was, in milliseconds since 1970, as far as is known.
     */
    since?: number;
};
export type Recovery = {
    /**
     * The topic; or the filter, which then stands for all of its topics that have
     * no report of their own.
     */
    topic: string;
    /**
     * True: exactly the missing messages follow. False: messages may be
     * missing, so state that was built from them must be loaded anew.
     */
    recovered: boolean;
    /**
     * Why not. The server's reasons, and `noPosition`: the client
     * held no position to resume from.
     */
    reason?: 'epochChanged' | 'trimmed' | 'expired' | 'tooMany' | 'notAllowed' | 'engineUnavailable' | 'noPosition' | (string & {});
};
export type SubscribeOptions<T = any> = TermsOptions & SubscribeExtras<T>;
export type SubscribeExtras<T = any> = {
    /**
     * Send the latest message of each topic first, or of each key where the
     * topic keeps those; and again after a reconnect that could not be resumed.
     */
    snapshot?: boolean;
    /**
     * Send so many of the latest messages of each topic first.
     */
    last?: number;
    /**
     * Resume after this position; for a filter, after one
     * position per topic. The `positions` of an earlier subscription fit both.
     */
    since?: Position | TopicPosition[];
    /**
     * Be told who joins and leaves; only with a topic, not with a filter.
     */
    presence?: boolean;
    /**
     * Messages held for the loop over the subscription. Default 1,000. Up to
     * 64 KiB of them come in one batch, before the loop has its turn.
     */
    bufferMax?: number;
    /**
     * Without it, loop over the subscription.
     */
    onMessage?: (message: Message<T>) => void;
    onGap?: (gap: Gap) => void;
    onRecovered?: (recovery: Recovery) => void;
    /**
     * All that `snapshot` or `last` asked for has been given.
     */
    onSnapshotEnd?: () => void;
    /**
     * What the server grants: at first, and when it changes.
     */
    onGranted?: (terms: Terms) => void;
    /**
     * A topic has fallen silent.
     */
    onStale?: (staleness: Staleness) => void;
    /**
     * A topic that was stale is so no more.
     */
    onFresh?: (topic: {
        topic: string;
    }) => void;
    /**
     * With `presence`: who is there, at first and
     * whenever joining and leaving may have been missed.
     */
    onPresence?: (state: PresenceState) => void;
    /**
     * It may be one that `onPresence` has told already.
     */
    onJoined?: (member: Member) => void;
    onLeft?: (member: Member) => void;
    /**
     * Called once; with an error unless the
     * application ended the subscription.
     */
    onEnd?: (error?: FanfareError) => void;
};
export type Draft = {
    /**
     * A JSON value.
     */
    data?: unknown;
    text?: string;
    binary?: Uint8Array | ArrayBuffer;
    /**
     * What the message is about, for instance a row or a symbol.
     */
    key?: string;
    /**
     * What `key` names is no more: a message with a key and without a payload.
     */
    delete?: boolean;
    /**
     * After so many milliseconds it is sent to nobody who has not had it yet.
     */
    ttlMs?: number;
    /**
     * Makes a retry safe. Default: a fresh random one.
     */
    idempotencyKey?: string;
};
export type Published = Position & {
    durability: 'memory' | (string & {});
};
export type HistoryOptions = {
    /**
     * Only messages after this position; without it the latest ones.
     */
    since?: Position;
    /**
     * At most so many. Default: as many as one page holds.
     */
    limit?: number;
};
export type HistoryPage<T = any> = {
    topic: string;
    /**
     * The position of the latest message; absent if there is no such topic.
     */
    top?: Position;
    /**
     * Oldest first.
     */
    messages: Message<T>[];
    /**
     * There are further messages between the last one here and `top`.
     */
    more: boolean;
};
export type State = 'connecting' | 'connected' | 'waiting' | 'closed';
export type StateEvent = {
    /**
     * `closed` is the end; `waiting` becomes `connecting` by itself.
     */
    state: State;
    /**
     * Why the connection ended.
     */
    reason?: string;
    /**
     * The WebSocket close code.
     */
    code?: number;
    /**
     * When `waiting`: how long.
     */
    delayMs?: number;
    /**
     * When `connected`: the server and its version.
     */
    server?: string;
    /**
     * When `connected`: what the server's log calls this connection.
     */
    connection?: string;
    /**
     * When `closed` by the server.
     */
    error?: FanfareError;
};
export type ClientEvents = {
    state: StateEvent;
    /**
     * Any gap of any subscription.
     */
    gap: Gap;
    /**
     * Any recovery of any subscription.
     */
    recovered: Recovery;
    /**
     * Something odd that the client has dealt with.
     */
    warning: {
        message: string;
        detail?: unknown;
    };
};
export type WebSocketLike = {
    onopen: ((event: any) => void) | null;
    onmessage: ((event: any) => void) | null;
    onclose: ((event: any) => void) | null;
    onerror: ((event: any) => void) | null;
    send: (data: string) => void;
    close: (code?: number, reason?: string) => void;
    terminate?: () => void;
};
export type ClientOptions = {
    /**
     * Default: the global
     * one. Node 20 has none: give that of the package `ws`.
     */
    WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
    /**
     * Who this client is, for a server that wants to know.
     */
    token?: string;
    /**
     * What others who look at a topic's presence see of this client.
     */
    name?: string;
    /**
     * The first wait before a reconnect is random up to this, and the bound
     * doubles with each attempt. Default 500.
     */
    backoffMs?: number;
    /**
     * The bound does not grow beyond this. Default 30,000.
     */
    backoffMaxMs?: number;
    /**
     * A connection that lasted so long starts the backoff anew. Default 10,000.
     */
    stableMs?: number;
    /**
     * How long connecting may take. Default 10,000.
     */
    openMaxMs?: number;
    /**
     * How much longer than its ping interval the server may be silent.
     * Default 10,000.
     */
    silenceMs?: number;
    /**
     * Calls that may wait for an answer, offline or not. Default 1,000.
     */
    queueMax?: number;
    /**
     * A publish that was sent is repeated after a reconnect only for so
     * long, because the server forgets idempotency keys. Default 240,000.
     */
    retryMaxMs?: number;
    /**
     * Topics of one filter that a reconnect can resume. Default 1,024.
     */
    positionsMax?: number;
};
export type Emit = <E extends keyof ClientEvents>(event: E, detail: ClientEvents[E]) => void;
/**
 * Connects to a Fanfare server, and reconnects until `close()`.
 * @param {string | URL} url For instance `wss://example.org/ws`; in a page also `/ws`.
 * @param {ClientOptions} [options]
 * @returns {Client}
 */
export declare function connect(url: string | URL, options?: ClientOptions): Client;
/** A refusal by the server, or by the client itself: then `code` is 0. */
export declare class FanfareError extends Error {
    code: number;
    retry: "later" | "never" | "refresh" | "resume" | (string & {});
    /**
     * @param {number} code The number that programs compare.
     * @param {string} name The name of the reason: `badTopic`, `queueFull`, …
     * @param {'never' | 'later' | 'refresh' | 'resume' | (string & {})} retry What to do about it.
     * @param {string} message The sentence for a person.
     */
    constructor(code: number, name: string, retry: 'never' | 'later' | 'refresh' | 'resume' | (string & {}), message: string);
}
export type Call = {
    action: string;
    frame: string;
    /**
     * Whether `queueMax` counts it.
     */
    counted?: boolean;
    /**
     * Where it was sent last.
     */
    socket?: WebSocketLike | null;
    /**
     * By the wall clock.
     */
    firstSent?: number;
    /**
     * By the steady clock.
     */
    lastSent?: number;
    resolve: (answer: any, call: Call) => void;
    reject: (error: FanfareError) => void;
};
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
export declare class Client {
    #private;
    /** @param {string | URL} url @param {ClientOptions} options */
    constructor(url: string | URL, options: ClientOptions);
    /** Where the connection stands. */
    get state(): State;
    /**
     * Calls `handler` for each event of a kind. Returns a function that ends that.
     * @template {keyof ClientEvents} E
     * @param {E} event
     * @param {(detail: ClientEvents[E]) => void} handler
     * @returns {() => void}
     */
    on<E extends keyof ClientEvents>(event: E, handler: (detail: ClientEvents[E]) => void): () => void;
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
    subscribe<T = any>(topic: string, options?: SubscribeOptions<T>): Subscription<T>;
    /**
     * Publishes a message. While there is no connection it waits; after a reconnect it is sent again
     * with the same idempotency key if its answer is missing.
     * @param {string} topic
     * @param {Draft} draft
     * @returns {Promise<Published>} Rejected with a `FanfareError`. If nobody looks at the promise, a
     *   rejection disturbs nobody.
     * @throws {TypeError} The draft is none.
     */
    publish(topic: string, draft: Draft): Promise<Published>;
    /**
     * Asks for messages that a topic still holds.
     * @template [T=any]
     * @param {string} topic
     * @param {HistoryOptions} [options]
     * @returns {Promise<HistoryPage<T>>}
     */
    history<T = any>(topic: string, { since, limit }?: HistoryOptions): Promise<HistoryPage<T>>;
    /**
     * Asks who is subscribed to exactly this topic.
     * @param {string} topic
     * @returns {Promise<PresenceState>}
     */
    presence(topic: string): Promise<PresenceState>;
    /** Asks the server for a sign of life. @returns {Promise<number>} How long it took, in milliseconds. */
    ping(): Promise<number>;
    /** Ends every subscription and the connection, for good. */
    close(): void;
}
/**
 * The terms of one feed: what was asked for, what changes of it the server has not answered yet, and
 * what it grants. At most one change is under way; others meanwhile become one that comes after it.
 */
declare class Agreement {
    #private;
    /** What the server grants; with each of its answers another object. @type {Terms | undefined} */
    granted: Terms | undefined;
    /** @param {TermsOptions} asked */
    constructor(asked: TermsOptions);
    /** What granted says, if that is every message and nothing is about to change it. */
    get dense(): Terms | undefined;
    /** What is asked for, whether the server has heard of it or not. */
    get wanted(): {
        policy: Policy | undefined;
        maxHz: number | undefined;
        overflow: Overflow | undefined;
    };
    /** @param {TermsOptions} terms @returns {Promise<Terms>} */
    change(terms: TermsOptions): Promise<Terms>;
    /** The change to send now, if there is one and none is under way. */
    next(): TermsOptions | undefined;
    /** Everything, for a command to subscribe. */
    all(): {
        policy: Policy | undefined;
        maxHz: number | undefined;
        overflow: Overflow | undefined;
    };
    /** There will be no answer: what was under way has to be sent again. */
    lost(): void;
    /** Returns whether that is another grant than before. @param {any} answer */
    grant({ policy, maxHz, overflow }: any): boolean;
    /** Forgets the change that is under way. Returns whether there was one. @param {FanfareError} error */
    refuse(error: FanfareError): boolean;
    /** @param {FanfareError} error */
    end(error: FanfareError): void;
}
export type Change = {
    terms: TermsOptions;
    outcome: ReturnType<typeof deferred>;
};
export type Place = {
    /**
     * Unknown while a filter's snapshot is under way.
     */
    epoch: string | undefined;
    /**
     * The last offset that was given; -1 until the first of what comes first.
     */
    seen: number;
    /**
     * Live messages come after this; up to it, holes are not worth a word.
     */
    floor: number;
    /**
     * The terms under which the message at `seen` came, if they pass over none.
     */
    dense?: Terms;
    /**
     * What is missing in what is kept, for subscriptions that join a snapshot later.
     */
    gap?: Gap;
};
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
declare class Feed {
    #private;
    topic: string;
    filter: boolean;
    /** Whether the server has accepted it on this connection. */
    live: boolean;
    attempt: number;
    duplicates: number;
    agreement: Agreement;
    /** The topics that are stale, and since when. @type {Map<string, number | undefined>} */
    stale: Map<string, number | undefined>;
    /** Waits to try again. @type {ReturnType<typeof setTimeout> | undefined} */
    timer: ReturnType<typeof setTimeout> | undefined;
    /**
     * @param {string} topic
     * @param {ReturnType<typeof askedBy>} asked
     * @param {number} positionsMax
     * @param {Emit} emit
     */
    constructor(topic: string, asked: ReturnType<typeof askedBy>, positionsMax: number, emit: Emit);
    /** Whether it is told who joins and leaves. */
    get presence(): boolean;
    /** @param {string} topic */
    matches(topic: string): boolean;
    /** @param {string} topic */
    epoch(topic: string): string | undefined;
    /**
     * Why a subscription that asks for this cannot be given it from here, if so.
     * @param {ReturnType<typeof askedBy>} asked
     */
    refusal(asked: ReturnType<typeof askedBy>): FanfareError | undefined;
    /** @param {Subscription} subscription */
    add(subscription: Subscription): void;
    /** Returns how many are left. @param {Subscription} subscription */
    remove(subscription: Subscription): number;
    /** @param {FanfareError} [error] */
    end(error?: FanfareError): void;
    lost(): void;
    /** The places from which this feed can resume, the one used last first. @returns {TopicPosition[]} */
    positions(): TopicPosition[];
    /** Whether something is to come first, closed by `snapshotEnd`. */
    get fills(): boolean;
    /** Whether that is coming now. */
    get filling(): boolean;
    /** What to ask the server for. */
    command(): {
        topic: string;
        snapshot: true | undefined;
        last: number | undefined;
        presence: true | undefined;
        since: Position | undefined;
        positions: TopicPosition[] | undefined;
        policy: Policy | undefined;
        maxHz: number | undefined;
        overflow: Overflow | undefined;
    };
    /**
     * Forgets a change of terms, or positions, that the server does not take. Returns whether another try
     * makes sense.
     * @param {FanfareError} error
     */
    forget(error: FanfareError): boolean;
    /** @param {{ position?: unknown, recovered?: unknown, reason?: unknown, topics?: unknown, stale?: unknown }} answer */
    subscribed(answer: {
        position?: unknown;
        recovered?: unknown;
        reason?: unknown;
        topics?: unknown;
        stale?: unknown;
    }): void;
    /** The server has answered what terms it grants. @param {any} answer */
    granted(answer: any): void;
    /** Whether this feed has had all that is before. @param {string} topic @param {number} offset */
    follows(topic: string, offset: number): boolean;
    /**
     * @param {Message} message
     * @param {string} [epoch] As far as any feed knows it.
     * @param {Terms} [dense] The terms that count for the topic, if they pass over no message.
     */
    take(message: Message, epoch?: string, dense?: Terms): void;
    /** @param {TopicPosition} position */
    place(position: TopicPosition): void;
    /** @param {Gap} gap @param {Terms} [dense] As for a message. */
    gap({ topic, from, to, count, reason }: Gap, dense?: Terms): void;
    /** @param {TopicPosition[]} positions */
    snapshotEnd(positions: TopicPosition[]): void;
    /** @param {string} topic @param {unknown} [since] */
    becameStale(topic: string, since?: unknown): void;
    /** @param {string} topic */
    becameFresh(topic: string): void;
    /**
     * @template {Callback} C
     * @param {C} callback
     * @param {Detail<C>} detail
     */
    tell<C extends Callback>(callback: C, detail: Detail<C>): void;
}
export type Callback = 'onGap' | 'onRecovered' | 'onSnapshotEnd' | 'onGranted' | 'onStale' | 'onFresh' | 'onPresence' | 'onJoined' | 'onLeft';
export type Detail<C extends Callback> = Parameters<NonNullable<SubscribeOptions[C]>>[0];
/** @typedef {'onGap' | 'onRecovered' | 'onSnapshotEnd' | 'onGranted' | 'onStale' | 'onFresh' | 'onPresence' | 'onJoined' | 'onLeft'} Callback */
/** @template {Callback} C @typedef {Parameters<NonNullable<SubscribeOptions[C]>>[0]} Detail */
/**
 * A subscription: its callbacks run, or a `for await` loop gives its messages. Leaving the loop
 * unsubscribes. Made by `subscribe`.
 * @template [T=any]
 */
export declare class Subscription<T = any> {
    #private;
    /**
     * @param {Feed} feed
     * @param {SubscribeOptions<T>} options
     * @param {Emit} emit
     * @param {{ leave: () => void, update: (change: TermsOptions) => Promise<Terms> }} actions
     */
    constructor(feed: Feed, options: SubscribeOptions<T>, emit: Emit, actions: {
        leave: () => void;
        update: (change: TermsOptions) => Promise<Terms>;
    });
    /** The topic or filter. */
    get topic(): string;
    /** Fulfilled when the server has accepted, rejected when it has refused. @returns {Promise<void>} */
    get ready(): Promise<void>;
    /** The last position of each topic, the one used last first: to be given as `since`. */
    get positions(): TopicPosition[];
    /** What the server grants, which may be less than was asked for; undefined until it has said so. */
    get policy(): Policy | (string & {}) | undefined;
    /** At most so many rounds a second for each topic, if the policy is `maxHz`. */
    get maxHz(): number | undefined;
    /** What the server does when this client falls behind; undefined if that is left to the topic's rule. */
    get overflow(): Overflow | (string & {}) | undefined;
    /** Whether the topic is stale; of a filter, whether any of its topics is. */
    get stale(): boolean;
    /** How many messages were dropped because they had been given before. */
    get duplicates(): number;
    /**
     * Changes the terms while messages flow, also for others that share this subscription, and for after a
     * reconnect. Changes that follow each other quickly may become one; the last one counts.
     * @param {TermsOptions} change What is left out stays as it is.
     * @returns {Promise<Terms>} What is granted. Rejected with a `FanfareError` if the server refuses; then
     *   everything stays as it was. If nobody looks at the promise, a rejection disturbs nobody.
     * @throws {TypeError} `maxHz` is no number.
     */
    update(change: TermsOptions): Promise<Terms>;
    unsubscribe(): void;
    /** @returns {AsyncGenerator<Message<T>, void, void>} */
    [Symbol.asyncIterator](): AsyncGenerator<Message<T>, void, void>;
}
/** A promise that others settle. Nobody is forced to look at its failure. */
declare function deferred(): {
    promise: Promise<any>;
    resolve: (value: any) => void;
    reject: (error: unknown) => void;
};
/** What a subscription asks the server for. @param {string} topic @param {SubscribeOptions<any>} options */
declare function askedBy(topic: string, options: SubscribeOptions<any>): {
    past: {
        positions: TopicPosition[];
        snapshot: boolean;
        last: number;
        latest: number;
    };
    terms: TermsOptions;
    presence: boolean;
};
export {};
