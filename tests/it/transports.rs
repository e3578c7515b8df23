//! One topic, four ways in and three ways out: everybody sees the same.
//! # Not here: order under load (`order`).

use crate::client::{Client, WIRES};
use crate::harness::with_broker;
use crate::http;
use crate::socket::{Socket, TEXT};
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

#[test]
fn whoever_publishes_every_subscriber_sees_the_same_offsets_and_payloads() {
    with_broker("", async |broker| {
        let mut subscribers = Vec::new();
        // Two of each, so that each wire is on both shards.
        for wire in WIRES.into_iter().chain(WIRES) {
            let mut client = Client::connect(broker, wire).await;
            client.ask(&json!({"id": 1, "subscribe": {"topic": "mixed"}})).await;
            subscribers.push(client);
        }
        let mut publishers = Vec::new();
        for wire in WIRES {
            publishers.push(Client::connect(broker, wire).await);
        }
        let payloads = [
            json!({"data": {"b": [1, 2.5, "x"], "a": null}}),
            json!({"text": "ä \" \\ \u{1} 😀"}),
            json!({"base64": "AAECA/8="}),
            json!({"data": "text", "key": "k\"1"}),
        ];
        let (mut epochs, mut expected) = (Vec::new(), Vec::new());
        for round in 0..4_usize {
            for (index, payload) in payloads.iter().enumerate() {
                let mut publish = payload.clone();
                publish["topic"] = "mixed".into();
                // Every payload comes in every way once.
                let position = match publishers.get_mut((index + round) % 4) {
                    Some(client) => {
                        client.ask(&json!({"id": 5, "publish": publish})).await["published"].clone()
                    }
                    None => http::publish(broker.public(), &publish.to_string()).await.json(),
                };
                expected.push(payload.clone());
                assert_eq!(position["offset"], expected.len(), "{position}");
                epochs.push(position["epoch"].clone());
            }
        }
        assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
        let mut all: Vec<Vec<Value>> = Vec::new();
        for subscriber in &mut subscribers {
            let mut heard = Vec::new();
            for (index, payload) in expected.iter().enumerate() {
                let event = subscriber.hear().await;
                let message = &event["message"];
                assert_eq!(message["offset"], index + 1, "{event}");
                for (name, value) in payload.as_object().expect("fields") {
                    assert_eq!(message[name], *value, "{event}");
                }
                heard.push(event);
            }
            all.push(heard);
        }
        // Not only the payload: time and key too.
        assert!(all.iter().all(|heard| *heard == all[0]));
    });
}

#[test]
fn data_travels_through_untouched() {
    with_broker("", async |broker| {
        // What a parser would have changed: order, spaces, escapes, numbers, keys that occur twice.
        let data = r#"{ "b":1.50,"a":1e3 , "a":[ ],"n":123456789012345678901234567890,"\u0041":"\/\u00e4"}"#;
        let mut socket = Socket::open(broker, None).await;
        socket.send(TEXT, br#"{"id":1,"subscribe":{"topic":"raw"}}"#).await;
        socket.frame().await;
        let body = format!(r#"{{"topic":"raw","data":{data}}}"#);
        assert_eq!(http::publish(broker.public(), &body).await.status, 200);
        let event = socket.frame().await.text();
        assert!(event.ends_with(&format!(r#","data":{data}}}}}"#)), "{event}");
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        let publish = format!(r#"{{"publish":{{"data":{data},"topic":"raw"}}}}"#);
        client.say_text(&publish).await;
        let event = socket.frame().await.text();
        assert!(event.ends_with(&format!(r#","data":{data}}}}}"#)), "{event}");
    });
}
