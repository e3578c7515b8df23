//! What topics keep and grant: one history for all, rules for some, how long an idle topic lives.
//! # Invariants: the first rule that matches a topic decides alone; [`Topics::to_rules`] is the only
//! way from a configuration to what the broker keeps to.
//! # Not here: the keys of a rule (`rule`), keeping the history (`topics::history`).

mod rule;

pub use rule::{Cap, Rule, RuleHistory, SnapshotOf};

use super::form::{As, Count, OTHER, Size, Span};
use crate::topics::history::HistoryOptions;
use crate::topics::name::TopicName;
use crate::topics::rule::{Rule as Granted, Rules};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What topics keep and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Time without messages and subscribers after which a topic is forgotten, once its history
    /// has aged out; it begins anew with another epoch. Default 1m.
    /// Each topic that stays costs memory for its name and its epoch.
    #[serde(with = "As::<Span>")]
    pub idle_ttl: Duration,
    /// Bytes of history of all topics together; beyond it the topic that grows gives up its own
    /// oldest messages. Default 256 MiB.
    /// This is what histories may make the broker grow by, however many topics there are.
    #[serde(with = "As::<Size>")]
    pub history_bytes_max: usize,
    /// Time in which an idempotency key is remembered. Default 5m.
    /// A longer window remembers more keys, up to `idempotency_keys_max`.
    #[serde(with = "As::<Span>")]
    pub idempotency_window: Duration,
    /// Idempotency keys remembered; beyond it the oldest are forgotten early. Default 100000.
    /// Each costs the key itself and the answer it was given.
    #[serde(with = "As::<Count>")]
    pub idempotency_keys_max: usize,
    /// History of every topic that no rule matches.
    pub history: History,
    /// What particular topics keep and grant, in order: the first rule that matches decides.
    /// Default none. A rule costs one comparison when a topic begins.
    pub rules: Vec<Rule>,
}

impl Default for Topics {
    fn default() -> Topics {
        Topics {
            idle_ttl: Duration::from_mins(1),
            history_bytes_max: 256 << 20,
            idempotency_window: Duration::from_mins(5),
            idempotency_keys_max: 100_000,
            history: History::default(),
            rules: Vec::new(),
        }
    }
}

impl Topics {
    /// The first rule that matches, with its place in the list, counted from 0.
    pub fn rule(&self, topic: &TopicName) -> Option<(usize, &Rule)> {
        let mut rules = self.rules.iter().enumerate();
        rules.find(|(_, rule)| rule.filter.matches(topic))
    }

    /// The names of the groups that the metrics tell apart. A group's number is its place here:
    /// `other` is 0, the rest are in the order in which the rules first name them.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups = vec![OTHER];
        for group in self.rules.iter().filter_map(|rule| rule.group.as_deref()) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }

    /// The rules as the broker keeps to them.
    pub fn to_rules(&self) -> Rules {
        let groups = self.groups();
        let ordered = self.rules.iter().map(|rule| {
            let granted = self.granted(Some(rule), &groups);
            (rule.filter.clone(), Arc::new(granted))
        });
        Rules {
            ordered: ordered.collect(),
            other: Arc::new(self.granted(None, &groups)),
            groups: groups.iter().map(ToString::to_string).collect(),
        }
    }

    /// What a topic keeps and grants under a rule, or under none.
    fn granted(&self, rule: Option<&Rule>, groups: &[&str]) -> Granted {
        let general = Granted {
            history: self.history.options(),
            idle_ttl: self.idle_ttl,
            ..Granted::default()
        };
        let Some(rule) = rule else { return general };
        let name = rule.group.as_deref().unwrap_or(OTHER);
        let group = groups.iter().position(|group| *group == name);
        Granted {
            history: rule.history.over(self.history).options(),
            snapshot: rule.snapshot(),
            overflow: rule.overflow.unwrap_or_default(),
            cap: rule.cap(),
            presence: rule.presence(),
            idle_ttl: rule.idle_ttl.unwrap_or(self.idle_ttl),
            stale_after: rule.stale_after,
            group: group.and_then(|group| u8::try_from(group).ok()).unwrap_or_default(),
        }
    }
}

/// How much of its past one topic keeps: whatever fits all three bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Messages of one topic; 0 keeps none, so that nobody can resume. Default 1,000:
    /// as many as one resume may send. Each is held in memory until it leaves.
    #[serde(with = "As::<Count>")]
    pub messages: usize,
    /// Age of the oldest message; resume works for clients that come back sooner. Default 5m.
    /// The longer, the more is held, up to `bytes`.
    #[serde(with = "As::<Span>")]
    pub age: Duration,
    /// Bytes of one topic. Default 1 MiB.
    /// The sum over all topics is bounded by `topics.history_bytes_max`.
    #[serde(with = "As::<Size>")]
    pub bytes: usize,
}

impl Default for History {
    fn default() -> History {
        History { messages: 1_000, age: Duration::from_mins(5), bytes: 1 << 20 }
    }
}

impl History {
    fn options(self) -> HistoryOptions {
        HistoryOptions { messages: self.messages, age: self.age, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::config::words::file;
    use crate::topics::rule::{Presence, Snapshot};
    use crate::topics::terms::{Overflow, Policy, Rate};

    fn topics(text: &str) -> Topics {
        load(file(text)).expect("sound").config.topics
    }

    fn granted(text: &str) -> Granted {
        let rules = topics(&format!("[[topics.rules]]\nfilter = 'a'\n{text}")).to_rules();
        let (_, rule) = rules.ordered.first().expect("a rule");
        Granted::clone(rule)
    }

    #[test]
    fn a_rule_that_says_nothing_is_as_none() {
        let rules = Topics::default().to_rules();
        assert_eq!((rules.ordered.len(), &*rules.other), (0, &Granted::default()));
        assert_eq!(granted(""), Granted::default());
    }

    #[test]
    fn every_key_of_a_rule_reaches_the_broker() {
        let rule = granted(
            "group = 'prices'\nhistory = { messages = 7, age = '1h', bytes = '2 KiB' }\n\
             snapshot = 'keys'\nsnapshot_keys_max = 9\noverflow = 'disconnect'\nmax_hz = 0.5\n\
             presence = true\npresence_members_max = 3\nidle_ttl = '2h'\nstale_after = '30s'",
        );
        let hour = Duration::from_hours(1);
        let expected = Granted {
            history: HistoryOptions { messages: 7, age: hour, bytes: 2_048 },
            snapshot: Snapshot::Keys { max: 9 },
            overflow: Overflow::Disconnect,
            cap: Some(Policy::MaxHz(Rate::from_hz(0.5).expect("a rate"))),
            presence: Presence::On { members_max: 3 },
            idle_ttl: 2 * hour,
            stale_after: Some(Duration::from_secs(30)),
            group: 1,
        };
        assert_eq!(rule, expected);
    }

    #[test]
    fn a_rate_is_a_cap_whatever_the_policy() {
        let ten = Some(Policy::MaxHz(Rate::from_hz(10.0).expect("a rate")));
        let cases = [
            ("policy = 'all'", None),
            ("policy = 'latest'", Some(Policy::Latest)),
            ("max_hz = 10", ten),
            ("max_hz = '10'", ten),
            ("policy = 'latest'\nmax_hz = 10.0", ten),
            ("policy = 'all'\nmax_hz = 'off'", None),
        ];
        for (text, expected) in cases {
            assert_eq!(granted(text).cap, expected, "{text}");
        }
    }

    #[test]
    fn groups_are_numbered_as_the_rules_first_name_them() {
        let rule = |group: &str| format!("[[topics.rules]]\nfilter = 'a'\n{group}\n");
        let groups = ["group = 'b'", "", "group = 'a'", "group = 'b'"];
        let topics = topics(&groups.map(rule).concat());
        assert_eq!(topics.groups(), ["other", "b", "a"]);
        let numbers = topics.to_rules().ordered.into_iter().map(|(_, rule)| rule.group);
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 0, 2, 1]);
    }
}
