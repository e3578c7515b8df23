//! What a subscription tells, and what else a server answers, as an application sees it.
//! Owns the reading of the schema's types: whatever does not hold what it must is refused here.
//! # Invariants: a message has a payload or deletes, never both; offsets come with the epoch that they
//! belong to, as far as the server has told it.
//! # Not here: what is a double, what is missing (`feed`).

use super::wire::Fault;
use crate::dialect::schema;
use crate::topics::message::{Epoch, Offset, Position};
use crate::topics::name::TopicName;
use crate::topics::terms::{Overflow, Policy, Rate, Terms};
use bytes::Bytes;
use serde::Deserialize;

/// What a subscription tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The server has accepted the subscription, for the first time or once more after the connection
    /// was lost.
    Subscribed(Subscribed),
    /// A message.
    Message(Message),
    /// Messages that this subscription will not see.
    Gap(Gap),
    /// What became of a topic when the connection came back, or of what it was to begin after.
    Recovered(Recovery),
    /// Everything that `snapshot` asked for has been given.
    SnapshotEnd {
        /// Of how many topics.
        topics: usize,
    },
    /// The topic has had no message for longer than its rule expects.
    Stale {
        /// The topic.
        topic: TopicName,
        /// When its last message was, in milliseconds since 1970, as far as that is known.
        since_ms: Option<u64>,
    },
    /// A topic that was stale is so no more.
    Fresh(TopicName),
    /// With `presence`: who is there, at first and whenever joining and leaving may have been missed.
    Present(Presence),
    /// With `presence`: somebody has subscribed; it may be one that `Present` has told already.
    Joined(Member),
    /// With `presence`: somebody is no longer subscribed.
    Left(Member),
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The topic.
    pub topic: TopicName,
    /// Its place in the epoch.
    pub offset: u64,
    /// The life of the topic; `None` until the server has told it.
    pub epoch: Option<Epoch>,
    /// When the broker took it, in milliseconds since 1970.
    pub time_ms: u64,
    /// What it is about, for instance a row or a symbol; empty if that was not said.
    pub key: String,
    /// What it says; `None` says that what the key names is gone.
    pub payload: Option<Payload>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The text of one JSON value.
    Json(Bytes),
    /// Text.
    Text(String),
    /// Bytes of any kind.
    Binary(Bytes),
}

impl Message {
    /// Its place, if the server has told the epoch.
    pub fn position(&self) -> Option<Position> {
        self.epoch.map(|epoch| Position { epoch, offset: Offset(self.offset) })
    }

    /// Whether it says that what its key names is gone.
    pub fn is_delete(&self) -> bool {
        self.payload.is_none()
    }

    /// The payload, read as JSON.
    ///
    /// # Errors
    /// It is no JSON, or none of this form.
    pub fn json<'de, T: Deserialize<'de>>(&'de self) -> Result<T, serde_json::Error> {
        let bytes: &[u8] = match &self.payload {
            Some(Payload::Json(bytes)) => bytes,
            Some(Payload::Text(_) | Payload::Binary(_)) | None => b"",
        };
        serde_json::from_slice(bytes)
    }

    /// The payload, if it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.payload {
            Some(Payload::Text(text)) => Some(text),
            Some(Payload::Json(_) | Payload::Binary(_)) | None => None,
        }
    }

    /// The payload's bytes, whatever its form; none of a delete.
    pub fn bytes(&self) -> &[u8] {
        match &self.payload {
            Some(Payload::Json(bytes) | Payload::Binary(bytes)) => bytes,
            Some(Payload::Text(text)) => text.as_bytes(),
            None => b"",
        }
    }

    pub(crate) fn of(message: schema::Message) -> Result<Message, Fault> {
        use schema::message::Payload as Sent;
        let schema::Message { topic, offset, time, key, deleted, payload } = message;
        let payload = match payload {
            Some(Sent::Data(data)) => Some(Payload::Json(data)),
            Some(Sent::Text(text)) => Some(Payload::Text(text)),
            Some(Sent::Binary(binary)) => Some(Payload::Binary(binary)),
            None => None,
        };
        if payload.is_some() == deleted || offset == 0 {
            return Err(malformed("a message that has neither a payload nor deletes, or no place"));
        }
        Ok(Message { topic: topic_of(&topic)?, offset, epoch: None, time_ms: time, key, payload })
    }
}

/// The server has accepted a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// Live messages come after it; `None` for a filter.
    pub position: Option<Position>,
    /// What the server grants. Of a filter it may grant less for single topics, and does not say which.
    pub terms: Terms,
    /// Whether the topic is stale now.
    pub stale: bool,
    /// What follows it: nothing of before, or a [`Recovery`] of each topic that is resumed.
    pub beginning: Beginning,
}

/// With what a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With what is published from now on, and with what was asked to come first.
    Anew,
    /// With what came after positions that were held: each topic is told by [`Event::Recovered`].
    Resumed,
}

/// Messages that a subscription will not see.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The topic.
    pub topic: TopicName,
    /// The first missing offset.
    pub from: u64,
    /// The last missing offset.
    pub to: u64,
    /// How many.
    pub count: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapReason {
    /// The server left them out, because this connection read too slowly.
    Slow,
    /// While this connection was catching up, the history went past them.
    Trimmed,
    /// They had become too old to be sent.
    Expired,
    /// Nobody said anything, and yet they did not come: a fault of the server, or on the way.
    Lost,
    /// A reason of a later server.
    Other,
}

impl GapReason {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            GapReason::Slow => "slow",
            GapReason::Trimmed => "trimmed",
            GapReason::Expired => "expired",
            GapReason::Lost => "lost",
            GapReason::Other => "unknown",
        }
    }
}

impl Gap {
    pub(super) fn of(gap: &schema::Gap) -> Result<Gap, Fault> {
        let reason = match gap.reason() {
            schema::GapReason::Slow => GapReason::Slow,
            schema::GapReason::Trimmed => GapReason::Trimmed,
            schema::GapReason::Expired => GapReason::Expired,
            schema::GapReason::Unspecified => GapReason::Other,
        };
        let schema::Gap { ref topic, from, to, count, .. } = *gap;
        if from == 0 || to < from {
            return Err(malformed("a gap that begins after its end"));
        }
        Ok(Gap { topic: topic_of(topic)?, from, to, count, reason })
    }
}

/// What became of a topic when the connection came back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The topic; or the filter, which then stands for all of its topics that have no report of their own.
    pub topic: String,
    /// Live messages come after it, as far as the server has said.
    pub position: Option<Position>,
    /// `None`: exactly the missing messages follow. Else why not: messages may be missing, so state that
    /// was built from them must be loaded anew.
    pub loss: Option<Loss>,
}

/// Why a topic could not be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The topic has begun anew, as every topic does when the broker is started.
    EpochChanged,
    /// The history no longer holds the first missing message, by count or bytes.
    Trimmed,
    /// The history no longer holds the first missing message, by age.
    Expired,
    /// More is missing than one resume may bring, or there are more topics than can be resumed.
    TooMany,
    /// The filter does not match the topic any more.
    NotAllowed,
    /// The engine could not be asked.
    EngineUnavailable,
    /// The client held no position to resume from.
    NoPosition,
    /// A reason of a later server.
    Other,
}

impl Loss {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Loss::EpochChanged => "epochChanged",
            Loss::Trimmed => "trimmed",
            Loss::Expired => "expired",
            Loss::TooMany => "tooMany",
            Loss::NotAllowed => "notAllowed",
            Loss::EngineUnavailable => "engineUnavailable",
            Loss::NoPosition => "noPosition",
            Loss::Other => "unknown",
        }
    }

    pub(super) fn of(failure: schema::RecoveryFailure) -> Loss {
        use schema::RecoveryFailure as Said;
        match failure {
            Said::EpochChanged => Loss::EpochChanged,
            Said::Trimmed => Loss::Trimmed,
            Said::Expired => Loss::Expired,
            Said::TooMany => Loss::TooMany,
            Said::NotAllowed => Loss::NotAllowed,
            Said::EngineUnavailable => Loss::EngineUnavailable,
            Said::Unspecified => Loss::Other,
        }
    }
}

/// Who is subscribed to exactly a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// How many there are.
    pub count: u64,
    /// Those that are listed, by connection.
    pub members: Vec<Member>,
    /// There are others than those listed.
    pub more: bool,
}

/// Somebody who is subscribed to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Names the connection.
    pub connection: String,
    /// What that one says is its name; empty if it said none.
    pub name: String,
}

impl From<schema::PresenceState> for Presence {
    fn from(state: schema::PresenceState) -> Presence {
        let schema::PresenceState { count, members, more, .. } = state;
        Presence { count, members: members.into_iter().map(Into::into).collect(), more }
    }
}

impl From<schema::Member> for Member {
    fn from(schema::Member { connection, name }: schema::Member) -> Member {
        Member { connection, name }
    }
}

/// Where a message was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its place.
    pub position: Position,
    /// What has happened to it.
    pub durability: Durability,
}

/// What has happened to a message when its publisher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// It is in the memory of the broker.
    Memory,
    /// A word of a later server: no promise.
    Other,
}

impl Durability {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Other => "unknown",
        }
    }
}

impl Published {
    pub(super) fn of(published: &schema::Published) -> Result<Published, Fault> {
        let durability = match published.durability() {
            schema::Durability::Memory => Durability::Memory,
            schema::Durability::Unspecified => Durability::Other,
        };
        let position = position_of(&published.epoch, published.offset)?;
        Ok(Published { position, durability })
    }
}

/// Messages that a topic still holds, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryPage {
    /// The place of the topic's latest message; `None` if there is no such topic.
    pub top: Option<Position>,
    /// The messages.
    pub messages: Vec<Message>,
    /// There are further messages between the last one here and `top`.
    pub more: bool,
}

impl HistoryPage {
    /// The place of the last message of the page: the `since` of the next one.
    pub fn last(&self) -> Option<Position> {
        self.messages.last().and_then(Message::position)
    }

    pub(super) fn of(page: schema::HistoryPage) -> Result<HistoryPage, Fault> {
        let top = page.top.as_ref().map(position).transpose()?;
        let mut messages = Vec::new();
        for message in page.messages {
            let epoch = top.map(|top| top.epoch);
            messages.push(Message { epoch, ..Message::of(message)? });
        }
        Ok(HistoryPage { top, messages, more: page.more })
    }
}

/// The terms that a server grants. A policy that nobody knows promises no more than the latest.
pub(super) fn terms_of(policy: i32, max_hz: Option<f64>, overflow: schema::Overflow) -> Terms {
    let policy = match (schema::Policy::try_from(policy), max_hz.map(Rate::from_hz)) {
        (Ok(schema::Policy::All | schema::Policy::Unspecified), _) => Policy::All,
        (Ok(schema::Policy::MaxHz), Some(Ok(rate))) => Policy::MaxHz(rate),
        (Ok(schema::Policy::MaxHz | schema::Policy::Latest) | Err(_), _) => Policy::Latest,
    };
    let overflow = match overflow {
        schema::Overflow::CatchUp => Some(Overflow::CatchUp),
        schema::Overflow::Gap => Some(Overflow::Gap),
        schema::Overflow::Disconnect => Some(Overflow::Disconnect),
        schema::Overflow::Unspecified => None,
    };
    Terms { policy, overflow }
}

pub(super) fn topic_of(name: &str) -> Result<TopicName, Fault> {
    TopicName::parse(name).map_err(|refusal| Fault::Malformed(refusal.to_string()))
}

pub(super) fn position_of(epoch: &str, offset: u64) -> Result<Position, Fault> {
    let epoch = epoch.parse::<Epoch>();
    let epoch = epoch.map_err(|error| Fault::Malformed(error.to_string()))?;
    Ok(Position { epoch, offset: Offset(offset) })
}

pub(super) fn position(position: &schema::Position) -> Result<Position, Fault> {
    position_of(&position.epoch, position.offset)
}

pub(super) fn malformed(what: &str) -> Fault {
    Fault::Malformed(what.to_owned())
}
