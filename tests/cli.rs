//! The command line from outside: real processes, real sockets, and what a person would see.
//! Owns a running broker for each test.
//! # Invariants: ports are chosen by the system; every wait ends at a deadline; every process that
//! was started is ended, also when a test fails.
//! # Not here: the protocol itself, spelled out byte by byte.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test stops at what it did not expect, and its deadlines are real time"
)]

#[path = "cli/panics.rs"]
mod panics;
#[path = "cli/tokens.rs"]
mod tokens;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_mins(1);

/// Most lines that a process may be ahead of its test.
const LINES_MAX: usize = 100_000;

/// A process whose output can be waited for.
struct Process {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

/// What a process leaves behind.
struct Outcome {
    code: Option<i32>,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

impl Process {
    fn start(arguments: &[&str], input: &str) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(arguments)
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_owned();
        // A process that does not read its input leaves the pipe broken, which is its right.
        thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap_or_default());
        Process { child, stdout, stderr }
    }

    /// Waits for the line of standard error that begins so.
    fn hears(&self, beginning: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(DEADLINE).expect(beginning);
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    fn finish(mut self) -> Outcome {
        let (stdout, stderr) = (drain(&self.stdout), drain(&self.stderr));
        Outcome { code: self.status().code(), stdout, stderr }
    }

    fn status(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(began.elapsed() < DEADLINE, "the process has closed its output and stays");
            thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is what most do.
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
fn drain(lines: &Receiver<String>) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match lines.recv_timeout(DEADLINE) {
            Ok(line) => all.push(line),
            Err(RecvTimeoutError::Disconnected) => return all,
            Err(RecvTimeoutError::Timeout) => panic!("no end after {all:?}"),
        }
    }
}

/// A broker of one test.
struct Broker {
    process: Process,
    public: String,
    ingress: String,
}

impl Broker {
    fn start() -> Broker {
        Broker::start_with("")
    }

    /// Starts a broker with this configuration file.
    fn start_with(settings: &str) -> Broker {
        let any = "127.0.0.1:0";
        let arguments = ["serve", "--listen", any, "--ingress", any, "--admin", "off"];
        // It has been read when the broker listens.
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(settings.as_bytes()).expect("writable");
        let path = file.path().to_str().expect("UTF-8");
        let others = ["--log-format", "json", "--config", path];
        let process = Process::start(&[&arguments[..], &others].concat(), "");
        let address = |message: &str| loop {
            let line = process.stderr.recv_timeout(DEADLINE).expect(message);
            let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
            let text = |key| line.get(key).and_then(serde_json::Value::as_str);
            if text("message") == Some(message) {
                return text("address").expect("an address").to_owned();
            }
        };
        let public = address("listening for WebSocket and HTTP");
        let ingress = address("listening for TCP ingress");
        Broker { process, public, ingress }
    }

    fn ws(&self) -> String {
        format!("ws://{}/ws", self.public)
    }

    fn tcp(&self) -> String {
        format!("tcp://{}", self.ingress)
    }

    fn http(&self) -> String {
        format!("http://{}", self.public)
    }

    fn publish(&self, arguments: &[&str]) -> Outcome {
        let url = self.ws();
        run(&[&["publish", "--url", &url], arguments].concat())
    }

    fn subscribe(&self, arguments: &[&str]) -> Process {
        let url = self.ws();
        Process::start(&[&["subscribe", "--url", &url], arguments].concat(), "")
    }
}

fn run(arguments: &[&str]) -> Outcome {
    run_with(arguments, "")
}

fn run_with(arguments: &[&str], input: &str) -> Outcome {
    Process::start(arguments, input).finish()
}

impl Outcome {
    /// The output of a command that did what it was asked.
    fn ok(self) -> Vec<String> {
        assert_eq!(self.code, Some(0), "{:?}", self.stderr);
        self.stdout
    }

    /// The last complaint of a command that did not.
    fn failed(self) -> String {
        assert_eq!(self.code, Some(1), "{:?}", self.stderr);
        self.stderr.last().expect("a complaint").clone()
    }
}

/// The words after "offset" and "epoch" in an answer to a publish.
fn place(line: &str) -> (u64, &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let [_, "offset", offset, "epoch", epoch, "durability", "memory"] = words[..] else {
        panic!("{line}");
    };
    (offset.parse().expect("a number"), epoch)
}

fn parse(line: &str) -> serde_json::Value {
    serde_json::from_str(line).expect("a JSON line")
}

#[test]
fn what_is_published_by_any_transport_is_seen_alike_on_every_wire() {
    let broker = Broker::start();
    let (ws, tcp, http) = (broker.ws(), broker.tcp(), broker.http());
    let subscribers: Vec<Process> = [&[&*ws][..], &[&ws, "--proto"], &[&tcp]]
        .iter()
        .map(|url| {
            let arguments = ["subscribe", "a.b", "a.>", "--count", "4", "--url"];
            let process = Process::start(&[&arguments[..], url].concat(), "");
            process.hears("subscribed: a.b, live after");
            process.hears("subscribed: a.>");
            process
        })
        .collect();
    let published = [
        run(&["publish", "--url", &ws, "a.b", r#"{"x": 1.50}"#, "--key", "k"]),
        run(&["publish", "--url", &tcp, "a.b", "plain \u{8}\"text\""]),
        run(&["publish", "--url", &http, "a.b", "AP8K", "--base64"]),
        run_with(&["publish", "--url", &http, "a.b", "--json"], "{\n\"y\":\nnull\n}\n"),
    ];
    let published: Vec<String> = published.into_iter().flat_map(Outcome::ok).collect();
    let places: Vec<_> = published.iter().map(|line| place(line)).collect();
    assert_eq!(places.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(places.iter().all(|(_, epoch)| *epoch == places[0].1), "{places:?}");

    let seen: Vec<Vec<String>> =
        subscribers.into_iter().map(|process| process.finish().ok()).collect();
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    let expected = [
        r#","key":"k","data":{"x": 1.50}}"#,
        r#","text":"plain \u0008\"text\""}"#,
        r#","base64":"AP8K"}"#,
        "null",
    ];
    assert_eq!(seen[0].len(), expected.len());
    for ((line, offset), expected) in seen[0].iter().zip(1..).zip(expected) {
        assert!(line.contains(expected), "{line}");
        let beginning = format!(r#"{{"topic":"a.b","offset":{offset},"time":"#);
        assert!(line.starts_with(&beginning), "{line}");
    }
    assert_eq!(parse(&seen[0][3])["data"], serde_json::json!({"y": null}));
}

#[test]
fn thousands_of_lines_are_published_in_order_on_every_transport() {
    let broker = Broker::start();
    for (url, count) in [(broker.ws(), 5_000), (broker.tcp(), 5_000), (broker.http(), 200)] {
        let input = (1..=count).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        let answers = run_with(&["publish", "--url", &url, "many", "--lines"], &input).ok();
        let offsets: Vec<u64> = answers.iter().map(|line| place(line).0).collect();
        let first = offsets[0];
        assert_eq!(offsets, (first..first + count).collect::<Vec<_>>(), "{url}");
        let last = broker.subscribe(&["many", "--last", "100", "--count", "100", "--raw"]);
        let expected: Vec<String> = (count - 99..=count).map(|n| n.to_string()).collect();
        assert_eq!(last.finish().ok(), expected, "{url}");
    }
}

#[test]
fn a_line_that_is_refused_is_named_and_the_others_are_published() {
    let broker = Broker::start();
    let large = "x".repeat(70_000);
    let input = format!("1\nnot json\n\"{}\"\n4", &large[..65_000]);
    let arguments = ["publish", "--url", &broker.ws(), "a.b", "--lines", "--json"];
    let outcome = run_with(&arguments, &input);
    assert_eq!(outcome.stdout.len(), 3);
    assert_eq!(outcome.stderr.len(), 2, "{:?}", outcome.stderr);
    assert!(outcome.stderr[0].starts_with("error: line 2: the payload is not valid: it is not"));
    assert_eq!(outcome.failed(), "error: 1 of 4 lines are not published");
    // Too large for the connection itself: the broker closes it, and says why.
    let complaint = run_with(&["publish", "--url", &broker.ws(), "a.b"], &large).failed();
    assert!(complaint.contains("1009") && complaint.contains("65536"), "{complaint}");
}

#[test]
fn a_subscription_resumes_exactly_after_the_position_it_is_given() {
    let broker = Broker::start();
    let answers: Vec<String> = ["one", "two", "three", "four"]
        .iter()
        .flat_map(|text| broker.publish(&["a.b", text]).ok())
        .collect();
    let (offset, epoch) = place(&answers[1]);
    let since = format!("{epoch}:{offset}");
    let tcp = broker.tcp();
    for wire in [&[][..], &["--proto"], &["--url", &tcp]] {
        // The address given last would be refused as a second one.
        let url = if wire.contains(&"--url") { vec![] } else { vec!["--url".into(), broker.ws()] };
        let url: Vec<&str> = url.iter().map(String::as_str).collect();
        let arguments = ["subscribe", "a.b", "--since", &since, "--raw", "--count", "2"];
        let process = Process::start(&[&arguments[..], wire, &url].concat(), "");
        let told = process.hears("resumed: a.b");
        assert_eq!(told, format!("resumed: a.b, live after {epoch}:4"));
        assert_eq!(process.finish().ok(), ["three", "four"]);
    }
    let other = "AAAAAAAAAAAAAAAAAAAAAA:1";
    let process = broker.subscribe(&["a.b", "--since", other, "--last", "1", "--count", "1"]);
    let told = process.hears("not resumed");
    let expected = "not resumed: a.b, epochChanged, messages are missing, live after";
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(parse(&process.finish().ok()[0])["offset"], 4);
}

#[test]
fn a_snapshot_has_the_latest_of_each_key_and_says_where_it_ends() {
    let broker = Broker::start();
    for (topic, text) in [("t.a", "1"), ("t.a", "2"), ("t.b", "3")] {
        broker.publish(&[topic, text, "--quiet"]).ok();
    }
    let process = broker.subscribe(&["t.*", "--snapshot", "--raw", "--count", "3"]);
    assert_eq!(process.hears("snapshot end"), "snapshot end: t.* (2 topics)");
    assert_eq!(broker.publish(&["t.a", "4", "--quiet"]).ok(), [""; 0]);
    let mut lines = process.finish().ok();
    assert_eq!(lines.pop().as_deref(), Some("4"));
    lines.sort();
    assert_eq!(lines, ["2", "3"]);
}

#[test]
fn a_policy_is_asked_for_on_every_wire_and_what_is_granted_is_told() {
    let broker = Broker::start_with("topics.rules = [{ filter = 'slow.*', max_hz = 2 }]");
    let (ws, tcp) = (broker.ws(), broker.tcp());
    let cases: [(&[&str], &str); 5] = [
        (&["a.>", "--policy", "latest"], "subscribed: a.>, latest"),
        (&["a.>", "--max-hz", "0.5"], "subscribed: a.>, maxHz 0.5"),
        (&["a.>", "--policy", "all", "--overflow", "catchUp"], "subscribed: a.>, catchUp"),
        (&["slow.*"], "subscribed: slow.*, maxHz 2"),
        (&["a.>"], "subscribed: a.>"),
    ];
    for (arguments, expected) in cases {
        for wire in [&["--url", &ws][..], &["--url", &ws, "--proto"], &["--url", &tcp]] {
            let process = Process::start(&[&["subscribe"], arguments, wire].concat(), "");
            assert_eq!(process.hears("subscribed"), expected);
        }
    }
}

#[test]
fn the_last_message_of_a_rate_always_comes() {
    let broker = Broker::start();
    let process = broker.subscribe(&["a.*", "--max-hz", "1000", "--raw"]);
    process.hears("subscribed");
    let input = (1..=500).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
    run_with(&["publish", "--url", &broker.ws(), "a.b", "--lines", "--quiet"], &input).ok();
    let mut seen = Vec::new();
    while seen.last() != Some(&500) {
        let line = process.stdout.recv_timeout(DEADLINE).expect("a line");
        seen.push(line.parse::<u64>().expect("a number"));
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen[0], 1);
}

#[test]
fn a_delete_is_published_and_printed_on_every_transport() {
    let rule = "topics.rules = [{ filter = 'row.*', snapshot = 'keys' }]";
    let broker = Broker::start_with(rule);
    let (ws, tcp, http) = (broker.ws(), broker.tcp(), broker.http());
    let row = |url: &str, arguments: &[&str]| {
        run(&[&["publish", "--url", url, "row.a", "--quiet"], arguments].concat()).ok();
    };
    row(&ws, &["kept", "--key", "k0"]);
    for (url, key) in [(&ws, "k1"), (&tcp, "k2"), (&http, "k3")] {
        row(url, &["x", "--key", key, "--ttl", "2h"]);
        row(url, &["--delete", "--key", key]);
    }
    let arguments = ["subscribe", "row.a", "--last", "1", "--count", "1", "--url"];
    let lines = [&[&*ws][..], &[&ws, "--proto"], &[&tcp]].map(|wire| {
        let lines = run(&[&arguments[..], wire].concat()).ok();
        assert!(lines[0].ends_with(r#","key":"k3","deleted":true}"#), "{lines:?}");
        lines
    });
    assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
    // Its payload alone is nothing, and keys that are gone are not in a snapshot.
    let process = broker.subscribe(&["row.a", "--last", "1", "--raw", "--count", "1"]);
    assert_eq!(process.hears("deleted"), "deleted: row.a k3");
    assert_eq!(process.finish().ok(), [""; 0]);
    let snapshot = broker.subscribe(&["row.a", "--snapshot", "--raw", "--count", "1"]);
    assert_eq!(snapshot.finish().ok(), ["kept"]);
}

#[test]
fn who_is_there_and_who_comes_and_goes_is_told() {
    let rule = "topics.rules = [{ filter = 'room.*', presence = true }]";
    let broker = Broker::start_with(rule);
    let alice = broker.subscribe(&["room.1", "--presence", "--name", "alice"]);
    let told = alice.hears("present");
    assert!(told.starts_with("present: room.1 1: ") && told.ends_with(" (alice)"), "{told}");
    let url = broker.tcp();
    let bob = ["subscribe", "--url", &url, "room.1", "--presence", "--name", "bob"];
    let bob = Process::start(&bob, "");
    let told = bob.hears("present");
    let both = told.contains(" (alice)") && told.contains(" (bob)");
    assert!(both && told.starts_with("present: room.1 2: "), "{told}");
    let joined = alice.hears("joined");
    assert!(joined.starts_with("joined: room.1 ") && joined.ends_with(" (bob)"), "{joined}");
    drop(bob);
    assert_eq!(alice.hears("left").replace("left", "joined"), joined);
    let complaint = broker.subscribe(&["elsewhere", "--presence"]).finish().failed();
    assert!(complaint.starts_with("error: notAllowed: "), "{complaint}");
}

#[test]
fn a_topic_that_is_silent_is_told_to_be_stale_and_then_fresh() {
    let rule = "topics.rules = [{ filter = 'sensor.*', stale_after = '1s' }]";
    let broker = Broker::start_with(rule);
    let process = broker.subscribe(&["sensor.a", "--raw", "--count", "1"]);
    assert_eq!(process.hears("stale"), "stale: sensor.a, without any message");
    broker.publish(&["sensor.a", "7", "--quiet"]).ok();
    process.hears("fresh: sensor.a");
    assert_eq!(process.finish().ok(), ["7"]);
}

#[test]
fn what_the_broker_refuses_ends_a_command_with_its_reason() {
    let broker = Broker::start();
    for url in [broker.ws(), broker.tcp(), broker.http()] {
        let key = "k".repeat(300);
        let complaint = run(&["publish", "--url", &url, "a.b", "x", "--key", &key]).failed();
        assert!(complaint.starts_with("error: badKey: the key is not valid"), "{complaint}");
    }
    let complaint = broker.subscribe(&["a.b", "a.b"]).finish().failed();
    let expected = "error: alreadySubscribed: this connection already has that subscription";
    assert_eq!(complaint, expected);
    let nowhere = format!("ws://{}/nowhere", broker.public);
    let complaint = run(&["subscribe", "--url", &nowhere, "a.b"]).failed();
    let expected = "error: the server refused the connection: notFound: there is nothing";
    assert!(complaint.starts_with(expected), "{complaint}");
}

#[test]
fn without_a_broker_the_complaint_says_how_to_get_one() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let expected = format!(
        "error: cannot connect to {address}: connection refused; is a broker running there? \
         try `fanfare demo`"
    );
    for scheme in ["ws", "tcp", "http"] {
        let url = format!("{scheme}://{address}");
        assert_eq!(run(&["publish", "--url", &url, "a.b", "x"]).failed(), expected);
    }
    let url = format!("ws://{address}");
    assert_eq!(run(&["subscribe", "--url", &url, "a.b"]).failed(), expected);
    // What is wrong with a payload is found before anybody is connected to.
    let complaint = run(&["publish", "--url", &url, "a.b", "x", "--json"]).failed();
    assert!(
        complaint.starts_with("error: the payload is not valid: it is not JSON"),
        "{complaint}"
    );
}

#[test]
fn a_configuration_is_checked_and_what_is_wrong_with_it_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fanfare.toml");
    let check = |text: &str, path: &Path| {
        std::fs::write(path, text).expect("writable");
        run(&["check", "--config", path.to_str().expect("UTF-8")])
    };
    let table = check("[limits]\nfilters_max = 9\n", &path).ok();
    let changed: Vec<_> = table.iter().filter(|line| line.ends_with("fanfare.toml")).collect();
    assert_eq!(changed.len(), 1);
    assert!(changed[0].starts_with("limits.filters_max "));
    let complaint = check("[limits]\nfilter_max = 9\n", &path).failed();
    let expected = "unknown key `limits.filter_max`, did you mean `limits.filters_max`?";
    assert!(complaint.ends_with(expected), "{complaint}");
    let complaint = run(&["serve", "--listen", "0.0.0.0:0"]).failed();
    assert!(complaint.contains("listen.public"), "{complaint}");
    assert_eq!(run(&["serve", "--port", "1"]).code, Some(2));
}

#[test]
fn a_topic_is_told_its_rule_and_what_follows_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fanfare.toml");
    let rule = "[[topics.rules]]\nfilter = 'ticker.*'\ngroup = 'prices'\nmax_hz = 0.5\n";
    std::fs::write(&path, rule).expect("writable");
    let file = path.to_str().expect("UTF-8");
    let topics = ["--topic", "ticker.IBM", "--topic", "chat.1"];
    let lines = run(&[&["check", "--config", file], &topics[..]].concat()).ok();
    assert_eq!(lines[0], "ticker.IBM: rule 1 of 1 (topics.rules[0]), ticker.*");
    let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = lines.iter().map(words).collect();
    for (key, value, origin) in [
        ("group", "prices", "this rule"),
        ("history.age", "5m", "from topics.history.age (default)"),
        ("policy", "maxHz", "follows from max_hz"),
        ("max_hz", "0.5", "this rule"),
        ("presence", "false", "default"),
    ] {
        let row = rows.iter().find(|row| row.first().is_some_and(|first| first == key));
        assert_eq!(row.expect(key).join(" "), format!("{key} {value} {origin}"));
    }
    let blank = lines.iter().position(String::is_empty).expect("a blank line between topics");
    assert_eq!(lines[blank + 1], "chat.1: no rule, so topics.history and defaults");
    let complaint = run(&["check", "--topic", "a.*"]);
    assert_eq!(complaint.code, Some(2));
    assert!(complaint.stderr[0].contains("a topic name has no wildcards"));
}

#[test]
fn a_broker_that_is_told_to_stop_tells_its_subscribers_and_ends_well() {
    let broker = Broker::start();
    let process = broker.subscribe(&["a.b", "--no-reconnect"]);
    let staying = broker.subscribe(&["a.b"]);
    process.hears("subscribed: a.b");
    staying.hears("subscribed: a.b");
    terminate(&broker.process.child);
    let complaint = process.finish().failed();
    let expected =
        "error: the server closed the connection: 1001 goingAway: the server is stopping";
    assert_eq!(complaint, expected);
    assert_eq!(broker.process.finish().code, Some(0));
    // Who was not told to end with it looks for the next one.
    let told = staying.hears("lost");
    assert!(told.starts_with("lost: the server closed the connection: 1001 goingAway"), "{told}");
    staying.hears("lost: cannot connect to");
}

#[test]
fn a_subscriber_finds_the_next_broker_and_says_what_is_missing() {
    let broker = Broker::start();
    let process = broker.subscribe(&["a.b", "--raw", "--count", "2"]);
    process.hears("subscribed: a.b");
    broker.publish(&["a.b", "1", "--quiet"]).ok();
    assert_eq!(process.stdout.recv_timeout(DEADLINE).as_deref(), Ok("1"));
    let (address, url) = (broker.public.clone(), broker.ws());
    drop(broker);
    process.hears("lost");
    let next = ["serve", "--listen", &address, "--ingress", "off", "--admin", "off"];
    let _next = Process::start(&next, "");
    process.hears("not resumed: a.b, epochChanged, messages are missing, live after");
    run(&["publish", "--url", &url, "a.b", "2", "--quiet"]).ok();
    assert_eq!(process.finish().ok(), ["2"]);
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_quietly() {
    let broker = Broker::start();
    broker.publish(&["a.b", "1", "--quiet"]).ok();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(["subscribe", "a.b", "--last", "1", "--url", &broker.ws()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // Nobody reads: the first message finds the pipe broken, or one of the next, because a process that
    // another test is just starting has our end of it for a moment.
    drop(child.stdout.take());
    let ended = (0..1_000).find_map(|_| {
        broker.publish(&["a.b", "2", "--quiet"]).ok();
        child.try_wait().expect("a child")
    });
    let stderr = drain(&lines(child.stderr.take().expect("a pipe")));
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{stderr:?}");
    assert_eq!(stderr.len(), 1, "{stderr:?}");
}

fn terminate(child: &Child) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a running child");
}
