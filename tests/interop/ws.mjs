// Subscribes with the `ws` package and prints what comes until there are five messages.
import WebSocket from '../../clients/js/node_modules/ws/wrapper.mjs';

const socket = new WebSocket(process.env.URL, ['fanfare.v1.json']);
let messages = 0;
socket.on('open', () => socket.send(process.env.SUBSCRIBE));
socket.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
socket.on('message', (data) => {
  console.log(data.toString());
  if (JSON.parse(data).message && (messages += 1) === 5) socket.close();
});
socket.on('close', () => process.exit(messages === 5 ? 0 : 1));
