//! Clients of the ingress that are known by the names in their certificates.
//! # Not here: who gets through the handshake (`tls`), what names are read (`auth::certificate`).

use crate::certificates::{Keyring, client, dial};
use crate::client::Client;
use crate::harness::{Broker, run};
use crate::pipe::Pipe;
use fanfare::auth::{Hash, Revocation};
use fanfare::clock::Clock;
use fanfare::topics::message::Wire;
use rcgen::{CertificateParams, DnType, SanType};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

const TOKEN: &str = "an-api-token-of-the-tests-0123456789";

/// A broker whose ingress demands certificates, with these rules.
fn settings(keyring: &Keyring, rules: &str) -> String {
    let hash = Hash::of(TOKEN);
    let token = format!("[[auth.tokens]]\nname = 'svc'\nsha256 = '{hash}'\npublish = ['other']\n");
    format!("{}{rules}{token}", keyring.mutual_settings())
}

const RULES: &str = "[[auth.certificates]]\nname = 'feeder.example'\npublish = ['ticker.*']\n\
                     [[auth.certificates]]\nname = 'old feeder'\nsubscribe = ['ticker.>']\n";

/// A connection of somebody whose certificate says so.
async fn connect(
    broker: &Broker,
    keyring: &Keyring,
    change: impl FnOnce(&mut CertificateParams),
) -> Client {
    let shown = keyring.clients.issue_with(change);
    let connector = client(&keyring.authority.pem(), rustls::ALL_VERSIONS, Some(shown));
    let stream = dial(&connector, broker.ingress()).await.expect("a handshake");
    Client::begin(broker, Wire::TcpProto, Pipe::of_tls(stream)).await
}

fn of_host(params: &mut CertificateParams) {
    params.subject_alt_names = vec![SanType::DnsName("feeder.example".try_into().expect("plain"))];
    params.distinguished_name.push(DnType::CommonName, "old feeder");
}

fn of_common_name(params: &mut CertificateParams) {
    params.subject_alt_names.clear();
    params.distinguished_name.push(DnType::CommonName, "old feeder");
}

async fn publish(client: &mut Client, topic: &str) -> Value {
    let answer = client.ask(&json!({"id": 7, "publish": {"topic": topic, "data": 1}})).await;
    match answer["error"]["name"].clone() {
        Value::Null => json!(answer["published"].is_object()),
        name => name,
    }
}

#[test]
fn a_certificate_says_who_a_client_of_the_ingress_is_and_what_it_may_do() {
    let keyring = Keyring::new();
    run(async {
        let broker = Broker::start(&settings(&keyring, RULES));
        let mut feeder = connect(&broker, &keyring, of_host).await;
        assert_eq!(publish(&mut feeder, "ticker.AAPL").await, true);
        assert_eq!(publish(&mut feeder, "other").await, "notAllowed");
        let hello = feeder.ask(&json!({"id": 1, "connect": {}})).await;
        assert!(hello["connected"]["expiresMs"].is_null(), "{hello}");

        let mut old = connect(&broker, &keyring, of_common_name).await;
        assert_eq!(publish(&mut old, "ticker.AAPL").await, "notAllowed");
        let reply = old.ask(&json!({"id": 1, "subscribe": {"topic": "ticker.>"}})).await;
        assert!(reply["subscribed"].is_object(), "{reply}");
        assert_eq!(publish(&mut feeder, "ticker.AAPL").await, true);
        old.hear().await;

        // Whom no rule names shows a token, as without certificates.
        let mut nobody = connect(&broker, &keyring, |_| ()).await;
        assert_eq!(publish(&mut nobody, "other").await, "unauthenticated");
        drop((feeder, old, nobody));
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn a_session_that_is_resumed_is_that_of_the_same_certificate() {
    let keyring = Keyring::new();
    run(async {
        let broker = Broker::start(&settings(&keyring, RULES));
        for version in [&TLS12, &TLS13] {
            let shown = keyring.clients.issue_with(of_host);
            let connector = client(&keyring.authority.pem(), &[version], Some(shown));
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let stream = dial(&connector, broker.ingress()).await.expect("a handshake");
                kinds.push(stream.get_ref().1.handshake_kind());
                let pipe = Pipe::of_tls(stream);
                let mut feeder = Client::begin(&broker, Wire::TcpProto, pipe).await;
                assert_eq!(publish(&mut feeder, "ticker.AAPL").await, true);
            }
            assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{version:?}");
        }
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn a_token_takes_the_place_of_a_certificate() {
    let keyring = Keyring::new();
    run(async {
        let broker = Broker::start(&settings(&keyring, RULES));
        let mut feeder = connect(&broker, &keyring, of_host).await;
        let hello = feeder.ask(&json!({"id": 1, "connect": {"token": TOKEN}})).await;
        assert!(hello["connected"].is_object(), "{hello}");
        assert_eq!(publish(&mut feeder, "other").await, true);
        assert_eq!(publish(&mut feeder, "ticker.AAPL").await, "notAllowed");
        drop(feeder);
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn a_name_that_is_revoked_or_counts_no_more_ends_its_connections() {
    let keyring = Keyring::new();
    run(async {
        let mut broker = Broker::start(&settings(&keyring, RULES));
        let mut feeder = connect(&broker, &keyring, of_host).await;
        assert_eq!(publish(&mut feeder, "ticker.AAPL").await, true);
        let more = RULES.replace("['ticker.*']", "['other']");
        broker.reload(&settings(&keyring, &more)).await.expect("sound");
        assert_eq!(publish(&mut feeder, "ticker.AAPL").await, "notAllowed");
        assert_eq!(publish(&mut feeder, "other").await, true);

        let now = Clock::start().now();
        let feeders = Revocation::Subject("feeder.example".into());
        broker.guard().revoke(feeders.clone(), now.wall_ms / 1000 + 600, now).expect("room");
        broker.review();
        assert_eq!(feeder.ending().await.code, 4503);
        // The next one is recognized, and turned away at once.
        let next = connect(&broker, &keyring, of_host).await;
        assert_eq!(next.ending().await.code, 4503);
        assert!(broker.guard().lift(&feeders));

        let mut feeder = connect(&broker, &keyring, of_host).await;
        // Its handshake is done here before the broker knows of it.
        assert_eq!(publish(&mut feeder, "other").await, true);
        broker.reload(&settings(&keyring, "")).await.expect("sound");
        assert_eq!(feeder.ending().await.code, 4503);
        assert_eq!(broker.drain().await, 0);
    });
}
