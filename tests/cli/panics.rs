//! A broker with a bug that shows too often: it tells everybody to go, and whoever supervises it to
//! start it anew.
//! The bug is this file: it runs the command line in a process of its own and lets threads of that
//! process panic.

use super::{Process, lines};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

/// In the environment of a process that is to be such a broker.
const BROKEN: &str = "FANFARE_TEST_BROKEN";

/// Serves in this process, where a line on standard input is a bug that shows.
#[test]
fn a_broker_in_a_process_that_panics() {
    if std::env::var_os(BROKEN).is_none() {
        // Not asked for by the test below.
        return;
    }
    thread::spawn(|| {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            thread::spawn(move || panic!("{line}")).join().expect_err("a panic");
        }
    });
    let any = "127.0.0.1:0";
    let arguments = ["fanfare", "serve", "--listen", any, "--ingress", "off", "--admin", "off"];
    let arguments = arguments.into_iter().chain(["--log-format", "json"]).map(OsString::from);
    let status = fanfare::cli::run(arguments);
    let status = [70, 0].into_iter().find(|code| status == ExitCode::from(*code));
    std::process::exit(status.map_or(1, i32::from));
}

/// Runs such a broker. Returns its address.
fn broken() -> (Process, String) {
    let test = "panics::a_broker_in_a_process_that_panics";
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture"])
        .env(BROKEN, "1")
        .env("FANFARE__SHUTDOWN__SPREAD", "1s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test starts");
    let stdout = lines(child.stdout.take().expect("a pipe"));
    let stderr = lines(child.stderr.take().expect("a pipe"));
    let process = Process { child, stdout, stderr };
    let line = process.hears("{");
    let line: Value = serde_json::from_str(&line).expect("a JSON line");
    let said = |key| line.get(key).and_then(Value::as_str);
    assert_eq!(said("message"), Some("listening for WebSocket and HTTP"), "{line}");
    let address = said("address").expect("an address").to_owned();
    (process, address)
}

fn panic(process: &mut Process, times: usize) {
    let stdin = process.child.stdin.as_mut().expect("a pipe");
    for _ in 0..times {
        stdin.write_all(b"the bug\n").expect("read");
    }
    for _ in 0..times {
        process.hears("the bug");
    }
}

#[test]
fn a_broker_that_panics_more_than_three_times_a_minute_drains_and_says_so() {
    let (mut broker, address) = broken();
    let url = format!("ws://{address}/ws");
    let subscriber = Process::start(&["subscribe", "a.b", "--no-reconnect", "--url", &url], "");
    subscriber.hears("subscribed: a.b");
    panic(&mut broker, 3);
    // With three it goes on.
    let published = Process::start(&["publish", "--url", &url, "a.b", "1"], "").finish().ok();
    assert_eq!(published.len(), 1);
    panic(&mut broker, 1);
    let outcome = subscriber.finish();
    assert_eq!(outcome.stdout.len(), 1, "{:?}", outcome.stdout);
    let expected =
        "error: the server closed the connection: 1001 goingAway: the server is stopping";
    assert_eq!(outcome.failed(), expected);
    assert_eq!(broker.finish().code, Some(70));
}
