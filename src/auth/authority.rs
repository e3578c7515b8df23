//! What a configuration says about who may do what: keys, API tokens and rules.
//! # Invariants: immutable; a change makes another one, and whoever asks sees the old or the new one
//! whole.
//! # Not here: swapping one for another, and revocation (`guard`).

use super::certificate::{self, Certified};
use super::fault::Fault;
use super::grants::Grants;
use super::identity::{Identity, Proof};
use super::jwt::{Claims, Unverified, look_into};
use super::key::Key;
use super::token::{ApiToken, Hash, TOKEN_BYTES_MAX};
use std::sync::Arc;

/// What a configuration says, beside the keys that were fetched.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The `aud` that a JWT must name.
    pub audience: String,
    /// The `iss` that it must have, if any.
    pub issuer: Option<String>,
    /// For how long a JWT counts before its `nbf` and after its `exp`, in seconds.
    pub leeway_s: u64,
    /// Keys of the configuration.
    pub keys: Vec<Key>,
    /// API tokens.
    pub tokens: Vec<ApiToken>,
    /// Names in the certificates of clients; the first that a certificate has decides.
    pub certificates: Vec<Certified>,
    /// What everybody may do who shows no token.
    pub anonymous: Grants,
    /// Most revocations at once.
    pub revocations_max: usize,
}

/// Says who shows a token, and what they may do.
#[derive(Clone, Debug)]
pub struct Authority {
    /// `None` where everybody may do everything.
    rules: Option<Arc<Rules>>,
    /// Keys that were fetched.
    fetched: Arc<[Key]>,
    anonymous: Option<Arc<Identity>>,
}

impl Authority {
    /// Lets everybody do everything.
    pub fn open() -> Authority {
        Authority { rules: None, fetched: Arc::default(), anonymous: None }
    }

    /// Lets nobody do anything that these rules do not say.
    pub fn of(rules: Rules) -> Authority {
        let grants = rules.anonymous.clone();
        let anonymous = (!grants.is_empty()).then(|| Arc::new(Identity::anonymous(grants)));
        Authority { rules: Some(Arc::new(rules)), fetched: Arc::default(), anonymous }
    }

    /// The same with other keys in place of those that were fetched.
    #[must_use]
    pub fn with_fetched(&self, keys: impl Into<Arc<[Key]>>) -> Authority {
        Authority { fetched: keys.into(), ..self.clone() }
    }

    /// The keys that were fetched.
    pub fn fetched(&self) -> &Arc<[Key]> {
        &self.fetched
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.rules.is_none()
    }

    /// Who somebody is who has shown no token; `None` where a token is needed.
    pub fn anonymous(&self) -> Option<&Arc<Identity>> {
        self.anonymous.as_ref()
    }

    /// The most revocations at once.
    pub fn revocations_max(&self) -> usize {
        self.rules.as_ref().map_or(0, |rules| rules.revocations_max)
    }

    /// Who shows this token, at a time in seconds since 1970.
    ///
    /// # Errors
    /// [`Fault`]; never [`Fault::Revoked`], which is not known here.
    pub fn authenticate(&self, token: &str, now_s: u64) -> Result<Identity, Fault> {
        let Some(rules) = &self.rules else { return Ok(Identity::anonymous(Grants::all())) };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        if token.contains('.') {
            return self.verify(rules, token, now_s);
        }
        let found = find_token(&rules.tokens, Hash::of(token)).ok_or(Fault::UnknownToken)?;
        Ok(of_token(found))
    }

    /// Who shows this certificate, in DER, which somebody else has verified; `None` if no rule names
    /// them.
    pub fn recognize(&self, certificate: &[u8]) -> Option<Identity> {
        let rules = self.rules.as_ref().filter(|rules| !rules.certificates.is_empty())?;
        let expires_s = certificate::expires_s(certificate)?;
        of_names(&rules.certificates, certificate::names(certificate).into(), expires_s)
    }

    /// Whether an identity still counts: who it rests on is still there. Gives another one where it
    /// may do something else now.
    ///
    /// # Errors
    /// [`Fault::UnknownKey`] or [`Fault::UnknownToken`] when it does not.
    pub fn renew(&self, identity: &Identity) -> Result<Option<Identity>, Fault> {
        let Some(rules) = &self.rules else { return Ok(None) };
        let now = match &identity.proof {
            Proof::None => match &self.anonymous {
                Some(anonymous) => Identity::clone(anonymous),
                None => return Err(Fault::UnknownToken),
            },
            Proof::Token(hash) => {
                of_token(find_token(&rules.tokens, *hash).ok_or(Fault::UnknownToken)?)
            }
            Proof::Certificate(names) => {
                let expires_s = identity.expires_s.unwrap_or_default();
                let found = of_names(&rules.certificates, Arc::clone(names), expires_s);
                found.ok_or(Fault::UnknownToken)?
            }
            Proof::Key(fingerprint) => {
                let mut keys = self.keys(rules);
                let is_there = keys.any(|key| key.fingerprint == *fingerprint);
                return if is_there { Ok(None) } else { Err(Fault::UnknownKey) };
            }
        };
        Ok((now != *identity).then_some(now))
    }

    fn verify(&self, rules: &Rules, token: &str, now_s: u64) -> Result<Identity, Fault> {
        let token = look_into(token)?;
        let key = self.key_of(rules, &token)?;
        let claims = token.verify(key)?;
        check(&claims, rules, now_s)?;
        let grants = claims.grants()?;
        Ok(Identity {
            subject: claims.sub.into(),
            token_id: claims.jti.map(Into::into),
            expires_s: Some(claims.exp.0),
            leeway_s: rules.leeway_s,
            grants,
            proof: Proof::Key(key.fingerprint),
        })
    }

    /// The key that a token names. One that names none was signed with the only key there is, or
    /// with the only one without a name.
    fn key_of<'k>(&'k self, rules: &'k Rules, token: &Unverified<'_>) -> Result<&'k Key, Fault> {
        let Some(id) = token.header.kid.as_deref() else {
            let mut nameless = self.keys(rules).filter(|key| key.id.is_none());
            let mut all = self.keys(rules);
            return match (nameless.next(), nameless.next(), all.next(), all.next()) {
                (Some(key), None, ..) | (None, None, Some(key), None) => Ok(key),
                _ => Err(Fault::UnknownKey),
            };
        };
        let named = |key: &&Key| key.id.as_deref() == Some(id);
        let found =
            self.keys(rules).find(|key| named(key) && key.algorithm.name() == token.header.alg);
        // Of the right name and for another algorithm is another fault.
        found.or_else(|| self.keys(rules).find(named)).ok_or(Fault::UnknownKey)
    }

    fn keys<'k>(&'k self, rules: &'k Rules) -> impl Iterator<Item = &'k Key> {
        rules.keys.iter().chain(self.fetched.iter())
    }
}

fn check(claims: &Claims, rules: &Rules, now_s: u64) -> Result<(), Fault> {
    if !claims.aud.has(&rules.audience) {
        return Err(Fault::Audience);
    }
    if rules.issuer.is_some() && claims.iss != rules.issuer {
        return Err(Fault::Issuer);
    }
    if claims.exp.0.saturating_add(rules.leeway_s) <= now_s {
        return Err(Fault::Expired);
    }
    if claims.nbf.is_some_and(|nbf| nbf.0 > now_s.saturating_add(rules.leeway_s)) {
        return Err(Fault::NotYet);
    }
    Ok(())
}

/// Finds a token by its hash: it looks at all of them, so that the time tells nothing.
fn find_token(tokens: &[ApiToken], hash: Hash) -> Option<&ApiToken> {
    tokens.iter().fold(None, |found, token| if token.hash.is(&hash) { Some(token) } else { found })
}

fn of_token(token: &ApiToken) -> Identity {
    Identity {
        subject: token.name.as_str().into(),
        proof: Proof::Token(token.hash),
        ..Identity::anonymous(token.grants.clone())
    }
}

/// Who has these names: what the first rule says that has one of them.
fn of_names(rules: &[Certified], names: Arc<[Box<str>]>, expires_s: u64) -> Option<Identity> {
    let rule = rules.iter().find(|rule| names.iter().any(|name| **name == *rule.name))?;
    Some(Identity {
        subject: rule.name.as_str().into(),
        expires_s: Some(expires_s),
        proof: Proof::Certificate(names),
        ..Identity::anonymous(rule.grants.clone())
    })
}
