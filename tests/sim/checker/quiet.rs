//! What must be so when nothing is on its way any more: everybody is at the top, or was told.
//! # Not here: the way there (`stream`).

use super::cursor::{Cursor, Past};
use super::deferred::Cause;
use super::log::Log;
use super::stream::Stream;
use super::{Checked, Fault, Invariant, Moment, covers, fault};
use crate::history::TopicPosition;
use std::collections::BTreeMap;

pub(super) fn check(
    streams: &mut BTreeMap<u64, Stream>,
    tops: &[TopicPosition],
    moment: Moment,
    log: &mut Log,
) -> Checked {
    streams.iter_mut().try_for_each(|(number, stream)| {
        let of_this = |fault| Fault { connection: Some(*number), ..fault };
        check_stream(stream, tops, moment, log).map_err(of_this)
    })
}

fn check_stream(
    stream: &mut Stream,
    tops: &[TopicPosition],
    moment: Moment,
    log: &mut Log,
) -> Checked {
    let what = if !stream.asked.is_empty() {
        "a command without an answer"
    } else if stream.gap.is_some() {
        "a gap without a position"
    } else if stream.snapshot.is_some() {
        "a snapshot without an end"
    } else {
        ""
    };
    if !what.is_empty() {
        return fault(Invariant::Liveness, "", format!("it has {what}"));
    }
    for top in tops {
        stream.check_hasty(&top.topic, u64::MAX)?;
        check_topic(stream, top, moment, log)?;
        stream.check_stale(top, moment.at, log)?;
    }
    let is_gone = |target: &String| {
        !target.contains(['*', '>']) && !tops.iter().any(|top| top.topic == *target)
    };
    match stream.subscriptions.keys().find(|target| is_gone(target)) {
        Some(target) => {
            let says = "it is subscribed and the topic is gone".into();
            fault(Invariant::Liveness, target, says)
        }
        None => Ok(()),
    }
}

/// The connection is at the top of a topic that it is subscribed to.
fn check_topic(stream: &mut Stream, top: &TopicPosition, moment: Moment, log: &mut Log) -> Checked {
    let TopicPosition { topic, position: top } = top;
    let covering = stream.subscriptions.iter().filter(|(target, _)| covers(target, topic));
    let Some(since) = covering.map(|(_, subscription)| subscription.since).min() else {
        return Ok(());
    };
    let policy = stream.effective(topic, log.rule(topic)).policy;
    let is_exact = stream.subscriptions.contains_key(topic);
    let life = stream.life();
    let Some(cursor) = stream.cursors.get_mut(topic) else {
        return match log.acked_since(topic, since, life) {
            Some(missed) => {
                let says = format!("it was never told of {missed:?}");
                fault(Invariant::Liveness, topic, says)
            }
            None => Ok(()),
        };
    };
    cursor.complete(topic, moment, log)?;
    let cause = match (cursor.conflated_until, &cursor.past) {
        _ if policy.conflates() => Some(Cause::Conflated(moment)),
        (Some(changed), _) => Some(Cause::Conflated(changed)),
        (None, Past::Latest) => Some(Cause::Ended(moment)),
        (None, _) => None,
    };
    if cursor.epoch == top.epoch
        && cursor.offset < top.offset
        && let Some(cause) = cause
    {
        // What is passed over now will never come.
        cursor.pass(topic, top.offset, cause, log);
    }
    let is_there = if cursor.epoch == top.epoch {
        cursor.offset == top.offset
    } else {
        // It began anew and nothing has happened since; with a subscription of its own it
        // could not have.
        top.offset == 0 && !is_exact
    };
    if is_there {
        return Ok(());
    }
    let Cursor { epoch, offset, .. } = cursor;
    fault(Invariant::Liveness, topic, format!("it is at {epoch} {offset}, the top is {top:?}"))
}
