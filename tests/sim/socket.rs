//! A connection without a kernel: two bounded pipes, and every way in which one can end.
//! Owns what is on its way in both directions.
//! # Invariants: bytes leave in the order in which they came; a way down that holds as much as it
//! has room for takes nothing more.
//! # Not here: what the bytes mean (`spelling`), when they move (`world`).

use crate::random::Random;
use fanfare::shard::outbound::Socket;
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

/// Both directions of one connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    width: Width,
    down: RefCell<VecDeque<u8>>,
    pub(crate) up: RefCell<VecDeque<Upward>>,
    pub(crate) server: Cell<End>,
    pub(crate) client: Cell<End>,
    /// The server's reader must end.
    pub(crate) aborted: Cell<bool>,
    chance: RefCell<Random>,
}

/// The server's end.
pub(crate) type SimSocket = Rc<Pipe>;

/// A socket as the shard knows it.
#[derive(Debug)]
pub(crate) struct ServerEnd(pub(crate) SimSocket);

impl Pipe {
    pub(crate) fn new(width: Width, chance: Random) -> SimSocket {
        Rc::new(Pipe {
            width,
            down: RefCell::default(),
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
        let Pipe { width, down, server, client, chance, .. } = &*self.0;
        if client.get() == End::Cut || server.get() != End::Open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut down = down.borrow_mut();
        let room = width.room.saturating_sub(down.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = match width.intake {
            Intake::Room => room,
            Intake::All => usize::MAX,
            Intake::Crumbs(_) if chance.borrow_mut().chance(5) => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Intake::Crumbs(most) => room.min(chance.borrow_mut().within(1..=most)),
        };
        let before = down.len();
        down.extend(slices.iter().flat_map(|slice| slice.iter()).take(taken));
        Ok(down.len() - before)
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
