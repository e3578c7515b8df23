//! What can be wrong with a token, and with a key.
//! # Invariants: a peer is told one of two reasons, whatever the fault; no fault holds a part of a
//! token or of a key.
//! # Not here: finding it (`jwt`, `authority`, `key`).

use crate::reason::{Reason, Refusal};

/// What is wrong with a token. Metrics and `fanfare token inspect` tell them apart, peers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is longer than a token may be.
    #[error("it is longer than a token may be")]
    TooLong,
    /// It is neither a JWT nor an API token that could be known.
    #[error("it is not three parts of base64url, joined by dots")]
    Malformed,
    /// Its header asks for something that is not done here.
    #[error("its header is not that of a signed JWT, or asks for what is not supported")]
    Header,
    /// No key here has its key id.
    #[error("no key has its `kid`")]
    UnknownKey,
    /// Its key is for another algorithm.
    #[error("its `alg` is not the one that its key is for")]
    Algorithm,
    /// Its signature is not by its key.
    #[error("its signature is not valid")]
    Signature,
    /// A claim is missing, of another type, or says what cannot be.
    #[error("a claim is missing, of the wrong type or not valid")]
    Claims,
    /// It is for others.
    #[error("its `aud` does not name this audience")]
    Audience,
    /// It is by others.
    #[error("its `iss` is not the issuer that is expected")]
    Issuer,
    /// Its time has not come.
    #[error("its `nbf` is in the future")]
    NotYet,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It has been revoked, or its subject has.
    #[error("it, or its subject, has been revoked")]
    Revoked,
    /// No API token has its hash.
    #[error("no API token has its hash")]
    UnknownToken,
}

impl Fault {
    /// Every fault, in the order of their discriminants.
    pub const ALL: [Fault; 13] = [
        Fault::TooLong,
        Fault::Malformed,
        Fault::Header,
        Fault::UnknownKey,
        Fault::Algorithm,
        Fault::Signature,
        Fault::Claims,
        Fault::Audience,
        Fault::Issuer,
        Fault::NotYet,
        Fault::Expired,
        Fault::Revoked,
        Fault::UnknownToken,
    ];

    /// The word that metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::TooLong => "tooLong",
            Fault::Malformed => "malformed",
            Fault::Header => "header",
            Fault::UnknownKey => "unknownKey",
            Fault::Algorithm => "algorithm",
            Fault::Signature => "signature",
            Fault::Claims => "claims",
            Fault::Audience => "audience",
            Fault::Issuer => "issuer",
            Fault::NotYet => "notYet",
            Fault::Expired => "expired",
            Fault::Revoked => "revoked",
            Fault::UnknownToken => "unknownToken",
        }
    }

    /// What a peer is told. That a token has expired is known only of one that was signed with a
    /// key of ours; everything else is the same refusal, so nothing can be found out by trying.
    pub const fn reason(self) -> Reason {
        match self {
            Fault::Expired => Reason::TokenExpired,
            _ => Reason::BadToken,
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        fault.reason().into()
    }
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// An HMAC secret that can be guessed.
    #[error("the secret is {0} bytes, the least is 32: make one with `openssl rand -base64 48`")]
    ShortSecret(usize),
    /// It is not PEM of a public key, or not a JWK.
    #[error("it is not {0}")]
    Form(&'static str),
    /// It is of another kind than its algorithm needs.
    #[error("it is not a key for {0}")]
    Kind(&'static str),
    /// An RSA key that can be factored.
    #[error("its modulus has {0} bits, the least is 2048")]
    ShortModulus(usize),
    /// A set of keys with too many.
    #[error("it holds {0} keys, the most are 64")]
    TooMany(usize),
}
