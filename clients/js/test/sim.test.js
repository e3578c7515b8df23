/**
 * The client against a broker that restarts, over connections that are cut, slowed and robbed, from
 * seeds. A checker reads what each subscription was told: rising offsets, no silent hole but what its
 * terms allow, no false alarm, and the last message of every key.
 * `SEED=7 node --test test/sim.test.js` plays one seed.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../src/fanfare.js';
import { Broker, linkClass, matches } from './model.js';

const SEEDS = process.env.SEED ? [Number(process.env.SEED)] : Array.from({ length: 500 }, (_, i) => i + 1);
const STEPS = 250;
const TOPICS = ['a.x', 'a.y', 'b.x', 'b.y.z'];
const FILTERS = ['a.x', 'a.y', 'b.x', 'a.*', '*.x', 'b.>', '>'];
const KEYS = [undefined, undefined, 'k', 'l', 'm'];
const TERMS = [{ policy: 'all' }, { policy: 'latest' }, { maxHz: 5 }, { maxHz: 0.5 }, { overflow: 'gap' }];
const PAST = [{}, { snapshot: true }, { last: 3 }];

/** Numbers that look random and are the same for the same seed. */
function random(seed) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, below: (n) => Math.floor(next() * n), pick: (list) => list[Math.floor(next() * list.length)] };
}

/** Reads what one subscription was told, and knows when that cannot be. */
class Checker {
  #places = new Map();
  #values = new Map();
  #doubted = new Map();
  #broker;
  told = { message: 0, deleted: 0, passedOver: 0, gap: 0, lost: 0, resumed: 0, reset: 0, granted: 0 };
  /** Whether nothing was said to be missing since the subscription began, or began anew. */
  whole = true;

  constructor(topic, options, broker) {
    this.topic = topic;
    this.filling = Boolean(options.snapshot);
    this.#broker = broker;
    this.options = {
      ...options,
      onMessage: this.#kept((message) => this.#message(message)),
      onGap: this.#kept((gap) => this.#gap(gap)),
      onRecovered: this.#kept((recovery) => this.#recovered(recovery)),
      onSnapshotEnd: () => this.#snapshotEnd(),
      onGranted: this.#kept((terms) => this.#granted(terms)),
      onEnd: this.#kept((error) => assert.equal(error, undefined)),
    };
  }

  /** What a callback throws surfaces far away from here, so it is kept for the run to throw. */
  #kept(callback) {
    return (detail) => {
      try {
        callback(detail);
      } catch (error) {
        this.failure ??= error;
      }
    };
  }

  last(topic) {
    return this.#places.get(topic);
  }

  /** The offset of the latest message of each key of a topic, without those that were deleted. */
  values = (topic) => this.#values.get(topic) ?? new Map();

  #message({ topic, offset, epoch, time, key = '', deleted }) {
    this.told.message += 1;
    this.#doubted = new Map();
    if (deleted) this.told.deleted += 1;
    const place = this.#places.get(topic);
    const truth = `epoch${time}`;
    if (epoch) assert.equal(epoch, truth, 'the client knows the epoch');
    if (place) {
      assert.equal(truth, place.epoch, `${topic} ${offset}: another epoch, and nobody said so`);
      assert.ok(offset > place.offset, `${topic} ${offset} after ${place.offset}`);
      this.#hole(topic, place, offset);
    }
    this.#places.set(topic, { epoch: truth, offset });
    this.#values.set(topic, this.values(topic).set(key, deleted ? undefined : offset));
  }

  /** Before an offset only what may be missing is missing. */
  #hole(topic, place, offset) {
    for (let i = place.offset + 1; i < offset && !this.filling; i += 1) {
      const name = `${place.epoch} ${i}`;
      const mayBe = this.#broker.skipped.has(name) || (!this.strict && this.#broker.stolen.has(name));
      assert.ok(mayBe, `${topic}: a silent hole at ${i}, before ${offset}`);
      this.told.passedOver += 1;
    }
  }

  #gap({ topic, from, to, count, reason }) {
    this.told.gap += 1;
    this.whole = false;
    assert.ok(count > 0 && count <= to - from + 1);
    const place = this.#places.get(topic);
    if (!place) return;
    // In a snapshot of several keys something may be missing among them.
    if (!this.filling) assert.ok(from > place.offset, `${topic}: a gap from ${from} after ${place.offset}`);
    this.#hole(topic, place, from);
    // Who joins a snapshot is told of all that is missing in it at once.
    for (let i = from; reason === 'lost' && i <= to && !this.filling; i += 1) {
      assert.ok(this.#broker.stolen.has(`${place.epoch} ${i}`), `${topic}: ${i} is called lost, but was not`);
      this.told.lost += 1;
    }
    place.offset = Math.max(place.offset, to);
  }

  #recovered({ topic, recovered }) {
    this.told[recovered ? 'resumed' : 'reset'] += 1;
    // What is said of a filter is not said of its topics that are reported themselves, after it.
    if (recovered && this.#doubted.has(topic)) this.#values.set(topic, this.#doubted.get(topic));
    if (recovered) return;
    if (topic === this.topic) {
      if (!TOPICS.includes(topic)) this.#doubted = this.#values;
      this.#values = new Map();
      this.#places.clear();
    }
    this.#places.delete(topic);
    this.#values.delete(topic);
    this.#doubted.delete(topic);
    // A snapshot may follow, in which offsets skip.
    this.filling = this.fills;
  }

  /** The snapshot may end with keys that were deleted: their places are empty. */
  #snapshotEnd() {
    this.filling = false;
    for (const { topic, offset } of this.subscription.positions) {
      const place = this.#places.get(topic);
      if (place) place.offset = Math.max(place.offset, offset);
    }
  }

  #granted(terms) {
    this.told.granted += 1;
    assert.deepEqual(terms.policy, this.subscription.policy);
  }
}

/** One run. Returns what the subscriptions were told altogether. */
async function play(t, seed) {
  const { below, pick } = random(seed);
  // How long the client waits before it comes back.
  t.mock.method(Math, 'random', random(-seed).next);
  const broker = new Broker();
  broker.batches = seed % 2 === 0;
  const positionsMax = pick([2, 1_024]);
  const client = connect('ws://model/ws', {
    WebSocket: linkClass(broker),
    positionsMax,
    queueMax: 20,
    transport: 'websocket',
  });
  const open = new Map();
  const checkers = [];
  /** What became of the last change of terms of each open topic or filter. */
  const changes = new Map();
  let published = 0;
  let robbed = false;
  const link = () => [...broker.links].at(-1);
  const publishing = [];
  // A filter's snapshot is taken anew, though there may be nothing to say of the time before.
  client.on('state', ({ state }) => {
    for (const checker of checkers) if (state === 'waiting' && !TOPICS.includes(checker.topic)) checker.filling = checker.fills;
  });

  const steps = {
    publish: () => {
      published += 1;
      const key = pick(KEYS);
      const draft = key && below(4) === 0 ? { key, delete: true } : { key, data: { n: published } };
      publishing.push(client.publish(pick(TOPICS), draft).catch(({ name }) => name));
    },
    commit: () => broker.commit(pick(TOPICS), { key: pick(KEYS), data: {} }),
    expire: () => broker.expire(pick(TOPICS)),
    subscribe: () => {
      const topic = pick(FILTERS);
      const [first] = open.get(topic) ?? [];
      const terms = first ? {} : pick([{}, {}, pick(TERMS)]);
      const options = { ...pick(PAST), ...terms };
      // Who comes later may ask for the snapshot that the first has asked for, and for no other past.
      const snapshot = first?.options.snapshot && positionsMax > TOPICS.length;
      if (first && (options.last || (options.snapshot && !snapshot))) return;
      const checker = new Checker(topic, options, broker);
      // Whether it must be told of everything: its terms are its own, and let nothing be passed over.
      checker.strict = first ? first.strict : TOPICS.includes(topic) && topic !== 'a.y' && !terms.policy && !terms.maxHz;
      // Whether a snapshot comes when it begins anew, because the first of those who share asked for it.
      checker.fills = first ? first.fills : Boolean(options.snapshot);
      checker.filling ||= Boolean(first?.filling);
      checker.subscription = client.subscribe(topic, checker.options);
      checkers.push(checker);
      open.set(topic, [...(open.get(topic) ?? []), checker]);
    },
    update: () => {
      const [topic, sharing] = pick([...open]) ?? [];
      for (const checker of sharing ?? []) checker.strict = false;
      for (let i = below(3); sharing && i >= 0; i -= 1) {
        const asked = pick([...TERMS, { maxHz: -1 }]);
        const change = { asked, granted: null };
        changes.set(topic, change);
        pick(sharing)
          .subscription.update(asked)
          .then((granted) => (change.granted = granted))
          .catch((error) => (change.error = error.name));
      }
    },
    unsubscribe: () => {
      const [topic, [first, ...others]] = pick([...open]) ?? ['', []];
      first?.subscription.unsubscribe();
      if (others.length > 0) open.set(topic, others);
      else open.delete(topic);
      if (others.length === 0) changes.delete(topic);
    },
    drain: () => link()?.drain(1 + below(5)),
    slow: () => link()?.drain(1 + below(3), pick(['slow', 'trimmed'])),
    pace: () => link()?.pace(1 + below(2)),
    read: () => link()?.read(1 + below(6)),
    cut: () => link()?.fresh === false && link().cut(),
    restart: () => link()?.fresh === false && broker.restart(),
    time: () => t.mock.timers.tick(1 + below(5_000)),
    // A message that nobody tells of is lost in between, or comes twice.
    rob: () => {
      const out = link()?.out ?? [];
      const i = out.findIndex(({ message }) => message);
      if (i < 0) return;
      if (below(2)) return out.splice(i, 0, structuredClone(out[i]));
      const [{ message, first }] = out.splice(i, 1);
      robbed = true;
      // Of what comes first nobody knows how much it was.
      (first ? broker.skipped : broker.stolen).add(`epoch${message.time} ${message.offset}`);
    },
  };
  const weighted = {
    publish: 6,
    commit: 6,
    expire: 0.3,
    subscribe: 2,
    update: 1,
    unsubscribe: 1,
    drain: 8,
    slow: 1,
    pace: 3,
    read: 8,
    cut: 1,
    restart: 0.2,
    time: 2,
    rob: 1.5,
  };
  const bag = Object.entries(weighted).flatMap(([name, weight]) => Array(weight * 10).fill(name));
  for (let i = 0; i < STEPS; i += 1) {
    if (link()?.fresh) link().welcome();
    steps[pick(bag)]();
    await null;
    for (const { failure } of checkers) if (failure) throw failure;
  }

  // The faults stop: everything that is open must come to the end of its topics.
  const settle = async () => {
    for (let i = 0; i < 20; i += 1) {
      if (client.state === 'waiting') t.mock.timers.tick(31_000);
      if (link()?.fresh) link().welcome();
      link()?.drain(Infinity);
      link()?.pace(Infinity);
      link()?.read(Infinity);
      await null;
    }
  };
  await settle();
  assert.equal(client.state, 'connected');
  for (const topic of TOPICS) broker.commit(topic, { data: {} });
  await settle();
  for (const { failure } of checkers) if (failure) throw failure;
  let keys = 0;
  for (const [filter, sharing] of open) {
    for (const checker of sharing) {
      await checker.subscription.ready;
      for (const topic of TOPICS.filter((name) => matches(filter, name))) {
        assert.deepEqual(checker.last(topic), broker.top(topic), `${filter} is at the top of ${topic}`);
        if (checker.whole && !robbed) keys += checkKeys(checker, broker, topic);
      }
    }
    checkTerms(sharing[0].subscription, link().granted(filter), changes.get(filter));
  }
  checkPublished(broker, await Promise.all(publishing));
  client.close();
  return { robbed, keys, told: checkers.map(({ told }) => told) };
}

/** The last message of every key has come. Returns how many keys that were. */
function checkKeys({ topic: filter, options, values }, broker, topic) {
  const log = broker.topics.get(topic)?.log ?? [];
  const known = values(topic);
  for (const [key, offset] of known) {
    const last = log.findLast((message) => (message.key ?? '') === key);
    assert.equal(offset, last.deleted ? undefined : last.offset, `${filter}: the last of ${topic} ${key}`);
  }
  const complete = options.snapshot && topic === 'b.x';
  for (const key of complete ? broker.latest(topic).keys() : []) {
    assert.ok(known.has(key), `${filter}: the snapshot of ${topic} holds ${key}`);
  }
  return known.size;
}

/** The broker is where the last change has left it, and the subscription says what the broker grants. */
function checkTerms({ policy, maxHz, overflow }, granted, change) {
  assert.deepEqual({ policy, maxHz, overflow }, granted);
  if (!change) return;
  assert.ok(change.granted || change.error === 'badOption', `a change has become of: ${JSON.stringify(change)}`);
  if (change.granted) assert.deepEqual({ ...change.granted }, granted);
}

/** In one epoch what was published is in the log once, in its order, where the answer says. */
function checkPublished(broker, outcomes) {
  for (const [topic, { epoch, log }] of broker.topics) {
    const numbers = log.map(({ data }) => data?.n).filter(Boolean);
    assert.deepEqual(
      numbers,
      [...new Set(numbers)].sort((a, b) => a - b),
      `${topic} has each message once, in order`,
    );
    for (const { offset, data } of log) {
      if (data?.n) assert.deepEqual(outcomes[data.n - 1], { epoch, offset, durability: 'memory' });
    }
  }
  for (const outcome of outcomes) if (typeof outcome === 'string') assert.equal(outcome, 'queueFull');
}

test('under cuts, restarts, gaps and theft nothing is silent', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_763_683_200_000 });
  const sum = { ...new Checker('', {}).told, robbed: 0, keys: 0 };
  for (const seed of SEEDS) {
    try {
      const { told, robbed, keys } = await play(t, seed);
      for (const each of told) for (const [kind, count] of Object.entries(each)) sum[kind] += count;
      sum.robbed += Number(robbed);
      sum.keys += keys;
    } catch (error) {
      error.message = `SEED=${seed}: ${error.message}`;
      throw error;
    }
  }
  t.diagnostic(JSON.stringify(sum));
  // A run in which nothing happened would prove nothing.
  if (!process.env.SEED) for (const [kind, count] of Object.entries(sum)) assert.ok(count > 20, kind);
});
