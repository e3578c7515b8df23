//! One connection as its shard sees it.
//! # Invariants: a slot's generation tells a connection from the one that had the slot before it.
//! # Not here: reading, sessions.

use super::cursor::{Cursor, Cursors};
use super::memberships::Memberships;
use super::outbound::{Last, Outbound, Socket, Written};
use super::turn::Pending;
use crate::topics::message::Wire;
use std::io;
use std::num::{NonZeroU16, NonZeroU32};

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

/// The tick that never comes.
pub(super) const NEVER: u32 = u32::MAX;

/// Whether a connection still takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The close frame is queued or sent; at this tick the socket is cut.
    Closing {
        cut_at: u32,
    },
    /// The peer says nothing more. What waits is still written, at most until this tick.
    Ending {
        cut_at: u32,
    },
}

/// The shard's state of one connection. It is kept small: an idle broker is mostly this.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) outbound: Outbound,
    pub(super) memberships: Memberships,
    /// Where it stands in topics that it is behind on, or that its rate holds back.
    pub(super) cursors: Option<Box<Cursors>>,
    /// The shard's sequence of the last message offered, so that none is offered twice.
    pub(super) last_sequence: u64,
    /// What this turn has for it.
    pub(super) pending: Pending,
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// Tick of the next ping.
    pub(super) next_ping: u32,
    /// Tick of the first ping since which nothing has arrived.
    pub(super) pinged: Option<NonZeroU32>,
    /// Tick since which the socket takes nothing.
    pub(super) stalled_since: Option<u32>,
    /// Tick since which something waits, if the socket is stalled.
    pub(super) blocked_since: u32,
    /// The slot of the wheel that counts; others are stale.
    pub(super) due: u32,
    /// Tick at which it ends unless it shows a token, or another one; [`NEVER`] if it need not.
    pub(super) expires: u32,
    pub(super) filters: u32,
    /// How many of its memberships only tell who joins and leaves.
    pub(super) watches: u32,
    pub(super) wire: Wire,
    /// Pings of the WebSocket that no pong has answered.
    pub(super) unanswered: u8,
    /// Tick at which a message began that is not whole: its last bits, which are not all 0.
    pub(super) unfinished: Option<NonZeroU16>,
    /// When it was opened, in seconds since the start.
    pub(super) opened: u32,
    /// Bytes that its socket has taken.
    pub(super) sent: u64,
}

impl<S: Socket> Connection<S> {
    /// Writes what waits.
    ///
    /// # Errors
    /// The socket's error if the peer is gone.
    pub(super) fn flush(&mut self) -> io::Result<Written> {
        let pushed = self.socket.push()?;
        let written = match self.phase {
            Phase::Open => self.outbound.flush(&self.socket),
            Phase::Closing { .. } | Phase::Ending { .. } => {
                self.outbound.flush(&Last(&self.socket))
            }
        };
        Ok(Written { pushed, ..written? })
    }

    /// Bytes that wait for the peer, in the queue and in the socket.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.outbound.bytes() + self.socket.unsent()
    }

    /// Whether the peer says nothing more and nothing waits for it.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. }) && self.waiting() == 0
    }
}

impl<S> Connection<S> {
    /// Whether it has not begun to close.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether it ends at some tick, for want of a token if it has shown none.
    pub(super) fn awaits_identity(&self) -> bool {
        self.expires != NEVER
    }

    /// Notes that a message has begun and is not whole.
    pub(super) fn begin_message(&mut self, tick: u32) {
        self.unfinished = Some(last_bits(tick));
    }

    /// The tick by which the message that has begun must be whole, if it may take so many ticks: fewer
    /// than there are last bits.
    pub(super) fn late_at(&self, tick: u32, whole: u32) -> u32 {
        let Some(begun) = self.unfinished else { return NEVER };
        let age = last_bits(tick).get().wrapping_sub(begun.get());
        tick.saturating_add(whole.saturating_sub(age.into()))
    }

    /// The cursor of a topic.
    #[inline]
    pub(super) fn cursor(&self, topic: u64) -> Option<Cursor> {
        self.cursors.as_ref().and_then(|cursors| cursors.get(topic))
    }

    /// Whether a cursor waits for the socket.
    pub(super) fn has_ready(&self) -> bool {
        self.cursors.as_ref().is_some_and(|cursors| cursors.has_ready())
    }

    /// Sets the cursor of a topic.
    pub(super) fn set_cursor(&mut self, topic: u64, cursor: Cursor) {
        self.cursors.get_or_insert_default().set(topic, cursor);
    }

    /// Takes the cursor of a topic out.
    pub(super) fn remove_cursor(&mut self, topic: u64) -> Option<Cursor> {
        let cursors = self.cursors.as_mut()?;
        let removed = cursors.remove(topic);
        if cursors.is_empty() {
            self.cursors = None;
        }
        removed
    }
}

/// The last 16 bits of a tick. Where they are all 0, it is taken for the tick before.
fn last_bits(tick: u32) -> NonZeroU16 {
    let [low, high, ..] = tick.to_le_bytes();
    NonZeroU16::new(u16::from_le_bytes([low, high])).unwrap_or(NonZeroU16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_connection_is_small() {
        let size = size_of::<Connection<Rc<crate::shard::conduit::Conduit>>>();
        assert!(size <= 120, "{size} bytes");
    }
}
