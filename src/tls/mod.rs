//! TLS over bytes: the state of one connection, which turns records into bytes and bytes into
//! records. It holds neither a socket nor a buffer: an idle connection keeps its keys and no more.
//! # Invariants: what has not been sent yet is sent before anything else; a peer's records are kept
//! only until they are whole.
//! # Not here: sockets (`shard::conduit`), when a handshake is too late (`listen`), certificates
//! (`credentials`).

pub mod credentials;

pub use credentials::{BadCredentials, Credentials, Current, Demand, Paths};

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, ServerConfig};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Bytes that are encrypted at once: two records of the largest size. So much may wait encrypted
/// for a peer that does not take it.
pub const SEAL_BYTES_MAX: usize = 32 << 10;

/// What a record adds to its bytes, at most: its head, a nonce, the type of the content, a tag.
const RECORD_OVERHEAD: usize = 64;

/// Bytes of a peer that may wait for the rest of a record or of a handshake message: a chain of
/// certificates is the longest that anybody sends.
const PARTIAL_BYTES_MAX: usize = 32 << 10;

/// One connection's end of TLS.
pub struct Channel {
    connection: UnbufferedServerConnection,
    /// The beginning of what has arrived in part.
    partial: Vec<u8>,
    /// Records that nobody has taken yet.
    unsent: Vec<u8>,
    is_ended: bool,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No keys.
        f.debug_struct("Channel").field("unsent", &self.unsent.len()).finish_non_exhaustive()
    }
}

/// What to do once the handshake lets us write.
enum Wish<'a> {
    Nothing,
    Seal(&'a [u8]),
    Farewell,
}

impl Channel {
    /// The server's end of a connection that has just begun.
    ///
    /// # Errors
    /// The settings cannot be used, which [`Credentials`] has ruled out.
    pub fn new(config: Arc<ServerConfig>) -> Result<Channel, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Channel { connection, partial: Vec::new(), unsent: Vec::new(), is_ended: false })
    }

    /// Whether the handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The certificate that the peer has shown, in DER.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// Whether the peer has said that nothing more comes.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// What has arrived in part, to be given back to [`Channel::open`] with what follows it.
    pub fn partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Takes what has arrived, together with what has done so in part before, and adds what it says
    /// to `plain`.
    ///
    /// # Errors
    /// The peer does not speak TLS as it should. An alert that says so is unsent.
    pub fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        let used = self.drive(incoming, plain, &Wish::Nothing)?;
        let rest = incoming.get(used..).unwrap_or_default();
        if rest.len() > PARTIAL_BYTES_MAX {
            return Err(Error::General("a handshake message is too long".to_owned()));
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    /// Encrypts bytes behind what is unsent.
    ///
    /// # Errors
    /// The handshake is not done, or the keys are used up.
    pub fn seal(&mut self, plain: &[u8]) -> Result<(), Error> {
        self.drive(&mut [], &mut Vec::new(), &Wish::Seal(plain)).map(drop)
    }

    /// Says behind what is unsent that nothing more comes.
    ///
    /// # Errors
    /// The handshake is not done.
    pub fn farewell(&mut self) -> Result<(), Error> {
        self.drive(&mut [], &mut Vec::new(), &Wish::Farewell).map(drop)
    }

    /// Bytes that nobody has taken yet.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Gives up what is unsent.
    pub fn forget(&mut self) {
        self.unsent = Vec::new();
    }

    /// Gives what is unsent to `write` until there is nothing left or it takes no more. Returns how
    /// many bytes it took.
    ///
    /// # Errors
    /// Those of `write`, but for [`io::ErrorKind::WouldBlock`].
    pub fn flush(
        &mut self,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut taken = 0;
        let end = loop {
            let rest = self.unsent.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(taken);
            }
            match write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(taken),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        if taken >= self.unsent.len() {
            self.forget();
        } else {
            self.unsent.drain(..taken);
        }
        end
    }

    /// Goes on until more has to arrive. Returns how many bytes of `incoming` are used.
    fn drive(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        wish: &Wish<'_>,
    ) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let rest = incoming.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(rest);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plain.extend_from_slice(record.payload);
                        used += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let encode = |room: &mut [u8]| {
                        data.encode(room).map_err(|error| missing_for_encoding(&error))
                    };
                    append(&mut self.unsent, RECORD_OVERHEAD, encode)?;
                }
                // What was encoded is unsent, and will be sent before anything else.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_ended = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    match wish {
                        Wish::Nothing => {}
                        Wish::Seal(bytes) => {
                            let records = bytes.len() / (16 << 10) + 1;
                            append(
                                &mut self.unsent,
                                bytes.len() + records * RECORD_OVERHEAD,
                                |room| {
                                    traffic
                                        .encrypt(bytes, room)
                                        .map_err(|error| missing_for_encrypting(&error))
                                },
                            )?;
                        }
                        Wish::Farewell => append(&mut self.unsent, RECORD_OVERHEAD, |room| {
                            traffic
                                .queue_close_notify(room)
                                .map_err(|error| missing_for_encrypting(&error))
                        })?,
                    }
                    return Ok(used);
                }
                Ok(ConnectionState::BlockedHandshake) if matches!(wish, Wish::Nothing) => {
                    return Ok(used);
                }
                Ok(ConnectionState::Closed) if !matches!(wish, Wish::Seal(_)) => return Ok(used),
                Ok(_) => return Err(Error::HandshakeNotComplete),
                Err(error) => {
                    self.raise_alert();
                    return Err(error);
                }
            }
        }
    }

    /// What the peer is told about its mistake.
    fn raise_alert(&mut self) {
        let status = self.connection.process_tls_records(&mut []);
        if let Ok(ConnectionState::EncodeTlsData(mut alert)) = status.state {
            let encode =
                |room: &mut [u8]| alert.encode(room).map_err(|error| missing_for_encoding(&error));
            // Without it the peer only sees the end.
            append(&mut self.unsent, RECORD_OVERHEAD, encode).unwrap_or_default();
        }
    }
}

/// How many bytes were missing, if that is all that was wrong.
type Missing = Result<usize, Error>;

fn missing_for_encoding(error: &EncodeError) -> Missing {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
            Ok(*required_size)
        }
        EncodeError::AlreadyEncoded => Err(Error::General(error.to_string())),
    }
}

fn missing_for_encrypting(error: &EncryptError) -> Missing {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
            Ok(*required_size)
        }
        EncryptError::EncryptExhausted => Err(Error::EncryptError),
    }
}

/// Lets `write` fill room at the end of a vector: first as much as it most likely needs, then as
/// much as it asks for.
fn append(
    to: &mut Vec<u8>,
    likely: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Missing>,
) -> Result<(), Error> {
    let len = to.len();
    let mut room = likely;
    for _ in 0..2 {
        to.resize(len + room, 0);
        match write(to.get_mut(len..).unwrap_or_default()) {
            Ok(written) => {
                to.truncate(len + written);
                return Ok(());
            }
            Err(Ok(missing)) => room = missing,
            Err(Err(error)) => {
                to.truncate(len);
                return Err(error);
            }
        }
    }
    to.truncate(len);
    Err(Error::EncryptError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encrypted_is_taken_in_order_and_costs_nothing_afterwards() {
        let mut unsent = Vec::new();
        for text in ["abc", "defg"] {
            let wish = |room: &mut [u8]| match room.get_mut(..text.len()) {
                Some(room) => {
                    room.copy_from_slice(text.as_bytes());
                    Ok(text.len())
                }
                None => Err(Ok(text.len())),
            };
            // One guess is large enough, the other one is not.
            append(&mut unsent, 3, wish).expect("room is made");
        }
        assert_eq!(unsent, b"abcdefg");
        append(&mut unsent, 3, |_| Err(Ok(1 << 10))).expect_err("it asks for more and more");
        assert_eq!(unsent, b"abcdefg");
    }
}
