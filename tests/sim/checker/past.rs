//! What a connection is told of the past: by the reply to a subscription, by a snapshot, by a page of
//! history.
//! # Not here: what comes live (`stream`).

use super::cursor::{Arrival, Cursor, Past};
use super::deferred::{Cause, Passed};
use super::log::{Log, Told, seam_fault};
use super::roster::Watch;
use super::stream::{Heard, Snapshot, Stream};
use super::terms::{Subscription, check_subscribed};
use super::{Checked, Invariant, Moment, covers, fault};
use crate::history::{
    Page, Policy, Position, Query, Recovery, Subscribe, Subscribed, TopicPosition,
};
use std::collections::{BTreeMap, BTreeSet};

impl Stream {
    pub(super) fn subscribed(
        &mut self,
        moment: Moment,
        asked: Moment,
        (subscribe, subscribed): (&Subscribe, &Subscribed),
        log: &mut Log,
    ) -> Checked {
        let Subscribe { topic: target, since, last, snapshot, positions, .. } = subscribe;
        if self.subscriptions.contains_key(target) {
            return fault(Invariant::Reply, target, "it is subscribed twice".into());
        }
        check_subscribed(subscribed, (subscribe.policy, subscribe.overflow), &log.promise)?;
        self.settle(target, moment, log);
        let first = (u64::from(*last), *snapshot);
        let mut named = BTreeSet::new();
        if let Some(position) = &subscribed.position {
            named.insert(target.clone());
            let begin = Begin {
                topic: target,
                since: since.as_ref(),
                recovered: subscribed.recovered,
                reason: &subscribed.reason,
                position,
                first,
                policy: subscribe.policy,
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
                let policy = subscribe.policy;
                let begin = Begin { topic, since, recovered, reason, position, first, policy };
                self.begin(moment, asked, &begin, log)?;
            }
        }
        self.enter(moment, (subscribe, subscribed));
        self.repeats.clear();
        if *snapshot {
            let (target, messages) = (target.clone(), BTreeMap::new());
            let last = u64::from(*last);
            self.snapshot = Some(Snapshot { target, last, asked, named, messages });
        } else if *last > 0 && target.contains(['*', '>']) {
            self.latest_since = Some(moment);
            for (topic, cursor) in &self.cursors {
                if covers(target, topic) && !named.contains(topic) {
                    let repeat = (cursor.epoch.clone(), u64::from(*last));
                    self.repeats.insert(topic.clone(), repeat);
                }
            }
        }
        Ok(())
    }

    /// A subscription is there from now on.
    fn enter(&mut self, moment: Moment, (subscribe, subscribed): (&Subscribe, &Subscribed)) {
        let Subscribe { topic: target, policy, overflow, presence, .. } = subscribe;
        let subscription = Subscription {
            since: moment.record,
            at: moment.at,
            policy: *policy,
            overflow: *overflow,
            name: self.name.clone(),
        };
        self.subscriptions.insert(target.clone(), subscription);
        if *presence {
            self.watches.insert(target.clone(), Watch::default());
        }
        if target.contains(['*', '>']) {
            // It may be told again which of its topics are stale.
            let topics: Vec<String> = self.quiets.keys().cloned().collect();
            for topic in topics.iter().filter(|topic| covers(target, topic)) {
                self.begin_quiet(topic, None);
            }
        } else {
            self.begin_quiet(target, Some(subscribed.stale));
        }
        self.end_rounds(target);
    }

    /// A subscription tells where it stands in a topic.
    fn begin(
        &mut self,
        moment: Moment,
        asked: Moment,
        begin: &Begin<'_>,
        log: &mut Log,
    ) -> Checked {
        let Begin { topic, since, recovered, position, first, policy, .. } = *begin;
        self.stands_at(moment, topic, position, log)?;
        let told = Told { moment, life: self.life, asked: Some(asked.record) };
        log.place(topic, position, told)?;
        if recovered.is_some() != since.is_some() {
            return fault(Invariant::Reply, topic, "`recovered` is not where it should be".into());
        }
        let mut cursor = Cursor::live(&position.epoch, position.offset, moment);
        match since {
            Some(since) if recovered == Some(true) => {
                if since.epoch != position.epoch || since.offset > position.offset {
                    let says = format!("{since:?} was recovered at {position:?}");
                    return fault(Invariant::Epoch, topic, says);
                }
                cursor.offset = since.offset;
                cursor.past = Past::Missing(policy.capped(log.rule(topic).cap));
            }
            _ => cursor.past = first_of(topic, first, log),
        }
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
            self.stands_at(moment, topic, position, log)?;
            let messages = snapshot.messages.remove(topic).unwrap_or_default();
            if snapshot.named.contains(topic) {
                continue;
            }
            let told = Told { moment, life: self.life, asked: Some(snapshot.asked.record) };
            log.place(topic, position, told)?;
            let mut cursor = Cursor::live(&position.epoch, position.offset, moment);
            cursor.past = first_of(topic, (snapshot.last, true), log);
            for (Heard { moment, sent }, message) in messages {
                if message.offset > position.offset {
                    let says = format!("{} comes before the end of the snapshot", message.offset);
                    return Err(seam_fault(topic, says));
                }
                let (life, policy) = (self.life, Policy::All);
                let message = &message;
                cursor.take(Arrival { message, moment, sent, life, policy }, log)?;
                log.observe(&cursor.epoch, message, Told { moment, ..told })?;
            }
            cursor.complete(topic, moment, log)?;
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
        heard: Heard,
        asked: Moment,
        (query, page): (&Query, &Page),
        log: &mut Log,
    ) -> Checked {
        let Page { topic, top, messages, more } = page;
        let moment = heard.moment;
        let Some(top) = top else {
            if log.holding(self.life, asked.record, moment.at).contains(topic) {
                return fault(Invariant::Ack, topic, "it is not there, though it must be".into());
            }
            return Ok(());
        };
        let told = Told { moment, life: self.life, asked: Some(asked.record) };
        log.place(topic, top, told)?;
        let first = messages.first().map_or(top.offset + 1, |message| message.offset);
        let mut at = match &query.since {
            Some(since) if since.epoch != top.epoch => {
                let says = format!("a page after {since:?} has its top at {top:?}");
                return fault(Invariant::Epoch, topic, says);
            }
            Some(since) => since.offset,
            None => first - 1,
        };
        for message in messages {
            if message.offset <= at {
                let says = format!("{} comes after {at} in a page", message.offset);
                return Err(seam_fault(topic, says));
            }
            log.passed.push(ended(topic, top, (at + 1, message.offset - 1), moment));
            at = message.offset;
            log.observe(&top.epoch, message, told)?;
            log.check_end(message, self.life, heard.sent)?;
        }
        if at > top.offset || *more && (at == top.offset || query.since.is_none()) {
            return Err(seam_fault(topic, format!("a page up to {at} of {page:?}")));
        }
        if !*more {
            log.passed.push(ended(topic, top, (at + 1, top.offset), moment));
        }
        if messages.len() as u64 > log.promise.replay.messages_max {
            return fault(Invariant::Bound, topic, format!("a page of {}", messages.len()));
        }
        Ok(())
    }
}

/// Messages that a page leaves out because their time is over.
fn ended(topic: &str, top: &Position, (from, to): (u64, u64), moment: Moment) -> Passed {
    let (topic, epoch) = (topic.to_owned(), top.epoch.clone());
    Passed { topic, epoch, from, to, cause: Cause::Ended(moment) }
}

/// What is sent first of a topic for so many of the latest messages, and maybe for a snapshot.
fn first_of(topic: &str, (last, snapshot): (u64, bool), log: &Log) -> Past {
    let has_keys = log.rule(topic).keys_max.is_some();
    let latest = last.max(u64::from(snapshot && !has_keys));
    Past::First { latest, snapshot, heard: Vec::new() }
}

/// What a reply says of one topic.
struct Begin<'a> {
    topic: &'a str,
    since: Option<&'a Position>,
    recovered: Option<bool>,
    reason: &'a str,
    position: &'a Position,
    /// How many of the latest messages were asked for, and whether a snapshot was.
    first: (u64, bool),
    policy: Policy,
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
