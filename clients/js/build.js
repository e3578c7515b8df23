/**
 * Makes `dist/` of `src/`: one minified file for each entry, and the types of the public interface.
 *
 * Owns what is an entry. Invariants: the same sources give the same bytes; names that begin with `_` are
 * the client's own, and are shortened; no type of a private part is published.
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { minify } from 'terser';

/** What is loaded by itself. The first loads the last, when it is needed. */
export const ENTRIES = ['fanfare.js', 'proto.js', 'sse.js'];
const DECLARED = ['fanfare', 'proto', 'sse', 'types', 'error'];

/** @param {string} file */
export const path = (file) => fileURLToPath(new URL(file, import.meta.url));

/** The files of `dist/`, by name. @returns {Promise<Map<string, string>>} */
export async function made() {
  const files = declarations();
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
      write: false,
    });
    files.set(entry, await smaller(outputFiles[0].text));
  }
  return files;
}

/** Takes out what a look at the whole file can; a twentieth after gzip. @param {string} text */
async function smaller(text) {
  const compress = { passes: 3, ecma: 2022, toplevel: true, pure_getters: true, unsafe_arrows: true, keep_fargs: false };
  const { code } = await minify(text, { module: true, compress, mangle: { toplevel: true } });
  return `${code}\n`;
}

/** @returns {Map<string, string>} */
function declarations() {
  const folder = mkdtempSync(join(tmpdir(), 'fanfare-'));
  try {
    execFileSync(path('node_modules/.bin/tsc'), ['--project', path('tsconfig.json'), '--outDir', folder], { stdio: 'inherit' });
    return new Map(DECLARED.map((name) => [`${name}.d.ts`, readFileSync(join(folder, `${name}.d.ts`), 'utf8')]));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (process.argv[1] === path('build.js')) {
  for (const [name, text] of await made()) writeFileSync(path(`dist/${name}`), text);
}
