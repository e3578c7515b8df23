/**
 * The latest message of each key of each topic, for subscriptions that join a snapshot later. Messages
 * without a key are of the same one.
 * @module
 */

/** @import { Message } from './types.js' */

/** Messages that one feed keeps. */
const KEPT_MAX = 10_000;

export class Kept {
  /** Whether there were too many to keep. */
  _full = false;
  /** @type {Map<string, Map<string, Message>>} */
  #topics = new Map();
  #size = 0;

  /** Returns how many keys of its topic there are. @param {Message} message */
  _take(message) {
    const { topic, key = '', deleted } = message;
    const keys = this.#topics.get(topic) ?? new Map();
    if (keys.delete(key)) this.#size -= 1;
    if (!deleted && this.#size < KEPT_MAX) {
      // At the end, so that the offsets of a topic rise.
      this.#topics.set(topic, keys.set(key, message));
      this.#size += 1;
    } else if (!deleted) {
      this._full = true;
    }
    return keys.size;
  }

  /** @param {string} topic */
  _messages(topic) {
    return this.#topics.get(topic)?.values() ?? [];
  }

  /** @param {string} topic */
  _forget(topic) {
    this.#size -= this.#topics.get(topic)?.size ?? 0;
    this.#topics.delete(topic);
  }
}
