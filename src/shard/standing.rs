//! Who the connections of this shard are, and what becomes of them when that changes.
//! # Invariants: every subscription of a connection is one that its identity permits: it was asked
//! when the subscription began and is asked again whenever the identity, the authority or a
//! revocation changes. As a permitted filter is contained in what was granted, so is every topic that
//! it ever matches, and a delivery needs to ask nothing.
//! # Not here: who is whom, and what they may do (`auth`); commands (`session`).

use super::Shard;
use super::connection::{Connection, ConnectionId, NEVER};
use super::outbound::Socket;
use super::subscribers::NumberMap;
use crate::auth::{Ask, Authority, Guard, Identity, Review, permits};
use crate::clock::Now;
use crate::dialect::{Ended, Event};
use crate::reason::{Reason, Refusal};
use std::sync::Arc;
use std::time::Duration;

/// Who the connections are.
#[derive(Debug)]
pub(super) struct Standings {
    guard: Arc<Guard>,
    /// The generation of the guard that everything here follows from.
    seen: u64,
    /// Whether everybody may do everything.
    is_open: bool,
    /// Who somebody is who has shown no token.
    anonymous: Option<Arc<Identity>>,
    /// Those who have shown one, by their slots.
    known: NumberMap<u32, Arc<Identity>>,
}

impl Default for Standings {
    fn default() -> Standings {
        Standings::under(Arc::new(Guard::new(Authority::open())))
    }
}

impl Standings {
    fn under(guard: Arc<Guard>) -> Standings {
        let seen = guard.generation();
        let authority = guard.authority();
        Standings {
            guard,
            seen,
            is_open: authority.is_open(),
            anonymous: authority.anonymous().cloned(),
            known: NumberMap::default(),
        }
    }

    /// Whether a connection may stay that shows no token.
    pub(super) fn admits_anybody(&self) -> bool {
        self.is_open || self.anonymous.is_some()
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.known.remove(&slot);
    }

    fn of(&self, slot: u32) -> Standing<'_> {
        match self.known.get(&slot).or(self.anonymous.as_ref()) {
            _ if self.is_open => Standing::Open,
            Some(identity) => Standing::As(identity),
            None => Standing::Stranger,
        }
    }
}

/// What a connection is let do.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// Everything, whoever it is.
    Open,
    /// What this identity may do.
    As(&'a Arc<Identity>),
    /// Nothing before it has shown a token.
    Stranger,
}

impl Standing<'_> {
    /// Whether what it publishes has a rate: not that of a service, and not where everybody may do
    /// everything.
    pub fn is_rated(self) -> bool {
        matches!(self, Standing::As(identity) if !identity.is_service())
    }

    /// Whether it may do something.
    ///
    /// # Errors
    /// [`Reason::NotAllowed`], and [`Reason::Unauthenticated`] of one that has shown no token.
    pub fn permit(self, ask: Ask<'_>) -> Result<(), Reason> {
        match self {
            Standing::Open => Ok(()),
            Standing::As(identity) if permits(identity, ask) => Ok(()),
            Standing::As(identity) if identity.is_anonymous() => Err(Reason::Unauthenticated),
            Standing::As(_) => Err(Reason::NotAllowed),
            Standing::Stranger => Err(Reason::Unauthenticated),
        }
    }
}

impl<S: Socket> Shard<S> {
    /// Has the shard ask this guard. To be called before the first connection.
    pub fn follow(&mut self, guard: Arc<Guard>) {
        self.standings = Standings::under(guard);
    }

    /// Whether there is anything that somebody may not do.
    #[inline]
    pub fn is_guarded(&self) -> bool {
        !self.standings.is_open
    }

    /// What a connection is let do.
    pub fn standing(&self, id: ConnectionId) -> Standing<'_> {
        self.standings.of(id.slot)
    }

    /// Who a connection has shown to be.
    pub fn identity(&self, id: ConnectionId) -> Option<&Arc<Identity>> {
        self.connection(id)?;
        self.standings.known.get(&id.slot)
    }

    /// Takes a connection for somebody from now on: subscriptions that this one may not have end,
    /// and the connection itself ends when the identity does.
    ///
    /// # Errors
    /// [`Reason::Forbidden`] when the identity has been revoked since it was made; nothing changes.
    pub fn identify(&mut self, id: ConnectionId, identity: &Arc<Identity>) -> Result<(), Reason> {
        if self.standings.is_open || self.connection(id).is_none() {
            return Ok(());
        }
        // Whatever changed before this shard last looked has to be asked now.
        let identity = match self.standings.guard.review(identity, self.now) {
            Review::Same => Arc::clone(identity),
            Review::Changed(changed) => changed,
            Review::Gone(_) => return Err(Reason::Forbidden),
        };
        let expires = self.tick_of(identity.ends_ms());
        self.standings.known.insert(id.slot, identity);
        if let Some(connection) = self.connection_mut(id) {
            connection.expires = expires;
        }
        self.schedule(id);
        self.prune(id);
        Ok(())
    }

    /// Looks whether an authority, a key or a revocation has changed, and ends what is not permitted
    /// any more. One load if nothing has.
    pub fn review(&mut self) {
        let generation = self.standings.guard.generation();
        if generation == self.standings.seen {
            return;
        }
        let guard = Arc::clone(&self.standings.guard);
        let known = std::mem::take(&mut self.standings.known);
        self.standings = Standings { known, ..Standings::under(guard) };
        for id in self.ids() {
            self.review_one(id);
        }
    }

    fn review_one(&mut self, id: ConnectionId) {
        if self.standings.is_open || !self.is_open(id) {
            return;
        }
        let Some(identity) = self.standings.known.get(&id.slot) else {
            if self.standings.anonymous.is_some() {
                return self.prune(id);
            }
            // Who has not shown a token yet still has its time for it.
            if !self.connection(id).is_some_and(Connection::awaits_identity) {
                self.close(id, &Reason::Forbidden.into());
            }
            return;
        };
        match self.standings.guard.review(identity, self.now) {
            Review::Same => {}
            Review::Changed(changed) => {
                self.standings.known.insert(id.slot, changed);
                self.prune(id);
            }
            Review::Gone(_) => self.close(id, &Reason::Forbidden.into()),
        }
    }

    /// Ends the subscriptions of a connection that it may not have.
    fn prune(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let standing = self.standings.of(id.slot);
        let targets = self.subscribers.targets(&connection.memberships);
        let ended: Vec<_> = targets
            .into_iter()
            .filter(|target| standing.permit(Ask::Subscribe(target)).is_err())
            .collect();
        for target in ended {
            if self.leave(id, &target).is_ok() {
                self.counters.pruned.increment();
                let reason = Reason::NotAllowed;
                self.send(id, 0, &Event::Ended(Ended { target, reason }));
            }
        }
        self.flush(id);
    }

    /// Ends a connection whose time is over.
    pub(super) fn expire(&mut self, id: ConnectionId) {
        let is_known = self.standings.known.contains_key(&id.slot);
        let reason = if is_known { Reason::TokenExpired } else { Reason::NoToken };
        self.close(id, &Refusal::from(reason));
    }

    /// The first tick that is not before a time in milliseconds since 1970.
    fn tick_of(&self, ends_ms: Option<u64>) -> u32 {
        let Some(ends_ms) = ends_ms else { return NEVER };
        let left = Duration::from_millis(ends_ms.saturating_sub(self.now.wall_ms));
        // The next tick may be at once: the seconds that are left count from behind it.
        let seconds = u32::try_from(left.as_secs().saturating_add(1)).unwrap_or(NEVER);
        self.now_tick().saturating_add(seconds)
    }
}

/// For how long an identity's token is valid as a client is told: 0 if it does not expire.
pub fn expires_in_ms(identity: Option<&Arc<Identity>>, now: Now) -> u64 {
    identity.and_then(|identity| identity.expires_in_ms(now.wall_ms)).unwrap_or_default()
}
