//! Lies about how messages are delivered: what is passed over, how often, to whom, and about what is
//! told beside them.
//! # Not here: lies about what was published and what is missing (`tampering`).

use super::{asks_latest, event_mut, heard, messages, next_on};
use crate::checker::covers;
use crate::history::{Command, Event, Fact, Message, Policy, Record, Span, Subscribe, Update};

/// Messages that follow a subscription under a policy on the same connection, and are live.
fn live_under(
    history: &[Record],
    is_it: impl Fn(Policy) -> bool,
) -> impl Iterator<Item = (usize, u64, &Message)> {
    messages(history).filter(move |(index, connection, message)| {
        let mut before = heard(history).filter(|(at, on, _)| at < index && on == connection);
        let subscription = before.clone().find_map(|(_, _, event)| match event {
            Event::Subscribed(told) if told.topic == message.topic => Some(told),
            _ => None,
        });
        let top = subscription.and_then(|told| told.position.as_ref());
        subscription.is_some_and(|told| is_it(told.policy))
            && top.is_some_and(|top| message.offset > top.offset)
            && before.all(|(_, _, event)| {
                !matches!(event, Event::Updated(_) | Event::Unsubscribed { .. })
                    && !matches!(event, Event::Subscribed(told) if told.topic.contains(['*', '>']))
            })
    })
}

/// The last message before all is quiet, on a connection that is still there then.
pub(super) fn drop_last_of_key(history: &mut Vec<Record>) -> Option<()> {
    let quiet = history.iter().position(|r| matches!(r.fact, Fact::Quiet { .. }))?;
    let (index, ..) =
        live_under(history, Policy::conflates).find(|(index, connection, message)| {
            let is_last = !messages(&history[*index + 1..quiet.max(*index + 1)])
                .any(|(_, on, later)| on == *connection && later.topic == message.topic);
            let stays = !history[*index..quiet.max(*index)].iter().any(|record| {
                record.fact.connection() == Some(*connection)
                    && !matches!(&record.fact, Fact::Heard { event: Event::Message(_), .. })
            });
            let ends = history.iter().any(|record| match &record.fact {
                Fact::Sent { command, .. } => command.publish().is_some_and(|publish| {
                    publish.content == message.content && publish.ttl_ms > 0
                }),
                _ => false,
            });
            // What was said of the topic and not answered may have come later.
            let is_answered = |connection: u64, id: u64| {
                history.iter().any(|record| match &record.fact {
                    Fact::Heard { connection: on, id: of, .. } => *on == connection && *of == id,
                    _ => false,
                })
            };
            let is_sure = history[..quiet].iter().all(|record| match &record.fact {
                Fact::Sent { connection, id, command } => {
                    let other = command.publish().is_none_or(|said| said.topic != message.topic);
                    other || is_answered(*connection, *id)
                }
                _ => true,
            });
            let Fact::Quiet { tops, .. } = &history[quiet].fact else { return false };
            let is_top = tops
                .iter()
                .any(|top| top.topic == message.topic && top.position.offset == message.offset);
            *index < quiet && is_last && stays && !ends && is_sure && is_top
        })?;
    history.remove(index);
    Some(())
}

pub(super) fn drop_delete(history: &mut Vec<Record>) -> Option<()> {
    let (index, ..) =
        live_under(history, Policy::conflates).find(|(index, connection, message)| {
            let next = next_on(history, *index, *connection);
            let goes_on = next.is_some_and(|(_, _, event)| match event {
                Event::Message(later) => later.topic == message.topic,
                _ => false,
            });
            message.content.is_delete() && goes_on
        })?;
    history.remove(index);
    Some(())
}

/// Has a message sent right behind the one before it.
pub(super) fn hasten(history: &mut [Record]) -> Option<()> {
    let is_rated = |policy| matches!(policy, Policy::MaxHz(hz) if hz < 10.0);
    let rated: Vec<(usize, u64, &Message)> = live_under(history, is_rated).collect();
    let span = |index: usize| match &history[index].fact {
        Fact::Heard { sent, .. } => *sent,
        _ => None,
    };
    let (index, sent) = rated.iter().find_map(|(index, connection, message)| {
        let mut before = rated.iter().rev();
        let (earlier, ..) = before.find(|(at, on, earlier)| {
            at < index && on == connection && earlier.topic == message.topic
        })?;
        let is_alone = history[*earlier + 1..*index].iter().all(|record| {
            record.fact.connection() != Some(*connection)
                || match &record.fact {
                    Fact::Heard { event, .. } => {
                        matches!(event, Event::Message(_) | Event::Published(_) | Event::Pong {})
                    }
                    Fact::Sent { command, .. } => command.publish().is_some(),
                    _ => false,
                }
        });
        let (first, second) = (span(*earlier)?, span(*index)?);
        let at = first.at + 1;
        let goes_on = rated
            .iter()
            .any(|(at, on, later)| at > index && on == connection && later.topic == message.topic);
        let is_settled = is_settled(history, (*earlier, *index), &message.topic);
        (is_alone
            && is_settled
            && goes_on
            && first.at + 90 < second.since
            && first.since == first.at)
            .then_some((*index, Span { since: at, at }))
    })?;
    let Fact::Heard { sent: told, .. } = &mut history[index].fact else { return None };
    *told = Some(sent);
    Some(())
}

/// Whether a connection was answered everything that changes what it gets of a topic before the
/// first of two records, and asked for nothing more up to the second.
/// Until a change is answered, what a rate held back may come at once, so nobody can know that it
/// came too soon.
fn is_settled(history: &[Record], (first, second): (usize, usize), topic: &str) -> bool {
    let connection = history[first].fact.connection();
    let is_answered = |id: u64| {
        history[..first].iter().any(|record| match &record.fact {
            Fact::Heard { connection: on, id: of, .. } => Some(*on) == connection && *of == id,
            _ => false,
        })
    };
    history[..second].iter().all(|record| {
        let Fact::Sent { connection: on, id, command } = &record.fact else { return true };
        let (Command::Subscribe(Subscribe { topic: target, .. })
        | Command::Update(Update { topic: target, .. })
        | Command::Unsubscribe { topic: target }) = command
        else {
            return true;
        };
        Some(*on) != connection || !covers(target, topic) || is_answered(*id)
    })
}

/// Has a message of the past sent when its time is long over.
pub(super) fn send_late(history: &mut [Record]) -> Option<()> {
    let ends = |message: &Message| {
        history.iter().any(|record| match &record.fact {
            Fact::Sent { command, .. } => command
                .publish()
                .is_some_and(|publish| publish.content == message.content && publish.ttl_ms > 0),
            _ => false,
        })
    };
    let (index, ..) = heard(history).find(|(_, _, event)| match event {
        Event::HistoryPage(page) => page.messages.iter().any(&ends),
        _ => false,
    })?;
    let Fact::Heard { sent, .. } = &mut history[index].fact else { return None };
    *sent = Some(Span { since: u64::MAX, at: u64::MAX });
    Some(())
}

pub(super) fn alter_terms(history: &mut [Record]) -> Option<()> {
    let (index, ..) = heard(history).find(|(_, _, event)| matches!(event, Event::Updated(_)))?;
    let Event::Updated(updated) = event_mut(history, index)? else { return None };
    updated.policy =
        if updated.policy == Policy::Latest { Policy::MaxHz(3.0) } else { Policy::Latest };
    Some(())
}

pub(super) fn join_twice(history: &mut [Record]) -> Option<()> {
    history.iter_mut().find_map(|record| match &mut record.fact {
        Fact::Quiet { rosters, .. } => {
            let roster = rosters.values_mut().next()?;
            roster.count += 1;
            Some(())
        }
        _ => None,
    })
}

/// Somebody left whom a connection that is quiet later had been told of.
pub(super) fn drop_left(history: &mut Vec<Record>) -> Option<()> {
    let (index, ..) = heard(history).find(|(index, connection, event)| {
        let Event::Left { topic, member } = event else { return false };
        // Only who was told that somebody came can know that he must have gone.
        let before = heard(history).take_while(|(at, ..)| at < index);
        let came = before.filter(|(_, on, _)| on == connection).map(|(_, _, event)| event).fold(
            false,
            |came, event| match event {
                Event::Joined { topic: of, member: other } if of == topic && other == member => {
                    true
                }
                Event::Left { topic: of, member: other } if of == topic && other == member => false,
                Event::PresenceState { .. } | Event::Unsubscribed { .. } => false,
                _ => came,
            },
        );
        let rest = || heard(history).filter(move |(at, on, _)| at > index && on == connection);
        // The next that is told of them is that they come again, and nobody is told all in between.
        let next = rest().map(|(_, _, event)| event).find(|event| match event {
            Event::Joined { topic: of, member: other } => of == topic && other == member,
            Event::PresenceState { .. } | Event::Unsubscribed { .. } | Event::Subscribed(_) => true,
            _ => false,
        });
        came && matches!(next, Some(Event::Joined { .. }))
    })?;
    history.remove(index);
    Some(())
}

pub(super) fn stale_twice(history: &mut Vec<Record>) -> Option<()> {
    let (index, ..) = heard(history).find(|(_, _, event)| matches!(event, Event::Stale { .. }))?;
    history.insert(index + 1, history[index].clone());
    Some(())
}

pub(super) fn drop_fresh(history: &mut Vec<Record>) -> Option<()> {
    let (index, ..) = heard(history).find(|(index, connection, event)| {
        let Event::Fresh { topic } = event else { return false };
        // What is not later than the last message before it was stale does not end that.
        let stale = heard(history).take_while(|(at, ..)| at < index).filter_map(
            |(_, on, event)| match event {
                Event::Stale { topic: of, since } if on == *connection && of == topic => {
                    Some(*since)
                }
                _ => None,
            },
        );
        let Some(since) = stale.last() else { return false };
        let next = next_on(history, *index, *connection);
        !asks_latest(history, *connection)
            && next.is_some_and(|(_, _, event)| match event {
                Event::Message(message) => message.topic == *topic && message.time > since,
                _ => false,
            })
    })?;
    history.remove(index);
    Some(())
}

pub(super) fn hold_more(history: &mut [Record]) -> Option<()> {
    history.iter_mut().find_map(|record| match &mut record.fact {
        Fact::Held(held) if held.shard.is_some() => {
            held.bytes += 100 << 20;
            Some(())
        }
        _ => None,
    })
}
