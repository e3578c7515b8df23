//! Readers that stop reading: what they miss is told exactly, and nobody else pays for it.
//! # Not here: publishers that do not read (`ingress`), silence (`liveness`).

use crate::client::{Client, WIRES, wire_of};
use crate::harness::{Broker, with_broker};
use crate::pipe::Pipe;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

/// Little enough waits for a connection that a test can publish more; what a gap leaves out is
/// still in the history.
const SETTINGS: &str = r#"
limits.message_bytes_max = "16 KiB"
limits.outbound_bytes_max = "64 KiB"
limits.resume_messages_max = 100
topics.history.messages = 1000
topics.history.bytes = "64 MiB"
"#;

const OUTBOUND_BYTES_MAX: u64 = 64 << 10;
const MESSAGE_BYTES: usize = 8 << 10;
const MESSAGES: u64 = 200;

async fn subscriber(broker: &Broker, wire: Wire, subscribe: &Value) -> Client {
    let mut client = Client::connect(broker, wire).await;
    let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
    assert!(reply["subscribed"].is_object(), "{reply}");
    client
}

/// A subscriber whose kernel holds little for it.
async fn slow_subscriber(broker: &Broker, wire: Wire, subscribe: &Value) -> Client {
    let address = if wire == Wire::TcpProto { broker.ingress() } else { broker.public() };
    let pipe = Pipe::connect_narrow(address).await;
    let mut client = Client::begin(broker, wire, pipe).await;
    let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
    assert!(reply["subscribed"].is_object(), "{reply}");
    client
}

/// Publishes to topics in turn; healthy subscribers hear each message before the next.
struct Crowd {
    publisher: Client,
    healthy: Vec<Client>,
}

impl Crowd {
    /// Two healthy subscribers, one on each shard.
    async fn join(broker: &Broker, subscribe: &Value) -> Crowd {
        let healthy = vec![
            subscriber(broker, Wire::WebSocketJson, subscribe).await,
            subscriber(broker, Wire::WebSocketProto, subscribe).await,
        ];
        Crowd { publisher: Client::connect(broker, Wire::TcpProto).await, healthy }
    }

    async fn publish(&mut self, topics: &[&str], offsets: std::ops::RangeInclusive<u64>) {
        let text = "x".repeat(MESSAGE_BYTES);
        for offset in offsets {
            for topic in topics {
                let publish = json!({"topic": topic, "text": text});
                let reply = self.publisher.ask(&json!({"id": 1, "publish": publish})).await;
                assert_eq!(reply["published"]["offset"], offset, "{reply}");
                for client in &mut self.healthy {
                    let mut event = client.hear().await;
                    if event["position"].is_object() {
                        event = client.hear().await;
                    }
                    assert_eq!(event["message"]["topic"], *topic);
                    assert_eq!(event["message"]["offset"], offset);
                }
            }
        }
    }
}

/// Hears messages of one topic from offset 1 up to the first event that is none.
async fn hear_up_to_gap(client: &mut Client) -> (u64, Value) {
    let mut last = 0;
    loop {
        let event = client.hear().await;
        if event["message"].is_null() {
            return (last, event);
        }
        last += 1;
        assert_eq!(event["message"]["offset"], last, "out of order");
    }
}

#[test]
fn a_reader_that_stops_is_told_exactly_what_it_missed() {
    for wire in WIRES {
        with_broker(SETTINGS, async |broker| {
            let subscribe = json!({"topic": "t", "overflow": "gap"});
            let mut crowd = Crowd::join(broker, &subscribe).await;
            let mut slow = slow_subscriber(broker, wire, &subscribe).await;
            crowd.publish(&["t"], 1..=MESSAGES).await;
            broker.until("fanfare_dropped_total", |dropped| dropped > 0).await;
            assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
            assert!(broker.count("fanfare_outbound_bytes").await <= OUTBOUND_BYTES_MAX);
            assert_eq!(broker.count("fanfare_gaps_total").await, 0);

            // It reads again: all that was queued, one gap, where the topic stands, and on.
            let (last, gap) = hear_up_to_gap(&mut slow).await;
            let dropped = MESSAGES - last;
            let expected = json!({"gap": {
                "topic": "t", "from": last + 1, "to": MESSAGES, "count": dropped, "reason": "slow",
            }});
            assert_eq!(gap, expected);
            let position = slow.hear().await;
            assert_eq!(position["position"]["offset"], MESSAGES, "{position}");
            crowd.publish(&["t"], MESSAGES + 1..=MESSAGES + 3).await;
            for offset in MESSAGES + 1..=MESSAGES + 3 {
                assert_eq!(slow.hear().await["message"]["offset"], offset);
            }
            for (series, expected) in [
                ("fanfare_gaps_total", 1),
                ("fanfare_dropped_total", dropped),
                ("fanfare_outbound_bytes", 0),
                ("fanfare_blocked_connections", 0),
                ("fanfare_deliveries_total", 3 * (MESSAGES + 3) - dropped),
            ] {
                assert_eq!(broker.count(series).await, expected, "{series}");
            }
            catch_up(&mut slow, &position["position"]["epoch"], last, MESSAGES).await;
        });
    }
}

/// What a gap left out is still to be had.
async fn catch_up(client: &mut Client, epoch: &Value, from: u64, to: u64) {
    let mut last = from;
    while last < to {
        let since = json!({"epoch": epoch, "offset": last});
        let query = json!({"topic": "t", "since": since, "limit": to - last});
        let page = client.ask(&json!({"id": 2, "history": query})).await;
        for message in page["historyPage"]["messages"].as_array().expect("a page") {
            last += 1;
            assert_eq!(message["offset"], last);
        }
    }
    assert_eq!(last, to);
}

#[test]
fn each_topic_of_a_filter_has_its_own_gap() {
    with_broker(SETTINGS, async |broker| {
        let subscribe = json!({"topic": "t.*", "overflow": "gap"});
        let mut crowd = Crowd::join(broker, &subscribe).await;
        let mut slow = slow_subscriber(broker, Wire::WebSocketJson, &subscribe).await;
        let topics = ["t.a", "t.b", "t.c"];
        crowd.publish(&topics, 1..=100).await;
        let mut last = [0, 0, 0];
        let mut gaps = 0;
        // After each topic's gap comes its position; before its first message too.
        while gaps < 3 {
            let event = slow.hear().await;
            let (name, body) = event.as_object().expect("an event").iter().next().expect("a name");
            let topic = topics.iter().position(|topic| body["topic"] == *topic).expect("a topic");
            match name.as_str() {
                "message" => {
                    last[topic] += 1;
                    assert_eq!(body["offset"], last[topic], "{topic}");
                }
                "position" => assert_eq!(body["offset"], last[topic], "{event}"),
                "gap" => {
                    gaps += 1;
                    assert_eq!(
                        (&body["from"], &body["to"]),
                        (&(last[topic] + 1).into(), &100.into())
                    );
                    last[topic] = 100;
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(slow.hear().await["position"]["offset"], 100);
        crowd.publish(&topics, 101..=101).await;
        for _ in topics {
            assert_eq!(slow.hear().await["message"]["offset"], 101);
        }
    });
}

#[test]
fn a_reader_that_asked_for_it_is_closed_and_can_resume() {
    with_broker(SETTINGS, async |broker| {
        let mut crowd = Crowd::join(broker, &json!({"topic": "t"})).await;
        let subscribe = json!({"topic": "t", "overflow": "disconnect"});
        let mut slow = slow_subscriber(broker, Wire::WebSocketJson, &subscribe).await;
        crowd.publish(&["t"], 1..=MESSAGES).await;
        broker.until("fanfare_closes_total{reason=\"slowConsumer\"}", |closed| closed == 1).await;
        assert_eq!(broker.count("fanfare_subscriptions{target=\"topic\"}").await, 2);
        assert_eq!(broker.count("fanfare_dropped_total").await, 0);
        let mut last = 0;
        let mut epoch = Value::Null;
        while let Some(event) = slow.try_hear().await {
            last += 1;
            assert_eq!(event["message"]["offset"], last, "out of order");
        }
        assert!(last > 0 && last < MESSAGES, "it read {last}");
        drop(slow);
        // Nothing is lost: it comes back, in as many steps as one resume may send at a time.
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        let page = client.ask(&json!({"id": 1, "history": {"topic": "t", "limit": 1}})).await;
        page["historyPage"]["top"]["epoch"].clone_into(&mut epoch);
        catch_up(&mut client, &epoch, last, MESSAGES).await;
        let since = json!({"epoch": epoch, "offset": MESSAGES});
        let subscribe = json!({"topic": "t", "since": since});
        let reply = client.ask(&json!({"id": 2, "subscribe": subscribe})).await;
        assert_eq!(reply["subscribed"]["recovered"], true, "{reply}");
    });
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_is_closed() {
    let settings = format!("{SETTINGS}\nlimits.write_stall_max = \"1s\"");
    with_broker(&settings, async |broker| {
        let subscribe = json!({"topic": "t", "overflow": "gap"});
        let mut crowd = Crowd::join(broker, &subscribe).await;
        let mut slow = Vec::new();
        for wire in WIRES {
            slow.push(slow_subscriber(broker, wire, &subscribe).await);
        }
        crowd.publish(&["t"], 1..=60).await;
        let all = WIRES.len() as u64;
        broker.until("fanfare_closes_total{reason=\"slowConsumer\"}", |closed| closed == all).await;
        // Closing means that they are told, and cut when they do not take that either.
        for wire in WIRES {
            let open = format!("fanfare_connections{{wire=\"{}\"}}", wire.name());
            let left = u64::from(!wire.is_batched());
            broker.until(&open, |open| open == left).await;
        }
        broker.until("fanfare_outbound_bytes", |bytes| bytes == 0).await;
        broker.until("fanfare_blocked_connections", |blocked| blocked == 0).await;
        crowd.publish(&["t"], 61..=70).await;
        for mut client in slow {
            client.pipe().rest().await;
        }
    });
}

#[test]
fn what_waits_for_many_slow_readers_is_bounded() {
    with_broker(SETTINGS, async |broker| {
        let subscribe = json!({"topic": "t"});
        let mut crowd = Crowd::join(broker, &subscribe).await;
        let mut slow = Vec::new();
        for index in 0..15 {
            slow.push(slow_subscriber(broker, wire_of(index), &subscribe).await);
        }
        for round in 0..5 {
            crowd.publish(&["t"], round * 20 + 1..=round * 20 + 20).await;
            let waiting = broker.count("fanfare_outbound_bytes").await;
            assert!(waiting <= 15 * OUTBOUND_BYTES_MAX, "{waiting} bytes wait");
        }
        broker.until("fanfare_blocked_connections", |blocked| blocked == 15).await;
        drop(slow);
        broker.until("fanfare_outbound_bytes", |bytes| bytes == 0).await;
        broker.until("fanfare_blocked_connections", |blocked| blocked == 0).await;
    });
}

#[test]
fn answers_that_are_not_read_are_not_asked_for_without_end() {
    with_broker(SETTINGS, async |broker| {
        let mut publisher = Client::connect(broker, Wire::TcpProto).await;
        let publish = json!({"topic": "t", "text": "x".repeat(MESSAGE_BYTES)});
        for _ in 0..4 {
            publisher.ask(&json!({"id": 1, "publish": publish})).await;
        }
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        let pipe = Pipe::connect_narrow(broker.public()).await;
        let mut greedy = Client::begin(broker, Wire::WebSocketJson, pipe).await;
        let query = |id: u64| json!({"id": id, "history": {"topic": "t"}}).to_string();
        let bytes: Vec<u8> = (1..=200).flat_map(|id| greedy.spell(&query(id))).collect();
        greedy.pipe().send(&bytes).await;
        broker.until("fanfare_blocked_connections", |blocked| blocked == 1).await;
        client.ask(&json!({"id": 1, "ping": {}})).await;
        // Half of what may wait, and one page of four messages.
        let waiting = broker.count("fanfare_outbound_bytes").await;
        assert!(waiting <= OUTBOUND_BYTES_MAX / 2 + 4 * 9000, "{waiting} bytes wait");
        for id in 1..=200_u64 {
            let page = greedy.hear().await;
            assert_eq!(page["id"], id);
            assert_eq!(page["historyPage"]["messages"].as_array().map(Vec::len), Some(4));
        }
    });
}
