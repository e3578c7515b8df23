//! The shard stepped by hand: sockets that take as much as they are told to, time that passes when
//! it is told to.

mod audience;
mod batches;
mod policies;
mod presence;
mod standing;

use super::outbound::Socket;
use super::pressure::Budget;
use super::{ConnectionId, FilterAsk, Joiner, Progress, Shard, ShardOptions};
use crate::clock::Now;
use crate::reason::Reason;
use crate::topics::mailbox::{Mailbox, MailboxOptions};
use crate::topics::message::{Draft, Payload, Wire};
use crate::topics::name::{Target, TopicFilter, TopicName};
use crate::topics::registry::{Registry, RegistryOptions};
use crate::topics::terms::{Overflow, Policy, Terms};
use crate::topics::topic::{Ask, ShardId};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What a peer got and how it was written.
#[derive(Debug, Default)]
struct Wired {
    room: Cell<usize>,
    taken: RefCell<Vec<u8>>,
    writes: Cell<usize>,
    shut: Cell<bool>,
    aborted: Cell<bool>,
}

#[derive(Clone, Debug)]
struct FakeSocket(Rc<Wired>);

impl Socket for FakeSocket {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.0.aborted.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = bytes.len().min(self.0.room.get());
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.room.set(self.0.room.get() - taken);
        self.0.taken.borrow_mut().extend(&bytes[..taken]);
        self.0.writes.set(self.0.writes.get() + 1);
        Ok(taken)
    }

    fn shutdown(&self) {
        self.0.shut.set(true);
    }

    fn abort(&self) {
        self.0.aborted.set(true);
    }
}

impl Wired {
    /// The whole frames that arrived: each line of a text, a close as its code.
    fn frames(&self) -> Vec<String> {
        self.messages().concat()
    }

    /// The same, message by message.
    fn messages(&self) -> Vec<Vec<String>> {
        let taken = self.taken.borrow();
        let (mut rest, mut frames) = (taken.as_slice(), Vec::new());
        while let [head, length, after @ ..] = rest {
            let (length, after) = match length {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                short => (usize::from(*short), after),
            };
            let Some(body) = after.get(..length) else { break };
            frames.push(match head {
                0x81 => String::from_utf8_lossy(body).lines().map(str::to_owned).collect(),
                0x88 => vec![format!("close {}", u16::from_be_bytes([body[0], body[1]]))],
                0x89 => vec!["ping".to_owned()],
                other => vec![format!("frame {other:#x}")],
            });
            rest = &after[length..];
        }
        frames
    }

    /// The offsets of the messages that arrived, and the other events by their first word.
    fn story(&self) -> Vec<String> {
        self.frames()
            .iter()
            .map(|frame| match serde_json::from_str::<serde_json::Value>(frame) {
                Ok(event) if event.get("message").is_some() => {
                    event["message"]["offset"].to_string()
                }
                Ok(event) if event.get("gap").is_some() => {
                    format!("gap {}-{}", event["gap"]["from"], event["gap"]["to"])
                }
                Ok(event) if event.get("position").is_some() => {
                    format!("position {}", event["position"]["offset"])
                }
                _ => frame.clone(),
            })
            .collect()
    }
}

fn plenty() -> Arc<Budget> {
    Arc::new(Budget::new(usize::MAX, Vec::new()))
}

pub(super) struct Bench {
    registry: Arc<Registry>,
    shard: Shard<FakeSocket>,
}

impl Bench {
    fn new(options: ShardOptions) -> Bench {
        let mailbox = Arc::new(Mailbox::new(MailboxOptions::default(), || {}));
        let epochs = Box::new(|| Some(7));
        let registry = Arc::new(Registry::new(RegistryOptions::default(), vec![mailbox], epochs));
        let id = ShardId::new(0).expect("a shard");
        let shard = Shard::new(id, Arc::clone(&registry), options, Arc::default(), plenty());
        Bench { registry, shard }
    }

    fn open(&mut self, room: usize) -> (ConnectionId, Rc<Wired>) {
        self.open_on(Wire::WebSocketJson, room)
    }

    fn open_on(&mut self, wire: Wire, room: usize) -> (ConnectionId, Rc<Wired>) {
        let wired = Rc::new(Wired::default());
        wired.room.set(room);
        (self.shard.open(FakeSocket(Rc::clone(&wired)), wire), wired)
    }

    fn join(&mut self, connection: ConnectionId, target: &str, overflow: Overflow) {
        let terms = Terms { policy: Policy::All, overflow: Some(overflow) };
        let joiner = Joiner { connection, terms };
        match Target::parse(target).expect("valid") {
            Target::Topic(topic) => {
                self.shard.join_topic(joiner, &topic, &Ask::default()).expect("joined");
            }
            Target::Filter(filter) => {
                self.shard.join_filter(joiner, &filter, || Ok(vec![])).expect("joined");
            }
        }
    }

    fn publish(&self, topic: &str, count: usize) {
        for _ in 0..count {
            let name = TopicName::parse(topic).expect("valid name");
            let draft = Draft::new(name, Payload::Text("x".repeat(50).into()));
            self.registry.commit(draft, self.shard.now()).expect("committed");
        }
    }

    fn run(&mut self) {
        // The second round is what the mailbox's wake-up would bring.
        for _ in 0..2 {
            while self.shard.turn() == Progress::More {}
        }
    }

    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.shard.tick();
        }
    }
}

pub(super) const WIDE: usize = usize::MAX;

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn a_connection_gets_a_message_once_however_many_of_its_subscriptions_match() {
    let mut bench = Bench::new(ShardOptions::default());
    let (connection, wired) = bench.open(WIDE);
    for target in ["a.b", "a.*", "a.>", ">"] {
        bench.join(connection, target, Overflow::Gap);
    }
    bench.publish("a.b", 3);
    bench.run();
    assert_eq!(wired.story(), numbers(1..=3));
}

#[test]
fn what_is_posted_together_leaves_in_one_write_and_is_encoded_once() {
    let mut bench = Bench::new(ShardOptions::default());
    let wires: Vec<_> = (0..1000)
        .map(|_| {
            let (connection, wired) = bench.open(WIDE);
            bench.join(connection, "t", Overflow::Gap);
            wired
        })
        .collect();
    bench.publish("t", 10);
    bench.run();
    for wired in &wires {
        assert_eq!(wired.writes.get(), 1);
        assert_eq!(wired.story(), numbers(1..=10));
    }
    let counters = bench.shard.counters();
    assert_eq!(counters.encodes.of(Wire::WebSocketJson).get(), 10);
    assert_eq!((counters.deliveries.get(), counters.writes.get()), (10_000, 1_000));
}

#[test]
fn a_filter_tells_where_each_topic_stands_before_its_first_message() {
    let mut bench = Bench::new(ShardOptions::default());
    bench.publish("a.old", 5);
    let (connection, wired) = bench.open(WIDE);
    bench.join(connection, "a.*", Overflow::Gap);
    bench.publish("a.old", 2);
    bench.publish("a.new", 1);
    bench.run();
    bench.publish("a.new", 1);
    bench.run();
    assert_eq!(wired.story(), ["position 5", "6", "7", "position 0", "1", "2"]);
}

#[test]
fn a_reader_that_stops_is_told_one_gap_and_hurts_nobody() {
    let mut bench =
        Bench::new(ShardOptions { outbound_bytes_max: 1_000, ..ShardOptions::default() });
    let (slow, slow_wired) = bench.open(300);
    let (healthy, healthy_wired) = bench.open(WIDE);
    bench.join(slow, "t", Overflow::Gap);
    bench.join(healthy, "t", Overflow::Gap);
    for _ in 0..20 {
        bench.publish("t", 5);
        bench.run();
    }
    assert_eq!(healthy_wired.story(), numbers(1..=100));
    let counters = bench.shard.counters();
    assert!(counters.outbound_bytes.get() <= 1_000);
    assert_eq!(counters.blocked.get(), 1);

    slow_wired.room.set(WIDE);
    bench.shard.flush(slow);
    let dropped = bench.shard.counters().dropped.get();
    assert!(dropped > 0);
    bench.publish("t", 1);
    bench.run();
    let last = 100 - dropped;
    let mut expected = numbers(1..=last);
    expected.extend([format!("gap {}-100", last + 1), "position 100".into(), "101".into()]);
    assert_eq!(slow_wired.story(), expected);
    let counters = bench.shard.counters();
    assert_eq!((counters.gaps.get(), counters.blocked.get()), (1, 0));
    assert_eq!(counters.outbound_bytes.get(), 0);
}

#[test]
fn a_gap_is_told_even_if_nothing_follows_it() {
    let mut bench = Bench::new(ShardOptions { outbound_bytes_max: 200, ..ShardOptions::default() });
    let (slow, wired) = bench.open(0);
    bench.join(slow, "t", Overflow::Gap);
    bench.publish("t", 10);
    bench.run();
    wired.room.set(WIDE);
    bench.shard.flush(slow);
    assert_eq!(wired.story().last().map(String::as_str), Some("position 10"));
}

#[test]
fn a_reader_that_asked_for_it_is_closed_instead() {
    let mut bench = Bench::new(ShardOptions { outbound_bytes_max: 200, ..ShardOptions::default() });
    let (slow, wired) = bench.open(130);
    bench.join(slow, "t", Overflow::Disconnect);
    bench.publish("t", 10);
    bench.run();
    assert!(!bench.shard.is_open(slow));
    wired.room.set(WIDE);
    bench.shard.flush(slow);
    // The frame that was begun is finished first, or the close could not be understood.
    assert_eq!(wired.story(), ["1", "2", "close 4408"]);
    assert!(wired.shut.get());
}

#[test]
fn a_socket_that_takes_nothing_is_closed_and_then_cut() {
    let mut bench = Bench::new(ShardOptions::default());
    let (slow, wired) = bench.open(0);
    bench.join(slow, "t", Overflow::Gap);
    bench.publish("t", 1);
    bench.run();
    bench.pass(9);
    assert!(bench.shard.is_open(slow));
    bench.pass(1);
    assert!(!bench.shard.is_open(slow));
    assert!(!wired.aborted.get());
    bench.pass(2);
    assert!(wired.aborted.get());
    assert_eq!(bench.shard.counters().closes.of(Reason::SlowConsumer).get(), 1);
}

#[test]
fn a_socket_that_takes_a_little_all_the_time_is_not_closed() {
    let mut bench = Bench::new(ShardOptions::default());
    let (slow, wired) = bench.open(0);
    bench.join(slow, "t", Overflow::Gap);
    bench.publish("t", 100);
    bench.run();
    for _ in 0..60 {
        wired.room.set(10);
        bench.shard.flush(slow);
        bench.shard.heard(slow, 1);
        bench.pass(1);
    }
    assert!(bench.shard.is_open(slow));
}

#[test]
fn silence_is_pinged_and_then_closed() {
    let options = ShardOptions {
        ping_interval: Duration::from_secs(5),
        pong_timeout: Duration::from_secs(3),
        ..ShardOptions::default()
    };
    let mut bench = Bench::new(options);
    let (silent, silent_wired) = bench.open(WIDE);
    let (answering, answering_wired) = bench.open(WIDE);
    bench.pass(5);
    assert_eq!(silent_wired.frames(), ["ping", r#"{"ping":{}}"#]);
    bench.shard.heard(answering, 6);
    bench.pass(3);
    assert_eq!(silent_wired.frames().last().map(String::as_str), Some("close 4410"));
    assert!(!bench.shard.is_open(silent) && bench.shard.is_open(answering));
    bench.pass(2);
    assert_eq!(answering_wired.frames(), ["ping", r#"{"ping":{}}"#].repeat(2));
}

#[test]
fn nothing_of_a_topic_arrives_after_it_was_left() {
    let mut bench = Bench::new(ShardOptions::default());
    let (connection, wired) = bench.open(WIDE);
    bench.join(connection, "t", Overflow::Gap);
    bench.publish("t", 2);
    let target = Target::parse("t").expect("valid");
    bench.shard.leave(connection, &target).expect("subscribed");
    assert_eq!(bench.shard.leave(connection, &target), Err(Reason::NotSubscribed));
    bench.run();
    assert_eq!(wired.story(), [""; 0]);
    bench.join(connection, "t", Overflow::Gap);
    bench.publish("t", 1);
    bench.run();
    assert_eq!(wired.story(), ["3"]);
}

#[test]
fn those_who_joined_before_get_what_a_later_join_finds_in_the_mailbox() {
    let mut bench = Bench::new(ShardOptions::default());
    let (early, early_wired) = bench.open(WIDE);
    let (late, late_wired) = bench.open(WIDE);
    bench.join(early, "t", Overflow::Gap);
    bench.publish("t", 3);
    // Nothing has been delivered yet.
    bench.join(late, "t", Overflow::Gap);
    bench.publish("t", 1);
    bench.run();
    assert_eq!(early_wired.story(), numbers(1..=4));
    assert_eq!(late_wired.story(), ["4"]);
}

#[test]
fn a_snapshot_over_a_filter_splits_what_is_underway_at_its_seams() {
    let mut bench = Bench::new(ShardOptions::default());
    let (early, early_wired) = bench.open(WIDE);
    bench.join(early, ">", Overflow::Gap);
    bench.publish("a", 2);
    bench.publish("b", 1);
    let (late, late_wired) = bench.open(WIDE);
    let ask = |name| FilterAsk {
        topic: TopicName::parse(name).expect("valid name"),
        ask: Ask { last: 1, ..Ask::default() },
    };
    let joiner = Joiner { connection: late, terms: Terms::default() };
    let filter = TopicFilter::parse("*").expect("valid filter");
    let registry = Arc::clone(&bench.registry);
    let newborn = || {
        // Published by another thread while the topics are looked through.
        let name = TopicName::parse("newborn").expect("valid name");
        let draft = Draft::new(name, Payload::Text("x".into()));
        registry.commit(draft, Now::at_ms(0)).expect("committed");
        Ok(vec![ask("a"), ask("b"), ask("nobody")])
    };
    let seams = bench.shard.join_filter(joiner, &filter, newborn).expect("joined");
    let tops: Vec<_> = seams.iter().map(|seam| seam.as_ref().map(|seam| seam.top.0)).collect();
    assert_eq!(tops, [Some(2), Some(1), None]);
    bench.publish("a", 1);
    bench.run();
    assert_eq!(late_wired.story(), ["position 0", "1", "position 2", "3"]);
    let early = ["position 0", "1", "2", "position 0", "1", "position 0", "1", "3"];
    assert_eq!(early_wired.story(), early);
}

#[test]
fn a_slot_that_is_used_again_is_another_connection() {
    let mut bench = Bench::new(ShardOptions::default());
    let (old, old_wired) = bench.open(WIDE);
    bench.join(old, "t", Overflow::Gap);
    bench.shard.remove(old);
    assert!(old_wired.aborted.get());
    let (new, new_wired) = bench.open(WIDE);
    assert_ne!(old, new);
    bench.join(new, "t", Overflow::Gap);
    bench.shard.push(old, bytes::Bytes::from_static(b"for nobody"));
    bench.shard.close(old, &Reason::GoingAway.into());
    bench.publish("t", 1);
    bench.run();
    assert_eq!(new_wired.story(), ["1"]);
    assert!(bench.shard.is_open(new));
}

#[test]
fn when_everybody_has_left_nothing_is_left() {
    let mut bench = Bench::new(ShardOptions::default());
    let ids: Vec<_> = (0..50)
        .map(|number| {
            let (connection, _) = bench.open(number * 40);
            for target in ["t", "t.*", ">"] {
                bench.join(connection, target, Overflow::Gap);
            }
            connection
        })
        .collect();
    bench.publish("t", 20);
    bench.publish("t.u", 20);
    bench.run();
    for connection in ids {
        bench.shard.remove(connection);
    }
    bench.pass(61);
    let counters = bench.shard.counters();
    assert_eq!(bench.shard.connection_count(), 0);
    assert_eq!(counters.connections.of(Wire::WebSocketJson).get(), 0);
    assert_eq!(counters.topic_subscriptions.get() + counters.filter_subscriptions.get(), 0);
    assert_eq!((counters.outbound_bytes.get(), counters.blocked.get()), (0, 0));
    assert_eq!(counters.local_topics.get(), 0);
}
