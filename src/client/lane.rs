//! What one subscription has to tell and the application has not taken yet.
//! # Invariants: what comes out is what went in, in order, and then the end, once; who fills it is told
//! when it is full, and what then still comes is what the connection has read already.
//! # Not here: who stops reading when it is full (`pilot`).

use super::error::Error;
use super::event::{Event, Message};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Bytes of messages in a lane that is full, however few they are.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// Whether there is more to come.
#[derive(Debug, PartialEq)]
enum End {
    /// There may be.
    Open,
    /// Nothing but this error, which is told once.
    Failed(Error),
    /// Nothing.
    Over,
}

/// What one subscription has to tell.
#[derive(Debug)]
pub(super) struct Lane {
    events: VecDeque<Event>,
    bytes: usize,
    max: usize,
    end: End,
    reader: Option<Waker>,
}

impl Lane {
    /// One that is full with so many events.
    pub(super) fn new(max: usize) -> Lane {
        Lane { events: VecDeque::new(), bytes: 0, max: max.max(1), end: End::Open, reader: None }
    }

    /// How often it is filled: 1 or more if it is full.
    pub(super) fn filled(&self) -> usize {
        (self.events.len() / self.max).max(self.bytes / BYTES_MAX)
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.has_ended() {
            return;
        }
        self.bytes += cost(&event);
        self.events.push_back(event);
        self.wake();
    }

    /// What is told when everything before has been taken: why there is no more, if not by our wish.
    pub(super) fn end(&mut self, error: Option<Error>) {
        if self.end == End::Open {
            self.end = error.map_or(End::Over, End::Failed);
        }
        self.wake();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end != End::Open
    }

    /// Takes the next event, the error that ended it, or nothing for ever.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= cost(&event);
            return Poll::Ready(Some(Ok(event)));
        }
        if self.end == End::Open {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        match std::mem::replace(&mut self.end, End::Over) {
            End::Failed(error) => Poll::Ready(Some(Err(error))),
            End::Over | End::Open => Poll::Ready(None),
        }
    }

    /// What waits, the oldest first.
    pub(super) fn waiting(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.iter()
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

fn cost(event: &Event) -> usize {
    match event {
        Event::Message(message) => message.bytes().len() + message.key.len() + size_of::<Message>(),
        _ => size_of::<Event>(),
    }
}
