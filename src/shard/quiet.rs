//! Topics that have gone quiet: their subscribers are told that they are stale, and that they are
//! fresh again.
//! # Invariants: stale and fresh alternate; `fresh` comes before the message that ends the quiet.
//! # Not here: how long is too long (`topics::rule`).

use super::Shard;
use super::connection::ConnectionId;
use super::outbound::Socket;
use super::pace::{Due, tick_of};
use crate::dialect::{Event, Stale};
use crate::planted::{self, Bug};
use crate::topics::message::{Message, Offset, TopicHead};
use crate::topics::topic::Heard;
use std::sync::Arc;
use std::time::Duration;

impl<S: Socket> Shard<S> {
    /// Whether a topic that somebody on this shard is subscribed to is stale.
    pub fn is_stale(&self, head: &TopicHead) -> bool {
        self.subscribers.topic(head.id).is_some_and(|topic| topic.is_stale)
    }

    /// Keeps a topic in sight that only filters want, so that they are told when it is quiet.
    pub fn watch_quiet(&mut self, head: &Arc<TopicHead>, top: Offset, latest: Heard) {
        if head.rule.stale_after.is_some() {
            self.subscribers.track(head, top, latest);
            self.begin_quiet(head);
        }
    }

    /// Begins to look when a topic was last heard of. Whoever asks for this tells what it finds now.
    pub(super) fn begin_quiet(&mut self, head: &TopicHead) {
        let (Some(after), Some(topic)) = (stale_after(head), self.subscribers.topic_mut(head.id))
        else {
            return;
        };
        if topic.is_stale || topic.judged_at.is_some() {
            return;
        }
        let since = topic.heard.uptime;
        topic.is_stale = self.now.uptime.saturating_sub(since) >= after;
        if !topic.is_stale {
            self.judge_later(head, since);
        }
    }

    /// Notes that a topic was heard of.
    pub(super) fn note_heard(&mut self, message: &Message) {
        if message.head.rule.stale_after.is_none() {
            return;
        }
        let Some(topic) = self.subscribers.topic_mut(message.head.id) else { return };
        topic.heard = Heard { uptime: message.committed, wall_ms: message.time_ms };
        if std::mem::take(&mut topic.is_stale) {
            if !planted::is(Bug::FreshUntold) {
                self.tell(message.head.id, &Event::Fresh(message.head.name.clone()));
            }
        } else if topic.judged_at.is_some() {
            return;
        }
        // It may be late already: that is told when it is judged.
        self.judge_later(&message.head, message.committed);
    }

    /// Looks again when a topic that was heard of then would be stale.
    fn judge_later(&mut self, head: &TopicHead, since: Duration) {
        let Some(after) = stale_after(head) else { return };
        let tick = tick_of(since.saturating_add(after));
        if let Some(topic) = self.subscribers.topic_mut(head.id) {
            topic.judged_at = Some(tick);
            self.pace.insert(tick, Due::Quiet { topic: head.id, tick });
        }
    }

    /// Tells that a topic is stale, if it has not been heard of meanwhile.
    pub(super) fn judge_quiet(&mut self, id: u64, tick: u64) {
        let Some(topic) = self.subscribers.topic_mut(id) else { return };
        if topic.judged_at != Some(tick) {
            return;
        }
        topic.judged_at = None;
        let head = Arc::clone(&topic.head);
        // This shard does not hear of a topic while nobody on it wants it.
        if let Some(latest) = self.registry.heard(&head) {
            topic.heard = latest;
        }
        let since_ms = topic.heard.wall_ms;
        self.begin_quiet(&head);
        if self.is_stale(&head) && !planted::is(Bug::StaleUntold) {
            self.tell(id, &Event::Stale(Stale { topic: head.name.clone(), since_ms }));
        }
    }

    /// Sends an event to everybody who is subscribed to a topic.
    fn tell(&mut self, topic: u64, event: &Event) {
        for slot in self.subscribers.connections(topic) {
            let Some(connection) = self.connections.get(slot as usize) else { continue };
            let id = ConnectionId { slot, generation: connection.generation };
            if connection.outbound.bytes() > self.options.outbound_bytes_max {
                self.close(id, &crate::reason::Reason::SlowConsumer.into());
                continue;
            }
            self.send(id, 0, event);
            self.flush(id);
        }
    }
}

/// How long a topic may be quiet.
fn stale_after(head: &TopicHead) -> Option<Duration> {
    let after = head.rule.stale_after?;
    Some(if planted::is(Bug::StaleEarly) { after / 2 } else { after })
}
