//! What one connection or one request may ask for.
//! # Invariants: every field has a default, a unit and a reason row that names it.
//! # Not here: what to do when a limit is hit (`session`, `http`), limits on time (`shard`).

pub mod rate;

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
            bad_commands_max: 16,
            http_body_bytes_max: 1 << 20,
            http_messages_max: 1_000,
        }
    }
}
