//! The wildcard trie: from a topic name to the values stored under the filters that match it.
//! # Invariants: at most one value per filter; a node without value and children does not stay.
//! # Not here: what the values mean, locks.

use super::name::{TopicFilter, TopicName};
use std::collections::HashMap;

/// Values stored under filters, found by the topic names that the filters match.
///
/// A look-up follows at most two branches per segment (the literal one and `*`), so its cost
/// depends on the filters that share the name's segments, not on how many filters there are.
#[derive(Debug)]
pub struct FilterTrie<V> {
    root: Node<V>,
    len: usize,
}

#[derive(Debug)]
struct Node<V> {
    /// The filter that ends here.
    value: Option<V>,
    /// The filter that ends here with `>`.
    tail: Option<V>,
    star: Option<Box<Node<V>>>,
    // Names are chosen by clients: the standard library's hasher is keyed.
    literal: HashMap<Box<str>, Node<V>>,
}

impl<V> Default for Node<V> {
    fn default() -> Node<V> {
        Node { value: None, tail: None, star: None, literal: HashMap::new() }
    }
}

impl<V> Default for FilterTrie<V> {
    fn default() -> FilterTrie<V> {
        FilterTrie { root: Node::default(), len: 0 }
    }
}

impl<V> FilterTrie<V> {
    /// How many filters have a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no filter has a value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place of a filter's value, made if there is none.
    pub fn entry(&mut self, filter: &TopicFilter) -> &mut V
    where
        V: Default,
    {
        let mut node = &mut self.root;
        let mut tail = false;
        for part in filter.segments() {
            match part {
                ">" => tail = true,
                "*" => node = node.star.get_or_insert_default(),
                literal => node = node.literal.entry(literal.into()).or_default(),
            }
        }
        let slot = if tail { &mut node.tail } else { &mut node.value };
        if slot.is_none() {
            self.len += 1;
        }
        slot.get_or_insert_default()
    }

    /// The value of exactly this filter.
    pub fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut V> {
        let mut node = &mut self.root;
        for part in filter.segments() {
            match part {
                ">" => return node.tail.as_mut(),
                "*" => node = node.star.as_mut()?,
                literal => node = node.literal.get_mut(literal)?,
            }
        }
        node.value.as_mut()
    }

    /// Takes out the value of exactly this filter.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<V> {
        let parts: Vec<&str> = filter.segments().collect();
        let removed = self.root.remove(&parts);
        if removed.is_some() {
            self.len -= 1;
        }
        removed
    }

    /// Calls `each` with the value of every filter that matches.
    pub fn for_each_match<'a>(&'a self, topic: &TopicName, mut each: impl FnMut(&'a V)) {
        let parts: Vec<&str> = topic.segments().collect();
        self.root.for_each_match(&parts, &mut each);
    }
}

impl<V> Node<V> {
    // Recursion is bounded by `NAME_SEGMENTS_MAX`.
    fn for_each_match<'a>(&'a self, parts: &[&str], each: &mut impl FnMut(&'a V)) {
        let [first, rest @ ..] = parts else {
            self.value.iter().for_each(each);
            return;
        };
        self.tail.iter().for_each(&mut *each);
        if let Some(star) = &self.star {
            star.for_each_match(rest, each);
        }
        if let Some(literal) = self.literal.get(*first) {
            literal.for_each_match(rest, each);
        }
    }

    fn remove(&mut self, parts: &[&str]) -> Option<V> {
        match parts {
            [] => self.value.take(),
            [">"] => self.tail.take(),
            ["*", rest @ ..] => {
                let star = self.star.as_mut()?;
                let removed = star.remove(rest);
                if star.is_bare() {
                    self.star = None;
                }
                removed
            }
            [literal, rest @ ..] => {
                let node = self.literal.get_mut(*literal)?;
                let removed = node.remove(rest);
                if node.is_bare() {
                    self.literal.remove(*literal);
                    if self.literal.is_empty() {
                        self.literal = HashMap::new();
                    }
                }
                removed
            }
        }
    }

    fn is_bare(&self) -> bool {
        self.value.is_none()
            && self.tail.is_none()
            && self.star.is_none()
            && self.literal.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn matches(trie: &FilterTrie<u32>, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let topic = TopicName::parse(topic).expect("valid name");
        trie.for_each_match(&topic, |value| found.push(*value));
        found.sort_unstable();
        found
    }

    fn filter(raw: &str) -> TopicFilter {
        TopicFilter::parse(raw).expect("valid filter")
    }

    #[test]
    fn values_are_found_by_every_kind_of_wildcard() {
        let mut trie = FilterTrie::default();
        for (value, raw) in ["a.b", "a.*", "*.b", "a.>", ">", "*", "a.b.>"].iter().enumerate() {
            *trie.entry(&filter(raw)) = u32::try_from(value).expect("small");
        }
        assert_eq!(matches(&trie, "a.b"), [0, 1, 2, 3, 4]);
        assert_eq!(matches(&trie, "a"), [4, 5]);
        assert_eq!(matches(&trie, "a.b.c"), [3, 4, 6]);
        assert_eq!(matches(&trie, "x.y.z"), [4]);
    }

    #[test]
    fn removing_every_filter_leaves_a_bare_root() {
        let mut trie: FilterTrie<u32> = FilterTrie::default();
        let all = ["a.b", "a.*.c", "*.b.>", ">", "a.b.c.d.e"];
        for raw in all {
            trie.entry(&filter(raw));
        }
        assert_eq!(trie.len(), all.len());
        for raw in all {
            assert!(trie.remove(&filter(raw)).is_some());
            assert!(trie.remove(&filter(raw)).is_none());
        }
        assert!(trie.is_empty() && trie.root.is_bare());
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_matching_one_by_one(
            steps in prop::collection::vec(
                ("([ab]|\\*)(\\.([ab]|\\*)){0,3}(\\.>)?", any::<bool>()), 0..40),
            names in prop::collection::vec("[ab](\\.[ab]){0,4}", 1..10),
        ) {
            let mut trie = FilterTrie::default();
            let mut naive = BTreeMap::new();
            for (number, (raw, insert)) in steps.iter().enumerate() {
                let parsed = filter(raw);
                if *insert {
                    *trie.entry(&parsed) = u32::try_from(number).expect("small");
                    naive.insert(parsed, u32::try_from(number).expect("small"));
                } else {
                    prop_assert_eq!(trie.remove(&parsed), naive.remove(&parsed));
                }
            }
            prop_assert_eq!(trie.len(), naive.len());
            for name in names {
                let topic = TopicName::parse(&name).expect("valid name");
                let mut expected: Vec<u32> =
                    naive.iter().filter(|(f, _)| f.matches(&topic)).map(|(_, v)| *v).collect();
                expected.sort_unstable();
                prop_assert_eq!(matches(&trie, &name), expected);
            }
        }
    }
}
