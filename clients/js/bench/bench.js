// Runs each client in a process of its own and prints one table.

import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const here = (file) => fileURLToPath(new URL(file, import.meta.url));
const version = (name) => JSON.parse(readFileSync(here(`node_modules/${name}/package.json`), 'utf8')).version;

const CLIENTS = [
  { name: 'fanfare', label: 'fanfare-client, JSON', source: "export { connect } from '../dist/fanfare.js'" },
  { name: 'fanfare-proto', label: 'fanfare-client, protobuf', source: "export { connect } from '../dist/fanfare.js'; export { proto } from '../dist/proto.js'" },
  { name: 'centrifuge', label: `centrifuge-js ${version('centrifuge')}, JSON`, source: "export { Centrifuge } from 'centrifuge'" },
  { name: 'socketio', label: `socket.io-client ${version('socket.io-client')}`, source: "export { io } from 'socket.io-client'" },
  { name: 'mqtt', label: `MQTT.js ${version('mqtt')}`, source: "import mqtt from 'mqtt'; export default mqtt" },
];

async function size(source) {
  const stdin = { contents: source, resolveDir: here('.') };
  const { outputFiles } = await build({ stdin, bundle: true, minify: true, format: 'esm', platform: 'browser', target: 'es2022', external: ['./sse.js'], write: false, logLevel: 'error' });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

async function measure(name, task, ...options) {
  const client = fork(here('client.js'), [name, task, ...options.map(String)]);
  const [result] = await once(client, 'message');
  client.kill();
  return result;
}

const server = fork(here('servers.js'));
const [ports] = await once(server, 'message');
const rows = [];
for (const { name, label, source } of CLIENTS) {
  const port = ports[name.split('-')[0]];
  const bytes = await size(source);
  const backs = [];
  for (let i = 0; i < 7; i += 1) backs.push(await measure(name, 'cut', port));
  const single = await measure(name, 'cpu', port, 1);
  const joined = await measure(name, 'cpu', port, 20);
  backs.sort((a, b) => a - b);
  rows.push([label, (bytes / 1_000).toFixed(1), backs[3].toFixed(0), single.toFixed(1), joined.toFixed(1)]);
}
server.kill();

console.log('| Client | Size, min+gzip (kB) | Back after a cut (ms) | CPU per 1,000 messages, one by one (ms) | joined (ms) |');
console.log('|---|--:|--:|--:|--:|');
for (const row of rows) console.log(`| ${row.join(' | ')} |`);
