//! A connection as HTTP reads and writes it, plain or over TLS, before it is one of a shard.
//! # Invariants: what was read and not consumed is handed on with it.
//! # Not here: what is said (`http`).

use crate::shard::conduit::{Conduit, More};
use crate::tls::{Channel, SEAL_BYTES_MAX};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are read at once.
const READ_BYTES: usize = 8 << 10;

/// A connection that is not one of a shard yet.
#[derive(Debug)]
pub struct Pipe {
    stream: TcpStream,
    sealed: Option<Box<Sealed>>,
}

#[derive(Debug)]
struct Sealed {
    channel: Channel,
    /// What has been read and not been asked for.
    plain: Vec<u8>,
}

impl From<TcpStream> for Pipe {
    fn from(stream: TcpStream) -> Pipe {
        Pipe { stream, sealed: None }
    }
}

impl Pipe {
    /// A connection over TLS, its handshake done, and what came behind that.
    pub(super) fn sealed(stream: TcpStream, channel: Channel, plain: Vec<u8>) -> Pipe {
        Pipe { stream, sealed: Some(Box::new(Sealed { channel, plain })) }
    }

    /// The certificate that the peer has shown, in DER.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.sealed.as_ref()?.channel.certificate()
    }

    /// The socket that a shard takes, with more that belongs to it, and what was read already.
    pub fn into_conduit(self, more: More) -> (Conduit, Vec<u8>) {
        let Some(sealed) = self.sealed else {
            return (Conduit::new(self.stream, more), Vec::new());
        };
        let Sealed { channel, plain } = *sealed;
        let more = More { channel: Some(RefCell::new(channel)), ..more };
        (Conduit::new(self.stream, more), plain)
    }

    /// Says that nothing more comes, where that has to be said and is taken at once.
    pub fn farewell(&mut self) {
        if let Some(sealed) = &mut self.sealed
            && sealed.channel.farewell().is_ok()
        {
            sealed.flush(&self.stream).unwrap_or_default();
        }
    }

    /// Writes what is unsent.
    fn poll_drain(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(sealed) = &mut self.sealed else { return Poll::Ready(Ok(())) };
        while sealed.channel.unsent() > 0 {
            ready!(self.stream.poll_write_ready(task))?;
            sealed.flush(&self.stream)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Sealed {
    fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        self.channel.flush(|bytes| stream.try_write(bytes)).map(drop)
    }

    /// Reads once. A socket that has nothing now gives nothing.
    fn fill(&mut self, stream: &TcpStream) -> io::Result<()> {
        fill(&mut self.channel, stream, &mut self.plain)
    }
}

/// Reads once into a channel, and adds what it says to `plain`.
pub(super) fn fill(
    channel: &mut Channel,
    stream: &TcpStream,
    plain: &mut Vec<u8>,
) -> io::Result<()> {
    let mut bytes = channel.partial();
    let begun = bytes.len();
    bytes.resize(begun + READ_BYTES, 0);
    let read = match stream.try_read(bytes.get_mut(begun..).unwrap_or_default()) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    let arrived = bytes.get_mut(..begun + read).unwrap_or_default();
    channel.open(arrived, plain).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(sealed) = &mut this.sealed else {
            return Pin::new(&mut this.stream).poll_read(task, into);
        };
        while sealed.plain.is_empty() {
            if sealed.channel.is_ended() {
                return Poll::Ready(Ok(()));
            }
            ready!(this.stream.poll_read_ready(task))?;
            match sealed.fill(&this.stream) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let count = sealed.plain.len().min(into.remaining());
        into.put_slice(sealed.plain.get(..count).unwrap_or_default());
        sealed.plain.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.sealed.is_none() {
            return Pin::new(&mut this.stream).poll_write(task, bytes);
        }
        ready!(this.poll_drain(task))?;
        let Some(sealed) = &mut this.sealed else { return Poll::Ready(Ok(0)) };
        let piece = bytes.get(..bytes.len().min(SEAL_BYTES_MAX)).unwrap_or_default();
        sealed.channel.seal(piece).map_err(io::Error::other)?;
        sealed.flush(&this.stream)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.sealed.is_none() {
            return Pin::new(&mut this.stream).poll_write_vectored(task, pieces);
        }
        let piece = pieces.iter().find(|piece| !piece.is_empty());
        Pin::new(this).poll_write(task, piece.map_or(&[], |piece| &**piece))
    }

    fn is_write_vectored(&self) -> bool {
        self.sealed.is_none() && self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(task))?;
        this.farewell();
        Pin::new(&mut this.stream).poll_shutdown(task)
    }
}
