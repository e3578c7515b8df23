/**
 * Small things that several parts need.
 * @module
 */

export const ignore = () => {};

/**
 * Calls the application. What it throws is its own affair: it must not stop the others' messages, and
 * it must not vanish either.
 * @template D
 * @param {((detail: D) => void) | undefined} handler
 * @param {D} detail
 */
export function run(handler, detail) {
  try {
    handler?.(detail);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/**
 * A promise that others settle. Nobody is forced to look at its failure.
 * @returns {{ promise: Promise<any>, resolve: (value?: any) => void, reject: (error: unknown) => void }}
 */
export function deferred() {
  /** @type {any} */
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(ignore);
  return made;
}

/** @param {unknown} error @returns {Promise<any>} */
export function rejected(error) {
  const { promise, reject } = deferred();
  reject(error);
  return promise;
}

/** Whether two plain values would be written in the same way. @param {unknown} one @param {unknown} other */
export function isSame(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** What has a wildcard is a filter. @param {string} topic */
export function isFilter(topic) {
  return /[*>]/.test(topic);
}

/** @param {string} filter @param {string} topic */
export function matches(filter, topic) {
  const [wanted, segments] = [filter.split('.'), topic.split('.')];
  const open = wanted.at(-1) === '>';
  const fits = wanted.every((segment, i) => i in segments && (/^[*>]$/.test(segment) || segment === segments[i]));
  return fits && (open || segments.length === wanted.length);
}
