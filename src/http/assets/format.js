// Format: turns values of any type into the words of the page.
// Invariants: nothing here throws, whatever a message holds; what is not a finite number is `—`.
// Not here: the document.

/** What stands where there is nothing to say. */
export const NONE = '—';
const MINUS = '\u2212';

/** The value if it is a finite number, else NaN. */
export function number(value) {
  return typeof value === 'number' && Number.isFinite(value) ? value : NaN;
}

/** The value if it is a string, cut to `max` characters, else the empty string. */
export function text(value, max) {
  return typeof value === 'string' ? value.slice(0, max) : '';
}

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const cents = new Intl.NumberFormat('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const short = new Intl.NumberFormat('en-US', { notation: 'compact', minimumSignificantDigits: 3, maximumSignificantDigits: 3 });

/** A price: two decimals; more for the very small, less for the very large. */
export function price(value) {
  const v = number(value);
  if (Number.isNaN(v)) return NONE;
  const size = Math.abs(v);
  return (v < 0 ? MINUS : '') + (size >= 1e7 || (size > 0 && size < 0.01) ? extreme(size) : cents.format(size));
}

/** A price difference, always with its sign. */
export function difference(value) {
  const v = number(value);
  return Number.isNaN(v) ? NONE : sign(v) + price(Math.abs(v));
}

/** A relative change, in percent and with its sign. */
export function share(value) {
  const v = number(value);
  if (Number.isNaN(v)) return NONE;
  const size = Math.abs(v);
  return `${sign(v)}${size < 1e4 ? cents.format(size) : price(size)}%`;
}

/** `up`, `down`, or `flat` for zero and for what is not a number. */
export function tone(value) {
  const v = number(value);
  if (v > 0) return 'up';
  return v < 0 ? 'down' : 'flat';
}

/** A count that may be large: 1.23M. */
export function amount(value) {
  const v = number(value);
  if (Number.isNaN(v)) return NONE;
  if (Math.abs(v) >= 1e15) return v.toExponential(2);
  return Math.abs(v) < 1000 ? whole.format(v) : short.format(v);
}

/** A count, exact below a thousand million, with thousands separated. */
export function count(value) {
  const v = number(value);
  return Math.abs(v) < 1e9 ? whole.format(v) : amount(v);
}

/** A rate per second: one decimal below ten. */
export function rate(value) {
  const v = number(value);
  if (Number.isNaN(v)) return NONE;
  return v > 0 && v < 10 ? v.toFixed(1) : count(v);
}

/** Milliseconds; the clocks tick in whole ones, so less than one is all that can be said. */
export function milliseconds(value) {
  const v = number(value);
  if (Number.isNaN(v)) return NONE;
  return v < 1 ? '<\u20091' : count(v);
}

/** A share of the whole, 0 to 100. */
export function percent(value) {
  const v = number(value);
  if (Number.isNaN(v)) return NONE;
  return `${Math.abs(v) < 99.95 ? v.toFixed(1) : count(v)}\u2009%`;
}

/** Memory, in powers of 1024. */
export function memory(value) {
  return scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);
}

/** Throughput, in powers of 1000. */
export function throughput(value) {
  return scaled(value, 1000, ['B/s', 'KB/s', 'MB/s', 'GB/s', 'TB/s', 'PB/s']);
}

/** Terms of delivery, as the board's control names them: `all`, `latest`, or a number of hertz. */
export function terms(value) {
  if (Number(value) > 0) return `${value} Hz`;
  return value === 'latest' ? 'Latest' : 'All';
}

/** The same, where a rule of the broker grants no more than that. */
export function cap(value) {
  return Number(value) > 0 ? `max ${terms(value)}` : `only ${terms(value)}`;
}

/** The time of the day, from milliseconds since 1970. */
export function clock(time) {
  const v = number(time);
  return Number.isNaN(v) ? NONE : new Date(v).toLocaleTimeString('en-GB');
}

/** How long, in the two largest units that say something. */
export function duration(value) {
  const v = number(value);
  if (Number.isNaN(v)) return NONE;
  const seconds = Math.floor(v / 1000);
  const parts = [[Math.floor(seconds / 86_400), 'd'], [Math.floor(seconds / 3600) % 24, 'h'], [Math.floor(seconds / 60) % 60, 'min'], [seconds % 60, 's']];
  const first = parts.findIndex(([count]) => count > 0);
  return first < 0 ? '0\u2009s' : parts.slice(first, first + 2).map(([count, unit]) => `${count}\u2009${unit}`).join(' ');
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `2004-03-17` as `17 Mar 2004`; any other string as it is, cut short. */
export function date(value) {
  const raw = text(value, 12);
  const parts = /^(\d{4})-(\d\d)-(\d\d)$/.exec(raw);
  const month = parts && MONTHS[Number(parts[2]) - 1];
  return month ? `${Number(parts[3])} ${month} ${parts[1]}` : raw || NONE;
}

function sign(v) {
  if (v > 0) return '+';
  return v < 0 ? MINUS : '';
}

function extreme(size) {
  if (size < 1) return size.toPrecision(3);
  return size < 1e15 ? short.format(size) : size.toExponential(2);
}

function scaled(value, base, units) {
  let v = number(value);
  if (Number.isNaN(v)) return NONE;
  let unit = 0;
  while (Math.abs(v) >= base && unit < units.length - 1) {
    v /= base;
    unit += 1;
  }
  if (Math.abs(v) >= 1e6) return `${v.toExponential(1)}\u2009${units[unit]}`;
  const decimals = unit > 0 && Math.abs(v) < 100 ? 1 : 0;
  return `${v.toFixed(decimals)}\u2009${units[unit]}`;
}
