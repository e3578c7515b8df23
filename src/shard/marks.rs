//! Connections whose events carry ids of their own: where each stands, and writing to them.
//! # Invariants: an id is in the block of the very event that it counts, so a reader that is cut
//! anywhere comes back from what it has got; positions are noted in the order in which the events
//! leave; a delivery allocates nothing once the memory for it has grown.
//! # Not here: the text of an id (`dialect::bookmark`), frames that all readers share (`delivery`).

use super::Shard;
use super::connection::{Connection, ConnectionId};
use super::late::{Late, Unsent};
use super::outbound::Socket;
use super::subscribers::NumberMap;
use super::turn::{Frame, Linked};
use crate::dialect::Kept;
use crate::dialect::bookmark::{Bookmark, Naming};
use crate::topics::message::{Offset, TopicHead, Wire};
use crate::topics::name::TopicFilter;
use bytes::Bytes;
use std::io::{self, IoSlice};

/// Bytes that are put together before they are written.
const PIECE_BYTES: usize = 64 << 10;

/// Where the connections stand that are told so, by their slots; and memory to write to one of them.
#[derive(Debug, Default)]
pub(super) struct Marks {
    bookmarks: NumberMap<u32, Bookmark>,
    piece: Piece,
}

/// Events of one connection on their way.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Where each event ends, and whether it is a message.
    ends: Vec<(usize, bool)>,
    /// Where the connection stood before the first of them.
    before: Bookmark,
}

impl Marks {
    /// Begins to keep where a connection stands, if its wire tells that.
    pub(super) fn begin(&mut self, slot: u32, wire: Wire) {
        let naming = match wire {
            Wire::SseTopic => Naming::Bare,
            Wire::SseTopics => Naming::Named,
            _ => return,
        };
        self.bookmarks.insert(slot, Bookmark::new(naming));
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.bookmarks.remove(&slot);
    }

    /// Where a connection stands.
    pub(super) fn get(&mut self, slot: u32) -> Option<&mut Bookmark> {
        self.bookmarks.get_mut(&slot)
    }

    /// Appends the line that a connection has still to be told before its next event.
    pub(super) fn tell(&mut self, slot: u32, block: &mut Vec<u8>) {
        if let Some(bookmark) = self.bookmarks.get_mut(&slot) {
            bookmark.tell(block);
        }
    }
}

/// A frame, with the id of its connection in front if that has something new to tell.
pub(super) fn marked(bookmark: &mut Bookmark, frame: &Bytes) -> Bytes {
    let mut block = Vec::with_capacity(bookmark.line_len() + frame.len());
    bookmark.tell(&mut block);
    if block.is_empty() {
        return frame.clone();
    }
    block.extend_from_slice(frame);
    block.into()
}

/// Notes what the connection has when it has got a frame.
fn note(bookmark: &mut Bookmark, frame: &Frame) {
    match frame {
        Frame::Message(message) => bookmark.note(&message.head, message.offset),
        Frame::Position { first, .. } => bookmark.note(&first.head, first.offset.previous()),
    }
}

impl<S: Socket> Shard<S> {
    /// Has a connection begin where its reader stands.
    pub fn begin_marks(&mut self, id: ConnectionId, bookmark: Bookmark) {
        if self.connection(id).is_some_and(|connection| connection.wire.is_sse()) {
            self.marks.bookmarks.insert(id.slot, bookmark);
        }
    }

    /// Notes that all that a connection asked for has begun.
    pub fn settle_marks(&mut self, id: ConnectionId) {
        if let Some(bookmark) = self.marks.get(id.slot) {
            bookmark.settle();
        }
    }

    /// Notes that a connection's filter has begun, with or without the places of all topics that it
    /// matches.
    pub fn mark_filter(&mut self, id: ConnectionId, filter: &TopicFilter, kept: Kept) {
        if self.connection(id).is_some_and(|connection| connection.wire.is_sse())
            && let Some(bookmark) = self.marks.get(id.slot)
        {
            bookmark.note_filter(filter);
            if kept == Kept::Some {
                bookmark.note_full();
            }
        }
    }

    /// Notes that a connection has been sent a topic up to here. Its next event says so, if its wire
    /// does.
    pub fn mark(&mut self, id: ConnectionId, head: &TopicHead, offset: Offset) {
        if self.connection(id).is_some_and(|connection| connection.wire.is_sse())
            && let Some(bookmark) = self.marks.get(id.slot)
        {
            bookmark.note(head, offset);
        }
    }

    /// Writes the chain that was followed, each event with an id of its own, and keeps what the socket
    /// does not take.
    pub(super) fn write_marked(&mut self, slot: u32) -> Result<(), Unsent> {
        let Some(wire) = self.connections.get(slot as usize).map(|connection| connection.wire)
        else {
            return Ok(());
        };
        let mut piece = std::mem::take(&mut self.marks.piece);
        let mut done = 0;
        let mut result = Ok(());
        while result.is_ok() && done < self.order.frames().len() {
            let chain = self.turn.chain(&self.order).skip(done);
            let Some(bookmark) = self.marks.get(slot) else { break };
            piece.fill(chain.map(|linked| (linked.frame, linked.bytes(wire))), bookmark);
            let Some(connection) = self.connections.get_mut(slot as usize) else { break };
            let Ok(taken) = write_all(connection, &piece.bytes, &self.counters) else {
                result = Err(Unsent::PeerGone);
                break;
            };
            connection.sent += taken as u64;
            let (gone, messages) = piece.gone(taken);
            self.counters.deliveries.add(messages);
            done += gone;
            if taken < piece.bytes.len() {
                self.rewind(slot, &piece, taken, done - gone);
                result = self.keep_rest(slot, done);
                break;
            }
        }
        piece.clear();
        self.marks.piece = piece;
        result
    }

    /// Has a connection stand behind what its socket has taken, or begun to take, and queues the rest
    /// of that. `first` is the frame with which the piece began.
    fn rewind(&mut self, slot: u32, piece: &Piece, taken: usize, first: usize) {
        let Some(bookmark) = self.marks.get(slot) else { return };
        bookmark.copy_from(&piece.before);
        let (gone, _) = piece.gone(taken);
        for linked in self.turn.chain(&self.order).skip(first).take(gone) {
            note(bookmark, linked.frame);
        }
        if gone > 0 {
            // The id of the last one is on its way.
            bookmark.tell(&mut Vec::new());
        }
        let end = piece.ends.get(gone.wrapping_sub(1)).map_or(taken, |(end, _)| *end);
        if end > taken
            && let Some(connection) = self.connections.get_mut(slot as usize)
        {
            let rest = piece.bytes.get(taken..end).unwrap_or_default();
            connection.outbound.push_rest(Bytes::copy_from_slice(rest));
        }
    }

    /// Keeps the frames of the chain from `done` on.
    pub(super) fn keep_rest(&mut self, slot: u32, done: usize) -> Result<(), Unsent> {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return Ok(()) };
        let (wire, counters) = (connection.wire, &*self.counters);
        let bookmark =
            if wire == Wire::SseTopics { self.marks.bookmarks.get_mut(&slot) } else { None };
        let mut late = Late {
            connection,
            bookmark,
            subscribers: &mut self.subscribers,
            options: &self.options,
            pressure: self.pressure,
            tick: u32::try_from(self.wheel.tick()).unwrap_or(u32::MAX),
            queued: 0,
            begun: 0,
            dropped: 0,
            untold: false,
        };
        let keep = |linked: Linked<'_>| match linked.bytes(wire) {
            Some(bytes) => late.keep(linked, bytes),
            None => Ok(()),
        };
        let kept = self.turn.chain(&self.order).skip(done).try_for_each(keep);
        counters.deliveries.add(late.queued);
        counters.dropped.add(late.dropped);
        counters.catch_ups.add(late.begun);
        kept
    }
}

impl Piece {
    /// Puts the next frames together, as many as make a piece.
    fn fill<'a>(
        &mut self,
        frames: impl Iterator<Item = (&'a Frame, Option<&'a Bytes>)>,
        bookmark: &mut Bookmark,
    ) {
        self.clear();
        self.before.copy_from(bookmark);
        for (frame, bytes) in frames {
            note(bookmark, frame);
            bookmark.tell(&mut self.bytes);
            self.bytes.extend_from_slice(bytes.map_or(&[][..], |bytes| bytes));
            self.ends.push((self.bytes.len(), matches!(frame, Frame::Message(_))));
            if self.bytes.len() >= PIECE_BYTES {
                break;
            }
        }
    }

    /// How many frames are gone, whole or in part, with so many bytes, and how many of them are
    /// messages.
    fn gone(&self, taken: usize) -> (usize, u64) {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        let gone = begins.zip(&self.ends).take_while(|(begin, _)| *begin < taken);
        gone.fold((0, 0), |(frames, messages), (_, (_, is_message))| {
            (frames + 1, messages + u64::from(*is_message))
        })
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * PIECE_BYTES);
        self.ends.clear();
    }
}

/// Writes until all is written or the socket takes no more. Behind a queue nothing is written.
fn write_all<S: Socket>(
    connection: &Connection<S>,
    bytes: &[u8],
    counters: &crate::metrics::Counters,
) -> io::Result<usize> {
    let mut taken = 0;
    while connection.outbound.is_empty() && taken < bytes.len() {
        let rest = bytes.get(taken..).unwrap_or_default();
        let now = super::delivery::write(connection, &[IoSlice::new(rest)], counters)?;
        if now == 0 {
            break;
        }
        taken += now;
    }
    Ok(taken)
}
