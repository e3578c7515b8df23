//! The time of a bench: nanoseconds since it began, and waiting.
//! # Not here: what is waited for.

use crate::clock::Clock;
use std::time::Duration;

/// How long the receiving side rests between two looks at its sockets.
///
/// It does not block until something comes: on loopback the broker's own write would have to wake
/// it, at a price that depends on the moment and would be told as the broker's.
pub(super) const REST: Duration = Duration::from_micros(200);

/// Counts nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Clock);

impl Stopwatch {
    pub(super) fn start() -> Stopwatch {
        // The kernel may otherwise add 50 µs to each rest.
        #[cfg(target_os = "linux")]
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).unwrap_or_default();
        Stopwatch(Clock::start())
    }

    /// Nanoseconds since the start.
    pub(super) fn ns(self) -> u64 {
        nanos(self.0.now().uptime)
    }
}

/// Waits without doing anything.
#[expect(clippy::disallowed_methods, reason = "this thread is no shard's")]
pub(super) fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// A time in nanoseconds.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
