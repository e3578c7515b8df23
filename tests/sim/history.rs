//! What happened in a run, as its clients saw it: the one format that the checker reads.
//! A history is a list of records in the order in which they happened; written down, each is one
//! line of JSON.
//! # Invariants: nothing in it is known only to the broker, but for the tops of a quiet moment and
//! the gauges of an empty broker.
//! # Not here: what is right or wrong (`checker`), bytes on a connection (`spelling`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When, in milliseconds.
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) fact: Fact,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Fact {
    /// What the broker promises in this run. The first record.
    Begin(Terms),
    /// The broker lost everything and began anew.
    Crash {},
    /// A client has a connection. Numbers are never used again.
    Open { connection: u64, client: u64, wire: String },
    /// A client sent a command.
    Sent { connection: u64, id: u64, command: Command },
    /// A client heard an event. The id is 0 for what answers no command.
    Heard { connection: u64, id: u64, event: Event },
    /// A client will hear nothing more on this connection.
    Closed { connection: u64, by: Ending },
    /// What a client received could not be understood.
    Garbled { connection: u64, detail: String },
    /// Everything that was sent has arrived and everything that was asked has been done. Gives the
    /// position of each topic's latest message.
    Quiet { tops: Vec<TopicPosition> },
    /// Things went on and on where they should have become quiet.
    Restless {},
    /// All clients have gone and their traces had time to go: each of these must be 0.
    Empty { gauges: BTreeMap<String, u64> },
}

/// What the broker promises.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Terms {
    /// How long the answer to an idempotency key is kept.
    pub(crate) idempotency_ms: u64,
    /// How much is kept of each topic at least. Topics that are not here promise nothing.
    pub(crate) retention: BTreeMap<String, Retention>,
}

/// How much of a topic is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Retention {
    pub(crate) messages: u64,
    pub(crate) age_ms: u64,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Ending {
    /// The server's stream of bytes came to its end.
    Server,
    /// The connection broke, or either side cut it: bytes may be missing at the end.
    Cut,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicPosition {
    pub(crate) topic: String,
    #[serde(flatten)]
    pub(crate) position: Position,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Payload {
    Data(String),
    Text(String),
    Base64(String),
}

/// What a message says. No two publishes say the same, but for retries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) key: String,
    pub(crate) payload: Payload,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Command {
    Connect {},
    Subscribe(Subscribe),
    Unsubscribe { topic: String },
    Publish(Publish),
    History(Query),
    Ping {},
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subscribe {
    pub(crate) topic: String,
    pub(crate) since: Option<Position>,
    pub(crate) last: u32,
    pub(crate) snapshot: bool,
    pub(crate) overflow: Overflow,
    pub(crate) positions: Vec<TopicPosition>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Overflow {
    #[default]
    Gap,
    Disconnect,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) content: Content,
    /// Empty if there is none.
    pub(crate) idempotency_key: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Query {
    pub(crate) topic: String,
    pub(crate) since: Option<Position>,
    pub(crate) limit: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Event {
    Message(Message),
    Connected {},
    Subscribed(Subscribed),
    Unsubscribed {
        topic: String,
    },
    Published(Position),
    Error {
        name: String,
    },
    Gap(Gap),
    SnapshotEnd {
        topic: String,
        positions: Vec<TopicPosition>,
    },
    Pong {},
    Ping {},
    HistoryPage(Page),
    Position(TopicPosition),
    /// The server's close frame, with its code.
    Close {
        code: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) offset: u64,
    pub(crate) time: u64,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subscribed {
    pub(crate) topic: String,
    pub(crate) position: Option<Position>,
    pub(crate) recovered: Option<bool>,
    /// Why not, empty if there is none.
    pub(crate) reason: String,
    pub(crate) topics: Vec<Recovery>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) topic: String,
    pub(crate) position: Option<Position>,
    pub(crate) recovered: bool,
    pub(crate) reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    pub(crate) topic: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) count: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) topic: String,
    pub(crate) top: Option<Position>,
    pub(crate) messages: Vec<Message>,
    pub(crate) more: bool,
}

/// Writes a history down, one line for each record.
pub(crate) fn to_lines(history: &[Record]) -> String {
    let mut lines = String::new();
    for record in history {
        lines += &serde_json::to_string(record).expect("a record is plain data");
        lines.push('\n');
    }
    lines
}

/// Reads what [`to_lines`] wrote.
pub(crate) fn from_lines(lines: &str) -> serde_json::Result<Vec<Record>> {
    lines.lines().map(serde_json::from_str).collect()
}

impl Fact {
    /// Which connection it is about.
    pub(crate) fn connection(&self) -> Option<u64> {
        match self {
            Fact::Open { connection, .. }
            | Fact::Sent { connection, .. }
            | Fact::Heard { connection, .. }
            | Fact::Closed { connection, .. }
            | Fact::Garbled { connection, .. } => Some(*connection),
            Fact::Begin(_)
            | Fact::Crash {}
            | Fact::Quiet { .. }
            | Fact::Restless {}
            | Fact::Empty { .. } => None,
        }
    }

    /// The topic or filter that it names first, if it names one.
    pub(crate) fn target(&self) -> Option<&str> {
        match self {
            Fact::Sent { command, .. } => match command {
                Command::Subscribe(Subscribe { topic, .. })
                | Command::Unsubscribe { topic }
                | Command::Publish(Publish { topic, .. })
                | Command::History(Query { topic, .. }) => Some(topic),
                Command::Connect {} | Command::Ping {} => None,
            },
            Fact::Heard { event, .. } => event.target(),
            _ => None,
        }
    }
}

impl Command {
    /// What it publishes, if it publishes.
    pub(crate) fn publish(&self) -> Option<&Publish> {
        match self {
            Command::Publish(publish) => Some(publish),
            _ => None,
        }
    }
}

impl Event {
    fn target(&self) -> Option<&str> {
        match self {
            Event::Message(Message { topic, .. })
            | Event::Subscribed(Subscribed { topic, .. })
            | Event::Unsubscribed { topic }
            | Event::Gap(Gap { topic, .. })
            | Event::SnapshotEnd { topic, .. }
            | Event::HistoryPage(Page { topic, .. })
            | Event::Position(TopicPosition { topic, .. }) => Some(topic),
            Event::Connected {}
            | Event::Published(_)
            | Event::Error { .. }
            | Event::Pong {}
            | Event::Ping {}
            | Event::Close { .. } => None,
        }
    }
}
