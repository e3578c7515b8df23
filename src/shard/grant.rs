//! What a subscription's terms come to in one topic.
//! # Invariants: a topic's rule has the last word.
//! # Not here: the rules (`topics::rule`).

use super::cursor::Mode;
use crate::planted::{self, Bug};
use crate::topics::rule::Rule;
use crate::topics::terms::{Overflow, Policy, Rate, Terms};

/// What the rule of one topic makes of terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant<'a> {
    rule: &'a Rule,
}

/// How one subscription gets the messages of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// What becomes of messages that the socket does not take.
    pub(super) mode: Mode,
    /// How often it gets any.
    pub(super) rate: Option<Rate>,
}

impl<'a> Grant<'a> {
    pub(super) fn of(rule: &'a Rule) -> Grant<'a> {
        Grant { rule }
    }

    /// What is granted to a subscription with these terms.
    #[inline]
    pub(super) fn to(self, terms: Terms) -> Granted {
        let cap = self.rule.cap.filter(|_| !planted::is(Bug::CapIgnored));
        match terms.policy.capped(cap) {
            Policy::All => {
                let mode = match self.rule.overflow(terms.overflow) {
                    Overflow::CatchUp => Mode::CatchUp,
                    Overflow::Gap => Mode::Gap,
                    Overflow::Disconnect => Mode::Disconnect,
                };
                Granted { mode, rate: None }
            }
            Policy::Latest => Granted { mode: Mode::Conflate, rate: None },
            Policy::MaxHz(rate) => Granted { mode: Mode::Conflate, rate: Some(rate) },
        }
    }
}
