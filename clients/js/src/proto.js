/**
 * The protobuf spelling, to be given to `connect` as `spelling`: smaller on the wire, and bytes as bytes.
 *
 * Invariants: bytes that are no event end in an error, whatever they are; fields that are not known are
 * passed over; nothing is read beyond the message that it stands in.
 * @module fanfare-client/proto
 */

/** @import { Fields, Kind } from './schema.js' */
/** @import { Spelling } from './types.js' */

import { COMMAND, EVENT } from './schema.js';

const UTF8 = new TextDecoder('utf-8', { fatal: true });
const TO_UTF8 = new TextEncoder();

/** @type {Spelling} */
export const proto = {
  protocol: 'fanfare.v1.proto',
  encode: (id, action, body) => {
    const writer = new Writer();
    writer.message(COMMAND, { id, [action]: body });
    return writer.bytes();
  },
  decode: (data, batched) => {
    const reader = new Reader(new Uint8Array(data));
    if (!batched) return [reader.message(EVENT)];
    const events = [];
    while (!reader.atEnd) events.push(reader.block().message(EVENT));
    return events;
  },
};

class Writer {
  #buffer = new Uint8Array(256);
  #length = 0;

  bytes() {
    return this.#buffer.slice(0, this.#length);
  }

  /** @param {Fields} fields @param {any} value */
  message(fields, value) {
    for (const [number, [name, kind]] of Object.entries(fields)) {
      if (value[name] !== undefined) this.#field(Number(number), kind, value[name]);
    }
  }

  /** @param {number} number @param {Kind} kind @param {any} value */
  #field(number, kind, value) {
    if (Array.isArray(kind)) return this.#number(number, kind.indexOf(value) + 1 || UNKNOWN);
    if (typeof kind === 'object' && 'each' in kind) {
      for (const each of value) this.#field(number, /** @type {Fields} */ (kind.each), each);
    } else if (typeof kind === 'object') {
      const inner = new Writer();
      inner.message(/** @type {Fields} */ (kind), value);
      this.#block(number, inner.bytes());
    } else if (kind === 'D') {
      this.#varint(number * 8 + 1);
      this.#append(new Uint8Array(new Float64Array([value]).buffer));
    } else if (kind === 'b' || kind === 'B') {
      if (value) this.#number(number, 1);
    } else if (kind === 'u' || kind === 'U') {
      this.#number(number, value);
    } else {
      this.#block(number, kind === 'Y' ? value : TO_UTF8.encode(kind === 'J' ? JSON.stringify(value) : value));
    }
  }

  /** @param {number} number @param {number} value */
  #number(number, value) {
    if (!Number.isSafeInteger(value) || value < 0) throw new TypeError(`${value} is no integer from 0 to 2^53 - 1`);
    this.#varint(number * 8);
    this.#varint(value);
  }

  /** @param {number} number @param {Uint8Array} bytes */
  #block(number, bytes) {
    this.#varint(number * 8 + 2);
    this.#varint(bytes.length);
    this.#append(bytes);
  }

  /** @param {number} value */
  #varint(value) {
    const bytes = [];
    for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
    this.#append([...bytes, value]);
  }

  /** @param {ArrayLike<number>} bytes */
  #append(bytes) {
    const length = this.#length + bytes.length;
    if (length > this.#buffer.length) {
      const larger = new Uint8Array(length * 2);
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length = length;
  }
}

/** A value that the server refuses as it refuses an unknown name. */
const UNKNOWN = 255;

class Reader {
  #bytes;
  #at = 0;

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.#bytes = bytes;
  }

  get atEnd() {
    return this.#at === this.#bytes.length;
  }

  /** @param {Fields} fields @returns {any} */
  message(fields) {
    const message = blank(fields);
    while (!this.atEnd) {
      const tag = this.#varint();
      const [name, kind] = fields[Math.floor(tag / 8)] ?? [];
      const value = this.#value(tag % 8, kind);
      if (name === undefined || kind === undefined || value === undefined) continue;
      if (typeof kind === 'object' && 'each' in kind) (message[name] ??= []).push(value);
      else message[name] = value;
    }
    return message;
  }

  /** A part with its length in front. */
  block() {
    return new Reader(this.#take(this.#varint()));
  }

  /** @param {number} type @param {Kind} [kind] @returns {any} */
  #value(type, kind) {
    if (type === 0) {
      const value = this.#varint();
      if (Array.isArray(kind)) return kind[value - 1];
      return kind === 'b' || kind === 'B' ? value > 0 : value;
    }
    if (type === 1 || type === 5) {
      const { buffer, byteOffset } = this.#take(type === 1 ? 8 : 4);
      return type === 1 ? new DataView(buffer, byteOffset).getFloat64(0, true) : undefined;
    }
    if (type !== 2) throw new TypeError(`there is no wire type ${type}`);
    const part = this.block();
    if (typeof kind === 'object' && !Array.isArray(kind)) {
      return part.message(/** @type {Fields} */ ('each' in kind ? kind.each : kind));
    }
    if (kind === 'Y') return part.#bytes.slice();
    if (kind === undefined) return undefined;
    const text = utf8(part.#bytes);
    return kind === 'J' ? JSON.parse(text) : text;
  }

  /** @param {number} length */
  #take(length) {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new TypeError('a field ends beyond its message');
    const part = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return part;
  }

  #varint() {
    let value = 0;
    for (let scale = 1; scale <= 2 ** 49; scale *= 128) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) break;
      value += (byte % 128) * scale;
      if (byte < 128 && value <= Number.MAX_SAFE_INTEGER) return value;
      if (byte < 128) break;
    }
    throw new TypeError('a number is not whole, or too large');
  }
}

/** Characters up to which no decoder is worth its call. */
const SHORT = 32;

/** @param {Uint8Array} bytes */
function utf8(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += 1) {
    const byte = bytes[i] ?? 0;
    if (byte > 127 || i === SHORT) return UTF8.decode(bytes);
    text += String.fromCharCode(byte);
  }
  return text;
}

/** What is always there, by the kind of message. @type {Map<Fields, (readonly [string, Kind])[]>} */
const ALWAYS = new Map();

/** A message before its fields are read. @param {Fields} fields @returns {any} */
function blank(fields) {
  let always = ALWAYS.get(fields);
  if (!always) {
    always = Object.values(fields).filter(([, kind]) => initial(kind) !== undefined);
    ALWAYS.set(fields, always);
  }
  /** @type {any} */
  const message = {};
  for (const [name, kind] of always) message[name] = initial(kind);
  return message;
}

/** @param {Kind} kind */
function initial(kind) {
  if (kind === 's') return '';
  if (kind === 'u') return 0;
  if (kind === 'b') return false;
  return typeof kind === 'object' && 'always' in kind && kind.always ? [] : undefined;
}
