//! Rules of topics: what is granted when more was asked for, and which of several subscriptions
//! counts.
//! # Not here: what a policy does (`policies`), how rules are written (`config`).

use crate::client::WIRES;
use crate::harness::{Broker, with_broker};
use crate::publisher::Publisher;
use crate::reader::Reader;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

/// A rate that gives one message, and no other for as long as a test lasts.
const SELDOM: f64 = 0.01;

const SETTINGS: &str = r#"
[[topics.rules]]
filter = "rated.*"
max_hz = 5

[[topics.rules]]
filter = "calm.>"
policy = "latest"

[[topics.rules]]
filter = "seldom.*"
max_hz = 0.01

[[topics.rules]]
filter = "strict.*"
overflow = "disconnect"

[[topics.rules]]
filter = "bare.*"
history.messages = 0
"#;

/// What a topic or a filter is asked for, and what is granted: policy, rate and overflow.
fn cases() -> Vec<(&'static str, Value, Value)> {
    let rate = |hz: f64| json!({"policy": "maxHz", "maxHz": whole(hz)});
    let all = |overflow: &str| json!({"policy": "all", "overflow": overflow});
    let latest = json!({"policy": "latest"});
    vec![
        ("rated.a", json!({}), rate(5.0)),
        ("rated.a", json!({"policy": "all", "overflow": "gap"}), rate(5.0)),
        ("rated.a", json!({"policy": "latest"}), rate(5.0)),
        ("rated.a", json!({"maxHz": 100}), rate(5.0)),
        ("rated.a", json!({"maxHz": 2.5}), rate(2.5)),
        ("rated.*", json!({"policy": "maxHz", "maxHz": 1000}), rate(5.0)),
        ("rated.*", json!({}), rate(5.0)),
        ("calm.a.b", json!({}), latest.clone()),
        ("calm.a.b", json!({"maxHz": 10}), rate(10.0)),
        ("calm.*", json!({"overflow": "disconnect"}), latest.clone()),
        ("calm.x.*", json!({"maxHz": 0.01}), rate(SELDOM)),
        ("strict.a", json!({}), all("disconnect")),
        ("strict.*", json!({"overflow": "gap"}), all("gap")),
        ("bare.a", json!({}), all("gap")),
        ("bare.a", json!({"overflow": "catchUp"}), all("gap")),
        ("bare.*", json!({"overflow": "disconnect"}), all("disconnect")),
        // No rule covers all of these.
        ("*.a", json!({}), all("catchUp")),
        (">", json!({"maxHz": 7}), rate(7.0)),
        ("other", json!({"policy": "latest"}), latest),
    ]
}

/// A number as JSON spells it: a whole one has no fraction.
fn whole(hz: f64) -> Value {
    serde_json::from_str(&hz.to_string()).expect("a number")
}

#[test]
fn the_answer_says_what_was_granted() {
    with_broker(SETTINGS, async |broker| {
        for wire in WIRES {
            for (topic, asked, granted) in cases() {
                let with = |command: &str, id: u64, fields: &Value| {
                    let mut body = json!({"topic": topic});
                    let more = fields.as_object().expect("fields").clone();
                    body.as_object_mut().expect("an object").extend(more);
                    json!({"id": id, command: body})
                };
                // On being subscribed to, what is as the protocol has it is not said.
                let mut expected = granted.clone();
                let fields = expected.as_object_mut().expect("fields");
                fields.retain(|name, value| match name.as_str() {
                    "policy" => value != "all",
                    "overflow" => value != "catchUp" || asked["overflow"].is_string(),
                    _ => true,
                });
                let mut reader = Reader::begin(broker, wire, &with("x", 1, &asked)["x"]).await;
                let mut subscribed = reader.subscribed.clone();
                let fields = subscribed.as_object_mut().expect("fields");
                fields.retain(|name, _| !["topic", "position"].contains(&name.as_str()));
                assert_eq!(subscribed, expected, "{topic}: {asked}");

                // The other way to the same: the answer to a change says all of it.
                let mut updated = granted;
                updated["topic"] = topic.into();
                let reply = reader.ask(&with("update", 2, &asked)).await;
                assert_eq!(reply["updated"], updated, "{topic}: {asked}");
            }
        }
    });
}

/// Publishes to topics in turn, and says which messages reach each of these subscriptions of one
/// connection before a fence that reaches every connection.
async fn heard(broker: &Broker, wire: Wire, subscribes: &[Value], topics: &[&str]) -> Vec<usize> {
    let mut reader = Reader::begin(broker, wire, &json!({"topic": "fence"})).await;
    for subscribe in subscribes {
        let reply = reader.ask(&json!({"id": 2, "subscribe": subscribe})).await;
        if let Some(top) = reply["subscribed"]["position"]["offset"].as_u64() {
            reader.start(subscribe["topic"].as_str().expect("a topic"), top);
        }
    }
    reader.skips = true;
    let mut publisher = Publisher::connect(broker).await;
    for n in 1..=10 {
        for topic in topics {
            publisher.publish(&json!({"topic": topic, "data": n})).await;
        }
        // What is sent at once must be taken at once.
        let fence = publisher.publish(&json!({"topic": "fence", "data": n})).await;
        reader.until("fence", fence["offset"].as_u64().expect("an offset")).await;
    }
    topics.iter().map(|topic| reader.account(topic).messages.len()).collect()
}

#[test]
fn of_several_subscriptions_the_exact_one_counts_then_the_one_that_gives_most() {
    let all = |topic: &str| json!({"topic": topic});
    let latest = |topic: &str| json!({"topic": topic, "policy": "latest"});
    let seldom = |topic: &str| json!({"topic": topic, "maxHz": SELDOM});
    let often = |topic: &str| json!({"topic": topic, "maxHz": 0.02});
    let (every, one) = (10, 1);
    for wire in WIRES {
        with_broker(SETTINGS, async |broker| {
            let cases = [
                (vec![all("a.*")], [every, every]),
                (vec![seldom("a.*")], [one, one]),
                // The exact one counts, whether it gives less or more, came first or last.
                (vec![all("a.*"), seldom("a.b")], [one, every]),
                (vec![seldom("a.b"), all("a.*")], [one, every]),
                (vec![seldom("a.*"), all("a.b")], [every, one]),
                (vec![seldom("a.*"), latest("a.b")], [every, one]),
                // Of filters the one that gives most.
                (vec![seldom("a.*"), all("a.>")], [every, every]),
                (vec![all("a.>"), seldom("a.*")], [every, every]),
                (vec![seldom("*.b"), seldom(">"), latest("a.*")], [every, every]),
                (vec![seldom("*.b"), often(">")], [one, one]),
                (vec![seldom(">"), all("*.b")], [every, one]),
                (vec![all("*.b"), seldom("a.*"), seldom("a.b")], [one, one]),
            ];
            for (subscribes, expected) in cases {
                let got = heard(broker, wire, &subscribes, &["a.b", "a.c"]).await;
                assert_eq!(got, expected, "{subscribes:?}");
            }
        });
    }
}

#[test]
fn single_topics_of_a_filter_grant_less_by_their_rules() {
    for wire in WIRES {
        with_broker(SETTINGS, async |broker| {
            let topics = ["seldom.a", "calm.a", "other.a", "seldom.b"];
            let got = heard(broker, wire, &[json!({"topic": "*.a"})], &topics).await;
            assert_eq!(got, [1, 10, 10, 0]);
            // A rule holds for whoever asks, by whatever subscription.
            let subscribes = [json!({"topic": ">"}), json!({"topic": "seldom.b"})];
            let got = heard(broker, wire, &subscribes, &topics).await;
            assert_eq!(got, [1, 10, 10, 1]);
        });
    }
}

#[test]
fn the_first_rule_that_matches_decides_alone() {
    let settings = r#"
        [[topics.rules]]
        filter = "a.first"
        [[topics.rules]]
        filter = "a.*"
        max_hz = 0.01
        [[topics.rules]]
        filter = "a.>"
        policy = "latest"
    "#;
    with_broker(settings, async |broker| {
        let topics = ["a.first", "a.b", "a.b.c"];
        let got = heard(broker, Wire::WebSocketProto, &[json!({"topic": "a.>"})], &topics).await;
        assert_eq!(got, [10, 1, 10]);
        let mut policies = Vec::new();
        for target in ["a.first", "a.b", "a.b.c", "a.*", "a.>", "a.b.*"] {
            let reader =
                Reader::begin(broker, Wire::WebSocketJson, &json!({"topic": target})).await;
            policies.push(reader.subscribed["policy"].as_str().unwrap_or("all").to_owned());
        }
        assert_eq!(policies, ["all", "maxHz", "latest", "maxHz", "latest", "latest"]);
    });
}

#[test]
fn a_rule_closes_slow_readers_that_did_not_say_otherwise() {
    let settings = format!(
        "limits.message_bytes_max = \"16 KiB\"\nlimits.outbound_bytes_max = \"64 KiB\"\n{SETTINGS}"
    );
    with_broker(&settings, async |broker| {
        let mut strict =
            Reader::narrow(broker, Wire::TcpProto, &json!({"topic": "strict.a"})).await;
        let asked = json!({"topic": "strict.*", "overflow": "catchUp"});
        let mut lenient = Reader::narrow(broker, Wire::TcpProto, &asked).await;
        let mut publisher = Publisher::connect(broker).await;
        let message = json!({"topic": "strict.a", "text": "x".repeat(8 << 10)});
        publisher.publish_all(&vec![message; 150]).await;
        publisher.settle(broker).await;
        let ending = strict.end().await;
        assert_eq!((ending.code, ending.name.as_str()), (4408, "slowConsumer"));
        lenient.until("strict.a", 150).await;
    });
}

/// No offsets.
const NOTHING: [u64; 0] = [];

/// Publishes one message, and says which topic's messages a reader was sent before a fence.
async fn sent(reader: &mut Reader, publisher: &mut Publisher, topic: &str) -> Vec<u64> {
    let before = reader.account(topic).messages.len();
    publisher.publish(&json!({"topic": topic, "data": 1})).await;
    let fence = publisher.publish(&json!({"topic": "fence", "data": 1})).await;
    reader.until("fence", fence["offset"].as_u64().expect("an offset")).await;
    reader.account(topic).offsets()[before..].to_vec()
}

/// A reader of a fence and of `a.b` under a rate that has been used up, with one message held back.
async fn held(broker: &Broker, wire: Wire, publisher: &mut Publisher, target: &str) -> Reader {
    let mut reader = Reader::begin(broker, wire, &json!({"topic": "fence"})).await;
    let subscribe = json!({"topic": target, "maxHz": SELDOM});
    let reply = reader.ask(&json!({"id": 2, "subscribe": subscribe})).await;
    let top = reply["subscribed"]["position"]["offset"].as_u64();
    reader.skips = true;
    if let Some(top) = top {
        reader.start("a.b", top);
    }
    assert_eq!(sent(&mut reader, publisher, "a.b").await.len(), 1);
    assert_eq!(sent(&mut reader, publisher, "a.b").await, NOTHING);
    reader
}

#[test]
fn a_change_lets_go_of_what_was_held_back() {
    with_broker(SETTINGS, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let mut top = 0;
        for wire in WIRES {
            for target in ["a.b", "a.*"] {
                for terms in
                    [json!({"policy": "all"}), json!({"policy": "latest"}), json!({"maxHz": 1000})]
                {
                    let mut reader = held(broker, wire, &mut publisher, target).await;
                    top += 2;
                    let mut update = json!({"topic": target});
                    let fields = update.as_object_mut().expect("an object");
                    fields.extend(terms.as_object().expect("fields").clone());
                    reader.ask(&json!({"id": 3, "update": update})).await;
                    reader.until("a.b", top).await;
                    assert_eq!(reader.account("a.b").offsets(), [top - 1, top], "{terms}");
                }
            }
        }
    });
}

#[test]
fn what_happens_to_a_filter_leaves_the_rate_of_an_exact_subscription_alone() {
    for wire in WIRES {
        with_broker(SETTINGS, async |broker| {
            let mut publisher = Publisher::connect(broker).await;
            let mut reader = held(broker, wire, &mut publisher, "a.b").await;
            for command in [
                json!({"id": 4, "subscribe": {"topic": "a.*"}}),
                json!({"id": 4, "update": {"topic": "a.*", "policy": "latest"}}),
                json!({"id": 4, "update": {"topic": "a.*", "policy": "all"}}),
                json!({"id": 4, "unsubscribe": {"topic": "a.*"}}),
            ] {
                let reply = reader.ask(&command).await;
                assert!(reply["error"].is_null(), "{reply}");
                assert_eq!(sent(&mut reader, &mut publisher, "a.b").await, NOTHING, "{command}");
            }
            // It was held back, not lost.
            reader.ask(&json!({"id": 5, "unsubscribe": {"topic": "a.b"}})).await;
            assert_eq!(reader.account("a.b").offsets(), [1, 6]);
        });
    }
}

#[test]
fn what_a_subscription_is_sent_first_counts_for_its_rate() {
    for wire in WIRES {
        with_broker(SETTINGS, async |broker| {
            let mut publisher = Publisher::connect(broker).await;
            let first = publisher.publish(&json!({"topic": "a.b", "data": 1})).await;
            publisher.publish(&json!({"topic": "a.b", "data": 1})).await;
            let position = json!({"topic": "a.b", "epoch": first["epoch"], "offset": 1});
            let since = json!({"epoch": first["epoch"], "offset": 1});
            let cases = [
                json!({"topic": "a.b", "last": 1}),
                json!({"topic": "a.b", "snapshot": true}),
                json!({"topic": "a.b", "since": since}),
                json!({"topic": "a.*", "last": 1}),
                json!({"topic": "a.*", "snapshot": true}),
                json!({"topic": "a.*", "positions": [position]}),
            ];
            for (top, fields) in (2..).zip(cases) {
                let mut reader = Reader::begin(broker, wire, &json!({"topic": "fence"})).await;
                reader.skips = true;
                reader.start("a.b", 0);
                let mut subscribe = fields.clone();
                subscribe["maxHz"] = SELDOM.into();
                reader.ask(&json!({"id": 2, "subscribe": subscribe})).await;
                reader.until("a.b", top).await;
                assert_eq!(sent(&mut reader, &mut publisher, "a.b").await, NOTHING, "{fields}");
            }
        });
    }
}
