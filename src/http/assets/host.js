// Host: what the cards of this machine show, and its figures.
// Invariants: whatever a message holds, the page stands.
// Not here: drawing (`charts.js`).

import { Charts, nice } from './charts.js';
import * as format from './format.js';
import { find, say } from './page.js';

const CORES_MAX = 64;
const QUIET_RATE = 10_000;

const CARDS = [
  {
    topic: 'host.cpu',
    title: 'CPU',
    format: format.percent,
    lines: [{ label: 'all', tone: 'a', read: (data) => data.percent }],
    extra: (data) => (Array.isArray(data.cores) ? data.cores.slice(0, CORES_MAX) : []),
    top: () => 100,
  },
  {
    topic: 'host.memory',
    title: 'Memory',
    format: format.memory,
    lines: [{ label: 'used', tone: 'a', read: (data) => data.usedBytes }],
    whole: (data) => format.number(data.totalBytes),
    top: (track, whole) => (whole > 0 ? whole : Math.max(1.25 * track.top(), 2 ** 30)),
  },
  {
    topic: 'host.disk',
    title: 'Disk',
    format: format.throughput,
    lines: [
      { label: 'read', tone: 'a', read: (data) => data.readBytesPerSecond },
      { label: 'write', tone: 'b', read: (data) => data.writeBytesPerSecond },
    ],
    top: (track) => nice(track.top(), QUIET_RATE),
  },
  {
    topic: 'host.network',
    title: 'Network',
    format: format.throughput,
    lines: [
      { label: 'in', tone: 'a', read: (data) => data.receiveBytesPerSecond },
      { label: 'out', tone: 'b', read: (data) => data.transmitBytesPerSecond },
    ],
    top: (track) => nice(track.top(), QUIET_RATE),
  },
];

/** The topics of this machine. */
export const TOPICS = CARDS.map(({ topic }) => topic);

export class Host {
  #latest = new Map();

  constructor() {
    const note = (seconds) => say(find('host-note'), Number.isNaN(seconds) ? 'last 2 minutes' : `${seconds.toFixed(1)} s ago`);
    this.charts = new Charts(CARDS, find('host-charts'), note);
  }

  take(topic, time, data) {
    const fields = data !== null && typeof data === 'object' ? data : {};
    this.#latest.set(topic, fields);
    this.charts.take(topic, time, fields);
  }

  /** Writes the figures that are no curve. */
  tell() {
    const cpu = this.#latest.get('host.cpu') ?? {};
    const memory = this.#latest.get('host.memory') ?? {};
    const cores = Array.isArray(cpu.cores) ? cpu.cores.length : NaN;
    const load = Array.isArray(cpu.load) ? cpu.load.slice(0, 3) : [];
    say(find('host-cpu'), format.percent(cpu.percent));
    say(find('host-cores'), Number.isNaN(cores) ? 'of all processors' : `of ${format.count(cores)} ${cores === 1 ? 'processor' : 'processors'}`);
    say(find('host-load'), decimal(load[0]));
    say(find('host-loads'), `${decimal(load[1])} in 5 min, ${decimal(load[2])} in 15 min`);
    say(find('host-memory'), format.memory(memory.usedBytes));
    say(find('host-total'), `of ${format.memory(memory.totalBytes)}, ${format.percent(memory.percent)}`);
    say(find('host-swap'), format.memory(memory.swapUsedBytes));
  }
}

function decimal(value) {
  const v = format.number(value);
  return Number.isNaN(v) ? format.NONE : v.toFixed(2);
}
