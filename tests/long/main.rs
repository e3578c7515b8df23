//! The long tests: a broker as a process of its own, under load for as long as is asked, judged by
//! the simulator's checker and by what the system says of the process.
//! `./test.sh soak storm cgroup` runs them in their short forms, `./test.sh long` as long as they
//! should be; a plain `cargo test` leaves out all that takes more than a moment.
//! # Invariants: everything follows from a seed but for the timing; a test that cannot be done here
//! fails.
//! # Not here: the broker without sockets and threads (`tests/sim`), one feature at a time
//! (`tests/it`).
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect, says what it saw, and its numbers are small"
)]

mod cgroup;
mod churn;
mod herd;
mod process;
mod slope;
mod soak;
mod stalled;
mod storm;
mod table;
mod wire;

/// The simulator's checker, and what it needs.
#[path = "../sim"]
mod sim {
    #![allow(dead_code, reason = "the simulator uses more of it")]

    pub(crate) mod checker;
    pub(crate) mod client;
    pub(crate) mod history;
    pub(crate) mod random;
    pub(crate) mod socket;
    pub(crate) mod spelling;
    pub(crate) mod tally;
}

use sim::{checker, client, history, random, socket, spelling, tally};

/// A number from the environment; an empty value is none.
fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}
