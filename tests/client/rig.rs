//! A real broker of one test, and the ways to it.
//! # Invariants: a broker ends with its test.
//! # Not here: what stands between the two (`link`).

use fanfare::client::{Client, Connecting};
use fanfare::config::{Sources, load};
use fanfare::server::Server;
use fanfare::topics::message::Wire;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How long one thing may take. Far longer than it does: what is late is lost.
const DEADLINE: Duration = Duration::from_secs(30);

/// Awaits something that must happen.
pub(crate) async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, happening).await;
    result.unwrap_or_else(|_| panic!("{DEADLINE:?} were not enough for {what}"))
}

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(Box::pin(test));
}

/// In which a client speaks to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Json,
    Proto,
    Tcp,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Json, Way::Proto, Way::Tcp];

    /// How what is said this way is laid out.
    pub(crate) fn wire(self) -> Wire {
        match self {
            Way::Json => Wire::WebSocketJson,
            Way::Proto => Wire::WebSocketProto,
            Way::Tcp => Wire::TcpProto,
        }
    }

    /// A client of who listens there. It does not wait for long between two tries.
    pub(crate) fn client(self, address: SocketAddr) -> Connecting {
        let scheme = if self == Way::Tcp { "tcp" } else { "ws" };
        let client = Client::connect(&format!("{scheme}://{address}"))
            .backoff(Duration::from_millis(1), Duration::from_millis(50));
        if self == Way::Proto { client.protobuf() } else { client }
    }
}

/// A running broker.
pub(crate) struct Rig(Server);

impl Rig {
    /// Starts one with these settings, a part of a configuration file, on free ports.
    pub(crate) fn start(settings: &str) -> Rig {
        let text = format!(
            "shards = 1\nlisten = {{ public = '127.0.0.1:0', ingress = '127.0.0.1:0', \
             admin = 'off' }}\n{settings}"
        );
        let file = Some((PathBuf::from("test.toml"), text));
        let loaded = load(Sources { file, ..Sources::default() });
        let config = loaded.unwrap_or_else(|error| panic!("{error}")).config;
        Rig(Server::start(&config, None).expect("a broker"))
    }

    /// Where it listens.
    pub(crate) fn address(&self, way: Way) -> SocketAddr {
        match way {
            Way::Json | Way::Proto => self.0.addresses.public,
            Way::Tcp => self.0.addresses.ingress.expect("an ingress"),
        }
    }

    /// A client that is connected.
    pub(crate) async fn client(&self, way: Way) -> Client {
        within("a connection", way.client(self.address(way)).open()).await.expect("connected")
    }
}
