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
    Begin(Promise),
    /// The broker lost everything and began anew.
    Crash {},
    /// A client has a connection. Numbers are never used again.
    /// `name` is what the broker calls it.
    Open { connection: u64, client: u64, wire: String, name: String },
    /// A connection was refused before it began, because memory is short.
    TurnedAway {},
    /// A client sent a command.
    Sent { connection: u64, id: u64, command: Command },
    /// A client heard an event. The id is 0 for what answers no command.
    Heard {
        connection: u64,
        id: u64,
        event: Event,
        /// When it went into the socket, where somebody saw that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<Span>,
    },
    /// A client will hear nothing more on this connection.
    Closed { connection: u64, by: Ending },
    /// What a client received could not be understood.
    Garbled { connection: u64, detail: String },
    /// More waits for the connections of a shard, or for all of them, than ever before.
    Held(Held),
    /// Everything that was sent has arrived and everything that was asked has been done, and since
    /// then as much time has passed as the slowest rate may need. Gives the position of each topic's
    /// latest message, and who is listed in it.
    Quiet { tops: Vec<TopicPosition>, rosters: BTreeMap<String, Roster> },
    /// Things went on and on where they should have become quiet.
    Restless {},
    /// All clients have gone and their traces had time to go: each of these must be 0.
    Empty { gauges: BTreeMap<String, u64> },
}

/// What the broker promises.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Promise {
    /// How long the answer to an idempotency key is kept.
    pub(crate) idempotency_ms: u64,
    /// How much is kept of each topic at least. Topics that are not here promise nothing.
    pub(crate) retention: BTreeMap<String, Retention>,
    /// What each topic grants.
    pub(crate) rules: BTreeMap<String, Rule>,
    /// What a filter is granted as a whole.
    pub(crate) filter_cap: Option<Policy>,
    /// What one resume or one page sends at most.
    pub(crate) replay: Replay,
    /// What may wait for one connection.
    pub(crate) held_bytes_max: u64,
    /// Whether what waits for a shard is bounded so that publishers may meet the bound.
    pub(crate) mailboxes_fill: bool,
    /// What may wait for all connections before the broker is short of memory.
    pub(crate) budget_bytes: Option<u64>,
}

/// What a topic grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    /// The most that a subscriber is granted.
    pub(crate) cap: Option<Policy>,
    /// What happens to slow subscribers that do not say it themselves.
    pub(crate) overflow: Overflow,
    /// Whether it has a history.
    pub(crate) has_history: bool,
    /// How many keys a snapshot holds at most; without it a snapshot is the latest message.
    pub(crate) keys_max: Option<u64>,
    /// How many members are listed at most; without it nobody is.
    pub(crate) members_max: Option<u64>,
    /// After how long it is stale.
    pub(crate) stale_ms: Option<u64>,
}

/// Bounds of what is sent of the past at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replay {
    pub(crate) messages_max: u64,
    /// Of payload.
    pub(crate) bytes_max: u64,
}

/// How much of a topic is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Retention {
    pub(crate) messages: u64,
    pub(crate) age_ms: u64,
}

/// When something happened, as closely as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// Not earlier: the socket had taken all that came before.
    pub(crate) since: u64,
    /// Not later: its first byte was there.
    pub(crate) at: u64,
}

/// What waits to be taken by sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The shard, or nothing for all of them.
    pub(crate) shard: Option<u64>,
    pub(crate) connections: u64,
    pub(crate) bytes: u64,
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
    /// The thing that the key names is gone.
    Deleted,
}

/// What a message says. No two publishes say the same, but for retries and deletes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) key: String,
    pub(crate) payload: Payload,
}

impl Content {
    pub(crate) fn is_delete(&self) -> bool {
        self.payload == Payload::Deleted
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Command {
    /// Says hello, by a name that is empty if there is none, and may ask for batches.
    Connect {
        name: String,
        #[serde(default)]
        batch: bool,
    },
    Subscribe(Subscribe),
    Unsubscribe {
        topic: String,
    },
    Update(Update),
    Publish(Publish),
    History(Query),
    /// Asks who is subscribed.
    Presence {
        topic: String,
    },
    Ping {},
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subscribe {
    pub(crate) topic: String,
    pub(crate) since: Option<Position>,
    pub(crate) last: u32,
    pub(crate) snapshot: bool,
    /// Left to the topic's rule if it is not there.
    pub(crate) overflow: Option<Overflow>,
    pub(crate) policy: Policy,
    /// Whether to tell who joins and leaves.
    pub(crate) presence: bool,
    pub(crate) positions: Vec<TopicPosition>,
}

/// What is not there stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Update {
    pub(crate) topic: String,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) policy: Option<Policy>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Policy {
    #[default]
    All,
    Latest,
    /// So many a second.
    MaxHz(f64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Overflow {
    #[default]
    CatchUp,
    Gap,
    Disconnect,
}

impl Policy {
    /// Whether messages may be passed over for later ones of their keys.
    pub(crate) fn conflates(self) -> bool {
        self != Policy::All
    }

    /// The least time between two rounds, in milliseconds; 0 if there is none.
    pub(crate) fn interval_ms(self) -> u64 {
        match self {
            Policy::All | Policy::Latest => 0,
            Policy::MaxHz(hz) => {
                let interval = std::time::Duration::from_secs_f64(1.0 / hz);
                u64::try_from(interval.as_millis()).expect("short")
            }
        }
    }

    /// How much it gives: the larger the less.
    fn rank(self) -> f64 {
        match self {
            Policy::All => 0.0,
            Policy::Latest => 1e-9,
            Policy::MaxHz(hz) => 1.0 / hz,
        }
    }

    /// What is granted where only so much is.
    pub(crate) fn capped(self, cap: Option<Policy>) -> Policy {
        cap.map_or(self, |cap| self.lesser(cap))
    }

    fn lesser(self, other: Policy) -> Policy {
        if other.rank() > self.rank() { other } else { self }
    }

    /// Whether it gives more than another one.
    pub(crate) fn exceeds(self, other: Policy) -> bool {
        self.rank() < other.rank()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) content: Content,
    /// Empty if there is none.
    pub(crate) idempotency_key: String,
    /// For how long it may be sent; 0 for ever.
    pub(crate) ttl_ms: u64,
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
    Connected {
        connection: String,
        /// Whether everything that follows comes in batches.
        #[serde(default)]
        batch: bool,
    },
    Subscribed(Subscribed),
    Unsubscribed {
        topic: String,
    },
    Updated(Updated),
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
    PresenceState {
        topic: String,
        roster: Roster,
    },
    Joined {
        topic: String,
        member: Member,
    },
    Left {
        topic: String,
        member: Member,
    },
    /// `since` is when the topic had its last message, 0 if it never had one.
    Stale {
        topic: String,
        since: u64,
    },
    Fresh {
        topic: String,
    },
    /// The server's close frame, with its code.
    Close {
        code: u16,
    },
}

/// Who is subscribed to a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roster {
    pub(crate) count: u64,
    pub(crate) members: Vec<Member>,
    pub(crate) more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) connection: String,
    /// Empty if it gave none.
    #[serde(default)]
    pub(crate) name: String,
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
    pub(crate) policy: Policy,
    /// Told if it was asked for or is not the default.
    pub(crate) overflow: Option<Overflow>,
    pub(crate) stale: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Updated {
    pub(crate) topic: String,
    pub(crate) policy: Policy,
    pub(crate) overflow: Option<Overflow>,
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
    pub(crate) reason: GapReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum GapReason {
    Slow,
    Trimmed,
    Expired,
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
            | Fact::TurnedAway {}
            | Fact::Held(_)
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
                | Command::Update(Update { topic, .. })
                | Command::Publish(Publish { topic, .. })
                | Command::Presence { topic }
                | Command::History(Query { topic, .. }) => Some(topic),
                Command::Connect { .. } | Command::Ping {} => None,
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
            | Event::Updated(Updated { topic, .. })
            | Event::PresenceState { topic, .. }
            | Event::Joined { topic, .. }
            | Event::Left { topic, .. }
            | Event::Stale { topic, .. }
            | Event::Fresh { topic }
            | Event::Gap(Gap { topic, .. })
            | Event::SnapshotEnd { topic, .. }
            | Event::HistoryPage(Page { topic, .. })
            | Event::Position(TopicPosition { topic, .. }) => Some(topic),
            Event::Connected { .. }
            | Event::Published(_)
            | Event::Error { .. }
            | Event::Pong {}
            | Event::Ping {}
            | Event::Close { .. } => None,
        }
    }
}
