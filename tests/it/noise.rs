//! Bytes that nobody meant: random ones, and good ones gone wrong, on every port. The broker stays,
//! nobody else notices, and no shard panics.
//! # Not here: single violations and what they are told (`corpus`, `ingress`).

use crate::client::{Client, WIRES, length_delimited};
use crate::harness::{Broker, Bystander, Dice, with_broker};
use crate::http;
use crate::pipe::Pipe;
use crate::socket::{BINARY, FIN, Socket, TEXT, frame, request};
use crate::spelling;
use fanfare::dialect::schema;
use fanfare::topics::message::Wire;
use prost::Message as _;
use serde_json::{Value, json};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Connections per test.
const ROUNDS: usize = 120;

/// Commands of every kind, good ones.
fn commands() -> Vec<Value> {
    let place = json!({"topic": "n.a", "epoch": "AAAAAAAAAAAAAAAAAAAAAA", "offset": 3});
    let since = json!({"epoch": "AAAAAAAAAAAAAAAAAAAAAA", "offset": 3});
    vec![
        json!({"id": 1, "connect": {}}),
        json!({"id": 2, "subscribe": {"topic": "n.*", "positions": [place], "snapshot": true}}),
        json!({"id": 3, "subscribe": {"topic": "n.a", "since": since, "overflow": "disconnect"}}),
        json!({"id": 4, "publish": {"topic": "n.a", "data": {"x": [1, 2, {}]}, "key": "k"}}),
        json!({"id": 5, "publish": {"topic": "n.b", "text": "ä😀", "idempotencyKey": "i"}}),
        json!({"id": 6, "publish": {"topic": "n.b", "base64": "AAEC"}}),
        json!({"id": 7, "history": {"topic": "n.a", "limit": 3}}),
        json!({"id": 8, "unsubscribe": {"topic": "n.a"}}),
        json!({"id": 9, "ping": {}}),
    ]
}

/// Changes a few bytes, takes some out, doubles some, or cuts the end off.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(5) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + dice.below(8)).min(bytes.len());
                bytes.drain(at..end);
            }
            2 => {
                let again: Vec<u8> = bytes[at..].iter().copied().take(dice.below(40)).collect();
                bytes.splice(at..at, again);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }
}

/// Sends bytes in a few pieces and leaves, after a close and an end or without.
async fn throw(mut pipe: Pipe, bytes: &[u8], dice: &mut Dice) {
    let cut = dice.below(bytes.len() + 1);
    pipe.try_send(&bytes[..cut]).await;
    pipe.try_send(&bytes[cut..]).await;
    if dice.below(2) == 0 {
        pipe.finish();
        pipe.rest().await;
    }
}

/// Throws what `make` makes at a port, with a bystander who must not notice.
async fn storm(
    broker: &Broker,
    seed: u64,
    connect: impl AsyncFn(&Broker) -> Pipe,
    make: impl Fn(&mut Dice) -> Vec<u8>,
) {
    let mut bystander = Bystander::join(broker).await;
    let mut dice = Dice::new(seed);
    for round in 0..ROUNDS {
        println!("round {round}");
        let bytes = make(&mut dice);
        throw(connect(broker).await, &bytes, &mut dice).await;
        if round % 10 == 0 {
            bystander.is_fine().await;
        }
    }
    bystander.is_fine().await;
    let answer = http::publish(broker.public(), r#"{"topic":"n.a","text":"after"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // Whatever was thrown, nobody is left: only the bystander's two.
    drop(bystander);
    for wire in WIRES {
        let open = format!("fanfare_connections{{wire=\"{}\"}}", wire.name());
        broker.until(&open, |open| open == 0).await;
    }
}

async fn public(broker: &Broker) -> Pipe {
    Pipe::connect(broker.public()).await
}

async fn ingress(broker: &Broker) -> Pipe {
    Pipe::connect(broker.ingress()).await
}

async fn admin(broker: &Broker) -> Pipe {
    Pipe::connect(broker.admin()).await
}

#[test]
fn random_bytes_on_any_port_do_no_harm() {
    with_broker("", async |broker| {
        let make = |dice: &mut Dice| {
            let count = dice.below(600);
            dice.bytes(count)
        };
        storm(broker, 1, public, make).await;
        storm(broker, 2, ingress, make).await;
        storm(broker, 3, admin, make).await;
    });
}

#[test]
fn random_bytes_on_an_open_web_socket_do_no_harm() {
    with_broker("", async |broker| {
        for (seed, name) in [(4, "fanfare.v1.json"), (5, "fanfare.v1.proto")] {
            let connect = async |broker: &Broker| Socket::open(broker, Some(name)).await.pipe;
            storm(broker, seed, connect, |dice| {
                let count = dice.below(600);
                dice.bytes(count)
            })
            .await;
        }
    });
}

#[test]
fn frames_gone_wrong_do_no_harm() {
    with_broker("", async |broker| {
        let connect = async |broker: &Broker| Socket::open(broker, None).await.pipe;
        storm(broker, 6, connect, |dice| {
            let commands = commands().into_iter();
            let mut bytes: Vec<u8> =
                commands.flat_map(|c| frame(FIN | TEXT, c.to_string().as_bytes())).collect();
            mutate(&mut bytes, dice);
            bytes
        })
        .await;
    });
}

#[test]
fn commands_gone_wrong_in_good_frames_do_no_harm() {
    with_broker("limits.bad_commands_max = 1000", async |broker| {
        let texts = |dice: &mut Dice| {
            let mut bytes = Vec::new();
            for command in commands() {
                let mut text = command.to_string().into_bytes();
                mutate(&mut text, dice);
                // A text that is not UTF-8 would end the connection.
                let text = String::from_utf8_lossy(&text).into_owned();
                bytes.extend(frame(FIN | TEXT, text.as_bytes()));
            }
            bytes
        };
        let connect = async |broker: &Broker| Socket::open(broker, None).await.pipe;
        storm(broker, 7, connect, texts).await;

        let protos = |dice: &mut Dice| -> Vec<Vec<u8>> {
            let mutated = |command| {
                let mut bytes = spelling::command(command).encode_to_vec();
                mutate(&mut bytes, dice);
                bytes
            };
            commands().into_iter().map(mutated).collect()
        };
        let name = Some("fanfare.v1.proto");
        let connect = async |broker: &Broker| Socket::open(broker, name).await.pipe;
        storm(broker, 8, connect, |dice| {
            protos(dice).iter().flat_map(|bytes| frame(FIN | BINARY, bytes)).collect()
        })
        .await;
        storm(broker, 9, ingress, |dice| {
            protos(dice).iter().flat_map(|bytes| length_delimited(bytes)).collect()
        })
        .await;
    });
}

#[test]
fn requests_gone_wrong_do_no_harm() {
    with_broker("limits.handshake_timeout = \"500ms\"", async |broker| {
        let requests = |address: SocketAddr| {
            [
                request(address, "sec-websocket-protocol: fanfare.v1.proto\r\n"),
                http::publish_request(address, r#"{"topic":"n.a","text":"x"}"#),
                http::publish_request(address, r#"[{"topic":"n.a","data":[1,2]},{"topic":"n.b"}]"#),
                format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n"),
            ]
        };
        for (seed, address) in [(10, broker.public()), (11, broker.admin())] {
            let connect = async |_: &Broker| Pipe::connect(address).await;
            storm(broker, seed, connect, |dice| {
                let requests = requests(address);
                let mut bytes = requests[dice.below(requests.len())].clone().into_bytes();
                mutate(&mut bytes, dice);
                bytes
            })
            .await;
        }
    });
}

#[test]
fn connections_that_say_nothing_do_no_harm() {
    with_broker("", async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(public(broker).await);
            silent.push(ingress(broker).await);
            silent.push(admin(broker).await);
        }
        bystander.is_fine().await;
        drop(silent);
        bystander.is_fine().await;
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        client.ask(&json!({"id": 1, "ping": {}})).await;
    });
}

#[test]
fn peers_that_never_pause_are_not_the_only_ones_served() {
    with_broker("", async |broker| {
        let stop = Arc::new(AtomicBool::new(false));
        // One for each shard.
        let floods: Vec<_> = (0..2).map(|_| flood(broker.ingress(), Arc::clone(&stop))).collect();
        let mut bystander = Bystander::join(broker).await;
        for _ in 0..20 {
            bystander.is_fine().await;
        }
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            let sent = flood.join().expect("a thread that ends");
            assert!(sent > 1 << 20, "only {sent} bytes were sent");
        }
    });
}

/// Sends commands that ask for no answer, without a pause, until it is told to stop. Returns how
/// many bytes that were.
fn flood(address: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    let ping = schema::command::Action::Ping(schema::Ping {});
    let command = schema::Command { id: 0, action: Some(ping) }.encode_to_vec();
    let block = length_delimited(&command).repeat(10_000);
    let mut peer = TcpStream::connect(address).expect("connected");
    thread::spawn(move || {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            peer.write_all(&block).expect("taken");
            sent += block.len();
        }
        sent
    })
}
