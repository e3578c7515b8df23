//! How far a bench is, on standard error.
//! # Invariants: nothing is shown unless standard error is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Draws of the bar in a second, which cost time on the clients' processor.
const DRAWS_PER_SECOND: u8 = 4;

/// A bar, or nothing.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar for so many parts of about such a time.
    pub(super) fn new(parts: usize, part: Duration) -> Progress {
        let total = part.saturating_mul(u32::try_from(parts).unwrap_or(u32::MAX));
        let total = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(Some(total.max(1)), target);
        // Without it the bar has the look that the library gives it.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Progress(bar)
    }

    /// Says what is going on.
    pub(super) fn say(&self, words: String) {
        self.0.set_message(words);
        self.show();
    }

    /// Moves on with the time.
    pub(super) fn show(&self) {
        let elapsed = u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.set_position(elapsed.min(self.0.length().unwrap_or(elapsed)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
