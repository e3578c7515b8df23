//! The simulator: a broker with its shards, sessions and clients in one thread, without a clock,
//! where one seed decides everything; and the checker that judges what the clients saw.
//! `just sim` runs the fixed seeds, `just sim SEED` tells one seed step by step.
//! # Invariants: a run that fails once fails again with its seed.
//! # Not here: sockets and threads (`tests/it`).
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect, and says what it saw"
)]

mod broker;
mod checker;
mod client;
mod history;
#[cfg(feature = "planted-bugs")]
mod planted;
mod random;
mod scenario;
mod socket;
mod spelling;
mod tally;
mod tampering;
mod world;

use checker::{Judge, Violation, check, excerpt};
use history::{Fact, Record, to_lines};
use std::fmt::Write as _;
use tally::Tally;
use world::{Trace, run};

/// Seeds of a plain run.
const SEEDS: u64 = 600;

/// What must have happened in a plain run, or it proved little.
const SEEN: [&str; 43] = [
    "close 1000",
    "close 1001",
    "close 4408",
    "close 4410",
    "close 4429",
    "connected: batch",
    "crash",
    "cut",
    "delete",
    "error: alreadySubscribed",
    "error: epochChanged",
    "error: expired",
    "error: goingAway",
    "error: idempotencyMismatch",
    "error: notSubscribed",
    "error: overloaded",
    "error: notAllowed",
    "error: slowConsumer",
    "error: snapshotTooLarge",
    "error: tooLarge",
    "error: tooManyFilters",
    "error: tooManyKeys",
    "error: tooManySubscriptions",
    "error: tooManyTopics",
    "fresh",
    "gap: expired",
    "gap: slow",
    "gap: trimmed",
    "joined",
    "left",
    "not recovered: epochChanged",
    "not recovered: expired",
    "not recovered: notAllowed",
    "not recovered: tooMany",
    "not recovered: trimmed",
    "position",
    "presence state",
    "recovered",
    "stale",
    "subscribed: latest",
    "subscribed: maxHz",
    "turned away",
    "updated",
];

/// What is shown of a record in a report; the written history has all of it.
const LINE_CHARACTERS_MAX: usize = 300;

/// A number from the environment; an empty value is none.
fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

/// What a person needs to know about a violation.
fn report(seed: u64, history: &[Record], violation: &Violation) -> String {
    let mut report = format!("seed {seed}: {violation}\nreplay it with: just sim {seed}\n");
    for (index, record) in excerpt(history, violation) {
        let line = serde_json::to_string(record).expect("plain data");
        let line: String = line.chars().take(LINE_CHARACTERS_MAX).collect();
        writeln!(report, "{index:>6} {line}").expect("a string takes everything");
    }
    report
}

/// Writes the history to where a person finds it.
fn write_down(seed: u64, history: &[Record]) {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("..");
    let path = folder.join(format!("sim-{seed}.jsonl"));
    std::fs::write(&path, to_lines(history)).expect("the target folder can be written to");
    println!("history: {}", path.display());
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = number("FANFARE_SIM_SEED") {
        let history = run(seed, Trace::Told);
        write_down(seed, &history);
        if let Err(violation) = check(&history) {
            panic!("{}", report(seed, &history, &violation));
        }
        return;
    }
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    let seeds = number("FANFARE_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        let history = run(seed, Trace::Silent);
        tally.add(&history);
        if let Err(violation) = check(&history) {
            failures.push((violation.record, seed, violation));
        }
    }
    println!("{tally}");
    failures.sort_by_key(|(record, seed, _)| (*record, *seed));
    if let Some((_, seed, violation)) = failures.first() {
        let others: Vec<String> = failures
            .iter()
            .map(|(_, seed, violation)| format!("{seed} ({:?})", violation.invariant))
            .collect();
        let report = report(*seed, &run(*seed, Trace::Silent), violation);
        panic!("{report}all that failed: {}", others.join(", "));
    }
    let unseen: Vec<&str> = SEEN.into_iter().filter(|name| tally.of(name) == 0).collect();
    assert!(unseen.is_empty() || seeds < SEEDS, "{seeds} seeds saw nothing of {unseen:?}");
}

#[test]
fn a_judge_that_forgets_what_is_over_finds_no_fault_where_there_is_none() {
    // Longer than anything is kept, and so long that most runs have something older.
    const KEPT_MS: u64 = 131_000;
    let mut forgotten = 0;
    for seed in 0..60 {
        let mut judge = Judge::default();
        for record in &run(seed, Trace::Silent) {
            let judged = judge.hear(record).and_then(|()| match &record.fact {
                Fact::Quiet { tops, .. } => {
                    let before = judge.size();
                    judge.settle(tops, record.at.saturating_sub(KEPT_MS))?;
                    forgotten += before.saturating_sub(judge.size());
                    Ok(())
                }
                _ => Ok(()),
            });
            judged.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        }
    }
    assert!(forgotten > 5_000, "only {forgotten} things were forgotten");
}

#[test]
fn a_seed_always_makes_the_same_history() {
    for seed in 0..40 {
        let (once, again) = (run(seed, Trace::Silent), run(seed, Trace::Silent));
        let differs = once.iter().zip(&again).position(|(one, other)| one != other);
        assert_eq!((differs, once.len()), (None, again.len()), "seed {seed}");
    }
}
