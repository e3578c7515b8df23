//! The TCP transport as a client: a big-endian u32 length, then protobuf.
//! # Not here: what is said (`schema`).

use super::tls::Stream;
use super::{EVENT_BYTES_MAX, Fault};
use crate::dialect::schema;
use prost::Message as _;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};

/// The writing half.
pub(crate) struct Sender(WriteHalf<Stream>);

/// The reading half.
pub(crate) struct Receiver(BufReader<ReadHalf<Stream>>);

/// Splits a connection. Nothing needs to be agreed on.
pub(super) fn begin(stream: Stream) -> (Sender, Receiver) {
    let (read, write) = tokio::io::split(stream);
    (Sender(write), Receiver(BufReader::new(read)))
}

impl Sender {
    pub(super) async fn send(&mut self, command: &schema::Command) -> Result<(), Fault> {
        let body = command.encode_to_vec();
        let length = u32::try_from(body.len()).map_err(|_| Fault::TooLarge(body.len()))?;
        let frame = [&length.to_be_bytes()[..], &body].concat();
        self.0.write_all(&frame).await.map_err(|error| lost(&error))?;
        self.0.flush().await.map_err(|error| lost(&error))
    }

    /// Ends this direction; what the server still has to say comes by the other one.
    pub(super) async fn close(&mut self) {
        // Whether the server hears it changes nothing here.
        self.0.shutdown().await.unwrap_or_default();
    }
}

impl Receiver {
    pub(super) async fn next(&mut self) -> Result<schema::Event, Fault> {
        let length = self.0.read_u32().await.map_err(|error| lost(&error))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > EVENT_BYTES_MAX {
            return Err(Fault::TooLarge(length));
        }
        let mut body = Vec::new();
        let limit = u64::try_from(length).unwrap_or(u64::MAX);
        (&mut self.0).take(limit).read_to_end(&mut body).await.map_err(|error| lost(&error))?;
        if body.len() < length {
            return Err(Fault::Ended);
        }
        schema::Event::decode(body.as_slice()).map_err(|error| Fault::Malformed(error.to_string()))
    }
}

fn lost(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Ended,
        _ => Fault::Lost(error.to_string()),
    }
}
