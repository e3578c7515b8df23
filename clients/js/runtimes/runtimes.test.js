// The client in Node, Deno and Bun, against the broker that FANFARE_BIN names.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { broker } from '../test/broker.js';

const here = (file) => fileURLToPath(new URL(file, import.meta.url));
const RUNTIMES = {
  Node: [process.execPath],
  Deno: [here('node_modules/.bin/deno'), 'run', '--allow-net', '--no-lock'],
  Bun: [here('node_modules/.bin/bun'), 'run'],
};

for (const [name, [command, ...options]] of Object.entries(RUNTIMES)) {
  test(`${name} publishes and subscribes in each spelling and over each transport`, async (t) => {
    const { url } = await broker(t);
    const { stdout } = await promisify(execFile)(command, [...options, here('program.js'), url], { timeout: 30_000, env: { ...process.env, NO_COLOR: '1' } });
    assert.equal(stdout, 'ok\n');
  });
}
