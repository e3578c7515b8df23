//! Readers of every message that fall behind: they catch up from history, are told what history no
//! longer has, or are closed and come back.
//! # Not here: gaps (`slow`), policies that pass messages over (`policies`).

use crate::client::WIRES;
use crate::harness::{Broker, with_broker};
use crate::publisher::Publisher;
use crate::reader::Reader;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

const SETTINGS: &str = r#"
limits.message_bytes_max = "16 KiB"
limits.outbound_bytes_max = "64 KiB"
limits.resume_messages_max = 1000
limits.resume_bytes_max = "8 MiB"
topics.history.bytes = "64 MiB"
"#;

/// History holds everything.
const ALL: &str = "topics.history.messages = 10_000";

fn all() -> String {
    format!("{SETTINGS}\n{ALL}")
}

const MESSAGES: u64 = 200;
const KEPT: u64 = 50;

fn large(topic: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    let text = "x".repeat(8 << 10);
    numbers.map(|n| json!({"topic": topic, "data": [n, text]})).collect()
}

/// Waits until what was published is with the readers or waits for the one that does not read.
async fn until_blocked(broker: &Broker, publisher: &mut Publisher) {
    publisher.settle(broker).await;
    assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
}

#[test]
fn who_catches_up_through_a_filter_has_everything_of_every_topic() {
    let topics = ["c.a", "c.b", "c.d.e", "c.f"];
    for wire in WIRES {
        with_broker(&all(), async |broker| {
            let subscribe = json!({"topic": "c.>", "overflow": "catchUp"});
            let mut reader = Reader::narrow(broker, wire, &subscribe).await;
            assert_eq!(reader.subscribed["overflow"], "catchUp");
            let mut publisher = Publisher::connect(broker).await;
            // The last topic begins when there is no room any more.
            for round in 0..6 {
                for topic in &topics[..3] {
                    publisher.publish_all(&large(topic, round * 10 + 1..=round * 10 + 10)).await;
                }
            }
            publisher.publish_all(&large("c.f", 1..=60)).await;
            until_blocked(broker, &mut publisher).await;
            let more: Vec<Value> = topics.iter().flat_map(|topic| large(topic, 61..=100)).collect();
            let hear = async {
                for topic in topics {
                    reader.until(topic, 100).await;
                }
            };
            tokio::join!(publisher.publish_all(&more), hear);
            for topic in topics {
                let account = reader.account(topic);
                assert_eq!(account.offsets(), (1..=100).collect::<Vec<_>>(), "{topic}");
                assert_eq!(account.messages[99]["data"][0], 100);
            }
            reader.ask(&json!({"id": 2, "ping": {}})).await;
            for series in ["fanfare_gaps_total", "fanfare_dropped_total"] {
                assert_eq!(broker.count(series).await, 0, "{series}");
            }
        });
    }
}

/// A reader that stops, and comes back when history no longer holds all that it missed.
fn lapped(settings: &str, reason: &str, kept: u64) {
    for wire in WIRES {
        with_broker(&format!("{SETTINGS}\n{settings}"), async |broker| {
            let mut reader = Reader::narrow(broker, wire, &json!({"topic": "t"})).await;
            let mut publisher = Publisher::connect(broker).await;
            publisher.publish_all(&large("t", 1..=MESSAGES)).await;
            until_blocked(broker, &mut publisher).await;
            until_held(&mut publisher, kept).await;
            reader.until("t", MESSAGES).await;
            let account = reader.account("t");
            let [(from, to, told)] = account.gaps.as_slice() else { panic!("{:?}", account.gaps) };
            assert_eq!((*to, told.as_str()), (MESSAGES - kept, reason));
            let expected = (1..*from).chain(to + 1..=MESSAGES);
            assert_eq!(account.offsets(), expected.collect::<Vec<_>>());
            assert_eq!(broker.count("fanfare_gaps_total").await, 1);
            assert_eq!(broker.count("fanfare_dropped_total").await, to + 1 - from);
            publisher.publish(&json!({"topic": "t", "data": 0})).await;
            reader.until("t", MESSAGES + 1).await;
        });
    }
}

/// Waits until history holds so many messages.
async fn until_held(publisher: &mut Publisher, kept: u64) {
    let query = json!({"id": 2, "history": {"topic": "t"}});
    let held = async {
        loop {
            let page = publisher.client.ask(&query).await;
            let messages = page["historyPage"]["messages"].as_array().expect("a page").len();
            if messages as u64 == kept {
                return;
            }
        }
    };
    crate::harness::within("history to become shorter", held).await;
}

#[test]
fn who_is_lapped_is_told_one_gap_and_has_the_rest() {
    lapped(&format!("topics.history.messages = {KEPT}"), "trimmed", KEPT);
}

#[test]
fn who_is_behind_longer_than_history_reaches_is_told_that_it_expired() {
    lapped(&format!("{ALL}\ntopics.history.age = \"300ms\""), "expired", 0);
}

#[test]
fn without_history_nobody_catches_up_and_the_gap_is_told() {
    let settings = format!("{SETTINGS}\ntopics.history.messages = 0");
    with_broker(&settings, async |broker| {
        for overflow in [None, Some("catchUp")] {
            let subscribe = json!({"topic": "t", "overflow": overflow.unwrap_or("gap")});
            let mut reader = Reader::narrow(broker, Wire::TcpProto, &subscribe).await;
            assert_eq!(reader.subscribed["overflow"], "gap", "{overflow:?}");
            let from = reader.subscribed["position"]["offset"].as_u64().expect("an offset");
            let mut publisher = Publisher::connect(broker).await;
            publisher.publish_all(&large("t", 1..=MESSAGES)).await;
            until_blocked(broker, &mut publisher).await;
            reader.until("t", from + MESSAGES).await;
            let account = reader.account("t");
            let [(_, to, reason)] = account.gaps.as_slice() else { panic!("{:?}", account.gaps) };
            assert_eq!((*to, reason.as_str()), (from + MESSAGES, "slow"));
            drop(reader);
            broker.until("fanfare_connections{wire=\"tcp_proto\"}", |open| open == 1).await;
        }
    });
}

#[test]
fn who_is_closed_for_reading_too_slowly_is_told_so_and_resumes() {
    for wire in WIRES {
        with_broker(&all(), async |broker| {
            let subscribe = json!({"topic": "t", "overflow": "disconnect"});
            let mut reader = Reader::narrow(broker, wire, &subscribe).await;
            let epoch = reader.subscribed["position"]["epoch"].clone();
            let mut publisher = Publisher::connect(broker).await;
            publisher.publish_all(&large("t", 1..=MESSAGES)).await;
            let closed = "fanfare_closes_total{reason=\"slowConsumer\"}";
            broker.until(closed, |closed| closed == 1).await;
            let ending = reader.end().await;
            assert_eq!((ending.code, ending.name.as_str()), (4408, "slowConsumer"));
            let before = reader.account("t");
            assert!(before.last < MESSAGES && before.gaps.is_empty(), "{}", before.last);

            let since = json!({"epoch": epoch, "offset": before.last});
            let subscribe = json!({"topic": "t", "since": since, "overflow": "disconnect"});
            let mut again = Reader::begin(broker, wire, &subscribe).await;
            assert_eq!(again.subscribed["recovered"], true, "{}", again.subscribed);
            again.until("t", MESSAGES).await;
            let offsets = [before.offsets(), again.account("t").offsets()].concat();
            assert_eq!(offsets, (1..=MESSAGES).collect::<Vec<_>>());
        });
    }
}

#[test]
fn every_hole_has_a_gap_of_its_own() {
    for wire in WIRES {
        with_broker(&all(), async |broker| {
            let subscribe = json!({"topic": "t", "overflow": "gap"});
            let mut reader = Reader::narrow(broker, wire, &subscribe).await;
            let mut publisher = Publisher::connect(broker).await;
            for stall in 1..=3 {
                let numbers = (stall - 1) * 100 + 1..=stall * 100;
                publisher.publish_all(&large("t", numbers)).await;
                until_blocked(broker, &mut publisher).await;
                for step in 0..2_000 {
                    reader.client.pipe().crawl(1 + step % 5).await;
                }
                reader.until("t", stall * 100).await;
                let gaps = reader.account("t").gaps;
                assert_eq!(gaps.len() as u64, stall, "{gaps:?}");
                assert_eq!(gaps[gaps.len() - 1].1, stall * 100, "{gaps:?}");
            }
        });
    }
}
