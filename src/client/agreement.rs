//! The terms of one subscription: what was asked for, what changes of it the server has not answered
//! yet, and what it grants.
//! # Invariants: at most one change is under way; others meanwhile become one that comes after it;
//! whoever asked for a change is answered, and by what the server says.
//! # Not here: sending (`pilot`), what the terms do to messages (`feed`).

use super::error::Error;
use crate::topics::terms::{Overflow, Policy, Terms};
use tokio::sync::oneshot;

/// Which messages to send, and what happens when we are slow. What is left out is left to the server,
/// in a change as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) policy: Option<Policy>,
    pub(super) overflow: Option<Overflow>,
}

impl Wish {
    /// What is asked for after a change.
    fn then(self, change: Wish) -> Wish {
        Wish { policy: change.policy.or(self.policy), overflow: change.overflow.or(self.overflow) }
    }
}

/// Where the answer to a change goes.
pub(super) type Outcome = oneshot::Sender<Result<Terms, Error>>;

/// A change that has no answer yet.
#[derive(Debug, Default)]
struct Change {
    wish: Wish,
    outcomes: Vec<Outcome>,
}

impl Change {
    fn settle(self, answer: &Result<Terms, Error>) {
        for outcome in self.outcomes {
            // Whoever asked may have gone.
            outcome.send(answer.clone()).unwrap_or_default();
        }
    }
}

/// The terms of one subscription.
#[derive(Debug)]
pub(super) struct Agreement {
    asked: Wish,
    granted: Option<Terms>,
    /// Counts the answers: terms that were granted twice are not the same terms.
    grants: u64,
    sent: Option<Change>,
    waiting: Option<Change>,
}

impl Agreement {
    pub(super) fn new(asked: Wish) -> Agreement {
        Agreement { asked, granted: None, grants: 0, sent: None, waiting: None }
    }

    /// Names the terms that are in force, if those pass over no message and nothing is about to
    /// change them.
    pub(super) fn dense(&self) -> Option<u64> {
        let all = self.granted.is_some_and(|terms| terms.policy == Policy::All);
        (all && self.sent.is_none()).then_some(self.grants)
    }

    pub(super) fn change(&mut self, wish: Wish, outcome: Outcome) {
        let waiting = self.waiting.get_or_insert_default();
        waiting.wish = waiting.wish.then(wish);
        waiting.outcomes.push(outcome);
    }

    /// The change to send now, if there is one and none is under way.
    pub(super) fn next(&mut self) -> Option<Wish> {
        if self.sent.is_some() {
            return None;
        }
        self.sent = self.waiting.take();
        self.sent.as_ref().map(|change| change.wish)
    }

    /// Everything, for a command to subscribe.
    pub(super) fn all(&mut self) -> Wish {
        self.next();
        self.sent.as_ref().map_or(self.asked, |change| self.asked.then(change.wish))
    }

    /// There will be no answer: what was under way has to be sent again.
    pub(super) fn lost(&mut self) {
        let Some(mut sent) = self.sent.take() else { return };
        if let Some(waiting) = self.waiting.take() {
            sent.wish = sent.wish.then(waiting.wish);
            sent.outcomes.extend(waiting.outcomes);
        }
        self.waiting = Some(sent);
    }

    /// The server has answered. Returns what it grants.
    pub(super) fn grant(&mut self, terms: Terms) -> Terms {
        self.granted = Some(terms);
        self.grants += 1;
        if let Some(sent) = self.sent.take() {
            self.asked = self.asked.then(sent.wish);
            sent.settle(&Ok(terms));
        }
        terms
    }

    /// Forgets the change that is under way. Returns whether there was one.
    pub(super) fn refuse(&mut self, error: &Error) -> bool {
        let Some(sent) = self.sent.take() else { return false };
        sent.settle(&Err(error.clone()));
        true
    }

    /// There will be no further answers.
    pub(super) fn end(&mut self, error: &Error) {
        for change in [self.sent.take(), self.waiting.take()].into_iter().flatten() {
            change.settle(&Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Retry;

    const LATEST: Terms = Terms { policy: Policy::Latest, overflow: None };
    const ALL: Terms = Terms { policy: Policy::All, overflow: Some(Overflow::CatchUp) };

    fn policy(policy: Policy) -> Wish {
        Wish { policy: Some(policy), overflow: None }
    }

    fn change(agreement: &mut Agreement, wish: Wish) -> oneshot::Receiver<Result<Terms, Error>> {
        let (outcome, answer) = oneshot::channel();
        agreement.change(wish, outcome);
        answer
    }

    #[test]
    fn changes_that_come_while_one_is_under_way_become_one() {
        let mut agreement = Agreement::new(Wish::default());
        agreement.grant(ALL);
        let mut first = change(&mut agreement, policy(Policy::Latest));
        assert_eq!(agreement.next(), Some(policy(Policy::Latest)));
        let mut second = change(&mut agreement, policy(Policy::Latest));
        let gap = Wish { policy: Some(Policy::All), overflow: Some(Overflow::Gap) };
        let mut third = change(&mut agreement, gap);
        assert_eq!(agreement.next(), None, "one is under way");
        agreement.grant(LATEST);
        assert_eq!(first.try_recv(), Ok(Ok(LATEST)));
        assert_eq!(agreement.next(), Some(gap));
        let error = Error::local("x", Retry::Never, "x");
        assert!(agreement.refuse(&error));
        assert_eq!(second.try_recv(), Ok(Err(error.clone())));
        assert_eq!(third.try_recv(), Ok(Err(error)));
        // What was refused is not asked for again.
        assert_eq!(agreement.all(), policy(Policy::Latest));
    }

    #[test]
    fn a_change_without_an_answer_is_part_of_what_is_asked_for_next() {
        let mut agreement = Agreement::new(Wish { policy: None, overflow: Some(Overflow::Gap) });
        agreement.grant(ALL);
        let mut answer = change(&mut agreement, policy(Policy::Latest));
        agreement.next();
        agreement.lost();
        let asked = Wish { policy: Some(Policy::Latest), overflow: Some(Overflow::Gap) };
        assert_eq!(agreement.all(), asked);
        assert!(answer.try_recv().is_err(), "nobody has answered");
        agreement.grant(LATEST);
        assert_eq!(answer.try_recv(), Ok(Ok(LATEST)));
    }

    #[test]
    fn holes_are_judged_only_under_terms_that_allow_none() {
        let mut agreement = Agreement::new(Wish::default());
        assert_eq!(agreement.dense(), None, "nothing is granted");
        agreement.grant(ALL);
        let before = agreement.dense();
        assert!(before.is_some());
        let _answer = change(&mut agreement, policy(Policy::Latest));
        agreement.next();
        assert_eq!(agreement.dense(), None, "a change is under way");
        agreement.grant(LATEST);
        assert_eq!(agreement.dense(), None, "some are passed over");
        agreement.grant(ALL);
        assert_ne!(agreement.dense(), before, "between the two some were passed over");
    }
}
