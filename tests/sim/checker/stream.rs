//! What one connection hears: for every topic a line without a hole that is not told.
//! # Not here: what stands at each place (`log`), whether it is all of it (`quiet`).

use super::cursor::{Arrival, Cursor, Past};
use super::deferred::{Cause, Passed};
use super::log::{Log, Start, Told, seam_fault};
use super::roster::{Change, Watch};
use super::stale::Quiet;
use super::terms::{Subscription, check_updated};
use super::{Checked, Fault, Invariant, Moment, covers, fault};
use crate::history::{
    Command, Event, Gap, GapReason, Message, Overflow, Policy, Position, Span, TopicPosition,
    Update, Updated,
};
use fanfare::topics::message::Wire;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: u64,
    pub(super) life: usize,
    /// What the broker calls the connection, and what it calls itself.
    pub(super) called: String,
    batches: Batches,
    pub(super) name: String,
    /// Commands that wait for their answers, in the order in which they were sent.
    pub(super) asked: VecDeque<Asked>,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// Who is told of others, by topic.
    pub(super) watches: BTreeMap<String, Watch>,
    pub(super) quiets: BTreeMap<String, Quiet>,
    /// A gap that was told, before the position behind it was.
    pub(super) gap: Option<Gap>,
    pub(super) snapshot: Option<Snapshot>,
    /// A filter's latest messages may repeat what the connection has; each topic once.
    pub(super) repeats: BTreeMap<String, (String, u64)>,
    /// Since when a filter's latest messages may begin anywhere.
    pub(super) latest_since: Option<Moment>,
    /// A message that came too soon for its rate: the topic must have begun anew.
    pub(super) hasty: Option<(u64, Fault)>,
    pub(super) is_over: bool,
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) moment: Moment,
    pub(super) command: Command,
    /// The number of the attempt, if it is to publish.
    pub(super) attempt: Option<usize>,
}

/// A snapshot that has begun.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) target: String,
    pub(super) last: u64,
    pub(super) asked: Moment,
    /// Topics whose position the reply told.
    pub(super) named: BTreeSet<String>,
    pub(super) messages: BTreeMap<String, Vec<(Heard, Message)>>,
}

/// Whether events come in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batches {
    /// On TCP there are none.
    Never,
    Unasked,
    /// Who has asked for them once has them from then on.
    Asked,
}

/// When something was heard, and when it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) moment: Moment,
    pub(super) sent: Option<Span>,
}

impl Stream {
    pub(super) fn new(number: u64, life: usize, (called, wire): (&str, &str)) -> Stream {
        Stream {
            number,
            life,
            called: called.to_owned(),
            batches: if wire == Wire::TcpProto.name() { Batches::Never } else { Batches::Unasked },
            name: String::new(),
            asked: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            cursors: BTreeMap::new(),
            watches: BTreeMap::new(),
            quiets: BTreeMap::new(),
            gap: None,
            snapshot: None,
            repeats: BTreeMap::new(),
            latest_since: None,
            hasty: None,
            is_over: false,
        }
    }

    pub(super) fn life(&self) -> usize {
        self.life
    }

    pub(super) fn sent(&mut self, moment: Moment, id: u64, command: &Command, log: &mut Log) {
        let attempt = match command {
            Command::Publish(publish) => {
                Some(log.attempts.add(self.number, self.life, publish, moment))
            }
            _ => None,
        };
        self.asked.push_back(Asked { id, moment, command: command.clone(), attempt });
    }

    pub(super) fn heard(&mut self, heard: Heard, id: u64, event: &Event, log: &mut Log) -> Checked {
        if self.is_over {
            return fault(Invariant::Frame, "", format!("{event:?} comes after the end"));
        }
        // A close may come before the position: then the gap is as if it had not been told.
        let follows = matches!(event, Event::Position(_) | Event::Close { .. })
            || id == 0 && matches!(event, Event::Error { .. });
        if let (Some(gap), false) = (&self.gap, follows) {
            let says = format!("{event:?} comes between a gap and its position");
            return fault(Invariant::Gap, &gap.topic, says);
        }
        let moment = heard.moment;
        match event {
            Event::Message(message) => self.message(heard, message, log),
            Event::Gap(gap) => self.told_gap(moment, gap, log),
            Event::Position(TopicPosition { topic, position }) => {
                self.told_position(moment, topic, position, log)
            }
            Event::SnapshotEnd { topic, positions } => {
                self.snapshot_end(moment, topic, positions, log)
            }
            Event::Joined { topic, member } => self.told_change(topic, member, Change::Joined),
            Event::Left { topic, member } => self.told_change(topic, member, Change::Left),
            Event::PresenceState { topic, roster } if id == 0 => {
                self.told_roster(id, (topic, roster), &log.promise)
            }
            Event::Stale { topic, .. } | Event::Fresh { topic }
                if self.covered_since(topic).is_none() =>
            {
                fault(Invariant::Uninvited, topic, format!("{event:?} without a subscription"))
            }
            Event::Stale { topic, since } => self.told_stale((topic, *since), heard.sent, log),
            Event::Fresh { topic } => self.told_fresh(topic, log),
            Event::Ping {} => Ok(()),
            Event::Close { .. } => {
                self.is_over = true;
                Ok(())
            }
            // What says goodbye where there are no close frames.
            Event::Error { .. } if id == 0 => {
                self.is_over = true;
                Ok(())
            }
            _ => self.reply(heard, id, event, log),
        }
    }

    fn reply(&mut self, heard: Heard, id: u64, event: &Event, log: &mut Log) -> Checked {
        let moment = heard.moment;
        let asked = self.asked.pop_front().filter(|asked| asked.id == id);
        let Some(asked) = asked else {
            return fault(
                Invariant::Reply,
                "",
                format!("{event:?} answers no command in its turn"),
            );
        };
        match (&asked.command, event) {
            (Command::Ping {}, Event::Pong {}) => Ok(()),
            (Command::Connect { name, batch }, Event::Connected { connection, batch: told })
                if *connection == self.called =>
            {
                self.name.clone_from(name);
                if *batch && self.batches == Batches::Unasked {
                    self.batches = Batches::Asked;
                }
                if *told != (self.batches == Batches::Asked) {
                    let says = format!("{event:?} answers {:?}", asked.command);
                    return fault(Invariant::Reply, "", says);
                }
                Ok(())
            }
            (Command::Update(update), Event::Updated(updated)) if update.topic == updated.topic => {
                self.updated(moment, update, updated, log)
            }
            (Command::Presence { topic }, Event::PresenceState { topic: of, roster })
                if topic == of =>
            {
                self.told_roster(id, (topic, roster), &log.promise)
            }
            (Command::Publish(_), Event::Published(position)) => {
                log.acked(asked.attempt.unwrap_or_default(), position, moment)
            }
            (Command::Subscribe(subscribe), Event::Subscribed(subscribed))
                if subscribe.topic == subscribed.topic =>
            {
                self.subscribed(moment, asked.moment, (subscribe, subscribed), log)
            }
            (Command::Unsubscribe { topic }, Event::Unsubscribed { topic: ended })
                if topic == ended =>
            {
                self.unsubscribed(topic, log, moment)
            }
            (Command::History(query), Event::HistoryPage(page)) if query.topic == page.topic => {
                self.page(heard, asked.moment, (query, page), log)
            }
            (command, Event::Error { name }) => {
                self.refused(command, name, log)?;
                if let Command::Subscribe(subscribe) = command {
                    // It had begun, and that let out what a rate held back.
                    self.end_rounds(&subscribe.topic);
                }
                match asked.attempt {
                    Some(number) => log.refused(number, name),
                    None => Ok(()),
                }
            }
            (command, event) => {
                let says = format!("{event:?} is no answer to {command:?}");
                fault(Invariant::Reply, "", says)
            }
        }
    }

    /// A refusal that names the state of the subscriptions names it truly.
    fn refused(&self, command: &Command, name: &str, log: &Log) -> Checked {
        let is_there = |topic: &String| self.subscriptions.contains_key(topic);
        let rule = |topic: &String| log.rule(topic);
        let lie = match (command, name) {
            (Command::Subscribe(subscribe), "alreadySubscribed") => !is_there(&subscribe.topic),
            (Command::Subscribe(subscribe), "notAllowed") => {
                !subscribe.presence || rule(&subscribe.topic).members_max.is_some()
            }
            (Command::Unsubscribe { topic } | Command::Update(Update { topic, .. }), name) => {
                name != "badTopic" && (name != "notSubscribed" || is_there(topic))
            }
            (Command::Presence { topic }, name) => {
                name != "badTopic" && (name != "notAllowed" || rule(topic).members_max.is_some())
            }
            (Command::Publish(publish), "tooManyKeys") => rule(&publish.topic).keys_max.is_none(),
            _ => false,
        };
        if lie {
            return fault(Invariant::Reply, "", format!("{name} is not true of {command:?}"));
        }
        Ok(())
    }

    /// The terms of a subscription are others from now on.
    fn updated(
        &mut self,
        moment: Moment,
        update: &Update,
        updated: &Updated,
        log: &mut Log,
    ) -> Checked {
        self.settle(&update.topic, moment, log);
        let Some(subscription) = self.subscriptions.get_mut(&update.topic) else {
            return fault(Invariant::Reply, &update.topic, "it was not subscribed".into());
        };
        subscription.policy = update.policy.unwrap_or(subscription.policy);
        subscription.overflow = update.overflow.or(subscription.overflow);
        check_updated(updated, subscription, &log.promise)?;
        for topic in self.cursors_of(&update.topic) {
            let policy = self.effective(&topic, log.rule(&topic)).policy;
            if let Some(cursor) = self.cursors.get_mut(&topic) {
                cursor.change_rate(policy);
            }
        }
        Ok(())
    }

    /// What a connection gets of some topics is about to change: what it was not sent so far was
    /// passed over under the old terms.
    pub(super) fn settle(&mut self, target: &str, moment: Moment, log: &Log) {
        for topic in self.cursors_of(target) {
            let conflates = self.effective(&topic, log.rule(&topic)).policy.conflates();
            if let Some(cursor) = self.cursors.get_mut(&topic).filter(|_| conflates) {
                cursor.conflated_until = Some(moment);
            }
        }
    }

    /// Nothing of this topic came too soon, unless it began anew right then.
    pub(super) fn check_hasty(&mut self, topic: &str, since: u64) -> Checked {
        let is_it =
            |(at, hasty): &mut (u64, Fault)| hasty.topic.as_deref() == Some(topic) && since > *at;
        match self.hasty.take_if(is_it) {
            Some((_, hasty)) => Err(hasty),
            None => Ok(()),
        }
    }

    /// The next messages of these topics are the first ones of their rates.
    pub(super) fn end_rounds(&mut self, target: &str) {
        for (topic, cursor) in &mut self.cursors {
            if covers(target, topic) {
                cursor.round = None;
            }
        }
    }

    /// Whether it has asked for something that changes what it gets of a topic.
    fn is_changing(&self, topic: &str) -> bool {
        self.asked.iter().any(|asked| match &asked.command {
            Command::Subscribe(subscribe) => covers(&subscribe.topic, topic),
            Command::Unsubscribe { topic: target }
            | Command::Update(Update { topic: target, .. }) => covers(target, topic),
            _ => false,
        })
    }

    /// A position that is told must be where the connection stands, if it stands anywhere.
    pub(super) fn stands_at(
        &mut self,
        moment: Moment,
        topic: &str,
        position: &Position,
        log: &mut Log,
    ) -> Checked {
        let conflates = self.effective(topic, log.rule(topic)).policy.conflates();
        let Some(cursor) = self.cursors.get_mut(topic) else { return Ok(()) };
        cursor.complete(topic, moment, log)?;
        let stands = Position { epoch: cursor.epoch.clone(), offset: cursor.offset };
        let cause = match (&cursor.past, cursor.conflated_until) {
            _ if conflates => Some(Cause::Conflated(moment)),
            (_, Some(changed)) => Some(Cause::Conflated(changed)),
            (Past::Latest, None) => Some(Cause::Ended(moment)),
            _ => None,
        };
        let is_next = if stands.epoch != position.epoch {
            position.offset == 0
        } else if let Some(cause) = cause.filter(|_| stands.offset < position.offset) {
            cursor.pass(topic, position.offset, cause, log);
            true
        } else {
            stands.offset == position.offset
        };
        if is_next {
            return Ok(());
        }
        fault(Invariant::Gap, topic, format!("{position:?} is told, but it stands at {stands:?}"))
    }

    fn unsubscribed(&mut self, target: &str, log: &mut Log, moment: Moment) -> Checked {
        self.settle(target, moment, log);
        if self.subscriptions.remove(target).is_none() {
            let says = format!("it was not subscribed at {moment:?}");
            return fault(Invariant::Reply, target, says);
        }
        self.watches.remove(target);
        let subscriptions = &self.subscriptions;
        let covered = |topic: &str| subscriptions.keys().any(|target| covers(target, topic));
        for (topic, cursor) in &mut self.cursors {
            if covers(target, topic) {
                cursor.complete(topic, moment, log)?;
                cursor.round = None;
            }
        }
        self.cursors.retain(|topic, _| covered(topic));
        self.quiets.retain(|topic, _| covered(topic));
        Ok(())
    }

    /// Since which record a subscription covers the topic.
    fn covered_since(&self, topic: &str) -> Option<usize> {
        let matching = self.subscriptions.iter().filter(|(target, _)| covers(target, topic));
        matching.map(|(_, subscription)| subscription.since).min()
    }

    fn message(&mut self, heard: Heard, message: &Message, log: &mut Log) -> Checked {
        let Message { topic, offset, .. } = message;
        if self.covered_since(topic).is_none() {
            let says = format!("{offset} comes without a subscription");
            return fault(Invariant::Uninvited, topic, says);
        }
        if let Some(snapshot) = &mut self.snapshot
            && covers(&snapshot.target, topic)
            && !snapshot.named.contains(topic)
        {
            snapshot.messages.entry(topic.clone()).or_default().push((heard, message.clone()));
            return Ok(());
        }
        let policy = self.effective(topic, log.rule(topic)).policy;
        let is_changing = self.is_changing(topic);
        if !self.cursors.contains_key(topic) {
            let says = format!("{offset} comes before any position");
            return fault(Invariant::Gap, topic, says);
        }
        self.check_hasty(topic, heard.sent.map_or(u64::MAX, |sent| sent.since))?;
        let Some(cursor) = self.cursors.get_mut(topic) else { return Ok(()) };
        let Heard { moment, sent } = heard;
        let is_live = *offset > cursor.seam;
        cursor.take(Arrival { message, moment, sent, life: self.life, policy }, log)?;
        if is_live && self.snapshot.as_ref().is_some_and(|s| covers(&s.target, topic)) {
            return Err(seam_fault(
                topic,
                format!("{offset} comes before the end of the snapshot"),
            ));
        }
        let told = Told { moment, life: self.life, asked: None };
        log.observe(&cursor.epoch, message, told)?;
        if !is_live {
            return Ok(());
        }
        if matches!(cursor.past, Past::Latest) {
            // It may be of the past.
            return Ok(());
        }
        if is_changing {
            // What its rate held back may come at once.
            cursor.round = None;
        } else if let Err(hasty) = cursor.count(message, sent, policy) {
            let at = sent.map_or(moment.at, |sent| sent.at);
            self.hasty.get_or_insert((at, hasty));
        }
        self.end_quiet(message)
    }

    fn told_gap(&mut self, moment: Moment, gap: &Gap, log: &mut Log) -> Checked {
        let Gap { topic, from, to, count, reason } = gap;
        if self.covered_since(topic).is_none() {
            return fault(Invariant::Uninvited, topic, format!("{gap:?} without a subscription"));
        }
        if from > to || *count != to - from + 1 {
            return fault(Invariant::Gap, topic, format!("{gap:?} does not add up"));
        }
        let effective = self.effective(topic, log.rule(topic));
        let may_drop =
            effective.policy == Policy::All && effective.overflows.contains(&Overflow::Gap);
        if *reason == GapReason::Slow && !may_drop && !self.is_changing(topic) {
            return fault(Invariant::Gap, topic, format!("{gap:?} under {effective:?}"));
        }
        if let (Some(cursor), true) = (self.cursors.get(topic), *reason != GapReason::Slow) {
            let (topic, epoch) = (topic.clone(), cursor.epoch.clone());
            let cause = Cause::Gone(moment);
            log.passed.push(Passed { topic, epoch, from: *from, to: *to, cause });
        }
        self.gap = Some(gap.clone());
        Ok(())
    }

    fn told_position(
        &mut self,
        moment: Moment,
        topic: &str,
        position: &Position,
        log: &mut Log,
    ) -> Checked {
        let Some(since) = self.covered_since(topic) else {
            return fault(
                Invariant::Uninvited,
                topic,
                format!("{position:?} without a subscription"),
            );
        };
        let mut at = position.clone();
        if let Some(gap) = self.gap.take() {
            if gap.topic != topic || gap.to != position.offset {
                return fault(Invariant::Gap, topic, format!("{position:?} comes behind {gap:?}"));
            }
            at.offset = gap.from - 1;
            if let Some(cursor) = self.cursors.get_mut(topic)
                && cursor.offset == at.offset
                && position.offset <= cursor.seam
            {
                // Within what is sent again some have ended.
                cursor.offset = gap.to;
                return Ok(());
            }
        }
        log.place(topic, position, Told { moment, life: self.life, asked: None })?;
        if let Some((epoch, latest)) = self.repeats.remove(topic)
            && epoch == at.epoch
            && let Some(cursor) = self.cursors.get_mut(topic)
            && (at.offset < cursor.offset && at.offset + latest >= cursor.offset)
        {
            cursor.seam = cursor.offset;
            cursor.offset = at.offset;
            cursor.repeat(self.latest_since.unwrap_or(moment));
            return Ok(());
        }
        self.stands_at(moment, topic, &at, log)?;
        self.stand_at(moment, topic, position)?;
        if !self.cursors.contains_key(topic) {
            let mut cursor = Cursor::live(&position.epoch, position.offset, moment);
            if let Some(latest) = self.latest_since {
                (cursor.past, cursor.asked) = (Past::Latest, latest);
            }
            self.cursors.insert(topic.to_owned(), cursor);
            // It may have been told of an earlier epoch.
            self.begin_quiet(topic, None);
            let (topic, connection) = (topic.to_owned(), self.number);
            log.start(Start { topic, position: at, since, connection });
        }
        Ok(())
    }

    /// Goes on from a position, if the connection stood anywhere.
    fn stand_at(&mut self, moment: Moment, topic: &str, position: &Position) -> Checked {
        let is_exact = self.subscriptions.contains_key(topic);
        let Some(cursor) = self.cursors.get_mut(topic) else { return Ok(()) };
        if cursor.epoch == position.epoch {
            cursor.offset = position.offset;
            return Ok(());
        }
        if is_exact {
            let says = format!("it began anew at {position:?} under its subscription");
            return fault(Invariant::Epoch, topic, says);
        }
        *cursor = Cursor::live(&position.epoch, position.offset, moment);
        // What was held back of the old epoch had to come before.
        self.hasty.take_if(|(_, hasty)| hasty.topic.as_deref() == Some(topic));
        self.begin_quiet(topic, None);
        Ok(())
    }
}
