//! What is left of a topic when its broker restarts as planned: values without locks or sharing.
//! # Invariants: every time is one of the monotonic clock, which goes on where it was.
//! # Not here: taking them out and in (`registry`), files (`restart`).

use super::message::{Draft, Epoch, Message, Offset, Payload};
use super::name::TopicName;
use super::topic::Heard;
use std::sync::Arc;
use std::time::Duration;

/// What is kept of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: TopicName,
    /// Its epoch, which goes on.
    pub epoch: Epoch,
    /// The offset of its latest message.
    pub top: Offset,
    /// When it was last heard of.
    pub heard: Heard,
    /// Its history, oldest first: consecutive offsets that end at `top`.
    pub history: Vec<KeptMessage>,
    /// The latest message of every key, where its rule keeps those.
    pub keys: Vec<KeptMessage>,
    /// What publishers were answered, oldest first.
    pub answers: Vec<KeptAnswer>,
}

/// What is kept of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMessage {
    /// Its place.
    pub offset: Offset,
    /// When it was taken: milliseconds since 1970.
    pub time_ms: u64,
    /// When it was taken, by the monotonic clock.
    pub committed: Duration,
    /// How long from then on it may be sent.
    pub ttl: Option<Duration>,
    /// The thing it is about.
    pub key: Option<Box<str>>,
    /// What it says.
    pub payload: Payload,
}

/// What is kept of an answer to a publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The publisher's key.
    pub key: Box<str>,
    /// The place that the message was given.
    pub offset: Offset,
    /// From when on the key is forgotten.
    pub end: Duration,
}

/// What was kept contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was kept of a topic contradicts itself")]
pub struct BadKept;

impl KeptMessage {
    pub(super) fn of(message: &Arc<Message>) -> KeptMessage {
        KeptMessage {
            offset: message.offset,
            time_ms: message.time_ms,
            committed: message.committed,
            ttl: message.expires.map(|expires| expires.saturating_sub(message.committed)),
            key: message.key.clone(),
            payload: message.payload.clone(),
        }
    }

    /// What its publisher said.
    pub(super) fn draft(self, topic: TopicName) -> Draft {
        Draft { key: self.key, ttl: self.ttl, ..Draft::new(topic, self.payload) }
    }
}

impl Kept {
    /// Whether its parts fit each other.
    ///
    /// # Errors
    /// [`BadKept`] when they do not.
    pub fn check(&self) -> Result<(), BadKept> {
        let offsets = self.history.iter().map(|message| message.offset);
        let follows = offsets.clone().zip(offsets.clone().skip(1));
        let is_dense = follows.into_iter().all(|(offset, next)| offset.next() == next);
        let ends_at_top = offsets.last().is_none_or(|last| last == self.top);
        let given = self.keys.iter().map(|message| message.offset);
        let given = given.chain(self.answers.iter().map(|answer| answer.offset));
        let mut all = given.chain(self.history.first().map(|first| first.offset));
        let is_given = |offset: Offset| offset > Offset(0) && offset <= self.top;
        if is_dense && ends_at_top && all.all(is_given) { Ok(()) } else { Err(BadKept) }
    }
}
