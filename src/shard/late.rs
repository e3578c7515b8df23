//! What a socket did not take of a turn: queued, or left to a cursor.
//! # Invariants: what is queued is bounded in bytes and in time; a message is queued, or behind a
//! cursor, or ends the connection, and never two of these; one frame always fits, because only what
//! waits in the queue makes somebody write, and then serve the cursors.
//! # Not here: serving the cursors (`serving`).

use super::ShardOptions;
use super::connection::Connection;
use super::cursor::{Cursor, Mode};
use super::marks::marked;
use super::pressure::Pressure;
use super::subscribers::Subscribers;
use super::turn::{Frame, Linked};
use crate::dialect::bookmark::Bookmark;
use crate::planted::{self, Bug};
use crate::topics::message::{Message, Offset, TopicHead};
use bytes::Bytes;
use std::sync::Arc;

/// Why a chain could not be sent or kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The socket reports that there is nobody.
    PeerGone,
    /// The connection is behind and may not miss this, or is behind on too much.
    MustClose,
}

/// Keeps what the socket of one connection did not take.
pub(super) struct Late<'a, S> {
    pub(super) connection: &'a mut Connection<S>,
    /// Where it stands, if each of its events says so.
    pub(super) bookmark: Option<&'a mut Bookmark>,
    pub(super) subscribers: &'a mut Subscribers,
    pub(super) options: &'a ShardOptions,
    pub(super) pressure: Pressure,
    /// Seconds since the shard began.
    pub(super) tick: u32,
    /// Messages that were queued.
    pub(super) queued: u64,
    /// Topics that the connection will catch up on.
    pub(super) begun: u64,
    /// Messages that will only be told as missing.
    pub(super) dropped: u64,
    /// Whether the frame before this one was a position that found no room.
    pub(super) untold: bool,
}

impl<S> Late<'_, S> {
    /// Keeps one frame, whose bytes these are.
    pub(super) fn keep(&mut self, linked: Linked<'_>, bytes: &Bytes) -> Result<(), Unsent> {
        match linked.frame {
            Frame::Position { first, .. } => {
                // One that has no room waits with its message.
                self.untold = !self.has_room(linked.mode, bytes.len());
                self.note(&first.head, first.offset.previous());
                if !self.untold {
                    self.push(bytes);
                }
                Ok(())
            }
            Frame::Message(message) => self.keep_message(message, linked.mode, bytes),
        }
    }

    fn keep_message(
        &mut self,
        message: &Arc<Message>,
        mode: Mode,
        bytes: &Bytes,
    ) -> Result<(), Unsent> {
        let untold = std::mem::take(&mut self.untold) && !planted::is(Bug::PositionParted);
        let topic = message.head.id;
        let cursor = self.connection.cursor(topic);
        // A cursor that is held began behind this very message.
        if let Some(cursor) = cursor.filter(|cursor| cursor.held.is_none()) {
            self.note_passed(message, cursor.mode);
            return Ok(());
        }
        // A message may be shorter than its position, and never comes without it.
        if !untold && self.has_room(mode, bytes.len()) {
            self.note(&message.head, message.offset);
            self.push(bytes);
            self.queued += 1;
            return Ok(());
        }
        if mode == Mode::Disconnect {
            return Err(Unsent::MustClose);
        }
        let since = message.offset.previous();
        if cursor.is_none() {
            self.begin(topic, mode)?;
            self.begun += u64::from(mode == Mode::CatchUp);
        }
        if !planted::is(Bug::ConflationLate) {
            self.note_passed(message, mode);
        }
        self.connection.set_cursor(topic, Cursor { untold, ..Cursor::waiting(since, mode) });
        Ok(())
    }

    /// Notes that the connection has a topic up to here when what is queued has arrived.
    fn note(&mut self, head: &TopicHead, offset: Offset) {
        if let Some(bookmark) = &mut self.bookmark {
            bookmark.note(head, offset);
        }
    }

    fn push(&mut self, bytes: &Bytes) {
        self.connection.outbound.push(match &mut self.bookmark {
            Some(bookmark) => marked(bookmark, bytes),
            None => bytes.clone(),
        });
    }

    /// Whether a frame may be queued.
    fn has_room(&self, mode: Mode, len: usize) -> bool {
        let waiting = self.connection.outbound.bytes();
        if waiting == 0 {
            return true;
        }
        let len = len + self.bookmark.as_ref().map_or(0, |bookmark| bookmark.line_len());
        let overflowed = self.connection.cursors.as_ref().is_some_and(|c| c.has_overflowed());
        mode != Mode::Conflate
            && !overflowed
            && self.pressure < Pressure::DropLive
            && self.is_young()
            && (waiting + len <= self.options.outbound_bytes_max
                || planted::is(Bug::QueueUnbounded))
    }

    /// Whether the queue was empty not too long ago.
    fn is_young(&self) -> bool {
        let age = self
            .connection
            .stalled_since
            .map_or(0, |_| self.tick.saturating_sub(self.connection.blocked_since));
        u64::from(age) < self.options.outbound_age_max.as_secs().max(1)
    }

    fn begin(&mut self, topic: u64, mode: Mode) -> Result<(), Unsent> {
        let count = self.connection.cursors.as_ref().map_or(0, |cursors| cursors.len());
        if count >= self.options.cursors_max {
            return Err(Unsent::MustClose);
        }
        if let Some(local) = self.subscribers.topic_mut(topic) {
            local.begin_cursor(mode);
        }
        Ok(())
    }

    /// Leaves a message to the cursor of its topic.
    fn note_passed(&mut self, message: &Arc<Message>, mode: Mode) {
        self.dropped += u64::from(mode == Mode::Gap);
        if mode == Mode::Conflate
            && let Some(local) = self.subscribers.topic_mut(message.head.id)
            && let Some(conflation) = &mut local.conflation
        {
            conflation.add(message);
        }
    }
}
