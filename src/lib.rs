//! Fanfare, a WebSocket publish/subscribe broker.
//!
//! This library exists for the binary, the tests, the benchmarks and the fuzzers; it promises no API.

pub mod clock;
pub mod dialect;
pub mod engine;
pub mod http;
pub mod ingress;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod reason;
pub mod session;
pub mod shard;
pub mod topics;
pub mod ws;
