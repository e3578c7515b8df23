//! What one connection hears: for every topic a line without a hole that is not told.
//! # Not here: what stands at each place (`log`), whether it is all of it (`quiet`).

use super::log::{Log, Start, Told, seam_fault};
use super::{Checked, Invariant, Moment, covers, fault};
use crate::history::{
    Command, Event, Gap, Message, Overflow, Page, Position, Query, Recovery, Subscribe, Subscribed,
    TopicPosition,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug)]
pub(super) struct Stream {
    number: u64,
    life: usize,
    /// Commands that wait for their answers, in the order in which they were sent.
    pub(super) asked: VecDeque<Asked>,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// A gap that was told, before the position behind it was.
    pub(super) gap: Option<Gap>,
    pub(super) snapshot: Option<Snapshot>,
    /// A filter's latest messages may repeat what the connection has; each topic once.
    repeats: BTreeMap<String, (String, u64)>,
    is_over: bool,
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
    overflow: Overflow,
}

/// How far a connection has heard of a topic.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) epoch: String,
    pub(super) offset: u64,
    /// Up to here the past is sent again; live messages come behind it.
    seam: u64,
    /// That many of the latest messages may come, or fewer; the first one decides.
    latest: Option<u64>,
    /// When the past was asked for and the answer came.
    asked: Moment,
}

/// A snapshot that has begun.
#[derive(Debug)]
pub(super) struct Snapshot {
    target: String,
    latest: u64,
    asked: Moment,
    /// Topics whose position the reply told.
    named: BTreeSet<String>,
    messages: BTreeMap<String, Vec<(Moment, Message)>>,
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

    fn subscribed(
        &mut self,
        moment: Moment,
        asked: Moment,
        (subscribe, subscribed): (&Subscribe, &Subscribed),
        log: &mut Log,
    ) -> Checked {
        let Subscribe { topic: target, since, last, snapshot, overflow, positions } = subscribe;
        if self.subscriptions.contains_key(target) {
            return fault(Invariant::Reply, target, "it is subscribed twice".into());
        }
        let latest = u64::from(*last).max(u64::from(*snapshot));
        let mut named = BTreeSet::new();
        if let Some(position) = &subscribed.position {
            named.insert(target.clone());
            let begin = Begin {
                topic: target,
                since: since.as_ref(),
                recovered: subscribed.recovered,
                reason: &subscribed.reason,
                position,
                latest,
            };
            self.begin(moment, asked, &begin, log)?;
        }
        if subscribed.topics.len() != positions.len() {
            let says =
                format!("{} positions have {} answers", positions.len(), subscribed.topics.len());
            return fault(Invariant::Reply, target, says);
        }
        for (asked_for, recovery) in positions.iter().zip(&subscribed.topics) {
            let Recovery { topic, position, recovered, reason } = recovery;
            if *topic != asked_for.topic || position.is_none() && *recovered {
                let says = format!("{recovery:?} does not answer {asked_for:?}");
                return fault(Invariant::Reply, topic, says);
            }
            if let Some(position) = position {
                named.insert(topic.clone());
                let since = Some(&asked_for.position);
                let recovered = Some(*recovered);
                let begin = Begin { topic, since, recovered, reason, position, latest };
                self.begin(moment, asked, &begin, log)?;
            }
        }
        let subscription = Subscription { since: moment.record, overflow: *overflow };
        self.subscriptions.insert(target.clone(), subscription);
        self.repeats.clear();
        if *snapshot {
            let (target, messages) = (target.clone(), BTreeMap::new());
            self.snapshot = Some(Snapshot { target, latest, asked, named, messages });
        } else if latest > 0 {
            for (topic, cursor) in &self.cursors {
                if covers(target, topic) && !named.contains(topic) {
                    self.repeats.insert(topic.clone(), (cursor.epoch.clone(), latest));
                }
            }
        }
        Ok(())
    }

    /// A subscription tells where it stands in a topic.
    fn begin(
        &mut self,
        moment: Moment,
        asked: Moment,
        begin: &Begin<'_>,
        log: &mut Log,
    ) -> Checked {
        let Begin { topic, since, recovered, position, latest, .. } = *begin;
        self.stands_at(topic, position, log)?;
        let told = Told { moment, life: self.life, asked: Some(asked.record) };
        log.place(topic, position, told)?;
        if recovered.is_some() != since.is_some() {
            return fault(Invariant::Reply, topic, "`recovered` is not where it should be".into());
        }
        let epoch = position.epoch.clone();
        let cursor = match since {
            Some(since) if recovered == Some(true) => {
                if since.epoch != epoch || since.offset > position.offset {
                    let says = format!("{since:?} was recovered at {position:?}");
                    return fault(Invariant::Epoch, topic, says);
                }
                Cursor {
                    epoch,
                    offset: since.offset,
                    seam: position.offset,
                    latest: None,
                    asked: moment,
                }
            }
            _ => {
                let latest = (latest > 0).then_some(latest);
                Cursor {
                    epoch,
                    offset: position.offset,
                    seam: position.offset,
                    latest,
                    asked: moment,
                }
            }
        };
        if let (Some(since), Some(false)) = (since, recovered) {
            check_loss(since, begin, moment, log)?;
        }
        self.cursors.insert(topic.to_owned(), cursor);
        Ok(())
    }

    /// A position that is told must be where the connection stands, if it stands anywhere.
    fn stands_at(&mut self, topic: &str, position: &Position, log: &Log) -> Checked {
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

    fn snapshot_end(
        &mut self,
        moment: Moment,
        target: &str,
        positions: &[TopicPosition],
        log: &mut Log,
    ) -> Checked {
        let Some(mut snapshot) = self.snapshot.take().filter(|snapshot| snapshot.target == target)
        else {
            return fault(Invariant::Reply, target, "a snapshot ends that has not begun".into());
        };
        for TopicPosition { topic, position } in positions {
            self.stands_at(topic, position, log)?;
            let messages = snapshot.messages.remove(topic).unwrap_or_default();
            if snapshot.named.contains(topic) {
                continue;
            }
            let told = Told { moment, life: self.life, asked: Some(snapshot.asked.record) };
            log.place(topic, position, told)?;
            let (epoch, offset) = (position.epoch.clone(), position.offset);
            let latest = Some(snapshot.latest);
            let mut cursor = Cursor { epoch, offset, seam: offset, latest, asked: moment };
            for (moment, message) in &messages {
                cursor.take(topic, message.offset, log)?;
                log.observe(&cursor.epoch, message, Told { moment: *moment, ..told })?;
            }
            cursor.complete(topic, log)?;
            self.cursors.insert(topic.clone(), cursor);
        }
        if let Some(topic) = snapshot.messages.keys().next() {
            return fault(
                Invariant::Seam,
                topic,
                "the end of the snapshot does not name it".into(),
            );
        }
        let is_there = |topic: &String| positions.iter().any(|position| position.topic == *topic);
        let mut held = log.holding(self.life, snapshot.asked.record, moment.at).into_iter();
        match held.find(|topic| covers(target, topic) && !is_there(topic)) {
            Some(topic) => fault(Invariant::Ack, &topic, "the snapshot leaves it out".into()),
            None => Ok(()),
        }
    }

    fn page(
        &mut self,
        moment: Moment,
        asked: Moment,
        (query, page): (&Query, &Page),
        log: &mut Log,
    ) -> Checked {
        let Page { topic, top, messages, more } = page;
        let Some(top) = top else {
            return match log.holding(self.life, asked.record, moment.at).contains(topic) {
                true => fault(Invariant::Ack, topic, "it is not there, though it must be".into()),
                false => Ok(()),
            };
        };
        let told = Told { moment, life: self.life, asked: Some(asked.record) };
        log.place(topic, top, told)?;
        let offsets: Vec<u64> = messages.iter().map(|message| message.offset).collect();
        let first = match &query.since {
            Some(since) if since.epoch != top.epoch => {
                let says = format!("a page after {since:?} has its top at {top:?}");
                return fault(Invariant::Epoch, topic, says);
            }
            Some(since) => since.offset + 1,
            None => (top.offset + 1).saturating_sub(offsets.len() as u64),
        };
        let last = offsets.last().copied().unwrap_or(first.saturating_sub(1));
        let is_whole = offsets.iter().copied().eq(first..=last) || offsets.is_empty();
        if !is_whole || last > top.offset || *more != (last < top.offset && query.since.is_some()) {
            let says = format!("a page after {:?} up to {top:?} holds {offsets:?}", query.since);
            return Err(seam_fault(topic, says));
        }
        messages.iter().try_for_each(|message| log.observe(&top.epoch, message, told))
    }
}

/// What a reply says of one topic.
struct Begin<'a> {
    topic: &'a str,
    since: Option<&'a Position>,
    recovered: Option<bool>,
    reason: &'a str,
    position: &'a Position,
    latest: u64,
}

/// A resume is refused only for a reason that is true.
fn check_loss(since: &Position, begin: &Begin<'_>, moment: Moment, log: &Log) -> Checked {
    let Begin { topic, reason, position, .. } = begin;
    let is_same = since.epoch == position.epoch && since.offset <= position.offset;
    let next = since.offset + 1;
    let lie = match *reason {
        "epochChanged" => is_same,
        "trimmed" | "expired" => {
            !is_same || log.must_hold(topic, &since.epoch, next, position.offset, moment.at)
        }
        "tooMany" => !is_same || since.offset == position.offset,
        _ => true,
    };
    if lie {
        let says = format!("`{reason}` is not true of {since:?} at {position:?}");
        return fault(Invariant::Ack, topic, says);
    }
    Ok(())
}

impl Cursor {
    /// The next message of the topic.
    fn take(&mut self, topic: &str, offset: u64, log: &Log) -> Checked {
        if let Some(latest) = self.latest
            && offset <= self.seam
        {
            if offset + latest <= self.seam {
                let says = format!("{offset} is not one of the latest {latest} at {}", self.seam);
                return Err(seam_fault(topic, says));
            }
            self.check_missing(topic, offset, latest, log)?;
            self.latest = None;
            self.offset = offset - 1;
        } else if offset > self.seam {
            self.complete(topic, log)?;
        }
        let invariant = match offset {
            next if next == self.offset + 1 => {
                self.offset = offset;
                return Ok(());
            }
            past if past <= self.offset => Invariant::Order,
            _ if self.offset < self.seam => Invariant::Seam,
            _ => Invariant::Gap,
        };
        fault(invariant, topic, format!("{offset} comes after {}", self.offset))
    }

    /// No more of the past comes.
    pub(super) fn complete(&mut self, topic: &str, log: &Log) -> Checked {
        if let Some(latest) = self.latest.take() {
            self.check_missing(topic, self.seam + 1, latest, log)?;
        }
        if self.offset < self.seam {
            let says = format!("the past ends at {} and not at {}", self.offset, self.seam);
            return Err(seam_fault(topic, says));
        }
        Ok(())
    }

    /// Of the latest messages, none is left out that was there.
    fn check_missing(&self, topic: &str, first: u64, latest: u64, log: &Log) -> Checked {
        let before = first.saturating_sub(1);
        let is_wanted = before > 0 && before + latest > self.seam;
        if is_wanted && log.must_hold(topic, &self.epoch, before, self.seam, self.asked.at) {
            let says = format!("the latest {latest} at {} begin at {first}", self.seam);
            return fault(Invariant::Ack, topic, says);
        }
        Ok(())
    }
}
