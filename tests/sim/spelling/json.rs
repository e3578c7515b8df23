//! The JSON spelling, as a client sees it.
//! # Not here: frames (`spelling`).

use super::Heard;
use crate::history::{
    Command, Content, Event, Gap, GapReason, Member, Message, Overflow, Page, Payload, Policy,
    Position, Recovery, Roster, Subscribe, Subscribed, TopicPosition, Update, Updated,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

pub(super) fn encode(id: u64, command: &Command) -> Vec<u8> {
    let (name, body) = match command {
        Command::Connect { name, batch } => {
            let mut body = json!({});
            put(&mut body, "name", (!name.is_empty()).then(|| json!(name)));
            put(&mut body, "batch", batch.then(|| json!(true)));
            ("connect", body)
        }
        Command::Ping {} => ("ping", json!({})),
        Command::Unsubscribe { topic } => ("unsubscribe", json!({"topic": topic})),
        Command::Presence { topic } => ("presence", json!({"topic": topic})),
        Command::Subscribe(subscribe) => ("subscribe", subscribe_body(subscribe)),
        Command::Update(Update { topic, overflow, policy }) => {
            let mut body = json!({"topic": topic});
            put(&mut body, "overflow", overflow.map(|overflow| json!(overflow)));
            if let Some(policy) = policy {
                put_policy(&mut body, *policy);
            }
            ("update", body)
        }
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
            put(&mut body, "ttlMs", (publish.ttl_ms > 0).then(|| json!(publish.ttl_ms)));
            match payload {
                // Embedded as it is, byte for byte.
                Payload::Data(data) => {
                    let mut text = json!({"id": id, "publish": body}).to_string();
                    text.truncate(text.len() - 2);
                    return format!("{text},\"data\":{data}}}}}").into_bytes();
                }
                Payload::Text(text) => put(&mut body, "text", Some(json!(text))),
                Payload::Base64(text) => put(&mut body, "base64", Some(json!(text))),
                Payload::Deleted => put(&mut body, "delete", Some(json!(true))),
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
    let Subscribe { topic, since, last, snapshot, overflow, policy, presence, positions } =
        subscribe;
    let mut body = json!({"topic": topic});
    put(&mut body, "since", since.as_ref().map(|since| json!(since)));
    put(&mut body, "last", (*last > 0).then(|| json!(last)));
    put(&mut body, "snapshot", snapshot.then(|| json!(true)));
    put(&mut body, "overflow", overflow.map(|overflow| json!(overflow)));
    if *policy != Policy::All {
        put_policy(&mut body, *policy);
    }
    put(&mut body, "presence", presence.then(|| json!(true)));
    put(&mut body, "positions", (!positions.is_empty()).then(|| json!(positions)));
    body
}

fn put_policy(body: &mut Value, policy: Policy) {
    let (name, rate) = match policy {
        Policy::All => ("all", None),
        Policy::Latest => ("latest", None),
        Policy::MaxHz(hz) => ("maxHz", Some(json!(hz))),
    };
    put(body, "policy", Some(json!(name)));
    put(body, "maxHz", rate);
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
    updated: Option<SpelledUpdated>,
    published: Option<SpelledPublished>,
    error: Option<SpelledError>,
    gap: Option<SpelledGap>,
    snapshot_end: Option<SpelledSnapshotEnd>,
    pong: Option<SpelledNothing>,
    ping: Option<SpelledNothing>,
    history_page: Option<SpelledPage>,
    position: Option<TopicPosition>,
    presence_state: Option<SpelledPresence>,
    joined: Option<SpelledChange>,
    left: Option<SpelledChange>,
    stale: Option<SpelledStale>,
    fresh: Option<SpelledTopic>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpelledUpdated {
    topic: String,
    policy: String,
    max_hz: Option<f64>,
    overflow: Option<Overflow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledPresence {
    topic: String,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    members: Vec<SpelledMember>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledMember {
    connection: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledChange {
    topic: String,
    member: SpelledMember,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledStale {
    topic: String,
    #[serde(default)]
    since: u64,
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
    connection: String,
    #[serde(rename = "server")]
    _server: String,
    #[serde(rename = "pingMs")]
    _ping_ms: u64,
    #[serde(default)]
    batch: bool,
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
    #[serde(default)]
    deleted: bool,
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
    reason: GapReason,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpelledSnapshotEnd {
    topic: String,
    #[serde(default)]
    positions: Vec<TopicPosition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpelledSubscribed {
    topic: String,
    position: Option<Position>,
    recovered: Option<bool>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    topics: Vec<SpelledRecovery>,
    policy: Option<String>,
    max_hz: Option<f64>,
    overflow: Option<Overflow>,
    #[serde(default)]
    stale: bool,
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
    if let Some(spelled) = spelled.subscribed {
        events.push(Event::Subscribed(subscribed(spelled)?));
    }
    if let Some(SpelledUpdated { topic, policy, max_hz, overflow }) = spelled.updated {
        let policy = self::policy(Some(&policy), max_hz)?;
        events.push(Event::Updated(Updated { topic, policy, overflow }));
    }
    if let Some(SpelledPage { topic, top, messages, more }) = spelled.history_page {
        let messages = messages.into_iter().map(message).collect::<Result<_, _>>()?;
        events.push(Event::HistoryPage(Page { topic, top, messages, more }));
    }
    let others = [
        spelled.connected.map(|SpelledConnected { connection, batch, .. }| Event::Connected {
            connection,
            batch,
        }),
        spelled.gap.map(|SpelledGap { topic, from, to, count, reason }| {
            Event::Gap(Gap { topic, from, to, count, reason })
        }),
        spelled.presence_state.map(presence_state),
        spelled.joined.map(|SpelledChange { topic, member: who }| Event::Joined {
            topic,
            member: member(who),
        }),
        spelled
            .left
            .map(|SpelledChange { topic, member: who }| Event::Left { topic, member: member(who) }),
        spelled.stale.map(|SpelledStale { topic, since }| Event::Stale { topic, since }),
        spelled.fresh.map(|SpelledTopic { topic }| Event::Fresh { topic }),
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

fn subscribed(spelled: SpelledSubscribed) -> Result<Subscribed, String> {
    let SpelledSubscribed {
        topic,
        position,
        recovered,
        reason,
        topics,
        policy,
        max_hz,
        overflow,
        stale,
    } = spelled;
    if policy.as_deref() == Some("all") {
        return Err("what goes without saying is said".into());
    }
    let policy = self::policy(policy.as_deref(), max_hz)?;
    let recovery = |spelled| {
        let SpelledRecovery { topic, position, recovered, reason } = spelled;
        Recovery { topic, position, recovered, reason }
    };
    let topics = topics.into_iter().map(recovery).collect();
    Ok(Subscribed { topic, position, recovered, reason, topics, policy, overflow, stale })
}

fn policy(name: Option<&str>, max_hz: Option<f64>) -> Result<Policy, String> {
    match (name, max_hz) {
        (None | Some("all"), None) => Ok(Policy::All),
        (Some("latest"), None) => Ok(Policy::Latest),
        (Some("maxHz"), Some(hz)) => Ok(Policy::MaxHz(hz)),
        other => Err(format!("{other:?} is no policy")),
    }
}

fn presence_state(spelled: SpelledPresence) -> Event {
    let SpelledPresence { topic, count, members, more } = spelled;
    let members = members.into_iter().map(member).collect();
    Event::PresenceState { topic, roster: Roster { count, members, more } }
}

fn member(spelled: SpelledMember) -> Member {
    let SpelledMember { connection, name } = spelled;
    Member { connection, name }
}

fn message(spelled: SpelledMessage) -> Result<Message, String> {
    let SpelledMessage { topic, offset, time, key, data, text, base64, deleted } = spelled;
    let payload = match (data, text, base64, deleted) {
        (Some(data), None, None, false) => Payload::Data(data.get().to_owned()),
        (None, Some(text), None, false) => Payload::Text(text),
        (None, None, Some(base64), false) => Payload::Base64(base64),
        (None, None, None, true) => Payload::Deleted,
        _ => return Err(format!("message {offset} of `{topic}` has not one payload")),
    };
    Ok(Message { topic, offset, time, content: Content { key, payload } })
}
