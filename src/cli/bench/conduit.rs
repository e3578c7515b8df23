//! What a connection of a bench is written to and read from: a socket, or TLS over one.
//! # Invariants: whether a socket waits or not, it is the same bytes; what TLS has encrypted and the
//! socket did not take leaves before anything else.
//! # Not here: who is believed (`client`), when there is something to read (`sockets`).

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

/// Whom a server must prove to be, and to whom we do.
#[derive(Clone, Debug)]
pub(super) struct Secure {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// A socket, and what TLS keeps beside it.
#[derive(Debug)]
pub(super) struct Conduit<S> {
    socket: S,
    tls: Option<Box<ClientConnection>>,
}

impl<S: Read + Write> Conduit<S> {
    /// The handshake is made with the first bytes.
    pub(super) fn new(socket: S, secure: Option<&Secure>) -> io::Result<Conduit<S>> {
        let begin = |Secure { config, name }: &Secure| {
            ClientConnection::new(Arc::clone(config), name.clone()).map(Box::new)
        };
        let tls = secure.map(begin).transpose().map_err(io::Error::other)?;
        Ok(Conduit { socket, tls })
    }

    /// The socket, to wait for or to set up.
    pub(super) fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Whether a read that gave less than there was room for took all there was.
    pub(super) fn tells_empty(&self) -> bool {
        self.tls.is_none()
    }
}

impl<S: Read + Write> Read for Conduit<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A server that is gone without a farewell has ended it all the same.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            push(tls, &mut self.socket)?;
            tls.read_tls(&mut self.socket)?;
            if let Err(error) = tls.process_new_packets() {
                // The server is told, if it takes that at once.
                push(tls, &mut self.socket).unwrap_or_default();
                return Err(io::Error::new(ErrorKind::InvalidData, format!("TLS: {error}")));
            }
        }
    }
}

impl<S: Read + Write> Write for Conduit<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.write(bytes) };
        let taken = tls.writer().write(bytes)?;
        push(tls, &mut self.socket)?;
        if taken == 0 && !bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Sends what TLS still has, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        self.tls.as_mut().map_or(Ok(()), |tls| push(tls, &mut self.socket))
    }
}

/// Sends what is encrypted, until the socket takes no more.
fn push(tls: &mut ClientConnection, socket: &mut impl Write) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
