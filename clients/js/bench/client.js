// One client in a process of its own: how long it is away, or what it costs.

import { Centrifuge } from 'centrifuge';
import mqtt from 'mqtt';
import { io } from 'socket.io-client';
import WebSocket from 'ws';
import { connect } from '../dist/fanfare.js';
import { proto } from '../dist/proto.js';

const WARM = 100_000;
const TOTAL = 300_000;

/** Subscribes; `topic` tells the server what to send. */
const START = {
  fanfare: (port, topic, heard) => connect(`ws://127.0.0.1:${port}/ws`, { WebSocket }).subscribe(topic, { onMessage: ({ data }) => heard(data) }),
  'fanfare-proto': (port, topic, heard) => connect(`ws://127.0.0.1:${port}/ws`, { WebSocket, spelling: proto }).subscribe(topic, { onMessage: ({ data }) => heard(data) }),
  centrifuge: (port, topic, heard) => {
    const client = new Centrifuge(`ws://127.0.0.1:${port}/connection/websocket`, { websocket: WebSocket });
    const subscription = client.newSubscription(topic);
    subscription.on('publication', ({ data }) => heard(data));
    subscription.subscribe();
    client.connect();
  },
  socketio: (port, topic, heard) => {
    const client = io(`ws://127.0.0.1:${port}`, { transports: ['websocket'] });
    client.on('connect', () => client.emit('subscribe', topic));
    client.on('message', heard);
  },
  mqtt: (port, topic, heard) => {
    const client = mqtt.connect(`ws://127.0.0.1:${port}`);
    client.on('connect', () => client.subscribe(topic));
    client.on('message', (_, payload) => heard(JSON.parse(payload)));
  },
};

const [name, task, port, count] = process.argv.slice(2);

const TASKS = {
  /** Milliseconds from a cut to the first message after it. */
  cut() {
    START[name](Number(port), 'cut', ({ cutAt }) => {
      if (cutAt) process.send(Date.now() - cutAt);
    });
  },

  /** Milliseconds of processor time for 1,000 messages. */
  cpu() {
    let heard = 0;
    let begun;
    START[name](Number(port), `flow-${count}`, ({ symbol }) => {
      if (symbol !== 'IBM') throw new Error('this is not what was sent');
      heard += 1;
      if (heard === WARM) begun = process.cpuUsage();
      if (heard !== TOTAL) return;
      const { user, system } = process.cpuUsage(begun);
      process.send((user + system) / (TOTAL - WARM));
    });
  },
};

TASKS[task]();
