//! One connection of a subscriber, from its first byte to its last.
//! # Invariants: it holds bytes only while a frame is cut in two or the socket is full.
//! # Not here: when there is something to read (`crowd`), what is counted (`tally`).

use super::conduit::Conduit;
use super::frame::{self, Head, Opcode};
use super::speech::{Heard, Joining, Speech};
use super::subject::Target;
use super::tally::{Numbers, Tally};
use mio::net::TcpStream;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes that a subscriber who will stop reading takes before its socket is full.
const STALLING_BUFFER_BYTES: usize = 4096;

/// Addresses that the connections of one machine to itself begin at, so that its ports suffice.
const SOURCES: u32 = 16;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Upgrading,
    Subscribing,
    Ready,
    /// The close has been sent, and that of the server is waited for.
    Closing,
    Ended,
}

/// Whether a subscriber reads to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    Reads,
    /// It is told to stop at some time.
    Stalls,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: Conduit<TcpStream>,
    pub(super) state: State,
    pub(super) habit: Habit,
    topics: Box<[u32]>,
    numbers: Numbers,
    /// Whether several events come in one message by now.
    joining: Joining,
    /// Subscriptions without an answer.
    unanswered: usize,
    /// The beginning of a frame.
    kept: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
}

/// Why a connection has ended.
pub(super) type Ending = String;

impl Link {
    /// Begins to connect. `index` chooses where from, if the server is on this machine.
    pub(super) fn connect(
        target: &Target,
        topics: &[u32],
        habit: Habit,
        index: usize,
    ) -> io::Result<Link> {
        let socket = Socket::new(Domain::for_address(target.place.address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if habit == Habit::Stalls {
            socket.set_recv_buffer_size(STALLING_BUFFER_BYTES)?;
        }
        if let Some(source) = source(target.place.address, index) {
            socket.bind(&SockAddr::from(source))?;
        }
        if let Err(error) = socket.connect(&SockAddr::from(target.place.address))
            && error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error())
        {
            return Err(error);
        }
        let stream = TcpStream::from_std(socket.into());
        Ok(Link {
            stream: Conduit::new(stream, target.place.secure.as_ref())?,
            state: State::Connecting,
            habit,
            topics: topics.into(),
            numbers: Numbers::new(topics),
            joining: Joining::Single,
            unanswered: target.speech.answers(topics.len()),
            kept: Vec::new(),
            unsent: Vec::new(),
        })
    }

    /// Goes on because the socket takes bytes.
    pub(super) fn writable(&mut self, target: &Target) -> Result<(), Ending> {
        if self.state == State::Connecting {
            if let Some(error) = self.stream.socket().take_error().unwrap_or_else(Some) {
                return Err(error.to_string());
            }
            self.state = State::Upgrading;
            let path = target.speech.path(&target.path, &self.topics);
            self.unsent = frame::request(&target.authority, &path, target.speech.subprotocol());
        }
        self.flush()
    }

    /// Says goodbye.
    pub(super) fn close(&mut self) -> Result<(), Ending> {
        self.state = State::Closing;
        let normal = 1000_u16.to_be_bytes();
        frame::put_client(&mut self.unsent, Opcode::Close, &normal, [1, 2, 3, 4]);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Ending> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.unsent = Vec::new();
        self.stream.flush().map_err(|error| error.to_string())
    }

    /// Reads once. Returns how many bytes there were, or nothing if there are none now.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Ending> {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => Err("the server ended it".to_owned()),
                Ok(len) => Ok(Some(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error.to_string()),
            };
        }
    }

    /// Takes what was read at `now_ns`.
    pub(super) fn take(
        &mut self,
        speech: Speech,
        bytes: &[u8],
        (tally, now_ns): (&mut Tally, u64),
    ) -> Result<(), Ending> {
        if self.kept.is_empty() {
            let used = self.consume(speech, bytes, (tally, now_ns))?;
            self.kept.extend_from_slice(bytes.get(used..).unwrap_or_default());
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.kept);
        joined.extend_from_slice(bytes);
        let used = self.consume(speech, &joined, (tally, now_ns))?;
        self.kept = joined.get(used..).unwrap_or_default().to_vec();
        Ok(())
    }

    /// Takes whole frames, and returns how many bytes they were.
    fn consume(
        &mut self,
        speech: Speech,
        bytes: &[u8],
        (tally, now_ns): (&mut Tally, u64),
    ) -> Result<usize, Ending> {
        let mut rest = bytes;
        if self.state == State::Upgrading {
            match frame::accepted(rest).map_err(|bad| bad.to_string())? {
                None => return Ok(0),
                Some(len) => rest = rest.get(len..).unwrap_or_default(),
            }
            self.state = if self.unanswered == 0 { State::Ready } else { State::Subscribing };
            speech.greet(&self.topics, &mut self.unsent);
            self.flush()?;
        }
        while let Some(head) = Head::read(rest).map_err(|bad| bad.to_string())? {
            let Some((whole, others)) = rest.split_at_checked(head.frame_len()) else {
                break;
            };
            let payload = whole.get(head.len..).unwrap_or_default();
            match head.opcode {
                Opcode::Text | Opcode::Binary => self.hear(speech, payload, (tally, now_ns))?,
                Opcode::Ping => {
                    frame::put_client(&mut self.unsent, Opcode::Pong, payload, [1, 2, 3, 4]);
                    self.flush()?;
                }
                Opcode::Pong => {}
                Opcode::Close => return Err(closed(payload)),
            }
            rest = others;
        }
        Ok(bytes.len() - rest.len())
    }

    fn hear(
        &mut self,
        speech: Speech,
        payload: &[u8],
        (tally, now_ns): (&mut Tally, u64),
    ) -> Result<(), Ending> {
        let mut refused = None;
        speech.hear(self.joining, payload, |heard| match heard {
            Heard::Delivery(body) => tally.take(&mut self.numbers, body, now_ns),
            Heard::Batches => self.joining = Joining::Batch,
            Heard::Subscribed => self.unanswered = self.unanswered.saturating_sub(1),
            Heard::Gap => tally.gaps += 1,
            Heard::Refused(words) => refused = Some(words),
            Heard::Other => {}
        });
        if self.state == State::Subscribing && self.unanswered == 0 {
            self.state = State::Ready;
        }
        refused.map_or(Ok(()), Err)
    }
}

/// What a close frame says.
pub(super) fn closed(payload: &[u8]) -> Ending {
    match payload.split_first_chunk() {
        Some((code, words)) => {
            let code = u16::from_be_bytes(*code);
            format!("the server closed it with {code}: {}", String::from_utf8_lossy(words))
        }
        None => "the server closed it".to_owned(),
    }
}

/// One of several loopback addresses: the ports of a single one would run out.
fn source(target: SocketAddr, index: usize) -> Option<SocketAddr> {
    let IpAddr::V4(target) = target.ip() else {
        return None;
    };
    // Other systems have only the first address of loopback.
    if !target.is_loopback() || cfg!(not(target_os = "linux")) {
        return None;
    }
    let first = u32::from(Ipv4Addr::LOCALHOST);
    let host = u32::try_from(index).unwrap_or_default() % SOURCES;
    Some(SocketAddr::from((Ipv4Addr::from(first + host), 0)))
}
