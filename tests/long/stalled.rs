//! Thousands of subscribers that do not read, and a broker that has little memory for that: it must
//! live, serve those who read, and tell those who do not.
//! # Not here: which memory is given up first (`src/shard/pressure.rs`).

mod reader;

use crate::cgroup::Group;
use crate::history::{Command, Content, Event, Overflow, Payload, Publish};
use crate::number;
use crate::process::{Home, Process};
use crate::spelling::{Heard, Parser, encode};
use crate::table::{Table, mib};
use crate::wire::{Door, WIRES, Width, framed, open};
use fanfare::topics::message::Wire;
use reader::{End, Reader};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Readers and memory of a run, where nobody says otherwise.
const READERS: u64 = 300;
const MEMORY_MIB: u64 = 64;

/// Subscribers that read.
const HEALTHY: u64 = 20;

/// How many times the memory of the group is published: there are as many topics as that takes,
/// because what waits for the readers of one topic is the same bytes.
const FLOOD: u64 = 2;

const TEXT_BYTES: usize = 8 << 10;

/// Messages to each topic: more than the kernel and the broker hold for one reader.
const MESSAGES: u64 = 300;

/// Messages to each topic between two looks at who has heard them.
const BURST: u64 = 4;

const PATIENCE: Duration = Duration::from_mins(1);

/// What the broker may have in the end beside the histories: itself, and what its allocator keeps.
const REST_BYTES: u64 = 96 << 20;

/// Publishes and hears the answers.
struct Publisher {
    stream: TcpStream,
    parser: Parser,
    /// Messages of each topic that were taken.
    taken: Vec<u64>,
    refused: u64,
}

#[test]
#[ignore = "needs a control group: ./test.sh cgroup"]
fn readers_that_stall_cannot_exhaust_a_control_group() {
    let readers = number("CGROUP_READERS").unwrap_or(READERS);
    let memory = number("CGROUP_MIB").unwrap_or(MEMORY_MIB) << 20;
    // The group goes last.
    let group = Group::new(memory);
    let share = memory / 4;
    let home = Home::new(&format!(
        "topics.history_bytes_max = {share}\nlimits.outbound_total_bytes_max = {share}\n\
         shutdown.spread = \"1s\"\n"
    ));
    let mut broker = home.serve_in("127.0.0.1:0", Some(&group.processes()));
    let door = Door { public: broker.public, ingress: broker.ingress };
    let topics = (FLOOD * memory).div_ceil(MESSAGES * TEXT_BYTES as u64).clamp(HEALTHY, readers);
    let mut stalled: Vec<Reader> = (0..readers)
        .map(|number| {
            let overflow = [Overflow::Gap, Overflow::CatchUp, Overflow::Disconnect];
            let overflow = overflow[number as usize / WIRES.len() % overflow.len()];
            Reader::join(door, number, (&topic(number % topics), overflow), Width::Narrow)
        })
        .collect();
    let mut healthy: Vec<Reader> = (0..HEALTHY)
        .map(|number| Reader::join(door, number, (&topic(number), Overflow::CatchUp), Width::Wide))
        .collect();
    let mut publisher = Publisher::new(door, topics);
    let begin = Instant::now();
    for _ in 0..MESSAGES / BURST {
        publisher.publish(BURST);
        hear_all(&mut healthy, &publisher, &broker);
    }
    let flood = begin.elapsed();
    let (peak, sockets) = (group.peak(), group.sockets());
    assert!(broker.is_alive(), "it has ended; {}", broker.log());

    let left = stalled.split_off(stalled.len() / 2);
    drop(left);
    finish(&mut stalled);
    publisher.publish(BURST);
    hear_all(&mut healthy, &publisher, &broker);
    let told = stalled.iter().filter(|reader| reader.was_told()).count() as u64;
    let mut table = figures(&broker, &stalled, &publisher, (&group, peak, sockets, flood));
    drop(stalled);
    table.row("memory of the process when they had gone", mib(fall_back(&broker)));
    table.tell();
    assert_eq!(group.kills(), 0, "{}", broker.log());
    assert_eq!(told, readers / 2, "some were neither told nor cut off");
    assert!(publisher.refused == 0 || peak > memory / 2, "publishers are refused early");
    broker.stop();
}

fn topic(number: u64) -> String {
    format!("flood.{number}")
}

impl Publisher {
    fn new(door: Door, topics: u64) -> Publisher {
        let stream = open(door, Wire::TcpProto, Width::Wide).expect("a connection");
        let taken = vec![0; topics as usize];
        Publisher { stream, parser: Parser::new(Wire::TcpProto), taken, refused: 0 }
    }

    /// Publishes so many messages to each topic and hears the answers.
    fn publish(&mut self, count: u64) {
        for index in 0..self.taken.len() {
            let mut bytes = Vec::new();
            for id in 1..=count {
                let payload = Payload::Text("x".repeat(TEXT_BYTES));
                let content = Content { key: String::new(), payload };
                let (topic, idempotency_key) = (topic(index as u64), String::new());
                let publish = Publish { topic, content, idempotency_key, ttl_ms: 0 };
                let command = encode(id, &Command::Publish(publish), Wire::TcpProto);
                bytes.extend(framed(&command, Wire::TcpProto));
            }
            self.stream.write_all(&bytes).expect("the broker reads");
            for _ in 0..count {
                self.hear(index);
            }
        }
    }

    fn hear(&mut self, index: usize) {
        let mut bytes = [0; 4096];
        loop {
            match self.parser.next() {
                Some(Ok(Heard::Event(1.., Event::Published(_)))) => {
                    self.taken[index] += 1;
                    return;
                }
                Some(Ok(Heard::Event(1.., Event::Error { name }))) if name == "overloaded" => {
                    self.refused += 1;
                    return;
                }
                Some(Ok(Heard::Event(0, Event::Ping {}))) => {}
                Some(other) => panic!("a publisher heard {other:?}"),
                None => {
                    let count = self.stream.read(&mut bytes).expect("the broker answers");
                    assert!(count > 0, "the publisher was cut off");
                    self.parser.feed(&bytes[..count]);
                }
            }
        }
    }
}

/// Waits until those who read have all that was taken.
fn hear_all(healthy: &mut [Reader], publisher: &Publisher, broker: &Process) {
    let begin = Instant::now();
    for (reader, taken) in healthy.iter_mut().zip(&publisher.taken) {
        while reader.offset < *taken {
            reader.read();
            assert_eq!(reader.gaps, 0, "who reads was told a gap; {}", broker.log());
            assert_eq!(reader.end, None, "who reads was cut off; {}", broker.log());
            let (heard, in_time) = (reader.offset, begin.elapsed() < PATIENCE);
            assert!(in_time, "who reads has {heard} of {taken}; {}", broker.log());
            if reader.is_idle {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Those who stalled read what there is.
fn finish(stalled: &mut [Reader]) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        for reader in stalled.iter_mut() {
            reader.read();
        }
        if stalled.iter().all(Reader::was_told) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the memory is that of a broker without slow readers. Returns what it is then.
fn fall_back(broker: &Process) -> u64 {
    let begin = Instant::now();
    loop {
        let metrics = broker.metrics();
        let gauge = |name: &str| metrics.get(name).copied().unwrap_or(f64::MAX);
        let is_empty = gauge("fanfare_outbound_bytes") == 0.0;
        let (rest, bound) = (broker.resident(), gauge("fanfare_history_bytes") as u64 + REST_BYTES);
        if is_empty && rest < bound {
            return rest;
        }
        assert!(begin.elapsed() < PATIENCE, "{} are left, the bound is {}", mib(rest), mib(bound));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn figures(
    broker: &Process,
    stalled: &[Reader],
    publisher: &Publisher,
    (group, peak, sockets, flood): (&Group, u64, u64, Duration),
) -> Table {
    let metrics = broker.metrics();
    let gauge = |name: &str| metrics.get(name).copied().unwrap_or(0.0);
    let count = |is: &dyn Fn(&Reader) -> bool| stalled.iter().filter(|reader| is(reader)).count();
    let mut table = Table::new("Stalled readers in a control group");
    table.row("version of control groups", group.version());
    table.row("readers that stalled, of whom half read on", 2 * stalled.len());
    table.row("published", mib(publisher.taken.iter().sum::<u64>() * TEXT_BYTES as u64));
    table.row("publishes refused", publisher.refused);
    table.row("time for that", format!("{:.1} s", flood.as_secs_f64()));
    table.row("peak of the group", mib(peak));
    table.row("memory of sockets, at most", mib(sockets));
    table.row("killed for want of memory", group.kills());
    table.row("of those, told a gap", count(&|reader| reader.gaps > 0));
    for (name, end) in
        [("with 4408", End::Slow), ("with 4429", End::Shed), ("too late for a word", End::Cut)]
    {
        let name = format!("of those, closed {name}");
        table.row(name, count(&|reader| reader.end == Some(end)));
    }
    for reason in ["slowConsumer", "shed"] {
        let series = format!("fanfare_closes_total{{reason=\"{reason}\"}}");
        table.row(&series, gauge(&series));
    }
    table.row("fanfare_gaps_total", gauge("fanfare_gaps_total"));
    table.row("fanfare_dropped_total", gauge("fanfare_dropped_total"));
    table
}
