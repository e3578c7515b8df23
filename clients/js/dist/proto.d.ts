/**
 * The protobuf spelling, to be given to `connect` as `spelling`: smaller on the wire, and bytes as bytes.
 *
 * Invariants: bytes that are no event end in an error, whatever they are; fields that are not known are
 * passed over; nothing is read beyond the message that it stands in.
 * @module fanfare-client/proto
 */
import type { Spelling } from './types.js';
/** @type {Spelling} */
export declare const proto: Spelling;
