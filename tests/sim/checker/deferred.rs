//! What can be judged only when everything is known: what stood at the places that a connection did
//! not hear of.
//! # Invariants: what nobody ever heard of, and no publisher was told, is not held against the
//! broker.
//! # Not here: where connections stand (`cursor`).

use super::log::{Entry, Log};
use super::{Checked, Fault, Invariant, Moment};
use crate::history::Position;

/// Places that a connection was not sent.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) topic: String,
    pub(super) epoch: String,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) cause: Cause,
}

/// Why not, and when that showed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause {
    /// Later messages of the same keys took their places.
    Conflated(Moment),
    /// Their time was over.
    Ended(Moment),
    /// They are gone from history, as a gap says.
    Gone(Moment),
}

/// What was sent first of a topic, as a snapshot or the latest messages.
#[derive(Debug)]
pub(super) struct First {
    pub(super) topic: String,
    pub(super) epoch: String,
    pub(super) seam: u64,
    /// So many of the latest messages were asked for.
    pub(super) latest: u64,
    /// What the rule has in a snapshot was asked for.
    pub(super) snapshot: bool,
    pub(super) heard: Vec<u64>,
    pub(super) asked: Moment,
}

impl Log {
    pub(super) fn check_deferred(&self) -> Checked {
        self.passed.iter().try_for_each(|passed| self.check_passed(passed))?;
        self.firsts.iter().try_for_each(|first| self.check_first(first))
    }

    fn check_passed(&self, passed: &Passed) -> Checked {
        let Passed { topic, epoch, from, to, cause } = passed;
        let moment = cause.moment();
        for (offset, entry) in self.entries(topic, epoch, *from, *to) {
            let place = Position { epoch: epoch.clone(), offset };
            let is_over = entry.is_over(moment.at);
            let (invariant, says) = match cause {
                _ if is_over => continue,
                Cause::Ended(_) => (Invariant::Gap, "is left out"),
                Cause::Conflated(_) if entry.content.is_delete() => {
                    (Invariant::Conflation, "is a delete and is passed over")
                }
                Cause::Conflated(_) if self.has_successor(topic, &place, entry, moment) => continue,
                Cause::Conflated(_) => {
                    (Invariant::Conflation, "is passed over, and is the last of its key")
                }
                Cause::Gone(_) => {
                    let top = self.top_possible(topic, epoch, moment.record);
                    if !self.must_hold(topic, &place, top, moment.at) {
                        continue;
                    }
                    (Invariant::Gap, "is told as gone, and history must hold it")
                }
            };
            let says = format!("{place:?} {says}: {entry:?}");
            return Err(fault_at(invariant, topic, says, moment.record));
        }
        Ok(())
    }

    /// Whether there may have been a later message of the same key before this moment.
    fn has_successor(&self, topic: &str, place: &Position, entry: &Entry, moment: Moment) -> bool {
        let key = &entry.content.key;
        let mut later = self.entries(topic, &place.epoch, place.offset + 1, u64::MAX);
        later.any(|(_, later)| later.content.key == *key && later.sent.record < moment.record)
            || self.may_have_said(topic, &place.epoch, key, moment.record)
    }

    fn check_first(&self, first: &First) -> Checked {
        let First { topic, epoch, seam, latest, snapshot, heard, asked } = first;
        let rule = self.rule(topic);
        let keys_max = rule.keys_max.filter(|_| *snapshot);
        let at = |offset| Position { epoch: epoch.clone(), offset };
        let is_late = |offset: u64| offset + latest > *seam;
        let mut older = 0;
        for offset in heard.iter().copied().filter(|offset| !is_late(*offset)) {
            older += 1;
            let entry = self.entries(topic, epoch, offset, offset).next();
            let is_newest = entry.is_none_or(|(_, entry)| {
                let mut newer = self.entries(topic, epoch, offset + 1, *seam);
                !newer.any(|(_, newer)| newer.content.key == entry.content.key)
            });
            if keys_max.is_none() || !is_newest {
                let says = format!("{offset} is not among what {first:?} asks for");
                return Err(fault_at(Invariant::Seam, topic, says, asked.record));
            }
        }
        if keys_max.is_some_and(|most| older > most) {
            let says = format!("{older} keys are sent by {first:?}, the rule has {keys_max:?}");
            return Err(fault_at(Invariant::Bound, topic, says, asked.record));
        }
        for (offset, entry) in self.entries(topic, epoch, 1, *seam) {
            if heard.contains(&offset) || entry.is_over(asked.at) {
                continue;
            }
            let is_wanted = is_late(offset) && self.must_hold(topic, &at(offset), *seam, asked.at);
            let is_key = keys_max.is_some() && self.ends_key(topic, &at(offset), *seam, entry);
            if is_wanted || is_key {
                let says = format!("{offset} is not among what {first:?} was sent");
                return Err(fault_at(Invariant::Ack, topic, says, asked.record));
            }
        }
        Ok(())
    }

    /// Whether a key had this message as its latest one, for certain.
    fn ends_key(&self, topic: &str, place: &Position, seam: u64, entry: &Entry) -> bool {
        let key = &entry.content.key;
        let mut later = self.entries(topic, &place.epoch, place.offset + 1, seam);
        !entry.content.is_delete()
            && !later.any(|(_, later)| later.content.key == *key)
            && !self.may_have_said(topic, &place.epoch, key, usize::MAX)
    }
}

impl Cause {
    fn moment(self) -> Moment {
        match self {
            Cause::Conflated(moment) | Cause::Ended(moment) | Cause::Gone(moment) => moment,
        }
    }
}

fn fault_at(invariant: Invariant, topic: &str, says: String, record: usize) -> Fault {
    let topic = Some(topic.to_owned());
    Fault { invariant, connection: None, topic, says, record: Some(record) }
}
