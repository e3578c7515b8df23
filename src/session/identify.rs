//! Showing who one is: a token in a hello, and another one later.
//! # Invariants: a token that is refused is counted by what was wrong with it and told by one of two
//! reasons; nothing but a hello is heard of who must show a token first.
//! # Not here: verifying (`auth`), what becomes of subscriptions (`shard`).

use super::{Close, Session};
use crate::auth::{Fault, Identity};
use crate::clock::Now;
use crate::dialect::{Event, Refreshed, Token};
use crate::metrics::Counters;
use crate::reason::{Reason, Refusal};
use crate::shard::outbound::Socket;
use crate::shard::{Shard, Standing, expires_in_ms};
use std::sync::Arc;

impl super::Broker {
    /// Who shows this token, whatever way it came.
    ///
    /// # Errors
    /// [`Reason::BadToken`] or [`Reason::TokenExpired`].
    pub fn authenticate(
        &self,
        token: &str,
        counters: &Counters,
        now: Now,
    ) -> Result<Arc<Identity>, Refusal> {
        let identity = self.guard.authenticate(token, now).map_err(|fault: Fault| {
            counters.tokens_refused.of(fault).increment();
            Refusal::from(fault)
        })?;
        counters.tokens_taken.increment();
        Ok(identity)
    }
}

impl Session {
    /// Takes the token of a hello. A bad one ends the connection: it was all that the peer had.
    pub(super) fn show<S: Socket>(
        &self,
        id: u64,
        token: &Token,
        shard: &mut Shard<S>,
    ) -> Result<(), Close> {
        if !shard.is_guarded() {
            return Ok(());
        }
        // Who is known by a certificate may still be somebody else by a token.
        if shard.identity(self.connection).is_some_and(|shown| !shown.is_certified()) {
            let detail = "this connection has shown a token already: `refresh` takes another";
            let refusal = Refusal::new(Reason::BadOption, detail);
            return Err(self.turn_out(id, refusal, shard));
        }
        let shown = self.broker.authenticate(token.reveal(), shard.counters(), shard.now());
        let shown = shown.and_then(|identity| Ok(shard.identify(self.connection, &identity)?));
        shown.map_err(|refusal| self.turn_out(id, refusal, shard))
    }

    fn turn_out<S: Socket>(&self, id: u64, refusal: Refusal, shard: &mut Shard<S>) -> Close {
        self.refuse(id, refusal.clone(), shard);
        Close(refusal)
    }

    /// Takes another token of the same subject. A bad one leaves everything as it was.
    pub(super) fn refresh<S: Socket>(
        &self,
        token: &Token,
        shard: &mut Shard<S>,
    ) -> Result<Event, Refusal> {
        if !shard.is_guarded() {
            return Ok(Event::Refreshed(Refreshed { expires_ms: 0 }));
        }
        let Some(before) = shard.identity(self.connection).cloned() else {
            let detail = "there is none to be refreshed: `connect` takes the first";
            return Err(Refusal::new(Reason::Unauthenticated, detail));
        };
        let identity = self.broker.authenticate(token.reveal(), shard.counters(), shard.now())?;
        if identity.subject != before.subject {
            let detail = "the token is of another subject than that of this connection";
            return Err(Refusal::new(Reason::NotAllowed, detail));
        }
        shard.identify(self.connection, &identity)?;
        let expires_ms = expires_in_ms(shard.identity(self.connection), shard.now());
        Ok(Event::Refreshed(Refreshed { expires_ms }))
    }

    /// Whether nothing but a hello may be heard yet.
    pub(super) fn is_stranger<S: Socket>(&self, shard: &Shard<S>) -> bool {
        shard.is_guarded() && matches!(shard.standing(self.connection), Standing::Stranger)
    }
}
