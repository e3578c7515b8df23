//! The TCP transport as a client: a big-endian u32 length, then protobuf.
//! # Not here: what is said (`schema`).

use super::tls::Stream;
use super::{ClientError, EVENT_BYTES_MAX};
use crate::dialect::Token;
use crate::dialect::schema::{self, command::Action};
use prost::Message as _;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};

/// The writing half.
pub(in crate::cli) struct Sender(WriteHalf<Stream>);

/// The reading half.
pub(in crate::cli) struct Receiver(BufReader<ReadHalf<Stream>>);

/// Splits a connection. Nothing needs to be agreed on, but a server does not wait for ever for the
/// first command, and what is to be published may be long in coming; and there is no header for a
/// token.
pub(super) async fn begin(
    stream: Stream,
    token: Option<&Token>,
) -> Result<(Sender, Receiver), ClientError> {
    let (read, write) = tokio::io::split(stream);
    let mut sender = Sender(write);
    let token = token.map(Token::reveal).unwrap_or_default().to_owned();
    let hello = Some(Action::Connect(schema::Connect { token, ..Default::default() }));
    // Without an id there is no answer unless it is refused.
    sender.send(&schema::Command { id: 0, action: hello }).await?;
    Ok((sender, Receiver(BufReader::new(read))))
}

impl Sender {
    pub(super) async fn send(&mut self, command: &schema::Command) -> Result<(), ClientError> {
        let body = command.encode_to_vec();
        let length = u32::try_from(body.len()).map_err(|_| ClientError::TooLarge(body.len()))?;
        let frame = [&length.to_be_bytes()[..], &body].concat();
        self.0.write_all(&frame).await.map_err(|error| lost(&error))?;
        self.0.flush().await.map_err(|error| lost(&error))
    }
}

impl Receiver {
    pub(super) async fn next(&mut self) -> Result<schema::Event, ClientError> {
        let length = self.0.read_u32().await.map_err(|error| lost(&error))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > EVENT_BYTES_MAX {
            return Err(ClientError::TooLarge(length));
        }
        let mut body = Vec::new();
        let limit = u64::try_from(length).unwrap_or(u64::MAX);
        (&mut self.0).take(limit).read_to_end(&mut body).await.map_err(|error| lost(&error))?;
        if body.len() < length {
            return Err(ClientError::Ended);
        }
        schema::Event::decode(body.as_slice())
            .map_err(|error| ClientError::Malformed(error.to_string()))
    }
}

fn lost(error: &io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ClientError::Ended,
        _ => ClientError::Lost(error.to_string()),
    }
}
