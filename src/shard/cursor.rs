//! Where a connection stands in the topics that it is behind on.
//! # Invariants: while a topic has a cursor, its live messages pass the connection by, so that the
//! cursor gives everything after `since`, and nothing before it, exactly once; a cursor is either
//! held by its rate or waits in `ready`; the number of cursors is bounded by whoever adds them.
//! # Not here: what a cursor reads (`serving`), when one begins (`delivery`, `late`).

use super::subscribers::NumberMap;
use crate::topics::message::Offset;
use std::collections::VecDeque;

/// What becomes of messages that the socket does not take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are dropped, and told in one gap.
    Gap,
    /// They are read from the topic's history later.
    CatchUp,
    /// They are a reason to close.
    Disconnect,
    /// Of each key the latest is sent later.
    Conflate,
}

impl Mode {
    /// Every mode, in the order of their numbers.
    pub(super) const ALL: [Mode; 4] = [Mode::Gap, Mode::CatchUp, Mode::Disconnect, Mode::Conflate];
}

/// The place of one connection in one topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// Everything up to here has been sent or told.
    pub(super) since: Offset,
    pub(super) mode: Mode,
    /// The client must be told where the topic stands before it is sent something of it.
    pub(super) untold: bool,
    /// The tick of the pace until which the subscription's rate holds it.
    pub(super) held: Option<u64>,
}

impl Cursor {
    /// A cursor that waits for the socket.
    pub(super) fn waiting(since: Offset, mode: Mode) -> Cursor {
        Cursor { since, mode, untold: false, held: None }
    }

    /// A cursor behind a message that is being sent, held until this tick.
    pub(super) fn held(since: Offset, until: u64) -> Cursor {
        Cursor { since, mode: Mode::Conflate, untold: false, held: Some(until) }
    }
}

/// The cursors of one connection, by the ids of their topics.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    by_topic: NumberMap<u64, Cursor>,
    /// Topics whose cursor waits for the socket, the longest waiting first.
    ready: VecDeque<u64>,
    /// Cursors of messages that found the queue full: until they have been served, nothing more is
    /// queued.
    overflowed: usize,
}

impl Cursors {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// The cursor of a topic.
    pub(super) fn get(&self, topic: u64) -> Option<Cursor> {
        self.by_topic.get(&topic).copied()
    }

    /// Whether one waits for the socket.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many wait for the socket rather than for their rate.
    pub(super) fn waiting(&self) -> usize {
        self.by_topic.values().filter(|cursor| cursor.held.is_none()).count()
    }

    /// Whether messages had no room in the queue.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed > 0
    }

    /// The topics that have a cursor.
    pub(super) fn topics(&self) -> impl Iterator<Item = u64> {
        self.by_topic.keys().copied()
    }

    /// Sets the cursor of a topic.
    pub(super) fn set(&mut self, topic: u64, cursor: Cursor) {
        let before = self.by_topic.insert(topic, cursor);
        self.overflowed += usize::from(cursor.mode != Mode::Conflate);
        self.overflowed -= usize::from(before.is_some_and(|before| before.mode != Mode::Conflate));
        let was_ready = before.is_some_and(|before| before.held.is_none());
        if cursor.held.is_none() && !was_ready {
            self.ready.push_back(topic);
        }
    }

    /// The topic that has waited longest for the socket. Its cursor must be set anew or removed.
    pub(super) fn take_ready(&mut self) -> Option<(u64, Cursor)> {
        while let Some(topic) = self.ready.pop_front() {
            if let Some(cursor) = self.by_topic.get(&topic).filter(|cursor| cursor.held.is_none()) {
                let cursor = *cursor;
                self.take(topic);
                return Some((topic, cursor));
            }
        }
        None
    }

    /// Takes the cursor of a topic out.
    pub(super) fn remove(&mut self, topic: u64) -> Option<Cursor> {
        self.ready.retain(|ready| *ready != topic);
        self.take(topic)
    }

    fn take(&mut self, topic: u64) -> Option<Cursor> {
        let cursor = self.by_topic.remove(&topic)?;
        self.overflowed -= usize::from(cursor.mode != Mode::Conflate);
        if self.by_topic.is_empty() {
            *self = Cursors::default();
        }
        Some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_waited_longest_are_served_first_and_none_twice() {
        let mut cursors = Cursors::default();
        cursors.set(1, Cursor::waiting(Offset(5), Mode::Gap));
        cursors.set(2, Cursor::held(Offset(7), 100));
        cursors.set(3, Cursor::waiting(Offset(9), Mode::Conflate));
        cursors.set(1, Cursor::waiting(Offset(6), Mode::Gap));
        assert!(cursors.has_overflowed() && cursors.has_ready());
        assert_eq!((cursors.waiting(), cursors.len()), (2, 3));
        let (topic, cursor) = cursors.take_ready().expect("one waits");
        assert_eq!((topic, cursor.since), (1, Offset(6)));
        assert!(!cursors.has_overflowed());
        cursors.set(1, cursor);
        cursors.remove(3);
        let topics: Vec<u64> =
            std::iter::from_fn(|| cursors.take_ready()).map(|(t, _)| t).collect();
        assert_eq!(topics, [1]);
        assert_eq!((cursors.len(), cursors.get(2).is_some()), (1, true));
    }
}
