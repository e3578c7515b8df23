// Socket: a subscriber that stops reading, which no browser would do.
// Not here: anything that a client should do.

import { once } from 'node:events';
import { connect } from 'node:net';

/** Subscribes to a topic and then reads nothing. */
export async function deaf(t, port, topic) {
  const socket = connect(port, '127.0.0.1');
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  const head = ['GET /ws HTTP/1.1', `Host: 127.0.0.1:${port}`, 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='];
  socket.write(`${head.join('\r\n')}\r\n\r\n`);
  await once(socket, 'data');
  socket.write(frame(JSON.stringify({ id: 1, subscribe: { topic } })));
  await once(socket, 'data');
  socket.pause();
}

/** A short text in one frame, masked with zeros. */
function frame(text) {
  const payload = Buffer.from(text);
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
}
