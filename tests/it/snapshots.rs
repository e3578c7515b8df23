//! Snapshots of keys: what they hold, how they meet the present, and what is too much.
//! # Not here: snapshots of the latest message (`tests/transcripts/snapshot.txt`).

use crate::client::{Client, WIRES, wire_of};
use crate::harness::{Broker, with_broker};
use crate::http;
use crate::publisher::Publisher;
use crate::reader::{Reader, offset_of};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;

const SETTINGS: &str = r#"
limits.resume_messages_max = 200
limits.snapshot_topics_max = 10

[[topics.rules]]
filter = "row.*"
snapshot = "keys"
history.messages = 3

[[topics.rules]]
filter = "few.*"
snapshot = "keys"
snapshot_keys_max = 3

[[topics.rules]]
filter = "many.*"
snapshot = "keys"
"#;

/// What a topic holds: of each key the number of its latest message.
type Rows = BTreeMap<String, u64>;

/// Hears a snapshot: its messages, and where live messages of each topic go on.
async fn hear_snapshot(client: &mut Client) -> (Vec<Value>, BTreeMap<String, u64>) {
    let mut messages = Vec::new();
    loop {
        let event = client.hear().await;
        if event["snapshotEnd"].is_object() {
            let positions = event["snapshotEnd"]["positions"].as_array().cloned();
            let place = |place: Value| {
                (place["topic"].as_str().expect("a topic").to_owned(), offset_of(&place))
            };
            return (messages, positions.unwrap_or_default().into_iter().map(place).collect());
        }
        assert!(event["message"].is_object(), "{event}");
        messages.push(event["message"].clone());
    }
}

/// Adds a message to what topics hold.
fn apply(rows: &mut BTreeMap<String, Rows>, message: &Value) {
    let topic = message["topic"].as_str().expect("a topic");
    let key = message["key"].as_str().unwrap_or_default().to_owned();
    let rows = rows.entry(topic.to_owned()).or_default();
    if let Some(number) = message["data"].as_u64() {
        rows.insert(key, number);
    } else {
        assert_eq!(message["deleted"], true, "{message}");
        rows.remove(&key);
    }
}

#[test]
fn a_snapshot_holds_the_latest_of_every_key_and_none_that_was_deleted() {
    with_broker(SETTINGS, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let row = |key: &str, data: u64| json!({"topic": "row.a", "key": key, "data": data});
        let gone = |key: &str| json!({"topic": "row.a", "key": key, "delete": true});
        let none = json!({"topic": "row.a", "data": 6});
        let all = [row("a", 1), row("b", 2), row("c", 3), row("a", 4), gone("b"), none, gone("x")];
        publisher.publish_all(&all).await;
        // More than history holds, which is three messages.
        publisher.publish_all(&[row("d", 8), gone("d"), row("c", 10), row("b", 11)]).await;
        for wire in WIRES {
            for target in ["row.a", "row.*", ">"] {
                let mut client = Client::connect(broker, wire).await;
                let subscribe = json!({"topic": target, "snapshot": true});
                client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
                let (messages, positions) = hear_snapshot(&mut client).await;
                let got = messages.iter().map(|message| {
                    let key = message["key"].as_str().unwrap_or_default();
                    (offset_of(message), key, message["data"].as_u64())
                });
                let expected =
                    [(4, "a", Some(4)), (6, "", Some(6)), (10, "c", Some(10)), (11, "b", Some(11))];
                assert_eq!(got.collect::<Vec<_>>(), expected, "{target}");
                assert_eq!(positions, BTreeMap::from([("row.a".to_owned(), 11)]), "{target}");
            }
        }
    });
}

/// Changes rows of three topics at random, and notes every one.
async fn change_rows(publisher: &mut Publisher, log: &RefCell<Vec<Value>>, count: usize) {
    let mut dice = crate::harness::Dice::new(7);
    for _ in 0..count {
        let mut some = Vec::new();
        for _ in 0..5 {
            let topic = format!("row.{}", dice.below(3));
            let key = format!("k{}", dice.below(6));
            let is_delete = dice.below(3) == 0;
            let what =
                if is_delete { json!({"delete": true}) } else { json!({"data": dice.below(1000)}) };
            let mut publish = json!({"topic": topic, "key": key});
            let fields = publish.as_object_mut().expect("an object");
            fields.extend(what.as_object().expect("an object").clone());
            some.push(publish);
        }
        let places = publisher.publish_all(&some).await;
        for (mut publish, place) in some.into_iter().zip(places) {
            publish["offset"] = place["offset"].clone();
            publish["deleted"] = publish["delete"].clone();
            log.borrow_mut().push(publish);
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_snapshot_meets_the_present_without_a_hole_or_a_double() {
    with_broker(SETTINGS, async |broker| {
        let log = RefCell::new(Vec::new());
        let mut publisher = Publisher::connect(broker).await;
        let mut joined = Vec::new();
        let join = async {
            for round in 0..30 {
                let wire = wire_of(round);
                let mut client = Client::connect(broker, wire).await;
                let target = ["row.*", "row.1", ">"][round / WIRES.len() % 3];
                let subscribe = json!({"topic": target, "snapshot": true});
                let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
                assert!(reply["subscribed"].is_object(), "{reply}");
                let (messages, positions) = hear_snapshot(&mut client).await;
                joined.push((client, target, messages, positions));
            }
        };
        tokio::join!(change_rows(&mut publisher, &log, 250), join);
        let log = log.into_inner();
        for (mut client, target, messages, positions) in joined {
            let mut rows = BTreeMap::new();
            for message in &messages {
                apply(&mut rows, message);
            }
            let of = |topic: &Value| target != "row.1" || topic == "row.1";
            let log: Vec<&Value> = log.iter().filter(|message| of(&message["topic"])).collect();
            let place = |topic: &Value| positions.get(topic.as_str().expect("a topic")).copied();
            let is_past = |m: &&&Value| place(&m["topic"]).is_some_and(|top| offset_of(m) <= top);
            let mut expected = BTreeMap::new();
            for message in log.iter().filter(is_past) {
                apply(&mut expected, message);
            }
            expected.retain(|_, rows| !rows.is_empty());
            assert_eq!(rows, expected, "the snapshot of {target}");

            // What comes after it is everything else, topic by topic in order.
            let mut tops = positions.clone();
            let live = log.iter().filter(|message| !is_past(message)).count();
            for _ in 0..live {
                let message = loop {
                    let event = client.hear().await;
                    if event["message"].is_object() {
                        break event["message"].clone();
                    }
                    assert!(event["position"].is_object(), "{event}");
                };
                let top =
                    tops.entry(message["topic"].as_str().expect("a topic").into()).or_default();
                *top += 1;
                assert_eq!(offset_of(&message), *top, "{message}");
                apply(&mut rows, &message);
            }
            let mut all = BTreeMap::new();
            for message in &log {
                apply(&mut all, message);
            }
            let full = |rows: BTreeMap<String, Rows>| -> BTreeMap<_, _> {
                rows.into_iter().filter(|(_, rows)| !rows.is_empty()).collect()
            };
            assert_eq!(full(rows), full(all), "in the end, of {target}");
            client.ask(&json!({"id": 2, "ping": {}})).await;
        }
    });
}

#[test]
fn a_topic_holds_as_many_keys_as_its_rule_says_and_a_delete_makes_room() {
    with_broker(SETTINGS, async |broker| {
        let mut client = Client::connect(broker, Wire::WebSocketProto).await;
        let mut publish = async |fields: Value| {
            let mut publish = json!({"topic": "few.a"});
            publish
                .as_object_mut()
                .expect("an object")
                .extend(fields.as_object().cloned().unwrap());
            client.ask(&json!({"id": 1, "publish": publish})).await
        };
        for key in ["a", "b", "c", "a"] {
            publish(json!({"key": key, "data": 1})).await;
        }
        let refused = publish(json!({"key": "d", "data": 1})).await;
        http::refusal(&json!({"error": refused["error"]}), Reason::TooManyKeys);
        assert_eq!(refused["error"]["code"], 118);
        // Messages without a key are one more thing.
        let refused = publish(json!({"data": 1})).await;
        assert_eq!(refused["error"]["name"], "tooManyKeys");
        let answer =
            http::publish(broker.public(), r#"{"topic":"few.a","key":"d","data":1}"#).await;
        answer.must_refuse(Reason::TooManyKeys);
        assert_eq!(answer.status, 429);
        // The offset shows that nothing was published between.
        assert_eq!(publish(json!({"key": "b", "delete": true})).await["published"]["offset"], 5);
        assert_eq!(publish(json!({"key": "d", "data": 1})).await["published"]["offset"], 6);
        assert_eq!(broker.count("fanfare_refusals_total{reason=\"tooManyKeys\"}").await, 3);
    });
}

#[test]
fn a_key_whose_message_is_too_old_makes_room() {
    with_broker(SETTINGS, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let row =
            |key: &str, ttl: u64| json!({"topic": "few.a", "key": key, "data": 1, "ttlMs": ttl});
        publisher.publish_all(&[row("a", 0), row("b", 0), row("c", 30)]).await;
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        let room = async {
            loop {
                let publish = json!({"topic": "few.a", "key": "d", "data": 1});
                let reply = client.ask(&json!({"id": 1, "publish": publish})).await;
                if reply["published"].is_object() {
                    return;
                }
                assert_eq!(reply["error"]["name"], "tooManyKeys", "{reply}");
            }
        };
        crate::harness::within("room for a key", room).await;
    });
}

#[test]
fn a_snapshot_of_too_much_is_refused_and_changes_nothing() {
    with_broker(SETTINGS, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let keys: Vec<Value> = (0..201)
            .map(|key| json!({"topic": "many.a", "key": format!("{key}"), "data": 1}))
            .collect();
        publisher.publish_all(&keys).await;
        let topics: Vec<Value> =
            (0..11).map(|name| json!({"topic": format!("wide.{name}"), "data": 1})).collect();
        publisher.publish_all(&topics).await;
        for wire in WIRES {
            for target in ["many.a", "many.*", "wide.*", ">"] {
                let mut client = Client::connect(broker, wire).await;
                let subscribe = json!({"topic": target, "snapshot": true});
                let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
                http::refusal(&json!({"error": reply["error"]}), Reason::SnapshotTooLarge);
                publisher.publish(&json!({"topic": "many.a", "key": "1", "data": 2})).await;
                publisher.publish(&json!({"topic": "wide.1", "data": 2})).await;
                // Neither subscribed by half nor unable to be now.
                let mut reader = Reader::of(client, &json!({"topic": target})).await;
                publisher.publish(&json!({"topic": "many.a", "key": "1", "data": 3})).await;
                publisher.publish(&json!({"topic": "wide.1", "data": 3})).await;
                let first = loop {
                    let event = reader.hear().await;
                    if event["message"].is_object() {
                        break event;
                    }
                };
                assert_eq!(first["message"]["data"], 3, "{first}");
            }
        }
        // Ten are not too many.
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        let few: Vec<Value> =
            (0..10).map(|name| json!({"topic": format!("ten.{name}"), "data": 1})).collect();
        publisher.publish_all(&few).await;
        let subscribe = json!({"topic": "ten.*", "snapshot": true});
        client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
        let (messages, positions) = hear_snapshot(&mut client).await;
        assert_eq!((messages.len(), positions.len()), (10, 10));
    });
}

/// Publishes one message to each of so many topics, without waiting for answers.
async fn begin_topics(broker: &Broker, count: usize) {
    let mut client = Client::connect(broker, Wire::TcpProto).await;
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(500) {
        let command = |n: &usize| json!({"publish": {"topic": format!("x.{n}"), "data": n}});
        let spelled = some.iter().flat_map(|n| client.spell(&command(n).to_string()));
        let bytes: Vec<u8> = spelled.collect();
        client.pipe().send(&bytes).await;
    }
    client.ask(&json!({"id": 1, "ping": {}})).await;
}

#[test]
fn a_snapshot_over_twenty_thousand_topics_is_refused_and_disturbs_nobody() {
    const TOPICS: usize = 20_000;
    with_broker("", async |broker| {
        begin_topics(broker, TOPICS).await;
        assert_eq!(broker.count("fanfare_topics").await, TOPICS as u64);
        let mut reader = Reader::begin(broker, Wire::WebSocketJson, &json!({"topic": "t"})).await;
        let mut publisher = Publisher::connect(broker).await;
        let mut greedy = Vec::new();
        for wire in WIRES {
            greedy.push(Client::connect(broker, wire).await);
        }
        let snapshots = async {
            for round in 0..30 {
                let client = &mut greedy[round % WIRES.len()];
                let target = [">", "x.*", "*.*"][round / WIRES.len() % 3];
                let subscribe = json!({"topic": target, "snapshot": true});
                let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
                assert_eq!(reply["error"]["name"], "snapshotTooLarge", "{reply}");
            }
        };
        let live = async {
            for n in 1..=300 {
                publisher.publish(&json!({"topic": "t", "data": n})).await;
                reader.until("t", n).await;
            }
        };
        tokio::join!(snapshots, live);
        assert_eq!(broker.count("fanfare_subscriptions{target=\"filter\"}").await, 0);
    });
}
