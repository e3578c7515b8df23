//! What `fanfare demo` publishes: this host's load on `host.*`, real prices on `ticker.*`.
//! Owns when which feed speaks.
//! # Invariants: one poll gives a bounded number of drafts, however late it comes.
//! # Not here: sleeping and publishing (whoever drives it), the text of `/proc` (`proc`).

pub mod host;
mod proc;
pub mod ticker;

use crate::clock::Now;
use crate::topics::message::{Draft, Payload};
use crate::topics::name::TopicName;
use host::Sampler;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use ticker::Replay;

/// Time between two readings of the host: four a second.
pub const HOST_PERIOD: Duration = Duration::from_millis(250);

/// All feeds of the demo. Poll it, publish what it gives, sleep until [`Feeds::next_due`], repeat.
#[derive(Debug)]
pub struct Feeds {
    sampler: Sampler,
    replay: Replay,
    /// Uptime of the next reading of the host.
    host_due: Duration,
}

impl Feeds {
    /// Feeds that read the host from this directory, which is `/proc` outside tests.
    /// Everything begins with the first poll.
    pub fn new(proc_root: PathBuf) -> Feeds {
        Feeds { sampler: Sampler::new(proc_root), replay: Replay::new(), host_due: Duration::ZERO }
    }

    /// What is due now, in the order in which it should be published.
    /// Reads a few files of the host, which does not wait for any device.
    pub fn poll(&mut self, now: Now) -> Vec<Draft> {
        let mut drafts = self.replay.due(now);
        if now.uptime >= self.host_due {
            drafts.extend(self.sampler.sample(now));
            let on_time = self.host_due.saturating_add(HOST_PERIOD);
            // Stay on the beat, unless a whole beat was missed: then begin a new one.
            self.host_due =
                if on_time > now.uptime { on_time } else { now.uptime.saturating_add(HOST_PERIOD) };
        }
        drafts
    }

    /// Uptime at which [`Feeds::poll`] has something to do again.
    pub fn next_due(&self) -> Duration {
        self.host_due.min(self.replay.next_due())
    }
}

/// A draft that carries `value` as JSON.
fn draft(topic: &TopicName, key: Option<&str>, value: &impl Serialize) -> Option<Draft> {
    match serde_json::to_vec(value) {
        Ok(json) => Some(Draft {
            key: key.map(Box::from),
            ..Draft::new(topic.clone(), Payload::Json(json.into()))
        }),
        Err(error) => {
            tracing::error!(%topic, %error, "a demo message could not be written");
            None
        }
    }
}

/// Rounds to `1 / steps`, so that 10 keeps one decimal.
fn rounded(value: f64, steps: f64) -> f64 {
    // Adding zero turns a -0, which JSON would show, into 0.
    (value * steps).round() / steps + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Polls whenever something is due, and counts the drafts of every topic until `end_ms`.
    fn count_topics(feeds: &mut Feeds, end_ms: u64) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let mut now = Now::at_ms(0);
        while now.uptime < Duration::from_millis(end_ms) {
            for draft in feeds.poll(now) {
                *counts.entry(draft.topic.to_string()).or_default() += 1;
            }
            let due = feeds.next_due();
            assert!(due > now.uptime, "a poll leaves nothing due");
            now = Now::at_ms(u64::try_from(due.as_millis()).unwrap());
        }
        counts
    }

    #[test]
    fn ten_seconds_give_every_topic_at_its_rate() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("meminfo"), "MemTotal: 100 kB\nMemAvailable: 60 kB\n")
            .unwrap();
        let counts = count_topics(&mut Feeds::new(root.path().to_path_buf()), 10_000);
        let expected = [
            ("host.memory", 40),
            ("ticker.AAPL", 34),
            ("ticker.FB", 34),
            ("ticker.GOOG", 33),
            ("ticker.IBM", 33),
            ("ticker.MSFT", 33),
        ];
        assert_eq!(counts, expected.map(|(topic, n)| (topic.to_owned(), n)).into());
    }

    #[test]
    fn a_late_poll_gives_no_burst_and_finds_the_beat_again() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("meminfo"), "MemTotal: 100 kB\nMemAvailable: 60 kB\n")
            .unwrap();
        let mut feeds = Feeds::new(root.path().to_path_buf());
        feeds.poll(Now::at_ms(0));
        assert_eq!(feeds.poll(Now::at_ms(3_600_000)).len(), 6);
        assert!(feeds.poll(Now::at_ms(3_600_000)).is_empty());
        assert!(feeds.next_due() > Duration::from_hours(1));
        assert!(feeds.next_due() <= Duration::from_hours(1) + HOST_PERIOD);
    }

    #[test]
    fn rounding_keeps_the_decimals_asked_for() {
        for (value, steps, expected) in [
            (12.34, 10.0, "12.3"),
            (12.35, 10.0, "12.4"),
            (-0.001, 100.0, "0.0"),
            (1e28, 10.0, "1e+28"),
        ] {
            let json = serde_json::to_string(&rounded(value, steps)).unwrap();
            assert_eq!(json, expected, "{value}");
        }
    }
}
