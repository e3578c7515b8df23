/**
 * Reads what the application asks for: what cannot be meant ends in a `TypeError`.
 * @module
 */

/** @import { Draft, SubscribeOptions, TermsOptions } from './types.js' */

import { isFilter } from './small.js';
import { isTopicPosition } from './words.js';

/** @typedef {ReturnType<typeof askedBy>} Asked What a subscription asks for. */

/** @param {string} topic @param {SubscribeOptions<any>} options */
export function askedBy(topic, options) {
  const { since = [], snapshot = false, last = 0, presence = false } = options;
  const filter = isFilter(topic);
  /** @type {any[]} */
  const list = Array.isArray(since) ? since : [{ ...since, topic: filter || topic }];
  const positions = list.filter((position) => filter || position.topic === topic);
  if (!positions.every(isTopicPosition)) {
    throw new TypeError('since must be a position, for a filter a list of them with topics');
  }
  // A snapshot is at least the latest message.
  const past = { positions, snapshot, last, latest: Math.max(last, Number(snapshot)) };
  return { past, terms: termsAsked(options), presence };
}

/** @param {TermsOptions} options @returns {TermsOptions} */
export function termsAsked({ policy, maxHz, overflow }) {
  finite({ maxHz });
  return { policy: policy ?? (maxHz === undefined ? undefined : 'maxHz'), maxHz, overflow };
}

/** The terms after a change, which leaves as it is what it leaves out. @param {TermsOptions} terms @param {TermsOptions} [change] */
export function changed({ policy, maxHz, overflow } = {}, change = {}) {
  const kept = change.policy === undefined ? { policy, maxHz } : { policy: change.policy, maxHz: change.maxHz };
  return { ...kept, overflow: change.overflow ?? overflow };
}

/** @param {Draft} draft */
export function drafted(draft) {
  const { data, text, binary, key, ttlMs, idempotencyKey = randomKey() } = draft;
  const payloads = [data, text, binary].filter((payload) => payload !== undefined).length;
  if (draft.delete === true ? payloads > 0 || !key : payloads !== 1) {
    throw new TypeError('a message has exactly one of data, text and binary; a delete has a key instead');
  }
  finite({ ttlMs });
  const bytes = binary && new Uint8Array(binary);
  return { data, text, binary: bytes, key, delete: draft.delete || undefined, ttlMs, idempotencyKey };
}

/** JSON would turn it into null, and the server would take that for none. @param {Record<string, unknown>} numbers */
function finite(numbers) {
  for (const [name, value] of Object.entries(numbers)) {
    if (value !== undefined && !Number.isFinite(value)) throw new TypeError(`${name} must be a number`);
  }
}

function randomKey() {
  // Not `randomUUID`: a page that was not loaded by TLS has none.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
