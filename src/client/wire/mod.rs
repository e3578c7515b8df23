//! One connection to a broker: commands go in, events come out, whatever the transport.
//! Owns the deadline of connecting and everything that can go wrong with a connection.
//! # Invariants: an event is at most [`EVENT_BYTES_MAX`] bytes; an open connection speaks the
//! dialect that was asked for.
//! # Not here: what is said (`pilot`), and whether a lost connection is followed by another one.

pub(crate) mod http;
pub(crate) mod json;
mod tcp;
mod tls;
mod websocket;

pub use tls::Trust;
#[cfg(feature = "server")]
pub(crate) use tls::config as tls_config;

use super::endpoint::{Endpoint, Transport};
use crate::dialect::{Dialect, Token, schema};
use std::io;
use std::time::Duration;
use thiserror::Error;
use tls::Tls;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Largest event. A broker takes messages of 64 MiB at most, which base64 makes a third longer.
const EVENT_BYTES_MAX: usize = 128 << 20;

/// What is wrong with a connection, or with a command that could not be sent.
#[derive(Clone, Debug, Error)]
pub(crate) enum Fault {
    /// What was asked for cannot be done from here.
    #[error("{0}")]
    Setup(String),
    /// No connection came to be.
    #[error("cannot connect to {address}: {problem}")]
    Connect { address: String, problem: String },
    /// The answer to the WebSocket handshake was no, with a reason or without.
    #[error("the server refused the connection: {}", handshake_words(*.status, .refusal.as_deref()))]
    Handshake { status: u16, refusal: Option<Box<schema::Error>> },
    /// The handshake succeeded for another subprotocol.
    #[error("the server was offered {offered} and chose {chosen}")]
    Subprotocol { offered: &'static str, chosen: String },
    /// The server said why it closed the connection.
    #[error("the server closed the connection: {code} {text}")]
    Closed { code: u16, text: String },
    /// The server closed the connection and gave no reason.
    #[error("the server closed the connection")]
    Ended,
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The server said something that nobody here understands.
    #[error("the server sent what cannot be understood: {0}")]
    Malformed(String),
    /// An event is larger than any that a broker should send.
    #[error("event is {0} bytes, the limit is {EVENT_BYTES_MAX}")]
    TooLarge(usize),
    /// Nothing came for longer than it may take.
    #[error("nothing was heard of the server for {} ms", .0.as_millis())]
    Silent(Duration),
    /// There is no token to show.
    #[error("there is no token: {0}")]
    NoToken(String),
    /// The payload is not what it was said to be.
    #[error("the payload is not valid: {0}")]
    Payload(String),
}

fn handshake_words(status: u16, refusal: Option<&schema::Error>) -> String {
    match refusal {
        Some(schema::Error { name, message, .. }) => format!("{name}: {message}"),
        None => format!("it answers with status {status}"),
    }
}

/// Everything that is needed to make a connection, again and again.
pub(crate) struct Dial {
    endpoint: Endpoint,
    dialect: Dialect,
    tls: Option<Tls>,
    patience: Duration,
}

/// An open connection. Its halves may be used at the same time.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

/// The half that commands go into.
pub(crate) enum Sender {
    WebSocket(websocket::Sender),
    Tcp(tcp::Sender),
    Http(http::Sender),
}

/// The half that events come out of.
pub(crate) enum Receiver {
    WebSocket(websocket::Receiver),
    Tcp(tcp::Receiver),
    Http(http::Receiver),
}

impl Dial {
    /// Reads what TLS needs; `dialect` matters to a WebSocket only, `patience` is for one connection.
    pub(crate) fn new(
        endpoint: Endpoint,
        dialect: Dialect,
        trust: &Trust,
        patience: Duration,
    ) -> Result<Dial, Fault> {
        let tls = Tls::of(&endpoint, trust)?;
        Ok(Dial { endpoint, dialect, tls, patience })
    }

    /// How long one connection may take.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether a token goes into the first command, because there is no header for it.
    pub(crate) fn greets_with_token(&self) -> bool {
        self.endpoint.transport == Transport::Tcp
    }

    /// Connects, agrees on a protocol and shows a token where a header carries it.
    pub(crate) async fn open(&self, token: Option<&Token>) -> Result<Connection, Fault> {
        let opened = timeout(self.patience, Box::pin(self.begin(token))).await;
        opened.unwrap_or_else(|_| {
            let problem = format!("no answer within {} ms", self.patience.as_millis());
            Err(Fault::Connect { address: self.endpoint.authority(), problem })
        })
    }

    async fn begin(&self, token: Option<&Token>) -> Result<Connection, Fault> {
        let stream = connect(&self.endpoint).await?;
        let stream = tls::begin(&self.endpoint, self.tls.as_ref(), stream).await?;
        let (sender, receiver) = match self.endpoint.transport {
            Transport::WebSocket => {
                let halves = websocket::begin(&self.endpoint, stream, self.dialect, token).await?;
                (Sender::WebSocket(halves.0), Receiver::WebSocket(halves.1))
            }
            Transport::Tcp => {
                let (sender, receiver) = tcp::begin(stream);
                (Sender::Tcp(sender), Receiver::Tcp(receiver))
            }
            Transport::Http => {
                let (sender, receiver) = http::begin(&self.endpoint, stream, token).await?;
                (Sender::Http(sender), Receiver::Http(receiver))
            }
        };
        Ok(Connection { sender, receiver })
    }
}

impl Sender {
    /// Sends a command. Not cancel-safe: a command cut off in the middle spoils the connection.
    pub(crate) async fn send(&mut self, command: schema::Command) -> Result<(), Fault> {
        match self {
            Sender::WebSocket(sender) => sender.send(&command).await,
            Sender::Tcp(sender) => sender.send(&command).await,
            Sender::Http(sender) => sender.send(command).await,
        }
    }

    /// Says goodbye where the transport has a word for it, and writes nothing more.
    pub(crate) async fn close(&mut self) {
        match self {
            Sender::WebSocket(sender) => sender.close().await,
            Sender::Tcp(sender) => sender.close().await,
            Sender::Http(_) => {}
        }
    }
}

impl Receiver {
    /// Waits for what comes next: the events that came together, none if the server only showed that
    /// it is there. Not cancel-safe: an event cut off in the middle is lost, so whoever stops waiting
    /// must not read on.
    pub(crate) async fn next(&mut self) -> Result<Vec<schema::Event>, Fault> {
        match self {
            Receiver::WebSocket(receiver) => receiver.next().await,
            Receiver::Tcp(receiver) => Ok(vec![receiver.next().await?]),
            Receiver::Http(receiver) => Ok(vec![receiver.next().await?]),
        }
    }
}

/// Asks for a page: the status and the text of the answer.
#[cfg(feature = "server")]
pub(crate) async fn get(
    page: &Endpoint,
    (trust, token): (&Trust, Option<&Token>),
) -> Result<(u16, String), Fault> {
    let tls = Tls::of(page, trust)?;
    let stream = tls::begin(page, tls.as_ref(), connect(page).await?).await?;
    http::get(page, stream, token).await
}

async fn connect(endpoint: &Endpoint) -> Result<TcpStream, Fault> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
    let stream = stream.map_err(|error| Fault::Connect {
        address: endpoint.authority(),
        problem: match error.kind() {
            io::ErrorKind::ConnectionRefused => REFUSED.to_owned(),
            _ => error.to_string(),
        },
    })?;
    // A command is one small write that should leave at once.
    stream.set_nodelay(true).map_err(|error| Fault::Lost(error.to_string()))?;
    Ok(stream)
}

/// What is said where nobody listens.
pub(crate) const REFUSED: &str = "connection refused";
