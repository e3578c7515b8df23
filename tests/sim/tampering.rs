//! The checker finds lies: real histories, each with one record dropped, repeated, moved or
//! altered, must be refused for the right reason.
//! # Not here: bugs in the broker itself (`planted`).

mod delivery;

use crate::checker::Invariant::{
    Ack, Agreement, Bound, Conflation, Dense, Epoch, Expiry, Fifo, Frame, Gap, Idempotence, Leak,
    Liveness, Order, Presence, Rate, Reply, Seam, Stale, Uninvited,
};
use crate::checker::{Invariant, check};
use crate::history::{
    Command, Event, Fact, Message, Policy, Position, Publish, Record, TopicPosition, from_lines,
    to_lines,
};
use crate::world::{Trace, run};
use delivery::{
    alter_terms, drop_delete, drop_fresh, drop_last_of_key, drop_left, hasten, hold_more,
    join_twice, send_late, stale_twice,
};

/// Alters a history, if there is anything in it that can be altered so.
type Tamper = fn(&mut Vec<Record>) -> Option<()>;

/// Seeds in whose histories something to alter is looked for, and those in which it is in any case.
const SEEDS_MAX: u64 = 400;
const SEEDS_MIN: u64 = 60;

/// Altered histories that must be refused, of each kind.
const CASES: usize = 3;

/// Every kind of lie, and what it may be taken for.
const KINDS: [(&str, Tamper, &[Invariant]); 36] = [
    ("a message is left out", |h| drop_message(h, Past::Live), &[Gap, Seam, Ack]),
    ("a replayed message is left out", |h| drop_message(h, Past::Replayed), &[Seam]),
    ("a message comes twice", message_twice, &[Order]),
    ("two messages are exchanged", |h| exchange_messages(h), &[Gap, Seam, Order, Ack]),
    ("a message says something else", |h| alter_content(h), &[Agreement]),
    ("a message has another time", |h| alter_time(h), &[Agreement]),
    ("a message has another place", |h| alter_offset(h), &[Gap, Seam, Order, Dense, Agreement]),
    ("a message comes after the unsubscribe", message_after_unsubscribe, &[Uninvited]),
    ("an event comes after the close", event_after_close, &[Frame]),
    ("a gap is left out", drop_gap, &[Gap, Seam]),
    ("a gap ends early", |h| shorten_gap(h), &[Gap]),
    ("a gap begins late", |h| begin_gap_late(h), &[Gap, Seam]),
    ("a position is left out", drop_position, &[Gap, Epoch]),
    ("a position is behind", |h| put_position_back(h), &[Gap, Ack]),
    ("a reply is left out", drop_reply, &[Reply, Uninvited]),
    ("a reply comes twice", reply_twice, &[Reply]),
    ("an acknowledged publish was refused", |h| refuse_acked(h), &[Ack]),
    ("two publishes have one place", |h| share_place(h), &[Dense, Agreement, Fifo, Ack]),
    (
        "a retry has another answer",
        |h| answer_retry_anew(h),
        &[Idempotence, Agreement, Dense, Fifo],
    ),
    (
        "places of one publisher are exchanged",
        |h| exchange_answers(h),
        &[Fifo, Agreement, Dense, Ack, Idempotence],
    ),
    ("another epoch was recovered", |h| recover_other_epoch(h), &[Epoch]),
    ("an epoch outlives a crash", |h| keep_epoch(h), &[Epoch]),
    ("a snapshot forgets a topic", |h| shorten_snapshot(h), &[Seam, Ack]),
    ("a page has a hole", |h| drop_from_page(h), &[Seam, Gap]),
    ("the top is higher in the end", |h| raise_top(h), &[Liveness]),
    ("a connection stays behind", |h| leave_connection(h), &[Leak]),
    ("the last message of a key is left out", drop_last_of_key, &[Conflation, Liveness]),
    ("a delete is passed over", drop_delete, &[Conflation]),
    ("a rate lets two rounds through", |h| hasten(h), &[Rate]),
    ("what has ended is sent again", |h| send_late(h), &[Expiry]),
    ("other terms are granted", |h| alter_terms(h), &[Reply]),
    ("somebody has joined who is not there", |h| join_twice(h), &[Presence]),
    ("who has left is not told", drop_left, &[Presence]),
    ("a topic is stale twice", stale_twice, &[Stale]),
    ("a topic is not told as fresh", drop_fresh, &[Stale]),
    ("more waits than may", |h| hold_more(h), &[Bound]),
];

#[test]
fn every_kind_of_lie_is_refused() {
    let mut wrong = Vec::new();
    let mut cases = [0; KINDS.len()];
    for seed in 0..SEEDS_MAX {
        if cases.iter().all(|count| *count > 0) && seed > SEEDS_MIN {
            break;
        }
        let history = run(seed, Trace::Silent);
        for ((kind, tamper, expected), count) in KINDS.iter().zip(&mut cases) {
            let mut altered = history.clone();
            if *count == CASES || tamper(&mut altered).is_none() {
                continue;
            }
            *count += 1;
            match check(&altered) {
                Err(violation) if expected.contains(&violation.invariant) => {}
                Err(violation) => wrong.push(format!("seed {seed}, {kind}: {violation}")),
                Ok(()) => wrong.push(format!("seed {seed}: nobody noticed that {kind}")),
            }
        }
    }
    for ((kind, ..), count) in KINDS.iter().zip(cases) {
        if count == 0 {
            wrong.push(format!("there is no history in which {kind} could be"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_history_survives_being_written() {
    let history = run(1, Trace::Silent);
    assert_eq!(from_lines(&to_lines(&history)).expect("what was written"), history);
}

/// An event as it was heard: the index of its record, the connection and the event.
type HeardEvent<'a> = (usize, u64, &'a Event);

fn heard(history: &[Record]) -> impl Iterator<Item = HeardEvent<'_>> + Clone {
    history.iter().enumerate().filter_map(|(index, record)| match &record.fact {
        Fact::Heard { connection, event, .. } => Some((index, *connection, event)),
        _ => None,
    })
}

fn messages(history: &[Record]) -> impl Iterator<Item = (usize, u64, &Message)> {
    heard(history).filter_map(|(index, connection, event)| match event {
        Event::Message(message) => Some((index, connection, message)),
        _ => None,
    })
}

/// The event of the same connection that comes next.
fn next_on(history: &[Record], after: usize, connection: u64) -> Option<HeardEvent<'_>> {
    heard(history).find(|(index, on, _)| *index > after && *on == connection)
}

fn event_mut(history: &mut [Record], index: usize) -> Option<&mut Event> {
    match &mut history.get_mut(index)?.fact {
        Fact::Heard { event, .. } => Some(event),
        _ => None,
    }
}

fn message_mut(history: &mut [Record], index: usize) -> Option<&mut Message> {
    match event_mut(history, index)? {
        Event::Message(message) => Some(message),
        _ => None,
    }
}

/// Whether nothing may be passed over on a connection, whatever it hears of.
fn hears_all(history: &[Record], connection: u64) -> bool {
    let caps = history.iter().any(|record| match &record.fact {
        Fact::Begin(promise) => promise.rules.values().any(|rule| rule.cap.is_some()),
        _ => false,
    });
    let mut events = heard(history).filter(|(_, on, _)| *on == connection);
    !caps
        && !asks_latest(history, connection)
        && events.all(|(_, _, event)| match event {
            Event::Subscribed(told) => told.policy == Policy::All,
            Event::Updated(told) => told.policy == Policy::All,
            _ => true,
        })
}

/// Whether a connection asks for the latest messages of a filter: some may end before they are sent,
/// and nothing is said of that.
fn asks_latest(history: &[Record], connection: u64) -> bool {
    history.iter().any(|record| match &record.fact {
        Fact::Sent { connection: on, command: Command::Subscribe(asked), .. } => {
            *on == connection && asked.last > 0 && asked.topic.contains(['*', '>'])
        }
        _ => false,
    })
}

/// A message with the one behind it on the same connection and topic.
fn pair(history: &[Record]) -> Option<(usize, usize)> {
    pairs(history).next()
}

fn pairs(history: &[Record]) -> impl Iterator<Item = (usize, usize)> {
    messages(history).filter(|(_, on, _)| hears_all(history, *on)).filter_map(
        |(index, connection, message)| {
            let (next, _, event) = next_on(history, index, connection)?;
            let Event::Message(Message { topic, offset, .. }) = event else { return None };
            (*topic == message.topic && *offset == message.offset + 1).then_some((index, next))
        },
    )
}

/// Whether a message is behind everything that its connection was told of the past: the latest
/// messages of a topic may have ended before they are sent, live ones may not be missing.
fn is_live(history: &[Record], index: usize) -> bool {
    let Some((_, connection, message)) = messages(history).find(|(at, ..)| *at == index) else {
        return false;
    };
    let is_past = |topic: &str, position: &Position| {
        topic == message.topic && position.offset >= message.offset
    };
    heard(history).filter(|(_, on, _)| *on == connection).all(|(_, _, event)| match event {
        Event::Subscribed(told) => {
            !told.position.as_ref().is_some_and(|at| is_past(&told.topic, at))
                && !told
                    .topics
                    .iter()
                    .any(|one| one.position.as_ref().is_some_and(|at| is_past(&one.topic, at)))
        }
        Event::SnapshotEnd { positions, .. } => {
            !positions.iter().any(|told| is_past(&told.topic, &told.position))
        }
        _ => true,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Past {
    Live,
    Replayed,
}

fn drop_message(history: &mut Vec<Record>, past: Past) -> Option<()> {
    let index = match past {
        Past::Live => pairs(history).find(|(index, _)| is_live(history, *index))?.0,
        Past::Replayed => heard(history).find_map(|(index, connection, event)| {
            let Event::Subscribed(subscribed) = event else { return None };
            if !hears_all(history, connection) {
                return None;
            }
            let (first, _, Event::Message(one)) = next_on(history, index, connection)? else {
                return None;
            };
            let (_, _, Event::Message(other)) = next_on(history, first, connection)? else {
                return None;
            };
            let top = subscribed.position.as_ref()?.offset;
            let replays_both = subscribed.recovered == Some(true) && other.offset <= top;
            (replays_both && one.topic == subscribed.topic && one.topic == other.topic)
                .then_some(first)
        })?,
    };
    history.remove(index);
    Some(())
}

fn message_twice(history: &mut Vec<Record>) -> Option<()> {
    let (index, _) = pair(history)?;
    history.insert(index + 1, history[index].clone());
    Some(())
}

fn exchange_messages(history: &mut [Record]) -> Option<()> {
    let (one, other) = pair(history)?;
    history.swap(one, other);
    Some(())
}

fn alter_content(history: &mut [Record]) -> Option<()> {
    let (index, ..) = messages(history).last()?;
    message_mut(history, index)?.content.key.push('x');
    Some(())
}

fn alter_time(history: &mut [Record]) -> Option<()> {
    let (index, _) = messages(history).find_map(|(first, one_on, one)| {
        let again = messages(history).find(|(index, other_on, other)| {
            *index > first && one_on != *other_on && one == *other
        });
        again.map(|(index, ..)| (index, first))
    })?;
    message_mut(history, index)?.time += 1;
    Some(())
}

fn alter_offset(history: &mut [Record]) -> Option<()> {
    let (_, index) = pair(history)?;
    message_mut(history, index)?.offset += 1;
    Some(())
}

fn message_after_unsubscribe(history: &mut Vec<Record>) -> Option<()> {
    let (message, unsubscribe) = messages(history).find_map(|(index, connection, message)| {
        let (next, _, event) = next_on(history, index, connection)?;
        let Event::Unsubscribed { topic } = event else { return None };
        let is_only = !heard(history).any(|(_, on, event)| {
            let Event::Subscribed(subscribed) = event else { return false };
            on == connection && subscribed.topic.contains(['*', '>'])
        });
        (is_only && *topic == message.topic).then_some((index, next))
    })?;
    history.insert(unsubscribe + 1, history[message].clone());
    Some(())
}

fn event_after_close(history: &mut Vec<Record>) -> Option<()> {
    let close = |event: &Event| matches!(event, Event::Close { .. });
    let (index, connection, _) = heard(history).find(|(_, _, event)| close(event))?;
    let fact = Fact::Heard { connection, id: 0, event: Event::Ping {}, sent: None };
    history.insert(index + 1, Record { fact, ..history[index].clone() });
    Some(())
}

/// A gap that was told, and the position behind it.
fn gap(history: &[Record]) -> Option<(usize, usize)> {
    heard(history).find_map(|(index, connection, event)| {
        let Event::Gap(gap) = event else { return None };
        // The latest messages of a filter may have holes of their own.
        let has_filter = heard(history).any(|(_, on, event)| {
            let Event::Subscribed(told) = event else { return false };
            on == connection && told.topic.contains(['*', '>'])
        });
        if has_filter || !hears_all(history, connection) {
            return None;
        }
        let (position, _, Event::Position(_)) = next_on(history, index, connection)? else {
            return None;
        };
        // Something must come of it, or the connection never needed it.
        messages(history)
            .any(|(later, on, message)| {
                later > position && on == connection && message.topic == gap.topic
            })
            .then_some((index, position))
    })
}

fn drop_gap(history: &mut Vec<Record>) -> Option<()> {
    let (gap, position) = gap(history)?;
    history.remove(position);
    history.remove(gap);
    Some(())
}

fn shorten_gap(history: &mut [Record]) -> Option<()> {
    let (index, _) = gap(history)?;
    let Event::Gap(gap) = event_mut(history, index)? else { return None };
    (gap.to, gap.count) = (gap.to - 1, gap.count - 1);
    Some(())
}

fn begin_gap_late(history: &mut [Record]) -> Option<()> {
    let (index, _) = gap(history)?;
    let Event::Gap(gap) = event_mut(history, index)? else { return None };
    (gap.from, gap.count) = (gap.from + 1, gap.count - 1);
    Some(())
}

/// A position right in front of a message.
fn position(history: &[Record]) -> Option<usize> {
    heard(history).find_map(|(index, connection, event)| {
        let Event::Position(TopicPosition { topic, .. }) = event else { return None };
        let is_known = heard(history).any(|(before, on, event)| {
            let tells = match event {
                Event::Subscribed(s) => s.position.is_some() || !s.topics.is_empty(),
                _ => true,
            };
            before < index && on == connection && tells
        });
        let (_, _, Event::Message(message)) = next_on(history, index, connection)? else {
            return None;
        };
        let is_sure = !is_known && hears_all(history, connection);
        (is_sure && message.topic == *topic).then_some(index)
    })
}

fn drop_position(history: &mut Vec<Record>) -> Option<()> {
    let index = position(history)?;
    history.remove(index);
    Some(())
}

fn put_position_back(history: &mut [Record]) -> Option<()> {
    let index = position(history)?;
    let Event::Position(told) = event_mut(history, index)? else { return None };
    told.position.offset = told.position.offset.checked_sub(1)?;
    Some(())
}

/// A reply that others follow on the same connection.
fn reply(history: &[Record]) -> Option<usize> {
    let is_reply = |index: usize| match &history[index].fact {
        Fact::Heard { connection, id, .. } => Some((*connection, *id)).filter(|(_, id)| *id > 0),
        _ => None,
    };
    (0..history.len()).find(|index| {
        is_reply(*index).is_some_and(|(connection, _)| {
            (index + 1..history.len())
                .any(|later| is_reply(later).is_some_and(|(on, _)| on == connection))
        })
    })
}

fn drop_reply(history: &mut Vec<Record>) -> Option<()> {
    let index = reply(history)?;
    history.remove(index);
    Some(())
}

fn reply_twice(history: &mut Vec<Record>) -> Option<()> {
    let index = reply(history)?;
    history.insert(index + 1, history[index].clone());
    Some(())
}

/// An answer to a publish.
struct Answer {
    /// The record of the command.
    sent: usize,
    record: usize,
    connection: u64,
    publish: Publish,
    place: Position,
}

fn answers(history: &[Record]) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (record, Record { fact, .. }) in history.iter().enumerate() {
        let Fact::Heard { connection, id, event: Event::Published(place), .. } = fact else {
            continue;
        };
        let asked = history.iter().enumerate().find_map(|(sent, record)| match &record.fact {
            Fact::Sent { connection: on, id: of, command } if on == connection && of == id => {
                Some((sent, command.publish()?.clone()))
            }
            _ => None,
        });
        let (connection, place) = (*connection, place.clone());
        answers.extend(asked.map(|(sent, publish)| Answer {
            sent,
            record,
            connection,
            publish,
            place,
        }));
    }
    answers
}

/// The first two answers of which this is true, the earlier one first.
fn two_answers(
    history: &[Record],
    are_they: impl Fn(&Answer, &Answer) -> bool,
) -> Option<[Answer; 2]> {
    let mut answers = answers(history);
    let (one, other) = (0..answers.len()).find_map(|other| {
        let one = (0..other).find(|one| are_they(&answers[*one], &answers[other]))?;
        Some((one, other))
    })?;
    let other = answers.swap_remove(other);
    Some([answers.swap_remove(one), other])
}

fn refuse_acked(history: &mut [Record]) -> Option<()> {
    let acked = answers(history).into_iter().find(|Answer { publish, .. }| {
        let delivered = messages(history).any(|(.., message)| message.content == publish.content);
        publish.idempotency_key.is_empty() && delivered && !publish.content.is_delete()
    })?;
    *event_mut(history, acked.record)? = Event::Error { name: "engineUnavailable".into() };
    Some(())
}

fn share_place(history: &mut [Record]) -> Option<()> {
    let [one, other] = two_answers(history, |one, other| {
        one.publish.topic == other.publish.topic
            && one.place.epoch == other.place.epoch
            && one.publish.content != other.publish.content
    })?;
    *event_mut(history, other.record)? = Event::Published(one.place);
    Some(())
}

fn answer_retry_anew(history: &mut [Record]) -> Option<()> {
    let [_, retry] = two_answers(history, |one, other| one.publish == other.publish)?;
    let next = Position { offset: retry.place.offset + 1, ..retry.place };
    *event_mut(history, retry.record)? = Event::Published(next);
    Some(())
}

fn exchange_answers(history: &mut [Record]) -> Option<()> {
    let [one, other] = two_answers(history, |one, other| {
        one.publish.topic == other.publish.topic
            && one.place.epoch == other.place.epoch
            && one.connection == other.connection
            && one.record > other.sent
            && one.publish.content != other.publish.content
    })?;
    *event_mut(history, one.record)? = Event::Published(other.place);
    *event_mut(history, other.record)? = Event::Published(one.place);
    Some(())
}

fn keep_epoch(history: &mut [Record]) -> Option<()> {
    let crash = history.iter().position(|record| record.fact == Fact::Crash {})?;
    let [before, after] = two_answers(history, |one, other| {
        // What is heard after the crash may have been on its way before.
        one.record < crash && other.sent > crash && one.publish.topic == other.publish.topic
    })?;
    let place = Position { epoch: before.place.epoch, ..after.place };
    *event_mut(history, after.record)? = Event::Published(place);
    Some(())
}

fn recover_other_epoch(history: &mut [Record]) -> Option<()> {
    let (index, ..) = heard(history).find(|(_, _, event)| match event {
        Event::Subscribed(s) => s.reason == "epochChanged" && s.position.is_some(),
        _ => false,
    })?;
    let Event::Subscribed(subscribed) = event_mut(history, index)? else { return None };
    (subscribed.recovered, subscribed.reason) = (Some(true), String::new());
    Some(())
}

fn shorten_snapshot(history: &mut [Record]) -> Option<()> {
    let (index, ..) = heard(history).find(|(index, connection, event)| {
        let Event::SnapshotEnd { topic, positions } = event else { return false };
        let last = messages(history).filter(|(at, on, _)| at < index && on == connection).last();
        let is_last = |at: usize| next_on(history, at, *connection).is_some_and(|n| n.0 == *index);
        topic.contains(['*', '>'])
            && last.is_some_and(|(at, _, message)| {
                is_last(at) && positions.last().is_some_and(|p| p.topic == message.topic)
            })
            && !heard(history).any(|(at, on, event)| {
                at < *index && on == *connection && matches!(event, Event::Position(_))
            })
    })?;
    let Event::SnapshotEnd { positions, .. } = event_mut(history, index)? else { return None };
    positions.pop();
    Some(())
}

fn drop_from_page(history: &mut [Record]) -> Option<()> {
    let answers = answers(history);
    // Only of what its publisher was told, and what never ends, is it known that it must be there.
    let is_sure = |message: &Message| {
        answers.iter().any(|Answer { publish, place, .. }| {
            publish.topic == message.topic
                && publish.content == message.content
                && publish.ttl_ms == 0
                && place.offset == message.offset
        })
    };
    let (index, ..) = heard(history).find(|(_, _, event)| match event {
        Event::HistoryPage(page) => page.messages.len() > 2 && is_sure(&page.messages[1]),
        _ => false,
    })?;
    let Event::HistoryPage(page) = event_mut(history, index)? else { return None };
    page.messages.remove(1);
    Some(())
}

fn raise_top(history: &mut [Record]) -> Option<()> {
    let mut heard_of: Vec<(u64, String)> = Vec::new();
    let all: Vec<u64> = heard(history)
        .map(|(_, connection, _)| connection)
        .filter(|connection| hears_all(history, *connection))
        .collect();
    for record in history {
        match &mut record.fact {
            Fact::Heard { connection, event: Event::Message(message), .. }
                if all.contains(connection) =>
            {
                heard_of.push((*connection, message.topic.clone()));
            }
            Fact::Heard { connection, event: Event::Unsubscribed { .. }, .. }
            | Fact::Closed { connection, .. } => heard_of.retain(|(on, _)| on != connection),
            Fact::Quiet { tops, .. } => {
                let is_heard = |topic: &str| heard_of.iter().any(|(_, of)| of == topic);
                if let Some(top) = tops.iter_mut().find(|top| is_heard(&top.topic)) {
                    top.position.offset += 1;
                    return Some(());
                }
            }
            _ => {}
        }
    }
    None
}

fn leave_connection(history: &mut [Record]) -> Option<()> {
    match &mut history.last_mut()?.fact {
        Fact::Empty { gauges } => *gauges.values_mut().next()? += 1,
        _ => return None,
    }
    Some(())
}
