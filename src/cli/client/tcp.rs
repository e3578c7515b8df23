//! The TCP transport as a client: a big-endian u32 length, then protobuf.
//! # Not here: what is said (`schema`).

use super::{ClientError, EVENT_BYTES_MAX};
use crate::dialect::schema;
use prost::Message as _;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The writing half.
pub(in crate::cli) struct Sender(OwnedWriteHalf);

/// The reading half.
pub(in crate::cli) struct Receiver(BufReader<OwnedReadHalf>);

/// Splits a connection; nothing needs to be agreed on.
pub(super) fn begin(stream: TcpStream) -> (Sender, Receiver) {
    let (read, write) = stream.into_split();
    (Sender(write), Receiver(BufReader::new(read)))
}

impl Sender {
    pub(super) async fn send(&mut self, command: &schema::Command) -> Result<(), ClientError> {
        let body = command.encode_to_vec();
        let length = u32::try_from(body.len()).map_err(|_| ClientError::TooLarge(body.len()))?;
        let frame = [&length.to_be_bytes()[..], &body].concat();
        self.0.write_all(&frame).await.map_err(|error| lost(&error))
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
