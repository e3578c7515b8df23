//! What must be so when nothing is on its way any more: everybody is at the top, or was told.
//! # Not here: the way there (`stream`).

use super::cursor::Cursor;
use super::log::Log;
use super::stream::Stream;
use super::{Checked, Fault, Invariant, covers, fault};
use crate::history::TopicPosition;
use std::collections::BTreeMap;

pub(super) fn check(
    streams: &mut BTreeMap<u64, Stream>,
    tops: &[TopicPosition],
    log: &Log,
) -> Checked {
    streams.iter_mut().try_for_each(|(number, stream)| {
        let of_this = |fault| Fault { connection: Some(*number), ..fault };
        check_stream(stream, tops, log).map_err(of_this)
    })
}

fn check_stream(stream: &mut Stream, tops: &[TopicPosition], log: &Log) -> Checked {
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
    for (target, subscription) in &stream.subscriptions {
        for TopicPosition { topic, position: top } in tops {
            if !covers(target, topic) {
                continue;
            }
            let Some(cursor) = stream.cursors.get_mut(topic) else {
                let missed = log.acked_since(topic, subscription.since, stream.life());
                if let Some(missed) = missed {
                    let says = format!("it was never told of {missed:?}");
                    return fault(Invariant::Liveness, topic, says);
                }
                continue;
            };
            cursor.complete(topic, log)?;
            let is_there = if cursor.epoch == top.epoch {
                cursor.offset == top.offset
            } else {
                // It began anew and nothing has happened since; with a subscription of its own it
                // could not have.
                top.offset == 0 && target != topic
            };
            if !is_there {
                let Cursor { epoch, offset, .. } = cursor;
                let says = format!("it is at {epoch} {offset}, the top is {top:?}");
                return fault(Invariant::Liveness, topic, says);
            }
        }
        let is_gone = !target.contains(['*', '>']) && !tops.iter().any(|top| top.topic == *target);
        if is_gone {
            let says = "it is subscribed and the topic is gone".into();
            return fault(Invariant::Liveness, target, says);
        }
    }
    Ok(())
}
