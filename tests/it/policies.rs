//! Policies: every message, the latest of each key, so many a second.
//! # Invariants tested: offsets ascend; the last value of every key arrives, deletes too; a rate is
//! kept to.
//! # Not here: readers that get every message though they are slow (`catch_up`), the caps of rules
//! (`rules`).

use crate::client::WIRES;
use crate::harness::{Broker, with_broker};
use crate::publisher::Publisher;
use crate::reader::{Account, Reader};
use fanfare::clock::Clock;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Little enough waits for a connection that a test can publish more.
const NARROW: &str = r#"
limits.message_bytes_max = "16 KiB"
limits.outbound_bytes_max = "64 KiB"
topics.history.messages = 10_000
topics.history.bytes = "64 MiB"
"#;

/// More messages than this have not been sent since then at this rate. A slower machine allows more,
/// never less.
fn allowed(since: Clock, hz: f64) -> usize {
    let rounds = since.now().uptime.as_secs_f64() * hz;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let rounds = rounds.ceil() as usize;
    rounds + 2
}

#[test]
fn of_one_busy_topic_each_gets_what_its_policy_gives() {
    const MESSAGES: u64 = 3_000;
    const HZ: f64 = 20.0;
    with_broker("", async |broker| {
        let begun = Clock::start();
        let all = json!({"topic": "t"});
        let mut all = Reader::begin(broker, Wire::WebSocketJson, &all).await;
        let latest = json!({"topic": "t", "policy": "latest"});
        let mut latest = Reader::begin(broker, Wire::WebSocketProto, &latest).await;
        let rated = json!({"topic": "t", "maxHz": HZ});
        let mut rated = Reader::begin(broker, Wire::TcpProto, &rated).await;
        assert_eq!(rated.subscribed["policy"], "maxHz");
        assert_eq!(rated.subscribed["maxHz"], 20);
        let mut publisher = Publisher::connect(broker).await;
        let messages: Vec<Value> =
            (1..=MESSAGES).map(|n| json!({"topic": "t", "data": n})).collect();
        tokio::join!(
            publisher.publish_all(&messages),
            all.until("t", MESSAGES),
            latest.until("t", MESSAGES),
            rated.until("t", MESSAGES),
        );
        let bound = allowed(begun, HZ);
        assert_eq!(all.account("t").offsets(), (1..=MESSAGES).collect::<Vec<_>>());
        for reader in [&latest, &rated] {
            let account = reader.account("t");
            assert_eq!(account.messages.last().expect("one")["data"], MESSAGES);
            assert!(account.gaps.is_empty(), "{:?}", account.gaps);
        }
        let count = rated.account("t").messages.len();
        assert!((2..=bound).contains(&count), "{count} messages, {bound} are allowed");
        assert_eq!(rated.account("t").offsets()[0], 1, "the first one comes at once");
    });
}

#[test]
fn a_rate_gives_each_topic_of_a_filter_and_each_key_its_turn() {
    const HZ: f64 = 25.0;
    const ROUNDS: u64 = 300;
    let (topics, keys) = (["f.a", "f.b", "f.c"], ["", "k", "l"]);
    with_broker("", async |broker| {
        let begun = Clock::start();
        let rated = json!({"topic": "f.*", "policy": "maxHz", "maxHz": HZ});
        let mut rated = Reader::begin(broker, Wire::WebSocketJson, &rated).await;
        let mut publisher = Publisher::connect(broker).await;
        let mut messages = Vec::new();
        for n in 1..=ROUNDS {
            for topic in topics {
                messages.extend(keys.map(|key| json!({"topic": topic, "key": key, "data": n})));
            }
        }
        let last = ROUNDS * keys.len() as u64;
        let hear = async {
            for topic in topics {
                rated.until(topic, last).await;
            }
        };
        tokio::join!(publisher.publish_all(&messages), hear);
        let bound = allowed(begun, HZ) * keys.len();
        for topic in topics {
            let account = rated.account(topic);
            assert!(account.messages.len() <= bound, "{} of {bound}", account.messages.len());
            let latest = account.latest();
            assert_eq!(latest.len(), keys.len());
            assert!(latest.values().all(|message| message["data"] == ROUNDS), "{latest:?}");
        }
    });
}

/// Large messages of seven keys, now and then a delete of one.
fn keyed(numbers: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    let text = "x".repeat(6 << 10);
    let message = |n: u64| {
        let key = format!("k{}", n % 7);
        if n.is_multiple_of(11) {
            json!({"topic": "t", "key": key, "delete": true})
        } else {
            json!({"topic": "t", "key": key, "data": [n, text]})
        }
    };
    numbers.map(message).collect()
}

/// A reader that stops, crawls and goes on, while more is published: what it has heard in the end.
async fn stalled(broker: &Broker, wire: Wire, subscribe: &Value) -> Account {
    let mut reader = Reader::narrow(broker, wire, subscribe).await;
    let mut publisher = Publisher::connect(broker).await;
    publisher.publish_all(&keyed(1..=STALLED)).await;
    publisher.settle(broker).await;
    assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
    let crawl = async {
        for step in 0..3_000 {
            reader.client.pipe().crawl(1 + step % 7).await;
        }
    };
    let more = keyed(STALLED + 1..=ALL);
    tokio::join!(publisher.publish_all(&more), crawl);
    reader.until("t", ALL).await;
    // It is as good as new.
    publisher.publish_all(&keyed(ALL + 1..=ALL + 1)).await;
    reader.until("t", ALL + 1).await;
    broker.until("fanfare_outbound_bytes", |bytes| bytes == 0).await;
    broker.until("fanfare_blocked_connections", |blocked| blocked == 0).await;
    reader.account("t")
}

const STALLED: u64 = 180;
const ALL: u64 = 240;

/// What conflation must leave.
fn must_be_conflated(account: &Account) {
    assert!(account.gaps.is_empty(), "{:?}", account.gaps);
    let count = account.messages.len();
    assert!((count as u64) < ALL, "{count}: nothing was passed over");
    let expected: BTreeMap<String, u64> =
        (1..=ALL + 1).map(|n| (format!("\"k{}\"", n % 7), n)).collect();
    let latest = account.latest();
    let got = latest.iter().map(|(key, message)| (key.clone(), message["offset"].as_u64()));
    assert_eq!(
        got.collect::<Vec<_>>(),
        expected.into_iter().map(|(k, n)| (k, Some(n))).collect::<Vec<_>>()
    );
    let is_delete = |message: &&Value| message["deleted"] == true;
    let deletes = account.messages.iter().filter(is_delete).map(|m| m["offset"].as_u64());
    let expected = (1..=ALL + 1).filter(|n| n.is_multiple_of(11)).map(Some);
    assert!(deletes.eq(expected), "a delete was passed over");
}

#[test]
fn after_a_stall_the_latest_of_every_key_comes_and_every_delete() {
    for wire in WIRES {
        with_broker(NARROW, async |broker| {
            let account = stalled(broker, wire, &json!({"topic": "t", "policy": "latest"})).await;
            must_be_conflated(&account);
            for series in ["fanfare_gaps_total", "fanfare_dropped_total"] {
                assert_eq!(broker.count(series).await, 0, "{series}");
            }
        });
    }
}

#[test]
fn after_a_stall_a_rate_gives_the_same() {
    for wire in WIRES {
        with_broker(NARROW, async |broker| {
            let account = stalled(broker, wire, &json!({"topic": "t", "maxHz": 500})).await;
            must_be_conflated(&account);
        });
    }
}

#[test]
fn after_a_stall_who_catches_up_has_everything() {
    for wire in WIRES {
        with_broker(NARROW, async |broker| {
            let account = stalled(broker, wire, &json!({"topic": "t"})).await;
            assert_eq!(account.offsets(), (1..=ALL + 1).collect::<Vec<_>>());
            assert!(account.gaps.is_empty());
            for series in ["fanfare_gaps_total", "fanfare_dropped_total"] {
                assert_eq!(broker.count(series).await, 0, "{series}");
            }
        });
    }
}

#[test]
fn after_a_stall_who_wanted_gaps_is_told_them_all() {
    for wire in WIRES {
        with_broker(NARROW, async |broker| {
            let account = stalled(broker, wire, &json!({"topic": "t", "overflow": "gap"})).await;
            assert!(!account.gaps.is_empty());
            let told = account.gaps.iter().map(|(from, to, _)| to + 1 - from).sum::<u64>();
            assert!(account.gaps.iter().all(|(_, _, reason)| reason == "slow"));
            assert_eq!(told + account.messages.len() as u64, ALL + 1);
            assert_eq!(broker.count("fanfare_dropped_total").await, told);
            assert_eq!(broker.count("fanfare_gaps_total").await, account.gaps.len() as u64);
        });
    }
}

/// Publishes until it is told to stop; returns how many.
async fn publish_until(publisher: &mut Publisher, stop: &Cell<bool>) -> u64 {
    let mut n = 0;
    while !stop.get() {
        let message = |n: u64| json!({"topic": "t", "data": n});
        publisher.publish_all(&(n + 1..=n + 5).map(message).collect::<Vec<_>>()).await;
        n += 5;
        tokio::task::yield_now().await;
    }
    n
}

#[test]
fn a_policy_can_be_changed_in_the_middle_of_a_stream() {
    for wire in WIRES {
        with_broker("", async |broker| {
            let mut reader = Reader::begin(broker, wire, &json!({"topic": "t"})).await;
            let mut publisher = Publisher::connect(broker).await;
            let stop = Cell::new(false);
            let change = async {
                change_and_hear(&mut reader).await;
                stop.set(true);
            };
            let (top, ()) = tokio::join!(publish_until(&mut publisher, &stop), change);
            reader.until("t", top).await;
            assert!(reader.account("t").gaps.is_empty());
        });
    }
}

async fn change_and_hear(reader: &mut Reader) {
    const HZ: f64 = 50.0;
    let update = |id: u64, policy: &str| match policy {
        "maxHz" => json!({"id": id, "update": {"topic": "t", "maxHz": HZ}}),
        _ => json!({"id": id, "update": {"topic": "t", "policy": policy}}),
    };
    for _ in 0..20 {
        reader.hear().await;
    }
    let mut id = 1;
    for round in 0..3 {
        // Until the answer every message comes, after it so many a second.
        id += 1;
        let begun = Clock::start();
        let reply = reader.ask(&update(id, "maxHz")).await;
        assert_eq!(reply["updated"], json!({"topic": "t", "policy": "maxHz", "maxHz": 50}));
        reader.skips = true;
        let heard = reader.account("t").messages.len();
        for _ in 0..4 {
            reader.hear().await;
        }
        let policy = ["latest", "all", "latest"][round];
        id += 1;
        let reply = reader.ask(&update(id, policy)).await;
        let count = reader.account("t").messages.len() - heard;
        let bound = allowed(begun, HZ);
        // What was held back is sent before the answer.
        assert!(count <= bound + 1, "{count} of {bound}");
        assert_eq!(reply["updated"]["policy"], policy, "{reply}");
        assert!(reply["updated"]["maxHz"].is_null(), "{reply}");
        for _ in 0..20 {
            reader.hear().await;
        }
        id += 1;
        let reply = reader.ask(&update(id, "all")).await;
        let expected = json!({"topic": "t", "policy": "all", "overflow": "catchUp"});
        assert_eq!(reply["updated"], expected);
        // From here on nothing is passed over, and nothing was between.
        reader.skips = false;
        for _ in 0..50 {
            reader.hear().await;
        }
    }
}

#[test]
fn an_overflow_can_be_changed_while_a_reader_is_behind() {
    for wire in WIRES {
        with_broker(NARROW, async |broker| {
            let subscribe = json!({"topic": "t", "overflow": "gap"});
            let mut reader = Reader::narrow(broker, wire, &subscribe).await;
            let mut publisher = Publisher::connect(broker).await;
            publisher.publish_all(&keyed(1..=STALLED)).await;
            publisher.settle(broker).await;
            assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
            // What it missed, it missed under the old terms; with what comes it will catch up.
            let update = json!({"topic": "t", "overflow": "catchUp"});
            let reply = reader.ask(&json!({"id": 9, "update": update})).await;
            let expected = json!({"topic": "t", "policy": "all", "overflow": "catchUp"});
            assert_eq!(reply["updated"], expected);
            reader.until("t", STALLED).await;
            publisher.publish_all(&keyed(STALLED + 1..=ALL)).await;
            reader.until("t", ALL).await;
            let account = reader.account("t");
            let [(_, to, reason)] = account.gaps.as_slice() else { panic!("{:?}", account.gaps) };
            assert_eq!((*to, reason.as_str()), (STALLED, "slow"));
            let after = account.offsets().into_iter().filter(|offset| offset > to);
            assert!(after.eq(STALLED + 1..=ALL));
        });
    }
}

#[test]
fn a_change_of_what_is_not_subscribed_is_refused_and_of_nothing_tells_how_it_is() {
    with_broker("", async |broker| {
        for wire in WIRES {
            let subscribe = json!({"topic": "t", "overflow": "disconnect"});
            let mut reader = Reader::begin(broker, wire, &subscribe).await;
            assert_eq!(reader.subscribed["overflow"], "disconnect");
            let reply = reader.ask(&json!({"id": 2, "update": {"topic": "t"}})).await;
            let expected = json!({"topic": "t", "policy": "all", "overflow": "disconnect"});
            assert_eq!(reply["updated"], expected);
            for topic in ["u", "t.*", "*"] {
                let command = json!({"id": 3, "update": {"topic": topic, "policy": "latest"}});
                let reply = reader.client.ask(&command).await;
                assert_eq!(reply["error"]["name"], "notSubscribed", "{reply}");
            }
        }
    });
}

#[test]
fn with_more_keys_than_may_wait_the_oldest_are_told_as_missing() {
    const KEYS: u64 = 5_000;
    const HELD: u64 = 4_096;
    for wire in WIRES {
        with_broker(NARROW, async |broker| {
            let subscribe = json!({"topic": "t", "policy": "latest"});
            let mut reader = Reader::narrow(broker, wire, &subscribe).await;
            let mut publisher = Publisher::connect(broker).await;
            publisher.publish_all(&keyed(1..=STALLED)).await;
            publisher.settle(broker).await;
            assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
            let key = |n: u64| json!({"topic": "t", "key": format!("n{n}"), "data": n});
            publisher.publish_all(&(1..=KEYS).map(key).collect::<Vec<_>>()).await;
            publisher.settle(broker).await;
            reader.until("t", STALLED + KEYS).await;
            let account = reader.account("t");
            let [(_, to, reason)] = account.gaps.as_slice() else { panic!("{:?}", account.gaps) };
            assert_eq!((*to, reason.as_str()), (STALLED + KEYS - HELD, "slow"));
            let after = account.offsets().into_iter().filter(|offset| offset > to);
            assert!(after.eq(to + 1..=STALLED + KEYS));
        });
    }
}

#[test]
fn a_rate_holds_for_who_catches_up_when_it_is_asked_for() {
    for wire in WIRES {
        with_broker(NARROW, async |broker| {
            let mut reader = Reader::narrow(broker, wire, &json!({"topic": "t"})).await;
            let mut publisher = Publisher::connect(broker).await;
            publisher.publish_all(&keyed(1..=STALLED)).await;
            publisher.settle(broker).await;
            assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
            let reply =
                reader.ask(&json!({"id": 2, "update": {"topic": "t", "maxHz": 0.01}})).await;
            assert_eq!(reply["updated"]["policy"], "maxHz", "{reply}");
            reader.skips = true;
            reader.until("t", STALLED).await;
            let heard = reader.account("t").messages.len();
            publisher.publish_all(&keyed(STALLED + 1..=ALL)).await;
            publisher.settle(broker).await;
            reader.ask(&json!({"id": 3, "ping": {}})).await;
            let more = reader.account("t").messages.len() - heard;
            assert!(more <= 1, "{more} messages in no time");
        });
    }
}
