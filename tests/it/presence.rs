//! Presence: who is subscribed to a topic, told to those who ask and to those who watch.
//! # Invariants tested: whoever joins is told once and leaves once, however the connection ends; who
//! missed how it came about is told how it is.
//! # Not here: the list itself (`topics::presence`).

use crate::client::{Client, WIRES, wire_of};
use crate::harness::{Broker, with_broker, within};
use crate::publisher::Publisher;
use crate::reader::{Reader, narrow};
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SETTINGS: &str = r#"
limits.message_bytes_max = "16 KiB"
limits.outbound_bytes_max = "64 KiB"

[[topics.rules]]
filter = "room.*"
presence = true

[[topics.rules]]
filter = "hall.*"
presence = true
presence_members_max = 2
"#;

/// Connects under a name; returns the client and how it is listed.
async fn named(broker: &Broker, wire: Wire, name: &str) -> (Client, Value) {
    let mut client = Client::connect(broker, wire).await;
    let member = introduce(&mut client, name).await;
    (client, member)
}

async fn introduce(client: &mut Client, name: &str) -> Value {
    let connect = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    let reply = client.ask(&json!({"id": 1, "connect": connect})).await;
    let mut member = json!({"connection": reply["connected"]["connection"]});
    if !name.is_empty() {
        member["name"] = name.into();
    }
    member
}

async fn join(client: &mut Client, topic: &str, is_watching: &Value) {
    let subscribe = json!({"topic": topic, "presence": is_watching});
    let reply = client.ask(&json!({"id": 2, "subscribe": subscribe})).await;
    assert!(reply["subscribed"].is_object(), "{reply}");
}

/// Members as an answer lists them.
fn listed(members: &[Value]) -> Vec<Value> {
    let name = |member: &Value| member["connection"].as_str().expect("a name").to_owned();
    let by_name: BTreeMap<String, Value> =
        members.iter().map(|member| (name(member), member.clone())).collect();
    by_name.into_values().collect()
}

async fn presence(client: &mut Client, topic: &str) -> Value {
    let reply = client.ask(&json!({"id": 3, "presence": {"topic": topic}})).await;
    reply["presenceState"].clone()
}

/// What an answer says of a topic with these members, all of them listed.
fn state(topic: &str, members: &[Value]) -> Value {
    json!({"topic": topic, "count": members.len(), "members": listed(members), "more": false})
}

#[test]
fn who_joins_and_leaves_is_told_on_every_shard_however_it_leaves() {
    with_broker(SETTINGS, async |broker| {
        // Three watchers on each shard and every wire among them, and somebody who only asks.
        let mut watchers = Vec::new();
        let mut members = Vec::new();
        for index in 0..6 {
            let name = format!("watcher {index}");
            let (mut client, member) = named(broker, wire_of(index), &name).await;
            join(&mut client, "room.a", &true.into()).await;
            // Those before are told; oneself is not.
            let joined = json!({"joined": {"topic": "room.a", "member": member}});
            for watcher in &mut watchers {
                assert_eq!(Client::hear(watcher).await, joined);
            }
            members.push(member);
            watchers.push(client);
        }
        let mut asking = Client::connect(broker, Wire::WebSocketProto).await;
        let found = presence(&mut asking, "room.a").await;
        assert_eq!(found, state("room.a", &members));

        for (index, way) in [leave_by_word, leave_by_end, leave_by_reset, leave_by_close]
            .into_iter()
            .cycle()
            .take(20)
            .enumerate()
        {
            let name = ["", "Zoë 🎺"][index % 2];
            let (mut client, member) = named(broker, wire_of(index), name).await;
            join(&mut client, "room.a", &(index % 3 == 0).into()).await;
            let joined = json!({"joined": {"topic": "room.a", "member": member}});
            for watcher in &mut watchers {
                assert_eq!(watcher.hear().await, joined);
            }
            let now = [&members[..], std::slice::from_ref(&member)].concat();
            assert_eq!(presence(&mut asking, "room.a").await, state("room.a", &now));
            let kept = way(client).await;
            let left = json!({"left": {"topic": "room.a", "member": member}});
            for watcher in &mut watchers {
                assert_eq!(watcher.hear().await, left);
            }
            assert_eq!(presence(&mut asking, "room.a").await, state("room.a", &members));
            drop(kept);
        }
        for watcher in &mut watchers {
            watcher.ask(&json!({"id": 4, "ping": {}})).await;
        }
    });
}

type Way = std::pin::Pin<Box<dyn Future<Output = Option<Client>>>>;

fn leave_by_word(mut client: Client) -> Way {
    Box::pin(async move {
        let reply = client.ask(&json!({"id": 4, "unsubscribe": {"topic": "room.a"}})).await;
        assert!(reply["unsubscribed"].is_object(), "{reply}");
        Some(client)
    })
}

fn leave_by_end(mut client: Client) -> Way {
    Box::pin(async move {
        client.pipe().finish();
        Some(client)
    })
}

fn leave_by_reset(client: Client) -> Way {
    Box::pin(async move {
        client.reset();
        None
    })
}

fn leave_by_close(client: Client) -> Way {
    Box::pin(async move {
        drop(client);
        None
    })
}

#[test]
fn who_stops_watching_is_told_nothing_more_and_is_no_member() {
    with_broker(SETTINGS, async |broker| {
        for wire in WIRES {
            let (mut watcher, _) = named(broker, wire, "watcher").await;
            join(&mut watcher, "room.b", &true.into()).await;
            watcher.ask(&json!({"id": 3, "unsubscribe": {"topic": "room.b"}})).await;
            let (mut other, member) = named(broker, wire, "other").await;
            join(&mut other, "room.b", &false.into()).await;
            assert_eq!(presence(&mut watcher, "room.b").await, state("room.b", &[member]));
            // Nor did the other one ask to be told.
            join(&mut watcher, "room.b", &false.into()).await;
            let mut publisher = Publisher::connect(broker).await;
            publisher.publish(&json!({"topic": "room.b", "data": 1})).await;
            for client in [&mut watcher, &mut other] {
                assert!(client.hear().await["message"].is_object());
            }
            drop((watcher, other));
            let mut asking = Client::connect(broker, wire).await;
            let empty = async { while presence(&mut asking, "room.b").await["count"] != 0 {} };
            within("everybody to have left", empty).await;
        }
    });
}

#[test]
fn watching_is_part_of_the_subscription_and_no_other_one() {
    let settings = format!("limits.subscriptions_max = 2\nlimits.filters_max = 1\n{SETTINGS}");
    with_broker(&settings, async |broker| {
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        for topic in ["room.x", "room.y"] {
            join(&mut client, topic, &true.into()).await;
        }
        let third = json!({"id": 3, "subscribe": {"topic": "room.z"}});
        assert_eq!(client.ask(&third).await["error"]["name"], "tooManySubscriptions");
        let series = "fanfare_subscriptions{target=\"topic\"}";
        assert_eq!(broker.count(series).await, 2);
        client.ask(&json!({"id": 4, "unsubscribe": {"topic": "room.x"}})).await;
        assert_eq!(broker.count(series).await, 1);
        client.reset();
        broker.until(series, |left| left == 0).await;
    });
}

#[test]
fn who_is_closed_leaves() {
    with_broker(SETTINGS, async |broker| {
        let (mut watcher, _) = named(broker, Wire::WebSocketJson, "watcher").await;
        join(&mut watcher, "room.e", &true.into()).await;
        for wire in WIRES {
            let mut client = narrow(broker, wire).await;
            let member = introduce(&mut client, "slow").await;
            join(&mut client, "room.e", &false.into()).await;
            let joined = json!({"joined": {"topic": "room.e", "member": member}});
            assert_eq!(watcher.hear().await, joined);
            let subscribe = json!({"topic": "loud", "overflow": "disconnect"});
            let mut slow = Reader::of(client, &subscribe).await;
            let mut publisher = Publisher::connect(broker).await;
            let message = json!({"topic": "loud", "text": "x".repeat(8 << 10)});
            publisher.publish_all(&vec![message; 150]).await;
            let left = json!({"left": {"topic": "room.e", "member": member}});
            assert_eq!(watcher.hear().await, left);
            assert_eq!(slow.end().await.name, "slowConsumer");
        }
    });
}

#[test]
fn only_subscribers_of_exactly_the_topic_are_members_and_each_once() {
    with_broker(SETTINGS, async |broker| {
        let (mut member, listed) = named(broker, Wire::WebSocketJson, "one").await;
        join(&mut member, "room.c", &false.into()).await;
        join(&mut member, "room.*", &false.into()).await;
        let (mut other, _) = named(broker, Wire::TcpProto, "two").await;
        join(&mut other, "room.>", &false.into()).await;
        let expected = state("room.c", &[listed]);
        assert_eq!(presence(&mut other, "room.c").await, expected);
        let again = json!({"id": 2, "subscribe": {"topic": "room.c", "presence": true}});
        assert_eq!(member.ask(&again).await["error"]["name"], "alreadySubscribed");
        assert_eq!(presence(&mut other, "room.c").await, expected);
        // A topic that nobody has begun.
        assert_eq!(presence(&mut other, "room.none").await, state("room.none", &[]));
    });
}

#[test]
fn a_topic_without_presence_lists_nobody() {
    with_broker(SETTINGS, async |broker| {
        for wire in WIRES {
            let mut client = Client::connect(broker, wire).await;
            let ask = json!({"id": 1, "presence": {"topic": "other"}});
            assert_eq!(client.ask(&ask).await["error"]["name"], "notAllowed");
            let watch = json!({"id": 2, "subscribe": {"topic": "other", "presence": true}});
            assert_eq!(client.ask(&watch).await["error"]["name"], "notAllowed");
            let watch = json!({"id": 3, "subscribe": {"topic": "room.*", "presence": true}});
            assert_eq!(client.ask(&watch).await["error"]["name"], "badOption");
            // Nothing was begun.
            let subscribe = json!({"id": 4, "subscribe": {"topic": "other"}});
            assert!(client.ask(&subscribe).await["subscribed"].is_object());
        }
    });
}

#[test]
fn members_beyond_the_bound_are_counted_but_not_listed() {
    with_broker(SETTINGS, async |broker| {
        let (mut watcher, first) = named(broker, Wire::WebSocketJson, "first").await;
        join(&mut watcher, "hall.a", &true.into()).await;
        let (mut second, member) = named(broker, Wire::TcpProto, "second").await;
        join(&mut second, "hall.a", &false.into()).await;
        let joined = json!({"joined": {"topic": "hall.a", "member": member}});
        assert_eq!(watcher.hear().await, joined);
        let mut more = Vec::new();
        for wire in WIRES.into_iter().take(3) {
            let (mut client, _) = named(broker, wire, "more").await;
            join(&mut client, "hall.a", &false.into()).await;
            more.push(client);
        }
        let expected = json!({
            "topic": "hall.a", "count": 5, "members": listed(&[first.clone(), member.clone()]),
            "more": true,
        });
        assert_eq!(presence(&mut watcher, "hall.a").await, expected);

        // Who is not listed leaves unsaid; who is listed makes room for one who comes.
        more[0].ask(&json!({"id": 5, "unsubscribe": {"topic": "hall.a"}})).await;
        assert_eq!(presence(&mut watcher, "hall.a").await["count"], 4);
        second.reset();
        let left = json!({"left": {"topic": "hall.a", "member": member}});
        assert_eq!(watcher.hear().await, left);
        let (mut third, member) = named(broker, Wire::TcpProto, "third").await;
        join(&mut third, "hall.a", &false.into()).await;
        let joined = json!({"joined": {"topic": "hall.a", "member": member}});
        assert_eq!(watcher.hear().await, joined);
        let expected = json!({
            "topic": "hall.a", "count": 4, "members": listed(&[first, member]), "more": true,
        });
        assert_eq!(presence(&mut watcher, "hall.a").await, expected);
    });
}

#[test]
fn a_watcher_that_does_not_read_is_told_afterwards_who_is_there() {
    for wire in WIRES {
        for overflow in ["gap", "catchUp"] {
            with_broker(SETTINGS, async |broker| {
                let mut client = narrow(broker, wire).await;
                let mut members = vec![introduce(&mut client, "watcher").await];
                join(&mut client, "room.d", &true.into()).await;
                let loud = json!({"topic": "loud", "overflow": overflow});
                let mut watcher = Reader::of(client, &loud).await;
                let mut publisher = Publisher::connect(broker).await;
                let message = json!({"topic": "loud", "text": "x".repeat(8 << 10)});
                publisher.publish_all(&vec![message; 150]).await;
                publisher.settle(broker).await;
                assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
                let mut others = Vec::new();
                for index in 0..6 {
                    let (mut other, member) =
                        named(broker, wire_of(index), &format!("{index}")).await;
                    join(&mut other, "room.d", &(index % 2 == 0).into()).await;
                    if index < 2 {
                        other.reset();
                    } else {
                        members.push(member);
                        others.push(other);
                    }
                }
                until_count(broker, 5).await;
                publisher.settle(broker).await;

                let told = loop {
                    let event = watcher.hear().await;
                    if event["presenceState"].is_object() {
                        break event;
                    }
                    assert!(event["joined"].is_null() && event["left"].is_null(), "{event}");
                };
                assert_eq!(told, json!({"presenceState": state("room.d", &members)}));
                watcher.until("loud", 150).await;
                // And from then on one by one again.
                let (mut late, member) = named(broker, wire, "late").await;
                join(&mut late, "room.d", &false.into()).await;
                let joined = json!({"joined": {"topic": "room.d", "member": member}});
                assert_eq!(watcher.hear().await, joined);
            });
        }
    }
}

/// Waits until so many are in the room.
async fn until_count(broker: &Broker, count: u64) {
    let mut asking = Client::connect(broker, Wire::TcpProto).await;
    let right = async { while presence(&mut asking, "room.d").await["count"] != count {} };
    within("those who were reset to have left", right).await;
}
