//! Beginning a subscription: from a position, from the latest messages, or from now on.
//! # Invariants: a resume sends exactly what was missed or says why not; reply, past and present
//! follow each other without a seam.
//! # Not here: how a seam is made (`topics`), unsubscribing.

use super::Session;
use crate::auth::{Ask as Permission, Identity, permits};
use crate::clock::Now;
use crate::dialect::bookmark;
use crate::dialect::{
    Event, Kept, Recovery, SnapshotEnd, Stale, Subscribe, Subscribed, TopicPosition, TopicRecovery,
};
use crate::metrics::Counters;
use crate::reason::{Reason, Refusal};
use crate::shard::outbound::Socket;
use crate::shard::{FilterAsk, Joiner, Shard, Standing};
use crate::topics::message::{Offset, Position};
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
        for seam in &begun.seams {
            shard.mark(self.connection, &seam.head, start_of(seam));
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
            for seam in &begun.seams {
                // The latest messages may be those of a while ago.
                shard.mark(self.connection, &seam.head, seam.top);
            }
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
            recovery: seam.recovery.or(lost_of(subscribe)),
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
        let now = shard.now();
        let mut past = Past::of(subscribe, shard.targets(self.connection));
        let asks = || self.filter_asks(&mut past, subscribe, (filter, now), covers);
        let seams = shard.join_filter(self.joiner(subscribe), filter, asks)?;
        if subscribe.kept.is_some() {
            let kept = if past.is_whole { Kept::All } else { Kept::Some };
            shard.mark_filter(self.connection, filter, kept);
        }
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
            recovery: lost_of(subscribe)
                .or((!past.is_whole).then_some(Err(Reason::TooMany)))
                .filter(|_| subscribe.kept != Some(Kept::Nothing)),
            topics: past.positions.iter().map(recovery).collect(),
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
        past: &mut Past,
        subscribe: &Subscribe,
        (filter, now): (&TopicFilter, Now),
        covers: impl Fn(&TopicName) -> bool,
    ) -> Result<Vec<FilterAsk>, Refusal> {
        let sends_first = subscribe.last > 0 || subscribe.snapshot;
        let others = self.others(past, subscribe, (filter, now))?;
        let mut seen = HashSet::new();
        let mut asks = Vec::new();
        for TopicPosition { topic, position } in &past.positions {
            if !seen.insert(topic) {
                let detail = format!("`{topic}` is named twice");
                return Err(Refusal::new(Reason::BadPosition, detail));
            }
            if covers(topic) {
                let ask = Ask { since: Some(*position), ..self.ask_of(topic, subscribe) };
                asks.push(FilterAsk { topic: topic.clone(), ask });
            }
        }
        let others = others.into_iter().filter(|topic| !seen.contains(topic) && covers(topic));
        for topic in others.filter(|topic| sends_first || !past.is_elsewhere(topic)) {
            let ask = self.ask_of(&topic, subscribe);
            asks.push(FilterAsk { topic, ask });
        }
        Ok(asks)
    }

    /// The topics of a filter whose past is asked for beside those of a known position. Where all
    /// positions are known, a topic without one has begun since: its position is its beginning.
    fn others(
        &self,
        past: &mut Past,
        subscribe: &Subscribe,
        (filter, now): (&TopicFilter, Now),
    ) -> Result<Vec<TopicName>, Refusal> {
        let registry = self.broker.engine.registry();
        let sends_first = subscribe.last > 0 || subscribe.snapshot;
        let max = self.broker.limits.snapshot_topics_max;
        let others = match subscribe.kept {
            None if !sends_first => return Ok(Vec::new()),
            // What does not fit into a bookmark need not be looked at.
            Some(Kept::Nothing | Kept::Some) if !sends_first => {
                registry.matching(filter, bookmark::TOPICS_MAX)
            }
            _ => registry.matching(filter, max),
        };
        let others = match others {
            Err(_) if !sends_first => {
                past.is_whole = false;
                return Ok(Vec::new());
            }
            others => others?,
        };
        if subscribe.kept == Some(Kept::All) {
            past.begin_at_the_beginning(&others, |topic| {
                let page = registry.history(topic, None, 0, now).unwrap_or_default();
                page.map(|page| page.top)
            });
        }
        Ok(others)
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

/// What is known of the past of a filter's topics.
struct Past {
    /// Where the client stands.
    positions: Vec<TopicPosition>,
    /// What else the connection is subscribed to, if we keep its positions: a topic that another
    /// subscription goes on with is not sent twice.
    elsewhere: Vec<Target>,
    /// Whether all topics that match now were looked at.
    is_whole: bool,
}

impl Past {
    fn of(subscribe: &Subscribe, targets: Vec<Target>) -> Past {
        let elsewhere = if subscribe.kept.is_some() { targets } else { Vec::new() };
        let mut past = Past { positions: Vec::new(), elsewhere, is_whole: true };
        let positions = subscribe.positions.iter();
        let own: Vec<_> = positions.filter(|place| !past.is_elsewhere(&place.topic)).collect();
        let own = own.into_iter().cloned().collect();
        past.positions = own;
        past
    }

    fn is_elsewhere(&self, topic: &TopicName) -> bool {
        self.elsewhere.iter().any(|target| target.covers(topic))
    }

    /// Has the topics among these that have no position, and are nobody else's, begin before their
    /// first message.
    fn begin_at_the_beginning(
        &mut self,
        topics: &[TopicName],
        top: impl Fn(&TopicName) -> Option<Position>,
    ) {
        let known: HashSet<&TopicName> = self.positions.iter().map(|place| &place.topic).collect();
        let is_new = |topic: &&TopicName| !known.contains(topic) && !self.is_elsewhere(topic);
        let begin = |topic: &TopicName| {
            let top = top(topic).filter(|top| top.offset > Offset(0))?;
            let position = Position { offset: Offset(0), ..top };
            Some(TopicPosition { topic: topic.clone(), position })
        };
        let new: Vec<_> = topics.iter().filter(is_new).filter_map(begin).collect();
        self.positions.extend(new);
    }
}

/// What a reader is told of the positions that it came back without.
fn lost_of(subscribe: &Subscribe) -> Option<Recovery> {
    (subscribe.kept == Some(Kept::Some)).then_some(Err(Reason::TooMany))
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
    seam.replay.first()?;
    let position = Position { epoch: seam.head.epoch, offset: start_of(seam) };
    Some(TopicPosition { topic: seam.head.name.clone(), position })
}

/// Where what a subscription sends of a topic begins.
fn start_of(seam: &Seam) -> Offset {
    seam.replay.first().map_or(seam.top, |first| first.offset.previous())
}

fn position_of(seam: &Seam) -> TopicPosition {
    TopicPosition { topic: seam.head.name.clone(), position: seam.position() }
}
