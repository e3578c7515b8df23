//! Both spellings mean the same to a client.
//! # Not here: what the broker spells (`dialect`).

use super::*;
use crate::clock::Now;
use crate::dialect::deflate::inflate;
use crate::dialect::schema::{command::Action, event::Body, publish};
use crate::dialect::{self, Dialect, Event as Said, Overflow, Policy, frame};
use crate::reason::{Reason, Refusal};
use crate::topics::message::{
    Draft, Epoch, Message as Taken, Offset, Payload, Position as Place, TopicHead, Wire,
};
use crate::topics::name::{Target, TopicName};
use crate::topics::terms::Rate;
use prost::Message as _;
use std::sync::Arc;

/// The bit that marks a compressed message.
const RSV1: u8 = 0x40;

fn topic(raw: &str) -> TopicName {
    TopicName::parse(raw).expect("valid name")
}

fn place(offset: u64) -> Place {
    Place { epoch: Epoch::from_bits(7), offset: Offset(offset) }
}

/// What a client understands of an event that came by this wire.
pub(crate) fn heard(frame: &bytes::Bytes, wire: Wire) -> schema::Event {
    let mut body = frame::body(frame, wire);
    if wire.is_sse() {
        // What follows the data is of no account here.
        let end = body.iter().position(|byte| *byte == b'\n').expect("the end of a line");
        body.truncate(end);
    } else if frame.first().is_some_and(|first| first & RSV1 != 0) {
        body = inflate(&body, 1 << 20).expect("deflate data").into();
    }
    match (wire.is_json(), wire.is_batched()) {
        (true, _) => decode(&body).expect("understood"),
        (false, false) => schema::Event::decode(body).expect("protobuf"),
        (false, true) => schema::Event::decode_length_delimited(body).expect("protobuf"),
    }
}

pub(crate) fn message(key: Option<&str>, payload: Payload) -> Taken {
    let head = Arc::new(TopicHead::new(1, topic("a.b"), Epoch::from_bits(1), Arc::default()));
    let draft = Draft { key: key.map(Into::into), ..Draft::new(topic("a.b"), payload) };
    Taken::new(head, Offset(45), draft, Now::at_ms(1_763_683_200_000))
}

#[test]
fn an_event_means_the_same_to_a_client_in_both_spellings() {
    let target = Target::parse("a.b").expect("valid target");
    let begun = |recovery| dialect::Subscribed {
        target: target.clone(),
        position: Some(place(44)),
        recovery,
        topics: Vec::new(),
        terms: dialect::Terms::default(),
        stale: false,
    };
    let subscribed = |recovery| Said::Subscribed(begun(recovery));
    let granted = |policy, overflow| {
        let terms = dialect::Terms { policy, overflow };
        Said::Subscribed(dialect::Subscribed { terms, stale: true, ..begun(None) })
    };
    let member = |name: Option<&str>| dialect::Member {
        connection: "1-42".into(),
        name: name.map(Into::into),
    };
    let moved = dialect::Presence { topic: topic("a.b"), member: member(Some("alice")) };
    let ten = Policy::MaxHz(Rate::from_hz(10.0).expect("a rate"));
    let positions = vec![dialect::TopicPosition { topic: topic("a.b"), position: place(3) }];
    let mut events = vec![
        Said::Connected(dialect::Connected {
            connection: "1-42".into(),
            ping_ms: 25_000,
            batch: true,
            expires_ms: 60_000,
        }),
        Said::Unsubscribed(target.clone()),
        Said::Published(place(9)),
        Said::Error(Refusal::new(Reason::BadTopic, "it is empty")),
        Said::SnapshotEnd(dialect::SnapshotEnd { target: target.clone(), positions }),
        Said::Position(dialect::TopicPosition { topic: topic("a.b"), position: place(0) }),
        subscribed(None),
        subscribed(Some(Ok(()))),
        granted(Policy::Latest, None),
        granted(ten, None),
        Said::Joined(moved.clone()),
        Said::Left(moved),
        Said::PresenceState(dialect::PresenceState {
            topic: topic("a.b"),
            count: 3,
            members: vec![member(None), member(Some("alice"))],
            more: true,
        }),
        Said::Stale(dialect::Stale { topic: topic("a.b"), since_ms: 5 }),
        Said::Stale(dialect::Stale { topic: topic("a.b"), since_ms: 0 }),
        Said::Fresh(topic("a.b")),
        Said::Reconnect { after_ms: 0 },
        Said::Reconnect { after_ms: 1_500 },
    ];
    let overflows = [Overflow::CatchUp, Overflow::Gap, Overflow::Disconnect];
    events.extend(overflows.map(|overflow| granted(Policy::All, Some(overflow))));
    let reasons =
        [dialect::GapReason::Slow, dialect::GapReason::Trimmed, dialect::GapReason::Expired];
    events.extend(
        reasons.map(|reason| {
            Said::Gap(dialect::Gap { topic: topic("a.b"), from: 50, to: 61, reason })
        }),
    );
    let failures = Reason::ALL.iter().filter(|reason| reason.is_recovery_failure());
    events.extend(failures.map(|reason| subscribed(Some(Err(*reason)))));
    means_the_same(&events);
}

fn means_the_same(events: &[Said]) {
    for event in events {
        let [json, proto] = [Wire::WebSocketJson, Wire::WebSocketProto]
            .map(|wire| heard(&dialect::encode(3, event, wire), wire));
        assert_eq!(json, proto, "{event:?}");
        assert!(json.body.is_some(), "{event:?}");
    }
}

#[test]
fn an_answer_means_the_same_to_a_client_in_both_spellings() {
    let target = Target::parse("a.b").expect("valid target");
    let updated = |policy, overflow| {
        let terms = dialect::Terms { policy, overflow };
        Said::Updated(dialect::Updated { target: target.clone(), terms })
    };
    let page = |messages: Vec<Taken>| {
        Said::HistoryPage(dialect::HistoryPage {
            topic: topic("a.b"),
            top: messages.first().map(|_| place(45)),
            messages: messages.into_iter().map(Arc::new).collect(),
            more: true,
        })
    };
    let outcome =
        |position, recovery| dialect::TopicRecovery { topic: topic("a.b"), position, recovery };
    let resumed = vec![outcome(Some(place(4)), Ok(())), outcome(None, Err(Reason::NotAllowed))];
    let begun = dialect::Subscribed {
        target: Target::parse("a.>").expect("valid target"),
        position: None,
        recovery: None,
        topics: resumed,
        terms: dialect::Terms::default(),
        stale: false,
    };
    let ten = Policy::MaxHz(Rate::from_hz(10.0).expect("a rate"));
    means_the_same(&[
        Said::Ended(dialect::Ended { target: target.clone(), reason: Reason::NotAllowed }),
        Said::Refreshed(dialect::Refreshed { expires_ms: 60_000 }),
        Said::Pong,
        Said::Ping,
        updated(Policy::All, Some(Overflow::Gap)),
        updated(ten, None),
        page(vec![message(Some("k"), Payload::Binary(vec![0, 0xFF].into()))]),
        page(Vec::new()),
        Said::Subscribed(begun),
    ]);
}

#[test]
fn a_command_means_the_same_to_a_broker_in_both_spellings() {
    let subscribe = schema::Subscribe {
        topic: "a.b".into(),
        since: Some(schema::Position { epoch: Epoch::from_bits(7).to_string(), offset: 41 }),
        last: 3,
        snapshot: true,
        overflow: schema::Overflow::Disconnect.into(),
        policy: schema::Policy::MaxHz.into(),
        max_hz: Some(0.5),
        presence: true,
        ..Default::default()
    };
    let publish = |key: &str, payload| {
        Action::Publish(schema::Publish {
            topic: "a.b".into(),
            payload: Some(payload),
            key: key.into(),
            idempotency_key: key.into(),
            ttl_ms: 30_000,
            ..Default::default()
        })
    };
    let delete = schema::Publish {
        topic: "a.b".into(),
        key: "k".into(),
        delete: true,
        ..Default::default()
    };
    let actions = [
        Action::Connect(schema::Connect::default()),
        Action::Connect(schema::Connect { token: "t".into(), name: "alice".into(), batch: true }),
        Action::Presence(schema::Presence { topic: "a.b".into() }),
        Action::Publish(delete),
        Action::Subscribe(schema::Subscribe { topic: "a.>".into(), ..Default::default() }),
        Action::Subscribe(subscribe),
        Action::Subscribe(schema::Subscribe {
            topic: "a.>".into(),
            positions: vec![schema::TopicPosition {
                topic: "a.b".into(),
                epoch: Epoch::from_bits(7).to_string(),
                offset: 41,
            }],
            ..Default::default()
        }),
        Action::Unsubscribe(schema::Unsubscribe { topic: "a.b".into() }),
        Action::Update(schema::Update {
            topic: "a.b".into(),
            overflow: schema::Overflow::Gap.into(),
            policy: schema::Policy::MaxHz.into(),
            max_hz: Some(0.5),
        }),
        Action::Update(schema::Update { topic: "a.b".into(), ..Default::default() }),
        Action::History(schema::History {
            topic: "a.b".into(),
            since: Some(schema::Position { epoch: Epoch::from_bits(7).to_string(), offset: 0 }),
            limit: 5,
        }),
        Action::History(schema::History { topic: "a.b".into(), ..Default::default() }),
        Action::Refresh(schema::Refresh { token: "t".into() }),
        Action::Ping(schema::Ping {}),
        publish("", publish::Payload::Data(r#"{"x": [1.50]}"#.into())),
        publish("k\n", publish::Payload::Text("\u{0}ä\u{2028}\"".into())),
        publish("k", publish::Payload::Binary(vec![0, 0xFF].into())),
    ];
    for action in actions {
        let command = schema::Command { id: 9, action: Some(action) };
        let json = Dialect::Json.decode(&encode(&command).expect("spelled"));
        assert_eq!(json, Dialect::Proto.decode(&command.encode_to_vec()), "{command:?}");
        assert!(json.is_ok(), "{json:?}");
    }
}

#[test]
fn an_http_answer_is_a_position_a_refusal_or_nothing_known() {
    let answer = |json: &str| decode_answer(json.as_bytes());
    let published = schema::Published { epoch: "e".into(), offset: 1, durability: 1 };
    let json = r#"{"epoch":"e","offset":1,"durability":"memory"}"#;
    assert_eq!(answer(json), Some(Body::Published(published)));
    let json = r#"{"error":{"code":101,"name":"badTopic","retry":"never","message":"m"}}"#;
    let error = schema::Error { code: 101, name: "badTopic".into(), message: "m".into(), retry: 1 };
    assert_eq!(answer(json), Some(Body::Error(error)));
    for json in ["", "<html>", "{}", "[]"] {
        assert_eq!(answer(json), None, "{json}");
    }
}
