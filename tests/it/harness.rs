//! A real broker for one test, the deadline under which everything is awaited, and what it counts.
//! Owns the settings that every test begins with.
//! # Invariants: nothing is awaited without a deadline; a broker is drained when its test ends; a
//! panic on a shard's thread fails the test that ends next.
//! # Not here: clients (`pipe`, `socket`, `client`, `http`).

use crate::client::Client;
use crate::http;
use fanfare::auth::Guard;
use fanfare::config::{Config, Sources, load};
use fanfare::control::{BadReload, Changes};
use fanfare::server::{Addresses, Server};
use fanfare::topics::message::Wire;
use serde_json::json;
use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long one thing may take. Far longer than it does: what is late is lost.
const DEADLINE: Duration = Duration::from_secs(10);

/// What every test begins with; a test's own settings follow.
const SETTINGS: &str = r#"
shards = 2
listen.public = "127.0.0.1:0"
listen.ingress = "127.0.0.1:0"
listen.admin = "127.0.0.1:0"
shutdown.spread = "1s"
admin.metrics_age = "0s"
"#;

/// Panics that shards' threads have had in this process.
static SHARD_PANICS: AtomicUsize = AtomicUsize::new(0);

/// Awaits something that must happen.
pub(crate) async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, happening).await;
    result.unwrap_or_else(|_| panic!("{DEADLINE:?} were not enough for {what}"))
}

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    watch_shards();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

/// Runs a test with a broker of its own, which must end cleanly. `settings` is a part of a
/// configuration file.
pub(crate) fn with_broker(settings: &str, test: impl AsyncFnOnce(&Broker)) {
    run(async {
        let broker = Broker::start(settings);
        Box::pin(test(&broker)).await;
        assert_eq!(broker.drain().await, 0, "connections were cut off");
    });
}

/// The configuration of a test.
pub(crate) fn config(settings: &str) -> Config {
    let file = Some((PathBuf::from("test.toml"), format!("{SETTINGS}\n{settings}")));
    let loaded = load(Sources { file, ..Sources::default() });
    loaded.unwrap_or_else(|error| panic!("{error}")).config
}

/// A running broker.
pub(crate) struct Broker {
    /// `None` if it runs in another process.
    server: Option<Server>,
    pub(crate) addresses: Addresses,
}

impl Broker {
    /// Starts a broker with these settings on free ports.
    pub(crate) fn start(settings: &str) -> Broker {
        Broker::of(&config(settings))
    }

    /// Starts a broker with this configuration.
    pub(crate) fn of(config: &Config) -> Broker {
        let server = Server::start(config, None).expect("a broker");
        Broker { addresses: server.addresses, server: Some(server) }
    }

    /// A broker that runs in another process.
    pub(crate) fn elsewhere(public: SocketAddr, ingress: SocketAddr, admin: SocketAddr) -> Broker {
        let addresses = Addresses { public, ingress: Some(ingress), admin: Some(admin) };
        Broker { server: None, addresses }
    }

    /// Stops it. Returns how many connections had to be cut off.
    pub(crate) async fn drain(self) -> usize {
        let server = self.server.expect("a broker of this process");
        let left = within("the drain", server.drain()).await;
        assert_eq!(SHARD_PANICS.load(Ordering::SeqCst), 0, "a shard's thread panicked");
        left
    }

    /// Puts these settings into force on a broker of this process.
    pub(crate) async fn reload(&mut self, settings: &str) -> Result<Changes, BadReload> {
        self.reload_to(&config(settings)).await
    }

    /// Puts a whole configuration into force on a broker of this process.
    pub(crate) async fn reload_to(&mut self, config: &Config) -> Result<Changes, BadReload> {
        self.server.as_mut().expect("a broker of this process").reload(config).await
    }

    /// Who may do what on a broker of this process.
    pub(crate) fn guard(&self) -> &Guard {
        self.server.as_ref().expect("a broker of this process").guard()
    }

    /// Has it look at once what its connections may do.
    pub(crate) fn review(&self) {
        self.server.as_ref().expect("a broker of this process").review();
    }

    /// The address of WebSocket and HTTP.
    pub(crate) fn public(&self) -> SocketAddr {
        self.addresses.public
    }

    /// The address of the TCP ingress.
    pub(crate) fn ingress(&self) -> SocketAddr {
        self.addresses.ingress.expect("an ingress")
    }

    /// The address of metrics and health.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.addresses.admin.expect("an admin side")
    }

    /// What the metrics page says now about one series, its labels included; 0 if it says nothing.
    pub(crate) async fn count(&self, series: &str) -> u64 {
        let page = http::get(self.admin(), "/metrics").await.text();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |number| number.parse().unwrap_or_else(|_| panic!("{series} is {number}")))
    }

    /// Waits until one series of the metrics page is as it should be, and says what it is.
    pub(crate) async fn until(&self, series: &str, is_right: impl Fn(u64) -> bool) -> u64 {
        let last = Cell::new(0);
        let poll = async {
            loop {
                last.set(self.count(series).await);
                if is_right(last.get()) {
                    return;
                }
                // Not a guess at how long it takes, only a pause between two looks.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, poll).await.is_ok();
        assert!(in_time, "after {DEADLINE:?} {series} is still {}", last.get());
        last.get()
    }
}

/// Somebody else on the same broker, who must not notice what a test does.
pub(crate) struct Bystander {
    subscriber: Client,
    publisher: Client,
    offset: u64,
}

impl Bystander {
    /// Joins by WebSocket and by TCP, so that both shards and both kinds of reading have one.
    pub(crate) async fn join(broker: &Broker) -> Bystander {
        let mut subscriber = Client::connect(broker, Wire::WebSocketJson).await;
        let publisher = Client::connect(broker, Wire::TcpProto).await;
        let command = json!({"id": 1, "subscribe": {"topic": "bystander.topic"}});
        let reply = subscriber.ask(&command).await;
        let offset = &reply["subscribed"]["position"]["offset"];
        Bystander { subscriber, publisher, offset: offset.as_u64().expect("an offset") }
    }

    /// How many messages bystanders have published.
    pub(crate) fn published(&self) -> u64 {
        self.offset
    }

    /// Publishes and receives as if nothing had happened.
    pub(crate) async fn is_fine(&mut self) {
        self.offset += 1;
        let publish = json!({"topic": "bystander.topic", "data": {"seen": self.offset}});
        let reply = self.publisher.ask(&json!({"id": 7, "publish": publish})).await;
        assert_eq!(reply["published"]["offset"], self.offset, "{reply}");
        let event = self.subscriber.hear().await;
        assert_eq!(event["message"]["offset"], self.offset, "{event}");
        assert_eq!(event["message"]["data"]["seen"], self.offset, "{event}");
    }
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice that fall as this seed says.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // Xorshift, by Marsaglia; the high half is the better one.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % end.max(1)
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }
}

/// Counts panics on shards' threads, which would otherwise only be logged.
fn watch_shards() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            if thread.name().is_some_and(|name| name.starts_with("fanfare-shard")) {
                SHARD_PANICS.fetch_add(1, Ordering::SeqCst);
            }
            report(panic);
        }));
    });
}
