//! Who somebody is, and what they may do: tokens, keys, rules, and the one function of permission.
//! Owns the [`Authority`], which is made of a configuration and replaced as a whole, and the
//! [`Guard`] that everybody asks.
//! # Invariants: pure; the time is passed in, no socket, file or clock is known here. A key verifies
//! one algorithm, which the key says and never the token. What is wrong with a token is told to
//! metrics and to who holds it in hand, never to a peer.
//! # Not here: reading secrets and fetching keys (`server`), what happens to a connection (`session`,
//! `shard`).

mod authority;
mod certificate;
mod der;
mod fault;
mod grants;
mod guard;
mod identity;
mod jwk;
mod jwt;
mod key;
mod revocations;
mod sign;
#[cfg(test)]
mod tests;
mod token;

pub use authority::{Authority, Rules};
pub use certificate::{Certified, expires_s as certificate_expires_s};
pub use fault::{BadKey, Fault};
pub use grants::{Filters, Grants};
pub use guard::{Guard, Review};
pub use identity::{Ask, Identity, permits};
pub use jwk::parse as parse_key_set;
pub use jwt::{Claims, Header, Unverified, look_into};
pub use key::{Algorithm, Key, SECRET_BYTES_MIN};
pub use revocations::{Revocation, TooManyRevocations};
pub use sign::{Signer, sign};
pub use token::{ApiToken, Hash, TOKEN_BYTES_MAX};
