//! The turn: take what was posted, offer it to the subscribers, write to each once.
//! # Invariants: per delivery there is no allocation, no task woken and no locked instruction; a
//! connection's frames leave in the order of its chain.
//! # Not here: where messages come from.

use super::Shard;
use super::connection::{Connection, ConnectionId, Lag, Phase, TooManyGaps};
use super::outbound::{Socket, WRITE_FRAMES_MAX};
use super::subscribers::Member;
use super::turn::{Frame, FrameIndex, Joined, Linked, Turn};
use crate::dialect::{Event, Gap, GapReason, Overflow, TopicPosition, encode, encode_message};
use crate::metrics::Counters;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use crate::topics::message::{Message, Position, Wire};
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
        if self.turn.dirty.is_empty() {
            if self.inbox.queue.is_empty() {
                self.registry.collect(&mut self.inbox);
            }
            self.offer_inbox();
        }
        self.write_slice();
        let idle = self.turn.dirty.is_empty() && self.inbox.queue.is_empty();
        if idle { Progress::Idle } else { Progress::More }
    }

    /// Offers and writes all that was posted before now, however much it is.
    pub(super) fn settle(&mut self) {
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
            self.turn.clear();
        }
    }

    /// Gives a message to every connection that wants it.
    fn offer(&mut self, message: Arc<Message>) {
        let Some(slot) = self.subscribers.audience(&message) else { return };
        let Some((topic, groups)) = self.subscribers.audience_mut(slot) else { return };
        self.sequence += 1;
        let mut offering = Offering {
            frame: self.turn.add(Frame::Message(Arc::clone(&message))),
            position: [None; Wire::COUNT],
            sequence: self.sequence,
            message,
            connections: &mut self.connections,
            turn: &mut self.turn,
        };
        for member in &topic.members {
            offering.to(member, Meets::Known);
        }
        for group in topic.groups.iter().filter_map(|slot| groups.get(*slot as usize)) {
            for member in &group.members {
                let first =
                    member.joined >= topic.last_sequence && !planted::is(Bug::PositionUntold);
                offering.to(member, if first { Meets::First } else { Meets::Known });
            }
        }
        topic.last_sequence = self.sequence;
        topic.last_tick = self.wheel.tick();
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
            self.turn.clear();
            self.written = 0;
        }
    }

    /// Writes what this turn has for a connection, so that what comes next stays behind it.
    pub(super) fn write_pending(&mut self, id: ConnectionId) {
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
        let before = connection.outbound.bytes();
        let (wire, counters) = (connection.wire, &*self.counters);
        self.turn.follow(pending, &mut self.order);
        let joined =
            self.turn.joined(pending, wire, &self.order, |frame| bytes_of(frame, wire, counters));
        let joined = joined.cloned();
        let chain = self.turn.chain(&self.order);
        let max = self.options.outbound_bytes_max;
        let result = match written(connection, joined, chain, counters) {
            Ok(None) => Ok(()),
            Ok(Some(mut rest)) => {
                rest.try_for_each(|linked| enqueue(connection, linked, max, counters))
            }
            Err(_) => Err(Unsent::PeerGone),
        };
        let after = connection.outbound.bytes();
        self.note_outbound(before, after);
        match result {
            Ok(()) if after == 0 => {}
            Ok(()) => self.note_blocked(id),
            Err(Unsent::PeerGone) => self.lose(id),
            Err(Unsent::MustClose) => self.close(id, &Reason::SlowConsumer.into()),
        }
    }

    /// Writes what is queued for a connection, and tells its gaps when the queue is empty.
    pub(super) fn write_outbound(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection_mut(id) else { return };
        let before = connection.outbound.bytes();
        let mut result = connection.outbound.flush(&connection.socket);
        let mut told = 0;
        if result.is_ok() && connection.outbound.is_empty() && connection.lag.is_some() {
            told = tell_gaps(connection);
            connection.lag = None;
            result =
                result.and_then(|first| Ok(first + connection.outbound.flush(&connection.socket)?));
        }
        let after = connection.outbound.bytes();
        self.counters.gaps.add_len(told);
        self.note_outbound(before, after);
        let Ok(written) = result else { return self.lose(id) };
        self.counters.sent_bytes.add_len(written.bytes);
        self.counters.writes.add_len(written.writes);
        if after == 0 {
            return self.note_drained(id);
        }
        if written.bytes > 0 {
            self.note_progress(id);
        }
        self.note_blocked(id);
    }

    /// Tells what a connection has missed so far. To be called before its subscriptions change: a
    /// gap means something only under those that it was missed by.
    pub(super) fn tell_missed(&mut self, id: ConnectionId) {
        if planted::is(Bug::GapToldLate) {
            return;
        }
        self.write_pending(id);
        let Some(connection) = self.open_connection_mut(id) else { return };
        let before = connection.outbound.bytes();
        let told = tell_gaps(connection);
        let after = connection.outbound.bytes();
        self.counters.gaps.add_len(told);
        self.note_outbound(before, after);
    }

    /// Nothing waits for the connection any more.
    fn note_drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection_mut(id) else { return };
        let was_blocked = connection.stalled_since.take().is_some();
        if connection.phase != Phase::Open {
            connection.socket.shutdown();
        }
        if was_blocked && !planted::is(Bug::BlockedForEver) {
            self.counters.blocked.decrement();
        }
    }

    /// The peer is gone: its reader will notice.
    fn lose(&mut self, id: ConnectionId) {
        self.leave_all(id);
        let cut_at = self.wheel.tick();
        let Some(connection) = self.connection_mut(id) else { return };
        connection.phase = Phase::Closing { cut_at };
        connection.socket.abort();
        let unsent = std::mem::take(&mut connection.outbound).bytes();
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
    sequence: u64,
    message: Arc<Message>,
    connections: &'a mut Slab<Connection<S>>,
    turn: &'a mut Turn,
}

/// Whether a connection has met the topic before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meets {
    Known,
    /// Through a filter, for the first time: it must be told where the topic stands.
    First,
}

impl<S> Offering<'_, S> {
    fn to(&mut self, member: &Member, meets: Meets) {
        let Some(connection) = self.connections.get_mut(member.connection as usize) else { return };
        let has_it = connection.last_sequence == self.sequence && !planted::is(Bug::DeliveredTwice);
        if has_it || connection.phase != Phase::Open {
            return;
        }
        connection.last_sequence = self.sequence;
        if connection.pending.is_empty() {
            self.turn.dirty.push(member.connection);
        }
        if meets == Meets::First {
            let wire = connection.wire;
            let position = match self.position.get(wire as usize).copied().flatten() {
                Some(position) => position,
                None => self.encode_position(wire),
            };
            // Borrowed anew: encoding needed the turn.
            let Some(connection) = self.connections.get_mut(member.connection as usize) else {
                return;
            };
            self.turn.link(&mut connection.pending, position, Overflow::Gap);
            self.turn.link(&mut connection.pending, self.frame, member.overflow);
            return;
        }
        self.turn.link(&mut connection.pending, self.frame, member.overflow);
    }

    #[cold]
    fn encode_position(&mut self, wire: Wire) -> FrameIndex {
        let position =
            Position { epoch: self.message.head.epoch, offset: self.message.offset.previous() };
        let topic = self.message.head.name.clone();
        let event = Event::Position(TopicPosition { topic, position });
        let frame = self.turn.add(Frame::Position(encode(0, &event, wire)));
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
        encode_message(message, wire)
    })
}

fn bytes_of<'a>(frame: &'a Frame, wire: Wire, counters: &Counters) -> &'a Bytes {
    match frame {
        Frame::Message(message) => frame_of(message, wire, counters),
        Frame::Position(bytes) => bytes,
    }
}

/// Why a chain could not be sent or queued.
enum Unsent {
    /// The socket reports that there is nobody.
    PeerGone,
    /// The connection is behind and may not miss this, or misses too much.
    MustClose,
}

/// Writes what the socket takes of a chain. Gives back the part of it that the socket did not take;
/// the rest of a frame that it took in part is queued already.
fn written<'a, S: Socket, C: Iterator<Item = Linked<'a>> + Clone>(
    connection: &mut Connection<S>,
    joined: Option<Joined>,
    chain: C,
    counters: &Counters,
) -> io::Result<Option<C>> {
    if !connection.outbound.is_empty() {
        return Ok(Some(chain));
    }
    let Some(joined) = joined else { return write_frames(connection, chain, counters) };
    let taken = write(connection, &[IoSlice::new(&joined.bytes)], counters)?;
    if taken == joined.bytes.len() {
        counters.deliveries.add(joined.messages);
        return Ok(None);
    }
    Ok(Some(after(taken, connection, chain, counters)))
}

/// Writes the frames of a chain side by side, as many in one call as may be.
fn write_frames<'a, S: Socket, C: Iterator<Item = Linked<'a>> + Clone>(
    connection: &mut Connection<S>,
    mut chain: C,
    counters: &Counters,
) -> io::Result<Option<C>> {
    loop {
        let mut slices = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
        let mut ahead = chain.clone();
        let (mut count, mut bytes, mut messages) = (0, 0, 0);
        for (slice, linked) in slices.iter_mut().zip(&mut ahead) {
            let frame = bytes_of(linked.frame, connection.wire, counters);
            *slice = IoSlice::new(frame);
            count += 1;
            bytes += frame.len();
            messages += u64::from(linked.is_message());
        }
        if count == 0 {
            return Ok(None);
        }
        let taken = write(connection, slices.get(..count).unwrap_or(&[]), counters)?;
        if taken < bytes {
            return Ok(Some(after(taken, connection, chain, counters)));
        }
        counters.deliveries.add(messages);
        chain = ahead;
    }
}

/// Writes once. A socket that takes nothing now takes 0 bytes.
fn write<S: Socket>(
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

/// The part of a chain after the bytes that the socket took. The rest of a frame that it took in
/// part is queued.
fn after<'a, S, C: Iterator<Item = Linked<'a>> + Clone>(
    mut taken: usize,
    connection: &mut Connection<S>,
    mut chain: C,
    counters: &Counters,
) -> C {
    while taken > 0 {
        let Some(linked) = chain.next() else { break };
        counters.deliveries.add(u64::from(linked.is_message()));
        let frame = bytes_of(linked.frame, connection.wire, counters);
        if taken < frame.len() {
            connection.outbound.push_begun(frame.clone(), taken);
            break;
        }
        taken -= frame.len();
    }
    chain
}

/// Queues a frame for a connection whose socket is busy, or notes that it is missed.
fn enqueue<S>(
    connection: &mut Connection<S>,
    linked: Linked<'_>,
    bytes_max: usize,
    counters: &Counters,
) -> Result<(), Unsent> {
    let frame = bytes_of(linked.frame, connection.wire, counters);
    // One frame always fits: only what waits in the queue makes somebody write it, and later tell
    // what was missed.
    let waiting = connection.outbound.bytes();
    let is_behind = connection.lag.is_some() && !planted::is(Bug::GapOvertaken);
    let is_free = waiting == 0 && !planted::is(Bug::LongFrameForgotten);
    if !is_behind && (is_free || waiting + frame.len() <= bytes_max) {
        connection.outbound.push(frame.clone());
        counters.deliveries.add(u64::from(linked.is_message()));
        return Ok(());
    }
    if linked.overflow == Overflow::Disconnect {
        return Err(Unsent::MustClose);
    }
    if planted::is(Bug::PositionParted) && !linked.is_message() {
        return Ok(());
    }
    let lag = connection.lag.get_or_insert_with(Box::<Lag>::default);
    // A position that does not fit takes its message with it: both are told at the end of the gap.
    let Frame::Message(message) = linked.frame else { return Ok(()) };
    counters.dropped.increment();
    lag.record(message).map_err(|TooManyGaps| Unsent::MustClose)
}

/// Queues the gaps of a connection. Returns how many there were.
fn tell_gaps<S>(connection: &mut Connection<S>) -> usize {
    let Some(lag) = connection.lag.as_mut() else { return 0 };
    let mut told = 0;
    for gap in lag.take().into_iter().filter(|_| !planted::is(Bug::GapUntold)) {
        let topic = gap.head.name.clone();
        let position = TopicPosition { topic: topic.clone(), position: gap.end() };
        let to = gap.to.0 - u64::from(planted::is(Bug::GapTooShort));
        let event = Event::Gap(Gap { topic, from: gap.from.0, to, reason: GapReason::Slow });
        connection.outbound.push(encode(0, &event, connection.wire));
        connection.outbound.push(encode(0, &Event::Position(position), connection.wire));
        told += 1;
    }
    told
}
