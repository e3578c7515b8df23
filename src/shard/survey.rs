//! What whoever operates the broker is shown of connections, and how they are found.
//! # Invariants: one look passes a bounded number of places, so that no shard is held up however many
//! connections it has; nothing changes.
//! # Not here: how it is asked for and spelled (`http`).

use super::Shard;
use super::connection::{Connection, ConnectionId};
use super::outbound::Socket;
use crate::topics::message::Wire;
use crate::topics::name::{Target, TopicName};
use std::time::Duration;

/// Places that one look passes: some 50 µs.
const LOOKED_AT_MAX: usize = 4_096;

/// What one look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// In the order of their places.
    pub found: Vec<ConnectionId>,
    /// The place to go on at, unless the end was reached.
    pub next: Option<u32>,
}

/// One connection in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What others call it.
    pub name: String,
    /// Who it has shown to be.
    pub subject: Option<Box<str>>,
    /// How its bytes are laid out.
    pub wire: Wire,
    /// For how long it is there, to the second.
    pub age: Duration,
    /// Topics and filters that it is subscribed to.
    pub subscriptions: usize,
    /// Bytes that wait for it.
    pub waiting: usize,
    /// Topics on which it is behind.
    pub behind: usize,
    /// Bytes that its socket has taken.
    pub sent: u64,
    /// Whether it has begun to close.
    pub is_closing: bool,
}

impl ConnectionId {
    /// The place that it has in its shard: a number that is used again when it has gone.
    pub fn place(self) -> u32 {
        self.slot
    }

    /// A name as [`Shard::name_of`] makes them, as the number of the shard and the connection's.
    pub fn parse(name: &str) -> Option<(usize, ConnectionId)> {
        let (shard, rest) = name.split_once('-')?;
        let (slot, generation) = rest.split_once('.')?;
        let id = ConnectionId { slot: number(slot)?, generation: number(generation)? };
        Some((usize::try_from(number(shard)?).ok()?, id))
    }
}

/// Digits, without the sign that `parse` would take.
fn number(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|_| !digits.starts_with('+'))
}

impl<S: Socket> Shard<S> {
    /// Looks for connections from a place on: at most `max` of those that are wanted.
    pub fn look(
        &self,
        from: u32,
        max: usize,
        wanted: impl Fn(&Self, ConnectionId) -> bool,
    ) -> Look {
        let end = self.connections.capacity();
        let from = from as usize;
        let stop = end.min(from.saturating_add(LOOKED_AT_MAX));
        let mut found = Vec::new();
        for slot in from..stop {
            let Some(connection) = self.connections.get(slot) else { continue };
            let generation = connection.generation;
            let id = ConnectionId { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation };
            if !wanted(self, id) {
                continue;
            }
            if found.len() == max {
                return Look { found, next: Some(id.slot) };
            }
            found.push(id);
        }
        Look { found, next: u32::try_from(stop).ok().filter(|_| stop < end) }
    }

    /// How much a connection lags: the bytes that wait for it and the topics that it is behind on.
    pub fn lag(&self, id: ConnectionId) -> (usize, usize) {
        let lag = |connection: &Connection<S>| {
            let behind = connection.cursors.as_ref().map_or(0, |cursors| cursors.waiting());
            (connection.waiting() + self.replies.bytes(id), behind)
        };
        self.connection(id).map(lag).unwrap_or_default()
    }

    /// A connection in a few numbers.
    pub fn sighting(&self, id: ConnectionId) -> Option<Sighting> {
        let connection = self.connection(id)?;
        let (waiting, behind) = self.lag(id);
        let opened = Duration::from_secs(connection.opened.into());
        Some(Sighting {
            name: self.name_of(id),
            subject: self.identity(id).map(|identity| identity.subject.clone()),
            wire: connection.wire,
            age: self.now.uptime.saturating_sub(opened),
            subscriptions: connection.memberships.len() - connection.watches as usize,
            waiting,
            behind,
            sent: connection.sent,
            is_closing: !connection.is_open(),
        })
    }

    /// How many subscriptions on this shard a topic's messages are for: those to the topic and those
    /// to filters that match it.
    pub fn subscribers_of(&self, topic: &TopicName) -> usize {
        self.subscribers.member_count(topic)
    }

    /// What a connection is subscribed to, sorted; at most `max` of it.
    pub fn subscriptions(&self, id: ConnectionId, max: usize) -> Vec<Target> {
        let Some(connection) = self.connection(id) else { return Vec::new() };
        let mut targets = self.subscribers.some_targets(&connection.memberships, max);
        targets.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        targets
    }
}
