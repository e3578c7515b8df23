//! Connections that come and go, one after the other and as fast as is asked: what each of them leaves
//! behind in the broker is what the slope of its memory shows.
//! # Invariants: its topics are its own; nobody's history has to hold them.
//! # Not here: connections that are judged (`soak`).

use crate::history::{Command, Content, Event, Payload, Publish, Subscribe};
use crate::random::Random;
use crate::spelling::{Heard, Parser, encode};
use crate::wire::{CLOSE, Door, WIRES, Width, frame, framed, open, reset};
use fanfare::topics::message::Wire;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Topics that such connections use; each is forgotten between two of its uses, or is not.
const TOPICS: usize = 500;

pub(crate) struct Churn {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    done: AtomicU64,
    resting: AtomicBool,
    paused: AtomicBool,
    stopped: AtomicBool,
}

impl Churn {
    /// Begins, with so many connections in a second at most.
    pub(crate) fn start(door: Door, seed: u64, rate: u64) -> Churn {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || churn(door, Random::new(seed), rate, &own));
        Churn { shared, thread }
    }

    /// Connections that have come and gone.
    pub(crate) fn done(&self) -> u64 {
        self.shared.done.load(Ordering::SeqCst)
    }

    /// Lets no more come, and waits until the last has gone.
    pub(crate) fn pause(&self) {
        self.shared.paused.store(true, Ordering::SeqCst);
        while !self.shared.resting.load(Ordering::SeqCst) && !self.thread.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn go_on(&self) {
        assert!(!self.thread.is_finished(), "the connections that come and go have stopped");
        self.shared.paused.store(false, Ordering::SeqCst);
    }

    /// Ends. Returns how many there were; none of them may have failed.
    pub(crate) fn stop(self) -> u64 {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic").expect("every connection is served");
        self.shared.done.load(Ordering::SeqCst)
    }
}

fn churn(door: Door, mut chance: Random, rate: u64, shared: &Shared) -> io::Result<()> {
    let pause = Duration::from_micros(1_000_000 / rate.max(1));
    let mut due = Instant::now();
    let mut number = 0;
    while !shared.stopped.load(Ordering::SeqCst) {
        let paused = shared.paused.load(Ordering::SeqCst);
        shared.resting.store(paused, Ordering::SeqCst);
        if paused || Instant::now() < due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        // What was not done in time is not made up for.
        due = (due + pause).max(Instant::now());
        number += 1;
        visit(door, number, &mut chance)?;
        shared.done.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// One connection: subscribes, publishes, hears all answers, and goes in one of three ways.
fn visit(door: Door, number: u64, chance: &mut Random) -> io::Result<()> {
    let wire = *chance.pick(&WIRES).expect("not empty");
    let mut stream = open(door, wire, Width::Wide)?;
    let topic = format!("churn.a.{}", chance.below(TOPICS));
    let filter = format!("churn.{}.>", chance.below(TOPICS));
    let content = Content { key: String::new(), payload: Payload::Text(format!("{number}")) };
    let publish =
        Publish { topic: topic.clone(), content, idempotency_key: format!("c{number}"), ttl_ms: 0 };
    let commands = [
        Command::Subscribe(Subscribe { topic, ..Subscribe::default() }),
        Command::Subscribe(Subscribe { topic: filter, snapshot: true, ..Subscribe::default() }),
        Command::Publish(publish),
    ];
    let mut bytes = Vec::new();
    for (id, command) in (1..).zip(&commands) {
        bytes.extend(framed(&encode(id, command, wire), wire));
    }
    stream.write_all(&bytes)?;
    hear(&mut stream, wire, commands.len())?;
    match chance.below(3) {
        0 => reset(stream),
        1 => drop(stream),
        _ => leave(stream, wire)?,
    }
    Ok(())
}

/// Waits for so many answers, none of which is a refusal.
fn hear(stream: &mut TcpStream, wire: Wire, mut answers: usize) -> io::Result<()> {
    let mut parser = Parser::new(wire);
    let mut bytes = [0; 4096];
    while answers > 0 {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Err(io::Error::other("it ends before its answers"));
        }
        parser.feed(&bytes[..count]);
        while let Some(heard) = parser.next() {
            match heard.map_err(io::Error::other)? {
                Heard::Event(_, Event::Error { name }) => return Err(io::Error::other(name)),
                Heard::Event(id, _) if id > 0 => answers -= 1,
                Heard::Event(..) | Heard::Ping => {}
            }
        }
    }
    Ok(())
}

fn leave(mut stream: TcpStream, wire: Wire) -> io::Result<()> {
    if wire == Wire::TcpProto {
        stream.shutdown(std::net::Shutdown::Write)?;
    } else {
        stream.write_all(&frame(CLOSE, &1000_u16.to_be_bytes()))?;
    }
    stream.read_to_end(&mut Vec::new()).map(drop)
}
