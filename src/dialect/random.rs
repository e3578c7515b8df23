//! Commands made by chance: what is said in either spelling is understood, and what is broken is
//! refused without harm.
//! Owns the encoders of commands, which only clients need.
//! # Not here: the meaning of each command (`table`).

use super::schema::{self, command::Action as Said, publish::Payload as Load};
use super::{
    Action, BadCommand, Command, Connect, Dialect, History, Overflow, Policy, Subscribe, Token,
    TopicPosition, Update,
};
use crate::topics::message::{Draft, Epoch, Offset, Payload, Position};
use crate::topics::name::{Target, TopicName};
use crate::topics::terms::Rate;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};
use std::time::Duration;

const INTEGER_MAX: u64 = (1 << 53) - 1;

fn any_topic() -> impl Strategy<Value = TopicName> {
    "[a-z0-9_:@=~/-]{1,6}(\\.[A-Z]{1,4}){0,3}"
        .prop_map(|raw| TopicName::parse(&raw).expect("valid"))
}

fn any_filter() -> impl Strategy<Value = Target> {
    "(\\*|[a-z]{1,3}\\.\\*)(\\.[a-z]{1,3}){0,2}(\\.>)?"
        .prop_map(|raw| Target::parse(&raw).expect("valid"))
}

fn any_position() -> impl Strategy<Value = Position> {
    (any::<u128>(), prop_oneof![0..=INTEGER_MAX, 0..300_u64]).prop_map(|(bits, offset)| Position {
        epoch: Epoch::from_bits(bits),
        offset: Offset(offset),
    })
}

fn any_key() -> impl Strategy<Value = Option<Box<str>>> {
    let text = prop_oneof!["[\\x00-\\x7f]{1,255}", "\\PC{1,60}"];
    proptest::option::of(text.prop_map(String::into_boxed_str))
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn any_payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        any_value().prop_map(|value| Payload::Json(value.to_string().into())),
        any::<String>().prop_map(|text| Payload::Text(text.into())),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Payload::Binary(bytes.into())),
    ]
}

fn any_subscribe() -> impl Strategy<Value = Subscribe> {
    let topic_position = (any_topic(), any_position())
        .prop_map(|(topic, position)| TopicPosition { topic, position });
    let place = prop_oneof![
        (any_topic().prop_map(Target::Topic), proptest::option::of(any_position()), Just(vec![])),
        (any_filter(), Just(None), vec(topic_position, 0..4)),
    ];
    let first = prop_oneof![any::<u32>().prop_map(|last| (last, false)), Just((0, true)),];
    (place, first, any_policy(), any_overflow(), any::<bool>()).prop_map(
        |((target, since, positions), (last, snapshot), policy, overflow, presence)| {
            let presence = presence && matches!(target, Target::Topic(_));
            Subscribe {
                target,
                since,
                last,
                snapshot,
                policy,
                overflow,
                positions,
                presence,
                kept: None,
            }
        },
    )
}

fn any_policy() -> impl Strategy<Value = Option<Policy>> {
    let rate = (10..=1_000_000_u32).prop_map(|millihertz| {
        Policy::MaxHz(Rate::from_hz(f64::from(millihertz) / 1_000.0).expect("a rate"))
    });
    proptest::option::of(prop_oneof![Just(Policy::All), Just(Policy::Latest), rate])
}

fn any_overflow() -> impl Strategy<Value = Option<Overflow>> {
    let words = [Overflow::CatchUp, Overflow::Gap, Overflow::Disconnect];
    proptest::option::of(proptest::sample::select(words.to_vec()))
}

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![any_topic().prop_map(Target::Topic), any_filter()]
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let ttl = prop_oneof![1..100_u64, 1..=2_592_000_000_u64].prop_map(Duration::from_millis);
    let said = prop_oneof![
        4 => (any_payload(), any_key()),
        1 => "\\PC{1,60}".prop_map(|key| (Payload::Deleted, Some(key.into()))),
    ];
    (any_topic(), said, any_key(), proptest::option::of(ttl)).prop_map(
        |(topic, (payload, key), idempotency_key, ttl)| Draft {
            topic,
            payload,
            key,
            idempotency_key,
            ttl,
        },
    )
}

fn any_token() -> impl Strategy<Value = Token> {
    "\\PC{1,16}".prop_map(Token::new)
}

fn any_command() -> impl Strategy<Value = Command> {
    let history = (any_topic(), proptest::option::of(any_position()), any::<u32>())
        .prop_map(|(topic, since, limit)| History { topic, since, limit });
    let name = proptest::option::of("\\PC{1,16}".prop_map(String::into_boxed_str));
    let update = (any_target(), any_policy(), any_overflow())
        .prop_map(|(target, policy, overflow)| Update { target, policy, overflow });
    let action = prop_oneof![
        (name, any::<bool>(), proptest::option::of(any_token()))
            .prop_map(|(name, batch, token)| { Action::Connect(Connect { name, batch, token }) }),
        any_token().prop_map(Action::Refresh),
        any_subscribe().prop_map(|subscribe| Action::Subscribe(subscribe.into())),
        any_target().prop_map(Action::Unsubscribe),
        update.prop_map(Action::Update),
        any_draft().prop_map(Action::Publish),
        history.prop_map(Action::History),
        any_topic().prop_map(Action::Presence),
        Just(Action::Ping),
    ];
    (prop_oneof![0..=INTEGER_MAX, 0..300_u64], action)
        .prop_map(|(id, action)| Command { id, action })
}

fn in_json(command: &Command) -> Vec<u8> {
    let place = |position: &Position| json!({"epoch": position.epoch.to_string(), "offset": position.offset.0});
    let action = match &command.action {
        Action::Connect(connect) => {
            let token = connect.token.as_ref().map(Token::reveal);
            json!({"connect": {"name": connect.name, "batch": connect.batch, "token": token}})
        }
        Action::Subscribe(subscribe) => json!({"subscribe": {
            "topic": subscribe.target.as_str(),
            "since": subscribe.since.as_ref().map(place),
            "last": subscribe.last,
            "snapshot": subscribe.snapshot,
            "policy": subscribe.policy.map(Policy::name),
            "maxHz": rate(subscribe.policy),
            "overflow": subscribe.overflow.map(Overflow::name),
            "presence": subscribe.presence,
            "positions": subscribe.positions.iter().map(|place| json!({
                "topic": place.topic.as_str(),
                "epoch": place.position.epoch.to_string(),
                "offset": place.position.offset.0,
            })).collect::<Vec<_>>(),
        }}),
        Action::Refresh(token) => json!({"refresh": {"token": token.reveal()}}),
        Action::Unsubscribe(target) => json!({"unsubscribe": {"topic": target.as_str()}}),
        Action::Update(update) => json!({"update": {
            "topic": update.target.as_str(),
            "policy": update.policy.map(Policy::name),
            "maxHz": rate(update.policy),
            "overflow": update.overflow.map(Overflow::name),
        }}),
        Action::Publish(draft) => {
            let (name, payload) = match &draft.payload {
                Payload::Json(json) => ("data", serde_json::from_slice(json).expect("JSON")),
                Payload::Text(text) => ("text", json!(std::str::from_utf8(text).expect("UTF-8"))),
                Payload::Binary(binary) => ("base64", json!(BASE64.encode(binary))),
                Payload::Deleted => ("delete", json!(true)),
                Payload::Joined(_) | Payload::Left(_) => unreachable!("nobody says it"),
            };
            json!({"publish": {
                "topic": draft.topic.as_str(),
                "key": draft.key,
                "idempotencyKey": draft.idempotency_key,
                "ttlMs": draft.ttl.map(millis),
                name: payload,
            }})
        }
        Action::History(history) => json!({"history": {
            "topic": history.topic.as_str(),
            "since": history.since.as_ref().map(place),
            "limit": history.limit,
        }}),
        Action::Presence(topic) => json!({"presence": {"topic": topic.as_str()}}),
        Action::Ping => json!({"ping": {}}),
    };
    let mut command_object = action;
    command_object["id"] = command.id.into();
    command_object.to_string().into_bytes()
}

fn rate(policy: Option<Policy>) -> Option<f64> {
    match policy {
        Some(Policy::MaxHz(rate)) => Some(rate.hz()),
        Some(Policy::All | Policy::Latest) | None => None,
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).expect("at most 30 days")
}

fn said_policy(policy: Option<Policy>) -> i32 {
    match policy {
        None => schema::Policy::Unspecified,
        Some(Policy::All) => schema::Policy::All,
        Some(Policy::Latest) => schema::Policy::Latest,
        Some(Policy::MaxHz(_)) => schema::Policy::MaxHz,
    }
    .into()
}

fn said_overflow(overflow: Option<Overflow>) -> i32 {
    match overflow {
        None => schema::Overflow::Unspecified,
        Some(Overflow::CatchUp) => schema::Overflow::CatchUp,
        Some(Overflow::Gap) => schema::Overflow::Gap,
        Some(Overflow::Disconnect) => schema::Overflow::Disconnect,
    }
    .into()
}

fn said_publish(draft: &Draft) -> schema::Publish {
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().to_owned();
    schema::Publish {
        topic: draft.topic.to_string(),
        payload: match draft.payload.clone() {
            Payload::Json(json) => Some(Load::Data(json)),
            Payload::Text(text) => Some(Load::Text(String::from_utf8(text.into()).expect("UTF-8"))),
            Payload::Binary(binary) => Some(Load::Binary(binary)),
            Payload::Deleted => None,
            Payload::Joined(_) | Payload::Left(_) => unreachable!("nobody says it"),
        },
        key: text(&draft.key),
        idempotency_key: text(&draft.idempotency_key),
        delete: draft.payload == Payload::Deleted,
        ttl_ms: draft.ttl.map_or(0, millis),
    }
}

fn in_proto(command: &Command) -> Vec<u8> {
    let place = |position: &Position| schema::Position {
        epoch: position.epoch.to_string(),
        offset: position.offset.0,
    };
    let action = match &command.action {
        Action::Connect(connect) => Said::Connect(schema::Connect {
            name: connect.name.as_deref().unwrap_or_default().to_owned(),
            batch: connect.batch,
            token: connect.token.as_ref().map(Token::reveal).unwrap_or_default().to_owned(),
        }),
        Action::Refresh(token) => Said::Refresh(schema::Refresh { token: token.reveal().into() }),
        Action::Subscribe(subscribe) => Said::Subscribe(schema::Subscribe {
            topic: subscribe.target.to_string(),
            since: subscribe.since.as_ref().map(place),
            last: subscribe.last,
            snapshot: subscribe.snapshot,
            policy: said_policy(subscribe.policy),
            max_hz: rate(subscribe.policy),
            overflow: said_overflow(subscribe.overflow),
            presence: subscribe.presence,
            positions: subscribe
                .positions
                .iter()
                .map(|place| schema::TopicPosition {
                    topic: place.topic.to_string(),
                    epoch: place.position.epoch.to_string(),
                    offset: place.position.offset.0,
                })
                .collect(),
        }),
        Action::Unsubscribe(target) => {
            Said::Unsubscribe(schema::Unsubscribe { topic: target.to_string() })
        }
        Action::Update(update) => Said::Update(schema::Update {
            topic: update.target.to_string(),
            policy: said_policy(update.policy),
            max_hz: rate(update.policy),
            overflow: said_overflow(update.overflow),
        }),
        Action::Publish(draft) => Said::Publish(said_publish(draft)),
        Action::History(history) => Said::History(schema::History {
            topic: history.topic.to_string(),
            since: history.since.as_ref().map(place),
            limit: history.limit,
        }),
        Action::Presence(topic) => Said::Presence(schema::Presence { topic: topic.to_string() }),
        Action::Ping => Said::Ping(schema::Ping {}),
    };
    let action = Some(action);
    schema::Command { id: command.id, action }.encode_to_vec()
}

/// What may happen to bytes on their way.
#[derive(Clone, Debug)]
enum Harm {
    Cut(usize),
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
}

fn any_harm() -> impl Strategy<Value = Harm> {
    let tokens = ["{", "}", "[", "]", "\"", ",", ":", "null", "-1", "1e999", "\\u", "\"id\":1,"];
    let insert = prop_oneof![
        vec(any::<u8>(), 1..4),
        proptest::sample::select(tokens.map(|token| token.as_bytes().to_vec()).to_vec()),
    ];
    let at = || 0..400_usize;
    prop_oneof![
        at().prop_map(Harm::Cut),
        (at(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte)),
        (at(), insert).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        (at(), 1..40_usize).prop_map(|(at, len)| Harm::Repeat(at, len)),
    ]
}

fn harmed(mut bytes: Vec<u8>, harms: &[Harm]) -> Vec<u8> {
    for harm in harms {
        let len = bytes.len() + 1;
        match harm {
            Harm::Cut(at) => bytes.truncate(at % len),
            Harm::Set(at, byte) => {
                if let Some(place) = bytes.get_mut(at % len) {
                    *place = *byte;
                }
            }
            Harm::Insert(at, more) => drop(bytes.splice(at % len..at % len, more.clone())),
            Harm::Repeat(at, count) => {
                let start = at % len;
                let end = (start + count).min(bytes.len());
                let again = bytes[start..end].to_vec();
                drop(bytes.splice(end..end, again));
            }
        }
    }
    bytes
}

/// Whatever is refused is refused in few words.
fn is_short(result: &Result<Command, BadCommand>) -> bool {
    let Err(bad) = result else { return true };
    bad.id <= INTEGER_MAX && bad.refusal.to_string().len() < 300
}

/// Generated code reads the same from what is understood, unless a field occurs twice, which is
/// never understood.
fn agrees_with_generated_code(bytes: &[u8]) -> bool {
    let Ok(command) = Dialect::Proto.decode(bytes) else {
        return true;
    };
    let read = schema::Command::decode(bytes).expect("what is understood is protobuf");
    Dialect::Proto.decode(&read.encode_to_vec()) == Ok(command)
}

proptest! {
    #[test]
    fn both_spellings_of_a_command_are_understood_alike(command in any_command()) {
        prop_assert_eq!(Dialect::Json.decode(&in_json(&command)), Ok(command.clone()));
        prop_assert_eq!(Dialect::Proto.decode(&in_proto(&command)), Ok(command));
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(is_short(&Dialect::Json.decode(&bytes)));
        prop_assert!(is_short(&Dialect::Proto.decode(&bytes)));
        prop_assert!(agrees_with_generated_code(&bytes));
    }

    #[test]
    fn any_harm_to_a_command_is_survived(
        command in any_command(),
        harms in vec(any_harm(), 1..4),
    ) {
        let json = harmed(in_json(&command), &harms);
        let proto = harmed(in_proto(&command), &harms);
        for bytes in [&json, &proto] {
            prop_assert!(is_short(&Dialect::Json.decode(bytes)));
            prop_assert!(is_short(&Dialect::Proto.decode(bytes)));
            prop_assert!(agrees_with_generated_code(bytes));
        }
    }
}
