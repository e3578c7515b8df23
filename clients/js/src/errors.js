/**
 * What goes wrong: errors that the server tells, and those that the client makes itself.
 * @module
 */

import { FanfareError } from './error.js';

/** An error of the client's own. @param {string} name @param {string} message */
export function failure(name, message, retry = 'never') {
  return new FanfareError(0, name, retry, message);
}

/** What the server says in an `error`, or a close in its reason. @param {any} error */
export function refusal({ code, name, retry, message }) {
  return new FanfareError(Number.isSafeInteger(code) ? code : 0, word(name), word(retry), word(message));
}

/** A word of the server's; the empty one if it is none. @param {unknown} value */
export function word(value) {
  return typeof value === 'string' ? value : '';
}

/** Whether a close code says that coming back is of no use. @param {number} code */
export function isTerminal(code) {
  return /^(100[02379]|4[5-9]..)$/.test(String(code));
}

/** The reason of a close is written `name: sentence`. @param {number} code @param {string} reason */
export function closeError(code, reason) {
  const [, name = 'closed', message = `the server closed with ${code}`] = /^(\w+): (.+)$/.exec(reason) ?? [];
  return new FanfareError(code, name, 'never', message);
}

export const closed = () => failure('closed', 'the client was closed');

export const unsubscribed = () => failure('unsubscribed', 'the application ended the subscription');

export const unknownOutcome = () => failure('unknown', 'the outcome is not known', 'later');
