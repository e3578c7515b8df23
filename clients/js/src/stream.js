/**
 * The spelling of server-sent events: the query that asks for a stream, and the events in its bytes.
 * @module
 */

/** @import { Places } from './places.js' */

/**
 * A topic or filter of a stream.
 * @typedef {object} Entry
 * @property {any} body The command to subscribe.
 * @property {number} [id] That of the command, until it is answered.
 * @property {boolean} [filling] Whether what it asked to come first is still coming.
 * @property {boolean} [again] Whether it has been answered before.
 * @property {number} [update] The id of a command to change its terms.
 * @property {number} [asked] That which the stream has been asked for.
 * @property {any} [before] What it was before that.
 * @property {any} [outcome] What the stream has answered.
 */

/** Characters of one event. */
const EVENT_MAX = 4 << 20;
const TERMS = ['policy', 'maxHz', 'overflow', 'presence'];

/** @param {Entry[]} entries @param {Places} places */
export function query(entries, places) {
  const asked = new URLSearchParams();
  for (const { body, id } of entries) {
    asked.append('topic', body.topic);
    const fresh = id !== 0;
    for (const name of fresh ? ['snapshot', 'last', ...TERMS] : TERMS) {
      if (body[name]) asked.append(name, body[name]);
    }
    for (const since of fresh ? given(body) : places.since(body.topic)) asked.append('since', since);
  }
  return asked.toString();
}

/** @param {any} body @returns {string[]} */
function given({ since, positions = [] }) {
  if (since) return [`${since.epoch}:${since.offset}`];
  return positions.map((/** @type {any} */ { topic, epoch, offset }) => `${topic}@${epoch}:${offset}`);
}

/**
 * A position is used by one subscription of a stream alone: what became of that of a filter, the server
 * says of the topic, if that is asked for as well.
 * @param {Entry} entry
 * @param {Entry[]} entries
 * @param {any} event
 */
export function withTopics(entry, entries, event) {
  const { subscribed } = event;
  entry.outcome = subscribed;
  const told = new Set(subscribed?.topics?.map((/** @type {any} */ { topic }) => topic));
  const { positions = [] } = entry.body;
  if (!subscribed || !entry.id || positions.length === told.size) return event;
  const others = positions.flatMap((/** @type {any} */ position) => {
    const exact = entries.find(({ body }) => body.topic === position.topic);
    const { since } = exact?.body ?? {};
    if (told.has(position.topic) || !exact?.outcome || !since) return [];
    const covered = since.epoch === position.epoch && since.offset <= position.offset;
    const recovered = exact.outcome.recovered === true && covered;
    return { ...exact.outcome, recovered, reason: recovered ? undefined : (exact.outcome.reason ?? 'noPosition') };
  });
  return { ...event, subscribed: { ...subscribed, topics: [...(subscribed.topics ?? []), ...others] } };
}

/** The data of each event. @param {ReadableStream<Uint8Array>} body @returns {AsyncGenerator<string>} */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let size = 0;
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? '';
      if (rest.length > EVENT_MAX) throw new Error('an event is too long');
      for (const line of lines) {
        size = line === '' ? 0 : size + line.length;
        if (size > EVENT_MAX) throw new Error('an event is too long');
        if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5));
        if (line !== '' || data.length === 0) continue;
        yield data.join('\n');
        data = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
