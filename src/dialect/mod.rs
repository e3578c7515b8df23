//! Bytes ⇄ commands and events: what a connection says, free of how it is spelled.
//! Owns the [`Command`]s and [`Event`]s of protocol v1 and the choice between its two spellings.
//! # Invariants: decoding never panics and never allocates more than a few times its input, beside a
//! list of at most [`POSITIONS_MAX`] positions; both spellings mean the same (one test table covers
//! them).
//! # Not here: sockets, sessions, metrics, permission.

pub mod bookmark;
pub mod deflate;
pub mod frame;
pub mod query;
pub mod schema;

mod depth;
mod fields;
mod json;
mod proto;
mod raw;
mod secret;
mod tags;
mod words;

#[cfg(test)]
mod events;
#[cfg(test)]
mod random;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod table;

use crate::reason::{Reason, Refusal};
pub use crate::topics::message::Member;
use crate::topics::message::{Draft, Message, Position, Wire};
use crate::topics::name::{Target, TopicName};
pub use crate::topics::terms::{Overflow, Policy, Terms};
use bytes::Bytes;
pub use secret::Token;
use std::sync::Arc;

/// Most positions that one subscribe command may name.
pub const POSITIONS_MAX: usize = 1024;

/// Longest name that a connection may give itself, in bytes.
pub const MEMBER_NAME_BYTES_MAX: usize = 64;

/// What the broker calls itself.
pub const SERVER: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));

/// A spelling of protocol v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `fanfare.v1.json`: text.
    Json,
    /// `fanfare.v1.proto`: binary.
    Proto,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Repeated by the reply; 0 asks for no reply on success.
    pub id: u64,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Says hello.
    Connect(Connect),
    /// Begins a subscription.
    Subscribe(Box<Subscribe>),
    /// Ends a subscription.
    Unsubscribe(Target),
    /// Changes the terms of a subscription.
    Update(Update),
    /// Adds a message to a topic.
    Publish(Draft),
    /// Asks for messages that a topic still holds.
    History(History),
    /// Asks who is subscribed to a topic.
    Presence(TopicName),
    /// Shows another token.
    Refresh(Token),
    /// Asks for a pong.
    Ping,
}

/// A client's hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// By which presence lists the connection: at most [`MEMBER_NAME_BYTES_MAX`] bytes, no control
    /// characters.
    pub name: Option<Box<str>>,
    /// Several events may share one WebSocket message.
    pub batch: bool,
    /// Who the client is.
    pub token: Option<Token>,
}

/// A subscription that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// The topic or filter.
    pub target: Target,
    /// The last processed position of the topic; only with a topic.
    pub since: Option<Position>,
    /// How many of the latest messages of each topic to send first; 0 for none.
    pub last: u32,
    /// Whether to send the latest message of each topic first, closed by a snapshot end.
    pub snapshot: bool,
    /// Which messages to send; `None` if that was not asked for.
    pub policy: Option<Policy>,
    /// What happens when the client falls behind; `None` if that was not asked for.
    pub overflow: Option<Overflow>,
    /// The last processed position of topics of the filter; only with a filter.
    pub positions: Vec<TopicPosition>,
    /// Whether to tell who joins and leaves; only with a topic.
    pub presence: bool,
    /// What is known of the topics that the client has no position of; `None` where it keeps positions
    /// itself, and knows best.
    pub kept: Option<Kept>,
}

/// How much of a reader's positions has come back with it, where we keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The subscription had not begun.
    Nothing,
    /// All of them: a topic of a filter without one has begun since.
    All,
    /// Not all of them.
    Some,
}

/// New terms for a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The topic or filter of the subscription.
    pub target: Target,
    /// Which messages to send from now on; `None` for as before.
    pub policy: Option<Policy>,
    /// What happens when the client falls behind; `None` for as before.
    pub overflow: Option<Overflow>,
}

impl Subscribe {
    /// The terms that are asked for.
    pub fn terms(&self) -> Terms {
        Terms { policy: self.policy.unwrap_or_default(), overflow: self.overflow }
    }
}

/// A history query.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Which topic.
    pub topic: TopicName,
    /// Only messages after this position.
    pub since: Option<Position>,
    /// At most so many; 0 means as many as one page holds.
    pub limit: u32,
}

/// A place in a named topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPosition {
    /// Which topic.
    pub topic: TopicName,
    /// The place.
    pub position: Position,
}

/// What a client is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message of a topic that the connection subscribes to.
    Message(Arc<Message>),
    /// Answers [`Action::Connect`].
    Connected(Connected),
    /// Answers [`Action::Subscribe`].
    Subscribed(Subscribed),
    /// Answers [`Action::Unsubscribe`].
    Unsubscribed(Target),
    /// Tells that the server ended a subscription, and why.
    Ended(Ended),
    /// Answers [`Action::Refresh`].
    Refreshed(Refreshed),
    /// Answers [`Action::Publish`].
    Published(Position),
    /// Refuses a command.
    Error(Refusal),
    /// Messages that the connection did not get.
    Gap(Gap),
    /// Everything that a snapshot asked for has been sent.
    SnapshotEnd(SnapshotEnd),
    /// Answers [`Action::Ping`].
    Pong,
    /// Shows that the server is there.
    Ping,
    /// Answers [`Action::History`].
    HistoryPage(HistoryPage),
    /// What follows on this topic of a filter comes after this position.
    Position(TopicPosition),
    /// Answers [`Action::Update`].
    Updated(Updated),
    /// Answers [`Action::Presence`].
    PresenceState(PresenceState),
    /// A connection has subscribed to a topic.
    Joined(Presence),
    /// A connection is no longer subscribed to a topic.
    Left(Presence),
    /// A topic has had no message for longer than its rule expects.
    Stale(Stale),
    /// A topic that was stale has a message again, which follows.
    Fresh(TopicName),
    /// The connection is closed next, because the broker stops.
    Reconnect {
        /// How long the client should wait before it connects again, in milliseconds.
        after_ms: u32,
    },
}

/// The server's hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Names the connection in the broker's logs.
    pub connection: String,
    /// The server sends a ping at least this often, in milliseconds.
    pub ping_ms: u32,
    /// Whether all that follows comes in batches.
    pub batch: bool,
    /// For how long the token is valid, in milliseconds; 0 if it does not expire.
    pub expires_ms: u64,
}

/// A subscription that the server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The topic or filter.
    pub target: Target,
    /// Why.
    pub reason: Reason,
}

/// A token that counts from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// For how long it is valid, in milliseconds; 0 if it does not expire.
    pub expires_ms: u64,
}

/// The beginning of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The topic or filter.
    pub target: Target,
    /// Live messages come after this position; `None` for a filter.
    pub position: Option<Position>,
    /// What became of `since`, if it was given.
    pub recovery: Option<Recovery>,
    /// What became of each of `positions`, in the same order.
    pub topics: Vec<TopicRecovery>,
    /// What was granted; the overflow is only told if it is there.
    pub terms: Terms,
    /// Whether the topic is stale now.
    pub stale: bool,
}

/// What became of the position that one topic of a filter was asked to resume from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecovery {
    /// Which topic.
    pub topic: TopicName,
    /// Live messages come after this position; `None` when there is no such topic.
    pub position: Option<Position>,
    /// Whether the missing messages follow.
    pub recovery: Recovery,
}

/// `Ok`: exactly the missing messages follow. `Err`: none of them, for a reason that is one of
/// [`Reason::EpochChanged`], [`Reason::Trimmed`], [`Reason::Expired`], [`Reason::TooMany`],
/// [`Reason::NotAllowed`] and [`Reason::EngineUnavailable`].
pub type Recovery = Result<(), Reason>;

/// Messages that a connection did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which topic.
    pub topic: TopicName,
    /// First missing offset.
    pub from: u64,
    /// Last missing offset.
    pub to: u64,
    /// Why they are missing.
    pub reason: GapReason,
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The connection did not read fast enough.
    Slow,
    /// The history went past them, by count or bytes.
    Trimmed,
    /// They have become too old.
    Expired,
}

impl GapReason {
    /// The reason as the JSON spelling writes it.
    pub fn name(self) -> &'static str {
        match self {
            GapReason::Slow => "slow",
            GapReason::Trimmed => "trimmed",
            GapReason::Expired => "expired",
        }
    }
}

impl Gap {
    /// How many messages are missing.
    pub fn count(&self) -> u64 {
        self.to.saturating_sub(self.from).saturating_add(1)
    }
}

/// The end of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// The topic or filter of the subscription.
    pub target: Target,
    /// Live messages of each topic come after these.
    pub positions: Vec<TopicPosition>,
}

/// A page of history, oldest message first.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// Which topic.
    pub topic: TopicName,
    /// The position of its latest message; `None` when there is no such topic.
    pub top: Option<Position>,
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// Whether there are further messages between the last one here and `top`.
    pub more: bool,
}

/// The terms of a subscription from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The topic or filter.
    pub target: Target,
    /// What was granted. The overflow is told for [`Policy::All`] alone, which must have it.
    pub terms: Terms,
}

/// Who is subscribed to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceState {
    /// Which topic.
    pub topic: TopicName,
    /// How many connections are.
    pub count: u64,
    /// Those that are listed, by connection.
    pub members: Vec<Member>,
    /// Whether there are further ones.
    pub more: bool,
}

/// A change of who is subscribed to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Which topic.
    pub topic: TopicName,
    /// Who joined or left.
    pub member: Member,
}

/// A topic has had no message for longer than its rule expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Which topic.
    pub topic: TopicName,
    /// When the broker took its last message: milliseconds since 1970, 0 if it never had one.
    pub since_ms: u64,
}

/// A command that could not be decoded, with the id if that much could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCommand {
    /// The id to answer, 0 if unknown.
    pub id: u64,
    /// What was wrong.
    pub refusal: Refusal,
}

impl Dialect {
    /// Subprotocol names in the order in which a server lists them.
    pub const SUBPROTOCOLS: [&str; 2] = ["fanfare.v1.json", "fanfare.v1.proto"];

    /// Understands one command.
    ///
    /// # Errors
    /// [`BadCommand`] with the reason and what exactly is wrong.
    pub fn decode(self, bytes: &[u8]) -> Result<Command, BadCommand> {
        match self {
            Dialect::Json => json::decode(bytes),
            Dialect::Proto => proto::decode(bytes),
        }
    }
}

/// Understands the object of a publish command on its own, in the JSON spelling.
///
/// # Errors
/// What the same object inside a command would be refused for.
pub fn decode_draft(json: &[u8]) -> Result<Draft, Refusal> {
    json::decode_draft(json)
}

/// What an event says beside its name and id, as one JSON object: how HTTP answers.
pub fn encode_answer(event: &Event) -> Bytes {
    let mut body = Vec::new();
    json::encode_answer(event, &mut body);
    body.into()
}

/// The latest messages of topics and where these stand, as one JSON object: how HTTP answers.
pub fn encode_snapshot(messages: &[Arc<Message>], positions: &[TopicPosition]) -> Bytes {
    let mut body = Vec::new();
    json::encode_snapshot(messages, positions, &mut body);
    body.into()
}

/// Finished bytes of one event on one wire, its head included. `id` is 0 for a push.
pub fn encode(id: u64, event: &Event, wire: Wire) -> Bytes {
    frame::whole(wire, |body| write_event(id, event, wire, body))
}

/// Appends the bytes that [`encode`] makes to a block of such.
pub fn append(block: &mut Vec<u8>, id: u64, event: &Event, wire: Wire) {
    frame::append(block, wire, |body| write_event(id, event, wire, body));
}

fn write_event(id: u64, event: &Event, wire: Wire, body: &mut Vec<u8>) {
    if wire.is_json() {
        json::encode(id, event, body);
        if wire.is_sse() {
            bookmark::write_lines(event, wire, body);
        }
    } else {
        proto::encode(id, event, body);
    }
}

/// Finished bytes of one message push on one wire, its head included: of a change of presence, that
/// of the event which tells it. On a deflated wire they are those of the plain one if compressing
/// does not pay.
pub fn encode_message(message: &Message, wire: Wire) -> Bytes {
    if wire.is_deflated() {
        return encode_deflated(message, wire).0;
    }
    encode_plain(message, wire)
}

/// The same for a deflated wire, and how long the frame of the plain one is.
pub fn encode_deflated(message: &Message, wire: Wire) -> (Bytes, usize) {
    let plain = match message.encoded(wire.plain()) {
        Some(made) => made.clone(),
        None => encode_plain(message, wire.plain()),
    };
    let plain_len = plain.len();
    (frame::deflate(&plain, wire).unwrap_or(plain), plain_len)
}

fn encode_plain(message: &Message, wire: Wire) -> Bytes {
    frame::whole(wire, |body| {
        if wire.is_json() {
            json::encode_message(message, body);
            if wire == Wire::SseTopic {
                bookmark::write_id(message, body);
            }
        } else {
            proto::encode_message(message, body);
        }
    })
}
