//! The protobuf spelling of protocol v1: the messages of `proto/fanfare/v1/fanfare.proto`.
//! Owns the field numbers: commands are read and events are written field by field, right from and
//! into the bytes of a frame. The generated types (`schema`) are the tests' second opinion.
//! # Invariants: a command says a thing once, as in JSON: a field that occurs twice is refused,
//! where protobuf would have it merged; unknown fields are ignored.
//! # Not here: what fields may hold (`raw`), the wire format (`tags`), heads of frames (`frame`).

use super::raw::{
    Data, INTEGER_MAX, Number, RawCommand, RawHistory, RawNothing, RawOverflow, RawPosition,
    RawPositions, RawPublish, RawSubscribe, RawTopicPosition, RawUnsubscribe, Text,
};
use super::tags::{Fault, Field, Tags, fields};
use super::{
    BadCommand, Command, Connected, Event, Gap, HistoryPage, Overflow, Recovery, SERVER,
    SnapshotEnd, Subscribed, TopicPosition, TopicRecovery, schema,
};
use crate::reason::{Reason, Refusal, Retry};
use crate::topics::message::{Message, Payload, Position};

/// Understands one command.
pub(super) fn decode(bytes: &[u8]) -> Result<Command, BadCommand> {
    match read_command(bytes) {
        Ok(command) => command.understand(),
        Err(fault) => Err(BadCommand {
            id: find_id(bytes),
            refusal: Refusal::new(Reason::BadCommand, fault.to_string()),
        }),
    }
}

/// The id of a command that is broken elsewhere; 0 if it comes after the fault.
fn find_id(bytes: &[u8]) -> u64 {
    fields(bytes)
        .map_while(Result::ok)
        .filter(|field| field.number == 1)
        .find_map(|field| field.varint().ok().filter(|id| *id <= INTEGER_MAX))
        .unwrap_or(0)
}

fn read_command(bytes: &[u8]) -> Result<RawCommand<'_>, Fault> {
    let mut command = RawCommand::default();
    for field in fields(bytes) {
        let field = field?;
        match field.number {
            1 => field.fill(&mut command.id, read_number)?,
            2 => field.fill(&mut command.connect, read_nothing)?,
            3 => field.fill(&mut command.subscribe, read_subscribe)?,
            4 => field.fill(&mut command.unsubscribe, read_unsubscribe)?,
            6 => field.fill(&mut command.publish, read_publish)?,
            7 => field.fill(&mut command.history, read_history)?,
            10 => field.fill(&mut command.ping, read_nothing)?,
            _ => {}
        }
    }
    Ok(command)
}

fn read_nothing(field: Field<'_>) -> Result<RawNothing, Fault> {
    for inner in field.fields()? {
        inner?;
    }
    Ok(RawNothing {})
}

fn read_subscribe(field: Field<'_>) -> Result<RawSubscribe<'_>, Fault> {
    let mut subscribe = RawSubscribe::default();
    let mut positions = RawPositions::default();
    for field in field.fields()? {
        let field = field?;
        match field.number {
            1 => field.fill(&mut subscribe.topic, read_text)?,
            2 => field.fill(&mut subscribe.since, read_position)?,
            3 => field.fill(&mut subscribe.last, read_number)?,
            4 => field.fill(&mut subscribe.snapshot, read_flag)?,
            5 => field.fill(&mut subscribe.overflow, read_overflow)?,
            6 => positions.push(read_topic_position(field)?),
            _ => {}
        }
    }
    subscribe.positions = Some(positions);
    Ok(subscribe)
}

fn read_unsubscribe(field: Field<'_>) -> Result<RawUnsubscribe<'_>, Fault> {
    let mut unsubscribe = RawUnsubscribe::default();
    for field in field.fields()? {
        let field = field?;
        if field.number == 1 {
            field.fill(&mut unsubscribe.topic, read_text)?;
        }
    }
    Ok(unsubscribe)
}

fn read_publish(field: Field<'_>) -> Result<RawPublish<'_>, Fault> {
    let mut publish = RawPublish::default();
    for field in field.fields()? {
        let field = field?;
        match field.number {
            1 => field.fill(&mut publish.topic, read_text)?,
            2 => field.fill(&mut publish.data, read_data)?,
            3 => field.fill(&mut publish.text, read_text)?,
            4 => field.fill(&mut publish.binary, Field::bytes)?,
            5 => field.fill(&mut publish.key, read_text)?,
            6 => field.fill(&mut publish.idempotency_key, read_text)?,
            _ => {}
        }
    }
    Ok(publish)
}

fn read_history(field: Field<'_>) -> Result<RawHistory<'_>, Fault> {
    let mut history = RawHistory::default();
    for field in field.fields()? {
        let field = field?;
        match field.number {
            1 => field.fill(&mut history.topic, read_text)?,
            2 => field.fill(&mut history.since, read_position)?,
            3 => field.fill(&mut history.limit, read_number)?,
            _ => {}
        }
    }
    Ok(history)
}

fn read_position(field: Field<'_>) -> Result<RawPosition<'_>, Fault> {
    let mut position = RawPosition::default();
    for field in field.fields()? {
        let field = field?;
        match field.number {
            1 => field.fill(&mut position.epoch, read_text)?,
            2 => field.fill(&mut position.offset, read_number)?,
            _ => {}
        }
    }
    Ok(position)
}

fn read_topic_position(field: Field<'_>) -> Result<RawTopicPosition<'_>, Fault> {
    let mut position = RawTopicPosition::default();
    for field in field.fields()? {
        let field = field?;
        match field.number {
            1 => field.fill(&mut position.topic, read_text)?,
            2 => field.fill(&mut position.epoch, read_text)?,
            3 => field.fill(&mut position.offset, read_number)?,
            _ => {}
        }
    }
    Ok(position)
}

fn read_number(field: Field<'_>) -> Result<Number, Fault> {
    field.varint().map(|number| Number(Some(number)))
}

fn read_flag(field: Field<'_>) -> Result<bool, Fault> {
    field.varint().map(|number| number != 0)
}

fn read_text(field: Field<'_>) -> Result<Text<'_>, Fault> {
    field.text().map(|text| Text(text.into()))
}

fn read_data(field: Field<'_>) -> Result<Data<'_>, Fault> {
    field.bytes().map(Data::Bytes)
}

fn read_overflow(field: Field<'_>) -> Result<RawOverflow, Fault> {
    let number = i32::try_from(field.varint()?).ok();
    let overflow = number.and_then(|number| schema::Overflow::try_from(number).ok());
    Ok(RawOverflow(overflow.map(|overflow| match overflow {
        schema::Overflow::Unspecified => Overflow::default(),
        schema::Overflow::Gap => Overflow::Gap,
        schema::Overflow::CatchUp => Overflow::CatchUp,
        schema::Overflow::Disconnect => Overflow::Disconnect,
    })))
}

/// Appends one event.
pub(super) fn encode(id: u64, event: &Event, out: &mut Vec<u8>) {
    let mut tags = Tags::new(out);
    tags.number(1, id);
    tags.message(tag(event), |tags| match event {
        Event::Message(message) => write_message(message, tags),
        Event::Connected(connected) => write_connected(connected, tags),
        Event::Subscribed(subscribed) => write_subscribed(subscribed, tags),
        Event::Unsubscribed(target) => tags.string(1, target.as_str()),
        Event::Published(position) => {
            write_position(*position, tags);
            tags.choice(3, schema::Durability::Memory);
        }
        Event::Error(refusal) => write_error(refusal, tags),
        Event::Gap(gap) => write_gap(gap, tags),
        Event::SnapshotEnd(end) => write_snapshot_end(end, tags),
        Event::Pong | Event::Ping => {}
        Event::HistoryPage(page) => write_history_page(page, tags),
        Event::Position(position) => write_topic_position(position, tags),
    });
}

/// Appends one message push.
pub(super) fn encode_message(message: &Message, out: &mut Vec<u8>) {
    Tags::new(out).message(2, |tags| write_message(message, tags));
}

fn tag(event: &Event) -> u32 {
    match event {
        Event::Message(_) => 2,
        Event::Connected(_) => 3,
        Event::Subscribed(_) => 4,
        Event::Unsubscribed(_) => 5,
        Event::Published(_) => 7,
        Event::Error(_) => 8,
        Event::Gap(_) => 9,
        Event::SnapshotEnd(_) => 10,
        Event::Pong => 11,
        Event::Ping => 12,
        Event::HistoryPage(_) => 14,
        Event::Position(_) => 15,
    }
}

fn write_message(message: &Message, tags: &mut Tags<'_>) {
    tags.string(1, message.head.name.as_str());
    tags.number(2, message.offset.0);
    tags.number(3, message.time_ms);
    tags.string(4, message.key.as_deref().unwrap_or_default());
    match &message.payload {
        Payload::Json(json) => tags.bytes(5, json),
        Payload::Text(text) => tags.bytes(6, text),
        Payload::Binary(binary) => tags.bytes(7, binary),
        Payload::Deleted => {}
    }
}

fn write_connected(connected: &Connected, tags: &mut Tags<'_>) {
    tags.string(1, &connected.connection);
    tags.string(2, SERVER);
    tags.number(3, connected.ping_ms.into());
}

fn write_subscribed(subscribed: &Subscribed, tags: &mut Tags<'_>) {
    tags.string(1, subscribed.target.as_str());
    if let Some(position) = subscribed.position {
        tags.message(2, |tags| write_position(position, tags));
    }
    if let Some(recovery) = subscribed.recovery {
        tags.present_number(3, recovery.is_ok().into());
        tags.choice(4, failure(recovery));
    }
    for topic in &subscribed.topics {
        tags.message(5, |tags| write_topic_recovery(topic, tags));
    }
}

fn write_topic_recovery(topic: &TopicRecovery, tags: &mut Tags<'_>) {
    tags.string(1, topic.topic.as_str());
    if let Some(position) = topic.position {
        tags.message(2, |tags| write_position(position, tags));
    }
    tags.number(3, topic.recovery.is_ok().into());
    tags.choice(4, failure(topic.recovery));
}

fn failure(recovery: Recovery) -> schema::RecoveryFailure {
    match recovery {
        Err(Reason::EpochChanged) => schema::RecoveryFailure::EpochChanged,
        Err(Reason::Trimmed) => schema::RecoveryFailure::Trimmed,
        Err(Reason::Expired) => schema::RecoveryFailure::Expired,
        Err(Reason::TooMany) => schema::RecoveryFailure::TooMany,
        Err(Reason::NotAllowed) => schema::RecoveryFailure::NotAllowed,
        Err(Reason::EngineUnavailable) => schema::RecoveryFailure::EngineUnavailable,
        // A recovery fails for no other reason.
        Ok(()) | Err(_) => schema::RecoveryFailure::Unspecified,
    }
}

fn write_error(refusal: &Refusal, tags: &mut Tags<'_>) {
    tags.number(1, refusal.reason.code().into());
    tags.string(2, refusal.reason.name());
    let retry = match refusal.reason.retry() {
        Retry::Never => schema::Retry::Never,
        Retry::Later => schema::Retry::Later,
        Retry::Refresh => schema::Retry::Refresh,
        Retry::Resume => schema::Retry::Resume,
    };
    tags.choice(3, retry);
    tags.string(4, &refusal.to_string());
}

fn write_gap(gap: &Gap, tags: &mut Tags<'_>) {
    tags.string(1, gap.topic.as_str());
    tags.number(2, gap.from);
    tags.number(3, gap.to);
    tags.number(4, gap.count());
    tags.choice(5, schema::GapReason::Slow);
}

fn write_snapshot_end(end: &SnapshotEnd, tags: &mut Tags<'_>) {
    tags.string(1, end.target.as_str());
    for position in &end.positions {
        tags.message(2, |tags| write_topic_position(position, tags));
    }
}

fn write_history_page(page: &HistoryPage, tags: &mut Tags<'_>) {
    tags.string(1, page.topic.as_str());
    if let Some(top) = page.top {
        tags.message(2, |tags| write_position(top, tags));
    }
    for message in &page.messages {
        tags.message(3, |tags| write_message(message, tags));
    }
    tags.number(4, page.more.into());
}

fn write_position(position: Position, tags: &mut Tags<'_>) {
    tags.string(1, position.epoch.text().as_str());
    tags.number(2, position.offset.0);
}

fn write_topic_position(position: &TopicPosition, tags: &mut Tags<'_>) {
    tags.string(1, position.topic.as_str());
    tags.string(2, position.position.epoch.text().as_str());
    tags.number(3, position.position.offset.0);
}
