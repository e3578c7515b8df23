//! What a topic keeps and grants: one rule for each, the first whose filter matches.
//! # Invariants: every topic has exactly one rule, for all of its life.
//! # Not here: how rules are written in a file (`config`).

use super::history::HistoryOptions;
use super::name::{TopicFilter, TopicName};
use super::terms::{Overflow, Policy};
use std::sync::Arc;
use std::time::Duration;

/// What one topic keeps and grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How much of its past it keeps.
    pub history: HistoryOptions,
    /// What a snapshot of it holds.
    pub snapshot: Snapshot,
    /// What happens to slow subscribers that do not say it themselves.
    pub overflow: Overflow,
    /// The most that a subscriber is granted; `None` for whatever it asks for.
    pub cap: Option<Policy>,
    /// Whether it knows who is subscribed to it.
    pub presence: Presence,
    /// How long it is remembered without messages, subscribers and history. Default 60 s.
    pub idle_ttl: Duration,
    /// How long after its last message subscribers are told that it is stale; `None` for never.
    pub stale_after: Option<Duration>,
    /// Which group of the metrics it counts for: 0 is `other`.
    pub group: u8,
}

impl Default for Rule {
    fn default() -> Rule {
        Rule {
            history: HistoryOptions::default(),
            snapshot: Snapshot::Latest,
            overflow: Overflow::CatchUp,
            cap: None,
            presence: Presence::Off,
            idle_ttl: Duration::from_mins(1),
            stale_after: None,
            group: 0,
        }
    }
}

impl Rule {
    /// What happens to a slow subscriber that wants every message: there is nothing to catch up
    /// from without a history.
    pub fn overflow(&self, asked: Option<Overflow>) -> Overflow {
        match asked.unwrap_or(self.overflow) {
            Overflow::CatchUp if self.history.messages == 0 => Overflow::Gap,
            overflow => overflow,
        }
    }
}

/// What a snapshot of a topic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snapshot {
    /// The latest message that history holds.
    #[default]
    Latest,
    /// The latest message of every key, for as long as the topic lives; a delete ends a key.
    Keys {
        /// Most keys; a message of one more is refused.
        max: usize,
    },
}

/// Whether a topic knows who is subscribed to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Nobody is listed.
    #[default]
    Off,
    /// Its subscribers are listed and told of each other.
    On {
        /// Most members that are listed; further ones are only counted.
        members_max: usize,
    },
}

/// The rules of a broker, in order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The first filter that matches decides.
    pub ordered: Vec<(TopicFilter, Arc<Rule>)>,
    /// For topics that none matches.
    pub other: Arc<Rule>,
    /// What metrics call the groups, by their numbers; without any there is only `other`.
    pub groups: Vec<String>,
}

/// Most groups of topics that are counted apart, `other` among them.
pub const GROUPS_MAX: usize = 33;

impl Rules {
    /// What metrics call each group, by their numbers.
    pub fn group_names(&self) -> Vec<String> {
        if self.groups.is_empty() { vec!["other".to_owned()] } else { self.groups.clone() }
    }

    /// The same, counted for these groups: what belongs to none of them counts for `other`.
    #[must_use]
    pub fn counted_for(&self, groups: Vec<String>) -> Rules {
        let recount = |rule: &Arc<Rule>| {
            let name = self.groups.get(usize::from(rule.group));
            let place = groups.iter().position(|group| Some(group) == name);
            let group = place.and_then(|place| u8::try_from(place).ok()).unwrap_or_default();
            Arc::new(Rule { group, ..Rule::clone(rule) })
        };
        let ordered = self.ordered.iter().map(|(filter, rule)| (filter.clone(), recount(rule)));
        Rules { ordered: ordered.collect(), other: recount(&self.other), groups }
    }

    /// The rule of a topic.
    pub fn of(&self, topic: &TopicName) -> &Arc<Rule> {
        let first = self.ordered.iter().find(|(filter, _)| filter.matches(topic));
        first.map_or(&self.other, |(_, rule)| rule)
    }

    /// The rule of a filter as a whole: the first one whose filter contains it. A topic that it
    /// matches may have an earlier rule of its own.
    pub fn covering(&self, filter: &TopicFilter) -> &Arc<Rule> {
        let first = self.ordered.iter().find(|(wide, _)| wide.contains(filter));
        first.map_or(&self.other, |(_, rule)| rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(raw: &str) -> TopicFilter {
        TopicFilter::parse(raw).expect("a filter")
    }

    /// Rules for these filters, told apart by their groups: 1, 2 …
    fn rules(filters: &[&str]) -> Rules {
        let rule =
            |(group, raw): (u8, &&str)| (filter(raw), Arc::new(Rule { group, ..Rule::default() }));
        Rules { ordered: (1..).zip(filters).map(rule).collect(), ..Rules::default() }
    }

    #[test]
    fn a_filter_has_the_first_rule_that_contains_all_of_it() {
        let rules = rules(&["ticker.IBM", "ticker.*", "ticker.>", "chat.*"]);
        let cases = [
            ("ticker.IBM", 1),
            ("ticker.*", 2),
            ("ticker.*.day", 3),
            ("ticker.>", 3),
            ("chat.>", 0),
            (">", 0),
            ("*.IBM", 0),
        ];
        for (raw, expected) in cases {
            assert_eq!(rules.covering(&filter(raw)).group, expected, "{raw}");
        }
        let name = TopicName::parse("ticker.IBM").expect("a name");
        assert_eq!(rules.of(&name).group, 1);
    }

    #[test]
    fn groups_keep_their_numbers_whatever_the_order_of_the_rules() {
        let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rules = Rules { groups: named(&["other", "a", "b"]), ..rules(&["x.a", "x.b"]) };
        let counted = rules.counted_for(named(&["other", "b", "c"]));
        let groups: Vec<_> = counted.ordered.iter().map(|(_, rule)| rule.group).collect();
        assert_eq!(groups, [0, 1]);
        assert_eq!((counted.other.group, counted.groups), (0, named(&["other", "b", "c"])));
    }

    #[test]
    fn nobody_catches_up_without_a_history() {
        let mut rule = Rule::default();
        assert_eq!(rule.overflow(None), Overflow::CatchUp);
        rule.history.messages = 0;
        assert_eq!(rule.overflow(None), Overflow::Gap);
        assert_eq!(rule.overflow(Some(Overflow::CatchUp)), Overflow::Gap);
        assert_eq!(rule.overflow(Some(Overflow::Disconnect)), Overflow::Disconnect);
    }
}
