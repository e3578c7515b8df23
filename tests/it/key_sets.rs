//! Sets of keys that somebody else publishes: fetched over HTTP and TLS, rotated, and not to be had.
//! # Not here: what a set may hold (`auth::jwk`), tokens over real sockets (`identity`).

use crate::certificates::Keyring;
use crate::client::Client;
use crate::harness::{Broker, run};
use crate::process::Process;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use fanfare::auth::{Algorithm, Signer, sign};
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::net;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What a server has to say; `None` is an error of its own.
type Body = Arc<Mutex<Option<String>>>;

/// Serves one document, over TLS if it has a certificate, until the tests end: on a thread of its
/// own, because reading a log blocks that of a test.
fn document(body: &Body, tls: Option<TlsAcceptor>) -> u16 {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("an option");
    let port = listener.local_addr().expect("an address").port();
    let body = Arc::clone(body);
    std::thread::spawn(move || run(serve(listener, body, tls)));
    port
}

async fn serve(listener: net::TcpListener, body: Body, tls: Option<TlsAcceptor>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        match &tls {
            None => answer(stream, &body).await,
            // A client that does not believe us has gone.
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    answer(stream, &body).await;
                }
            }
        }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, body: &Body) {
    let mut request = [0; 1024];
    stream.read(&mut request).await.unwrap_or_default();
    let body = body.lock().expect("a body").clone();
    let status = if body.is_some() { "200 OK" } else { "500 Oops" };
    let body = body.unwrap_or_default();
    let len = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap_or_default();
    stream.shutdown().await.unwrap_or_default();
}

/// A set with the public key that these private keys of the tests sign for.
fn key_set(names: &[(&str, &str)]) -> String {
    let key = |(id, x): &(&str, &str)| json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x});
    json!({"keys": names.iter().map(key).collect::<Vec<_>>()}).to_string()
}

fn ed25519() -> (Signer, String) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/");
    let read = |name: &str| std::fs::read(format!("{folder}{name}")).expect("a key");
    let signer = Signer::of_file(Algorithm::EdDsa, &read("ed25519.pem")).expect("a signer");
    let public = String::from_utf8(read("ed25519.pub.pem")).expect("PEM");
    let body: String = public.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(body).expect("base64");
    (signer, BASE64_URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]))
}

/// Whether a token that this key has signed lets somebody in.
async fn is_taken(broker: &Broker, signer: &Signer, id: &str) -> bool {
    let claims = json!({"sub": "alice", "aud": "tests", "exp": 9_000_000_000_u64,
        "fanfare": {"subscribe": ["a"]}});
    let token = sign(signer, Some(id), &claims).expect("signed");
    let mut client = Client::connect(broker, Wire::WebSocketJson).await;
    let answer: Value = client.ask(&json!({"id": 1, "connect": {"token": token}})).await;
    answer["connected"].is_object()
}

/// Waits until the set has been fetched anew, and so often that none of before is on its way.
async fn until_fetched(broker: &Broker) {
    let sets = "fanfare_key_sets_total";
    let fetched = broker.count(sets).await;
    broker.until(sets, |count| count > fetched + 1).await;
}

/// Keys come from there, others take their place, and a server that fails changes nothing.
async fn follow(settings: &str, body: &Body) {
    let (signer, x) = ed25519();
    *body.lock().expect("a body") = Some(key_set(&[("one", &x)]));
    let broker = Broker::start(settings);
    let shown = async |id: &str| is_taken(&broker, &signer, id).await;
    broker.until("fanfare_key_sets_total", |count| count > 0).await;
    assert!(shown("one").await && !shown("two").await);
    *body.lock().expect("a body") = Some(key_set(&[("two", &x)]));
    until_fetched(&broker).await;
    assert!(shown("two").await && !shown("one").await);
    for broken in [None, Some("{".to_owned()), Some("x".repeat(300_000))] {
        *body.lock().expect("a body") = broken;
        let failed = broker.count("fanfare_key_sets_failed_total").await;
        broker.until("fanfare_key_sets_failed_total", |count| count > failed + 1).await;
        assert!(shown("two").await);
    }
    assert_eq!(broker.drain().await, 0);
}

fn settings(scheme: &str, port: u16, more: &str) -> String {
    let url = format!("{scheme}://127.0.0.1:{port}/keys");
    format!("[auth]\naudience = 'tests'\njwks = '{url}'\njwks_refresh = '1s'\n{more}")
}

fn authority(path: &Path) -> String {
    format!("jwks_ca = '{}'\n", path.display())
}

#[test]
fn keys_are_fetched_rotate_and_outlive_a_server_that_fails() {
    run(async {
        let body = Body::default();
        let port = document(&body, None);
        follow(&settings("http", port, ""), &body).await;
    });
}

#[test]
fn keys_are_fetched_over_tls_from_a_server_that_a_private_authority_vouches_for() {
    run(async {
        let (keyring, body) = (Keyring::new(), Body::default());
        let port = document(&body, Some(keyring.acceptor()));
        follow(&settings("https", port, &authority(&keyring.path("ca.pem"))), &body).await;
    });
}

#[test]
fn a_server_of_keys_that_no_trusted_authority_vouches_for_is_not_believed() {
    run(async {
        let (signer, x) = ed25519();
        let (keyring, body) = (Keyring::new(), Body::default());
        *body.lock().expect("a body") = Some(key_set(&[("one", &x)]));
        let port = document(&body, Some(keyring.acceptor()));
        let file = keyring.path("fanfare.toml");
        // Neither those that browsers trust nor another private one.
        for more in [String::new(), authority(&keyring.path("clients.pem"))] {
            std::fs::write(&file, settings("https", port, &more)).expect("a file");
            let path = file.to_string_lossy();
            let (process, broker) =
                Process::serve_with("127.0.0.1:0", "127.0.0.1:0", &["--config", &path]);
            let line = process.line("the set of keys could not be had, the last one counts on");
            let error = line["error"].as_str().expect("why");
            let words = "the certificate of 127.0.0.1 leads to no authority that is trusted";
            assert!(error.contains(words) && error.contains("auth.jwks_ca"), "{error}");
            assert!(!is_taken(&broker, &signer, "one").await);
            assert_eq!(broker.count("fanfare_key_sets_total").await, 0);
        }
    });
}

#[test]
fn a_server_of_keys_with_the_certificate_of_another_is_not_believed() {
    run(async {
        let (keyring, body) = (Keyring::new(), Body::default());
        let port = document(&body, Some(keyring.acceptor()));
        let file = keyring.path("fanfare.toml");
        let text = settings("https", port, &authority(&keyring.path("ca.pem")));
        std::fs::write(&file, text.replace("127.0.0.1", "localhost")).expect("a file");
        let path = file.to_string_lossy();
        let (process, broker) =
            Process::serve_with("127.0.0.1:0", "127.0.0.1:0", &["--config", &path]);
        let line = process.line("the set of keys could not be had, the last one counts on");
        let error = line["error"].as_str().expect("why");
        assert!(error.contains("localhost") && error.contains("not valid for name"), "{error}");
        assert_eq!(broker.count("fanfare_key_sets_total").await, 0);
    });
}
