//! Watches for panics: each is a bug that ended one connection, and many are a broker that a fresh
//! process would serve better.
//! # Invariants: every panic of every thread is counted, and said as it would be without this; what
//! becomes of it is not decided on the thread that panics.
//! # Not here: how a broker ends (`serve`), what a panic costs (`shard`).

use crate::clock::Clock;
use crate::metrics::PANICS;
use parking_lot::Mutex;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;

/// Most panics in [`WINDOW`] with which a broker goes on.
const ALLOWED: usize = 3;

/// In this time.
const WINDOW: Duration = Duration::from_mins(1);

/// The panics of this process.
#[derive(Debug, Default)]
pub(super) struct Panics {
    latest: Mutex<Latest>,
    enough: Notify,
}

impl Panics {
    /// Begins to watch all threads.
    pub(super) fn watch() -> Arc<Panics> {
        let panics = Arc::<Panics>::default();
        let (watch, clock) = (Arc::clone(&panics), Clock::start());
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            PANICS.fetch_add(1, Ordering::Relaxed);
            watch.note(clock.now().uptime);
        }));
        panics
    }

    /// Waits until there are more than a broker should go on with.
    pub(super) async fn too_many(&self) {
        self.enough.notified().await;
    }

    /// The exit status that says so to whoever starts it anew: `EX_SOFTWARE` of sysexits.h.
    pub(super) fn status() -> ExitCode {
        ExitCode::from(70)
    }

    fn note(&self, uptime: Duration) {
        if self.latest.lock().is_one_too_many(uptime) {
            self.enough.notify_one();
        }
    }
}

/// When the latest panics were, the oldest first.
#[derive(Debug, Default)]
struct Latest([Option<Duration>; ALLOWED]);

impl Latest {
    /// Notes one, and says whether as many as are allowed came shortly before it.
    fn is_one_too_many(&mut self, uptime: Duration) -> bool {
        self.0.rotate_left(1);
        let [.., last] = &mut self.0;
        let oldest = last.replace(uptime);
        oldest.is_some_and(|oldest| uptime.saturating_sub(oldest) < WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_in_a_minute_is_one_too_many() {
        let rows: [(&[u64], &[bool]); 4] = [
            (&[0, 0, 0, 0, 0], &[false, false, false, true, true]),
            (&[0, 10, 20, 59, 60, 69], &[false, false, false, true, true, true]),
            (&[0, 10, 20, 60, 70, 80], &[false; 6]),
            (&[5, 100, 101, 102, 103, 300], &[false, false, false, false, true, false]),
        ];
        for (seconds, expected) in rows {
            let mut latest = Latest::default();
            let found = seconds.iter().map(|at| latest.is_one_too_many(Duration::from_secs(*at)));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{seconds:?}");
        }
    }
}
