//! The refusals of protocol v1 in both spellings, as tables.
//! Owns the proof that both spellings refuse alike, and that what is refused is still answered.
//! # Not here: what is understood (`table`).

use super::schema::{self, command::Action as Said, publish::Payload as Load};
use super::table::{
    EPOCH, check, command, decode, place, said_publish, said_subscribe, said_topic_position,
    subscribe,
};
use super::{Action, Command, Dialect, POSITIONS_MAX, Subscribe};
use crate::reason::Reason;
use prost::Message as _;

/// Both spellings are refused with the same id, reason and sentence.
fn check_refused(json: &str, proto: &schema::Command, reason: Reason, part: &str) {
    let by_json = decode(Dialect::Json, json.as_bytes()).expect_err(json);
    let by_proto = decode(Dialect::Proto, &proto.encode_to_vec()).expect_err(json);
    assert_eq!(by_json, by_proto, "{json}");
    assert_eq!((by_json.0, by_json.1), (proto.id, reason), "{json}: {}", by_json.2);
    assert!(by_json.2.contains(part), "{json}: {}", by_json.2);
}

/// One spelling is refused with this id and reason.
fn check_broken(dialect: Dialect, bytes: &[u8], id: u64, reason: Reason, part: &str) {
    let name = String::from_utf8_lossy(bytes);
    let refused = decode(dialect, bytes).expect_err(&name);
    assert_eq!((refused.0, refused.1), (id, reason), "{name}: {}", refused.2);
    assert!(refused.2.contains(part), "{name}: {}", refused.2);
}

#[test]
fn a_bad_target_or_option_is_refused_alike_in_both_spellings() {
    let on = said_subscribe;
    #[rustfmt::skip]
    let cases = [
        ("{}", on(""), Reason::BadTopic, "it is empty"),
        (r#"{"topic":null}"#, on(""), Reason::BadTopic, "it is empty"),
        (r#"{"topic":"a b"}"#, on("a b"), Reason::BadTopic, "' ' is not one of"),
        (r#"{"topic":"a.>.b"}"#, on("a.>.b"), Reason::BadFilter, "only be the last segment"),
        (r#"{"topic":"a.*","presence":true}"#, schema::Subscribe { presence: true, ..on("a.*") }, Reason::BadOption, "for a topic, not for a filter"),
    ];
    for (json, said, reason, part) in cases {
        let json = format!(r#"{{"id":2,"subscribe":{json}}}"#);
        check_refused(&json, &command(2, Said::Subscribe(said)), reason, part);
    }
}

#[test]
fn bad_terms_are_refused_alike_in_both_spellings_and_both_commands() {
    const WORDS: &str = "`policy` must be one of all, latest, maxHz";
    const ACTS: &str = "`overflow` must be one of catchUp, gap, disconnect";
    const RATE: &str = "`maxHz` must be a number from 0.01 to 1000";
    const NEEDS: &str = "the policy maxHz needs `maxHz`";
    const BELONGS: &str = "`maxHz` belongs to the policy maxHz";
    let (all, latest, max_hz): (i32, i32, i32) =
        (schema::Policy::All.into(), schema::Policy::Latest.into(), schema::Policy::MaxHz.into());
    #[rustfmt::skip]
    let cases = [
        (r#""policy":"maxHz""#, max_hz, None, 0, NEEDS),
        (r#""policy":"maxHz","maxHz":null"#, max_hz, None, 0, NEEDS),
        (r#""policy":"all","maxHz":10"#, all, Some(10.0), 0, BELONGS),
        (r#""policy":"latest","maxHz":0.01"#, latest, Some(0.01), 0, BELONGS),
        (r#""policy":"All""#, 4, None, 0, WORDS),
        (r#""policy":"""#, -1, None, 0, WORDS),
        (r#""policy":"maxhz","maxHz":5"#, i32::MAX, Some(5.0), 0, WORDS),
        (r#""overflow":"Gap""#, 0, None, 4, ACTS),
        (r#""overflow":"","maxHz":5"#, 0, Some(5.0), -1, ACTS),
        (r#""maxHz":0"#, 0, Some(0.0), 0, RATE),
        (r#""maxHz":-0.0"#, 0, Some(-0.0), 0, RATE),
        (r#""maxHz":-1,"policy":"maxHz""#, max_hz, Some(-1.0), 0, RATE),
        (r#""maxHz":0.0099,"policy":"all""#, all, Some(0.0099), 0, RATE),
        (r#""maxHz":1000.0001"#, 0, Some(1_000.000_1), 0, RATE),
        (r#""maxHz":1e308"#, 0, Some(1e308), 0, RATE),
        (r#""maxHz":5e-324"#, 0, Some(5e-324), 0, RATE),
        (r#""maxHz":1e999"#, 0, Some(f64::INFINITY), 0, RATE),
        (r#""maxHz":-1e999"#, 0, Some(f64::NEG_INFINITY), 0, RATE),
        (r#""maxHz":"NaN""#, 0, Some(f64::NAN), 0, RATE),
    ];
    for (json, policy, max_hz, overflow, part) in cases {
        let subscribe = schema::Subscribe { policy, max_hz, overflow, ..said_subscribe("a") };
        let update = schema::Update { topic: "a".into(), policy, max_hz, overflow };
        for (name, said) in
            [("subscribe", Said::Subscribe(subscribe)), ("update", Said::Update(update))]
        {
            let json = format!(r#"{{"id":2,"{name}":{{"topic":"a",{json}}}}}"#);
            check_refused(&json, &command(2, said), Reason::BadOption, part);
        }
    }
}

#[test]
fn a_bad_name_is_refused_alike_in_both_spellings() {
    let long = "n".repeat(65);
    let wide = "ä".repeat(33);
    for (name, spelled, part) in [
        (&*long, &*long, "`name` is 65 bytes, the limit is 64"),
        (&wide, &wide, "`name` is 66 bytes, the limit is 64"),
        ("\0", "\\u0000", "`name` may have no control characters"),
        ("a\n", "a\\n", "`name` may have no control characters"),
        ("\u{7f}", "\u{7f}", "`name` may have no control characters"),
        ("a\u{85}b", "a\\u0085b", "`name` may have no control characters"),
    ] {
        let json = format!(r#"{{"id":1,"connect":{{"name":"{spelled}"}}}}"#);
        let said =
            command(1, Said::Connect(schema::Connect { name: name.into(), ..Default::default() }));
        check_refused(&json, &said, Reason::BadOption, part);
    }
}

#[test]
fn a_bad_position_is_refused_alike_in_both_spellings() {
    let since = |topic: &str, epoch: &str, offset| schema::Subscribe {
        since: Some(schema::Position { epoch: epoch.into(), offset }),
        ..said_subscribe(topic)
    };
    let positions = |topic: &str, of: &str, epoch: &str| schema::Subscribe {
        positions: vec![schema::TopicPosition { topic: of.into(), epoch: epoch.into(), offset: 1 }],
        ..said_subscribe(topic)
    };
    let no_epoch = "an epoch has 22 characters";
    let bad_offset = "`offset` must be an integer from 0 to 9007199254740991";
    #[rustfmt::skip]
    let cases = [
        (r#""a","since":{"offset":3}"#, since("a", "", 3), Reason::BadPosition, no_epoch),
        (r#""a","since":{"epoch":"E.","offset":3}"#, since("a", "E.", 3), Reason::BadPosition, no_epoch),
        (r#""a","since":{"epoch":"E","offset":9007199254740992}"#, since("a", "E", 1 << 53), Reason::BadPosition, bad_offset),
        (r#""a.*","since":{"epoch":"E","offset":1}"#, since("a.*", "E", 1), Reason::BadOption, "`since` is for a topic"),
        (r#""a","positions":[{"topic":"a","epoch":"E","offset":1}]"#, positions("a", "a", "E"), Reason::BadOption, "`positions` are for a filter"),
        (r#"">","positions":[{"topic":"*","epoch":"E","offset":1}]"#, positions(">", "*", "E"), Reason::BadTopic, "no wildcards"),
        (r#"">","positions":[{"topic":"a","offset":1}]"#, positions(">", "a", ""), Reason::BadPosition, no_epoch),
    ];
    for (json, mut said, reason, part) in cases {
        let json = format!(r#"{{"id":2,"subscribe":{{"topic":{json}}}}}"#).replace('E', EPOCH);
        let epochs = said.since.iter_mut().map(|since| &mut since.epoch);
        for epoch in epochs.chain(said.positions.iter_mut().map(|place| &mut place.epoch)) {
            *epoch = epoch.replace('E', EPOCH);
        }
        check_refused(&json, &command(2, Said::Subscribe(said)), reason, part);
    }
}

#[test]
fn a_bad_publish_or_history_query_is_refused_alike_in_both_spellings() {
    let long = "k".repeat(256);
    let long_key = format!(r#"{{"publish":{{"topic":"a.b","text":"","key":"{long}"}},"id":6}}"#);
    let long_retry = long_key.replace("key", "idempotencyKey");
    let text = || said_publish(Load::Text(String::new()));
    let publish = Said::Publish;
    let cases = [
        (
            r#"{"id":6,"publish":{"topic":"a.*","text":""}}"#,
            publish(schema::Publish { topic: "a.*".into(), ..text() }),
            Reason::BadTopic,
            "a topic name has no wildcards",
        ),
        (
            r#"{"id":6,"publish":{"topic":"a.b"}}"#,
            publish(schema::Publish { payload: None, ..text() }),
            Reason::BadPayload,
            "none of data, text, base64",
        ),
        (
            &long_key,
            publish(schema::Publish { key: long.clone(), ..text() }),
            Reason::BadKey,
            "`key` is 256 bytes, the limit is 255",
        ),
        (
            &long_retry,
            publish(schema::Publish { idempotency_key: long.clone(), ..text() }),
            Reason::BadKey,
            "`idempotencyKey` is 256 bytes, the limit is 255",
        ),
        (
            r#"{"id":6,"history":{"topic":">"}}"#,
            Said::History(schema::History { topic: ">".into(), ..Default::default() }),
            Reason::BadTopic,
            "a topic name has no wildcards",
        ),
        (
            r#"{"id":6,"presence":{"topic":"a.>"}}"#,
            Said::Presence(schema::Presence { topic: "a.>".into() }),
            Reason::BadTopic,
            "a topic name has no wildcards",
        ),
        (
            r#"{"id":6,"update":{"topic":"a.>.b"}}"#,
            Said::Update(schema::Update { topic: "a.>.b".into(), ..Default::default() }),
            Reason::BadFilter,
            "only be the last segment",
        ),
        (
            r#"{"id":6,"unsubscribe":{}}"#,
            Said::Unsubscribe(schema::Unsubscribe::default()),
            Reason::BadTopic,
            "it is empty",
        ),
    ];
    for (json, said, reason, part) in cases {
        check_refused(json, &command(6, said), reason, part);
    }
}

#[test]
fn a_bad_delete_or_time_to_live_is_refused_alike_in_both_spellings() {
    let text = || said_publish(Load::Text(String::new()));
    let keyed = || schema::Publish { key: "k".into(), ..text() };
    let ttl = "`ttlMs` must be an integer from 0 to 2592000000";
    let cases = [
        (
            r#""delete":false,"key":"k""#,
            schema::Publish { payload: None, ..keyed() },
            Reason::BadPayload,
            "none of data, text, base64",
        ),
        (
            r#""delete":true"#,
            schema::Publish { payload: None, delete: true, ..text() },
            Reason::BadKey,
            "a delete needs a `key`",
        ),
        (
            r#""delete":true,"key":"""#,
            schema::Publish { payload: None, delete: true, ..text() },
            Reason::BadKey,
            "a delete needs a `key`",
        ),
        (
            r#""delete":true,"key":"k","text":"""#,
            schema::Publish { delete: true, ..keyed() },
            Reason::BadPayload,
            "a delete has no payload",
        ),
        (
            r#""delete":true,"key":"k","data":null"#,
            schema::Publish { payload: Some(Load::Data("null".into())), delete: true, ..keyed() },
            Reason::BadPayload,
            "a delete has no payload",
        ),
        (
            r#""text":"","ttlMs":2592000001"#,
            schema::Publish { ttl_ms: 2_592_000_001, ..text() },
            Reason::BadOption,
            ttl,
        ),
        (
            r#""text":"","ttlMs":18446744073709551615"#,
            schema::Publish { ttl_ms: u64::MAX, ..text() },
            Reason::BadOption,
            ttl,
        ),
    ];
    for (json, said, reason, part) in cases {
        let draft = format!(r#"{{"topic":"a.b",{json}}}"#);
        let refusal = super::decode_draft(draft.as_bytes()).expect_err(&draft);
        assert_eq!(refusal.reason, reason, "{draft}");
        let json = format!(r#"{{"id":6,"publish":{draft}}}"#);
        check_refused(&json, &command(6, Said::Publish(said)), reason, part);
    }
}

#[test]
fn a_command_says_one_thing() {
    let known =
        "connect, subscribe, unsubscribe, update, publish, history, presence, refresh, ping";
    let none = schema::Command { id: 9, action: None };
    check_refused(r#"{"id":9}"#, &none, Reason::BadCommand, &format!("none of {known}"));
    check_refused(r#"{"id":9,"subscrbe":{}}"#, &none, Reason::BadCommand, known);
    let two = format!("more than one of {known}");
    let json = br#"{"id":9,"subscribe":{"topic":"a"},"ping":{}}"#;
    check_broken(Dialect::Json, json, 9, Reason::BadCommand, &two);
    let ping = command(0, Said::Ping(schema::Ping {})).encode_to_vec();
    let connect = command(9, Said::Connect(schema::Connect::default())).encode_to_vec();
    let proto = [ping.clone(), connect].concat();
    check_broken(Dialect::Proto, &proto, 9, Reason::BadCommand, &two);
    let twice = [ping.clone(), ping].concat();
    check_broken(Dialect::Proto, &twice, 0, Reason::BadCommand, "field 10 occurs twice");
    let payloads = br#"{"id":9,"publish":{"topic":"a","data":null,"text":""}}"#;
    let two = "more than one of data, text, base64";
    check_broken(Dialect::Json, payloads, 9, Reason::BadPayload, two);
    // Field 6, a publish: topic (1) "a", data (2) "0", binary (4) "".
    let payloads = b"\x08\x09\x32\x08\x0a\x01a\x12\x010\x22\x00";
    check_broken(Dialect::Proto, payloads, 9, Reason::BadPayload, two);
}

#[test]
fn an_id_is_an_integer_that_json_keeps() {
    let part = "`id` must be an integer from 0 to 9007199254740991";
    for id in ["-1", "1.0", "\"1\"", "9007199254740992", "1e3", "[]", "true"] {
        let json = format!(r#"{{"id":{id},"ping":{{}}}}"#);
        check_broken(Dialect::Json, json.as_bytes(), 0, Reason::BadCommand, part);
    }
    let proto = command(1 << 53, Said::Ping(schema::Ping {})).encode_to_vec();
    check_broken(Dialect::Proto, &proto, 0, Reason::BadCommand, part);
}

#[test]
fn broken_json_is_refused_with_its_id_where_that_can_be_read() {
    let bad = Reason::BadCommand;
    #[rustfmt::skip]
    let cases: [(&[u8], u64, Reason, &str); 37] = [
        (b"", 0, bad, "EOF"),
        (b"5", 0, bad, "expected an object"),
        (b"null", 0, bad, "expected an object"),
        (b"[7,null,null,null,null,null,{}]", 0, bad, "expected an object"),
        (br#"{"id":7,"ping":[]}"#, 7, bad, "expected an object"),
        (br#"{"id":7,"ping":1}"#, 7, bad, "expected an object"),
        (br#"{"id":7,"subscribe":["a"]}"#, 7, bad, "expected an object"),
        (br#"{"id":7,"subscribe":{"topic":"a","since":["x",1]}}"#, 7, bad, "expected an object"),
        (br#"{"id":7,"subscribe":{"topic":">","positions":[["a","b",1]]}}"#, 7, bad, "an object"),
        (br#"{"id":7,"subscribe":{"topic":">","positions":{}}}"#, 7, bad, "an array"),
        (br#"{"id":7,"subscribe":{"topic":5}}"#, 7, bad, "expected a string"),
        (br#"{"id":7,"subscribe":{"topic":"a","snapshot":1}}"#, 7, bad, "expected a boolean"),
        (br#"{"id":7,"subscribe":{"topic":"a","overflow":1}}"#, 7, bad, "expected a string"),
        (br#"{"id":7,"subscribe":{"topic":"a","policy":1}}"#, 7, bad, "expected a string"),
        (br#"{"id":7,"subscribe":{"topic":"a","presence":"yes"}}"#, 7, bad, "expected a boolean"),
        (br#"{"id":7,"subscribe":{"topic":"a","maxHz":"10"}}"#, 7, Reason::BadOption, "`maxHz` must be"),
        (br#"{"id":7,"subscribe":{"topic":"a","maxHz":[10]}}"#, 7, Reason::BadOption, "`maxHz` must be"),
        (br#"{"id":7,"update":{"topic":"a","maxHz":true}}"#, 7, Reason::BadOption, "`maxHz` must be"),
        (br#"{"id":7,"update":{"topic":"a","maxHz":NaN}}"#, 7, bad, "expected value"),
        (br#"{"id":7,"connect":{"name":["a"]}}"#, 7, bad, "expected a string"),
        (br#"{"id":7,"publish":{"topic":"a","delete":1,"key":"k"}}"#, 7, bad, "expected a boolean"),
        (br#"{"id":7,"publish":{"topic":"a","text":"","ttlMs":-1}}"#, 7, Reason::BadOption, "`ttlMs`"),
        (br#"{"id":7,"publish":{"topic":"a","text":"","ttlMs":1.5}}"#, 7, Reason::BadOption, "`ttlMs`"),
        (br#"{"id":7,"publish":{"topic":"a","text":"","ttlMs":"1"}}"#, 7, Reason::BadOption, "`ttlMs`"),
        (br#"{"id":7,"subscribe":{"topic":"a","last":-1}}"#, 7, Reason::BadOption, "`last`"),
        (br#"{"id":7,"subscribe":{"topic":"a","last":"5"}}"#, 7, Reason::BadOption, "`last`"),
        (br#"{"id":7,"history":{"topic":"a","limit":4294967296}}"#, 7, Reason::BadOption, "to 4294967295"),
        (br#"{"id":7,"publish":{"topic":"a","base64":"AA"}}"#, 7, Reason::BadPayload, "`base64`"),
        (br#"{"id":7,"publish":{"topic":"a","base64":"-_-_"}}"#, 7, Reason::BadPayload, "`base64`"),
        (br#"{"id":7,"publish":{"topic":"a","data":}}"#, 7, bad, "expected value"),
        (br#"{"id":7,"publish":{"topic":"\ud800"}}"#, 7, bad, "hex escape"),
        (br#"{"id":7,"ping":{}}{}"#, 7, bad, "trailing characters"),
        (br#"{"id":7,"ping":{},"ping":{}}"#, 7, bad, "duplicate field `ping`"),
        (br#"{"id":7,"id":8,"ping":{}}"#, 7, bad, "duplicate field `id`"),
        (br#"{"subscribe":{"topic":"a","topic":"b"},"id":7}"#, 7, bad, "duplicate field `topic`"),
        (br#"{"subscribe":{"topic":"a},"id":7}"#, 0, bad, "at line 1 column"),
        (b"{\"id\":7,\"ping\":{},\"x\":\"\xff\"}", 7, bad, "it is not UTF-8"),
    ];
    for (json, id, reason, part) in cases {
        check_broken(Dialect::Json, json, id, reason, part);
    }
}

#[test]
fn broken_protobuf_is_refused_with_its_id_where_that_can_be_read() {
    let bad = Reason::BadCommand;
    let cases: [(&[u8], u64, Reason, &str); 20] = [
        (b"", 0, bad, "none of connect"),
        (b"\x08\x07\x52", 7, bad, "ends within a field"),
        (b"\x08\x07\x52\x02\x08", 7, bad, "ends within a field"),
        (b"\x08\x07\x52\x01\x08", 7, bad, "ends within a field"),
        (b"\x08\x07\x50\x00", 7, bad, "field 10 is of another type"),
        (b"\x0a\x01\x07\x52\x00", 0, bad, "field 1 is of another type"),
        (b"\x08\x07\x08\x08\x52\x00", 7, bad, "field 1 occurs twice"),
        (b"\x1a\x03\x0a\x01\xff\x08\x07", 7, bad, "field 1 is not UTF-8"),
        (b"\x1a\x06\x0a\x01a\x0a\x01b\x08\x07", 7, bad, "field 1 occurs twice"),
        (b"\x0b\x08\x07", 0, bad, "a tag that is not valid"),
        // Of `last` and `limit` a generated decoder would keep 32 bits.
        (b"\x08\x07\x1a\x09\x0a\x01a\x18\x80\x80\x80\x80\x10", 7, Reason::BadOption, "`last`"),
        (b"\x08\x07\x3a\x09\x0a\x01a\x18\x80\x80\x80\x80\x10", 7, Reason::BadOption, "`limit`"),
        (
            b"\x08\x07\x1a\x09\x0a\x01a\x28\x81\x80\x80\x80\x10",
            7,
            Reason::BadOption,
            "one of catchUp",
        ),
        // `overflow` as 0 and again as 1: the first one counts although it says nothing.
        (b"\x08\x07\x1a\x07\x0a\x01a\x28\x00\x28\x01", 7, bad, "field 5 occurs twice"),
        // `policy` as 4,294,967,297, of which a generated decoder would keep 1.
        (b"\x08\x07\x1a\x09\x0a\x01a\x38\x81\x80\x80\x80\x10", 7, Reason::BadOption, "`policy`"),
        // `maxHz` as an integer, as 32 bits, as seven bytes, and twice.
        (b"\x08\x07\x1a\x05\x0a\x01a\x40\x0a", 7, bad, "field 8 is of another type"),
        (b"\x08\x07\x1a\x08\x0a\x01a\x45\0\0\x20\x41", 7, bad, "field 8 is of another type"),
        (b"\x08\x07\x1a\x0b\x0a\x01a\x41\0\0\0\0\0\0\x24", 7, bad, "ends within a field"),
        (
            b"\x08\x07\x2a\x15\x0a\x01a\x41\0\0\0\0\0\0\x24\x40\x41\0\0\0\0\0\0\x24\x40",
            7,
            bad,
            "field 8 occurs twice",
        ),
        (b"\x08\x07\x32\x06\x0a\x01a\x12\x01\xff", 7, Reason::BadPayload, "JSON value in UTF-8"),
    ];
    for (proto, id, reason, part) in cases {
        check_broken(Dialect::Proto, proto, id, reason, part);
    }
    for data in ["", " ", "{", "1 2", "\u{feff}1", "nul", "\"\n\"", "'a'"] {
        let said = command(7, Said::Publish(said_publish(Load::Data(data.into()))));
        let bytes = said.encode_to_vec();
        check_broken(Dialect::Proto, &bytes, 7, Reason::BadPayload, "one JSON value");
    }
}

#[test]
fn more_positions_than_the_limit_are_refused() {
    let one = r#"{"topic":"a.b","epoch":"AAAAAAAAAAAAAAAAAAAAAB","offset":1}"#;
    for (count, refused) in [(POSITIONS_MAX, false), (POSITIONS_MAX + 1, true), (20_000, true)] {
        let json = vec![one; count].join(",");
        let json = format!(r#"{{"id":4,"subscribe":{{"topic":"a.>","positions":[{json}]}}}}"#);
        let said = schema::Subscribe {
            positions: vec![said_topic_position("a.b", 1); count],
            ..said_subscribe("a.>")
        };
        let said = command(4, Said::Subscribe(said));
        if refused {
            let part = format!("it names {count}, the limit is 1024");
            check_refused(&json, &said, Reason::TooManyPositions, &part);
        } else {
            let positions = vec![place("a.b", 1); count];
            let subscribe = Subscribe { positions, ..subscribe("a.>") };
            let action = Action::Subscribe(subscribe.into());
            check(&json, &said, &Command { id: 4, action });
        }
    }
}

#[test]
fn no_depth_of_nesting_exhausts_the_stack() {
    const DEPTH: usize = 100_000;
    let deep = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
    let publish =
        |data: &str| command(6, Said::Publish(said_publish(Load::Data(data.to_owned().into()))));
    let whole = format!(r#"{{"id":6,"publish":{{"topic":"a.b","data":{deep}}}}}"#);
    check_refused(&whole, &publish(&deep), Reason::BadPayload, "more than 32 arrays and objects");
    let open = &deep[..DEPTH];
    let proto = publish(open).encode_to_vec();
    check_broken(Dialect::Proto, &proto, 6, Reason::BadPayload, "one JSON value");
    for (json, id) in [
        (format!(r#"{{"id":6,"publish":{{"data":{open}"#), 6),
        (format!(r#"{{"id":6,"subscribe":{deep}}}"#), 6),
        (format!(r#"{{"later":{deep},"id":6,"subscribe":[]}}"#), 6),
        (format!(r#"{{"id":{deep},"ping":{{}}}}"#), 0),
        (deep.clone(), 0),
    ] {
        check_broken(Dialect::Json, json.as_bytes(), id, Reason::BadCommand, "");
    }
}

#[test]
fn what_a_refusal_quotes_is_short() {
    let long = "ä".repeat(50_000);
    for json in [
        format!(r#"{{"id":1,"subscribe":"{long}"}}"#),
        format!(r#"{{"id":1,"subscribe":{{"topic":"{long}"}}}}"#),
        format!(r#"{{"id":1,"connect":{{"name":"{long}"}}}}"#),
        format!(r#"{{"id":1,"subscribe":{{"topic":"a","overflow":"{long}"}}}}"#),
        format!(r#"{{"id":1,"subscribe":{{"topic":"a","policy":"{long}"}}}}"#),
        format!(r#"{{"id":1,"subscribe":{{"topic":"a","maxHz":"{long}"}}}}"#),
        format!(r#"{{"id":1,"subscribe":{{"topic":"a","since":{{"epoch":"{long}"}}}}}}"#),
    ] {
        let (id, _, sentence) = decode(Dialect::Json, json.as_bytes()).expect_err(&json);
        assert_eq!(id, 1);
        assert!(sentence.len() < 300, "{sentence}");
    }
}
