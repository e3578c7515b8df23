// The protobuf spelling: what is written can be read, and bytes that nobody wrote do no harm.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { proto } from '../src/proto.js';
import { COMMAND, EVENT } from '../src/schema.js';

const hex = (text) => Uint8Array.from(text.match(/../g) ?? [], (byte) => parseInt(byte, 16));
const read = (text) => proto.decode(hex(text).buffer, false)[0];

test('commands are spelt as the schema says', () => {
  const table = [
    [[1, 'connect', { token: 'a', batch: true, name: undefined }], '0801' + '1205' + '0a0161' + '1001'],
    [[300, 'ping', {}], '08ac02' + '5200'],
    [[2, 'update', { topic: 'a', policy: 'maxHz', maxHz: 2 }], '0802' + '2a0e' + '0a0161' + '3803' + '410000000000000040'],
    [[3, 'publish', { topic: 'a', data: { x: 1 }, delete: undefined }], '0803' + '320c' + '0a0161' + '12077b2278223a317d'],
    [[4, 'publish', { topic: 'a', binary: Uint8Array.of(), ttlMs: 2 ** 40 }], '0804' + '320c' + '0a0161' + '2200' + '40808080808020'],
  ];
  for (const [command, expected] of table) {
    assert.equal(Buffer.from(proto.encode(...command)).toString('hex'), expected, command[1]);
  }
  for (const last of [-1, 1.5, NaN, '3']) assert.throws(() => proto.encode(1, 'subscribe', { topic: 'a', last }), TypeError);
});

test('what protobuf leaves out is there again, and only what JSON has too', () => {
  assert.deepEqual(read('1203' + '0a0161'), { message: { topic: 'a', offset: 0, time: 0 } });
  assert.deepEqual(read('7203' + '0a0161'), { historyPage: { topic: 'a', messages: [], more: false } });
  assert.deepEqual(read('2205' + '0a0161' + '1800'), { subscribed: { topic: 'a', recovered: false } });
  assert.deepEqual(read('0807' + '5a00'), { id: 7, pong: {} });
  // Fields and values of a later version.
  assert.deepEqual(read('a20604' + '00000000' + '9206025858' + '4a07' + '0a0161' + '2863' + '3001'), { gap: { topic: 'a', from: 0, to: 0, count: 0 } });
});

test('a batch is events with their lengths in front', () => {
  const events = proto.decode(hex('025a00' + '026200').buffer, true);
  assert.deepEqual(events, [{ pong: {} }, { ping: {} }]);
});

test('bytes that are no event end in an error, and never in a wrong event', () => {
  for (const text of ['08', '0880808080808080808001', '12', '1205', '120a0a01', '0b', '1203' + '0a01ff', '1204' + '2a027b7b', '08ffffffffffffffff7f']) {
    assert.throws(() => read(text), text);
  }
  // Whatever is cut from an event, or changed in it, nothing hangs and nothing but an error comes of it.
  const whole = hex('1217' + '0a0161' + '1005' + '18ffffffff0f' + '22016b' + '2a077b2278223a317d');
  for (let length = 0; length < whole.length; length += 1) attempt(whole.slice(0, length));
  for (let at = 0; at < whole.length; at += 1) {
    for (let bit = 0; bit < 8; bit += 1) {
      const changed = whole.slice();
      changed[at] ^= 1 << bit;
      attempt(changed);
    }
  }
});

function attempt(bytes) {
  for (const batched of [false, true]) {
    try {
      proto.decode(bytes.buffer, batched);
    } catch (error) {
      assert.ok(error instanceof Error);
    }
  }
}

test('every field of the schema is known here by its number', async () => {
  const schema = await readFile(new URL('../../../proto/fanfare/v1/fanfare.proto', import.meta.url), 'utf8');
  const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
  const fields = (name) => {
    const [, body] = new RegExp(`\\nmessage ${name} \\{\\n([^]*?)\\n\\}`).exec(schema) ?? [, ''];
    return new Map([...body.matchAll(/^ +(?:optional |repeated )?(\w+) (\w+) = (\d+);/gm)].map(([, type, field, number]) => [Number(number), [camel(field), type]]));
  };
  let compared = 0;
  const compare = (name, ours) => {
    const theirs = fields(name);
    assert.deepEqual(Object.entries(ours).map(([number, [field]]) => [Number(number), field]), [...theirs].sort(([a], [b]) => a - b).map(([number, [field]]) => [number, field]), name);
    for (const [number, [, kind]] of Object.entries(ours)) {
      compared += 1;
      const inner = kind?.each ?? kind;
      if (typeof inner === 'object' && !Array.isArray(inner)) compare(theirs.get(Number(number))[1], inner);
    }
  };
  compare('Command', COMMAND);
  compare('Event', EVENT);
  assert.ok(compared > 100, `${compared} fields`);
});
