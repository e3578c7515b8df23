//! Fanfare, a WebSocket publish/subscribe broker.
//!
//! This library exists for the binary, the tests, the benchmarks and the fuzzers; it promises no API.

pub mod clock;
pub mod demo;
pub mod dialect;
pub mod reason;
pub mod topics;
