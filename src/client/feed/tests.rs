//! What a subscription makes of what a server says: told step by step, and over random histories.

use super::*;
use crate::client::Payload;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::task::{Context, Poll, Waker};

fn epoch(number: u128) -> Epoch {
    Epoch::from_bits(number)
}

fn at(number: u128, offset: u64) -> Position {
    Position { epoch: epoch(number), offset: Offset(offset) }
}

fn name(topic: &str) -> TopicName {
    TopicName::parse(topic).expect("a name")
}

fn spell(at: Position) -> schema::Position {
    schema::Position { epoch: at.epoch.to_string(), offset: at.offset.0 }
}

fn message(topic: &str, offset: u64) -> Message {
    let payload = Some(Payload::Text(offset.to_string()));
    Message { topic: name(topic), offset, epoch: None, time_ms: 1, key: String::new(), payload }
}

fn feed(target: &str, asked: Asked) -> Feed {
    let target = Target::parse(target).expect("a target");
    Feed::new(target, asked, Lane::new(1_000_000), oneshot::channel().0)
}

/// A subscription to the topic `t` that is live after a position.
fn live(asked: Asked, position: Position) -> Feed {
    let mut feed = feed("t", asked);
    feed.command();
    let answer = schema::Subscribed { position: Some(spell(position)), ..Default::default() };
    feed.subscribed(&answer).expect("understood");
    events(&mut feed);
    feed
}

/// What it has told since the last time.
fn events(feed: &mut Feed) -> Vec<Event> {
    let mut events = Vec::new();
    let context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(event))) = feed.lane.poll(&context) {
        events.push(event);
    }
    events
}

/// The same in short: offsets, gaps and losses.
fn told(feed: &mut Feed) -> Vec<String> {
    let short = |event| match event {
        Event::Message(message) => Some(message.offset.to_string()),
        Event::Gap(Gap { from, to, reason, .. }) => Some(format!("{from}-{to} {}", reason.name())),
        Event::Recovered(Recovery { topic, loss, .. }) => {
            Some(format!("{topic} {}", loss.map_or("recovered", Loss::name)))
        }
        _ => None,
    };
    events(feed).into_iter().filter_map(short).collect()
}

fn hear(feed: &mut Feed, offsets: &[u64]) {
    for offset in offsets {
        let dense = feed.dense();
        feed.take(&message("t", *offset), None, dense);
    }
}

#[test]
fn a_double_is_told_once_and_a_hole_is_told_as_lost() {
    let mut feed = live(Asked::default(), at(1, 4));
    hear(&mut feed, &[5, 5, 6, 4, 9, 7, 10]);
    assert_eq!(told(&mut feed), ["5", "6", "7-8 lost", "9", "10"]);
}

#[test]
fn a_hole_is_no_loss_where_messages_may_be_passed_over() {
    let latest = Wish { policy: Some(Policy::Latest), overflow: None };
    let mut feed = feed("t", Asked { terms: latest, ..Asked::default() });
    feed.command();
    let mut answer = schema::Subscribed { position: Some(spell(at(1, 0))), ..Default::default() };
    answer.policy = schema::Policy::Latest.into();
    feed.subscribed(&answer).expect("understood");
    hear(&mut feed, &[2, 7]);
    assert_eq!(told(&mut feed), ["2", "7"]);
}

#[test]
fn a_gap_that_is_told_is_no_loss_and_what_was_seen_is_no_part_of_it() {
    let mut feed = live(Asked::default(), at(1, 0));
    hear(&mut feed, &[1, 2]);
    let reason = GapReason::Slow;
    let dense = feed.dense();
    feed.gap(&Gap { topic: name("t"), from: 2, to: 6, count: 5, reason }, dense);
    hear(&mut feed, &[7]);
    assert_eq!(told(&mut feed), ["1", "2", "3-6 slow", "7"]);
}

#[test]
fn a_resume_begins_after_the_last_message_and_is_told_as_the_server_says() {
    let mut feed = live(Asked::default(), at(1, 0));
    hear(&mut feed, &[1, 2, 3]);
    feed.lost();
    assert_eq!(feed.command().since, Some(spell(at(1, 3))));
    let mut answer = schema::Subscribed { position: Some(spell(at(1, 5))), ..Default::default() };
    answer.recovered = Some(true);
    feed.subscribed(&answer).expect("understood");
    hear(&mut feed, &[4, 5, 6]);
    assert_eq!(told(&mut feed), ["1", "2", "3", "t recovered", "4", "5", "6"]);
    feed.lost();
    feed.command();
    answer.recovered = Some(false);
    answer.reason = schema::RecoveryFailure::Trimmed.into();
    answer.position = Some(spell(at(1, 50)));
    feed.subscribed(&answer).expect("understood");
    hear(&mut feed, &[51]);
    assert_eq!(told(&mut feed), ["t trimmed", "51"]);
}

#[test]
fn a_server_that_says_yes_to_another_life_of_a_topic_is_not_believed() {
    for position in [at(2, 9), at(1, 2)] {
        let mut feed = live(Asked::default(), at(1, 3));
        feed.lost();
        feed.command();
        let mut answer = schema::Subscribed::default();
        (answer.position, answer.recovered) = (Some(spell(position)), Some(true));
        feed.subscribed(&answer).expect("understood");
        assert_eq!(told(&mut feed), ["t epochChanged"], "{position:?}");
        hear(&mut feed, &[position.offset.0 + 1]);
        assert_eq!(told(&mut feed), [(position.offset.0 + 1).to_string()]);
    }
}

#[test]
fn a_filter_resumes_each_topic_and_tells_of_those_that_turn_up_after_a_loss() {
    let mut feed = feed("r.*", Asked::default());
    feed.command();
    feed.subscribed(&schema::Subscribed::default()).expect("understood");
    feed.place(&name("r.a"), at(1, 4));
    feed.take(&message("r.a", 5), None, None);
    feed.place(&name("r.b"), at(2, 0));
    feed.take(&message("r.b", 1), None, None);
    feed.lost();
    let asked: BTreeSet<_> = feed.command().positions.into_iter().map(|at| at.topic).collect();
    assert_eq!(asked, BTreeSet::from(["r.a".to_owned(), "r.b".to_owned()]));
    let outcome = |topic: &str, position, recovered, reason: schema::RecoveryFailure| {
        let position = Some(spell(position));
        schema::TopicRecovery { topic: topic.into(), position, recovered, reason: reason.into() }
    };
    let topics = vec![
        outcome("r.a", at(1, 5), true, schema::RecoveryFailure::Unspecified),
        outcome("r.b", at(3, 0), false, schema::RecoveryFailure::EpochChanged),
    ];
    feed.subscribed(&schema::Subscribed { topics, ..Default::default() }).expect("understood");
    feed.place(&name("r.c"), at(4, 7));
    feed.take(&message("r.c", 8), None, None);
    feed.place(&name("r.d"), at(5, 0));
    let expected = ["5", "1", "r.a recovered", "r.b epochChanged", "r.c noPosition", "8"];
    assert_eq!(told(&mut feed), expected, "r.d has begun only now");
}

#[test]
fn a_snapshot_that_was_cut_off_is_told_as_lost() {
    let asked = Asked { snapshot: true, ..Asked::default() };
    let mut feed = feed("r.*", asked);
    feed.command();
    feed.subscribed(&schema::Subscribed::default()).expect("understood");
    feed.take(&message("r.a", 5), None, None);
    feed.lost();
    assert!(feed.command().positions.is_empty(), "its epoch is not known");
    feed.subscribed(&schema::Subscribed::default()).expect("understood");
    assert_eq!(told(&mut feed), ["5", "r.* noPosition"]);
    feed.take(&message("r.a", 5), None, None);
    feed.snapshot_end(&[(name("r.a"), at(1, 5))]);
    assert_eq!(told(&mut feed), ["5"]);
    feed.lost();
    assert_eq!(feed.command().positions.len(), 1);
}

#[test]
fn positions_that_the_server_does_not_take_are_given_up() {
    let mut feed = live(Asked::default(), at(1, 3));
    feed.lost();
    feed.command();
    let error = Error::reason(&Reason::BadPosition.into());
    assert!(feed.forget(&error), "another try makes sense");
    assert_eq!(feed.command().since, None);
    assert!(!feed.forget(&error), "there is nothing left to give up");
}

#[test]
fn what_was_not_taken_is_not_processed() {
    let mut feed = live(Asked::default(), at(1, 0));
    hear(&mut feed, &[1, 2, 3]);
    let context = Context::from_waker(Waker::noop());
    assert_eq!(feed.processed(), [(name("t"), at(1, 0))]);
    assert!(feed.lane.poll(&context).is_ready());
    assert_eq!(feed.processed(), [(name("t"), at(1, 1))]);
    events(&mut feed);
    assert_eq!(feed.processed(), [(name("t"), at(1, 3))]);
}

#[test]
fn topics_of_a_filter_are_followed_up_to_a_bound() {
    let mut feed = feed("r.*", Asked::default());
    feed.command();
    feed.subscribed(&schema::Subscribed::default()).expect("understood");
    for number in 0..=PLACES_MAX {
        feed.place(&name(&format!("r.{number}")), at(1, 0));
    }
    assert!(feed.places.len() <= PLACES_MAX);
    assert!(feed.places.contains_key(&name(&format!("r.{PLACES_MAX}"))));
    feed.lost();
    assert!(feed.command().positions.len() <= POSITIONS_MAX);
    feed.subscribed(&schema::Subscribed::default()).expect("understood");
    assert_eq!(told(&mut feed)[0], "r.* tooMany");
}

/// One step of what may happen to a topic and to the connection.
#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Cut,
    /// The history gives up its oldest.
    Trim,
    Restart,
    /// The server repeats its last message.
    Repeat,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..5_u8).prop_map(Step::Publish),
        3 => Just(Step::Cut),
        1 => Just(Step::Trim),
        1 => Just(Step::Restart),
        2 => Just(Step::Repeat),
    ];
    prop::collection::vec(step, 1..60)
}

/// A topic of a server that keeps its word.
struct Log {
    epoch: u128,
    top: u64,
    /// The history begins after it.
    floor: u64,
    /// Up to it, the connection has been sent everything.
    sent: u64,
}

impl Log {
    fn resume(&mut self, command: &schema::Subscribe) -> schema::Subscribed {
        let since = command.since.clone().expect("a topic that was live has a position");
        let reason = if since.epoch != epoch(self.epoch).to_string() || since.offset > self.top {
            schema::RecoveryFailure::EpochChanged
        } else if since.offset < self.floor {
            schema::RecoveryFailure::Trimmed
        } else {
            schema::RecoveryFailure::Unspecified
        };
        let recovered = reason == schema::RecoveryFailure::Unspecified;
        self.sent = if recovered { since.offset } else { self.top };
        schema::Subscribed {
            position: Some(spell(at(self.epoch, self.top))),
            recovered: Some(recovered),
            reason: reason.into(),
            ..Default::default()
        }
    }

    fn send(&mut self, feed: &mut Feed) {
        let missing: Vec<u64> = (self.sent + 1..=self.top).collect();
        hear(feed, &missing);
        self.sent = self.top;
    }
}

proptest! {
    /// Whatever happens: within an epoch offsets rise by one, and a hole is told by a loss before it.
    #[test]
    fn nothing_is_lost_doubled_or_swapped_without_a_word(steps in steps(), online in any::<bool>()) {
        let mut log = Log { epoch: 1, top: 0, floor: 0, sent: 0 };
        let mut feed = live(Asked::default(), at(1, 0));
        for step in steps {
            match step {
                Step::Publish(count) => {
                    log.top += u64::from(count);
                    log.send(&mut feed);
                }
                Step::Cut => {
                    feed.lost();
                    // Some of it while nobody listens.
                    log.top += u64::from(online);
                    let answer = log.resume(&feed.command());
                    feed.subscribed(&answer).expect("understood");
                    log.send(&mut feed);
                }
                Step::Trim => log.floor = log.top,
                Step::Restart => {
                    feed.lost();
                    log = Log { epoch: log.epoch + 1, top: 0, floor: 0, sent: 0 };
                    let answer = log.resume(&feed.command());
                    feed.subscribed(&answer).expect("understood");
                }
                Step::Repeat => hear(&mut feed, &[log.top.max(1)][..usize::from(log.top > 0)]),
            }
        }
        let (mut seen, mut is_known) = (0, true);
        for event in events(&mut feed) {
            match event {
                Event::Message(message) => {
                    prop_assert!(message.epoch.is_some());
                    prop_assert!(!is_known || message.offset == seen + 1, "{} after {seen}", message.offset);
                    (seen, is_known) = (message.offset, true);
                }
                Event::Recovered(recovery) if recovery.loss.is_some() => is_known = false,
                Event::Gap(gap) => prop_assert!(false, "{gap:?}"),
                _ => {}
            }
        }
        prop_assert!(!is_known || seen == log.top, "it stands at {seen}, the topic at {}", log.top);
    }
}
