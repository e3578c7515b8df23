/**
 * The fields of `proto/fanfare/v1/fanfare.proto`, as far as a client writes or reads them.
 *
 * A field is its number, its name in JSON and its kind. Invariant: kinds in lower case are always there,
 * at their default if nothing was sent, as the JSON spelling has it; those in upper case only if sent.
 * @module
 */

/**
 * `s`tring, `u`nsigned integer, `b`oolean, `d`ouble, b`y`tes, `j`son in bytes; an array is an enumeration,
 * whose first name is number 1; an object is a message, and `many` of them a list.
 * @typedef {'s' | 'S' | 'u' | 'U' | 'b' | 'B' | 'D' | 'Y' | 'J' | readonly string[] | Fields | Many} Kind
 * @typedef {{ [number: number]: readonly [name: string, kind: Kind] }} Fields
 * @typedef {{ each: Fields, always: boolean }} Many
 */

/** @param {Fields} each @param {boolean} [always] @returns {Many} */
const many = (each, always = false) => ({ each, always });

const POLICY = ['all', 'latest', 'maxHz'];
const OVERFLOW = ['gap', 'disconnect', 'catchUp'];
const RETRY = ['never', 'later', 'refresh', 'resume'];
const FAILURE = ['epochChanged', 'trimmed', 'expired', 'tooMany', 'notAllowed', 'engineUnavailable'];
const GAP = ['slow', 'trimmed', 'expired'];
const DURABILITY = ['memory'];

/** @type {Fields} */
const topic = { 1: ['topic', 's'] };
/** @type {Fields} */
const position = { 1: ['epoch', 's'], 2: ['offset', 'u'] };
/** @type {Fields} */
const topicPosition = { ...topic, 2: ['epoch', 's'], 3: ['offset', 'u'] };
/** @type {Fields} */
const member = { 1: ['connection', 's'], 2: ['name', 'S'] };
/** @type {Fields} */
const attendance = { ...topic, 2: ['member', member] };
/** @type {Fields} */
const message = {
  ...topic,
  2: ['offset', 'u'],
  3: ['time', 'u'],
  4: ['key', 'S'],
  5: ['data', 'J'],
  6: ['text', 'S'],
  7: ['binary', 'Y'],
  8: ['deleted', 'B'],
};
/** @type {Fields} */
const token = { 1: ['token', 'S'] };
/** @type {Fields} */
const recovery = { ...topic, 2: ['position', position], 3: ['recovered', 'b'], 4: ['reason', FAILURE] };

/** @type {Fields} */
export const COMMAND = {
  1: ['id', 'u'],
  2: ['connect', { ...token, 2: ['batch', 'B'], 3: ['name', 'S'] }],
  3: ['subscribe', {
    ...topic,
    2: ['since', position],
    3: ['last', 'U'],
    4: ['snapshot', 'B'],
    5: ['overflow', OVERFLOW],
    6: ['positions', many(topicPosition)],
    7: ['policy', POLICY],
    8: ['maxHz', 'D'],
    9: ['presence', 'B'],
  }],
  4: ['unsubscribe', topic],
  5: ['update', { ...topic, 5: ['overflow', OVERFLOW], 7: ['policy', POLICY], 8: ['maxHz', 'D'] }],
  6: ['publish', {
    ...topic,
    2: ['data', 'J'],
    3: ['text', 'S'],
    4: ['binary', 'Y'],
    5: ['key', 'S'],
    6: ['idempotencyKey', 'S'],
    7: ['delete', 'B'],
    8: ['ttlMs', 'U'],
  }],
  7: ['history', { ...topic, 2: ['since', position], 3: ['limit', 'U'] }],
  8: ['presence', topic],
  9: ['refresh', token],
  10: ['ping', {}],
};

/** @type {Fields} */
export const EVENT = {
  1: ['id', 'U'],
  2: ['message', message],
  3: ['connected', { 1: ['connection', 's'], 2: ['server', 's'], 3: ['pingMs', 'u'], 4: ['batch', 'B'], 5: ['expiresMs', 'U'] }],
  4: ['subscribed', {
    ...topic,
    2: ['position', position],
    3: ['recovered', 'B'],
    4: ['reason', FAILURE],
    5: ['topics', many(recovery)],
    6: ['policy', POLICY],
    7: ['maxHz', 'D'],
    8: ['overflow', OVERFLOW],
    9: ['stale', 'B'],
  }],
  5: ['unsubscribed', { ...topic, 2: ['reason', 'S'] }],
  6: ['updated', { ...topic, 2: ['policy', POLICY], 3: ['maxHz', 'D'], 4: ['overflow', OVERFLOW] }],
  7: ['published', { ...position, 3: ['durability', DURABILITY] }],
  8: ['error', { 1: ['code', 'u'], 2: ['name', 's'], 3: ['retry', RETRY], 4: ['message', 's'] }],
  9: ['gap', { ...topic, 2: ['from', 'u'], 3: ['to', 'u'], 4: ['count', 'u'], 5: ['reason', GAP] }],
  10: ['snapshotEnd', { ...topic, 2: ['positions', many(topicPosition, true)] }],
  11: ['pong', {}],
  12: ['ping', {}],
  13: ['reconnect', { 1: ['afterMs', 'U'] }],
  14: ['historyPage', { ...topic, 2: ['top', position], 3: ['messages', many(message, true)], 4: ['more', 'b'] }],
  15: ['position', topicPosition],
  16: ['presenceState', { ...topic, 2: ['count', 'u'], 3: ['members', many(member, true)], 4: ['more', 'b'] }],
  17: ['joined', attendance],
  18: ['left', attendance],
  19: ['stale', { ...topic, 2: ['since', 'U'] }],
  20: ['fresh', topic],
  21: ['refreshed', { 1: ['expiresMs', 'U'] }],
};
