//! Serving the cursors of a connection whose socket takes bytes again: gaps are told, history is
//! read, the latest of each key is sent.
//! # Invariants: those who waited longest come first; one serving is bounded, so that others have
//! their turn; after it a cursor stands where the topic stands, or waits for its next turn.
//! # Not here: when a cursor begins (`late`, `delivery`), writing (`delivery`).

use super::Shard;
use super::connection::ConnectionId;
use super::cursor::{Cursor, Mode};
use super::delivery::frame_of;
use super::marks::marked;
use super::outbound::{Outbound, Socket};
use crate::clock::Now;
use crate::dialect::bookmark::Bookmark;
use crate::dialect::{Event, Gap, GapReason, PresenceState, TopicPosition, encode};
use crate::metrics::Counters;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use crate::topics::latest::conflate;
use crate::topics::message::{Message, Offset, Position, Stream, TopicHead, Wire};
use crate::topics::name::Target;
use crate::topics::terms::Policy;
use crate::topics::topic::ResumeOptions;
use bytes::Bytes;
use std::sync::Arc;

/// Bytes that one serving may queue before the socket is asked again.
const SERVING_BYTES_MAX: usize = 64 << 10;

/// What is read from history at once.
const STRETCH: ResumeOptions = ResumeOptions { messages_max: 1_000, bytes_max: SERVING_BYTES_MAX };

/// Connections that are served before other work gets its turn.
const SERVINGS_MAX: usize = 64;

impl<S: Socket> Shard<S> {
    /// Serves some of the connections that one serving was not enough for.
    pub(super) fn serve_slice(&mut self) {
        for _ in 0..SERVINGS_MAX {
            let Some(id) = self.serving.pop_front() else { return };
            self.flush(id);
        }
    }

    /// Queues what a connection is behind with, as much as one serving may be.
    pub(super) fn serve(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let full = connection.outbound.bytes() + SERVING_BYTES_MAX;
        while let Some(connection) = self.connection_mut(id) {
            if connection.outbound.bytes() >= full {
                return;
            }
            let ready = connection.cursors.as_mut().and_then(|cursors| cursors.take_ready());
            let Some((topic, cursor)) = ready else { return };
            self.serve_topic(id, topic, cursor);
        }
    }

    /// Goes on from where a cursor stands. The cursor has been taken out.
    fn serve_topic(&mut self, id: ConnectionId, topic: u64, cursor: Cursor) {
        let Some(local) = self.subscribers.topic(topic) else { return };
        let (head, top) = (Arc::clone(&local.head), local.top);
        let memberships = self.connection(id).map(|connection| &connection.memberships);
        let policy = memberships.and_then(|all| self.subscribers.policy_of(all, topic));
        let mode = match cursor.mode {
            Mode::CatchUp if planted::is(Bug::CatchUpRefused) => Mode::Gap,
            mode => mode,
        };
        let reached = match mode {
            Mode::Gap | Mode::Disconnect => self.tell_gap(id, &head, (cursor.since, top)),
            Mode::CatchUp => self.catch_up(id, &head, cursor, policy.unwrap_or_default()),
            Mode::Conflate => self.send_latest(id, &head, cursor),
        };
        self.go_on(id, &head, Cursor { since: reached, untold: false, ..cursor }, policy);
    }

    /// Keeps the cursor as long as it is needed.
    fn go_on(
        &mut self,
        id: ConnectionId,
        head: &TopicHead,
        cursor: Cursor,
        policy: Option<Policy>,
    ) {
        let Some(local) = self.subscribers.topic_mut(head.id) else { return };
        let is_behind = cursor.since < local.top;
        match (cursor.mode, policy) {
            (Mode::CatchUp, Some(Policy::MaxHz(rate))) if !is_behind => {
                // It has come to the present as fast as it could, and goes on at its rate.
                local.end_cursor(Mode::CatchUp);
                local.begin_cursor(Mode::Conflate);
                self.hold(id, head.id, rate, Cursor { mode: Mode::Conflate, ..cursor });
            }
            (Mode::Conflate, Some(Policy::MaxHz(rate))) if !planted::is(Bug::RateForgotten) => {
                self.hold(id, head.id, rate, cursor);
            }
            _ if is_behind && !planted::is(Bug::CursorDropped) => {
                if let Some(connection) = self.connection_mut(id) {
                    connection.set_cursor(head.id, cursor);
                }
            }
            _ => self.forget_cursor(id, head.id, cursor.mode),
        }
    }

    /// Tells that everything between is missing.
    fn tell_gap(
        &mut self,
        id: ConnectionId,
        head: &TopicHead,
        (since, to): (Offset, Offset),
    ) -> Offset {
        if head.stream == Stream::Presence {
            if !planted::is(Bug::AttendanceUntold) {
                self.tell_attendance(id, head);
            }
            return to;
        }
        self.serving(id, head, |serving| serving.gap(since, to, GapReason::Slow));
        to
    }

    /// Who is there now, for who has missed how that came about.
    fn tell_attendance(&mut self, id: ConnectionId, head: &TopicHead) {
        let Ok(there) = self.registry.attendance(&head.name) else { return };
        let event = Event::PresenceState(PresenceState {
            topic: head.name.clone(),
            more: there.has_more(),
            count: there.count,
            members: there.members,
        });
        if let Some(connection) = self.connection_mut(id) {
            connection.outbound.push(encode(0, &event, connection.wire));
        }
    }

    /// Reads on in the topic's history.
    fn catch_up(
        &mut self,
        id: ConnectionId,
        head: &TopicHead,
        cursor: Cursor,
        policy: Policy,
    ) -> Offset {
        let Some(top) = self.subscribers.topic(head.id).map(|local| local.top) else {
            return cursor.since;
        };
        let stretch = self.registry.stretch(head, (cursor.since, top), &STRETCH, self.now);
        let lost = stretch.lost.filter(|_| !planted::is(Bug::LapUntold));
        let begin = stretch.lost.map_or(cursor.since, |(lost, _)| lost);
        let reached = stretch.messages.last().map_or(begin, |last| last.offset);
        let messages =
            if policy.conflates() { conflate(stretch.messages.iter()) } else { stretch.messages };
        self.counters.caught_up.add_len(messages.len());
        self.counters.deliveries.add_len(messages.len());
        self.counters.group_deliveries.of(head.rule.group).add_len(messages.len());
        self.counters.dropped.add(begin.0 - cursor.since.0);
        self.serving(id, head, |serving| {
            if cursor.untold {
                serving.position(cursor.since);
            }
            if let Some((lost, reason)) = lost {
                serving.gap(cursor.since, lost, gap_reason(reason));
            }
            serving.messages(&messages);
        });
        // Whatever happens, a cursor moves: one that finds nothing has nothing to wait for.
        if reached > cursor.since { reached } else { top }
    }

    /// Sends the latest message of every key that came after the cursor.
    fn send_latest(&mut self, id: ConnectionId, head: &TopicHead, cursor: Cursor) -> Offset {
        let Some(local) = self.subscribers.topic(head.id) else { return cursor.since };
        let Some(conflation) = &local.conflation else { return local.top };
        let lost = conflation.lost_after(cursor.since);
        let from = lost.unwrap_or(cursor.since);
        let current = conflation.after(from).filter(|m| !m.is_expired(self.now.uptime));
        let messages: Vec<Arc<Message>> = current.cloned().collect();
        let top = local.top;
        let passed = (top.0 - from.0).saturating_sub(messages.len() as u64);
        let memberships = self.connection(id).map(|connection| &connection.memberships);
        match memberships.and_then(|all| self.subscribers.policy_of(all, head.id)) {
            Some(Policy::MaxHz(_)) => self.counters.conflated_max_hz.add(passed),
            _ => self.counters.conflated_latest.add(passed),
        }
        self.counters.deliveries.add_len(messages.len());
        self.counters.group_deliveries.of(head.rule.group).add_len(messages.len());
        self.counters.dropped.add(from.0 - cursor.since.0);
        self.serving(id, head, |serving| {
            if cursor.untold {
                serving.position(cursor.since);
            }
            if let Some(lost) = lost {
                serving.gap(cursor.since, lost, GapReason::Slow);
            }
            serving.messages(&messages);
        });
        top
    }

    /// Queues for one connection and one topic.
    pub(super) fn serving(
        &mut self,
        id: ConnectionId,
        head: &TopicHead,
        act: impl FnOnce(&mut Serving<'_>),
    ) {
        let (now, counters) = (self.now, Arc::clone(&self.counters));
        // Not by `connection_mut`, which would borrow all of the shard.
        let connection = self.connections.get_mut(id.slot as usize);
        let Some(connection) = connection.filter(|c| c.generation == id.generation) else { return };
        let wire = connection.wire;
        act(&mut Serving {
            outbound: &mut connection.outbound,
            bookmark: if wire.is_sse() { self.marks.get(id.slot) } else { None },
            wire,
            head,
            now,
            counters: &counters,
        });
    }

    /// Brings a connection to the present of the topics that a change of its subscriptions affects:
    /// what it missed means something only under the subscriptions that it was missed by.
    pub(super) fn settle_cursors(&mut self, id: ConnectionId, affected: &Target) {
        if planted::is(Bug::GapToldLate) {
            return;
        }
        self.write_pending(id);
        for (topic, cursor) in self.cursors_in(id, affected) {
            self.finish_cursor(id, topic, cursor);
        }
    }

    /// Brings every connection to the end of a topic that has begun anew: a message does not name its
    /// epoch, so nothing of the old one may come behind the position of the new one.
    #[cold]
    pub(super) fn finish_topic(&mut self, topic: u64) {
        let has_cursors = self.subscribers.topic(topic).is_some_and(|local| local.cursors > 0);
        if !has_cursors || planted::is(Bug::EpochsMixed) {
            return;
        }
        for id in self.ids() {
            // What this turn has for the connection may be of the topic, too.
            self.write_pending(id);
            let cursors = self.connection(id).and_then(|connection| connection.cursors.as_ref());
            if let Some(cursor) = cursors.and_then(|cursors| cursors.get(topic)) {
                let since = self.end_catching_up(id, topic, cursor);
                self.finish_cursor(id, topic, Cursor { since, ..cursor });
                self.flush(id);
            }
        }
    }

    /// Reads what is left of a topic that has been forgotten, or tells that it is gone.
    fn end_catching_up(&mut self, id: ConnectionId, topic: u64, cursor: Cursor) -> Offset {
        let head = self.subscribers.topic(topic).map(|local| Arc::clone(&local.head));
        let before = self.open_connection_mut(id).map(|connection| connection.outbound.bytes());
        let (Some(head), Some(before), Mode::CatchUp) = (head, before, cursor.mode) else {
            return cursor.since;
        };
        let since = self.catch_up(id, &head, cursor, Policy::All);
        let after = self.connection(id).map_or(before, |connection| connection.outbound.bytes());
        self.note_outbound(before, after);
        since
    }

    /// Sends or tells at once what a cursor is behind with, and ends it.
    pub(super) fn finish_cursor(&mut self, id: ConnectionId, topic: u64, cursor: Cursor) {
        let Some(local) = self.subscribers.topic(topic) else { return };
        let (head, top) = (Arc::clone(&local.head), local.top);
        let Some(connection) = self.open_connection_mut(id) else {
            // It is sent nothing any more, and may have lost its place in the topic.
            return self.end_cursor(id, topic);
        };
        let before = connection.outbound.bytes();
        if cursor.since < top {
            match cursor.mode {
                Mode::Conflate => self.send_latest(id, &head, cursor),
                Mode::Gap | Mode::Disconnect => self.tell_gap(id, &head, (cursor.since, top)),
                Mode::CatchUp => {
                    self.counters.dropped.add(top.0 - cursor.since.0);
                    self.tell_gap(id, &head, (cursor.since, top))
                }
            };
        }
        self.end_cursor(id, topic);
        let after = self.connection(id).map_or(before, |connection| connection.outbound.bytes());
        self.note_outbound(before, after);
    }

    /// The cursors of a connection in the topics of a subscription. What happens to a filter does
    /// not matter to topics that the connection is subscribed to by themselves.
    pub(super) fn cursors_in(&self, id: ConnectionId, target: &Target) -> Vec<(u64, Cursor)> {
        let Some(connection) = self.connection(id) else { return Vec::new() };
        let Some(cursors) = &connection.cursors else { return Vec::new() };
        let is_filter = matches!(target, Target::Filter(_));
        let is_affected = |topic: &u64| {
            let local = self.subscribers.topic(*topic);
            local.is_some_and(|local| target.covers(&local.head.name))
                && !(is_filter && self.subscribers.has_exact(&connection.memberships, *topic))
        };
        let topics = cursors.topics().filter(is_affected);
        let mut found: Vec<(u64, Cursor)> =
            topics.filter_map(|topic| Some((topic, cursors.get(topic)?))).collect();
        // A topic that began anew meanwhile has two, the older one first: ids ascend.
        if !planted::is(Bug::GapsUnordered) {
            found.sort_unstable_by_key(|(topic, _)| *topic);
        }
        found
    }

    /// Ends a cursor; nothing of it is left to send.
    pub(super) fn end_cursor(&mut self, id: ConnectionId, topic: u64) {
        let removed = self.connection_mut(id).and_then(|c| c.remove_cursor(topic));
        if let Some(cursor) = removed {
            self.forget_cursor(id, topic, cursor.mode);
        }
    }

    /// Ends all cursors of a connection that is not sent anything any more.
    pub(super) fn end_cursors(&mut self, id: ConnectionId) {
        let Some(cursors) = self.connection_mut(id).and_then(|c| c.cursors.take()) else { return };
        for topic in cursors.topics() {
            if let (Some(cursor), Some(local)) =
                (cursors.get(topic), self.subscribers.topic_mut(topic))
            {
                local.end_cursor(cursor.mode);
            }
        }
    }

    /// Notes that a cursor which was taken out has ended.
    fn forget_cursor(&mut self, id: ConnectionId, topic: u64, mode: Mode) {
        if let Some(local) = self.subscribers.topic_mut(topic) {
            local.end_cursor(mode);
        }
        let Some(connection) = self.connection_mut(id) else { return };
        if connection.cursors.as_ref().is_some_and(|cursors| cursors.is_empty()) {
            connection.cursors = None;
        }
    }
}

/// What is sent of one topic to one connection that is behind.
pub(super) struct Serving<'a> {
    outbound: &'a mut Outbound,
    /// Where the connection stands, if its events say so.
    bookmark: Option<&'a mut Bookmark>,
    wire: Wire,
    head: &'a TopicHead,
    now: Now,
    counters: &'a Counters,
}

impl Serving<'_> {
    /// Tells that the messages after `since` and up to `to` are missing.
    fn gap(&mut self, since: Offset, to: Offset, reason: GapReason) {
        if planted::is(Bug::GapUntold) {
            return;
        }
        self.counters.gaps.increment();
        let topic = self.head.name.clone();
        let told = to.0 - u64::from(planted::is(Bug::GapTooShort));
        let gap = Gap { topic, from: since.next().0, to: told, reason };
        self.note(to);
        self.push(&encode(0, &Event::Gap(gap), self.wire));
        self.position(to);
    }

    /// Tells where the topic stands.
    fn position(&mut self, offset: Offset) {
        let position = Position { epoch: self.head.epoch, offset };
        let position = TopicPosition { topic: self.head.name.clone(), position };
        self.note(offset);
        self.push(&encode(0, &Event::Position(position), self.wire));
    }

    /// Notes that the topic has been sent up to here.
    fn note(&mut self, offset: Offset) {
        if let Some(bookmark) = &mut self.bookmark {
            bookmark.note(self.head, offset);
        }
    }

    fn push(&mut self, frame: &Bytes) {
        self.outbound.push(match &mut self.bookmark {
            Some(bookmark) => marked(bookmark, frame),
            None => frame.clone(),
        });
    }

    /// Sends messages, oldest first; those whose time is over are told as missing in their place.
    pub(super) fn messages(&mut self, messages: &[Arc<Message>]) {
        let mut expired: Option<(Offset, Offset)> = None;
        for message in messages {
            if message.is_expired(self.now.uptime) && !planted::is(Bug::ExpiredSent) {
                let (since, _) = expired.unwrap_or((message.offset.previous(), message.offset));
                expired = Some((since, message.offset));
                continue;
            }
            if let Some((since, to)) = expired.take().filter(|_| !planted::is(Bug::ExpiredUntold)) {
                self.gap(since, to, GapReason::Expired);
            }
            let frame = frame_of(message, self.wire, self.counters);
            if self.wire == Wire::SseTopic {
                // It has its id in itself.
                self.outbound.push(frame.clone());
            } else {
                self.note(message.offset);
                self.push(frame);
            }
        }
        if let Some((since, to)) = expired {
            self.gap(since, to, GapReason::Expired);
        }
    }
}

fn gap_reason(reason: Reason) -> GapReason {
    match reason {
        Reason::Expired => GapReason::Expired,
        _ => GapReason::Trimmed,
    }
}
