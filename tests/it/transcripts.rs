//! Plays `tests/transcripts/*.txt` and the examples of `docs/protocol.md` against real brokers: as
//! they stand over `fanfare.v1.json`, translated by the schema over `fanfare.v1.proto` and TCP, and
//! in batches.
//! Owns the notation, which `tests/transcripts/README.md` describes.
//! # Invariants: every line of a transcript is played or fails; when one ends, nothing more arrives.
//! # Not here: what the transcripts say.
#![allow(clippy::print_stdout, reason = "the last line printed tells where a transcript failed")]

use crate::client::{Client, Ending};
use crate::harness::{Broker, run};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[test]
fn every_transcript_holds_as_it_stands() {
    play_all(&[Wire::WebSocketJson]);
}

#[test]
fn every_transcript_holds_in_protobuf() {
    play_all(&[Wire::WebSocketProto]);
}

#[test]
fn every_transcript_holds_over_tcp() {
    play_all(&[Wire::TcpProto]);
}

#[test]
fn every_transcript_holds_in_batches_of_json() {
    play_all(&[Wire::WebSocketJsonBatch]);
}

#[test]
fn every_transcript_holds_in_batches_of_protobuf() {
    play_all(&[Wire::WebSocketProtoBatch]);
}

#[test]
fn every_transcript_holds_when_each_client_speaks_another_way() {
    play_all(&[
        Wire::WebSocketProto,
        Wire::WebSocketJson,
        Wire::TcpProto,
        Wire::WebSocketProtoBatch,
        Wire::WebSocketJsonBatch,
    ]);
}

#[test]
fn every_transcript_holds_when_messages_are_compressed() {
    play_all(&[Wire::WebSocketJsonDeflate, Wire::WebSocketProtoDeflate]);
}

#[test]
fn every_refusal_of_a_command_is_in_a_transcript() {
    // Brought about only by HTTP, by a thousand positions, by haste, or by being faster than a shard:
    // see `http_publish`, `limits`, `identity` and `haste`. Remote engines are yet to come.
    let elsewhere = [
        Reason::TooLarge,
        Reason::TooManyPositions,
        Reason::TooOften,
        Reason::SubscribesTooOften,
        Reason::TooManyNewTopics,
        Reason::TooManyDeliveries,
        Reason::Overloaded,
        Reason::EngineUnavailable,
    ];
    let mut missing: BTreeSet<&str> = Reason::ALL
        .iter()
        .filter(|reason| reason.code() < 400 && !elsewhere.contains(reason))
        .map(|reason| reason.name())
        .collect();
    // Time has to pass for it: `limits`.
    missing.remove(Reason::Expired.name());
    for transcript in all() {
        for step in &transcript.steps {
            if let Act::Hear(event) = &step.act {
                collect_reasons(event, &mut missing);
            }
        }
    }
    assert!(missing.is_empty(), "no transcript shows {missing:?}");
}

fn collect_reasons(event: &Value, missing: &mut BTreeSet<&str>) {
    match event {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let ("name" | "reason", Value::String(reason)) = (name.as_str(), value) {
                    missing.remove(reason.as_str());
                }
                collect_reasons(value, missing);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_reasons(value, missing)),
        _ => {}
    }
}

/// Plays all transcripts; the clients of each take turns with the wires.
fn play_all(wires: &[Wire]) {
    for transcript in all() {
        let is_json = wires.iter().all(|wire| wire.is_json());
        if transcript.notation == Notation::Json && !is_json {
            continue;
        }
        run(async {
            // Who does not offer it is served as ever.
            let settings = format!("websocket.compression = true\n{}", transcript.settings);
            let broker = Broker::start(&settings);
            let mut player = Player::new(&broker, wires);
            for step in &transcript.steps {
                println!("{}:{}", transcript.name, step.line);
                player.play(step).await;
            }
            println!("{}: after the last line", transcript.name);
            player.end().await;
            assert_eq!(broker.drain().await, 0, "connections were cut off");
        });
    }
}

// === Notation ===

/// One file.
struct Transcript {
    name: String,
    /// Lines of a configuration file.
    settings: String,
    notation: Notation,
    steps: Vec<Step>,
}

/// Whether a transcript can be said in protobuf.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notation {
    Any,
    Json,
}

struct Step {
    line: usize,
    client: char,
    act: Act,
}

enum Act {
    Say(String),
    Hear(Value),
    Close(Ending),
    Connect,
    Drop,
}

/// Every transcript, by name.
fn all() -> Vec<Transcript> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let paths = files.map(|file| file.expect("a file").path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    paths.sort();
    assert!(paths.len() > 10, "only {} transcripts", paths.len());
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("a text file");
        parse(name, &text)
    };
    paths.iter().map(read).chain(examples()).collect()
}

/// The examples of `docs/protocol.md`: each fenced block of them is a transcript.
fn examples() -> Vec<Transcript> {
    let page = include_str!("../../docs/protocol.md");
    let blocks: Vec<&str> = page.split("```transcript\n").skip(1).collect();
    assert!(blocks.len() > 5, "only {} examples", blocks.len());
    let read = |(index, block): (usize, &str)| {
        let (text, _) = block.split_once("```").expect("a block that ends");
        parse(format!("docs/protocol.md, example {}", index + 1), text)
    };
    blocks.into_iter().enumerate().map(read).collect()
}

fn parse(name: String, text: &str) -> Transcript {
    let mut transcript =
        Transcript { name, settings: String::new(), notation: Notation::Any, steps: Vec::new() };
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if let Some(setting) = line.strip_prefix("# set: ") {
            transcript.settings += setting;
            transcript.settings += "\n";
        } else if line == "# only: json" {
            transcript.notation = Notation::Json;
        } else if !(line.is_empty() || line.starts_with('#')) {
            let bad = || panic!("{}:{line_number}: {line}", transcript.name);
            let (client, act) = parse_line(line).unwrap_or_else(bad);
            transcript.steps.push(Step { line: line_number, client, act });
        }
    }
    assert!(!transcript.steps.is_empty(), "{} has no lines to play", transcript.name);
    transcript
}

fn parse_line(line: &str) -> Option<(char, Act)> {
    let client = line.chars().next().filter(char::is_ascii_uppercase)?;
    let (sign, rest) = line.get(1..)?.split_once(' ')?;
    let act = match (sign, rest) {
        (">", command) => Act::Say(command.to_owned()),
        ("<", event) => Act::Hear(serde_json::from_str(event).ok()?),
        ("!", close) => {
            let (code, name) = close.strip_prefix("close ")?.split_once(' ')?;
            Act::Close(Ending { code: code.parse().ok()?, name: name.to_owned() })
        }
        (":", "connect") => Act::Connect,
        (":", "drop") => Act::Drop,
        _ => return None,
    };
    Some((client, act))
}

// === Playing ===

/// The clients of a transcript and what its names stand for.
struct Player<'a> {
    broker: &'a Broker,
    wires: &'a [Wire],
    clients: BTreeMap<char, Client>,
    names: Names,
}

/// What the names of a transcript stand for.
#[derive(Default)]
pub(crate) struct Names(BTreeMap<String, Value>);

impl Player<'_> {
    fn new<'a>(broker: &'a Broker, wires: &'a [Wire]) -> Player<'a> {
        Player { broker, wires, clients: BTreeMap::new(), names: Names::default() }
    }

    async fn play(&mut self, step: &Step) {
        let name = step.client;
        match &step.act {
            Act::Connect => {
                assert!(!self.clients.contains_key(&name), "{name} is connected already");
                self.connect(name).await;
            }
            Act::Drop => drop(self.clients.remove(&name).expect("a client to drop")),
            Act::Say(command) => {
                let command = self.names.fill_in(command);
                self.client(name).await.say_text(&command).await;
            }
            Act::Hear(expected) => {
                let event = self.client(name).await.hear().await;
                let expected = &self.answer(name, expected);
                let matches = self.names.matches(expected, &event);
                assert!(matches, "{name} expected {expected}\n     but got {event}");
            }
            Act::Close(expected) => {
                let client = self.clients.remove(&name).expect("a client that is closed");
                assert_eq!(client.ending().await, *expected);
            }
        }
    }

    /// Nothing may be left to hear: the answer to a ping comes next.
    async fn end(&mut self) {
        for client in self.clients.values_mut() {
            let reply = client.ask(&json!({"id": 1_000_000, "ping": {}})).await;
            assert_eq!(reply, json!({"id": 1_000_000, "pong": {}}));
        }
        self.clients.clear();
    }

    /// A client, which connects when it is first named.
    async fn client(&mut self, name: char) -> &mut Client {
        if !self.clients.contains_key(&name) {
            self.connect(name).await;
        }
        self.clients.get_mut(&name).expect("it is connected")
    }

    async fn connect(&mut self, name: char) {
        self.clients.insert(name, Client::connect(self.broker, self.wire(name)).await);
    }

    fn wire(&self, name: char) -> Wire {
        self.wires[(name as usize - 'A' as usize) % self.wires.len()]
    }

    /// What a client expects, on its wire: on TCP there are no batches, and who has asked for them
    /// before has them whenever it says hello.
    fn answer(&self, name: char, expected: &Value) -> Value {
        let mut expected = expected.clone();
        if let Some(Value::Object(connected)) = expected.get_mut("connected") {
            match self.wire(name) {
                Wire::TcpProto => drop(connected.remove("batch")),
                wire if wire.is_batched() => drop(connected.insert("batch".into(), true.into())),
                _ => {}
            }
        }
        expected
    }
}

impl Names {
    /// Puts what was heard into what is said.
    pub(crate) fn fill_in(&self, command: &str) -> String {
        self.0.iter().fold(command.to_owned(), |command, (name, value)| {
            command.replace(&format!("\"${name}\""), &value.to_string())
        })
    }

    /// Puts what was heard into text: its strings without quotes.
    pub(crate) fn spell(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.replace(&format!("${name}"), &value)
        })
    }

    /// Whether an event is exactly as expected, where a name stands for one value throughout.
    pub(crate) fn matches(&mut self, expected: &Value, got: &Value) -> bool {
        match (expected, got) {
            (Value::String(text), _) if text.starts_with('$') => match &text[1..] {
                "_" => true,
                name => self.0.entry(name.to_owned()).or_insert_with(|| got.clone()) == got,
            },
            (Value::Object(expected), Value::Object(got)) => {
                expected.len() == got.len()
                    && expected.iter().all(|(name, expected)| {
                        got.get(name).is_some_and(|got| self.matches(expected, got))
                    })
            }
            (Value::Array(expected), Value::Array(got)) => {
                expected.len() == got.len()
                    && expected.iter().zip(got).all(|(expected, got)| self.matches(expected, got))
            }
            _ => expected == got,
        }
    }
}
