//! Authorities, certificates and clients for tests of TLS. None of it is the broker's own code.
//! # Not here: what is tested with them (`tls`, `arrivals`).

use crate::harness::within;
use crate::pipe::Pipe;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority that signs certificates for 127.0.0.1.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.der())
    }

    /// A certificate and its key, both PEM.
    pub(crate) fn issue(&self) -> (String, String) {
        self.issue_with(|_| ())
    }

    /// The same, which says something else.
    pub(crate) fn issue_with(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST)));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
    }
}

/// What others call PEM, though on one line.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

/// A folder with a server's files, the authority behind them, and another one for clients.
pub(crate) struct Keyring {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) clients: Authority,
}

impl Keyring {
    pub(crate) fn new() -> Keyring {
        let folder = tempfile::tempdir().expect("a folder");
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        let keyring = Keyring { folder, authority, clients };
        keyring.renew();
        keyring.put("ca.pem", &keyring.authority.pem());
        keyring.put("clients.pem", &keyring.clients.pem());
        keyring
    }

    /// Writes a new certificate and key for the server.
    pub(crate) fn renew(&self) {
        let (certificate, key) = self.authority.issue();
        self.put("server.pem", &certificate);
        self.put("server.key", &key);
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// The settings of a broker that speaks TLS.
    pub(crate) fn settings(&self) -> String {
        let [certificate, key] = ["server.pem", "server.key"].map(|name| self.path(name));
        let (certificate, key) = (certificate.display(), key.display());
        format!("tls.certificate = '{certificate}'\ntls.key = '{key}'\n")
    }

    /// The same, where clients of the ingress show a certificate.
    pub(crate) fn mutual_settings(&self) -> String {
        let clients = self.path("clients.pem");
        format!("{}tls.client_ca = '{}'\n", self.settings(), clients.display())
    }

    /// A server with the certificate that is in the folder.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let read = |name: &str| std::fs::read(self.path(name)).expect("a file");
        let certificate = CertificateDer::from_pem_slice(&read("server.pem")).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(&read("server.key")).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        TlsAcceptor::from(Arc::new(config.expect("a pair")))
    }

    /// A client that believes our authority.
    pub(crate) fn client(&self) -> TlsConnector {
        client(&self.authority.pem(), rustls::ALL_VERSIONS, None)
    }

    /// A connection over TLS.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Pipe {
        Pipe::of_tls(dial(&self.client(), address).await.expect("a handshake"))
    }
}

/// A client that believes an authority, and may show a certificate.
pub(crate) fn client(
    authority: &str,
    versions: &[&'static SupportedProtocolVersion],
    shown: Option<(String, String)>,
) -> TlsConnector {
    TlsConnector::from(Arc::new(client_config(authority, versions, shown)))
}

pub(crate) fn client_config(
    authority: &str,
    versions: &[&'static SupportedProtocolVersion],
    shown: Option<(String, String)>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM");
    roots.add(root).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(vec![certificate], key).expect("a pair")
        }
    }
}

/// Connects and shakes hands.
pub(crate) async fn dial(
    client: &TlsConnector,
    address: SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = within("connecting", TcpStream::connect(address)).await.expect("a connection");
    shake(client, stream).await
}

/// Shakes hands.
pub(crate) async fn shake(
    client: &TlsConnector,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    within("a handshake", client.connect(name, stream)).await
}
