//! Every number that the broker counts, and how Prometheus sees it.
//! Each thread counts in a block of its own; a scrape adds the blocks up and sets cached handles.
//! # Invariants: a block has one writer, so counting needs no locked instruction; no label value
//! comes from a client; nothing is registered after the start.
//! # Not here: what the numbers are about.

mod kept;
mod page;

pub use kept::KeptPage;
pub use page::{Page, Sources, Waiting};

use crate::auth::Fault;
use crate::reason::Reason;
use crate::topics::message::Wire;
use crate::topics::rule::GROUPS_MAX;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Panics of this process. Any thread counts here.
pub static PANICS: AtomicU64 = AtomicU64::new(0);

/// A number that one thread changes and any thread reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it. Only the block's own thread may call this.
    #[inline]
    pub fn add(&self, amount: u64) {
        // One writer: a load and a store do, and cost a tenth of a locked add (4.8 ns measured).
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Adds the length of something.
    #[inline]
    pub fn add_len(&self, len: usize) {
        self.add(len as u64);
    }

    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one away, for numbers that go both ways.
    #[inline]
    pub fn decrement(&self) {
        self.add(u64::MAX);
    }

    /// Replaces it, for numbers that are measured rather than counted.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One number for each reason.
#[derive(Debug)]
pub struct ByReason([Count; Reason::ALL.len()]);

impl Default for ByReason {
    fn default() -> ByReason {
        ByReason([const { Count(AtomicU64::new(0)) }; Reason::ALL.len()])
    }
}

impl ByReason {
    /// The number of this reason.
    pub fn of(&self, reason: Reason) -> &Count {
        // The table has a row for each reason, in the order of their discriminants.
        self.0.get(reason as usize).unwrap_or(&self.0[0])
    }
}

/// One number for each thing that can be wrong with a token.
#[derive(Debug, Default)]
pub struct ByFault([Count; Fault::ALL.len()]);

impl ByFault {
    /// The number of this fault.
    pub fn of(&self, fault: Fault) -> &Count {
        // There is a number for each fault, in the order of their discriminants.
        self.0.get(fault as usize).unwrap_or(&self.0[0])
    }
}

/// One number for what went well, and one for what was refused.
#[derive(Debug, Default)]
pub struct ByResult {
    /// What went well.
    pub ok: Count,
    /// What was refused.
    pub refused: Count,
}

impl ByResult {
    /// The number of this result.
    pub fn of<T, E>(&self, result: &Result<T, E>) -> &Count {
        if result.is_ok() { &self.ok } else { &self.refused }
    }
}

/// One number for each wire layout.
#[derive(Debug, Default)]
pub struct ByWire([Count; Wire::COUNT]);

impl ByWire {
    /// The number of this layout.
    pub fn of(&self, wire: Wire) -> &Count {
        // There is a number for each wire, in the order of their discriminants.
        self.0.get(wire as usize).unwrap_or(&self.0[0])
    }
}

/// One number for each group of topics.
#[derive(Debug)]
pub struct ByGroup([Count; GROUPS_MAX]);

impl Default for ByGroup {
    fn default() -> ByGroup {
        ByGroup([const { Count(AtomicU64::new(0)) }; GROUPS_MAX])
    }
}

impl ByGroup {
    /// The number of this group.
    pub fn of(&self, group: u8) -> &Count {
        // Group 0 is for all topics that are in no other.
        self.0.get(usize::from(group)).unwrap_or(&self.0[0])
    }
}

/// Upper bounds of the latency buckets, in microseconds.
pub const LATENCY_BUCKETS_MICROS: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    10_000_000,
];

/// One in so many publishes is timed.
pub const ENGINE_SAMPLE: u64 = 64;

/// How long something took: a histogram with fixed buckets.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Count; LATENCY_BUCKETS_MICROS.len()],
    count: Count,
    micros: Count,
}

impl Latency {
    /// Adds an observation.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = LATENCY_BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.increment();
        }
        self.count.increment();
        self.micros.add(micros);
    }
}

/// What one thread counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections open now, by wire.
    pub connections: ByWire,
    /// Connections opened, by wire.
    pub opened: ByWire,
    /// Connections closed by the server or by a close handshake, by reason.
    pub closes: ByReason,
    /// Requests and commands refused, by reason.
    pub refusals: ByReason,
    /// Subscriptions to a topic, now.
    pub topic_subscriptions: Count,
    /// Subscriptions to a filter, now.
    pub filter_subscriptions: Count,
    /// Messages taken from publishers.
    pub published: Count,
    /// Payload bytes taken from publishers.
    pub published_bytes: Count,
    /// Messages handed to connections.
    pub deliveries: Count,
    /// Messages not handed to a connection because it did not read fast enough.
    pub dropped: Count,
    /// Messages passed over for later ones of their key by subscriptions with `latest`.
    pub conflated_latest: Count,
    /// The same, with `maxHz`.
    pub conflated_max_hz: Count,
    /// Topics that connections began to catch up on.
    pub catch_ups: Count,
    /// Messages taken from publishers, by the group of the topic's rule.
    pub group_published: ByGroup,
    /// Messages handed to connections, by the group of the topic's rule.
    pub group_deliveries: ByGroup,
    /// Messages read from history by connections that catch up.
    pub caught_up: Count,
    /// Gap events sent.
    pub gaps: Count,
    /// Resumes that were exact.
    pub resumes_recovered: Count,
    /// Resumes that were refused, by reason.
    pub resumes_refused: ByReason,
    /// Messages sent from history: resumes, snapshots and the latest ones.
    pub replayed: Count,
    /// Messages encoded, by wire.
    pub encodes: ByWire,
    /// Bytes of messages encoded for deflated wires, before compressing.
    pub deflate_in_bytes: Count,
    /// The same, after it.
    pub deflate_out_bytes: Count,
    /// Bytes received on connections.
    pub received_bytes: Count,
    /// Bytes written to connections.
    pub sent_bytes: Count,
    /// Writes to connections; several messages may share one.
    pub writes: Count,
    /// Bytes waiting for connections that do not take them, now.
    pub outbound_bytes: Count,
    /// Connections with bytes waiting, now.
    pub blocked: Count,
    /// Connections that ended before they had sent their whole first request, by reason.
    pub arrivals_refused: ByReason,
    /// Times that accepting was put off because of its rate.
    pub accepts_delayed: Count,
    /// TLS handshakes done.
    pub tls_handshakes: Count,
    /// Upgrades to WebSocket refused, by reason.
    pub handshakes_refused: ByReason,
    /// Tokens taken.
    pub tokens_taken: Count,
    /// Tokens refused, by what was wrong with them.
    pub tokens_refused: ByFault,
    /// Sets of keys read.
    pub key_sets: Count,
    /// Sets of keys that could not be had.
    pub key_sets_failed: Count,
    /// Configurations that were put into force while running, and those that were refused.
    pub reloads: ByResult,
    /// When the last of each was, in seconds since 1970; the first was at the start.
    pub last_reload_s: ByResult,
    /// When our certificate ends, in seconds since 1970; 0 if there is none.
    pub certificate_expires_s: Count,
    /// Subscriptions that ended because they were permitted no more.
    pub pruned: Count,
    /// How long the oldest outbound queue has not been empty, in seconds.
    pub outbound_age_seconds: Count,
    /// From a publish to its answer, by the engine; one in [`ENGINE_SAMPLE`].
    pub engine: Latency,
    /// Topics that this thread delivers, now.
    pub local_topics: Count,
    /// From taking a message to having written it to this thread's subscribers that were ready.
    pub latency: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_number_of_its_own() {
        let by_reason = ByReason::default();
        for (index, reason) in Reason::ALL.iter().enumerate() {
            by_reason.of(*reason).add(index as u64 + 1);
        }
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(by_reason.of(*reason).get(), index as u64 + 1, "{reason:?}");
        }
    }

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_holds_it() {
        let latency = Latency::default();
        for micros in [0, 50, 51, 20_000_000] {
            latency.observe(Duration::from_micros(micros));
        }
        assert_eq!(latency.buckets[0].get(), 2);
        assert_eq!(latency.buckets[1].get(), 1);
        assert_eq!(latency.buckets.iter().map(Count::get).sum::<u64>(), 3);
        assert_eq!((latency.count.get(), latency.micros.get()), (4, 20_000_101));
    }

    #[test]
    fn a_number_goes_both_ways() {
        let count = Count::default();
        count.increment();
        count.increment();
        count.decrement();
        assert_eq!(count.get(), 1);
    }
}
