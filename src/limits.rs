//! What one connection or one request may ask for.
//! # Invariants: every field has a default, a unit and a reason row that names it.
//! # Not here: what to do when a limit is hit (`session`, `http`), limits on time (`shard`).

pub mod accounts;
pub mod rate;
pub mod usage;

use crate::topics::topic::ResumeOptions;
use rate::Rate;

/// What one connection or one request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one WebSocket or TCP message, and of one payload with its key. Default 64 KiB.
    pub message_bytes_max: usize,
    /// Fragments of one WebSocket message. Default 64.
    pub fragments_max: u32,
    /// Subscriptions of one connection. Default 128.
    pub subscriptions_max: usize,
    /// Filters among them. Default 8.
    pub filters_max: usize,
    /// Topics that one snapshot over a filter may hold. Default 1,024.
    pub snapshot_topics_max: usize,
    /// What one resume or one page of history may send.
    pub resume: ResumeOptions,
    /// How often a connection may publish, unless it has shown an API token or the broker asks nobody
    /// who they are. Default 50 a second, 100 at once.
    pub publishes: Option<Rate>,
    /// How many deliveries such a connection may cause by publishing. Default 100,000 a second, and as
    /// many at once; the one that goes beyond it is still done.
    pub deliveries: Option<Rate>,
    /// How often such a connection may begin a topic. Default 100 a second, 1,000 at once.
    pub new_topics: Option<Rate>,
    /// How often a connection may subscribe or change a subscription. Default 100 a second, and at
    /// once 128 or as many subscriptions as it may have, whichever is more.
    pub subscribes: Option<Rate>,
    /// How often a connection may send a ping, or a pong that answers none of ours. Default 20 a
    /// second, 50 at once.
    pub controls: Option<Rate>,
    /// Commands that could not be understood before a connection is closed. Default 16.
    pub bad_commands_max: u32,
    /// Bytes of one HTTP request body. Default 1 MiB.
    pub http_body_bytes_max: usize,
    /// Messages of one HTTP publish request. Default 1,000.
    pub http_messages_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes_max: 64 << 10,
            fragments_max: 64,
            subscriptions_max: 128,
            filters_max: 8,
            snapshot_topics_max: 1024,
            resume: ResumeOptions::default(),
            publishes: Some(Rate::new(50, 100)),
            deliveries: Some(Rate::new(100_000, 100_000)),
            new_topics: Some(Rate::new(100, 1_000)),
            subscribes: Some(Rate::new(100, 128)),
            controls: Some(Rate::new(20, 50)),
            bad_commands_max: 16,
            http_body_bytes_max: 1 << 20,
            http_messages_max: 1_000,
        }
    }
}
