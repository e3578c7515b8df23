//! One connection as its shard sees it.
//! # Invariants: what was queued before a gap opened is sent before the gap is told, and nothing of
//! the topic in between; the list of gaps is bounded.
//! # Not here: reading, sessions.

use super::outbound::Outbound;
use super::subscribers::{Memberships, NumberMap};
use super::turn::Pending;
use crate::planted::{self, Bug};
use crate::topics::message::{Message, Position, TopicHead};
use crate::topics::message::{Offset, Wire};
use std::sync::Arc;

/// Most topics with an open gap on one connection; beyond it the connection is closed.
pub(super) const GAPS_MAX: usize = 1024;

/// Names a connection of one shard. A slot that is used again gets another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Whether a connection still takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The close frame is queued or sent; at this tick the socket is cut.
    Closing {
        cut_at: u32,
    },
}

/// The shard's state of one connection. It is kept small: an idle broker is mostly this.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) outbound: Outbound,
    pub(super) memberships: Memberships,
    /// Gaps that are open while the connection is behind.
    pub(super) lag: Option<Box<Lag>>,
    /// The shard's sequence of the last message offered, so that none is offered twice.
    pub(super) last_sequence: u64,
    /// What this turn has for it.
    pub(super) pending: Pending,
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Tick of the next ping.
    pub(super) next_ping: u32,
    /// Tick of the first ping since which nothing has arrived.
    pub(super) pinged: Option<u32>,
    /// Tick since which the socket takes nothing.
    pub(super) stalled_since: Option<u32>,
    /// Tick since which something waits, if the socket is stalled.
    pub(super) blocked_since: u32,
    /// The slot of the wheel that counts; others are stale.
    pub(super) due: u32,
    pub(super) filters: u32,
    pub(super) wire: Wire,
}

/// The gaps of a connection that is behind.
#[derive(Debug, Default)]
pub(super) struct Lag {
    gaps: NumberMap<u64, OpenGap>,
}

/// A hole in one topic that is still growing.
#[derive(Debug)]
pub(super) struct OpenGap {
    pub(super) head: Arc<TopicHead>,
    pub(super) from: Offset,
    pub(super) to: Offset,
}

impl OpenGap {
    /// The position after which the topic goes on.
    pub(super) fn end(&self) -> Position {
        Position { epoch: self.head.epoch, offset: self.to }
    }
}

/// There are more gaps than may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyGaps;

impl Lag {
    /// Notes that a message is not sent.
    pub(super) fn record(&mut self, message: &Message) -> Result<(), TooManyGaps> {
        if let Some(gap) = self.gaps.get_mut(&message.head.id) {
            gap.to = message.offset;
            return Ok(());
        }
        if self.gaps.len() >= GAPS_MAX {
            return Err(TooManyGaps);
        }
        let (from, to) = (message.offset, message.offset);
        self.gaps.insert(message.head.id, OpenGap { head: Arc::clone(&message.head), from, to });
        Ok(())
    }

    /// Ends them all. A topic that began anew meanwhile has two, the older one first: ids ascend.
    pub(super) fn take(&mut self) -> Vec<OpenGap> {
        let mut gaps: Vec<OpenGap> = std::mem::take(&mut self.gaps).into_values().collect();
        if !planted::is(Bug::GapsUnordered) {
            gaps.sort_unstable_by_key(|gap| gap.head.id);
        }
        gaps
    }
}
