//! The bytes of a turn's frames on one wire, side by side, and how a chain of them is written.
//! # Invariants: a frame is copied once per turn and wire, however many connections get it; what a
//! plan says is the bytes of its chain's frames, on a batched wire with one head for many of them.
//! # Not here: chains (`turn`), sockets (`delivery`).

use super::turn::{FrameIndex, Order, Pending, Turn};
use crate::dialect::frame;
use crate::planted::{self, Bug};
use crate::topics::message::Wire;
use bytes::Bytes;
use std::io::IoSlice;

/// Longest frame that is copied into a block. Longer ones are referred to where they are: a copy
/// would cost more than the slice that it saves.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Most bytes that one WebSocket message joins, unless a single event has more.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// From so many pieces on they are copied side by side before they are written, if they are not
/// more than so many bytes: the kernel takes many short slices slower than one (21 % of a ticker
/// mix went into that).
const GATHERED_PIECES_MIN: usize = 3;
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// First bit of a frame that is compressed (RFC 7692 section 6: RSV1).
const COMPRESSED: u8 = 0x40;

/// The frames of a turn on one wire.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    /// By the index of the frame.
    spans: Vec<Span>,
}

/// Where the bytes of a frame are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    place: Place,
    start: u32,
    len: u32,
    packing: Packing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Block,
    /// In the frame itself.
    Frame(FrameIndex),
    /// Among the plan's own bytes.
    Plan,
}

/// Whether a frame may share a WebSocket message with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Packing {
    /// It is a message, head and all.
    #[default]
    Alone,
    /// It has no head, and gets one together with its neighbours.
    Joined,
}

impl Block {
    /// Adds a frame; returns how many bytes were copied.
    pub(super) fn add(&mut self, index: FrameIndex, frame: &Bytes, wire: Wire) -> usize {
        let is_compressed = frame.first().is_some_and(|first| first & COMPRESSED != 0);
        let (packing, skipped) = if wire.is_batched() && !is_compressed {
            (Packing::Joined, frame::head_len(frame, wire).min(frame.len()))
        } else {
            (Packing::Alone, 0)
        };
        let bytes = frame.get(skipped..).unwrap_or_default();
        let len = short(bytes.len());
        if self.spans.len() <= index.get() {
            self.spans.resize(index.get() + 1, Span::default());
        }
        let (span, copied) = if bytes.len() > COPIED_BYTES_MAX {
            let place = Place::Frame(index);
            (Span { place, start: short(skipped), len, packing }, 0)
        } else {
            let start = short(self.bytes.len());
            self.bytes.extend_from_slice(bytes);
            (Span { place: Place::Block, start, len, packing }, bytes.len())
        };
        if let Some(place) = self.spans.get_mut(index.get()) {
            *place = span;
        }
        copied
    }

    fn span(&self, frame: FrameIndex) -> Span {
        self.spans.get(frame.get()).copied().unwrap_or_default()
    }

    /// The frames at the front that share a WebSocket message.
    pub(super) fn next_message(&self, frames: impl Iterator<Item = FrameIndex>) -> Joint {
        let mut joint = Joint::default();
        for span in frames.map(|frame| self.span(frame)) {
            let is_joined = span.packing == Packing::Joined;
            let fits = is_joined && joint.len + span.len as usize <= BATCH_BYTES_MAX;
            if joint.frames > 0 && !fits {
                break;
            }
            joint.frames += 1;
            joint.len += span.len as usize;
            joint.is_batch = is_joined;
            if !is_joined {
                break;
            }
        }
        joint
    }

    /// Forgets everything, and keeps at most so much memory.
    pub(super) fn clear(&mut self, kept_max: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept_max);
        self.spans.clear();
    }
}

/// What shares one WebSocket message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Joint {
    pub(super) frames: usize,
    /// Bytes of the frames; a batch has its head in front of them.
    pub(super) len: usize,
    pub(super) is_batch: bool,
}

impl Joint {
    /// Bytes of the WebSocket message.
    pub(super) fn message_len(self, wire: Wire) -> usize {
        let head = frame::batch_head(wire, self.len);
        if self.is_batch { self.len + frame::HEAD_BYTES_MAX - head.1 } else { self.len }
    }

    /// The WebSocket message of these frames, as a plan writes it.
    pub(super) fn message(
        self,
        frames: impl Iterator<Item = FrameIndex> + Clone,
        turn: &Turn,
        wire: Wire,
    ) -> Bytes {
        let frames = frames.filter_map(|frame| turn.bytes(frame, wire));
        if self.frames == 1 {
            // A batch of one is the frame itself.
            return frames.clone().next().cloned().unwrap_or_default();
        }
        let (room, start) = frame::batch_head(wire, self.len);
        let mut message = room.get(start..).unwrap_or_default().to_vec();
        let lost = usize::from(planted::is(Bug::BatchCut));
        for bytes in frames.take(self.frames - lost) {
            let head_len = frame::head_len(bytes, wire);
            message.extend_from_slice(bytes.get(head_len..).unwrap_or_default());
        }
        message.into()
    }
}

/// How one chain is written on one wire.
#[derive(Debug, Default)]
pub(super) struct Plan {
    of: Option<(Pending, Wire)>,
    pieces: Vec<Span>,
    /// Heads of batches, and pieces that were gathered.
    own: Vec<u8>,
    /// Bytes of all pieces.
    pub(super) len: usize,
    /// Frames that are messages.
    pub(super) messages: u64,
}

impl Plan {
    /// Plans a chain that was followed, unless it is the one that was planned last.
    pub(super) fn make(&mut self, turn: &Turn, pending: Pending, wire: Wire, order: &Order) {
        let is_same = self.of.is_some_and(|(before, on)| {
            before == pending && (on == wire || planted::is(Bug::BlockOfAnotherWire))
        });
        if is_same {
            return;
        }
        self.clear();
        self.of = Some((pending, wire));
        let block = turn.block(wire);
        let mut frames = order.frames();
        while wire.is_batched() && frames.len() > 0 {
            let joint = block.next_message(frames.clone());
            if joint.is_batch {
                let uncounted = usize::from(planted::is(Bug::BatchMiscounted));
                self.push_head(wire, joint.len - uncounted);
            }
            for frame in frames.by_ref().take(joint.frames) {
                self.push(block.span(frame));
            }
        }
        for frame in frames {
            self.push(block.span(frame));
        }
        self.messages = turn.messages_among(order);
        if self.pieces.len() >= GATHERED_PIECES_MIN && self.len <= GATHERED_BYTES_MAX {
            self.gather(turn, wire);
        }
    }

    /// Makes one piece of all.
    fn gather(&mut self, turn: &Turn, wire: Wire) {
        let start = self.own.len();
        let block = turn.block(wire);
        for piece in &self.pieces {
            let range = piece.start as usize..(piece.start + piece.len) as usize;
            match piece.place {
                Place::Plan => self.own.extend_from_within(range),
                Place::Block => {
                    self.own.extend_from_slice(block.bytes.get(range).unwrap_or_default());
                }
                Place::Frame(index) => {
                    let frame = turn.bytes(index, wire).and_then(|bytes| bytes.get(range));
                    self.own.extend_from_slice(frame.unwrap_or_default());
                }
            }
        }
        self.pieces.clear();
        let (start, len) = (short(start), short(self.len));
        self.pieces.push(Span { place: Place::Plan, start, len, ..Span::default() });
    }

    fn push_head(&mut self, wire: Wire, len: usize) {
        let (room, start) = frame::batch_head(wire, len);
        let head = room.get(start..).unwrap_or_default();
        let start = short(self.own.len());
        self.own.extend_from_slice(head);
        self.push(Span { place: Place::Plan, start, len: short(head.len()), ..Span::default() });
    }

    fn push(&mut self, span: Span) {
        self.len += span.len as usize;
        match self.pieces.last_mut() {
            Some(last) if last.place == span.place && last.start + last.len == span.start => {
                last.len += span.len;
            }
            _ => self.pieces.push(span),
        }
    }

    /// The slices from a piece on, as many as there is room for. Returns how many they are and
    /// their bytes.
    pub(super) fn slices<'a>(
        &'a self,
        from: usize,
        turn: &'a Turn,
        room: &mut [IoSlice<'a>],
    ) -> (usize, usize) {
        let Some((_, wire)) = self.of else { return (0, 0) };
        let block = turn.block(wire);
        let (mut count, mut len) = (0, 0);
        for (slice, piece) in room.iter_mut().zip(self.pieces.get(from..).unwrap_or_default()) {
            let source = match piece.place {
                Place::Block => &*block.bytes,
                Place::Plan => &*self.own,
                Place::Frame(index) => turn.bytes(index, wire).map_or(&[][..], |bytes| bytes),
            };
            let bytes = source.get(piece.start as usize..).unwrap_or_default();
            let bytes = bytes.get(..piece.len as usize).unwrap_or_default();
            *slice = IoSlice::new(bytes);
            count += 1;
            len += bytes.len();
        }
        (count, len)
    }

    /// Forgets the chain: its turn is over.
    pub(super) fn clear(&mut self) {
        self.of = None;
        self.pieces.clear();
        self.own.clear();
        self.len = 0;
        self.messages = 0;
    }
}

/// Lengths within a turn are bounded far below 4 GiB.
fn short(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
