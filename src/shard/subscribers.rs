//! Who on this shard wants which topic.
//! Owns the local view of topics and the groups of connections behind each filter.
//! # Invariants: a connection is at most once in each topic and each group, and knows its index
//! there; a topic without members and without a matching group does not stay; one that a cursor
//! refers to does.
//! # Not here: sockets, other shards, what is sent.

use super::conflation::Conflation;
use super::cursor::Mode;
use super::memberships::Memberships;
use crate::planted::{self, Bug};
use crate::topics::filters::FilterTrie;
use crate::topics::message::{Audience, Message, Offset, Stream, TopicHead};
use crate::topics::name::{Target, TopicFilter, TopicName};
use crate::topics::rule::Presence;
use crate::topics::terms::{Policy, Terms};
use crate::topics::topic::Heard;
use slab::Slab;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Hashes the numbers that this process hands out itself. Names that clients choose go through
/// the standard library's keyed hasher.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the rotation brings the good high bits to where the table looks.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

pub(super) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Where a connection can be a member: a topic's slot or a group's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

impl Place {
    pub(super) fn topic(slot: usize) -> Place {
        Place(u32::try_from(slot << 1).unwrap_or(u32::MAX))
    }

    pub(super) fn group(slot: usize) -> Place {
        Place(u32::try_from(slot << 1 | 1).unwrap_or(u32::MAX))
    }

    pub(super) fn slot(self) -> usize {
        (self.0 >> 1) as usize
    }

    pub(super) fn is_group(self) -> bool {
        self.0 & 1 == 1
    }
}

/// One connection's subscription to a topic or a filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// The connection's slot.
    pub(super) connection: u32,
    pub(super) terms: Terms,
    /// The shard's sequence when it joined: messages with a higher one are its own.
    pub(super) joined: u64,
}

/// A topic that this shard delivers.
#[derive(Debug)]
pub(super) struct LocalTopic {
    pub(super) head: Arc<TopicHead>,
    /// Subscribers of exactly this topic.
    pub(super) members: Vec<Member>,
    /// Groups whose filter matches, as of `generation`.
    pub(super) groups: SmallVec<[u32; 2]>,
    generation: u64,
    /// The shard's sequence of the topic's latest message, 0 before the first.
    pub(super) last_sequence: u64,
    /// When that was, in ticks.
    pub(super) last_tick: u32,
    /// How many members the topic has been told that there are, those of groups among them.
    told: u32,
    /// Offset of the latest message that was offered or is before all that will be.
    pub(super) top: Offset,
    /// Cursors of connections in this topic.
    pub(super) cursors: u32,
    /// What those of them that conflate have yet to send.
    pub(super) conflation: Option<Box<Conflation>>,
    /// When it was last heard of, where its rule has a time after which it is stale.
    pub(super) heard: Heard,
    pub(super) is_stale: bool,
    /// The tick of the pace at which somebody looks when it was last heard of.
    pub(super) judged_at: Option<u64>,
    /// The topic that had the name before this one: connections may still be behind on it.
    older: Option<u64>,
}

/// The subscribers of one filter.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) filter: TopicFilter,
    pub(super) members: Vec<Member>,
    /// Where all shards tell how many these are.
    audience: Arc<Audience>,
}

/// A member that moved because another one left: its connection must note the new index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) connection: u32,
    pub(super) place: Place,
    pub(super) index: u32,
}

/// What a departure leaves to do.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) moved: Option<Moved>,
    /// The last member left: the shard no longer wants this.
    pub(super) ended: Option<Wanted>,
}

/// What a shard can want of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The messages of a topic or of all that a filter matches.
    Messages(Target),
    /// Who joins and leaves a topic.
    Presence(TopicName),
}

/// Who wants what.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    topics: Slab<LocalTopic>,
    by_id: NumberMap<u64, u32>,
    by_name: HashMap<TopicName, u32>,
    /// Companions of topics, by the names of these.
    by_watched: HashMap<TopicName, u32>,
    groups: Slab<Group>,
    by_filter: HashMap<TopicFilter, u32>,
    trie: FilterTrie<Option<u32>>,
    /// Changes whenever `groups` gains or loses one.
    generation: u64,
    /// Where the sweep goes on.
    sweep_from: usize,
}

impl Subscribers {
    /// Where members of this target are, if there are any.
    pub(super) fn place(&self, target: &Target) -> Option<Place> {
        match target {
            Target::Topic(name) => self.by_name.get(name).map(|slot| Place::topic(*slot as usize)),
            Target::Filter(filter) => {
                self.by_filter.get(filter).map(|slot| Place::group(*slot as usize))
            }
        }
    }

    /// What these memberships are subscriptions to.
    pub(super) fn targets(&self, memberships: &Memberships) -> Vec<Target> {
        self.some_targets(memberships, usize::MAX)
    }

    /// At most `max` of those.
    pub(super) fn some_targets(&self, memberships: &Memberships, max: usize) -> Vec<Target> {
        let target = |(place, _): (Place, u32)| {
            if place.is_group() {
                let group = self.groups.get(place.slot())?;
                return Some(Target::Filter(group.filter.clone()));
            }
            let topic = self.topics.get(place.slot())?;
            // Who watches who is there has a subscription to the topic itself.
            let is_topic = topic.head.stream == Stream::Messages;
            is_topic.then(|| Target::Topic(topic.head.name.clone()))
        };
        memberships.iter().filter_map(target).take(max).collect()
    }

    /// Members of a topic and of the groups that match it; one that is in both counts twice.
    pub(super) fn member_count(&self, topic: &TopicName) -> usize {
        let slot = self.by_name.get(topic);
        let exact = slot.and_then(|slot| self.topics.get(*slot as usize));
        let mut count = exact.map_or(0, |topic| topic.members.len());
        self.trie.for_each_match(topic, |group| {
            let group = group.and_then(|slot| self.groups.get(slot as usize));
            count += group.map_or(0, |group| group.members.len());
        });
        count
    }

    /// Where those are who watch who joins and leaves a topic, if anybody does.
    pub(super) fn watch_place(&self, topic: &TopicName) -> Option<Place> {
        self.by_watched.get(topic).map(|slot| Place::topic(*slot as usize))
    }

    /// Adds a member to a topic, which stands at `top`. The connection is not a member yet.
    pub(super) fn enter_topic(
        &mut self,
        head: &Arc<TopicHead>,
        (top, latest): (Offset, Heard),
        member: Member,
    ) -> (Place, u32) {
        let slot = self.track(head, top, latest);
        let Some(topic) = self.topics.get_mut(slot) else { return (Place::topic(slot), 0) };
        topic.members.push(member);
        topic.tell(topic.told.saturating_add(1));
        (Place::topic(slot), last_index(&topic.members))
    }

    /// Adds a member to a filter's group. The connection is not a member yet.
    /// `audience` is where that is told, for a new one.
    pub(super) fn enter_group(
        &mut self,
        filter: &TopicFilter,
        member: Member,
        audience: impl FnOnce() -> Arc<Audience>,
    ) -> (Place, u32) {
        let slot = match self.by_filter.get(filter) {
            Some(slot) => *slot as usize,
            None => self.new_group(filter, audience()),
        };
        let Some(group) = self.groups.get_mut(slot) else { return (Place::group(slot), 0) };
        group.members.push(member);
        group.audience.tell(0, 1);
        (Place::group(slot), last_index(&group.members))
    }

    /// Whether somebody on this shard has this filter.
    pub(super) fn has_group(&self, filter: &TopicFilter) -> bool {
        self.by_filter.contains_key(filter)
    }

    /// Takes a member out by its place and index.
    pub(super) fn depart(&mut self, place: Place, index: u32) -> Departure {
        let members = if place.is_group() {
            self.groups.get_mut(place.slot()).map(|group| &mut group.members)
        } else {
            self.topics.get_mut(place.slot()).map(|topic| &mut topic.members)
        };
        let Some(members) = members.filter(|members| (index as usize) < members.len()) else {
            return Departure { moved: None, ended: None };
        };
        members.swap_remove(index as usize);
        let count = members.len();
        if members.capacity() > 64 && members.len() * 4 < members.capacity() {
            members.shrink_to(members.len() * 2);
        }
        let moved = members.get(index as usize).map(|member| Moved {
            connection: member.connection,
            place,
            index,
        });
        if place.is_group() {
            self.groups.get(place.slot()).iter().for_each(|group| group.audience.tell(1, 0));
        } else if let Some(topic) = self.topics.get_mut(place.slot()) {
            topic.tell(topic.told.saturating_sub(1));
        }
        let ended = (count == 0).then(|| self.end(place)).flatten();
        Departure { moved, ended }
    }

    /// The local view of a message's topic, with the groups that match it; `None` if nobody on
    /// this shard wants it.
    pub(super) fn audience(&mut self, message: &Message) -> Option<usize> {
        let slot = match self.by_id.get(&message.head.id) {
            Some(slot) => *slot as usize,
            None if self.groups.is_empty() => return None,
            None if message.head.stream == Stream::Presence => return None,
            None => self.track(&message.head, message.offset.previous(), Heard::default()),
        };
        self.find_groups(slot);
        let topic = self.topics.get(slot)?;
        if topic.is_wanted() {
            return Some(slot);
        }
        self.forget_topic(slot);
        None
    }

    /// Topics that had the name of the one in this slot before it, the oldest first, as long as it
    /// has had no message.
    pub(super) fn older(&self, slot: usize) -> Vec<u64> {
        let mut older = Vec::new();
        let mut next = self.topics.get(slot).filter(|topic| topic.last_sequence == 0);
        while let Some(id) = next.and_then(|topic| topic.older) {
            older.push(id);
            next = self.topic(id);
        }
        older.reverse();
        older
    }

    /// Brings a topic's list of groups up to date.
    fn find_groups(&mut self, slot: usize) {
        let Some(topic) = self.topics.get_mut(slot) else { return };
        if topic.generation == self.generation {
            return;
        }
        topic.generation = self.generation;
        let (head, mut groups) = (Arc::clone(&topic.head), std::mem::take(&mut topic.groups));
        groups.clear();
        self.for_each_group(&head, |group| groups.push(group));
        if let Some(topic) = self.topics.get_mut(slot) {
            topic.groups = groups;
        }
    }

    /// The groups whose filter matches a topic.
    fn for_each_group(&self, head: &TopicHead, mut act: impl FnMut(u32)) {
        if head.stream == Stream::Messages {
            self.trie.for_each_match(&head.name, |group| group.iter().for_each(|slot| act(*slot)));
        }
    }

    /// The topic in a slot that [`Subscribers::audience`] gave, and all groups.
    pub(super) fn audience_mut(&mut self, slot: usize) -> Option<(&mut LocalTopic, &Slab<Group>)> {
        self.topics.get_mut(slot).map(|topic| (topic, &self.groups))
    }

    /// A topic by its id.
    pub(super) fn topic(&self, id: u64) -> Option<&LocalTopic> {
        self.by_id.get(&id).and_then(|slot| self.topics.get(*slot as usize))
    }

    /// A topic by its id, to be changed.
    pub(super) fn topic_mut(&mut self, id: u64) -> Option<&mut LocalTopic> {
        self.by_id.get(&id).and_then(|slot| self.topics.get_mut(*slot as usize))
    }

    /// The topic of a place, if it is not that of a group.
    pub(super) fn topic_at(&self, place: Place) -> Option<&LocalTopic> {
        self.topics.get(place.slot()).filter(|_| !place.is_group())
    }

    /// The member of a place.
    pub(super) fn member_mut(&mut self, place: Place, index: u32) -> Option<&mut Member> {
        let members = if place.is_group() {
            &mut self.groups.get_mut(place.slot())?.members
        } else {
            &mut self.topics.get_mut(place.slot())?.members
        };
        members.get_mut(index as usize)
    }

    /// Whether one of these memberships is a subscription to exactly this topic.
    pub(super) fn has_exact(&self, memberships: &Memberships, topic: u64) -> bool {
        let slot = self.by_id.get(&topic);
        slot.is_some_and(|slot| memberships.get(Place::topic(*slot as usize)).is_some())
    }

    /// What a connection with these memberships gets of a topic: what its exact subscription says,
    /// else the filter that gives most.
    pub(super) fn policy_of(&self, memberships: &Memberships, topic: u64) -> Option<Policy> {
        let slot = self.by_id.get(&topic).copied()?;
        let topic = self.topics.get(slot as usize)?;
        let exact = memberships.get(Place::topic(slot as usize));
        let exact = exact.and_then(|index| topic.members.get(index as usize));
        let mut current = SmallVec::<[u32; 2]>::new();
        let groups = if topic.generation == self.generation {
            &topic.groups
        } else {
            // Slots of groups that have ended may be those of others by now.
            self.for_each_group(&topic.head, |group| current.push(group));
            &current
        };
        let member = exact.or_else(|| strongest(memberships, groups, &self.groups))?;
        Some(member.terms.policy.capped(topic.head.rule.cap))
    }

    /// Everybody who is told of a topic, each connection once.
    pub(super) fn connections(&mut self, topic: u64) -> Vec<u32> {
        let Some(slot) = self.by_id.get(&topic).map(|slot| *slot as usize) else {
            return Vec::new();
        };
        self.find_groups(slot);
        let Some(topic) = self.topics.get(slot) else { return Vec::new() };
        let groups = topic.groups.iter().filter_map(|group| self.groups.get(*group as usize));
        let members = topic.members.iter().chain(groups.flat_map(|group| &group.members));
        let mut connections: Vec<u32> = members.map(|member| member.connection).collect();
        connections.sort_unstable();
        connections.dedup();
        connections
    }

    /// How many topics this shard delivers.
    pub(super) fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Forgets topics that only filters want and that have been quiet for `quiet_ticks`. Looks at
    /// a bounded number of slots each time.
    pub(super) fn sweep(&mut self, tick: u32, quiet_ticks: u32) {
        const SLOTS: usize = 8192;
        let end = (self.sweep_from + SLOTS).min(self.topics.capacity());
        for slot in self.sweep_from..end {
            self.find_groups(slot);
            let quiet = self.topics.get(slot).is_some_and(|topic| {
                let is_timed = topic.is_stale || topic.judged_at.is_some();
                let is_watched = is_timed && topic.is_wanted();
                let is_kept = !topic.members.is_empty() || topic.cursors > 0 || is_watched;
                !is_kept && tick.saturating_sub(topic.last_tick) >= quiet_ticks
            });
            if quiet {
                self.forget_topic(slot);
            }
        }
        self.sweep_from = if end == self.topics.capacity() { 0 } else { end };
        if self.topics.is_empty() && self.topics.capacity() > 64 {
            self.topics.shrink_to_fit();
            self.by_id.shrink_to_fit();
            self.by_name.shrink_to_fit();
        }
    }

    /// Finds a topic, or begins to keep it in sight: the next message will come after `top`.
    pub(super) fn track(&mut self, head: &Arc<TopicHead>, top: Offset, latest: Heard) -> usize {
        if let Some(slot) = self.by_id.get(&head.id).copied() {
            if let Some(topic) = self.topics.get_mut(slot as usize) {
                // Nobody may have wanted it for a while.
                topic.top = topic.top.max(top);
                if latest.uptime > topic.heard.uptime {
                    topic.heard = latest;
                    topic.is_stale = false;
                    topic.judged_at = None;
                }
            }
            return slot as usize;
        }
        let older = self.names_of(head.stream).get(&head.name).copied();
        let older = older.and_then(|slot| self.topics.get_mut(slot as usize));
        // Who was told of the older one that it is stale is told of this one when it is fresh.
        let is_wanted = latest.wall_ms == 0 && !self.groups.is_empty();
        let is_stale = is_wanted && older.as_ref().is_some_and(|older| older.is_stale);
        let older = older.map(|older| {
            // Whether that one is quiet does not matter any more.
            (older.is_stale, older.judged_at) = (false, None);
            older.head.id
        });
        let slot = self.topics.insert(LocalTopic {
            head: Arc::clone(head),
            members: Vec::new(),
            groups: SmallVec::new(),
            generation: u64::MAX,
            last_sequence: 0,
            last_tick: 0,
            told: 0,
            top,
            cursors: 0,
            conflation: None,
            heard: latest,
            is_stale,
            judged_at: None,
            older,
        });
        let short = u32::try_from(slot).unwrap_or(u32::MAX);
        self.by_id.insert(head.id, short);
        self.names_of(head.stream).insert(head.name.clone(), short);
        slot
    }

    fn new_group(&mut self, filter: &TopicFilter, audience: Arc<Audience>) -> usize {
        let group = Group { filter: filter.clone(), members: Vec::new(), audience };
        let slot = self.groups.insert(group);
        let short = u32::try_from(slot).unwrap_or(u32::MAX);
        self.by_filter.insert(filter.clone(), short);
        *self.trie.entry(filter) = Some(short);
        self.generation += 1;
        slot
    }

    fn names_of(&mut self, stream: Stream) -> &mut HashMap<TopicName, u32> {
        match stream {
            Stream::Messages => &mut self.by_name,
            Stream::Presence => &mut self.by_watched,
        }
    }

    fn end(&mut self, place: Place) -> Option<Wanted> {
        if place.is_group() {
            let group = self.groups.try_remove(place.slot())?;
            self.by_filter.remove(&group.filter);
            self.trie.remove(&group.filter);
            self.generation += 1;
            return Some(Wanted::Messages(Target::Filter(group.filter)));
        }
        let topic = self.topics.get(place.slot())?;
        let (name, stream) = (topic.head.name.clone(), topic.head.stream);
        // Filters may still want it; then the sweep forgets it when it falls quiet.
        if self.groups.is_empty() || stream == Stream::Presence {
            self.forget_topic(place.slot());
        }
        Some(match stream {
            Stream::Messages => Wanted::Messages(Target::Topic(name)),
            Stream::Presence => Wanted::Presence(name),
        })
    }

    fn forget_topic(&mut self, slot: usize) {
        let Some(mut topic) = self.topics.try_remove(slot) else { return };
        topic.tell(0);
        self.by_id.remove(&topic.head.id);
        // A topic that began anew may have taken over the name.
        let names = self.names_of(topic.head.stream);
        if names.get(&topic.head.name).is_some_and(|named| *named as usize == slot) {
            names.remove(&topic.head.name);
        }
    }
}

impl LocalTopic {
    /// Whether somebody on this shard is subscribed to it. The groups must be up to date.
    fn is_wanted(&self) -> bool {
        !(self.members.is_empty() && self.groups.is_empty())
    }

    /// Tells the topic how many members there are, those of the groups that match it among them.
    pub(super) fn tell_audience(&mut self, groups: &Slab<Group>) {
        let groups = self.groups.iter().filter_map(|slot| groups.get(*slot as usize));
        let count = groups.fold(self.members.len(), |sum, group| sum + group.members.len());
        self.tell(u32::try_from(count).unwrap_or(u32::MAX));
        self.head.audience.meet();
    }

    fn tell(&mut self, count: u32) {
        self.head.audience.tell(self.told, count);
        self.told = count;
    }

    /// Whether those who subscribe to it are listed.
    pub(super) fn keeps_presence(&self) -> bool {
        self.head.rule.presence != Presence::Off
    }

    /// Notes that a connection has a cursor here.
    pub(super) fn begin_cursor(&mut self, mode: Mode) {
        self.cursors += 1;
        if mode == Mode::Conflate {
            self.conflation.get_or_insert_default().cursors += 1;
        }
    }

    /// Notes that it has none any more.
    pub(super) fn end_cursor(&mut self, mode: Mode) {
        self.cursors = self.cursors.saturating_sub(1);
        if mode == Mode::Conflate
            && let Some(conflation) = &mut self.conflation
        {
            conflation.cursors -= 1;
            if conflation.cursors == 0 {
                self.conflation = None;
            }
        }
    }
}

/// Of the groups that a connection is a member of, its membership that gives most.
pub(super) fn strongest<'a>(
    memberships: &Memberships,
    matching: &[u32],
    groups: &'a Slab<Group>,
) -> Option<&'a Member> {
    let member = |slot: &u32| {
        let index = memberships.get(Place::group(*slot as usize))?;
        groups.get(*slot as usize)?.members.get(index as usize)
    };
    let weakest = planted::is(Bug::WeakestFilter);
    matching.iter().filter_map(member).max_by_key(|member| {
        let reach = member.terms.policy.reach();
        if weakest { u32::MAX - reach } else { reach }
    })
}

fn last_index(members: &[Member]) -> u32 {
    u32::try_from(members.len().saturating_sub(1)).unwrap_or(u32::MAX)
}
