//! The protobuf spelling, as a client sees it: by the generated types alone.
//! # Not here: frames (`spelling`).

use super::Heard;
use crate::history::{
    Command, Content, Event, Gap, GapReason, Member, Message, Overflow, Page, Payload, Policy,
    Position, Publish, Recovery, Roster, Subscribe, Subscribed, TopicPosition, Update, Updated,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fanfare::dialect::schema::{self, command::Action, event::Body, message, publish};
use prost::Message as _;

pub(super) fn encode(id: u64, command: &Command) -> Vec<u8> {
    let action = match command {
        Command::Connect { name, batch } => Action::Connect(schema::Connect {
            name: name.clone(),
            batch: *batch,
            ..Default::default()
        }),
        Command::Ping {} => Action::Ping(schema::Ping {}),
        Command::Unsubscribe { topic } => {
            Action::Unsubscribe(schema::Unsubscribe { topic: topic.clone() })
        }
        Command::Presence { topic } => Action::Presence(schema::Presence { topic: topic.clone() }),
        Command::Update(Update { topic, overflow, policy }) => {
            let (policy, max_hz) = policy.map_or((0, None), spell_policy);
            let (topic, overflow) = (topic.clone(), spell_overflow(*overflow));
            Action::Update(schema::Update { topic, overflow, policy, max_hz })
        }
        Command::Subscribe(subscribe) => Action::Subscribe(spell_subscribe(subscribe)),
        Command::History(query) => Action::History(schema::History {
            topic: query.topic.clone(),
            since: query.since.as_ref().map(spell_position),
            limit: query.limit,
        }),
        Command::Publish(publish) => Action::Publish(spell_publish(publish)),
    };
    schema::Command { id, action: Some(action) }.encode_to_vec()
}

fn spell_publish(publish: &Publish) -> schema::Publish {
    let payload = match &publish.content.payload {
        Payload::Data(data) => Some(publish::Payload::Data(data.clone().into())),
        Payload::Text(text) => Some(publish::Payload::Text(text.clone())),
        Payload::Base64(text) => {
            let bytes = BASE64.decode(text).expect("our own base64");
            Some(publish::Payload::Binary(bytes.into()))
        }
        Payload::Deleted => None,
    };
    schema::Publish {
        topic: publish.topic.clone(),
        delete: payload.is_none(),
        payload,
        key: publish.content.key.clone(),
        idempotency_key: publish.idempotency_key.clone(),
        ttl_ms: publish.ttl_ms,
    }
}

fn spell_overflow(overflow: Option<Overflow>) -> i32 {
    let overflow = match overflow {
        None => schema::Overflow::Unspecified,
        Some(Overflow::CatchUp) => schema::Overflow::CatchUp,
        Some(Overflow::Gap) => schema::Overflow::Gap,
        Some(Overflow::Disconnect) => schema::Overflow::Disconnect,
    };
    overflow.into()
}

fn spell_policy(policy: Policy) -> (i32, Option<f64>) {
    match policy {
        Policy::All => (schema::Policy::All.into(), None),
        Policy::Latest => (schema::Policy::Latest.into(), None),
        Policy::MaxHz(hz) => (schema::Policy::MaxHz.into(), Some(hz)),
    }
}

fn spell_subscribe(subscribe: &Subscribe) -> schema::Subscribe {
    let spell = |TopicPosition { topic, position }: &TopicPosition| schema::TopicPosition {
        topic: topic.clone(),
        epoch: position.epoch.clone(),
        offset: position.offset,
    };
    let (policy, max_hz) = match subscribe.policy {
        Policy::All => (0, None),
        other => spell_policy(other),
    };
    schema::Subscribe {
        topic: subscribe.topic.clone(),
        since: subscribe.since.as_ref().map(spell_position),
        last: subscribe.last,
        snapshot: subscribe.snapshot,
        overflow: spell_overflow(subscribe.overflow),
        policy,
        max_hz,
        presence: subscribe.presence,
        positions: subscribe.positions.iter().map(spell).collect(),
    }
}

fn spell_position(position: &Position) -> schema::Position {
    schema::Position { epoch: position.epoch.clone(), offset: position.offset }
}

pub(super) fn decode(body: &[u8]) -> Result<Heard, String> {
    let schema::Event { id, body } =
        schema::Event::decode(body).map_err(|error| error.to_string())?;
    let body = body.ok_or("an event without a body")?;
    Ok(Heard::Event(id, event(body)?))
}

fn event(body: Body) -> Result<Event, String> {
    Ok(match body {
        Body::Message(spelled) => Event::Message(message(spelled)?),
        Body::Connected(schema::Connected { connection, batch, .. }) => {
            Event::Connected { connection, batch }
        }
        Body::Subscribed(spelled) => Event::Subscribed(subscribed(spelled)?),
        Body::Unsubscribed(schema::Unsubscribed { topic, .. }) => Event::Unsubscribed { topic },
        Body::Published(published) => {
            if published.durability() != schema::Durability::Memory {
                return Err(format!("durability is {}", published.durability));
            }
            Event::Published(Position { epoch: published.epoch, offset: published.offset })
        }
        Body::Error(schema::Error { name, .. }) => Event::Error { name },
        Body::Gap(spelled) => Event::Gap(gap(spelled)?),
        Body::Updated(spelled) => {
            let policy = policy(spelled.policy, spelled.max_hz)?;
            let overflow = overflow(spelled.overflow)?;
            Event::Updated(Updated { topic: spelled.topic, policy, overflow })
        }
        Body::PresenceState(spelled) => {
            let schema::PresenceState { topic, count, members, more } = spelled;
            let members =
                members.into_iter().map(|who| member(Some(who))).collect::<Result<_, _>>()?;
            Event::PresenceState { topic, roster: Roster { count, members, more } }
        }
        Body::Joined(schema::Joined { topic, member: who }) => {
            Event::Joined { topic, member: member(who)? }
        }
        Body::Left(schema::Left { topic, member: who }) => {
            Event::Left { topic, member: member(who)? }
        }
        Body::Stale(schema::Stale { topic, since }) => Event::Stale { topic, since },
        Body::Fresh(schema::Fresh { topic }) => Event::Fresh { topic },
        Body::SnapshotEnd(schema::SnapshotEnd { topic, positions }) => {
            let positions = positions.into_iter().map(topic_position).collect();
            Event::SnapshotEnd { topic, positions }
        }
        Body::Reconnect(_) => return Err("a farewell of a broker that stays".to_owned()),
        Body::Refreshed(_) => return Err("a refresh that nobody asked for".to_owned()),
        Body::Pong(_) => Event::Pong {},
        Body::Ping(_) => Event::Ping {},
        Body::HistoryPage(schema::HistoryPage { topic, top, messages, more }) => {
            let messages = messages.into_iter().map(message).collect::<Result<_, _>>()?;
            Event::HistoryPage(Page { topic, top: top.map(position), messages, more })
        }
        Body::Position(spelled) => Event::Position(topic_position(spelled)),
    })
}

fn gap(spelled: schema::Gap) -> Result<Gap, String> {
    let reason = match spelled.reason() {
        schema::GapReason::Slow => GapReason::Slow,
        schema::GapReason::Trimmed => GapReason::Trimmed,
        schema::GapReason::Expired => GapReason::Expired,
        schema::GapReason::Unspecified => return Err("a gap has no reason".into()),
    };
    let schema::Gap { topic, from, to, count, .. } = spelled;
    Ok(Gap { topic, from, to, count, reason })
}

fn policy(number: i32, max_hz: Option<f64>) -> Result<Policy, String> {
    match (schema::Policy::try_from(number), max_hz) {
        (Ok(schema::Policy::Unspecified | schema::Policy::All), None) => Ok(Policy::All),
        (Ok(schema::Policy::Latest), None) => Ok(Policy::Latest),
        (Ok(schema::Policy::MaxHz), Some(hz)) => Ok(Policy::MaxHz(hz)),
        other => Err(format!("{other:?} is no policy")),
    }
}

fn overflow(number: i32) -> Result<Option<Overflow>, String> {
    let overflow = schema::Overflow::try_from(number).map_err(|error| error.to_string())?;
    Ok(match overflow {
        schema::Overflow::Unspecified => None,
        schema::Overflow::CatchUp => Some(Overflow::CatchUp),
        schema::Overflow::Gap => Some(Overflow::Gap),
        schema::Overflow::Disconnect => Some(Overflow::Disconnect),
    })
}

fn member(spelled: Option<schema::Member>) -> Result<Member, String> {
    let schema::Member { connection, name } = spelled.ok_or("nobody comes or goes")?;
    Ok(Member { connection, name })
}

fn message(spelled: schema::Message) -> Result<Message, String> {
    let schema::Message { topic, offset, time, key, payload, deleted } = spelled;
    let payload = match (payload, deleted) {
        (Some(message::Payload::Data(data)), false) => {
            Payload::Data(String::from_utf8(data.to_vec()).map_err(|error| error.to_string())?)
        }
        (Some(message::Payload::Text(text)), false) => Payload::Text(text),
        (Some(message::Payload::Binary(bytes)), false) => Payload::Base64(BASE64.encode(bytes)),
        (None, true) => Payload::Deleted,
        _ => return Err(format!("message {offset} of `{topic}` has not one payload")),
    };
    Ok(Message { topic, offset, time, content: Content { key, payload } })
}

fn subscribed(spelled: schema::Subscribed) -> Result<Subscribed, String> {
    let reason = failure(spelled.reason)?;
    let recovery = |spelled: schema::TopicRecovery| {
        Ok(Recovery {
            topic: spelled.topic,
            position: spelled.position.map(position),
            recovered: spelled.recovered,
            reason: failure(spelled.reason)?,
        })
    };
    Ok(Subscribed {
        topic: spelled.topic,
        position: spelled.position.map(position),
        recovered: spelled.recovered,
        reason,
        topics: spelled.topics.into_iter().map(recovery).collect::<Result<_, String>>()?,
        policy: policy(spelled.policy, spelled.max_hz)?,
        overflow: overflow(spelled.overflow)?,
        stale: spelled.stale,
    })
}

/// The name that the JSON spelling has for it.
fn failure(number: i32) -> Result<String, String> {
    use schema::RecoveryFailure as Failure;
    let failure = Failure::try_from(number).map_err(|error| error.to_string())?;
    let name = match failure {
        Failure::Unspecified => "",
        Failure::EpochChanged => "epochChanged",
        Failure::Trimmed => "trimmed",
        Failure::Expired => "expired",
        Failure::TooMany => "tooMany",
        Failure::NotAllowed => "notAllowed",
        Failure::EngineUnavailable => "engineUnavailable",
    };
    Ok(name.into())
}

fn position(spelled: schema::Position) -> Position {
    Position { epoch: spelled.epoch, offset: spelled.offset }
}

fn topic_position(spelled: schema::TopicPosition) -> TopicPosition {
    let schema::TopicPosition { topic, epoch, offset } = spelled;
    TopicPosition { topic, position: Position { epoch, offset } }
}
