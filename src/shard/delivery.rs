//! The turn: take what was posted, offer it to the subscribers, write to each once.
//! # Invariants: per delivery there is no allocation, no task woken and no locked instruction; a
//! connection's frames leave in the order of its chain.
//! # Not here: where messages come from.

use super::Shard;
use super::block::Plan;
use super::connection::{Connection, ConnectionId, Phase};
use super::cursor::{Cursor, Mode};
use super::grant::{Grant, Granted};
use super::late::Unsent;
use super::outbound::{Outbound, Socket, WRITE_FRAMES_MAX};
use super::pace::{self, Due};
use super::subscribers::{Group, Member, strongest};
use super::turn::{Frame, FrameIndex, Order, Turn};
use super::wheel::Wheel;
use crate::clock::Now;
use crate::dialect::{Event, TopicPosition, encode, encode_deflated, encode_message};
use crate::metrics::Counters;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use crate::topics::message::{Message, Position, Wire};
use crate::topics::terms::{Rate, Terms};
use bytes::Bytes;
use slab::Slab;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Connections written before other work gets its turn: about a millisecond at 5 µs a write.
pub(super) const SLICE_CONNECTIONS_MAX: usize = 256;

/// Whether a turn has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Call again soon.
    More,
    /// Nothing is left until something is posted.
    Idle,
}

impl<S: Socket> Shard<S> {
    /// Does a bounded piece of the work that waits: offers messages if no writing is left from
    /// before, and writes to at most `SLICE_CONNECTIONS_MAX` connections.
    pub fn turn(&mut self) -> Progress {
        self.seal_replies();
        self.relieve();
        if self.turn.dirty.is_empty() {
            self.keep_pace();
            if self.inbox.queue.is_empty() {
                self.registry.collect(&mut self.inbox);
            }
            self.offer_inbox();
        }
        self.write_slice();
        self.serve_slice();
        if self.has_work() { Progress::More } else { Progress::Idle }
    }

    /// Offers and writes all that was posted before now, however much it is.
    pub(super) fn settle(&mut self) {
        self.seal_replies();
        while !(self.inbox.queue.is_empty() && self.turn.dirty.is_empty()) {
            if self.turn.dirty.is_empty() {
                self.offer_inbox();
            }
            self.write_slice();
        }
    }

    fn offer_inbox(&mut self) {
        while !self.turn.is_full() {
            let Some(message) = self.inbox.queue.pop_front() else { break };
            self.offer(message);
        }
        if self.turn.dirty.is_empty() {
            self.end_turn();
        }
    }

    fn end_turn(&mut self) {
        self.turn.clear();
        self.order.clear();
        self.plan.clear();
    }

    /// Gives a message to every connection that wants it.
    fn offer(&mut self, message: Arc<Message>) {
        let Some(slot) = self.subscribers.audience(&message) else { return };
        for older in self.subscribers.older(slot) {
            self.finish_topic(older);
        }
        self.note_heard(&message);
        let tick = self.now_tick();
        let Some((topic, groups)) = self.subscribers.audience_mut(slot) else { return };
        self.sequence += 1;
        topic.tell_audience(groups);
        topic.top = message.offset;
        if let Some(conflation) = &mut topic.conflation {
            conflation.add(&message);
        }
        let head = Arc::clone(&topic.head);
        let mut offering = Offering {
            frame: self.turn.add(Frame::Message(Arc::clone(&message))),
            position: [None; Wire::COUNT],
            laid_out: [false; Wire::COUNT],
            counters: &self.counters,
            sequence: self.sequence,
            grant: Grant::of(&head.rule),
            message,
            matching: &topic.groups,
            groups,
            held: 0,
            linked: 0,
            dropped: 0,
            excess: Vec::new(),
            cursors_max: self.options.cursors_max,
            now: self.now,
            connections: &mut self.connections,
            turn: &mut self.turn,
            pace: &mut self.pace,
        };
        for member in &topic.members {
            offering.to(member, Via::Topic);
        }
        for group in topic.groups.iter().filter_map(|slot| groups.get(*slot as usize)) {
            for member in &group.members {
                let first =
                    member.joined >= topic.last_sequence && !planted::is(Bug::PositionUntold);
                offering.to(member, if first { Via::NewFilter } else { Via::Filter });
            }
        }
        let Offering { held, linked, dropped, excess, .. } = offering;
        self.counters.dropped.add(dropped);
        self.counters.group_deliveries.of(head.rule.group).add(linked);
        for _ in 0..held {
            topic.begin_cursor(Mode::Conflate);
        }
        topic.last_sequence = self.sequence;
        topic.last_tick = tick;
        for id in excess {
            self.close(id, &Reason::SlowConsumer.into());
        }
    }

    fn write_slice(&mut self) {
        let from = self.written;
        let to = (from + SLICE_CONNECTIONS_MAX).min(self.turn.dirty.len());
        for index in from..to {
            if let Some(slot) = self.turn.dirty.get(index).copied() {
                self.write_chain(slot);
            }
        }
        self.written = to;
        if to == self.turn.dirty.len() {
            for message in self.turn.messages() {
                self.counters.latency.observe(self.now.uptime.saturating_sub(message.committed));
            }
            self.end_turn();
            self.written = 0;
        }
    }

    /// Writes what this turn has for a connection, so that what comes next stays behind it.
    pub(super) fn write_pending(&mut self, id: ConnectionId) {
        self.seal_replies();
        if self.connection(id).is_some_and(|connection| !connection.pending.is_empty()) {
            self.write_chain(id.slot);
        }
    }

    /// Writes a connection's chain, and queues what its socket does not take.
    fn write_chain(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let pending = std::mem::take(&mut connection.pending);
        if pending.is_empty() || connection.phase != Phase::Open {
            return;
        }
        let id = ConnectionId { slot, generation: connection.generation };
        let before = connection.waiting();
        let (wire, counters) = (connection.wire, &*self.counters);
        self.turn.follow(pending, &mut self.order);
        if wire == Wire::SseTopics {
            let result = self.write_marked(slot);
            return self.note_written(id, before, result);
        }
        self.plan.make(&self.turn, pending, wire, &self.order);
        let taken = written(connection, &self.plan, &self.turn, counters);
        connection.sent += taken.as_ref().map_or(0, |taken| *taken as u64);
        let result = match taken {
            Ok(taken) if taken == self.plan.len => {
                counters.deliveries.add(self.plan.messages);
                Ok(())
            }
            Ok(taken) => {
                let gone = queue_begun(taken, connection, &self.turn, &self.order, counters);
                self.keep_rest(slot, gone)
            }
            Err(_) => Err(Unsent::PeerGone),
        };
        self.note_written(id, before, result);
    }

    /// Sees to what a chain has left of a connection. Before it, `before` bytes waited.
    fn note_written(&mut self, id: ConnectionId, before: usize, result: Result<(), Unsent>) {
        let Some(connection) = self.connections.get(id.slot as usize) else { return };
        let (after, is_ready) = (connection.waiting(), connection.has_ready());
        self.note_outbound(before, after);
        match result {
            Err(Unsent::PeerGone) => self.lose(id),
            Err(Unsent::MustClose) => self.close(id, &Reason::SlowConsumer.into()),
            Ok(()) if after > 0 => self.note_blocked(id),
            Ok(()) => self.serving.extend(is_ready.then_some(id)),
        }
    }

    /// Writes what is queued for a connection, and then what it is behind with.
    pub(super) fn write_outbound(&mut self, id: ConnectionId) {
        self.seal_replies();
        let Some(connection) = self.connection_mut(id) else { return };
        let before = connection.waiting();
        let mut result = connection.flush();
        if result.is_ok() && connection.waiting() == 0 && connection.has_ready() {
            self.serve(id);
            let Some(connection) = self.connection_mut(id) else { return };
            let second = connection.flush();
            result = result.and_then(|first| Ok(first + second?));
        }
        let Some(connection) = self.connection_mut(id) else { return };
        let (after, is_ready) = (connection.waiting(), connection.has_ready());
        connection.sent += result.as_ref().map_or(0, |written| written.bytes as u64);
        self.note_outbound(before, after);
        let Ok(written) = result else { return self.lose(id) };
        self.counters.sent_bytes.add_len(written.bytes);
        self.counters.writes.add_len(written.writes);
        if after == 0 {
            // It takes more than one serving: others have their turn in between.
            self.serving.extend(is_ready.then_some(id));
            return self.note_drained(id);
        }
        if written.bytes + written.pushed > 0 {
            self.note_progress(id);
        }
        self.note_blocked(id);
    }

    /// Nothing waits for the connection any more.
    fn note_drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection_mut(id) else { return };
        let was_blocked = connection.stalled_since.take().is_some();
        if matches!(connection.phase, Phase::Closing { .. }) {
            connection.socket.shutdown();
        }
        if was_blocked && !planted::is(Bug::BlockedForEver) {
            self.counters.blocked.decrement();
        }
    }

    /// The peer is gone: its reader will notice.
    fn lose(&mut self, id: ConnectionId) {
        self.leave_all(id);
        let cut_at = self.now_tick();
        let Some(connection) = self.connection_mut(id) else { return };
        connection.phase = Phase::Closing { cut_at };
        let unsent = connection.waiting();
        connection.outbound = Outbound::default();
        connection.socket.abort();
        let was_blocked = connection.stalled_since.take().is_some();
        self.note_outbound(unsent, 0);
        if was_blocked {
            self.counters.blocked.decrement();
        }
    }

    pub(super) fn note_outbound(&self, before: usize, after: usize) {
        self.counters.outbound_bytes.add((after as u64).wrapping_sub(before as u64));
    }
}

/// One message on its way to many connections.
struct Offering<'a, S> {
    frame: FrameIndex,
    /// Where the topic stands before the message, for each wire on which that is told.
    position: [Option<FrameIndex>; Wire::COUNT],
    /// The wires for which the frame has been laid out.
    laid_out: [bool; Wire::COUNT],
    counters: &'a Counters,
    sequence: u64,
    grant: Grant<'a>,
    message: Arc<Message>,
    /// The groups that match the topic, among all groups.
    matching: &'a [u32],
    groups: &'a Slab<Group>,
    /// Cursors that begin with the message, because it uses up a rate.
    held: u32,
    /// Connections that are given the message in this turn.
    linked: u64,
    /// Connections that are behind and will be told that they missed the message.
    dropped: u64,
    /// Connections that would need more cursors than they may have.
    excess: Vec<ConnectionId>,
    cursors_max: usize,
    now: Now,
    connections: &'a mut Slab<Connection<S>>,
    turn: &'a mut Turn,
    pace: &'a mut Wheel<Due>,
}

/// How a message comes to a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Via {
    /// By its subscription to the topic.
    Topic,
    /// By a filter.
    Filter,
    /// By a filter, as the first message of the topic: the connection must be told where the topic
    /// stands.
    NewFilter,
}

impl<S> Offering<'_, S> {
    fn to(&mut self, member: &Member, via: Via) {
        let Some(connection) = self.connections.get_mut(member.connection as usize) else { return };
        let has_it = connection.last_sequence == self.sequence && !planted::is(Bug::DeliveredTwice);
        if has_it || connection.phase != Phase::Open {
            return;
        }
        connection.last_sequence = self.sequence;
        if let Some(cursor) = connection.cursor(self.message.head.id) {
            // Its cursor will come to this message.
            self.dropped += u64::from(cursor.mode == Mode::Gap);
            return;
        }
        let has_choice = via != Via::Topic && connection.filters > 1;
        let terms = if has_choice { self.strongest_terms(member) } else { member.terms };
        let Granted { mode, rate } = self.grant.to(terms);
        if let Some(rate) = rate
            && !self.hold(member.connection, rate)
        {
            return;
        }
        self.link(member.connection, via, mode);
    }

    /// The terms of the filter that gives a connection most of the topic.
    #[cold]
    fn strongest_terms(&self, member: &Member) -> Terms {
        let connection = self.connections.get(member.connection as usize);
        let found = connection.and_then(|c| strongest(&c.memberships, self.matching, self.groups));
        found.map_or(member.terms, |strongest| strongest.terms)
    }

    /// Begins a cursor behind the message: what comes before the rate allows it waits there.
    fn hold(&mut self, slot: u32, rate: Rate) -> bool {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return false };
        let id = ConnectionId { slot, generation: connection.generation };
        if connection.cursors.as_ref().is_some_and(|cursors| cursors.len() >= self.cursors_max) {
            self.excess.push(id);
            return false;
        }
        let topic = self.message.head.id;
        let until = pace::after(self.now, rate);
        connection.set_cursor(topic, Cursor::held(self.message.offset, until));
        self.pace.insert(until, Due::Cursor { id, topic, tick: until });
        self.held += 1;
        true
    }

    fn link(&mut self, slot: u32, via: Via, mode: Mode) {
        self.linked += 1;
        let Some(wire) = self.connections.get(slot as usize).map(|connection| connection.wire)
        else {
            return;
        };
        if self.laid_out.get(wire as usize) == Some(&false) {
            self.lay_out(wire);
        }
        let before = if via == Via::NewFilter { Some(self.position(wire)) } else { None };
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if connection.pending.is_empty() {
            self.turn.dirty.push(slot);
        }
        if let Some(position) = before {
            self.turn.link(&mut connection.pending, position, mode);
        }
        self.turn.link(&mut connection.pending, self.frame, mode);
    }

    #[cold]
    fn lay_out(&mut self, wire: Wire) {
        self.turn.lay_out(self.frame, wire, frame_of(&self.message, wire, self.counters));
        if let Some(laid_out) = self.laid_out.get_mut(wire as usize) {
            *laid_out = true;
        }
    }

    fn position(&mut self, wire: Wire) -> FrameIndex {
        match self.position.get(wire as usize).copied().flatten() {
            Some(position) => position,
            None => self.encode_position(wire),
        }
    }

    #[cold]
    fn encode_position(&mut self, wire: Wire) -> FrameIndex {
        let position =
            Position { epoch: self.message.head.epoch, offset: self.message.offset.previous() };
        let topic = self.message.head.name.clone();
        let event = Event::Position(TopicPosition { topic, position });
        let bytes = encode(0, &event, wire);
        let first = Arc::clone(&self.message);
        let frame = self.turn.add(Frame::Position { first, bytes: bytes.clone() });
        self.turn.lay_out(frame, wire, &bytes);
        if let Some(place) = self.position.get_mut(wire as usize) {
            *place = Some(frame);
        }
        frame
    }
}

/// The shared bytes of a message on one wire.
pub(super) fn frame_of<'a>(message: &'a Message, wire: Wire, counters: &Counters) -> &'a Bytes {
    message.frame(wire, |message, wire| {
        counters.encodes.of(wire).increment();
        if !wire.is_deflated() {
            return encode_message(message, wire);
        }
        let (frame, plain_len) = encode_deflated(message, wire);
        counters.deflate_in_bytes.add_len(plain_len);
        counters.deflate_out_bytes.add_len(frame.len());
        frame
    })
}

/// Writes what the socket takes of a plan; returns how many bytes that is.
fn written<S: Socket>(
    connection: &Connection<S>,
    plan: &Plan,
    turn: &Turn,
    counters: &Counters,
) -> io::Result<usize> {
    let mut written = 0;
    if !connection.outbound.is_empty() {
        return Ok(0);
    }
    let mut done = 0;
    while written < plan.len {
        let mut room = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
        let (count, len) = plan.slices(done, turn, &mut room);
        let taken = write(connection, room.get(..count).unwrap_or(&[]), counters)?;
        written += taken;
        done += count;
        if taken < len {
            break;
        }
    }
    Ok(written)
}

/// Writes once. A socket that takes nothing now takes 0 bytes.
pub(super) fn write<S: Socket>(
    connection: &Connection<S>,
    slices: &[IoSlice<'_>],
    counters: &Counters,
) -> io::Result<usize> {
    match connection.socket.write_vectored(slices) {
        Ok(taken) => {
            counters.writes.increment();
            counters.sent_bytes.add_len(taken);
            Ok(taken)
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            _ => Err(error),
        },
    }
}

/// Queues the rest of what the socket took in part. Returns how many frames of the chain are gone
/// with that.
fn queue_begun<S>(
    mut taken: usize,
    connection: &mut Connection<S>,
    turn: &Turn,
    order: &Order,
    counters: &Counters,
) -> usize {
    let wire = connection.wire;
    let (mut frames, mut gone) = (order.frames(), 0);
    while taken > 0 {
        let joint = turn.block(wire).next_message(frames.clone());
        let begun = frames.clone().take(joint.frames);
        let messages = begun.clone().filter(|frame| turn.is_message(*frame)).count();
        counters.deliveries.add_len(messages);
        gone += joint.frames;
        let len = joint.message_len(wire);
        if taken < len || joint.frames == 0 {
            connection.outbound.push_begun(joint.message(begun, turn, wire), taken);
            break;
        }
        taken -= len;
        frames.by_ref().take(joint.frames).for_each(drop);
    }
    gone
}
