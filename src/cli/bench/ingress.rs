//! `fanfare bench publish`: publishes over the TCP ingress, many on the way at once.
//! # Invariants: at most as many are unanswered as the window allows; answers come in the order of
//! the commands, and any other order is a fault.
//! # Not here: who reads; nobody does.

use super::args::PublishingArgs;
use super::conduit::Conduit;
use super::error::BenchError;
use super::figures::{self, Sheet, real};
use super::process::Process;
use super::speech::topic_name;
use super::stage::Stage;
use super::stopwatch::{REST, nanos, rest};
use super::subject::Subject;
use super::tally::histogram;
use crate::dialect::schema::{self, command::Action, event::Body};
use hdrhistogram::Histogram;
use prost::Message as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Time without an answer after which there will be none.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How often the bar moves.
const SHOW_EVERY: Duration = Duration::from_millis(50);

/// A connection to the ingress.
struct Pipe {
    stream: Conduit<TcpStream>,
    /// Of each topic, the command without its id.
    publishes: Vec<Vec<u8>>,
    window: u64,
    /// Ids that were sent, and that were answered; the next id is one more.
    sent: u64,
    answered: u64,
    refused: u64,
    disordered: u64,
    /// When each of the last `window` ids was sent.
    sent_ns: Vec<u64>,
    unsent: Vec<u8>,
    kept: Vec<u8>,
    latency: Histogram<u64>,
}

/// Publishes and measures.
pub(super) fn run(
    stage: &Stage,
    subject: &Subject,
    args: &PublishingArgs,
) -> Result<Sheet, BenchError> {
    let mut pipe = Pipe::open(subject, args)?;
    pipe.publish(stage, args.run.warmup)?;
    pipe.latency.reset();
    let usage = || subject.process.as_ref().and_then(Process::usage);
    let own = || stage.own.as_ref().and_then(Process::usage);
    let (before, own_before, sent) = (usage(), own(), pipe.sent);
    let (refused, disordered) = (pipe.refused, pipe.disordered);
    let began_ns = stage.watch.ns();
    pipe.publish(stage, args.run.duration)?;
    let wall_ns = real((stage.watch.ns() - began_ns).max(1));
    let (after, own_after) = (usage(), own());
    let published = pipe.sent - sent;
    let mut sheet = Sheet::default();
    sheet.count(&figures::PUBLISHED, published);
    sheet.count(&figures::REFUSED, pipe.refused - refused);
    sheet.count(&figures::DISORDERED, pipe.disordered - disordered);
    sheet.put(&figures::PUBLISHES_PER_SECOND, real(published) * 1e9 / wall_ns);
    if let (Some(before), Some(after)) = (before, after) {
        let cpu_ns = real(after.cpu_ns.saturating_sub(before.cpu_ns));
        sheet.put(&figures::CPU_PER_PUBLISH, cpu_ns / 1e3 / real(published.max(1)));
        sheet.put(&figures::CORES, cpu_ns / wall_ns);
        sheet.put(&figures::RSS, real(after.rss_bytes));
    }
    sheet.latencies(&pipe.latency);
    if let (Some(before), Some(after)) = (own_before, own_after) {
        sheet.put(&figures::CLIENT_CORES, real(after.cpu_ns - before.cpu_ns) / wall_ns);
    }
    Ok(sheet)
}

impl Pipe {
    fn open(subject: &Subject, args: &PublishingArgs) -> Result<Pipe, BenchError> {
        let place = subject.ingress.as_ref().ok_or(BenchError::NoIngress)?;
        let mut stream = place.connect()?;
        let nonblocking = stream.socket().set_nonblocking(true);
        nonblocking.map_err(BenchError::system("cannot set up a socket"))?;
        let body = "x".repeat(args.run.payload);
        let publishes = (0..args.topics).map(|topic| {
            let publish = schema::Publish {
                topic: topic_name(topic),
                payload: Some(schema::publish::Payload::Text(body.clone())),
                ..Default::default()
            };
            schema::Command { id: 0, action: Some(Action::Publish(publish)) }.encode_to_vec()
        });
        Ok(Pipe {
            stream,
            publishes: publishes.collect(),
            window: args.window,
            sent: 0,
            answered: 0,
            refused: 0,
            disordered: 0,
            sent_ns: vec![0; usize::try_from(args.window).unwrap_or(1)],
            unsent: Vec::new(),
            kept: Vec::new(),
            latency: histogram(),
        })
    }

    /// Publishes for so long, and waits for all answers.
    fn publish(&mut self, stage: &Stage, time: Duration) -> Result<(), BenchError> {
        let until_ns = stage.watch.ns() + nanos(time);
        let mut progress_ns = stage.watch.ns();
        let mut shown_ns = 0;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let now_ns = stage.watch.ns();
            if now_ns < until_ns {
                self.fill(now_ns);
            } else if self.answered == self.sent {
                return Ok(());
            }
            self.flush()?;
            if self.read(&mut buffer, stage)? {
                progress_ns = now_ns;
                continue;
            }
            if now_ns.saturating_sub(progress_ns) > nanos(SILENCE_MAX) {
                return Err(BenchError::Silent("a publish", SILENCE_MAX.as_secs()));
            }
            if now_ns.saturating_sub(shown_ns) > nanos(SHOW_EVERY) {
                shown_ns = now_ns;
                stage.progress.show();
            }
            rest(REST);
        }
    }

    /// Makes as many commands as there is room for, but not one by one.
    fn fill(&mut self, now_ns: u64) {
        let open = self.sent - self.answered;
        if open + (self.window / 8).max(1) > self.window {
            return;
        }
        for _ in open..self.window {
            let place = usize::try_from(self.sent % self.publishes.len() as u64);
            let Some(publish) = place.ok().and_then(|place| self.publishes.get(place)) else {
                return;
            };
            self.sent += 1;
            let mut id = Vec::with_capacity(11);
            prost::encoding::uint64::encode(1, &self.sent, &mut id);
            let len = u32::try_from(id.len() + publish.len()).unwrap_or(u32::MAX);
            self.unsent.extend_from_slice(&len.to_be_bytes());
            self.unsent.extend_from_slice(&id);
            self.unsent.extend_from_slice(publish);
            let place = self.place_of(self.sent);
            if let Some(sent_ns) = self.sent_ns.get_mut(place) {
                *sent_ns = now_ns;
            }
        }
    }

    fn place_of(&self, id: u64) -> usize {
        usize::try_from(id % self.window).unwrap_or_default()
    }

    fn flush(&mut self) -> Result<(), BenchError> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(lost(&error)),
            }
        }
        self.stream.flush().map_err(|error| lost(&error))
    }

    /// Takes answers. Returns whether there were any bytes.
    fn read(&mut self, buffer: &mut [u8], stage: &Stage) -> Result<bool, BenchError> {
        match self.stream.read(buffer) {
            Ok(0) => return Err(BenchError::Publisher("the broker ended it".to_owned())),
            Ok(len) => self.kept.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(lost(&error)),
        }
        let now_ns = stage.watch.ns();
        let kept = std::mem::take(&mut self.kept);
        let mut rest = &kept[..];
        while let Some((event, others)) = split(rest)? {
            self.hear(event, now_ns)?;
            rest = others;
        }
        self.kept = rest.to_vec();
        Ok(true)
    }

    fn hear(&mut self, event: &[u8], now_ns: u64) -> Result<(), BenchError> {
        let event = schema::Event::decode(event);
        let event = event.map_err(|error| BenchError::Publisher(error.to_string()))?;
        match event.body {
            Some(Body::Published(_)) => {}
            Some(Body::Error(error)) if event.id == 0 => {
                return Err(BenchError::Publish(error.message));
            }
            Some(Body::Error(_)) => self.refused += 1,
            // Pings.
            _ => return Ok(()),
        }
        self.answered += 1;
        if event.id != self.answered {
            self.disordered += 1;
        }
        let sent_ns = self.sent_ns.get(self.place_of(event.id)).copied().unwrap_or(now_ns);
        self.latency.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
        Ok(())
    }
}

/// The bytes of an event, and those behind it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// Takes off an event with its length before it, if it is whole.
fn split(bytes: &[u8]) -> Result<Option<Split<'_>>, BenchError> {
    let Some((len, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*len) as usize;
    if len > ANSWER_BYTES_MAX {
        return Err(BenchError::Publisher(format!("an answer of {len} bytes")));
    }
    Ok(rest.split_at_checked(len))
}

fn lost(error: &io::Error) -> BenchError {
    BenchError::Publisher(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_split_at_their_lengths() {
        let bytes = [0, 0, 0, 2, 7, 8, 0, 0, 0, 1];
        assert_eq!(split(&bytes).expect("sound"), Some((&[7, 8][..], &[0, 0, 0, 1][..])));
        for cut in 0..6 {
            assert_eq!(split(&bytes[..cut]).expect("sound"), None, "cut at {cut}");
        }
        assert!(split(&[1, 0, 0, 0]).is_err());
    }
}
