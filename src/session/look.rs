//! Looking at topics without a subscription: their history, their latest messages, who is there.
//! # Invariants: whatever way somebody came, the same permission and the same limits count.
//! # Not here: spelling (`dialect`), what topics keep (`topics`).

use super::Broker;
use crate::auth::Ask as Permission;
use crate::clock::Now;
use crate::dialect::{Event, History, HistoryPage, PresenceState, TopicPosition};
use crate::reason::Refusal;
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
    /// A page of a topic's history.
    ///
    /// # Errors
    /// Those of [`Standing::permit`], and `epochChanged`, `trimmed` or `expired`.
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
    /// Those of [`Standing::permit`]; `notAllowed` where the topic keeps no presence.
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
    /// Those of [`Standing::permit`]; `snapshotTooLarge` when there are more topics or
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
