//! Reading a connection: bytes in, whatever its protocol makes of them.
//! # Invariants: an idle connection owns no read buffer; nothing more is read while too much waits
//! to be written; after each piece of work others have their turn; every way out removes the connection from its shard.
//! # Not here: what the bytes mean (`ws`, `ingress`), writing (`delivery`).

use super::conduit::Conduit;
use super::worker::{Context, READ_BUFFER_BYTES};
use super::{ConnectionId, Shard};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, ready};

/// Commands that one connection may have done before others have their turn.
pub const COMMANDS_PER_TURN: u32 = 1024;

/// Bytes of a read that is most likely followed by more.
const MUCH_BYTES: usize = 16 << 10;

/// What a connection's bytes mean.
pub trait Protocol {
    /// Takes what it can from the front of `input`, queues the answers, and returns how many bytes
    /// it took. Less than all of them when the connection is congested or has had its turn.
    fn feed(&mut self, input: &mut [u8], shard: &mut Shard<Rc<Conduit>>) -> usize;
}

/// What feeding has left.
#[derive(Default)]
struct Fed {
    /// What was not taken yet.
    left: Vec<u8>,
    /// Whether the peer has said that nothing more comes.
    is_last: bool,
    /// Whether there may be more to read at once.
    is_more: bool,
}

/// A connection that its shard has taken in.
#[derive(Debug)]
pub struct Stream {
    context: Rc<Context>,
    socket: Rc<Conduit>,
    id: ConnectionId,
}

impl Stream {
    /// The connection `id` of this shard.
    pub fn new(context: Rc<Context>, socket: Rc<Conduit>, id: ConnectionId) -> Stream {
        Stream { context, socket, id }
    }

    /// Reads until the peer ends or is cut off. `early` is what was read already.
    pub fn serve(
        self,
        mut early: Vec<u8>,
        mut protocol: impl Protocol,
    ) -> impl Future<Output = ()> {
        let mut fed = match early.as_mut_slice() {
            [] => Fed::default(),
            early => self.hear(early, &mut protocol),
        };
        self.context.with(|shard| shard.flush(self.id));
        // One block that uses what it owns in place: each call in between would keep it once more.
        async move {
            loop {
                while !fed.left.is_empty() {
                    if self.wait_for_room().await.is_err() {
                        return;
                    }
                    fed = self.feed_again(fed.left, &mut protocol);
                    tokio::task::yield_now().await;
                }
                if fed.is_last {
                    return self.finish().await;
                }
                if self.readable().await.is_err() {
                    return;
                }
                match self.read(&mut protocol) {
                    Ok(Some(now)) => fed = now,
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return self.finish().await;
                    }
                    // The connection broke: there is nobody to tell.
                    Err(_) => return,
                }
                if fed.is_more {
                    // A socket with more to read is ready at once: without this a peer that never
                    // pauses would be the only one that this thread serves.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Feeds what has arrived. Where much arrived there is most likely more: the answers to all of
    /// it, up to a full buffer, leave together.
    fn read(&self, protocol: &mut impl Protocol) -> io::Result<Option<Fed>> {
        let mut bytes = 0;
        let fed = loop {
            let read = self.context.read(&self.socket, |input| {
                bytes += input.len();
                let is_more = bytes >= READ_BUFFER_BYTES;
                let fed = Fed { is_more, ..self.hear(input, protocol) };
                let is_done = is_more || fed.is_last || !fed.left.is_empty();
                (fed, is_done || input.len() < MUCH_BYTES)
            });
            match read {
                Ok(Some((fed, true))) => break Some(fed),
                Ok(Some((_, false))) => {}
                // The next read meets it again.
                Ok(None) | Err(_) if bytes > 0 => break Some(Fed::default()),
                Ok(None) => break None,
                Err(error) => return Err(error),
            }
        };
        self.context.with(|shard| shard.flush(self.id));
        Ok(fed)
    }

    /// Feeds what was left, and keeps what is left of that where it is.
    fn feed_again(&self, mut left: Vec<u8>, protocol: &mut impl Protocol) -> Fed {
        self.context.with(|shard| {
            let taken = protocol.feed(&mut left, shard).min(left.len());
            shard.flush(self.id);
            left.drain(..taken);
            if left.is_empty() {
                left = Vec::new();
            }
            Fed { left, is_last: shard.is_ending(self.id), is_more: false }
        })
    }

    /// Feeds bytes that have just arrived, and copies what is left of them.
    fn hear(&self, input: &mut [u8], protocol: &mut impl Protocol) -> Fed {
        self.context.with(|shard| {
            shard.heard(self.id, input.len());
            let taken = protocol.feed(input, shard).min(input.len());
            Fed {
                left: input.get(taken..).unwrap_or_default().to_vec(),
                is_last: shard.is_ending(self.id),
                is_more: false,
            }
        })
    }

    /// Waits until something can be read. A slot of the socket is for the one who reads, so this costs
    /// an idle connection less than a place among those who wait. Whoever pumps has such a place.
    fn readable(&self) -> impl Future<Output = io::Result<()>> {
        poll_fn(|task| self.socket.stream().poll_read_ready(task))
    }

    /// The peer says nothing more, but may still listen: it gets the answers that it waits for.
    fn finish(&self) -> impl Future<Output = ()> {
        self.context.with(|shard| shard.finish(self.id));
        poll_fn(|task| {
            while self.context.with(|shard| {
                shard.flush(self.id);
                shard.has_outbound(self.id)
            }) {
                if ready!(self.socket.stream().poll_write_ready(task)).is_err() {
                    break;
                }
            }
            Poll::Ready(())
        })
    }

    /// Waits until little enough waits to be written. The shard closes a peer that takes nothing.
    fn wait_for_room(&self) -> impl Future<Output = io::Result<()>> {
        poll_fn(|task| {
            while self.context.with(|shard| {
                shard.flush(self.id);
                shard.is_congested(self.id) && shard.is_open(self.id)
            }) {
                ready!(self.socket.stream().poll_write_ready(task))?;
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.context.with(|shard| shard.remove(self.id));
    }
}
