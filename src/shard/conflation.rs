//! What the conflating cursors of one topic have yet to send: the latest message of every key,
//! shared by all of them.
//! # Invariants: a message that a cursor has not sent is here, or has been superseded, or lies at or
//! before `lost`; what is held is bounded.
//! # Not here: whose cursors, and where they stand (`cursor`).

use crate::planted::{self, Bug};
use crate::topics::latest::Latest;
use crate::topics::message::{Message, Offset};
use std::sync::Arc;

/// Most keys of one topic, and most bytes, that wait for its slow and its rated subscribers. Beyond
/// that the oldest go, and whoever has not sent them tells a gap.
const KEYS_MAX: usize = 4_096;
const BYTES_MAX: usize = 4 << 20;

/// The messages of one topic that conflating cursors have yet to send.
#[derive(Debug, Default)]
pub(super) struct Conflation {
    /// How many cursors conflate.
    pub(super) cursors: u32,
    latest: Latest,
    /// Up to here messages may have been given up.
    lost: Offset,
}

impl Conflation {
    /// Adds a message that some cursor has yet to send.
    pub(super) fn add(&mut self, message: &Arc<Message>) {
        self.latest.add(Arc::clone(message));
        while self.latest.len() > KEYS_MAX || self.latest.cost() > BYTES_MAX {
            let Some(oldest) = self.latest.remove_oldest() else { return };
            self.lost = self.lost.max(oldest.offset);
        }
    }

    /// Up to where messages after `since` were given up, if any were.
    pub(super) fn lost_after(&self, since: Offset) -> Option<Offset> {
        (self.lost > since).then_some(self.lost)
    }

    /// The messages after `since`.
    pub(super) fn after(&self, since: Offset) -> impl Iterator<Item = &Arc<Message>> {
        let since = if planted::is(Bug::ConflationOffByOne) { since.next() } else { since };
        self.latest.after(since)
    }
}
