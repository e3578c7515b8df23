//! A connection without a kernel: two bounded pipes, and every way in which one can end.
//! Owns what is on its way in both directions, and knows when the server wrote what.
//! # Invariants: bytes leave in the order in which they came; a way down that holds as much as it
//! has room for takes nothing more.
//! # Not here: what the bytes mean (`spelling`), when they move (`world`).

use crate::history::Span;
use crate::random::Random;
use fanfare::shard::outbound::{Socket, WRITE_FRAMES_MAX};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

/// What a client sends to the server.
#[derive(Clone, Debug)]
pub(crate) enum Upward {
    Command(Vec<u8>),
    /// Answers a WebSocket ping.
    Pong,
    /// Begins or answers the closing handshake.
    Close(u16),
}

/// How an end of the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Open,
    /// It will send nothing more.
    Finished,
    /// It is gone.
    Cut,
}

/// How much the pipe towards the client takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    /// Bytes that wait for the client at most.
    pub(crate) room: usize,
    /// What one write takes of what it is offered.
    pub(crate) intake: Intake,
}

/// How much one write takes, if there is room at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// What there is room for.
    Room,
    /// All of it, as a kernel does whose buffer is counted in packets.
    All,
    /// At most so many bytes, and sometimes the call is interrupted.
    Crumbs(usize),
}

/// The time, as everybody in a run sees it, in milliseconds.
pub(crate) type SimClock = Rc<Cell<u64>>;

/// Both directions of one connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    width: Width,
    down: RefCell<VecDeque<u8>>,
    written: RefCell<Writes>,
    clock: SimClock,
    pub(crate) up: RefCell<VecDeque<Upward>>,
    pub(crate) server: Cell<End>,
    pub(crate) client: Cell<End>,
    /// The server's reader must end.
    pub(crate) aborted: Cell<bool>,
    chance: RefCell<Random>,
}

/// When the server wrote what.
#[derive(Debug, Default)]
struct Writes {
    /// Up to which byte of the stream each write went.
    ends: VecDeque<(u64, Span)>,
    bytes: u64,
    /// Since when something waits that was offered and not taken.
    full_since: Option<u64>,
}

/// The server's end.
pub(crate) type SimSocket = Rc<Pipe>;

/// A socket as the shard knows it.
#[derive(Debug)]
pub(crate) struct ServerEnd(pub(crate) SimSocket);

impl Pipe {
    pub(crate) fn new(width: Width, chance: Random, clock: SimClock) -> SimSocket {
        Rc::new(Pipe {
            width,
            down: RefCell::default(),
            written: RefCell::default(),
            clock,
            up: RefCell::default(),
            server: Cell::new(End::Open),
            client: Cell::new(End::Open),
            aborted: Cell::new(false),
            chance: RefCell::new(chance),
        })
    }

    /// Takes at most so many bytes out of the pipe towards the client.
    pub(crate) fn receive(&self, most: usize) -> Vec<u8> {
        let mut down = self.down.borrow_mut();
        let count = most.min(down.len());
        down.drain(..count).collect()
    }

    /// When this byte of the stream was written. Nobody may ask for an earlier one afterwards.
    pub(crate) fn span_of(&self, place: u64) -> Option<Span> {
        let ends = &mut self.written.borrow_mut().ends;
        while ends.front().is_some_and(|(end, _)| *end <= place) {
            ends.pop_front();
        }
        ends.front().map(|(_, span)| *span)
    }

    /// Bytes that the client has not taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.down.borrow().len()
    }

    /// Whether a write would take something, or find out that nobody is there.
    pub(crate) fn is_writable(&self) -> bool {
        self.waiting() < self.width.room || self.client.get() == End::Cut
    }
}

impl Socket for ServerEnd {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Pipe { down, server, client, written, clock, .. } = &*self.0;
        if client.get() == End::Cut || server.get() != End::Open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = self.intake();
        let at = clock.get();
        let mut writes = written.borrow_mut();
        let since = writes.full_since.unwrap_or(at);
        if let Ok(taken) = taken {
            let mut down = down.borrow_mut();
            let before = down.len();
            down.extend(slices.iter().flat_map(|slice| slice.iter()).take(taken));
            let taken = down.len() - before;
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            writes.bytes += taken as u64;
            let end = writes.bytes;
            writes.ends.push_back((end, Span { since, at }));
            // Behind as many frames as one write takes there may be more.
            let may_wait = taken < offered || slices.len() >= WRITE_FRAMES_MAX;
            writes.full_since = may_wait.then_some(since);
            return Ok(taken);
        }
        writes.full_since = Some(since);
        taken
    }

    fn shutdown(&self) {
        if self.0.server.get() == End::Open {
            self.0.server.set(End::Finished);
        }
    }

    fn abort(&self) {
        self.0.aborted.set(true);
        if self.0.server.get() == End::Open {
            self.0.server.set(End::Cut);
        }
    }
}

impl Drop for ServerEnd {
    /// A socket that is dropped is closed; what was written before still arrives.
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl ServerEnd {
    /// How many bytes one write takes now, at most.
    fn intake(&self) -> io::Result<usize> {
        let Pipe { width, down, chance, .. } = &*self.0;
        let room = width.room.saturating_sub(down.borrow().len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match width.intake {
            Intake::Room => Ok(room),
            Intake::All => Ok(usize::MAX),
            Intake::Crumbs(_) if chance.borrow_mut().chance(5) => {
                Err(io::ErrorKind::Interrupted.into())
            }
            Intake::Crumbs(most) => Ok(room.min(chance.borrow_mut().within(1..=most))),
        }
    }
}
