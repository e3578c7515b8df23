/**
 * A small broker without a network: it keeps Fanfare's contract over connections that a test cuts,
 * slows down and robs. Owns topics with a short history; nothing happens in it by itself.
 */

const HISTORY_MAX = 8;

function matches(filter, topic) {
  const pattern = filter
    .split('.')
    .map((segment) => (segment === '*' ? '[^.]+' : segment === '>' ? '.+' : segment));
  return new RegExp(`^${pattern.join('[.]')}$`).test(topic);
}

export class Broker {
  topics = new Map();
  links = new Set();
  #epochs = 0;
  #answers = new Map();

  /** Gives a message its place. Returns the published answer. */
  commit(topic, data, idempotencyKey) {
    const key = `${topic} ${idempotencyKey}`;
    if (idempotencyKey && this.#answers.has(key)) return this.#answers.get(key);
    const { epoch, log } = this.#topic(topic);
    const offset = (log.at(-1)?.offset ?? 0) + 1;
    log.push({ topic, offset, time: 0, data: { ...data, epoch } });
    const answer = { epoch, offset, durability: 'memory' };
    if (idempotencyKey) this.#answers.set(key, answer);
    for (const link of this.links) link.mailbox.push(log.at(-1));
    return answer;
  }

  /** Messages that the topic still holds. */
  held(topic) {
    return this.topics.get(topic)?.log.slice(-HISTORY_MAX) ?? [];
  }

  top(topic) {
    const { epoch, log } = this.#topic(topic);
    return { epoch, offset: log.at(-1)?.offset ?? 0 };
  }

  /** Forgets everything, as a broker in memory does when it is killed. */
  restart() {
    for (const link of this.links) link.cut();
    this.topics.clear();
    this.#answers.clear();
  }

  /** What became of a position, and the messages after it. */
  resume(topic, { epoch, offset }) {
    const position = this.topics.has(topic) ? this.top(topic) : undefined;
    const first = this.held(topic)[0]?.offset ?? 1;
    let reason;
    if (position?.epoch !== epoch) reason = 'epochChanged';
    else if (offset < first - 1) reason = 'trimmed';
    const missing = reason ? [] : this.held(topic).filter((message) => message.offset > offset);
    return { outcome: { position, recovered: !reason, reason }, missing };
  }

  #topic(name) {
    if (!this.topics.has(name)) this.topics.set(name, { epoch: `epoch${(this.#epochs += 1)}`, log: [] });
    return this.topics.get(name);
  }
}

/** A connection, and the class of sockets that make one: `mailbox` is on its way to it, `out` from it. */
export function linkClass(broker) {
  return class Link {
    mailbox = [];
    out = [];
    #subscriptions = new Map();
    #told = new Set();

    constructor() {
      broker.links.add(this);
      this.open = true;
      // The client sets its handlers only after this.
      this.fresh = true;
    }

    /** Opens the connection, as far as the client is concerned. */
    welcome() {
      this.fresh = false;
      this.onopen({});
    }

    send(text) {
      if (!this.open) return;
      const { id, ...command } = JSON.parse(text);
      const [[action, body]] = Object.entries(command);
      this[action](id, body);
    }

    close() {
      this.open = false;
      broker.links.delete(this);
    }

    cut() {
      this.close();
      this.onclose({ code: 1006, reason: '' });
    }

    connect(id) {
      this.out.push({ id, connected: { pingMs: 25_000 } });
    }

    publish(id, { topic, data, idempotencyKey }) {
      this.out.push({ id, published: broker.commit(topic, data, idempotencyKey) });
    }

    unsubscribe(id, { topic }) {
      this.#subscriptions.delete(topic);
      this.out.push({ id, unsubscribed: { topic } });
    }

    history(id, { topic, since, limit }) {
      const { outcome, missing } = since
        ? broker.resume(topic, since)
        : { missing: broker.held(topic).slice(-limit) };
      if (outcome?.reason)
        this.out.push({ id, error: { code: 150, name: outcome.reason, retry: 'never', message: '' } });
      else
        this.out.push({
          id,
          historyPage: { topic, top: broker.top(topic), messages: structuredClone(missing) },
        });
    }

    subscribe(id, { topic, since, positions = [], snapshot, last = 0 }) {
      // What is on its way is older than what this subscription will be given.
      this.drain(Infinity);
      const exact = !/[*>]/.test(topic);
      const next = new Map();
      const replay = [];
      const recovered = new Set();
      const topics = [];
      const asked = exact ? (since ? [{ topic, ...since }] : []) : positions;
      for (const position of asked) {
        const { outcome, missing } = broker.resume(position.topic, position);
        if (outcome.recovered) recovered.add(position.topic);
        replay.push(...missing);
        topics.push({ topic: position.topic, ...outcome });
      }
      const names = exact ? [topic] : [...broker.topics.keys()].filter((name) => matches(topic, name));
      for (const name of names) {
        next.set(name, broker.top(name).offset + 1);
        if (!recovered.has(name))
          replay.push(...broker.held(name).slice(-Math.max(last, snapshot ? 1 : 0) || Infinity));
      }
      if (exact) this.out.push({ id, subscribed: { topic, position: broker.top(topic), ...topics[0] } });
      else this.out.push({ id, subscribed: { topic, topics } });
      for (const message of replay) this.#deliver(message, !exact);
      const ends = names.map((name) => ({ topic: name, ...broker.top(name) }));
      if (snapshot) this.out.push({ snapshotEnd: { topic, positions: exact && recovered.size ? [] : ends } });
      for (const name of exact || snapshot ? names : topics.map((each) => each.topic)) this.#told.add(name);
      this.#subscriptions.set(topic, { exact, next });
    }

    /** Brings some of the mailbox to the subscriptions; `slow` tells of them in a gap instead. */
    drain(count, slow) {
      for (const message of this.mailbox.splice(0, count)) {
        const { topic, offset } = message;
        const takers = [...this.#subscriptions].filter(
          ([filter, { next }]) => matches(filter, topic) && offset >= (next.get(topic) ?? 1),
        );
        for (const [, { next }] of takers) next.set(topic, offset + 1);
        if (takers.length === 0) continue;
        if (slow) this.out.push({ gap: { topic, from: offset, to: offset, count: 1, reason: 'slow' } });
        else this.#deliver(message, !takers.some(([, { exact }]) => exact));
      }
    }

    #deliver(message, byFilter) {
      const { topic, offset } = message;
      if (byFilter && !this.#told.has(topic)) {
        this.out.push({ position: { topic, epoch: message.data.epoch, offset: offset - 1 } });
        this.#told.add(topic);
      }
      this.out.push({ message });
    }

    /** Lets the client read some of what was sent. */
    read(count) {
      for (const event of this.out.splice(0, count))
        if (this.open) this.onmessage({ data: JSON.stringify(event) });
    }
  };
}
