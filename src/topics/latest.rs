//! The latest message of every key.
//! # Invariants: messages come out in the order of their offsets; of each key the newest message is
//! there; a delete is never given up for a later message of its key.
//! # Not here: when something is passed over (`shard`), which topics keep their keys (`topic`).

use super::message::{Message, Offset};
use crate::planted::{self, Bug};
use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

/// Messages of one topic, conflated by key.
#[derive(Debug, Default)]
pub struct Latest {
    by_offset: BTreeMap<Offset, Arc<Message>>,
    /// The newest of each key. Clients choose the keys, so the hasher is keyed too.
    by_key: HashSet<Keyed>,
    cost: usize,
    /// Messages that are not sent any more from some time on.
    ending: usize,
}

impl Latest {
    /// Adds a message; an older one of the same key goes, unless it is a delete. Messages may come
    /// in any order.
    pub fn add(&mut self, message: Arc<Message>) {
        if self.by_offset.contains_key(&message.offset) {
            return;
        }
        let newest = self.by_key.get(key_of(&message)).map(|newest| newest.0.offset);
        match newest {
            Some(newest) if newest > message.offset => {
                if !message.is_delete() {
                    return;
                }
            }
            Some(newest) => {
                self.by_key.replace(Keyed(Arc::clone(&message)));
                let keeps = |older: &Arc<Message>| older.is_delete();
                let is_delete = self.by_offset.get(&newest).is_some_and(keeps);
                if !is_delete || planted::is(Bug::DeleteConflated) {
                    self.take(newest);
                }
            }
            None => {
                self.by_key.insert(Keyed(Arc::clone(&message)));
            }
        }
        self.cost += message.cost();
        self.ending += usize::from(message.expires.is_some());
        self.by_offset.insert(message.offset, message);
    }

    /// Takes the newest message of a key out.
    pub fn remove(&mut self, key: &str) -> Option<Arc<Message>> {
        let newest = self.by_key.take(key)?;
        self.take(newest.0.offset)
    }

    /// Takes the oldest message out.
    pub fn remove_oldest(&mut self) -> Option<Arc<Message>> {
        let oldest = *self.by_offset.keys().next()?;
        let message = self.take(oldest)?;
        self.forget_key(&message);
        Some(message)
    }

    /// The messages after this offset, oldest first.
    pub fn after(&self, since: Offset) -> impl Iterator<Item = &Arc<Message>> {
        self.by_offset.range((Bound::Excluded(since), Bound::Unbounded)).map(|(_, message)| message)
    }

    /// Takes out what is not wanted any more, and shows it to `gone`. Costs nothing unless a message
    /// with an end is among them.
    pub fn retain(&mut self, wanted: impl Fn(&Message) -> bool, mut gone: impl FnMut(&Message)) {
        if self.ending == 0 {
            return;
        }
        let unwanted = self.by_offset.values().filter(|message| !wanted(message));
        let unwanted: Vec<Offset> = unwanted.map(|message| message.offset).collect();
        for offset in unwanted {
            let Some(message) = self.take(offset) else { continue };
            self.forget_key(&message);
            gone(&message);
        }
    }

    /// Whether a message of this key is there.
    pub fn has(&self, key: &str) -> bool {
        self.by_key.contains(key)
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.by_offset.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_offset.is_empty()
    }

    /// Bytes as [`Message::cost`] counts them.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Forgets the key of a message that was taken out, if it was the newest of it.
    fn forget_key(&mut self, message: &Message) {
        let key = key_of(message);
        if self.by_key.get(key).is_some_and(|newest| newest.0.offset == message.offset) {
            self.by_key.remove(key);
        }
    }

    fn take(&mut self, offset: Offset) -> Option<Arc<Message>> {
        let message = self.by_offset.remove(&offset)?;
        self.cost -= message.cost();
        self.ending -= usize::from(message.expires.is_some());
        Some(message)
    }
}

/// Of these messages the newest of each key, and every delete, oldest first.
pub fn conflate<'a>(messages: impl Iterator<Item = &'a Arc<Message>>) -> Vec<Arc<Message>> {
    let mut latest = Latest::default();
    messages.for_each(|message| latest.add(Arc::clone(message)));
    latest.by_offset.into_values().collect()
}

/// A message that is found by its key. Messages without a key are about one thing: the topic.
#[derive(Debug)]
struct Keyed(Arc<Message>);

fn key_of(message: &Message) -> &str {
    message.key.as_deref().unwrap_or_default()
}

impl Borrow<str> for Keyed {
    fn borrow(&self) -> &str {
        key_of(&self.0)
    }
}

impl Hash for Keyed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        key_of(&self.0).hash(state);
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Keyed) -> bool {
        key_of(&self.0) == key_of(&other.0)
    }
}

impl Eq for Keyed {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::topics::message::{Draft, Epoch, Payload, TopicHead};
    use crate::topics::name::TopicName;
    use proptest::prelude::*;

    fn message(offset: u64, key: u8, payload: Payload) -> Arc<Message> {
        let name = TopicName::parse("t").expect("valid name");
        let head = TopicHead::new(1, name.clone(), Epoch::from_bits(1), Arc::default());
        let key = (key > 0).then(|| key.to_string().into());
        let draft = Draft { key, ..Draft::new(name, payload) };
        Arc::new(Message::new(Arc::new(head), Offset(offset), draft, Now::at_ms(0)))
    }

    fn any_payload() -> impl Strategy<Value = Payload> {
        prop_oneof![4 => Just(Payload::Text("x".into())), 1 => Just(Payload::Deleted)]
    }

    /// What must be there: the newest of each key and every delete.
    fn expected(messages: &[Arc<Message>]) -> Vec<u64> {
        let is_newest = |this: &&Arc<Message>| {
            this.is_delete()
                || !messages.iter().any(|that| that.key == this.key && that.offset > this.offset)
        };
        messages.iter().filter(is_newest).map(|message| message.offset.0).collect()
    }

    fn offsets(latest: &Latest, since: u64) -> Vec<u64> {
        latest.after(Offset(since)).map(|message| message.offset.0).collect()
    }

    proptest! {
        #[test]
        fn the_newest_of_each_key_and_every_delete_come_out_in_order(
            keys in prop::collection::vec((0u8..4, any_payload()), 0..40),
            shuffled in prop::collection::vec(any::<prop::sample::Index>(), 40),
            since in 0u64..45,
        ) {
            let messages: Vec<_> = (1..).zip(&keys)
                .map(|(offset, (key, payload))| message(offset, *key, payload.clone()))
                .collect();
            let mut latest = Latest::default();
            let mut left = messages.clone();
            for index in &shuffled {
                if !left.is_empty() {
                    latest.add(left.remove(index.index(left.len())));
                }
            }
            let all = expected(&messages);
            let after: Vec<u64> = all.iter().copied().filter(|offset| *offset > since).collect();
            prop_assert_eq!(offsets(&latest, since), after);
            prop_assert_eq!(conflate(messages.iter()).len(), all.len());
            prop_assert_eq!(latest.cost(), latest.after(Offset(0)).map(|m| m.cost()).sum::<usize>());
            while latest.remove_oldest().is_some() {}
            prop_assert!(latest.is_empty() && latest.by_key.is_empty() && latest.cost() == 0);
        }
    }

    #[test]
    fn a_key_can_be_taken_out() {
        let mut latest = Latest::default();
        latest.add(message(1, 1, Payload::Text("x".into())));
        latest.add(message(2, 2, Payload::Text("x".into())));
        assert_eq!(latest.remove("1").map(|message| message.offset), Some(Offset(1)));
        assert!(latest.remove("1").is_none() && !latest.has("1") && latest.has("2"));
        assert_eq!(offsets(&latest, 0), [2]);
    }
}
