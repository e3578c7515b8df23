//! Who may do what: keys of tokens, API tokens, and what everybody may do without one.
//! # Invariants: no secret stands in a configuration; it names files that hold them, and hashes.
//! # Not here: reading those files (`keys`), what the rules mean (`crate::auth`).

use super::form::{As, Choice, Count, Filters, Off, OneOf, Or, Sha256, Span, Switch, Words};
use crate::auth::{Algorithm, ApiToken, Certified, Grants, Hash};
use crate::topics::name::TopicFilter;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who may do what. Left as it is, everybody may do everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// The `aud` that every JWT must name, or `"off"`. Needed where there are keys. Default `"off"`.
    /// Without it a token that was made for another service would be taken here.
    #[serde(with = "As::<Or<Off, Words>>")]
    pub audience: Option<String>,
    /// The `iss` that every JWT must have, or `"off"`. Default `"off"`.
    #[serde(with = "As::<Or<Off, Words>>")]
    pub issuer: Option<String>,
    /// How far the clocks of whoever makes tokens may be off: for so long a JWT counts before its
    /// `nbf` and after its `exp`. Default 30s.
    /// So much longer counts a token that should have ended.
    #[serde(with = "As::<Span>")]
    pub leeway: Duration,
    /// A set of public keys, as a file or as a URL of https, or `"off"`. Default `"off"`.
    #[serde(with = "As::<Or<Off, Words>>")]
    pub jwks: Option<String>,
    /// How often that set is read again; a token with an unknown key makes it sooner. Default 5m.
    /// Each time costs a request; until then a key that was taken back still counts.
    #[serde(with = "As::<Span>")]
    pub jwks_refresh: Duration,
    /// PEM of the certificates that may vouch for the server of that URL, or `"off"` for those that
    /// browsers trust. Default `"off"`.
    #[serde(with = "As::<Or<Off, Words>>")]
    pub jwks_ca: Option<String>,
    /// Revocations at once. Default 10000.
    /// Each costs its name, and one more look when a token is shown.
    #[serde(with = "As::<Count>")]
    pub revocations_max: usize,
    /// What everybody may do who shows no token. Default nothing, where anything else is set here.
    pub anonymous: Anonymous,
    /// Keys of JWTs. Default none.
    /// Those that fit a token's algorithm and name are tried one after another.
    pub keys: Vec<AuthKey>,
    /// Names in the certificates of clients of the ingress, see `tls.client_ca`. Default none.
    /// They are compared one after another when somebody connects there.
    pub certificates: Vec<AuthCertificate>,
    /// API tokens of services. Default none.
    /// A token that is shown is compared with each, so that the time tells nothing.
    pub tokens: Vec<AuthToken>,
}

/// Who may operate the broker over the admin listener, and what it tells there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The SHA-256 of the token that operators show, as `fanfare token hash` prints it, or `"off"`.
    /// Default `"off"`: then whoever is on this machine may operate the broker, if `listen.admin` is
    /// a loopback address, and nobody if it is not.
    #[serde(with = "As::<Or<Off, Sha256>>")]
    pub token: Option<Hash>,
    /// Show the dashboard the broker's numbers, to be read only, on `listen.public` too: to whoever
    /// shows the token, or without one to this machine. Default false; `fanfare demo` sets it.
    #[serde(with = "As::<Switch>")]
    pub dashboard: bool,
    /// How old the numbers of `/metrics` may be. Default 1s.
    /// They are added up at most so often, however many scrape.
    #[serde(with = "As::<Span>")]
    pub metrics_age: Duration,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { token: None, dashboard: false, metrics_age: Duration::from_secs(1) }
    }
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            audience: None,
            issuer: None,
            leeway: Duration::from_secs(30),
            jwks: None,
            jwks_refresh: Duration::from_mins(5),
            jwks_ca: None,
            revocations_max: 10_000,
            anonymous: Anonymous::default(),
            keys: Vec::new(),
            certificates: Vec::new(),
            tokens: Vec::new(),
        }
    }
}

impl Auth {
    /// Whether nothing is said: everybody may do everything.
    pub fn is_open(&self) -> bool {
        *self
            == Auth {
                leeway: self.leeway,
                revocations_max: self.revocations_max,
                ..Auth::default()
            }
    }

    /// Whether somebody can prove who they are.
    pub fn has_proof(&self) -> bool {
        self.has_keys() || !self.tokens.is_empty()
    }

    /// Whether JWTs can be verified.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || self.jwks.is_some()
    }
}

/// What everybody may do who shows no token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Anonymous {
    /// Filters that they may subscribe to. Default none.
    /// Each is looked at when they subscribe.
    #[serde(with = "As::<Filters>")]
    pub subscribe: Vec<TopicFilter>,
    /// Filters that they may publish to. Default none.
    /// Each is looked at for every message that they publish.
    #[serde(with = "As::<Filters>")]
    pub publish: Vec<TopicFilter>,
}

impl Anonymous {
    /// The same for whoever asks.
    pub fn grants(&self) -> Grants {
        grants(&self.subscribe, &self.publish)
    }
}

/// A key that JWTs are verified with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthKey {
    /// The `kid` by which tokens name it, or `"off"`. Default `"off"`.
    #[serde(with = "As::<Or<Off, Words>>", default)]
    pub id: Option<String>,
    /// The one algorithm that it is for.
    #[serde(with = "As::<OneOf<Algorithm>>")]
    pub algorithm: Algorithm,
    /// The file with the secret, or with the PEM of the public key.
    #[serde(with = "As::<Words>")]
    pub file: String,
}

/// An API token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthToken {
    /// Whose it is.
    #[serde(with = "As::<Words>")]
    pub name: String,
    /// Its SHA-256, as `fanfare token hash` prints it.
    #[serde(with = "As::<Sha256>")]
    pub sha256: Hash,
    /// Filters that it may subscribe to. Default none.
    #[serde(with = "As::<Filters>", default)]
    pub subscribe: Vec<TopicFilter>,
    /// Filters that it may publish to. Default none.
    #[serde(with = "As::<Filters>", default)]
    pub publish: Vec<TopicFilter>,
}

impl AuthToken {
    /// A token that may do nothing.
    pub fn new(name: &str, sha256: Hash) -> AuthToken {
        AuthToken { name: name.to_owned(), sha256, subscribe: Vec::new(), publish: Vec::new() }
    }

    /// The same for whoever asks.
    pub fn to_token(&self) -> ApiToken {
        let grants = grants(&self.subscribe, &self.publish);
        ApiToken { name: self.name.clone(), hash: self.sha256, grants }
    }
}

/// A name that certificates bear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthCertificate {
    /// A DNS name, e-mail address or URI among the alternative names of a certificate, or its common
    /// name if it has none of those.
    #[serde(with = "As::<Words>")]
    pub name: String,
    /// Filters that whoever shows it may subscribe to. Default none.
    #[serde(with = "As::<Filters>", default)]
    pub subscribe: Vec<TopicFilter>,
    /// Filters that whoever shows it may publish to. Default none.
    #[serde(with = "As::<Filters>", default)]
    pub publish: Vec<TopicFilter>,
}

impl AuthCertificate {
    /// A name that may do nothing.
    pub fn new(name: &str) -> AuthCertificate {
        AuthCertificate { name: name.to_owned(), subscribe: Vec::new(), publish: Vec::new() }
    }

    /// The same for whoever asks.
    pub fn to_certified(&self) -> Certified {
        Certified { name: self.name.clone(), grants: grants(&self.subscribe, &self.publish) }
    }
}

fn grants(subscribe: &[TopicFilter], publish: &[TopicFilter]) -> Grants {
    Grants {
        subscribe: subscribe.iter().cloned().collect(),
        publish: publish.iter().cloned().collect(),
    }
}

impl Choice for Algorithm {
    const ALL: &[Algorithm] = Algorithm::ALL;

    fn name(self) -> &'static str {
        Algorithm::name(self)
    }
}
