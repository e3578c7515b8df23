//! Who we are to those who speak TLS to us: a certificate, its key, and who may prove who they are.
//! Owns the files and what was last read from them.
//! # Invariants: what is in force is whole and fits together; a new certificate replaces it only
//! after all of it was found sound, and disturbs no connection that is there.
//! # Not here: handshakes (`listen`), when to read anew (`server`).

use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most bytes of a file with certificates or a key.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the files are, all of them PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Our certificate, and behind it those that lead to a root.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs the certificates of clients, where those are demanded.
    pub client_ca: Option<PathBuf>,
}

/// What a listener demands of those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// HTTP/1.1, and no certificate.
    Nothing,
    /// A certificate, if [`Paths::client_ca`] says who signs them.
    Certificate,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCredentials {
    /// A file cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// The system's words, or those for what is not PEM.
        problem: String,
    },
    /// A file has nothing of what it is for.
    #[error("{} has no {what} in PEM: it should have a line -----BEGIN {label}-----", path.display())]
    Empty {
        /// Which one.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// How that begins.
        label: &'static str,
    },
    /// The key is that of another certificate.
    #[error(
        "the key in {} does not belong to the first certificate in {}: give the two that were made \
         together, the server's own certificate first", key.display(), certificate.display()
    )]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// Something in a file cannot be used.
    #[error("{} cannot be used: {problem}", path.display())]
    Unusable {
        /// Which one.
        path: PathBuf,
        /// The words of the TLS library.
        problem: String,
    },
}

/// The certificate in force, for listeners of both kinds.
#[derive(Debug)]
pub struct Credentials {
    current: Mutex<Current>,
}

/// What is made of one reading of the files.
#[derive(Clone, Debug)]
pub struct Current {
    paths: Paths,
    /// Our own, and behind it those that lead to a root.
    certificates: Vec<CertificateDer<'static>>,
    open: Arc<ServerConfig>,
    demanding: Arc<ServerConfig>,
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(paths: Paths) -> Result<Credentials, BadCredentials> {
        let current = Mutex::new(Current::read(paths)?);
        Ok(Credentials { current })
    }

    /// Reads the files anew. Connections that are there go on as they are; those to come see what is
    /// in the files now. Sessions of before cannot be resumed, so that nobody whose certificate is
    /// no longer accepted comes back by one.
    ///
    /// # Errors
    /// What is wrong with them; then nothing has changed.
    pub fn reload(&self) -> Result<(), BadCredentials> {
        let paths = self.current.lock().paths.clone();
        self.put(Current::read(paths)?);
        Ok(())
    }

    /// Puts into force what was read, perhaps from other files, as [`Credentials::reload`] does.
    pub fn put(&self, current: Current) {
        *self.current.lock() = current;
    }

    /// Our certificate, as DER.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.current.lock().certificates.first().cloned()
    }

    /// What the next handshake begins with.
    pub fn current(&self, demand: Demand) -> Arc<ServerConfig> {
        let current = self.current.lock();
        Arc::clone(match demand {
            Demand::Nothing => &current.open,
            Demand::Certificate => &current.demanding,
        })
    }
}

impl Current {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(paths: Paths) -> Result<Current, BadCredentials> {
        let certificates = read_certificates(&paths.certificate)?;
        let mut open = server_config(&paths, certificates.clone(), None)?;
        open.alpn_protocols = vec![b"http/1.1".to_vec()];
        let roots = paths.client_ca.as_deref().map(read_roots).transpose()?;
        let demanding = server_config(&paths, certificates.clone(), roots)?;
        Ok(Current { paths, certificates, open: Arc::new(open), demanding: Arc::new(demanding) })
    }
}

fn server_config(
    paths: &Paths,
    certificates: Vec<CertificateDer<'static>>,
    clients: Option<(PathBuf, RootCertStore)>,
) -> Result<ServerConfig, BadCredentials> {
    let key = read_key(&paths.key)?;
    let unusable =
        |path: &Path, problem: String| BadCredentials::Unusable { path: path.to_owned(), problem };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&paths.certificate, error.to_string()))?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((path, roots)) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let verifier = verifier.map_err(|error| unusable(&path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(certificates, key);
    let mut config = config.map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => BadCredentials::Mismatch {
            certificate: paths.certificate.clone(),
            key: paths.key.clone(),
        },
        Error::InvalidCertificate(_) => unusable(&paths.certificate, error.to_string()),
        error => unusable(&paths.key, error.to_string()),
    })?;
    // Who comes back brings the session along, encrypted by a key of ours: nothing is kept here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer =
        ring::Ticketer::new().map_err(|error| unusable(&paths.key, error.to_string()))?;
    Ok(config)
}

/// The roots in a file, and which file that is.
fn read_roots(path: &Path) -> Result<(PathBuf, RootCertStore), BadCredentials> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| BadCredentials::Unusable {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
    }
    Ok((path.to_owned(), roots))
}

/// The certificates in a file.
///
/// # Errors
/// It cannot be read, or there is none in it.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadCredentials> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| not_pem(path, &error))?;
    if certificates.is_empty() {
        let (what, label) = ("certificate", "CERTIFICATE");
        return Err(BadCredentials::Empty { path: path.to_owned(), what, label });
    }
    Ok(certificates)
}

/// The first key in a file.
///
/// # Errors
/// It cannot be read, or there is none in it.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, BadCredentials> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let (what, label) = ("key", "PRIVATE KEY");
            BadCredentials::Empty { path: path.to_owned(), what, label }
        }
        error => not_pem(path, &error),
    })
}

fn not_pem(path: &Path, error: &pem::Error) -> BadCredentials {
    BadCredentials::Unreadable { path: path.to_owned(), problem: error.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, BadCredentials> {
    let unreadable =
        |problem: String| BadCredentials::Unreadable { path: path.to_owned(), problem };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
