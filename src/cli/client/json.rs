//! The JSON spelling of the protocol from the client's side.
//! # Invariants: an embedded JSON value travels as it is; fields and events that are not known are
//! passed over, as the protocol asks of a client.
//! # Not here: what events mean.

use super::ClientError;
use crate::dialect::schema::{self, RecoveryFailure, command::Action, event::Body};
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

/// The name of the reason why a resume did not succeed.
pub(in crate::cli) fn failure_name(failure: RecoveryFailure) -> &'static str {
    let mut failures = FAILURES.into_iter();
    failures.find(|(known, _)| *known == failure).map_or("unknown", |(_, name)| name)
}

// === Commands ===

/// Spells a command.
pub(super) fn encode(command: &schema::Command) -> Result<Vec<u8>, ClientError> {
    let mut spelled = Command { id: command.id, ..Command::default() };
    match &command.action {
        Some(Action::Connect(schema::Connect { .. })) => spelled.connect = Some(Empty {}),
        Some(Action::Subscribe(subscribe)) => spelled.subscribe = Some(subscribe.into()),
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
    connect: Option<Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<Subscribe<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<Publish<'a>>,
}

#[derive(Deserialize, Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Subscribe<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Position>,
    last: u32,
    snapshot: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    overflow: Option<&'static str>,
}

impl<'a> From<&'a schema::Subscribe> for Subscribe<'a> {
    fn from(subscribe: &'a schema::Subscribe) -> Subscribe<'a> {
        let since = subscribe.since.as_ref();
        Subscribe {
            topic: &subscribe.topic,
            since: since.map(|at| Position { epoch: at.epoch.clone(), offset: at.offset }),
            last: subscribe.last,
            snapshot: subscribe.snapshot,
            overflow: match subscribe.overflow() {
                schema::Overflow::Unspecified => None,
                schema::Overflow::CatchUp => Some("catchUp"),
                schema::Overflow::Gap => Some("gap"),
                schema::Overflow::Disconnect => Some("disconnect"),
            },
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
    unsubscribed: Option<Topic>,
    published: Option<Published>,
    error: Option<Error>,
    gap: Option<Gap>,
    snapshot_end: Option<SnapshotEnd>,
    position: Option<TopicPosition>,
}

impl Event<'_> {
    fn body(self) -> Result<Option<Body>, ClientError> {
        if let Some(message) = self.message {
            return Ok(Some(Body::Message(message.understand()?)));
        }
        let bodies = [
            self.connected.map(|connected| Body::Connected(connected.into())),
            self.subscribed.map(|subscribed| Body::Subscribed(subscribed.into())),
            self.unsubscribed
                .map(|Topic { topic }| Body::Unsubscribed(schema::Unsubscribed { topic })),
            self.published.map(|published| Body::Published(published.into())),
            self.error.map(|error| Body::Error(error.into())),
            self.gap.map(|gap| Body::Gap(gap.into())),
            self.snapshot_end.map(|end| Body::SnapshotEnd(end.into())),
            self.position.map(|position| Body::Position(position.into())),
        ];
        Ok(bodies.into_iter().flatten().next())
    }
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
}

/// Reads any value; `null` is one.
fn value<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Message<'_> {
    fn understand(self) -> Result<schema::Message, ClientError> {
        let payload = match (self.data, self.text, self.base64) {
            (Some(data), _, _) => message::Payload::Data(data.get().as_bytes().to_vec().into()),
            (None, Some(text), _) => message::Payload::Text(text),
            (None, None, Some(base64)) => {
                let binary = BASE64.decode(base64);
                let binary = binary.map_err(|error| ClientError::Malformed(error.to_string()))?;
                message::Payload::Binary(binary.into())
            }
            (None, None, None) => {
                return Err(ClientError::Malformed("a message without a payload".to_owned()));
            }
        };
        let Message { topic, offset, time, key, .. } = self;
        Ok(schema::Message { topic, offset, time, key, payload: Some(payload), deleted: false })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connected {
    connection: String,
    server: String,
    ping_ms: u32,
}

impl From<Connected> for schema::Connected {
    fn from(Connected { connection, server, ping_ms }: Connected) -> schema::Connected {
        schema::Connected { connection, server, ping_ms }
    }
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

#[derive(Deserialize)]
struct Subscribed {
    topic: String,
    position: Option<Position>,
    recovered: Option<bool>,
    reason: Option<String>,
}

impl From<Subscribed> for schema::Subscribed {
    fn from(subscribed: Subscribed) -> schema::Subscribed {
        let reason = FAILURES.iter().find(|(_, name)| Some(*name) == subscribed.reason.as_deref());
        let reason = reason.map_or(RecoveryFailure::Unspecified, |(reason, _)| *reason);
        schema::Subscribed {
            topic: subscribed.topic,
            position: subscribed
                .position
                .map(|Position { epoch, offset }| schema::Position { epoch, offset }),
            recovered: subscribed.recovered,
            reason: reason.into(),
            // They answer `positions`, which no client command sends.
            topics: Vec::new(),
            ..Default::default()
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
}

impl From<Gap> for schema::Gap {
    fn from(Gap { topic, from, to, count }: Gap) -> schema::Gap {
        // There is one reason so far.
        schema::Gap { topic, from, to, count, reason: schema::GapReason::Slow.into() }
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

#[cfg(test)]
mod tests;
