//! Resuming through filters: an outcome for every position, exactly what is missing, then live.
//! # Not here: the limit of positions (`limits`), topics one by one (`tests/transcripts`).

use crate::client::{Client, WIRES};
use crate::harness::{Broker, with_broker, within};
use crate::publisher::Publisher;
use crate::reader::Reader;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

const SETTINGS: &str = r#"
limits.resume_messages_max = 10

[[topics.rules]]
filter = "*.short"
history.messages = 2

[[topics.rules]]
filter = "*.aged"
history.age = "100ms"

[[topics.rules]]
filter = "*.seldom"
max_hz = 0.01
"#;

/// Publishes so many messages with keys `k0` and `k1` in turn; returns the topic's epoch.
async fn fill(publisher: &mut Publisher, topic: &str, count: u64) -> Value {
    let message = |n: u64| json!({"topic": topic, "key": format!("k{}", n % 2), "data": n});
    let places = publisher.publish_all(&(1..=count).map(message).collect::<Vec<_>>()).await;
    places.last().expect("one")["epoch"].clone()
}

fn place(topic: &str, epoch: &Value, offset: u64) -> Value {
    json!({"topic": topic, "epoch": epoch, "offset": offset})
}

/// Waits until a topic holds none of its messages.
async fn until_aged(broker: &Broker, topic: &str) {
    let mut client = Client::connect(broker, Wire::TcpProto).await;
    let aged = async {
        loop {
            let page = client.ask(&json!({"id": 1, "history": {"topic": topic}})).await;
            if page["historyPage"]["messages"].as_array().is_some_and(Vec::is_empty) {
                return;
            }
        }
    };
    within("messages to become too old", aged).await;
}

/// What becomes of a position: recovered, until it is said otherwise.
fn outcome(topic: &str, epoch: &Value, top: u64) -> Value {
    let position = json!({"epoch": epoch, "offset": top});
    json!({"topic": topic, "position": position, "recovered": true})
}

fn lost(mut outcome: Value, reason: &str) -> Value {
    outcome["recovered"] = false.into();
    outcome["reason"] = reason.into();
    outcome
}

const NEVER: &str = "AAAAAAAAAAAAAAAAAAAAAA";

#[test]
fn each_position_has_its_outcome_and_what_can_be_recovered_follows() {
    with_broker(SETTINGS, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let mut epochs = Vec::new();
        let topics = ["m.good", "m.current", "m.other", "m.future", "m.short", "m.aged", "n.out"];
        for topic in topics {
            epochs.push(fill(&mut publisher, topic, 5).await);
        }
        let [good, current, _, future, short, aged, out] = epochs.try_into().expect("seven");
        let many = fill(&mut publisher, "m.many", 20).await;
        until_aged(broker, "m.aged").await;
        let positions = [
            place("m.future", &future, 6),
            place("m.good", &good, 2),
            place("m.short", &short, 1),
            place("m.never", &json!(NEVER), 3),
            place("m.other", &json!(NEVER), 2),
            place("n.out", &out, 2),
            place("m.current", &current, 5),
            place("m.many", &many, 2),
            place("m.aged", &aged, 4),
        ];
        let other =
            publisher.publish(&json!({"topic": "m.other", "data": 6})).await["epoch"].clone();
        let expected = json!([
            lost(outcome("m.future", &future, 5), "epochChanged"),
            outcome("m.good", &good, 5),
            lost(outcome("m.short", &short, 5), "trimmed"),
            lost(json!({"topic": "m.never"}), "epochChanged"),
            lost(outcome("m.other", &other, 6), "epochChanged"),
            lost(json!({"topic": "n.out"}), "notAllowed"),
            outcome("m.current", &current, 5),
            lost(outcome("m.many", &many, 20), "tooMany"),
            lost(outcome("m.aged", &aged, 5), "expired"),
        ]);
        let mut readers = Vec::new();
        for wire in WIRES {
            let subscribe = json!({"topic": "m.*", "positions": positions});
            let mut reader = Reader::begin(broker, wire, &subscribe).await;
            assert_eq!(reader.subscribed["topics"], expected);
            reader.until("m.good", 5).await;
            readers.push(reader);
        }
        // Live from where the answer said; nobody is told twice where a topic stands.
        for topic in ["m.good", "m.many", "m.aged", "m.other", "m.never", "m.current", "m.short"] {
            let place = publisher.publish(&json!({"topic": topic, "data": "live"})).await;
            for reader in &mut readers {
                reader.until(topic, place["offset"].as_u64().expect("an offset")).await;
            }
        }
        for reader in &readers {
            assert_eq!(reader.account("m.good").offsets(), [3, 4, 5, 6]);
            for (topic, offset) in [("m.many", 21), ("m.aged", 6), ("m.other", 7), ("m.never", 1)] {
                assert_eq!(reader.account(topic).offsets(), [offset], "{topic}");
            }
        }
        let refused =
            |reason: &str| format!("fanfare_resumes_refused_total{{reason=\"{reason}\"}}");
        let wires = WIRES.len() as u64;
        assert_eq!(broker.count("fanfare_resumes_recovered_total").await, wires * 2);
        for (reason, count) in
            [("epochChanged", 3), ("trimmed", 1), ("expired", 1), ("tooMany", 1), ("notAllowed", 1)]
        {
            assert_eq!(broker.count(&refused(reason)).await, wires * count, "{reason}");
        }
    });
}

#[test]
fn a_topic_that_is_named_twice_is_refused_and_nothing_was_begun() {
    with_broker(SETTINGS, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let epoch = fill(&mut publisher, "m.a", 3).await;
        let mut readers = Vec::new();
        for wire in WIRES {
            let mut client = Client::connect(broker, wire).await;
            // Also outside of the filter: the command is wrong, whatever it is for.
            for topic in ["m.a", "n.a"] {
                let twice =
                    [place(topic, &epoch, 1), place("m.b", &epoch, 1), place(topic, &epoch, 2)];
                let subscribe = json!({"topic": "m.*", "positions": twice});
                let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
                assert_eq!(reply["error"]["name"], "badPosition", "{reply}");
                let message = reply["error"]["message"].as_str().expect("a message");
                assert!(message.contains(&format!("`{topic}` is named twice")), "{message}");
            }
            let subscribe = json!({"topic": "m.*", "positions": [place("m.a", &epoch, 1)]});
            let mut reader = Reader::of(client, &subscribe).await;
            reader.until("m.a", 3).await;
            assert_eq!(reader.account("m.a").offsets(), [2, 3]);
            readers.push(reader);
        }
        let begun = broker.count("fanfare_subscriptions{target=\"filter\"}").await;
        assert_eq!(begun, WIRES.len() as u64);
    });
}

#[test]
fn one_command_resumes_what_it_knows_and_begins_the_rest_under_its_policy() {
    for wire in WIRES {
        with_broker(SETTINGS, async |broker| {
            let mut publisher = Publisher::connect(broker).await;
            let known = fill(&mut publisher, "w.known", 9).await;
            let seldom = fill(&mut publisher, "w.seldom", 6).await;
            fill(&mut publisher, "w.new", 4).await;
            let positions = [place("w.known", &known, 2), place("w.seldom", &seldom, 2)];
            let subscribe =
                json!({"topic": "w.*", "positions": positions, "last": 2, "policy": "latest"});
            let mut reader = Reader::begin(broker, wire, &subscribe).await;
            assert_eq!(reader.subscribed["policy"], "latest");
            let recovered = reader.subscribed["topics"].as_array().expect("outcomes");
            assert!(recovered.iter().all(|topic| topic["recovered"] == true), "{recovered:?}");
            for (topic, last) in [("w.known", 9), ("w.seldom", 6), ("w.new", 4)] {
                reader.until(topic, last).await;
            }
            // What is missing is conflated by key, the latest messages are as they are.
            assert_eq!(reader.account("w.known").offsets(), [8, 9]);
            assert_eq!(reader.account("w.seldom").offsets(), [5, 6]);
            assert_eq!(reader.account("w.new").offsets(), [3, 4]);

            // The topic whose rule grants little has had its turn.
            for topic in ["w.seldom", "w.known", "w.new", "w.begun"] {
                publisher.publish(&json!({"topic": topic, "data": "live"})).await;
            }
            reader.until("w.begun", 1).await;
            assert_eq!(reader.account("w.known").last, 10);
            assert_eq!(reader.account("w.new").last, 5);
            assert_eq!(reader.account("w.seldom").last, 6);
        });
    }
}

#[test]
fn a_resume_under_every_message_is_not_conflated_and_one_by_key_may_be_longer() {
    for wire in WIRES {
        with_broker(SETTINGS, async |broker| {
            let mut publisher = Publisher::connect(broker).await;
            let epoch = fill(&mut publisher, "t", 40).await;
            let resume = |since: u64, fields: Value| {
                let mut subscribe =
                    json!({"topic": "t", "since": {"epoch": epoch, "offset": since}});
                let more = fields.as_object().expect("fields").clone();
                subscribe.as_object_mut().expect("an object").extend(more);
                subscribe
            };
            let mut reader = Reader::begin(broker, wire, &resume(30, json!({}))).await;
            assert_eq!(reader.subscribed["recovered"], true);
            reader.until("t", 40).await;
            assert_eq!(reader.account("t").offsets(), (31..=40).collect::<Vec<_>>());

            let reader = Reader::begin(broker, wire, &resume(20, json!({}))).await;
            assert_eq!(reader.subscribed["reason"], "tooMany");

            for fields in [json!({"policy": "latest"}), json!({"maxHz": 100})] {
                let mut reader = Reader::begin(broker, wire, &resume(0, fields)).await;
                assert_eq!(reader.subscribed["recovered"], true);
                reader.until("t", 40).await;
                assert_eq!(reader.account("t").offsets(), [39, 40]);
            }
        });
    }
}
