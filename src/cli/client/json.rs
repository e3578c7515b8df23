//! The JSON spelling of the protocol from the client's side.
//! # Invariants: an embedded JSON value travels as it is; fields and events that are not known are
//! passed over, as the protocol asks of a client.
//! # Not here: what events mean.

use super::ClientError;
use crate::dialect::schema::{self, GapReason, RecoveryFailure, command::Action, event::Body};
use crate::dialect::schema::{message, publish};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Why a resume did not succeed, and how it is spelled.
const FAILURES: [(RecoveryFailure, &str); 6] = [
    (RecoveryFailure::EpochChanged, "epochChanged"),
    (RecoveryFailure::Trimmed, "trimmed"),
    (RecoveryFailure::Expired, "expired"),
    (RecoveryFailure::TooMany, "tooMany"),
    (RecoveryFailure::NotAllowed, "notAllowed"),
    (RecoveryFailure::EngineUnavailable, "engineUnavailable"),
];

/// How much of a topic a subscription gets.
const POLICIES: [(schema::Policy, &str); 3] = [
    (schema::Policy::All, "all"),
    (schema::Policy::Latest, "latest"),
    (schema::Policy::MaxHz, "maxHz"),
];

/// What happens to slow readers.
const OVERFLOWS: [(schema::Overflow, &str); 3] = [
    (schema::Overflow::CatchUp, "catchUp"),
    (schema::Overflow::Gap, "gap"),
    (schema::Overflow::Disconnect, "disconnect"),
];

/// Why messages are missing.
const GAP_REASONS: [(GapReason, &str); 3] =
    [(GapReason::Slow, "slow"), (GapReason::Trimmed, "trimmed"), (GapReason::Expired, "expired")];

/// The name of the reason why a resume did not succeed.
pub(in crate::cli) fn failure_name(failure: RecoveryFailure) -> &'static str {
    find(&FAILURES, |(known, _)| *known == failure).map_or("unknown", |(_, name)| name)
}

/// The name of a policy, if one is given.
pub(in crate::cli) fn policy_name(policy: schema::Policy) -> Option<&'static str> {
    find(&POLICIES, |(known, _)| *known == policy).map(|(_, name)| name)
}

/// The name of an overflow, if one is given.
pub(in crate::cli) fn overflow_name(overflow: schema::Overflow) -> Option<&'static str> {
    find(&OVERFLOWS, |(known, _)| *known == overflow).map(|(_, name)| name)
}

/// The name of the reason of a gap.
pub(in crate::cli) fn gap_name(reason: GapReason) -> &'static str {
    find(&GAP_REASONS, |(known, _)| *known == reason).map_or("unknown", |(_, name)| name)
}

fn find<T: Copy>(table: &[T], wanted: impl Fn(&T) -> bool) -> Option<T> {
    table.iter().copied().find(wanted)
}

/// The value that a name stands for in one of the tables, or the one for what nobody knows.
fn named<T: Copy + Default>(table: &[(T, &str)], name: Option<&str>) -> T {
    let row = find(table, |(_, known)| Some(*known) == name);
    row.map_or_else(T::default, |(value, _)| value)
}

// === Commands ===

/// Spells a command.
pub(super) fn encode(command: &schema::Command) -> Result<Vec<u8>, ClientError> {
    let mut spelled = Command { id: command.id, ..Command::default() };
    match &command.action {
        Some(Action::Connect(schema::Connect { token, name, batch })) => {
            spelled.connect = Some(Connect { token, name, batch: *batch });
        }
        Some(Action::Subscribe(subscribe)) => spelled.subscribe = Some(subscribe.into()),
        Some(Action::Presence(schema::Presence { topic })) => {
            spelled.presence = Some(Presence { topic });
        }
        Some(Action::Publish(publish)) => spelled.publish = Some(Publish::of(publish)?),
        other => return Err(ClientError::Malformed(format!("a command that is {other:?}"))),
    }
    write(&spelled)
}

/// Spells what is to be published, alone.
pub(super) fn encode_publish(publish: &schema::Publish) -> Result<Vec<u8>, ClientError> {
    write(&Publish::of(publish)?)
}

fn write(value: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(|error| ClientError::Payload(error.to_string()))
}

#[derive(Default, Serialize)]
struct Command<'a> {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Connect<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<Subscribe<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<Publish<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<Presence<'a>>,
}

#[derive(Serialize)]
struct Connect<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    token: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    batch: bool,
}

#[derive(Serialize)]
struct Presence<'a> {
    topic: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscribe<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Position>,
    last: u32,
    snapshot: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    overflow: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_hz: Option<f64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    presence: bool,
}

impl<'a> From<&'a schema::Subscribe> for Subscribe<'a> {
    fn from(subscribe: &'a schema::Subscribe) -> Subscribe<'a> {
        let since = subscribe.since.as_ref();
        Subscribe {
            topic: &subscribe.topic,
            since: since.map(|at| Position { epoch: at.epoch.clone(), offset: at.offset }),
            last: subscribe.last,
            snapshot: subscribe.snapshot,
            overflow: overflow_name(subscribe.overflow()),
            policy: policy_name(subscribe.policy()),
            max_hz: subscribe.max_hz,
            presence: subscribe.presence,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Publish<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    idempotency_key: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delete: bool,
    #[serde(skip_serializing_if = "is_zero")]
    ttl_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Publish<'a> {
    fn of(publish: &'a schema::Publish) -> Result<Publish<'a>, ClientError> {
        let mut spelled = Publish {
            topic: &publish.topic,
            data: None,
            text: None,
            base64: None,
            key: &publish.key,
            idempotency_key: &publish.idempotency_key,
            delete: publish.delete,
            ttl_ms: publish.ttl_ms,
        };
        match &publish.payload {
            Some(publish::Payload::Data(data)) => {
                let data = serde_json::from_slice(data);
                spelled.data = Some(data.map_err(|error| ClientError::Payload(error.to_string()))?);
            }
            Some(publish::Payload::Text(text)) => spelled.text = Some(text),
            Some(publish::Payload::Binary(binary)) => spelled.base64 = Some(BASE64.encode(binary)),
            None => {}
        }
        Ok(spelled)
    }
}

#[derive(Deserialize, Serialize)]
struct Position {
    epoch: String,
    offset: u64,
}

// === Events ===

/// Understands an event.
pub(super) fn decode(bytes: &[u8]) -> Result<schema::Event, ClientError> {
    let event: Event<'_> =
        serde_json::from_slice(bytes).map_err(|error| ClientError::Malformed(error.to_string()))?;
    let id = event.id;
    Ok(schema::Event { id, body: event.body()? })
}

/// Understands the answer to an HTTP request, if it is one of a broker.
pub(super) fn decode_answer(bytes: &[u8]) -> Option<Body> {
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
}

impl Event<'_> {
    fn body(self) -> Result<Option<Body>, ClientError> {
        if let Some(message) = self.message {
            return Ok(Some(Body::Message(message.understand()?)));
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
    fn understand(self) -> Result<schema::Message, ClientError> {
        let payload = match (self.data, self.text, self.base64) {
            (Some(data), _, _) => {
                Some(message::Payload::Data(data.get().as_bytes().to_vec().into()))
            }
            (None, Some(text), _) => Some(message::Payload::Text(text)),
            (None, None, Some(base64)) => {
                let binary = BASE64.decode(base64);
                let binary = binary.map_err(|error| ClientError::Malformed(error.to_string()))?;
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
}

impl From<Subscribed> for schema::Subscribed {
    fn from(subscribed: Subscribed) -> schema::Subscribed {
        schema::Subscribed {
            topic: subscribed.topic,
            position: subscribed
                .position
                .map(|Position { epoch, offset }| schema::Position { epoch, offset }),
            recovered: subscribed.recovered,
            reason: named(&FAILURES, subscribed.reason.as_deref()).into(),
            // They answer `positions`, which no client command sends.
            topics: Vec::new(),
            policy: named(&POLICIES, subscribed.policy.as_deref()).into(),
            max_hz: subscribed.max_hz,
            overflow: named(&OVERFLOWS, subscribed.overflow.as_deref()).into(),
            stale: subscribed.stale,
        }
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
    message: String,
}

impl From<Error> for schema::Error {
    fn from(Error { code, name, message }: Error) -> schema::Error {
        // The advice is for programs; a person reads the sentence.
        schema::Error { code, name, message, retry: schema::Retry::Unspecified.into() }
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

#[cfg(test)]
mod tests;
