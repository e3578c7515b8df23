/**
 * The client against a broker that restarts, over connections that are cut, slowed and robbed, from
 * seeds. A checker reads what each subscription was told: rising offsets, and no silent hole.
 * `SEED=7 node --test test/sim.test.js` plays one seed.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../fanfare.js';
import { Broker, linkClass } from './model.js';

const SEEDS = process.env.SEED ? [Number(process.env.SEED)] : Array.from({ length: 300 }, (_, i) => i + 1);
const STEPS = 250;
const TOPICS = ['a.x', 'a.y', 'b.x', 'b.y.z'];
const FILTERS = ['a.x', 'a.y', 'a.*', '*.x', 'b.>', '>'];

/** Numbers that look random and are the same for the same seed. */
function random(seed) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { below: (n) => Math.floor(next() * n), pick: (list) => list[Math.floor(next() * list.length)] };
}

/** Reads what one subscription was told, and knows when that cannot be. */
class Checker {
  #places = new Map();
  told = { message: 0, gap: 0, resumed: 0, reset: 0 };

  constructor(topic, options) {
    this.topic = topic;
    this.filling = options.snapshot;
    this.options = {
      ...options,
      onMessage: this.#kept((message) => this.#message(message)),
      onGap: this.#kept((gap) => this.#gap(gap)),
      onRecovered: this.#kept((recovery) => this.#recovered(recovery)),
      onSnapshotEnd: () => (this.filling = false),
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

  #message({ topic, offset, epoch, data }) {
    this.told.message += 1;
    const place = this.#places.get(topic);
    if (epoch) assert.equal(epoch, data.epoch, 'the client knows the epoch');
    if (place) {
      assert.equal(data.epoch, place.epoch, `${topic} ${offset}: another epoch, and nobody said so`);
      assert.ok(offset > place.offset, `${topic} ${offset} after ${place.offset}`);
      if (!this.filling) assert.equal(offset, place.offset + 1, `${topic}: a silent hole before ${offset}`);
    }
    this.#places.set(topic, { epoch: data.epoch, offset });
  }

  #gap({ topic, from, to, count }) {
    this.told.gap += 1;
    assert.ok(count > 0 && count <= to - from + 1);
    const place = this.#places.get(topic);
    if (!place) return;
    assert.equal(from, place.offset + 1, `${topic}: a gap begins where the messages end`);
    place.offset = to;
  }

  #recovered({ topic, recovered }) {
    this.told[recovered ? 'resumed' : 'reset'] += 1;
    if (recovered) return;
    if (topic === this.topic) this.#places.clear();
    this.#places.delete(topic);
    // A snapshot may follow, in which offsets skip.
    this.filling = Boolean(this.options.snapshot);
  }
}

/** One run. Returns what the subscriptions were told altogether. */
async function play(t, seed) {
  const { below, pick } = random(seed);
  const broker = new Broker();
  const positionsMax = pick([2, 1_024]);
  const client = connect('ws://model/ws', {
    WebSocket: linkClass(broker),
    positionsMax,
    queueMax: 20,
  });
  const open = new Map();
  const checkers = [];
  let published = 0;
  let robbed = false;
  const link = () => [...broker.links].at(-1);
  const publishing = [];

  const steps = {
    publish: () => {
      published += 1;
      publishing.push(client.publish(pick(TOPICS), { data: { n: published } }).catch(({ name }) => name));
    },
    commit: () => broker.commit(pick(TOPICS), {}),
    subscribe: () => {
      const topic = pick(FILTERS);
      const options = pick([{}, { snapshot: true }, { last: 3 }]);
      // Who comes later may ask for the snapshot that the first has asked for, and for no other past.
      const [first] = open.get(topic) ?? [];
      const snapshot = first?.options.snapshot && positionsMax > TOPICS.length;
      if (first && (options.last || (options.snapshot && !snapshot))) return;
      const checker = new Checker(topic, options);
      checker.subscription = client.subscribe(topic, checker.options);
      checkers.push(checker);
      open.set(topic, [...(open.get(topic) ?? []), checker]);
    },
    unsubscribe: () => {
      const [topic, [first, ...others]] = pick([...open]) ?? ['', []];
      first?.subscription.unsubscribe();
      if (others.length > 0) open.set(topic, others);
      else open.delete(topic);
    },
    drain: () => link()?.drain(1 + below(5)),
    slow: () => link()?.drain(1 + below(3), true),
    read: () => link()?.read(1 + below(6)),
    cut: () => link()?.fresh === false && link().cut(),
    restart: () => link()?.fresh === false && broker.restart(),
    time: () => t.mock.timers.tick(1 + below(5_000)),
    // A message that nobody tells of is lost in between, or comes twice.
    rob: () => {
      const out = link()?.out ?? [];
      const i = out.findIndex(({ message }) => message);
      if (i < 0) return;
      if (below(2)) out.splice(i, 0, structuredClone(out[i]));
      else if ((robbed = true)) out.splice(i, 1);
    },
  };
  const weighted = {
    publish: 6,
    commit: 6,
    subscribe: 2,
    unsubscribe: 1,
    drain: 8,
    slow: 1,
    read: 8,
    cut: 1,
    restart: 0.2,
    time: 2,
    rob: 0.5,
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
      link()?.read(Infinity);
      await null;
    }
  };
  await settle();
  assert.equal(client.state, 'connected');
  for (const topic of TOPICS) broker.commit(topic, {});
  await settle();
  for (const { failure } of checkers) if (failure) throw failure;
  for (const [filter, sharing] of open) {
    for (const checker of sharing) {
      await checker.subscription.ready;
      for (const topic of TOPICS) {
        const covered =
          filter === topic || new RegExp(`^${filter.replace('*', '[^.]+').replace('>', '.+')}$`).test(topic);
        if (covered)
          assert.deepEqual(checker.last(topic), broker.top(topic), `${filter} is at the top of ${topic}`);
      }
    }
  }
  checkPublished(broker, await Promise.all(publishing));
  client.close();
  return { robbed, told: checkers.map(({ told }) => told) };
}

/** In one epoch what was published is in the log once, in its order, where the answer says. */
function checkPublished(broker, outcomes) {
  for (const [topic, { epoch, log }] of broker.topics) {
    const numbers = log.map(({ data }) => data.n).filter(Boolean);
    assert.deepEqual(
      numbers,
      [...new Set(numbers)].sort((a, b) => a - b),
      `${topic} has each message once, in order`,
    );
    for (const { offset, data } of log) {
      if (data.n) assert.deepEqual(outcomes[data.n - 1], { epoch, offset, durability: 'memory' });
    }
  }
  for (const outcome of outcomes) if (typeof outcome === 'string') assert.equal(outcome, 'queueFull');
}

test('under cuts, restarts, gaps and theft nothing is silent', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_763_683_200_000 });
  const sum = { message: 0, gap: 0, resumed: 0, reset: 0, robbed: 0 };
  for (const seed of SEEDS) {
    try {
      const { told, robbed } = await play(t, seed);
      for (const each of told) for (const [kind, count] of Object.entries(each)) sum[kind] += count;
      sum.robbed += Number(robbed);
    } catch (error) {
      error.message = `SEED=${seed}: ${error.message}`;
      throw error;
    }
  }
  t.diagnostic(JSON.stringify(sum));
  // A run in which nothing happened would prove nothing.
  if (!process.env.SEED) for (const [kind, count] of Object.entries(sum)) assert.ok(count > 20, kind);
});
