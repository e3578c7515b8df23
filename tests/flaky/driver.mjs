// Drives the JavaScript client: driver.mjs URL WAY TOPIC… prints a line of JSON for each event. WAY is
// json, protobuf or sse, which is server-sent events. Ends when its input does.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const home = new URL('../../clients/js/', import.meta.url);
const { main, exports: entries = main } = JSON.parse(readFileSync(new URL('package.json', home), 'utf8'));
const entry = entries['.'] ?? entries;
const { connect } = await import(new URL(entry.default ?? entry, home));
const WebSocket = globalThis.WebSocket ?? createRequire(new URL('package.json', home))('ws');

const [url, way, ...topics] = process.argv.slice(2);
const ways = {
  json: () => ({}),
  protobuf: async () => ({ spelling: (await import(new URL('dist/proto.js', home))).proto }),
  sse: () => ({ transport: 'sse' }),
};
const tell = (subscription, what) => console.log(JSON.stringify({ subscription, ...what }));

// Dead connections are found soon, so that a run of seconds has many of them.
const times = { backoffMs: 50, backoffMaxMs: 500, openMaxMs: 2_000, silenceMs: 1_000 };
const client = connect(url, { WebSocket, ...times, ...(await ways[way]()) });
for (const topic of topics) {
  const subscription = client.subscribe(topic, {
    onMessage: (message) => tell(topic, { message: { ...message, time: undefined } }),
    onGap: (gap) => tell(topic, { gap }),
    onRecovered: (recovered) => tell(topic, { recovered }),
    onEnd: (error) => {
      if (!error) return;
      console.error(topic, error);
      process.exit(1);
    },
  });
  subscription.ready.then(() => tell(topic, { ready: true }));
}

process.stdin.resume();
process.stdin.on('end', () => client.close());
