//! A subscriber of one topic that reads when it is told to.
//! # Invariants: offsets follow one another but for what a gap tells, or its test fails.
//! # Not here: when it reads (`stalled`).

use crate::history::{Command, Event, Gap, Message, Overflow, Subscribe};
use crate::spelling::{Heard, Parser, encode};
use crate::wire::{Door, PONG, WIRES, Width, frame, framed, open};
use fanfare::topics::message::Wire;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

pub(super) struct Reader {
    stream: TcpStream,
    wire: Wire,
    parser: Parser,
    /// The latest message that it has, or knows to have missed.
    pub(super) offset: u64,
    pub(super) gaps: u64,
    pub(super) end: Option<End>,
    /// Whether the last look found nothing.
    pub(super) is_idle: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// 4408.
    Slow,
    /// 4429.
    Shed,
    /// Without a word, as it happens to those who take nothing for too long.
    Cut,
}

impl Reader {
    /// Connects and subscribes.
    pub(super) fn join(
        door: Door,
        number: u64,
        (topic, overflow): (&str, Overflow),
        width: Width,
    ) -> Reader {
        let wire = WIRES[number as usize % WIRES.len()];
        let mut stream = open(door, wire, width).expect("a connection");
        let overflow = Some(overflow);
        let subscribe = Subscribe { topic: topic.to_owned(), overflow, ..Subscribe::default() };
        let command = encode(1, &Command::Subscribe(subscribe), wire);
        stream.write_all(&framed(&command, wire)).expect("the broker reads");
        let mut reader = Reader {
            stream,
            wire,
            parser: Parser::new(wire),
            offset: 0,
            gaps: 0,
            end: None,
            is_idle: false,
        };
        // Waits for the answer, and reads nothing that could come behind it.
        reader.read();
        reader.stream.set_nonblocking(true).expect("a socket");
        assert_eq!(reader.end, None, "{topic}: no answer");
        reader
    }

    /// Whether it knows that something is missing.
    pub(super) fn was_told(&self) -> bool {
        self.gaps > 0 || self.end.is_some()
    }

    /// Reads what has come, up to some bytes.
    pub(super) fn read(&mut self) {
        if self.end.is_some() {
            return;
        }
        let mut bytes = [0; 16 << 10];
        self.is_idle = false;
        match self.stream.read(&mut bytes) {
            Ok(0) => self.end = Some(End::Cut),
            Ok(count) => self.parser.feed(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_idle = true,
            Err(_) => self.end = Some(End::Cut),
        }
        while let Some(heard) = self.parser.next() {
            match heard.expect("the broker is understood") {
                Heard::Event(_, event) => self.hear(event),
                Heard::Ping => {
                    // A peer that is gone shows when it is read from.
                    self.stream.write_all(&frame(PONG, &[])).unwrap_or_default();
                }
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Message(Message { topic, offset, .. }) => {
                assert_eq!(offset, self.offset + 1, "{topic} by {:?}, without a gap", self.wire);
                self.offset = offset;
            }
            Event::Gap(Gap { from, to, .. }) => {
                assert_eq!(from, self.offset + 1);
                (self.offset, self.gaps) = (to, self.gaps + 1);
            }
            Event::Close { code: 4408 } => self.end = Some(End::Slow),
            Event::Close { code: 4429 } => self.end = Some(End::Shed),
            Event::Error { name } if name == "slowConsumer" => self.end = Some(End::Slow),
            Event::Error { name } if name == "shed" => self.end = Some(End::Shed),
            Event::Close { .. } | Event::Error { .. } => panic!("{event:?} ends it"),
            _ => {}
        }
    }
}
