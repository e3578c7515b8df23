/**
 * What stands in for a WebSocket where there can be none: Server-Sent Events for what comes, HTTP for
 * what goes. It looks like a WebSocket that speaks JSON, and is loaded only when it is needed.
 *
 * Owns the subscriptions of one stream and where each topic stands, because every change of them is
 * another stream that goes on where the one before was left.
 *
 * Invariants: at most one stream is read; publishing keeps its order; what a change of streams may have
 * missed is told or asked for.
 * @module
 */

/** @import { Entry } from './stream.js' */

import { Places } from './places.js';
import { events, query, withTopics } from './stream.js';

/** Changes that follow each other this quickly are one. */
const SETTLE_MS = 20;
/** How often it is looked whether the server is still there. */
const LOOK_MS = 10_000;
/** Publishes in one request, and their bytes. */
const TOGETHER_MAX = 100;
const TOGETHER_BYTES_MAX = 200_000;
/** Events that may come before every topic is answered. */
const HELD_MAX = 200_000;
/** Bytes of a URL: the server takes 16 KiB of head. */
const QUERY_MAX = 12_000;

export class EventStream {
  protocol = 'fanfare.v1.json';
  /** @type {((event: any) => void) | null} */
  onopen = null;
  /** @type {((event: any) => void) | null} */
  onmessage = null;
  /** @type {((event: any) => void) | null} */
  onclose = null;
  /** @type {((event: any) => void) | null} */
  onerror = null;
  #base;
  /** @type {Record<string, string>} */
  #headers = {};
  #ended = new AbortController();
  /** The stream that is read. @type {AbortController | undefined} */
  #stream;
  /** What is asked for, in the order of the query. @type {Entry[]} */
  #entries = [];
  #places = new Places();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #look;
  #heardAt = Date.now();
  #silenceMs = 35_000;
  /** Publishes that wait for the request under way. @type {{ id: number, body: any, bytes: number }[]} */
  #waiting = [];
  #publishing = false;

  /** @param {string} url That of the WebSocket, whose path ends in `/ws`. */
  constructor(url) {
    const { origin, pathname } = new URL(url.replace(/^ws/, 'http'));
    this.#base = origin + pathname.replace(/\/(ws)?$/, '');
    this.#look = setInterval(() => this.#watch(), LOOK_MS);
    queueMicrotask(() => this.onopen?.({}));
  }

  /** @param {any} text */
  send(text) {
    const { id, ...command } = JSON.parse(text);
    for (const [action, body] of Object.entries(command)) this.#commands[action]?.(id, body);
  }

  close() {
    this.#end(1000, '');
  }

  terminate() {
    this.close();
  }

  // === Commands ===

  /** @type {Record<string, (id: number, body: any) => void>} */
  #commands = {
    connect: (id, { token }) => {
      this.#authorize(token);
      this.#knock().then(
        () => this.#hear({ id, connected: { server: '', connection: '', pingMs: 25_000 } }),
        (error) => this.#refused(error, id),
      );
    },
    refresh: (_, { token }) => {
      this.#authorize(token);
      this.#reopen();
    },
    subscribe: (id, body) => {
      if (query([...this.#entries, { body }], this.#places).length > QUERY_MAX) {
        const message = 'more topics than fit into one request';
        return this.#later({ id, error: { code: 109, name: 'tooManySubscriptions', retry: 'never', message } });
      }
      this.#entries.push({ id, body });
      this.#reopen();
    },
    unsubscribe: (id, { topic }) => {
      this.#entries = this.#entries.filter((entry) => entry.body.topic !== topic);
      this.#later({ id, unsubscribed: { topic } });
      this.#reopen();
    },
    update: (id, { topic, ...change }) => {
      const entry = this.#entries.find(({ body }) => body.topic === topic);
      if (!entry) return;
      entry.before = entry.body;
      entry.body = { ...entry.body, ...(change.policy && { maxHz: undefined }), ...change };
      entry.update = id;
      this.#reopen();
    },
    publish: (id, body) => {
      this.#waiting.push({ id, body, bytes: JSON.stringify(body).length });
      if (!this.#publishing) this.#publish();
    },
    history: (id, { topic, since, limit }) => {
      const asked = new URLSearchParams({ topic });
      if (since) asked.set('since', `${since.epoch}:${since.offset}`);
      if (limit) asked.set('limit', limit);
      this.#ask(id, 'historyPage', `/v1/history?${asked}`);
    },
    presence: (id, { topic }) => this.#ask(id, 'presenceState', `/v1/presence?${new URLSearchParams({ topic })}`),
    ping: (id) => this.#later({ id, pong: {} }),
  };

  /** @param {string} [token] */
  #authorize(token) {
    this.#headers = token ? { authorization: `Bearer ${token}` } : {};
  }

  /** Whether the server is there and lets us in: it refuses a stream of nothing, and only that. */
  async #knock() {
    const answer = await this.#fetch('/sse');
    const { error } = await answer.json();
    if (error?.code !== 400) throw error ?? new Error('the server does not know server-sent events');
  }

  /** @param {number} id @param {string} answer @param {string} path */
  #ask(id, answer, path) {
    this.#json(path).then(
      (body) => this.#hear({ id, [answer]: body }),
      (error) => this.#refused(error, id),
    );
  }

  /** Sends what waits, in one request after the other. */
  async #publish() {
    this.#publishing = true;
    while (this.#waiting.length > 0) {
      let bytes = 0;
      const most = this.#waiting.findIndex((each, i) => (bytes += each.bytes) > TOGETHER_BYTES_MAX && i > 0);
      const drafts = this.#waiting.splice(0, Math.min(most < 0 ? TOGETHER_MAX : most, TOGETHER_MAX));
      const body = JSON.stringify(drafts.map((draft) => draft.body));
      try {
        const results = await this.#json('/v1/publish', { method: 'POST', body });
        for (const [i, { id }] of drafts.entries()) {
          this.#hear(results[i].error ? { id, error: results[i].error } : { id, published: results[i] });
        }
      } catch (error) {
        for (const { id } of drafts) this.#refused(error, id);
      }
    }
    this.#publishing = false;
  }

  // === Streams ===

  /** Opens another stream soon, when nothing more changes and nothing is half told. */
  #reopen() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#entries.some((entry) => entry.filling)) return this.#reopen();
      this.#stream?.abort();
      this.#stream = undefined;
      if (this.#entries.length > 0) this.#read();
    }, SETTLE_MS);
  }

  async #read() {
    const stream = new AbortController();
    this.#stream = stream;
    // Those that are asked for now: others may be added while this is read.
    const entries = [...this.#entries];
    for (const entry of entries) entry.asked = entry.update;
    try {
      this.#places.keep(entries, QUERY_MAX);
      const { signal } = stream;
      const headers = { accept: 'text/event-stream' };
      const answer = await this.#fetch(`/sse?${query(entries, this.#places)}`, { signal, headers });
      if (answer.status === 204) return this.#end(4500, 'closed: the server wants no more of this');
      if (!answer.ok || !answer.body) throw (await answer.json()).error;
      // All answers come before all messages: what resumes one topic is for its filter, too.
      const unanswered = new Set(entries);
      let held = [];
      for await (const text of events(answer.body)) {
        if (this.#stream !== stream) return;
        this.#heardAt = Date.now();
        const event = JSON.parse(text);
        const entry = entries[event.id - 1];
        if (entry) this.#answered(entry, withTopics(entry, entries, event));
        else held.push(event);
        if (entry) unanswered.delete(entry);
        if (held.length > HELD_MAX) throw new Error('not every topic is answered');
        if (unanswered.size > 0) continue;
        for (const each of held) if (this.#stream === stream) this.#take(each, entries);
        held = [];
      }
      if (this.#stream === stream) this.#end(1006, 'the stream has ended');
    } catch (error) {
      if (this.#stream === stream) this.#refused(error);
    }
  }

  /** @param {any} event @param {Entry[]} entries */
  #take(event, entries) {
    const { connected, snapshotEnd, position } = event;
    if (connected) {
      this.#silenceMs = connected.pingMs + LOOK_MS;
      if (connected.expiresMs) this.#hear({ id: 1, refreshed: connected });
      return;
    }
    for (const each of entries) if (each.body.topic === snapshotEnd?.topic) each.filling = false;
    // Of a topic that turns up first after a change of streams something may have been missed.
    const resumed = !(position && entries.some(({ again }) => again) && !this.#places.has(position.topic));
    this.#places.take(event);
    this.#hear(resumed ? event : { position: { ...position, resumed } });
  }

  /** The stream has answered one of its topics. @param {Entry} entry @param {any} event */
  #answered(entry, { subscribed, error }) {
    const { id, asked: update, body } = entry;
    if (update === entry.update) entry.update = undefined;
    if (error && entry.before && update) {
      entry.body = entry.before;
      this.#hear({ id: update, error });
      return this.#reopen();
    }
    if (error) {
      this.#entries = this.#entries.filter((other) => other !== entry);
      return id ? this.#hear({ id, error }) : this.#end(4000, error.message);
    }
    entry.id = 0;
    if (id) {
      entry.filling = Boolean(body.snapshot || body.last) && subscribed.recovered !== true;
      this.#places.begin(body, subscribed);
      this.#hear({ id, subscribed });
      entry.again = true;
      return;
    }
    const outcomes = subscribed.topics ?? [subscribed];
    // The client itself asks again, and tells what is missing.
    if (outcomes.some((/** @type {any} */ outcome) => outcome.recovered === false)) return this.#end(4000, 'not resumed');
    const { topic, policy = 'all', maxHz, overflow = policy === 'all' ? 'catchUp' : undefined } = subscribed;
    if (update) this.#hear({ id: update, updated: { topic, policy, maxHz, overflow } });
  }

  // === Requests ===

  /** @param {string} path @param {RequestInit} [options] */
  #fetch(path, { headers, ...options } = {}) {
    const signal = options.signal ?? this.#ended.signal;
    return fetch(this.#base + path, { ...options, signal, headers: { ...headers, ...this.#headers }, cache: 'no-store' });
  }

  /** @param {string} path @param {RequestInit} [options] */
  async #json(path, options) {
    const headers = { 'content-type': 'application/json' };
    const answer = await this.#fetch(path, { headers: options && headers, ...options });
    const body = await answer.json();
    if (!answer.ok) throw body.error;
    return body;
  }

  /** A request has failed: its command is refused, or everything ends. @param {any} error @param {number} [id] */
  #refused(error, id) {
    const { code = 0, name, retry, message } = error ?? {};
    if (code > 0 && id && (id === 1 || retry !== 'refresh')) return this.#hear({ id, error });
    if (retry === 'refresh') return this.#end(4401, `${name}: ${message}`);
    this.#end(code > 0 && retry === 'never' ? 4500 : 1006, `${name}: ${message}`);
  }

  async #watch() {
    if (this.#stream) {
      if (Date.now() - this.#heardAt > this.#silenceMs) return this.#end(4410, 'the stream is silent');
    } else {
      try {
        await this.#knock();
      } catch (error) {
        return this.#refused(error);
      }
    }
    this.#hear({ ping: {} });
  }

  // === Telling ===

  /** Not before the command that it answers has been sent. @param {any} event */
  #later(event) {
    queueMicrotask(() => this.#hear(event));
  }

  /** @param {any} event */
  #hear(event) {
    if (!this.#ended.signal.aborted) this.onmessage?.({ data: JSON.stringify(event) });
  }

  /** @param {number} code @param {string} reason */
  #end(code, reason) {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.abort();
    clearTimeout(this.#timer);
    clearInterval(this.#look);
    this.onclose?.({ code, reason });
  }
}
