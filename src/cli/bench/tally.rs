//! What the subscribers of a bench have got: how much, how late, and whether it is all.
//! # Invariants: every delivery of every subscriber is looked at, none is sampled.
//! # Not here: bytes and sockets (`link`), what is expected (`traffic`).

use super::mark::Mark;
use hdrhistogram::Histogram;
use std::cmp::Ordering;

/// Latencies from a nanosecond to ten minutes, to three digits.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Counts and latencies.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// Messages, repetitions included.
    pub(super) delivered: u64,
    /// Messages that were the latest of their topic already.
    pub(super) repeated: u64,
    /// Messages older than one that came before them.
    pub(super) disordered: u64,
    /// Messages without a mark, or of a topic that was not asked for.
    pub(super) unreadable: u64,
    /// Gaps that the broker told.
    pub(super) gaps: u64,
    /// Calls of `read` that gave something, and what they gave.
    pub(super) reads: u64,
    pub(super) bytes: u64,
    /// When the last message came.
    pub(super) last_ns: u64,
    /// From when a message was due to be sent until it was read.
    pub(super) latency: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            delivered: 0,
            repeated: 0,
            disordered: 0,
            unreadable: 0,
            gaps: 0,
            reads: 0,
            bytes: 0,
            last_ns: 0,
            latency: histogram(),
        }
    }

    /// Counts a delivery. `body` begins with a mark, or there is something wrong with it.
    pub(super) fn take(&mut self, numbers: &mut Numbers, body: &[u8], now_ns: u64) {
        self.delivered += 1;
        let Some(mark) = Mark::read(body) else {
            self.unreadable += 1;
            return;
        };
        let Some(last) = numbers.last_of(mark.topic) else {
            self.unreadable += 1;
            return;
        };
        match mark.number.cmp(last) {
            Ordering::Greater => *last = mark.number,
            Ordering::Equal => self.repeated += 1,
            Ordering::Less => self.disordered += 1,
        }
        self.last_ns = now_ns;
        self.latency.saturating_record(now_ns.saturating_sub(mark.due_ns).max(1));
    }
}

/// An empty histogram of latencies.
#[expect(clippy::expect_used, reason = "the bounds are constants, and a test makes one")]
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("sound bounds")
}

/// The topics of one subscriber, each with the number of its latest message.
#[derive(Clone, Debug)]
pub(super) struct Numbers(Box<[(u32, u32)]>);

impl Numbers {
    pub(super) fn new(topics: &[u32]) -> Numbers {
        let mut numbers: Vec<(u32, u32)> = topics.iter().map(|topic| (*topic, 0)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Numbers(numbers.into())
    }

    fn last_of(&mut self, topic: u32) -> Option<&mut u32> {
        let found = match &*self.0 {
            [(only, _)] if *only == topic => 0,
            all => all.binary_search_by_key(&topic, |(topic, _)| *topic).ok()?,
        };
        self.0.get_mut(found).map(|(_, last)| last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::mark::MARK_LEN;

    fn body(topic: u32, number: u32) -> [u8; MARK_LEN] {
        let mut body = [0; MARK_LEN];
        Mark { due_ns: 100, topic, number }.write(&mut body);
        body
    }

    #[test]
    fn repetitions_disorder_and_strangers_are_told_apart() {
        let mut tally = Tally::new();
        let mut numbers = Numbers::new(&[5, 3, 5]);
        for (topic, number) in [(3, 1), (3, 2), (5, 1), (3, 5), (3, 4), (5, 1), (4, 1)] {
            tally.take(&mut numbers, &body(topic, number), 1_100);
        }
        tally.take(&mut numbers, b"no mark", 1_100);
        assert_eq!((tally.delivered, tally.repeated, tally.disordered), (8, 1, 1));
        assert_eq!(tally.unreadable, 2);
        assert_eq!((tally.latency.len(), tally.latency.max()), (6, 1_000));
        assert_eq!(tally.last_ns, 1_100);
    }

    #[test]
    fn a_single_topic_is_counted_like_many() {
        let mut tally = Tally::new();
        let mut numbers = Numbers::new(&[0]);
        tally.take(&mut numbers, &body(0, 1), 50);
        tally.take(&mut numbers, &body(1, 1), 50);
        assert_eq!((tally.delivered, tally.unreadable), (2, 1));
        // A message that seems to come before it was due counts as in time.
        assert_eq!(tally.latency.max(), 1);
    }
}
