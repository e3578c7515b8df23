//! The simulator finds bugs: each one that can be planted is caught within a bounded number of
//! seeds. Run with `--features planted-bugs`.
//! # Not here: the bugs themselves (`src/planted.rs`).

use crate::checker::{Violation, check};
use crate::world::{Trace, run};
use fanfare::planted::{Bug, plant};

/// Seeds in which a planted bug must show.
const SEEDS_MAX: u64 = 2500;

/// The first violation that a planted bug causes, with its seed.
fn caught(bug: Bug) -> Option<(u64, Violation)> {
    plant(Some(bug));
    let violation = |seed| check(&run(seed, Trace::Silent)).err().map(|found| (seed, found));
    let first = (0..SEEDS_MAX).find_map(violation);
    plant(None);
    first
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match caught(*bug) {
            Some((seed, Violation { invariant, says, .. })) => {
                println!("{bug:?}: seed {seed}, {invariant:?}: {says}");
            }
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "within {SEEDS_MAX} seeds nothing showed of {missed:?}");
}
