//! One WebSocket connection after its handshake: messages become commands.
//! # Invariants: after a close frame, in either direction, nothing more is understood.
//! # Not here: reading and writing (`shard`), what commands do (`session`).

use super::decoder::{Decoder, DecoderLimits, Incoming};
use super::extensions::Compression;
use super::handshake::Spoken;
use crate::auth::Identity;
use crate::dialect::{Dialect, frame};
use crate::reason::{Reason, Refusal};
use crate::session::{Broker, Close, Effort, Session};
use crate::shard::conduit::Conduit;
use crate::shard::stream::{COMMANDS_PER_TURN, Protocol, Stream};
use crate::shard::worker::Context;
use crate::shard::{ConnectionId, Rest, Shard};
use crate::topics::message::Wire;
use std::rc::Rc;
use std::sync::Arc;

/// A connection that has become a WebSocket.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket, as HTTP left it.
    pub socket: Conduit,
    /// What is spoken on it.
    pub spoken: Spoken,
    /// What came behind the handshake.
    pub early: Vec<u8>,
    /// Who showed a token in the request, or why it was refused.
    pub shown: Option<Result<Arc<Identity>, Refusal>>,
}

/// Serves a connection until it ends, and holds its place as long.
pub fn serve<P>(
    context: Rc<Context>,
    broker: Arc<Broker>,
    upgraded: Upgraded,
    place: P,
) -> impl Future<Output = ()> {
    let Upgraded { socket, spoken, early, shown } = upgraded;
    let socket = Rc::new(socket);
    let Spoken { dialect, compression } = spoken;
    let plain = match dialect {
        Dialect::Json => Wire::WebSocketJson,
        Dialect::Proto => Wire::WebSocketProto,
    };
    let wire = match compression {
        Compression::None => plain,
        Compression::Deflate => plain.deflated(),
    };
    let id = context.with(|shard| {
        let id = shard.open(Rc::clone(&socket), wire);
        let shown = shown.map(|shown| Ok(shard.identify(id, &shown?)?));
        if let Some(Err(refusal)) = shown {
            // A page cannot see why an upgrade was refused, but it sees why it was closed.
            shard.close(id, &refusal);
        }
        id
    });
    let limits = DecoderLimits {
        message_bytes_max: broker.limits.message_bytes_max,
        fragments_max: broker.limits.fragments_max,
    };
    let connection = Connection {
        id,
        dialect,
        decoder: Decoder::new(limits, compression),
        session: Session::new(broker, id),
        _place: place,
    };
    Stream::new(context, socket, id).serve(early, connection)
}

/// The reading side of a WebSocket connection.
struct Connection<P> {
    id: ConnectionId,
    dialect: Dialect,
    decoder: Decoder,
    session: Session,
    _place: P,
}

impl<P> Protocol for Connection<P> {
    fn feed(&mut self, input: &mut [u8], shard: &mut Shard<Rc<Conduit>>) -> usize {
        let mut rest = Rest::Same;
        let taken = self.understand(input, shard, &mut rest);
        if self.decoder.is_between_messages() {
            rest = Rest::None;
        }
        shard.note_rest(self.id, rest);
        taken
    }
}

impl<P> Connection<P> {
    /// Takes frames from the front of `input`, and notes when a message has become whole: then what
    /// is unfinished behind it is another one.
    fn understand(
        &mut self,
        mut input: &mut [u8],
        shard: &mut Shard<Rc<Conduit>>,
        rest: &mut Rest,
    ) -> usize {
        let len = input.len();
        let mut turn = COMMANDS_PER_TURN;
        // What a closing connection still sends is not heard.
        while shard.is_open(self.id) {
            if turn == 0 || shard.is_congested(self.id) {
                self.decoder.release();
                return len - input.len();
            }
            let unread = input.len();
            let (id, dialect, session) = (self.id, self.dialect, &mut self.session);
            let taken = match self.decoder.next(&mut input) {
                Ok(None) => return len,
                Ok(Some(incoming)) => {
                    if incoming.is_message() {
                        *rest = Rest::New;
                    }
                    let grown = incoming.bytes().saturating_sub(unread - input.len());
                    turn = turn.saturating_sub(commands_worth(grown));
                    take(incoming, id, dialect, session, shard)
                }
                Err(violation) => Err(Close(violation.into())),
            };
            match taken {
                Ok(Effort::Small) => turn = turn.saturating_sub(1),
                Ok(Effort::Large) => turn = 0,
                Err(Close(refusal)) => shard.close(self.id, &refusal),
            }
        }
        len
    }
}

/// As how many commands of a turn it counts that a message is so many bytes larger than what was
/// just read for it. What is read at once bounds a turn, except where 70 bytes inflate to 64 KiB.
fn commands_worth(grown: usize) -> u32 {
    /// What a read of 64 KiB holds for each command of a turn.
    const COMMAND_BYTES: usize = (64 << 10) / COMMANDS_PER_TURN as usize;
    u32::try_from(grown / COMMAND_BYTES).unwrap_or(u32::MAX)
}

fn take(
    incoming: Incoming<'_>,
    id: ConnectionId,
    dialect: Dialect,
    session: &mut Session,
    shard: &mut Shard<Rc<Conduit>>,
) -> Result<Effort, Close> {
    match (incoming, dialect) {
        (Incoming::Text(text), Dialect::Json) => {
            session.handle(dialect.decode(text.as_bytes()), shard)
        }
        (Incoming::Binary(bytes), Dialect::Proto) => session.handle(dialect.decode(bytes), shard),
        (Incoming::Text(_), Dialect::Proto) => Err(unsupported("fanfare.v1.proto is binary")),
        (Incoming::Binary(_), Dialect::Json) => Err(unsupported("fanfare.v1.json is text")),
        (Incoming::Ping(payload), _) => {
            session.note_control(shard.now())?;
            shard.push(id, frame::pong(payload));
            Ok(Effort::Small)
        }
        (Incoming::Pong(_), _) => {
            if shard.take_pong(id) {
                session.rest(shard.now());
            } else {
                session.note_control(shard.now())?;
            }
            Ok(Effort::Small)
        }
        (Incoming::Close(close), _) => {
            shard.close_answered(id, close.map(|(code, _)| code));
            Ok(Effort::Small)
        }
    }
}

fn unsupported(detail: &str) -> Close {
    Close(Refusal::new(Reason::UnsupportedData, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_that_inflates_to_64_kib_is_a_turn() {
        let rows = [(0, 0), (63, 0), (64, 1), (1000, 15), (64 << 10, COMMANDS_PER_TURN)];
        for (grown, commands) in rows {
            assert_eq!(commands_worth(grown), commands, "{grown} bytes");
        }
    }

    fn size_of_future<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let size = size_of_future(serve::<Arc<()>>);
        // With what tokio keeps of a task it fills 384 bytes.
        assert!(size <= 280, "{size} bytes");
    }
}
