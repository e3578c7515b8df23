// A real broker, the program that FANFARE_BIN names, and a wire to it that can be cut.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Inbox, within } from './fake.js';

const { FANFARE_BIN } = process.env;
assert.ok(FANFARE_BIN, 'FANFARE_BIN must name the broker to test against');

/** Starts a broker that ends with the test, with these settings. */
export async function broker(t, { port = 0, settings = '', secret } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'fanfare-'));
  t.after(() => rm(folder, { recursive: true }));
  const config = join(folder, 'fanfare.toml');
  if (secret) await writeFile(join(folder, 'secret'), secret, { mode: 0o600 });
  await writeFile(config, settings.replace('$SECRET', join(folder, 'secret')));
  const args = ['serve', '--config', config, '--listen', `127.0.0.1:${port}`, '--ingress', 'off', '--admin', 'off', '--log-format', 'json'];
  const child = spawn(FANFARE_BIN, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((resolve) => child.once('close', resolve));
  const kill = async () => {
    child.kill('SIGKILL');
    await within('the end of the broker', ended);
  };
  t.after(kill);
  const log = new Inbox();
  createInterface({ input: child.stderr }).on('line', (line) => log.push(line));
  const line = await log.until('the address', (text) => text.includes('listening for WebSocket and HTTP'));
  const [, listening] = /"address":"127\.0\.0\.1:(\d+)"/.exec(line) ?? assert.fail(line);
  return { port: Number(listening), url: `ws://127.0.0.1:${listening}/ws`, kill };
}

/** A wire to a port: `cut` ends whatever goes over it, `hold` lets nothing new through. */
export async function wire(t, port) {
  const sockets = new Set();
  let held = false;
  const server = net.createServer((near) => {
    const far = net.connect(port, '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.on('close', () => (sockets.delete(one), other.destroy()));
      one.on('error', () => {});
      one.pipe(other);
    }
    if (held) near.destroy();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  t.after(() => (server.close(), cut()));
  const url = `ws://127.0.0.1:${server.address().port}/ws`;
  return { url, cut, hold: () => (held = true), release: () => (held = false) };
}

/** A token as `secret` signs it. */
export function mint(secret, { ttlMs = 60_000, subscribe = ['>'], publish = ['>'] } = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { sub: 'alice', aud: 'fanfare', exp: (Date.now() + ttlMs) / 1_000, fanfare: { subscribe, publish } };
  claims.exp = Math.ceil(claims.exp);
  const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}
