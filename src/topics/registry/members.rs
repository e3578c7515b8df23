//! Presence: who is subscribed to a topic. Changes travel as messages of the topic's companion.
//! # Invariants: a change is posted to every shard that watches, or it has not happened yet; a topic
//! with members is not forgotten, because their shards want it.
//! # Not here: the list itself (`presence`), who counts as a member (`shard`).

use super::{Registry, new_topic};
use crate::clock::Now;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use crate::topics::mailbox::Inbox;
use crate::topics::message::{Draft, Epoch, Member, Payload, Stream, TopicHead};
use crate::topics::name::TopicName;
use crate::topics::presence::{Attendance, Change};
use crate::topics::rule::{Presence, Rule};
use crate::topics::terms::Overflow;
use crate::topics::topic::{ShardId, Topic};
use std::sync::Arc;

impl Registry {
    /// Adds a member to a topic, and tells those who watch. Nothing happens where the topic's rule
    /// keeps no presence.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] when a shard has no room to hear of it: then nothing has changed.
    pub fn enter(&self, head: &TopicHead, member: Member, now: Now) -> Result<(), Reason> {
        let Some(companion) = self.companion_of(head) else { return Ok(()) };
        let mut state = companion.state.lock();
        let members_max = members_max(head);
        if state.aside().roster.place(members_max) == Change::Listed {
            let joined = Draft::new(head.name.clone(), Payload::Joined(member.clone()));
            self.post(&companion, &mut state, joined, now)?;
        }
        state.aside().roster.enter(member, members_max);
        Ok(())
    }

    /// Takes a member out of a topic, and tells those who watch.
    ///
    /// # Errors
    /// As [`Registry::enter`]: the member is still there, and somebody must try again.
    pub fn exit(&self, head: &TopicHead, connection: &str, now: Now) -> Result<(), Reason> {
        let Some(companion) = self.companion_of(head) else { return Ok(()) };
        let mut state = companion.state.lock();
        if let Some(member) = state.aside().roster.find(connection)
            && !planted::is(Bug::LeftUntold)
        {
            let left = Draft::new(head.name.clone(), Payload::Left(member));
            self.post(&companion, &mut state, left, now)?;
        }
        state.aside().roster.exit(connection);
        Ok(())
    }

    /// Has a shard told who joins and leaves. The mailbox is drained as by [`Registry::join`].
    /// `None` where the topic's rule keeps no presence.
    pub fn watch(&self, head: &TopicHead, inbox: &mut Inbox) -> Option<Arc<TopicHead>> {
        let companion = self.companion_of(head)?;
        let mut state = companion.state.lock();
        state.exact.insert(inbox.shard);
        self.collect(inbox);
        Some(Arc::clone(&companion.head))
    }

    /// Ends what [`Registry::watch`] began.
    pub fn unwatch(&self, topic: &TopicName, shard: ShardId) {
        let topic = self.topic(topic);
        if let Some(companion) = topic.as_ref().and_then(|topic| topic.companion.as_ref()) {
            companion.state.lock().exact.remove(shard);
        }
    }

    /// Who is subscribed to a topic.
    ///
    /// # Errors
    /// [`Reason::NotAllowed`] where the topic's rule keeps no presence.
    pub fn attendance(&self, topic: &TopicName) -> Result<Attendance, Reason> {
        if self.rule(topic).presence == Presence::Off {
            return Err(Reason::NotAllowed);
        }
        let topic = self.topic(topic);
        let companion = topic.as_ref().and_then(|topic| topic.companion.as_ref());
        Ok(companion
            .map(|there| there.state.lock().aside().roster.attendance())
            .unwrap_or_default())
    }

    /// A topic's companion, when its rule wants one. Its id is the one after the topic's.
    pub(super) fn companion(head: &TopicHead, now: Now) -> Option<Arc<Topic>> {
        if head.rule.presence == Presence::Off {
            return None;
        }
        let mut rule = Rule { overflow: Overflow::Gap, ..Rule::default() };
        rule.history.messages = 0;
        let id = head.id.saturating_add(1);
        let companion = TopicHead {
            stream: Stream::Presence,
            ..TopicHead::new(id, head.name.clone(), Epoch::from_bits(id.into()), Arc::new(rule))
        };
        Some(new_topic(companion, None, now))
    }

    fn companion_of(&self, head: &TopicHead) -> Option<Arc<Topic>> {
        let topic = self.topic(&head.name).filter(|topic| topic.head.id == head.id)?;
        topic.companion.clone()
    }
}

fn members_max(head: &TopicHead) -> usize {
    match head.rule.presence {
        Presence::Off => 0,
        Presence::On { members_max } => members_max,
    }
}
