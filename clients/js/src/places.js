/**
 * Where each topic of a stream of server-sent events stands, so that the next stream can go on there.
 *
 * Invariant: a place is that of what has been handed on, never of what is still to come.
 * @module
 */

/** @import { Entry } from './stream.js' */

import { isFilter, matches } from './small.js';

export class Places {
  /** The one used last at the end. @type {Map<string, { epoch: string, offset: number }>} */
  #places = new Map();

  /** @param {string} topic */
  has(topic) {
    return this.#places.has(topic);
  }

  /** How a query says where a topic, or each topic of a filter, stands. @param {string} topic @returns {string[]} */
  since(topic) {
    if (!isFilter(topic)) {
      const place = this.#places.get(topic);
      return place ? [`${place.epoch}:${place.offset}`] : [];
    }
    const within = [...this.#places].filter(([name]) => matches(topic, name));
    return within.map(([name, { epoch, offset }]) => `${name}@${epoch}:${offset}`);
  }

  /** Forgets the oldest until the query fits. @param {Entry[]} entries @param {number} bytesMax */
  keep(entries, bytesMax) {
    const exact = new Set(entries.map(({ body }) => body.topic));
    let bytes = 0;
    for (const [topic] of [...this.#places].reverse()) {
      bytes += topic.length + 60;
      const wanted = entries.some(({ body }) => body.topic === topic || (isFilter(body.topic) && matches(body.topic, topic)));
      if (!wanted || (bytes > bytesMax && !exact.has(topic))) this.#places.delete(topic);
    }
  }

  /** A subscription has begun. @param {any} body What was asked for. @param {any} subscribed */
  begin({ topic, since, positions = [], snapshot, last }, { position, recovered, topics = [] }) {
    if (recovered === true) this.#put(topic, since);
    else if (position && !snapshot && !last) this.#put(topic, position);
    for (const outcome of topics) {
      const asked = positions.find((/** @type {any} */ position) => position.topic === outcome.topic);
      if (!this.has(outcome.topic) && outcome.position) this.#put(outcome.topic, outcome.recovered ? asked : outcome.position);
    }
  }

  /** @param {any} event */
  take({ message, gap, position, snapshotEnd }) {
    if (message) this.#move(message.topic, message.offset);
    if (gap) this.#move(gap.topic, gap.to);
    for (const place of [position, ...(snapshotEnd?.positions ?? [])]) if (place) this.#put(place.topic, place);
  }

  /** @param {string} topic @param {number} offset */
  #move(topic, offset) {
    const place = this.#places.get(topic);
    if (place) this.#put(topic, { epoch: place.epoch, offset });
  }

  /** @param {string} topic @param {{ epoch: string, offset: number }} place */
  #put(topic, { epoch, offset }) {
    const before = this.#places.get(topic);
    this.#places.delete(topic);
    const known = before?.epoch === epoch ? before.offset : 0;
    this.#places.set(topic, { epoch, offset: Math.max(known, offset) });
  }
}
