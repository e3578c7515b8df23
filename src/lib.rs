//! Fanfare, a WebSocket publish/subscribe broker. A map, in reading order:
//!
//! - [`topics`]: the shared half. Names, offsets, history, filters; one lock per topic.
//! - [`shard`]: the owned half, one per core. Connections, delivery, liveness.
//! - [`dialect`]: bytes ⇄ commands and events, in two spellings.
//! - [`session`]: where permission, limits and [`engine`] meet.
//! - [`ws`], [`http`], [`ingress`]: the three ways in; [`listen`] hands sockets to shards.
//! - [`server`]: puts the parts together; [`config`] says how; [`cli`] is what is typed;
//!   [`systemd`] is who starts and watches it, [`control`] how a running one is asked.
//! - [`reason`], [`clock`], [`limits`], [`metrics`]: what everybody uses.
//! - [`restart`]: what one broker leaves to the next.
//! - [`demo`]: real feeds to look at; [`planted`]: bugs for the simulator to find.
//!
//! This library exists for the binary, the tests, the benchmarks and the fuzzers; it promises no
//! API.

pub mod auth;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod dialect;
pub mod engine;
pub mod http;
pub mod ingress;
pub mod keys;
pub mod limits;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod planted;
pub mod reason;
pub mod restart;
pub mod server;
pub mod session;
pub mod shard;
pub mod systemd;
pub mod tls;
pub mod topics;
pub mod ws;
