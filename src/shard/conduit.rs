//! The socket of one connection: a TCP stream, and what TLS keeps beside it.
//! # Invariants: a plain connection costs one branch more than its stream, and no memory; what TLS has
//! encrypted and the system did not take counts as unsent, so it is bounded and somebody waits for it.
//! # Not here: handshakes (`listen`), records (`tls`).

use super::outbound::Socket;
use crate::tls::{Channel, SEAL_BYTES_MAX};
use socket2::SockRef;
use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// A connection's socket.
#[derive(Debug)]
pub struct Conduit(Kind);

/// What only some connections have lies apart, so that the others do not pay for it.
#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    More(Box<(TcpStream, More)>),
}

/// What only some connections have.
#[derive(Debug, Default)]
pub struct More {
    /// The end of TLS, its handshake done.
    pub channel: Option<RefCell<Channel>>,
    /// Who the peer speaks for, if it is a proxy that we believe.
    pub client: Option<IpAddr>,
    /// What is given up with the connection.
    pub held: Option<Box<dyn Any>>,
}

impl Conduit {
    /// A socket and what belongs to it.
    pub fn new(stream: TcpStream, more: More) -> Conduit {
        let More { channel, client, held } = &more;
        let is_plain = channel.is_none() && client.is_none() && held.is_none();
        Conduit(if is_plain { Kind::Plain(stream) } else { Kind::More(Box::new((stream, more))) })
    }

    /// The stream, to wait for.
    #[inline]
    pub fn stream(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(stream) => stream,
            Kind::More(more) => &more.0,
        }
    }

    /// The address of whoever is connected, as far as that is known.
    pub fn client(&self) -> Option<IpAddr> {
        let told = match &self.0 {
            Kind::Plain(_) => None,
            Kind::More(more) => more.1.client,
        };
        told.or_else(|| self.stream().peer_addr().ok().map(|address| address.ip()))
    }

    #[inline]
    fn channel(&self) -> Option<&RefCell<Channel>> {
        match &self.0 {
            Kind::Plain(_) => None,
            Kind::More(more) => more.1.channel.as_ref(),
        }
    }

    /// Reads what has arrived. What TLS makes of it is put into `plain`. `None` when nothing has
    /// arrived after all.
    ///
    /// # Errors
    /// The socket's error, or [`io::ErrorKind::UnexpectedEof`] at its end.
    pub(super) fn read<T>(
        &self,
        buffer: &mut [u8],
        plain: &RefCell<Vec<u8>>,
        act: impl FnOnce(&mut [u8]) -> T,
    ) -> io::Result<Option<T>> {
        let Some(channel) = self.channel() else {
            return match self.stream().try_read(buffer) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    if len < buffer.len() && TELLS_EDGES {
                        note_drained(self.stream());
                    }
                    Ok(buffer.get_mut(..len).map(act))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            };
        };
        let mut plain = plain.borrow_mut();
        plain.clear();
        self.read_sealed(&mut channel.borrow_mut(), buffer, &mut plain)?;
        Ok((!plain.is_empty()).then(|| act(&mut plain)))
    }

    fn read_sealed(
        &self,
        channel: &mut Channel,
        buffer: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> io::Result<()> {
        if channel.is_ended() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // At most 32 KiB of the 256 that a shard reads at once.
        let partial = channel.partial();
        let begun = partial.len().min(buffer.len());
        buffer.iter_mut().zip(&partial).for_each(|(slot, byte)| *slot = *byte);
        let room = buffer.get_mut(begun..).unwrap_or_default();
        let full = room.len();
        let read = match self.stream().try_read(room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let opened = channel.open(buffer.get_mut(..begun + read).unwrap_or_default(), plain);
        if opened.is_err() {
            // The peer is told, if it takes that at once; nothing more is understood.
            self.push_out(channel).unwrap_or_default();
            return Err(io::ErrorKind::InvalidData.into());
        }
        match channel.is_ended() {
            // The next read meets the end, and it must come.
            true if plain.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            true => Ok(()),
            false => {
                if read > 0 && read < full && TELLS_EDGES {
                    note_drained(self.stream());
                }
                Ok(())
            }
        }
    }

    fn push_out(&self, channel: &mut Channel) -> io::Result<usize> {
        channel.flush(|bytes| self.stream().try_write(bytes))
    }

    /// Encrypts and writes until everything is taken or the system takes no more.
    #[cold]
    fn write_sealed(&self, channel: &mut Channel, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.push_out(channel)?;
        let (mut slices, mut begun, mut taken) = (slices, 0, 0);
        while channel.unsent() == 0 {
            let piece = next_piece(&mut slices, &mut begun);
            if piece.is_empty() {
                return Ok(taken);
            }
            channel.seal(&piece).map_err(io::Error::other)?;
            taken += piece.len();
            self.push_out(channel)?;
        }
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Says that nothing more comes, if the system takes that at once.
    fn farewell(&self) {
        let Some(channel) = self.channel() else { return };
        let mut channel = channel.borrow_mut();
        if channel.farewell().is_ok() {
            self.push_out(&mut channel).unwrap_or_default();
        }
        channel.forget();
    }
}

impl Drop for Conduit {
    fn drop(&mut self) {
        self.farewell();
    }
}

/// The next bytes to encrypt together; many short frames are one record.
fn next_piece<'a>(slices: &mut &'a [IoSlice<'a>], begun: &mut usize) -> Cow<'a, [u8]> {
    let mut piece = Cow::Borrowed(&[][..]);
    while let Some((first, rest)) = slices.split_first() {
        let room = SEAL_BYTES_MAX - piece.len();
        let bytes = first.get(*begun..).unwrap_or_default();
        let (now, later) = bytes.split_at(bytes.len().min(room));
        if piece.is_empty() {
            piece = Cow::Borrowed(now);
        } else {
            piece.to_mut().extend_from_slice(now);
        }
        if !later.is_empty() {
            *begun += now.len();
            break;
        }
        (*slices, *begun) = (rest, 0);
    }
    piece
}

impl Socket for Rc<Conduit> {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(channel) = self.channel() {
            return self.write_sealed(&mut channel.borrow_mut(), slices);
        }
        match write_now(self.stream(), slices) {
            // Asked again through the runtime, which thereby learns that it has to wait.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match slices {
                [one] => self.stream().try_write(one),
                many => self.stream().try_write_vectored(many),
            },
            result => result,
        }
    }

    #[cfg(target_os = "linux")]
    fn write_last(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
        if self.channel().is_some() {
            return self.write_vectored(slices);
        }
        self.stream().try_io(Interest::WRITABLE, || {
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            Ok(sendmsg(self.stream(), slices, &mut SendAncillaryBuffer::default(), flags)?)
        })
    }

    #[inline]
    fn unsent(&self) -> usize {
        self.channel().map_or(0, |channel| channel.borrow().unsent())
    }

    fn push(&self) -> io::Result<usize> {
        match self.channel() {
            None => Ok(0),
            Some(channel) => self.push_out(&mut channel.borrow_mut()),
        }
    }

    fn shutdown(&self) {
        self.farewell();
        // An error means that the peer is gone, which the reader sees too.
        drop(SockRef::from(self.stream()).shutdown(Shutdown::Write));
    }

    fn abort(&self) {
        if let Some(channel) = self.channel() {
            channel.borrow_mut().forget();
        }
        drop(SockRef::from(self.stream()).shutdown(Shutdown::Both));
    }
}

/// Writes without asking the runtime first whether the socket takes anything: what it knows of a
/// socket lies in memory that is seldom at hand (3 % of a ticker mix), and the answer is nearly
/// always yes.
#[cfg(target_os = "linux")]
fn write_now(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
    Ok(match slices {
        [one] => send(stream, one, SendFlags::NOSIGNAL)?,
        many => sendmsg(stream, many, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?,
    })
}

#[cfg(not(target_os = "linux"))]
fn write_now(_: &TcpStream, _: &[IoSlice<'_>]) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// Whether the system's event queue tells of bytes that come after a read that took all there were,
/// without having been asked again.
const TELLS_EDGES: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd"
));

/// Notes that there is nothing more to read. The event queue tells of what comes, so looking once
/// more would be a call for nothing.
fn note_drained(stream: &TcpStream) {
    let nothing = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
    // Always that error, which is what makes the runtime wait for the next event.
    drop(stream.try_io(Interest::READABLE, nothing));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_connection_pays_nothing() {
        assert_eq!(size_of::<Conduit>(), size_of::<TcpStream>());
    }

    proptest! {
        #[test]
        fn pieces_are_the_bytes_in_order_and_none_is_too_long(
            lengths in prop::collection::vec(0usize..(SEAL_BYTES_MAX * 2), 0..8),
        ) {
            let frames: Vec<Vec<u8>> = (0_u8..).zip(&lengths).map(|(n, len)| vec![n; *len]).collect();
            let slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
            let (mut rest, mut begun, mut got) = (slices.as_slice(), 0, Vec::new());
            loop {
                let piece = next_piece(&mut rest, &mut begun);
                prop_assert!(piece.len() <= SEAL_BYTES_MAX);
                if piece.is_empty() {
                    break;
                }
                got.extend_from_slice(&piece);
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(got, frames.concat());
        }
    }
}
