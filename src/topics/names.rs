//! The names of all topics in their order, so that a filter finds its topics without looking at all.
//! # Invariants: how many names one search looks at is bounded.
//! # Not here: the topics themselves (`registry`).

use super::name::{TopicFilter, TopicName};
use crate::reason::Reason;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Most names that one search looks at: a few milliseconds.
const LOOKED_AT_MAX: usize = 100_000;

/// Every name, sorted.
#[derive(Debug, Default)]
pub struct Names(BTreeSet<TopicName>);

impl Names {
    /// Adds a name.
    pub fn insert(&mut self, name: TopicName) {
        self.0.insert(name);
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &TopicName) {
        self.0.remove(name);
    }

    /// The names that a filter matches, in their order.
    ///
    /// # Errors
    /// [`Reason::SnapshotTooLarge`] when there are more than `max`, or when too many others would
    /// have to be looked at to find them.
    pub fn matching(&self, filter: &TopicFilter, max: usize) -> Result<Vec<TopicName>, Reason> {
        let prefix = literal_prefix(filter);
        let candidates =
            self.0.range::<[u8], _>((Bound::Included(prefix.as_bytes()), Bound::Unbounded));
        let mut found = Vec::new();
        for (looked_at, name) in candidates.enumerate() {
            if !name.as_bytes().starts_with(prefix.as_bytes()) {
                break;
            }
            let matches = filter.matches(name);
            if looked_at >= LOOKED_AT_MAX || (matches && found.len() >= max) {
                return Err(Reason::SnapshotTooLarge);
            }
            found.extend(matches.then(|| name.clone()));
        }
        Ok(found)
    }
}

impl Names {
    /// The names behind `after` that a filter matches, in their order: at most `found_max` of them,
    /// and after looking at `looked_at_max` at most. The second is the name to go on behind, unless
    /// the end was reached.
    pub fn page(
        &self,
        filter: Option<&TopicFilter>,
        after: Option<&TopicName>,
        (found_max, looked_at_max): (usize, usize),
    ) -> (Vec<TopicName>, Option<TopicName>) {
        let prefix = filter.map_or("", literal_prefix);
        let behind = after.map(TopicName::as_bytes).filter(|name| *name >= prefix.as_bytes());
        let from = behind.map_or(Bound::Included(prefix.as_bytes()), Bound::Excluded);
        let mut rest = self
            .0
            .range::<[u8], _>((from, Bound::Unbounded))
            .take_while(|name| name.as_bytes().starts_with(prefix.as_bytes()))
            .peekable();
        let (mut found, mut last) = (Vec::new(), None);
        for name in rest.by_ref().take(looked_at_max) {
            last = Some(name);
            found.extend(filter.is_none_or(|filter| filter.matches(name)).then(|| name.clone()));
            if found.len() >= found_max {
                break;
            }
        }
        let is_end = rest.peek().is_none();
        (found, last.filter(|_| !is_end).cloned())
    }
}

/// What every name that the filter matches begins with.
fn literal_prefix(filter: &TopicFilter) -> &str {
    let raw = filter.as_str();
    let wildcard = raw.find(['*', '>']).unwrap_or(raw.len());
    raw.get(..wildcard).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(raw: &str) -> TopicFilter {
        TopicFilter::parse(raw).expect("valid filter")
    }

    #[test]
    fn a_search_that_finds_or_looks_at_too_much_is_refused() {
        let mut names = Names::default();
        for number in 0..=LOOKED_AT_MAX {
            names.insert(TopicName::parse(&format!("n{number}.cpu")).expect("valid name"));
        }
        names.insert(TopicName::parse("z.memory").expect("valid name"));
        assert_eq!(names.matching(&filter(">"), 3), Err(Reason::SnapshotTooLarge));
        assert_eq!(names.matching(&filter("*.memory"), 3), Err(Reason::SnapshotTooLarge));
        assert_eq!(names.matching(&filter("z.*"), 3).map(|found| found.len()), Ok(1));
    }

    proptest! {
        #[test]
        fn exactly_what_matches_is_found(
            names in prop::collection::btree_set("[ab/]{1,2}(\\.[ab/]{1,2}){0,2}", 0..40),
            raw in "([ab/]{1,2}|\\*)(\\.([ab/]{1,2}|\\*)){0,1}(\\.>)?",
            found_max in 1usize..5,
            looked_at_max in 1usize..9,
        ) {
            let all: Vec<_> =
                names.iter().map(|name| TopicName::parse(name).expect("valid name")).collect();
            let mut index = Names::default();
            for name in &all {
                index.insert(name.clone());
            }
            let filter = filter(&raw);
            let expected: Vec<_> =
                all.into_iter().filter(|name| filter.matches(name)).collect();
            prop_assert_eq!(index.matching(&filter, 100), Ok(expected.clone()));
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let (page, next) = index.page(Some(&filter), after.as_ref(), (found_max, looked_at_max));
                prop_assert!(page.len() <= found_max);
                pages.extend(page);
                after = next;
                if after.is_none() {
                    break;
                }
            }
            prop_assert_eq!(pages, expected);
        }
    }
}
