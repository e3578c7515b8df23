// Broker: a real broker of this test, in a process of its own.
// Owns its configuration file and its ports.
// Needs FANFARE_BIN.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DEADLINE_MS } from './page.mjs';

const { FANFARE_BIN } = process.env;
assert.ok(FANFARE_BIN, 'FANFARE_BIN must name the broker to test');

/** A folder that ends with the test, or with the suite. */
export async function folderOf(t) {
  const folder = await mkdtemp(join(tmpdir(), 'fanfare-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

/** Starts `fanfare demo` or `fanfare serve` with these settings; port 0 is a free one. */
export async function start(folder, { mode = 'serve', port = 0, settings = '' } = {}) {
  const config = join(folder, `${mode}-${port}-${settings.length}.toml`);
  await writeFile(config, settings);
  const args = [mode, '--config', config, '--listen', `127.0.0.1:${port}`, '--ingress', 'off', '--admin', '127.0.0.1:0', '--shards', '2', '--log-format', 'json'];
  const child = spawn(FANFARE_BIN, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const closed = once(child, 'close');
  const stop = async (signal = 'SIGKILL') => {
    child.kill(signal);
    await closed;
  };
  const ports = await listening(child, stop);
  // Nobody reads the rest, but it must not fill the pipe.
  child.stderr.resume();
  const origin = `http://127.0.0.1:${ports.WebSocket}`;
  return {
    port: ports.WebSocket,
    origin,
    stop,
    publish: (...messages) => publish(origin, messages),
    metrics: () => metrics(`http://127.0.0.1:${ports.metrics}/metrics`),
  };
}

async function listening(child, stop) {
  const deadline = setTimeout(stop, DEADLINE_MS);
  const log = [];
  const ports = {};
  for await (const line of createInterface({ input: child.stderr })) {
    log.push(line);
    const found = /listening for (WebSocket|metrics)/.exec(line);
    if (found) ports[found[1]] = Number(/"address":"127\.0\.0\.1:(\d+)"/.exec(line)?.[1]);
    if (ports.WebSocket && ports.metrics) break;
  }
  clearTimeout(deadline);
  assert.ok(ports.WebSocket && ports.metrics, `the broker did not start: ${log.join('\n')}`);
  return ports;
}

async function publish(origin, messages) {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(`${origin}/v1/publish`, { method: 'POST', headers, body: JSON.stringify(messages) });
  const results = await answer.json();
  assert.ok(answer.ok && results.every(({ error }) => !error), JSON.stringify(results));
}

async function metrics(url) {
  const text = await (await fetch(url)).text();
  const series = text.split('\n').filter((line) => /^\w+ /.test(line)).map((line) => line.split(' '));
  return new Map(series.map(([name, value]) => [name, Number(value)]));
}
