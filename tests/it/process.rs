//! The broker as a process: killed, stopped, refused.
//! # Not here: what else the command line does (`tests/cli.rs`).

use crate::client::{Client, WIRES};
use crate::harness::{Broker, run, within};
use crate::http::{self, Answer};
use crate::pipe::Pipe;
use crate::socket::request;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fanfare::auth::{Algorithm, Hash, Signer, sign};
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
            // What is counted is seen at once.
            .env("FANFARE__ADMIN__METRICS_AGE", "0s")
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
        Process::serve_with(public, ingress, &[])
    }

    /// The same, with more arguments.
    pub(crate) fn serve_with(public: &str, ingress: &str, more: &[&str]) -> (Process, Broker) {
        let process = Process::begin(public, ingress, more);
        let broker = process.broker();
        (process, broker)
    }

    /// Starts a broker that has yet to say where it listens.
    pub(crate) fn begin(public: &str, ingress: &str, more: &[&str]) -> Process {
        let arguments = [
            ["serve", "--listen", public],
            ["--ingress", ingress, "--shards=2"],
            ["--admin", "127.0.0.1:0", "--log-format=json"],
        ];
        Process::start(&[&arguments.concat(), more].concat())
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

    /// Starts a broker with the settings in this file.
    pub(crate) fn serve_settings(settings: &Path) -> (Process, Broker) {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--log-format=json", "--config"]).arg(settings);
        let process = Process::spawn(command);
        let broker = process.broker();
        (process, broker)
    }

    /// Where a broker that is starting listens.
    pub(crate) fn broker(&self) -> Broker {
        let [public, ingress, admin] = ["WebSocket and HTTP", "TCP ingress", "metrics and health"]
            .map(|purpose| self.address(&format!("listening for {purpose}")));
        Broker::elsewhere(public, ingress, admin)
    }

    /// The address in the log line with this message.
    fn address(&self, message: &str) -> SocketAddr {
        let line = self.line(message);
        line["address"].as_str().expect("an address").parse().expect("an address")
    }

    /// The log line with this message.
    pub(crate) fn line(&self, message: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).expect(message);
            let line: Value = serde_json::from_str(&line).expect("a log line is JSON");
            if line["message"] == message {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Waits for the end. Returns the exit code, if it was not a signal.
    pub(crate) async fn code(&mut self) -> Option<i32> {
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
        assert_eq!(silent.farewell().await, Some(1001));
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

/// Shows a token in every place where one may come, and where one may not.
async fn show_everywhere(broker: &Broker, token: &str) {
    let encoded = BASE64_URL_SAFE_NO_PAD.encode(token);
    let headers = [
        format!("authorization: Bearer {token}\r\n"),
        format!("sec-websocket-protocol: fanfare.v1.json, fanfare.token.{encoded}\r\n"),
        format!("sec-websocket-protocol: fanfare.token.{token}\r\n"),
    ];
    for headers in headers {
        let mut pipe = Pipe::connect(broker.public()).await;
        pipe.send(request(broker.public(), &headers).as_bytes()).await;
        Answer::read(&mut pipe).await;
    }
    let url = request(broker.public(), "").replacen("/ws", &format!("/ws?token={token}"), 1);
    http::ask(broker.public(), &url).await;
    let publish = http::publish_request(broker.public(), r#"{"topic":"a","data":1}"#);
    let header = format!("authorization: Bearer {token}\r\nhost: ");
    http::ask(broker.public(), &publish.replacen("host: ", &header, 1)).await;
    for wire in [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto] {
        for commands in [["connect", "refresh"], ["refresh", "connect"]] {
            let mut client = Client::connect(broker, wire).await;
            for command in commands {
                client.say(&json!({"id": 1, command: {"token": token}})).await;
                if client.try_hear().await.is_none() {
                    break;
                }
            }
        }
    }
    let mut client = Client::connect(broker, Wire::WebSocketJson).await;
    client.say_text(&format!(r#"{{"id":1,"connect":"{token}"}}"#)).await;
    client.try_hear().await;
}

#[test]
fn no_token_and_no_secret_shows_in_a_log_or_on_the_metrics_page() {
    const SECRET: &str = "canary-secret-of-the-key-0123456789abcdef";
    const KNOWN: &str = "canary-known-token-0123456789abcdef";
    const UNKNOWN: &str = "canary-unknown-token-0123456789abcdef";
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, secret) = (folder.path().join("fanfare.toml"), folder.path().join("secret"));
        std::fs::write(&secret, SECRET).expect("a file");
        let text = format!(
            "[auth]\naudience = 'x'\n[[auth.keys]]\nalgorithm = 'HS256'\nfile = '{}'\n\
             [[auth.tokens]]\nname = 'svc'\nsha256 = '{}'\npublish = ['>']\n",
            secret.display(),
            Hash::of(KNOWN)
        );
        std::fs::write(&file, text).expect("a file");
        let file = file.to_string_lossy().into_owned();
        let more = ["--config", &file, "--log-level=trace"];
        let (mut process, broker) = Process::serve_with("127.0.0.1:0", "127.0.0.1:0", &more);
        let signer = Signer::of_file(Algorithm::Hs256, SECRET.as_bytes()).expect("a secret");
        let claims =
            |exp: u64| json!({"sub": "canary-sub", "aud": "x", "exp": exp, "jti": "canary-jti"});
        let valid = sign(&signer, None, &claims(9_000_000_000)).expect("signed");
        let expired = sign(&signer, None, &claims(1)).expect("signed");
        let cut = format!("{valid}x");
        let shown = [KNOWN, UNKNOWN, &valid, &expired, &cut];
        for token in shown {
            show_everywhere(&broker, token).await;
        }
        let taken = broker.count("fanfare_tokens_total").await;
        assert!(taken > 10, "only {taken} tokens were taken");
        let metrics = http::get(broker.admin(), "/metrics").await.text();
        process.signal(Signal::TERM);
        process.code().await;
        let log = process.rest();
        assert!(log.contains("stopping"), "{log}");
        let whole = format!("{metrics}{log}");
        let encoded = shown.map(|token| BASE64_URL_SAFE_NO_PAD.encode(token));
        let parts = [&valid, &expired].map(|token| token.rsplit_once('.').expect("parts").1);
        let canaries = shown.into_iter().chain(encoded.iter().map(String::as_str)).chain(parts);
        for canary in canaries.chain([SECRET, "canary"]) {
            assert!(!whole.contains(canary), "{canary} shows");
        }
    });
}

#[test]
fn nobody_writes_a_line_of_the_log_but_the_broker() {
    run(async {
        let level = ["--log-level=trace"];
        let (mut process, broker) = Process::serve_with("127.0.0.1:0", "127.0.0.1:0", &level);
        let forged = "\u{1b}[2J\u{7}\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u{85}\u{202e}";
        for head in ["GET /forged\u{1b}[2J HTTP/1.1", "GET /%1b%0aforged?a=%0d%0a HTTP/1.1"] {
            let mut pipe = Pipe::connect(broker.public()).await;
            let name = "x-forwarded-for: \u{1b}forged\r\norigin: http://forged\u{1b}";
            pipe.try_send(format!("{head}\r\nhost: forged\u{1b}\r\n{name}\r\n\r\n").as_bytes())
                .await;
            pipe.rest().await;
        }
        for wire in WIRES {
            let mut client = Client::connect(&broker, wire).await;
            client.ask(&json!({"id": 1, "connect": {"token": forged}})).await;
            client.ask(&json!({"id": 2, "subscribe": {"topic": forged}})).await;
            let publish = json!({"topic": "forged", "key": forged, "data": {forged: forged}});
            client.ask(&json!({"id": 3, "publish": publish})).await;
        }
        process.signal(Signal::TERM);
        process.code().await;
        let log = process.rest();
        assert!(log.contains("an HTTP connection broke"), "the log has what happened: {log}");
        assert!(!log.contains("forged"), "the log has what peers said: {log}");
        for line in log.lines() {
            serde_json::from_str::<Value>(line).expect(line);
            assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        }
    });
}
