//! How often something may happen: so many times a second, and so many at once.
//! # Invariants: in no stretch of time does more happen than the rate and the burst allow; a clock that
//! goes back gives nothing away.
//! # Not here: what becomes of who comes too often.

use std::time::Duration;

/// So many a second, and so many at once: the generic cell rate algorithm, ITU-T I.371.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds that each takes.
    each: u64,
    /// Microseconds by which it may happen ahead of time.
    ahead: u64,
}

impl Rate {
    /// A rate of at most a million; numbers below 1 count as 1.
    pub fn new(per_second: usize, burst: usize) -> Rate {
        let count = |number: usize| u64::try_from(number.max(1)).unwrap_or(u64::MAX);
        let each = 1_000_000 / count(per_second).min(1_000_000);
        Rate { each, ahead: each.saturating_mul(count(burst) - 1) }
    }
}

/// The moment at which a rate will be whole again, in microseconds by the monotonic clock. The default
/// has not been used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent(u64);

impl Spent {
    /// Lets it happen once, or says how long to wait.
    ///
    /// # Errors
    /// The time after which it may happen.
    pub fn take(&mut self, rate: Rate, uptime: Duration) -> Result<(), Duration> {
        self.wait(rate, uptime)?;
        self.charge(rate, 1, uptime);
        Ok(())
    }

    /// Whether it may happen now.
    ///
    /// # Errors
    /// The time after which it may.
    pub fn wait(self, rate: Rate, uptime: Duration) -> Result<(), Duration> {
        let wait = self.0.saturating_sub(micros(uptime)).saturating_sub(rate.ahead);
        if wait > 0 { Err(Duration::from_micros(wait)) } else { Ok(()) }
    }

    /// Notes that it has happened so many times, also if that is more than may happen at once: then
    /// nothing may until all of it is made up for.
    pub fn charge(&mut self, rate: Rate, count: u64, uptime: Duration) {
        let cost = rate.each.saturating_mul(count);
        self.0 = self.0.max(micros(uptime)).saturating_add(cost);
    }

    /// Whether it is as if it had never been used.
    pub fn is_whole(self, uptime: Duration) -> bool {
        self.0 <= micros(uptime)
    }
}

fn micros(uptime: Duration) -> u64 {
    u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let rate = Rate::new(10, 3);
        let mut spent = Spent::default();
        for _ in 0..3 {
            assert_eq!(spent.take(rate, ms(1000)), Ok(()));
        }
        assert_eq!(spent.take(rate, ms(1000)), Err(ms(100)));
        assert_eq!(spent.take(rate, ms(1099)), Err(ms(1)));
        assert_eq!(spent.take(rate, ms(1100)), Ok(()));
        assert_eq!(spent.take(rate, ms(1100)), Err(ms(100)));
        // After a pause the burst is there again, and no more than it.
        for _ in 0..3 {
            assert_eq!(spent.take(rate, ms(9000)), Ok(()));
        }
        assert!(spent.take(rate, ms(9000)).is_err());
    }

    #[test]
    fn extreme_rates_and_times_are_taken_as_they_are() {
        for per_second in [0, 1, usize::MAX] {
            for burst in [0, usize::MAX] {
                let rate = Rate::new(per_second, burst);
                let mut spent = Spent::default();
                assert_eq!(spent.take(rate, Duration::ZERO), Ok(()));
                assert_eq!(spent.take(rate, Duration::from_secs(2)), Ok(()));
                assert_eq!(spent.take(rate, Duration::MAX), Ok(()));
                assert!(spent.is_whole(Duration::MAX));
            }
        }
    }

    #[test]
    fn what_is_charged_at_once_is_made_up_for_before_anything_more_happens() {
        let rate = Rate::new(10, 10);
        let mut spent = Spent::default();
        assert_eq!(spent.wait(rate, ms(0)), Ok(()));
        // Ten seconds' worth, of which nine tenths of one may be ahead.
        spent.charge(rate, 100, ms(0));
        assert_eq!(spent.wait(rate, ms(0)), Err(ms(9_100)));
        assert_eq!(spent.wait(rate, ms(9_099)), Err(ms(1)));
        assert_eq!(spent.take(rate, ms(9_100)), Ok(()));
        assert_eq!(spent.take(rate, ms(9_100)), Err(ms(100)));
        spent.charge(rate, 0, ms(50_000));
        assert!(spent.is_whole(ms(50_000)));
        spent.charge(rate, u64::MAX, ms(50_000));
        assert!(spent.wait(rate, Duration::from_hours(24)).is_err());
    }

    proptest! {
        #[test]
        fn in_no_time_more_passes_than_the_rate_and_the_burst(
            per_second in 1usize..1000,
            burst in 1usize..100,
            pauses in prop::collection::vec(0u64..50, 1..300),
        ) {
            let rate = Rate::new(per_second, burst);
            let (mut spent, mut now, mut passed) = (Spent::default(), ms(0), 0);
            for pause in pauses {
                now += ms(pause);
                passed += usize::from(spent.take(rate, now).is_ok());
                let millis = usize::try_from(now.as_millis()).expect("short");
                let most = burst + millis * per_second / 1000 + 1;
                prop_assert!(passed <= most, "{passed} in {now:?}");
            }
        }
    }
}
