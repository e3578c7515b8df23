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

/// Takes events out of the bytes of one connection.
#[derive(Debug)]
pub(crate) struct Parser {
    wire: Wire,
    /// Whether the server has said that its messages are batches.
    is_batched: bool,
    bytes: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
    /// How many came before them.
    before: u64,
    /// Where the batch ends of which some events have not been taken.
    batch_end: usize,
}

impl Parser {
    pub(crate) fn new(wire: Wire) -> Parser {
        Parser { wire, is_batched: false, bytes: Vec::new(), taken: 0, before: 0, batch_end: 0 }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.before += self.taken as u64;
        self.batch_end = self.batch_end.saturating_sub(self.taken);
        self.taken = 0;
        self.bytes.extend(bytes);
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn is_within_a_frame(&self) -> bool {
        self.taken < self.bytes.len()
    }

    /// Where in the stream of bytes the next event begins.
    pub(crate) fn place(&self) -> u64 {
        self.before + self.taken as u64
    }

    /// The next event, or what else a frame is, if all of the frame is here.
    pub(crate) fn next(&mut self) -> Option<Result<Heard, String>> {
        let heard =
            if self.taken < self.batch_end { self.next_of_batch() } else { self.next_of_frame()? };
        // What comes after the answer that promises batches comes in batches.
        let promises = |event: &Event| matches!(event, Event::Connected { batch: true, .. });
        self.is_batched |= matches!(&heard, Ok(Heard::Event(_, event)) if promises(event));
        Some(heard)
    }

    fn next_of_frame(&mut self) -> Option<Result<Heard, String>> {
        let rest = &self.bytes[self.taken..];
        let (front, body) = head(rest, self.wire)?;
        let frame = rest.get(front..front + body)?;
        let is_data = self.wire == Wire::TcpProto || rest[0] == opcode(self.wire);
        if self.is_batched && is_data && body > 0 {
            self.taken += front;
            self.batch_end = self.taken + body;
            return Some(self.next_of_batch());
        }
        let heard = if is_data { decode(frame, self.wire) } else { control(rest[0], frame) };
        self.taken += front + body;
        Some(heard)
    }

    /// The next event of a batch, of which there is more.
    fn next_of_batch(&mut self) -> Result<Heard, String> {
        let rest = &self.bytes[self.taken..self.batch_end];
        let unit = if self.wire.is_json() {
            rest.iter().position(|byte| *byte == b'\n').map(|end| (0..end, end + 1))
        } else {
            let mut after = rest;
            let len = prost::decode_length_delimiter(&mut after).ok();
            let start = rest.len() - after.len();
            len.map(|len| (start..start.saturating_add(len), start.saturating_add(len)))
        };
        let event = unit.and_then(|(range, end)| rest.get(range).zip(Some(end)));
        let Some((event, end)) = event else {
            return Err(format!("a batch ends in {} bytes that are no event", rest.len()));
        };
        let heard = decode(event, self.wire);
        self.taken += end;
        heard
    }
}

fn decode(event: &[u8], wire: Wire) -> Result<Heard, String> {
    match dialect(wire) {
        Dialect::Json => json::decode(event),
        Dialect::Proto => proto::decode(event),
    }
}

/// How a message of a WebSocket begins.
fn opcode(wire: Wire) -> u8 {
    if wire.is_json() { 0x81 } else { 0x82 }
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
