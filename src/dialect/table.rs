//! The commands of protocol v1 in both spellings, as tables.
//! Owns the proof that both spellings mean the same, and the words with which tests say it.
//! # Not here: what is refused (`refusals`), events (`events`), commands made by chance (`random`).

use super::schema::{self, command::Action as Said, publish::Payload as Load};
use super::{
    Action, Command, Connect, Dialect, History, Overflow, Policy, Subscribe, TopicPosition, Update,
};
use crate::reason::Reason;
use crate::topics::message::{Draft, Epoch, Offset, Payload, Position};
use crate::topics::name::{Target, TopicName};
use crate::topics::terms::Rate;
use prost::Message as _;
use std::time::Duration;

/// The epoch whose bits are 1, as it is written.
pub(super) const EPOCH: &str = "AAAAAAAAAAAAAAAAAAAAAB";

/// Decodes in one spelling; a refusal as its id, its reason and its sentence.
pub(super) fn decode(dialect: Dialect, bytes: &[u8]) -> Result<Command, (u64, Reason, String)> {
    dialect.decode(bytes).map_err(|bad| (bad.id, bad.refusal.reason, bad.refusal.to_string()))
}

pub(super) fn command(id: u64, said: Said) -> schema::Command {
    let action = Some(said);
    schema::Command { id, action }
}

pub(super) fn check(json: &str, proto: &schema::Command, expected: &Command) {
    assert_eq!(decode(Dialect::Json, json.as_bytes()).as_ref(), Ok(expected), "{json}");
    let bytes = proto.encode_to_vec();
    assert_eq!(decode(Dialect::Proto, &bytes).as_ref(), Ok(expected), "{proto:?}");
}

pub(super) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("valid name")
}

pub(super) fn position(offset: u64) -> Position {
    Position { epoch: Epoch::from_bits(1), offset: Offset(offset) }
}

pub(super) fn said_position(offset: u64) -> schema::Position {
    schema::Position { epoch: EPOCH.into(), offset }
}

pub(super) fn said_topic_position(topic: &str, offset: u64) -> schema::TopicPosition {
    schema::TopicPosition { topic: topic.into(), epoch: EPOCH.into(), offset }
}

pub(super) fn place(name: &str, offset: u64) -> TopicPosition {
    TopicPosition { topic: topic(name), position: position(offset) }
}

pub(super) fn subscribe(target: &str) -> Subscribe {
    Subscribe {
        target: Target::parse(target).expect("valid target"),
        since: None,
        last: 0,
        snapshot: false,
        policy: None,
        overflow: None,
        positions: Vec::new(),
        presence: false,
        kept: None,
    }
}

pub(super) fn said_subscribe(topic: &str) -> schema::Subscribe {
    schema::Subscribe { topic: topic.into(), ..Default::default() }
}

pub(super) fn draft(payload: Payload) -> Draft {
    Draft::new(topic("a.b"), payload)
}

pub(super) fn said_publish(payload: Load) -> schema::Publish {
    schema::Publish { topic: "a.b".into(), payload: Some(payload), ..Default::default() }
}

#[test]
fn small_commands_mean_the_same_in_both_spellings() {
    let cases = [
        (
            r#"{"id":8,"presence":{"topic":"a.b"}}"#,
            8,
            Said::Presence(schema::Presence { topic: "a.b".into() }),
            Action::Presence(topic("a.b")),
        ),
        (r#"{"ping":{}}"#, 0, Said::Ping(schema::Ping {}), Action::Ping),
        (
            " {\"id\" : 9007199254740991 ,\r\n \"ping\" : { \"later\" : [1] } , \"later\" : {} } ",
            (1 << 53) - 1,
            Said::Ping(schema::Ping {}),
            Action::Ping,
        ),
        (r#"{"id":null,"connect":null,"ping":{}}"#, 0, Said::Ping(schema::Ping {}), Action::Ping),
        (
            r#"{"\u0069d":5,"unsubscribe":{"topic":"a.>"}}"#,
            5,
            Said::Unsubscribe(schema::Unsubscribe { topic: "a.>".into() }),
            Action::Unsubscribe(Target::parse("a.>").expect("valid filter")),
        ),
    ];
    for (json, id, said, action) in cases {
        check(json, &command(id, said), &Command { id, action });
    }
}

#[test]
fn a_hello_means_the_same_in_both_spellings() {
    let longest = "ä".repeat(32);
    let with_longest = format!(r#"{{"name":"{longest}"}}"#);
    for (json, name, batch) in [
        ("{}", None, false),
        (r#"{"name":null,"batch":null}"#, None, false),
        (r#"{"name":"","batch":true}"#, None, true),
        (r#"{"name":" \"\u0061\u2028😀","batch":false}"#, Some(" \"a\u{2028}😀"), false),
        (&with_longest, Some(&*longest), false),
    ] {
        let said =
            schema::Connect { name: name.unwrap_or_default().into(), batch, ..Default::default() };
        let action = Action::Connect(Connect { name: name.map(Into::into), batch, token: None });
        check(
            &format!(r#"{{"id":1,"connect":{json}}}"#),
            &command(1, Said::Connect(said)),
            &Command { id: 1, action },
        );
    }
}

fn check_subscribe(json: &str, said: schema::Subscribe, expected: Subscribe) {
    let json = format!(r#"{{"id":2,"subscribe":{json}}}"#).replace("EPOCH", EPOCH);
    let action = Action::Subscribe(expected.into());
    check(&json, &command(2, Said::Subscribe(said)), &Command { id: 2, action });
}

#[test]
fn the_options_of_a_subscribe_mean_the_same_in_both_spellings() {
    let said = said_subscribe;
    check_subscribe(r#"{"topic":"a.b"}"#, said("a.b"), subscribe("a.b"));
    check_subscribe(
        r#"{"topic":"ticker.>","snapshot":true,"last":0,"overflow":"gap"}"#,
        schema::Subscribe {
            snapshot: true,
            overflow: schema::Overflow::Gap.into(),
            ..said("ticker.>")
        },
        Subscribe { snapshot: true, overflow: Some(Overflow::Gap), ..subscribe("ticker.>") },
    );
    check_subscribe(
        r#"{"topic":"\u0061.b","last":4294967295,"overflow":"disconnect","snapshot":false}"#,
        schema::Subscribe {
            last: u32::MAX,
            overflow: schema::Overflow::Disconnect.into(),
            ..said("a.b")
        },
        Subscribe { last: u32::MAX, overflow: Some(Overflow::Disconnect), ..subscribe("a.b") },
    );
    check_subscribe(
        r#"{"topic":"a.b","overflow":"catchUp","presence":true}"#,
        schema::Subscribe {
            overflow: schema::Overflow::CatchUp.into(),
            presence: true,
            ..said("a.b")
        },
        Subscribe { overflow: Some(Overflow::CatchUp), presence: true, ..subscribe("a.b") },
    );
    check_subscribe(
        r#"{"topic":"a.*","overflow":null,"policy":null,"maxHz":null,"presence":false}"#,
        said("a.*"),
        subscribe("a.*"),
    );
}

#[test]
fn terms_mean_the_same_in_both_spellings_and_both_commands() {
    use schema::{Overflow as SaidOverflow, Policy as SaidPolicy};
    let hz = |hz| Some(Policy::MaxHz(Rate::from_hz(hz).expect("a rate")));
    let gap = Some(Overflow::Gap);
    #[rustfmt::skip]
    let cases = [
        ("", SaidPolicy::Unspecified, None, SaidOverflow::Unspecified, None, None),
        (r#","overflow":"gap""#, SaidPolicy::Unspecified, None, SaidOverflow::Gap, None, gap),
        (r#","policy":"all","overflow":"catchUp""#, SaidPolicy::All, None, SaidOverflow::CatchUp, Some(Policy::All), Some(Overflow::CatchUp)),
        (r#","policy":"latest","overflow":"disconnect""#, SaidPolicy::Latest, None, SaidOverflow::Disconnect, Some(Policy::Latest), Some(Overflow::Disconnect)),
        (r#","policy":"maxHz","maxHz":10"#, SaidPolicy::MaxHz, Some(10.0), SaidOverflow::Unspecified, hz(10.0), None),
        // A rate alone says which policy; it counts in thousandths.
        (r#","maxHz":0.01,"overflow":"gap""#, SaidPolicy::Unspecified, Some(0.01), SaidOverflow::Gap, hz(0.01), gap),
        (r#","maxHz":1e3"#, SaidPolicy::Unspecified, Some(1_000.0), SaidOverflow::Unspecified, hz(1_000.0), None),
        (r#","policy":null,"maxHz":0.33333"#, SaidPolicy::Unspecified, Some(0.33333), SaidOverflow::Unspecified, hz(0.333), None),
    ];
    for (json, said_policy, max_hz, said_overflow, policy, overflow) in cases {
        check_subscribe(
            &format!(r#"{{"topic":"a.*"{json}}}"#),
            schema::Subscribe {
                policy: said_policy.into(),
                max_hz,
                overflow: said_overflow.into(),
                ..said_subscribe("a.*")
            },
            Subscribe { policy, overflow, ..subscribe("a.*") },
        );
        let said = schema::Update {
            topic: "a.*".into(),
            policy: said_policy.into(),
            max_hz,
            overflow: said_overflow.into(),
        };
        let target = Target::parse("a.*").expect("valid filter");
        check(
            &format!(r#"{{"update":{{"topic":"a.*"{json}}},"id":9}}"#),
            &command(9, Said::Update(said)),
            &Command { id: 9, action: Action::Update(Update { target, policy, overflow }) },
        );
    }
}

#[test]
fn the_positions_of_a_subscribe_mean_the_same_in_both_spellings() {
    let cases = [
        (r#"{"epoch":"EPOCH","offset":41},"snapshot":true"#, 41, 0, true),
        (r#"{"epoch":"EPOCH"},"last":2,"positions":[]"#, 0, 2, false),
    ];
    for (json, offset, last, snapshot) in cases {
        check_subscribe(
            &format!(r#"{{"topic":"a.b","since":{json}}}"#),
            schema::Subscribe {
                since: Some(said_position(offset)),
                last,
                snapshot,
                ..said_subscribe("a.b")
            },
            Subscribe { since: Some(position(offset)), last, snapshot, ..subscribe("a.b") },
        );
    }
    let places = [("a.b", 41), ("a.c", (1 << 53) - 1)];
    check_subscribe(
        r#"{"topic":"a.>","positions":[
            {"topic":"a.b","epoch":"EPOCH","offset":41},
            {"topic":"a.c","epoch":"EPOCH","offset":9007199254740991}]}"#,
        schema::Subscribe {
            positions: places.map(|(name, at)| said_topic_position(name, at)).into(),
            ..said_subscribe("a.>")
        },
        Subscribe {
            positions: places.map(|(name, at)| place(name, at)).into(),
            ..subscribe("a.>")
        },
    );
}

/// The object of a publish means the same in a command of each spelling and on its own.
fn check_publish(json: &str, said: schema::Publish, expected: Draft) {
    assert_eq!(super::decode_draft(json.as_bytes()).as_ref(), Ok(&expected), "{json}");
    check(
        &format!(r#"{{"id":6,"publish":{json}}}"#),
        &command(6, Said::Publish(said)),
        &Command { id: 6, action: Action::Publish(expected) },
    );
}

#[test]
fn a_publish_means_the_same_in_both_spellings() {
    let long_key = "k".repeat(255);
    let keys = format!(r#"{{"topic":"a.b","text":"","key":"{long_key}","idempotencyKey":"\n"}}"#);
    let cases = [
        (
            r#"{"topic":"a.b","data":{"x":1},"key":"","idempotencyKey":""}"#,
            said_publish(Load::Data(r#"{"x":1}"#.into())),
            draft(Payload::Json(r#"{"x":1}"#.into())),
        ),
        // White space around the value is not part of it; line breaks in it become spaces.
        (
            "{\"topic\":\"a.b\",\"data\": [1,\r\n\t\"\\n\"]\n}",
            said_publish(Load::Data(" [1,\r\n\t\"\\n\"]\n".into())),
            draft(Payload::Json("[1,  \t\"\\n\"]".into())),
        ),
        (
            r#"{"topic":"a.b","data":null,"text":null,"key":null}"#,
            said_publish(Load::Data("null".into())),
            draft(Payload::Json("null".into())),
        ),
        // Values that are valid although not every reader can represent them.
        (
            r#"{"topic":"a.b","data":[1e999,"\ud800",12345678901234567890123]}"#,
            said_publish(Load::Data(r#"[1e999,"\ud800",12345678901234567890123]"#.into())),
            draft(Payload::Json(r#"[1e999,"\ud800",12345678901234567890123]"#.into())),
        ),
        (
            r#"{"topic":"a.b","text":"ä\u00e4\ud83d\ude00\n"}"#,
            said_publish(Load::Text("ää😀\n".into())),
            draft(Payload::Text("ää😀\n".into())),
        ),
        (
            r#"{"topic":"a.b","base64":"AP+/"}"#,
            said_publish(Load::Binary(vec![0, 0xFF, 0xBF].into())),
            draft(Payload::Binary(vec![0, 0xFF, 0xBF].into())),
        ),
        (
            r#"{"topic":"a.b","base64":""}"#,
            said_publish(Load::Binary("".into())),
            draft(Payload::Binary("".into())),
        ),
        (
            &keys,
            schema::Publish {
                key: long_key.clone(),
                idempotency_key: "\n".into(),
                ..said_publish(Load::Text(String::new()))
            },
            Draft {
                key: Some(long_key.clone().into()),
                idempotency_key: Some("\n".into()),
                ..draft(Payload::Text("".into()))
            },
        ),
    ];
    for (json, said, expected) in cases {
        check_publish(json, said, expected);
    }
}

#[test]
fn a_delete_means_the_same_in_both_spellings() {
    let said = schema::Publish {
        topic: "a.b".into(),
        key: "k".into(),
        delete: true,
        ttl_ms: 1,
        ..Default::default()
    };
    let expected = Draft {
        key: Some("k".into()),
        ttl: Some(Duration::from_millis(1)),
        ..draft(Payload::Deleted)
    };
    check_publish(r#"{"topic":"a.b","key":"k","delete":true,"ttlMs":1}"#, said, expected);
    // What is not a delete needs no key and has a payload, also an empty one.
    for json in [r#""delete":false"#, r#""delete":null"#] {
        let json = format!(r#"{{"topic":"a.b","text":"",{json}}}"#);
        let said = said_publish(Load::Text(String::new()));
        check_publish(&json, said, draft(Payload::Text("".into())));
    }
}

#[test]
fn a_time_to_live_means_the_same_in_both_spellings() {
    for (json, ttl_ms, ttl) in [
        ("null", 0, None),
        ("0", 0, None),
        ("1", 1, Some(Duration::from_millis(1))),
        ("2592000000", 2_592_000_000, Some(Duration::from_hours(30 * 24))),
    ] {
        check_publish(
            &format!(r#"{{"topic":"a.b","text":"x","ttlMs":{json}}}"#),
            schema::Publish { ttl_ms, ..said_publish(Load::Text("x".into())) },
            Draft { ttl, ..draft(Payload::Text("x".into())) },
        );
    }
}

#[test]
fn a_history_query_means_the_same_in_both_spellings() {
    let cases = [
        (r#"{"topic":"a.b"}"#, None, 0),
        (r#"{"topic":"a.b","since":null,"limit":4294967295}"#, None, u32::MAX),
        (
            r#"{"topic":"a.b","since":{"offset":7,"epoch":"AAAAAAAAAAAAAAAAAAAAAB"},"limit":10}"#,
            Some(7),
            10,
        ),
    ];
    for (json, since, limit) in cases {
        let said = schema::History { topic: "a.b".into(), since: since.map(said_position), limit };
        let expected = History { topic: topic("a.b"), since: since.map(position), limit };
        check(
            &format!(r#"{{"history":{json},"id":7}}"#),
            &command(7, Said::History(said)),
            &Command { id: 7, action: Action::History(expected) },
        );
    }
}

#[test]
fn unknown_fields_of_protobuf_are_ignored() {
    // In the command: 12 (text), 13 (64 bits), 14 (32 bits); in the ping: 1 (a number).
    let bytes = b"\x62\x01x\x69\0\0\0\0\0\0\0\0\x75\0\0\0\0\x52\x02\x08\x01\x08\x07";
    let expected = Command { id: 7, action: Action::Ping };
    assert_eq!(decode(Dialect::Proto, bytes), Ok(expected));
}
