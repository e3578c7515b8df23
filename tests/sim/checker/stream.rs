//! What one connection hears: for every topic a line without a hole that is not told.
//! # Not here: what stands at each place (`log`), whether it is all of it (`quiet`).

use super::cursor::Cursor;
use super::log::{Log, Start, Told, seam_fault};
use super::{Checked, Invariant, Moment, covers, fault};
use crate::history::{Command, Event, Gap, Message, Overflow, Position, TopicPosition};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: u64,
    pub(super) life: usize,
    /// Commands that wait for their answers, in the order in which they were sent.
    pub(super) asked: VecDeque<Asked>,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// A gap that was told, before the position behind it was.
    pub(super) gap: Option<Gap>,
    pub(super) snapshot: Option<Snapshot>,
    /// A filter's latest messages may repeat what the connection has; each topic once.
    pub(super) repeats: BTreeMap<String, (String, u64)>,
    pub(super) is_over: bool,
}

#[derive(Debug)]
pub(super) struct Asked {
    id: u64,
    moment: Moment,
    command: Command,
    /// The number of the attempt, if it is to publish.
    attempt: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Subscription {
    /// The record of its beginning.
    pub(super) since: usize,
    pub(super) overflow: Overflow,
}

/// A snapshot that has begun.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) target: String,
    pub(super) latest: u64,
    pub(super) asked: Moment,
    /// Topics whose position the reply told.
    pub(super) named: BTreeSet<String>,
    pub(super) messages: BTreeMap<String, Vec<(Moment, Message)>>,
}

impl Stream {
    pub(super) fn new(number: u64, life: usize) -> Stream {
        Stream {
            number,
            life,
            asked: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            cursors: BTreeMap::new(),
            gap: None,
            snapshot: None,
            repeats: BTreeMap::new(),
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

    pub(super) fn heard(
        &mut self,
        moment: Moment,
        id: u64,
        event: &Event,
        log: &mut Log,
    ) -> Checked {
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
        match event {
            Event::Message(message) => self.message(moment, message, log),
            Event::Gap(gap) => self.told_gap(gap),
            Event::Position(TopicPosition { topic, position }) => {
                self.told_position(moment, topic, position, log)
            }
            Event::SnapshotEnd { topic, positions } => {
                self.snapshot_end(moment, topic, positions, log)
            }
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
            _ => self.reply(moment, id, event, log),
        }
    }

    fn reply(&mut self, moment: Moment, id: u64, event: &Event, log: &mut Log) -> Checked {
        let asked = self.asked.pop_front().filter(|asked| asked.id == id);
        let Some(asked) = asked else {
            return fault(
                Invariant::Reply,
                "",
                format!("{event:?} answers no command in its turn"),
            );
        };
        match (&asked.command, event) {
            (Command::Connect {}, Event::Connected {}) | (Command::Ping {}, Event::Pong {}) => {
                Ok(())
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
                self.page(moment, asked.moment, (query, page), log)
            }
            (command, Event::Error { name }) => {
                self.refused(command, name)?;
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
    fn refused(&self, command: &Command, name: &str) -> Checked {
        let is_there = |topic: &String| self.subscriptions.contains_key(topic);
        let lie = match (command, name) {
            (Command::Subscribe(subscribe), "alreadySubscribed") => !is_there(&subscribe.topic),
            (Command::Unsubscribe { topic }, "notSubscribed") => is_there(topic),
            (Command::Unsubscribe { .. }, other) => other != "badTopic",
            _ => false,
        };
        if lie {
            return fault(Invariant::Reply, "", format!("{name} is not true of {command:?}"));
        }
        Ok(())
    }

    /// A position that is told must be where the connection stands, if it stands anywhere.
    pub(super) fn stands_at(&mut self, topic: &str, position: &Position, log: &Log) -> Checked {
        let Some(cursor) = self.cursors.get_mut(topic) else { return Ok(()) };
        cursor.complete(topic, log)?;
        let stands = Position { epoch: cursor.epoch.clone(), offset: cursor.offset };
        let is_next = if stands.epoch == position.epoch {
            stands.offset == position.offset
        } else {
            position.offset == 0
        };
        if is_next {
            return Ok(());
        }
        fault(Invariant::Gap, topic, format!("{position:?} is told, but it stands at {stands:?}"))
    }

    fn unsubscribed(&mut self, target: &str, log: &Log, moment: Moment) -> Checked {
        if self.subscriptions.remove(target).is_none() {
            let says = format!("it was not subscribed at {moment:?}");
            return fault(Invariant::Reply, target, says);
        }
        let subscriptions = &self.subscriptions;
        let covered = |topic: &str| subscriptions.keys().any(|target| covers(target, topic));
        for (topic, cursor) in &mut self.cursors {
            if covers(target, topic) {
                cursor.complete(topic, log)?;
            }
        }
        self.cursors.retain(|topic, _| covered(topic));
        Ok(())
    }

    /// Since which record a subscription covers the topic.
    fn covered_since(&self, topic: &str) -> Option<usize> {
        let matching = self.subscriptions.iter().filter(|(target, _)| covers(target, topic));
        matching.map(|(_, subscription)| subscription.since).min()
    }

    fn message(&mut self, moment: Moment, message: &Message, log: &mut Log) -> Checked {
        let Message { topic, offset, .. } = message;
        if self.covered_since(topic).is_none() {
            let says = format!("{offset} comes without a subscription");
            return fault(Invariant::Uninvited, topic, says);
        }
        if let Some(snapshot) = &mut self.snapshot
            && covers(&snapshot.target, topic)
            && !snapshot.named.contains(topic)
        {
            snapshot.messages.entry(topic.clone()).or_default().push((moment, message.clone()));
            return Ok(());
        }
        let Some(cursor) = self.cursors.get_mut(topic) else {
            let says = format!("{offset} comes before any position");
            return fault(Invariant::Gap, topic, says);
        };
        cursor.take(topic, *offset, log)?;
        if *offset > cursor.seam && self.snapshot.as_ref().is_some_and(|s| covers(&s.target, topic))
        {
            return Err(seam_fault(
                topic,
                format!("{offset} comes before the end of the snapshot"),
            ));
        }
        let told = Told { moment, life: self.life, asked: None };
        log.observe(&cursor.epoch, message, told)
    }

    fn told_gap(&mut self, gap: &Gap) -> Checked {
        let Gap { topic, from, to, count } = gap;
        if self.covered_since(topic).is_none() {
            return fault(Invariant::Uninvited, topic, format!("{gap:?} without a subscription"));
        }
        if from > to || *count != to - from + 1 {
            return fault(Invariant::Gap, topic, format!("{gap:?} does not add up"));
        }
        if self.subscriptions.get(topic).is_some_and(|s| s.overflow == Overflow::Disconnect) {
            return fault(Invariant::Gap, topic, format!("{gap:?} instead of a disconnect"));
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
        }
        log.place(topic, position, Told { moment, life: self.life, asked: None })?;
        if let Some((epoch, latest)) = self.repeats.remove(topic)
            && epoch == at.epoch
            && let Some(cursor) = self.cursors.get_mut(topic)
            && (at.offset < cursor.offset && at.offset + latest >= cursor.offset)
        {
            cursor.seam = cursor.offset;
            cursor.offset = at.offset;
            return Ok(());
        }
        self.stands_at(topic, &at, log)?;
        let (epoch, offset) = (position.epoch.clone(), position.offset);
        let cursor = Cursor { epoch, offset, seam: offset, latest: None, asked: moment };
        let before = self.cursors.insert(topic.to_owned(), cursor);
        let began_anew = before.as_ref().is_some_and(|before| before.epoch != position.epoch);
        if began_anew && self.subscriptions.contains_key(topic) {
            let says = format!("it began anew at {position:?} under its subscription");
            return fault(Invariant::Epoch, topic, says);
        }
        if before.is_none() {
            let (topic, connection) = (topic.to_owned(), self.number);
            log.start(Start { topic, position: at, since, connection });
        }
        Ok(())
    }
}
