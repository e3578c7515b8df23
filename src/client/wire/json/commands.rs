//! Commands in the JSON spelling.
//! # Not here: what the broker makes of them (`dialect`).

use super::{OVERFLOWS, POLICIES, word};
use crate::client::wire::Fault;
use crate::dialect::schema::{self, command::Action, publish};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

/// Spells a command.
pub(crate) fn encode(command: &schema::Command) -> Result<Vec<u8>, Fault> {
    let mut spelled = Command { id: command.id, ..Command::default() };
    match &command.action {
        Some(Action::Connect(schema::Connect { token, name, batch })) => {
            spelled.connect = Some(Connect { token, name, batch: *batch });
        }
        Some(Action::Subscribe(subscribe)) => spelled.subscribe = Some(subscribe.into()),
        Some(Action::Unsubscribe(schema::Unsubscribe { topic })) => {
            spelled.unsubscribe = Some(Topic { topic });
        }
        Some(Action::Update(update)) => spelled.update = Some(update.into()),
        Some(Action::Publish(publish)) => spelled.publish = Some(Publish::of(publish)?),
        Some(Action::History(history)) => spelled.history = Some(history.into()),
        Some(Action::Presence(schema::Presence { topic })) => {
            spelled.presence = Some(Topic { topic });
        }
        Some(Action::Refresh(schema::Refresh { token })) => {
            spelled.refresh = Some(Refresh { token });
        }
        Some(Action::Ping(schema::Ping {})) => spelled.ping = Some(Ping {}),
        None => return Err(Fault::Payload("a command without an action".to_owned())),
    }
    write(&spelled)
}

/// Spells what is to be published, alone.
pub(crate) fn encode_publish(publish: &schema::Publish) -> Result<Vec<u8>, Fault> {
    write(&Publish::of(publish)?)
}

fn write(value: &impl Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|error| Fault::Payload(error.to_string()))
}

#[derive(Default, Serialize)]
struct Command<'a> {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Connect<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<Subscribe<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsubscribe: Option<Topic<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<Update<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<Publish<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<History<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<Topic<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh: Option<Refresh<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ping: Option<Ping>,
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
struct Topic<'a> {
    topic: &'a str,
}

#[derive(Serialize)]
struct Refresh<'a> {
    token: &'a str,
}

#[derive(Serialize)]
struct Ping {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscribe<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Position<'a>>,
    #[serde(skip_serializing_if = "is_none")]
    last: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    snapshot: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    overflow: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_hz: Option<f64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    presence: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    positions: Vec<TopicPosition<'a>>,
}

impl<'a> From<&'a schema::Subscribe> for Subscribe<'a> {
    fn from(subscribe: &'a schema::Subscribe) -> Subscribe<'a> {
        let place = |at: &'a schema::TopicPosition| TopicPosition {
            topic: &at.topic,
            epoch: &at.epoch,
            offset: at.offset,
        };
        Subscribe {
            topic: &subscribe.topic,
            since: subscribe.since.as_ref().map(Into::into),
            last: subscribe.last,
            snapshot: subscribe.snapshot,
            overflow: word(&OVERFLOWS, subscribe.overflow()),
            policy: word(&POLICIES, subscribe.policy()),
            max_hz: subscribe.max_hz,
            presence: subscribe.presence,
            positions: subscribe.positions.iter().map(place).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Update<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    overflow: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_hz: Option<f64>,
}

impl<'a> From<&'a schema::Update> for Update<'a> {
    fn from(update: &'a schema::Update) -> Update<'a> {
        Update {
            topic: &update.topic,
            overflow: word(&OVERFLOWS, update.overflow()),
            policy: word(&POLICIES, update.policy()),
            max_hz: update.max_hz,
        }
    }
}

#[derive(Serialize)]
struct History<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Position<'a>>,
    #[serde(skip_serializing_if = "is_none")]
    limit: u32,
}

impl<'a> From<&'a schema::History> for History<'a> {
    fn from(history: &'a schema::History) -> History<'a> {
        let since = history.since.as_ref().map(Into::into);
        History { topic: &history.topic, since, limit: history.limit }
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
    fn of(publish: &'a schema::Publish) -> Result<Publish<'a>, Fault> {
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
                spelled.data = Some(data.map_err(|error| Fault::Payload(error.to_string()))?);
            }
            Some(publish::Payload::Text(text)) => spelled.text = Some(text),
            Some(publish::Payload::Binary(binary)) => spelled.base64 = Some(BASE64.encode(binary)),
            None => {}
        }
        Ok(spelled)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Position<'a> {
    epoch: &'a str,
    offset: u64,
}

impl<'a> From<&'a schema::Position> for Position<'a> {
    fn from(position: &'a schema::Position) -> Position<'a> {
        Position { epoch: &position.epoch, offset: position.offset }
    }
}

#[derive(Serialize)]
struct TopicPosition<'a> {
    topic: &'a str,
    epoch: &'a str,
    offset: u64,
}
