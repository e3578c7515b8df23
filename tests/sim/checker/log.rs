//! What is known of every topic: its epochs, and what stands at each place.
//! # Not here: what one connection must hear (`stream`).

use super::attempts::{Attempt, Attempts, Outcome};
use super::deferred::{First, Passed};
use super::{Checked, Fault, Invariant, Moment, fault};
use crate::history::{Content, Message, Position, Promise, Publish, Rule, Span, TopicPosition};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Epochs of one topic that are remembered over a quiet moment.
const EPOCHS_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) promise: Promise,
    /// How often the broker began anew.
    pub(super) life: usize,
    pub(super) attempts: Attempts,
    topics: BTreeMap<String, BTreeMap<String, Epoch>>,
    /// Offset of the last message of a publisher in a topic's epoch.
    fifo: HashMap<(u64, String, String), u64>,
    /// Where connections met a topic through a filter.
    starts: Vec<Start>,
    /// What connections were not sent.
    pub(super) passed: Vec<Passed>,
    /// What connections were sent first.
    pub(super) firsts: Vec<First>,
}

/// One epoch of a topic.
#[derive(Debug)]
struct Epoch {
    life: usize,
    /// The record that named it first.
    first: usize,
    /// The highest offset known from each record on.
    tops: Vec<(usize, u64)>,
    /// It was the current one at some time between these records.
    current: Vec<(usize, usize)>,
    entries: BTreeMap<u64, Entry>,
    /// Up to here all was judged, and what is not among the entries was forgotten.
    floor: u64,
}

/// What is still of use when everything is quiet and was judged.
pub(super) struct Horizon<'a> {
    /// What was sent or taken since then is.
    pub(super) since_ms: u64,
    /// Where the topics stand.
    pub(super) tops: &'a [TopicPosition],
    /// The connections that are open.
    pub(super) open: BTreeSet<u64>,
}

/// What stands at a place.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) content: Content,
    /// Not known before somebody heard it.
    time: Option<u64>,
    /// It was not there before.
    pub(super) sent: Moment,
    /// For how long it may be sent; 0 for ever.
    ttl_ms: u64,
}

impl Entry {
    /// When it was taken, or before.
    pub(super) fn time(&self) -> u64 {
        self.time.unwrap_or(self.sent.at)
    }

    /// When it was taken, if somebody heard that.
    pub(super) fn known_time(&self) -> Option<u64> {
        self.time
    }

    /// Whether its time may have been over at this time.
    pub(super) fn is_over(&self, at: u64) -> bool {
        self.ttl_ms > 0 && self.time() + self.ttl_ms <= at
    }
}

/// A connection met a topic through a filter, and was told that this is where it goes on.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) topic: String,
    pub(super) position: Position,
    /// The record since which the connection has the filter.
    pub(super) since: usize,
    pub(super) connection: u64,
}

/// Where a position was given: on which connection's life, and in answer to what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) moment: Moment,
    pub(super) life: usize,
    /// The record of the command that it answers.
    pub(super) asked: Option<usize>,
}

impl Log {
    /// A position of a topic was told.
    pub(super) fn place(&mut self, topic: &str, position: &Position, told: Told) -> Checked {
        let record = told.moment.record;
        let epochs = self.topics.entry(topic.to_owned()).or_default();
        let epoch = epochs.entry(position.epoch.clone()).or_insert_with(|| Epoch {
            life: told.life,
            first: record,
            tops: Vec::new(),
            current: Vec::new(),
            entries: BTreeMap::new(),
            floor: 0,
        });
        if epoch.life != told.life {
            let says = format!("{position:?} is of an epoch from before a crash");
            return fault(Invariant::Epoch, topic, says);
        }
        let first = epoch.first;
        if let Some(asked) = told.asked {
            let known = epoch.top_before(asked);
            if position.offset < known {
                let says =
                    format!("{position:?} was told, but {known} was known when it was asked");
                return fault(Invariant::Ack, topic, says);
            }
            epoch.current.push((asked, record));
            let ended = |(name, other): (&String, &Epoch)| {
                *name != position.epoch
                    && other.current.iter().any(|(a, b)| *a > first && *b < asked)
            };
            if epochs.iter().any(ended) {
                let says = format!("{position:?} is of an epoch that had ended");
                return fault(Invariant::Epoch, topic, says);
            }
        }
        if let Some(epoch) = epochs.get_mut(&position.epoch) {
            epoch.raise(record, position.offset);
        }
        Ok(())
    }

    /// A message was heard at a place.
    pub(super) fn observe(&mut self, epoch: &str, message: &Message, told: Told) -> Checked {
        let Message { topic, offset, time, content } = message;
        let position = Position { epoch: epoch.to_owned(), offset: *offset };
        self.place(topic, &position, Told { asked: None, ..told })?;
        let attempts = self.attempts.saying(told.life, topic, content);
        let Some(first) = attempts.first() else {
            let says = format!("{content:?} at {position:?} was never published");
            return fault(Invariant::Agreement, topic, says);
        };
        let known = (first.sent, first.publish.ttl_ms);
        let entry = self.entry(topic, &position, content, known);
        if entry.content != *content || entry.time.is_some_and(|known| known != *time) {
            let says = format!("{position:?} is {message:?} here and {entry:?} elsewhere");
            return fault(Invariant::Agreement, topic, says);
        }
        entry.time = Some(*time);
        Ok(())
    }

    /// A publish was answered with a place.
    pub(super) fn acked(&mut self, number: usize, position: &Position, heard: Moment) -> Checked {
        let attempt = &mut self.attempts.all[number];
        attempt.outcome = Outcome::Acked(position.clone(), heard);
        let (sent, life, connection) = (attempt.sent, attempt.life, attempt.connection);
        let topic = attempt.publish.topic.clone();
        let content = attempt.publish.content.clone();
        let is_alone = self.attempts.is_alone(number);
        // The answer to a retry is an old place.
        let asked = is_alone.then_some(sent.record);
        self.place(&topic, position, Told { moment: heard, life, asked })?;
        if is_alone {
            self.check_fresh(&topic, position, sent)?;
            let publisher = (connection, topic.clone(), position.epoch.clone());
            let before = self.fifo.insert(publisher, position.offset).unwrap_or(0);
            if before >= position.offset {
                let says = format!("{position:?} was given after {before} to the same publisher");
                return fault(Invariant::Fifo, &topic, says);
            }
        }
        // An earlier attempt may have been the one that put it there.
        let said = self.attempts.saying(life, &topic, &content);
        let known = said.first().map_or((sent, 0), |first| (first.sent, first.publish.ttl_ms));
        let entry = self.entry(&topic, position, &content, known);
        if entry.content != content {
            let says = format!("{position:?} was given to {content:?} and to {:?}", entry.content);
            return fault(Invariant::Dense, &topic, says);
        }
        self.attempts.check_acked(number, self.promise.idempotency_ms)
    }

    pub(super) fn refused(&mut self, number: usize, name: &str) -> Checked {
        self.attempts.all[number].outcome = Outcome::Refused;
        self.attempts.check_refused(number, name)
    }

    /// A place that is given anew is above all that were known when it was asked for.
    fn check_fresh(&self, topic: &str, position: &Position, sent: Moment) -> Checked {
        let epoch = self.topics.get(topic).and_then(|epochs| epochs.get(&position.epoch));
        let known = epoch.map_or(0, |epoch| epoch.top_before(sent.record));
        if position.offset <= known {
            let says = format!("{position:?} was given, but {known} was given before");
            return fault(Invariant::Dense, topic, says);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        topic: &str,
        position: &Position,
        content: &Content,
        (sent, ttl_ms): (Moment, u64),
    ) -> &mut Entry {
        let epochs = self.topics.get_mut(topic).expect("a place was told before");
        let epoch = epochs.get_mut(&position.epoch).expect("a place was told before");
        let entry = || Entry { content: content.clone(), time: None, sent, ttl_ms };
        epoch.entries.entry(position.offset).or_insert_with(entry)
    }

    /// Whether the broker must still have had the message at this place.
    pub(super) fn must_hold(&self, topic: &str, place: &Position, top: u64, at: u64) -> bool {
        let Some(retention) = self.promise.retention.get(topic) else { return false };
        let epoch = self.topics.get(topic).and_then(|epochs| epochs.get(&place.epoch));
        let entry = epoch.and_then(|epoch| epoch.entries.get(&place.offset));
        entry.is_some_and(|entry| {
            top.saturating_sub(place.offset) < retention.messages
                && at <= entry.time() + retention.age_ms
        })
    }

    /// What applies to a topic.
    pub(super) fn rule(&self, topic: &str) -> Rule {
        self.promise.rules.get(topic).copied().unwrap_or_default()
    }

    /// What is known of these places.
    pub(super) fn entries(
        &self,
        topic: &str,
        epoch: &str,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = (u64, &Entry)> {
        let epoch = self.topics.get(topic).and_then(|epochs| epochs.get(epoch));
        let range = if from <= to { from..to.saturating_add(1) } else { 0..0 };
        let entries = epoch.into_iter().flat_map(move |epoch| epoch.entries.range(range.clone()));
        entries.map(|(offset, entry)| (*offset, entry))
    }

    /// The highest offset that may have been given to what was sent before this record.
    pub(super) fn top_possible(&self, topic: &str, epoch: &str, record: usize) -> u64 {
        let before = |(_, entry): &(u64, &Entry)| entry.sent.record < record;
        let known = self.entries(topic, epoch, 0, u64::MAX).filter(before).last();
        let unknown = self.unknown(topic, epoch).filter(|attempt| attempt.sent.record < record);
        known.map_or(0, |(offset, _)| offset) + unknown.count() as u64
    }

    /// Whether this may have been said of a key before this record, and nobody knows where it stands.
    pub(super) fn may_have_said(&self, topic: &str, epoch: &str, key: &str, record: usize) -> bool {
        self.unknown(topic, epoch)
            .any(|attempt| attempt.publish.content.key == key && attempt.sent.record < record)
    }

    /// Attempts whose outcome is not known, in the life of an epoch.
    fn unknown(&self, topic: &str, epoch: &str) -> impl Iterator<Item = &Attempt> {
        let life = self.topics.get(topic).and_then(|epochs| epochs.get(epoch)).map(|e| e.life);
        let topic = topic.to_owned();
        self.attempts.all.iter().filter(move |attempt| {
            attempt.outcome == Outcome::Unknown
                && Some(attempt.life) == life
                && attempt.publish.topic == topic
        })
    }

    /// A message of the past is not sent when its time is over.
    pub(super) fn check_end(&self, message: &Message, life: usize, sent: Option<Span>) -> Checked {
        let Message { topic, offset, time, content } = message;
        let said = self.attempts.saying(life, topic, content);
        let ttl_ms = said.first().map_or(0, |first| first.publish.ttl_ms);
        if let Some(sent) = sent.filter(|sent| ttl_ms > 0 && time + ttl_ms <= sent.since) {
            let says = format!("{offset} of {time} with {ttl_ms} ms to live was sent {sent:?}");
            return fault(Invariant::Expiry, topic, says);
        }
        Ok(())
    }

    /// Topics of a life that must have held something when a command was sent, and still at `at`.
    pub(super) fn holding(&self, life: usize, asked: usize, at: u64) -> Vec<String> {
        let holds = |topic: &String, (name, epoch): (&String, &Epoch)| {
            let top = epoch.top_before(asked);
            let place = Position { epoch: name.clone(), offset: top };
            epoch.life == life && top > 0 && self.must_hold(topic, &place, top, at)
        };
        let topics = self.topics.iter();
        let held = topics.filter(|(topic, epochs)| epochs.iter().any(|epoch| holds(topic, epoch)));
        held.map(|(topic, _)| topic.clone()).collect()
    }

    /// A connection met a topic through a filter.
    pub(super) fn start(&mut self, start: Start) {
        self.starts.push(start);
    }

    /// A place that a publish was given which was sent after this record, if there is one.
    pub(super) fn acked_since(&self, topic: &str, record: usize, life: usize) -> Option<&Position> {
        let mut fresh = self.fresh(topic, record).filter(|(attempt, _)| attempt.life == life);
        fresh.next().map(|(_, position)| position)
    }

    /// Publishes that were sent after this record and were not retries, with their places.
    fn fresh(&self, topic: &str, record: usize) -> impl Iterator<Item = (&Attempt, &Position)> {
        let topic = topic.to_owned();
        self.attempts.all.iter().filter_map(move |attempt| {
            let Publish { topic: of, content, .. } = &attempt.publish;
            if attempt.sent.record <= record
                || *of != topic
                || self.attempts.saying(attempt.life, of, content).len() > 1
            {
                return None;
            }
            match &attempt.outcome {
                Outcome::Acked(position, _) => Some((attempt, position)),
                Outcome::Unknown | Outcome::Refused => None,
            }
        })
    }

    /// What can be judged only when everything is known.
    pub(super) fn finish(&self) -> Checked {
        for (topic, epochs) in &self.topics {
            for (name, epoch) in epochs {
                self.check_dense(topic, name, epoch)?;
                self.check_refused(topic, name, epoch)?;
            }
            self.check_places(topic, epochs)?;
        }
        self.starts.iter().try_for_each(|start| self.check_start(start))?;
        self.check_deferred()
    }

    /// Forgets what nobody can be sent any more, when everything is quiet and was judged.
    pub(super) fn forget(&mut self, horizon: &Horizon<'_>) {
        (self.starts, self.passed, self.firsts) = (Vec::new(), Vec::new(), Vec::new());
        self.fifo.retain(|(connection, _, _), _| horizon.open.contains(connection));
        let mut kept = HashSet::new();
        for (topic, epochs) in &mut self.topics {
            let top = horizon.tops.iter().find(|top| top.topic == *topic);
            for (name, epoch) in epochs.iter_mut() {
                let is_current = top.is_some_and(|top| top.position.epoch == *name);
                if is_current {
                    epoch.forget_before(horizon.since_ms);
                } else {
                    epoch.forget_all();
                }
                let contents = epoch.entries.values().map(|entry| entry.content.clone());
                kept.extend(contents.map(|content| (epoch.life, topic.clone(), content)));
            }
            let mut firsts: Vec<usize> = epochs.values().map(|epoch| epoch.first).collect();
            firsts.sort_unstable();
            let oldest = firsts.iter().rev().nth(EPOCHS_MAX - 1).copied().unwrap_or(0);
            epochs.retain(|_, epoch| epoch.first >= oldest);
        }
        self.attempts
            .forget(|attempt, said| attempt.sent.at >= horizon.since_ms || kept.contains(said));
    }

    /// How much is remembered.
    pub(super) fn size(&self) -> usize {
        let epochs = self.topics.values().flat_map(BTreeMap::values);
        let entries: usize = epochs.map(|epoch| 1 + epoch.entries.len() + epoch.tops.len()).sum();
        entries + self.attempts.all.len() + self.passed.len() + self.firsts.len()
    }

    /// Every place below the top belongs to a publish.
    fn check_dense(&self, topic: &str, name: &str, epoch: &Epoch) -> Checked {
        let top = epoch.tops.last().map_or(0, |(_, top)| *top);
        let places = usize::try_from(top.saturating_sub(epoch.floor)).unwrap_or(usize::MAX);
        let known = epoch.entries.range(epoch.floor.saturating_add(1)..).count();
        let missing = places.saturating_sub(known);
        let is_unknown = |attempt: &&Attempt| {
            attempt.outcome == Outcome::Unknown
                && attempt.life == epoch.life
                && attempt.publish.topic == topic
        };
        let unknown = self.attempts.all.iter().filter(is_unknown).count();
        if missing > unknown {
            let says = format!("{missing} of {top} places of {name} were given to nobody");
            return fault(Invariant::Dense, topic, says);
        }
        Ok(())
    }

    fn check_refused(&self, topic: &str, name: &str, epoch: &Epoch) -> Checked {
        for (offset, entry) in &epoch.entries {
            let attempts = self.attempts.saying(epoch.life, topic, &entry.content);
            if attempts.iter().all(|attempt| attempt.outcome == Outcome::Refused) {
                let says = format!("{offset} of {name} was refused, and is there");
                return fault(Invariant::Ack, topic, says);
            }
        }
        Ok(())
    }

    /// No content has more places than it may.
    fn check_places(&self, topic: &str, epochs: &BTreeMap<String, Epoch>) -> Checked {
        let mut places: HashMap<(usize, &Content), usize> = HashMap::new();
        for epoch in epochs.values() {
            for entry in epoch.entries.values() {
                *places.entry((epoch.life, &entry.content)).or_default() += 1;
            }
        }
        for ((life, content), count) in places {
            let most = self.attempts.places_max(life, topic, content, self.promise.idempotency_ms);
            if count > most {
                let says = format!("{content:?} has {count} places");
                return fault(Invariant::Idempotence, topic, says);
            }
        }
        Ok(())
    }

    /// What was published after a connection had the filter is not below where it started.
    fn check_start(&self, start: &Start) -> Checked {
        let Start { topic, position, since, connection } = start;
        let skipped =
            |place: &Position| place.epoch == position.epoch && place.offset <= position.offset;
        match self.fresh(topic, *since).find(|(_, place)| skipped(place)) {
            None => Ok(()),
            Some((_, place)) => {
                let says = format!(
                    "connection {connection} had a filter since record {since}, was told to start \
                     at {position:?}, and {place:?} was published later"
                );
                fault(Invariant::Gap, topic, says)
            }
        }
    }
}

impl Epoch {
    fn raise(&mut self, record: usize, top: u64) {
        if self.tops.last().is_none_or(|(_, known)| *known < top) {
            self.tops.push((record, top));
        }
    }

    /// Forgets what was taken before this time, but for the latest message of each key: it may be in
    /// a snapshot.
    fn forget_before(&mut self, since_ms: u64) {
        let mut latest = HashSet::new();
        for (offset, entry) in std::mem::take(&mut self.entries).into_iter().rev() {
            let is_new = entry.time() >= since_ms;
            if !is_new {
                self.floor = self.floor.max(offset);
            }
            let is_latest = latest.insert(entry.content.key.clone());
            if is_new || is_latest && !entry.content.is_delete() {
                self.entries.insert(offset, entry);
            }
        }
        self.tops.drain(..self.tops.len().saturating_sub(1));
        self.current.drain(..self.current.len().saturating_sub(1));
    }

    /// Forgets all but that it was there: it is over.
    fn forget_all(&mut self) {
        self.forget_before(u64::MAX);
        self.entries.clear();
        self.floor = self.tops.last().map_or(self.floor, |(_, top)| *top);
    }

    /// The highest offset that was known before a record.
    fn top_before(&self, record: usize) -> u64 {
        let known = self.tops.partition_point(|(at, _)| *at < record);
        known.checked_sub(1).map_or(0, |last| self.tops[last].1)
    }
}

/// A fault of a topic.
pub(super) fn seam_fault(topic: &str, says: String) -> Fault {
    let topic = Some(topic.to_owned());
    Fault { invariant: Invariant::Seam, connection: None, topic, says, record: None }
}
