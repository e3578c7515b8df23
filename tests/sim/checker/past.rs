//! What a connection is told of the past: by the reply to a subscription, by a snapshot, by a page of
//! history.
//! # Not here: what comes live (`stream`).

use super::cursor::Cursor;
use super::log::{Log, Told, seam_fault};
use super::stream::{Snapshot, Stream, Subscription};
use super::{Checked, Invariant, Moment, covers, fault};
use crate::history::{Page, Position, Query, Recovery, Subscribe, Subscribed, TopicPosition};
use std::collections::{BTreeMap, BTreeSet};

impl Stream {
    pub(super) fn subscribed(
        &mut self,
        moment: Moment,
        asked: Moment,
        (subscribe, subscribed): (&Subscribe, &Subscribed),
        log: &mut Log,
    ) -> Checked {
        let Subscribe { topic: target, since, last, snapshot, overflow, positions } = subscribe;
        if self.subscriptions.contains_key(target) {
            return fault(Invariant::Reply, target, "it is subscribed twice".into());
        }
        let latest = u64::from(*last).max(u64::from(*snapshot));
        let mut named = BTreeSet::new();
        if let Some(position) = &subscribed.position {
            named.insert(target.clone());
            let begin = Begin {
                topic: target,
                since: since.as_ref(),
                recovered: subscribed.recovered,
                reason: &subscribed.reason,
                position,
                latest,
            };
            self.begin(moment, asked, &begin, log)?;
        }
        if subscribed.topics.len() != positions.len() {
            let says =
                format!("{} positions have {} answers", positions.len(), subscribed.topics.len());
            return fault(Invariant::Reply, target, says);
        }
        for (asked_for, recovery) in positions.iter().zip(&subscribed.topics) {
            let Recovery { topic, position, recovered, reason } = recovery;
            if *topic != asked_for.topic || position.is_none() && *recovered {
                let says = format!("{recovery:?} does not answer {asked_for:?}");
                return fault(Invariant::Reply, topic, says);
            }
            if let Some(position) = position {
                named.insert(topic.clone());
                let since = Some(&asked_for.position);
                let recovered = Some(*recovered);
                let begin = Begin { topic, since, recovered, reason, position, latest };
                self.begin(moment, asked, &begin, log)?;
            }
        }
        let subscription = Subscription { since: moment.record, overflow: *overflow };
        self.subscriptions.insert(target.clone(), subscription);
        self.repeats.clear();
        if *snapshot {
            let (target, messages) = (target.clone(), BTreeMap::new());
            self.snapshot = Some(Snapshot { target, latest, asked, named, messages });
        } else if latest > 0 {
            for (topic, cursor) in &self.cursors {
                if covers(target, topic) && !named.contains(topic) {
                    self.repeats.insert(topic.clone(), (cursor.epoch.clone(), latest));
                }
            }
        }
        Ok(())
    }

    /// A subscription tells where it stands in a topic.
    fn begin(
        &mut self,
        moment: Moment,
        asked: Moment,
        begin: &Begin<'_>,
        log: &mut Log,
    ) -> Checked {
        let Begin { topic, since, recovered, position, latest, .. } = *begin;
        self.stands_at(topic, position, log)?;
        let told = Told { moment, life: self.life, asked: Some(asked.record) };
        log.place(topic, position, told)?;
        if recovered.is_some() != since.is_some() {
            return fault(Invariant::Reply, topic, "`recovered` is not where it should be".into());
        }
        let epoch = position.epoch.clone();
        let cursor = match since {
            Some(since) if recovered == Some(true) => {
                if since.epoch != epoch || since.offset > position.offset {
                    let says = format!("{since:?} was recovered at {position:?}");
                    return fault(Invariant::Epoch, topic, says);
                }
                Cursor {
                    epoch,
                    offset: since.offset,
                    seam: position.offset,
                    latest: None,
                    asked: moment,
                }
            }
            _ => {
                let latest = (latest > 0).then_some(latest);
                Cursor {
                    epoch,
                    offset: position.offset,
                    seam: position.offset,
                    latest,
                    asked: moment,
                }
            }
        };
        if let (Some(since), Some(false)) = (since, recovered) {
            check_loss(since, begin, moment, log)?;
        }
        self.cursors.insert(topic.to_owned(), cursor);
        Ok(())
    }

    pub(super) fn snapshot_end(
        &mut self,
        moment: Moment,
        target: &str,
        positions: &[TopicPosition],
        log: &mut Log,
    ) -> Checked {
        let Some(mut snapshot) = self.snapshot.take().filter(|snapshot| snapshot.target == target)
        else {
            return fault(Invariant::Reply, target, "a snapshot ends that has not begun".into());
        };
        for TopicPosition { topic, position } in positions {
            self.stands_at(topic, position, log)?;
            let messages = snapshot.messages.remove(topic).unwrap_or_default();
            if snapshot.named.contains(topic) {
                continue;
            }
            let told = Told { moment, life: self.life, asked: Some(snapshot.asked.record) };
            log.place(topic, position, told)?;
            let (epoch, offset) = (position.epoch.clone(), position.offset);
            let latest = Some(snapshot.latest);
            let mut cursor = Cursor { epoch, offset, seam: offset, latest, asked: moment };
            for (moment, message) in &messages {
                cursor.take(topic, message.offset, log)?;
                log.observe(&cursor.epoch, message, Told { moment: *moment, ..told })?;
            }
            cursor.complete(topic, log)?;
            self.cursors.insert(topic.clone(), cursor);
        }
        let is_there = |topic: &String| positions.iter().any(|position| position.topic == *topic);
        let mut topics = snapshot.messages.keys().chain(&snapshot.named);
        if let Some(topic) = topics.find(|topic| !is_there(topic)) {
            return fault(
                Invariant::Seam,
                topic,
                "the end of the snapshot does not name it".into(),
            );
        }
        let mut held = log.holding(self.life, snapshot.asked.record, moment.at).into_iter();
        match held.find(|topic| covers(target, topic) && !is_there(topic)) {
            Some(topic) => fault(Invariant::Ack, &topic, "the snapshot leaves it out".into()),
            None => Ok(()),
        }
    }

    pub(super) fn page(
        &mut self,
        moment: Moment,
        asked: Moment,
        (query, page): (&Query, &Page),
        log: &mut Log,
    ) -> Checked {
        let Page { topic, top, messages, more } = page;
        let Some(top) = top else {
            if log.holding(self.life, asked.record, moment.at).contains(topic) {
                return fault(Invariant::Ack, topic, "it is not there, though it must be".into());
            }
            return Ok(());
        };
        let told = Told { moment, life: self.life, asked: Some(asked.record) };
        log.place(topic, top, told)?;
        let offsets: Vec<u64> = messages.iter().map(|message| message.offset).collect();
        let first = match &query.since {
            Some(since) if since.epoch != top.epoch => {
                let says = format!("a page after {since:?} has its top at {top:?}");
                return fault(Invariant::Epoch, topic, says);
            }
            Some(since) => since.offset + 1,
            None => (top.offset + 1).saturating_sub(offsets.len() as u64),
        };
        let last = offsets.last().copied().unwrap_or(first.saturating_sub(1));
        let is_whole = offsets.iter().copied().eq(first..=last) || offsets.is_empty();
        if !is_whole || last > top.offset || *more != (last < top.offset && query.since.is_some()) {
            let says = format!("a page after {:?} up to {top:?} holds {offsets:?}", query.since);
            return Err(seam_fault(topic, says));
        }
        messages.iter().try_for_each(|message| log.observe(&top.epoch, message, told))
    }
}

/// What a reply says of one topic.
struct Begin<'a> {
    topic: &'a str,
    since: Option<&'a Position>,
    recovered: Option<bool>,
    reason: &'a str,
    position: &'a Position,
    latest: u64,
}

/// A resume is refused only for a reason that is true.
fn check_loss(since: &Position, begin: &Begin<'_>, moment: Moment, log: &Log) -> Checked {
    let Begin { topic, reason, position, .. } = begin;
    let is_same = since.epoch == position.epoch && since.offset <= position.offset;
    let next = Position { epoch: since.epoch.clone(), offset: since.offset + 1 };
    let lie = match *reason {
        "epochChanged" => is_same,
        "trimmed" | "expired" => {
            !is_same || log.must_hold(topic, &next, position.offset, moment.at)
        }
        "tooMany" => !is_same || since.offset == position.offset,
        _ => true,
    };
    if lie {
        let says = format!("`{reason}` is not true of {since:?} at {position:?}");
        return fault(Invariant::Ack, topic, says);
    }
    Ok(())
}
