/**
 * What the server tells unasked, and which feeds are to hear of it.
 *
 * Invariant: what was asked to come first reaches who asked for it, and nobody who is beyond it.
 * @module
 */

/** @import { Feed } from './feed.js' */
/** @import { Link } from './link.js' */

import { failure, word } from './errors.js';
import { LONG_MS } from './link.js';
import { isOffset, isTopicPosition, listOf, member, message, need, presenceState } from './words.js';

/**
 * The feeds of a client.
 * @typedef {object} Feeds
 * @property {Map<string, Feed>} _all By topic or filter.
 * @property {Set<Feed>} _filters Those with a filter; the server allows few.
 * @property {Set<Feed>} _left Left, though what they asked to come first is still coming.
 * @property {(feed: Feed) => void} _forget
 */

/**
 * By the name of the event, and of nothing else.
 * @param {Feeds} feeds
 * @param {Link} link
 * @returns {Record<string, (body: any) => void>}
 */
export function makePushes({ _all, _filters, _left, _forget }, link) {
  return {
    // @ts-ignore: names that every object knows are no events.
    __proto__: null,
    message(body) {
      const { topic, offset } = message(body);
      const feeds = takers(topic, offset);
      const epoch = feeds.map((feed) => feed._epoch(topic)).find(Boolean);
      const dense = denseOf(topic);
      for (const feed of feeds) feed._take(body, epoch, dense);
    },
    position(body) {
      need(isTopicPosition(body));
      for (const feed of route(body.topic)) feed._place(body);
    },
    gap(gap) {
      need(isOffset(gap.from) && isOffset(gap.to));
      const dense = denseOf(gap.topic);
      for (const feed of takers(gap.topic, gap.from)) feed._gap(gap, dense);
    },
    snapshotEnd({ topic, positions = [] }) {
      listOf(positions, isTopicPosition);
      const gone = [..._left].find((feed) => feed._topic === topic);
      if (gone) _left.delete(gone);
      else _all.get(topic)?._snapshotEnd(positions);
    },
    presenceState: (body) => tell(body, 'onPresence', presenceState(body)),
    joined: (body) => tell(body, 'onJoined', member(body.member)),
    left: (body) => tell(body, 'onLeft', member(body.member)),
    stale({ topic, since }) {
      for (const feed of route(topic)) feed._becameStale(topic, since);
    },
    fresh({ topic }) {
      for (const feed of route(topic)) feed._becameFresh(topic);
    },
    reconnect({ afterMs = 0 }) {
      need(isOffset(afterMs));
      link._afterMs = Math.min(afterMs, LONG_MS);
    },
    unsubscribed({ topic, reason }) {
      const feed = _all.get(topic);
      // One that is not live yet has been opened anew: the event is about its predecessor.
      if (!feed?._live) return;
      _forget(feed);
      feed._end(failure(word(reason) || 'unsubscribed', `the server ended the subscription to ${topic}`));
    },
  };

  /** @param {{ topic: string }} body @param {'onPresence' | 'onJoined' | 'onLeft'} callback @param {any} detail */
  function tell({ topic }, callback, detail) {
    const feed = _all.get(topic);
    if (feed?._live && feed._presence) feed._tell(callback, detail);
  }

  /** The live feed of exactly this topic. @param {string} topic */
  function exactly(topic) {
    const feed = _all.get(topic);
    return feed?._live && !feed._filter ? feed : undefined;
  }

  /** The live feeds that a topic belongs to. @param {string} topic */
  function route(topic) {
    need(typeof topic === 'string');
    const exact = exactly(topic);
    const feeds = exact ? [exact] : [];
    for (const feed of _filters) if (feed._live && feed._matches(topic)) feeds.push(feed);
    return feeds;
  }

  /**
   * The feeds to be told of a message, or of a gap that begins at `offset`. What was asked to come first
   * is for who asked: it may have holes, and be older than what the others asked for.
   * @param {string} topic
   * @param {number} offset
   */
  function takers(topic, offset) {
    const feeds = route(topic);
    const first = feeds.some((feed) => feed._filling) || [..._left].some((feed) => feed._matches(topic));
    return first ? feeds.filter((feed) => feed._filling || feed._follows(topic, offset)) : feeds;
  }

  /**
   * The terms under which the server passes over no message of a topic, if that is certain. It is where
   * there is a subscription to exactly this topic, because its terms are the ones that count. What comes
   * by a filter may be paced by a rule for some of its topics, and nobody tells for which.
   * @param {string} topic
   */
  function denseOf(topic) {
    return exactly(topic)?._agreement._dense;
  }
}
