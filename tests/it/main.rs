//! Tests of the whole broker over real sockets, and the transcripts of its protocol.
//! One binary, because linking is the slow part; each module is about one side of the broker.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test stops at what it did not expect, and runs one future at a time"
)]

mod client;
mod harness;
mod http;
mod pipe;
mod socket;
mod spelling;
mod transcripts;
