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
//! - [`client`]: what other programs use, and the commands; all that there is without the feature `server`.
//!
//! [`client`] is for other programs. The rest exists for the binary, the tests, the benchmarks and the
//! fuzzers; it promises no API.

#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod cli;
pub mod client;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod demo;
pub mod dialect;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod ingress;
#[cfg(feature = "server")]
pub mod keys;
#[cfg(feature = "server")]
pub mod limits;
#[cfg(feature = "server")]
pub mod listen;
#[cfg(feature = "server")]
pub mod memory;
#[cfg(feature = "server")]
pub mod metrics;
pub mod planted;
pub mod reason;
#[cfg(feature = "server")]
pub mod restart;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod shard;
#[cfg(feature = "server")]
pub mod systemd;
pub mod tls;
pub mod topics;
#[cfg(feature = "server")]
pub mod ws;
