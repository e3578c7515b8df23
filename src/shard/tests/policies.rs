//! Each policy against a model, over random publishing, random sockets and random time.
//! # Not here: many connections, reconnecting (`tests/sim`).

use super::{Bench, WIDE};
use crate::clock::Now;
use crate::shard::{ConnectionId, Joiner, ShardOptions};
use crate::topics::message::{Draft, Payload};
use crate::topics::name::TopicName;
use crate::topics::terms::{Overflow, Policy, Rate, Terms};
use crate::topics::topic::Ask;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A message of this key is published.
    Publish(u8),
    /// The thing that this key names is deleted.
    Delete(u8),
    /// The socket takes so many bytes more.
    Room(usize),
    /// So many milliseconds pass.
    Pass(u64),
    /// The shard has its turn.
    Run,
}

/// What the client was sent, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    Message { offset: u64, key: String, at_ms: u64 },
    Gap(RangeInclusive<u64>),
}

struct Played {
    /// The key of each published message, and whether it was a delete; offsets count from 1.
    published: Vec<(String, bool)>,
    sent: Vec<Sent>,
}

fn steps(narrow: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..4).prop_map(Step::Publish),
        1 => (0u8..4).prop_map(Step::Delete),
        narrow => (1usize..400).prop_map(Step::Room),
        2 => (1u64..300).prop_map(Step::Pass),
        3 => Just(Step::Run),
    ];
    prop::collection::vec(step, 1..150)
}

fn play(terms: Terms, room: usize, steps: &[Step]) -> Played {
    let options = ShardOptions { outbound_bytes_max: 400, ..ShardOptions::default() };
    let mut bench = Bench::new(options);
    let (connection, wired) = bench.open(room);
    let topic = TopicName::parse("t").expect("valid name");
    let joiner = Joiner { connection, terms };
    bench.shard.join_topic(joiner, &topic, &Ask::default()).expect("joined");
    let mut played = Played { published: Vec::new(), sent: Vec::new() };
    let mut now_ms = 0;
    for step in steps {
        match step {
            Step::Publish(key) => publish(&bench, *key, Payload::Text("x".into()), &mut played),
            Step::Delete(key) => publish(&bench, *key, Payload::Deleted, &mut played),
            Step::Room(bytes) => wired.room.set(wired.room.get().saturating_add(*bytes)),
            Step::Pass(ms) => now_ms += ms,
            Step::Run => bench.run(),
        }
        go_on(&mut bench, connection, now_ms);
        note(&wired.frames(), now_ms, &mut played);
    }
    wired.room.set(WIDE);
    for _ in 0..20 {
        now_ms += 60;
        go_on(&mut bench, connection, now_ms);
        bench.run();
        note(&wired.frames(), now_ms, &mut played);
    }
    played
}

fn publish(bench: &Bench, key: u8, payload: Payload, played: &mut Played) {
    let topic = TopicName::parse("t").expect("valid name");
    let draft = Draft { key: Some(key.to_string().into()), ..Draft::new(topic, payload) };
    played.published.push((key.to_string(), draft.is_delete()));
    bench.registry.commit(draft, bench.shard.now()).expect("committed");
}

fn go_on(bench: &mut Bench, connection: ConnectionId, now_ms: u64) {
    bench.shard.set_now(Now::at_ms(now_ms));
    bench.shard.turn();
    bench.shard.flush(connection);
}

/// Adds the frames that came since the last time.
fn note(frames: &[String], at_ms: u64, played: &mut Played) {
    let events = frames.iter().map(|frame| serde_json::from_str(frame).expect("an event"));
    let told = events.filter_map(|event: serde_json::Value| {
        let (message, gap) = (&event["message"], &event["gap"]);
        if let Some(offset) = message["offset"].as_u64() {
            let key = message["key"].as_str().unwrap_or_default().to_owned();
            return Some(Sent::Message { offset, key, at_ms });
        }
        Some(Sent::Gap(gap["from"].as_u64()?..=gap["to"].as_u64()?))
    });
    let already = played.sent.len();
    played.sent.extend(told.skip(already));
}

impl Played {
    fn offsets(&self) -> Vec<u64> {
        let offset = |sent: &Sent| match sent {
            Sent::Message { offset, .. } => Some(*offset),
            Sent::Gap(_) => None,
        };
        self.sent.iter().filter_map(offset).collect()
    }

    /// Every offset in its place, as a message or in a gap.
    fn covered(&self) -> Vec<u64> {
        let offsets = |sent: &Sent| match sent {
            Sent::Message { offset, .. } => *offset..=*offset,
            Sent::Gap(range) => range.clone(),
        };
        self.sent.iter().flat_map(offsets).collect()
    }

    fn all(&self) -> Vec<u64> {
        (1..=self.published.len() as u64).collect()
    }

    /// The offsets that may be passed over: a later message of the key came, and it is no delete.
    fn is_conflated(&self) -> bool {
        let sent = self.offsets();
        let is_owed = |(offset, (key, is_delete)): (u64, &(String, bool))| {
            let later = (offset + 1..).zip(self.published.iter().skip(index(offset)));
            let is_newest = !later.into_iter().any(|(_, (other, _))| other == key);
            (is_newest || *is_delete) && !sent.contains(&offset)
        };
        let in_order = sent.is_sorted_by(|one, two| one < two);
        in_order && sent.len() == self.sent.len() && !(1..).zip(&self.published).any(is_owed)
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("few messages")
}

fn terms(policy: Policy, overflow: Overflow) -> Terms {
    Terms { policy, overflow: Some(overflow) }
}

proptest! {
    #[test]
    fn catching_up_gives_every_message_once_and_in_order(steps in steps(2)) {
        let played = play(terms(Policy::All, Overflow::CatchUp), 0, &steps);
        prop_assert_eq!(played.offsets(), played.all());
    }

    #[test]
    fn with_gaps_every_offset_comes_or_is_told_in_its_place(steps in steps(2)) {
        let played = play(terms(Policy::All, Overflow::Gap), 0, &steps);
        prop_assert_eq!(played.covered(), played.all());
    }

    #[test]
    fn latest_gives_the_newest_of_each_key_and_every_delete(steps in steps(2)) {
        let played = play(terms(Policy::Latest, Overflow::Gap), 0, &steps);
        prop_assert!(played.is_conflated(), "{:?} of {:?}", played.sent, played.published);
    }

    #[test]
    fn latest_on_an_open_road_is_all(steps in steps(1)) {
        let played = play(terms(Policy::Latest, Overflow::Gap), WIDE, &steps);
        prop_assert_eq!(played.offsets(), played.all());
    }

    #[test]
    fn a_rate_ends_with_the_newest_and_is_never_exceeded(steps in steps(1), wide in any::<bool>()) {
        let rate = Rate::from_hz(5.0).expect("a rate");
        let room = if wide { WIDE } else { 0 };
        let played = play(terms(Policy::MaxHz(rate), Overflow::Gap), room, &steps);
        prop_assert!(played.is_conflated(), "{:?} of {:?}", played.sent, played.published);
        // A socket that was busy gets the round when it takes bytes, not when it was due.
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for sent in played.sent.iter().filter(|_| wide) {
            let Sent::Message { offset, key, at_ms } = sent else { continue };
            let is_delete = played.published[index(*offset) - 1].1;
            let before = last.insert(key, *at_ms);
            let is_too_soon = before.is_some_and(|before| *at_ms < before + 200);
            // Deletes are never passed over, so one may come together with its successor.
            let has_delete = is_delete || before == Some(*at_ms);
            prop_assert!(!is_too_soon || has_delete, "{:?}", played.sent);
        }
    }
}
