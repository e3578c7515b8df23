//! A WebSocket server that echoes: the broker's own handshake, decoder, heads and compression, with
//! limits that are raised to what the Autobahn cases need.
//! It prints its address, which is the first argument or a free port, and serves until it is killed.
//! # Invariants: nothing of the protocol is decided here; a message goes back with the type it came
//! with, and a close with the code of the table of reasons.
//! # Not here: subprotocols, limits and timeouts of the broker; do not let strangers use it.
#![allow(clippy::print_stdout, reason = "whoever started it asks for its address")]

use fanfare::dialect::{deflate, frame};
use fanfare::reason::Refusal;
use fanfare::topics::message::Wire;
use fanfare::ws::decoder::{Decoder, DecoderLimits, Incoming};
use fanfare::ws::extensions::Compression;
use fanfare::ws::handshake::{Policy, judge};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming as Body};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The longest case has one message of 16 MiB, another one 65,536 fragments.
const LIMITS: DecoderLimits = DecoderLimits { message_bytes_max: 16 << 20, fragments_max: 1 << 17 };

/// What is read at once, as in the broker.
const READ_BYTES: usize = 64 << 10;

/// Marks a compressed message, RFC 7692.
const RSV1: u8 = 0x40;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("ws://{}/", listener.local_addr()?);
    let tasks = tokio::task::LocalSet::new();
    tasks
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // A connection that breaks is the other side's to complain about.
                tokio::task::spawn_local(async { serve(stream).await.ok() });
            }
        })
        .await
}

/// Serves one connection from its request to its end.
async fn serve(stream: TcpStream) -> Result<(), Box<dyn Error>> {
    let spoken = Cell::new(None);
    let service = service_fn(|request: Request<Body>| {
        let policy = Policy { compression: Compression::Deflate, ..Policy::default() };
        let answer = match judge(&request, &policy) {
            Ok(accepted) => {
                spoken.set(Some(accepted.spoken));
                accepted.response.map(|()| Empty::<Bytes>::new())
            }
            Err(refused) => refuse(&refused.refusal),
        };
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let parts = connection.without_shutdown().await?;
    let Some(spoken) = spoken.take() else { return Ok(()) };
    echo(parts.io.into_inner(), parts.read_buf.to_vec(), spoken.compression).await?;
    Ok(())
}

fn refuse(refusal: &Refusal) -> Response<Empty<Bytes>> {
    let mut answer = Response::new(Empty::new());
    *answer.status_mut() = StatusCode::from_u16(refusal.reason.status()).unwrap_or_default();
    answer
}

/// Sends back what comes, until the connection is closed.
async fn echo(mut stream: TcpStream, early: Vec<u8>, compression: Compression) -> io::Result<()> {
    let mut decoder = Decoder::new(LIMITS, compression);
    let mut read = early;
    loop {
        let (replies, is_last) = answer(&mut decoder, &mut read, compression);
        stream.write_all(&replies).await?;
        if is_last {
            return stream.shutdown().await;
        }
        read.resize(READ_BYTES, 0);
        let count = stream.read(&mut read).await?;
        read.truncate(count);
        if count == 0 {
            return Ok(());
        }
    }
}

/// The frames that answer what was read, and whether the last of them is a close.
fn answer(decoder: &mut Decoder, mut read: &mut [u8], compression: Compression) -> (Vec<u8>, bool) {
    let mut replies = Vec::new();
    loop {
        match decoder.next(&mut read) {
            Ok(None) => return (replies, false),
            Ok(Some(Incoming::Text(text))) => {
                append(&mut replies, Wire::WebSocketJson, text.as_bytes(), compression);
            }
            Ok(Some(Incoming::Binary(bytes))) => {
                append(&mut replies, Wire::WebSocketProto, bytes, compression);
            }
            Ok(Some(Incoming::Ping(payload))) => replies.extend_from_slice(&frame::pong(payload)),
            Ok(Some(Incoming::Pong(_))) => {}
            Ok(Some(Incoming::Close(close))) => {
                let close =
                    close.map_or_else(frame::empty_close, |(code, _)| frame::close(code, ""));
                replies.extend_from_slice(&close);
                return (replies, true);
            }
            Err(violation) => {
                let refusal = Refusal::from(violation);
                let close = frame::close(refusal.reason.code(), &refusal.to_string());
                replies.extend_from_slice(&close);
                return (replies, true);
            }
        }
    }
}

/// Appends a message of the type that a wire has, compressed where that is spoken and pays.
fn append(replies: &mut Vec<u8>, wire: Wire, body: &[u8], compression: Compression) {
    let mut payload = Vec::new();
    let is_smaller = compression == Compression::Deflate && deflate::deflate(body, &mut payload);
    let payload = if is_smaller { &payload } else { body };
    let (mut room, start) = frame::batch_head(wire, payload.len());
    if let Some([first, ..]) = room.get_mut(start..)
        && is_smaller
    {
        *first |= RSV1;
    }
    replies.extend_from_slice(room.get(start..).unwrap_or_default());
    replies.extend_from_slice(payload);
}
