// Examples: the pages of examples/ and of the quickstart, opened as files, as whoever reads of them does.
// Invariants: only the port differs from what is read.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { folderOf, start } from './broker.mjs';
import { launch } from './engines.mjs';
import { open, text, until, wrong } from './page.mjs';

const ROOT = new URL('../../', import.meta.url);
const ARTEFACTS = fileURLToPath(new URL('../artefacts/', import.meta.url));

/** All tests, in one engine. */
export function examples(engine) {
  describe(`the examples in ${engine}`, () => {
    const suite = {};
    before(async () => {
      mkdirSync(ARTEFACTS, { recursive: true });
      suite.broker = await start(await folderOf({ after }), { mode: 'demo', settings: await read('examples/fanfare.toml') });
      suite.browser = await launch(engine);
    });
    after(async () => {
      await suite.browser?.close();
      await suite.broker?.stop();
    });

    test('the page of the quickstart shows prices', async (t) => {
      const [, source] = /```html\n(.*?)```/s.exec(await read('docs/quickstart.md'));
      const page = await opened(t, suite, 'quickstart.html', source);
      await until(page, () => document.querySelectorAll('li').length >= 5);
      assert.match(await text(page, 'li'), /^[A-Z]+ \d/);
      assert.deepEqual(await wrong(page), []);
    });

    test('the wall has a tile of each topic, and those that fall silent are grey', async (t) => {
      const page = await opened(t, suite, 'wall.html', await read('examples/wall.html'));
      await suite.broker.publish({ topic: 'host.gone', data: { lastWord: 1 } });
      await until(page, () => document.querySelectorAll('section').length >= 5);
      await until(page, () => document.querySelector('section.stale')?.textContent.includes('host.gone'));
      await page.screenshot({ path: `${ARTEFACTS}wall-${engine}.png` });
      await suite.broker.publish({ topic: 'host.gone', data: { lastWord: 2 } });
      await until(page, () => !document.querySelector('section.stale'));
      assert.deepEqual(await wrong(page), []);
    });

    test('in the room everybody sees who is there and what is said', async (t) => {
      const source = await read('examples/room.html');
      const ann = await opened(t, suite, 'room.html', source);
      const ben = await opened(t, suite, 'room.html', source);
      for (const page of [ann, ben]) {
        await until(page, () => document.querySelector('#who').textContent.split(', ').length === 2);
      }
      await ann.type('[name=text]', 'hello, is somebody here?');
      await ann.click('button');
      for (const page of [ann, ben]) {
        await until(page, () => document.querySelector('li:not(.waiting)')?.textContent.endsWith(': hello, is somebody here?'));
      }
      await until(ann, () => document.querySelectorAll('li').length === 1);
      await ann.screenshot({ path: `${ARTEFACTS}room-${engine}.png` });
      await ben.close();
      await until(ann, () => !document.querySelector('#who').textContent.includes(', '));
      assert.deepEqual(await wrong(ann), []);
    });
  });
}

const read = (path) => readFile(new URL(path, ROOT), 'utf8');

async function opened(t, { broker, browser }, name, source) {
  assert.ok(source.includes('127.0.0.1:7600'));
  const file = join(await folderOf(t), name);
  await writeFile(file, source.replaceAll('127.0.0.1:7600', `127.0.0.1:${broker.port}`));
  return open(t, browser, pathToFileURL(file).href);
}
