//! Several events in one WebSocket message, for clients that have asked for it.
//! # Invariants tested: a batch is one head in front of whole events, in order, of at most 64 KiB
//! unless one event alone is larger.
//! # Not here: everything that holds on every wire (the other modules walk `WIRES`).

use crate::client::{Batch, Client};
use crate::harness::{Broker, with_broker};
use crate::http;
use crate::publisher::Publisher;
use crate::reader::{Reader, narrow, offset_of};
use crate::socket::Socket;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

const BATCHED: [Wire; 2] = [Wire::WebSocketJsonBatch, Wire::WebSocketProtoBatch];

/// Most bytes of events in one message, unless a single event has more.
const BATCH_BYTES_MAX: usize = 64 << 10;

async fn subscriber(broker: &Broker, wire: Wire) -> Client {
    let mut client = Client::connect(broker, wire).await;
    client.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
    client
}

/// Hears batches of messages of one topic until this offset.
async fn batches_until(client: &mut Client, from: u64, to: u64) -> Vec<Batch> {
    let (mut batches, mut last) = (Vec::new(), from);
    while last < to {
        let batch = client.hear_batch().await;
        for event in &batch.events {
            last += 1;
            assert_eq!(event["message"]["offset"], last, "{event}");
        }
        let fits = batch.len <= BATCH_BYTES_MAX || batch.events.len() == 1;
        assert!(fits, "{} events in {} bytes", batch.events.len(), batch.len);
        batches.push(batch);
    }
    assert_eq!(last, to);
    batches
}

/// Publishes without asking for answers, so that one write brings it all.
async fn publish_together(broker: &Broker, messages: &[Value]) -> Client {
    let mut publisher = Client::connect(broker, Wire::TcpProto).await;
    let commands: Vec<Value> = messages.iter().map(|message| json!({"publish": message})).collect();
    publisher.say_together(&commands).await;
    publisher
}

#[test]
fn what_is_published_together_shares_messages_and_is_encoded_once() {
    with_broker("", async |broker| {
        // Two each, so that both shards have all of them.
        let mut subscribers = Vec::new();
        for wire in BATCHED.into_iter().chain(BATCHED) {
            subscribers.push(subscriber(broker, wire).await);
            subscribers.push(subscriber(broker, wire).await);
        }
        let messages: Vec<Value> = (0..600).map(|n| json!({"topic": "t", "data": n})).collect();
        let _publisher = publish_together(broker, &messages).await;
        for client in &mut subscribers {
            let batches = batches_until(client, 0, 600).await;
            assert!(batches.len() < 300, "{} batches of 600 events", batches.len());
            let data = batches.iter().flat_map(|batch| &batch.events);
            assert!(data.zip(0..).all(|(event, n)| event["message"]["data"] == n));
        }
        for wire in BATCHED {
            let series = format!("fanfare_encodes_total{{wire=\"{}\"}}", wire.name());
            assert_eq!(broker.count(&series).await, 600, "{series}");
        }
        assert_eq!(broker.count("fanfare_deliveries_total").await, 8 * 600);
    });
}

#[test]
fn a_batch_is_bounded_and_a_larger_event_travels_alone() {
    let settings = "limits.message_bytes_max = \"256 KiB\"\nlimits.outbound_bytes_max = \"8 MiB\"";
    with_broker(settings, async |broker| {
        for wire in BATCHED {
            let mut client = subscriber(broker, wire).await;
            let reply = client.ask(&json!({"id": 2, "history": {"topic": "t"}})).await;
            let from = reply["historyPage"]["top"]["offset"].as_u64().unwrap_or(0);
            // Short ones, some that just fit together, and one that fits nowhere.
            let lens = (0..200).map(|n| match n % 50 {
                20..40 => 6_000 + n,
                49 => 100_000,
                _ => 10 * n,
            });
            let text = |len| json!({"topic": "t", "text": "x".repeat(len)});
            let messages: Vec<Value> = lens.map(text).collect();
            let _publisher = publish_together(broker, &messages).await;
            let batches = batches_until(&mut client, from, from + 200).await;
            let large = batches.iter().filter(|batch| batch.len > BATCH_BYTES_MAX);
            assert_eq!(large.count(), 4);
            assert!(batches.iter().any(|batch| batch.events.len() > 1));
        }
    });
}

#[test]
fn a_reader_that_takes_a_few_bytes_at_a_time_gets_every_event_of_every_batch() {
    let settings = r#"
        limits.outbound_bytes_max = "64 KiB"
        topics.history.messages = 10_000
        topics.history.bytes = "16 MiB"
    "#;
    for wire in BATCHED {
        with_broker(settings, async |broker| {
            let mut reader = Reader::narrow(broker, wire, &json!({"topic": "t"})).await;
            let mut last = 0;
            for round in 1..=3 {
                let message = json!({"topic": "t", "text": "x".repeat(round * 130)});
                let publisher = publish_together(broker, &vec![message; 1_500]).await;
                last += 1_500;
                Publisher { client: publisher }.settle(broker).await;
                assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
                for step in 0..2_000 {
                    reader.client.pipe().crawl(1 + step % 7).await;
                }
                reader.until("t", last).await;
            }
            let account = reader.account("t");
            assert_eq!(account.offsets(), (1..=4_500).collect::<Vec<_>>());
            assert!(account.gaps.is_empty(), "{:?}", account.gaps);
        });
    }
}

#[test]
fn what_a_slow_reader_of_batches_misses_is_told_and_what_it_was_sent_is_whole() {
    let settings = "limits.outbound_bytes_max = \"64 KiB\"";
    for wire in BATCHED {
        with_broker(settings, async |broker| {
            let subscribe = json!({"topic": "t", "overflow": "gap"});
            let mut reader = Reader::of(narrow(broker, wire).await, &subscribe).await;
            let message = json!({"topic": "t", "text": "x".repeat(200)});
            let publisher = publish_together(broker, &vec![message; 5_000]).await;
            Publisher { client: publisher }.settle(broker).await;
            reader.until("t", 5_000).await;
            let account = reader.account("t");
            let missing: u64 = account.gaps.iter().map(|(from, to, _)| to + 1 - from).sum();
            assert!(missing > 0, "it was never too slow");
            assert_eq!(account.messages.len() as u64 + missing, 5_000);
            reader.ask(&json!({"id": 2, "ping": {}})).await;
        });
    }
}

#[test]
fn a_connection_with_subscriptions_may_change_to_batches_at_any_time() {
    with_broker("topics.history.messages = 10_000", async |broker| {
        for (round, wire) in BATCHED.into_iter().enumerate() {
            let first = [Wire::WebSocketJson, Wire::WebSocketProto][round];
            let topic = format!("t{round}");
            let mut reader = Reader::begin(broker, first, &json!({"topic": topic})).await;
            let message = json!({"topic": topic, "text": "x".repeat(50)});
            for _ in 0..3 {
                let _publisher = publish_together(broker, &vec![message.clone(); 400]).await;
                // In the midst of what was published, and then again.
                let hello = json!({"id": 7, "connect": {"batch": true}});
                let answer = reader.ask(&hello).await;
                assert_eq!(answer["connected"]["batch"], true, "{answer}");
            }
            reader.until(&topic, 1_200).await;
            assert_eq!(reader.account(&topic).offsets(), (1..=1_200).collect::<Vec<_>>());
            for (wire, open) in [(first, 0), (wire, 1)] {
                let series = format!("fanfare_connections{{wire=\"{}\"}}", wire.name());
                assert_eq!(broker.count(&series).await, open, "{series}");
            }
            let opened = format!("fanfare_connections_opened_total{{wire=\"{}\"}}", first.name());
            assert_eq!(broker.count(&opened).await, 1);
        }
    });
}

#[test]
fn batches_once_asked_for_stay() {
    with_broker("", async |broker| {
        let hello = |id: u64, batch: bool| json!({"id": id, "connect": {"batch": batch}});
        for wire in [Wire::WebSocketJson, Wire::WebSocketProto] {
            let mut client = Client::connect(broker, wire).await;
            assert_eq!(client.ask(&hello(1, false)).await["connected"]["batch"], Value::Null);
            for batch in [true, true, false] {
                assert_eq!(client.ask(&hello(3, batch)).await["connected"]["batch"], true);
            }
            client.say(&json!({"id": 4, "ping": {}})).await;
            assert_eq!(client.hear_batch().await.events, [json!({"id": 4, "pong": {}})]);
        }
        let mut tcp = Client::connect(broker, Wire::TcpProto).await;
        assert_eq!(tcp.ask(&hello(1, true)).await["connected"]["batch"], Value::Null);
        tcp.ask(&json!({"id": 2, "ping": {}})).await;
    });
}

#[test]
fn a_client_that_asks_for_batches_first_of_all_needs_no_answer() {
    with_broker("", async |broker| {
        let cases = [
            ("fanfare.v1.json", Wire::WebSocketJsonBatch),
            ("fanfare.v1.proto", Wire::WebSocketProtoBatch),
        ];
        for (name, wire) in cases {
            let mut client = Client::of(Socket::open(broker, Some(name)).await, wire);
            client.say(&json!({"connect": {"batch": true}})).await;
            client.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
            client.say(&json!({"id": 2, "ping": {}})).await;
            assert_eq!(client.hear_batch().await.events, [json!({"id": 2, "pong": {}})]);
        }
    });
}

#[test]
fn what_a_publisher_wrote_on_several_lines_is_one_line_of_a_batch() {
    with_broker("", async |broker| {
        let mut client = subscriber(broker, Wire::WebSocketJsonBatch).await;
        let data = "{\n\"a\":\r\n[1,\n2],\n\"b\":\"\\n\"}";
        let body = format!("{{\"topic\":\"t\",\"data\":{data}}}");
        assert_eq!(http::publish(broker.public(), &body).await.status, 200);
        let mut publisher = Client::connect(broker, Wire::WebSocketJson).await;
        publisher.say_text(&format!("{{\"publish\":{body}}}")).await;
        for offset in 1..=2 {
            let event = client.hear().await;
            assert_eq!(offset_of(&event["message"]), offset);
            assert_eq!(event["message"]["data"], json!({"a": [1, 2], "b": "\n"}));
        }
    });
}
