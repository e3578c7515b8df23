/**
 * The error that the application sees.
 * @module
 */

/** A refusal by the server, or by the client itself: then `code` is 0. */
export class FanfareError extends Error {
  /**
   * @param {number} code The number that programs compare.
   * @param {string} name The name of the reason: `badTopic`, `queueFull`, …
   * @param {'never' | 'later' | 'refresh' | 'resume' | (string & {})} retry What to do about it.
   * @param {string} message The sentence for a person.
   */
  constructor(code, name, retry, message) {
    super(message);
    this.name = name;
    this.code = code;
    this.retry = retry;
  }
}
