//! Beginning a subscription: from a position, from the latest messages, or from now on.
//! # Invariants: a resume sends exactly what was missed or says why not; reply, past and present
//! follow each other without a seam.
//! # Not here: how a seam is made (`topics`), unsubscribing.

use super::Session;
use crate::auth::{Ask as Permission, Identity, permits};
use crate::dialect::{
    Event, Recovery, SnapshotEnd, Stale, Subscribe, Subscribed, TopicPosition, TopicRecovery,
};
use crate::metrics::Counters;
use crate::reason::{Reason, Refusal};
use crate::shard::outbound::Socket;
use crate::shard::{FilterAsk, Joiner, Shard, Standing};
use crate::topics::message::Position;
use crate::topics::name::{Target, TopicFilter, TopicName};
use crate::topics::rule::Rule;
use crate::topics::terms::{Overflow, Terms};
use crate::topics::topic::{Ask, Seam};
use std::collections::HashSet;
use std::sync::Arc;

impl Session {
    pub(super) fn subscribe<S: Socket>(
        &mut self,
        id: u64,
        subscribe: &Subscribe,
        shard: &mut Shard<S>,
    ) -> Result<(), Refusal> {
        self.permit(Permission::Subscribe(&subscribe.target), shard)?;
        self.check_room(&subscribe.target, shard)?;
        let begun = match &subscribe.target {
            Target::Topic(topic) => {
                self.may_begin(topic, shard)?;
                self.join_topic(topic, subscribe, shard)?
            }
            Target::Filter(filter) => self.join_filter(filter, subscribe, shard)?,
        };
        begun.count(shard.counters());
        // A filter begins no topic.
        if begun.seams.iter().any(|seam| seam.is_new_topic) {
            self.count_new_topic(shard);
        }
        // Who wants no reply on success must still learn that a resume was none.
        if id != 0 || begun.is_lossy() {
            shard.send(self.connection, id, &Event::Subscribed(begun.reply));
        }
        for seam in &begun.seams {
            if let Some(start) = untold_start(seam, subscribe) {
                shard.send(self.connection, 0, &Event::Position(start));
            }
            shard.replay(self.connection, &seam.head, &seam.replay);
        }
        self.tell_stale(&begun.seams, subscribe, shard);
        if subscribe.snapshot {
            let positions = begun.seams.iter().map(position_of).collect();
            let end = SnapshotEnd { target: subscribe.target.clone(), positions };
            shard.send(self.connection, 0, &Event::SnapshotEnd(end));
        }
        Ok(())
    }

    /// Tells which topics of a filter are stale already; of a topic, the reply says it.
    fn tell_stale<S: Socket>(&self, seams: &[Seam], subscribe: &Subscribe, shard: &mut Shard<S>) {
        if matches!(subscribe.target, Target::Topic(_)) {
            return;
        }
        for seam in seams.iter().filter(|seam| seam.head.rule.stale_after.is_some()) {
            if shard.is_stale(&seam.head) {
                let topic = seam.head.name.clone();
                let stale = Stale { topic, since_ms: seam.heard.wall_ms };
                shard.send(self.connection, 0, &Event::Stale(stale));
            }
        }
    }

    fn check_room<S: Socket>(&self, target: &Target, shard: &Shard<S>) -> Result<(), Refusal> {
        let limits = &self.broker.limits;
        if shard.has(self.connection, target) {
            return Err(Reason::AlreadySubscribed.into());
        }
        if shard.subscription_count(self.connection) >= limits.subscriptions_max {
            let detail = format!("the limit is {}", limits.subscriptions_max);
            return Err(Refusal::new(Reason::TooManySubscriptions, detail));
        }
        let is_filter = matches!(target, Target::Filter(_));
        if is_filter && shard.filter_count(self.connection) >= limits.filters_max {
            let detail = format!("the limit is {}", limits.filters_max);
            return Err(Refusal::new(Reason::TooManyFilters, detail));
        }
        Ok(())
    }

    fn join_topic<S: Socket>(
        &self,
        topic: &TopicName,
        subscribe: &Subscribe,
        shard: &mut Shard<S>,
    ) -> Result<Begun, Refusal> {
        let ask = Ask { since: subscribe.since, ..self.ask_of(topic, subscribe) };
        let seam = shard.join_topic(self.joiner(subscribe), topic, &ask)?;
        self.attend(&seam, subscribe, shard)?;
        let reply = Subscribed {
            target: subscribe.target.clone(),
            position: Some(seam.position()),
            recovery: seam.recovery,
            topics: Vec::new(),
            terms: granted(subscribe.terms(), &seam.head.rule),
            stale: shard.is_stale(&seam.head),
        };
        Ok(Begun { reply, seams: vec![seam] })
    }

    /// Lists the connection in a topic that it has just joined, and has it told of others. It has
    /// left again where that is refused.
    fn attend<S: Socket>(
        &self,
        seam: &Seam,
        subscribe: &Subscribe,
        shard: &mut Shard<S>,
    ) -> Result<(), Reason> {
        if let Err(refused) = shard.enter(self.connection, &seam.head, self.name.clone()) {
            shard.retract(self.connection, &subscribe.target)?;
            return Err(refused);
        }
        if subscribe.presence
            && let Err(refused) = shard.watch(self.connection, &seam.head)
        {
            shard.leave(self.connection, &subscribe.target)?;
            return Err(refused);
        }
        Ok(())
    }

    fn join_filter<S: Socket>(
        &self,
        filter: &TopicFilter,
        subscribe: &Subscribe,
        shard: &mut Shard<S>,
    ) -> Result<Begun, Refusal> {
        let reader = match shard.standing(self.connection) {
            Standing::As(identity) => Some(Arc::clone(identity)),
            Standing::Open | Standing::Stranger => None,
        };
        // Asked again for each topic whose past is read, although a filter that is permitted has
        // only topics that are.
        let covers = |topic: &TopicName| {
            let permitted = |reader: &Arc<Identity>| permits(reader, Permission::Read(topic));
            filter.matches(topic) && reader.as_ref().is_none_or(permitted)
        };
        let asks = || self.filter_asks(filter, subscribe, covers);
        let seams = shard.join_filter(self.joiner(subscribe), filter, asks)?;
        // The first asks answer `positions`; further ones are what else a snapshot holds.
        let mut answered = seams.iter();
        let recovery = |position: &TopicPosition| {
            if !covers(&position.topic) {
                return lost(&position.topic, Reason::NotAllowed);
            }
            match answered.next().and_then(Option::as_ref) {
                None => lost(&position.topic, Reason::EpochChanged),
                Some(seam) => TopicRecovery {
                    topic: position.topic.clone(),
                    position: Some(seam.position()),
                    recovery: seam.recovery.unwrap_or(Ok(())),
                },
            }
        };
        let reply = Subscribed {
            target: subscribe.target.clone(),
            position: None,
            recovery: None,
            topics: subscribe.positions.iter().map(recovery).collect(),
            terms: granted(
                subscribe.terms(),
                self.broker.engine.registry().rules().covering(filter),
            ),
            stale: false,
        };
        Ok(Begun { reply, seams: seams.into_iter().flatten().collect() })
    }

    /// What to ask of the past of each topic: first of those that the client has a position of,
    /// then, for a snapshot or the latest messages, of all others that match.
    fn filter_asks(
        &self,
        filter: &TopicFilter,
        subscribe: &Subscribe,
        covers: impl Fn(&TopicName) -> bool,
    ) -> Result<Vec<FilterAsk>, Refusal> {
        let mut seen = HashSet::new();
        let mut asks = Vec::new();
        for TopicPosition { topic, position } in &subscribe.positions {
            if !seen.insert(topic) {
                let detail = format!("`{topic}` is named twice");
                return Err(Refusal::new(Reason::BadPosition, detail));
            }
            if covers(topic) {
                let ask = Ask { since: Some(*position), ..self.ask_of(topic, subscribe) };
                asks.push(FilterAsk { topic: topic.clone(), ask });
            }
        }
        if subscribe.last > 0 || subscribe.snapshot {
            let max = self.broker.limits.snapshot_topics_max;
            let matching = self.broker.engine.registry().matching(filter, max)?;
            let others = |topic: &TopicName| !seen.contains(topic) && covers(topic);
            for topic in matching.into_iter().filter(others) {
                let ask = self.ask_of(&topic, subscribe);
                asks.push(FilterAsk { topic, ask });
            }
        }
        Ok(asks)
    }

    /// What a subscription wants of the past of a topic, under what the topic's rule grants it.
    fn ask_of(&self, topic: &TopicName, subscribe: &Subscribe) -> Ask {
        let rule = self.broker.engine.registry().rule(topic);
        Ask {
            since: None,
            last: subscribe.last as usize,
            snapshot: subscribe.snapshot,
            policy: subscribe.terms().policy.capped(rule.cap),
            room: self.broker.limits.resume,
        }
    }

    fn joiner(&self, subscribe: &Subscribe) -> Joiner {
        Joiner { connection: self.connection, terms: subscribe.terms() }
    }
}

/// What a rule makes of the terms that were asked for, as a client is told: how slow reading is
/// treated is only said when it was asked, or is not what the protocol has as its default.
pub(super) fn granted(asked: Terms, rule: &Rule) -> Terms {
    let policy = asked.policy.capped(rule.cap);
    let overflow = Some(rule.overflow(asked.overflow)).filter(|overflow| {
        !policy.conflates() && (asked.overflow.is_some() || *overflow != Overflow::default())
    });
    Terms { policy, overflow }
}

/// A subscription that has begun.
struct Begun {
    reply: Subscribed,
    seams: Vec<Seam>,
}

impl Begun {
    fn is_lossy(&self) -> bool {
        let mut topics = self.reply.topics.iter();
        self.reply.recovery.is_some_and(|recovery| recovery.is_err())
            || topics.any(|topic| topic.recovery.is_err())
    }

    fn count(&self, counters: &Counters) {
        let count = |recovery: &Recovery| match recovery {
            Ok(()) => counters.resumes_recovered.increment(),
            Err(reason) => counters.resumes_refused.of(*reason).increment(),
        };
        self.reply.recovery.iter().for_each(count);
        self.reply.topics.iter().for_each(|topic| count(&topic.recovery));
    }
}

fn lost(topic: &TopicName, reason: Reason) -> TopicRecovery {
    TopicRecovery { topic: topic.clone(), position: None, recovery: Err(reason) }
}

/// Where the latest messages of a topic begin, if neither the reply nor a snapshot end tells where
/// the topic stands.
fn untold_start(seam: &Seam, subscribe: &Subscribe) -> Option<TopicPosition> {
    let told = subscribe.snapshot || seam.recovery.is_some();
    if told || matches!(subscribe.target, Target::Topic(_)) {
        return None;
    }
    let offset = seam.replay.first()?.offset.previous();
    let position = Position { epoch: seam.head.epoch, offset };
    Some(TopicPosition { topic: seam.head.name.clone(), position })
}

fn position_of(seam: &Seam) -> TopicPosition {
    TopicPosition { topic: seam.head.name.clone(), position: seam.position() }
}
