//! The events of protocol v1 in both spellings, as a table.
//! Owns the exact text of the JSON spelling; the protobuf one is read back by generated code.
//! # Not here: commands (`table`).

use super::schema::{self, event::Body, message::Payload as Load};
use super::table::{EPOCH, place, position, said_position, said_topic_position, topic};
use super::{
    Connected, Event, Gap, GapReason, HistoryPage, Member, Overflow, Policy, Presence,
    PresenceState, SnapshotEnd, Stale, Subscribed, Terms, TopicRecovery, Updated, encode,
    encode_message, frame,
};
use crate::clock::Now;
use crate::reason::{Reason, Refusal};
use crate::topics::message::{Draft, Epoch, Message, Offset, Payload, TopicHead, Wire};
use crate::topics::name::Target;
use crate::topics::terms::Rate;
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
        deleted: false,
    }
}

fn target(raw: &str) -> Target {
    Target::parse(raw).expect("valid target")
}

fn hz(hz: f64) -> Policy {
    Policy::MaxHz(Rate::from_hz(hz).expect("a rate"))
}

/// A subscription that got what everybody gets.
fn subscribed(raw: &str) -> Subscribed {
    Subscribed {
        target: target(raw),
        position: None,
        recovery: None,
        topics: Vec::new(),
        terms: Terms::default(),
        stale: false,
    }
}

fn said_member(connection: &str, name: &str) -> schema::Member {
    schema::Member { connection: connection.into(), name: name.into() }
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
        (
            message(46, Some("row1"), Payload::Deleted),
            r#""offset":46,"time":1763683200000,"key":"row1","deleted":true"#,
            schema::Message {
                payload: None,
                deleted: true,
                ..said_message(46, "row1", Load::Text(String::new()))
            },
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
    let connected =
        Connected { connection: "1-42".into(), ping_ms: 25_000, batch: false, expires_ms: 0 };
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
            batch: false,
            expires_ms: 0,
        }),
    );
    for (id, json) in [
        (5, r#"{"id":5,"unsubscribed":{"topic":"a.*"}}"#),
        (0, r#"{"unsubscribed":{"topic":"a.*"}}"#),
    ] {
        let said = schema::Unsubscribed { topic: "a.*".into(), ..Default::default() };
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
    for (from, to, count, reason, word, said) in [
        (50, 61, 12, GapReason::Slow, "slow", schema::GapReason::Slow),
        (7, 7, 1, GapReason::Trimmed, "trimmed", schema::GapReason::Trimmed),
        (1, 2, 2, GapReason::Expired, "expired", schema::GapReason::Expired),
    ] {
        check(
            0,
            &Event::Gap(Gap { topic: topic("a.b"), from, to, reason }),
            &format!(
                r#"{{"gap":{{"topic":"a.b","from":{from},"to":{to},"count":{count},"reason":"{word}"}}}}"#
            ),
            Body::Gap(schema::Gap { topic: "a.b".into(), from, to, count, reason: said.into() }),
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
        let subscribed =
            Subscribed { position: offset.map(position), recovery, ..subscribed("a.b") };
        let said = schema::Subscribed {
            topic: "a.b".into(),
            position: offset.map(said_position),
            recovered,
            reason: reason.into(),
            ..Default::default()
        };
        let json = with_epoch(&format!(r#"{{"id":3,"subscribed":{{{json}}}}}"#));
        check(3, &Event::Subscribed(subscribed), &json, Body::Subscribed(said));
    }
}

#[test]
fn the_terms_that_were_granted_are_told_the_same_in_both_spellings() {
    use schema::{Overflow as SaidOverflow, Policy as SaidPolicy};
    let unsaid = SaidOverflow::Unspecified;
    let granted = |policy, overflow| Terms { policy, overflow };
    #[rustfmt::skip]
    let cases = [
        // Every message is what a subscription gives if it says nothing.
        (granted(Policy::All, None), false, "", SaidPolicy::Unspecified, None, unsaid),
        (granted(Policy::All, Some(Overflow::Gap)), true, r#","overflow":"gap","stale":true"#, SaidPolicy::Unspecified, None, SaidOverflow::Gap),
        (granted(Policy::All, Some(Overflow::CatchUp)), false, r#","overflow":"catchUp""#, SaidPolicy::Unspecified, None, SaidOverflow::CatchUp),
        (granted(Policy::Latest, None), true, r#","policy":"latest","stale":true"#, SaidPolicy::Latest, None, unsaid),
        (granted(Policy::Latest, Some(Overflow::Disconnect)), false, r#","policy":"latest","overflow":"disconnect""#,
         SaidPolicy::Latest, None, SaidOverflow::Disconnect),
        (granted(hz(10.0), None), false, r#","policy":"maxHz","maxHz":10"#, SaidPolicy::MaxHz, Some(10.0), unsaid),
        (granted(hz(0.01), Some(Overflow::Gap)), true, r#","policy":"maxHz","maxHz":0.01,"overflow":"gap","stale":true"#,
         SaidPolicy::MaxHz, Some(0.01), SaidOverflow::Gap),
    ];
    for (terms, stale, json, policy, max_hz, overflow) in cases {
        let event = Event::Subscribed(Subscribed { terms, stale, ..subscribed("a.>") });
        let said = schema::Subscribed {
            topic: "a.>".into(),
            policy: policy.into(),
            max_hz,
            overflow: overflow.into(),
            stale,
            ..Default::default()
        };
        let json = format!(r#"{{"id":3,"subscribed":{{"topic":"a.>"{json}}}}}"#);
        check(3, &event, &json, Body::Subscribed(said));
    }
}

#[test]
fn new_terms_are_told_the_same_in_both_spellings() {
    use schema::{Overflow as SaidOverflow, Policy as SaidPolicy};
    let unsaid = SaidOverflow::Unspecified;
    let gap = Some(Overflow::Gap);
    #[rustfmt::skip]
    let cases = [
        (Policy::All, Some(Overflow::CatchUp), r#""policy":"all","overflow":"catchUp""#, SaidPolicy::All, None, SaidOverflow::CatchUp),
        (Policy::All, gap, r#""policy":"all","overflow":"gap""#, SaidPolicy::All, None, SaidOverflow::Gap),
        (Policy::All, Some(Overflow::Disconnect), r#""policy":"all","overflow":"disconnect""#, SaidPolicy::All, None, SaidOverflow::Disconnect),
        // Who passes over messages does not fall behind.
        (Policy::Latest, gap, r#""policy":"latest""#, SaidPolicy::Latest, None, unsaid),
        (hz(1_000.0), gap, r#""policy":"maxHz","maxHz":1000"#, SaidPolicy::MaxHz, Some(1_000.0), unsaid),
        (hz(0.3333), None, r#""policy":"maxHz","maxHz":0.333"#, SaidPolicy::MaxHz, Some(0.333), unsaid),
    ];
    for (policy, overflow, json, said, max_hz, said_overflow) in cases {
        let terms = Terms { policy, overflow };
        check(
            9,
            &Event::Updated(Updated { target: target("a.*"), terms }),
            &format!(r#"{{"id":9,"updated":{{"topic":"a.*",{json}}}}}"#),
            Body::Updated(schema::Updated {
                topic: "a.*".into(),
                policy: said.into(),
                max_hz,
                overflow: said_overflow.into(),
            }),
        );
    }
}

#[test]
fn a_change_of_presence_is_the_same_event_however_it_travels() {
    for (name, json) in [
        (None, r#"{"topic":"a.b","member":{"connection":"1-42"}}"#),
        (Some("Ä \"1\""), r#"{"topic":"a.b","member":{"connection":"1-42","name":"Ä \"1\""}}"#),
    ] {
        let member = Member { connection: "1-42".into(), name: name.map(Into::into) };
        let presence = Presence { topic: topic("a.b"), member: member.clone() };
        let said = Some(said_member("1-42", name.unwrap_or_default()));
        let joined = schema::Joined { topic: "a.b".into(), member: said.clone() };
        let left = schema::Left { topic: "a.b".into(), member: said };
        let cases = [
            (
                Event::Joined(presence.clone()),
                Payload::Joined(member.clone()),
                format!(r#"{{"joined":{json}}}"#),
                Body::Joined(joined),
            ),
            (
                Event::Left(presence),
                Payload::Left(member),
                format!(r#"{{"left":{json}}}"#),
                Body::Left(left),
            ),
        ];
        for (event, payload, json, said) in cases {
            assert!(payload.bytes().is_empty());
            // Neither its place nor its time is told: they are those of the companion topic.
            let message = message(3, Some("1-42"), payload);
            check(0, &event, &json, said.clone());
            check(0, &Event::Message(Arc::clone(&message)), &json, said);
            for wire in Wire::ALL {
                assert_eq!(encode_message(&message, wire), encode(0, &event, wire), "{wire:?}");
            }
        }
    }
}

#[test]
fn who_is_there_is_told_the_same_in_both_spellings() {
    let member = |connection: &str, name: Option<&str>| Member {
        connection: connection.into(),
        name: name.map(Into::into),
    };
    for (count, members, said, more, json) in [
        (0, vec![], vec![], false, r#""count":0,"members":[],"more":false"#),
        (
            3,
            vec![member("0-1", None), member("1-42", Some("ann"))],
            vec![said_member("0-1", ""), said_member("1-42", "ann")],
            true,
            r#""count":3,"members":[{"connection":"0-1"},{"connection":"1-42","name":"ann"}],"more":true"#,
        ),
    ] {
        let topic = topic("a.b");
        check(
            4,
            &Event::PresenceState(PresenceState { topic, count, members, more }),
            &format!(r#"{{"id":4,"presenceState":{{"topic":"a.b",{json}}}}}"#),
            Body::PresenceState(schema::PresenceState {
                topic: "a.b".into(),
                count,
                members: said,
                more,
            }),
        );
    }
}

#[test]
fn a_topic_goes_stale_and_comes_back_the_same_in_both_spellings() {
    for (since_ms, json) in [
        (0, r#"{"stale":{"topic":"a.b"}}"#),
        (TIME_MS, r#"{"stale":{"topic":"a.b","since":1763683200000}}"#),
    ] {
        let said = schema::Stale { topic: "a.b".into(), since: since_ms };
        let event = Event::Stale(Stale { topic: topic("a.b"), since_ms });
        check(0, &event, json, Body::Stale(said));
    }
    let said = schema::Fresh { topic: "a.b".into() };
    check(0, &Event::Fresh(topic("a.b")), r#"{"fresh":{"topic":"a.b"}}"#, Body::Fresh(said));
}

#[test]
fn where_to_go_next_is_told_the_same_in_both_spellings() {
    for (after_ms, json) in
        [(0, r#"{"reconnect":{}}"#), (1_500, r#"{"reconnect":{"afterMs":1500}}"#)]
    {
        let said = Body::Reconnect(schema::Reconnect { after_ms });
        check(0, &Event::Reconnect { after_ms }, json, said);
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
            &Event::Subscribed(Subscribed { topics, ..subscribed("a.>") }),
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
