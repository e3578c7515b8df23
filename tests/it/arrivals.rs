//! Those who come and are not connections yet: how many, how fast, for how long, from where, and what
//! is believed of a proxy.
//! # Not here: TLS handshakes (`tls`), connections that are there (`limits`).

use crate::certificates::{Keyring, shake};
use crate::client::Client;
use crate::harness::{Broker, Bystander, run, with_broker, within};
use crate::http::{self, Answer};
use crate::pipe::Pipe;
use crate::process::Process;
use crate::socket::{Socket, must_accept, request};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn series(reason: Reason) -> String {
    format!("fanfare_arrivals_refused_total{{reason=\"{}\"}}", reason.name())
}

/// So many connections must have been refused for this; they are counted when they have ended.
async fn refused(broker: &Broker, reason: Reason, times: u64) {
    let count = broker.until(&series(reason), |count| count >= times).await;
    assert_eq!(count, times, "{reason:?}");
}

/// Asks for a WebSocket and keeps the connection.
async fn upgrade(broker: &Broker, headers: &str) -> (Answer, Pipe) {
    let mut pipe = Pipe::connect(broker.public()).await;
    pipe.try_send(request(broker.public(), headers).as_bytes()).await;
    (Answer::read(&mut pipe).await, pipe)
}

// === Before the first request ===

#[test]
fn those_who_say_nothing_take_no_place_from_those_who_do() {
    with_broker("limits.pending_max = 3", async |broker| {
        // Connections are not among those who are waited for.
        let mut bystander = Bystander::join(broker).await;
        bystander.is_fine().await;
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        broker.until("fanfare_pending_connections", |count| count == 0).await;
        let silent = [
            Pipe::connect(broker.public()).await,
            Pipe::connect(broker.ingress()).await,
            Pipe::connect(broker.public()).await,
        ];
        broker.until("fanfare_pending_connections", |count| count == 3).await;
        let (answer, mut pipe) = upgrade(broker, "").await;
        answer.must_refuse(Reason::TooManyPending);
        assert_eq!(answer.header("retry-after"), Some("1"));
        pipe.end().await;
        let ending = Client::connect(broker, Wire::TcpProto).await.ending().await;
        assert_eq!(ending.name, "tooManyPending");
        refused(broker, Reason::TooManyPending, 2).await;
        bystander.is_fine().await;
        client.ask(&json!({"id": 1, "ping": {}})).await;

        drop(silent);
        broker.until("fanfare_pending_connections", |count| count == 0).await;
        Client::connect(broker, Wire::WebSocketProto).await;
    });
}

#[test]
fn a_first_request_that_does_not_come_whole_in_time_ends_its_connection() {
    let settings = "limits.handshake_timeout = \"200ms\"\nlimits.pending_timeout = \"400ms\"";
    with_broker(settings, async |broker| {
        let mut spoken = Client::connect(broker, Wire::TcpProto).await;
        spoken.ask(&json!({"id": 1, "ping": {}})).await;
        let silent = Client::connect(broker, Wire::TcpProto).await;
        let mut begun = Client::connect(broker, Wire::TcpProto).await;
        let ping = begun.spell(r#"{"id":1,"ping":{}}"#);
        begun.pipe().send(&ping[..ping.len() - 1]).await;
        for late in [silent, begun] {
            assert_eq!(late.ending().await.name, "tooLate");
        }
        let mut head = Pipe::connect(broker.public()).await;
        head.send(b"GET /ws HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
        head.rest().await;
        refused(broker, Reason::TooLate, 3).await;
        // Whoever has said what it wants may be silent.
        spoken.ask(&json!({"id": 2, "ping": {}})).await;
    });
}

#[test]
fn a_head_that_comes_byte_by_byte_does_not_take_longer_than_all_may() {
    let settings = "limits.handshake_timeout = \"300ms\"\nlimits.pending_timeout = \"300ms\"";
    with_broker(settings, async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let mut crawling: Vec<Pipe> = Vec::new();
        let mut drips = Vec::new();
        for _ in 0..50 {
            let mut pipe = Pipe::connect(broker.public()).await;
            pipe.send(b"GET /ws HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
            let mut drip = pipe.writer();
            drips.push(tokio::spawn(async move {
                while drip.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }));
            crawling.push(pipe);
        }
        bystander.is_fine().await;
        for mut pipe in crawling {
            pipe.rest().await;
        }
        for drip in drips {
            within("the end of the drip", drip).await.expect("it did not panic");
        }
        refused(broker, Reason::TooLate, 50).await;
        assert_eq!(broker.count("fanfare_pending_connections").await, 0);
        bystander.is_fine().await;
    });
}

#[test]
fn a_body_that_does_not_come_ends_the_connection_too() {
    let settings = "limits.handshake_timeout = \"200ms\"\nlimits.pending_timeout = \"200ms\"";
    with_broker(settings, async |broker| {
        let mut pipe = Pipe::connect(broker.public()).await;
        let request = http::publish_request(broker.public(), r#"{"topic":"t","text":"x"}"#);
        pipe.send(&request.as_bytes()[..request.len() - 1]).await;
        if let Some(answer) = Answer::try_read(&mut pipe).await {
            answer.must_refuse(Reason::BadRequest);
        }
        pipe.rest().await;
        assert_eq!(broker.count("fanfare_published_total").await, 0);
        broker.until("fanfare_pending_connections", |count| count == 0).await;
    });
}

#[test]
fn more_than_are_accepted_in_a_second_wait_and_are_served() {
    with_broker("limits.accept_rate = 20", async |broker| {
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(Client::connect(broker, Wire::WebSocketJson).await);
        }
        for client in &mut clients {
            client.ask(&json!({"id": 1, "ping": {}})).await;
        }
        assert!(broker.count("fanfare_accepts_delayed_total").await >= 10);
    });
}

#[test]
fn a_broker_without_files_tells_those_who_come_and_goes_on() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("few.toml");
        let any = "listen = { public = \"127.0.0.1:0\", ingress = \"127.0.0.1:0\", admin = \"127.0.0.1:0\" }";
        std::fs::write(&file, format!("shards = 2\n{any}\n[limits]\nconnections_max = 1000\n"))
            .expect("a file");
        let (_process, broker) = Process::serve_with_files(60, &file);
        let mut bystander = Bystander::join(&broker).await;
        let mut clients = Vec::new();
        // A number far above what fits, so that it ends if nobody is ever refused.
        for _ in 0..200 {
            let (answer, pipe) = upgrade(&broker, "").await;
            if answer.status != 101 {
                answer.must_refuse(Reason::NoFiles);
                assert_eq!(answer.header("retry-after"), Some("1"));
                break;
            }
            clients.push(Client::of(Socket::new(pipe), Wire::WebSocketJson));
        }
        assert!((10..60).contains(&clients.len()), "{} connections", clients.len());
        bystander.is_fine().await;
        clients.truncate(5);
        let welcome = async {
            loop {
                let mut pipe = Pipe::connect(broker.public()).await;
                pipe.try_send(request(broker.public(), "").as_bytes()).await;
                match Answer::try_read(&mut pipe).await {
                    Some(answer) if answer.status == 101 => return,
                    _ => {}
                }
            }
        };
        within("a file to be free", welcome).await;
        for client in &mut clients {
            client.ask(&json!({"id": 1, "ping": {}})).await;
        }
        broker.until(&series(Reason::NoFiles), |count| count > 0).await;
        bystander.is_fine().await;
    });
}

// === Who it is ===

const TRUSTED: &str = "listen.trusted_proxies = [\"127.0.0.0/8\"]\n";

/// A PROXY header of version 2 for this client.
fn proxy_header(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f".to_vec();
    header.extend(client);
    // Our address, both ports, and something that a proxy adds.
    header.extend([10, 0, 0, 1, 0x12, 0x67, 0, 80, 4, 0, 0]);
    header
}

async fn upgrade_behind(broker: &Broker, header: &[u8]) -> Option<Pipe> {
    let mut pipe = Pipe::connect(broker.public()).await;
    pipe.try_send(header).await;
    pipe.try_send(request(broker.public(), "").as_bytes()).await;
    let answer = Answer::try_read(&mut pipe).await?;
    must_accept(&answer, None);
    Some(pipe)
}

#[test]
fn a_proxy_header_says_who_it_is_and_each_address_has_its_rate() {
    let settings = format!(
        "{TRUSTED}listen.proxy_protocol = true\nlimits.address_rate = 1\nlimits.address_burst = 3"
    );
    with_broker(&settings, async |broker| {
        let (first, second) = (proxy_header([198, 51, 100, 1]), proxy_header([198, 51, 100, 2]));
        let mut pipes = Vec::new();
        for _ in 0..3 {
            pipes.push(upgrade_behind(broker, &first).await.expect("within the burst"));
        }
        assert!(upgrade_behind(broker, &first).await.is_none(), "more than its rate");
        refused(broker, Reason::TooManyFromAddress, 1).await;
        pipes.push(upgrade_behind(broker, &second).await.expect("another address"));
        // The proxy for itself, as for its health checks: it may as often as it likes.
        for _ in 0..5 {
            let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
            pipes.push(upgrade_behind(broker, local).await.expect("the proxy itself"));
        }
        for pipe in pipes {
            let mut client = Client::of(Socket::new(pipe), Wire::WebSocketJson);
            client.ask(&json!({"id": 1, "ping": {}})).await;
        }
        // One /64 is one client.
        let mut v6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8".to_vec();
        v6.extend([0; 32]);
        for (last, is_welcome) in [(1, true), (2, true), (3, true), (4, false)] {
            v6[31] = last;
            assert_eq!(upgrade_behind(broker, &v6).await.is_some(), is_welcome, "{last}");
        }
    });
}

#[test]
fn a_connection_without_a_proxy_header_is_cut_off_and_counted() {
    let settings =
        format!("{TRUSTED}listen.proxy_protocol = true\nlimits.handshake_timeout = \"200ms\"");
    with_broker(&settings, async |broker| {
        let mut version_1 = b"PROXY TCP4 198.51.100.1 10.0.0.1 4711 80\r\n".to_vec();
        version_1.extend(request(broker.public(), "").as_bytes());
        let mut long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
        long.extend([1; 100]);
        for bytes in [request(broker.public(), "").into_bytes(), version_1, long] {
            let mut pipe = Pipe::connect(broker.public()).await;
            pipe.try_send(&bytes).await;
            pipe.end().await;
        }
        refused(broker, Reason::BadProxyHeader, 3).await;
        for part in [0, 15, 20] {
            let mut pipe = Pipe::connect(broker.public()).await;
            pipe.send(&proxy_header([198, 51, 100, 1])[..part]).await;
            pipe.end().await;
        }
        refused(broker, Reason::TooLate, 3).await;
    });
    let settings = "listen.trusted_proxies = [\"192.0.2.1\"]\nlisten.proxy_protocol = true";
    with_broker(settings, async |broker| {
        let header = proxy_header([198, 51, 100, 1]);
        assert!(upgrade_behind(broker, &header).await.is_none(), "it is no trusted proxy");
        refused(broker, Reason::BadProxyHeader, 1).await;
    });
}

#[test]
fn a_proxy_header_stands_before_the_handshake() {
    let keyring = Keyring::new();
    let settings = format!("{TRUSTED}listen.proxy_protocol = true\n{}", keyring.settings());
    with_broker(&settings, async |broker| {
        let mut stream = TcpStream::connect(broker.public()).await.expect("a connection");
        stream.write_all(&proxy_header([198, 51, 100, 1])).await.expect("written");
        let stream = shake(&keyring.client(), stream).await.expect("a handshake");
        let mut client = Client::begin(broker, Wire::WebSocketJson, Pipe::of_tls(stream)).await;
        client.ask(&json!({"id": 1, "ping": {}})).await;
    });
}

#[test]
fn what_a_trusted_proxy_forwards_counts_and_what_a_client_writes_does_not() {
    let limits = "limits.address_rate = 1\nlimits.address_burst = 2\n";
    with_broker(&format!("{TRUSTED}{limits}"), async |broker| {
        let mut pipes = Vec::new();
        for forged in ["", "203.0.113.9, ", "127.0.0.1, ", "nonsense,"] {
            let header = format!("x-forwarded-for: {forged}198.51.100.1\r\n");
            let (answer, pipe) = upgrade(broker, &header).await;
            if pipes.len() < 2 {
                must_accept(&answer, None);
                pipes.push(pipe);
            } else {
                answer.must_refuse(Reason::TooManyFromAddress);
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
        }
        let refusals = "fanfare_handshakes_refused_total{reason=\"tooManyFromAddress\"}";
        assert_eq!(broker.count(refusals).await, 2);
        let (answer, _pipe) = upgrade(broker, "x-forwarded-for: 198.51.100.2\r\n").await;
        must_accept(&answer, None);
    });
    with_broker(limits, async |broker| {
        for _ in 0..5 {
            // Nobody is believed: this is 127.0.0.1, which may come as it likes.
            let (answer, _pipe) = upgrade(broker, "x-forwarded-for: 198.51.100.1\r\n").await;
            must_accept(&answer, None);
        }
    });
}

#[test]
fn an_address_has_as_many_connections_as_it_may_and_more_when_some_have_ended() {
    let settings = format!("{TRUSTED}limits.address_connections_max = 2");
    with_broker(&settings, async |broker| {
        let header = "x-forwarded-for: 198.51.100.1\r\n";
        let (answer, first) = upgrade(broker, header).await;
        must_accept(&answer, None);
        let (answer, _second) = upgrade(broker, header).await;
        must_accept(&answer, None);
        upgrade(broker, header).await.0.must_refuse(Reason::TooManyFromAddress);
        let (answer, _other) = upgrade(broker, "x-forwarded-for: 198.51.100.2\r\n").await;
        must_accept(&answer, None);
        drop(first);
        let welcome = async {
            loop {
                let (answer, _third) = upgrade(broker, header).await;
                if answer.status == 101 {
                    return;
                }
                answer.must_refuse(Reason::TooManyFromAddress);
            }
        };
        within("the place of the first", welcome).await;
    });
}
