//! One client of the herd, and the publisher.
//! # Not here: how many there are (`herd`).

use super::{PUBLISH_PAUSE, Shared};
use crate::random::Random;
use crate::wire::{CLOSE, PONG, TEXT, frame, request};
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The first delay after a connection that failed, and the longest.
const DELAY: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(4);

/// Addresses that clients come from: one alone has too few ports for two connections of each.
const ADDRESSES: u64 = 4;

/// How long a handshake may take before the client gives it up.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// A subscriber of one topic.
pub(super) struct Follower {
    address: SocketAddr,
    number: u64,
    topic: u64,
    token: String,
    chance: Random,
    epoch: String,
    offset: u64,
    /// Connections in a row that did not come to be live.
    failed: u32,
    is_live: bool,
}

/// A WebSocket, and what was read of it.
struct Socket {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Follower {
    pub(super) fn new(
        address: SocketAddr,
        (number, topic): (u64, u64),
        token: String,
        chance: Random,
    ) -> Follower {
        let (epoch, offset, failed, is_live) = (String::new(), 0, 0, false);
        Follower { address, number, topic, token, chance, epoch, offset, failed, is_live }
    }

    /// Connects, listens, and comes back, until it has heard everything.
    pub(super) async fn follow(mut self, shared: Arc<Shared>) {
        loop {
            let visit = self.visit(&shared).await;
            if std::mem::take(&mut self.is_live) {
                shared.live.fetch_sub(1, Ordering::SeqCst);
            }
            match visit {
                Ok(true) => {
                    shared.done.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let fault = format!("client {}: {error}", self.number);
                    shared.fault.lock().expect("no panic").get_or_insert(fault);
                    return;
                }
                Err(_) => drop(shared.failures.fetch_add(1, Ordering::SeqCst)),
            }
            self.failed += 1;
            tokio::time::sleep(self.delay()).await;
        }
    }

    /// Somewhen before a bound that grows with each failure.
    fn delay(&mut self) -> Duration {
        let bound = DELAY.saturating_mul(1 << self.failed.min(8)).min(DELAY_MAX);
        bound.mul_f64(self.chance.below(1_000) as f64 / 1_000.0)
    }

    /// One connection. Whether everything was heard.
    async fn visit(&mut self, shared: &Shared) -> io::Result<bool> {
        let opened = tokio::time::timeout(HANDSHAKE, self.open()).await;
        let mut socket = opened.map_err(|_| io::Error::other("no answer"))??;
        let mut subscribe = json!({"topic": format!("storm.{}", self.topic)});
        if !self.epoch.is_empty() {
            subscribe["since"] = json!({"epoch": self.epoch, "offset": self.offset});
        }
        socket.say(&json!({"id": 1, "subscribe": subscribe})).await?;
        loop {
            while let Some((opcode, body)) = socket.take_frame() {
                match opcode {
                    TEXT => self.hear(&body, shared)?,
                    CLOSE => {
                        socket.stream.write_all(&frame(CLOSE, &body[..2.min(body.len())])).await?;
                        return Ok(false);
                    }
                    _ => socket.stream.write_all(&frame(PONG, &body)).await?,
                }
            }
            if self.has_heard_all(shared) {
                return Ok(true);
            }
            // The end of publishing does not come by the socket.
            let read = socket.stream.read_buf(&mut socket.bytes);
            if let Ok(count) = tokio::time::timeout(Duration::from_secs(1), read).await
                && count? == 0
            {
                return Ok(false);
            }
        }
    }

    fn has_heard_all(&self, shared: &Shared) -> bool {
        let tops = shared.tops.lock().expect("no panic");
        shared.stopping.load(Ordering::SeqCst) && self.offset == tops[self.topic as usize]
    }

    async fn open(&self) -> io::Result<Socket> {
        let source = TcpSocket::new_v4()?;
        let host = u8::try_from(2 + self.number % ADDRESSES).expect("few addresses");
        source.bind((std::net::Ipv4Addr::new(127, 0, 0, host), 0).into())?;
        source.set_nodelay(true)?;
        open(source.connect(self.address).await?, self.address, &self.token).await
    }

    fn hear(&mut self, text: &[u8], shared: &Shared) -> io::Result<()> {
        let event: Value = serde_json::from_slice(text)?;
        let wrong = || Err(io::Error::new(io::ErrorKind::InvalidData, event.to_string()));
        if let Some(message) = event.get("message") {
            if message["offset"] != self.offset + 1 {
                let says = format!("{event} behind {}", self.offset);
                return Err(io::Error::new(io::ErrorKind::InvalidData, says));
            }
            self.offset += 1;
            shared.heard.fetch_add(1, Ordering::SeqCst);
        } else if let Some(subscribed) = event.get("subscribed") {
            let position = &subscribed["position"];
            if self.epoch.is_empty() {
                position["epoch"].as_str().unwrap_or_default().clone_into(&mut self.epoch);
                self.offset = position["offset"].as_u64().unwrap_or_default();
            } else if subscribed["recovered"] != true || position["epoch"] != self.epoch.as_str() {
                return wrong();
            }
            (self.failed, self.is_live) = (0, true);
            shared.live.fetch_add(1, Ordering::SeqCst);
            if let Some(begun) = *shared.begun.lock().expect("no panic") {
                shared.returns.lock().expect("no panic").push(begun.elapsed());
            }
        } else if event.get("reconnect").is_some() {
            shared.farewells.fetch_add(1, Ordering::SeqCst);
        } else if event.get("gap").is_some() || event.get("error").is_some() {
            return wrong();
        }
        Ok(())
    }
}

impl Socket {
    async fn say(&mut self, command: &Value) -> io::Result<()> {
        self.stream.write_all(&frame(TEXT, command.to_string().as_bytes())).await
    }

    /// The next whole frame that was read. No message here needs a length of eight bytes.
    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (opcode, short) = (*self.bytes.first()?, *self.bytes.get(1)?);
        let (front, body) = match short {
            126 => {
                let high = usize::from(*self.bytes.get(2)?);
                (4, high << 8 | usize::from(*self.bytes.get(3)?))
            }
            short => (2, usize::from(short)),
        };
        let frame = self.bytes.get(front..front + body)?.to_vec();
        self.bytes.drain(..front + body);
        Some((opcode, frame))
    }
}

async fn open(mut stream: TcpStream, address: SocketAddr, token: &str) -> io::Result<Socket> {
    let headers = format!("authorization: Bearer {token}\r\n");
    stream.write_all(request(address, Wire::WebSocketJson, &headers).as_bytes()).await?;
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    if !bytes.starts_with(b"HTTP/1.1 101") {
        return Err(io::Error::other(String::from_utf8_lossy(&bytes).into_owned()));
    }
    bytes.drain(..end);
    Ok(Socket { stream, bytes })
}

/// Publishes to one topic after the other, each message until it is answered, with a key that makes
/// it one message; ends when it is told to.
pub(super) async fn publish(address: SocketAddr, token: String, shared: Arc<Shared>) {
    let mut socket = None;
    let mut number = 0_u64;
    while !shared.stopping.load(Ordering::SeqCst) {
        let begin = Instant::now();
        let topics = shared.tops.lock().expect("no panic").len() as u64;
        let topic = number % topics;
        let message = json!({
            "topic": format!("storm.{topic}"), "data": {"number": number},
            "idempotencyKey": number.to_string(),
        });
        match ask(&mut socket, (address, &token), &json!({"id": 1, "publish": message})).await {
            Ok(answer) => {
                let offset = answer["published"]["offset"].as_u64();
                let mut tops = shared.tops.lock().expect("no panic");
                match offset {
                    Some(offset) if offset == tops[topic as usize] + 1 => {
                        tops[topic as usize] = offset;
                        number += 1;
                    }
                    // It goes down.
                    None if answer["error"]["retry"] != "never" => {}
                    _ => {
                        let fault = format!("{number} was answered by {answer}, behind {tops:?}");
                        shared.fault.lock().expect("no panic").get_or_insert(fault);
                    }
                }
            }
            Err(_) => socket = None,
        }
        tokio::time::sleep(PUBLISH_PAUSE.saturating_sub(begin.elapsed())).await;
    }
}

/// Sends a command and hears its answer, on a connection that is made if there is none.
async fn ask(
    socket: &mut Option<Socket>,
    (address, token): (SocketAddr, &str),
    command: &Value,
) -> io::Result<Value> {
    if socket.is_none() {
        *socket = Some(open(TcpStream::connect(address).await?, address, token).await?);
    }
    let Some(socket) = socket else { return Err(io::ErrorKind::NotConnected.into()) };
    socket.say(command).await?;
    loop {
        while let Some((opcode, body)) = socket.take_frame() {
            if opcode == CLOSE {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let event: Value = serde_json::from_slice(&body).unwrap_or_default();
            if event["id"] == 1 {
                return Ok(event);
            }
            if opcode != TEXT {
                socket.stream.write_all(&frame(PONG, &body)).await?;
            }
        }
        if socket.stream.read_buf(&mut socket.bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
