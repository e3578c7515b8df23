//! Reading a connection: bytes in, whatever its protocol makes of them.
//! # Invariants: an idle connection owns no read buffer; nothing more is read while too much waits
//! to be written; after each piece of work others have their turn; every way out removes the connection from its shard.
//! # Not here: what the bytes mean (`ws`, `ingress`), writing (`delivery`).

use super::worker::Context;
use super::{ConnectionId, Shard};
use std::io;
use std::rc::Rc;
use tokio::net::TcpStream;

/// Commands that one connection may have done before others have their turn.
pub const COMMANDS_PER_TURN: u32 = 1024;

/// What a connection's bytes mean.
pub trait Protocol {
    /// Takes what it can from the front of `input`, queues the answers, and returns how many bytes
    /// it took. Less than all of them when the connection is congested or has had its turn.
    fn feed(&mut self, input: &mut [u8], shard: &mut Shard<Rc<TcpStream>>) -> usize;
}

/// A connection that its shard has taken in.
#[derive(Debug)]
pub struct Stream {
    context: Rc<Context>,
    socket: Rc<TcpStream>,
    id: ConnectionId,
}

impl Stream {
    /// The connection `id` of this shard.
    pub fn new(context: Rc<Context>, socket: Rc<TcpStream>, id: ConnectionId) -> Stream {
        Stream { context, socket, id }
    }

    /// Reads until the peer ends or is cut off. `early` is what was read already.
    pub async fn serve(self, early: Vec<u8>, mut protocol: impl Protocol) {
        let mut left = self.feed_again(early, &mut protocol);
        loop {
            while !left.is_empty() {
                if self.wait_for_room().await.is_err() {
                    return;
                }
                left = self.feed_again(left, &mut protocol);
                // A socket with more to read is ready at once: without this a peer that never
                // pauses would be the only one that this thread serves.
                tokio::task::yield_now().await;
            }
            if self.socket.readable().await.is_err() {
                return;
            }
            let read = self.context.read(&self.socket, |input| {
                self.context.with(|shard| shard.heard(self.id, input.len()));
                self.feed(input, &mut protocol)
            });
            match read {
                Ok(Some(rest)) => {
                    left = rest;
                    tokio::task::yield_now().await;
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.finish().await;
                }
                // The connection broke: there is nobody to tell.
                Err(_) => return,
            }
        }
    }

    /// Feeds bytes that were kept, and keeps what is left of them.
    fn feed_again(&self, mut kept: Vec<u8>, protocol: &mut impl Protocol) -> Vec<u8> {
        if kept.is_empty() {
            return kept;
        }
        self.feed(&mut kept, protocol)
    }

    fn feed(&self, input: &mut [u8], protocol: &mut impl Protocol) -> Vec<u8> {
        self.context.with(|shard| {
            let taken = protocol.feed(input, shard);
            shard.flush(self.id);
            input.get(taken..).unwrap_or_default().to_vec()
        })
    }

    /// The peer says nothing more, but may still listen: it gets the answers that it waits for.
    async fn finish(&self) {
        self.context.with(|shard| shard.finish(self.id));
        while self.context.with(|shard| {
            shard.flush(self.id);
            shard.has_outbound(self.id)
        }) {
            if self.socket.writable().await.is_err() {
                return;
            }
        }
    }

    /// Waits until little enough waits to be written. The shard closes a peer that takes nothing.
    async fn wait_for_room(&self) -> io::Result<()> {
        while self.context.with(|shard| {
            shard.flush(self.id);
            shard.is_congested(self.id) && shard.is_open(self.id)
        }) {
            self.socket.writable().await?;
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.context.with(|shard| shard.remove(self.id));
    }
}
