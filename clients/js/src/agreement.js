/**
 * The terms of one feed: what was asked for, what changes of it the server has not answered yet, and
 * what it grants. Invariant: at most one change is under way; others meanwhile become one that comes
 * after it.
 * @module
 */

/** @import { FanfareError } from './error.js' */
/** @import { Terms, TermsOptions } from './types.js' */

import { changed } from './asked.js';
import { deferred, isSame } from './small.js';
import { terms } from './words.js';

/** @typedef {{ _terms: TermsOptions, _outcome: ReturnType<typeof deferred> }} Change */

export class Agreement {
  /** What the server grants; with each of its answers another object. @type {Terms | undefined} */
  _granted;
  /** @type {TermsOptions} */
  #asked;
  /** In a command that has no answer yet. @type {Change | undefined} */
  #sent;
  /** @type {Change | undefined} */
  #waiting;

  /** @param {TermsOptions} asked */
  constructor(asked) {
    this.#asked = asked;
  }

  /** What granted says, if that is every message and nothing is about to change it. */
  get _dense() {
    return this.#sent || this._granted?.policy !== 'all' ? undefined : this._granted;
  }

  /** What is asked for, whether the server has heard of it or not. */
  get _wanted() {
    return changed(this.#told, this.#waiting?._terms);
  }

  /** @param {TermsOptions} terms @returns {Promise<Terms>} */
  _change(terms) {
    const { _terms, _outcome = deferred() } = this.#waiting ?? {};
    this.#waiting = { _terms: changed(_terms, terms), _outcome };
    return _outcome.promise;
  }

  /** The change to send now, if there is one and none is under way. */
  _next() {
    if (this.#sent) return undefined;
    this.#sent = this.#waiting;
    this.#waiting = undefined;
    return this.#sent?._terms;
  }

  /** Everything, for a command to subscribe. */
  _all() {
    this._next();
    return this.#told;
  }

  /** There will be no answer: what was under way has to be sent again. */
  _lost() {
    const [sent, waiting] = [this.#sent, this.#waiting];
    if (!sent) return;
    this.#sent = undefined;
    if (waiting) sent._outcome.resolve(waiting._outcome.promise);
    this.#waiting = { _terms: changed(sent._terms, waiting?._terms), _outcome: (waiting ?? sent)._outcome };
  }

  /** Returns whether that is another grant than before. @param {any} answer */
  _grant(answer) {
    const before = this._granted;
    this._granted = terms(answer);
    this.#asked = this.#told;
    this.#sent?._outcome.resolve(this._granted);
    this.#sent = undefined;
    return !isSame(this._granted, before);
  }

  /** Forgets the change that is under way. Returns whether there was one. @param {FanfareError} error */
  _refuse(error) {
    const sent = this.#sent;
    this.#sent = undefined;
    sent?._outcome.reject(error);
    return Boolean(sent);
  }

  /** @param {FanfareError} error */
  _end(error) {
    this._lost();
    this.#waiting?._outcome.reject(error);
  }

  /** What the server has heard of. */
  get #told() {
    return changed(this.#asked, this.#sent?._terms);
  }
}
