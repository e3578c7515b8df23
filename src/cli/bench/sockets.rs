//! The connections of a bench: one thread, one set of sockets, one buffer for all of them.
//! # Invariants: reading goes on until the socket is empty, because the system tells only once that
//! there is something; between two sockets the publisher has its turn.
//! # Not here: one connection's bytes (`link`), who connects to what (`crowd`, `churn`).

use super::error::BenchError;
use super::link::{Ending, Habit, Link, State};
use super::stopwatch::Stopwatch;
use super::subject::Target;
use super::tally::Tally;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::time::Duration;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Sockets that are looked at in one pass.
const EVENTS_MAX: usize = 1024;

/// Connections and what they have got.
pub(super) struct Sockets {
    pub(super) target: Target,
    pub(super) watch: Stopwatch,
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    buffer: Vec<u8>,
    /// What those got who read to the end.
    pub(super) tally: Tally,
    /// What the others got.
    pub(super) aside: Tally,
    /// What has become of connections since this was last taken.
    pub(super) changes: Vec<Change>,
}

/// A connection that is in another state than before.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) index: usize,
    pub(super) habit: Habit,
    pub(super) before: State,
    /// Why it has ended, if it has.
    pub(super) ending: Option<Ending>,
}

/// How a pass went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// More sockets were ready than one pass looks at.
    Full,
    /// There is time to rest.
    Quiet,
}

impl Sockets {
    pub(super) fn new(target: &Target, watch: Stopwatch) -> Result<Sockets, BenchError> {
        Ok(Sockets {
            target: target.clone(),
            watch,
            poll: Poll::new().map_err(BenchError::system("cannot watch sockets"))?,
            events: Events::with_capacity(EVENTS_MAX),
            links: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            tally: Tally::new(),
            aside: Tally::new(),
            changes: Vec::new(),
        })
    }

    /// Connections that were ever begun, less those that took another's place.
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// Begins one more connection.
    pub(super) fn add(&mut self, topics: &[u32], habit: Habit) -> Result<(), BenchError> {
        let index = self.links.len();
        let link = self.connect(index, index, topics, habit)?;
        self.links.push(link);
        Ok(())
    }

    /// Begins a connection in the place of one that has ended. `seed` chooses where from.
    pub(super) fn replace(
        &mut self,
        index: usize,
        seed: usize,
        topics: &[u32],
    ) -> Result<(), BenchError> {
        let link = self.connect(index, seed, topics, Habit::Reads)?;
        if let Some(place) = self.links.get_mut(index) {
            *place = link;
        }
        Ok(())
    }

    fn connect(
        &self,
        index: usize,
        seed: usize,
        topics: &[u32],
        habit: Habit,
    ) -> Result<Link, BenchError> {
        let link = Link::connect(&self.target, topics, habit, seed);
        let mut link = link.map_err(BenchError::system("cannot connect"))?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let watched = self.poll.registry().register(link.stream.socket(), Token(index), both);
        watched.map_err(BenchError::system("cannot watch a socket"))?;
        Ok(link)
    }

    /// Says goodbye on a connection.
    pub(super) fn close(&mut self, index: usize) {
        if let Some(link) = self.links.get_mut(index) {
            let before = link.state;
            let ending = link.close().err();
            if ending.is_some() {
                link.state = State::Ended;
                self.changes.push(Change { index, habit: link.habit, before, ending });
            }
        }
    }

    /// Ends a connection without a word.
    pub(super) fn cut(&mut self, index: usize) {
        if let Some(link) = self.links.get_mut(index) {
            link.state = State::Ended;
            self.poll.registry().deregister(link.stream.socket()).unwrap_or_default();
        }
    }

    /// No longer reads from those who are to stall.
    pub(super) fn stall(&mut self) {
        for link in self.links.iter_mut().filter(|link| link.habit == Habit::Stalls) {
            // A socket that has ended is not watched any more.
            self.poll.registry().deregister(link.stream.socket()).unwrap_or_default();
        }
    }

    /// Reads again from those who stalled, to see which of them the server has ended.
    pub(super) fn resume(&mut self) {
        for (index, link) in self.links.iter_mut().enumerate() {
            if link.habit == Habit::Stalls && link.state != State::Ended {
                let both = Interest::READABLE | Interest::WRITABLE;
                let watched =
                    self.poll.registry().register(link.stream.socket(), Token(index), both);
                watched.unwrap_or_default();
            }
        }
    }

    /// Serves every socket that is ready, waiting at most so long for one. After each, `between` is
    /// told the time and the deliveries so far.
    pub(super) fn pass(
        &mut self,
        wait: Duration,
        between: &mut dyn FnMut(u64, u64),
    ) -> Result<Pass, BenchError> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(BenchError::System { doing: "cannot wait for sockets", error });
            }
            _ => {}
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            let Token(index) = event.token();
            let Some(link) = self.links.get_mut(index) else {
                continue;
            };
            let before = link.state;
            if before == State::Ended {
                continue;
            }
            let tally = match link.habit {
                Habit::Reads => &mut self.tally,
                Habit::Stalls => &mut self.aside,
            };
            let mut turn = Turn { target: &self.target, watch: self.watch, tally, now_ns: 0 };
            let ending = turn.serve(link, event, &mut self.buffer).err();
            if ending.is_some() {
                link.state = State::Ended;
                self.poll.registry().deregister(link.stream.socket()).unwrap_or_default();
            }
            let now_ns = turn.now_ns;
            if link.state != before {
                self.changes.push(Change { index, habit: link.habit, before, ending });
            }
            between(now_ns, self.tally.delivered);
        }
        Ok(if count == EVENTS_MAX { Pass::Full } else { Pass::Quiet })
    }

    /// The state of a connection.
    pub(super) fn state(&self, index: usize) -> State {
        self.links.get(index).map_or(State::Ended, |link| link.state)
    }
}

/// One socket's turn.
struct Turn<'a> {
    target: &'a Target,
    watch: Stopwatch,
    tally: &'a mut Tally,
    now_ns: u64,
}

impl Turn<'_> {
    fn serve(&mut self, link: &mut Link, event: &Event, buffer: &mut [u8]) -> Result<(), Ending> {
        if event.is_writable() || link.state == State::Connecting {
            link.writable(self.target)?;
        }
        while let Some(len) = link.read(buffer)? {
            self.now_ns = self.watch.ns();
            self.tally.reads += 1;
            self.tally.bytes += len as u64;
            let bytes = buffer.get(..len).unwrap_or_default();
            link.take(self.target.speech, bytes, (&mut *self.tally, self.now_ns))?;
            // Fewer bytes than there was room for: the socket is empty, unless it has ended.
            if len < buffer.len() && link.stream.tells_empty() && !event.is_read_closed() {
                break;
            }
        }
        Ok(())
    }
}
