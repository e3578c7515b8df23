//! How a shard lets its connections go when the broker stops: one after another, so that they do not
//! all come back to wherever they go at the same moment.
//! # Invariants: who is told when follows from numbers alone; what was published before somebody is
//! told reaches them before.
//! # Not here: waiting (`worker`), for how long (`config`).

use super::Shard;
use super::connection::ConnectionId;
use super::outbound::Socket;
use crate::dialect::Event;
use crate::reason::Refusal;
use std::time::Duration;

/// Connections that any broker can take at once, and be spared a wait: so many a second are told at
/// least.
const TOLD_PER_SECOND_MIN: u32 = 100;

/// How connections are let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// What they are closed with.
    pub refusal: Refusal,
    /// How long they are asked to wait before they connect again.
    pub after: Duration,
    /// Time over which they are told, at most.
    pub spread: Duration,
    /// Time that those have who are told last.
    pub grace: Duration,
}

impl Farewell {
    /// Time over which so many connections are told: a few need not wait for one another.
    pub fn span(&self, count: usize) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.spread.min(Duration::from_secs(1) * count / TOLD_PER_SECOND_MIN)
    }
}

/// How many of `count` connections have been told once `elapsed` of `span` has passed: the first at
/// once, the others at equal distances, all of them at the end.
pub(super) fn told(count: usize, elapsed: Duration, span: Duration) -> usize {
    if elapsed >= span {
        return count;
    }
    // Below `count`, as `elapsed` is below `span`.
    let share = (count as u128) * elapsed.as_nanos() / span.as_nanos().max(1);
    usize::try_from(share).unwrap_or(count).saturating_add(1).min(count)
}

impl<S: Socket> Shard<S> {
    /// Tells these connections to go somewhere else, and begins to close them.
    pub(super) fn dismiss(&mut self, ids: &[ConnectionId], farewell: &Farewell) {
        self.registry.collect(&mut self.inbox);
        self.settle();
        let after_ms = u32::try_from(farewell.after.as_millis()).unwrap_or(u32::MAX);
        for id in ids {
            self.send(*id, 0, &Event::Reconnect { after_ms });
            self.close(*id, &farewell.refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn farewell(spread: Duration) -> Farewell {
        let (after, grace) = (Duration::ZERO, Duration::ZERO);
        Farewell { refusal: Refusal::from(Reason::GoingAway), after, spread, grace }
    }

    #[test]
    fn they_are_told_at_equal_distances() {
        let second = |tenths: u64| Duration::from_millis(tenths * 100);
        let cases = [
            (4, 0, 40, 1),
            (4, 9, 40, 1),
            (4, 10, 40, 2),
            (4, 29, 40, 3),
            (4, 30, 40, 4),
            (4, 40, 40, 4),
            (4, 0, 0, 4),
            (0, 0, 40, 0),
            (0, 50, 40, 0),
            (1, 0, 40, 1),
        ];
        for (count, elapsed, span, expected) in cases {
            let got = told(count, second(elapsed), second(span));
            assert_eq!(got, expected, "{count} connections after {elapsed} of {span}");
        }
    }

    #[test]
    fn nobody_is_told_twice_and_nobody_is_forgotten() {
        let span = Duration::from_mins(1);
        let steps = (0..=6_000).map(|step| told(15_000, Duration::from_millis(step * 10), span));
        let steps: Vec<usize> = steps.collect();
        assert!(steps.is_sorted());
        assert_eq!(steps.last(), Some(&15_000));
        let most = steps.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert_eq!(most, Some(3), "15,000 in a minute are 2.5 in 10 ms");
    }

    #[test]
    fn a_few_do_not_wait_for_one_another() {
        let minute = Duration::from_mins(1);
        let cases = [
            (0, minute, Duration::ZERO),
            (1, minute, Duration::from_millis(10)),
            (100, minute, Duration::from_secs(1)),
            (6_000, minute, minute),
            (1_000_000, minute, minute),
            (100, Duration::ZERO, Duration::ZERO),
        ];
        for (count, spread, expected) in cases {
            assert_eq!(farewell(spread).span(count), expected, "{count} connections");
        }
    }
}
