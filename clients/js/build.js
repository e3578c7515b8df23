/**
 * Makes `dist/` of `src/`: one minified file for each entry.
 *
 * Owns what is an entry. Invariants: the same sources give the same bytes; names that begin with `_` are
 * the client's own, and are shortened.
 */

import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

export const ENTRIES = ['fanfare.js'];

/** The files of `dist/`, by name. @returns {Promise<Map<string, string>>} */
export async function bundles() {
  const made = new Map();
  for (const entry of ENTRIES) {
    const { outputFiles } = await build({
      entryPoints: [path(`src/${entry}`)],
      bundle: true,
      minify: true,
      format: 'esm',
      target: 'es2022',
      mangleProps: /^_/,
      external: ENTRIES.map((other) => `./${other}`),
      legalComments: 'none',
      banner: { js: '// Fanfare client. Made of clients/js/src by `npm run build`; MIT OR Apache-2.0.' },
      write: false,
    });
    made.set(entry, outputFiles[0].text);
  }
  return made;
}

/** @param {string} file */
export const path = (file) => fileURLToPath(new URL(file, import.meta.url));

if (process.argv[1] === path('build.js')) {
  for (const [name, text] of await bundles()) await writeFile(path(`dist/${name}`), text);
}
