// The simplest server of each protocol. What it sends is up to the topic that a client subscribes to:
// `flow-1` and `flow-20` are 300,000 messages, so many at a time; `cut` is one message and then a cut,
// and when the client is back another message that says when that was.

import http from 'node:http';
import packets from 'mqtt-packet';
import protobuf from 'protobufjs';
import { Server } from 'socket.io';
import { WebSocketServer } from 'ws';
import { fileURLToPath } from 'node:url';

const TOTAL = 300_000;
const data = { symbol: 'IBM', date: '2004-03-17', price: 93.81, open: 92.9, change: 0.91, changePercent: 0.98, volume: 5_123_400, note: 'x'.repeat(20) };
let cutAt = 0;

/** Sends what a topic stands for. `send` is given a list of payloads, `cut` ends the connection. */
function play(topic, send, cut) {
  if (topic === 'cut') {
    send([{ ...data, cutAt }]);
    if (!cutAt) setTimeout(() => ((cutAt = Date.now()), cut()), 100);
    else cutAt = 0;
    return;
  }
  const together = Number(topic.split('-')[1]);
  let left = TOTAL;
  // The pace is the same: 200 messages every 4 ms.
  const timer = setInterval(() => {
    for (let sent = 0; sent < 200 && left > 0; sent += together, left -= together) send(Array(together).fill(data));
    if (left <= 0) clearInterval(timer);
  }, 4);
}

const { root } = await protobuf.load(fileURLToPath(new URL('../../../proto/fanfare/v1/fanfare.proto', import.meta.url)));
const [Command, Event] = ['Command', 'Event'].map((name) => root.lookupType(`fanfare.v1.${name}`));

const SPELLINGS = {
  'fanfare.v1.json': {
    read: (text) => JSON.parse(text),
    write: (events) => events.map((event) => `${JSON.stringify(event)}\n`).join(''),
    payload: (value) => value,
  },
  'fanfare.v1.proto': {
    read: (bytes) => Command.toObject(Command.decode(bytes), { longs: Number }),
    write: (events) => Buffer.concat(events.map((event) => Event.encodeDelimited(Event.fromObject(event)).finish())),
    payload: (value) => Buffer.from(JSON.stringify(value)),
  },
};

const SERVERS = {
  fanfare(server) {
    new WebSocketServer({ server }).on('connection', (socket) => {
      const { read, write, payload } = SPELLINGS[socket.protocol];
      let offset = 0;
      const say = (...events) => socket.send(write(events));
      const position = { epoch: 'AAAAAAAAAAAAAAAAAAAAAA', offset };
      socket.on('message', (frame) => {
        const { id, connect, subscribe } = read(frame);
        // The answer itself comes before batches begin.
        if (connect) socket.send(first(socket.protocol, { id, connected: { connection: '1', server: 's', pingMs: 25_000, batch: true } }));
        if (!subscribe) return;
        const { topic } = subscribe;
        say({ id, subscribed: { topic, position } });
        const send = (list) => say(...list.map((value) => ({ message: { topic, offset: (offset += 1), time: 1, data: payload(value) } })));
        play(topic, send, () => socket.terminate());
      });
    });
  },

  centrifuge(server) {
    new WebSocketServer({ server }).on('connection', (socket) => {
      let offset = 0;
      socket.on('message', (frame) => {
        for (const line of String(frame).split('\n').filter(Boolean)) {
          const { id, connect, subscribe } = JSON.parse(line);
          if (connect) socket.send(JSON.stringify({ id, connect: { client: 'c', version: '1', ping: 25, pong: true } }));
          if (!subscribe) continue;
          const { channel } = subscribe;
          socket.send(JSON.stringify({ id, subscribe: {} }));
          const push = (value) => JSON.stringify({ push: { channel, pub: { data: value, offset: (offset += 1) } } });
          play(channel, (list) => socket.send(list.map(push).join('\n')), () => socket.terminate());
        }
      });
    });
  },

  socketio(server) {
    new Server(server, { transports: ['websocket'] }).on('connection', (socket) => {
      const send = (list) => list.forEach((value) => socket.emit('message', value));
      socket.on('subscribe', (topic) => play(topic, send, () => socket.conn.transport.socket.terminate()));
    });
  },

  mqtt(server) {
    new WebSocketServer({ server, handleProtocols: () => 'mqtt' }).on('connection', (socket) => {
      const parser = packets.parser();
      const say = (...list) => socket.send(Buffer.concat(list.map((packet) => packets.generate(packet))));
      socket.on('message', (frame) => parser.parse(frame));
      parser.on('packet', ({ cmd, messageId, subscriptions }) => {
        if (cmd === 'connect') say({ cmd: 'connack', returnCode: 0, sessionPresent: false });
        if (cmd === 'pingreq') say({ cmd: 'pingresp' });
        if (cmd !== 'subscribe') return;
        const [{ topic }] = subscriptions;
        say({ cmd: 'suback', messageId, granted: [0] });
        const publish = (value) => ({ cmd: 'publish', topic, payload: JSON.stringify(value), qos: 0, retain: false, dup: false });
        play(topic, (list) => say(...list.map(publish)), () => socket.terminate());
      });
    });
  },
};

function first(protocol, event) {
  return protocol === 'fanfare.v1.json' ? JSON.stringify(event) : Event.encode(Event.fromObject(event)).finish();
}

const ports = {};
for (const [name, serve] of Object.entries(SERVERS)) {
  const server = http.createServer();
  serve(server);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  ports[name] = server.address().port;
}
process.send(ports);
process.on('disconnect', () => process.exit());
