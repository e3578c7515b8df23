//! What one turn of a shard has to send: each frame once, and per connection a chain of them.
//! # Invariants: adding a frame to a connection allocates nothing once the turn's memory has grown;
//! a chain is in the order of the deliveries.
//! # Not here: sockets, who gets what.

use crate::dialect::Overflow;
use crate::planted::{self, Bug};
use crate::topics::message::Message;
use bytes::Bytes;
use std::sync::Arc;

/// Deliveries collected before a turn begins to write: bounds its memory (8 bytes each) and how
/// long a message may wait for those after it.
pub(super) const TURN_DELIVERIES_MAX: usize = 65_536;

/// Messages collected before a turn begins to write: as many as one write can join.
pub(super) const TURN_MESSAGES_MAX: usize = super::outbound::WRITE_FRAMES_MAX;

/// Entries and frames whose memory is kept from turn to turn.
const KEPT_MAX: usize = 2 * TURN_DELIVERIES_MAX;

/// A frame of the turn.
#[derive(Debug)]
pub(super) enum Frame {
    /// A message: its bytes for each wire are shared by everyone.
    Message(Arc<Message>),
    /// Where a topic stands, for connections that meet it through a filter.
    Position(Bytes),
}

/// The frames of one turn and who gets which.
#[derive(Debug, Default)]
pub(super) struct Turn {
    frames: Vec<Frame>,
    entries: Vec<Entry>,
    /// Slots of the connections that have a chain, in the order in which they got it.
    pub(super) dirty: Vec<u32>,
}

/// One connection's chain: indices of its first and last entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending(Option<(u32, u32)>);

impl Pending {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_none()
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Index of the frame, shifted left by one; the lowest bit says that it must not be dropped.
    frame: u32,
    /// Index of the next entry of the chain; its own index at the end.
    next: u32,
}

/// An entry of a chain as it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linked<'a> {
    pub(super) frame: &'a Frame,
    pub(super) overflow: Overflow,
}

impl Linked<'_> {
    pub(super) fn is_message(&self) -> bool {
        matches!(self.frame, Frame::Message(_))
    }
}

/// A frame's index in its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameIndex(u32);

impl Turn {
    /// Adds a frame that connections can then be given.
    pub(super) fn add(&mut self, frame: Frame) -> FrameIndex {
        self.frames.push(frame);
        FrameIndex(u32::try_from(self.frames.len() - 1).unwrap_or(u32::MAX))
    }

    /// Gives a frame to a connection.
    pub(super) fn link(&mut self, pending: &mut Pending, frame: FrameIndex, overflow: Overflow) {
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let keep = u32::from(overflow == Overflow::Disconnect);
        self.entries.push(Entry { frame: frame.0 << 1 | keep, next: index });
        match &mut pending.0 {
            None => pending.0 = Some((index, index)),
            Some((first, _)) if planted::is(Bug::ChainReversed) => {
                self.entries.last_mut().into_iter().for_each(|entry| entry.next = *first);
                *first = index;
            }
            Some((_, last)) => {
                if let Some(entry) = self.entries.get_mut(*last as usize) {
                    entry.next = index;
                }
                *last = index;
            }
        }
    }

    /// Reads a chain.
    pub(super) fn chain(&self, pending: Pending) -> impl Iterator<Item = Linked<'_>> + Clone {
        let mut next = pending.0.map(|(first, _)| first);
        std::iter::from_fn(move || {
            let index = next?;
            let entry = self.entries.get(index as usize)?;
            next = (entry.next != index).then_some(entry.next);
            let frame = self.frames.get((entry.frame >> 1) as usize)?;
            let overflow = if entry.frame & 1 == 1 { Overflow::Disconnect } else { Overflow::Gap };
            Some(Linked { frame, overflow })
        })
    }

    /// Whether it is time to write.
    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= TURN_MESSAGES_MAX || self.entries.len() >= TURN_DELIVERIES_MAX
    }

    /// The messages of the turn.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.frames.iter().filter_map(|frame| match frame {
            Frame::Message(message) => Some(message),
            Frame::Position(_) => None,
        })
    }

    /// Forgets everything; every chain must have been taken off its connection.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.entries.clear();
        self.dirty.clear();
        self.entries.shrink_to(KEPT_MAX);
        self.dirty.shrink_to(KEPT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &'static str) -> Frame {
        Frame::Position(Bytes::from_static(text.as_bytes()))
    }

    fn read(turn: &Turn, pending: Pending) -> Vec<(String, Overflow)> {
        turn.chain(pending)
            .map(|linked| match linked.frame {
                Frame::Position(bytes) => {
                    (String::from_utf8_lossy(bytes).into_owned(), linked.overflow)
                }
                Frame::Message(_) => (String::new(), linked.overflow),
            })
            .collect()
    }

    #[test]
    fn chains_are_read_in_the_order_in_which_they_were_linked() {
        let mut turn = Turn::default();
        let (mut one, mut two) = (Pending::default(), Pending::default());
        let a = turn.add(position("a"));
        let b = turn.add(position("b"));
        turn.link(&mut one, a, Overflow::Gap);
        turn.link(&mut two, a, Overflow::Disconnect);
        turn.link(&mut one, b, Overflow::Disconnect);
        let expected = [("a".to_owned(), Overflow::Gap), ("b".to_owned(), Overflow::Disconnect)];
        assert_eq!(read(&turn, one), expected);
        assert_eq!(read(&turn, two), [("a".to_owned(), Overflow::Disconnect)]);
        assert_eq!(read(&turn, Pending::default()), []);
    }
}
