//! The judged clients: the simulator's model clients, on real sockets.
//! # Invariants: what a client sends is noted before it leaves, what it hears when it is read; a
//! violation ends the run with the records that explain it.
//! # Not here: what they ask for (`draw`), what is right (`checker`).

use super::draw::{self, Sayings};
use crate::checker::{Judge, Violation, excerpt};
use crate::client::{Client, Pace};
use crate::history::{
    Command, Ending, Event, Fact, Page, Record, Subscribe, TopicPosition, to_lines,
};
use crate::random::Random;
use crate::socket::{End, Intake, Pipe, ServerEnd, SimClock, Upward, Width as Room};
use crate::spelling::{Heard, Parser, encode};
use crate::tally::Tally;
use crate::wire::{CLOSE, Door, PONG, WIRES, Width, frame, framed, open};
use fanfare::shard::outbound::Socket as _;
use fanfare::topics::message::Wire;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The latest records, of which a violation is explained.
const RING_MAX: usize = 30_000;

/// Between two looks at all sockets.
const TICK: Duration = Duration::from_millis(4);

/// What a client that crawls reads in one look.
const CRUMB_BYTES: usize = 400;

/// How long nothing may come before it is quiet: longer than the slowest rate holds anything back.
const SILENCE: Duration = Duration::from_millis(600);

/// Between two looks of a client. One that looks less often is slow, whatever its pace: the machine
/// may have other things to do.
const SLOW: Duration = Duration::from_millis(60);

const PATIENCE: Duration = Duration::from_secs(20);

const PACES: [Pace; 7] =
    [Pace::Fast, Pace::Fast, Pace::Fast, Pace::Fast, Pace::Crawling, Pace::Stalled, Pace::Stalled];

pub(super) struct Crowd {
    door: Door,
    chance: Random,
    seats: Vec<Seat>,
    judge: Judge,
    ring: VecDeque<Record>,
    pub(super) tally: Tally,
    sayings: Sayings,
    connections: u64,
    /// Commands without an answer, by connection.
    waiting: BTreeMap<u64, u64>,
    /// The latest page of history that was heard.
    page: Option<Page>,
    seed: u64,
}

/// A client and its socket.
struct Seat {
    client: Client,
    stream: Option<TcpStream>,
    /// Where what it hears goes in.
    end: Option<ServerEnd>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
    /// When it last looked at its socket, and whether it was ever slow on this connection.
    looked: Instant,
    was_slow: bool,
}

impl Crowd {
    pub(super) fn new(door: Door, seed: u64, clients: u64) -> Crowd {
        let mut crowd = Crowd {
            door,
            chance: Random::new(seed),
            seats: (1..=clients).map(Seat::new).collect(),
            judge: Judge::default(),
            ring: VecDeque::new(),
            tally: Tally::default(),
            sayings: Sayings::default(),
            connections: 0,
            waiting: BTreeMap::new(),
            page: None,
            seed,
        };
        crowd.note(Fact::Begin(draw::promise()));
        crowd
    }

    /// Does what chance says until then.
    pub(super) fn act_until(&mut self, end: Instant) {
        while Instant::now() < end {
            let begin = Instant::now();
            self.act();
            self.turn();
            std::thread::sleep(TICK.saturating_sub(begin.elapsed()));
        }
    }

    fn act(&mut self) {
        let index = self.chance.below(self.seats.len());
        if self.seats[index].client.link.is_none() {
            return self.connect(index);
        }
        match self.chance.weighted(&[36, 5, 14, 5, 4, 2, 2, 3, 4, 4, 1]) {
            0 => {
                for _ in 0..self.chance.within(1..=3) {
                    let publish = self.sayings.publish(&mut self.chance);
                    self.send(index, Command::Publish(publish));
                }
            }
            1 => {
                if let Some(publish) = self.sayings.retry(&mut self.chance) {
                    self.send(index, Command::Publish(publish));
                }
            }
            2 => self.subscribe(index),
            3 => {
                if let Some(topic) = self.some_target(index) {
                    self.send(index, Command::Unsubscribe { topic });
                }
            }
            4 => {
                if let Some(topic) = self.some_target(index) {
                    let update = draw::update(topic, &mut self.chance);
                    self.send(index, update);
                }
            }
            5 => {
                let query = draw::query(&mut self.chance);
                self.send(index, query);
            }
            6 => self.send(index, Command::Ping {}),
            7 => {
                let pace = *self.chance.pick(&PACES).expect("not empty");
                self.seats[index].client.pace = pace;
            }
            8 => self.cut(index),
            9 => {
                // Comes back slow: that is when it misses most.
                self.cut(index);
                self.connect(index);
                self.seats[index].client.pace = *self.chance.pick(&PACES).expect("not empty");
            }
            _ => self.seats[index].client.leave(),
        }
    }

    fn subscribe(&mut self, index: usize) {
        let mut subscribe: Subscribe = draw::subscribe(&mut self.chance);
        if self.seats[index].client.wants.len() >= 6 {
            return;
        }
        if self.chance.chance(50) {
            subscribe = self.seats[index].client.going_on(&subscribe);
        }
        self.send(index, Command::Subscribe(subscribe));
    }

    fn some_target(&mut self, index: usize) -> Option<String> {
        let targets: Vec<&String> = self.seats[index].client.wants.keys().collect();
        self.chance.pick(&targets).map(|target| (*target).clone())
    }

    fn connect(&mut self, index: usize) {
        let wire = self.seats[index].client.wire;
        let opened = open(self.door, wire, Width::Narrow).and_then(|mut stream| {
            let name = hello(&mut stream, wire)?;
            stream.set_nonblocking(true)?;
            Ok((stream, name))
        });
        let (stream, name) = opened.expect("the broker takes every connection");
        self.connections += 1;
        let connection = self.connections;
        let room = Room { room: usize::MAX / 2, intake: Intake::Room };
        let pipe = Pipe::new(room, Random::new(0), SimClock::default());
        let seat = &mut self.seats[index];
        (seat.stream, seat.unsent) = (Some(stream), Vec::new());
        (seat.looked, seat.was_slow) = (Instant::now(), false);
        seat.end = Some(ServerEnd(Rc::clone(&pipe)));
        seat.client.connected(connection, pipe);
        let (client, wire) = (seat.client.number, wire.name().to_owned());
        self.waiting.insert(connection, 0);
        self.note(Fact::Open { connection, client, wire, name });
        if self.chance.chance(40) {
            let batch = self.chance.chance(70);
            self.send(index, Command::Connect { name: format!("c{client}"), batch });
        }
        for command in self.seats[index].client.resumes() {
            self.send(index, command);
        }
    }

    /// Breaks a connection; what was on its way in either direction is lost.
    fn cut(&mut self, index: usize) {
        let mut records = Vec::new();
        let seat = &mut self.seats[index];
        seat.client.cut(now_ms(), &mut records);
        if let Some(stream) = seat.stream.take() {
            crate::wire::reset(stream);
        }
        self.take_all(records);
    }

    fn send(&mut self, index: usize, command: Command) {
        if let Some(fact) = self.seats[index].client.send(command) {
            if let Fact::Sent { connection, .. } = &fact {
                *self.waiting.entry(*connection).or_default() += 1;
            }
            self.note(fact);
        }
    }

    /// One look at all sockets. Whether anything came.
    fn turn(&mut self) -> bool {
        let mut came = false;
        for index in 0..self.seats.len() {
            let mut records = Vec::new();
            came |= self.seats[index].turn(&mut records);
            self.take_all(records);
        }
        came
    }

    /// Everybody reads as fast as he can.
    pub(super) fn hurry(&mut self) {
        for seat in &mut self.seats {
            seat.client.pace = Pace::Fast;
        }
    }

    /// Reads until nothing has come for a while.
    pub(super) fn listen_until_silent(&mut self) {
        let (begin, mut last) = (Instant::now(), Instant::now());
        while last.elapsed() < SILENCE && begin.elapsed() < PATIENCE {
            if self.turn() {
                last = Instant::now();
            }
            std::thread::sleep(TICK);
        }
    }

    /// Whether somebody waits for an answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.values().any(|count| *count > 0)
    }

    /// Where the topics stand, as the broker answers.
    pub(super) fn tops(&mut self) -> Vec<TopicPosition> {
        if self.seats[0].client.link.is_none() {
            self.connect(0);
            self.listen_until_silent();
        }
        let mut tops = Vec::new();
        for topic in draw::topics() {
            self.page = None;
            let query = crate::history::Query { topic: topic.into(), since: None, limit: 1 };
            self.send(0, Command::History(query));
            let begin = Instant::now();
            while self.page.is_none() && begin.elapsed() < PATIENCE {
                self.turn();
            }
            let page = self.page.take().expect("a page of history");
            let top = page.top.map(|position| TopicPosition { topic: page.topic, position });
            tops.extend(top);
        }
        tops
    }

    /// Judges what waited for a quiet moment, and forgets what is over.
    pub(super) fn settle(&mut self, tops: &[TopicPosition]) {
        let since_ms = now_ms() - 2 * draw::KEPT_MS;
        self.sayings.forget();
        if let Err(violation) = self.judge.settle(tops, since_ms) {
            self.fail(violation);
        }
    }

    /// Everybody leaves, some in good order and some not.
    pub(super) fn go(&mut self) {
        for index in 0..self.seats.len() {
            if self.chance.chance(50) {
                self.seats[index].client.leave();
            } else {
                self.cut(index);
            }
        }
        let begin = Instant::now();
        while self.seats.iter().any(|seat| seat.stream.is_some()) && begin.elapsed() < PATIENCE {
            self.turn();
            std::thread::sleep(TICK);
        }
    }

    pub(super) fn note(&mut self, fact: Fact) {
        self.take(Record { at: now_ms(), fact });
    }

    fn take_all(&mut self, records: Vec<Record>) {
        for mut record in records {
            // When bytes were read here says nothing of when the broker wrote them.
            if let Fact::Heard { sent, .. } = &mut record.fact {
                *sent = None;
            }
            self.take(record);
        }
    }

    fn take(&mut self, record: Record) {
        match &record.fact {
            Fact::Heard { connection, id, event, .. } if *id > 0 => {
                if let Some(waiting) = self.waiting.get_mut(connection) {
                    *waiting = waiting.saturating_sub(1);
                }
                if let Event::HistoryPage(page) = event {
                    self.page = Some(page.clone());
                }
            }
            Fact::Closed { connection, by: Ending::Server | Ending::Cut } => {
                self.waiting.remove(connection);
            }
            _ => {}
        }
        self.tally.add(std::slice::from_ref(&record));
        let judged = self.judge.hear(&record);
        self.ring.push_back(record);
        let over = self.ring.len().saturating_sub(RING_MAX);
        self.ring.drain(..over);
        if let Err(violation) = judged {
            self.fail(violation);
        }
    }

    /// Ends the run with what explains a violation.
    fn fail(&mut self, mut violation: Violation) -> ! {
        let history = self.ring.make_contiguous();
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.jsonl");
        std::fs::write(&path, to_lines(history)).expect("the target folder can be written to");
        println!("seed {}: {violation}", self.seed);
        violation.record = violation.record.saturating_sub(self.judge.records - history.len());
        for (index, record) in excerpt(history, &violation) {
            let line = serde_json::to_string(record).expect("plain data");
            println!("{index:>6} {}", line.chars().take(300).collect::<String>());
        }
        panic!("seed {}: {violation}; the records are in {}", self.seed, path.display());
    }

    pub(super) fn remembered(&self) -> usize {
        self.judge.size() + self.ring.len()
    }

    pub(super) fn records(&self) -> usize {
        self.judge.records
    }

    pub(super) fn counts(&self) -> String {
        format!("{}, {}", self.seats.len(), self.connections)
    }
}

impl Seat {
    fn new(number: u64) -> Seat {
        let wire = WIRES[number as usize % WIRES.len()];
        Seat {
            client: Client::new(number, wire),
            stream: None,
            end: None,
            unsent: Vec::new(),
            looked: Instant::now(),
            was_slow: false,
        }
    }

    /// Reads and writes what can be without waiting. Whether anything came.
    fn turn(&mut self, records: &mut Vec<Record>) -> bool {
        let came = self.read();
        let at = now_ms();
        self.client.receive(usize::MAX, at, records);
        self.collect();
        self.write();
        if self.client.link.is_none() {
            (self.stream, self.end) = (None, None);
        }
        came || !records.is_empty()
    }

    /// Takes bytes off the socket, as many as the client's pace allows.
    fn read(&mut self) -> bool {
        let (Some(stream), Some(end)) = (&mut self.stream, &self.end) else { return false };
        let mut bytes = [0; 16 << 10];
        let most = match self.client.pace {
            Pace::Fast => bytes.len(),
            Pace::Crawling => CRUMB_BYTES,
            Pace::Stalled => return false,
        };
        self.was_slow |= self.client.pace != Pace::Fast || self.looked.elapsed() > SLOW;
        self.looked = Instant::now();
        match stream.read(&mut bytes[..most]) {
            // Who has said that he goes is owed no word.
            Ok(0) if end.0.client.get() == End::Finished => end.abort(),
            // Who does not take in time what is left for him is given up where he stands.
            Ok(0) if self.was_slow => end.abort(),
            Ok(0) => end.shutdown(),
            Ok(count) => {
                let slices = [IoSlice::new(&bytes[..count])];
                assert_eq!(end.write_vectored(&slices).expect("it has room"), count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => end.abort(),
        }
        true
    }

    /// Frames what the client has to say.
    fn collect(&mut self) {
        let Some(link) = &self.client.link else { return };
        for upward in link.pipe.up.borrow_mut().drain(..) {
            self.unsent.extend(match upward {
                Upward::Command(bytes) => framed(&bytes, self.client.wire),
                Upward::Pong => frame(PONG, &[]),
                Upward::Close(code) => frame(CLOSE, &code.to_be_bytes()),
            });
        }
    }

    fn write(&mut self) {
        let (Some(stream), Some(link)) = (&mut self.stream, &self.client.link) else { return };
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                // What is wrong shows when it reads.
                Err(_) => return,
            }
        }
        if link.pipe.client.get() == End::Finished {
            // The peer may be gone already.
            stream.shutdown(Shutdown::Write).unwrap_or_default();
        }
    }
}

/// The first command on a connection: tells what the broker calls it.
fn hello(stream: &mut TcpStream, wire: Wire) -> io::Result<String> {
    let command = Command::Connect { name: String::new(), batch: false };
    stream.write_all(&framed(&encode(1, &command, wire), wire))?;
    let mut parser = Parser::new(wire);
    let mut bytes = [0; 1024];
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Err(io::Error::other("it ends before it has said hello"));
        }
        parser.feed(&bytes[..count]);
        match parser.next() {
            Some(Ok(Heard::Event(_, Event::Connected { connection, .. }))) => {
                return Ok(connection);
            }
            Some(other) => return Err(io::Error::other(format!("{other:?}"))),
            None => {}
        }
    }
}

/// Milliseconds since 1970, as messages have them.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the end of days")
}
