//! On what terms a connection gets a topic.
//! # Not here: what follows from them (`cursor`, `pace`, `stream`).

use super::stream::Stream;
use super::{Checked, Invariant, covers, fault};
use crate::history::{Overflow, Policy, Promise, Rule, Subscribed, Updated};
use std::collections::BTreeSet;

/// A subscription that has begun, and what it asked for.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    /// The record of its beginning.
    pub(super) since: usize,
    /// When that was.
    pub(super) at: u64,
    pub(super) policy: Policy,
    pub(super) overflow: Option<Overflow>,
    /// By what name the connection is listed.
    pub(super) name: String,
}

/// What a connection gets of one topic.
#[derive(Debug)]
pub(super) struct Effective {
    pub(super) policy: Policy,
    /// What may happen when it is slow: where two filters give the same, it is not said which counts.
    pub(super) overflows: Vec<Overflow>,
}

impl Stream {
    /// What the connection gets of a topic: what its subscription to exactly this topic says, else
    /// the filter that gives most.
    pub(super) fn effective(&self, topic: &str, rule: Rule) -> Effective {
        let matching = || self.subscriptions.iter().filter(|(target, _)| covers(target, topic));
        let strongest: Vec<&Subscription> = match self.subscriptions.get(topic) {
            Some(exact) => vec![exact],
            None => matching()
                .filter(|(_, one)| !matching().any(|(_, other)| other.policy.exceeds(one.policy)))
                .map(|(_, subscription)| subscription)
                .collect(),
        };
        let policy = strongest.first().map_or(Policy::All, |one| one.policy.capped(rule.cap));
        let overflows = strongest.iter().map(|one| resolved(one.overflow, rule)).collect();
        Effective { policy, overflows }
    }

    /// Topics that are told of stale and fresh by this target alone.
    pub(super) fn cursors_of(&self, target: &str) -> BTreeSet<String> {
        self.cursors.keys().filter(|topic| covers(target, topic)).cloned().collect()
    }
}

/// What becomes of a slow connection that asked for this.
fn resolved(asked: Option<Overflow>, rule: Rule) -> Overflow {
    match asked.unwrap_or(rule.overflow) {
        Overflow::CatchUp if !rule.has_history => Overflow::Gap,
        other => other,
    }
}

/// What applies to a target as a whole.
fn rule_of(target: &str, promise: &Promise) -> Rule {
    if target.contains(['*', '>']) {
        return Rule { cap: promise.filter_cap, has_history: true, ..Rule::default() };
    }
    promise.rules.get(target).copied().unwrap_or_default()
}

/// The reply to a subscription tells what was granted.
pub(super) fn check_subscribed(
    told: &Subscribed,
    (policy, overflow): (Policy, Option<Overflow>),
    promise: &Promise,
) -> Checked {
    let rule = rule_of(&told.topic, promise);
    let policy = policy.capped(rule.cap);
    let granted = resolved(overflow, rule);
    let is_said = !policy.conflates() && (overflow.is_some() || granted != Overflow::CatchUp);
    let expected = (policy, is_said.then_some(granted));
    same(&told.topic, expected, (told.policy, told.overflow))
}

/// The reply to an update tells the terms from now on.
pub(super) fn check_updated(
    told: &Updated,
    subscription: &Subscription,
    promise: &Promise,
) -> Checked {
    let rule = rule_of(&told.topic, promise);
    let policy = subscription.policy.capped(rule.cap);
    let overflow = (!policy.conflates()).then(|| resolved(subscription.overflow, rule));
    same(&told.topic, (policy, overflow), (told.policy, told.overflow))
}

type Told = (Policy, Option<Overflow>);

fn same(topic: &str, expected: Told, told: Told) -> Checked {
    if expected == told {
        return Ok(());
    }
    fault(Invariant::Reply, topic, format!("the terms are {expected:?}, and it is told {told:?}"))
}
