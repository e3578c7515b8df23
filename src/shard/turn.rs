//! What one turn of a shard has to send: each frame once, and per connection a chain of them.
//! Chains share their beginnings: connections that are offered the same frames have the same chain,
//! so a thousand of them cost one link a frame. The bytes of the frames stand side by side in one
//! block per wire, so neighbours in a chain leave as one slice.
//! # Invariants: offering a frame to a connection allocates nothing once the turn's memory has
//! grown; two connections with the same chain were offered the same frames in the same order.
//! # Not here: sockets, who gets what.

use super::block::Block;
use super::cursor::Mode;
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

/// Bytes laid out before a turn begins to write, and kept from turn to turn.
const TURN_BYTES_MAX: usize = 1 << 20;

/// Links and connections whose memory is kept from turn to turn.
const KEPT_MAX: usize = 2 * TURN_DELIVERIES_MAX;

/// A frame of the turn.
#[derive(Debug)]
pub(super) enum Frame {
    /// A message: its bytes for each wire are shared by everyone.
    Message(Arc<Message>),
    /// Where a topic stands before the first message that a connection meets through a filter.
    Position {
        /// That message.
        first: Arc<Message>,
        bytes: Bytes,
    },
}

/// The frames of one turn and who gets which.
#[derive(Debug, Default)]
pub(super) struct Turn {
    frames: Vec<Frame>,
    /// How many of the frames are no messages.
    positions: usize,
    links: Vec<Link>,
    /// Frames given to connections.
    deliveries: usize,
    /// The link that was made or used last: the next connection most likely needs it too.
    latest: Option<(Link, Pending)>,
    /// The bytes of the frames, for each wire on which somebody gets them.
    blocks: [Block; Wire::COUNT],
    /// Bytes in all blocks.
    bytes: usize,
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

/// A link of a chain as it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linked<'a> {
    pub(super) frame: &'a Frame,
    pub(super) mode: Mode,
}

impl<'a> Linked<'a> {
    /// The bytes of the frame, which was laid out for this wire.
    pub(super) fn bytes(&self, wire: Wire) -> Option<&'a Bytes> {
        match self.frame {
            Frame::Message(message) => message.encoded(wire),
            Frame::Position { bytes, .. } => Some(bytes),
        }
    }
}

/// A frame's index in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameIndex(u32);

impl FrameIndex {
    pub(super) fn get(self) -> usize {
        self.0 as usize
    }
}

/// The links of a chain in the order of the deliveries.
#[derive(Debug, Default)]
pub(super) struct Order {
    links: Vec<u32>,
    of: Pending,
}

impl Order {
    /// The frames of the chain.
    pub(super) fn frames(&self) -> impl ExactSizeIterator<Item = FrameIndex> + Clone {
        self.links.iter().map(|link| FrameIndex(link >> 2))
    }

    /// Forgets the chain: its turn is over.
    pub(super) fn clear(&mut self) {
        self.links.clear();
        self.of = Pending::default();
    }
}

impl Turn {
    /// Adds a frame that connections can then be given.
    pub(super) fn add(&mut self, frame: Frame) -> FrameIndex {
        self.positions += usize::from(matches!(frame, Frame::Position { .. }));
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

    /// Lays the bytes of a frame out for the connections of a wire; once for each.
    pub(super) fn lay_out(&mut self, frame: FrameIndex, wire: Wire, bytes: &Bytes) {
        if let Some(block) = self.blocks.get_mut(wire as usize) {
            self.bytes += block.add(frame, bytes, wire);
        }
    }

    /// The bytes of the frames on a wire.
    pub(super) fn block(&self, wire: Wire) -> &Block {
        // There is a block for each wire, in the order of their discriminants.
        self.blocks.get(wire as usize).unwrap_or(&self.blocks[0])
    }

    /// A frame of the turn.
    pub(super) fn frame(&self, index: FrameIndex) -> Option<&Frame> {
        self.frames.get(index.get())
    }

    /// Whether a frame is a message.
    pub(super) fn is_message(&self, index: FrameIndex) -> bool {
        matches!(self.frame(index), Some(Frame::Message(_)))
    }

    /// How many frames of a chain are messages.
    pub(super) fn messages_among(&self, order: &Order) -> u64 {
        let frames = order.frames();
        let positions = if self.positions == 0 {
            0
        } else {
            frames.clone().filter(|f| !self.is_message(*f)).count()
        };
        (frames.len() - positions) as u64
    }

    /// The bytes of a frame that was laid out.
    pub(super) fn bytes(&self, index: FrameIndex, wire: Wire) -> Option<&Bytes> {
        let frame = self.frame(index)?;
        Linked { frame, mode: Mode::Gap }.bytes(wire)
    }

    /// Follows a chain back to its beginning, and notes it in the order of the deliveries.
    pub(super) fn follow(&self, pending: Pending, order: &mut Order) {
        if order.of == pending {
            return;
        }
        order.clear();
        order.of = pending;
        let mut next = pending;
        while let Some(link) = next.0.and_then(|index| self.links.get(index.get() as usize - 1)) {
            order.links.push(link.frame);
            next = link.before;
        }
        if !planted::is(Bug::ChainReversed) {
            order.links.reverse();
        }
    }

    /// Reads a chain that was followed.
    pub(super) fn chain<'a>(
        &'a self,
        order: &'a Order,
    ) -> impl Iterator<Item = Linked<'a>> + Clone {
        order.links.iter().filter_map(|link| {
            let frame = self.frames.get((link >> 2) as usize)?;
            let mode = Mode::ALL.get((link & 3) as usize).copied()?;
            Some(Linked { frame, mode })
        })
    }

    /// Whether it is time to write.
    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= TURN_FRAMES_MAX
            || self.deliveries >= TURN_DELIVERIES_MAX
            || self.bytes >= TURN_BYTES_MAX
    }

    /// The messages of the turn.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.frames.iter().filter_map(|frame| match frame {
            Frame::Message(message) => Some(message),
            Frame::Position { .. } => None,
        })
    }

    /// Forgets everything; every chain must have been taken off its connection.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.positions = 0;
        self.links.clear();
        self.deliveries = 0;
        self.latest = None;
        for block in &mut self.blocks {
            block.clear(TURN_BYTES_MAX);
        }
        self.bytes = 0;
        self.dirty.clear();
        self.links.shrink_to(KEPT_MAX);
        self.dirty.shrink_to(KEPT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::topics::message::{Draft, Epoch, Offset, Payload, TopicHead};
    use crate::topics::name::TopicName;

    fn topic() -> TopicName {
        TopicName::parse("a.b").expect("a name")
    }

    fn position(text: &'static str) -> Frame {
        let head = TopicHead::new(1, topic(), Epoch::from_bits(1), Arc::default());
        let draft = Draft::new(topic(), Payload::Text(Bytes::new()));
        let first = Arc::new(Message::new(Arc::new(head), Offset(1), draft, Now::at_ms(0)));
        Frame::Position { first, bytes: Bytes::from_static(text.as_bytes()) }
    }

    fn bytes_of(frame: &Frame) -> &Bytes {
        match frame {
            Frame::Position { bytes, .. } => bytes,
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
}
