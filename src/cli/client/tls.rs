//! TLS as a client: who is believed to be the server, and who we are to it.
//! # Invariants: a server is believed only if its certificate is signed by a known authority and
//! bears the name that was asked for; there is no switch that turns this off.
//! # Not here: what is said (`websocket`, `tcp`, `http`).

use super::super::args::TrustArgs;
use super::super::endpoint::{Endpoint, Security};
use super::ClientError;
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

/// Begins TLS on a connection, where the address says so.
pub(super) async fn begin(
    endpoint: &Endpoint,
    stream: TcpStream,
    trust: &TrustArgs,
) -> Result<Stream, ClientError> {
    if endpoint.security == Security::Plain {
        return Ok(Box::new(stream));
    }
    let fail = |problem: String| ClientError::Connect { address: endpoint.authority(), problem };
    let config = config(trust).map_err(fail)?;
    let name = ServerName::try_from(endpoint.host.clone());
    let name = name.map_err(|_| fail(format!("{} is no name for TLS", endpoint.host)))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    Ok(Box::new(stream.map_err(|error| fail(format!("TLS: {error}")))?))
}

/// What a client demands of servers and shows to them.
pub(in crate::cli) fn config(trust: &TrustArgs) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(trust)?);
    let (Some(certificate), Some(key)) = (&trust.client_certificate, &trust.client_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let certificates = read_certificates(certificate).map_err(|error| error.to_string())?;
    let key = read_key(key).map_err(|error| error.to_string())?;
    builder.with_client_auth_cert(certificates, key).map_err(|error| error.to_string())
}

fn roots(trust: &TrustArgs) -> Result<RootCertStore, String> {
    let path = trust.ca.clone().or_else(system_roots);
    let path = path.ok_or("this system has no list of authorities: name one with --ca FILE")?;
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
