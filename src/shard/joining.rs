//! Subscribing and unsubscribing, without a seam between past and live messages.
//! # Invariants: when a join returns, every message up to its seam has been offered to those who
//! were subscribed before, and every later one waits behind it in the inbox.
//! # Not here: permission and limits (`session`).

use super::Shard;
use super::connection::ConnectionId;
use super::cursor::{Cursor, Mode};
use super::outbound::Socket;
use super::subscribers::{Departure, Member, Place, Wanted};
use crate::planted::{self, Bug};
use crate::reason::{Reason, Refusal};
use crate::topics::message::{Message, Offset, Stream};
use crate::topics::name::{Target, TopicFilter, TopicName};
use crate::topics::terms::{Policy, Terms};
use crate::topics::topic::{Ask, Seam};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Which connection joins, and on what terms.
#[derive(Clone, Copy, Debug)]
pub struct Joiner {
    /// The connection.
    pub connection: ConnectionId,
    /// What it asks for.
    pub terms: Terms,
}

/// Whether who leaves was there, as far as presence is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaver {
    Member,
    Stranger,
}

/// What a filter subscription wants from the past of one topic.
#[derive(Clone, Debug)]
pub struct FilterAsk {
    /// Which topic.
    pub topic: TopicName,
    /// What of it.
    pub ask: Ask,
}

impl<S: Socket> Shard<S> {
    /// Subscribes a connection to a topic.
    ///
    /// # Errors
    /// [`Reason::AlreadySubscribed`], and those of
    /// [`Registry::join`](crate::topics::registry::Registry::join).
    pub fn join_topic(
        &mut self,
        joiner: Joiner,
        topic: &TopicName,
        ask: &Ask,
    ) -> Result<Seam, Reason> {
        let target = Target::Topic(topic.clone());
        if self.has(joiner.connection, &target) {
            return Err(Reason::AlreadySubscribed);
        }
        let seam = self.registry.join(topic, ask, &mut self.inbox, self.now)?;
        self.joining = Some(Wanted::Messages(target.clone()));
        // All of it was posted before the seam, so it is for those who were there before.
        self.settle();
        self.settle_cursors(joiner.connection, &target);
        let member = self.member(joiner);
        let (place, index) =
            self.subscribers.enter_topic(&seam.head, (seam.top, seam.heard), member);
        self.joining = None;
        self.note_membership(joiner.connection, place, index);
        self.counters.topic_subscriptions.increment();
        self.begin_quiet(&seam.head);
        self.hold_behind(joiner, &seam);
        Ok(seam)
    }

    /// Subscribes a connection to every topic that a filter matches, and joins the past of some of
    /// them: one seam for each ask, `None` where there is no such topic. `asks` is called when the
    /// filter is in force, so a topic that it does not find is one whose messages are all to come.
    ///
    /// # Errors
    /// [`Reason::AlreadySubscribed`]; [`Reason::SnapshotTooLarge`] when the asks have no room; and
    /// what `asks` refuses.
    pub fn join_filter(
        &mut self,
        joiner: Joiner,
        filter: &TopicFilter,
        asks: impl FnOnce() -> Result<Vec<FilterAsk>, Refusal>,
    ) -> Result<Vec<Option<Seam>>, Refusal> {
        let target = Target::Filter(filter.clone());
        if self.has(joiner.connection, &target) {
            return Err(Reason::AlreadySubscribed.into());
        }
        if !self.subscribers.has_group(filter) {
            self.registry.join_filter(filter, self.inbox.shard);
        }
        self.joining = Some(Wanted::Messages(target.clone()));
        // What waits in the mailbox is from before, and there may be a hole behind it: the shard did
        // not always want these topics.
        if !planted::is(Bug::StaleMailbox) {
            self.registry.collect(&mut self.inbox);
        }
        self.settle();
        let seams = match asks().and_then(|asks| Ok(self.seams(asks)?)) {
            Ok(seams) => seams,
            Err(refusal) => {
                // Nothing has changed: what is in the inbox is for those who are there.
                self.joining = None;
                if !self.subscribers.has_group(filter) {
                    self.registry.leave_filter(filter, self.inbox.shard);
                }
                return Err(refusal);
            }
        };
        self.settle_before(filter, seams.iter().flatten());
        self.settle_cursors(joiner.connection, &target);
        self.settle_replayed(joiner.connection, seams.iter().flatten());
        let member = self.member(joiner);
        let audience = || self.registry.audience_of(filter);
        let (place, index) = self.subscribers.enter_group(filter, member, audience);
        self.joining = None;
        self.note_membership(joiner.connection, place, index);
        self.counters.filter_subscriptions.increment();
        for seam in seams.iter().flatten() {
            self.watch_quiet(&seam.head, seam.top, seam.heard);
            self.hold_behind(joiner, seam);
        }
        Ok(seams)
    }

    /// Looks at the past and the present of a topic, if it is there, and joins nothing.
    ///
    /// # Errors
    /// Those of [`Registry::seam`](crate::topics::registry::Registry::seam).
    pub fn peek(&mut self, topic: &TopicName, ask: &Ask) -> Result<Option<Seam>, Reason> {
        self.registry.seam(topic, ask, &mut self.inbox, self.now)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`Reason::NotSubscribed`].
    pub fn leave(&mut self, id: ConnectionId, target: &Target) -> Result<(), Reason> {
        self.leave_as(id, target, Leaver::Member)
    }

    /// Ends a subscription that has just begun and that [`Shard::enter`] has refused: nobody was
    /// told that somebody came.
    ///
    /// # Errors
    /// [`Reason::NotSubscribed`].
    pub fn retract(&mut self, id: ConnectionId, target: &Target) -> Result<(), Reason> {
        self.leave_as(id, target, Leaver::Stranger)
    }

    fn leave_as(
        &mut self,
        id: ConnectionId,
        target: &Target,
        leaver: Leaver,
    ) -> Result<(), Reason> {
        self.settle_cursors(id, target);
        let place = self.subscribers.place(target).ok_or(Reason::NotSubscribed)?;
        let connection = self.connection_mut(id).ok_or(Reason::NotSubscribed)?;
        let index = connection.memberships.remove(place).ok_or(Reason::NotSubscribed)?;
        connection.filters -= u32::from(place.is_group());
        self.depart(id, place, index, leaver);
        if let Target::Topic(topic) = target {
            self.leave_watch(id, topic);
        }
        Ok(())
    }

    fn leave_watch(&mut self, id: ConnectionId, topic: &TopicName) {
        let Some(place) = self.subscribers.watch_place(topic) else { return };
        let Some(connection) = self.connection_mut(id) else { return };
        let Some(index) = connection.memberships.remove(place) else { return };
        connection.watches -= 1;
        if let Some(companion) = self.subscribers.topic_at(place).map(|local| local.head.id) {
            self.end_cursor(id, companion);
        }
        self.depart(id, place, index, Leaver::Member);
    }

    /// Changes the terms of a subscription; what was passed over under the old ones is sent or told
    /// first, where the new ones would not come to it. Returns the terms that it has now.
    ///
    /// # Errors
    /// [`Reason::NotSubscribed`].
    pub fn update(
        &mut self,
        id: ConnectionId,
        target: &Target,
        change: impl FnOnce(Terms) -> Terms,
    ) -> Result<Terms, Reason> {
        self.write_pending(id);
        let place = self.subscribers.place(target).ok_or(Reason::NotSubscribed)?;
        let connection = self.connection(id).ok_or(Reason::NotSubscribed)?;
        let index = connection.memberships.get(place).ok_or(Reason::NotSubscribed)?;
        let member = self.subscribers.member_mut(place, index).ok_or(Reason::NotSubscribed)?;
        let terms = change(member.terms);
        // Cursors end under the old terms, and go on under the new ones.
        let cursors = self.cursors_in(id, target);
        for (topic, cursor) in &cursors {
            let conflates = terms.policy.conflates() || cursor.mode == Mode::CatchUp;
            if (!conflates || cursor.mode == Mode::Gap) && planted::is(Bug::UpdateForgets) {
                self.end_cursor(id, *topic);
            } else if !conflates || cursor.mode == Mode::Gap {
                self.finish_cursor(id, *topic, *cursor);
            }
        }
        if let Some(member) = self.subscribers.member_mut(place, index)
            && !planted::is(Bug::UpdateIgnored)
        {
            member.terms = terms;
        }
        for (topic, _) in cursors {
            self.set_pace(id, topic);
        }
        Ok(terms)
    }

    /// Holds a connection to its rate when it was sent messages of the past.
    fn hold_behind(&mut self, joiner: Joiner, seam: &Seam) {
        if seam.replay.is_empty() {
            return;
        }
        let id = joiner.connection;
        if matches!(joiner.terms.policy.capped(seam.head.rule.cap), Policy::MaxHz(_)) {
            // A filter may bring the past of a topic of which nothing live has come here yet.
            self.subscribers.track(&seam.head, seam.top, seam.heard);
        }
        let memberships = self.connection(id).map(|connection| &connection.memberships);
        let policy = memberships.and_then(|all| self.subscribers.policy_of(all, seam.head.id));
        let has_cursor = self.connection(id).is_some_and(|c| c.cursor(seam.head.id).is_some());
        if let Some(Policy::MaxHz(rate)) = policy.filter(|_| !has_cursor)
            && let Some(local) = self.subscribers.topic_mut(seam.head.id)
        {
            local.begin_cursor(Mode::Conflate);
            let cursor = Cursor::waiting(seam.top, Mode::Conflate);
            self.hold(id, seam.head.id, rate, cursor);
        }
    }

    /// Whether a connection has exactly this subscription.
    pub fn has(&self, id: ConnectionId, target: &Target) -> bool {
        self.subscribers.place(target).is_some_and(|place| {
            self.connection(id).is_some_and(|c| c.memberships.get(place).is_some())
        })
    }

    /// What a connection is subscribed to.
    pub fn targets(&self, id: ConnectionId) -> Vec<Target> {
        let connection = self.connection(id);
        connection.map_or_else(Vec::new, |c| self.subscribers.targets(&c.memberships))
    }

    /// How many subscriptions a connection has, filters among them.
    pub fn subscription_count(&self, id: ConnectionId) -> usize {
        self.connection(id)
            .map_or(0, |connection| connection.memberships.len() - connection.watches as usize)
    }

    /// How many filters a connection has.
    pub fn filter_count(&self, id: ConnectionId) -> usize {
        self.connection(id).map_or(0, |connection| connection.filters as usize)
    }

    pub(super) fn leave_all(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection_mut(id) else { return };
        connection.filters = 0;
        connection.watches = 0;
        let memberships = std::mem::take(&mut connection.memberships);
        if !planted::is(Bug::CursorsLeft) {
            self.end_cursors(id);
        }
        for (place, index) in memberships.iter() {
            self.depart(id, place, index, Leaver::Member);
        }
    }

    /// Joins the past of each topic. The topics are locked one after the other, so messages that
    /// were posted between the first and the last are in the inbox on both sides of the seams.
    fn seams(&mut self, asks: Vec<FilterAsk>) -> Result<Vec<Option<Seam>>, Reason> {
        let mut room = asks.first().map(|first| first.ask.room).unwrap_or_default();
        let mut seams = Vec::with_capacity(asks.len());
        for FilterAsk { topic, ask } in asks {
            let ask = Ask { room, ..ask };
            let seam = self.registry.seam(&topic, &ask, &mut self.inbox, self.now)?;
            room = seam.as_ref().map_or(room, |seam| room.less(&seam.replay));
            seams.push(seam);
        }
        Ok(seams)
    }

    /// Offers what is older than the seams, and keeps what is newer. Order within a topic stays:
    /// of one topic all that is older was posted before all that is newer. A topic without a seam
    /// began after the filter was in force, or nobody asked for its past: all of it is newer.
    fn settle_before<'a>(&mut self, filter: &TopicFilter, seams: impl Iterator<Item = &'a Seam>) {
        let tops: HashMap<u64, Offset> = seams.map(|seam| (seam.head.id, seam.top)).collect();
        let newer = |message: &Arc<Message>| match tops.get(&message.head.id) {
            Some(top) => message.offset > *top,
            None => filter.matches(&message.head.name),
        };
        let all = std::mem::take(&mut self.inbox.queue);
        let (newer, older): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(newer);
        self.inbox.queue = older;
        self.settle();
        self.inbox.queue = newer;
    }

    /// Brings a connection to the present of topics whose past it is about to be sent: also where
    /// another subscription of its own goes on.
    fn settle_replayed<'a>(&mut self, id: ConnectionId, seams: impl Iterator<Item = &'a Seam>) {
        for seam in seams {
            let cursor = self.connection(id).and_then(|c| c.cursor(seam.head.id));
            if let Some(cursor) = cursor {
                self.finish_cursor(id, seam.head.id, cursor);
            }
        }
    }

    fn member(&self, joiner: Joiner) -> Member {
        Member { connection: joiner.connection.slot, terms: joiner.terms, joined: self.sequence }
    }

    pub(super) fn note_membership(&mut self, id: ConnectionId, place: Place, index: u32) {
        if let Some(connection) = self.connection_mut(id) {
            connection.memberships.insert(place, index);
            connection.filters += u32::from(place.is_group());
        }
    }

    fn depart(&mut self, id: ConnectionId, place: Place, index: u32, leaver: Leaver) {
        let local = self.subscribers.topic_at(place);
        let is_watch = local.is_some_and(|local| local.head.stream == Stream::Presence);
        let local = local.filter(|local| local.keeps_presence() && leaver == Leaver::Member);
        let local = local.filter(|_| !planted::is(Bug::MemberStays));
        if let Some(head) = local.map(|local| Arc::clone(&local.head)) {
            self.exit(id, &head);
        }
        let Departure { moved, ended } = self.subscribers.depart(place, index);
        if let Some(moved) = moved.filter(|_| !planted::is(Bug::MovedUntold))
            && let Some(connection) = self.connections.get_mut(moved.connection as usize)
        {
            connection.memberships.insert(moved.place, moved.index);
        }
        if place.is_group() {
            self.counters.filter_subscriptions.decrement();
        } else if !is_watch {
            self.counters.topic_subscriptions.decrement();
        }
        match ended {
            // The last subscriber was closed while what it still had was written. The shard goes on
            // wanting this, for the one who joins.
            Some(wanted)
                if self.joining.as_ref() == Some(&wanted) && !planted::is(Bug::InterestLost) => {}
            Some(Wanted::Messages(Target::Topic(topic))) => {
                self.registry.leave(&topic, self.inbox.shard, self.now);
            }
            Some(Wanted::Messages(Target::Filter(filter))) => {
                self.registry.leave_filter(&filter, self.inbox.shard);
            }
            Some(Wanted::Presence(topic)) => self.registry.unwatch(&topic, self.inbox.shard),
            None => {}
        }
    }
}
