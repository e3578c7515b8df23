//! A WebSocket as a client: the handshake, then one command or event per message.
//! # Invariants: exactly the subprotocol that was offered is spoken; pings are answered by whoever
//! reads; a message is bounded, its fragments together too.
//! # Not here: how commands and events are spelled (`json`, `schema`).

use super::tls::Stream;
use super::{EVENT_BYTES_MAX, Fault, http, json};
use crate::client::endpoint::Endpoint;
use crate::dialect::schema::{self, event::Body};
use crate::dialect::{Dialect, Token};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use fastwebsockets::{
    CloseCode, Frame, OpCode, Payload, Role, WebSocket, WebSocketError, WebSocketRead,
    WebSocketWrite, handshake,
};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::sync::Arc;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::Mutex;

/// Both halves write: the reading one its pongs.
type Writer = Arc<Mutex<WebSocketWrite<WriteHalf<TokioIo<Upgraded>>>>>;

/// The writing half.
pub(crate) struct Sender {
    writer: Writer,
    dialect: Dialect,
}

/// The reading half.
pub(crate) struct Receiver {
    reader: WebSocketRead<ReadHalf<TokioIo<Upgraded>>>,
    writer: Writer,
    dialect: Dialect,
    joining: Joining,
}

/// How many events a message holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joining {
    One,
    /// One or more: the server has agreed to batches.
    Batch,
}

/// Begins a WebSocket on a connection.
pub(super) async fn begin(
    endpoint: &Endpoint,
    stream: Stream,
    dialect: Dialect,
    token: Option<&Token>,
) -> Result<(Sender, Receiver), Fault> {
    let [json, proto] = Dialect::SUBPROTOCOLS;
    let offered = match dialect {
        Dialect::Json => json,
        Dialect::Proto => proto,
    };
    let mut requests = http::speak(stream).await?;
    let key = handshake::generate_key();
    let request = http::request(&endpoint.authority(), &endpoint.path, token)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "upgrade")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_PROTOCOL, offered)
        .body(Full::new(Bytes::new()));
    let response = http::send(&mut requests, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(response).await);
    }
    check_accept(&response, &key)?;
    check_subprotocol(&response, offered)?;
    let upgraded = hyper::upgrade::on(response).await;
    let upgraded = upgraded.map_err(|error| Fault::Lost(error.to_string()))?;
    let mut socket = WebSocket::after_handshake(TokioIo::new(upgraded), Role::Client);
    socket.set_max_message_size(EVENT_BYTES_MAX);
    // Its answer to a close fails if the server has gone already, and would hide the reason.
    socket.set_auto_close(false);
    let (reader, writer) = socket.split(tokio::io::split);
    let writer = Arc::new(Mutex::new(writer));
    let sender = Sender { writer: Arc::clone(&writer), dialect };
    Ok((sender, Receiver { reader, writer, dialect, joining: Joining::One }))
}

/// The refusal in the body of an answer, or its status if there is none.
async fn refused(response: Response<Incoming>) -> Fault {
    let status = response.status().as_u16();
    let refusal = match http::read(response).await {
        Ok(Body::Error(error)) => Some(Box::new(error)),
        Ok(_) | Err(_) => None,
    };
    Fault::Handshake { status, refusal }
}

/// That the answer is one to this very request, as RFC 6455 4.1 asks for.
fn check_accept(response: &Response<Incoming>, key: &str) -> Result<(), Fault> {
    let proof = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, proof.as_bytes());
    match response.headers().get(SEC_WEBSOCKET_ACCEPT) {
        Some(accept) if accept.as_bytes() == BASE64.encode(proof).as_bytes() => Ok(()),
        _ => Err(Fault::Malformed("an upgrade that does not answer this request".to_owned())),
    }
}

fn check_subprotocol(response: &Response<Incoming>, offered: &'static str) -> Result<(), Fault> {
    match response.headers().get(SEC_WEBSOCKET_PROTOCOL) {
        Some(chosen) if chosen == offered => Ok(()),
        Some(chosen) => Err(Fault::Subprotocol { offered, chosen: format!("{chosen:?}") }),
        None => Err(Fault::Subprotocol { offered, chosen: "none".to_owned() }),
    }
}

impl Sender {
    pub(super) async fn send(&mut self, command: &schema::Command) -> Result<(), Fault> {
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
    pub(super) async fn next(&mut self) -> Result<Vec<schema::Event>, Fault> {
        let message = self.message().await?;
        let events = match (self.dialect, self.joining) {
            (Dialect::Json, Joining::One) => vec![json::decode(&message)?],
            (Dialect::Json, Joining::Batch) => {
                let lines = message.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                lines.map(json::decode).collect::<Result<_, _>>()?
            }
            (Dialect::Proto, Joining::One) => {
                vec![schema::Event::decode(message.as_slice()).map_err(malformed)?]
            }
            (Dialect::Proto, Joining::Batch) => {
                let (mut rest, mut events) = (Bytes::from(message), Vec::new());
                while !rest.is_empty() {
                    let event = schema::Event::decode_length_delimited(&mut rest);
                    events.push(event.map_err(malformed)?);
                }
                events
            }
        };
        let agreed = |event: &schema::Event| match &event.body {
            Some(Body::Connected(connected)) => connected.batch,
            _ => false,
        };
        if events.iter().any(agreed) {
            self.joining = Joining::Batch;
        }
        Ok(events)
    }

    /// Waits for a whole message. A broker sends it in one frame, a proxy may cut it.
    async fn message(&mut self) -> Result<Vec<u8>, Fault> {
        let mut message = Vec::new();
        let mut expected = match self.dialect {
            Dialect::Json => OpCode::Text,
            Dialect::Proto => OpCode::Binary,
        };
        loop {
            let writer = &self.writer;
            let mut pong = |frame| {
                let writer = Arc::clone(writer);
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
                    return Err(Fault::Malformed(format!("a frame with opcode {kind:?}")));
                }
            }
            let length = message.len() + frame.payload.len();
            if length > EVENT_BYTES_MAX {
                return Err(Fault::TooLarge(length));
            }
            message.extend_from_slice(&frame.payload);
            if frame.fin {
                return Ok(message);
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn malformed(error: prost::DecodeError) -> Fault {
    Fault::Malformed(error.to_string())
}

/// The code and the words of a close.
fn closed(payload: &[u8]) -> Fault {
    match payload.split_first_chunk() {
        Some((code, text)) => Fault::Closed {
            code: u16::from_be_bytes(*code),
            text: String::from_utf8_lossy(text).into_owned(),
        },
        None => Fault::Ended,
    }
}

fn lost(error: WebSocketError) -> Fault {
    match error {
        WebSocketError::UnexpectedEOF | WebSocketError::ConnectionClosed => Fault::Ended,
        WebSocketError::IoError(error) => Fault::Lost(error.to_string()),
        error => Fault::Malformed(error.to_string()),
    }
}
