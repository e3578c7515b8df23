//! An identity, and the one function that says what it may do.
//! # Invariants: [`permits`] is a function of its arguments; there is no other permission.
//! # Not here: how somebody proves who they are (`authority`).

use super::grants::Grants;
use super::key::Fingerprint;
use super::token::Hash;
use crate::topics::name::{Target, TopicName};
use std::sync::Arc;

/// Somebody who has shown a token or a certificate, or nobody in particular.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The `sub` of a JWT, the name of an API token or that of a certificate's rule; empty for whoever
    /// has shown none.
    pub subject: Box<str>,
    /// The `jti` of a JWT.
    pub token_id: Option<Box<str>>,
    /// When its token or certificate expires, in seconds since 1970; never for an API token.
    pub expires_s: Option<u64>,
    /// For how long it counts beyond that, in seconds.
    pub leeway_s: u64,
    /// What it may do.
    pub grants: Grants,
    pub(super) proof: Proof,
}

/// What an identity rests on: when that is gone, so is the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing: it is what everybody may do.
    None,
    /// An API token with this hash.
    Token(Hash),
    /// A signature by this key.
    Key(Fingerprint),
    /// A certificate with these names.
    Certificate(Arc<[Box<str>]>),
}

impl Identity {
    /// Somebody who has shown nothing.
    pub fn anonymous(grants: Grants) -> Identity {
        Identity {
            subject: Box::default(),
            token_id: None,
            expires_s: None,
            leeway_s: 0,
            grants,
            proof: Proof::None,
        }
    }

    /// Whether no token was shown.
    pub fn is_anonymous(&self) -> bool {
        self.proof == Proof::None
    }

    /// Whether it is a service that was given an API token or a certificate, not one of many users.
    pub fn is_service(&self) -> bool {
        matches!(self.proof, Proof::Token(_) | Proof::Certificate(_))
    }

    /// Whether it was shown by a certificate, so that a token may still take its place.
    pub fn is_certified(&self) -> bool {
        matches!(self.proof, Proof::Certificate(_))
    }

    /// When it counts no more, in milliseconds since 1970.
    pub fn ends_ms(&self) -> Option<u64> {
        let ends = self.expires_s?.saturating_add(self.leeway_s);
        Some(ends.saturating_mul(1000))
    }

    /// For how long its token is valid, in milliseconds; at least 1, and `None` if it does not expire or
    /// is a certificate, which nobody can refresh on the way.
    pub fn expires_in_ms(&self, now_ms: u64) -> Option<u64> {
        let expires_s = self.expires_s.filter(|_| !self.is_certified())?;
        Some(expires_s.saturating_mul(1000).saturating_sub(now_ms).max(1))
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// Be sent every message of a topic or of all that a filter matches.
    Subscribe(&'a Target),
    /// Be told the past of a topic or who is there: history, resume, snapshot, presence.
    Read(&'a TopicName),
    /// Add messages to a topic.
    Publish(&'a TopicName),
}

/// Whether an identity may do something.
pub fn permits(identity: &Identity, ask: Ask<'_>) -> bool {
    match ask {
        Ask::Subscribe(target) => identity.grants.subscribe.cover(target),
        Ask::Read(topic) => identity.grants.subscribe.cover_topic(topic),
        Ask::Publish(topic) => identity.grants.publish.cover_topic(topic),
    }
}
