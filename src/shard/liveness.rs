//! Who is still there: pings, stalled writers, closes that take too long.
//! One wheel per shard; a connection costs one entry in it and no timer of its own.
//! # Invariants: every connection is in the wheel at its `due` tick; entries whose tick is not the
//! connection's `due` are stale and do nothing.
//! # Not here: sleeping (`worker` calls [`Shard::tick`] once a second).

use super::Shard;
use super::connection::{ConnectionId, Phase};
use super::outbound::Socket;
use crate::dialect::{Event, frame};
use crate::planted::{self, Bug};
use crate::reason::Reason;
use std::num::NonZeroU32;
use std::time::Duration;

/// How often a shard looks after its connections.
pub const TICK: Duration = Duration::from_secs(1);

/// How long a closing connection may take to send what is left and to hear the peer's answer.
pub(super) const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Ticks after which a topic that only filters want is forgotten by its shard.
const QUIET_TICKS: u32 = 60;

/// Slots of the wheel: a ping is the furthest thing that most connections wait for.
pub(super) const SLOTS: usize = 64;

/// What is left of what a peer sends when all that has arrived is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the next byte begins a message.
    None,
    /// A part of a message that had begun before.
    Same,
    /// A part of a message that has begun now.
    New,
}

fn ticks(time: Duration) -> u32 {
    let ticks = time.as_millis().div_ceil(TICK.as_millis());
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
}

impl<S: Socket> Shard<S> {
    /// Looks after the connections that are due. To be called every [`TICK`].
    pub fn tick(&mut self) {
        let mut due = Vec::new();
        self.wheel.advance(self.wheel.tick() + 1, &mut due);
        self.review();
        let tick = self.now_tick();
        for id in due {
            if self.connection(id).is_some_and(|connection| connection.due == tick) {
                self.look_after(id);
                self.schedule(id);
            }
        }
        self.measure_age();
        self.retry_exits();
        self.subscribers.sweep(tick, QUIET_TICKS);
        self.counters.local_topics.set(self.subscribers.topic_count() as u64);
    }

    /// How long the oldest outbound queue has not been empty.
    fn measure_age(&self) {
        let age = if self.counters.blocked.get() == 0 {
            0
        } else {
            let blocked = self.connections.iter().map(|(_, connection)| connection);
            let since =
                blocked.filter(|c| c.stalled_since.is_some()).map(|c| c.blocked_since).min();
            since.map_or(0, |since| self.now_tick() - since)
        };
        self.counters.outbound_age_seconds.set(u64::from(age));
    }

    /// Puts a connection into the slot of the next tick that matters to it.
    pub(super) fn schedule(&mut self, id: ConnectionId) {
        let tick = self.now_tick();
        let stall = ticks(self.options.write_stall_max);
        let pong = ticks(self.options.pong_timeout);
        let whole = ticks(self.options.message_timeout);
        let Some(connection) = self.connection_mut(id) else { return };
        let wanted = match connection.phase {
            Phase::Closing { cut_at } | Phase::Ending { cut_at } => cut_at,
            Phase::Open => {
                let stalled =
                    connection.stalled_since.map_or(u32::MAX, |since| since.saturating_add(stall));
                let silent =
                    connection.pinged.map_or(u32::MAX, |pinged| pinged.get().saturating_add(pong));
                let late = connection.late_at(tick, whole);
                connection.next_ping.min(stalled).min(silent).min(late).min(connection.expires)
            }
        };
        let due = wanted.max(tick.saturating_add(1));
        if connection.due != due {
            connection.due = due;
            self.wheel.insert(due.into(), id);
        }
    }

    /// Seconds since the shard began.
    pub(super) fn now_tick(&self) -> u32 {
        u32::try_from(self.wheel.tick()).unwrap_or(u32::MAX)
    }

    /// The tick by which this much time has passed.
    pub(super) fn tick_after(&self, time: Duration) -> u32 {
        self.now_tick().saturating_add(ticks(time))
    }

    /// The socket takes nothing: somebody must wait for it, but not for ever.
    pub(super) fn note_blocked(&mut self, id: ConnectionId) {
        let tick = self.now_tick();
        let Some(connection) = self.connection_mut(id) else { return };
        if connection.stalled_since.is_none() {
            connection.stalled_since = Some(tick);
            connection.blocked_since = tick;
            self.counters.blocked.increment();
            self.newly_blocked.extend((!planted::is(Bug::PumpForgotten)).then_some(id));
            self.schedule(id);
        }
    }

    /// The socket took something.
    pub(super) fn note_progress(&mut self, id: ConnectionId) {
        let tick = self.now_tick();
        let Some(connection) = self.connection_mut(id) else { return };
        // A peer that takes bytes is there, even if its pong waits behind others to be read.
        connection.pinged = None;
        if let Some(stalled) = &mut connection.stalled_since {
            *stalled = tick;
        }
    }

    /// Whether a pong answers one of our pings, the oldest that none has answered.
    pub fn take_pong(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection_mut(id) else { return false };
        let left = connection.unanswered.checked_sub(1);
        connection.unanswered = left.unwrap_or_default();
        left.is_some()
    }

    /// Notes what is left of what a peer has sent: a message has its time to become whole.
    pub fn note_rest(&mut self, id: ConnectionId, rest: Rest) {
        let tick = self.now_tick();
        let whole = ticks(self.options.message_timeout);
        let Some(connection) = self.connection_mut(id) else { return };
        match rest {
            Rest::None => connection.unfinished = None,
            Rest::Same if connection.unfinished.is_some() => {}
            Rest::Same | Rest::New => {
                connection.begin_message(tick);
                // A slot that comes first will look again.
                if connection.late_at(tick, whole) < connection.due {
                    self.schedule(id);
                }
            }
        }
    }

    /// A message has not become whole in time.
    fn give_up_message(&mut self, id: ConnectionId) {
        if self.is_congested(id) {
            // The rest may be here: nothing is read while the answers are not.
            self.note_rest(id, Rest::New);
        } else {
            self.close(id, &Reason::MessageTooLate.into());
        }
    }

    fn look_after(&mut self, id: ConnectionId) {
        let tick = self.now_tick();
        let stall = ticks(self.options.write_stall_max);
        let pong = ticks(self.options.pong_timeout);
        let whole = ticks(self.options.message_timeout);
        let Some(connection) = self.connection(id) else { return };
        if let Phase::Closing { cut_at } | Phase::Ending { cut_at } = connection.phase {
            if cut_at <= tick {
                connection.socket.abort();
            }
            return;
        }
        if connection.expires <= tick {
            self.expire(id);
        } else if connection.late_at(tick, whole) <= tick {
            self.give_up_message(id);
        } else if connection.stalled_since.is_some_and(|since| tick - since >= stall) {
            self.close(id, &Reason::SlowConsumer.into());
        } else if connection.pinged.is_some_and(|pinged| tick - pinged.get() >= pong) {
            self.close(id, &Reason::NoPong.into());
        } else if connection.next_ping <= tick {
            self.ping(id);
        }
    }

    fn ping(&mut self, id: ConnectionId) {
        let tick = self.now_tick();
        let next_ping = self.tick_after(self.options.ping_interval);
        let Some(connection) = self.connection_mut(id) else { return };
        connection.next_ping = next_ping;
        if connection.wire.is_web_socket() {
            // Elsewhere there is no answer to wait for: the kernel's keep-alive finds a dead peer.
            // The first tick is 1.
            connection.pinged.get_or_insert(NonZeroU32::new(tick).unwrap_or(NonZeroU32::MIN));
            // No more than can be told from pongs that nobody asked for.
            if let Some(unanswered) = connection.unanswered.checked_add(1) {
                connection.unanswered = unanswered;
                self.push(id, frame::ping(b""));
            }
        }
        self.send(id, 0, &Event::Ping);
        self.flush(id);
    }
}
