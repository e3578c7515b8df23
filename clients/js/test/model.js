/**
 * A small broker without a network: it keeps Fanfare's contract over connections that a test cuts,
 * slows down and robs. Owns topics with a short history; nothing happens in it by itself.
 */

const HISTORY_MAX = 8;
/** What the rules say of single topics; no filter that a test uses is covered by one of them. */
const CAPS = new Map([['a.y', { policy: 'maxHz', maxHz: 2 }]]);
const KEYED = new Set(['b.x']);

export function matches(filter, topic) {
  const pattern = filter
    .split('.')
    .map((segment) => (segment === '*' ? '[^.]+' : segment === '>' ? '.+' : segment));
  return new RegExp(`^${pattern.join('[.]')}$`).test(topic);
}

/** How much of a topic some terms give. */
function reach({ policy, maxHz }) {
  return policy === 'all' ? Infinity : policy === 'latest' ? Number.MAX_VALUE : maxHz;
}

function capped(terms, topic) {
  const cap = CAPS.get(topic) ?? terms;
  return reach(cap) < reach(terms) ? cap : terms;
}

export class Broker {
  topics = new Map();
  links = new Set();
  /** Places that a subscriber may be without: passed over as its terms allow, or expired. */
  skipped = new Set();
  /** Places of messages that vanished on their way. */
  stolen = new Set();
  /** Whether it knows batches. */
  batches = true;
  #epochs = 0;
  #answers = new Map();

  /** Gives a message its place. Returns the published answer. */
  commit(topic, body, idempotencyKey) {
    const answered = `${topic} ${idempotencyKey}`;
    if (idempotencyKey && this.#answers.has(answered)) return this.#answers.get(answered);
    const { epoch, number, log } = this.#topic(topic);
    const offset = (log.at(-1)?.offset ?? 0) + 1;
    // The time tells whoever checks to which epoch a message belongs.
    log.push({ topic, offset, time: number, ...body });
    const answer = { epoch, offset, durability: 'memory' };
    if (idempotencyKey) this.#answers.set(answered, answer);
    for (const link of this.links) link.mailbox.push(log.at(-1));
    return answer;
  }

  /** Lets the oldest message that the topic still holds become too old. */
  expire(topic) {
    const { epoch } = this.#topic(topic);
    const [oldest] = this.held(topic);
    if (oldest) this.skipped.add(`${epoch} ${oldest.offset}`);
    if (oldest) oldest.expired = true;
  }

  /** Messages that the topic still holds. */
  held(topic) {
    return (this.topics.get(topic)?.log.slice(-HISTORY_MAX) ?? []).filter(({ expired }) => !expired);
  }

  /** What comes first for somebody who asks for so many messages, or for a snapshot. */
  first(topic, last, snapshot) {
    if (last > 0 || !KEYED.has(topic)) return last || snapshot ? this.held(topic).slice(-(last || 1)) : [];
    return snapshot ? [...this.latest(topic).values()] : [];
  }

  /** The latest message of every key, in offset order. */
  latest(topic) {
    const latest = new Map();
    for (const message of this.topics.get(topic)?.log ?? []) {
      latest.delete(message.key ?? '');
      if (!message.deleted && !message.expired) latest.set(message.key ?? '', message);
    }
    return latest;
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
    const log = this.topics.get(topic)?.log.slice(-HISTORY_MAX) ?? [];
    let reason;
    if (position?.epoch !== epoch) reason = 'epochChanged';
    else if (offset < (log[0]?.offset ?? 1) - 1) reason = 'trimmed';
    const missing = reason ? [] : log.filter((message) => message.offset > offset);
    return { outcome: { position, recovered: !reason, reason }, missing };
  }

  skip(topic, offset) {
    this.skipped.add(`${this.topics.get(topic)?.epoch} ${offset}`);
  }

  #topic(name) {
    if (!this.topics.has(name)) {
      const number = (this.#epochs += 1);
      this.topics.set(name, { epoch: `epoch${number}`, number, log: [] });
    }
    return this.topics.get(name);
  }
}

/** A connection, and the class of sockets that make one: `mailbox` is on its way to it, `out` from it. */
export function linkClass(broker) {
  return class Link {
    mailbox = [];
    out = [];
    #subscriptions = new Map();
    /** What is held back for later or never, by topic, in offset order. */
    #pending = new Map();
    #told = new Set();
    #batched = false;

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

    connect(id, { batch }) {
      this.out.push({ id, connected: { pingMs: 25_000, ...(broker.batches && { batch }) } });
    }

    publish(id, { topic, data, key, delete: deleted, idempotencyKey }) {
      this.out.push({ id, published: broker.commit(topic, { data, key, deleted }, idempotencyKey) });
    }

    update(id, { topic, policy, maxHz, overflow }) {
      const subscription = this.#subscriptions.get(topic);
      if (!subscription) return this.refuse(id, 108, 'notSubscribed');
      if (maxHz < 0) return this.refuse(id, 105, 'badOption');
      if (policy) subscription.asked = { ...subscription.asked, policy, maxHz };
      if (overflow) subscription.asked = { ...subscription.asked, overflow };
      if (subscription.asked.policy === 'all') this.#settle(topic);
      this.out.push({ id, updated: { topic, ...this.#granted(topic, subscription) } });
    }

    refuse(id, code, name) {
      this.out.push({ id, error: { code, name, retry: 'never', message: name } });
    }

    unsubscribe(id, { topic }) {
      this.#settle(topic);
      this.#subscriptions.delete(topic);
      this.out.push({ id, unsubscribed: { topic } });
    }

    history(id, { topic, since, limit }) {
      const { outcome, missing } = since
        ? broker.resume(topic, since)
        : { missing: broker.held(topic).slice(-limit) };
      if (outcome?.reason) this.refuse(id, 150, outcome.reason);
      else
        this.out.push({
          id,
          historyPage: { topic, top: broker.top(topic), messages: structuredClone(missing) },
        });
    }

    subscribe(id, { topic, since, positions = [], snapshot, last = 0, policy = 'all', maxHz, overflow }) {
      if (maxHz < 0) return this.refuse(id, 105, 'badOption');
      // What is on its way is older than what this subscription will be given.
      this.drain(Infinity);
      this.#settle(topic);
      const exact = !/[*>]/.test(topic);
      const subscription = { exact, next: new Map(), asked: { policy, maxHz, overflow } };
      this.#subscriptions.set(topic, subscription);
      const replay = [];
      const recovered = new Set();
      const topics = [];
      const asked = exact ? (since ? [{ topic, ...since }] : []) : positions;
      for (const position of asked) {
        const { outcome, missing } = broker.resume(position.topic, position);
        if (outcome.recovered) recovered.add(position.topic);
        replay.push(...this.#conflated(position.topic, missing).map((message) => ({ message })));
        topics.push({ topic: position.topic, ...outcome });
      }
      const names = exact ? [topic] : [...broker.topics.keys()].filter((name) => matches(topic, name));
      for (const name of names) {
        subscription.next.set(name, broker.top(name).offset + 1);
        if (recovered.has(name)) continue;
        replay.push(...broker.first(name, last, snapshot).map((message) => ({ message, first: true })));
      }
      const granted = this.#granted(topic, subscription);
      if (exact)
        this.out.push({ id, subscribed: { topic, position: broker.top(topic), ...topics[0], ...granted } });
      else this.out.push({ id, subscribed: { topic, topics, ...granted } });
      for (const { topic: name, position } of topics) if (position) this.#told.add(name);
      for (const { message, first } of replay) this.#deliver(message, !exact, first);
      const ends = names.map((name) => ({ topic: name, ...broker.top(name) }));
      if (snapshot) this.out.push({ snapshotEnd: { topic, positions: exact && recovered.size ? [] : ends } });
      for (const name of exact || snapshot ? names : []) this.#told.add(name);
    }

    /** What the reply says. Of a filter it is what was asked for, though some of its topics get less. */
    #granted(topic, { exact, asked }) {
      return exact ? { ...asked, ...capped(asked, topic) } : asked;
    }

    /** The same, of a subscription that there is. */
    granted(topic) {
      return this.#granted(topic, this.#subscriptions.get(topic));
    }

    /** The terms that count for a topic: the exact subscription's, else those that give most. */
    #terms(topic) {
      const matching = [...this.#subscriptions].filter(([filter]) => matches(filter, topic));
      const terms = matching.map(([, { exact, asked }]) => ({ exact, ...capped(asked, topic) }));
      return terms.find(({ exact }) => exact) ?? terms.sort((a, b) => reach(b) - reach(a))[0];
    }

    /** Messages without those that a later one of the same key makes needless, if the terms say so. */
    #conflated(topic, messages) {
      if (this.#terms(topic)?.policy === 'all') return messages;
      const kept = messages.filter(
        ({ key, deleted, offset }) =>
          deleted || !messages.some((other) => other.key === key && other.offset > offset),
      );
      for (const message of messages) if (!kept.includes(message)) broker.skip(topic, message.offset);
      return kept;
    }

    /** Brings some of the mailbox to the subscriptions; with a reason they are told of a gap instead. */
    drain(count, reason) {
      for (const message of this.mailbox.splice(0, count)) {
        const { topic, offset } = message;
        const takers = [...this.#subscriptions].filter(
          ([filter, { next }]) => matches(filter, topic) && offset >= (next.get(topic) ?? 1),
        );
        for (const [, { next }] of takers) next.set(topic, offset + 1);
        if (takers.length === 0) continue;
        if (this.#terms(topic).policy !== 'all') this.#hold(message);
        else if (reason) this.#gap(topic, offset, reason);
        else this.#deliver(message, !takers.some(([, { exact }]) => exact));
      }
    }

    /** Sends some of what is held back. */
    pace(count) {
      for (const topic of [...this.#pending.keys()].slice(0, count)) this.#flush(topic);
    }

    #hold(message) {
      const { topic } = message;
      this.#pending.set(topic, this.#conflated(topic, [...(this.#pending.get(topic) ?? []), message]));
    }

    #flush(topic) {
      for (const message of this.#pending.get(topic) ?? []) this.#deliver(message, true);
      this.#pending.delete(topic);
    }

    /** Sends what is held back of the topics of a subscription that is about to change. */
    #settle(target) {
      for (const topic of [...this.#pending.keys()]) if (matches(target, topic)) this.#flush(topic);
    }

    #gap(topic, offset, reason) {
      this.out.push({ gap: { topic, from: offset, to: offset, count: 1, reason } });
      const { epoch } = broker.top(topic);
      if (reason === 'trimmed') this.out.push({ position: { topic, epoch, offset } });
    }

    #deliver(message, byFilter, first) {
      const { topic, offset, time, expired, ...rest } = message;
      // Of what comes first the end of the snapshot tells.
      if (byFilter && !first && !this.#told.has(topic)) {
        this.out.push({ position: { topic, epoch: `epoch${time}`, offset: offset - 1 } });
        this.#told.add(topic);
      }
      if (expired) this.#gap(topic, offset, 'expired');
      else this.out.push({ message: { topic, offset, time, ...rest }, first });
    }

    /** Lets the client read some of what was sent. */
    read(count) {
      for (const data of this.#messages(this.out.splice(0, count))) if (this.open) this.onmessage({ data });
    }

    /** Events as messages: one each, and behind the answer that promises batches one for all. */
    #messages(events) {
      const texts = events.map((event) => JSON.stringify(event));
      const promise = events.findIndex(({ connected }) => connected?.batch);
      const alone = this.#batched ? 0 : promise < 0 ? texts.length : promise + 1;
      this.#batched ||= promise >= 0;
      const batch = texts.splice(alone).map((text) => `${text}\n`);
      return batch.length > 0 ? [...texts, batch.join('')] : texts;
    }
  };
}
