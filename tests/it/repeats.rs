//! Publishing twice and messages that end: idempotency keys over every way in, times to live over
//! every way out.
//! # Not here: how long answers are kept (`topics::idempotency`).

use crate::client::{Client, WIRES};
use crate::harness::{Broker, with_broker, within};
use crate::http;
use crate::publisher::Publisher;
use crate::reader::Reader;
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

/// Publishes by a connection of its own: by HTTP, alone and in a list, or by one of the wires.
async fn publish_by(broker: &Broker, way: usize, publish: &Value) -> Value {
    match way {
        0 => http::publish(broker.public(), &publish.to_string()).await.json(),
        1 => http::publish(broker.public(), &json!([publish]).to_string()).await.json()[0].clone(),
        _ => {
            let mut client = Client::connect(broker, WIRES[way - 2]).await;
            let reply = client.ask(&json!({"id": 1, "publish": publish})).await;
            if reply["error"].is_object() {
                json!({"error": reply["error"]})
            } else {
                reply["published"].clone()
            }
        }
    }
}

const WAYS: usize = 2 + WIRES.len();

#[test]
fn what_is_published_twice_has_one_place_whatever_way_it_comes() {
    with_broker("", async |broker| {
        let mut reader = Reader::begin(broker, Wire::WebSocketJson, &json!({"topic": "t"})).await;
        for way in 0..WAYS {
            let whole = json!({
                "topic": "t", "key": "k", "data": {"a": [1, 2]}, "idempotencyKey": format!("n{way}"),
                "ttlMs": 60_000,
            });
            let first = publish_by(broker, way, &whole).await;
            assert_eq!(first["offset"], way + 1, "{first}");
            for again in 0..WAYS {
                assert_eq!(publish_by(broker, again, &whole).await, first);
                // Anything else about it makes it another message.
                for (field, value) in [
                    ("data", json!({"a": [1, 3]})),
                    ("key", json!("l")),
                    ("ttlMs", json!(60_001)),
                    ("ttlMs", json!(0)),
                ] {
                    let mut other = whole.clone();
                    other[field] = value;
                    let refused = publish_by(broker, again, &other).await;
                    http::refusal(&refused, Reason::IdempotencyMismatch);
                }
                let delete = json!({
                    "topic": "t", "key": "k", "delete": true, "idempotencyKey": format!("n{way}"),
                });
                let refused = publish_by(broker, again, &delete).await;
                http::refusal(&refused, Reason::IdempotencyMismatch);
            }
            // Another topic has its own keys.
            let mut elsewhere = whole.clone();
            elsewhere["topic"] = format!("u{way}").into();
            assert_eq!(publish_by(broker, 0, &elsewhere).await["offset"], 1);
        }
        reader.until("t", WAYS as u64).await;
        reader.ask(&json!({"id": 2, "ping": {}})).await;
        let series = "fanfare_refusals_total{reason=\"idempotencyMismatch\"}";
        assert_eq!(broker.count(series).await, (WAYS * WAYS * 5) as u64);
        assert_eq!(broker.count("fanfare_idempotency_keys").await, 2 * WAYS as u64);
    });
}

#[test]
fn a_delete_can_be_repeated_too() {
    with_broker("", async |broker| {
        let delete = json!({"topic": "t", "key": "k", "delete": true, "idempotencyKey": "d"});
        let first = publish_by(broker, 0, &delete).await;
        for way in 0..WAYS {
            assert_eq!(publish_by(broker, way, &delete).await, first);
        }
        assert_eq!(publish_by(broker, 1, &json!({"topic": "t", "data": 1})).await["offset"], 2);
    });
}

/// Publishes numbers; those that are named live for a moment only. Waits until they have ended.
async fn publish_mixed(broker: &Broker, topic: &str, count: u64, short: &[u64]) -> Value {
    let mut publisher = Publisher::connect(broker).await;
    let message = |n: u64| {
        let ttl = if short.contains(&n) { 20 } else { 2_592_000_000_u64 };
        json!({"topic": topic, "key": format!("k{n}"), "data": n, "ttlMs": ttl})
    };
    let places = publisher.publish_all(&(1..=count).map(message).collect::<Vec<_>>()).await;
    let ended = async {
        loop {
            let page = publisher.client.ask(&json!({"id": 1, "history": {"topic": topic}})).await;
            let messages = page["historyPage"]["messages"].as_array().expect("a page").clone();
            if messages.len() as u64 == count - short.len() as u64 {
                let is_long = |message: &Value| {
                    !short.contains(&message["offset"].as_u64().expect("an offset"))
                };
                assert!(messages.iter().all(is_long), "{page}");
                return;
            }
        }
    };
    within("messages to end", ended).await;
    places[0]["epoch"].clone()
}

const RULES: &str = r#"
[[topics.rules]]
filter = "keys.*"
snapshot = "keys"
"#;

#[test]
fn a_message_whose_time_is_over_is_not_sent_and_a_resume_tells_it() {
    with_broker(RULES, async |broker| {
        for topic in ["t.a", "keys.a"] {
            let epoch = publish_mixed(broker, topic, 8, &[1, 4, 5, 8]).await;
            for wire in WIRES {
                let mut reader = resume(broker, wire, topic, &epoch, json!({"topic": topic})).await;
                reader.until(topic, 8).await;
                let account = reader.account(topic);
                assert_eq!(account.offsets(), [2, 3, 6, 7]);
                let gap = |from, to| (from, to, "expired".to_owned());
                assert_eq!(account.gaps, [gap(1, 1), gap(4, 5), gap(8, 8)]);
                // Conflation leaves them out like others that are passed over.
                let latest = json!({"topic": topic, "policy": "latest"});
                let mut reader = resume(broker, wire, topic, &epoch, latest).await;
                reader.until(topic, 7).await;
                assert_eq!(reader.account(topic).offsets(), [2, 3, 6, 7]);
                assert!(reader.account(topic).gaps.is_empty());

                let last = json!({"topic": topic, "last": 3});
                assert_eq!(first_sent(broker, wire, &last, 2).await, [6, 7]);
                let snapshot = json!({"topic": topic, "snapshot": true});
                let expected: &[u64] = if topic == "t.a" { &[] } else { &[2, 3, 6, 7] };
                assert_eq!(first_sent(broker, wire, &snapshot, expected.len()).await, expected);
            }
        }
        // A gap in history is no gap of a slow reader, but it is one that was told.
        assert_eq!(broker.count("fanfare_gaps_total").await, 2 * 3 * WIRES.len() as u64);
    });
}

async fn resume(
    broker: &Broker,
    wire: Wire,
    topic: &str,
    epoch: &Value,
    mut subscribe: Value,
) -> Reader {
    subscribe["topic"] = topic.into();
    subscribe["since"] = json!({"epoch": epoch, "offset": 0});
    let reader = Reader::begin(broker, wire, &subscribe).await;
    assert_eq!(reader.subscribed["recovered"], true, "{}", reader.subscribed);
    reader
}

/// The offsets of the messages that a subscription is sent first; nothing else may follow.
async fn first_sent(broker: &Broker, wire: Wire, subscribe: &Value, count: usize) -> Vec<u64> {
    let mut client = Client::connect(broker, wire).await;
    let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
    assert!(reply["subscribed"].is_object(), "{reply}");
    let mut offsets = Vec::new();
    for _ in 0..count {
        let event = client.hear().await;
        offsets.push(event["message"]["offset"].as_u64().unwrap_or_else(|| panic!("{event}")));
    }
    if subscribe["snapshot"] == true {
        assert!(client.hear().await["snapshotEnd"].is_object());
    }
    client.ask(&json!({"id": 2, "ping": {}})).await;
    offsets
}

#[test]
fn who_catches_up_is_told_what_ended_meanwhile() {
    let settings = r#"
        limits.message_bytes_max = "16 KiB"
        limits.outbound_bytes_max = "64 KiB"
        topics.history.bytes = "16 MiB"
    "#;
    for wire in WIRES {
        with_broker(settings, async |broker| {
            let mut reader = Reader::narrow(broker, wire, &json!({"topic": "t"})).await;
            let mut publisher = Publisher::connect(broker).await;
            let text = "x".repeat(8 << 10);
            publisher.publish_all(&vec![json!({"topic": "t", "text": text}); 150]).await;
            publisher.settle(broker).await;
            assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
            // Behind all of these there is no room.
            let mut short = vec![json!({"topic": "t", "data": 1, "ttlMs": 20}); 3];
            short.push(json!({"topic": "t", "data": 2}));
            publisher.publish_all(&short).await;
            let ended = async {
                let query = json!({"id": 1, "history": {"topic": "t", "limit": 4}});
                loop {
                    let page = publisher.client.ask(&query).await;
                    let messages = page["historyPage"]["messages"].as_array().expect("a page");
                    if messages.len() == 1 {
                        return;
                    }
                }
            };
            within("messages to end", ended).await;
            reader.until("t", 154).await;
            let account = reader.account("t");
            assert_eq!(account.gaps, [(151, 153, "expired".to_owned())]);
            assert!(account.offsets().into_iter().eq((1..=150).chain([154])));
        });
    }
}
