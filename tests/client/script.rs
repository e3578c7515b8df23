//! A server that does what a test says, also what no broker would do.
//! Owns its side of the handshake and of frames.
//! # Invariants: it speaks as the broker does, by the broker's own dialects.
//! # Not here: proxies (`link`).

use crate::rig::{Way, within};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fanfare::client::{Epoch, Offset, Position};
use fanfare::clock::Now;
use fanfare::dialect::{Action, Command, Connected, Dialect, Event, Subscribe, Subscribed, Terms};
use fanfare::dialect::{Recovery, encode};
use fanfare::topics::message::{Draft, Message, Payload, TopicHead};
use fanfare::topics::name::TopicName;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The epoch of every topic here.
pub(crate) fn epoch() -> Epoch {
    Epoch::from_bits(7)
}

pub(crate) fn position(offset: u64) -> Position {
    Position { epoch: epoch(), offset: Offset(offset) }
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a name")
}

/// A message of the topic `t` with its offset as its text.
pub(crate) fn message(offset: u64) -> Event {
    let head = Arc::new(TopicHead::new(1, topic("t"), epoch(), Arc::default()));
    let draft = Draft::new(topic("t"), Payload::Text(offset.to_string().into()));
    Event::Message(Arc::new(Message::new(head, Offset(offset), draft, Now::at_ms(1))))
}

/// A listener that does nothing by itself.
pub(crate) struct Script {
    listener: TcpListener,
    way: Way,
    pub(crate) address: SocketAddr,
}

impl Script {
    pub(crate) async fn start(way: Way) -> Script {
        Script::start_at(way, "127.0.0.1:0").await
    }

    pub(crate) async fn start_at(way: Way, address: &str) -> Script {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Script { listener, way, address }
    }

    /// A connection, before anything is said on it.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = within("a connection", self.listener.accept()).await.expect("accepted");
        Peer { stream, way: self.way }
    }

    /// A connection on which commands can be heard.
    pub(crate) async fn begin(&self) -> Peer {
        let mut peer = self.accept().await;
        if self.way != Way::Tcp {
            let name = if self.way == Way::Json { "fanfare.v1.json" } else { "fanfare.v1.proto" };
            let answer = peer.upgrade(name).await;
            peer.write(answer.as_bytes()).await;
        }
        peer
    }

    /// A connection with a hello of this server.
    pub(crate) async fn greet(&self, hello: Connected) -> Peer {
        let mut peer = self.begin().await;
        let command = peer.hear().await;
        assert!(matches!(command.action, Action::Connect(_)), "{command:?}");
        peer.say(command.id, &Event::Connected(hello)).await;
        peer
    }
}

/// The hello of a server that pings every 25 seconds.
pub(crate) fn hello() -> Connected {
    Connected { connection: "1-1".into(), ping_ms: 25_000, batch: false, expires_ms: 0 }
}

/// A connection.
pub(crate) struct Peer {
    stream: TcpStream,
    way: Way,
}

impl Peer {
    /// Reads the request for a WebSocket. Returns the answer that accepts it.
    pub(crate) async fn upgrade(&mut self, subprotocol: &str) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("a request", self.stream.read_u8()).await.expect("a byte"));
        }
        let head = String::from_utf8(head).expect("ASCII");
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
        let proof = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.expect("a key").trim());
        let proof = BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, proof.as_bytes()));
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {proof}\r\nsec-websocket-protocol: {subprotocol}\r\n\r\n"
        )
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        within("a write", self.stream.write_all(bytes)).await.expect("written");
    }

    /// The next command.
    pub(crate) async fn hear(&mut self) -> Command {
        loop {
            let body = within("a command", self.frame()).await.expect("a command");
            if let Some(body) = body {
                let dialect = if self.way == Way::Json { Dialect::Json } else { Dialect::Proto };
                return dialect.decode(&body).unwrap_or_else(|bad| panic!("{bad:?}"));
            }
        }
    }

    /// Waits until the client has left.
    pub(crate) async fn left(&mut self) {
        let mut rest = Vec::new();
        // However it ends, it has.
        within("the end", self.stream.read_to_end(&mut rest)).await.map(drop).unwrap_or_default();
    }

    /// The payload of the next frame; none of one that carries no command.
    async fn frame(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        if self.way == Way::Tcp {
            let mut body = vec![0; self.stream.read_u32().await? as usize];
            self.stream.read_exact(&mut body).await?;
            return Ok(Some(body));
        }
        let opcode = self.stream.read_u8().await? & 0x0F;
        let length = match self.stream.read_u8().await? & 0x7F {
            126 => usize::from(self.stream.read_u16().await?),
            127 => panic!("no command is so long"),
            short => usize::from(short),
        };
        let mut mask = [0; 4];
        self.stream.read_exact(&mut mask).await?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        body.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok((opcode < 8).then_some(body))
    }

    pub(crate) async fn say(&mut self, id: u64, event: &Event) {
        let frame = encode(id, event, self.way.wire());
        self.write(&frame).await;
    }

    /// Says a body that need not be an event.
    pub(crate) async fn say_body(&mut self, body: &[u8]) {
        let length = u8::try_from(body.len()).expect("a short body");
        assert!(length < 126, "a short body");
        let head = match self.way {
            Way::Json => vec![0x81, length],
            Way::Proto => vec![0x82, length],
            Way::Tcp => vec![0, 0, 0, length],
        };
        self.write(&[&head, body].concat()).await;
    }

    /// Closes with this code, where there are codes, and ends the connection.
    pub(crate) async fn close(mut self, code: u16) {
        if self.way != Way::Tcp {
            let [high, low] = code.to_be_bytes();
            self.write(&[0x88, 2, high, low]).await;
        }
        within("the end", self.stream.shutdown()).await.unwrap_or_default();
        self.left().await;
    }

    /// Hears the command to subscribe to the topic `t`, and accepts it.
    pub(crate) async fn subscribe(&mut self, at: u64, recovery: Option<Recovery>) -> Subscribe {
        let command = self.hear().await;
        let Action::Subscribe(subscribe) = command.action else { panic!("{command:?}") };
        let subscribed = Subscribed {
            target: subscribe.target.clone(),
            position: Some(position(at)),
            recovery,
            topics: Vec::new(),
            terms: Terms::default(),
            stale: false,
        };
        self.say(command.id, &Event::Subscribed(subscribed)).await;
        *subscribe
    }
}
