//! One rule of `topics.rules`: what its topics keep and grant, and what that is for the broker.
//! # Invariants: a key that is left out is inherited from `topics`, or has the default that topics
//! without a rule have.
//! # Not here: which rule is a topic's (`topics`), keeping to a rule (`crate::topics::rule`).

use super::History;
use crate::config::form::{
    As, Auto, Choice, Count, Filter, Group, Hertz, Inherit, Off, OneOf, Or, Size, Span, Switch,
};
use crate::topics::name::TopicFilter;
use crate::topics::rule::{Presence, Snapshot};
use crate::topics::terms::{Overflow, Policy, Rate};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the topics that a filter matches keep and grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The topics that this rule is for.
    #[serde(with = "As::<Filter>")]
    pub filter: TopicFilter,
    /// What the metrics count its topics as, which other rules may do too. Default `other`.
    /// Each name is a series of its own in every metric that has groups; at most 32.
    #[serde(with = "As::<Group>", default)]
    pub group: Option<String>,
    /// What differs from `topics.history`.
    #[serde(default)]
    pub history: RuleHistory,
    /// What a snapshot holds. Default `"latest"`.
    /// With `"keys"` a topic keeps a message per key for as long as it lives.
    #[serde(with = "As::<OneOf<SnapshotOf>>", default)]
    pub snapshot: SnapshotOf,
    /// Keys of one topic whose snapshot holds keys; a message of one more is refused.
    /// Default 1000: as many as one resume may send. Each costs its latest message.
    #[serde(with = "As::<Count>", default = "snapshot_keys_max")]
    pub snapshot_keys_max: usize,
    /// What happens to readers that are too slow for every message and did not say it themselves.
    /// Default `"auto"`: `"catchUp"`, or `"gap"` where there is no history to catch up from.
    #[serde(with = "As::<Or<Auto, OneOf<Overflow>>>", default)]
    pub overflow: Option<Overflow>,
    /// The most that a subscriber is granted. Default `"auto"`: `"all"`, unless there is a `max_hz`.
    #[serde(with = "As::<Or<Auto, OneOf<Cap>>>", default)]
    pub policy: Option<Cap>,
    /// How often a second a subscriber gets a topic at most, then only the latest of each key;
    /// or `"off"`. Default `"off"`.
    #[serde(with = "As::<Or<Off, Hertz>>", default)]
    pub max_hz: Option<Rate>,
    /// Whether subscribers of a topic are listed and told of each other. Default false.
    /// Each who comes or goes is then a message to all others.
    #[serde(with = "As::<Switch>", default)]
    pub presence: bool,
    /// Subscribers of one topic that are listed; further ones are only counted. Default 1000.
    /// Each costs its name, and is sent to everybody who begins to watch.
    #[serde(with = "As::<Count>", default = "presence_members_max")]
    pub presence_members_max: usize,
    /// As `topics.idle_ttl`. Default the same.
    /// Each topic that stays costs memory for its name and its epoch.
    #[serde(with = "As::<Or<Inherit, Span>>", default)]
    pub idle_ttl: Option<Duration>,
    /// Time without a message after which subscribers are told that a topic is stale, or `"off"`.
    /// Default `"off"`. Each topic costs a place in a wheel, and a message when it falls silent.
    #[serde(with = "As::<Or<Off, Span>>", default)]
    pub stale_after: Option<Duration>,
}

fn snapshot_keys_max() -> usize {
    1_000
}

fn presence_members_max() -> usize {
    1000
}

impl Rule {
    /// A rule that says nothing about its topics.
    pub fn new(filter: TopicFilter) -> Rule {
        Rule {
            filter,
            group: None,
            history: RuleHistory::default(),
            snapshot: SnapshotOf::default(),
            snapshot_keys_max: snapshot_keys_max(),
            overflow: None,
            policy: None,
            max_hz: None,
            presence: false,
            presence_members_max: presence_members_max(),
            idle_ttl: None,
            stale_after: None,
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        match self.snapshot {
            SnapshotOf::Latest => Snapshot::Latest,
            SnapshotOf::Keys => Snapshot::Keys { max: self.snapshot_keys_max },
        }
    }

    pub(super) fn presence(&self) -> Presence {
        if self.presence {
            Presence::On { members_max: self.presence_members_max }
        } else {
            Presence::Off
        }
    }

    pub(super) fn cap(&self) -> Option<Policy> {
        match (self.max_hz, self.policy) {
            (Some(rate), _) => Some(Policy::MaxHz(rate)),
            (None, Some(Cap::Latest)) => Some(Policy::Latest),
            (None, Some(Cap::All) | None) => None,
        }
    }

    /// What stands for the `"auto"` of a key of this rule, and the other key that it follows from.
    pub(in crate::config) fn automatic(
        &self,
        key: &str,
        general: History,
    ) -> Option<(&'static str, Option<&'static str>)> {
        match key {
            "overflow" if self.history.over(general).messages == 0 => {
                Some((Overflow::Gap.name(), Some("history.messages")))
            }
            "overflow" => Some((Overflow::CatchUp.name(), None)),
            "policy" => {
                let cap = self.cap().unwrap_or_default();
                Some((cap.name(), self.max_hz.and(Some("max_hz"))))
            }
            _ => None,
        }
    }
}

/// A history of which any part may be left out, or be `"inherit"`: then `topics.history` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleHistory {
    /// Messages of one topic; 0 keeps none. Default that of `topics.history`.
    /// Each is held in memory until it leaves.
    #[serde(with = "As::<Or<Inherit, Count>>")]
    pub messages: Option<usize>,
    /// Age of the oldest message. Default that of `topics.history`.
    /// The longer, the more is held, up to `bytes`.
    #[serde(with = "As::<Or<Inherit, Span>>")]
    pub age: Option<Duration>,
    /// Bytes of one topic. Default that of `topics.history`.
    /// The sum over all topics is bounded by `topics.history_bytes_max`.
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

/// What a snapshot of a topic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotOf {
    /// The latest message.
    #[default]
    Latest,
    /// The latest message of every key.
    Keys,
}

impl Choice for SnapshotOf {
    const ALL: &[SnapshotOf] = &[SnapshotOf::Latest, SnapshotOf::Keys];

    fn name(self) -> &'static str {
        match self {
            SnapshotOf::Latest => "latest",
            SnapshotOf::Keys => "keys",
        }
    }
}

impl Choice for Overflow {
    const ALL: &[Overflow] = &[Overflow::CatchUp, Overflow::Gap, Overflow::Disconnect];

    fn name(self) -> &'static str {
        Overflow::name(self)
    }
}

/// The most that a subscriber is granted where there is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Whatever it asks for.
    All,
    /// While it is busy, only the latest message of each key.
    Latest,
}

impl Choice for Cap {
    const ALL: &[Cap] = &[Cap::All, Cap::Latest];

    fn name(self) -> &'static str {
        match self {
            Cap::All => Policy::All.name(),
            Cap::Latest => Policy::Latest.name(),
        }
    }
}
