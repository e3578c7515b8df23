//! Topics that have gone quiet: `stale` when it is time, `fresh` before the next message.
//! # Not here: when exactly (`shard`, by a clock that a test moves).

use crate::client::{Client, WIRES};
use crate::harness::with_broker;
use crate::publisher::Publisher;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

const SETTINGS: &str = r#"
[[topics.rules]]
filter = "quiet.*"
stale_after = "1s"
"#;

/// Hears the next event that is no position.
async fn hear(client: &mut Client) -> Value {
    loop {
        let event = client.hear().await;
        if event["position"].is_null() {
            return event;
        }
    }
}

#[test]
fn a_quiet_topic_is_told_stale_and_fresh_before_its_next_message() {
    with_broker(SETTINGS, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let first = json!({"topic": "quiet.a", "data": 1});
        publisher.publish(&first).await;
        let mut subscribers = Vec::new();
        for wire in WIRES {
            for target in ["quiet.a", "quiet.*"] {
                let mut client = Client::connect(broker, wire).await;
                let subscribe = json!({"topic": target, "last": 1});
                let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
                assert!(reply["subscribed"]["stale"].is_null(), "{reply}");
                let time = hear(&mut client).await["message"]["time"].clone();
                subscribers.push((client, time));
            }
        }
        for (client, time) in &mut subscribers {
            let expected = json!({"stale": {"topic": "quiet.a", "since": time}});
            assert_eq!(client.hear().await, expected);
        }
        // Who comes now is told in the answer, or behind it for a topic of a filter.
        let mut late = Client::connect(broker, Wire::WebSocketProto).await;
        let subscribe = json!({"id": 1, "subscribe": {"topic": "quiet.a"}});
        assert_eq!(late.ask(&subscribe).await["subscribed"]["stale"], true);
        let mut late_by_filter = Client::connect(broker, Wire::TcpProto).await;
        let subscribe = json!({"id": 1, "subscribe": {"topic": "quiet.*", "snapshot": true}});
        late_by_filter.ask(&subscribe).await;
        let mut names = Vec::new();
        for _ in 0..3 {
            let event = late_by_filter.hear().await;
            let event = event.as_object().expect("an event");
            names.extend(event.keys().filter(|name| *name != "id").cloned());
        }
        names.sort();
        assert_eq!(names, ["message", "snapshotEnd", "stale"]);

        // Twice: stale and fresh take turns.
        subscribers.extend([(late, Value::Null), (late_by_filter, Value::Null)]);
        for offset in 2..=3 {
            publisher.publish(&json!({"topic": "quiet.a", "data": offset})).await;
            for (client, time) in &mut subscribers {
                assert_eq!(hear(client).await, json!({"fresh": {"topic": "quiet.a"}}));
                let message = hear(client).await["message"].clone();
                assert_eq!(message["offset"], offset, "{message}");
                message["time"].clone_into(time);
            }
            for (client, time) in &mut subscribers {
                let expected = json!({"stale": {"topic": "quiet.a", "since": time}});
                assert_eq!(client.hear().await, expected);
            }
        }
    });
}

#[test]
fn a_topic_that_never_had_a_message_is_stale_since_no_time() {
    with_broker(SETTINGS, async |broker| {
        let mut clients = Vec::new();
        for wire in WIRES {
            let mut client = Client::connect(broker, wire).await;
            let subscribe = json!({"id": 1, "subscribe": {"topic": "quiet.b"}});
            client.ask(&subscribe).await;
            // Another topic of this connection has no such rule.
            client.ask(&json!({"id": 2, "subscribe": {"topic": "loud.b"}})).await;
            clients.push(client);
        }
        for client in &mut clients {
            assert_eq!(client.hear().await, json!({"stale": {"topic": "quiet.b"}}));
        }
        let mut publisher = Publisher::connect(broker).await;
        publisher.publish(&json!({"topic": "quiet.b", "data": 1})).await;
        for client in &mut clients {
            assert_eq!(client.hear().await, json!({"fresh": {"topic": "quiet.b"}}));
            assert_eq!(client.hear().await["message"]["offset"], 1);
        }
    });
}

#[test]
fn a_topic_that_is_heard_of_is_not_stale() {
    with_broker(SETTINGS, async |broker| {
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        client.ask(&json!({"id": 1, "subscribe": {"topic": "quiet.c"}})).await;
        let mut quiet = Client::connect(broker, Wire::WebSocketJson).await;
        quiet.ask(&json!({"id": 1, "subscribe": {"topic": "quiet.d"}})).await;
        let mut publisher = Publisher::connect(broker).await;
        // Until the other topic is stale, this one has a message again and again. Whoever is told
        // that it is stale is told that it is fresh, before the message that ends it.
        let mut stale = false;
        let mut last = 0;
        let publish = async {
            loop {
                publisher.publish(&json!({"topic": "quiet.c", "data": 1})).await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let hear = async {
            loop {
                tokio::select! {
                    event = client.hear() => match event["message"]["offset"].as_u64() {
                        Some(offset) => {
                            assert!(!stale, "a message of a stale topic");
                            assert_eq!(offset, last + 1);
                            last = offset;
                        }
                        None => stale = event["stale"].is_object(),
                    },
                    event = quiet.hear() => return event,
                }
            }
        };
        let event = tokio::select! {
            event = hear => event,
            () = publish => panic!("it never ends"),
        };
        assert_eq!(event, json!({"stale": {"topic": "quiet.d"}}));
        assert!(last > 0);
    });
}
