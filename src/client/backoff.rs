//! How long to wait before the next try: longer from try to try, and at random.
//! # Invariants: a wait is between nothing and its bound, and the bound never exceeds its maximum.
//! # Not here: what is tried again, and when trying ends (`pilot`).

use std::time::Duration;

/// How far the bound can double before it is beyond every maximum.
const DOUBLINGS_MAX: u32 = 20;

/// Waits with full jitter: all clients of a server that restarts must not come back at the same moment.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    /// The state of a generator of numbers that need not be secret, only different for each client.
    dice: u64,
}

impl Backoff {
    /// The first wait is random up to `first`, and the bound doubles up to `max`.
    pub(super) fn new(first: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff { first, max, dice: seed }
    }

    /// The wait before a try that so many have gone before.
    pub(super) fn wait(&mut self, tries: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << tries.min(DOUBLINGS_MAX));
        let bound = u64::try_from(doubled.min(self.max).as_micros()).unwrap_or(u64::MAX);
        let share = (u128::from(bound) * u128::from(self.roll())) >> 64;
        Duration::from_micros(u64::try_from(share).unwrap_or(bound))
    }

    /// A number from all there are. Splitmix, by Steele, Lea and Flood.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.dice ^ (self.dice >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_within_its_bound(
            (first, max) in (1..10_000_u64, 1..100_000_u64),
            (seed, tries) in (any::<u64>(), 0..100_u32),
        ) {
            let mut backoff =
                Backoff::new(Duration::from_millis(first), Duration::from_millis(max), seed);
            let bound = (u128::from(first) << tries.min(40)).min(u128::from(max));
            prop_assert!(backoff.wait(tries).as_millis() <= bound);
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_bound() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 7);
        let waits: Vec<_> = (0..1_000).map(|_| backoff.wait(2).as_millis()).collect();
        for quarter in 0..4 {
            let share = waits.iter().filter(|wait| **wait / 1_000 == quarter).count();
            assert!((150..350).contains(&share), "{share} of 1000 waits in second {quarter}");
        }
    }

    #[test]
    fn two_clients_do_not_wait_alike() {
        let wait =
            |seed| Backoff::new(Duration::from_secs(1), Duration::from_secs(30), seed).wait(5);
        assert_ne!(wait(1), wait(2));
    }
}
