//! The protobuf spelling, as a client sees it: by the generated types alone.
//! # Not here: frames (`spelling`).

use super::Heard;
use crate::history::{
    Command, Content, Event, Gap, Message, Overflow, Page, Payload, Position, Recovery, Subscribe,
    Subscribed, TopicPosition,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fanfare::dialect::schema::{self, command::Action, event::Body, message, publish};
use prost::Message as _;

pub(super) fn encode(id: u64, command: &Command) -> Vec<u8> {
    let action = match command {
        Command::Connect {} => Action::Connect(schema::Connect::default()),
        Command::Ping {} => Action::Ping(schema::Ping {}),
        Command::Unsubscribe { topic } => {
            Action::Unsubscribe(schema::Unsubscribe { topic: topic.clone() })
        }
        Command::Subscribe(subscribe) => Action::Subscribe(spell_subscribe(subscribe)),
        Command::History(query) => Action::History(schema::History {
            topic: query.topic.clone(),
            since: query.since.as_ref().map(spell_position),
            limit: query.limit,
        }),
        Command::Publish(publish) => {
            let payload = match &publish.content.payload {
                Payload::Data(data) => publish::Payload::Data(data.clone().into()),
                Payload::Text(text) => publish::Payload::Text(text.clone()),
                Payload::Base64(text) => {
                    publish::Payload::Binary(BASE64.decode(text).expect("our own base64").into())
                }
            };
            Action::Publish(schema::Publish {
                topic: publish.topic.clone(),
                payload: Some(payload),
                key: publish.content.key.clone(),
                idempotency_key: publish.idempotency_key.clone(),
                ..Default::default()
            })
        }
    };
    schema::Command { id, action: Some(action) }.encode_to_vec()
}

fn spell_subscribe(subscribe: &Subscribe) -> schema::Subscribe {
    let spell = |TopicPosition { topic, position }: &TopicPosition| schema::TopicPosition {
        topic: topic.clone(),
        epoch: position.epoch.clone(),
        offset: position.offset,
    };
    let overflow = match subscribe.overflow {
        Overflow::Gap => schema::Overflow::Gap,
        Overflow::Disconnect => schema::Overflow::Disconnect,
    };
    schema::Subscribe {
        topic: subscribe.topic.clone(),
        since: subscribe.since.as_ref().map(spell_position),
        last: subscribe.last,
        snapshot: subscribe.snapshot,
        overflow: overflow.into(),
        positions: subscribe.positions.iter().map(spell).collect(),
        ..Default::default()
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
        Body::Connected(_) => Event::Connected {},
        Body::Subscribed(spelled) => Event::Subscribed(subscribed(spelled)?),
        Body::Unsubscribed(schema::Unsubscribed { topic }) => Event::Unsubscribed { topic },
        Body::Published(published) => {
            if published.durability() != schema::Durability::Memory {
                return Err(format!("durability is {}", published.durability));
            }
            Event::Published(Position { epoch: published.epoch, offset: published.offset })
        }
        Body::Error(schema::Error { name, .. }) => Event::Error { name },
        Body::Gap(gap) => {
            if gap.reason() != schema::GapReason::Slow {
                return Err(format!("the reason of a gap is {}", gap.reason));
            }
            let schema::Gap { topic, from, to, count, .. } = gap;
            Event::Gap(Gap { topic, from, to, count })
        }
        Body::SnapshotEnd(schema::SnapshotEnd { topic, positions }) => {
            let positions = positions.into_iter().map(topic_position).collect();
            Event::SnapshotEnd { topic, positions }
        }
        Body::Pong(_) => Event::Pong {},
        Body::Ping(_) => Event::Ping {},
        Body::HistoryPage(schema::HistoryPage { topic, top, messages, more }) => {
            let messages = messages.into_iter().map(message).collect::<Result<_, _>>()?;
            Event::HistoryPage(Page { topic, top: top.map(position), messages, more })
        }
        Body::Position(spelled) => Event::Position(topic_position(spelled)),
        other => return Err(format!("nobody asked for {other:?}")),
    })
}

fn message(spelled: schema::Message) -> Result<Message, String> {
    let schema::Message { topic, offset, time, key, payload, deleted: _ } = spelled;
    let payload = match payload {
        Some(message::Payload::Data(data)) => {
            Payload::Data(String::from_utf8(data.to_vec()).map_err(|error| error.to_string())?)
        }
        Some(message::Payload::Text(text)) => Payload::Text(text),
        Some(message::Payload::Binary(bytes)) => Payload::Base64(BASE64.encode(bytes)),
        None => return Err(format!("message {offset} of `{topic}` has no payload")),
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
