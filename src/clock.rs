//! The only reader of the operating system's clocks.
//! Everything else is given a [`Now`], so that a test can make time pass as it likes.
//! # Not here: sleeping.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process's clock was made, or more; never goes back.
    pub uptime: Duration,
    /// Milliseconds since 1970; follows the system's clock, so it may go back.
    pub wall_ms: u64,
}

impl Now {
    /// A reading for tests and simulations: both clocks show the same number of milliseconds.
    pub const fn at_ms(ms: u64) -> Now {
        Now { uptime: Duration::from_millis(ms), wall_ms: ms }
    }
}

/// Reads the clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The uptime that it began with.
    begin: Duration,
}

impl Clock {
    /// Starts counting uptime.
    pub fn start() -> Clock {
        Clock::start_at(Duration::ZERO)
    }

    /// Goes on counting from this uptime: that of a process whose place this one takes.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    pub fn start_at(uptime: Duration) -> Clock {
        Clock { start: Instant::now(), begin: uptime }
    }

    /// Reads both clocks. A system clock before 1970 reads as 0.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            uptime: self.begin.saturating_add(self.start.elapsed()),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
