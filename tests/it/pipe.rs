//! A TCP connection as a test sees it: bytes out, bytes in, and its end.
//! # Invariants: nothing that arrived is lost between two reads.
//! # Not here: what the bytes mean.

use crate::harness::within;
use socket2::SockRef;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection.
pub(crate) struct Pipe {
    reader: Reader,
    writer: Option<Writer>,
    /// The same socket once more, for its options.
    socket: std::net::TcpStream,
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
        Pipe::of(narrow(address).await)
    }

    fn of(stream: TcpStream) -> Pipe {
        stream.set_nodelay(true).expect("no delay");
        let socket = SockRef::from(&stream).try_clone().expect("a socket").into();
        Pipe::over(stream, socket)
    }

    /// A connection over TLS, its handshake done.
    pub(crate) fn of_tls(stream: TlsStream<TcpStream>) -> Pipe {
        let socket = SockRef::from(stream.get_ref().0).try_clone().expect("a socket").into();
        Pipe::over(stream, socket)
    }

    fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        socket: std::net::TcpStream,
    ) -> Pipe {
        let (reader, writer) = tokio::io::split(stream);
        let (reader, writer): (Reader, Writer) = (Box::new(reader), Box::new(writer));
        Pipe { reader, writer: Some(writer), socket, ahead: Vec::new() }
    }

    /// Sends bytes that the peer must take.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let writer = self.writer.as_mut().expect("it may still send");
        let written = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        within("sending", written).await.expect("the peer takes it");
    }

    /// Sends bytes that the peer may refuse to take.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let writer = self.writer.as_mut().expect("it may still send");
        within("sending", writer.write_all(bytes)).await.unwrap_or_default();
    }

    /// Sends bytes past whatever encrypts them; they must be few.
    pub(crate) fn send_beneath(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(&mut self.socket, bytes).expect("the system takes it");
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        drop(self.writer());
        // The peer may be gone already.
        self.socket.shutdown(std::net::Shutdown::Write).unwrap_or_default();
    }

    /// The sending side, for somebody who sends while this one reads.
    pub(crate) fn writer(&mut self) -> Writer {
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
    pub(crate) fn reset(self) {
        let linger = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        linger.expect("no lingering");
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

/// A fresh connection whose kernel holds little for a reader that does not read.
pub(crate) async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    within("connecting", socket.connect(address)).await.expect("a connection")
}
