//! The broker as a process: killed, stopped, refused.
//! # Not here: what else the command line does (`tests/cli.rs`).

use crate::client::{Client, WIRES};
use crate::harness::{Broker, run, within};
use fanfare::topics::message::Wire;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_fanfare");

/// How long a process may take to say something.
const DEADLINE: Duration = Duration::from_secs(30);

/// A process, which ends with its test.
pub(crate) struct Process {
    child: Child,
    /// What it writes to standard error; its log is there.
    lines: Receiver<String>,
}

impl Process {
    fn start(arguments: &[&str]) -> Process {
        let mut command = Command::new(BINARY);
        command.args(arguments);
        Process::spawn(command)
    }

    /// Starts what a command says.
    fn spawn(mut command: Command) -> Process {
        let mut child = command
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("a pipe");
        let (sender, lines) = sync_channel(1000);
        std::thread::spawn(move || read_lines(stderr, &sender));
        Process { child, lines }
    }

    /// Starts a broker and learns where it listens.
    fn serve(public: &str, ingress: &str) -> (Process, Broker) {
        let arguments = [
            ["serve", "--listen", public],
            ["--ingress", ingress, "--shards=2"],
            ["--admin", "127.0.0.1:0", "--log-format=json"],
        ];
        let process = Process::start(&arguments.concat());
        let broker = process.broker();
        (process, broker)
    }

    /// Starts a broker that may have so many files open, with these settings.
    pub(crate) fn serve_with_files(files: u32, settings: &Path) -> (Process, Broker) {
        let mut command = Command::new("sh");
        let script = "ulimit -n \"$0\" && exec \"$1\" serve --config \"$2\" --log-format json";
        command.args(["-c", script, &files.to_string(), BINARY]).arg(settings);
        let process = Process::spawn(command);
        let broker = process.broker();
        (process, broker)
    }

    /// Where a broker that is starting listens.
    fn broker(&self) -> Broker {
        let [public, ingress, admin] = ["WebSocket and HTTP", "TCP ingress", "metrics and health"]
            .map(|purpose| self.address(&format!("listening for {purpose}")));
        Broker::elsewhere(public, ingress, admin)
    }

    /// The address in the log line with this message.
    fn address(&self, message: &str) -> SocketAddr {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).expect(message);
            let line: Value = serde_json::from_str(&line).expect("a log line is JSON");
            if line["message"] == message {
                let address = line["address"].as_str().expect("an address");
                return address.parse().expect("an address");
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Waits for the end. Returns the exit code, if it was not a signal.
    async fn code(&mut self) -> Option<i32> {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("the process to end", ended).await
    }

    /// Everything that it still writes.
    fn rest(&self) -> String {
        self.lines.iter().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().expect("a child");
    }
}

fn read_lines(pipe: impl Read, sender: &std::sync::mpsc::SyncSender<String>) {
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        if sender.send(line).is_err() {
            return;
        }
    }
}

#[test]
fn a_broker_that_was_killed_never_claims_to_have_recovered() {
    run(async {
        let (mut process, broker) = Process::serve("127.0.0.1:0", "127.0.0.1:0");
        let mut client = Client::connect(&broker, Wire::WebSocketJson).await;
        let mut first = Value::Null;
        for _ in 0..5 {
            let reply = client.ask(&json!({"id": 1, "publish": {"topic": "a.b", "data": 1}})).await;
            first = reply["published"].clone();
        }
        client.ask(&json!({"id": 2, "subscribe": {"topic": "a.b"}})).await;
        process.child.kill().expect("it is there");
        assert_eq!(process.code().await, None, "it ended by itself");
        assert_eq!(client.try_hear().await, None);

        // On the same addresses, although old connections may linger there.
        let (public, ingress) = (broker.public().to_string(), broker.ingress().to_string());
        let (_process, broker) = Process::serve(&public, &ingress);
        for wire in WIRES {
            let mut client = Client::connect(&broker, wire).await;
            // Before the topic is there again, and once it has as many messages as it had.
            let since = json!({"epoch": first["epoch"], "offset": 5});
            let place = json!({"topic": "a.b", "epoch": first["epoch"], "offset": 5});
            let subscribe = json!({"topic": "a.*", "positions": [place]});
            let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
            let topic = &reply["subscribed"]["topics"][0];
            assert_eq!(topic["recovered"], false, "{reply}");
            assert_eq!(topic["reason"], "epochChanged", "{reply}");
            client.ask(&json!({"id": 2, "unsubscribe": {"topic": "a.*"}})).await;

            let subscribe = json!({"topic": "a.b", "since": since});
            let reply = client.ask(&json!({"id": 3, "subscribe": subscribe})).await;
            let subscribed = &reply["subscribed"];
            assert_eq!(subscribed["recovered"], false, "{subscribed}");
            assert_eq!(subscribed["reason"], "epochChanged", "{subscribed}");
            assert_ne!(subscribed["position"]["epoch"], first["epoch"], "{subscribed}");
            let reply = client.ask(&json!({"id": 4, "history": subscribe})).await;
            assert_eq!(reply["error"]["name"], "epochChanged", "{reply}");
            for _ in 0..5 {
                let publish = json!({"topic": "a.b", "data": 2});
                client.ask(&json!({"id": 5, "publish": publish})).await;
                client.hear().await;
            }
        }
    });
}

#[test]
fn a_broker_that_is_told_to_stop_ends_well() {
    run(async {
        for signal in [Signal::TERM, Signal::INT] {
            let (mut process, broker) = Process::serve("127.0.0.1:0", "127.0.0.1:0");
            let client = Client::connect(&broker, Wire::WebSocketProto).await;
            process.signal(signal);
            assert_eq!(client.ending().await.code, 1001);
            assert_eq!(process.code().await, Some(0));
        }
    });
}

#[test]
fn a_second_signal_ends_it_at_once_and_says_so() {
    run(async {
        let (mut process, broker) = Process::serve("127.0.0.1:0", "127.0.0.1:0");
        let mut silent = crate::socket::Socket::open(&broker, None).await;
        process.signal(Signal::TERM);
        assert_eq!(silent.frame().await.close().map(|(code, _)| code), Some(1001));
        process.signal(Signal::TERM);
        assert_eq!(process.code().await, Some(1));
        silent.pipe.end().await;
    });
}

#[test]
fn a_broker_that_cannot_start_says_why() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = listener.local_addr().expect("an address").to_string();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fanfare.toml");
        std::fs::write(&file, "[limits]\nmesage_bytes_max = 5\n").expect("a file");
        let file = file.to_string_lossy().into_owned();
        let cases = [
            (vec!["serve", "--listen", "0.0.0.0:0"], "without proving who they are"),
            (vec!["serve", "--listen", "nonsense"], "--listen"),
            (vec!["serve", "--config", "/nowhere/fanfare.toml"], "/nowhere/fanfare.toml"),
            (vec!["serve", "--config", &file], "did you mean `limits.message_bytes_max`?"),
            (vec!["serve", "--listen", &taken], "cannot listen on"),
        ];
        for (arguments, words) in cases {
            let mut process = Process::start(&arguments);
            let code = process.code().await;
            assert!(code.is_some_and(|code| code != 0), "{arguments:?} ended with {code:?}");
            let text = process.rest();
            assert!(text.contains(words), "{arguments:?}: {text}");
        }
        drop(listener);
    });
}
