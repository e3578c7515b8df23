//! TLS over real sockets: everything that is said in plain text is said there too, certificates are
//! checked and changed, and whoever fails costs little and is counted.
//! # Not here: limits on those who connect (`arrivals`), the command line (`tls_client`).

use crate::certificates::{Authority, Keyring, client, client_config, dial, shake};
use crate::client::{Client, WIRES};
use crate::harness::{Broker, config, run, with_broker, within};
use crate::http::{self, Answer};
use crate::pipe::{Pipe, narrow};
use fanfare::reason::Reason;
use fanfare::server::Server;
use fanfare::topics::message::Wire;
use rcgen::{CertificateParams, date_time_ymd};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

fn address(broker: &Broker, wire: Wire) -> SocketAddr {
    if wire == Wire::TcpProto { broker.ingress() } else { broker.public() }
}

async fn connect(broker: &Broker, keyring: &Keyring, wire: Wire) -> Client {
    let pipe = keyring.connect(address(broker, wire)).await;
    Client::begin(broker, wire, pipe).await
}

/// So many connections must have been refused for this; they are counted when they have ended.
async fn refused(broker: &Broker, reason: Reason, times: u64) {
    let count = broker.until(&series(reason), |count| count >= times).await;
    assert_eq!(count, times, "{reason:?}");
}

fn series(reason: Reason) -> String {
    format!("fanfare_arrivals_refused_total{{reason=\"{}\"}}", reason.name())
}

#[test]
fn every_wire_says_over_tls_what_it_says_in_plain_text() {
    let keyring = Keyring::new();
    let settings = format!("{}websocket.compression = true", keyring.settings());
    with_broker(&settings, async |broker| {
        let deflated = [Wire::WebSocketJson.deflated(), Wire::WebSocketProto.deflated()];
        for (round, wire) in (1..).zip(WIRES.into_iter().chain(deflated)) {
            let mut subscriber = connect(broker, &keyring, wire).await;
            let mut publisher = connect(broker, &keyring, wire).await;
            subscriber.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
            let publish = json!({"topic": "t", "text": format!("over {wire:?}")});
            let reply = publisher.ask(&json!({"id": 2, "publish": publish})).await;
            assert_eq!(reply["published"]["offset"], round, "{reply}");
            let event = subscriber.hear().await;
            assert_eq!(event["message"]["text"], format!("over {wire:?}"), "{event}");
        }
        assert_eq!(broker.count("fanfare_tls_handshakes").await, 0, "none is under way");
        let done = broker.count("fanfare_tls_handshakes_total").await;
        assert_eq!(done, 2 * (WIRES.len() as u64 + 2));
    });
}

#[test]
fn large_messages_and_many_small_ones_arrive_whole_and_in_order() {
    let keyring = Keyring::new();
    let settings = format!(
        "{}limits.message_bytes_max = \"1 MiB\"\nlimits.outbound_bytes_max = \"8 MiB\"\n\
         limits.resume_bytes_max = \"1 MiB\"",
        keyring.settings()
    );
    with_broker(&settings, async |broker| {
        for wire in [Wire::WebSocketJson, Wire::WebSocketProtoBatch, Wire::TcpProto] {
            let topic = format!("t.{wire:?}");
            let mut subscriber = connect(broker, &keyring, wire).await;
            let mut publisher = connect(broker, &keyring, wire).await;
            subscriber.ask(&json!({"id": 1, "subscribe": {"topic": topic}})).await;
            // Records hold 16 KiB, and so much is encrypted at once.
            let sizes = [1, 16_383, 16_384, 16_385, 32_768, 32_769, 300_000, 900_000];
            for (offset, size) in (1..).zip(sizes) {
                let publish = json!({"topic": topic, "text": "x".repeat(size)});
                let reply = publisher.ask(&json!({"id": 2, "publish": publish})).await;
                assert_eq!(reply["published"]["offset"], offset, "{size}");
                let text = subscriber.hear().await["message"]["text"].take();
                assert_eq!(text.as_str().map(str::len), Some(size));
            }
            let publish = |n: u64| json!({"id": n, "publish": {"topic": topic, "data": n}});
            let commands: Vec<_> = (1..=3_000).map(publish).collect();
            publisher.say_together(&commands).await;
            for n in 1..=3_000 {
                assert_eq!(publisher.hear().await["published"]["offset"], sizes.len() + n);
                assert_eq!(subscriber.hear().await["message"]["data"], n);
            }
        }
    });
}

#[test]
fn a_reader_that_stops_is_bounded_and_told_what_it_missed() {
    let keyring = Keyring::new();
    let settings = format!(
        "{}limits.message_bytes_max = \"16 KiB\"\nlimits.outbound_bytes_max = \"64 KiB\"\n\
         limits.resume_bytes_max = \"64 KiB\"",
        keyring.settings()
    );
    with_broker(&settings, async |broker| {
        for (round, wire) in (0..).zip(WIRES) {
            let topic = format!("t.{wire:?}");
            let stream = narrow(address(broker, wire)).await;
            let stream = shake(&keyring.client(), stream).await.expect("a handshake");
            let mut slow = Client::begin(broker, wire, Pipe::of_tls(stream)).await;
            let subscribe = json!({"topic": topic, "overflow": "gap"});
            slow.ask(&json!({"id": 1, "subscribe": subscribe})).await;
            let mut publisher = connect(broker, &keyring, Wire::TcpProto).await;
            let publish = json!({"topic": topic, "text": "x".repeat(8 << 10)});
            for _ in 1..=200 {
                publisher.ask(&json!({"id": 2, "publish": publish})).await;
            }
            broker.until("fanfare_dropped_total", |dropped| dropped > round * 100).await;
            assert_eq!(broker.count("fanfare_blocked_connections").await, 1);
            // The queue, and what is encrypted and was not taken.
            let waiting = broker.count("fanfare_outbound_bytes").await;
            assert!((1..=(64 << 10) + (40 << 10)).contains(&waiting), "{waiting} bytes wait");

            let mut last = 0;
            let gap = loop {
                let event = slow.hear().await;
                if event["message"].is_null() {
                    break event;
                }
                last += 1;
                assert_eq!(event["message"]["offset"], last, "out of order");
            };
            assert_eq!(gap["gap"]["from"], last + 1, "{gap}");
            assert_eq!(gap["gap"]["to"], 200, "{gap}");
            broker.until("fanfare_blocked_connections", |blocked| blocked == 0).await;
            broker.until("fanfare_outbound_bytes", |bytes| bytes == 0).await;
        }
    });
}

#[test]
fn http_is_served_and_ends_as_tls_should() {
    let keyring = Keyring::new();
    let settings = format!("{}tls.admin = true", keyring.settings());
    run(async {
        let server = Server::start(&config(&settings), None).expect("a broker");
        let public = server.addresses.public;
        let admin = server.addresses.admin.expect("an admin side");
        for (address, path) in [(public, "/"), (admin, "/healthz"), (public, "/nothing")] {
            let mut stream = dial(&keyring.client(), address).await.expect("a handshake");
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut answer = Vec::new();
            // An end that was not announced is an error here.
            within("the answer", stream.read_to_end(&mut answer)).await.expect("a proper end");
            assert!(answer.starts_with(b"HTTP/1.1 "), "{path}");
        }
        let mut pipe = keyring.connect(public).await;
        let body = json!({"topic": "t", "text": "x".repeat(50_000)}).to_string();
        for offset in 1..=3 {
            pipe.send(http::publish_request(public, &body).as_bytes()).await;
            assert_eq!(Answer::read(&mut pipe).await.json()["offset"], offset);
        }
        drop(pipe);
        assert_eq!(within("the drain", server.drain()).await, 0);
    });
}

#[test]
fn whoever_has_finished_speaking_still_hears_the_answers_and_a_proper_end() {
    let keyring = Keyring::new();
    with_broker(&keyring.settings(), async |broker| {
        let mut stream = dial(&keyring.client(), broker.ingress()).await.expect("a handshake");
        // Three commands for which protobuf takes two fields: an id, and a ping.
        let pings: Vec<u8> = (1..=3).flat_map(|id| [0, 0, 0, 4, 0x08, id, 0x52, 0]).collect();
        stream.write_all(&pings).await.expect("written");
        stream.shutdown().await.expect("told");
        let mut answers = Vec::new();
        within("the answers", stream.read_to_end(&mut answers)).await.expect("a proper end");
        let mut rest = answers.as_slice();
        let mut count = 0;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            rest = &after[u32::from_be_bytes(*length) as usize..];
            count += 1;
        }
        assert_eq!(count, 3, "{answers:02x?}");
    });
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_sessions_are_resumed() {
    let keyring = Keyring::new();
    with_broker(&keyring.settings(), async |broker| {
        for version in [&TLS12, &TLS13] {
            let mut config = client_config(&keyring.authority.pem(), &[version], None);
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let connector = TlsConnector::from(Arc::new(config));
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let stream = dial(&connector, broker.public()).await.expect("a handshake");
                assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
                let pipe = Pipe::of_tls(stream);
                let mut client = Client::begin(broker, Wire::WebSocketJson, pipe).await;
                client.ask(&json!({"id": 1, "ping": {}})).await;
            }
        }
    });
}

#[test]
fn what_is_older_or_is_no_tls_is_refused_and_counted() {
    let keyring = Keyring::new();
    with_broker(&keyring.settings(), async |broker| {
        // A client of TLS 1.1, whose record says 1.0 as it should.
        let mut hello = vec![0x16, 3, 1, 0, 61, 1, 0, 0, 57, 3, 2];
        hello.extend([7; 32]);
        // No session, two ciphers, no compression, and one extension: what it can verify.
        hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
        hello.extend([0, 12, 0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1]);
        let mut pipe = Pipe::connect(broker.public()).await;
        pipe.send(&hello).await;
        let alert = pipe.rest().await;
        assert_eq!(alert, [0x15, 3, 3, 0, 2, 2, 70], "not the alert of a protocol version");
        refused(broker, Reason::BadTls, 1).await;

        for address in [broker.public(), broker.ingress()] {
            let mut pipe = Pipe::connect(address).await;
            pipe.send(http::publish_request(address, "{}").as_bytes()).await;
            let answer = pipe.rest().await;
            assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        }
        refused(broker, Reason::BadTls, 3).await;
        // Whoever just looks whether somebody listens.
        drop(Pipe::connect(broker.public()).await);
        broker.until(&series(Reason::Unfinished), |count| count == 1).await;

        let mut config = client_config(&keyring.authority.pem(), &[&TLS13], None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        dial(&connector, broker.public()).await.expect_err("HTTP/2 is not spoken");
        broker.until(&series(Reason::BadTls), |count| count == 4).await;
        connect(broker, &keyring, Wire::WebSocketJson).await;
    });
}

#[test]
fn a_client_that_does_not_know_the_authority_refuses_the_server() {
    let keyring = Keyring::new();
    with_broker(&keyring.settings(), async |broker| {
        let stranger = client(&Authority::new("strangers").pem(), rustls::ALL_VERSIONS, None);
        let error = dial(&stranger, broker.public()).await.expect_err("it is not believed");
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        broker.until(&series(Reason::BadTls), |count| count == 1).await;
    });
}

#[test]
fn the_ingress_takes_only_clients_with_a_certificate_where_that_is_demanded() {
    let keyring = Keyring::new();
    with_broker(&keyring.mutual_settings(), async |broker| {
        let authority = keyring.authority.pem();
        let welcome = Some(keyring.clients.issue());
        let strange = Some(Authority::new("strangers").issue());
        for version in [&TLS12, &TLS13] {
            let known = client(&authority, &[version], welcome.clone());
            let stream = dial(&known, broker.ingress()).await.expect("a handshake");
            let mut publisher = Client::begin(broker, Wire::TcpProto, Pipe::of_tls(stream)).await;
            publisher.ask(&json!({"id": 1, "publish": {"topic": "t", "data": 1}})).await;

            for shown in [None, strange.clone()] {
                let before = broker.count(&series(Reason::BadCertificate)).await;
                let unknown = client(&authority, &[version], shown);
                // With TLS 1.3 a client learns of it only when it reads.
                if let Ok(mut stream) = dial(&unknown, broker.ingress()).await {
                    let mut rest = Vec::new();
                    let read = within("the end", stream.read_to_end(&mut rest)).await;
                    assert!(read.is_err(), "no alert");
                }
                let after = broker.until(&series(Reason::BadCertificate), |now| now > before).await;
                assert_eq!(after, before + 1);
            }
        }
        // Whoever reads pages shows none.
        connect(broker, &keyring, Wire::WebSocketJson).await;
        assert_eq!(broker.count("fanfare_published_total").await, 2);
    });
}

#[test]
fn a_new_certificate_is_shown_to_those_who_come_and_disturbs_nobody() {
    let keyring = Keyring::new();
    run(async {
        let server = Server::start(&config(&keyring.settings()), None).expect("a broker");
        let [public, ingress, admin] = [
            server.addresses.public,
            server.addresses.ingress.expect("an ingress"),
            server.addresses.admin.expect("an admin side"),
        ];
        let broker = Broker::elsewhere(public, ingress, admin);
        let connector = keyring.client();
        let shown = async || {
            let stream = dial(&connector, public).await.expect("a handshake");
            let (_, connection) = stream.get_ref();
            let kind = connection.handshake_kind();
            (connection.peer_certificates().expect("a certificate")[0].to_vec(), kind)
        };
        let mut old = connect(&broker, &keyring, Wire::WebSocketJson).await;
        old.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
        let (first, _) = shown().await;
        let expiry = "fanfare_tls_certificate_expiry_timestamp_seconds";
        // What makes the certificates has them end in the year 4096.
        assert_eq!(broker.count(expiry).await, 67_090_118_400);

        // A new certificate without its key changes nothing, and says why.
        let until = |params: &mut CertificateParams| params.not_after = date_time_ymd(2050, 1, 1);
        let (certificate, key) = keyring.authority.issue_with(until);
        keyring.put("server.pem", &certificate);
        let error = server.reload_certificates().expect_err("the key is another one's");
        assert!(error.to_string().contains("does not belong to"), "{error}");
        assert_eq!(shown().await.0, first);
        assert_eq!(broker.count(expiry).await, 67_090_118_400);

        keyring.put("server.key", &key);
        server.reload_certificates().expect("they fit together");
        let (second, kind) = shown().await;
        assert_ne!(second, first);
        assert_eq!(broker.count(expiry).await, 2_524_608_000);
        assert_eq!(kind, Some(HandshakeKind::Full), "a session of before was resumed");

        let mut new = connect(&broker, &keyring, Wire::TcpProto).await;
        new.ask(&json!({"id": 1, "publish": {"topic": "t", "data": 1}})).await;
        assert_eq!(old.hear().await["message"]["data"], 1);
        drop((old, new));
        assert_eq!(within("the drain", server.drain()).await, 0);
    });
}

#[test]
fn a_broker_whose_files_do_not_fit_does_not_start_and_says_why() {
    let keyring = Keyring::new();
    let (certificate, key) = keyring.authority.issue();
    #[rustfmt::skip]
    let cases = [
        ("server.pem", None, "server.pem: No such file"),
        ("server.key", None, "server.key: No such file"),
        ("server.pem", Some("hello"), "server.pem has no certificate in PEM"),
        ("server.key", Some(certificate.as_str()), "server.key has no key in PEM"),
        ("server.key", Some(key.as_str()), "does not belong to the first certificate in"),
        ("server.pem", Some("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"), "server.pem cannot be used"),
        ("clients.pem", Some("hello"), "clients.pem has no certificate in PEM"),
    ];
    run(async {
        for (name, text, words) in cases {
            let keyring = Keyring::new();
            match text {
                None => std::fs::remove_file(keyring.path(name)).expect("a file"),
                Some(text) => keyring.put(name, text),
            }
            let started = Server::start(&config(&keyring.mutual_settings()), None);
            let error = started.expect_err(words).to_string();
            assert!(error.starts_with("cannot speak TLS: ") && error.contains(words), "{error}");
        }
    });
}

#[test]
fn a_handshake_that_is_not_done_in_time_is_given_up() {
    let keyring = Keyring::new();
    let settings = format!("{}limits.handshake_timeout = \"200ms\"", keyring.settings());
    with_broker(&settings, async |broker| {
        let mut silent = Pipe::connect(broker.public()).await;
        let mut begun = Pipe::connect(broker.ingress()).await;
        begun.send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await;
        // Byte after byte does not make it longer.
        let mut crawling = Pipe::connect(broker.public()).await;
        crawling.send(&[0x16, 3, 1, 2, 0]).await;
        let mut drip = crawling.writer();
        let dripping = tokio::spawn(async move {
            while drip.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        silent.rest().await;
        begun.rest().await;
        crawling.rest().await;
        within("the end of the drip", dripping).await.expect("it did not panic");
        refused(broker, Reason::TooLate, 3).await;
        // And the head of a request has its own time after that.
        let mut quiet = keyring.connect(broker.public()).await;
        quiet.rest().await;
        refused(broker, Reason::TooLate, 4).await;
        connect(broker, &keyring, Wire::WebSocketJson).await;
    });
}

#[test]
fn more_handshakes_at_once_than_there_may_be_are_cut_off() {
    let keyring = Keyring::new();
    let settings = format!("{}limits.tls_handshakes_max = 1", keyring.settings());
    with_broker(&settings, async |broker| {
        let mut holding = Pipe::connect(broker.public()).await;
        holding.send(&[0x16]).await;
        broker.until("fanfare_tls_handshakes", |count| count == 1).await;
        dial(&keyring.client(), broker.public()).await.expect_err("there is no place");
        refused(broker, Reason::TooManyHandshakes, 1).await;
        drop(holding);
        broker.until("fanfare_tls_handshakes", |count| count == 0).await;
        connect(broker, &keyring, Wire::WebSocketJson).await;
    });
}

#[test]
fn records_that_cannot_be_read_end_a_connection_and_nobody_elses() {
    let keyring = Keyring::new();
    let settings = format!("{}tls.ingress = false\n", keyring.settings());
    with_broker(&settings, async |broker| {
        let mut publisher = Client::connect(broker, Wire::TcpProto).await;
        let mut subscriber = connect(broker, &keyring, Wire::WebSocketJson).await;
        subscriber.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
        let mut victim = connect(broker, &keyring, Wire::WebSocketJson).await;
        victim.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
        victim.pipe().send_beneath(&[&[0x17, 3, 3, 0, 30][..], &[0x55; 30]].concat());
        victim.pipe().rest().await;
        let open = "fanfare_connections{wire=\"websocket_json\"}";
        broker.until(open, |connections| connections == 1).await;
        publisher.ask(&json!({"id": 2, "publish": {"topic": "t", "data": 1}})).await;
        assert_eq!(subscriber.hear().await["message"]["data"], 1);
    });
}
