//! Tests of the whole broker over real sockets, and the transcripts of its protocol.
//! One binary, because linking is the slow part; each module is about one side of the broker.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::large_futures,
    clippy::print_stdout,
    reason = "a test stops at what it did not expect, runs one future at a time, and what it \
              printed last is shown when it fails"
)]

mod admin;
mod arrivals;
mod batches;
mod catch_up;
mod certificates;
mod certified;
mod client;
mod compression;
mod corpus;
mod drain;
mod edge;
mod events;
mod frames;
mod harness;
mod haste;
mod http;
mod http_publish;
mod identity;
mod ingress;
mod key_sets;
mod limits;
mod liveness;
mod looks;
mod noise;
mod notation;
mod ops;
mod order;
mod pages;
mod pipe;
mod policies;
mod positions;
mod presence;
mod process;
mod publisher;
mod reader;
mod reload;
mod repeats;
mod restart;
mod rules;
mod shedding;
mod slow;
mod snapshots;
mod socket;
mod spelling;
mod sse;
mod sse_edge;
mod stale;
mod systemd;
mod tls;
mod tls_client;
mod transcripts;
mod transports;
mod window;
