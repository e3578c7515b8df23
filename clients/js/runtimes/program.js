// One program for every runtime: it is given the address of a broker, and prints `ok` or fails.

import { connect, FanfareError } from '../dist/fanfare.js';
import { proto } from '../dist/proto.js';

const url = globalThis.process?.argv[2] ?? globalThis.Deno.args[0];
const WebSocket = globalThis.WebSocket ?? (await import('ws')).default;

for (const way of [{}, { spelling: proto }, { transport: 'sse' }]) {
  const client = connect(url, { WebSocket, ...way });
  const topic = `runtime.${client.transport}.${way.spelling ? 'proto' : 'json'}`;
  const subscription = client.subscribe(topic);
  await subscription.ready;
  const { epoch } = await client.publish(topic, { binary: Uint8Array.of(1, 2, 255) });
  await client.publish(topic, { data: { text: 'é😀' } });
  const heard = [];
  for await (const { binary, data } of subscription) {
    heard.push(binary ? [...binary] : data.text);
    if (heard.length === 2) break;
  }
  const { messages } = await client.history(topic, { since: { epoch, offset: 1 } });
  heard.push(messages.length);
  const refused = await client.publish('a..b', { data: 1 }).catch((error) => error);
  heard.push(refused instanceof FanfareError && refused.name);
  client.close();
  const expected = JSON.stringify([[1, 2, 255], 'é😀', 1, 'badTopic']);
  if (JSON.stringify(heard) !== expected) throw new Error(`${topic}: ${JSON.stringify(heard)}`);
}
console.log('ok');
