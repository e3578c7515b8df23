//! `fanfare bench roundtrip`: one message at a time, from a publisher to one subscriber.
//! Here the client blocks until the message is there, as any client with nothing else to do.
//! # Not here: many subscribers (`traffic`).

use super::args::{RoundtripArgs, RunArgs};
use super::conduit::Conduit;
use super::error::BenchError;
use super::figures::{self, Sheet, real};
use super::frame::{self, Head, Opcode};
use super::mark::Mark;
use super::process::Process;
use super::publisher::{Publisher, upgrade};
use super::speech::{Heard, Joining, Speech};
use super::stage::Stage;
use super::stopwatch::{Stopwatch, nanos};
use super::subject::Subject;
use super::tally::histogram;
use hdrhistogram::Histogram;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Time that a message may take.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// How often the bar moves, and pings to the publisher are answered.
const CHORES_EVERY: Duration = Duration::from_millis(100);

/// Something that takes a message in on one socket and gives it out on another.
trait Trip {
    /// Sends one message and waits until it is there. Returns the bytes that arrived.
    fn make(&mut self) -> Result<usize, BenchError>;

    /// Does what is due now and then.
    fn chores(&mut self) -> Result<(), BenchError>;
}

/// Through a broker.
struct Brokered {
    publisher: Publisher,
    subscriber: Conduit<TcpStream>,
    speech: Speech,
    /// Whether several events come in one message by now.
    joining: Joining,
    buffer: Vec<u8>,
    filled: usize,
    number: u32,
    watch: Stopwatch,
}

/// Through a bare echo.
struct Echoed {
    sender: Conduit<TcpStream>,
    receiver: Conduit<TcpStream>,
    message: Vec<u8>,
    buffer: Vec<u8>,
}

/// Measures a broker.
pub(super) fn run(
    stage: &Stage,
    subject: &Subject,
    args: &RoundtripArgs,
) -> Result<Sheet, BenchError> {
    let trip = Brokered::open(stage, subject, args.run.payload)?;
    measure(stage, subject, trip, args.run)
}

/// Measures the echo with messages of such a length.
pub(super) fn run_limit(
    stage: &Stage,
    subject: &Subject,
    (args, len): (&RoundtripArgs, usize),
) -> Result<Sheet, BenchError> {
    // The first of two connections is the one that receives.
    let mut receiver = subject.target.place.connect()?;
    let sender = subject.target.place.connect()?;
    timeout(&mut receiver)?;
    let trip = Echoed { sender, receiver, message: vec![b'x'; len], buffer: vec![0; len] };
    measure(stage, subject, trip, args.run)
}

fn measure(
    stage: &Stage,
    subject: &Subject,
    mut trip: impl Trip,
    run: RunArgs,
) -> Result<Sheet, BenchError> {
    let mut latency = histogram();
    repeat(stage, &mut trip, run.warmup, &mut latency)?;
    latency.reset();
    let usage = || subject.process.as_ref().and_then(Process::usage);
    let before = usage();
    let bytes = repeat(stage, &mut trip, run.duration, &mut latency)?;
    let after = usage();
    let trips = latency.len();
    let mut sheet = Sheet::default();
    sheet.count(&figures::ROUND_TRIPS, trips);
    sheet.latencies(&latency);
    if let (Some(before), Some(after)) = (before, after) {
        let cpu_ns = real(after.cpu_ns.saturating_sub(before.cpu_ns));
        sheet.put(&figures::CPU_PER_DELIVERY, cpu_ns / 1e3 / real(trips.max(1)));
        sheet.put(&figures::RSS, real(after.rss_bytes));
    }
    sheet.put(&figures::WIRE, real(bytes) / real(trips.max(1)));
    Ok(sheet)
}

/// Makes trips for so long. Returns the bytes that arrived.
fn repeat(
    stage: &Stage,
    trip: &mut impl Trip,
    time: Duration,
    latency: &mut Histogram<u64>,
) -> Result<u64, BenchError> {
    let until_ns = stage.watch.ns() + nanos(time);
    let mut chores_ns = 0;
    let mut bytes = 0;
    loop {
        let began_ns = stage.watch.ns();
        if began_ns >= until_ns {
            return Ok(bytes);
        }
        bytes += trip.make()? as u64;
        latency.saturating_record((stage.watch.ns() - began_ns).max(1));
        if began_ns.saturating_sub(chores_ns) > nanos(CHORES_EVERY) {
            chores_ns = began_ns;
            stage.progress.show();
            trip.chores()?;
        }
    }
}

impl Brokered {
    fn open(stage: &Stage, subject: &Subject, payload: usize) -> Result<Brokered, BenchError> {
        let target = &subject.target;
        let mut subscriber = upgrade(target, &target.speech.path(&target.path, &[0]))?;
        timeout(&mut subscriber)?;
        let mut greeting = Vec::new();
        target.speech.greet(&[0], &mut greeting);
        subscriber.write_all(&greeting).map_err(|error| lost(&error))?;
        let mut trip = Brokered {
            publisher: Publisher::open(target, payload, &[1])?,
            subscriber,
            speech: target.speech,
            joining: Joining::Single,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            number: 0,
            watch: stage.watch,
        };
        trip.wait(&Wanted::Subscription)?;
        Ok(trip)
    }

    /// Reads until what is wanted has come. Returns the bytes that were read.
    fn wait(&mut self, wanted: &Wanted) -> Result<usize, BenchError> {
        let mut bytes = 0;
        loop {
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            match self.subscriber.read(room) {
                Ok(0) => return Err(BenchError::Publisher("the broker ended it".to_owned())),
                Ok(len) => {
                    self.filled += len;
                    bytes += len;
                }
                Err(error) => return Err(lost(&error)),
            }
            if self.look(wanted)? {
                return Ok(bytes);
            }
        }
    }

    /// Takes the whole frames in the buffer; whether what is wanted was among them.
    fn look(&mut self, wanted: &Wanted) -> Result<bool, BenchError> {
        let mut used = 0;
        let mut has_come = false;
        while let Some(rest) = self.buffer.get(used..self.filled)
            && let Some(head) = Head::read(rest)?
            && let Some(payload) = rest.get(head.len..head.frame_len())
        {
            let mut refused = None;
            let mut batches = false;
            match head.opcode {
                Opcode::Text | Opcode::Binary => {
                    self.speech.hear(self.joining, payload, |heard| match heard {
                        Heard::Refused(words) => refused = Some(words),
                        Heard::Batches => batches = true,
                        heard => has_come |= wanted.is(&heard),
                    });
                }
                Opcode::Ping => {
                    let mut pong = Vec::new();
                    frame::put_client(&mut pong, Opcode::Pong, payload, [1, 2, 3, 4]);
                    self.subscriber.write_all(&pong).map_err(|error| lost(&error))?;
                }
                Opcode::Pong => {}
                Opcode::Close => {
                    return Err(BenchError::Publisher(super::link::closed(payload)));
                }
            }
            if let Some(words) = refused {
                return Err(BenchError::Subscription(words));
            }
            if batches {
                self.joining = Joining::Batch;
            }
            used += head.frame_len();
        }
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
        Ok(has_come)
    }
}

/// What is waited for.
enum Wanted {
    Subscription,
    Message(u32),
}

impl Wanted {
    fn is(&self, heard: &Heard<'_>) -> bool {
        match (self, heard) {
            (Wanted::Subscription, Heard::Subscribed) => true,
            (Wanted::Message(number), Heard::Delivery(body)) => {
                Mark::read(body).is_some_and(|mark| mark.number == *number)
            }
            _ => false,
        }
    }
}

impl Trip for Brokered {
    fn make(&mut self) -> Result<usize, BenchError> {
        self.number += 1;
        self.publisher.publish(self.watch.ns());
        self.publisher.flush()?;
        self.wait(&Wanted::Message(self.number))
    }

    fn chores(&mut self) -> Result<(), BenchError> {
        self.publisher.listen()
    }
}

impl Trip for Echoed {
    fn make(&mut self) -> Result<usize, BenchError> {
        self.sender.write_all(&self.message).map_err(|error| lost(&error))?;
        self.receiver.read_exact(&mut self.buffer).map_err(|error| lost(&error))?;
        Ok(self.buffer.len())
    }

    fn chores(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}

fn timeout(stream: &mut Conduit<TcpStream>) -> Result<(), BenchError> {
    let timeout = stream.socket().set_read_timeout(Some(SILENCE_MAX));
    timeout.map_err(BenchError::system("cannot set up a socket"))
}

fn lost(error: &std::io::Error) -> BenchError {
    match error.kind() {
        std::io::ErrorKind::WouldBlock => BenchError::Silent("a message", SILENCE_MAX.as_secs()),
        _ => BenchError::Publisher(error.to_string()),
    }
}
