//! Subscribing and unsubscribing, without a seam between past and live messages.
//! # Invariants: when a join returns, every message up to its seam has been offered to those who
//! were subscribed before, and every later one waits behind it in the inbox.
//! # Not here: permission and limits (`session`).

use super::Shard;
use super::connection::ConnectionId;
use super::outbound::Socket;
use super::subscribers::{Departure, Member, Place};
use crate::dialect::Overflow;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use crate::topics::message::{Message, Offset};
use crate::topics::name::{Target, TopicFilter, TopicName};
use crate::topics::topic::{Ask, Seam};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Which connection joins, and on what terms.
#[derive(Clone, Copy, Debug)]
pub struct Joiner {
    /// The connection.
    pub connection: ConnectionId,
    /// What happens when it falls behind.
    pub overflow: Overflow,
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
        self.joining = Some(target);
        // All of it was posted before the seam, so it is for those who were there before.
        self.settle();
        self.tell_missed(joiner.connection);
        let member = self.member(joiner);
        let (place, index) = self.subscribers.enter_topic(&seam.head, member);
        self.joining = None;
        self.note_membership(joiner.connection, place, index);
        self.counters.topic_subscriptions.increment();
        Ok(seam)
    }

    /// Subscribes a connection to every topic that a filter matches, and joins the past of some of
    /// them: one seam for each ask, `None` where there is no such topic.
    ///
    /// # Errors
    /// [`Reason::AlreadySubscribed`]; [`Reason::SnapshotTooLarge`] when the asks have no room.
    pub fn join_filter(
        &mut self,
        joiner: Joiner,
        filter: &TopicFilter,
        asks: &mut [FilterAsk],
    ) -> Result<Vec<Option<Seam>>, Reason> {
        let target = Target::Filter(filter.clone());
        if self.has(joiner.connection, &target) {
            return Err(Reason::AlreadySubscribed);
        }
        if !self.subscribers.has_group(filter) {
            self.registry.join_filter(filter, self.inbox.shard);
        }
        self.joining = Some(target);
        // What waits in the mailbox is from before, and there may be a hole behind it: the shard did
        // not always want these topics.
        if !planted::is(Bug::StaleMailbox) {
            self.registry.collect(&mut self.inbox);
        }
        let seams = self.seams(asks);
        self.settle_before(seams.iter().flatten().flatten());
        self.tell_missed(joiner.connection);
        let member = self.member(joiner);
        let (place, index) = self.subscribers.enter_group(filter, member);
        self.joining = None;
        self.note_membership(joiner.connection, place, index);
        self.counters.filter_subscriptions.increment();
        if seams.is_err() {
            self.leave(joiner.connection, &Target::Filter(filter.clone()))?;
        }
        seams
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`Reason::NotSubscribed`].
    pub fn leave(&mut self, id: ConnectionId, target: &Target) -> Result<(), Reason> {
        self.tell_missed(id);
        let place = self.subscribers.place(target).ok_or(Reason::NotSubscribed)?;
        let connection = self.connection_mut(id).ok_or(Reason::NotSubscribed)?;
        let index = connection.memberships.remove(&place).ok_or(Reason::NotSubscribed)?;
        connection.filters -= u32::from(place.is_group());
        self.depart(place, index);
        Ok(())
    }

    /// Whether a connection has exactly this subscription.
    pub fn has(&self, id: ConnectionId, target: &Target) -> bool {
        self.subscribers.place(target).is_some_and(|place| {
            self.connection(id).is_some_and(|c| c.memberships.contains_key(&place))
        })
    }

    /// How many subscriptions a connection has, filters among them.
    pub fn subscription_count(&self, id: ConnectionId) -> usize {
        self.connection(id).map_or(0, |connection| connection.memberships.len())
    }

    /// How many filters a connection has.
    pub fn filter_count(&self, id: ConnectionId) -> usize {
        self.connection(id).map_or(0, |connection| connection.filters as usize)
    }

    pub(super) fn leave_all(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection_mut(id) else { return };
        connection.filters = 0;
        for (place, index) in std::mem::take(&mut connection.memberships) {
            self.depart(place, index);
        }
    }

    /// Joins the past of each topic. The topics are locked one after the other, so messages that
    /// were posted between the first and the last are in the inbox on both sides of the seams.
    fn seams(&mut self, asks: &mut [FilterAsk]) -> Result<Vec<Option<Seam>>, Reason> {
        let mut room = asks.first().map(|first| first.ask.room).unwrap_or_default();
        let mut seams = Vec::with_capacity(asks.len());
        for FilterAsk { topic, ask } in asks {
            ask.room = room;
            let seam = self.registry.seam(topic, ask, &mut self.inbox, self.now)?;
            room = seam.as_ref().map_or(room, |seam| room.less(&seam.replay));
            seams.push(seam);
        }
        Ok(seams)
    }

    /// Offers what is older than the seams, and keeps what is newer. Order within a topic stays:
    /// of one topic all that is older was posted before all that is newer.
    fn settle_before<'a>(&mut self, seams: impl Iterator<Item = &'a Seam>) {
        let tops: HashMap<u64, Offset> = seams.map(|seam| (seam.head.id, seam.top)).collect();
        let newer = |message: &Arc<Message>| {
            tops.get(&message.head.id).is_some_and(|top| message.offset > *top)
        };
        let all = std::mem::take(&mut self.inbox.queue);
        let (newer, older): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(newer);
        self.inbox.queue = older;
        self.settle();
        self.inbox.queue = newer;
    }

    fn member(&self, joiner: Joiner) -> Member {
        Member {
            connection: joiner.connection.slot,
            overflow: joiner.overflow,
            joined: self.sequence,
        }
    }

    fn note_membership(&mut self, id: ConnectionId, place: Place, index: u32) {
        if let Some(connection) = self.connection_mut(id) {
            connection.memberships.insert(place, index);
            connection.filters += u32::from(place.is_group());
        }
    }

    fn depart(&mut self, place: Place, index: u32) {
        let Departure { moved, ended } = self.subscribers.depart(place, index);
        if let Some(moved) = moved.filter(|_| !planted::is(Bug::MovedUntold))
            && let Some(connection) = self.connections.get_mut(moved.connection as usize)
        {
            connection.memberships.insert(moved.place, moved.index);
        }
        let gauge = if place.is_group() {
            &self.counters.filter_subscriptions
        } else {
            &self.counters.topic_subscriptions
        };
        gauge.decrement();
        match ended {
            // The last subscriber was closed while what it still had was written. The shard goes on
            // wanting this, for the one who joins.
            Some(target)
                if self.joining.as_ref() == Some(&target) && !planted::is(Bug::InterestLost) => {}
            Some(Target::Topic(topic)) => {
                self.registry.leave(&topic, self.inbox.shard, self.now);
            }
            Some(Target::Filter(filter)) => {
                self.registry.leave_filter(&filter, self.inbox.shard);
            }
            None => {}
        }
    }
}
