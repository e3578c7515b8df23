/**
 * The JSON spelling: a command is a text, and so is an event, or several of them, each on its line.
 * @module
 */

/** @import { Spelling } from './types.js' */

/** @type {Spelling} */
export const json = {
  protocol: 'fanfare.v1.json',
  encode: (id, action, { binary, ...body }) =>
    JSON.stringify({ id, [action]: { ...body, base64: binary && toBase64(binary) } }),
  decode: (data, batched) => (batched ? String(data).split('\n').filter(Boolean) : [data]).map((text) => JSON.parse(text)),
};

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
  let chars = '';
  for (const byte of bytes) chars += String.fromCharCode(byte);
  return btoa(chars);
}
