// A program in TypeScript: that it compiles is the test.

import { connect, FanfareError, type ClientOptions, type Message, type Subscription } from 'fanfare-client';
import { proto } from 'fanfare-client/proto';
import { EventStream } from 'fanfare-client/sse';

export const options: ClientOptions[] = [
  { spelling: proto, token: 'a.b.c' },
  { WebSocket: EventStream, token: async () => 'a.b.c', transport: 'auto' },
  // @ts-expect-error: there is no such transport.
  { transport: 'carrier pigeon' },
];

const client = connect('ws://127.0.0.1:7600/ws', { WebSocket });
const quotes: Subscription<{ price: number }> = client.subscribe<{ price: number }>('ticker.*', {
  snapshot: true,
  maxHz: 4,
  overflow: 'catchUp',
  onGranted: ({ policy, maxHz }) => console.log(policy, maxHz?.toFixed()),
  onStale: ({ topic, since }) => console.log(topic, since?.toFixed()),
  onRecovered: ({ recovered, reason }) => console.log(recovered, reason?.length),
  onEnd: (error) => error instanceof FanfareError && error.code.toFixed(),
});

export async function prices(): Promise<number[]> {
  const list: number[] = [];
  for await (const { data } of quotes) if (data) list.push(data.price);
  const { offset } = await client.publish('a.b', { data: 1 });
  const page = await client.history<string>('a.b', { limit: offset });
  const first: Message<string> | undefined = page.messages[0];
  const { policy, overflow } = await quotes.update({ policy: 'latest' });
  const { members } = await client.presence('a.b');
  await client.publish('a.b', { delete: true, key: policy + overflow + members[0]?.name, ttlMs: 5 });
  // @ts-expect-error: there is no such policy.
  quotes.update({ policy: 'newest' });
  // @ts-expect-error: there is no such state.
  if (client.state === 'open') client.close();
  // @ts-expect-error: it is private.
  quotes._feed;
  // @ts-expect-error: there is no such event.
  client.on('stat', () => {});
  return first ? list : [];
}
