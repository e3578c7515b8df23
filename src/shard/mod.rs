//! A shard: the owned half of the broker, one per core.
//! Owns its connections, their subscriptions and their outbound queues. Nothing here is `Send`, so
//! nothing here is locked.
//! # Invariants
//! - A connection is offered a message at most once, however many of its subscriptions match.
//! - A slow connection hurts only itself: what waits for it is bounded, what it misses is told.
//! - Nothing here waits. The tokio side is `worker`; everything else can be stepped by a test.
//! # Not here: offsets and history (`topics`), reading and bytes (`ws`, `dialect`), permission
//! (`session`).

mod block;
pub mod conduit;
mod conflation;
mod connection;
mod cursor;
mod delivery;
mod farewell;
mod grant;
mod joining;
mod late;
mod liveness;
mod marks;
mod members;
mod memberships;
pub mod outbound;
mod pace;
pub mod pressure;
mod quiet;
mod replies;
mod serving;
mod standing;
pub mod stream;
mod subscribers;
mod survey;
#[cfg(test)]
mod tests;
mod turn;
mod wheel;
pub mod worker;

pub use connection::ConnectionId;
pub use delivery::Progress;
pub use farewell::Farewell;
pub use joining::{FilterAsk, Joiner};
pub use liveness::{Rest, TICK};
pub use standing::{Standing, expires_in_ms};
pub use survey::{Look, Sighting};

use crate::clock::Now;
use crate::dialect::{Event, encode, frame};
use crate::metrics::Counters;
use crate::reason::{Reason, Refusal};
use crate::topics::mailbox::Inbox;
use crate::topics::message::{Message, TopicHead, Wire};
use crate::topics::registry::Registry;
use crate::topics::topic::ShardId;
use block::Plan;
use bytes::Bytes;
use connection::{Connection, NEVER, Phase};
use marks::Marks;
use members::Exit;
use memberships::Memberships;
use outbound::{Outbound, Socket};
use pace::Due;
use pressure::{Budget, Pressure};
use replies::Replies;
use slab::Slab;
use standing::Standings;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use subscribers::{Subscribers, Wanted};
use turn::{Order, Pending, Turn};
use wheel::Wheel;

/// Frames that may wait for one connection before nothing more is read from it: tiny answers cost
/// more memory than their bytes.
const OUTBOUND_FRAMES_MAX: usize = 4_096;

/// How a shard treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardOptions {
    /// Bytes that may wait for one connection before it counts as behind. Default 1 MiB. The worst
    /// case is this times the number of connections.
    pub outbound_bytes_max: usize,
    /// Nothing more is queued for a connection whose queue has not been empty for so long.
    /// Default 5 s, in whole seconds.
    pub outbound_age_max: Duration,
    /// Topics in which one connection may be behind, or held by its rate, at once; beyond it the
    /// connection is closed. Default 16,384; each costs about 60 bytes.
    pub cursors_max: usize,
    /// How long a connection may take nothing while something waits. Default 10 s.
    pub write_stall_max: Duration,
    /// How long a connection may be silent before it is pinged. Default 25 s.
    pub ping_interval: Duration,
    /// How long it may stay silent after that. Default 10 s.
    pub pong_timeout: Duration,
    /// How long it may be there without a token, where one is needed. Default 10 s.
    pub authenticate: Duration,
    /// How long a message may take from its first byte to its last. Default 30 s.
    pub message_timeout: Duration,
}

impl Default for ShardOptions {
    fn default() -> ShardOptions {
        ShardOptions {
            outbound_bytes_max: 1 << 20,
            outbound_age_max: Duration::from_secs(5),
            cursors_max: 16_384,
            write_stall_max: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            authenticate: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
        }
    }
}

/// One shard.
#[derive(Debug)]
pub struct Shard<S> {
    registry: Arc<Registry>,
    options: ShardOptions,
    counters: Arc<Counters>,
    inbox: Inbox,
    connections: Slab<Connection<S>>,
    next_generation: u32,
    subscribers: Subscribers,
    /// What a connection is about to subscribe to: wanted, whoever leaves meanwhile.
    joining: Option<Wanted>,
    turn: Turn,
    /// The chain that is being written.
    order: Order,
    /// How it is written.
    plan: Plan,
    /// How far the turn's dirty connections have been written.
    written: usize,
    replies: Replies,
    /// Where connections stand whose events have ids.
    marks: Marks,
    /// Counts the messages this shard has delivered.
    sequence: u64,
    /// Connections by the second at which they want to be looked after.
    wheel: Wheel<ConnectionId>,
    /// What is due at a millisecond.
    pace: Wheel<Due>,
    /// Memory for what comes out of it.
    due: Vec<Due>,
    /// When something is due, as whoever sleeps was told.
    known_due: Option<Duration>,
    /// Connections that are behind on more than one serving holds.
    serving: VecDeque<ConnectionId>,
    budget: Arc<Budget>,
    /// How short memory was when the turn began.
    pressure: Pressure,
    /// Departures that a full mailbox would not hear of yet.
    exits: Vec<Exit>,
    /// Who the connections are.
    standings: Standings,
    /// The time, as it was last told.
    now: Now,
    /// Connections whose socket just stopped taking bytes.
    newly_blocked: Vec<ConnectionId>,
}

impl<S: Socket> Shard<S> {
    /// A shard without connections.
    pub fn new(
        id: ShardId,
        registry: Arc<Registry>,
        options: ShardOptions,
        counters: Arc<Counters>,
        budget: Arc<Budget>,
    ) -> Shard<S> {
        Shard {
            registry,
            options,
            counters,
            inbox: Inbox { shard: id, queue: VecDeque::new() },
            connections: Slab::new(),
            next_generation: 1,
            subscribers: Subscribers::default(),
            joining: None,
            turn: Turn::default(),
            order: Order::default(),
            plan: Plan::default(),
            written: 0,
            replies: Replies::default(),
            marks: Marks::default(),
            sequence: 0,
            // Tick 0 is never a connection's due tick.
            wheel: Wheel::new(liveness::SLOTS, 1),
            pace: Wheel::new(pace::SLOTS, 0),
            due: Vec::new(),
            known_due: None,
            serving: VecDeque::new(),
            pressure: budget.pressure(),
            budget,
            exits: Vec::new(),
            standings: Standings::default(),
            now: Now::at_ms(0),
            newly_blocked: Vec::new(),
        }
    }

    /// Treats connections in another way from now on.
    pub fn change_options(&mut self, options: ShardOptions) {
        self.options = options;
    }

    /// Tells the shard what time it is. Nothing in it reads a clock.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// The time, as it was last told.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.inbox.shard
    }

    /// Takes in a connection.
    pub fn open(&mut self, socket: S, wire: Wire) -> ConnectionId {
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let expires = if self.standings.admits_anybody() {
            NEVER
        } else {
            self.tick_after(self.options.authenticate)
        };
        let slot = self.connections.insert(Connection {
            socket,
            outbound: Outbound::default(),
            memberships: Memberships::default(),
            cursors: None,
            last_sequence: 0,
            pending: Pending::default(),
            generation,
            phase: Phase::Open,
            next_ping: self.tick_after(self.options.ping_interval),
            pinged: None,
            unanswered: 0,
            unfinished: None,
            stalled_since: None,
            blocked_since: 0,
            due: 0,
            expires,
            filters: 0,
            watches: 0,
            wire,
            opened: u32::try_from(self.now.uptime.as_secs()).unwrap_or(u32::MAX),
            sent: 0,
        });
        let id = ConnectionId { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation };
        self.marks.begin(id.slot, wire);
        self.counters.opened.of(wire).increment();
        self.counters.connections.of(wire).increment();
        self.schedule(id);
        id
    }

    /// Changes the layout of what a connection is sent from now on.
    pub fn change_wire(&mut self, id: ConnectionId, wire: Wire) {
        // What this turn has for the connection is laid out as before.
        self.write_pending(id);
        let Some(connection) = self.connection_mut(id) else { return };
        let before = std::mem::replace(&mut connection.wire, wire);
        self.counters.connections.of(before).decrement();
        self.counters.connections.of(wire).increment();
    }

    /// Queues messages of a topic for one connection alone: history, not live. [`Shard::flush`] sends
    /// them.
    pub fn replay(&mut self, id: ConnectionId, head: &TopicHead, messages: &[Arc<Message>]) {
        self.write_pending(id);
        let Some(before) = self.open_connection_mut(id).map(|c| c.outbound.bytes()) else { return };
        self.counters.replayed.add_len(messages.len());
        self.serving(id, head, |serving| serving.messages(messages));
        let after = self.connection(id).map_or(before, |connection| connection.outbound.bytes());
        self.note_outbound(before, after);
    }

    /// Queues finished bytes for one connection. [`Shard::flush`] sends them.
    pub fn push(&mut self, id: ConnectionId, bytes: Bytes) {
        // What this turn has for the connection is older.
        self.write_pending(id);
        let len = bytes.len();
        if let Some(connection) = self.open_connection_mut(id) {
            connection.outbound.push(bytes);
            self.note_outbound(0, len);
        }
    }

    /// Writes what waits for a connection.
    pub fn flush(&mut self, id: ConnectionId) {
        self.write_pending(id);
        self.write_outbound(id);
    }

    /// Whether so much waits for a connection that nothing more should be read from it.
    pub fn is_congested(&self, id: ConnectionId) -> bool {
        let bytes_max = self.options.outbound_bytes_max / 2;
        self.connection(id).is_some_and(|connection| {
            let outbound = &connection.outbound;
            let bytes = outbound.bytes() + self.replies.bytes(id);
            bytes > bytes_max || outbound.frames() > OUTBOUND_FRAMES_MAX
        })
    }

    /// Whether a connection is there and has not begun to close.
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|connection| connection.phase == Phase::Open)
    }

    /// Notes that bytes arrived.
    pub fn heard(&mut self, id: ConnectionId, bytes: usize) {
        self.counters.received_bytes.add_len(bytes);
        if let Some(connection) = self.connection_mut(id) {
            connection.pinged = None;
        }
    }

    /// Begins to close a connection: tells the peer why, sends what may still be sent, and cuts the
    /// socket when that is done or takes too long. The reader sees the end and calls
    /// [`Shard::remove`].
    pub fn close(&mut self, id: ConnectionId, refusal: &Refusal) {
        let Some(wire) = self.wire(id) else { return };
        let reason = refusal.reason;
        let farewell = if wire.is_web_socket() {
            frame::close(reason.code(), &format!("{}: {refusal}", reason.name()))
        } else {
            encode(0, &Event::Error(refusal.clone()), wire)
        };
        let cut_at = self.tick_after(liveness::CLOSE_GRACE);
        self.begin_close(id, reason, farewell, Phase::Closing { cut_at });
    }

    /// Answers the peer's close frame, behind which nothing more comes: [`Shard::is_ending`].
    pub fn close_answered(&mut self, id: ConnectionId, code: Option<u16>) {
        let answer = code.map_or_else(frame::empty_close, |code| frame::close(code, ""));
        let cut_at = self.tick_after(liveness::CLOSE_GRACE);
        self.begin_close(id, Reason::Normal, answer, Phase::Ending { cut_at });
    }

    fn begin_close(&mut self, id: ConnectionId, reason: Reason, farewell: Bytes, phase: Phase) {
        self.write_pending(id);
        let Some(connection) = self.open_connection_mut(id) else { return };
        connection.phase = phase;
        let before = connection.outbound.bytes();
        if matches!(reason, Reason::SlowConsumer | Reason::NoPong | Reason::Shed) {
            // It does not read: what waits would only keep the reason from it.
            connection.outbound.cut();
        }
        connection.outbound.push(farewell);
        let after = connection.outbound.bytes();
        self.note_outbound(before, after);
        self.counters.closes.of(reason).increment();
        self.leave_all(id);
        self.schedule(id);
        self.write_outbound(id);
    }

    /// Ends a connection whose peer says nothing more: what waits is still written, unless that
    /// takes longer than any connection may take nothing.
    pub fn finish(&mut self, id: ConnectionId) {
        self.write_pending(id);
        let cut_at = self.tick_after(self.options.write_stall_max);
        let Some(connection) = self.connection_mut(id) else { return };
        if let Phase::Closing { cut_at } = connection.phase {
            connection.phase = Phase::Ending { cut_at };
        }
        let Some(connection) = self.open_connection_mut(id) else { return };
        connection.phase = Phase::Ending { cut_at };
        self.leave_all(id);
        self.schedule(id);
        self.write_outbound(id);
    }

    /// Whether the peer says nothing more: the reader calls [`Shard::remove`] when nothing waits.
    pub fn is_ending(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|c| matches!(c.phase, Phase::Ending { .. }))
    }

    /// Forgets a connection whose reader has ended, and drops its socket.
    pub fn remove(&mut self, id: ConnectionId) {
        self.leave_all(id);
        if self.connection(id).is_none() {
            return;
        }
        self.standings.forget(id.slot);
        self.marks.forget(id.slot);
        if let Some(connection) = self.connections.try_remove(id.slot as usize) {
            let unsent = connection.waiting();
            if !connection.has_ended() {
                // Somebody may wait for it.
                connection.socket.abort();
            }
            self.counters.connections.of(connection.wire).decrement();
            self.note_outbound(unsent, 0);
            if connection.stalled_since.is_some() {
                self.counters.blocked.decrement();
            }
        }
        if self.connections.is_empty() && self.connections.capacity() > 64 {
            self.connections.shrink_to_fit();
        }
    }

    /// Begins to close every connection, for instance because the server stops. What was published
    /// before is delivered before.
    pub fn close_all(&mut self, refusal: &Refusal) {
        self.registry.collect(&mut self.inbox);
        self.settle();
        for id in self.ids() {
            self.close(id, refusal);
        }
    }

    /// How many connections there are, closing ones among them.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// The socket of a connection.
    pub fn socket(&self, id: ConnectionId) -> Option<&S> {
        self.connection(id).map(|connection| &connection.socket)
    }

    /// The layout of a connection's bytes.
    pub fn wire(&self, id: ConnectionId) -> Option<Wire> {
        self.connection(id).map(|connection| connection.wire)
    }

    /// What this shard counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Whether something waits to be offered or written.
    pub fn has_work(&self) -> bool {
        !(self.inbox.queue.is_empty() && self.turn.dirty.is_empty() && self.serving.is_empty())
    }

    /// Whether something became due earlier than [`Shard::next_due`] said before.
    pub fn take_rescheduled(&mut self) -> bool {
        let due = self.next_due();
        let earlier = due.is_some_and(|due| self.known_due.is_none_or(|known| due < known));
        self.known_due = due;
        earlier
    }

    /// Whether something waits to be written to a connection.
    pub fn has_outbound(&self, id: ConnectionId) -> bool {
        let is_queued = |connection: &Connection<S>| connection.waiting() > 0;
        self.replies.bytes(id) > 0 || self.connection(id).is_some_and(is_queued)
    }

    /// Whether the connection's socket takes no bytes and some wait for it.
    pub fn is_blocked(&self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|connection| connection.stalled_since.is_some())
    }

    /// Connections whose socket stopped taking bytes since the last call: somebody should call
    /// [`Shard::flush`] when it takes more.
    pub fn take_newly_blocked(&mut self) -> impl Iterator<Item = ConnectionId> + use<S> {
        std::mem::take(&mut self.newly_blocked).into_iter()
    }

    fn ids(&self) -> Vec<ConnectionId> {
        let id = |(slot, connection): (usize, &Connection<S>)| ConnectionId {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            generation: connection.generation,
        };
        self.connections.iter().map(id).collect()
    }

    fn connection(&self, id: ConnectionId) -> Option<&Connection<S>> {
        self.connections
            .get(id.slot as usize)
            .filter(|connection| connection.generation == id.generation)
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<S>> {
        self.connections
            .get_mut(id.slot as usize)
            .filter(|connection| connection.generation == id.generation)
    }

    fn open_connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<S>> {
        self.connection_mut(id).filter(|connection| connection.phase == Phase::Open)
    }
}
