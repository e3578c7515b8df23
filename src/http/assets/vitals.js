// Vitals: this page's own connection in figures: what comes, how late, what was missed.
// Invariants: called four times a second and never from a message.
// Not here: counting (`model.js`, `latency.js`).

import * as format from './format.js';
import { tellLatency } from './latency.js';
import { Topics } from './model.js';
import { find, say } from './page.js';

/** The clocks of broker and page are not the same one when messages seem to come from the future. */
const AHEAD_MS = -1;

export function tellVitals({ meter, latency, topics, gaps, resume }, now) {
  const rate = meter.mark(now);
  const counted = latency.sum(now);
  const differ = meter.leastLag() < AHEAD_MS;
  tellLatency(counted, differ);
  say(find('rate'), format.rate(rate));
  say(find('lag'), differ ? format.NONE : format.milliseconds(counted.quantile(0.5)));
  say(find('lag-note'), differ ? 'the clocks differ' : 'broker to page');
  say(find('topics'), topics.size < Topics.MAX ? format.count(topics.size) : `${format.count(Topics.MAX)}+`);
  say(find('total'), meter.total > 0 ? messages(meter.total) : 'no message yet');
  find('pulse').setAttribute('d', pulse(meter.beats));
  say(find('gaps'), format.count(gaps.told));
  if (gaps.latest) {
    find('gaps').dataset.alert = 'true';
    say(find('gaps-note'), `${messages(gaps.messages)} skipped: ${format.text(gaps.latest.reason, 40) || 'no reason given'}`);
  }
  tellRecovery(resume);
}

function tellRecovery({ outcomes, messages: missed }) {
  if (outcomes.length === 0) return;
  const failed = outcomes.filter((outcome) => !outcome.recovered);
  const element = find('recovery');
  element.dataset.outcome = failed.length > 0 ? 'anew' : 'resumed';
  say(element, failed.length > 0 ? `Started anew: ${format.text(failed[0].reason, 40)}` : 'Resumed, nothing missed');
  say(find('recovery-note'), failed.length > 0
    ? `${format.count(failed.length)} of ${format.count(outcomes.length)} topics, loaded afresh`
    : `${messages(missed)} caught up on ${format.count(outcomes.length)} topics`);
}

function messages(n) {
  if (n === 1) return '1 message';
  return `${n < 1e6 ? format.count(n) : format.amount(n)} messages`;
}

/** One bar per beat, in a box of 60 × 16. */
function pulse(beats) {
  const top = Math.max(4, ...beats);
  return beats.map((beat, i) => `M${i + 0.5} 16v${(-1 - (beat / top) * 15).toFixed(1)}`).join('');
}
