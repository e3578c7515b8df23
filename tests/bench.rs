//! `fanfare bench` from outside: real brokers, real sockets, and counts that must agree.
//! # Invariants: no figure that depends on time is looked at; every wait ends at a deadline; every
//! process that was started is ended, also when a test fails.
//! # Not here: what the figures of a machine are (`docs/benchmarks.md`).
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect, and says where"
)]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// Longer than anything here takes on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_mins(2);

/// Most lines that a process may be ahead of its test.
const LINES_MAX: usize = 10_000;

/// A process that ends with its test.
struct Process {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

/// What a command leaves behind.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Process {
    fn start(arguments: &[&str]) -> Process {
        Process::start_with(arguments, &[])
    }

    fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(arguments)
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("the binary starts");
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        Process { child, stdout, stderr }
    }

    /// Waits for a line of standard error with these words, and returns what follows them.
    fn hears(&self, words: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(DEADLINE).expect(words);
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
    }

    fn finish(mut self) -> Outcome {
        let (stdout, stderr) = (drain(&self.stdout), drain(&self.stderr));
        let code = self.child.wait().expect("a child").code();
        Outcome { code, stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// All lines up to the end of the output.
fn drain(lines: &Receiver<String>) -> String {
    let mut all = String::new();
    loop {
        match lines.recv_timeout(DEADLINE) {
            Ok(line) => all = all + &line + "\n",
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return all,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("no end after {all}"),
        }
    }
}

fn bench(line: &str) -> Outcome {
    let words: Vec<&str> = line.split_whitespace().collect();
    // Nothing that is set outside reaches the broker that is measured: this would stop it.
    let variables = [("FANFARE__SHARDS", "many")];
    Process::start_with(&[&["bench"], &words[..]].concat(), &variables).finish()
}

/// The JSON of a bench that did what it was asked.
fn figures(line: &str) -> Value {
    let outcome = bench(&format!("{line} --json"));
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{line}");
    serde_json::from_str(&outcome.stdout).expect("one JSON object")
}

fn complaint(line: &str) -> String {
    let outcome = bench(line);
    assert_ne!(outcome.code, Some(0), "{line}: {}", outcome.stdout);
    outcome.stderr
}

fn number(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("{name} in {figures}"))
}

fn rounds<'a>(figures: &'a Value, side: &str) -> &'a [Value] {
    figures.pointer(&format!("/rounds/{side}")).and_then(Value::as_array).expect("rounds")
}

/// Everything published came to everybody once: on both sides, in every round.
fn check_deliveries(figures: &Value, readers: u64, sides: &[&str]) {
    for side in sides {
        let rounds = rounds(figures, side);
        assert_eq!(rounds.len(), 2, "{side}");
        for round in rounds {
            let published = number(round, "published");
            assert!(published > 0, "{side}: {round}");
            assert_eq!(number(round, "expected"), published * readers, "{side}: {round}");
            assert_eq!(number(round, "delivered"), published * readers, "{side}: {round}");
            for fault in ["lost", "repeated", "disordered", "unreadable", "gaps"] {
                assert_eq!(number(round, fault), 0, "{side}: {round}");
            }
        }
    }
}

const SHORT: &str = "--rounds 2 --duration 200ms --warmup 100ms";
const BOTH: [&str; 2] = ["broker", "limit"];

#[test]
fn what_is_published_comes_to_every_subscriber_of_broker_and_limit() {
    let cases = [
        ("--rate max --window 16", 205),
        ("--rate 200 --payload 60", 135),
        ("--rate 200 --protocol proto", 157),
        ("--rate max --protocol proto --batch", 0),
        ("--rate 200 --batch --no-pin --shards 2", 0),
    ];
    for (options, bytes) in cases {
        let figures = figures(&format!("fanout --subscribers 7 {options} {SHORT}"));
        check_deliveries(&figures, 7, &BOTH);
        assert_eq!(figures["scenario"], "fanout");
        assert_eq!(figures["options"]["subscribers"], 7);
        let [broker, limit] = BOTH
            .map(|side| figures["rounds"][side][0]["bytes_per_delivery"].as_f64().expect("bytes"));
        // Numbers grow by digits while a run lasts.
        assert!((broker - limit).abs() < 4.0, "{options}: {broker} and {limit}");
        assert!(bytes == 0 || (broker - f64::from(bytes)).abs() < 8.0, "{options}: {broker}");
    }
}

#[test]
fn messages_go_round_the_topics_of_a_ticker() {
    // Every topic has 18 * 3 / 9 readers.
    let line = "ticker --subscribers 18 --topics 9 --per-subscriber 3 --window 50";
    check_deliveries(&figures(&format!("{line} {SHORT}")), 6, &BOTH);
}

#[test]
fn who_reads_gets_everything_beside_those_who_stall() {
    let line = "slow --subscribers 8 --fraction 0.25 --rate 100";
    let figures = figures(&format!("{line} {SHORT}"));
    check_deliveries(&figures, 6, &["broker"]);
    assert_eq!(figures["limit"], Value::Null);
    assert!(figures["broker"]["p99_ratio"].is_number(), "{figures}");
}

#[test]
fn connections_are_counted() {
    let figures = figures("idle --subscribers 40 --rounds 2 --duration 100ms");
    for side in BOTH {
        assert_eq!(number(&figures[side], "connections"), 40);
        if cfg!(target_os = "linux") {
            assert!(figures[side]["rss_bytes_per_connection"].is_number(), "{figures}");
        }
    }
}

#[test]
fn lives_are_led_to_the_end() {
    let line = "churn --connections 3 --protocol proto";
    let figures = figures(&format!("{line} {SHORT}"));
    for round in BOTH.iter().flat_map(|side| rounds(&figures, side)) {
        assert!(number(round, "lives") > 0, "{round}");
        assert_eq!(number(round, "unanswered_closes"), 0, "{round}");
    }
}

#[test]
fn publishes_are_answered_in_order() {
    let figures = figures(&format!("publish --topics 3 --window 20 {SHORT}"));
    assert_eq!(figures["limit"], Value::Null);
    for round in rounds(&figures, "broker") {
        assert!(number(round, "published") > 0, "{round}");
        assert_eq!((number(round, "refused"), number(round, "disordered")), (0, 0), "{round}");
    }
}

#[test]
fn a_round_trip_ends_where_it_should() {
    for options in ["", "--protocol proto --batch"] {
        let figures = figures(&format!("roundtrip {options} {SHORT}"));
        for side in BOTH {
            assert!(number(&figures[side], "round_trips") > 0, "{figures}");
        }
        // The echo's messages have the length of the first round's.
        let bytes = |side: &str| {
            let bytes = figures["rounds"][side][0]["bytes_per_delivery"].as_f64();
            bytes.expect("bytes").round()
        };
        assert!((bytes("broker") - bytes("limit")).abs() < 1.0, "{figures}");
    }
}

#[test]
fn a_running_broker_is_measured_where_it_is() {
    let any = "127.0.0.1:0";
    let broker = ["serve", "--shards", "1", "--listen", any, "--ingress", any, "--admin", "off"];
    let broker = Process::start(&[&broker[..], &["--log-format", "text"]].concat());
    let public = broker.hears("listening for WebSocket and HTTP address=");
    let ingress = broker.hears("listening for TCP ingress address=");
    let at = format!("--address ws://{public}");
    let pid = broker.child.id();
    let found = figures(&format!("fanout {at} --pid {pid} --subscribers 3 --rate 100 {SHORT}"));
    check_deliveries(&found, 3, &BOTH);
    assert_eq!(found["options"]["address"], format!("ws://{public}/ws"));
    let found = figures(&format!("publish {at} --ingress {ingress} {SHORT}"));
    assert!(number(&found["broker"], "published") > 0);
    // Without the process nothing is said about it.
    assert_eq!(found["broker"]["cpu_us_per_publish"], Value::Null);
    assert_eq!(
        complaint(&format!("publish {at}")),
        "error: publish measures the TCP ingress, so --address needs --ingress HOST:PORT beside it\n"
    );
    let nowhere = complaint(&format!("fanout --address ws://{public}/nowhere --subscribers 1"));
    assert!(nowhere.contains("the WebSocket was refused: HTTP/1.1 404"), "{nowhere}");
}

#[test]
fn the_table_tells_broker_limit_and_ratio() {
    let outcome = bench(&format!("fanout --subscribers 2 --rate 100 {SHORT}"));
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""));
    let mut lines = outcome.stdout.lines();
    let title = lines.next().expect("a title");
    assert!(title.starts_with("fanout, medians of 2 rounds: "), "{title}");
    let head = lines.nth(1).expect("a head");
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["broker", "limit", "ratio"]);
    assert!(outcome.stdout.contains("\nlatency p99 "), "{}", outcome.stdout);
}

#[test]
fn a_broker_that_leaves_messages_out_is_not_believed() {
    // Who gets two messages a second of a topic misses the others.
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"topics.rules = [{ filter = 'bench.*', max_hz = 2 }]").expect("writable");
    let path = file.path().display();
    let line = format!("fanout --config {path} --subscribers 2 --rate 100 --no-limit --json");
    let outcome = bench(&format!("{line} {SHORT} --rounds 1").replace("--rounds 2", ""));
    assert_eq!(outcome.code, Some(1));
    let expected = "error: the figures are not to be believed: the broker: ";
    assert!(outcome.stderr.starts_with(expected), "{}", outcome.stderr);
    let figures: Value = serde_json::from_str(&outcome.stdout).expect("the figures all the same");
    assert!(number(&figures["broker"], "lost") > 0, "{figures}");
}

#[test]
fn what_cannot_be_measured_is_said_in_words() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = listener.local_addr().expect("an address");
    drop(listener);
    let cases = [
        ("", "Usage: fanfare bench <COMMAND>"),
        ("marathon", "unrecognized subcommand 'marathon'"),
        ("fanout --subscribers 0", "0 is not in 1..="),
        ("fanout --rate 0", "it is max, or messages a second from 0.1 to 1000000"),
        ("fanout --payload 33", "it is from 34 to 60000 bytes"),
        ("fanout --duration soon", "it is a time such as 500ms, 3s or 1m"),
        ("fanout --protocol xml", "it is json or proto"),
        ("fanout --pid 1", "--address <URL>"),
        ("fanout --address tcp://h:1", "it begins with ws:// or wss://"),
        ("publish --address ws://h:1 --ingress https://h:1", "perhaps behind tcp:// or tls://"),
        ("fanout --address ws://h:1 --shards 2", "cannot be used with"),
        ("slow --fraction 1", "it is between 0 and 1"),
        ("limit --engine magic", "it is write, coalesce or echo"),
        ("idle --subscribers 1000000", "raise the limit with `ulimit -n"),
        ("fanout --config /nowhere/fanfare.toml", "error: the broker did not start: "),
        (&format!("fanout --address ws://{nobody}"), "error: no broker at 127.0.0.1:"),
        (&format!("fanout --address ws://{nobody} --pid 4294967295"), "--pid 4294967295: there is"),
    ];
    for (line, expected) in cases {
        let words = complaint(line);
        assert!(words.contains(expected), "{line}: {words}");
    }
}

#[test]
fn the_limit_runs_on_its_own() {
    let limit = Process::start(&["bench", "limit", "--address", "127.0.0.1:0"]);
    let address = limit.hears("the limit listens on ");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let request = "GET /?topics=0 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    // An unmasked frame is as good to it: a tag, 16 digits of time, a topic, a number.
    let body = format!("@F{}{}{}", "0".repeat(16), "0".repeat(8), "00000001");
    let frame = [&[0x82, 34], body.as_bytes()].concat();
    stream.write_all(&frame).expect("sent");
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream);
    while !answer.ends_with(&frame) {
        let mut byte = [0];
        reader.read_exact(&mut byte).expect("an answer");
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
}
