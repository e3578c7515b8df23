//! The client of this crate, held to the list of all clients: `clients/scenarios.md`.
//! # Invariants: nothing is awaited without a deadline; sockets are real, ports chosen by the system.
//! # Not here: what is decided without sockets (`src/client`), the commands (`tests/cli.rs`).
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what it did not expect"
)]

mod ear;
mod link;
mod rig;
mod scenarios;
mod script;
mod scripted;
