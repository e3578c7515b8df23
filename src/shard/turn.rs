//! What one turn of a shard has to send: each frame once, and per connection a chain of them.
//! Chains share their beginnings: connections that are offered the same frames have the same chain,
//! so a thousand of them cost one link a frame, and one block of bytes can serve them all.
//! # Invariants: offering a frame to a connection allocates nothing once the turn's memory has
//! grown; two connections with the same chain were offered the same frames in the same order.
//! # Not here: sockets, who gets what.

use super::cursor::Mode;
use super::subscribers::NumberMap;
use crate::planted::{self, Bug};
use crate::topics::message::{Message, Wire};
use bytes::Bytes;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Deliveries collected before a turn begins to write: bounds its memory (a link of 8 bytes each at
/// worst) and how long a message may wait for those after it.
const TURN_DELIVERIES_MAX: usize = 65_536;

/// Frames collected before a turn begins to write. Many topics with few subscribers each need many
/// frames until every connection has several.
const TURN_FRAMES_MAX: usize = 4_096;

/// Links and connections whose memory is kept from turn to turn.
const KEPT_MAX: usize = 2 * TURN_DELIVERIES_MAX;

/// Fewest frames that are worth joining, and most bytes: joining copies each frame once more, and
/// saves a part of the cost of each write (25 % at 64 frames, 7 % at 8 measured).
const JOINED_FRAMES_MIN: usize = 4;
const JOINED_BYTES_MAX: usize = 64 << 10;

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
    links: Vec<Link>,
    /// Frames given to connections.
    deliveries: usize,
    /// The link that was made or used last: the next connection most likely needs it too.
    latest: Option<(Link, Pending)>,
    /// Chains that have been written, with their bytes from the second time on.
    joined: NumberMap<u64, Option<Joined>>,
    /// Slots of the connections that have a chain, in the order in which they got it.
    pub(super) dirty: Vec<u32>,
}

/// One connection's chain: the index of its last link, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending(Option<NonZeroU32>);

impl Pending {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    before: Pending,
    /// Index of the frame, shifted left by two; the lowest bits say what becomes of it when the
    /// socket does not take it.
    frame: u32,
}

/// The frames of a chain as one block of bytes.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) bytes: Bytes,
    /// How many of its frames are messages.
    pub(super) messages: u64,
}

/// A link of a chain as it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linked<'a> {
    pub(super) frame: &'a Frame,
    pub(super) mode: Mode,
}

impl Linked<'_> {
    pub(super) fn is_message(&self) -> bool {
        matches!(self.frame, Frame::Message(_))
    }
}

/// A frame's index in its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameIndex(u32);

/// The links of a chain in the order of the deliveries.
#[derive(Debug, Default)]
pub(super) struct Order(Vec<u32>);

impl Turn {
    /// Adds a frame that connections can then be given.
    pub(super) fn add(&mut self, frame: Frame) -> FrameIndex {
        self.frames.push(frame);
        FrameIndex(u32::try_from(self.frames.len() - 1).unwrap_or(u32::MAX))
    }

    /// Gives a frame to a connection.
    pub(super) fn link(&mut self, pending: &mut Pending, frame: FrameIndex, mode: Mode) {
        self.deliveries += 1;
        let link = Link { before: *pending, frame: frame.0 << 2 | mode as u32 };
        *pending = match self.latest {
            Some((latest, after)) if latest == link => after,
            _ => self.new_link(link),
        };
    }

    fn new_link(&mut self, link: Link) -> Pending {
        self.links.push(link);
        let after = Pending(u32::try_from(self.links.len()).ok().and_then(NonZeroU32::new));
        self.latest = Some((link, after));
        after
    }

    /// Follows a chain back to its beginning, and notes it in the order of the deliveries.
    pub(super) fn follow(&self, pending: Pending, order: &mut Order) {
        order.0.clear();
        let mut next = pending;
        while let Some(link) = next.0.and_then(|index| self.links.get(index.get() as usize - 1)) {
            order.0.push(link.frame);
            next = link.before;
        }
        if !planted::is(Bug::ChainReversed) {
            order.0.reverse();
        }
    }

    /// Reads a chain that was followed.
    pub(super) fn chain<'a>(
        &'a self,
        order: &'a Order,
    ) -> impl Iterator<Item = Linked<'a>> + Clone {
        order.0.iter().filter_map(|link| {
            let frame = self.frames.get((link >> 2) as usize)?;
            let mode = Mode::ALL.get((link & 3) as usize).copied()?;
            Some(Linked { frame, mode })
        })
    }

    /// The bytes of a chain in one block, if it is written again and joining is worth it.
    pub(super) fn joined<'a>(
        &'a mut self,
        pending: Pending,
        wire: Wire,
        order: &Order,
        bytes_of: impl Fn(&Frame) -> &Bytes,
    ) -> Option<&'a Joined> {
        if order.0.len() < JOINED_FRAMES_MIN {
            return None;
        }
        let last = pending.0.map_or(0, NonZeroU32::get);
        let wire = if planted::is(Bug::BlockOfAnotherWire) { 0 } else { wire as u64 };
        let key = u64::from(last) * Wire::COUNT as u64 + wire;
        if let std::collections::hash_map::Entry::Vacant(first) = self.joined.entry(key) {
            first.insert(None);
            return None;
        }
        if self.joined.get(&key).is_some_and(Option::is_none) {
            let joined = join(self.chain(order).map(|linked| (bytes_of(linked.frame), linked)));
            self.joined.insert(key, joined);
        }
        self.joined.get(&key).and_then(Option::as_ref)
    }

    /// Whether it is time to write.
    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= TURN_FRAMES_MAX || self.deliveries >= TURN_DELIVERIES_MAX
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
        self.links.clear();
        self.deliveries = 0;
        self.latest = None;
        self.joined.clear();
        self.dirty.clear();
        self.links.shrink_to(KEPT_MAX);
        self.joined.shrink_to(KEPT_MAX);
        self.dirty.shrink_to(KEPT_MAX);
    }
}

fn join<'a>(frames: impl Iterator<Item = (&'a Bytes, Linked<'a>)> + Clone) -> Option<Joined> {
    let len = frames.clone().map(|(bytes, _)| bytes.len()).sum();
    if len > JOINED_BYTES_MAX {
        return None;
    }
    let mut block = Vec::with_capacity(len);
    let mut messages = 0;
    for (bytes, linked) in frames {
        block.extend_from_slice(bytes);
        messages += u64::from(linked.is_message());
    }
    Some(Joined { bytes: block.into(), messages })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &'static str) -> Frame {
        Frame::Position(Bytes::from_static(text.as_bytes()))
    }

    fn bytes_of(frame: &Frame) -> &Bytes {
        match frame {
            Frame::Position(bytes) => bytes,
            Frame::Message(_) => panic!("there is none"),
        }
    }

    fn read(turn: &Turn, pending: Pending) -> Vec<(String, Mode)> {
        let mut order = Order::default();
        turn.follow(pending, &mut order);
        let text = |frame| String::from_utf8_lossy(bytes_of(frame)).into_owned();
        turn.chain(&order).map(|linked| (text(linked.frame), linked.mode)).collect()
    }

    #[test]
    fn chains_are_read_in_the_order_in_which_they_were_linked() {
        let mut turn = Turn::default();
        let (mut one, mut two) = (Pending::default(), Pending::default());
        let a = turn.add(position("a"));
        let b = turn.add(position("b"));
        turn.link(&mut one, a, Mode::Gap);
        turn.link(&mut two, a, Mode::Disconnect);
        turn.link(&mut one, b, Mode::Disconnect);
        let expected = [("a".to_owned(), Mode::Gap), ("b".to_owned(), Mode::Disconnect)];
        assert_eq!(read(&turn, one), expected);
        assert_eq!(read(&turn, two), [("a".to_owned(), Mode::Disconnect)]);
        assert_eq!(read(&turn, Pending::default()), []);
    }

    #[test]
    fn connections_with_the_same_frames_share_their_links() {
        let mut turn = Turn::default();
        let mut chains = [Pending::default(); 100];
        for text in ["a", "b", "c"] {
            let frame = turn.add(position(text));
            for pending in &mut chains {
                turn.link(pending, frame, Mode::Gap);
            }
        }
        assert_eq!(turn.links.len(), 3);
        assert!(chains.iter().all(|pending| *pending == chains[0]));
    }

    #[test]
    fn a_chain_is_joined_from_the_second_time_on_and_only_for_its_equals() {
        let mut turn = Turn::default();
        let (mut all, mut fewer) = (Pending::default(), Pending::default());
        for text in ["a", "b", "c", "d", "e"] {
            let frame = turn.add(position(text));
            turn.link(&mut all, frame, Mode::Gap);
            if text != "c" {
                turn.link(&mut fewer, frame, Mode::Gap);
            }
        }
        let mut block = |pending, wire| {
            let mut order = Order::default();
            turn.follow(pending, &mut order);
            turn.joined(pending, wire, &order, bytes_of).map(|joined| joined.bytes.clone())
        };
        assert_eq!(block(all, Wire::TcpProto), None);
        assert_eq!(block(all, Wire::TcpProto).as_deref(), Some(&b"abcde"[..]));
        assert_eq!(block(fewer, Wire::TcpProto), None);
        assert_eq!(block(fewer, Wire::TcpProto).as_deref(), Some(&b"abde"[..]));
        assert_eq!(block(all, Wire::WebSocketJson), None, "another wire has other bytes");
    }

    #[test]
    fn short_and_long_chains_are_not_joined() {
        let mut turn = Turn::default();
        let mut short = Pending::default();
        for _ in 0..JOINED_FRAMES_MIN - 1 {
            let frame = turn.add(position("x"));
            turn.link(&mut short, frame, Mode::Gap);
        }
        let mut long = Pending::default();
        for _ in 0..JOINED_FRAMES_MIN {
            let frame = turn.add(Frame::Position(vec![0; JOINED_BYTES_MAX / 2].into()));
            turn.link(&mut long, frame, Mode::Gap);
        }
        for pending in [short, long].repeat(2) {
            let mut order = Order::default();
            turn.follow(pending, &mut order);
            assert!(turn.joined(pending, Wire::TcpProto, &order, bytes_of).is_none());
        }
    }
}
