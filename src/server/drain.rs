//! How a broker stops.
//! # Invariants: it is not ready before it turns anybody away, and turns everybody away before it
//! tells the first to go; it ends before its deadline, whoever stays.
//! # Not here: who is told when (`shard::farewell`), signals (`cli`).

use super::Server;
use crate::config::Shutdown;
use crate::reason::{Reason, Refusal};
use crate::shard::{Farewell, TICK};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Server {
    /// Is not ready any more, stops accepting after a while, tells every connection to go, and waits
    /// until they have ended, at most for the configured times; then leaves the topics to the next
    /// broker, where that is wanted. Returns how many were cut off. The
    /// admin side answers to the end.
    pub async fn drain(mut self) -> usize {
        let Shutdown { delay, spread, grace, reconnect_after, .. } = self.config.shutdown.clone();
        self.ops.ready.store(false, Ordering::Release);
        tokio::time::sleep(delay).await;
        for entrance in self.entrances.drain(..) {
            // A shard that does not answer is not waited for.
            tokio::time::timeout(TICK, entrance.close()).await.unwrap_or_default();
        }
        let refusal = Refusal::from(Reason::GoingAway);
        let farewell = Farewell { refusal, after: reconnect_after, spread, grace };
        let drains: Vec<_> = (0..self.shards.len())
            .map(|index| {
                let (shards, farewell) = (Arc::clone(&self.shards), farewell.clone());
                tokio::spawn(async move {
                    match shards.get(index) {
                        Some(shard) => shard.drain(farewell).await,
                        None => 0,
                    }
                })
            })
            .collect();
        let mut left: usize = 0;
        for drain in drains {
            left = left.saturating_add(drain.await.unwrap_or(0));
        }
        for task in self.tasks.drain(..) {
            task.abort();
        }
        if let Some(path) = self.config.shutdown.snapshot.clone() {
            self.leave(path).await;
        }
        left
    }
}
