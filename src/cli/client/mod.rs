//! A client's connection to a broker: commands go in, events come out, whatever the transport.
//! Owns the deadlines of connecting and the words for everything that can go wrong.
//! # Invariants: an event is at most [`EVENT_BYTES_MAX`] bytes; an open connection speaks the
//! dialect that was asked for.
//! # Not here: what is sent and what is printed (`publish`, `subscribe`).

mod http;
mod json;
mod tcp;
mod tls;
mod websocket;

pub(super) use json::{failure_name, gap_name, overflow_name, policy_name};
pub(super) use tls::config as tls_config;

use super::args::TrustArgs;
use super::endpoint::{Endpoint, Transport};
use crate::dialect::{Dialect, Token, schema};
use std::io;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time to resolve a name, to connect and to agree on a protocol.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the reason of a lost connection to be read. If there is one it has arrived already.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest event. A broker takes messages of 64 MiB at most, which base64 makes a third longer.
const EVENT_BYTES_MAX: usize = 128 << 20;

/// Why a client command ends early.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// No connection came to be.
    #[error("cannot connect to {address}: {problem}")]
    Connect { address: String, problem: String },
    /// The answer to the WebSocket handshake was no.
    #[error("the server refused the connection: {0}")]
    Handshake(String),
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
    /// The server said something that this program does not understand.
    #[error("the server sent what cannot be understood: {0}")]
    Malformed(String),
    /// An event is larger than any that a broker should send.
    #[error("event is {0} bytes, the limit is {EVENT_BYTES_MAX}")]
    TooLarge(usize),
    /// Nothing came for longer than it may take.
    #[error("nothing was heard of the server for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// A message was sent and no answer came.
    #[error("no answer within {} seconds: the message may or may not be published", .0.as_secs())]
    Unknown(Duration),
    /// The transport does not carry this command.
    #[error("HTTP carries messages to publish and nothing else")]
    PublishOnly,
    /// The server does not do what it is asked about.
    #[error("the server answered {status}: {body}")]
    Unwell { status: u16, body: String },
    /// The server refused a command.
    #[error("{name}: {message}")]
    Refused { name: String, message: String },
    /// The server ended a subscription.
    #[error("the server ended the subscription of {0}")]
    Unsubscribed(String),
    /// Some of many messages are not published.
    #[error("{refused} of {total} lines are not published")]
    Incomplete { refused: u64, total: u64 },
    /// The payload could not be read.
    #[error("cannot read {name}: {problem}")]
    Input { name: String, problem: String },
    /// The payload is not what it was said to be.
    #[error("the payload is not valid: {0}")]
    Payload(String),
    /// What came could not be printed.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// An open connection. Its halves may be used at the same time.
pub(super) struct Connection {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

/// The half that commands go into.
pub(super) enum Sender {
    WebSocket(websocket::Sender),
    Tcp(tcp::Sender),
    Http(http::Sender),
}

/// The half that events come out of.
pub(super) enum Receiver {
    WebSocket(websocket::Receiver),
    Tcp(tcp::Receiver),
    Http(http::Receiver),
}

impl Connection {
    /// Connects, agrees on a protocol and shows a token; `dialect` matters to a WebSocket only.
    ///
    /// # Errors
    /// What went wrong, for a person, after [`CONNECT_TIMEOUT`] at the latest.
    pub(super) async fn open(
        endpoint: &Endpoint,
        dialect: Dialect,
        (trust, token): (&TrustArgs, Option<Token>),
    ) -> Result<Connection, ClientError> {
        let opening = Box::pin(Connection::begin(endpoint, dialect, (trust, token.as_ref())));
        let begun = timeout(CONNECT_TIMEOUT, opening).await;
        begun.unwrap_or_else(|_| {
            let problem = format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs());
            Err(ClientError::Connect { address: endpoint.authority(), problem })
        })
    }

    async fn begin(
        endpoint: &Endpoint,
        dialect: Dialect,
        (trust, token): (&TrustArgs, Option<&Token>),
    ) -> Result<Connection, ClientError> {
        let stream = tls::begin(endpoint, connect(endpoint).await?, trust).await?;
        let (sender, receiver) = match endpoint.transport {
            Transport::WebSocket => {
                let (sender, receiver) = websocket::begin(endpoint, stream, dialect, token).await?;
                (Sender::WebSocket(sender), Receiver::WebSocket(receiver))
            }
            Transport::Tcp => {
                let (sender, receiver) = tcp::begin(stream, token).await?;
                (Sender::Tcp(sender), Receiver::Tcp(receiver))
            }
            Transport::Http => {
                let (sender, receiver) = http::begin(endpoint, stream, token).await?;
                (Sender::Http(sender), Receiver::Http(receiver))
            }
        };
        Ok(Connection { sender, receiver })
    }
}

impl Sender {
    /// Sends a command. Not cancel-safe: a command cut off in the middle spoils the connection.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn send(&mut self, command: schema::Command) -> Result<(), ClientError> {
        match self {
            Sender::WebSocket(sender) => sender.send(&command).await,
            Sender::Tcp(sender) => sender.send(&command).await,
            Sender::Http(sender) => sender.send(command).await,
        }
    }

    /// Says goodbye where the transport has a word for it.
    pub(super) async fn close(&mut self) {
        match self {
            Sender::WebSocket(sender) => sender.close().await,
            Sender::Tcp(_) | Sender::Http(_) => {}
        }
    }
}

impl Receiver {
    /// Waits for the next event. Not cancel-safe: an event cut off in the middle is lost, so
    /// whoever stops waiting must not read on.
    ///
    /// # Errors
    /// The connection has ended, or what came is no event.
    pub(super) async fn next(&mut self) -> Result<schema::Event, ClientError> {
        match self {
            Receiver::WebSocket(receiver) => receiver.next().await,
            Receiver::Tcp(receiver) => receiver.next().await,
            Receiver::Http(receiver) => receiver.next().await,
        }
    }
}

/// What is said of a command that could not be sent. A server that refuses a command closes the
/// connection while the rest of it is still being written, and its reason waits to be read.
pub(super) async fn explain<T>(
    error: ClientError,
    reading: impl Future<Output = Result<T, ClientError>>,
) -> ClientError {
    if !matches!(error, ClientError::Lost(_) | ClientError::Ended) {
        return error;
    }
    match timeout(REASON_TIMEOUT, reading).await {
        Ok(Err(reason @ (ClientError::Closed { .. } | ClientError::Refused { .. }))) => reason,
        Ok(_) | Err(_) => error,
    }
}

/// Asks for a page: the status and the text of the answer.
///
/// # Errors
/// There was no answer.
pub(super) async fn get(
    page: &Endpoint,
    (trust, token): (&TrustArgs, Option<&Token>),
) -> Result<(u16, String), ClientError> {
    let stream = tls::begin(page, connect(page).await?, trust).await?;
    http::get(page, stream, token).await
}

async fn connect(endpoint: &Endpoint) -> Result<TcpStream, ClientError> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
    let stream = stream.map_err(|error| ClientError::Connect {
        address: endpoint.authority(),
        problem: match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "connection refused; is a broker running there? try `fanfare demo`".to_owned()
            }
            _ => error.to_string(),
        },
    })?;
    // A command is one small write that should leave at once.
    stream.set_nodelay(true).map_err(|error| ClientError::Lost(error.to_string()))?;
    Ok(stream)
}
