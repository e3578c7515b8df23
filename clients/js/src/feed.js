/**
 * One subscription on the server, shared by all that the application has to that topic or filter: where
 * it stands in each topic, what it resumes, and what is missing.
 *
 * Invariants: offsets of a topic rise within an epoch; whatever is missing is told, by `onGap` where the
 * hole is known and by `onRecovered` where it is not, but for what the terms allow to be passed over.
 * @module
 */

/** @import { Asked } from './asked.js' */
/** @import { Callback, Detail, Emit, Subscription } from './subscription.js' */
/** @import { Gap, Message, Position, Recovery, Terms, TopicPosition } from './types.js' */

import { Agreement } from './agreement.js';
import { changed } from './asked.js';
import { FanfareError } from './error.js';
import { unsubscribed, word } from './errors.js';
import { Kept } from './kept.js';
import { isFilter, isSame, matches } from './small.js';
import { isOffset, isPosition, listOf } from './words.js';

/** Bytes of positions in one command: the server takes messages up to 64 KiB. */
const RESUME_BYTES_MAX = 60_000;
/** Topics of one filter whose offsets are followed; of more of them a message may come twice. */
const PLACES_MAX = 65_536;
/** The server does not take the positions themselves: badPosition, tooManyPositions. */
const POSITIONS_REFUSED = [104, 111];
/** The server does not take an option: badOption. */
const OPTION_REFUSED = 105;

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
export class Feed {
  /** Whether the server has accepted it on this connection. */
  _live = false;
  _duplicates = 0;
  _agreement;
  /** The topics that are stale, and since when. @type {Map<string, number | undefined>} */
  _stale = new Map();
  #asked;
  #positionsMax;
  #emit;
  /** @type {Set<Subscription>} */
  #subscriptions = new Set();
  /** By topic, the one used last at the end. @type {Map<string, Place>} */
  #places = new Map();
  #kept = new Kept();
  /** What the last command resumed from, as far as it is unanswered. @type {Map<string, Position>} */
  #resuming = new Map();
  #opened = false;
  #filling = false;
  /** Whether a topic that turns up for the first time may have had messages while we were away. */
  #wasAway = false;
  /** Why the next command cannot resume everything. */
  #loss = '';

  /**
   * @param {string} topic
   * @param {Asked} asked
   * @param {number} positionsMax
   * @param {Emit} emit
   */
  constructor(topic, asked, positionsMax, emit) {
    this._topic = topic;
    this._filter = isFilter(topic);
    this.#asked = asked;
    this._agreement = new Agreement(asked.terms);
    this.#positionsMax = positionsMax;
    this.#emit = emit;
    for (const position of [...asked.past.positions].reverse()) this.#begin(position.topic, position);
  }

  /** Whether it is told who joins and leaves. */
  get _presence() {
    return this.#asked.presence;
  }

  /** @param {string} topic */
  _matches(topic) {
    return this._filter ? this.#places.has(topic) || matches(this._topic, topic) : this._topic === topic;
  }

  /** @param {string} topic */
  _epoch(topic) {
    return this.#places.get(topic)?.epoch;
  }

  /**
   * Why a subscription that asks for this cannot be given it from here, if so.
   * @param {Asked} asked
   */
  _refusal(asked) {
    const { positions, snapshot, last, latest } = asked.past;
    const past =
      (latest === 0 && positions.length === 0) ||
      (snapshot && last === 0 && positions.length === 0 && this.#holdsSnapshot()) ||
      (!this.#opened && isSame(asked.past, this.#asked.past));
    const terms = isSame(this._agreement._wanted, changed(this._agreement._wanted, asked.terms));
    const presence = this.#asked.presence || !asked.presence;
    if (past && terms && presence) return undefined;
    const text = `there is a subscription to ${this._topic} with other options`;
    return new FanfareError(107, 'alreadySubscribed', 'never', text);
  }

  /** Whether a subscription that comes later can be given its snapshot from here. */
  #holdsSnapshot() {
    return this.#asked.past.snapshot && !this.#kept._full && this.#places.size <= this.#positionsMax;
  }

  /** @param {Subscription} subscription */
  _add(subscription) {
    this.#subscriptions.add(subscription);
    if (!this.#opened) return;
    // Later, because the application does not have its subscription yet.
    subscription._holding = true;
    queueMicrotask(() => {
      subscription._holding = false;
      if (this._live) this.#open(subscription);
      if (!subscription._snapshot) return;
      for (const [topic, { gap }] of this.#places) {
        for (const message of this.#kept._messages(topic)) subscription._give(message);
        if (gap) subscription._tell('onGap', gap);
      }
      if (this._live && !this.#filling) subscription._tell('onSnapshotEnd', undefined);
    });
  }

  /** Tells a subscription where it stands from the beginning. @param {Subscription} subscription */
  #open(subscription) {
    subscription._opened();
    if (this._agreement._granted) subscription._tell('onGranted', this._agreement._granted);
    for (const [topic, since] of this._stale) subscription._tell('onStale', { topic, since });
  }

  /** Returns how many are left. @param {Subscription} subscription */
  _remove(subscription) {
    this.#subscriptions.delete(subscription);
    return this.#subscriptions.size;
  }

  /** @param {FanfareError} [error] */
  _end(error) {
    this._lost();
    this._agreement._end(error ?? unsubscribed());
    for (const subscription of this.#subscriptions) subscription._end(error);
  }

  _lost() {
    this._live = false;
    this._agreement._lost();
    // What the rest of a filter's snapshot would have held is not known; nor is it of a topic's, before
    // the first of its messages: they rise, so from that one on it can be resumed.
    const { seen = -1 } = this.#places.get(this._topic) ?? {};
    if (this.#filling && (this._filter || seen < 0)) this.#loss ||= 'noPosition';
    this.#filling = false;
  }

  /** The places from which this feed can resume, the one used last first. @returns {TopicPosition[]} */
  _positions() {
    const positions = [];
    for (const [topic, { epoch, seen }] of this.#places) {
      if (epoch && seen >= 0) positions.push({ topic, epoch, offset: seen });
    }
    return positions.reverse();
  }

  // === Opening and resuming ===

  /** Whether something is to come first, closed by `snapshotEnd`. */
  get _fills() {
    return this.#asked.past.latest > 0;
  }

  /** Whether that is coming now. */
  get _filling() {
    return this.#filling;
  }

  /** What to ask the server for. */
  _command() {
    const { past, presence } = this.#asked;
    let bytes = 0;
    const fits = (/** @type {TopicPosition} */ position) =>
      (bytes += JSON.stringify(position).length + 1) <= RESUME_BYTES_MAX;
    const positions = this._positions().slice(0, this.#positionsMax).filter(fits);
    if (positions.length < this.#places.size) this.#loss ||= 'tooMany';
    this.#resuming = new Map(positions.map(({ topic, epoch, offset }) => [topic, { epoch, offset }]));
    for (const topic of this.#places.keys()) if (!this.#resuming.has(topic)) this.#drop(topic);
    // A loss is reported for all topics at once.
    this.#wasAway = !this.#loss && (this.#opened || positions.length > 0);
    return {
      topic: this._topic,
      // With `last` too, for its `snapshotEnd`.
      snapshot: past.latest > 0 || undefined,
      last: past.last || undefined,
      presence: presence || undefined,
      ...this._agreement._all(),
      since: this._filter ? undefined : this.#resuming.get(this._topic),
      positions: this._filter && positions.length > 0 ? positions : undefined,
    };
  }

  /**
   * Forgets a change of terms, or positions, that the server does not take. Returns whether another try
   * makes sense.
   * @param {FanfareError} error
   */
  _forget(error) {
    if (error.code === OPTION_REFUSED) return this._agreement._refuse(error);
    if (!this.#opened || this.#resuming.size === 0 || !POSITIONS_REFUSED.includes(error.code)) return false;
    for (const topic of this.#places.keys()) this.#drop(topic);
    this.#loss = error.name;
    return true;
  }

  /** @param {{ position?: unknown, recovered?: unknown, reason?: unknown, topics?: unknown, stale?: unknown }} answer */
  _subscribed(answer) {
    const loss = this.#loss;
    const told = listOf(this._filter ? answer.topics : [{ ...answer, topic: this._topic }]);
    this.#loss = '';
    this._live = true;
    this.#opened = true;
    this.#filling = this._fills;
    for (const subscription of this.#subscriptions) subscription._opened();
    this._granted(answer);
    // Of a filter's topics it is told after what comes first.
    if (!this._filter && answer.stale === true) this._becameStale(this._topic);
    else if (!this._filter) this._becameFresh(this._topic);
    if (loss) this.#recovered({ topic: this._topic, recovered: false, reason: loss });
    for (const outcome of told) this.#resumed(outcome.topic, outcome);
    for (const topic of this.#resuming.keys()) this.#resumed(topic, {});
  }

  /** The server has answered what terms it grants. @param {any} answer */
  _granted(answer) {
    if (!this._agreement._grant(answer) || !this._agreement._granted) return;
    this._tell('onGranted', this._agreement._granted);
  }

  /** @param {string} topic @param {{ position?: unknown, recovered?: unknown, reason?: unknown }} outcome */
  #resumed(topic, { position, recovered, reason = 'epochChanged' }) {
    const since = this.#resuming.get(topic);
    this.#resuming.delete(topic);
    const known = isPosition(position);
    const place = this.#places.get(topic);
    // A server that says yes to another epoch, or to a place behind, is not believed.
    if (since && place && recovered === true && known && position.epoch === since.epoch && position.offset >= since.offset) {
      // Exactly the missing ones follow, whatever came first before.
      place.floor = 0;
      place.dense = this.#dense;
      return this.#recovered({ topic, recovered });
    }
    if (known) this.#begin(topic, position, this.#asked.past.latest);
    else this.#drop(topic);
    if (since) this.#recovered({ topic, recovered: false, reason: word(reason) });
    else if (this.#wasAway) this.#recovered({ topic, recovered: false, reason: 'noPosition' });
  }

  /**
   * Begins anew in a topic whose live messages come after `offset`.
   * @param {string} topic
   * @param {Position} position
   * @param {number} replayed How many before that may come first, at least.
   */
  #begin(topic, { epoch, offset }, replayed = 0) {
    this.#kept._forget(topic);
    this.#put(topic, { epoch, seen: replayed > 0 ? -1 : offset, floor: offset, dense: this.#dense });
  }

  /** The terms under which the next message of the topic follows the one before, if that is certain. */
  get #dense() {
    return this._filter ? undefined : this._agreement._dense;
  }

  /** @param {string} topic @param {Place} place */
  #put(topic, place) {
    if (this._filter) this.#places.delete(topic);
    this.#places.set(topic, place);
    if (this.#places.size <= PLACES_MAX) return;
    const [oldest = ''] = this.#places.keys();
    this.#drop(oldest);
    this.#loss = 'tooMany';
  }

  /** @param {string} topic */
  #drop(topic) {
    this.#places.delete(topic);
    this.#kept._forget(topic);
  }

  // === Messages ===

  /** Whether this feed has had all that is before. @param {string} topic @param {number} offset */
  _follows(topic, offset) {
    const place = this.#places.get(topic);
    return place !== undefined && offset <= place.seen + 1;
  }

  /**
   * @param {Message} message
   * @param {string} [epoch] As far as any feed knows it.
   * @param {Terms} [dense] The terms that count for the topic, if they pass over no message.
   */
  _take(message, epoch, dense) {
    const { topic, offset } = message;
    const place = this.#places.get(topic) ?? this.#meet(topic, offset, epoch);
    if (offset <= place.seen) {
      this._duplicates += 1;
      return;
    }
    this.#advance(topic, place, offset, offset, dense);
    message.epoch = place.epoch;
    const keys = this.#asked.past.snapshot ? this.#kept._take(message) : 0;
    // Nothing is missed any more where there are no keys, and so nothing is kept of the time before.
    if (keys <= 1 && !message.key) place.gap = undefined;
    this.#put(topic, place);
    if (this._filter) this._becameFresh(topic);
    for (const subscription of this.#subscriptions) subscription._take(message);
  }

  /**
   * The first message of a topic whose position the server has told to another feed, or not at all.
   * @param {string} topic
   * @param {number} offset
   * @param {string} [epoch]
   * @returns {Place}
   */
  #meet(topic, offset, epoch) {
    if (this.#wasAway && offset > 1) this.#recovered({ topic, recovered: false, reason: 'noPosition' });
    const place = { epoch, seen: offset - 1, floor: 0 };
    this.#put(topic, place);
    return place;
  }

  /**
   * What is told next reaches from one offset to another: what should have come before it is lost. That
   * can be said where the same terms held all the way, and pass over nothing.
   * @param {string} topic
   * @param {Place} place
   * @param {number} from
   * @param {number} to
   * @param {Terms} [dense]
   */
  #advance(topic, place, from, to, dense) {
    const next = Math.max(place.seen, place.floor) + 1;
    const count = from - next;
    if (dense && dense === place.dense && count > 0) {
      this.#missed({ topic, from: next, to: from - 1, count, reason: 'lost' });
    }
    place.seen = to;
    // A filter's snapshot may skip offsets until its end.
    place.dense = this._filter && this.#filling ? undefined : dense;
  }

  /** @param {TopicPosition & { resumed?: boolean }} position With `resumed: false` some may be missing before it. */
  _place(position) {
    const { topic, epoch, offset } = position;
    const place = this.#places.get(topic);
    if (place && (place.epoch ?? epoch) === epoch) {
      place.epoch = epoch;
      return;
    }
    if (place) this.#recovered({ topic, recovered: false, reason: 'epochChanged' });
    else if ((this.#wasAway || position.resumed === false) && offset > 0) this.#recovered({ topic, recovered: false, reason: 'noPosition' });
    this.#begin(topic, position);
  }

  /** @param {Gap} gap @param {Terms} [dense] As for a message. */
  _gap({ topic, from, to, count, reason }, dense) {
    const place = this.#places.get(topic) ?? this.#meet(topic, from, undefined);
    const first = Math.max(from, place.seen + 1);
    if (to < first) return;
    this.#advance(topic, place, from, to, dense);
    const most = to - first + 1;
    const missing = isOffset(count) ? Math.min(count, most) : most;
    this.#missed({ topic, from: first, to, count: missing, reason: word(reason) });
  }

  /** @param {TopicPosition[]} positions */
  _snapshotEnd(positions) {
    this.#filling = false;
    for (const position of positions) {
      this._place(position);
      const place = this.#places.get(position.topic);
      if (place) place.seen = Math.max(place.seen, position.offset);
    }
    this._tell('onSnapshotEnd', undefined);
  }

  /** @param {string} topic @param {unknown} [since] */
  _becameStale(topic, since) {
    if (this._stale.has(topic) || this._stale.size >= PLACES_MAX) return;
    const known = isOffset(since) && Number(since) > 0 ? Number(since) : undefined;
    this._stale.set(topic, known);
    this._tell('onStale', { topic, since: known });
  }

  /** @param {string} topic */
  _becameFresh(topic) {
    if (this._stale.delete(topic)) this._tell('onFresh', { topic });
  }

  // === Telling ===

  /**
   * @template {Callback} C
   * @param {C} callback
   * @param {Detail<C>} detail
   */
  _tell(callback, detail) {
    for (const subscription of this.#subscriptions) subscription._tell(callback, detail);
  }

  /** @param {Gap} gap */
  #missed(gap) {
    const place = this.#places.get(gap.topic);
    if (place) place.gap = { ...gap, from: place.gap?.from ?? gap.from, count: (place.gap?.count ?? 0) + gap.count };
    this.#emit('gap', gap);
    for (const subscription of this.#subscriptions) if (!subscription._holding) subscription._tell('onGap', gap);
  }

  /** @param {Recovery} recovery */
  #recovered(recovery) {
    const { topic, recovered } = recovery;
    // Of a filter's topics it is told anew which are stale.
    const doubtful = this._filter && !recovered ? [...this._stale.keys()] : [];
    for (const name of doubtful) if (topic === this._topic || topic === name) this._becameFresh(name);
    this.#emit('recovered', recovery);
    this._tell('onRecovered', recovery);
  }
}
