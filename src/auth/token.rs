//! API tokens: long random texts of which only hashes are kept.
//! # Invariants: whether a hash is known takes the same time whichever it is; a token is never kept.
//! # Not here: where they are configured (`config`).

use super::grants::Grants;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use ring::digest;
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// Longest token of any kind, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of a token.
    pub fn of(token: &str) -> Hash {
        let mut hash = [0; 32];
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Hash(hash)
    }

    /// Whether this is the same hash, in the same time whatever the answer.
    pub fn is(&self, other: &Hash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// Not a SHA-256 in hexadecimal or base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not a SHA-256 in 64 hexadecimal digits or in base64; `fanfare token hash` prints one"
)]
pub struct BadHash;

impl FromStr for Hash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Hash, BadHash> {
        let bytes = if text.len() == 64 { from_hex(text) } else { from_base64(text) };
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Hash).ok_or(BadHash)
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let engine = if text.ends_with('=') { &BASE64_STANDARD } else { &BASE64_STANDARD_NO_PAD };
    engine.decode(text).ok()
}

/// A token that a configuration knows, and what who shows it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Whose it is: the subject of whoever shows it.
    pub name: String,
    /// Its hash.
    pub hash: Hash,
    /// What it allows.
    pub grants: Grants,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_in_either_spelling() {
        let hash = Hash::of("abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), hex);
        for text in [hex, &hex.to_uppercase(), &BASE64_STANDARD.encode(hash.0)] {
            assert_eq!(text.parse(), Ok(hash), "{text}");
        }
        assert_eq!(BASE64_STANDARD_NO_PAD.encode(hash.0).parse(), Ok(hash));
        let (short, odd) = (&hex[1..], hex.replace('b', "g"));
        for text in ["", "abc", short, &odd, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa"] {
            assert_eq!(text.parse::<Hash>(), Err(BadHash), "{text}");
        }
    }

    #[test]
    fn hashes_that_differ_in_one_bit_are_not_the_same() {
        let hash = Hash::of("abc");
        assert!(hash.is(&hash.clone()));
        for bit in 0..256 {
            let mut other = hash;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!hash.is(&other), "{bit}");
        }
    }
}
