//! What one connection is answered while its commands are read: side by side in one block, so that
//! many answers cost one allocation and one place in the queue.
//! # Invariants: whatever else is queued for or written to a connection comes after the replies that
//! were sent before it, because the block is sealed first.
//! # Not here: what is answered (`session`), how it is spelled (`dialect`).

use super::Shard;
use super::connection::ConnectionId;
use super::outbound::Socket;
use crate::dialect::{self, Event};
use crate::topics::message::Wire;
use bytes::Bytes;

/// Bytes after which a block is sealed; a single reply may be longer.
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// The replies that have not been queued yet.
#[derive(Debug, Default)]
pub(super) struct Replies {
    to: Option<ConnectionId>,
    pub(super) block: Vec<u8>,
}

impl Replies {
    /// Whose replies are collected.
    pub(super) fn to(&self) -> Option<ConnectionId> {
        self.to
    }

    /// Bytes that are collected for a connection.
    pub(super) fn bytes(&self, id: ConnectionId) -> usize {
        if self.to == Some(id) { self.block.len() } else { 0 }
    }

    /// Adds a reply to what is collected for `to`; nothing may be collected for another one.
    fn add(&mut self, to: ConnectionId, command_id: u64, event: &Event, wire: Wire) {
        self.to = Some(to);
        dialect::append(&mut self.block, command_id, event, wire);
    }

    /// Takes the block out. Its memory is used again unless it has become large.
    fn take(&mut self) -> Option<(ConnectionId, Bytes)> {
        let to = self.to.take()?;
        if self.block.len() > BLOCK_BYTES_MAX {
            return Some((to, std::mem::take(&mut self.block).into()));
        }
        let bytes = Bytes::copy_from_slice(&self.block);
        self.block.clear();
        Some((to, bytes))
    }
}

impl<S: Socket> Shard<S> {
    /// Queues an event for one connection. [`Shard::flush`] sends it.
    pub fn send(&mut self, id: ConnectionId, command_id: u64, event: &Event) {
        if self.replies.to() != Some(id) {
            // What this turn has for the connection is older; while replies are collected it has
            // nothing.
            self.write_pending(id);
        }
        let wire = self.connection(id).filter(|connection| connection.is_open()).map(|c| c.wire);
        let Some(wire) = wire else { return };
        if wire.is_sse() {
            self.marks.tell(id.slot, &mut self.replies.block);
        }
        self.replies.add(id, command_id, event, wire);
        if self.replies.bytes(id) >= BLOCK_BYTES_MAX {
            self.seal_replies();
        }
    }

    /// Queues the replies that were collected, so that what comes next stays behind them.
    pub(super) fn seal_replies(&mut self) {
        let Some((id, block)) = self.replies.take() else { return };
        let len = block.len();
        if let Some(connection) = self.open_connection_mut(id) {
            connection.outbound.push(block);
            self.note_outbound(0, len);
        }
    }
}
