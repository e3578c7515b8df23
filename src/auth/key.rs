//! Keys that tokens are verified with. Each is for one algorithm, and verifies nothing else.
//! Owns the use of the cryptographic library.
//! # Invariants: an HMAC secret is never made of a public key; no key shows what it is made of.
//! # Not here: which key a token names (`authority`), signing (`sign`).

use super::der::{PublicKey, public_key};
use super::fault::BadKey;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{digest, hmac};
use std::fmt;

/// Least bytes of an HMAC secret.
pub const SECRET_BYTES_MIN: usize = 32;
/// Least bits of an RSA modulus.
const MODULUS_BITS_MIN: usize = 2048;

/// What a signature is made with: the names of RFC 7518 and RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: &[Algorithm] = &[
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ];

    /// As `alg` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    pub fn of(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.iter().copied().find(|algorithm| algorithm.name() == name)
    }

    /// Whether who verifies could sign too.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)
    }

    pub(super) fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
            Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
            Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    fn rsa(self) -> Option<&'static signature::RsaParameters> {
        match self {
            Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            _ => None,
        }
    }
}

/// A key, the algorithm it is for, and the name that tokens give it.
#[derive(Clone)]
pub struct Key {
    /// The `kid` that tokens name it by.
    pub id: Option<Box<str>>,
    /// The only algorithm that it verifies.
    pub algorithm: Algorithm,
    material: Material,
    pub(super) fingerprint: Fingerprint,
}

/// Tells keys apart, and says nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

#[derive(Clone)]
enum Material {
    Secret(hmac::Key),
    Rsa { modulus: Box<[u8]>, exponent: Box<[u8]> },
    P256(Box<[u8]>),
    P384(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl Key {
    /// A key of a secret that is shared with whoever signs.
    ///
    /// # Errors
    /// [`BadKey::ShortSecret`], [`BadKey::Kind`], and [`BadKey::Form`] where the secret is the PEM
    /// of something else: such a file is often public.
    pub fn of_secret(
        id: Option<Box<str>>,
        algorithm: Algorithm,
        secret: &[u8],
    ) -> Result<Key, BadKey> {
        let hash = algorithm.hmac().ok_or(BadKey::Kind(algorithm.name()))?;
        if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(BadKey::Form("a secret but PEM, which others may know"));
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(BadKey::ShortSecret(secret.len()));
        }
        let fingerprint = fingerprint(algorithm, &[secret]);
        let material = Material::Secret(hmac::Key::new(hash, secret));
        Ok(Key { id, algorithm, material, fingerprint })
    }

    /// A key of what a file holds: PEM of a public key, or the bytes of a secret without the line
    /// feed at its end.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn of_file(
        id: Option<Box<str>>,
        algorithm: Algorithm,
        bytes: &[u8],
    ) -> Result<Key, BadKey> {
        if algorithm.is_symmetric() {
            return Key::of_secret(id, algorithm, bytes.trim_ascii_end());
        }
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        Key::of_public(id, algorithm, public_key(text)?)
    }

    pub(super) fn of_public(
        id: Option<Box<str>>,
        algorithm: Algorithm,
        key: PublicKey,
    ) -> Result<Key, BadKey> {
        let material = match (algorithm, key) {
            (_, PublicKey::Rsa { modulus, exponent }) if algorithm.rsa().is_some() => {
                let bits = modulus.len() * 8;
                if bits < MODULUS_BITS_MIN {
                    return Err(BadKey::ShortModulus(bits));
                }
                Material::Rsa { modulus: modulus.into(), exponent: exponent.into() }
            }
            (Algorithm::Es256, PublicKey::P256(point)) if point.len() == 65 => {
                Material::P256(point.into())
            }
            (Algorithm::Es384, PublicKey::P384(point)) if point.len() == 97 => {
                Material::P384(point.into())
            }
            (Algorithm::EdDsa, PublicKey::Ed25519(point)) if point.len() == 32 => {
                Material::Ed25519(point.into())
            }
            _ => return Err(BadKey::Kind(algorithm.name())),
        };
        let fingerprint = fingerprint(algorithm, &material.public());
        Ok(Key { id, algorithm, material, fingerprint })
    }

    /// Whether this is a signature of the message by this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let checked = match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signature),
            Material::Rsa { modulus, exponent } => {
                let Some(parameters) = self.algorithm.rsa() else { return false };
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signature)
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
            }
            Material::P384(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(message, signature)
            }
            Material::Ed25519(point) => {
                UnparsedPublicKey::new(&signature::ED25519, point).verify(message, signature)
            }
        };
        checked.is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { id, algorithm, .. } = self;
        f.debug_struct("Key").field("id", id).field("algorithm", algorithm).finish_non_exhaustive()
    }
}

impl Material {
    fn public(&self) -> Vec<&[u8]> {
        match self {
            Material::Secret(_) => Vec::new(),
            Material::Rsa { modulus, exponent } => vec![modulus, exponent],
            Material::P256(point) | Material::P384(point) | Material::Ed25519(point) => vec![point],
        }
    }
}

fn fingerprint(algorithm: Algorithm, parts: &[&[u8]]) -> Fingerprint {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(algorithm.name().as_bytes());
    for part in parts {
        hash.update(&part.len().to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Fingerprint(bytes)
}
