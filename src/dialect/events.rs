//! The events of protocol v1 in both spellings, as a table.
//! Owns the exact text of the JSON spelling; the protobuf one is read back by generated code.
//! # Not here: commands (`table`).

use super::schema::{self, event::Body, message::Payload as Load};
use super::table::{EPOCH, place, position, said_position, said_topic_position, topic};
use super::{
    Connected, Event, Gap, HistoryPage, SnapshotEnd, Subscribed, TopicRecovery, encode,
    encode_message, frame,
};
use crate::clock::Now;
use crate::reason::{Reason, Refusal};
use crate::topics::message::{Draft, Epoch, Message, Offset, Payload, TopicHead, Wire};
use crate::topics::name::Target;
use prost::Message as _;
use std::sync::Arc;

/// When the test messages were taken, in milliseconds since 1970.
const TIME_MS: u64 = 1_763_683_200_000;

fn body(id: u64, event: &Event, wire: Wire) -> Vec<u8> {
    frame::body(&encode(id, event, wire), wire).to_vec()
}

/// Every wire says what the table says.
fn check(id: u64, event: &Event, json: &str, said: Body) {
    let text = String::from_utf8(body(id, event, Wire::WebSocketJson)).expect("UTF-8");
    assert_eq!(text, json);
    serde_json::from_str::<serde::de::IgnoredAny>(&text).expect("JSON");
    let said = schema::Event { id, body: Some(said) };
    for wire in [Wire::WebSocketProto, Wire::TcpProto] {
        let bytes = body(id, event, wire);
        let read = schema::Event::decode(&*bytes).expect("protobuf");
        assert_eq!(read, said, "{json}");
        assert_eq!(bytes, said.encode_to_vec(), "{json}");
    }
}

fn message(offset: u64, key: Option<&str>, payload: Payload) -> Arc<Message> {
    let head = Arc::new(TopicHead::new(1, topic("a.b"), Epoch::from_bits(1), Arc::default()));
    let draft = Draft {
        key: key.map(Into::into),
        idempotency_key: Some("unseen".into()),
        ..Draft::new(topic("a.b"), payload)
    };
    Arc::new(Message::new(head, Offset(offset), draft, Now::at_ms(TIME_MS)))
}

fn said_message(offset: u64, key: &str, payload: Load) -> schema::Message {
    schema::Message {
        topic: "a.b".into(),
        offset,
        time: TIME_MS,
        key: key.into(),
        payload: Some(payload),
    }
}

fn target(raw: &str) -> Target {
    Target::parse(raw).expect("valid target")
}

/// Puts the test epoch where the pattern says `EPOCH`.
fn with_epoch(json: &str) -> String {
    json.replace("EPOCH", EPOCH)
}

#[test]
fn a_message_is_the_same_event_on_every_path() {
    let cases = [
        (
            message(45, Some("row\"1\n"), Payload::Json(r#"{"x":1}"#.into())),
            r#""offset":45,"time":1763683200000,"key":"row\"1\n","data":{"x":1}"#,
            said_message(45, "row\"1\n", Load::Data(r#"{"x":1}"#.into())),
        ),
        (
            message(1, None, Payload::Text("\u{0}ä\u{2028}\\".into())),
            "\"offset\":1,\"time\":1763683200000,\"text\":\"\\u0000ä\u{2028}\\\\\"",
            said_message(1, "", Load::Text("\u{0}ä\u{2028}\\".into())),
        ),
        (
            message((1 << 53) - 1, None, Payload::Binary(vec![0, 0xFF, 0xBF, 1].into())),
            r#""offset":9007199254740991,"time":1763683200000,"base64":"AP+/AQ==""#,
            said_message((1 << 53) - 1, "", Load::Binary(vec![0, 0xFF, 0xBF, 1].into())),
        ),
        (
            message(2, None, Payload::Binary("".into())),
            r#""offset":2,"time":1763683200000,"base64":"""#,
            said_message(2, "", Load::Binary("".into())),
        ),
    ];
    for (message, json, said) in cases {
        let object = format!(r#"{{"topic":"a.b",{json}}}"#);
        let event = Event::Message(Arc::clone(&message));
        let text = format!(r#"{{"message":{object}}}"#);
        check(0, &event, &text, Body::Message(said.clone()));
        for wire in Wire::ALL {
            assert_eq!(encode_message(&message, wire), encode(0, &event, wire), "{wire:?}");
        }
        let page = HistoryPage {
            topic: topic("a.b"),
            top: None,
            messages: vec![Arc::clone(&message), message],
            more: true,
        };
        check(
            7,
            &Event::HistoryPage(page),
            &format!(
                r#"{{"id":7,"historyPage":{{"topic":"a.b","messages":[{object},{object}],"more":true}}}}"#
            ),
            Body::HistoryPage(schema::HistoryPage {
                topic: "a.b".into(),
                top: None,
                messages: vec![said.clone(), said],
                more: true,
            }),
        );
    }
}

#[test]
fn a_message_of_any_size_is_framed_whole() {
    for len in [0, 100, 125, 126, 127, 128, 16_383, 16_384, 65_535, 65_536, 100_000] {
        let payload = "x".repeat(len);
        let message = message(1, None, Payload::Text(payload.clone().into()));
        for wire in [Wire::WebSocketProto, Wire::TcpProto] {
            let bytes = frame::body(&encode_message(&message, wire), wire);
            let body = schema::Event::decode(bytes).expect("protobuf").body;
            let said = said_message(1, "", Load::Text(payload.clone()));
            assert_eq!(body, Some(Body::Message(said)));
        }
        let wire = Wire::WebSocketJson;
        let bytes = frame::body(&encode_message(&message, wire), wire);
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(json["message"]["text"], *payload);
    }
}

#[test]
fn a_connection_hears_the_same_in_both_spellings() {
    let server = super::SERVER;
    let connected = Connected { connection: "1-42".into(), ping_ms: 25_000 };
    check(
        1,
        &Event::Connected(connected),
        &format!(
            r#"{{"id":1,"connected":{{"connection":"1-42","server":"{server}","pingMs":25000}}}}"#
        ),
        Body::Connected(schema::Connected {
            connection: "1-42".into(),
            server: server.into(),
            ping_ms: 25_000,
        }),
    );
    for (id, json) in [
        (5, r#"{"id":5,"unsubscribed":{"topic":"a.*"}}"#),
        (0, r#"{"unsubscribed":{"topic":"a.*"}}"#),
    ] {
        let said = schema::Unsubscribed { topic: "a.*".into() };
        check(id, &Event::Unsubscribed(target("a.*")), json, Body::Unsubscribed(said));
    }
    check(
        6,
        &Event::Published(position(45)),
        &with_epoch(r#"{"id":6,"published":{"epoch":"EPOCH","offset":45,"durability":"memory"}}"#),
        Body::Published(schema::Published {
            epoch: EPOCH.into(),
            offset: 45,
            durability: schema::Durability::Memory.into(),
        }),
    );
    check(8, &Event::Pong, r#"{"id":8,"pong":{}}"#, Body::Pong(schema::Pong {}));
    check(0, &Event::Ping, r#"{"ping":{}}"#, Body::Ping(schema::ServerPing {}));
    check(
        0,
        &Event::Position(place("a.b", 0)),
        &with_epoch(r#"{"position":{"topic":"a.b","epoch":"EPOCH","offset":0}}"#),
        Body::Position(said_topic_position("a.b", 0)),
    );
}

#[test]
fn a_gap_is_told_the_same_in_both_spellings() {
    for (from, to, count) in [(50, 61, 12), (7, 7, 1)] {
        check(
            0,
            &Event::Gap(Gap { topic: topic("a.b"), from, to }),
            &format!(
                r#"{{"gap":{{"topic":"a.b","from":{from},"to":{to},"count":{count},"reason":"slow"}}}}"#
            ),
            Body::Gap(schema::Gap {
                topic: "a.b".into(),
                from,
                to,
                count,
                reason: schema::GapReason::Slow.into(),
            }),
        );
    }
}

#[test]
fn a_refusal_means_the_same_in_both_spellings() {
    let cases = [
        (
            Refusal::new(Reason::BadTopic, "it is empty"),
            r#""code":101,"name":"badTopic","retry":"never","message":"the topic name is not valid: it is empty""#,
            schema::Retry::Never,
        ),
        (
            Reason::Overloaded.into(),
            r#""code":117,"name":"overloaded","retry":"later","message":"a shard has as much work waiting as it may have""#,
            schema::Retry::Later,
        ),
        (
            Reason::SlowConsumer.into(),
            r#""code":4408,"name":"slowConsumer","retry":"resume","message":"the connection did not read fast enough""#,
            schema::Retry::Resume,
        ),
    ];
    for (refusal, json, retry) in cases {
        let said = schema::Error {
            code: refusal.reason.code().into(),
            name: refusal.reason.name().into(),
            retry: retry.into(),
            message: refusal.to_string(),
        };
        let json = format!(r#"{{"error":{{{json}}}}}"#);
        check(0, &Event::Error(refusal), &json, Body::Error(said));
    }
}

#[test]
fn a_subscription_begins_the_same_in_both_spellings() {
    let cases = [
        (None, None, r#""topic":"a.b""#, None, schema::RecoveryFailure::Unspecified),
        (
            Some(44),
            None,
            r#""topic":"a.b","position":{"epoch":"EPOCH","offset":44}"#,
            None,
            schema::RecoveryFailure::Unspecified,
        ),
        (
            Some(0),
            Some(Ok(())),
            r#""topic":"a.b","position":{"epoch":"EPOCH","offset":0},"recovered":true"#,
            Some(true),
            schema::RecoveryFailure::Unspecified,
        ),
        (
            Some(44),
            Some(Err(Reason::EpochChanged)),
            r#""topic":"a.b","position":{"epoch":"EPOCH","offset":44},"recovered":false,"reason":"epochChanged""#,
            Some(false),
            schema::RecoveryFailure::EpochChanged,
        ),
    ];
    for (offset, recovery, json, recovered, reason) in cases {
        let subscribed = Subscribed {
            target: target("a.b"),
            position: offset.map(position),
            recovery,
            topics: Vec::new(),
        };
        let said = schema::Subscribed {
            topic: "a.b".into(),
            position: offset.map(said_position),
            recovered,
            reason: reason.into(),
            topics: Vec::new(),
        };
        let json = with_epoch(&format!(r#"{{"id":3,"subscribed":{{{json}}}}}"#));
        check(3, &Event::Subscribed(subscribed), &json, Body::Subscribed(said));
    }
}

#[test]
fn every_way_in_which_a_topic_of_a_filter_is_not_recovered_has_its_word() {
    let cases = [
        (Reason::EpochChanged, "epochChanged", schema::RecoveryFailure::EpochChanged),
        (Reason::Trimmed, "trimmed", schema::RecoveryFailure::Trimmed),
        (Reason::Expired, "expired", schema::RecoveryFailure::Expired),
        (Reason::TooMany, "tooMany", schema::RecoveryFailure::TooMany),
        (Reason::NotAllowed, "notAllowed", schema::RecoveryFailure::NotAllowed),
        (
            Reason::EngineUnavailable,
            "engineUnavailable",
            schema::RecoveryFailure::EngineUnavailable,
        ),
    ];
    for (reason, name, said) in cases {
        let topics = vec![
            TopicRecovery { topic: topic("a.b"), position: Some(position(44)), recovery: Ok(()) },
            TopicRecovery { topic: topic("a.c"), position: None, recovery: Err(reason) },
        ];
        let recovered =
            r#"{"topic":"a.b","position":{"epoch":"EPOCH","offset":44},"recovered":true}"#;
        let lost = format!(r#"{{"topic":"a.c","recovered":false,"reason":"{name}"}}"#);
        let json = with_epoch(&format!(
            r#"{{"id":4,"subscribed":{{"topic":"a.>","topics":[{recovered},{lost}]}}}}"#
        ));
        check(
            4,
            &Event::Subscribed(Subscribed {
                target: target("a.>"),
                position: None,
                recovery: None,
                topics,
            }),
            &json,
            Body::Subscribed(schema::Subscribed {
                topic: "a.>".into(),
                topics: vec![
                    schema::TopicRecovery {
                        topic: "a.b".into(),
                        position: Some(said_position(44)),
                        recovered: true,
                        reason: schema::RecoveryFailure::Unspecified.into(),
                    },
                    schema::TopicRecovery {
                        topic: "a.c".into(),
                        position: None,
                        recovered: false,
                        reason: said.into(),
                    },
                ],
                ..Default::default()
            }),
        );
    }
}

#[test]
fn the_lists_of_an_answer_are_there_even_when_empty() {
    for (places, json) in [
        (vec![], r#"{"snapshotEnd":{"topic":"a.>","positions":[]}}"#),
        (
            vec![("a.b", 7), ("a.c", 0)],
            r#"{"snapshotEnd":{"topic":"a.>","positions":[{"topic":"a.b","epoch":"EPOCH","offset":7},{"topic":"a.c","epoch":"EPOCH","offset":0}]}}"#,
        ),
    ] {
        let said = schema::SnapshotEnd {
            topic: "a.>".into(),
            positions: places
                .iter()
                .map(|(name, offset)| said_topic_position(name, *offset))
                .collect(),
        };
        let end = SnapshotEnd {
            target: target("a.>"),
            positions: places.iter().map(|(name, offset)| place(name, *offset)).collect(),
        };
        check(0, &Event::SnapshotEnd(end), &with_epoch(json), Body::SnapshotEnd(said));
    }
    let page = HistoryPage {
        topic: topic("a.b"),
        top: Some(position(45)),
        messages: Vec::new(),
        more: false,
    };
    let said = schema::HistoryPage {
        topic: "a.b".into(),
        top: Some(said_position(45)),
        messages: Vec::new(),
        more: false,
    };
    let json = r#"{"historyPage":{"topic":"a.b","top":{"epoch":"EPOCH","offset":45},"messages":[],"more":false}}"#;
    check(0, &Event::HistoryPage(page), &with_epoch(json), Body::HistoryPage(said));
}
