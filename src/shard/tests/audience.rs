//! About how many connections a publish goes to, as its publisher is charged for it.
//! # Not here: the charge (`session`).

use super::{Bench, WIDE};
use crate::shard::ShardOptions;
use crate::topics::message::{Draft, Payload};
use crate::topics::name::{Target, TopicName};
use crate::topics::registry::Recent;
use crate::topics::terms::Overflow;

/// Publishes, and says how many it goes to and whether the topic began with it. It is delivered after
/// that.
fn publish(bench: &mut Bench, topic: &str) -> (u32, bool) {
    let topic = TopicName::parse(topic).expect("valid name");
    let draft = Draft::new(topic, Payload::Text("x".into()));
    let (mut recent, now) = (Recent::default(), bench.shard.now());
    let committed = bench.registry.commit_again(&mut recent, draft, now).expect("room");
    let found = (committed.audience, committed.is_new_topic);
    bench.shard.turn();
    found
}

#[test]
fn a_publisher_is_told_about_how_many_a_message_goes_to() {
    let mut bench = Bench::new(ShardOptions::default());
    let ids: Vec<_> = (0..5).map(|_| bench.open(WIDE).0).collect();
    for id in &ids[..3] {
        bench.join(*id, "a.b", Overflow::Gap);
    }
    for id in &ids[3..] {
        bench.join(*id, "a.>", Overflow::Gap);
    }
    // Filters are told with the first message.
    assert_eq!(publish(&mut bench, "a.b"), (3, false));
    assert_eq!(publish(&mut bench, "a.b"), (5, false));
    let leave = |bench: &mut Bench, index: usize, target: &str| {
        let target = Target::parse(target).expect("valid");
        bench.shard.leave(ids[index], &target).expect("subscribed");
    };
    leave(&mut bench, 0, "a.b");
    assert_eq!(publish(&mut bench, "a.b"), (4, false));
    leave(&mut bench, 3, "a.>");
    assert_eq!(publish(&mut bench, "a.b"), (4, false));
    assert_eq!(publish(&mut bench, "a.b"), (3, false));
    // A topic that begins has as many as its filters.
    assert_eq!(publish(&mut bench, "a.c"), (1, true));
    assert_eq!(publish(&mut bench, "a.c"), (1, false));
    assert_eq!(publish(&mut bench, "b"), (0, true));
    for (index, target) in [(1, "a.b"), (2, "a.b"), (4, "a.>")] {
        leave(&mut bench, index, target);
    }
    for topic in ["a.b", "a.c"] {
        assert_eq!(publish(&mut bench, topic), (0, false));
    }
    // What is left over from the filter goes with the next message, and nothing else is.
    bench.join(ids[0], "a.b", Overflow::Gap);
    assert_eq!(publish(&mut bench, "a.b"), (2, false));
    assert_eq!(publish(&mut bench, "a.b"), (1, false));
}
