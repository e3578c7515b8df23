//! Where one subscription stands in its topics: what to resume from, what is a double, what is missing.
//! Owns a place for each topic, and the lane in which the application finds what there is to tell.
//! # Invariants: within an epoch the offsets of a topic that are told rise; whatever is missing is told,
//! by `Gap` where the hole is known and by `Recovered` where it is not, but for what the terms allow to
//! be passed over; places are bounded.
//! # Not here: connections and time (`pilot`); everything here is a function of what the server said.

use super::agreement::{Agreement, Wish};
use super::error::Error;
use super::event::{
    Beginning, Event, Gap, GapReason, Loss, Message, Recovery, Subscribed, position, terms_of,
    topic_of,
};
use super::lane::Lane;
use super::wire::Fault;
use crate::dialect::schema;
use crate::reason::Reason;
use crate::topics::message::{Epoch, Offset, Position};
use crate::topics::name::{Target, TopicName};
use crate::topics::terms::Policy;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::oneshot;

/// Bytes of positions in one command: the server takes messages up to 64 KiB.
const RESUME_BYTES_MAX: usize = 60_000;
/// Bytes of a position beside its topic, in JSON.
const POSITION_BYTES: usize = 80;
/// Topics of one filter that a resume names: the server takes no more.
const POSITIONS_MAX: usize = crate::dialect::POSITIONS_MAX;
/// Topics of one filter whose offsets are followed.
const PLACES_MAX: usize = 65_536;

/// What an application asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) since: Vec<(TopicName, Position)>,
    pub(super) last: u32,
    pub(super) snapshot: bool,
    pub(super) presence: bool,
    pub(super) terms: Wish,
}

impl Asked {
    /// Whether something is to come first.
    fn fills(&self) -> bool {
        self.snapshot || self.last > 0
    }
}

/// Where a subscription stands with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is not accepted on this connection.
    Away,
    /// What was asked to come first is coming.
    Filling,
    /// All has come, and what comes is new.
    Live,
}

/// Where a subscription stands in one topic.
#[derive(Clone, Debug)]
struct Place {
    /// Unknown while a filter's snapshot is under way.
    epoch: Option<Epoch>,
    /// The last offset that was told; none until the first of what comes first.
    seen: Option<u64>,
    /// Live messages come after this; up to it, holes are not worth a word.
    floor: u64,
    /// The terms under which the message at `seen` came, if they pass over none.
    dense: Option<u64>,
    /// Greater than that of places which were used before.
    used: u64,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) target: Target,
    pub(super) agreement: Agreement,
    pub(super) lane: Lane,
    /// How often it was refused in a row with the advice to try later.
    pub(super) tries: u32,
    /// When to try again.
    pub(super) again_at: Option<Duration>,
    asked: Asked,
    standing: Standing,
    /// Whether the server has accepted it before.
    opened: bool,
    /// Whether a topic that turns up for the first time may have had messages while we were away.
    was_away: bool,
    /// Why the next command cannot resume everything.
    loss: Option<Loss>,
    places: HashMap<TopicName, Place>,
    uses: u64,
    /// What the last command resumed from, as far as it is unanswered.
    resuming: HashMap<TopicName, Position>,
    stale: HashSet<TopicName>,
    ready: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Feed {
    /// A subscription that nobody has told the server of. `ready` learns whether it is accepted.
    pub(super) fn new(
        target: Target,
        asked: Asked,
        lane: Lane,
        ready: oneshot::Sender<Result<(), Error>>,
    ) -> Feed {
        let mut feed = Feed {
            agreement: Agreement::new(asked.terms),
            target,
            lane,
            tries: 0,
            again_at: None,
            standing: Standing::Away,
            opened: false,
            was_away: false,
            loss: None,
            places: HashMap::new(),
            uses: 0,
            resuming: HashMap::new(),
            stale: HashSet::new(),
            ready: Some(ready),
            asked,
        };
        for (topic, position) in feed.asked.since.clone() {
            feed.begin(&topic, position, Some(position.offset.0));
        }
        feed
    }

    pub(super) fn is_live(&self) -> bool {
        self.standing != Standing::Away
    }

    pub(super) fn is_filling(&self) -> bool {
        self.standing == Standing::Filling
    }

    pub(super) fn is_filter(&self) -> bool {
        matches!(self.target, Target::Filter(_))
    }

    /// Whether it is told who joins and leaves.
    pub(super) fn watches(&self) -> bool {
        self.asked.presence
    }

    pub(super) fn epoch(&self, topic: &TopicName) -> Option<Epoch> {
        self.places.get(topic).and_then(|place| place.epoch)
    }

    /// The terms under which the server passes over no message of a topic, if that is certain. What
    /// comes by a filter may be paced by a rule for some of its topics, and nobody tells for which.
    pub(super) fn dense(&self) -> Option<u64> {
        if self.is_filter() { None } else { self.agreement.dense() }
    }

    /// Whether it has had all that is before this offset.
    pub(super) fn follows(&self, topic: &TopicName, offset: u64) -> bool {
        let seen = self.places.get(topic).and_then(|place| place.seen);
        seen.is_some_and(|seen| offset <= seen.saturating_add(1))
    }

    /// The last position of each topic that the application has taken. What waits for it is not yet.
    pub(super) fn processed(&self) -> Vec<(TopicName, Position)> {
        let mut firsts: HashMap<&TopicName, Option<Position>> = HashMap::new();
        for event in self.lane.waiting().rev() {
            let (topic, epoch, first) = match event {
                Event::Message(message) => (&message.topic, message.epoch, message.offset),
                Event::Gap(gap) => (&gap.topic, self.epoch(&gap.topic), gap.from),
                _ => continue,
            };
            let before = Offset(first).previous();
            firsts.insert(topic, epoch.map(|epoch| Position { epoch, offset: before }));
        }
        let places = self.positions().into_iter();
        let held = places.filter(|(topic, _)| !firsts.contains_key(topic));
        let mut processed: Vec<_> = held.collect();
        let waiting = firsts.iter().filter_map(|(topic, at)| at.map(|at| ((*topic).clone(), at)));
        processed.extend(waiting);
        processed
    }

    /// The places from which it can resume, the one used last first.
    fn positions(&self) -> Vec<(TopicName, Position)> {
        let mut places: Vec<_> = self.places.iter().collect();
        places.sort_by_key(|(_, place)| std::cmp::Reverse(place.used));
        let position = |(topic, place): (&TopicName, &Place)| {
            let offset = Offset(place.seen?);
            Some((topic.clone(), Position { epoch: place.epoch?, offset }))
        };
        places.into_iter().filter_map(position).collect()
    }

    // === Opening and resuming ===

    /// What to ask the server for.
    pub(super) fn command(&mut self) -> schema::Subscribe {
        let mut positions = self.positions();
        if positions.len() < self.places.len() {
            self.loss.get_or_insert(Loss::NoPosition);
        }
        let mut bytes = 0;
        let fitting = positions.iter().take(POSITIONS_MAX).take_while(|(topic, _)| {
            bytes += topic.as_str().len() + POSITION_BYTES;
            bytes <= RESUME_BYTES_MAX
        });
        let fitting = fitting.count();
        if fitting < positions.len() {
            self.loss.get_or_insert(Loss::TooMany);
        }
        positions.truncate(fitting);
        self.resuming = positions.iter().cloned().collect();
        self.places.retain(|topic, _| self.resuming.contains_key(topic));
        // A loss is told for all topics at once.
        self.was_away = self.loss.is_none() && (self.opened || !positions.is_empty());
        let terms = self.agreement.all();
        let mut subscribe = schema::Subscribe {
            topic: self.target.as_str().to_owned(),
            last: self.asked.last,
            snapshot: self.asked.snapshot,
            presence: self.asked.presence,
            ..Default::default()
        };
        (subscribe.policy, subscribe.max_hz, subscribe.overflow) = spelled(terms);
        if self.is_filter() {
            subscribe.positions = positions.iter().map(place_of).collect();
        } else {
            let since = positions.first().map(|(_, position)| *position);
            subscribe.since = since
                .map(|at| schema::Position { epoch: at.epoch.to_string(), offset: at.offset.0 });
        }
        subscribe
    }

    /// Forgets a change of terms, or positions, that the server does not take. Returns whether another
    /// try makes sense.
    pub(super) fn forget(&mut self, error: &Error) -> bool {
        let is = |reason: Reason| error.code() == u32::from(reason.code());
        if is(Reason::BadOption) {
            return self.agreement.refuse(error);
        }
        let positions = is(Reason::BadPosition) || is(Reason::TooManyPositions);
        if !self.opened || self.resuming.is_empty() || !positions {
            return false;
        }
        self.places.clear();
        let many = is(Reason::TooManyPositions);
        self.loss = Some(if many { Loss::TooMany } else { Loss::NoPosition });
        true
    }

    /// The server has accepted it.
    pub(super) fn subscribed(&mut self, answer: &schema::Subscribed) -> Result<(), Fault> {
        let position = answer.position.as_ref().map(position).transpose()?;
        let told = self.outcomes(answer, position)?;
        let resumes = self.opened || !self.resuming.is_empty();
        let loss = self.loss.take();
        self.standing = self.first_standing(answer);
        (self.opened, self.tries, self.again_at) = (true, 0, None);
        if let Some(ready) = self.ready.take() {
            // Whoever waited for it may have gone.
            ready.send(Ok(())).unwrap_or_default();
        }
        let terms = terms_of(answer.policy, answer.max_hz, answer.overflow());
        let terms = self.agreement.grant(terms);
        let beginning = if resumes { Beginning::Resumed } else { Beginning::Anew };
        let stale = answer.stale;
        self.tell(Event::Subscribed(Subscribed { position, terms, stale, beginning }));
        if let Target::Topic(topic) = self.target.clone() {
            // Of a filter's topics it is told after what comes first.
            if stale {
                self.stale.insert(topic)
            } else {
                self.stale.remove(&topic)
            };
        }
        if let Some(loss) = loss {
            self.recovered(self.target.as_str().to_owned(), None, Some(loss));
        }
        for outcome in told {
            self.resumed(outcome);
        }
        let silent: Vec<_> = self.resuming.keys().cloned().collect();
        for topic in silent {
            self.resumed(Outcome { topic, position: None, recovered: false, loss: Loss::Other });
        }
        Ok(())
    }

    /// Whether something comes first. The end of a snapshot is told; the latest messages of one topic end
    /// at its position, and those of a filter come behind positions like all others.
    fn first_standing(&self, answer: &schema::Subscribed) -> Standing {
        let top = answer.position.as_ref().map_or(0, |at| at.offset);
        let replays = top > 0 && !answer.recovered();
        if self.asked.snapshot || (self.asked.last > 0 && replays) {
            Standing::Filling
        } else {
            Standing::Live
        }
    }

    /// What the server says about each topic that is resumed, or about the topic that this is of.
    fn outcomes(
        &self,
        answer: &schema::Subscribed,
        position: Option<Position>,
    ) -> Result<Vec<Outcome>, Fault> {
        if let Target::Topic(topic) = &self.target {
            let recovered = answer.recovered.unwrap_or_default();
            let loss = Loss::of(answer.reason());
            return Ok(vec![Outcome { topic: topic.clone(), position, recovered, loss }]);
        }
        let outcome = |told: &schema::TopicRecovery| {
            let topic = topic_of(&told.topic)?;
            let position = told.position.as_ref().map(super::event::position).transpose()?;
            let loss = Loss::of(told.reason());
            Ok(Outcome { topic, position, recovered: told.recovered, loss })
        };
        answer.topics.iter().map(outcome).collect()
    }

    fn resumed(&mut self, outcome: Outcome) {
        let Outcome { topic, position, recovered, loss } = outcome;
        let since = self.resuming.remove(&topic);
        let dense = self.dense();
        if let (Some(since), Some(at), Some(place)) = (since, position, self.places.get_mut(&topic))
            // A server that says yes to another epoch, or to a place behind, is not believed.
            && recovered && at.epoch == since.epoch && at.offset >= since.offset
        {
            // Exactly the missing ones follow, whatever came first before.
            (place.floor, place.dense) = (0, dense);
            return self.recovered(topic.as_str().to_owned(), position, None);
        }
        match position {
            Some(at) => {
                let seen = (!self.asked.fills()).then_some(at.offset.0);
                self.begin(&topic, at, seen);
            }
            None => drop(self.places.remove(&topic)),
        }
        if since.is_some() {
            // A yes that is not believed has no reason.
            let loss = if recovered { Loss::EpochChanged } else { loss };
            self.recovered(topic.as_str().to_owned(), position, Some(loss));
        } else if self.was_away {
            self.recovered(topic.as_str().to_owned(), position, Some(Loss::NoPosition));
        }
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.agreement.lost();
        self.again_at = None;
        // What the rest of a filter's snapshot would have held is not known; nor is it of a topic's,
        // before the first of its messages: they rise, so from that one on it can be resumed.
        let begun = match &self.target {
            Target::Topic(topic) => {
                self.places.get(topic).is_some_and(|place| place.seen.is_some())
            }
            Target::Filter(_) => false,
        };
        if self.is_filling() && !begun {
            self.loss.get_or_insert(Loss::NoPosition);
        }
        self.standing = Standing::Away;
    }

    /// It is over, with an error unless the application wanted that.
    pub(super) fn end(&mut self, error: Option<&Error>) {
        self.lost();
        let told = error.cloned().unwrap_or_else(Error::closed);
        self.agreement.end(&told);
        if let Some(ready) = self.ready.take() {
            ready.send(Err(told)).unwrap_or_default();
        }
        self.lane.end(error.cloned());
    }

    /// Whether the application still waits to hear whether it is accepted.
    pub(super) fn is_awaited(&self) -> bool {
        self.ready.is_some()
    }

    /// Begins anew in a topic whose live messages come after `at`.
    fn begin(&mut self, topic: &TopicName, at: Position, seen: Option<u64>) {
        let place =
            Place { epoch: Some(at.epoch), seen, floor: at.offset.0, dense: self.dense(), used: 0 };
        self.put(topic, place);
    }

    fn put(&mut self, topic: &TopicName, mut place: Place) {
        self.uses += 1;
        place.used = self.uses;
        self.places.insert(topic.clone(), place);
        if self.places.len() > PLACES_MAX {
            self.loss = Some(Loss::TooMany);
            // Those that were not used for longest, many at once, so that it is done seldom.
            let mut uses: Vec<_> = self.places.values().map(|place| place.used).collect();
            let (_, least, _) = uses.select_nth_unstable(PLACES_MAX / 8);
            let least = *least;
            self.places.retain(|_, place| place.used > least);
        }
    }

    // === What comes ===

    /// A message. `epoch` is what is known of it elsewhere, `dense` names the terms that count for the
    /// topic, if they pass over no message.
    pub(super) fn take(&mut self, message: &Message, epoch: Option<Epoch>, dense: Option<u64>) {
        let Message { ref topic, offset, .. } = *message;
        self.meet(topic, offset, epoch);
        if !self.advance(topic, (offset, offset), dense) {
            return;
        }
        if self.is_filter() {
            self.fresh(topic);
        }
        self.tell(Event::Message(Message { epoch: self.epoch(topic), ..message.clone() }));
    }

    /// The server tells that messages are missing.
    pub(super) fn gap(&mut self, gap: &Gap, dense: Option<u64>) {
        let Gap { ref topic, from, to, count, reason } = *gap;
        self.meet(topic, from, None);
        let seen = self.places.get(topic).and_then(|place| place.seen);
        let first = from.max(seen.map_or(0, |seen| seen.saturating_add(1)));
        if to < first || !self.advance(topic, (from, to), dense) {
            return;
        }
        let count = count.min(to - first + 1);
        self.tell(Event::Gap(Gap { topic: topic.clone(), from: first, to, count, reason }));
    }

    /// Makes a place for a topic whose position the server has told to another subscription, or not at
    /// all.
    fn meet(&mut self, topic: &TopicName, offset: u64, epoch: Option<Epoch>) {
        if self.places.contains_key(topic) {
            return;
        }
        if self.was_away && offset > 1 {
            self.recovered(topic.as_str().to_owned(), None, Some(Loss::NoPosition));
        }
        let seen = Some(Offset(offset).previous().0);
        self.put(topic, Place { epoch, seen, floor: 0, dense: None, used: 0 });
    }

    /// What is told next reaches from one offset to another: what should have come before it is lost.
    /// That can be said where the same terms held all the way, and pass over nothing. Returns whether
    /// there is anything new in it.
    fn advance(&mut self, topic: &TopicName, (from, to): (u64, u64), dense: Option<u64>) -> bool {
        let filling = self.is_filter() && self.is_filling();
        let Some(place) = self.places.get_mut(topic) else { return false };
        if place.seen.is_some_and(|seen| to <= seen) {
            return false;
        }
        let next = place.seen.unwrap_or(0).max(place.floor) + 1;
        let is_certain = dense.is_some() && dense == place.dense;
        place.seen = Some(to);
        if !self.asked.snapshot && to >= place.floor && self.standing == Standing::Filling {
            self.standing = Standing::Live;
        }
        // A filter's snapshot may skip offsets until its end.
        place.dense = if filling { None } else { dense };
        self.uses += 1;
        place.used = self.uses;
        if is_certain && from > next {
            let (reason, to, count) = (GapReason::Lost, from - 1, from - next);
            self.tell(Event::Gap(Gap { topic: topic.clone(), from: next, to, count, reason }));
        }
        true
    }

    /// What follows on a topic comes after this position.
    pub(super) fn place(&mut self, topic: &TopicName, at: Position) {
        match self.places.get_mut(topic) {
            Some(place) if place.epoch.is_none_or(|epoch| epoch == at.epoch) => {
                place.epoch = Some(at.epoch);
                return;
            }
            Some(_) => {
                self.recovered(topic.as_str().to_owned(), Some(at), Some(Loss::EpochChanged));
            }
            None if self.was_away && at.offset.0 > 0 => {
                self.recovered(topic.as_str().to_owned(), Some(at), Some(Loss::NoPosition));
            }
            None => {}
        }
        self.begin(topic, at, Some(at.offset.0));
    }

    /// All that was asked to come first has come.
    pub(super) fn snapshot_end(&mut self, positions: &[(TopicName, Position)]) {
        if self.is_live() {
            self.standing = Standing::Live;
        }
        for (topic, at) in positions {
            self.place(topic, *at);
            if let Some(place) = self.places.get_mut(topic) {
                place.seen = place.seen.max(Some(at.offset.0));
            }
        }
        self.tell(Event::SnapshotEnd { topics: positions.len() });
    }

    /// A topic has fallen silent.
    pub(super) fn stale(&mut self, topic: &TopicName, since_ms: Option<u64>) {
        if self.stale.len() < PLACES_MAX && self.stale.insert(topic.clone()) {
            self.tell(Event::Stale { topic: topic.clone(), since_ms });
        }
    }

    /// A topic is silent no more.
    pub(super) fn fresh(&mut self, topic: &TopicName) {
        if !self.stale.is_empty() && self.stale.remove(topic) {
            self.tell(Event::Fresh(topic.clone()));
        }
    }

    // === Telling ===

    pub(super) fn tell(&mut self, event: Event) {
        self.lane.push(event);
    }

    fn recovered(&mut self, topic: String, position: Option<Position>, loss: Option<Loss>) {
        if loss.is_some() {
            // Of a filter's topics it is told anew which are stale.
            let whole = self.target.as_str() == topic;
            let doubtful = self.stale.iter().filter(|stale| whole || stale.as_str() == topic);
            let doubtful: Vec<_> = doubtful.filter(|_| self.is_filter()).cloned().collect();
            for stale in &doubtful {
                self.fresh(stale);
            }
        }
        self.tell(Event::Recovered(Recovery { topic, position, loss }));
    }
}

/// What the server says about one topic that is resumed.
struct Outcome {
    topic: TopicName,
    position: Option<Position>,
    recovered: bool,
    loss: Loss,
}

/// The three fields in which a command has its terms.
pub(super) fn spelled(terms: Wish) -> (i32, Option<f64>, i32) {
    use crate::topics::terms::Overflow;
    let (policy, max_hz) = match terms.policy {
        None => (schema::Policy::Unspecified, None),
        Some(Policy::All) => (schema::Policy::All, None),
        Some(Policy::Latest) => (schema::Policy::Latest, None),
        Some(Policy::MaxHz(rate)) => (schema::Policy::MaxHz, Some(rate.hz())),
    };
    let overflow = match terms.overflow {
        None => schema::Overflow::Unspecified,
        Some(Overflow::CatchUp) => schema::Overflow::CatchUp,
        Some(Overflow::Gap) => schema::Overflow::Gap,
        Some(Overflow::Disconnect) => schema::Overflow::Disconnect,
    };
    (policy.into(), max_hz, overflow.into())
}

fn place_of((topic, at): &(TopicName, Position)) -> schema::TopicPosition {
    schema::TopicPosition {
        topic: topic.as_str().to_owned(),
        epoch: at.epoch.to_string(),
        offset: at.offset.0,
    }
}

#[cfg(test)]
mod tests;
