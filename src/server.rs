//! The composition root: builds the broker, wires it, runs it, drains it.
//! The one file that knows every part.
//! # Invariants: nothing is accepted before everything is built; a drain stops accepting first and
//! ends before its deadline.
//! # Not here: protocol, policy, signals (`cli`).

use crate::clock::Clock;
use crate::config::Config;
use crate::demo::Feeds;
use crate::engine::Engine;
use crate::http::{self, Ops, Site};
use crate::ingress;
use crate::limits::Limits;
use crate::listen::{Entrance, Places, bind};
use crate::metrics::{Counters, Page, Sources};
use crate::reason::{Reason, Refusal};
use crate::session::Broker;
use crate::shard::ShardOptions;
use crate::shard::worker::{Seed, ShardHandle};
use crate::topics::mailbox::MailboxOptions;
use crate::topics::registry::{Registry, RegistryOptions};
use crate::topics::topic::{ResumeOptions, ShardId};
use crate::ws::handshake::Policy;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How often topics are looked through for those that may be forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// A running broker. Dropping it stops it at once.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    shards: Arc<[ShardHandle]>,
    ops: Arc<Ops>,
    broker: Arc<Broker>,
    clock: Clock,
    counters: Arc<Counters>,
    tasks: Vec<JoinHandle<()>>,
    grace: Duration,
}

/// The bound addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// WebSocket, HTTP publishing and the dashboard.
    pub public: SocketAddr,
    /// TCP ingress.
    pub ingress: Option<SocketAddr>,
    /// Metrics and health.
    pub admin: Option<SocketAddr>,
}

/// The broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {address} for {purpose}: {error}")]
    Bind {
        /// Which one.
        address: SocketAddr,
        /// What it was for.
        purpose: &'static str,
        /// The system's words.
        error: io::Error,
    },
    /// A shard's thread did not start.
    #[error("cannot start a shard: {0}")]
    Shard(#[source] io::Error),
}
