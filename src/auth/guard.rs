//! The one place that is asked: the authority of now, and what has been revoked.
//! # Invariants: whatever changes gives another generation, so whoever remembers one can tell by a
//! single load that nothing has changed.
//! # Not here: what happens to connections then (`shard`).

use super::authority::Authority;
use super::fault::Fault;
use super::identity::Identity;
use super::key::Key;
use super::revocations::{Revocation, Revocations, TooManyRevocations};
use crate::clock::Now;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by everybody who lets somebody in.
#[derive(Debug)]
pub struct Guard {
    authority: Mutex<Arc<Authority>>,
    revocations: Mutex<Revocations>,
    generation: AtomicU64,
    /// Tokens that named a key which is not known.
    unknown_keys: AtomicU64,
}

/// What has become of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Review {
    /// It is as it was.
    Same,
    /// It may do something else now.
    Changed(Arc<Identity>),
    /// It counts no more.
    Gone(Fault),
}

impl Guard {
    /// Guards what this authority says.
    pub fn new(authority: Authority) -> Guard {
        Guard {
            authority: Mutex::new(Arc::new(authority)),
            revocations: Mutex::default(),
            generation: AtomicU64::new(0),
            unknown_keys: AtomicU64::new(0),
        }
    }

    /// The authority of now.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority.lock())
    }

    /// Changes whenever the authority or a revocation does.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many tokens have named a key that was not known: it may be a new one.
    pub fn unknown_keys(&self) -> u64 {
        self.unknown_keys.load(Ordering::Relaxed)
    }

    /// Puts another authority into force, with the keys that were fetched for the old one.
    pub fn replace(&self, authority: &Authority) {
        let mut current = self.authority.lock();
        *current = Arc::new(authority.with_fetched(Arc::clone(current.fetched())));
        drop(current);
        self.note_change();
    }

    /// Puts another authority into force, with keys of its own in place of those that were fetched.
    pub fn replace_whole(&self, authority: Authority) {
        *self.authority.lock() = Arc::new(authority);
        self.note_change();
    }

    /// Puts other keys in place of those that were fetched before.
    pub fn replace_fetched(&self, keys: Vec<Key>) {
        let mut current = self.authority.lock();
        *current = Arc::new(current.with_fetched(keys));
        drop(current);
        self.note_change();
    }

    /// Revokes tokens, from now until a second since 1970.
    ///
    /// # Errors
    /// [`TooManyRevocations`].
    pub fn revoke(
        &self,
        revocation: Revocation,
        until_s: u64,
        now: Now,
    ) -> Result<(), TooManyRevocations> {
        let max = self.authority().revocations_max();
        self.revocations.lock().add(revocation, until_s, seconds(now), max)?;
        self.note_change();
        Ok(())
    }

    /// Takes a revocation back. Says whether there was one.
    pub fn lift(&self, revocation: &Revocation) -> bool {
        self.revocations.lock().lift(revocation)
    }

    /// How many revocations are remembered.
    pub fn revocation_count(&self) -> usize {
        self.revocations.lock().len()
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn authenticate(&self, token: &str, now: Now) -> Result<Arc<Identity>, Fault> {
        let identity = self.authority().authenticate(token, seconds(now)).inspect_err(|fault| {
            if *fault == Fault::UnknownKey {
                self.unknown_keys.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        if self.revocations.lock().hold(&identity, seconds(now)) {
            return Err(Fault::Revoked);
        }
        Ok(Arc::new(identity))
    }

    /// Who shows this certificate, in DER, which TLS has verified; `None` if no rule names them. Whether
    /// they have been revoked is asked by a review.
    pub fn recognize(&self, certificate: &[u8]) -> Option<Arc<Identity>> {
        self.authority().recognize(certificate).map(Arc::new)
    }

    /// What has become of an identity that was let in before.
    pub fn review(&self, identity: &Identity, now: Now) -> Review {
        if !identity.is_anonymous() && self.revocations.lock().hold(identity, seconds(now)) {
            return Review::Gone(Fault::Revoked);
        }
        match self.authority().renew(identity) {
            Ok(None) => Review::Same,
            Ok(Some(changed)) => Review::Changed(Arc::new(changed)),
            Err(fault) => Review::Gone(fault),
        }
    }

    fn note_change(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

fn seconds(now: Now) -> u64 {
    now.wall_ms / 1000
}
