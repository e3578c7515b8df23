//! What happens at its time: a rate allows the next message, a topic has been quiet for too long.
//! # Invariants: one wheel for all of a shard, and no timer anywhere else; a cursor that is held is in
//! the wheel, and an entry whose tick is not the cursor's does nothing.
//! # Not here: sleeping (`worker` asks [`Shard::next_due`]), sending (`serving`).

use super::Shard;
use super::connection::ConnectionId;
use super::cursor::Cursor;
use super::outbound::Socket;
use crate::clock::Now;
use crate::planted::{self, Bug};
use crate::topics::terms::{Policy, Rate};
use std::time::Duration;

/// Slots of the wheel, each of a millisecond: rates from 1 Hz on go round it once.
pub(super) const SLOTS: usize = 1024;

/// What is due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// The rate of a subscription holds its cursor no longer.
    Cursor { id: ConnectionId, topic: u64, tick: u64 },
    /// A topic may have become stale.
    Quiet { topic: u64, tick: u64 },
}

/// The wheel's tick at this time.
pub(super) fn tick_of(uptime: Duration) -> u64 {
    u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
}

/// The first tick at which a rate allows another message after one that is sent now. The present
/// millisecond has begun already, so it does not count.
pub(super) fn after(now: Now, rate: Rate) -> u64 {
    let interval =
        if planted::is(Bug::RateExceeded) { rate.interval() / 2 } else { rate.interval() };
    tick_of(now.uptime + interval) + 1
}

impl<S: Socket> Shard<S> {
    /// When [`Shard::turn`] should be called though nothing has been posted, by the clock that the
    /// shard is told.
    pub fn next_due(&self) -> Option<Duration> {
        self.pace.next().map(Duration::from_millis)
    }

    /// Does what is due.
    pub(super) fn keep_pace(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.pace.advance(tick_of(self.now.uptime), &mut due);
        for due in due.drain(..) {
            match due {
                Due::Cursor { id, topic, tick } => self.release(id, topic, tick),
                Due::Quiet { topic, tick } => self.judge_quiet(topic, tick),
            }
        }
        self.due = due;
    }

    /// Lets a cursor go on whose rate held it until now.
    fn release(&mut self, id: ConnectionId, topic: u64, tick: u64) {
        let Some(connection) = self.open_connection_mut(id) else { return };
        let cursor = connection.cursor(topic);
        let Some(cursor) = cursor.filter(|cursor| cursor.held == Some(tick)) else { return };
        let top = self.subscribers.topic(topic).map(|local| local.top);
        if top.is_none_or(|top| cursor.since >= top) || planted::is(Bug::TrailingLost) {
            self.end_cursor(id, topic);
            return;
        }
        if let Some(connection) = self.connection_mut(id) {
            connection.set_cursor(topic, Cursor { held: None, ..cursor });
        }
        self.flush(id);
    }

    /// Holds a cursor behind something that is being sent now.
    pub(super) fn hold(&mut self, id: ConnectionId, topic: u64, rate: Rate, cursor: Cursor) {
        let until = after(self.now, rate);
        let Some(connection) = self.connection_mut(id) else { return };
        connection.set_cursor(topic, Cursor { held: Some(until), ..cursor });
        self.pace.insert(until, Due::Cursor { id, topic, tick: until });
    }

    /// Has a cursor go by the rate that its subscription has now, at the latest when the old one
    /// would have let it go.
    pub(super) fn set_pace(&mut self, id: ConnectionId, topic: u64) {
        let Some(connection) = self.connection(id) else { return };
        let cursor = connection.cursor(topic);
        let Some((cursor, until)) = cursor.and_then(|cursor| Some((cursor, cursor.held?))) else {
            return;
        };
        let policy = self.subscribers.policy_of(&connection.memberships, topic);
        let until = match policy {
            Some(Policy::MaxHz(rate)) => until.min(after(self.now, rate)),
            _ => tick_of(self.now.uptime),
        };
        if let Some(connection) = self.connection_mut(id) {
            connection.set_cursor(topic, Cursor { held: Some(until), ..cursor });
            self.pace.insert(until, Due::Cursor { id, topic, tick: until });
        }
    }
}
