//! Instructions per operation, counted by valgrind: the same on a busy machine as on a quiet one,
//! so small effects show that time hides.
//!
//! `cargo bench --bench instructions` runs each case twice in itself, under callgrind, with
//! different numbers of rounds; the difference leaves the setting up out.

#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up should end")]
#![allow(clippy::print_stdout, reason = "the figures are its output")]

mod rig;

use fanfare::dialect::Dialect;
use fanfare::topics::message::Wire;
use rig::Rig;
use std::hint::black_box;
use std::process::Command;

/// A case: its name, what one operation is, operations per round, and what runs some rounds.
type Case = (&'static str, &'static str, u64, fn(u64));

const CASES: [Case; 7] = [
    ("fan-out-json", "delivery", 64_000, |rounds| fan_out(Wire::WebSocketJson, rounds)),
    ("fan-out-batch", "delivery", 64_000, |rounds| fan_out(Wire::WebSocketJsonBatch, rounds)),
    ("ticker-json", "delivery", 20_000, |rounds| ticker(Wire::WebSocketJson, rounds)),
    ("ticker-batch", "delivery", 20_000, |rounds| ticker(Wire::WebSocketJsonBatch, rounds)),
    ("publish", "message to one subscriber", 1_000, |rounds| publish(0, rounds)),
    ("publish-100k", "message beside 100,000 filters", 1_000, |rounds| publish(100_000, rounds)),
    ("decode-json", "command", 1, decode),
];

fn fan_out(wire: Wire, rounds: u64) {
    let mut rig = Rig::new(1, 1_000, 1, wire);
    for _ in 0..rounds {
        rig.commit(64);
        rig.deliver();
    }
}

fn ticker(wire: Wire, rounds: u64) {
    let mut rig = Rig::new(1_000, 2_000, 10, wire);
    for _ in 0..rounds {
        rig.commit(1_000);
        rig.deliver();
    }
}

fn publish(filters: usize, rounds: u64) {
    let mut rig = Rig::new(1_000, 1, 1_000, Wire::TcpProto).with_filters(filters);
    for _ in 0..rounds {
        rig.commit(1_000);
        rig.deliver();
    }
}

fn decode(rounds: u64) {
    let text = "x".repeat(128);
    let json = format!(r#"{{"id":7,"publish":{{"topic":"bench.0","text":"{text}"}}}}"#);
    for _ in 0..rounds {
        drop(black_box(Dialect::Json.decode(black_box(json.as_bytes()))));
    }
}

/// Instructions that a case takes with so many rounds.
fn count(name: &str, rounds: u64) -> u64 {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([name, &rounds.to_string()])
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split("Collected :").nth(1));
    collected.and_then(|count| count.trim().parse().ok()).expect("callgrind counts")
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [name, rounds] = args.as_slice()
        && let Some((.., run)) = CASES.iter().find(|(known, ..)| known == name)
    {
        return run(rounds.parse().expect("a number of rounds"));
    }
    for (name, operation, operations, _) in CASES {
        let few = 5 + 200 / operations;
        let rounds = 3 * few;
        let counted = count(name, rounds) - count(name, few);
        let each = counted / ((rounds - few) * operations);
        println!("{name:<14} {each:>7} instructions per {operation}");
    }
}
