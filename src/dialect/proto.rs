//! The protobuf spelling of protocol v1: the messages of `proto/fanfare/v1/fanfare.proto`.
//! Owns the field numbers: commands are read and events are written field by field, right from and
//! into the bytes of a frame. The generated types (`schema`) are the tests' second opinion.
//! # Invariants: a command says a thing once, as in JSON: a field that occurs twice is refused,
//! where protobuf would have it merged; unknown fields are ignored.
//! # Not here: what fields may hold (`raw`), the wire format (`tags`), heads of frames (`frame`).

use super::raw::{
    Choice, Data, INTEGER_MAX, Number, PolicyWord, RawAction, RawConnect, RawHistory, RawName,
    RawNothing, RawPosition, RawPositions, RawPublish, RawRate, RawRefresh, RawSubscribe, RawTopic,
    RawTopicPosition, RawUpdate, Text, said_more_than_one, said_nothing,
};
use super::secret::Secret;
use super::tags::{Fault, Field, Tags, fields};
use super::{
    Action, BadCommand, Command, Connected, Event, Gap, GapReason, HistoryPage, Member, Overflow,
    Policy, PresenceState, Recovery, SERVER, SnapshotEnd, Stale, Subscribed, Terms, TopicPosition,
    TopicRecovery, Updated, schema,
};
use crate::reason::{Reason, Refusal, Retry};
use crate::topics::message::{Draft, Message, Payload, Position};
use crate::topics::name::TopicName;
use bytes::Bytes;

/// Understands one command.
pub(super) fn decode(bytes: &[u8]) -> Result<Command, BadCommand> {
    if let Some(command) = read_bare_publish(bytes) {
        return Ok(command);
    }
    read_command(bytes).unwrap_or_else(|fault| {
        Err(BadCommand {
            id: find_id(bytes),
            refusal: Refusal::new(Reason::BadCommand, fault.to_string()),
        })
    })
}

/// The id of a command that is broken elsewhere; 0 if it comes after the fault.
fn find_id(bytes: &[u8]) -> u64 {
    fields(bytes)
        .map_while(Result::ok)
        .filter(|field| field.number == 1)
        .find_map(|field| field.varint().ok().filter(|id| *id <= INTEGER_MAX))
        .unwrap_or(0)
}

/// The publish that publishers send most: an id, a topic and a binary payload, and nothing else, as
/// every encoder writes it. What is different in any way is left to [`read_command`], which would
/// understand the same (a test compares them) in three times the time.
fn read_bare_publish(bytes: &[u8]) -> Option<Command> {
    let mut fields = fields(bytes);
    let (id, publish) = (fields.next()?.ok()?, fields.next()?.ok()?);
    if (id.number, publish.number) != (1, 6) || fields.next().is_some() {
        return None;
    }
    let mut inner = publish.fields().ok()?;
    let (topic, payload) = (inner.next()?.ok()?, inner.next()?.ok()?);
    if (topic.number, payload.number) != (1, 4) || inner.next().is_some() {
        return None;
    }
    let id = id.varint().ok().filter(|id| *id <= INTEGER_MAX)?;
    let topic = TopicName::plain(topic.bytes().ok()?)?;
    let payload = Payload::Binary(Bytes::copy_from_slice(payload.bytes().ok()?));
    Some(Command { id, action: Action::Publish(Draft::new(topic, payload)) })
}

fn read_command(bytes: &[u8]) -> Result<Result<Command, BadCommand>, Fault> {
    let (mut id, mut said) = (None, None);
    for field in fields(bytes) {
        let field = field?;
        match field.number {
            1 => field.fill(&mut id, read_number)?,
            2..=10 if said.is_some() => return read_more(bytes),
            2..=10 => said = Some(field),
            _ => {}
        }
    }
    let Some(field) = said else { return Ok(said_nothing(id)) };
    if field.number == 6 {
        let mut publish = RawPublish::default();
        read_publish(field, &mut publish)?;
        return Ok(publish.said(id));
    }
    Ok(match field.number {
        2 => RawAction::Connect(read_connect(field)?).said(id),
        3 => RawAction::Subscribe(read_subscribe(field)?).said(id),
        4 => RawAction::Unsubscribe(read_topic(field)?).said(id),
        5 => RawAction::Update(read_update(field)?).said(id),
        7 => RawAction::History(read_history(field)?).said(id),
        8 => RawAction::Presence(read_topic(field)?).said(id),
        9 => {
            let token = read_topic(field)?.topic.map(Secret);
            RawAction::Refresh(RawRefresh { token }).said(id)
        }
        _ => RawAction::Ping(read_nothing(field)?).said(id),
    })
}

/// Refuses a command that says more than one thing, or one thing twice.
#[cold]
fn read_more(bytes: &[u8]) -> Result<Result<Command, BadCommand>, Fault> {
    let mut id = None;
    // A bit for each thing that it has said.
    let mut said: u32 = 0;
    for field in fields(bytes) {
        let field = field?;
        match field.number {
            1 => field.fill(&mut id, read_number)?,
            2..=10 if said & 1 << field.number != 0 => return Err(Fault::Twice(field.number)),
            2..=10 => {
                said |= 1 << field.number;
                field.bytes()?;
            }
            _ => {}
        }
    }
    Ok(said_more_than_one(id))
}

fn read_nothing(field: Field<'_>) -> Result<RawNothing, Fault> {
    for inner in field.fields()? {
        inner?;
    }
    Ok(RawNothing {})
}

fn read_connect(field: Field<'_>) -> Result<RawConnect<'_>, Fault> {
    let mut connect = RawConnect::default();
    for field in field.fields()? {
        let field = field?;
        match field.number {
            1 => field.fill(&mut connect.token, read_secret)?,
            2 => field.fill(&mut connect.batch, read_flag)?,
            3 => field.fill(&mut connect.name, read_text)?,
            _ => {}
        }
    }
    Ok(connect)
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
            7 => field.fill(&mut subscribe.policy, read_policy)?,
            8 => field.fill(&mut subscribe.max_hz, read_rate)?,
            9 => field.fill(&mut subscribe.presence, read_flag)?,
            _ => {}
        }
    }
    subscribe.positions = Some(positions);
    Ok(subscribe)
}

/// Reads a command whose only field is a text, a topic or a token.
fn read_topic(field: Field<'_>) -> Result<RawTopic<'_>, Fault> {
    let mut named = RawTopic::default();
    for field in field.fields()? {
        let field = field?;
        if field.number == 1 {
            field.fill(&mut named.topic, read_text)?;
        }
    }
    Ok(named)
}

fn read_update(field: Field<'_>) -> Result<RawUpdate<'_>, Fault> {
    let mut update = RawUpdate::default();
    for field in field.fields()? {
        let field = field?;
        match field.number {
            1 => field.fill(&mut update.topic, read_text)?,
            5 => field.fill(&mut update.overflow, read_overflow)?,
            7 => field.fill(&mut update.policy, read_policy)?,
            8 => field.fill(&mut update.max_hz, read_rate)?,
            _ => {}
        }
    }
    Ok(update)
}

/// Reads into `publish`, which is empty and too large to be moved about.
fn read_publish<'a>(field: Field<'a>, publish: &mut RawPublish<'a>) -> Result<(), Fault> {
    for field in field.fields()? {
        let field = field?;
        match field.number {
            1 => field.fill(&mut publish.topic, read_name)?,
            2 => field.fill(&mut publish.data, read_data)?,
            3 => field.fill(&mut publish.text, read_text)?,
            4 => field.fill(&mut publish.binary, Field::bytes)?,
            5 => field.fill(&mut publish.key, read_text)?,
            6 => field.fill(&mut publish.idempotency_key, read_text)?,
            7 => field.fill(&mut publish.delete, read_flag)?,
            8 => field.fill(&mut publish.ttl_ms, read_number)?,
            _ => {}
        }
    }
    Ok(())
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

fn read_secret(field: Field<'_>) -> Result<Secret<'_>, Fault> {
    read_text(field).map(Secret)
}

fn read_name(field: Field<'_>) -> Result<RawName<'_>, Fault> {
    match TopicName::plain(field.bytes()?) {
        Some(name) => Ok(RawName::Known(name)),
        None => read_text(field).map(RawName::Text),
    }
}

fn read_data(field: Field<'_>) -> Result<Data<'_>, Fault> {
    field.bytes().map(Data::Bytes)
}

fn read_rate(field: Field<'_>) -> Result<RawRate, Fault> {
    field.double().map(RawRate)
}

fn read_overflow(field: Field<'_>) -> Result<Choice<Overflow>, Fault> {
    Ok(match read_choice(field)? {
        None => Choice::Unknown,
        Some(schema::Overflow::Unspecified) => Choice::Open,
        Some(schema::Overflow::CatchUp) => Choice::Known(Overflow::CatchUp),
        Some(schema::Overflow::Gap) => Choice::Known(Overflow::Gap),
        Some(schema::Overflow::Disconnect) => Choice::Known(Overflow::Disconnect),
    })
}

fn read_policy(field: Field<'_>) -> Result<Choice<PolicyWord>, Fault> {
    Ok(match read_choice(field)? {
        None => Choice::Unknown,
        Some(schema::Policy::Unspecified) => Choice::Open,
        Some(schema::Policy::All) => Choice::Known(PolicyWord::All),
        Some(schema::Policy::Latest) => Choice::Known(PolicyWord::Latest),
        Some(schema::Policy::MaxHz) => Choice::Known(PolicyWord::MaxHz),
    })
}

/// A value of an enumeration of the schema, if it is one that the schema has.
fn read_choice<T: TryFrom<i32>>(field: Field<'_>) -> Result<Option<T>, Fault> {
    let number = i32::try_from(field.varint()?).ok();
    Ok(number.and_then(|number| T::try_from(number).ok()))
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
        Event::Ended(ended) => {
            tags.string(1, ended.target.as_str());
            tags.string(2, ended.reason.name());
        }
        Event::Refreshed(refreshed) => tags.number(1, refreshed.expires_ms),
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
        Event::Updated(updated) => write_updated(updated, tags),
        Event::PresenceState(state) => write_presence_state(state, tags),
        Event::Joined(change) | Event::Left(change) => {
            write_presence(&change.topic, &change.member, tags);
        }
        Event::Stale(stale) => write_stale(stale, tags),
        Event::Fresh(topic) => tags.string(1, topic.as_str()),
        Event::Reconnect { after_ms } => tags.number(1, (*after_ms).into()),
    });
}

/// Appends one message push.
pub(super) fn encode_message(message: &Message, out: &mut Vec<u8>) {
    let variable = message.payload.bytes().len() + message.head.name.as_bytes().len();
    let about = variable + FIXED_BYTES;
    Tags::new(out).long_message(message_tag(message), about, |tags| write_message(message, tags));
}

/// About what tags, lengths and numbers of a message take.
const FIXED_BYTES: usize = 16;

fn tag(event: &Event) -> u32 {
    match event {
        Event::Message(message) => message_tag(message),
        Event::Connected(_) => 3,
        Event::Subscribed(_) => 4,
        Event::Unsubscribed(_) | Event::Ended(_) => 5,
        Event::Published(_) => 7,
        Event::Error(_) => 8,
        Event::Gap(_) => 9,
        Event::SnapshotEnd(_) => 10,
        Event::Pong => 11,
        Event::Ping => 12,
        Event::Reconnect { .. } => 13,
        Event::HistoryPage(_) => 14,
        Event::Position(_) => 15,
        Event::Updated(_) => 6,
        Event::PresenceState(_) => 16,
        Event::Joined(_) => JOINED,
        Event::Left(_) => LEFT,
        Event::Stale(_) => 19,
        Event::Fresh(_) => 20,
        Event::Refreshed(_) => 21,
    }
}

const JOINED: u32 = 17;
const LEFT: u32 = 18;

/// The event that tells a message.
fn message_tag(message: &Message) -> u32 {
    match message.payload {
        Payload::Joined(_) => JOINED,
        Payload::Left(_) => LEFT,
        Payload::Json(_) | Payload::Text(_) | Payload::Binary(_) | Payload::Deleted => 2,
    }
}

fn write_message(message: &Message, tags: &mut Tags<'_>) {
    if let Payload::Joined(member) | Payload::Left(member) = &message.payload {
        return write_presence(&message.head.name, member, tags);
    }
    tags.bytes(1, message.head.name.as_bytes());
    tags.number(2, message.offset.0);
    tags.number(3, message.time_ms);
    tags.string(4, message.key.as_deref().unwrap_or_default());
    match &message.payload {
        Payload::Json(json) => tags.bytes(5, json),
        Payload::Text(text) => tags.bytes(6, text),
        Payload::Binary(binary) => tags.bytes(7, binary),
        Payload::Deleted => tags.number(8, 1),
        Payload::Joined(_) | Payload::Left(_) => {}
    }
}

fn write_connected(connected: &Connected, tags: &mut Tags<'_>) {
    tags.string(1, &connected.connection);
    tags.string(2, SERVER);
    tags.number(3, connected.ping_ms.into());
    tags.number(4, connected.batch.into());
    tags.number(5, connected.expires_ms);
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
    // Every message is what a subscription gives unless it says otherwise.
    if subscribed.terms.policy != Policy::All {
        write_policy(6, subscribed.terms.policy, tags);
    }
    if let Some(overflow) = subscribed.terms.overflow {
        tags.choice(8, said_overflow(overflow));
    }
    tags.number(9, subscribed.stale.into());
}

fn write_updated(Updated { target, terms }: &Updated, tags: &mut Tags<'_>) {
    tags.string(1, target.as_str());
    write_policy(2, terms.policy, tags);
    if let Terms { policy: Policy::All, overflow: Some(overflow) } = terms {
        tags.choice(4, said_overflow(*overflow));
    }
}

/// Writes a policy and, into the field after it, its rate.
fn write_policy(field: u32, policy: Policy, tags: &mut Tags<'_>) {
    match policy {
        Policy::All => tags.choice(field, schema::Policy::All),
        Policy::Latest => tags.choice(field, schema::Policy::Latest),
        Policy::MaxHz(rate) => {
            tags.choice(field, schema::Policy::MaxHz);
            tags.double(field + 1, rate.hz());
        }
    }
}

fn said_overflow(overflow: Overflow) -> schema::Overflow {
    match overflow {
        Overflow::CatchUp => schema::Overflow::CatchUp,
        Overflow::Gap => schema::Overflow::Gap,
        Overflow::Disconnect => schema::Overflow::Disconnect,
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
    let reason = match gap.reason {
        GapReason::Slow => schema::GapReason::Slow,
        GapReason::Trimmed => schema::GapReason::Trimmed,
        GapReason::Expired => schema::GapReason::Expired,
    };
    tags.choice(5, reason);
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

fn write_presence_state(state: &PresenceState, tags: &mut Tags<'_>) {
    tags.string(1, state.topic.as_str());
    tags.number(2, state.count);
    for member in &state.members {
        tags.message(3, |tags| write_member(member, tags));
    }
    tags.number(4, state.more.into());
}

fn write_presence(topic: &TopicName, member: &Member, tags: &mut Tags<'_>) {
    tags.string(1, topic.as_str());
    tags.message(2, |tags| write_member(member, tags));
}

fn write_member(member: &Member, tags: &mut Tags<'_>) {
    tags.string(1, &member.connection);
    tags.string(2, member.name.as_deref().unwrap_or_default());
}

fn write_stale(stale: &Stale, tags: &mut Tags<'_>) {
    tags.string(1, stale.topic.as_str());
    tags.number(2, stale.since_ms);
}

fn write_position(position: Position, tags: &mut Tags<'_>) {
    tags.bytes(1, position.epoch.as_bytes());
    tags.number(2, position.offset.0);
}

fn write_topic_position(position: &TopicPosition, tags: &mut Tags<'_>) {
    tags.string(1, position.topic.as_str());
    tags.bytes(2, position.position.epoch.as_bytes());
    tags.number(3, position.position.offset.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    proptest! {
        #[test]
        fn a_bare_publish_is_understood_as_any_other(
            id in prop_oneof![0..300_u64, Just(INTEGER_MAX), any::<u64>()],
            topic in "[a-c.$>]{0,8}|[a-c]{1,40}",
            binary in prop::collection::vec(any::<u8>(), 0..200),
            key in "|k",
            cut in any::<prop::sample::Index>(),
        ) {
            let payload = Some(schema::publish::Payload::Binary(binary.into()));
            let publish = schema::Publish { topic, payload, key, ..Default::default() };
            let action = Some(schema::command::Action::Publish(publish));
            let mut bytes = schema::Command { id, action }.encode_to_vec();
            let long = read_command(&bytes);
            if let Some(short) = read_bare_publish(&bytes) {
                prop_assert_eq!(long, Ok(Ok(short)));
            } else {
                // What is refused, or has more or less than a bare one.
                let is_command = matches!(long, Ok(Ok(Command { id: 1.., ref action }))
                    if !matches!(action, Action::Publish(Draft { key: Some(_), .. })));
                prop_assert!(!is_command, "{:?}", long);
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Some(short) = read_bare_publish(&bytes) {
                prop_assert_eq!(read_command(&bytes), Ok(Ok(short)));
            }
        }
    }
}
