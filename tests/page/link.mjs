// Link: the network between a browser and a broker, which can be cut, and in which a middlebox may let
// no WebSocket through.
// Invariants: while it is cut nothing gets through and whoever connects is cut off; it listens all the
// time, so the browser's own view of its network does not matter.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** A link to this port, which ends with the test. */
export async function link(t, port, { webSockets = true } = {}) {
  const pairs = new Set();
  let isCut = false;
  const server = createServer((near) => {
    if (isCut) return near.destroy();
    const far = connect(port, '127.0.0.1');
    const pair = [near, far];
    pairs.add(pair);
    const end = () => {
      pairs.delete(pair);
      for (const socket of pair) socket.destroy();
    };
    for (const socket of pair) socket.on('error', end).on('close', end);
    far.pipe(near);
    near.on('data', (bytes) => {
      if (!webSockets && bytes.includes('GET /ws ')) return end();
      far.write(bytes);
    }).on('end', () => far.end());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => {
    isCut = true;
    for (const pair of pairs) for (const socket of pair) socket.destroy();
  };
  t.after(() => {
    cut();
    server.close();
  });
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    cut,
    mend: () => (isCut = false),
  };
}
