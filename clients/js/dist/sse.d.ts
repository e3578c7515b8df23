/**
 * What stands in for a WebSocket where there can be none: Server-Sent Events for what comes, HTTP for
 * what goes. It looks like a WebSocket that speaks JSON, and is loaded only when it is needed.
 *
 * Owns the subscriptions of one stream and where each topic stands, because every change of them is
 * another stream that goes on where the one before was left.
 *
 * Invariants: at most one stream is read; publishing keeps its order; what a change of streams may have
 * missed is told or asked for.
 * @module
 */
export declare class EventStream {
    #private;
    protocol: string;
    /** @type {((event: any) => void) | null} */
    onopen: ((event: any) => void) | null;
    /** @type {((event: any) => void) | null} */
    onmessage: ((event: any) => void) | null;
    /** @type {((event: any) => void) | null} */
    onclose: ((event: any) => void) | null;
    /** @type {((event: any) => void) | null} */
    onerror: ((event: any) => void) | null;
    /** @param {string} url That of the WebSocket, whose path ends in `/ws`. */
    constructor(url: string);
    /** @param {any} text */
    send(text: any): void;
    close(): void;
    terminate(): void;
}
