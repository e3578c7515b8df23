//! What has been revoked before its time: tokens by their id, subjects by their name.
//! # Invariants: bounded; an entry goes when its time is over, and a full set refuses rather than
//! forgets.
//! # Not here: who may revoke, and telling the shards (`guard`).

use super::identity::Identity;
use std::collections::HashMap;

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// Every token of this subject, or the API token of this name.
    Subject(Box<str>),
    /// The token with this `jti`.
    Token(Box<str>),
}

/// There is no room for another revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} revocations are in force, which is the most there may be")]
pub struct TooManyRevocations(pub usize);

/// Revocations in force, each with the second since 1970 at which it ends.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    // Names are chosen by others: the standard library's hasher is keyed.
    until: HashMap<Revocation, u64>,
}

impl Revocations {
    pub(super) fn add(
        &mut self,
        revocation: Revocation,
        until_s: u64,
        now_s: u64,
        max: usize,
    ) -> Result<(), TooManyRevocations> {
        if let Some(until) = self.until.get_mut(&revocation) {
            *until = until_s.max(*until);
            return Ok(());
        }
        if self.until.len() >= max {
            self.until.retain(|_, until| *until > now_s);
        }
        if self.until.len() >= max {
            return Err(TooManyRevocations(max));
        }
        self.until.insert(revocation, until_s);
        Ok(())
    }

    pub(super) fn lift(&mut self, revocation: &Revocation) -> bool {
        self.until.remove(revocation).is_some()
    }

    pub(super) fn hold(&self, identity: &Identity, now_s: u64) -> bool {
        if self.until.is_empty() {
            return false;
        }
        let in_force = |key: Revocation| self.until.get(&key).is_some_and(|until| *until > now_s);
        in_force(Revocation::Subject(identity.subject.clone()))
            || identity.token_id.clone().is_some_and(|id| in_force(Revocation::Token(id)))
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Grants;

    fn revoked(subject: &str) -> Revocation {
        Revocation::Subject(subject.into())
    }

    fn identity(subject: &str, token_id: Option<&str>) -> Identity {
        Identity {
            subject: subject.into(),
            token_id: token_id.map(Into::into),
            ..Identity::anonymous(Grants::default())
        }
    }

    #[test]
    fn a_revocation_holds_its_subject_or_its_token_until_its_time_is_over() {
        let mut set = Revocations::default();
        set.add(revoked("eve"), 100, 10, 8).unwrap();
        set.add(Revocation::Token("t-1".into()), 50, 10, 8).unwrap();
        let rows = [
            ("eve", None, 99, true),
            ("eve", None, 100, false),
            ("bob", Some("t-1"), 49, true),
            ("bob", Some("t-1"), 50, false),
            ("bob", Some("t-2"), 20, false),
            ("t-1", Some("eve"), 20, false),
        ];
        for (subject, token, now_s, expected) in rows {
            assert_eq!(set.hold(&identity(subject, token), now_s), expected, "{subject} {now_s}");
        }
        assert!(set.lift(&revoked("eve")) && !set.lift(&revoked("eve")));
        assert!(!set.hold(&identity("eve", None), 20));
    }

    #[test]
    fn a_full_set_makes_room_of_what_is_over_and_of_nothing_else() {
        let mut set = Revocations::default();
        set.add(revoked("a"), 20, 10, 2).unwrap();
        set.add(revoked("b"), 30, 10, 2).unwrap();
        assert_eq!(set.add(revoked("c"), 40, 15, 2), Err(TooManyRevocations(2)));
        // Whoever is there may be given more time.
        set.add(revoked("b"), 50, 15, 2).unwrap();
        set.add(revoked("c"), 40, 20, 2).unwrap();
        assert_eq!(set.len(), 2);
        assert!(set.hold(&identity("b", None), 45));
    }
}
