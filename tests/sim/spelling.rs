//! The protocol as a client of each kind speaks it: commands into bytes, bytes into events.
//! Owns a parser of server frames that shares no code with the broker but the generated schema.
//! # Invariants: what is not exactly as the protocol says is an error, never skipped.
//! # Not here: what a client does with an event (`client`).

mod json;
mod proto;

use crate::history::{Command, Event};
use fanfare::dialect::Dialect;
use fanfare::topics::message::Wire;

/// What a client reads from a connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    /// An event, and the id of the command that it answers.
    Event(u64, Event),
    /// A WebSocket ping.
    Ping,
}

/// The bytes of a command.
pub(crate) fn encode(id: u64, command: &Command, wire: Wire) -> Vec<u8> {
    match dialect(wire) {
        Dialect::Json => json::encode(id, command),
        Dialect::Proto => proto::encode(id, command),
    }
}

/// The spelling of a wire.
pub(crate) fn dialect(wire: Wire) -> Dialect {
    if wire.is_json() { Dialect::Json } else { Dialect::Proto }
}

/// Takes frames out of the bytes of one connection.
#[derive(Debug)]
pub(crate) struct Parser {
    wire: Wire,
    bytes: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
    /// How many came before them.
    before: u64,
}

impl Parser {
    pub(crate) fn new(wire: Wire) -> Parser {
        Parser { wire, bytes: Vec::new(), taken: 0, before: 0 }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.before += self.taken as u64;
        self.taken = 0;
        self.bytes.extend(bytes);
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn is_within_a_frame(&self) -> bool {
        self.taken < self.bytes.len()
    }

    /// Where in the stream of bytes the next frame begins.
    pub(crate) fn place(&self) -> u64 {
        self.before + self.taken as u64
    }

    /// The next frame, if all of it is here.
    pub(crate) fn next(&mut self) -> Option<Result<Heard, String>> {
        let rest = &self.bytes[self.taken..];
        let (front, body) = head(rest, self.wire)?;
        let frame = rest.get(front..front + body)?;
        let opcode = rest[0];
        let heard = match self.wire {
            Wire::TcpProto => proto::decode(frame),
            Wire::WebSocketJson if opcode == 0x81 => json::decode(frame),
            Wire::WebSocketProto if opcode == 0x82 => proto::decode(frame),
            _ => control(opcode, frame),
        };
        self.taken += front + body;
        Some(heard)
    }
}

/// The lengths of a frame's head and body, if the head is here.
fn head(bytes: &[u8], wire: Wire) -> Option<(usize, usize)> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if wire == Wire::TcpProto {
        return Some((4, number(bytes.get(..4)?)));
    }
    // A server's frame has no mask, so the second byte is a length.
    match *bytes.get(1)? {
        126 => Some((4, number(bytes.get(2..4)?))),
        127 => Some((10, number(bytes.get(2..10)?))),
        short => Some((2, usize::from(short))),
    }
}

fn control(opcode: u8, body: &[u8]) -> Result<Heard, String> {
    match (opcode, body) {
        (0x89, _) => Ok(Heard::Ping),
        (0x88, [high, low, ..]) => {
            Ok(Heard::Event(0, Event::Close { code: u16::from_be_bytes([*high, *low]) }))
        }
        _ => Err(format!("a frame begins with {opcode:#x} and has {} bytes", body.len())),
    }
}
