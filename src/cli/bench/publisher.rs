//! The publisher of a bench: one connection, messages with marks, and when they are due.
//! # Invariants: in a rate the mark holds when a message was due, not when there was time to send
//! it; with a window at most so many messages are published and not yet delivered.
//! # Not here: who receives them (`crowd`).

use super::conduit::Conduit;
use super::error::BenchError;
use super::frame::{self, Head, Opcode};
use super::link::closed;
use super::mark::Mark;
use super::speech::{Heard, Joining};
use super::subject::Target;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Time for the server to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that may wait to be sent before no more are made.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// Bytes that are read at once; nearly all that comes are pings.
const BUFFER_BYTES: usize = 16 << 10;

/// A connection that publishes.
pub(super) struct Publisher {
    stream: Conduit<TcpStream>,
    target: Target,
    /// Of each topic, the message without its mark.
    drafts: Vec<Draft>,
    next: usize,
    unsent: Vec<u8>,
    kept: Vec<u8>,
    mask: u32,
}

struct Draft {
    opcode: Opcode,
    payload: Vec<u8>,
    /// Where in the payload the body begins.
    body: usize,
    number: u32,
    readers: u64,
}

impl Publisher {
    /// Connects. `readers` are the subscribers of each topic that will get its messages.
    pub(super) fn open(
        target: &Target,
        body_len: usize,
        readers: &[u64],
    ) -> Result<Publisher, BenchError> {
        let path = target.speech.path(&target.path, &[]);
        let mut stream = upgrade(target, &path)?;
        let nonblocking = stream.socket().set_nonblocking(true);
        nonblocking.map_err(BenchError::system("cannot set up a socket"))?;
        let drafts = readers.iter().zip(0..).map(|(readers, topic)| {
            let (opcode, payload, body) = target.speech.message(topic, body_len);
            Draft { opcode, payload, body, number: 0, readers: *readers }
        });
        Ok(Publisher {
            stream,
            target: target.clone(),
            drafts: drafts.collect(),
            next: 0,
            unsent: Vec::new(),
            kept: Vec::new(),
            mask: 0x9E37_79B9,
        })
    }

    /// Makes the next message, topic after topic. Returns how many deliveries it must cause.
    pub(super) fn publish(&mut self, due_ns: u64) -> u64 {
        let Some(draft) = self.drafts.get_mut(self.next) else {
            return 0;
        };
        draft.number += 1;
        let topic = u32::try_from(self.next).unwrap_or(u32::MAX);
        let mark = Mark { due_ns, topic, number: draft.number };
        mark.write(draft.payload.get_mut(draft.body..).unwrap_or_default());
        // Another mask each time, as clients have it; nobody here has to be kept from guessing it.
        self.mask = self.mask.wrapping_mul(0x9E37_79B1).wrapping_add(1);
        frame::put_client(&mut self.unsent, draft.opcode, &draft.payload, self.mask.to_be_bytes());
        let readers = draft.readers;
        self.next = (self.next + 1) % self.drafts.len();
        readers
    }

    /// Whether more messages may be made.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.len() < UNSENT_BYTES_MAX
    }

    /// Bytes that have not left.
    pub(super) fn unsent_len(&self) -> usize {
        self.unsent.len()
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), BenchError> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BenchError::Publisher(error.to_string())),
            }
        }
        self.stream.flush().map_err(|error| BenchError::Publisher(error.to_string()))
    }

    /// Answers pings, and finds out whether the broker is content.
    pub(super) fn listen(&mut self) -> Result<(), BenchError> {
        let mut buffer = [0; BUFFER_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(BenchError::Publisher("the server ended it".to_owned())),
            Ok(len) => self.kept.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(BenchError::Publisher(error.to_string())),
        }
        let mut kept = std::mem::take(&mut self.kept);
        let mut rest = &kept[..];
        while let Some(head) = Head::read(rest)? {
            let Some((whole, others)) = rest.split_at_checked(head.frame_len()) else {
                break;
            };
            self.hear(head.opcode, whole.get(head.len..).unwrap_or_default())?;
            rest = others;
        }
        let used = kept.len() - rest.len();
        kept.drain(..used);
        self.kept = kept;
        self.flush()
    }

    fn hear(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), BenchError> {
        match opcode {
            Opcode::Close => return Err(BenchError::Publisher(closed(payload))),
            Opcode::Ping => {
                frame::put_client(&mut self.unsent, Opcode::Pong, payload, [1, 2, 3, 4]);
            }
            Opcode::Pong => {}
            Opcode::Text | Opcode::Binary => {
                let mut refused = None;
                self.target.speech.hear(Joining::Single, payload, |heard| {
                    if let Heard::Refused(words) = heard {
                        refused = Some(words);
                    }
                });
                if let Some(words) = refused {
                    return Err(BenchError::Publish(words));
                }
            }
        }
        Ok(())
    }
}

/// Connects, and waits until the server has accepted the WebSocket.
pub(super) fn upgrade(target: &Target, path: &str) -> Result<Conduit<TcpStream>, BenchError> {
    let mut stream = target.place.connect()?;
    let timeout = stream.socket().set_read_timeout(Some(ANSWER_TIMEOUT));
    timeout.map_err(BenchError::system("cannot set up a socket"))?;
    let request = frame::request(&target.authority, path, target.speech.subprotocol());
    let lost = |error: io::Error| BenchError::Publisher(error.to_string());
    stream.write_all(&request).map_err(lost)?;
    let mut answer = Vec::new();
    // A byte at a time, so that nothing is taken that comes after it.
    let mut byte = [0];
    while frame::accepted(&answer)?.is_none() {
        match stream.read(&mut byte) {
            Ok(0) => return Err(BenchError::Publisher("the server ended it".to_owned())),
            Ok(_) => answer.extend_from_slice(&byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(BenchError::Silent("the upgrade", ANSWER_TIMEOUT.as_secs()));
            }
            Err(error) => return Err(lost(error)),
        }
    }
    Ok(stream)
}

/// How fast messages are published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Load {
    /// So many a second.
    Rate(f64),
    /// As fast as they are delivered, at most so many on the way.
    Window(u64),
}
