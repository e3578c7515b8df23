//! A WebSocket as a client: the handshake, then one command or event per message.
//! # Invariants: exactly the subprotocol that was offered is spoken; pings are answered by whoever
//! reads; a message is bounded, its fragments together too.
//! # Not here: how commands and events are spelled (`json`, `schema`).

use super::super::endpoint::Endpoint;
use super::tls::Stream;
use super::{ClientError, EVENT_BYTES_MAX, http, json};
use crate::dialect::schema::{self, event::Body};
use crate::dialect::{Dialect, Token};
use bytes::Bytes;
use fastwebsockets::{
    CloseCode, Frame, OpCode, Payload, Role, WebSocket, WebSocketError, WebSocketRead,
    WebSocketWrite, handshake,
};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use std::rc::Rc;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::Mutex;

/// Both halves write: the reading one its pongs.
type Writer = Rc<Mutex<WebSocketWrite<WriteHalf<TokioIo<Upgraded>>>>>;

/// The writing half.
pub(in crate::cli) struct Sender {
    writer: Writer,
    dialect: Dialect,
}

/// The reading half.
pub(in crate::cli) struct Receiver {
    reader: WebSocketRead<ReadHalf<TokioIo<Upgraded>>>,
    writer: Writer,
    dialect: Dialect,
}

/// Begins a WebSocket on a connection.
pub(super) async fn begin(
    endpoint: &Endpoint,
    stream: Stream,
    dialect: Dialect,
    token: Option<&Token>,
) -> Result<(Sender, Receiver), ClientError> {
    let [json, proto] = Dialect::SUBPROTOCOLS;
    let offered = match dialect {
        Dialect::Json => json,
        Dialect::Proto => proto,
    };
    let mut requests = http::speak(stream).await?;
    let request = http::request(&endpoint.authority(), &endpoint.path, token)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "upgrade")
        .header(SEC_WEBSOCKET_KEY, handshake::generate_key())
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_PROTOCOL, offered)
        .body(Full::new(Bytes::new()));
    let response = http::send(&mut requests, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(response).await);
    }
    check_subprotocol(&response, offered)?;
    let upgraded = hyper::upgrade::on(response).await;
    let upgraded = upgraded.map_err(|error| ClientError::Lost(error.to_string()))?;
    let mut socket = WebSocket::after_handshake(TokioIo::new(upgraded), Role::Client);
    socket.set_max_message_size(EVENT_BYTES_MAX);
    // Its answer to a close fails if the server has gone already, and would hide the reason.
    socket.set_auto_close(false);
    let (reader, writer) = socket.split(tokio::io::split);
    let writer = Rc::new(Mutex::new(writer));
    let sender = Sender { writer: Rc::clone(&writer), dialect };
    Ok((sender, Receiver { reader, writer, dialect }))
}

/// The refusal in the body of an answer, or its status if there is none.
async fn refused(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    match http::read(response).await {
        Ok(Body::Error(error)) => {
            ClientError::Handshake(format!("{}: {}", error.name, error.message))
        }
        Ok(_) | Err(_) => ClientError::Handshake(format!("it answers with {status}")),
    }
}

fn check_subprotocol(
    response: &Response<Incoming>,
    offered: &'static str,
) -> Result<(), ClientError> {
    match response.headers().get(SEC_WEBSOCKET_PROTOCOL) {
        Some(chosen) if chosen == offered => Ok(()),
        Some(chosen) => Err(ClientError::Subprotocol { offered, chosen: format!("{chosen:?}") }),
        None => Err(ClientError::Subprotocol { offered, chosen: "none".to_owned() }),
    }
}

impl Sender {
    pub(super) async fn send(&mut self, command: &schema::Command) -> Result<(), ClientError> {
        let frame = match self.dialect {
            Dialect::Json => Frame::text(Payload::Owned(json::encode(command)?)),
            Dialect::Proto => Frame::binary(Payload::Owned(command.encode_to_vec())),
        };
        self.writer.lock().await.write_frame(frame).await.map_err(lost)
    }

    pub(super) async fn close(&mut self) {
        let frame = Frame::close(CloseCode::Normal.into(), b"");
        // Whether the server hears it changes nothing here.
        self.writer.lock().await.write_frame(frame).await.unwrap_or_default();
    }
}

impl Receiver {
    pub(super) async fn next(&mut self) -> Result<schema::Event, ClientError> {
        let message = self.message().await?;
        match self.dialect {
            Dialect::Json => json::decode(&message),
            Dialect::Proto => schema::Event::decode(message.as_slice())
                .map_err(|error| ClientError::Malformed(error.to_string())),
        }
    }

    /// Waits for a whole message. A broker sends it in one frame, a proxy may cut it.
    async fn message(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut message = Vec::new();
        let mut expected = match self.dialect {
            Dialect::Json => OpCode::Text,
            Dialect::Proto => OpCode::Binary,
        };
        loop {
            let writer = &self.writer;
            let mut pong = |frame| {
                let writer = Rc::clone(writer);
                async move {
                    // What cannot be written shows in what is read, after the reason for it.
                    writer.lock().await.write_frame(frame).await.unwrap_or_default();
                    Ok::<(), WebSocketError>(())
                }
            };
            let frame = self.reader.read_frame(&mut pong).await.map_err(lost)?;
            match frame.opcode {
                OpCode::Close => return Err(closed(&frame.payload)),
                OpCode::Ping | OpCode::Pong => continue,
                kind if kind == expected => expected = OpCode::Continuation,
                kind => {
                    return Err(ClientError::Malformed(format!("a frame with opcode {kind:?}")));
                }
            }
            let length = message.len() + frame.payload.len();
            if length > EVENT_BYTES_MAX {
                return Err(ClientError::TooLarge(length));
            }
            message.extend_from_slice(&frame.payload);
            if frame.fin {
                return Ok(message);
            }
        }
    }
}

/// The code and the words of a close.
fn closed(payload: &[u8]) -> ClientError {
    match payload.split_first_chunk() {
        Some((code, text)) => ClientError::Closed {
            code: u16::from_be_bytes(*code),
            text: String::from_utf8_lossy(text).into_owned(),
        },
        None => ClientError::Ended,
    }
}

fn lost(error: WebSocketError) -> ClientError {
    match error {
        WebSocketError::UnexpectedEOF | WebSocketError::ConnectionClosed => ClientError::Ended,
        WebSocketError::IoError(error) => ClientError::Lost(error.to_string()),
        error => ClientError::Malformed(error.to_string()),
    }
}
