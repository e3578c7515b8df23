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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Authority, Guard};
    use crate::clock::Clock;
    use crate::dialect::Event;
    use crate::shard::ShardOptions;
    use crate::shard::conduit::More;
    use crate::shard::pressure::Budget;
    use crate::shard::worker::Seed;
    use crate::topics::mailbox::MailboxOptions;
    use crate::topics::message::Wire;
    use crate::topics::registry::{Registry, RegistryOptions};
    use crate::topics::topic::ShardId;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_mins(1);

    /// Answers whatever it hears, but has a bug.
    struct Buggy(ConnectionId);

    impl Protocol for Buggy {
        fn feed(&mut self, input: &mut [u8], shard: &mut Shard<Rc<Conduit>>) -> usize {
            shard.send(self.0, 1, &Event::Pong);
            assert!(!input.contains(&b'!'), "the bug");
            input.len()
        }
    }

    /// Both ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a peer");
        near.set_read_timeout(Some(DEADLINE)).expect("an option");
        let (far, _) = listener.accept().expect("a connection");
        far.set_nonblocking(true).expect("an option");
        (near, far)
    }

    #[test]
    fn a_panic_in_the_middle_of_a_command_costs_one_connection() {
        let id = ShardId::new(0).expect("a shard");
        let guard = Arc::new(Guard::new(Authority::open()));
        let seed = Seed::new(id, MailboxOptions::default(), guard);
        let mailboxes = vec![Arc::clone(&seed.mailbox)];
        let epochs = Box::new(|| Some(1));
        let registry = Arc::new(Registry::new(RegistryOptions::default(), mailboxes, epochs));
        let budget = Arc::new(Budget::new(usize::MAX, vec![Arc::clone(&seed.counters)]));
        let options = ShardOptions::default();
        let shard = seed.start(registry, options, budget, Clock::start()).expect("a shard");
        let (peers, sockets): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
        let serve = move |context: &Rc<Context>| {
            for socket in sockets {
                let stream = tokio::net::TcpStream::from_std(socket).expect("a socket");
                let socket = Rc::new(Conduit::new(stream, More::default()));
                let id = context.with(|shard| shard.open(Rc::clone(&socket), Wire::TcpProto));
                let stream = Stream::new(Rc::clone(context), socket, id);
                tokio::task::spawn_local(stream.serve(Vec::new(), Buggy(id)));
            }
        };
        shard.jobs().run(serve).expect("room");
        let mut answer = [0; 64];
        (&peers[1]).write_all(b"!").expect("written");
        // What was said before the bug may still arrive; then it is over.
        while (&peers[1]).read(&mut answer).unwrap_or_default() > 0 {}
        for mut peer in [&peers[0], &peers[2]] {
            peer.write_all(b"a").expect("written");
            assert!(peer.read(&mut answer).expect("an answer") > 0);
        }
        let (sender, count) = mpsc::channel();
        let look = move |context: &Rc<Context>| {
            sender.send(context.with(|shard| shard.connection_count())).expect("heard");
        };
        shard.jobs().run(look).expect("room");
        assert_eq!(count.recv_timeout(DEADLINE), Ok(2));
    }
}
