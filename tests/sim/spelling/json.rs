//! The JSON spelling, as a client sees it.
//! # Not here: frames (`spelling`).

use super::Heard;
use crate::history::{
    Command, Content, Event, Gap, Message, Overflow, Page, Payload, Position, Recovery, Subscribe,
    Subscribed, TopicPosition,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

pub(super) fn encode(id: u64, command: &Command) -> Vec<u8> {
    let (name, body) = match command {
        Command::Connect {} => ("connect", json!({})),
        Command::Ping {} => ("ping", json!({})),
        Command::Unsubscribe { topic } => ("unsubscribe", json!({"topic": topic})),
        Command::Subscribe(subscribe) => ("subscribe", subscribe_body(subscribe)),
        Command::History(query) => {
            let mut body = json!({"topic": query.topic, "limit": query.limit});
            put(&mut body, "since", query.since.as_ref().map(|since| json!(since)));
            ("history", body)
        }
        Command::Publish(publish) => {
            let mut body = json!({"topic": publish.topic});
            let Content { key, payload } = &publish.content;
            let text = |text: &str| (!text.is_empty()).then(|| json!(text));
            put(&mut body, "key", text(key));
            put(&mut body, "idempotencyKey", text(&publish.idempotency_key));
            match payload {
                // Embedded as it is, byte for byte.
                Payload::Data(data) => {
                    let mut text = json!({"id": id, "publish": body}).to_string();
                    text.truncate(text.len() - 2);
                    return format!("{text},\"data\":{data}}}}}").into_bytes();
                }
                Payload::Text(text) => put(&mut body, "text", Some(json!(text))),
                Payload::Base64(text) => put(&mut body, "base64", Some(json!(text))),
            }
            ("publish", body)
        }
    };
    let mut object = Map::new();
    object.insert("id".into(), json!(id));
    object.insert(name.into(), body);
    Value::Object(object).to_string().into_bytes()
}

fn subscribe_body(subscribe: &Subscribe) -> Value {
    let Subscribe { topic, since, last, snapshot, overflow, positions } = subscribe;
    let mut body = json!({"topic": topic});
    put(&mut body, "since", since.as_ref().map(|since| json!(since)));
    put(&mut body, "last", (*last > 0).then(|| json!(last)));
    put(&mut body, "snapshot", snapshot.then(|| json!(true)));
    put(
        &mut body,
        "overflow",
        Some(json!(if *overflow == Overflow::Gap { "gap" } else { "disconnect" })),
    );
    put(&mut body, "positions", (!positions.is_empty()).then(|| json!(positions)));
    body
}

fn put(body: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (body.as_object_mut(), value) {
        object.insert(name.into(), value);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spelled {
    #[serde(default)]
    id: u64,
    message: Option<SpelledMessage>,
    connected: Option<SpelledConnected>,
    subscribed: Option<SpelledSubscribed>,
    unsubscribed: Option<SpelledTopic>,
    published: Option<SpelledPublished>,
    error: Option<SpelledError>,
    gap: Option<SpelledGap>,
    snapshot_end: Option<SpelledSnapshotEnd>,
    pong: Option<SpelledNothing>,
    ping: Option<SpelledNothing>,
    history_page: Option<SpelledPage>,
    position: Option<TopicPosition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledNothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledTopic {
    topic: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpelledConnected {
    #[serde(rename = "connection")]
    _connection: String,
    #[serde(rename = "server")]
    _server: String,
    #[serde(rename = "pingMs")]
    _ping_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledMessage {
    topic: String,
    offset: u64,
    time: u64,
    #[serde(default)]
    key: String,
    data: Option<Box<RawValue>>,
    text: Option<String>,
    base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledPublished {
    epoch: String,
    offset: u64,
    durability: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledError {
    name: String,
    #[serde(rename = "code")]
    _code: u16,
    #[serde(rename = "retry")]
    _retry: String,
    #[serde(rename = "message")]
    _message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledGap {
    topic: String,
    from: u64,
    to: u64,
    count: u64,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledSnapshotEnd {
    topic: String,
    #[serde(default)]
    positions: Vec<TopicPosition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledSubscribed {
    topic: String,
    position: Option<Position>,
    recovered: Option<bool>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    topics: Vec<SpelledRecovery>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledRecovery {
    topic: String,
    position: Option<Position>,
    recovered: bool,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledPage {
    topic: String,
    top: Option<Position>,
    #[serde(default)]
    messages: Vec<SpelledMessage>,
    #[serde(default)]
    more: bool,
}

pub(super) fn decode(body: &[u8]) -> Result<Heard, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let spelled: Spelled =
        serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))?;
    let id = spelled.id;
    let events = events(spelled)?;
    match <[Event; 1]>::try_from(events) {
        Ok([event]) => Ok(Heard::Event(id, event)),
        Err(events) => Err(format!("{} events in {text}", events.len())),
    }
}

/// Every event that the object holds: it should be one.
fn events(spelled: Spelled) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    if let Some(spelled) = spelled.message {
        events.push(Event::Message(message(spelled)?));
    }
    if let Some(SpelledPublished { epoch, offset, durability }) = spelled.published {
        if durability != "memory" {
            return Err(format!("durability is `{durability}`"));
        }
        events.push(Event::Published(Position { epoch, offset }));
    }
    if let Some(SpelledGap { topic, from, to, count, reason }) = spelled.gap {
        if reason != "slow" {
            return Err(format!("the reason of a gap is `{reason}`"));
        }
        events.push(Event::Gap(Gap { topic, from, to, count }));
    }
    if let Some(SpelledPage { topic, top, messages, more }) = spelled.history_page {
        let messages = messages.into_iter().map(message).collect::<Result<_, _>>()?;
        events.push(Event::HistoryPage(Page { topic, top, messages, more }));
    }
    let others = [
        spelled.connected.map(|_| Event::Connected {}),
        spelled.subscribed.map(|spelled| Event::Subscribed(subscribed(spelled))),
        spelled.unsubscribed.map(|SpelledTopic { topic }| Event::Unsubscribed { topic }),
        spelled.error.map(|SpelledError { name, .. }| Event::Error { name }),
        spelled
            .snapshot_end
            .map(|SpelledSnapshotEnd { topic, positions }| Event::SnapshotEnd { topic, positions }),
        spelled.pong.map(|_| Event::Pong {}),
        spelled.ping.map(|_| Event::Ping {}),
        spelled.position.map(Event::Position),
    ];
    events.extend(others.into_iter().flatten());
    Ok(events)
}

fn subscribed(spelled: SpelledSubscribed) -> Subscribed {
    let SpelledSubscribed { topic, position, recovered, reason, topics } = spelled;
    let recovery = |spelled| {
        let SpelledRecovery { topic, position, recovered, reason } = spelled;
        Recovery { topic, position, recovered, reason }
    };
    let topics = topics.into_iter().map(recovery).collect();
    Subscribed { topic, position, recovered, reason, topics }
}

fn message(spelled: SpelledMessage) -> Result<Message, String> {
    let SpelledMessage { topic, offset, time, key, data, text, base64 } = spelled;
    let payload = match (data, text, base64) {
        (Some(data), None, None) => Payload::Data(data.get().to_owned()),
        (None, Some(text), None) => Payload::Text(text),
        (None, None, Some(base64)) => Payload::Base64(base64),
        _ => return Err(format!("message {offset} of `{topic}` has not one payload")),
    };
    Ok(Message { topic, offset, time, content: Content { key, payload } })
}
