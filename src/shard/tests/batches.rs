//! Batches: what shares a message, what a socket takes of it, and who gets which.
//! # Not here: how a batch is laid out (`block`).

use super::{Bench, WIDE, numbers};
use crate::dialect::Event;
use crate::reason::Reason;
use crate::shard::{Progress, ShardOptions};
use crate::topics::message::Wire;
use crate::topics::terms::Overflow;
use proptest::prelude::*;

const BATCHED: Wire = Wire::WebSocketJsonBatch;

#[test]
fn what_is_posted_together_is_one_message_to_who_asked_for_batches_and_many_to_others() {
    let mut bench = Bench::new(ShardOptions::default());
    let mut all = Vec::new();
    for _ in 0..200 {
        for (wire, messages) in [(BATCHED, 1), (Wire::WebSocketJson, 10)] {
            let (connection, wired) = bench.open_on(wire, WIDE);
            bench.join(connection, "t", Overflow::Gap);
            all.push((wired, messages));
        }
    }
    bench.publish("t", 10);
    bench.run();
    for (wired, messages) in &all {
        assert_eq!((wired.writes.get(), wired.messages().len()), (1, *messages));
        assert_eq!(wired.story(), numbers(1..=10));
    }
    let counters = bench.shard.counters();
    for wire in [BATCHED, Wire::WebSocketJson] {
        assert_eq!(counters.encodes.of(wire).get(), 10);
    }
    assert_eq!((counters.deliveries.get(), counters.writes.get()), (4_000, 400));
}

#[test]
fn wherever_a_socket_cuts_a_batch_its_rest_comes_before_all_else() {
    let length = {
        let mut bench = Bench::new(ShardOptions::default());
        let (connection, wired) = bench.open_on(BATCHED, WIDE);
        bench.join(connection, "t", Overflow::Gap);
        bench.publish("t", 5);
        bench.run();
        wired.taken.borrow().len()
    };
    for room in 1..=length {
        let mut bench = Bench::new(ShardOptions::default());
        let (connection, wired) = bench.open_on(BATCHED, room);
        bench.join(connection, "t", Overflow::Gap);
        bench.publish("t", 5);
        bench.run();
        assert_eq!(bench.shard.counters().outbound_bytes.get(), (length - room) as u64);
        bench.shard.send(connection, 7, &Event::Pong);
        bench.publish("t", 2);
        bench.run();
        wired.room.set(WIDE);
        bench.shard.flush(connection);
        let expected = [numbers(1..=5), vec![r#"{"id":7,"pong":{}}"#.into()], numbers(6..=7)];
        assert_eq!(wired.story(), expected.concat(), "after {room} bytes");
        let lens: Vec<usize> = wired.messages().iter().map(Vec::len).collect();
        // What waited leaves as it was queued, one by one.
        assert_eq!(lens, [5, 1, 1, 1], "after {room} bytes");
        let counters = bench.shard.counters();
        assert_eq!((counters.deliveries.get(), counters.outbound_bytes.get()), (7, 0));
    }
}

#[test]
fn who_is_closed_in_the_midst_of_a_batch_gets_the_rest_of_it_and_the_reason() {
    for room in [1, 2, 3, 100, 300] {
        let mut bench = Bench::new(ShardOptions::default());
        let (slow, wired) = bench.open_on(BATCHED, room);
        bench.join(slow, "t", Overflow::Gap);
        bench.publish("t", 5);
        bench.run();
        bench.publish("t", 5);
        bench.run();
        bench.shard.close(slow, &Reason::SlowConsumer.into());
        wired.room.set(WIDE);
        bench.shard.flush(slow);
        assert_eq!(wired.story(), [numbers(1..=5), vec!["close 4408".into()]].concat());
    }
}

#[test]
fn what_a_turn_has_for_a_connection_that_changes_to_batches_leaves_as_it_was() {
    let mut bench = Bench::new(ShardOptions::default());
    let all: Vec<_> = (0..300).map(|_| bench.open(WIDE)).collect();
    for (connection, _) in &all {
        bench.join(*connection, "t", Overflow::Gap);
    }
    bench.publish("t", 3);
    // More connections than one slice writes to: the last ones have not been written to.
    assert_eq!(bench.shard.turn(), Progress::More);
    let (last, wired) = &all[299];
    assert_eq!(wired.messages().len(), 0);
    bench.shard.change_wire(*last, BATCHED);
    bench.run();
    bench.publish("t", 3);
    bench.run();
    assert_eq!(wired.story(), numbers(1..=6));
    let lens: Vec<usize> = wired.messages().iter().map(Vec::len).collect();
    assert_eq!(lens, [1, 1, 1, 3]);
    let counters = bench.shard.counters();
    let open = [Wire::WebSocketJson, BATCHED].map(|wire| counters.connections.of(wire).get());
    assert_eq!(open, [299, 1]);
}

/// A connection: its wire, its topics, and how much its socket takes each time.
#[derive(Clone, Debug)]
struct Peer {
    is_batched: bool,
    topics: Vec<&'static str>,
    room: usize,
}

fn peer() -> impl Strategy<Value = Peer> {
    let topics = prop::sample::subsequence(vec!["a", "b", "c"], 1..=3);
    let room = prop_oneof![Just(WIDE), 1usize..40, 40usize..2_000];
    (any::<bool>(), topics, room).prop_map(|(is_batched, topics, room)| Peer {
        is_batched,
        topics,
        room,
    })
}

/// What each turn publishes: a topic, and how many messages.
fn turns() -> impl Strategy<Value = Vec<Vec<(&'static str, usize)>>> {
    let publish = (prop::sample::select(vec!["a", "b", "c"]), 1usize..6);
    prop::collection::vec(prop::collection::vec(publish, 0..6), 1..8)
}

proptest! {
    #[test]
    fn whatever_they_share_and_take_each_gets_its_topics_in_order(
        peers in prop::collection::vec(peer(), 1..12),
        turns in turns(),
    ) {
        let mut bench = Bench::new(ShardOptions::default());
        let mut all = Vec::new();
        for peer in &peers {
            let wire = if peer.is_batched { BATCHED } else { Wire::WebSocketJson };
            let (connection, wired) = bench.open_on(wire, peer.room);
            for topic in &peer.topics {
                bench.join(connection, topic, Overflow::Gap);
            }
            all.push((connection, wired));
        }
        for turn in &turns {
            for (topic, count) in turn {
                bench.publish(topic, *count);
            }
            bench.run();
            for ((connection, wired), peer) in all.iter().zip(&peers) {
                wired.room.set(peer.room);
                bench.shard.flush(*connection);
            }
        }
        let mut tops = std::collections::BTreeMap::new();
        let mut expected: Vec<(&str, u64)> = Vec::new();
        for (topic, count) in turns.iter().flatten() {
            for _ in 0..*count {
                let top = tops.entry(*topic).or_insert(0);
                *top += 1;
                expected.push((topic, *top));
            }
        }
        for ((connection, wired), peer) in all.iter().zip(&peers) {
            wired.room.set(WIDE);
            bench.shard.flush(*connection);
            let heard: Vec<(String, u64)> = wired.frames().iter().map(|frame| said(frame)).collect();
            let own = expected.iter().filter(|(topic, _)| peer.topics.contains(topic));
            let own: Vec<_> = own.map(|(topic, top)| ((*topic).to_owned(), *top)).collect();
            prop_assert_eq!(heard, own);
            let alone = wired.messages().iter().all(|message| message.len() == 1);
            prop_assert!(peer.is_batched || alone);
        }
    }
}

/// The topic and offset of a message.
fn said(frame: &str) -> (String, u64) {
    let event: serde_json::Value = serde_json::from_str(frame).expect("an event");
    let message = &event["message"];
    let topic = message["topic"].as_str().expect("a message").to_owned();
    (topic, message["offset"].as_u64().expect("an offset"))
}
