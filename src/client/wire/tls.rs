//! TLS as a client: who is believed to be the server, and who we are to it.
//! # Invariants: a server is believed only if its certificate is signed by a known authority and
//! bears the name that was asked for; there is no switch that turns this off.
//! # Not here: what is said (`websocket`, `tcp`, `http`).

use super::Fault;
use crate::client::endpoint::{Endpoint, Security};
use crate::tls::credentials::{read_certificates, read_key};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where systems keep the authorities that everybody believes.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Bytes both ways, plain or encrypted.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection on which something can be said.
pub(super) type Stream = Box<dyn Duplex>;

/// Who is believed to be the server, and who we are to it: PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trust {
    /// The authorities that are believed; without it the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, and behind it those that lead to a root.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What a connection with TLS begins with.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the files that are needed, where the address says that there is to be TLS.
    pub(super) fn of(endpoint: &Endpoint, trust: &Trust) -> Result<Option<Tls>, Fault> {
        if endpoint.security == Security::Plain {
            return Ok(None);
        }
        let config = config(trust).map_err(Fault::Setup)?;
        let name = ServerName::try_from(endpoint.host.clone());
        let name =
            name.map_err(|_| Fault::Setup(format!("{} is no name for TLS", endpoint.host)))?;
        Ok(Some(Tls { connector: TlsConnector::from(Arc::new(config)), name }))
    }
}

/// Begins TLS on a connection, where there is to be any.
pub(super) async fn begin(
    endpoint: &Endpoint,
    tls: Option<&Tls>,
    stream: TcpStream,
) -> Result<Stream, Fault> {
    let Some(Tls { connector, name }) = tls else {
        return Ok(Box::new(stream));
    };
    let stream = connector.connect(name.clone(), stream).await;
    Ok(Box::new(stream.map_err(|error| Fault::Connect {
        address: endpoint.authority(),
        problem: format!("TLS: {error}"),
    })?))
}

/// What a client demands of servers and shows to them.
pub(crate) fn config(trust: &Trust) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(trust)?);
    let (Some(certificate), Some(key)) = (&trust.certificate, &trust.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let certificates = read_certificates(certificate).map_err(|error| error.to_string())?;
    let key = read_key(key).map_err(|error| error.to_string())?;
    builder.with_client_auth_cert(certificates, key).map_err(|error| error.to_string())
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let path = trust.ca.clone().or_else(system_roots);
    let path = path.ok_or("this system has no list of authorities: name a file that is one")?;
    let mut roots = RootCertStore::empty();
    let certificates = read_certificates(&path).map_err(|error| error.to_string())?;
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(format!("{} has no authority that can be used", path.display()));
    }
    Ok(roots)
}

fn system_roots() -> Option<PathBuf> {
    SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()).map(Path::to_path_buf)
}
