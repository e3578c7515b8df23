//! A connection as HTTP writes to it, which can be taken away from HTTP, and which is not waited for
//! without end.
//! # Invariants: whoever asks learns whether HTTP has bytes left that the peer did not take; an idle
//! connection has no timer.
//! # Not here: what is said (`http`), the socket (`listen::pipe`).

use crate::clock::Clock;
use crate::listen::pipe::Pipe;
use crate::reason::Reason;
use crate::shard::pressure::{Budget, Pressure};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How often a broker is asked whether it is short of memory, for an answer that takes long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What of an answer waits for its socket.
#[derive(Debug)]
pub(super) struct Backlog {
    clock: Clock,
    /// Whether the peer took nothing when it was last written to.
    is_full: Cell<bool>,
    /// Since when something waits, and when the peer took some of it last, in uptime.
    waits: Cell<Option<(Duration, Duration)>>,
}

impl Backlog {
    /// That of a connection for which nothing waits.
    pub(super) fn new(clock: Clock) -> Backlog {
        Backlog { clock, is_full: Cell::new(false), waits: Cell::new(None) }
    }

    /// Whether the peer takes nothing of what is written.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.get()
    }

    fn note_written(&self, result: &Poll<io::Result<usize>>) {
        self.is_full.set(result.is_pending());
        match (result, self.waits.get()) {
            (Poll::Pending, None) => self.begin_to_wait(),
            (Poll::Ready(Ok(1..)), Some((since, _))) => {
                self.waits.set(Some((since, self.now())));
            }
            _ => {}
        }
    }

    /// HTTP flushes when it has nothing left to write.
    fn note_flushed(&self, result: &Poll<io::Result<()>>) {
        self.is_full.set(result.is_pending());
        if result.is_ready() {
            self.waits.set(None);
        } else if self.waits.get().is_none() {
            self.begin_to_wait();
        }
    }

    fn begin_to_wait(&self) {
        let now = self.now();
        self.waits.set(Some((now, now)));
    }

    fn now(&self) -> Duration {
        self.clock.now().uptime
    }
}

/// How long answers wait for their reader.
#[derive(Debug)]
pub(super) struct Patience {
    /// For the next bytes to be taken; for a whole answer, while memory is short.
    stall_max: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(stall_max: Duration) -> Patience {
        Patience { stall_max, sleep: None }
    }

    /// Ready with the reason when the peer is to be waited for no longer.
    pub(super) fn poll(
        &mut self,
        backlog: &Backlog,
        budget: &Budget,
        task: &mut Context<'_>,
    ) -> Poll<Reason> {
        let Some((since, moved)) = backlog.waits.get() else {
            self.sleep = None;
            return Poll::Pending;
        };
        let (stalled, late) = (moved + self.stall_max, since + self.stall_max);
        loop {
            let now = backlog.now();
            if now >= stalled {
                return Poll::Ready(Reason::SlowConsumer);
            }
            // Who takes a little now and then holds as much as who takes nothing.
            if now >= late && budget.pressure() > Pressure::Calm {
                return Poll::Ready(Reason::Shed);
            }
            let next = stalled.min(if now < late { late } else { now + LOOK_AGAIN });
            let asleep = self.sleep.insert(Box::pin(sleep(next.saturating_sub(now))));
            ready!(asleep.as_mut().poll(task));
        }
    }
}

/// A connection that notes what waits for it.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) pipe: Pipe,
    backlog: Rc<Backlog>,
}

impl Outlet {
    /// `backlog` tells what waits.
    pub(super) fn new(pipe: Pipe, backlog: Rc<Backlog>) -> Outlet {
        Outlet { pipe, backlog }
    }
}

impl AsyncRead for Outlet {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(task, into)
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.pipe).poll_write(task, bytes);
        self.backlog.note_written(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.pipe).poll_write_vectored(task, pieces);
        self.backlog.note_written(&result);
        result
    }

    /// Always, also over TLS: then hyper does not copy an answer, so that what is counted is what is
    /// there, and begins no other one before this one is written.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.pipe).poll_flush(task);
        self.backlog.note_flushed(&result);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counters;
    use std::sync::Arc;
    use std::task::Waker;

    const STALL: Duration = Duration::from_secs(10);

    /// What becomes of an answer that has waited since then, and of which some was taken then.
    fn judge(
        clock: Clock,
        waits: Option<(Duration, Duration)>,
        pressure: Pressure,
    ) -> Poll<Reason> {
        let shard = Arc::<Counters>::default();
        let budget = Budget::new(100, vec![Arc::clone(&shard)]);
        shard.outbound_bytes.add(if pressure == Pressure::Calm { 69 } else { 70 });
        assert_eq!(budget.measure(), pressure);
        let backlog = Backlog { clock, is_full: Cell::new(true), waits: Cell::new(waits) };
        let mut patience = Patience::new(STALL);
        let judged = patience.poll(&backlog, &budget, &mut Context::from_waker(Waker::noop()));
        assert_eq!(patience.sleep.is_some(), waits.is_some() && judged.is_pending());
        judged
    }

    #[tokio::test]
    async fn an_answer_is_waited_for_while_it_moves_and_while_there_is_memory() {
        let clock = Clock::start_at(STALL);
        let now = clock.now().uptime;
        let past = now.saturating_sub(STALL);
        for (waits, calm, short) in [
            (None, Poll::Pending, Poll::Pending),
            (Some((now, now)), Poll::Pending, Poll::Pending),
            (Some((past, now)), Poll::Pending, Poll::Ready(Reason::Shed)),
            (
                Some((past, past)),
                Poll::Ready(Reason::SlowConsumer),
                Poll::Ready(Reason::SlowConsumer),
            ),
        ] {
            assert_eq!(judge(clock, waits, Pressure::Calm), calm, "{waits:?}");
            assert_eq!(judge(clock, waits, Pressure::RefuseNew), short, "{waits:?}");
        }
    }

    #[test]
    fn what_waits_is_known_from_the_first_refusal_until_all_is_written() {
        let backlog = Backlog::new(Clock::start());
        backlog.note_written(&Poll::Ready(Ok(5)));
        backlog.note_flushed(&Poll::Ready(Ok(())));
        assert_eq!((backlog.is_full(), backlog.waits.get()), (false, None));
        backlog.note_written(&Poll::Pending);
        let (since, moved) = backlog.waits.get().expect("something waits");
        assert!(backlog.is_full() && since == moved);
        backlog.note_written(&Poll::Ready(Ok(5)));
        backlog.note_written(&Poll::Pending);
        let (still, moved) = backlog.waits.get().expect("something waits");
        assert!(still == since && moved >= since);
        backlog.note_written(&Poll::Ready(Ok(5)));
        backlog.note_flushed(&Poll::Ready(Ok(())));
        assert_eq!((backlog.is_full(), backlog.waits.get()), (false, None));
    }
}
