//! Keys from files and from the network: makes an authority of a configuration, and follows a set of
//! keys that somebody else publishes.
//! # Invariants: what cannot be read or fetched changes nothing: the keys of before count on; what is
//! fetched is bounded in size and in time; no error repeats what a file holds.
//! # Not here: what keys are for (`auth`).

use crate::auth::{Authority, BadKey, Guard, Key, Rules, parse_key_set};
use crate::config::Auth;
use crate::config::auth::{AuthCertificate, AuthKey, AuthToken};
use crate::metrics::Counters;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Most bytes of a file with a key, or of a set of keys.
const BYTES_MAX: usize = 256 << 10;
/// How long fetching a set may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a token has named an unknown key.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A set is not fetched more often than this, whatever keys tokens name.
const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read.
    #[error("{key} is {path:?}, which cannot be read: {error}")]
    Unreadable {
        /// The setting.
        key: String,
        /// What it says.
        path: String,
        /// The system's words.
        error: io::Error,
    },
    /// A file holds no key that may be used.
    #[error("{key} is {path:?}, of which no key can be made: {bad}")]
    Bad {
        /// The setting.
        key: String,
        /// What it says.
        path: String,
        /// Why.
        bad: BadKey,
    },
    /// A URL is none, or of a scheme that is not spoken.
    #[error("auth.jwks is {0:?}, which is neither a file nor a URL of https")]
    Url(String),
    /// A set could not be fetched.
    #[error("{0}")]
    Fetch(String),
}

/// Makes an authority of a configuration: reads every file that it names, but fetches nothing.
///
/// # Errors
/// [`KeyError`], with the setting that is to be mended.
pub fn authority(config: &Auth) -> Result<Authority, KeyError> {
    if config.is_open() {
        return Ok(Authority::open());
    }
    let keys = config.keys.iter().enumerate().map(|(index, key)| read_key(index, key));
    let authority = Authority::of(Rules {
        audience: config.audience.clone().unwrap_or_default(),
        issuer: config.issuer.clone(),
        leeway_s: config.leeway.as_secs(),
        keys: keys.collect::<Result<_, _>>()?,
        certificates: config.certificates.iter().map(AuthCertificate::to_certified).collect(),
        tokens: config.tokens.iter().map(AuthToken::to_token).collect(),
        anonymous: config.anonymous.grants(),
        revocations_max: config.revocations_max,
    });
    match KeySet::of(config)? {
        Some(KeySet { place: Place::File(path), .. }) => {
            Ok(authority.with_fetched(read_set(&path)?))
        }
        _ => Ok(authority),
    }
}

fn read_key(index: usize, key: &AuthKey) -> Result<Key, KeyError> {
    let setting = || format!("auth.keys[{index}].file");
    let bytes = read_file(setting, &key.file)?;
    Key::of_file(key.id.as_deref().map(Into::into), key.algorithm, &bytes)
        .map_err(|bad| KeyError::Bad { key: setting(), path: key.file.clone(), bad })
}

fn read_set(path: &str) -> Result<Vec<Key>, KeyError> {
    let bytes = read_file(|| "auth.jwks".to_owned(), path)?;
    parse_key_set(&bytes).map_err(|bad| KeyError::Bad {
        key: "auth.jwks".to_owned(),
        path: path.to_owned(),
        bad,
    })
}

fn read_file(key: impl Fn() -> String, path: &str) -> Result<Vec<u8>, KeyError> {
    let read = || {
        let mut bytes = Vec::new();
        let limit = BYTES_MAX as u64 + 1;
        std::fs::File::open(Path::new(path))?.take(limit).read_to_end(&mut bytes)?;
        if bytes.len() > BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {BYTES_MAX} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|error| KeyError::Unreadable { key: key(), path: path.to_owned(), error })
}

/// A set of keys that somebody else publishes.
#[derive(Clone, Debug)]
pub struct KeySet {
    place: Place,
    refresh: Duration,
}

#[derive(Clone, Debug)]
enum Place {
    File(String),
    Url(Uri, Option<Arc<ClientConfig>>),
}

impl KeySet {
    /// The set that a configuration names, if it names one.
    ///
    /// # Errors
    /// [`KeyError`] when it can never be had.
    pub fn of(config: &Auth) -> Result<Option<KeySet>, KeyError> {
        let Some(jwks) = &config.jwks else { return Ok(None) };
        let refresh = config.jwks_refresh;
        let place = if jwks.contains("://") {
            let uri: Uri = jwks.parse().map_err(|_| KeyError::Url(jwks.clone()))?;
            let tls = match uri.scheme_str() {
                Some("https") => Some(Arc::new(tls(config.jwks_ca.as_deref())?)),
                Some("http") => None,
                _ => return Err(KeyError::Url(jwks.clone())),
            };
            uri.host().ok_or_else(|| KeyError::Url(jwks.clone()))?;
            Place::Url(uri, tls)
        } else {
            Place::File(jwks.clone())
        };
        Ok(Some(KeySet { place, refresh }))
    }

    /// Whether it comes from the network, and not from a file.
    pub fn is_fetched(&self) -> bool {
        matches!(self.place, Place::Url(..))
    }

    /// Gets the set again and again, for ever, and has the guard use it.
    pub async fn follow(self, guard: Arc<Guard>, counters: Arc<Counters>) {
        // A file was read at the start already.
        let mut due = match self.place {
            Place::File(_) => self.refresh,
            Place::Url(..) => Duration::ZERO,
        };
        loop {
            let unknown = guard.unknown_keys();
            wait(due, || guard.unknown_keys() != unknown).await;
            due = self.refresh;
            match self.get().await {
                Ok(keys) => {
                    counters.key_sets.increment();
                    tracing::debug!(keys = keys.len(), "read the set of keys");
                    guard.replace_fetched(keys);
                }
                Err(error) => {
                    counters.key_sets_failed.increment();
                    tracing::warn!(%error, "the set of keys could not be had, the last one counts on");
                    due = due.min(FETCH_INTERVAL_MIN);
                }
            }
        }
    }

    async fn get(&self) -> Result<Vec<Key>, KeyError> {
        match &self.place {
            Place::File(path) => read_set(path),
            Place::Url(uri, tls) => {
                let fetching = Box::pin(fetch(uri, tls.as_ref()));
                let body = tokio::time::timeout(FETCH_TIMEOUT, fetching).await;
                let body =
                    body.map_err(|_| KeyError::Fetch(format!("no answer in {FETCH_TIMEOUT:?}")))?;
                let body = body.map_err(KeyError::Fetch)?;
                parse_key_set(&body).map_err(|bad| KeyError::Fetch(bad.to_string()))
            }
        }
    }
}

/// Waits until a time has passed, or, not too soon, until there is a reason not to.
async fn wait(time: Duration, is_wanted: impl Fn() -> bool) {
    let mut waited = Duration::ZERO;
    while waited < time {
        let step = LOOK_INTERVAL.min(time.saturating_sub(waited));
        tokio::time::sleep(step).await;
        waited += step;
        if waited >= FETCH_INTERVAL_MIN && is_wanted() {
            return;
        }
    }
}

async fn fetch(uri: &Uri, tls: Option<&Arc<ClientConfig>>) -> Result<Bytes, String> {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| error.to_string())?;
    let Some(tls) = tls else { return Box::pin(ask(uri, stream)).await };
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let stream = connector.connect(name, stream).await;
    Box::pin(ask(uri, stream.map_err(|error| disbelief(bare, &error))?)).await
}

/// Why the server of a URL is not believed to be that.
fn disbelief(host: &str, error: &io::Error) -> String {
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) = reason {
        return format!(
            "the certificate of {host} leads to no authority that is trusted: `auth.jwks_ca` names \
             those that are, and without it those count that browsers trust"
        );
    }
    format!("TLS with {host}: {error}")
}

async fn ask<S>(uri: &Uri, stream: S) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header("accept", "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        // A redirection may lead anywhere: it is not followed.
        if answer.status() != StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        body = &mut answer => body,
        _ = &mut connection => answer.await,
    }
}

fn tls(ca: Option<&str>) -> Result<ClientConfig, KeyError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let setting = || "auth.jwks_ca".to_owned();
        let pem = read_file(setting, path)?;
        let bad = || KeyError::Bad {
            key: setting(),
            path: path.to_owned(),
            bad: BadKey::Form("PEM of certificates"),
        };
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(|_| bad())?).map_err(|_| bad())?;
        }
        if roots.is_empty() {
            return Err(bad());
        }
    } else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| KeyError::Fetch(error.to_string()))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}
