//! What a broker takes over from the one before it, and leaves to the next.
//! # Invariants: whatever is wrong with it, a broker starts and ends; it begins anew then, and says so.
//! # Not here: the file (`restart`).

use super::Server;
use crate::clock::{Clock, Now};
use crate::config::{Config, SNAPSHOT_TIME_MAX};
use crate::restart::{self, Bounds, Estate};
use crate::topics::kept::Kept;
use crate::topics::registry::Registry;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes that a file may have beside the histories: keys, names and answers.
const OTHER_BYTES_MAX: u64 = 1 << 30;

/// What the broker before this one has left, if it has, and the clock that goes on.
pub(super) fn inherit(config: &Config) -> (Clock, Vec<Kept>) {
    let begin = || (Clock::start(), Vec::new());
    let Some(path) = &config.shutdown.snapshot else { return begin() };
    match restart::take(path, bytes_max(config), Clock::start().now()) {
        Ok(Some(Estate { uptime, topics })) => {
            tracing::info!(topics = topics.len(), "topics go on where they were");
            (Clock::start_at(uptime), topics)
        }
        Ok(None) => begin(),
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "what the last broker left cannot be used: topics begin anew");
            begin()
        }
    }
}

/// Takes in what was left, before anybody else can begin a topic.
pub(super) fn restore(registry: &Registry, topics: Vec<Kept>, now: Now) {
    for kept in topics {
        let name = kept.name.clone();
        if let Err(error) = registry.restore(kept, now) {
            tracing::warn!(topic = %name, %error, "a topic begins anew");
        }
    }
}

/// So many bytes of a file are written, and read.
fn bytes_max(config: &Config) -> u64 {
    (config.topics.history_bytes_max as u64).saturating_mul(2).saturating_add(OTHER_BYTES_MAX)
}

impl Server {
    /// Leaves the topics to the next broker. Nothing is published any more.
    pub(super) async fn leave(&self, path: PathBuf) {
        let (engine, clock) = (self.broker.engine.clone(), self.broker.clock);
        let bytes_max = bytes_max(&self.config);
        let left = tokio::task::spawn_blocking(move || {
            let now = clock.now();
            let bounds = Bounds { bytes_max, until: now.uptime + SNAPSHOT_TIME_MAX };
            restart::leave(&path, engine.registry().keep(now), bounds, || clock.now())
        });
        // Writing is given up by itself in time; a disk that hangs is not waited for.
        match tokio::time::timeout(SNAPSHOT_TIME_MAX + Duration::from_secs(1), left).await {
            Ok(Ok(Ok(topics))) => tracing::info!(topics, "left to the next broker"),
            Ok(Ok(Err(error))) => {
                tracing::error!(%error, "nothing is left to the next broker: topics begin anew");
            }
            Ok(Err(_)) | Err(_) => {
                tracing::error!("nothing is left to the next broker: topics begin anew");
            }
        }
    }
}
