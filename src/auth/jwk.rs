//! Sets of public keys as issuers publish them: JWKS, RFC 7517.
//! # Invariants: a set gives no secrets: whoever can read it could sign with them; a key that is
//! not understood is left out, and the others count.
//! # Not here: fetching a set (`server`).

use super::der::PublicKey;
use super::fault::BadKey;
use super::key::{Algorithm, Key};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Most keys of a set.
const KEYS_MAX: usize = 64;

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Reads a set. Keys that are not for verifying signatures, or by means that are not known here,
/// are left out.
///
/// # Errors
/// [`BadKey::Form`] when it is no set, [`BadKey::TooMany`].
pub fn parse(json: &[u8]) -> Result<Vec<Key>, BadKey> {
    let set: Set = serde_json::from_slice(json).map_err(|_| BadKey::Form("a set of JWKs"))?;
    if set.keys.len() > KEYS_MAX {
        return Err(BadKey::TooMany(set.keys.len()));
    }
    let known = |value| serde_json::from_value::<Jwk>(value).ok().as_ref().and_then(Jwk::key);
    Ok(set.keys.into_iter().filter_map(known).collect())
}

impl Jwk {
    fn key(&self) -> Option<Key> {
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !verifies || self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let (usual, key) = self.public_key()?;
        let algorithm = self.alg.as_deref().map_or(Some(usual), Algorithm::of)?;
        Key::of_public(self.kid.as_deref().map(Into::into), algorithm, key).ok()
    }

    /// The key, and the algorithm that it is for if it does not say so itself.
    fn public_key(&self) -> Option<(Algorithm, PublicKey)> {
        let bytes = |text: &Option<String>| BASE64_URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let point = |len: usize| {
            let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
            (x.len() == len && y.len() == len).then(|| [vec![4], x, y].concat())
        };
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let key = PublicKey::Rsa { modulus: bytes(&self.n)?, exponent: bytes(&self.e)? };
                Some((Algorithm::Rs256, key))
            }
            ("EC", Some("P-256")) => Some((Algorithm::Es256, PublicKey::P256(point(32)?))),
            ("EC", Some("P-384")) => Some((Algorithm::Es384, PublicKey::P384(point(48)?))),
            ("OKP", Some("Ed25519")) => {
                Some((Algorithm::EdDsa, PublicKey::Ed25519(bytes(&self.x)?)))
            }
            _ => None,
        }
    }
}
