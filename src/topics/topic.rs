//! One topic: its order, its history, and which shards want it.
//! # Invariants: offsets are dense; assigning an offset and posting the message are one critical
//! section, so offset order is mailbox order on every shard; a retired topic takes nothing more.
//! # Not here: finding topics, filters (`registry`).

use super::history::History;
use super::idempotency::Answers;
use super::latest::{Latest, conflate};
use super::message::{Message, Offset, Position, TopicHead};
use super::presence::Roster;
use super::rule::Snapshot;
use super::terms::Policy;
use crate::clock::Now;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most shards of one process: a set of them is one word.
pub const SHARDS_MAX: usize = 64;

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u64);

impl ShardSet {
    /// Adds a shard.
    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= 1 << shard.0;
    }

    /// Takes a shard out.
    pub fn remove(&mut self, shard: ShardId) {
        self.0 &= !(1 << shard.0);
    }

    /// Both sets together.
    #[must_use]
    pub fn union(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 | other.0)
    }

    /// Whether no shard is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The shards in it.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let shard = u8::try_from(rest.trailing_zeros()).ok().filter(|bit| *bit < 64)?;
            rest &= rest - 1;
            Some(ShardId(shard))
        })
    }
}

/// Which shard of this process: 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u8);

impl ShardId {
    /// The shard with this number, if there can be one.
    pub fn new(number: usize) -> Option<ShardId> {
        u8::try_from(number).ok().filter(|_| number < SHARDS_MAX).map(ShardId)
    }

    /// Its number.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One topic.
#[derive(Debug)]
pub struct Topic {
    /// Its name, its epoch and its rule.
    pub head: Arc<TopicHead>,
    /// Who joins and leaves, where the rule lets that be known.
    pub(super) companion: Option<Arc<Topic>>,
    pub(super) state: Mutex<TopicState>,
}

/// What the topic's lock protects.
#[derive(Debug, Default)]
pub(super) struct TopicState {
    /// Offset of the latest message.
    pub(super) top: Offset,
    pub(super) history: History,
    pub(super) aside: Option<Box<Aside>>,
    /// When the latest message was taken; before the first one, when the topic began.
    pub(super) heard: Heard,
    /// Shards with a subscription to exactly this topic.
    pub(super) exact: ShardSet,
    /// Shards with a filter that matches, as of the filters' `generation`.
    pub(super) filtered: ShardSet,
    pub(super) generation: u64,
    pub(super) last_use: Duration,
    pub(super) retired: bool,
}

/// What most topics have nothing of. It is apart, so that what every commit needs lies close together.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// The latest message of every key, where the rule has snapshots hold them.
    pub(super) keys: Latest,
    /// The members, if this is a companion.
    pub(super) roster: Roster,
    pub(super) answers: Answers,
}

/// When a topic was last heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// By the monotonic clock.
    pub uptime: Duration,
    /// Milliseconds since 1970; 0 if there never was a message.
    pub wall_ms: u64,
}

/// What a subscription wants from the past of one topic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    /// The last position the client has processed.
    pub since: Option<Position>,
    /// How many of the latest messages to send if `since` is absent or cannot be met.
    pub last: usize,
    /// Whether to send what the topic's rule has in a snapshot, too.
    pub snapshot: bool,
    /// How live messages will be sent: a policy that conflates has what is missing conflated.
    pub policy: Policy,
    /// How much may be sent.
    pub room: ResumeOptions,
}

/// Bounds of one resume or one page of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeOptions {
    /// Messages. Default 1,000.
    pub messages_max: usize,
    /// Bytes of payload. Default 512 KiB: half of what may wait for a connection, so that live
    /// messages find room behind it.
    pub bytes_max: usize,
}

impl Default for ResumeOptions {
    fn default() -> ResumeOptions {
        ResumeOptions { messages_max: 1_000, bytes_max: 512 << 10 }
    }
}

impl ResumeOptions {
    /// Whether so much may be sent.
    fn holds<'a>(&self, messages: impl ExactSizeIterator<Item = &'a Arc<Message>>) -> bool {
        messages.len() <= self.messages_max && bytes_of(messages) <= self.bytes_max
    }

    /// What is left of it when this has been sent.
    #[must_use]
    pub fn less(self, replay: &[Arc<Message>]) -> ResumeOptions {
        ResumeOptions {
            messages_max: self.messages_max.saturating_sub(replay.len()),
            bytes_max: self.bytes_max.saturating_sub(bytes_of(replay.iter())),
        }
    }
}

fn bytes_of<'a>(messages: impl Iterator<Item = &'a Arc<Message>>) -> usize {
    messages.map(|message| message.payload.bytes().len()).sum()
}

/// The past and the present of a topic, joined without a seam.
#[derive(Clone, Debug)]
pub struct Seam {
    /// The topic.
    pub head: Arc<TopicHead>,
    /// Live messages come after this offset.
    pub top: Offset,
    /// What became of [`Ask::since`]: all that was missing is in `replay`, or nothing of it.
    pub recovery: Option<Result<(), Reason>>,
    /// Messages up to `top`, oldest first.
    pub replay: Vec<Arc<Message>>,
    /// When the topic was last heard of.
    pub heard: Heard,
    /// Whether the topic began with this.
    pub is_new_topic: bool,
}

/// A stretch of a topic's past for a connection that catches up.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Up to which offset it is gone, and why.
    pub lost: Option<(Offset, Reason)>,
    /// What follows, oldest first.
    pub messages: Vec<Arc<Message>>,
}

/// A page of a topic's history.
#[derive(Clone, Debug)]
pub struct Page {
    /// The position of the topic's latest message.
    pub top: Position,
    /// Messages, oldest first.
    pub messages: Vec<Arc<Message>>,
    /// Whether there are further messages between the last one here and `top`.
    pub more: bool,
}

impl Seam {
    /// The position that live messages come after.
    pub fn position(&self) -> Position {
        Position { epoch: self.head.epoch, offset: self.top }
    }
}

impl Topic {
    /// Joins past and present, in one critical section.
    ///
    /// # Errors
    /// [`Reason::SnapshotTooLarge`] when the latest messages have no room.
    pub(super) fn seam(&self, state: &TopicState, ask: &Ask, now: Now) -> Result<Seam, Reason> {
        let resumed = ask.since.map(|since| self.missing(state, since, ask, now));
        let (recovery, replay) = match resumed {
            Some(Ok(missing)) => (Some(Ok(())), missing),
            other => (other.map(|refused| refused.map(drop)), self.first(state, ask, now)?),
        };
        let top = if planted::is(Bug::SeamOffByOne) { state.top.previous() } else { state.top };
        let head = Arc::clone(&self.head);
        Ok(Seam { head, top, recovery, replay, heard: state.heard, is_new_topic: false })
    }

    /// Exactly what came after `since`, conflated if live messages will be. Messages whose time is
    /// over are among them: they are told as missing.
    fn missing(
        &self,
        state: &TopicState,
        since: Position,
        ask: &Ask,
        now: Now,
    ) -> Result<Vec<Arc<Message>>, Reason> {
        let missing = self.after(state, since)?;
        if ask.policy.conflates() {
            if missing.len() > ask.room.messages_max.saturating_mul(CONFLATED_FACTOR) {
                return Err(Reason::TooMany);
            }
            // A value whose time is over has still replaced those before it.
            let mut conflated = conflate(missing);
            conflated.retain(|message| !message.is_expired(now.uptime));
            return if ask.room.holds(conflated.iter()) {
                Ok(conflated)
            } else {
                Err(Reason::TooMany)
            };
        }
        if !ask.room.holds(missing.clone()) {
            return Err(Reason::TooMany);
        }
        Ok(missing.cloned().collect())
    }

    /// The latest messages and the snapshot that were asked for, in the order of their offsets.
    fn first(&self, state: &TopicState, ask: &Ask, now: Now) -> Result<Vec<Arc<Message>>, Reason> {
        let snapshot_of_one = ask.snapshot && self.head.rule.snapshot == Snapshot::Latest;
        let latest = state.history.latest(ask.last.max(usize::from(snapshot_of_one)));
        if !ask.room.holds(latest.clone()) {
            return Err(Reason::SnapshotTooLarge);
        }
        let is_current = |message: &&Arc<Message>| !message.is_expired(now.uptime);
        if !ask.snapshot || snapshot_of_one {
            return Ok(latest.filter(is_current).cloned().collect());
        }
        let keys = state.aside.iter().flat_map(|aside| aside.keys.after(Offset(0)));
        let all = latest.chain(keys).filter(is_current);
        let sorted: BTreeMap<Offset, &Arc<Message>> =
            all.map(|message| (message.offset, message)).collect();
        let first: Vec<_> = sorted.into_values().cloned().collect();
        if ask.room.holds(first.iter()) { Ok(first) } else { Err(Reason::SnapshotTooLarge) }
    }

    /// A page of the messages after `since`, or of the latest ones.
    pub(super) fn page(
        &self,
        state: &TopicState,
        since: Option<Position>,
        room: &ResumeOptions,
        now: Now,
    ) -> Result<Page, Reason> {
        let top = Position { epoch: self.head.epoch, offset: state.top };
        let is_current = |message: &&Arc<Message>| !message.is_expired(now.uptime);
        let Some(since) = since else {
            let latest = state.history.latest(room.messages_max).rev().filter(is_current);
            let mut messages = fitting(latest, room.bytes_max);
            messages.reverse();
            return Ok(Page { top, messages, more: false });
        };
        let mut current = self.after(state, since)?.filter(is_current);
        let messages = fitting(current.clone().take(room.messages_max), room.bytes_max);
        Ok(Page { top, more: current.nth(messages.len()).is_some(), messages })
    }

    fn after<'a>(
        &self,
        state: &'a TopicState,
        since: Position,
    ) -> Result<impl ExactSizeIterator<Item = &'a Arc<Message>> + Clone, Reason> {
        // An offset that was never given belongs to another life of the topic, whatever its epoch
        // says.
        let is_other = since.epoch != self.head.epoch && !planted::is(Bug::EpochIgnored);
        if is_other || since.offset > state.top {
            return Err(Reason::EpochChanged);
        }
        state.history.between(since.offset, state.top)
    }
}

impl TopicState {
    /// What most topics have nothing of.
    pub(super) fn aside(&mut self) -> &mut Aside {
        self.aside.get_or_insert_default()
    }

    /// The messages after `since` and up to `to`, as many as `room` holds and at least one, and what
    /// of them is gone.
    pub(super) fn stretch(&self, since: Offset, to: Offset, room: &ResumeOptions) -> Stretch {
        let to = to.min(self.top);
        let (first, why) = self.history.begin();
        let begin = first.map_or(to, |first| first.previous().min(to));
        let lost = (since < begin).then_some((begin, why));
        let from = since.max(begin);
        let messages = match self.history.between(from, to) {
            Ok(messages) => fitting(messages.take(room.messages_max), room.bytes_max),
            Err(_) => Vec::new(),
        };
        Stretch { lost, messages }
    }

    /// Whether nothing would be lost by forgetting the topic.
    pub(super) fn is_idle(&self, uptime: Duration, ttl: Duration) -> bool {
        self.exact.is_empty()
            && self.history.is_empty()
            && self
                .aside
                .as_ref()
                .is_none_or(|aside| aside.keys.is_empty() && aside.answers.is_empty())
            && uptime.saturating_sub(self.last_use) >= ttl
    }
}

/// Missing messages that are looked at for each that a resume may send, when they are conflated.
const CONFLATED_FACTOR: usize = 16;

/// As many messages from the front as fit, and at least one.
fn fitting<'a>(
    messages: impl Iterator<Item = &'a Arc<Message>>,
    bytes_max: usize,
) -> Vec<Arc<Message>> {
    let mut bytes = 0;
    messages
        .enumerate()
        .take_while(|(index, message)| {
            bytes += message.payload.bytes().len();
            *index == 0 || bytes <= bytes_max
        })
        .map(|(_, message)| Arc::clone(message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards_gives_back_what_was_put_in() {
        let mut set = ShardSet::default();
        let shards: Vec<ShardId> = [0, 1, 31, 63].into_iter().filter_map(ShardId::new).collect();
        for shard in &shards {
            set.insert(*shard);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), shards);
        for shard in shards {
            set.remove(shard);
        }
        assert!(set.is_empty());
        assert_eq!(ShardId::new(SHARDS_MAX), None);
    }
}
