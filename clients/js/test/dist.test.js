// What is served and published is what the sources give, and is as small as is promised.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { made, path } from '../build.js';

/** Bytes after gzip. */
const BOUNDS = { 'fanfare.js': 7_800, 'proto.js': 2_300, 'sse.js': 3_600 };

test('dist is what the sources give', async () => {
  for (const [name, text] of await made()) {
    assert.equal(await readFile(path(`dist/${name}`), 'utf8'), text, `dist/${name} is old: npm run build`);
  }
});

for (const [name, bound] of Object.entries(BOUNDS)) {
  test(`dist/${name} has at most ${bound} bytes after gzip`, async (t) => {
    const { length } = gzipSync(await readFile(path(`dist/${name}`)), { level: 9 });
    t.diagnostic(`${length} bytes`);
    assert.ok(length <= bound, `${length} bytes`);
  });
}
