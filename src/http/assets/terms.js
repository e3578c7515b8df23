// Terms: the delivery that somebody chose for one row of the board.
// Owns the subscriptions of rows that have terms of their own.
// Invariants: what was refused is not shown as chosen; a row that is gone has no subscription.
// Not here: the rows (`board.js`), the connection (`dashboard.js`).

import * as format from './format.js';

export class Terms {
  #client;
  #quotes;
  #tell;
  #byTopic = new Map();

  /** `tell` is given what there is to announce. */
  constructor(client, quotes, tell) {
    this.#client = client;
    this.#quotes = quotes;
    this.#tell = tell;
  }

  /**
   * Somebody has chosen on which terms a row gets its messages: `all`, `latest`, or so many hertz. The
   * row then has a subscription to exactly its topic, whose terms count before those of the board; the
   * messages still come to the board.
   */
  choose(topic, chosen) {
    const terms = Number(chosen) > 0 ? { maxHz: Number(chosen) } : { policy: chosen };
    const subscription = this.#byTopic.get(topic);
    this.#quotes.note(topic, { terms: chosen, pending: true });
    if (!subscription) return this.#begin(topic, terms);
    subscription.update(terms).then((granted) => this.#grant(topic, granted), (error) => this.#refuse(topic, error));
  }

  /** Ends the terms of a row that is gone. */
  forget(topic) {
    this.#byTopic.get(topic)?.unsubscribe();
  }

  #begin(topic, terms) {
    const subscription = this.#client.subscribe(topic, {
      ...terms,
      onMessage: () => {},
      onGranted: (granted) => this.#grant(topic, granted),
      onEnd: (error) => {
        this.#byTopic.delete(topic);
        if (error) this.#refuse(topic, error);
      },
    });
    this.#byTopic.set(topic, subscription);
  }

  #grant(topic, { policy, maxHz }) {
    const granted = policy === 'maxHz' ? String(maxHz) : policy;
    this.#quotes.note(topic, { granted, pending: false });
    this.#tell(`${this.#symbol(topic)}: ${format.terms(granted)}`);
  }

  #refuse(topic, { message }) {
    const quote = this.#quotes.get(topic);
    if (!quote || this.#client.state === 'closed') return;
    const granted = this.#byTopic.has(topic) ? quote.granted : 'all';
    this.#quotes.note(topic, { granted, terms: granted, pending: false });
    this.#tell(`${this.#symbol(topic)}: ${message}`);
  }

  #symbol(topic) {
    return this.#quotes.get(topic)?.symbol ?? topic;
  }
}
