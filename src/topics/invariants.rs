//! Tests of the folder's invariants, with publishing threads where they matter.

use super::history::HistoryOptions;
use super::idempotency::IdempotencyOptions;
use super::mailbox::{Inbox, Mailbox, MailboxOptions};
use super::message::{Draft, Offset, Payload, Position};
use super::name::{TopicFilter, TopicName};
use super::registry::{Registry, RegistryOptions};
use super::rule::{Rule, Rules};
use super::topic::{Ask, ResumeOptions, ShardId};
use crate::clock::Now;
use crate::reason::Reason;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const NOW: Now = Now::at_ms(1_000);

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("valid name")
}

fn draft(name: &str, text: &str) -> Draft {
    let payload = Payload::Text(text.to_owned().into());
    Draft::new(topic(name), payload)
}

fn keyed(name: &str, text: &str, key: &str) -> Draft {
    Draft { idempotency_key: Some(key.into()), ..draft(name, text) }
}

fn registry(options: RegistryOptions, mailbox: MailboxOptions, shards: usize) -> Registry {
    let mailboxes = (0..shards).map(|_| Arc::new(Mailbox::new(mailbox, || {}))).collect();
    let next = AtomicU64::new(1);
    let epochs = move || Some(u128::from(next.fetch_add(1, Ordering::Relaxed)));
    Registry::new(options, mailboxes, Box::new(epochs))
}

fn small(messages: usize) -> RegistryOptions {
    let history = HistoryOptions { messages, bytes: 1 << 30, ..HistoryOptions::default() };
    ruled(Rule { history, ..Rule::default() })
}

fn ruled(rule: Rule) -> RegistryOptions {
    let rules = Rules { other: Arc::new(rule), ..Rules::default() };
    RegistryOptions { rules, ..RegistryOptions::default() }
}

fn inbox(shard: usize) -> Inbox {
    Inbox { shard: ShardId::new(shard).expect("a shard"), queue: VecDeque::new() }
}

fn live() -> Ask {
    Ask::default()
}

fn since(position: Position) -> Ask {
    Ask { since: Some(position), ..Ask::default() }
}

fn offsets<'a>(messages: impl IntoIterator<Item = &'a Arc<super::message::Message>>) -> Vec<u64> {
    messages.into_iter().map(|message| message.offset.0).collect()
}

#[test]
fn offset_order_is_mailbox_order_on_every_shard_under_four_publishing_threads() {
    let registry = registry(small(10), MailboxOptions::default(), 2);
    let mut inboxes = [inbox(0), inbox(1)];
    for name in ["a", "b"] {
        for inbox in &mut inboxes {
            registry.join(&topic(name), &live(), inbox, NOW).expect("joined");
        }
    }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..2_000 {
                    let name = if number % 3 == 0 { "a" } else { "b" };
                    registry.commit(draft(name, "x"), NOW).expect("committed");
                }
            });
        }
    });
    for mut inbox in inboxes {
        registry.collect(&mut inbox);
        let mut tops: HashMap<TopicName, u64> = HashMap::new();
        for message in &inbox.queue {
            let top = tops.entry(message.head.name.clone()).or_default();
            assert_eq!(message.offset.0, *top + 1, "{}", message.head.name);
            *top = message.offset.0;
        }
        assert_eq!(tops.values().sum::<u64>(), 8_000);
    }
}

#[test]
fn a_full_mailbox_refuses_the_publisher_and_no_shard_gets_the_message() {
    let options = MailboxOptions { messages_max: 3, ..MailboxOptions::default() };
    let registry = registry(small(10), options, 2);
    let (mut first, mut second) = (inbox(0), inbox(1));
    registry.join(&topic("t"), &live(), &mut first, NOW).expect("joined");
    registry.join(&topic("t"), &live(), &mut second, NOW).expect("joined");
    registry.join(&topic("only.second"), &live(), &mut second, NOW).expect("joined");
    registry.commit(draft("t", "1"), NOW).expect("room");
    for _ in 0..2 {
        registry.commit(draft("only.second", "x"), NOW).expect("room");
    }
    assert_eq!(registry.commit(draft("t", "refused"), NOW), Err(Reason::Overloaded));
    registry.collect(&mut first);
    registry.collect(&mut second);
    assert_eq!(offsets(&first.queue), [1]);
    assert_eq!(second.queue.len(), 3);
    let next = registry.commit(draft("t", "2"), NOW).expect("room again");
    assert_eq!(next.offset, Offset(2), "the refused message has no place");
    registry.collect(&mut first);
    assert_eq!(offsets(&first.queue), [1, 2]);
    let page = registry.history(&topic("t"), None, 10, NOW).expect("held").expect("a topic");
    assert_eq!(offsets(&page.messages), [1, 2]);
}

#[test]
fn a_late_joiner_gets_past_and_present_without_gap_or_double() {
    let registry = registry(small(100_000), MailboxOptions::default(), 1);
    let done = AtomicBool::new(false);
    let first = registry.commit(draft("t", "x"), NOW).expect("committed");
    let room = ResumeOptions { messages_max: usize::MAX, bytes_max: usize::MAX };
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                registry.commit(draft("t", "x"), NOW).expect("committed");
            }
            done.store(true, Ordering::Release);
        });
        let mut joins = 0;
        while !done.load(Ordering::Acquire) || joins == 0 {
            let mut inbox = inbox(0);
            let ask = Ask { room, ..since(first) };
            let seam = registry.join(&topic("t"), &ask, &mut inbox, NOW).expect("joined");
            assert_eq!(seam.recovery, Some(Ok(())));
            assert_eq!(offsets(&seam.replay), (2..=seam.top.0).collect::<Vec<_>>());
            assert!(inbox.queue.iter().all(|message| message.offset <= seam.top));
            inbox.queue.clear();
            registry.collect(&mut inbox);
            let live = offsets(&inbox.queue);
            assert_eq!(live, (seam.top.0 + 1..).take(live.len()).collect::<Vec<_>>());
            joins += 1;
        }
    });
}

#[test]
fn a_topic_that_begins_anew_has_another_epoch_and_refuses_the_old_one() {
    let registry = registry(small(0), MailboxOptions::default(), 1);
    let old = registry.commit(draft("t", "x"), NOW).expect("committed");
    assert_eq!(registry.sweep(Now::at_ms(60_999)), 0);
    assert_eq!(registry.sweep(Now::at_ms(61_000)), 1);
    assert_eq!(registry.topic_count(), 0);
    let new = registry.commit(draft("t", "y"), NOW).expect("committed");
    assert_eq!(new.offset, old.offset);
    assert_ne!(new.epoch, old.epoch);
    let seam = registry.join(&topic("t"), &since(old), &mut inbox(0), NOW).expect("joined");
    assert_eq!((seam.recovery, seam.replay.len()), (Some(Err(Reason::EpochChanged)), 0));
    assert_eq!(registry.history(&topic("t"), Some(old), 1, NOW).err(), Some(Reason::EpochChanged));
}

#[test]
fn a_position_that_was_never_given_is_of_another_epoch() {
    let registry = registry(small(10), MailboxOptions::default(), 1);
    let position = registry.commit(draft("t", "x"), NOW).expect("committed");
    let future = Position { offset: Offset(2), ..position };
    let seam = registry.join(&topic("t"), &since(future), &mut inbox(0), NOW).expect("joined");
    assert_eq!(seam.recovery, Some(Err(Reason::EpochChanged)));
}

#[test]
fn a_topic_with_subscribers_history_or_answers_is_not_forgotten() {
    let history = HistoryOptions { age: Duration::from_mins(5), ..HistoryOptions::default() };
    let registry =
        registry(ruled(Rule { history, ..Rule::default() }), MailboxOptions::default(), 1);
    registry.commit(draft("held", "x"), NOW).expect("committed");
    registry.join(&topic("joined"), &live(), &mut inbox(0), NOW).expect("joined");
    registry.commit(keyed("answered", "x", "k"), NOW).expect("committed");
    assert_eq!(registry.sweep(Now::at_ms(200_000)), 0);
    // History and answers end after five minutes; the subscriber stays.
    assert_eq!(registry.sweep(Now::at_ms(302_000)), 2);
    registry.leave(&topic("joined"), inbox(0).shard, Now::at_ms(302_000));
    assert_eq!(registry.sweep(Now::at_ms(302_000)), 0, "it was just left");
    assert_eq!(registry.sweep(Now::at_ms(362_000)), 1);
}

#[test]
fn topics_are_bounded() {
    let options = RegistryOptions { topics_max: 2, ..small(10) };
    let registry = registry(options, MailboxOptions::default(), 1);
    registry.commit(draft("a", "x"), NOW).expect("committed");
    registry.commit(draft("b", "x"), NOW).expect("committed");
    assert_eq!(registry.commit(draft("c", "x"), NOW), Err(Reason::TooManyTopics));
    let joined = registry.join(&topic("c"), &live(), &mut inbox(0), NOW);
    assert_eq!(joined.err(), Some(Reason::TooManyTopics));
    registry.commit(draft("a", "y"), NOW).expect("those that are there go on");
}

#[test]
fn the_same_key_gives_the_same_answer_and_one_message() {
    let idempotency = IdempotencyOptions { window: Duration::from_secs(10), keys_max: 100 };
    let options = RegistryOptions { idempotency, ..small(10) };
    let registry = registry(options, MailboxOptions::default(), 1);
    let first = registry.commit(keyed("t", "x", "k"), NOW);
    assert_eq!(registry.commit(keyed("t", "x", "k"), NOW), first);
    assert_eq!(registry.commit(keyed("t", "y", "k"), NOW), Err(Reason::IdempotencyMismatch));
    let page = registry.history(&topic("t"), None, 10, NOW).expect("held").expect("a topic");
    assert_eq!(offsets(&page.messages), [1]);
    let later = Now::at_ms(11_000);
    let second = registry.commit(keyed("t", "y", "k"), later).expect("the window is over");
    assert_eq!(second.offset, Offset(2));
}

#[test]
fn a_filter_brings_topics_that_exist_and_topics_to_come() {
    let registry = registry(small(10), MailboxOptions::default(), 2);
    registry.commit(draft("a.old", "x"), NOW).expect("committed");
    let filter = TopicFilter::parse("a.*").expect("valid filter");
    let mut inbox = inbox(1);
    registry.join_filter(&filter, inbox.shard);
    for name in ["a.old", "a.new", "b.new"] {
        registry.commit(draft(name, "x"), NOW).expect("committed");
    }
    registry.collect(&mut inbox);
    let names: Vec<&str> = inbox.queue.iter().map(|m| m.head.name.as_str()).collect();
    assert_eq!(names, ["a.old", "a.new"]);
    registry.leave_filter(&filter, inbox.shard);
    registry.commit(draft("a.old", "x"), NOW).expect("committed");
    registry.collect(&mut inbox);
    assert_eq!(inbox.queue.len(), 2);
}

#[test]
fn a_resume_is_whole_or_refused() {
    let registry = registry(small(5), MailboxOptions::default(), 1);
    let positions: Vec<Position> =
        (0..10).map(|_| registry.commit(draft("t", "xx"), NOW).expect("committed")).collect();
    let resume = |index: usize, room: ResumeOptions| {
        let ask = Ask { room, ..since(positions[index]) };
        let seam = registry.join(&topic("t"), &ask, &mut inbox(0), NOW).expect("joined");
        (seam.recovery.expect("asked"), offsets(&seam.replay))
    };
    let all = ResumeOptions::default();
    assert_eq!(resume(4, all), (Ok(()), vec![6, 7, 8, 9, 10]));
    assert_eq!(resume(9, all), (Ok(()), vec![]));
    assert_eq!(resume(3, all), (Err(Reason::Trimmed), vec![]));
    let few = ResumeOptions { messages_max: 3, ..all };
    assert_eq!(resume(5, few), (Err(Reason::TooMany), vec![]));
    assert_eq!(resume(6, few), (Ok(()), vec![8, 9, 10]));
    let tight = ResumeOptions { bytes_max: 5, ..all };
    assert_eq!(resume(6, tight), (Err(Reason::TooMany), vec![]));
    assert_eq!(resume(7, tight), (Ok(()), vec![9, 10]));
}

#[test]
fn pages_of_history_follow_each_other() {
    let registry = registry(small(10), MailboxOptions::default(), 1);
    let first = registry.commit(draft("t", "x"), NOW).expect("committed");
    for _ in 1..7 {
        registry.commit(draft("t", "x"), NOW).expect("committed");
    }
    let mut seen = Vec::new();
    let mut position = Position { offset: Offset(0), ..first };
    loop {
        let page =
            registry.history(&topic("t"), Some(position), 3, NOW).expect("held").expect("there");
        seen.extend(offsets(&page.messages));
        assert_eq!(page.top.offset, Offset(7));
        if !page.more {
            break;
        }
        position.offset = page.messages.last().expect("a page that goes on holds something").offset;
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    let latest = registry.history(&topic("t"), None, 2, NOW).expect("held").expect("there");
    assert_eq!((offsets(&latest.messages), latest.more), (vec![6, 7], false));
    assert!(registry.history(&topic("nobody"), None, 2, NOW).expect("no error").is_none());
}
