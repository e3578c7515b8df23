//! A broker that stops as it was told, and the one that takes its place: real processes, and the file
//! between them.
//! # Not here: the file by itself (`restart` of the broker), a broker that was killed without one
//! (`process`).

use crate::client::{Client, WIRES};
use crate::harness::{Broker, run};
use crate::process::Process;
use fanfare::topics::message::Wire;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// Brokers that follow one another.
struct House {
    folder: TempDir,
}

impl House {
    fn new() -> House {
        let house = House { folder: tempfile::tempdir().expect("a folder") };
        let settings = format!(
            "shutdown.snapshot = '{}'\ntopics.rules = [{{ filter = 'row.*', snapshot = 'keys' }}]",
            house.file().display()
        );
        std::fs::write(house.settings(), settings).expect("a file");
        house
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("fanfare.toml")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("topics")
    }

    fn serve(&self) -> (Process, Broker) {
        let settings = self.settings();
        let more = ["--config", settings.to_str().expect("UTF-8")];
        Process::serve_with("127.0.0.1:0", "127.0.0.1:0", &more)
    }
}

async fn publish(client: &mut Client, topic: &str, text: &str, more: Value) -> Value {
    let mut publish = json!({"topic": topic, "text": text});
    for (key, value) in more.as_object().expect("an object") {
        publish[key] = value.clone();
    }
    client.ask(&json!({"id": 1, "publish": publish})).await["published"].clone()
}

async fn resume(client: &mut Client, topic: &str, since: &Value) -> Value {
    let since = json!({"epoch": since["epoch"], "offset": since["offset"]});
    let subscribe = json!({"topic": topic, "since": since});
    client.ask(&json!({"id": 2, "subscribe": subscribe})).await["subscribed"].clone()
}

/// Stops a broker as its service manager would.
async fn stop(mut process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.code().await, Some(0));
}

/// The place of the third of five messages that a broker took.
async fn third_of_five(broker: &Broker) -> Value {
    let mut client = Client::connect(broker, Wire::TcpProto).await;
    let mut third = Value::Null;
    for number in 1..=5 {
        let place = publish(&mut client, "a.b", &number.to_string(), json!({})).await;
        assert_eq!(place["offset"], number);
        third = if number == 3 { place } else { third };
    }
    third
}

/// Whether a broker goes on with what another one took.
async fn goes_on(broker: &Broker, third: &Value) -> bool {
    let mut client = Client::connect(broker, Wire::WebSocketJson).await;
    let subscribed = resume(&mut client, "a.b", third).await;
    if subscribed["recovered"] == true {
        assert_eq!(subscribed["position"]["epoch"], third["epoch"]);
        return true;
    }
    assert_eq!(subscribed["reason"], "epochChanged", "{subscribed}");
    assert_ne!(subscribed["position"]["epoch"], third["epoch"], "{subscribed}");
    false
}

#[test]
fn a_subscriber_gets_exactly_what_it_missed_over_a_planned_restart() {
    run(async {
        let house = House::new();
        let (process, broker) = house.serve();
        let third = third_of_five(&broker).await;
        let mut publisher = Client::connect(&broker, Wire::WebSocketJson).await;
        let once = json!({"idempotencyKey": "once"});
        let answered = publish(&mut publisher, "once", "x", once.clone()).await;
        for (text, key) in [("1", "x"), ("2", "y"), ("3", "x")] {
            publish(&mut publisher, "row.a", text, json!({"key": key})).await;
        }
        drop(publisher);
        stop(process).await;
        assert!(house.file().exists());

        let (process, broker) = house.serve();
        assert!(!house.file().exists(), "the file could be used twice");
        for wire in WIRES {
            let mut client = Client::connect(&broker, wire).await;
            let subscribed = resume(&mut client, "a.b", &third).await;
            assert_eq!(subscribed["recovered"], true, "{subscribed}");
            assert_eq!(subscribed["position"], json!({"epoch": third["epoch"], "offset": 5}));
            for offset in 4..=5 {
                let event = client.hear().await;
                assert_eq!(event["message"]["offset"], offset, "{event}");
                assert_eq!(event["message"]["text"], offset.to_string(), "{event}");
            }
        }
        let mut client = Client::connect(&broker, Wire::TcpProto).await;
        let sixth = publish(&mut client, "a.b", "6", json!({})).await;
        assert_eq!((&sixth["offset"], &sixth["epoch"]), (&6.into(), &third["epoch"]));
        assert_eq!(publish(&mut client, "once", "x", once).await, answered);
        let subscribe = json!({"topic": "row.a", "snapshot": true});
        client.ask(&json!({"id": 3, "subscribe": subscribe})).await;
        for (offset, text) in [(2, "2"), (3, "3")] {
            let event = client.hear().await;
            assert_eq!(
                (&event["message"]["offset"], &event["message"]["text"]),
                (&offset.into(), &text.into())
            );
        }
        drop(client);
        // Again and again.
        stop(process).await;
        let (_process, broker) = house.serve();
        assert!(goes_on(&broker, &third).await);
    });
}

#[test]
fn a_crash_keeps_no_epoch() {
    run(async {
        let house = House::new();
        let (process, broker) = house.serve();
        let third = third_of_five(&broker).await;
        stop(process).await;
        // It takes over what was left, and is killed.
        let (mut process, broker) = house.serve();
        assert!(goes_on(&broker, &third).await);
        process.signal(Signal::KILL);
        assert_eq!(process.code().await, None);
        let (_process, broker) = house.serve();
        assert!(!goes_on(&broker, &third).await);
    });
}

#[test]
fn a_file_that_is_not_whole_begins_anew_and_is_told() {
    fn cut(bytes: &[u8]) -> Vec<u8> {
        bytes[..bytes.len() / 2].to_vec()
    }
    fn change(bytes: &[u8]) -> Vec<u8> {
        let mut changed = bytes.to_vec();
        changed[bytes.len() / 2] ^= 1;
        changed
    }
    run(async {
        for spoil in [cut, change] {
            let house = House::new();
            let (process, broker) = house.serve();
            let third = third_of_five(&broker).await;
            stop(process).await;
            let left = std::fs::read(house.file()).expect("a file");
            std::fs::write(house.file(), spoil(&left)).expect("a file");
            let settings = house.settings();
            let more = ["--config", settings.to_str().expect("UTF-8")];
            let process = Process::begin("127.0.0.1:0", "127.0.0.1:0", &more);
            let message = "what the last broker left cannot be used: topics begin anew";
            let line = process.line(message);
            assert!(line["error"].as_str().is_some_and(|error| error.contains("not whole")));
            let broker = process.broker();
            assert!(!house.file().exists());
            assert!(!goes_on(&broker, &third).await);
        }
    });
}

#[test]
fn without_the_setting_nothing_is_left() {
    run(async {
        let house = House::new();
        std::fs::write(house.settings(), "").expect("a file");
        let (process, broker) = house.serve();
        let third = third_of_five(&broker).await;
        stop(process).await;
        assert!(!house.file().exists());
        let (_process, broker) = house.serve();
        assert!(!goes_on(&broker, &third).await);
    });
}
