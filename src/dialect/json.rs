//! The JSON spelling of protocol v1: one object per command and per event.
//! Owns the syntax: objects only, no key twice, unknown keys ignored, `null` as if it were not there.
//! # Invariants: decoding borrows from its input and never recurses into it; what is encoded has no
//! line break, so events may be joined by line breaks.
//! # Not here: what fields may hold (`raw`), heads of frames (`frame`).

use super::fields::Fields;
use super::raw::{
    Choice, Data, INTEGER_MAX, Number, PolicyWord, RawCommand, RawPositions, RawPublish, RawRate,
    RawTopicPosition, Text,
};
use super::{
    BadCommand, Command, Connected, Event, Gap, HistoryPage, Member, Overflow, Policy,
    PresenceState, Recovery, SERVER, SnapshotEnd, Stale, Subscribed, Terms, TopicPosition, Updated,
    frame,
};
use crate::reason::{Reason, Refusal};
use crate::topics::message::{Draft, Message, Payload, Position};
use crate::topics::name::TopicName;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Longest account of a syntax error, in bytes: it may quote the command.
const DETAIL_BYTES_MAX: usize = 200;

/// Understands one command.
pub(super) fn decode(bytes: &[u8]) -> Result<Command, BadCommand> {
    match parse::<RawCommand<'_>>(bytes) {
        Ok(command) => command.understand(),
        Err(refusal) => Err(BadCommand { id: find_id(bytes), refusal }),
    }
}

/// Understands the object of a publish command, on its own.
pub(super) fn decode_draft(bytes: &[u8]) -> Result<Draft, Refusal> {
    parse::<RawPublish<'_>>(bytes)?.understand()
}

fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Refusal> {
    // Checked here and for the whole input: the parser does not look into strings that it skips.
    let text = simdutf8::basic::from_utf8(bytes)
        .map_err(|_| Refusal::new(Reason::BadCommand, "it is not UTF-8"))?;
    match serde_json::from_str::<Object<T>>(text) {
        Ok(Object(value)) => Ok(value),
        Err(error) => {
            let detail = error.to_string();
            let detail = frame::cut(&detail, DETAIL_BYTES_MAX);
            Err(Refusal::new(Reason::BadCommand, detail))
        }
    }
}

/// The id of a command that is broken elsewhere; 0 if it comes after the fault.
fn find_id(bytes: &[u8]) -> u64 {
    let mut id = 0;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    // The fault is already known; what counts is how far this came.
    match (&mut deserializer).deserialize_map(IdSearch(&mut id)) {
        Ok(()) | Err(_) => id,
    }
}

struct IdSearch<'a>(&'a mut u64);

impl<'de> Visitor<'de> for IdSearch<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            if key != "id" {
                map.next_value::<IgnoredAny>()?;
            } else if let Number(Some(id @ ..=INTEGER_MAX)) = map.next_value()? {
                *self.0 = id;
                break;
            }
        }
        Ok(())
    }
}

/// A value that must be spelled as an object: serde by itself would also take an array.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads a field that holds an object, or `null` for nothing.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

/// Reads a field that holds any value; `null` is one.
pub(super) fn value<'de: 'a, 'a, D>(deserializer: D) -> Result<Option<Data<'a>>, D::Error>
where
    D: Deserializer<'de>,
{
    <&RawValue>::deserialize(deserializer).map(|value| Some(Data::Value(value)))
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        let spelled = <&RawValue>::deserialize(deserializer)?;
        Ok(Number(spelled.get().parse().ok()))
    }
}

impl<'de> Deserialize<'de> for RawRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawRate, D::Error> {
        let spelled = <&RawValue>::deserialize(deserializer)?;
        // What is JSON has no other spelling that this would take.
        Ok(RawRate(spelled.get().parse().unwrap_or(f64::NAN)))
    }
}

impl<'de> Deserialize<'de> for Choice<Overflow> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(name) = Text::deserialize(deserializer)?;
        Ok(Choice::overflow(&name))
    }
}

impl<'de> Deserialize<'de> for Choice<PolicyWord> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(name) = Text::deserialize(deserializer)?;
        Ok(Choice::policy(&name))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawPositions<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawPositions<'a>, D::Error> {
        deserializer.deserialize_seq(PositionsVisitor(PhantomData))
    }
}

struct PositionsVisitor<'a>(PhantomData<RawPositions<'a>>);

impl<'de: 'a, 'a> Visitor<'de> for PositionsVisitor<'a> {
    type Value = RawPositions<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of positions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<RawPositions<'a>, A::Error> {
        let mut positions = RawPositions::default();
        while let Some(Object(position)) = array.next_element::<Object<RawTopicPosition<'a>>>()? {
            positions.push(position);
        }
        Ok(positions)
    }
}

/// Appends one event.
pub(super) fn encode(id: u64, event: &Event, out: &mut Vec<u8>) {
    Fields::write(out, |fields| {
        if id != 0 {
            fields.number("id", id);
        }
        fields.object(name(event), |fields| write_event(event, fields));
    });
}

/// Appends what an event says, as an object of its own.
pub(super) fn encode_answer(event: &Event, out: &mut Vec<u8>) {
    Fields::write(out, |fields| write_event(event, fields));
}

/// Appends the latest messages of topics, and where these stand.
pub(super) fn encode_snapshot(
    messages: &[Arc<Message>],
    positions: &[TopicPosition],
    out: &mut Vec<u8>,
) {
    Fields::write(out, |fields| {
        fields.array("messages", messages, |fields, message| write_message(message, fields));
        fields.array("positions", positions, |fields, position| {
            write_topic_position(position, fields);
        });
    });
}

fn write_event(event: &Event, fields: &mut Fields<'_>) {
    match event {
        Event::Message(message) => write_message(message, fields),
        Event::Connected(connected) => write_connected(connected, fields),
        Event::Subscribed(subscribed) => write_subscribed(subscribed, fields),
        Event::Unsubscribed(target) => fields.string("topic", target.as_str()),
        Event::Ended(ended) => {
            fields.string("topic", ended.target.as_str());
            fields.string("reason", ended.reason.name());
        }
        Event::Refreshed(refreshed) => write_expiry(refreshed.expires_ms, fields),
        Event::Published(position) => {
            write_position(*position, fields);
            fields.string("durability", "memory");
        }
        Event::Error(refusal) => write_error(refusal, fields),
        Event::Gap(gap) => write_gap(gap, fields),
        Event::SnapshotEnd(end) => write_snapshot_end(end, fields),
        Event::Pong | Event::Ping | Event::Reconnect { after_ms: 0 } => {}
        Event::HistoryPage(page) => write_history_page(page, fields),
        Event::Position(position) => write_topic_position(position, fields),
        Event::Updated(updated) => write_updated(updated, fields),
        Event::PresenceState(state) => write_presence_state(state, fields),
        Event::Joined(change) | Event::Left(change) => {
            write_presence(&change.topic, &change.member, fields);
        }
        Event::Stale(stale) => write_stale(stale, fields),
        Event::Fresh(topic) => fields.string("topic", topic.as_str()),
        Event::Reconnect { after_ms } => fields.number("afterMs", (*after_ms).into()),
    }
}

/// Appends one message push.
pub(super) fn encode_message(message: &Message, out: &mut Vec<u8>) {
    Fields::write(out, |fields| {
        fields.object(message_name(message), |fields| write_message(message, fields));
    });
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Message(message) => message_name(message),
        Event::Connected(_) => "connected",
        Event::Subscribed(_) => "subscribed",
        Event::Unsubscribed(_) | Event::Ended(_) => "unsubscribed",
        Event::Refreshed(_) => "refreshed",
        Event::Published(_) => "published",
        Event::Error(_) => "error",
        Event::Gap(_) => "gap",
        Event::SnapshotEnd(_) => "snapshotEnd",
        Event::Pong => "pong",
        Event::Ping => "ping",
        Event::HistoryPage(_) => "historyPage",
        Event::Position(_) => "position",
        Event::Updated(_) => "updated",
        Event::PresenceState(_) => "presenceState",
        Event::Joined(_) => "joined",
        Event::Left(_) => "left",
        Event::Stale(_) => "stale",
        Event::Fresh(_) => "fresh",
        Event::Reconnect { .. } => "reconnect",
    }
}

/// The event that tells a message.
fn message_name(message: &Message) -> &'static str {
    match message.payload {
        Payload::Joined(_) => "joined",
        Payload::Left(_) => "left",
        Payload::Json(_) | Payload::Text(_) | Payload::Binary(_) | Payload::Deleted => "message",
    }
}

fn write_message(message: &Message, fields: &mut Fields<'_>) {
    if let Payload::Joined(member) | Payload::Left(member) = &message.payload {
        return write_presence(&message.head.name, member, fields);
    }
    fields.utf8("topic", message.head.name.as_bytes());
    fields.number("offset", message.offset.0);
    fields.number("time", message.time_ms);
    if let Some(key) = &message.key {
        fields.string("key", key);
    }
    match &message.payload {
        Payload::Json(json) => fields.raw("data", json),
        Payload::Text(text) => fields.utf8("text", text),
        Payload::Binary(binary) => fields.string("base64", &BASE64.encode(binary)),
        Payload::Deleted => fields.raw("deleted", b"true"),
        Payload::Joined(_) | Payload::Left(_) => {}
    }
}

fn write_connected(connected: &Connected, fields: &mut Fields<'_>) {
    fields.string("connection", &connected.connection);
    fields.string("server", SERVER);
    fields.number("pingMs", connected.ping_ms.into());
    if connected.batch {
        fields.raw("batch", b"true");
    }
    write_expiry(connected.expires_ms, fields);
}

fn write_expiry(expires_ms: u64, fields: &mut Fields<'_>) {
    if expires_ms != 0 {
        fields.number("expiresMs", expires_ms);
    }
}

fn write_subscribed(subscribed: &Subscribed, fields: &mut Fields<'_>) {
    fields.string("topic", subscribed.target.as_str());
    if let Some(position) = subscribed.position {
        fields.object("position", |fields| write_position(position, fields));
    }
    if let Some(recovery) = subscribed.recovery {
        write_recovery(recovery, fields);
    }
    if !subscribed.topics.is_empty() {
        fields.array("topics", &subscribed.topics, |fields, topic| {
            fields.string("topic", topic.topic.as_str());
            if let Some(position) = topic.position {
                fields.object("position", |fields| write_position(position, fields));
            }
            write_recovery(topic.recovery, fields);
        });
    }
    if subscribed.terms.policy != Policy::All {
        write_policy(subscribed.terms.policy, fields);
    }
    if let Some(overflow) = subscribed.terms.overflow {
        fields.string("overflow", overflow.name());
    }
    if subscribed.stale {
        fields.raw("stale", b"true");
    }
}

fn write_updated(Updated { target, terms }: &Updated, fields: &mut Fields<'_>) {
    fields.string("topic", target.as_str());
    write_policy(terms.policy, fields);
    if let Terms { policy: Policy::All, overflow: Some(overflow) } = terms {
        fields.string("overflow", overflow.name());
    }
}

fn write_policy(policy: Policy, fields: &mut Fields<'_>) {
    fields.string("policy", policy.name());
    if let Policy::MaxHz(rate) = policy {
        fields.raw("maxHz", rate.to_string().as_bytes());
    }
}

fn write_recovery(recovery: Recovery, fields: &mut Fields<'_>) {
    match recovery {
        Ok(()) => fields.raw("recovered", b"true"),
        Err(reason) => {
            fields.raw("recovered", b"false");
            fields.string("reason", reason.name());
        }
    }
}

fn write_error(refusal: &Refusal, fields: &mut Fields<'_>) {
    fields.number("code", refusal.reason.code().into());
    fields.string("name", refusal.reason.name());
    fields.string("retry", refusal.reason.retry().name());
    fields.string("message", &refusal.to_string());
}

fn write_gap(gap: &Gap, fields: &mut Fields<'_>) {
    fields.string("topic", gap.topic.as_str());
    fields.number("from", gap.from);
    fields.number("to", gap.to);
    fields.number("count", gap.count());
    fields.string("reason", gap.reason.name());
}

fn write_snapshot_end(end: &SnapshotEnd, fields: &mut Fields<'_>) {
    fields.string("topic", end.target.as_str());
    fields.array("positions", &end.positions, |fields, position| {
        write_topic_position(position, fields);
    });
}

fn write_history_page(page: &HistoryPage, fields: &mut Fields<'_>) {
    fields.string("topic", page.topic.as_str());
    if let Some(top) = page.top {
        fields.object("top", |fields| write_position(top, fields));
    }
    fields.array("messages", &page.messages, |fields, message| {
        write_message(message, fields);
    });
    fields.raw("more", if page.more { b"true" } else { b"false" });
}

fn write_presence_state(state: &PresenceState, fields: &mut Fields<'_>) {
    fields.string("topic", state.topic.as_str());
    fields.number("count", state.count);
    fields.array("members", &state.members, |fields, member| write_member(member, fields));
    fields.raw("more", if state.more { b"true" } else { b"false" });
}

fn write_presence(topic: &TopicName, member: &Member, fields: &mut Fields<'_>) {
    fields.string("topic", topic.as_str());
    fields.object("member", |fields| write_member(member, fields));
}

fn write_member(member: &Member, fields: &mut Fields<'_>) {
    fields.string("connection", &member.connection);
    if let Some(name) = &member.name {
        fields.string("name", name);
    }
}

fn write_stale(stale: &Stale, fields: &mut Fields<'_>) {
    fields.string("topic", stale.topic.as_str());
    if stale.since_ms != 0 {
        fields.number("since", stale.since_ms);
    }
}

fn write_topic_position(position: &TopicPosition, fields: &mut Fields<'_>) {
    fields.string("topic", position.topic.as_str());
    write_position(position.position, fields);
}

fn write_position(position: Position, fields: &mut Fields<'_>) {
    fields.utf8("epoch", position.epoch.as_bytes());
    fields.number("offset", position.offset.0);
}
