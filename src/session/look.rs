//! Looking at topics without a subscription: their history, their latest messages, who is there.
//! # Invariants: whatever way somebody came, the same permission and the same limits count.
//! # Not here: spelling (`dialect`), what topics keep (`topics`).

use super::Broker;
use crate::auth::Ask as Permission;
use crate::clock::Now;
use crate::dialect::{Event, History, HistoryPage, PresenceState, TopicPosition};
use crate::limits::rate::Spent;
use crate::reason::{Reason, Refusal};
use crate::shard::outbound::Socket;
use crate::shard::{Shard, Standing};
use crate::topics::message::Message;
use crate::topics::name::{Target, TopicName};
use crate::topics::topic::Ask;
use std::sync::Arc;

/// The latest messages of topics, and where these stand.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What a subscription would be sent first.
    pub messages: Vec<Arc<Message>>,
    /// The position of each topic.
    pub positions: Vec<TopicPosition>,
}

impl Broker {
    /// Counts a request that looks at topics against what its connection may publish. `spent` is what
    /// that has used up.
    ///
    /// # Errors
    /// [`Reason::TooOften`].
    pub fn may_look(
        &self,
        standing: Standing<'_>,
        spent: &mut Spent,
        now: Now,
    ) -> Result<(), Reason> {
        match (standing, self.limits.publishes) {
            (Standing::As(identity), Some(rate)) if !identity.is_service() => {
                spent.take(rate, now.uptime).map_err(|_| Reason::TooOften)
            }
            _ => Ok(()),
        }
    }

    /// A page of a topic's history.
    ///
    /// # Errors
    /// Those of [`Standing::permit`], and [`Reason::EpochChanged`], [`Reason::Trimmed`] or
    /// [`Reason::Expired`].
    pub fn history(
        &self,
        standing: Standing<'_>,
        query: History,
        now: Now,
    ) -> Result<Event, Refusal> {
        standing.permit(Permission::Read(&query.topic))?;
        let limit = if query.limit == 0 { usize::MAX } else { query.limit as usize };
        let page = self.engine.registry().history(&query.topic, query.since, limit, now)?;
        let page = match page {
            Some(page) => HistoryPage {
                topic: query.topic,
                top: Some(page.top),
                messages: page.messages,
                more: page.more,
            },
            None => HistoryPage { topic: query.topic, top: None, messages: vec![], more: false },
        };
        Ok(Event::HistoryPage(page))
    }

    /// Who is subscribed to a topic.
    ///
    /// # Errors
    /// Those of [`Standing::permit`]; [`Reason::NotAllowed`] where the topic keeps no presence.
    pub fn attendance(&self, standing: Standing<'_>, topic: TopicName) -> Result<Event, Refusal> {
        standing.permit(Permission::Read(&topic))?;
        let there =
            self.engine.registry().attendance(&topic).map_err(|reason| {
                Refusal::new(reason, "the rule of this topic keeps no presence")
            })?;
        Ok(Event::PresenceState(PresenceState {
            topic,
            more: there.has_more(),
            count: there.count,
            members: there.members,
        }))
    }

    /// The latest messages of a topic, or of every topic that a filter matches: what a subscription
    /// with a snapshot would be sent first.
    ///
    /// # Errors
    /// Those of [`Standing::permit`]; [`Reason::SnapshotTooLarge`] when there are more topics or
    /// messages than one snapshot may hold.
    pub fn snapshot<S: Socket>(
        &self,
        standing: Standing<'_>,
        target: &Target,
        shard: &mut Shard<S>,
    ) -> Result<Snapshot, Refusal> {
        standing.permit(Permission::Subscribe(target))?;
        let topics = match target {
            Target::Topic(topic) => vec![topic.clone()],
            Target::Filter(filter) => {
                let max = self.limits.snapshot_topics_max;
                self.engine.registry().matching(filter, max)?
            }
        };
        let (mut room, mut snapshot) = (self.limits.resume, Snapshot::default());
        for topic in topics.iter().filter(|topic| standing.permit(Permission::Read(topic)).is_ok())
        {
            let ask = Ask { snapshot: true, room, ..Ask::default() };
            let Some(seam) = shard.peek(topic, &ask)? else { continue };
            room = room.less(&seam.replay);
            let position = seam.position();
            snapshot.positions.push(TopicPosition { topic: topic.clone(), position });
            snapshot.messages.extend(seam.replay);
        }
        Ok(snapshot)
    }
}
