//! Every topic of the broker: publish, subscribe, resume, forget.
//! Sole user of `DashMap`.
//! # Invariants: a map guard lives only as long as it takes to clone an `Arc` (the sweep, which
//! must remove what it judged, is the exception); a message reaches every interested shard or is
//! refused; nothing is encoded and nobody waits under a lock.
//! # Not here: sockets, connections, encoding.

mod kept;
mod keys;
mod members;
mod outline;

pub use outline::Outline;

use super::filters::FilterTrie;
use super::history::HistoryBudget;
use super::idempotency::{Answer, Found, IdempotencyOptions, IdempotencyWindow};
use super::mailbox::{Inbox, Mailbox, Permit, Wake};
use super::message::{Audience, Draft, Epoch, Message, Offset, Position, Stream, TopicHead};
use super::name::{TopicFilter, TopicName};
use super::names::Names;
use super::rule::{Rule, Rules};
use super::topic::{
    Ask, Heard, Page, ResumeOptions, Seam, ShardId, ShardSet, Stretch, Topic, TopicState,
};
use crate::clock::Now;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use dashmap::{DashMap, Entry};
use parking_lot::RwLock;
use smallvec::SmallVec;
use std::collections::hash_map::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How the registry is bounded, and what topics hold.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Topics. Default 1,000,000; an empty one costs about 500 bytes.
    pub topics_max: usize,
    /// Bytes that all histories together may hold. Default 256 MiB.
    pub history_bytes_max: usize,
    /// What topics keep and grant.
    pub rules: Rules,
    /// Bounds of one resume or one page of history.
    pub resume: ResumeOptions,
    /// How answers are kept for publishers that ask twice.
    pub idempotency: IdempotencyOptions,
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        RegistryOptions {
            topics_max: 1_000_000,
            history_bytes_max: 256 << 20,
            rules: Rules::default(),
            resume: ResumeOptions::default(),
            idempotency: IdempotencyOptions::default(),
        }
    }
}

/// Draws the bits of a new epoch.
pub type EpochSource = Box<dyn Fn() -> Option<u128> + Send + Sync>;

/// The topic that a publisher named last.
#[derive(Debug, Default)]
pub struct Recent(Option<Arc<Topic>>);

/// What became of a draft. The topic is lent by the publisher's [`Recent`], because what is handed on
/// by value is copied by everyone on the way back.
#[derive(Clone, Copy, Debug)]
pub struct Committed<'a> {
    /// The topic.
    pub head: &'a TopicHead,
    /// The place of the message.
    pub offset: Offset,
    /// The group of the topic's rule; `None` for a message that had its place already.
    pub group: Option<u8>,
    /// Whether the topic began with it.
    pub is_new_topic: bool,
    /// About how many connections it goes to.
    pub audience: u32,
}

impl Committed<'_> {
    /// The place of the message, with the epoch that it belongs to.
    pub fn position(&self) -> Position {
        Position { epoch: self.head.epoch, offset: self.offset }
    }
}

/// Who has a filter.
#[derive(Debug, Default)]
struct Interest {
    shards: ShardSet,
    audience: Arc<Audience>,
}

/// Every topic of the broker.
pub struct Registry {
    topics: DashMap<TopicName, Arc<Topic>, RandomState>,
    count: AtomicUsize,
    next_id: AtomicU64,
    /// Of all topics; changed together with the map.
    names: RwLock<Names>,
    filters: RwLock<FilterTrie<Interest>>,
    /// Changes whenever `filters` does.
    generation: AtomicU64,
    mailboxes: Vec<Arc<Mailbox>>,
    budget: HistoryBudget,
    window: IdempotencyWindow,
    options: RegistryOptions,
    rules: RwLock<Arc<Rules>>,
    /// Nothing is committed any more.
    closed: AtomicBool,
    epochs: EpochSource,
}

impl Registry {
    /// An empty registry that posts to these mailboxes, one per shard in the order of their ids.
    pub fn new(
        mut options: RegistryOptions,
        mailboxes: Vec<Arc<Mailbox>>,
        epochs: EpochSource,
    ) -> Registry {
        let rules = RwLock::new(Arc::new(std::mem::take(&mut options.rules)));
        Registry {
            topics: DashMap::with_hasher(RandomState::new()),
            count: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            names: RwLock::default(),
            filters: RwLock::default(),
            generation: AtomicU64::new(0),
            mailboxes,
            budget: HistoryBudget::new(options.history_bytes_max),
            window: IdempotencyWindow::new(options.idempotency),
            options,
            rules,
            closed: AtomicBool::new(false),
            epochs,
        }
    }

    /// Gives a message its place and posts it to every interested shard.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] when a shard has no room: then no shard got it and it has no place.
    /// [`Reason::NotReady`] when the broker is about to end.
    /// [`Reason::TooManyTopics`], [`Reason::EngineUnavailable`] when the topic cannot be made;
    /// [`Reason::IdempotencyMismatch`] when the key was used for another message.
    pub fn commit(&self, draft: Draft, now: Now) -> Result<Position, Reason> {
        let mut recent = Recent::default();
        self.commit_again(&mut recent, draft, now).map(|committed| committed.position())
    }

    /// As [`Registry::commit`], for a publisher who most likely named the same topic last time: then
    /// nothing has to be looked up.
    ///
    /// # Errors
    /// Those of [`Registry::commit`].
    pub fn commit_again<'a>(
        &self,
        recent: &'a mut Recent,
        draft: Draft,
        now: Now,
    ) -> Result<Committed<'a>, Reason> {
        let known = recent.0.take().filter(|topic| topic.head.name == draft.topic);
        let (topic, is_new_topic) = match known {
            Some(topic) => (topic, false),
            None => self.topic_or_new(&draft.topic, now)?,
        };
        let topic = recent.0.insert(topic);
        let (offset, group, audience) = self.with_state(topic, now, |topic, state| {
            let (offset, group) = self.append(topic, state, draft, now)?;
            let is_wanted = !state.exact.union(state.filtered).is_empty();
            Ok((offset, group, if is_wanted { topic.head.audience.count() } else { 0 }))
        })??;
        Ok(Committed { head: &topic.head, offset, group, is_new_topic, audience })
    }

    /// Subscribes a shard to a topic, and joins its past to what the shard's mailbox will bring.
    /// The mailbox is drained into `inbox` while nothing can be posted on the topic: what is in
    /// `inbox` then is older than the seam, and all that comes later is newer.
    ///
    /// # Errors
    /// [`Reason::SnapshotTooLarge`] when the ask has no room; [`Reason::TooManyTopics`] and
    /// [`Reason::EngineUnavailable`] when the topic cannot be made.
    pub fn join(
        &self,
        topic: &TopicName,
        ask: &Ask,
        inbox: &mut Inbox,
        now: Now,
    ) -> Result<Seam, Reason> {
        let (mut topic, is_new_topic) = self.topic_or_new(topic, now)?;
        self.with_state(&mut topic, now, |topic, state| {
            self.expire(topic, state, now);
            let seam = Seam { is_new_topic, ..topic.seam(state, ask, now)? };
            state.exact.insert(inbox.shard);
            if !planted::is(Bug::InboxNotDrained) {
                self.collect(inbox);
            }
            Ok(seam)
        })?
    }

    /// Ends what [`Registry::join`] began.
    pub fn leave(&self, topic: &TopicName, shard: ShardId, now: Now) {
        if let Some(topic) = self.topic(topic) {
            let mut state = topic.state.lock();
            state.exact.remove(shard);
            state.last_use = now.uptime;
        }
    }

    /// Subscribes a shard to every topic, present and future, that the filter matches.
    pub fn join_filter(&self, filter: &TopicFilter, shard: ShardId) {
        let mut filters = self.filters.write();
        filters.entry(filter).shards.insert(shard);
        self.generation.fetch_add(u64::from(!planted::is(Bug::FilterUnnoticed)), Ordering::Release);
    }

    /// Ends what [`Registry::join_filter`] began.
    pub fn leave_filter(&self, filter: &TopicFilter, shard: ShardId) {
        let mut filters = self.filters.write();
        if let Some(interest) = filters.get_mut(filter) {
            interest.shards.remove(shard);
            if interest.shards.is_empty() {
                filters.remove(filter);
            }
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Where shards tell how many connections have a filter that is joined.
    pub fn audience_of(&self, filter: &TopicFilter) -> Arc<Audience> {
        let mut filters = self.filters.write();
        filters.get_mut(filter).map(|interest| Arc::clone(&interest.audience)).unwrap_or_default()
    }

    /// Joins the past of one topic to the live messages of a filter that is joined already. `None`
    /// if there is no such topic. `inbox` is as in [`Registry::join`].
    ///
    /// # Errors
    /// [`Reason::SnapshotTooLarge`] when the ask has no room.
    pub fn seam(
        &self,
        topic: &TopicName,
        ask: &Ask,
        inbox: &mut Inbox,
        now: Now,
    ) -> Result<Option<Seam>, Reason> {
        let Some(topic) = self.topic(topic) else { return Ok(None) };
        let mut state = topic.state.lock();
        if state.retired {
            return Ok(None);
        }
        self.expire(&topic, &mut state, now);
        self.collect(inbox);
        topic.seam(&state, ask, now).map(Some)
    }

    /// Drains the shard's mailbox to the end of its inbox.
    pub fn collect(&self, inbox: &mut Inbox) {
        if let Some(mailbox) = self.mailboxes.get(inbox.shard.index()) {
            mailbox.drain(&mut inbox.queue);
        }
    }

    /// The topics that a filter matches now, in the order of their names.
    ///
    /// # Errors
    /// Those of [`Names::matching`].
    pub fn matching(&self, filter: &TopicFilter, max: usize) -> Result<Vec<TopicName>, Reason> {
        self.names.read().matching(filter, max)
    }

    /// A stretch of a topic's past: what came after `since`, up to `to`. Nothing of it is there
    /// when the topic has been forgotten.
    pub fn stretch(
        &self,
        head: &TopicHead,
        (since, to): (Offset, Offset),
        room: &ResumeOptions,
        now: Now,
    ) -> Stretch {
        let Some(topic) = self.topic(&head.name).filter(|topic| topic.head.id == head.id) else {
            return Stretch { lost: Some((to, Reason::Expired)), messages: Vec::new() };
        };
        let mut state = topic.state.lock();
        self.expire(&topic, &mut state, now);
        state.stretch(since, to, room)
    }

    /// When a topic was last heard of, if it is still there.
    pub fn heard(&self, head: &TopicHead) -> Option<Heard> {
        let topic = self.topic(&head.name).filter(|topic| topic.head.id == head.id)?;
        let latest = topic.state.lock().heard;
        Some(latest)
    }

    /// What topics keep and grant that begin now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// What a topic keeps and grants, or would if it began now.
    pub fn rule(&self, topic: &TopicName) -> Arc<Rule> {
        match self.topic(topic) {
            Some(topic) => Arc::clone(&topic.head.rule),
            None => Arc::clone(self.rules().of(topic)),
        }
    }

    /// Puts other rules into force for topics that begin from now on; one that is there keeps its
    /// own. Groups that were not there at the start are counted as `other`.
    pub fn replace_rules(&self, rules: &Rules) {
        let mut current = self.rules.write();
        *current = Arc::new(rules.counted_for(current.group_names()));
    }

    /// Whether there is such a topic.
    pub fn has(&self, topic: &TopicName) -> bool {
        self.topics.contains_key(topic)
    }

    /// Messages that a topic still holds: those after `since`, or the latest. At most `limit`, and
    /// never more than one resume may send. `None` if there is no such topic.
    ///
    /// # Errors
    /// [`Reason::EpochChanged`], [`Reason::Trimmed`] or [`Reason::Expired`] when the message after
    /// `since` is gone.
    pub fn history(
        &self,
        topic: &TopicName,
        since: Option<Position>,
        limit: usize,
        now: Now,
    ) -> Result<Option<Page>, Reason> {
        let Some(topic) = self.topic(topic) else { return Ok(None) };
        let mut state = topic.state.lock();
        self.expire(&topic, &mut state, now);
        let resume = self.options.resume;
        let room = ResumeOptions { messages_max: limit.min(resume.messages_max), ..resume };
        topic.page(&state, since, &room, now).map(Some)
    }

    /// Forgets topics that nobody would miss, and what histories hold for too long. Returns how
    /// many topics went.
    pub fn sweep(&self, now: Now) -> usize {
        const SWEPT_MAX: usize = 10_000;
        let idle: Vec<TopicName> = self
            .topics
            .iter()
            .filter(|entry| self.tidy(entry.value(), now))
            .map(|entry| entry.key().clone())
            .take(SWEPT_MAX)
            .collect();
        let mut swept = 0;
        for name in idle {
            let removed = self.topics.remove_if(&name, |_, topic| {
                let mut state = topic.state.lock();
                state.retired = state.is_idle(now.uptime, topic.head.rule.idle_ttl);
                state.retired
            });
            if let Some((name, topic)) = removed {
                swept += 1;
                self.forget_name(&name);
                topic.state.lock().history.clear(&self.budget);
            }
        }
        self.count.fetch_sub(swept, Ordering::Relaxed);
        if swept > 0 && self.topics.capacity() > 2 * self.topics.len() + 4096 {
            self.topics.shrink_to_fit();
        }
        swept
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes that all histories hold.
    pub fn history_bytes(&self) -> usize {
        self.budget.used()
    }

    /// The answers that are kept for publishers that ask twice.
    pub fn idempotency(&self) -> &IdempotencyWindow {
        &self.window
    }

    /// The place of the message, and the group of its topic if it is a new one.
    fn append(
        &self,
        topic: &Topic,
        state: &mut TopicState,
        mut draft: Draft,
        now: Now,
    ) -> Result<(Offset, Option<u8>), Reason> {
        // Under the topic's lock, so whoever takes the topic out sees all that was committed.
        if self.closed.load(Ordering::Acquire) {
            return Err(Reason::NotReady);
        }
        let idempotency_key = draft.idempotency_key.take();
        let digest = idempotency_key.as_ref().map_or(0, |_| self.window.digest(&draft));
        if let Some(key) = &idempotency_key {
            let answers = &mut state.aside().answers;
            answers.expire(now.uptime, &self.window);
            match answers.find(key, digest) {
                Found::Nothing => {}
                Found::Same(offset) => return Ok((offset, None)),
                Found::Other => return Err(Reason::IdempotencyMismatch),
            }
        }
        self.check_key(topic, state, &draft, now)?;
        let message = self.post(topic, state, draft, now)?;
        let offset = message.offset;
        self.keep_key(topic, state, &message);
        if topic.head.rule.history.messages > 0 {
            state.history.append(message, &topic.head.rule.history, &self.budget);
        }
        if let Some(key) = idempotency_key.filter(|_| !planted::is(Bug::KeyForgotten)) {
            let answers = &mut state.aside().answers;
            let answer = Answer { digest: Some(digest), offset };
            answers.keep(&key, answer, now.uptime, &self.window);
        }
        if planted::is(Bug::RefusedYetKept) && offset.0.is_multiple_of(8) {
            return Err(Reason::Overloaded);
        }
        Ok((offset, Some(topic.head.rule.group)))
    }

    /// Gives a message the next offset and posts it, to all shards that want it or to none.
    fn post(
        &self,
        topic: &Topic,
        state: &mut TopicState,
        draft: Draft,
        now: Now,
    ) -> Result<Arc<Message>, Reason> {
        let shards = self.interested(topic, state);
        let offset = state.top.next();
        let message = Arc::new(Message::new(Arc::clone(&topic.head), offset, draft, now));
        if !shards.is_empty() {
            self.post_to(shards, &message)?;
        }
        state.top = offset;
        state.heard = Heard { uptime: now.uptime, wall_ms: now.wall_ms };
        Ok(message)
    }

    /// Posts a message to all of these shards or to none.
    fn post_to(&self, shards: ShardSet, message: &Arc<Message>) -> Result<(), Reason> {
        let permits = self.reserve(shards, message.payload.bytes().len());
        let permits = permits.ok_or(Reason::Overloaded)?;
        let posted = permits.into_iter().filter_map(|permit| permit.post(Arc::clone(message)));
        // Each queue is free again before anybody is woken.
        let wakes: SmallVec<[Wake<'_>; 4]> = posted.collect();
        wakes.into_iter().for_each(Wake::wake);
        Ok(())
    }

    /// Room in every one of these shards, or in none.
    fn reserve(&self, shards: ShardSet, cost: usize) -> Option<SmallVec<[Permit<'_>; 4]>> {
        let permits = shards.iter().map(|shard| self.mailboxes.get(shard.index())?.reserve(cost));
        if planted::is(Bug::FullMailboxSkipped) {
            return Some(permits.flatten().collect());
        }
        permits.collect()
    }

    fn interested(&self, topic: &Topic, state: &mut TopicState) -> ShardSet {
        if topic.head.stream == Stream::Presence {
            // Filters are for messages.
            return state.exact;
        }
        if state.generation != self.generation.load(Ordering::Acquire) {
            let filters = self.filters.read();
            state.generation = self.generation.load(Ordering::Acquire);
            state.filtered = ShardSet::default();
            filters.for_each_match(&topic.head.name, |interest| {
                state.filtered = state.filtered.union(interest.shards);
            });
        }
        state.exact.union(state.filtered)
    }

    /// Runs `act` under the lock of the topic, or of its successor if it was retired meanwhile.
    fn with_state<T>(
        &self,
        topic: &mut Arc<Topic>,
        now: Now,
        act: impl FnOnce(&Topic, &mut TopicState) -> T,
    ) -> Result<T, Reason> {
        // A topic is retired only after having been idle for `idle_ttl`, so a second round is
        // rare and a third one means that the clock jumps.
        for _ in 0..3 {
            let mut state = topic.state.lock();
            if !state.retired {
                state.last_use = now.uptime;
                return Ok(act(topic, &mut state));
            }
            drop(state);
            *topic = self.topic_or_new(&topic.head.name, now)?.0;
        }
        Err(Reason::EngineUnavailable)
    }

    fn topic(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.topics.get(name).map(|topic| Arc::clone(&topic))
    }

    /// A topic, and whether it has begun now.
    fn topic_or_new(&self, name: &TopicName, now: Now) -> Result<(Arc<Topic>, bool), Reason> {
        if let Some(topic) = self.topic(name) {
            return Ok((topic, false));
        }
        if self.topic_count() >= self.options.topics_max {
            return Err(Reason::TooManyTopics);
        }
        let drawn = if planted::is(Bug::EpochReused) { Some(1) } else { (self.epochs)() };
        let bits = drawn.ok_or(Reason::EngineUnavailable)?;
        let id = self.next_id.fetch_add(2, Ordering::Relaxed);
        let rule = Arc::clone(self.rules().of(name));
        let mut head = TopicHead::new(id, name.clone(), Epoch::from_bits(bits), rule);
        head.audience = Audience::expecting(self.expected(name));
        let companion = Registry::companion(&head, now);
        let topic = new_topic(head, companion, now);
        // A name is in the index before anybody can publish to the topic.
        let mut names = self.names.write();
        match self.topics.entry(name.clone()) {
            Entry::Occupied(first) => Ok((Arc::clone(first.get()), false)),
            Entry::Vacant(place) => {
                names.insert(name.clone());
                self.count.fetch_add(1, Ordering::Relaxed);
                Ok((Arc::clone(&place.insert(topic)), true))
            }
        }
    }

    /// How many connections have filters that match a name.
    fn expected(&self, name: &TopicName) -> u32 {
        let mut count: u32 = 0;
        let add = |interest: &Interest| count = count.saturating_add(interest.audience.count());
        self.filters.read().for_each_match(name, add);
        count
    }

    fn forget_name(&self, name: &TopicName) {
        let mut names = self.names.write();
        // It may have begun anew meanwhile.
        if !self.topics.contains_key(name) {
            names.remove(name);
        }
    }

    /// Lets go of what is too old, and says whether the topic may be forgotten.
    fn tidy(&self, topic: &Topic, now: Now) -> bool {
        // A topic that is in use right now is not idle.
        let Some(mut state) = topic.state.try_lock() else {
            return false;
        };
        self.expire(topic, &mut state, now);
        state.is_idle(now.uptime, topic.head.rule.idle_ttl)
    }

    /// Lets go of what is too old: an old message is not held because nothing came after it.
    fn expire(&self, topic: &Topic, state: &mut TopicState, now: Now) {
        state.history.expire(now.uptime, &topic.head.rule.history, &self.budget);
        let Some(aside) = &mut state.aside else { return };
        aside.answers.expire(now.uptime, &self.window);
        let mut gone = 0;
        aside
            .keys
            .retain(|message| !message.is_expired(now.uptime), |message| gone += message.cost());
        self.budget.release(gone);
    }
}

fn new_topic(head: TopicHead, companion: Option<Arc<Topic>>, now: Now) -> Arc<Topic> {
    let state = TopicState {
        last_use: now.uptime,
        heard: Heard { uptime: now.uptime, wall_ms: 0 },
        generation: u64::MAX,
        ..TopicState::default()
    };
    Arc::new(Topic { head: Arc::new(head), companion, state: parking_lot::Mutex::new(state) })
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("topics", &self.topic_count()).finish_non_exhaustive()
    }
}
