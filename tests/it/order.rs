//! Order under load: publishers on both shards, subscribers that come and go, on real sockets.
//! # Invariants tested: per topic everybody sees the same order, without a gap or a double; what one
//! publisher says keeps its order; a late joiner's past and present meet without a seam.
//! # Not here: the same by chance and seed, without sockets (`tests/sim`).

use crate::client::{Client, WIRES, wire_of};
use crate::harness::{Broker, with_broker};
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::rc::Rc;
use tokio::task::{JoinHandle, LocalSet};

const PUBLISHERS: u64 = 4;
const MESSAGES: u64 = 300;
const ALL: u64 = PUBLISHERS * MESSAGES;

/// A history that holds everything.
const SETTINGS: &str = r#"
limits.resume_messages_max = 10000
topics.history.messages = 10000
topics.history.bytes = "64 MiB"
"#;

/// Publishes a publisher's messages, some of them at once.
async fn publish(mut client: Client, name: u64) {
    for chunk in (0..MESSAGES).collect::<Vec<_>>().chunks(10) {
        let command = |n: u64| {
            let publish = json!({"topic": "t", "data": [name, n]});
            json!({"id": n + 1, "publish": publish}).to_string()
        };
        let bytes: Vec<u8> = chunk.iter().flat_map(|n| client.spell(&command(*n))).collect();
        client.pipe().send(&bytes).await;
        for n in chunk {
            let reply = client.hear().await;
            assert!(reply["published"].is_object(), "{reply}");
            assert_eq!(reply["id"], n + 1, "{reply}");
        }
    }
}

/// Hears every message after `from`; returns what each said.
async fn listen(mut client: Client, from: u64) -> Vec<(u64, Value)> {
    let mut heard = Vec::new();
    for expected in from + 1..=ALL {
        let mut event = client.hear().await;
        if event["position"].is_object() {
            assert_eq!(event["position"]["offset"], expected - 1, "{event}");
            event = client.hear().await;
        }
        assert_eq!(event["message"]["offset"], expected, "{event}");
        heard.push((expected, event["message"]["data"].clone()));
    }
    client.ask(&json!({"id": 1_000_000, "ping": {}})).await;
    heard
}

fn begin(broker: &Rc<Broker>, name: u64) -> JoinHandle<()> {
    let broker = Rc::clone(broker);
    tokio::task::spawn_local(async move {
        let wire = wire_of(usize::try_from(name).expect("small"));
        publish(Client::connect(&broker, wire).await, name).await;
    })
}

/// Every few messages of the first subscriber, somebody joins: with a position, with the latest
/// messages, through a filter, or from now on.
async fn late_joiners(broker: &Rc<Broker>, epoch: &Value) -> Vec<JoinHandle<Vec<(u64, Value)>>> {
    let mut pacer = Client::connect(broker, Wire::WebSocketJson).await;
    pacer.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
    let mut joined = Vec::new();
    for round in 0_u64..24 {
        let mut seen = 0;
        for _ in 0..40 {
            seen = pacer.hear().await["message"]["offset"].as_u64().expect("an offset");
        }
        let wire = wire_of(usize::try_from(round).expect("small"));
        let mut client = Client::connect(broker, wire).await;
        let since = json!({"epoch": epoch, "offset": seen / 2});
        let subscribe = match round % 4 {
            0 => json!({"topic": "t", "since": since}),
            1 => json!({"topic": "t", "last": 7}),
            2 => json!({"topic": "t"}),
            _ => {
                let place = json!({"topic": "t", "epoch": epoch, "offset": seen / 2});
                json!({"topic": "*", "positions": [place]})
            }
        };
        let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
        let subscribed = &reply["subscribed"];
        let top = subscribed["position"]["offset"].as_u64();
        let from = match round % 4 {
            0 => {
                assert_eq!(subscribed["recovered"], true, "{reply}");
                seen / 2
            }
            1 => top.expect("a position") - 7,
            2 => top.expect("a position"),
            _ => {
                assert_eq!(subscribed["topics"][0]["recovered"], true, "{reply}");
                seen / 2
            }
        };
        joined.push(tokio::task::spawn_local(listen(client, from)));
    }
    joined
}

#[test]
fn everybody_sees_one_order_whenever_and_wherever_they_join() {
    with_broker_shared(async |broker| {
        let mut early = Vec::new();
        let mut epoch = Value::Null;
        for index in 0..6 {
            let mut client = Client::connect(&broker, wire_of(index)).await;
            let topic = if index < 3 { "t" } else { ">" };
            let reply = client.ask(&json!({"id": 1, "subscribe": {"topic": topic}})).await;
            if index == 0 {
                epoch = reply["subscribed"]["position"]["epoch"].clone();
            }
            early.push(tokio::task::spawn_local(listen(client, 0)));
        }
        let publishers: Vec<_> = (0..PUBLISHERS).map(|name| begin(&broker, name)).collect();
        let late = late_joiners(&broker, &epoch).await;
        for publisher in publishers {
            publisher.await.expect("a publisher");
        }
        let mut all: Vec<Option<Value>> = vec![None; usize::try_from(ALL).expect("small") + 1];
        for listener in early.into_iter().chain(late) {
            for (offset, data) in listener.await.expect("a listener") {
                let place = &mut all[usize::try_from(offset).expect("small")];
                assert_eq!(*place.get_or_insert_with(|| data.clone()), data, "at {offset}");
            }
        }
        // What one publisher said is in its order.
        let mut next = [0; 4];
        for data in all.into_iter().flatten() {
            let [name, n] = [&data[0], &data[1]].map(|v| v.as_u64().expect("a number"));
            let next = &mut next[usize::try_from(name).expect("small")];
            assert_eq!(n, *next, "of publisher {name}");
            *next += 1;
        }
        assert_eq!(next, [MESSAGES; 4]);
    });
}

/// Runs a test that shares its broker with tasks of its own.
fn with_broker_shared(test: impl AsyncFnOnce(Rc<Broker>)) {
    crate::harness::run(async {
        let broker = Rc::new(Broker::start(SETTINGS));
        LocalSet::new().run_until(test(Rc::clone(&broker))).await;
        let broker = Rc::into_inner(broker).expect("no task is left");
        assert_eq!(broker.drain().await, 0, "connections were cut off");
    });
}

#[test]
fn subscriptions_that_come_and_go_disturb_nobody() {
    with_broker("limits.subscribe_rate = \"off\"", async |broker| {
        let mut steady = Client::connect(broker, Wire::WebSocketJson).await;
        steady.ask(&json!({"id": 1, "subscribe": {"topic": "a.b"}})).await;
        let mut restless = Client::connect(broker, Wire::WebSocketProto).await;
        let mut publisher = Client::connect(broker, Wire::TcpProto).await;
        for offset in 1..=200_u64 {
            let topic = ["a.b", "a.*", ">", "*.b"][usize::try_from(offset % 4).expect("small")];
            restless.ask(&json!({"id": 1, "subscribe": {"topic": topic}})).await;
            publisher.ask(&json!({"id": 1, "publish": {"topic": "a.b", "data": offset}})).await;
            let mut event = restless.hear().await;
            if event["position"].is_object() {
                event = restless.hear().await;
            }
            assert_eq!(event["message"]["offset"], offset, "{event}");
            restless.ask(&json!({"id": 2, "unsubscribe": {"topic": topic}})).await;
            assert_eq!(steady.hear().await["message"]["offset"], offset);
        }
        let left = broker.count("fanfare_subscriptions{target=\"topic\"}").await;
        assert_eq!((left, broker.count("fanfare_subscriptions{target=\"filter\"}").await), (1, 0));
    });
}

#[test]
fn what_was_published_just_before_is_past_to_who_joins_and_live_to_who_was_there() {
    with_broker("", async |broker| {
        for (round, wire) in WIRES.into_iter().enumerate() {
            for target in [format!("r{round}.t"), format!("r{round}.*")] {
                let topic = format!("r{round}.t");
                // Two, so that one of them is on the shard of whoever publishes.
                let mut there = Vec::new();
                let mut top = 0;
                for wire in [Wire::WebSocketJson, Wire::WebSocketProto] {
                    let mut client = Client::connect(broker, wire).await;
                    let command = json!({"id": 1, "subscribe": {"topic": topic}});
                    let reply = client.ask(&command).await;
                    let position = &reply["subscribed"]["position"];
                    top = position["offset"].as_u64().expect("an offset");
                    there.push(client);
                }
                let publish = |id| json!({"id": id, "publish": {"topic": topic, "data": id}});
                let join = json!({"id": 4, "subscribe": {"topic": target, "last": 2}});
                let mut client = Client::connect(broker, wire).await;
                let commands = [publish(1), publish(2), publish(3), join, publish(5)];
                client.say_together(&commands).await;

                let mut heard = Vec::new();
                while heard.last() != Some(&Some(top + 4)) {
                    let event = client.hear().await;
                    if event["message"].is_object() {
                        heard.push(event["message"]["offset"].as_u64());
                    }
                }
                assert_eq!(heard, [top + 2, top + 3, top + 4].map(Some));
                client.ask(&json!({"id": 9, "ping": {}})).await;
                for mut client in there {
                    for offset in top + 1..=top + 4 {
                        assert_eq!(client.hear().await["message"]["offset"], offset);
                    }
                    client.ask(&json!({"id": 9, "ping": {}})).await;
                }
            }
        }
    });
}
