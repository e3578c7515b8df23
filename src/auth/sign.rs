//! Making tokens, for the command line and for tests. The broker itself signs nothing.
//! # Invariants: as strict about secrets as the other side.
//! # Not here: what to claim (`cli`).

use super::der::pem;
use super::fault::BadKey;
use super::key::{Algorithm, Key};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use serde_json::{Value, json};
use std::fmt;

/// A key that signs.
pub struct Signer {
    algorithm: Algorithm,
    key: Private,
}

enum Private {
    Secret(hmac::Key),
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// Reads what a file holds: PEM of a private key in PKCS #8, or the bytes of a secret without
    /// the line feed at its end.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn of_file(algorithm: Algorithm, bytes: &[u8]) -> Result<Signer, BadKey> {
        const EXPECTED: BadKey = BadKey::Form("PEM of a private key in PKCS #8");
        if let Some(hash) = algorithm.hmac() {
            Key::of_file(None, algorithm, bytes)?;
            let key = Private::Secret(hmac::Key::new(hash, bytes.trim_ascii_end()));
            return Ok(Signer { algorithm, key });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| EXPECTED)?;
        let wrong = |_| BadKey::Kind(algorithm.name());
        let key = match (algorithm, pem(text, "PRIVATE KEY")) {
            (Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512, der) => {
                let pair = match der {
                    Some(der) => RsaKeyPair::from_pkcs8(&der),
                    None => RsaKeyPair::from_der(&pem(text, "RSA PRIVATE KEY").ok_or(EXPECTED)?),
                };
                Private::Rsa(Box::new(pair.map_err(wrong)?))
            }
            (_, None) => return Err(EXPECTED),
            (Algorithm::EdDsa, Some(der)) => {
                Private::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(wrong)?)
            }
            (_, Some(der)) => {
                let kind = if algorithm == Algorithm::Es384 {
                    &signature::ECDSA_P384_SHA384_FIXED_SIGNING
                } else {
                    &signature::ECDSA_P256_SHA256_FIXED_SIGNING
                };
                let random = SystemRandom::new();
                Private::Ec(EcdsaKeyPair::from_pkcs8(kind, &der, &random).map_err(wrong)?)
            }
        };
        Ok(Signer { algorithm, key })
    }

    /// Signs a header and claims as they are.
    ///
    /// # Errors
    /// [`BadKey::Kind`] when the system has no randomness, or the key is of no use.
    pub fn sign_raw(&self, header: &[u8], claims: &[u8]) -> Result<String, BadKey> {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(signed.as_bytes())?;
        Ok(format!("{signed}.{}", encode(&signature)))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, BadKey> {
        let random = SystemRandom::new();
        let failed = |_| BadKey::Kind(self.algorithm.name());
        match &self.key {
            Private::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Private::Ed(key) => Ok(key.sign(message).as_ref().to_vec()),
            Private::Ec(key) => {
                key.sign(&random, message).map(|it| it.as_ref().to_vec()).map_err(failed)
            }
            Private::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match self.algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Makes a token of claims, naming its key if that has a name.
///
/// # Errors
/// As [`Signer::sign_raw`].
pub fn sign(signer: &Signer, key_id: Option<&str>, claims: &Value) -> Result<String, BadKey> {
    let mut header = json!({"alg": signer.algorithm.name(), "typ": "JWT"});
    if let (Some(id), Value::Object(header)) = (key_id, &mut header) {
        header.insert("kid".to_owned(), id.into());
    }
    signer.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes())
}
