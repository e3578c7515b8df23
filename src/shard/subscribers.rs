//! Who on this shard wants which topic.
//! Owns the local view of topics, the groups of connections behind each filter, and where each
//! connection stands in them.
//! # Invariants: a connection is at most once in each topic and each group, and knows its index
//! there; a topic without members and without a matching group does not stay.
//! # Not here: sockets, other shards, what is sent.

use crate::dialect::Overflow;
use crate::topics::filters::FilterTrie;
use crate::topics::message::{Message, TopicHead};
use crate::topics::name::{Target, TopicFilter, TopicName};
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
    fn topic(slot: usize) -> Place {
        Place(u32::try_from(slot << 1).unwrap_or(u32::MAX))
    }

    fn group(slot: usize) -> Place {
        Place(u32::try_from(slot << 1 | 1).unwrap_or(u32::MAX))
    }

    fn slot(self) -> usize {
        (self.0 >> 1) as usize
    }

    pub(super) fn is_group(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The places of one connection, each with its index there.
pub(super) type Memberships = NumberMap<Place, u32>;

/// One connection's subscription to a topic or a filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// The connection's slot.
    pub(super) connection: u32,
    pub(super) overflow: Overflow,
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
}

/// The subscribers of one filter.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) filter: TopicFilter,
    pub(super) members: Vec<Member>,
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
    pub(super) ended: Option<Target>,
}

/// Who wants what.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    topics: Slab<LocalTopic>,
    by_id: NumberMap<u64, u32>,
    by_name: HashMap<TopicName, u32>,
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

    /// Adds a member to a topic. The connection is not a member yet.
    pub(super) fn enter_topic(&mut self, head: &Arc<TopicHead>, member: Member) -> (Place, u32) {
        let slot = self.topic_slot(head);
        let Some(topic) = self.topics.get_mut(slot) else { return (Place::topic(slot), 0) };
        topic.members.push(member);
        (Place::topic(slot), last_index(&topic.members))
    }

    /// Adds a member to a filter's group. The connection is not a member yet.
    pub(super) fn enter_group(&mut self, filter: &TopicFilter, member: Member) -> (Place, u32) {
        let slot = match self.by_filter.get(filter) {
            Some(slot) => *slot as usize,
            None => self.new_group(filter),
        };
        let Some(group) = self.groups.get_mut(slot) else { return (Place::group(slot), 0) };
        group.members.push(member);
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
        if members.capacity() > 64 && members.len() * 4 < members.capacity() {
            members.shrink_to(members.len() * 2);
        }
        let moved = members.get(index as usize).map(|member| Moved {
            connection: member.connection,
            place,
            index,
        });
        let ended = members.is_empty().then(|| self.end(place)).flatten();
        Departure { moved, ended }
    }

    /// The local view of a message's topic, with the groups that match it; `None` if nobody on
    /// this shard wants it.
    pub(super) fn audience(&mut self, message: &Message) -> Option<usize> {
        let slot = match self.by_id.get(&message.head.id) {
            Some(slot) => *slot as usize,
            None if self.groups.is_empty() => return None,
            None => self.topic_slot(&message.head),
        };
        let topic = self.topics.get_mut(slot)?;
        if topic.generation != self.generation {
            topic.generation = self.generation;
            topic.groups.clear();
            self.trie.for_each_match(&topic.head.name, |group| topic.groups.extend(*group));
        }
        if topic.members.is_empty() && topic.groups.is_empty() {
            self.forget_topic(slot);
            return None;
        }
        Some(slot)
    }

    /// The topic in a slot that [`Subscribers::audience`] gave, and all groups.
    pub(super) fn audience_mut(&mut self, slot: usize) -> Option<(&mut LocalTopic, &Slab<Group>)> {
        self.topics.get_mut(slot).map(|topic| (topic, &self.groups))
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
            let quiet = self.topics.get(slot).is_some_and(|topic| {
                topic.members.is_empty() && tick.saturating_sub(topic.last_tick) >= quiet_ticks
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

    fn topic_slot(&mut self, head: &Arc<TopicHead>) -> usize {
        if let Some(slot) = self.by_id.get(&head.id) {
            return *slot as usize;
        }
        let slot = self.topics.insert(LocalTopic {
            head: Arc::clone(head),
            members: Vec::new(),
            groups: SmallVec::new(),
            generation: u64::MAX,
            last_sequence: 0,
            last_tick: 0,
        });
        let short = u32::try_from(slot).unwrap_or(u32::MAX);
        self.by_id.insert(head.id, short);
        self.by_name.insert(head.name.clone(), short);
        slot
    }

    fn new_group(&mut self, filter: &TopicFilter) -> usize {
        let slot = self.groups.insert(Group { filter: filter.clone(), members: Vec::new() });
        let short = u32::try_from(slot).unwrap_or(u32::MAX);
        self.by_filter.insert(filter.clone(), short);
        *self.trie.entry(filter) = Some(short);
        self.generation += 1;
        slot
    }

    fn end(&mut self, place: Place) -> Option<Target> {
        if place.is_group() {
            let group = self.groups.try_remove(place.slot())?;
            self.by_filter.remove(&group.filter);
            self.trie.remove(&group.filter);
            self.generation += 1;
            return Some(Target::Filter(group.filter));
        }
        let topic = self.topics.get(place.slot())?;
        let name = topic.head.name.clone();
        // Filters may still want it; then the sweep forgets it when it falls quiet.
        if self.groups.is_empty() {
            self.forget_topic(place.slot());
        }
        Some(Target::Topic(name))
    }

    fn forget_topic(&mut self, slot: usize) {
        let Some(topic) = self.topics.try_remove(slot) else { return };
        self.by_id.remove(&topic.head.id);
        // A topic that began anew may have taken over the name.
        if self.by_name.get(&topic.head.name).is_some_and(|named| *named as usize == slot) {
            self.by_name.remove(&topic.head.name);
        }
    }
}

fn last_index(members: &[Member]) -> u32 {
    u32::try_from(members.len().saturating_sub(1)).unwrap_or(u32::MAX)
}
