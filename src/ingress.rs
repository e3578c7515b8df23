//! The TCP transport of the protocol: a big-endian u32 length, then a protobuf command or event.
//! It is the third transport of one protocol: publish and subscribe both work here.
//! # Invariants: a declared length is checked before anything is kept for it; what is kept never
//! grows more than 4 KiB ahead of what has arrived.
//! # Not here: what commands do (`session`), reading and writing (`shard`).

use crate::dialect::{Dialect, Event, encode};
use crate::listen::gate::Pending;
use crate::listen::{Arrival, Place, Ticket, count_refusal};
use crate::reason::{Reason, Refusal};
use crate::session::{Broker, Close, Effort, Session};
use crate::shard::conduit::{Conduit, More};
use crate::shard::stream::{COMMANDS_PER_TURN, Protocol, Stream};
use crate::shard::worker::Context;
use crate::shard::{ConnectionId, Rest, Shard};
use crate::topics::message::Wire;
use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// Bytes of the length in front of each message.
const LENGTH_BYTES: usize = 4;

/// Most bytes reserved ahead of those that have arrived.
const AHEAD_BYTES: usize = 4096;

/// Serves a connection until it ends, and holds its place as long.
pub fn serve(
    context: Rc<Context>,
    broker: Arc<Broker>,
    arrival: Arrival,
) -> impl Future<Output = ()> {
    let Arrival { pipe, peer, ticket } = arrival;
    let Ticket { place, pending, client, held } = ticket;
    let held = held.map(|held| Box::new(held) as Box<dyn Any>);
    let client = (client != peer).then_some(client);
    let shown = pipe.certificate().and_then(|certificate| broker.guard.recognize(certificate));
    let (socket, early) = pipe.into_conduit(More { channel: None, client, held });
    let socket = Rc::new(socket);
    let id = context.with(|shard| {
        let id = shard.open(Rc::clone(&socket), Wire::TcpProto);
        let known = shown.map(|identity| shard.identify(id, &identity));
        if let Some(Err(reason)) = known {
            shard.close(id, &reason.into());
        }
        id
    });
    let connection = Connection {
        id,
        lengths: Lengths::new(broker.limits.message_bytes_max),
        session: Session::new(broker, id),
        watch: Some(Watch::begin(&context, id, pending)),
        _place: place,
    };
    Stream::new(context, socket, id).serve(early, connection)
}

/// Ends a connection whose first command is not there in time. Dropping it ends the watch.
struct Watch(AbortHandle);

impl Watch {
    fn begin(context: &Rc<Context>, id: ConnectionId, pending: Pending) -> Watch {
        let context = Rc::clone(context);
        let watch = tokio::task::spawn_local(async move {
            // Held here, so that it goes with the watch.
            let pending = pending;
            tokio::time::sleep(pending.until.saturating_sub(context.now().uptime)).await;
            count_refusal(&context, Reason::TooLate);
            context.with(|shard| shard.close(id, &Reason::TooLate.into()));
        });
        Watch(watch.abort_handle())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a connection is told that is not taken, for this reason: an error event, whole.
pub fn turn_away(reason: Reason) -> Vec<u8> {
    encode(0, &Event::Error(reason.into()), Wire::TcpProto).to_vec()
}

/// The reading side of a TCP connection.
struct Connection {
    id: ConnectionId,
    lengths: Lengths,
    session: Session,
    /// Until the first command.
    watch: Option<Watch>,
    _place: Place,
}

impl Protocol for Connection {
    fn feed(&mut self, input: &mut [u8], shard: &mut Shard<Rc<Conduit>>) -> usize {
        let mut rest = Rest::Same;
        let taken = self.understand(input, shard, &mut rest);
        if self.lengths.is_between_messages() {
            rest = Rest::None;
        }
        shard.note_rest(self.id, rest);
        taken
    }
}

impl Connection {
    /// Takes messages from the front of `input`, and notes when one has become whole: then what is
    /// unfinished behind it is another one.
    fn understand(
        &mut self,
        mut input: &[u8],
        shard: &mut Shard<Rc<Conduit>>,
        rest: &mut Rest,
    ) -> usize {
        let len = input.len();
        let mut turn = COMMANDS_PER_TURN;
        // What a closing connection still sends is not heard.
        while shard.is_open(self.id) {
            if turn == 0 || shard.is_congested(self.id) {
                return len - input.len();
            }
            let taken = match self.lengths.next(&mut input) {
                Ok(None) => return len,
                Ok(Some(message)) => {
                    (self.watch, *rest) = (None, Rest::New);
                    self.session.handle(Dialect::Proto.decode(message), shard)
                }
                Err(refusal) => Err(Close(refusal)),
            };
            match taken {
                Ok(Effort::Small) => turn -= 1,
                Ok(Effort::Large) => turn = 0,
                Err(Close(refusal)) => shard.close(self.id, &refusal),
            }
        }
        len
    }
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Lengths {
    max: usize,
    /// The beginning of a message that has arrived in part, its length included.
    gathered: Vec<u8>,
    /// Whether `gathered` was lent by the last call.
    lent: bool,
}

impl Lengths {
    /// For messages of at most `max` bytes.
    pub fn new(max: usize) -> Lengths {
        Lengths { max, gathered: Vec::new(), lent: false }
    }

    /// Whether the next byte begins a message.
    pub fn is_between_messages(&self) -> bool {
        self.lent || self.gathered.is_empty()
    }

    /// Takes bytes from the front of `input` up to the end of the next message. `Ok(None)` means
    /// that more are needed and `input` is empty.
    ///
    /// # Errors
    /// [`Reason::MessageTooBig`], as soon as the length says so.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<&'a [u8]>, Refusal> {
        if self.lent {
            self.gathered = Vec::new();
            self.lent = false;
        }
        if self.gathered.is_empty()
            && let Some(end) = self.end(input)?
            && let Some((message, rest)) = input.split_at_checked(end)
        {
            *input = rest;
            return Ok(message.get(LENGTH_BYTES..));
        }
        loop {
            let end = self.end(&self.gathered)?;
            let wanted = end.unwrap_or(LENGTH_BYTES) - self.gathered.len();
            if end.is_some() && wanted == 0 {
                self.lent = true;
                return Ok(self.gathered.get(LENGTH_BYTES..));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (now, rest) = input.split_at(wanted.min(input.len()));
            if self.gathered.capacity() - self.gathered.len() < now.len() {
                self.gathered.reserve_exact(now.len().max(wanted.min(AHEAD_BYTES)));
            }
            self.gathered.extend_from_slice(now);
            *input = rest;
        }
    }

    /// Where the message that begins here ends, if that much can be seen.
    fn end(&self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.max {
            let detail = format!("message is {length} bytes, the limit is {}", self.max);
            return Err(Refusal::new(Reason::MessageTooBig, detail));
        }
        Ok(Some(LENGTH_BYTES + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size_of_future<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let size = size_of_future(serve);
        // With what tokio keeps of a task it fills 384 bytes.
        assert!(size <= 272, "{size} bytes");
    }

    fn read(lengths: &mut Lengths, mut input: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut messages = Vec::new();
        while let Some(message) = lengths.next(&mut input)? {
            messages.push(message.to_vec());
        }
        assert!(input.is_empty());
        Ok(messages)
    }

    fn written(messages: &[Vec<u8>]) -> Vec<u8> {
        let write = |message: &Vec<u8>| {
            let length = u32::try_from(message.len()).expect("short");
            [&length.to_be_bytes()[..], message].concat()
        };
        messages.iter().flat_map(write).collect()
    }

    #[test]
    fn a_declared_length_over_the_limit_is_refused_before_its_bytes_arrive() {
        let mut lengths = Lengths::new(10);
        assert_eq!(read(&mut lengths, &written(&[vec![1; 10]])), Ok(vec![vec![1; 10]]));
        let refusal = read(&mut lengths, &[0, 0, 0, 11]).expect_err("too long");
        assert_eq!(refusal.reason, Reason::MessageTooBig);
        assert_eq!(refusal.detail.as_deref(), Some("message is 11 bytes, the limit is 10"));
        let refusal = read(&mut Lengths::new(10), &[255; 4]).expect_err("too long");
        assert_eq!(refusal.reason, Reason::MessageTooBig);
    }

    #[test]
    fn nothing_is_kept_between_messages_and_little_ahead_of_the_bytes() {
        let mut lengths = Lengths::new(1 << 20);
        assert_eq!(read(&mut lengths, &(1u32 << 20).to_be_bytes()), Ok(vec![]));
        assert_eq!(read(&mut lengths, &[7; 10]), Ok(vec![]));
        assert!(lengths.gathered.capacity() <= 14 + 2 * AHEAD_BYTES);
        let rest = vec![7; (1 << 20) - 10];
        assert_eq!(read(&mut lengths, &rest).map(|messages| messages.len()), Ok(1));
        assert_eq!(lengths.gathered.capacity(), 0);
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_how_the_bytes_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1usize..200, 1..50),
        ) {
            let bytes = written(&messages);
            let mut lengths = Lengths::new(300);
            let mut got = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                got.extend(read(&mut lengths, now).expect("valid"));
                rest = later;
            }
            prop_assert_eq!(got, messages);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            drop(read(&mut Lengths::new(300), &bytes));
        }
    }
}
