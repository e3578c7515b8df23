//! Bounds of what waits: topics in which a connection may be behind, how old a queue may be, and the
//! memory of all queues together.
//! # Not here: the bytes that wait for one connection (`slow`).

use crate::client::{Client, WIRES, wire_of};
use crate::harness::{Broker, run, with_broker, within};
use crate::http::Answer;
use crate::pipe::Pipe;
use crate::process::Process;
use crate::publisher::Publisher;
use crate::reader::{Reader, narrow};
use crate::socket::{Socket, request};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

#[test]
fn a_connection_that_is_behind_in_too_many_topics_is_closed() {
    for wire in WIRES {
        with_broker("limits.cursors_max = 3", async |broker| {
            let subscribe = json!({"topic": "c.*", "maxHz": 0.01});
            let mut held = Reader::begin(broker, wire, &subscribe).await;
            let mut healthy = Reader::begin(broker, wire, &json!({"topic": "c.*"})).await;
            let mut publisher = Publisher::connect(broker).await;
            // Its rate holds it back in each of these; again and again is not more.
            for topic in ["c.0", "c.1", "c.2"].repeat(3) {
                publisher.publish(&json!({"topic": topic, "data": 1})).await;
            }
            held.until("c.2", 1).await;
            held.ask(&json!({"id": 2, "ping": {}})).await;
            publisher.publish(&json!({"topic": "c.3", "data": 1})).await;
            let ending = held.end().await;
            assert_eq!((ending.code, ending.name.as_str()), (4408, "slowConsumer"));
            healthy.until("c.3", 1).await;
            assert_eq!(broker.count("fanfare_closes_total{reason=\"slowConsumer\"}").await, 1);
        });
    }
}

#[test]
fn a_connection_that_does_not_read_may_be_behind_in_so_many_topics() {
    let settings = r#"
        limits.cursors_max = 2
        limits.message_bytes_max = "16 KiB"
        limits.outbound_bytes_max = "64 KiB"
    "#;
    for policy in ["all", "latest"] {
        with_broker(settings, async |broker| {
            let subscribe = json!({"topic": "c.*", "policy": policy});
            let mut slow = Reader::narrow(broker, Wire::TcpProto, &subscribe).await;
            let mut publisher = Publisher::connect(broker).await;
            let message = |topic: &str| json!({"topic": topic, "text": "x".repeat(8 << 10)});
            publisher.publish_all(&vec![message("c.0"); 100]).await;
            publisher.publish(&message("c.1")).await;
            publisher.settle(broker).await;
            let series = "fanfare_closes_total{reason=\"slowConsumer\"}";
            assert_eq!(broker.count(series).await, 0);
            publisher.publish(&message("c.2")).await;
            broker.until(series, |closed| closed == 1).await;
            let ending = slow.end().await;
            assert_eq!((ending.code, ending.name.as_str()), (4408, "slowConsumer"));
        });
    }
}

#[test]
fn nothing_more_is_queued_behind_a_queue_that_is_too_old() {
    let settings = r#"
        limits.outbound_age_max = "1s"
        limits.outbound_bytes_max = "64 MiB"
        topics.history.bytes = "16 MiB"
    "#;
    with_broker(settings, async |broker| {
        let subscribe = json!({"topic": "t", "overflow": "gap"});
        let mut gap = Reader::narrow(broker, Wire::WebSocketJson, &subscribe).await;
        let catch_up = json!({"topic": "t"});
        let mut catch_up = Reader::narrow(broker, Wire::TcpProto, &catch_up).await;
        let mut publisher = Publisher::connect(broker).await;
        let message = json!({"topic": "t", "text": "x".repeat(16 << 10)});
        publisher.publish_all(&vec![message.clone(); 100]).await;
        publisher.settle(broker).await;
        // There is room for much more.
        assert_eq!(broker.count("fanfare_blocked_connections").await, 2);
        assert_eq!(broker.count("fanfare_dropped_total").await, 0);
        let queued = broker.count("fanfare_outbound_bytes").await;
        assert!(queued > 100 << 10, "{queued}");
        // The page says how old the oldest is; the other one is of the same second or the next.
        broker.until("fanfare_outbound_age_seconds", |age| age >= 3).await;
        publisher.publish_all(&vec![message; 100]).await;
        publisher.settle(broker).await;
        assert_eq!(broker.count("fanfare_outbound_bytes").await, queued);
        gap.until("t", 200).await;
        assert_eq!(gap.account("t").gaps, [(101, 200, "slow".to_owned())]);
        catch_up.until("t", 200).await;
        assert_eq!(catch_up.account("t").messages.len(), 200);
        broker.until("fanfare_outbound_age_seconds", |age| age == 0).await;
    });
}

/// The queues of three connections, or one page of history that was asked for.
const TINY: &str = r#"
limits.message_bytes_max = "16 KiB"
limits.outbound_bytes_max = "128 KiB"
limits.outbound_total_bytes_max = "256 KiB"
limits.resume_bytes_max = "512 KiB"
topics.history.messages = 10_000
topics.history.bytes = "16 MiB"
"#;

/// Connects anew. What is it told?
async fn knock(broker: &Broker) -> Result<Client, Answer> {
    let mut pipe = Pipe::connect(broker.public()).await;
    pipe.try_send(request(broker.public(), "").as_bytes()).await;
    let answer = Answer::read(&mut pipe).await;
    if answer.status == 101 {
        Ok(Client::of(Socket::new(pipe), Wire::WebSocketJson))
    } else {
        Err(answer)
    }
}

/// Somebody on each shard who reads, and is told everything at once.
async fn healthy(broker: &Broker) -> Vec<Reader> {
    let mut readers = Vec::new();
    for _ in 0..2 {
        let subscribe = json!({"topic": "t"});
        readers.push(Reader::begin(broker, Wire::WebSocketJson, &subscribe).await);
    }
    readers
}

async fn publish_and_hear(publisher: &mut Publisher, readers: &mut [Reader], message: &Value) {
    let place = publisher.publish(message).await;
    for reader in readers {
        reader.until("t", place["offset"].as_u64().expect("an offset")).await;
    }
}

#[test]
fn a_broker_that_is_short_of_memory_takes_nobody_in_and_queues_nothing_more() {
    with_broker(TINY, async |broker| {
        let mut healthy = healthy(broker).await;
        let mut publisher = Publisher::connect(broker).await;
        let mut slow = Vec::new();
        for index in 0..6 {
            let overflow = ["gap", "catchUp"][index % 2];
            let subscribe = json!({"topic": "t", "overflow": overflow});
            slow.push(Reader::narrow(broker, wire_of(index), &subscribe).await);
        }
        let message = json!({"topic": "t", "text": "x".repeat(4 << 10)});
        for _ in 0..300 {
            publish_and_hear(&mut publisher, &mut healthy, &message).await;
        }
        let queued = broker.count("fanfare_outbound_bytes").await;
        assert!(queued >= 256 * 1024 * 7 / 10, "only {queued} bytes wait");
        let refused = knock(broker).await.err().expect("a refusal");
        assert_eq!(refused.status, 503);
        refused.must_refuse(Reason::Shed);
        let ending = Client::connect(broker, Wire::TcpProto).await.ending().await;
        assert_eq!((ending.code, ending.name.as_str()), (4429, "shed"));

        // Those who are in go on, and in the end everybody has what was promised.
        publish_and_hear(&mut publisher, &mut healthy, &message).await;
        let mut closed = 0;
        for mut reader in slow {
            closed += u64::from(!reader.is_there_until("t", 301).await);
        }
        assert_eq!(broker.count("fanfare_closes_total{reason=\"shed\"}").await, closed);
        must_recover(broker, &mut publisher, &mut healthy, &message).await;
    });
}

/// When those who were slow are gone, everything is as before.
async fn must_recover(
    broker: &Broker,
    publisher: &mut Publisher,
    readers: &mut [Reader],
    message: &Value,
) {
    broker.until("fanfare_outbound_bytes", |bytes| bytes == 0).await;
    broker.until("fanfare_blocked_connections", |blocked| blocked == 0).await;
    let accepted = async {
        loop {
            if let Ok(client) = knock(broker).await {
                return client;
            }
        }
    };
    let mut client = within("a new connection to be taken", accepted).await;
    client.ask(&json!({"id": 1, "ping": {}})).await;
    let heard = async {
        let publish = json!({"id": 1, "publish": message});
        loop {
            let reply = publisher.client.ask(&publish).await;
            if let Some(offset) = reply["published"]["offset"].as_u64() {
                return offset;
            }
            assert_eq!(reply["error"]["name"], "overloaded", "{reply}");
        }
    };
    let offset = within("publishers to be heard", heard).await;
    for reader in readers {
        reader.until("t", offset).await;
    }
}

#[test]
fn with_no_memory_left_the_slowest_are_closed_and_publishers_refused() {
    with_broker(TINY, async |broker| {
        let mut healthy = healthy(broker).await;
        let mut publisher = Publisher::connect(broker).await;
        let message = json!({"topic": "t", "text": "x".repeat(4 << 10)});
        for _ in 0..120 {
            publish_and_hear(&mut publisher, &mut healthy, &message).await;
        }
        // Each of these asks for more than the whole budget, and takes none of it.
        let mut greedy = Vec::new();
        for wire in WIRES {
            greedy.push(narrow(broker, wire).await);
        }
        for client in &mut greedy {
            client.say(&json!({"id": 1, "history": {"topic": "t"}})).await;
        }
        let refused = async {
            loop {
                let publish = json!({"id": 1, "publish": message});
                let reply = publisher.client.ask(&publish).await;
                if reply["error"].is_object() {
                    return reply;
                }
            }
        };
        let refused = within("publishers to be refused", refused).await;
        assert_eq!(refused["error"]["name"], "overloaded", "{refused}");
        let words = refused["error"]["message"].as_str().expect("a message");
        assert!(words.ends_with("the broker is short of memory"), "{words}");
        broker.until("fanfare_closes_total{reason=\"shed\"}", |closed| closed > 0).await;
        assert!(broker.count("fanfare_refusals_total{reason=\"overloaded\"}").await > 0);
        drop(greedy);
        must_recover(broker, &mut publisher, &mut healthy, &message).await;
    });
}

#[test]
fn a_process_that_has_all_the_memory_it_may_have_refuses_publishers_and_keeps_its_connections() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("small.toml");
        let settings = "shards = 2\nlimits.memory_max = \"64 MiB\"\n\
            listen = { public = \"127.0.0.1:0\", ingress = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }";
        std::fs::write(&file, settings).expect("a file");
        let (_process, broker) = Process::serve_settings(&file);
        let mut reader = Reader::begin(&broker, Wire::WebSocketJson, &json!({"topic": "t"})).await;
        let mut publisher = Publisher::connect(&broker).await;
        let text = "x".repeat(32 << 10);
        let refused = async {
            // Histories that no bound of their own keeps within 64 MiB.
            for number in 0.. {
                let publish = json!({"topic": format!("full.{}", number % 1_000), "text": text});
                let reply = publisher.client.ask(&json!({"id": 1, "publish": publish})).await;
                if reply["error"].is_object() {
                    assert_eq!(reply["error"]["name"], "overloaded", "{reply}");
                    return;
                }
            }
        };
        within("publishers to be refused", refused).await;
        reader.ask(&json!({"id": 2, "ping": {}})).await;
        publisher.client.ask(&json!({"id": 2, "ping": {}})).await;
    });
}
