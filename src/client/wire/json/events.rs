//! Events in the JSON spelling.
//! # Not here: what they mean to a subscription.

use super::{FAILURES, GAP_REASONS, OVERFLOWS, POLICIES, RETRIES, named};
use crate::client::wire::Fault;
use crate::dialect::schema::{self, event::Body, message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Understands an event.
pub(crate) fn decode(bytes: &[u8]) -> Result<schema::Event, Fault> {
    let event: Event<'_> =
        serde_json::from_slice(bytes).map_err(|error| Fault::Malformed(error.to_string()))?;
    let id = event.id;
    Ok(schema::Event { id, body: event.body()? })
}

/// Understands the answer to an HTTP request, if it is one of a broker.
pub(crate) fn decode_answer(bytes: &[u8]) -> Option<Body> {
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    Some(match answer {
        Answer::Published(published) => Body::Published(published.into()),
        Answer::Refused { error } => Body::Error(error.into()),
    })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Refused { error: Error },
    Published(Published),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(default)]
    id: u64,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    connected: Option<Connected>,
    subscribed: Option<Subscribed>,
    unsubscribed: Option<Ended>,
    published: Option<Published>,
    error: Option<Error>,
    gap: Option<Gap>,
    snapshot_end: Option<SnapshotEnd>,
    position: Option<TopicPosition>,
    presence_state: Option<PresenceState>,
    joined: Option<Movement>,
    left: Option<Movement>,
    stale: Option<Stale>,
    fresh: Option<Topic>,
    reconnect: Option<Reconnect>,
    updated: Option<Updated>,
    #[serde(borrow)]
    history_page: Option<HistoryPage<'a>>,
    refreshed: Option<Refreshed>,
    pong: Option<Nothing>,
    ping: Option<Nothing>,
}

/// An event without fields.
#[derive(Deserialize)]
struct Nothing {}

impl Event<'_> {
    fn body(self) -> Result<Option<Body>, Fault> {
        if let Some(message) = self.message {
            return Ok(Some(Body::Message(message.understand()?)));
        }
        if let Some(page) = self.history_page {
            return Ok(Some(Body::HistoryPage(page.understand()?)));
        }
        let bodies = [
            self.connected.map(|connected| Body::Connected(connected.into())),
            self.subscribed.map(|subscribed| Body::Subscribed(subscribed.into())),
            self.unsubscribed.map(|Ended { topic, reason }| {
                Body::Unsubscribed(schema::Unsubscribed { topic, reason })
            }),
            self.published.map(|published| Body::Published(published.into())),
            self.error.map(|error| Body::Error(error.into())),
            self.gap.map(|gap| Body::Gap(gap.into())),
            self.snapshot_end.map(|end| Body::SnapshotEnd(end.into())),
            self.position.map(|position| Body::Position(position.into())),
            self.presence_state.map(|state| Body::PresenceState(state.into())),
            self.joined.map(|Movement { topic, member }| {
                Body::Joined(schema::Joined { topic, member: Some(member.into()) })
            }),
            self.left.map(|Movement { topic, member }| {
                Body::Left(schema::Left { topic, member: Some(member.into()) })
            }),
            self.stale.map(|Stale { topic, since }| Body::Stale(schema::Stale { topic, since })),
            self.fresh.map(|Topic { topic }| Body::Fresh(schema::Fresh { topic })),
            self.reconnect
                .map(|Reconnect { after_ms }| Body::Reconnect(schema::Reconnect { after_ms })),
            self.updated.map(|updated| Body::Updated(updated.into())),
            self.refreshed
                .map(|Refreshed { expires_ms }| Body::Refreshed(schema::Refreshed { expires_ms })),
            self.pong.map(|Nothing {}| Body::Pong(schema::Pong {})),
            self.ping.map(|Nothing {}| Body::Ping(schema::ServerPing {})),
        ];
        Ok(bodies.into_iter().flatten().next())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reconnect {
    #[serde(default)]
    after_ms: u32,
}

#[derive(Deserialize)]
struct Message<'a> {
    topic: String,
    offset: u64,
    time: u64,
    #[serde(default)]
    key: String,
    #[serde(borrow, default, deserialize_with = "value")]
    data: Option<&'a RawValue>,
    text: Option<String>,
    base64: Option<String>,
    #[serde(default)]
    deleted: bool,
}

/// Reads any value; `null` is one.
fn value<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Message<'_> {
    fn understand(self) -> Result<schema::Message, Fault> {
        let payload = match (self.data, self.text, self.base64) {
            (Some(data), _, _) => {
                Some(message::Payload::Data(data.get().as_bytes().to_vec().into()))
            }
            (None, Some(text), _) => Some(message::Payload::Text(text)),
            (None, None, Some(base64)) => {
                let binary = BASE64.decode(base64);
                let binary = binary.map_err(|error| Fault::Malformed(error.to_string()))?;
                Some(message::Payload::Binary(binary.into()))
            }
            (None, None, None) => None,
        };
        let Message { topic, offset, time, key, deleted, .. } = self;
        Ok(schema::Message { topic, offset, time, key, payload, deleted })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connected {
    connection: String,
    server: String,
    ping_ms: u32,
    #[serde(default)]
    batch: bool,
    #[serde(default)]
    expires_ms: u64,
}

impl From<Connected> for schema::Connected {
    fn from(connected: Connected) -> schema::Connected {
        let Connected { connection, server, ping_ms, batch, expires_ms } = connected;
        schema::Connected { connection, server, ping_ms, batch, expires_ms }
    }
}

#[derive(Deserialize)]
struct Ended {
    topic: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscribed {
    topic: String,
    position: Option<Position>,
    recovered: Option<bool>,
    reason: Option<String>,
    policy: Option<String>,
    max_hz: Option<f64>,
    overflow: Option<String>,
    #[serde(default)]
    stale: bool,
    #[serde(default)]
    topics: Vec<TopicRecovery>,
}

impl From<Subscribed> for schema::Subscribed {
    fn from(subscribed: Subscribed) -> schema::Subscribed {
        schema::Subscribed {
            topic: subscribed.topic,
            position: subscribed.position.map(Into::into),
            recovered: subscribed.recovered,
            reason: named(&FAILURES, subscribed.reason.as_deref()).into(),
            topics: subscribed.topics.into_iter().map(Into::into).collect(),
            policy: policy(subscribed.policy.as_deref()),
            max_hz: subscribed.max_hz,
            overflow: named(&OVERFLOWS, subscribed.overflow.as_deref()).into(),
            stale: subscribed.stale,
        }
    }
}

#[derive(Deserialize)]
struct Position {
    epoch: String,
    offset: u64,
}

impl From<Position> for schema::Position {
    fn from(Position { epoch, offset }: Position) -> schema::Position {
        schema::Position { epoch, offset }
    }
}

#[derive(Deserialize)]
struct TopicRecovery {
    topic: String,
    position: Option<Position>,
    recovered: bool,
    reason: Option<String>,
}

impl From<TopicRecovery> for schema::TopicRecovery {
    fn from(TopicRecovery { topic, position, recovered, reason }: TopicRecovery) -> Self {
        let reason = named(&FAILURES, reason.as_deref()).into();
        schema::TopicRecovery { topic, position: position.map(Into::into), recovered, reason }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Updated {
    topic: String,
    policy: Option<String>,
    max_hz: Option<f64>,
    overflow: Option<String>,
}

impl From<Updated> for schema::Updated {
    fn from(Updated { topic, policy, max_hz, overflow }: Updated) -> schema::Updated {
        let policy = self::policy(policy.as_deref());
        let overflow = named(&OVERFLOWS, overflow.as_deref()).into();
        schema::Updated { topic, policy, max_hz, overflow }
    }
}

/// The number of a policy. That of a word which nobody knows is none of the schema: it must not pass
/// for the one that promises everything.
fn policy(word: Option<&str>) -> i32 {
    match named(&POLICIES, word) {
        schema::Policy::Unspecified if word.is_some() => -1,
        known => known.into(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refreshed {
    #[serde(default)]
    expires_ms: u64,
}

#[derive(Deserialize)]
struct HistoryPage<'a> {
    topic: String,
    top: Option<Position>,
    #[serde(borrow, default)]
    messages: Vec<Message<'a>>,
    #[serde(default)]
    more: bool,
}

impl HistoryPage<'_> {
    fn understand(self) -> Result<schema::HistoryPage, Fault> {
        let HistoryPage { topic, top, messages, more } = self;
        let messages: Result<_, _> = messages.into_iter().map(Message::understand).collect();
        Ok(schema::HistoryPage { topic, top: top.map(Into::into), messages: messages?, more })
    }
}

#[derive(Deserialize)]
struct Published {
    epoch: String,
    offset: u64,
    #[serde(default)]
    durability: String,
}

impl From<Published> for schema::Published {
    fn from(Published { epoch, offset, durability }: Published) -> schema::Published {
        let durability = schema::Durability::from_str_name(&durability.to_ascii_uppercase());
        let durability = durability.unwrap_or_default().into();
        schema::Published { epoch, offset, durability }
    }
}

#[derive(Deserialize)]
struct Error {
    code: u32,
    name: String,
    #[serde(default)]
    retry: String,
    #[serde(default)]
    message: String,
}

impl From<Error> for schema::Error {
    fn from(Error { code, name, retry, message }: Error) -> schema::Error {
        let retry = named(&RETRIES, Some(&*retry)).into();
        schema::Error { code, name, retry, message }
    }
}

#[derive(Deserialize)]
struct Gap {
    topic: String,
    from: u64,
    to: u64,
    count: u64,
    reason: Option<String>,
}

impl From<Gap> for schema::Gap {
    fn from(Gap { topic, from, to, count, reason }: Gap) -> schema::Gap {
        let reason = named(&GAP_REASONS, reason.as_deref()).into();
        schema::Gap { topic, from, to, count, reason }
    }
}

#[derive(Deserialize)]
struct SnapshotEnd {
    topic: String,
    #[serde(default)]
    positions: Vec<TopicPosition>,
}

impl From<SnapshotEnd> for schema::SnapshotEnd {
    fn from(SnapshotEnd { topic, positions }: SnapshotEnd) -> schema::SnapshotEnd {
        let positions = positions.into_iter().map(Into::into).collect();
        schema::SnapshotEnd { topic, positions }
    }
}

#[derive(Deserialize)]
struct TopicPosition {
    topic: String,
    epoch: String,
    offset: u64,
}

impl From<TopicPosition> for schema::TopicPosition {
    fn from(TopicPosition { topic, epoch, offset }: TopicPosition) -> schema::TopicPosition {
        schema::TopicPosition { topic, epoch, offset }
    }
}

#[derive(Deserialize)]
struct PresenceState {
    topic: String,
    count: u64,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    more: bool,
}

impl From<PresenceState> for schema::PresenceState {
    fn from(PresenceState { topic, count, members, more }: PresenceState) -> Self {
        let members = members.into_iter().map(Into::into).collect();
        schema::PresenceState { topic, count, members, more }
    }
}

/// Who joined or left.
#[derive(Deserialize)]
struct Movement {
    topic: String,
    member: Member,
}

#[derive(Deserialize)]
struct Member {
    connection: String,
    #[serde(default)]
    name: String,
}

impl From<Member> for schema::Member {
    fn from(Member { connection, name }: Member) -> schema::Member {
        schema::Member { connection, name }
    }
}

#[derive(Deserialize)]
struct Stale {
    topic: String,
    #[serde(default)]
    since: u64,
}
