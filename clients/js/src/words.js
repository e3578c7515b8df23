/**
 * Reads what the server says: what has not the shape that it must have ends in a `TypeError`.
 * @module
 */

/** @import { HistoryPage, Member, Position, PresenceState, Terms, TopicPosition } from './types.js' */

import { word } from './errors.js';

/** @param {unknown} fits @returns {asserts fits} */
export function need(fits) {
  if (!fits) throw new TypeError('an event is not understood');
}

/** @param {unknown} value @returns {value is number} */
export function isOffset(value) {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/** @param {any} value @returns {value is Position} */
export function isPosition(value) {
  return typeof value?.epoch === 'string' && isOffset(value.offset);
}

/** @param {any} value @returns {value is TopicPosition} */
export function isTopicPosition(value) {
  return isPosition(value) && typeof (/** @type {any} */ (value).topic) === 'string';
}

/** A list, in which each has that shape. @param {any} [list] @param {(item: any) => any} [fits] @returns {any[]} */
export function listOf(list = [], fits = (item) => item) {
  need(Array.isArray(list) && list.every(fits));
  return list;
}

/** @param {any} position @returns {Position} */
export function position({ epoch, offset }) {
  return { epoch, offset };
}

/** Turns the payload into what the application sees. @param {any} message */
export function message(message) {
  need(typeof message.topic === 'string' && isOffset(message.offset));
  if (message.base64 !== undefined) {
    message.binary = Uint8Array.from(atob(message.base64), (char) => char.charCodeAt(0));
    delete message.base64;
  }
  return message;
}

/** @param {any} answer */
export function published(answer) {
  need(isPosition(answer));
  return answer;
}

/** @param {any} page @returns {HistoryPage<any>} */
export function historyPage({ topic, top, messages, more }) {
  need(top === undefined || isPosition(top));
  const list = listOf(messages);
  for (const each of list) message(each).epoch = top?.epoch;
  return { topic, top, messages: list, more: more === true };
}

/** @param {any} state @returns {PresenceState} */
export function presenceState({ topic, count, members, more }) {
  need(isOffset(count));
  return { topic, count, members: listOf(members).map(member), more: more === true };
}

/** @param {any} member @returns {Member} */
export function member({ connection, name }) {
  need(typeof connection === 'string');
  return { connection, name: word(name) };
}

/** @param {any} answer @returns {Terms} */
export function terms({ policy, maxHz, overflow }) {
  return Object.freeze({
    policy: word(policy) || 'all',
    maxHz: Number.isFinite(maxHz) ? maxHz : undefined,
    overflow: word(overflow) || undefined,
  });
}
