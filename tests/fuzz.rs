//! Every input that the fuzzers have kept, once more, with the very functions that they call.
//! # Invariants: a target without inputs fails, and so does a folder without a target.
//! # Not here: new inputs (`./test.sh long`).
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test stops at what it did not expect, and what it printed last is shown"
)]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use targets::TARGETS;

/// What is below a folder, in order.
fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_input_of_the_corpus_keeps_every_promise() {
    for (name, target) in TARGETS {
        let inputs = list(&corpus().join(name));
        assert!(inputs.len() >= 10, "{name} has {} inputs", inputs.len());
        for path in inputs {
            println!("{}", path.display());
            target(&std::fs::read(path).expect("an input"));
        }
    }
}

#[test]
fn every_target_has_a_fuzzer_and_a_folder() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stems = |folder: PathBuf| -> BTreeSet<String> {
        let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
        list(&folder).into_iter().map(stem).collect()
    };
    assert_eq!(stems(corpus()), names);
    assert_eq!(stems(corpus().with_file_name("fuzz_targets")), names);
}
