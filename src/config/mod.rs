//! The configuration: one struct, every setting with its meaning, unit, default and cost.
//! # Invariants: a [`Config`] that [`load()`] returns is within all bounds, and every default is.
//! # Not here: reading files and variables (`source`, `load`), how values are spelled (`form`), which values
//! make sense (`bounds`).

pub mod auth;
mod bounds;
mod form;
mod keys;
pub mod limits;
mod listeners;
pub mod live;
pub mod load;
pub mod source;
mod spelled;
pub mod topics;
#[cfg(test)]
mod words;

pub use auth::{Admin, Auth};
pub use bounds::{Bounds, numbers};
pub use limits::Limits;
pub use load::{ConfigError, Loaded, Setting, load};
pub use source::{Flag, Source, Sources};
pub use topics::{Cap, History, Rule, RuleHistory, SnapshotOf, Topics};

use crate::listen::hops::Network;
use form::{
    Address, As, Auto, Choice, Count, FileName, Networks, Off, OneOf, Or, Origins, Span, Switch,
};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Most shards: a message names the shards that want it in the bits of one word.
pub const SHARDS_MAX: usize = 64;

/// The longest time that writing `shutdown.snapshot` takes: after it the broker ends without.
pub const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(10);

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Threads that own connections. Default `"auto"`: one per processor, at most 64.
    /// More than there are processors costs memory and wins nothing.
    #[serde(with = "As::<Or<Auto, Count>>")]
    pub shards: Option<usize>,
    /// Serve other machines although nobody has to prove who they are. Default false.
    /// Without it and without `auth`, only loopback addresses are listened on.
    #[serde(with = "As::<Switch>")]
    pub insecure: bool,
    /// Where the broker listens.
    pub listen: Listen,
    /// Who may do what.
    pub auth: Auth,
    /// Who may operate the broker.
    pub admin: Admin,
    /// What is encrypted, and by which certificate.
    pub tls: Tls,
    /// How WebSocket connections are treated.
    pub websocket: WebSocket,
    /// What one connection, one topic and the whole broker may use at most.
    pub limits: Limits,
    /// What topics keep and for how long.
    pub topics: Topics,
    /// What is logged and how it looks.
    pub log: Log,
    /// How the broker stops.
    pub shutdown: Shutdown,
}

impl Config {
    /// The number of shards on a machine with so many processors.
    pub fn shard_count(&self, processors: usize) -> usize {
        self.shards.unwrap_or(processors).clamp(1, SHARDS_MAX)
    }
}

/// Where the broker listens. Port 0 lets the system choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// WebSocket, HTTP publishing and the dashboard. Default 127.0.0.1:7600.
    #[serde(with = "As::<Address>")]
    pub public: SocketAddr,
    /// TCP ingress for services, or `"off"`. Default 127.0.0.1:7601.
    #[serde(with = "As::<Or<Off, Address>>")]
    pub ingress: Option<SocketAddr>,
    /// Metrics, health and the admin API, or `"off"`. Default 127.0.0.1:7602.
    #[serde(with = "As::<Or<Off, Address>>")]
    pub admin: Option<SocketAddr>,
    /// Proxies that are believed when they say who their clients are, in `X-Forwarded-For` or a
    /// PROXY header. Default none. A client with such an address could claim to be anybody.
    #[serde(with = "As::<Networks>")]
    pub trusted_proxies: Vec<Network>,
    /// Every connection to `public` begins with a PROXY header, version 2, of a trusted proxy.
    /// Default false. Whoever connects without one is cut off.
    #[serde(with = "As::<Switch>")]
    pub proxy_protocol: bool,
}

impl Default for Listen {
    fn default() -> Listen {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Listen {
            public: loopback(7600),
            ingress: Some(loopback(7601)),
            admin: Some(loopback(7602)),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

/// What is encrypted, and by which certificate. Files are PEM, and can be read anew while running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Tls {
    /// File with our certificate and those that lead to a root, or `"off"`. Default `"off"`.
    /// With it, the listeners below speak TLS 1.2 and 1.3 and nothing else.
    #[serde(with = "As::<Or<Off, FileName>>")]
    pub certificate: Option<PathBuf>,
    /// File with its key, or `"off"`. Default `"off"`. Only the broker should be able to read it.
    #[serde(with = "As::<Or<Off, FileName>>")]
    pub key: Option<PathBuf>,
    /// File with the authorities whose certificates clients of the ingress and of the admin side must
    /// show, or `"off"`. Default `"off"`. It applies where those speak TLS.
    #[serde(with = "As::<Or<Off, FileName>>")]
    pub client_ca: Option<PathBuf>,
    /// Whether WebSocket and HTTP are encrypted, if there is a certificate. Default true.
    #[serde(with = "As::<Switch>")]
    pub public: bool,
    /// Whether the TCP ingress is encrypted, if there is a certificate. Default true.
    #[serde(with = "As::<Switch>")]
    pub ingress: bool,
    /// Whether metrics and health are encrypted, if there is a certificate. Default false.
    #[serde(with = "As::<Switch>")]
    pub admin: bool,
}

impl Default for Tls {
    fn default() -> Tls {
        let (public, ingress, admin) = (true, true, false);
        Tls { certificate: None, key: None, client_ca: None, public, ingress, admin }
    }
}

/// How WebSocket connections are treated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// Origins whose pages may connect, besides pages of this server itself. Default none.
    /// Each is compared when a page connects.
    /// Kept in lower case and without a default port, as browsers send them; there is no wildcard.
    /// `"null"` are pages opened as files, and sandboxed frames of any page: `fanfare demo` adds it
    /// where it listens on a loopback address.
    #[serde(with = "As::<Origins>")]
    pub origins: Vec<String>,
    /// Time between pings. Default 25s, below the idle timeout of common proxies.
    /// Longer keeps dead connections longer; shorter costs a write per connection each time.
    #[serde(with = "As::<Span>")]
    pub ping_interval: Duration,
    /// Time a client has to answer a ping; anything it sends is an answer. Default 10s.
    /// Longer keeps dead connections longer.
    #[serde(with = "As::<Span>")]
    pub pong_timeout: Duration,
    /// Compress messages for clients that can read that, and read theirs. Default false.
    /// It costs some 10 µs for each message below 1 KiB and 6 µs per KiB above, however many get it, 2 µs
    /// for each compressed command, 400 KiB per shard and nothing per connection. The length of a
    /// compressed message tells something of what it says, see `docs/protocol.md`.
    #[serde(with = "As::<Switch>")]
    pub compression: bool,
}

impl Default for WebSocket {
    fn default() -> WebSocket {
        WebSocket {
            origins: Vec::new(),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            compression: false,
        }
    }
}

/// What is logged and how it looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How a line looks. Default `"auto"`: text on a terminal, JSON elsewhere.
    #[serde(with = "As::<OneOf<LogFormat>>")]
    pub format: LogFormat,
    /// The least severe lines that are written. Default `"info"`.
    /// Nothing logs per message, so `debug` is bearable; it grows with connections.
    #[serde(with = "As::<OneOf<LogLevel>>")]
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// A line for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Choice for LogFormat {
    const ALL: &[LogFormat] = &[LogFormat::Auto, LogFormat::Text, LogFormat::Json];

    fn name(self) -> &'static str {
        match self {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// How severe a log line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The broker failed at something.
    Error,
    /// Something is refused or dropped.
    Warn,
    /// Starting, stopping, listening.
    #[default]
    Info,
    /// What peers did wrong, connection by connection.
    Debug,
    /// Everything.
    Trace,
}

impl Choice for LogLevel {
    const ALL: &[LogLevel] =
        &[LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// How the broker stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// Time between not being ready and no longer accepting: as long as whoever directs clients here
    /// takes to notice. Default 0s; behind a load balancer some 10s. A restart takes so much longer.
    #[serde(with = "As::<Span>")]
    pub delay: Duration,
    /// Time over which connections are told to go, evenly, so that they do not all come back at the
    /// same moment. Default 60s; of a few, each shard tells 100 a second. A restart takes up to so much
    /// longer.
    #[serde(with = "As::<Span>")]
    pub spread: Duration,
    /// Time those who are told last have to take what waits for them and to close. Default 5s; 0s is
    /// at once. A longer grace makes a restart take longer.
    #[serde(with = "As::<Span>")]
    pub grace: Duration,
    /// How long clients are asked to wait before they connect again. Default 0s, where others take
    /// them over; else about as long as a restart takes. So long nothing reaches them.
    #[serde(with = "As::<Span>")]
    pub reconnect_after: Duration,
    /// File in which a broker that stops as it was told leaves its topics to the next one, which goes on
    /// with their epochs, histories, keys and idempotency keys and removes the file, or `"off"`. Default
    /// `"off"`. Writing takes at most 10s more, and is given up then.
    #[serde(with = "As::<Or<Off, FileName>>")]
    pub snapshot: Option<PathBuf>,
    /// How long whoever supervises waits before it kills the broker, or `"off"`. Default `"off"`.
    /// With it the broker refuses to start if a drain could take longer.
    #[serde(with = "As::<Or<Off, Span>>")]
    pub termination_grace: Option<Duration>,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown {
            delay: Duration::ZERO,
            spread: Duration::from_mins(1),
            grace: Duration::from_secs(5),
            reconnect_after: Duration::ZERO,
            snapshot: None,
            termination_grace: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_shards_follow_the_processors() {
        let auto = Config::default();
        for (processors, expected) in [(0, 1), (1, 1), (8, 8), (64, 64), (512, 64)] {
            assert_eq!(auto.shard_count(processors), expected, "{processors}");
        }
        let fixed = Config { shards: Some(3), ..auto };
        assert_eq!(fixed.shard_count(8), 3);
    }
}
