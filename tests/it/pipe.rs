//! A TCP connection as a test sees it: bytes out, bytes in, and its end.
//! # Invariants: nothing that arrived is lost between two reads.
//! # Not here: what the bytes mean.

use crate::harness::within;
use socket2::SockRef;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

/// A connection.
pub(crate) struct Pipe {
    reader: OwnedReadHalf,
    /// Dropping it says that nothing more will be sent.
    writer: Option<OwnedWriteHalf>,
    /// What has arrived and was not taken yet.
    ahead: Vec<u8>,
}

impl Pipe {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Pipe {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("a connection");
        Pipe::of(stream)
    }

    /// Connects with a kernel that holds little for a reader that does not read.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Pipe {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = within("connecting", socket.connect(address)).await.expect("a connection");
        Pipe::of(stream)
    }

    fn of(stream: TcpStream) -> Pipe {
        stream.set_nodelay(true).expect("no delay");
        let (reader, writer) = stream.into_split();
        Pipe { reader, writer: Some(writer), ahead: Vec::new() }
    }

    /// Sends bytes that the peer must take.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let writer = self.writer.as_mut().expect("it may still send");
        within("sending", writer.write_all(bytes)).await.expect("the peer takes it");
    }

    /// Sends bytes that the peer may refuse to take.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let writer = self.writer.as_mut().expect("it may still send");
        within("sending", writer.write_all(bytes)).await.unwrap_or_default();
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        drop(self.writer());
    }

    /// The sending side, for somebody who sends while this one reads.
    pub(crate) fn writer(&mut self) -> OwnedWriteHalf {
        self.writer.take().expect("it may still send")
    }

    /// The next so many bytes, or `None` if the peer ends before.
    pub(crate) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.read().await {
                return None;
            }
        }
        Some(self.ahead.drain(..count).collect())
    }

    /// All bytes up to and with `end`, or `None` if the peer ends before.
    pub(crate) async fn take_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|window| window == end) {
                return Some(self.ahead.drain(..at + end.len()).collect());
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Takes a few bytes from the kernel and keeps them for later; the peer must have sent some.
    pub(crate) async fn crawl(&mut self, bytes: usize) {
        let mut few = vec![0; bytes];
        let count = within("a few bytes", self.reader.read(&mut few)).await.expect("no reset");
        self.ahead.extend_from_slice(&few[..count]);
    }

    /// Ends the connection as a peer whose machine has crashed and come back: by a reset.
    pub(crate) fn reset(mut self) {
        let writer = self.writer();
        let stream = self.reader.reunite(writer).expect("two halves of one");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("no lingering");
    }

    /// All bytes up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.read().await {}
        std::mem::take(&mut self.ahead)
    }

    /// The peer must end now, without another byte.
    pub(crate) async fn end(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "{} bytes before the end: {rest:02x?}", rest.len());
    }

    /// Reads what has arrived, at least one byte; false at the end. A reset is an end too.
    async fn read(&mut self) -> bool {
        let read = within("the peer", self.reader.read_buf(&mut self.ahead)).await;
        read.is_ok_and(|count| count > 0)
    }
}
