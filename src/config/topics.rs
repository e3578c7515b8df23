//! What topics keep: history, by rule, and how long an idle topic lives.
//! # Invariants: the first rule that matches a topic decides alone; what it leaves out is taken
//! from `topics.history`.
//! # Not here: keeping the history (`topics::history`).

use super::form::{As, Count, Filter, Inherit, Or, Size, Span, print_size, print_span};
use crate::topics::name::{TopicFilter, TopicName};
use serde::{Deserialize, Serialize};
use std::fmt;
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
    /// oldest messages. Default 256 MiB, and this is what the broker may grow by.
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
    /// Histories of particular topics, in order: the first rule that matches decides.
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

    /// The history that a topic keeps.
    pub fn history_of(&self, topic: &TopicName) -> History {
        self.rule(topic).map_or(self.history, |(_, rule)| rule.history.over(self.history))
    }

    /// The rules in order, each with its whole history.
    pub fn histories(&self) -> impl Iterator<Item = (&TopicFilter, History)> {
        self.rules.iter().map(|rule| (&rule.filter, rule.history.over(self.history)))
    }
}

/// How much of its past one topic keeps: whatever fits all three bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Messages of one topic; 0 keeps none, so that nobody can resume. Default 1,000:
    /// as many as one resume may send.
    #[serde(with = "As::<Count>")]
    pub messages: usize,
    /// Age of the oldest message. Default 5m; resume works for clients that come back sooner.
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

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = match self.messages {
            0 => return f.write_str("none"),
            1 => "1 message".to_owned(),
            many => format!("{many} messages"),
        };
        let (age, bytes) = (print_span(self.age), print_size(self.bytes));
        write!(f, "at most {messages}, {age} and {bytes}")
    }
}

/// The history of the topics that a filter matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The topics that this rule is for.
    #[serde(with = "As::<Filter>")]
    pub filter: TopicFilter,
    /// What differs from `topics.history`.
    #[serde(default)]
    pub history: RuleHistory,
}

/// A history of which any part may be left out, or be `"inherit"`: then `topics.history` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleHistory {
    /// Messages of one topic; 0 keeps none.
    #[serde(with = "As::<Or<Inherit, Count>>")]
    pub messages: Option<usize>,
    /// Age of the oldest message.
    #[serde(with = "As::<Or<Inherit, Span>>")]
    pub age: Option<Duration>,
    /// Bytes of one topic.
    #[serde(with = "As::<Or<Inherit, Size>>")]
    pub bytes: Option<usize>,
}

impl RuleHistory {
    /// The whole history, where `base` says what this one leaves out.
    pub fn over(self, base: History) -> History {
        History {
            messages: self.messages.unwrap_or(base.messages),
            age: self.age.unwrap_or(base.age),
            bytes: self.bytes.unwrap_or(base.bytes),
        }
    }
}
