//! Who is told to be there, and who is.
//! # Not here: messages (`stream`).

use super::stream::Stream;
use super::{Checked, Invariant, fault};
use crate::history::{Member, Promise, Roster};
use std::collections::{BTreeMap, BTreeSet};

/// What a connection knows of who is subscribed to a topic.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Who is there, from when it was told all of them.
    known: Option<BTreeSet<Member>>,
    /// Who has come and gone last.
    changes: BTreeMap<String, Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Joined,
    Left,
}

impl Watch {
    fn change(&mut self, member: &Member, change: Change) -> bool {
        let before = self.changes.insert(member.connection.clone(), change);
        if let Some(known) = &mut self.known {
            match change {
                Change::Joined => drop(known.insert(member.clone())),
                Change::Left => known.retain(|other| other.connection != member.connection),
            }
        }
        before != Some(change)
    }
}

impl Stream {
    pub(super) fn told_change(&mut self, topic: &str, member: &Member, change: Change) -> Checked {
        let Some(watch) = self.watches.get_mut(topic) else {
            let says = format!("{change:?} {member:?} is told and was not asked for");
            return fault(Invariant::Uninvited, topic, says);
        };
        if !watch.change(member, change) {
            let says = format!("{member:?} has {change:?} twice");
            return fault(Invariant::Presence, topic, says);
        }
        Ok(())
    }

    /// All who are there: as a reply, or instead of changes that the connection was too slow for.
    pub(super) fn told_roster(
        &mut self,
        id: u64,
        (topic, roster): (&str, &Roster),
        promise: &Promise,
    ) -> Checked {
        let members_max = promise.rules.get(topic).and_then(|rule| rule.members_max);
        let listed = roster.members.len() as u64;
        let is_whole = roster.members.is_sorted_by(|one, other| one.connection < other.connection)
            && roster.more == (roster.count > listed)
            && roster.count >= listed
            && members_max.is_some_and(|most| listed <= most);
        if !is_whole {
            let says = format!("{roster:?} is not well made, the rule has {members_max:?}");
            return fault(Invariant::Presence, topic, says);
        }
        match self.watches.get_mut(topic) {
            Some(watch) => {
                watch.known = Some(roster.members.iter().cloned().collect());
                if id == 0 {
                    watch.changes.clear();
                }
                Ok(())
            }
            None if id == 0 => {
                fault(Invariant::Uninvited, topic, format!("{roster:?} was not asked for"))
            }
            None => Ok(()),
        }
    }
}

/// Everybody who watches knows who is subscribed, and so does the broker.
pub(super) fn check(
    streams: &BTreeMap<u64, Stream>,
    rosters: &BTreeMap<String, Roster>,
    promise: &Promise,
) -> Checked {
    for (topic, rule) in &promise.rules {
        let Some(members_max) = rule.members_max else { continue };
        let member = |stream: &Stream| {
            let name = stream.subscriptions.get(topic)?.name.clone();
            Some(Member { connection: stream.called.clone(), name })
        };
        let there: BTreeSet<Member> = streams.values().filter_map(member).collect();
        let listed = |known: &BTreeSet<Member>| {
            // Beyond the bound members are counted only, in the order in which they came.
            if members_max >= PLENTY { *known == there } else { known.is_subset(&there) }
        };
        let roster = rosters.get(topic).cloned().unwrap_or_default();
        let known: BTreeSet<Member> = roster.members.iter().cloned().collect();
        if roster.count != there.len() as u64 || !listed(&known) {
            let says = format!("{there:?} are there, and the broker has {roster:?}");
            return fault(Invariant::Presence, topic, says);
        }
        for (number, stream) in streams {
            let known = stream.watches.get(topic).and_then(|watch| watch.known.as_ref());
            if let Some(known) = known.filter(|known| !listed(known)) {
                let says = format!("{there:?} are there, and {number} was told {known:?}");
                return fault(Invariant::Presence, topic, says);
            }
        }
    }
    Ok(())
}

/// More members than there are clients.
const PLENTY: u64 = 50;
