//! The composition root: builds the broker, wires it, runs it, drains it.
//! The one file that knows every part.
//! # Invariants: nothing is accepted before everything is built; a drain stops accepting first and
//! ends before its deadline.
//! # Not here: protocol, policy, signals (`cli`).

mod drain;
mod reload;
mod site;
mod succession;

use crate::auth::{Guard, certificate_expires_s};
use crate::clock::Clock;
use crate::config::{self, Config, Listen};
use crate::control::{self, Control, Request, Requests};
use crate::demo::Feeds;
use crate::engine::Engine;
use crate::http::admin::{Admin, Lock, Window};
use crate::http::{self, Ops, Site};
use crate::ingress;
use crate::keys::{self, KeyError, KeySet};
use crate::limits::Limits;
use crate::limits::rate::Rate;
use crate::listen::gate::GateOptions;
use crate::listen::{Doorway, Entrance, Gate, Greeting, Open, ProxyHeader, adopt, bind};
use crate::memory;
use crate::metrics::{Counters, KeptPage, Page, Sources, Waiting};
use crate::reason::Reason;
use crate::session::Broker;
use crate::shard::pressure::Budget;
use crate::shard::worker::{Beats, Busy, Seed, ShardHandle};
use crate::shard::{Shard, ShardOptions};
use crate::systemd::Inherited;
use crate::tls::{BadCredentials, Credentials, Demand, Paths};
use crate::topics::idempotency::IdempotencyOptions;
use crate::topics::mailbox::MailboxOptions;
use crate::topics::registry::{Recent, Registry, RegistryOptions};
use crate::topics::topic::{ResumeOptions, ShardId};
use crate::ws::origin::OriginError;
use reload::Slot;
use site::{access, site};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often topics are looked through for those that may be forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// How often the memory of the process is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(250);

/// A running broker. Dropping it stops it at once.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    shards: Arc<[ShardHandle]>,
    ops: Arc<Ops>,
    broker: Arc<Broker>,
    /// What connections to the public side and to the ingress begin with.
    site: Arc<Slot<Site>>,
    window: Arc<Window>,
    counters: Arc<Counters>,
    gate: Arc<Gate>,
    credentials: Option<Arc<Credentials>>,
    requests: Requests,
    entrances: Vec<Open>,
    tasks: Vec<JoinHandle<()>>,
    /// Serves the admin side.
    admin: Option<JoinHandle<()>>,
    /// Follows a set of keys.
    following: Option<JoinHandle<()>>,
    /// What is in force.
    config: Config,
}

/// The signs of life of all shards, and how many have been seen. It goes on during a drain.
#[derive(Debug)]
pub struct Pulse {
    shards: Vec<(Beats, u64)>,
}

impl Pulse {
    /// Whether every shard has shown life since this was last asked.
    pub fn beats(&mut self) -> bool {
        let mut every = true;
        for (beats, seen) in &mut self.shards {
            let count = beats.count();
            every &= count != *seen;
            *seen = count;
        }
        every
    }
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
    /// An allowed origin is not an origin.
    #[error("{0}")]
    Origin(#[from] OriginError),
    /// The admin side cannot be watched.
    #[error("cannot listen for metrics and health: {0}")]
    Admin(#[source] io::Error),
    /// The certificate cannot be used.
    #[error("cannot speak TLS: {0}")]
    Tls(#[from] BadCredentials),
    /// No shard takes connections.
    #[error("cannot accept connections: {0}")]
    Accept(#[from] Busy),
    /// A key cannot be used.
    #[error("{0}")]
    Keys(#[from] KeyError),
    /// A shard's thread did not start.
    #[error("cannot start a shard: {0}")]
    Shard(#[source] io::Error),
}

impl Server {
    /// Starts a broker on the current tokio runtime, which must be polled for it to accept.
    /// `feeds` are published by the broker itself.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: &Config, feeds: Option<Feeds>) -> Result<Server, StartError> {
        Server::start_on(Inherited::default(), config, feeds)
    }

    /// Starts a broker that listens on these sockets, and on addresses of its own for the rest.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_on(
        mut sockets: Inherited,
        config: &Config,
        feeds: Option<Feeds>,
    ) -> Result<Server, StartError> {
        let guard = Arc::new(Guard::new(keys::authority(&config.auth)?));
        let key_set = KeySet::of(&config.auth)?;
        let credentials = credentials(&config.tls)?;
        let mut listener = |key, address, purpose| match sockets.socket(key) {
            Some(socket) => adopt(socket).map_err(bind_error(address, purpose)),
            None => bind(address).map_err(bind_error(address, purpose)),
        };
        let Listen { public, ingress, admin, .. } = config.listen;
        let public = listener("listen.public", public, "WebSocket and HTTP")?;
        let ingress =
            ingress.map(|it| listener("listen.ingress", it, "TCP ingress")).transpose()?;
        let admin =
            admin.map(|it| listener("listen.admin", it, "metrics and health")).transpose()?;
        let addresses = Addresses {
            public: address_of(&public, config.listen.public),
            ingress: ingress.as_ref().zip(config.listen.ingress).map(|(l, a)| address_of(l, a)),
            admin: admin.as_ref().zip(config.listen.admin).map(|(l, a)| address_of(l, a)),
        };
        let (clock, kept) = succession::inherit(config);
        let Core { shards, registry, budget, sources } = Core::start(config, clock, &guard)?;
        succession::restore(&registry, kept, clock.now());
        let waiting = sources.waiting.clone();
        let broker = Arc::new(Broker {
            engine: Engine::memory(Arc::clone(&registry)),
            guard: Arc::clone(&guard),
            limits: limits(config),
            ping_ms: millis(config.websocket.ping_interval),
            clock,
            budget: Arc::clone(&budget),
        });
        let counters = sources.blocks.last().map(Arc::clone).unwrap_or_default();
        let (control, requests) = control::channel();
        let core = (&*shards, Arc::clone(&registry), sources.clone());
        let lock = Lock::new(addresses.admin.unwrap_or(addresses.public), config.admin.token);
        let admin_api = admin_of(core, Arc::clone(&broker), lock, control);
        let page = KeptPage::new(Page::new(sources), config.admin.metrics_age);
        let ops = Arc::new(Ops { page, ready: AtomicBool::new(false), admin: admin_api });
        let gate = Arc::new(Gate::new(gate_options(config), budget, waiting));
        let window = Arc::new(Window::new(Arc::clone(&ops), addresses.public, access(config)));
        let site = site(Arc::clone(&broker), Arc::clone(&gate), &window, config)?;
        let mut server = Server {
            addresses,
            shards,
            ops,
            broker,
            site: Arc::new(Slot::new(Arc::new(site))),
            window,
            counters,
            gate,
            credentials,
            requests,
            entrances: Vec::new(),
            tasks: Vec::new(),
            admin: None,
            following: None,
            config: config.clone(),
        };
        server.accept_public(public, config)?;
        server.accept_ingress(ingress, &config.tls)?;
        server.accept_admin(admin, &config.tls)?;
        server.tasks.push(tokio::spawn(sweep(registry, clock)));
        server.tasks.extend(watch_memory(&config.limits, Arc::clone(&server.broker.budget)));
        server.follow_keys(key_set);
        let feeding = feeds.map(|feeds| server.play(feeds));
        server.tasks.extend(feeding);
        server.note_certificate();
        server.counters.last_reload_s.ok.set(clock.now().wall_ms / 1000);
        server.ops.ready.store(true, Ordering::Release);
        Ok(server)
    }

    fn play(&self, feeds: Feeds) -> JoinHandle<()> {
        let (broker, counters) = (Arc::clone(&self.broker), Arc::clone(&self.counters));
        tokio::spawn(feed(feeds, broker, counters, self.broker.clock))
    }

    /// Who may do what. Whoever changes that calls [`Server::review`] then.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.broker.guard
    }

    /// Where an operator's requests are handed in.
    pub fn control(&self) -> &Control {
        &self.ops.admin.control
    }

    /// What an operator asks next. Whoever owns the server carries it out and answers.
    pub async fn asked(&mut self) -> Request {
        self.requests.next().await
    }

    /// Has every shard look at once what its connections may do now. It would within a second.
    pub fn review(&self) {
        for shard in self.shards.iter() {
            // One that has no room for it looks at its next tick.
            shard.jobs().run(|context| context.with(Shard::review)).unwrap_or_default();
        }
    }

    /// The signs of life of its shards.
    pub fn pulse(&self) -> Pulse {
        Pulse { shards: self.shards.iter().map(|shard| (shard.beats(), 0)).collect() }
    }

    /// Reads the certificate and its key anew, and who signs those of clients. Connections that are
    /// there go on as they are. Without TLS there is nothing to read.
    ///
    /// # Errors
    /// What is wrong with the files; then what was in force stays so.
    pub fn reload_certificates(&self) -> Result<(), BadCredentials> {
        let result = self.credentials.as_ref().map_or(Ok(()), |credentials| credentials.reload());
        self.note_certificate();
        result
    }

    /// Has the metrics say when our certificate ends.
    fn note_certificate(&self) {
        let certificate = self.credentials.as_ref().and_then(|it| it.certificate());
        let expires_s = certificate.and_then(|der| certificate_expires_s(&der));
        self.counters.certificate_expires_s.set(expires_s.unwrap_or_default());
    }

    fn accept_public(&mut self, listener: TcpListener, config: &Config) -> Result<(), StartError> {
        let greeting = Greeting {
            proxy: config.listen.proxy_protocol.then_some(ProxyHeader),
            tls: config.tls.public.then(|| self.tls(Demand::Nothing)).flatten(),
        };
        let entrance = self.entrance(http::turn_away, greeting);
        let site = Arc::clone(&self.site);
        let serve = move |context, arrival| http::serve(context, site.get(), arrival);
        self.entrances.push(entrance.open(listener, serve)?);
        Ok(())
    }

    fn accept_ingress(
        &mut self,
        listener: Option<TcpListener>,
        tls: &config::Tls,
    ) -> Result<(), StartError> {
        let Some(listener) = listener else { return Ok(()) };
        let site = Arc::clone(&self.site);
        let tls = tls.ingress.then(|| self.tls(Demand::Certificate)).flatten();
        let mut entrance = self.entrance(ingress::turn_away, Greeting { proxy: None, tls });
        // Another thread than that of the public side, if there is one.
        entrance.host = entrance.shards.len().saturating_sub(1);
        let serve = move |context, arrival| {
            ingress::serve(context, Arc::clone(&site.get().broker), arrival)
        };
        self.entrances.push(entrance.open(listener, serve)?);
        Ok(())
    }

    fn accept_admin(
        &mut self,
        listener: Option<TcpListener>,
        tls: &config::Tls,
    ) -> Result<(), StartError> {
        let Some(listener) = listener else { return Ok(()) };
        let doorway = Doorway::new(listener).map_err(StartError::Admin)?;
        let ops = Arc::clone(&self.ops);
        let tls = tls.admin.then(|| self.tls(Demand::Certificate)).flatten();
        self.admin = Some(tokio::spawn(http::serve_ops(ops, doorway, tls)));
        Ok(())
    }

    /// What a listener that speaks TLS begins with, if there is a certificate.
    fn tls(&self, demand: Demand) -> Option<(Arc<Credentials>, Demand)> {
        Some((Arc::clone(self.credentials.as_ref()?), demand))
    }

    fn entrance(&self, turn_away: fn(Reason) -> Vec<u8>, greeting: Greeting) -> Entrance {
        Entrance {
            shards: self.shards.iter().map(ShardHandle::jobs).collect(),
            host: 0,
            gate: Arc::clone(&self.gate),
            greeting,
            turn_away,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in self.tasks.iter().chain(&self.admin).chain(&self.following) {
            task.abort();
        }
    }
}

/// The parts that live on the shards' threads and what they share.
struct Core {
    shards: Arc<[ShardHandle]>,
    registry: Arc<Registry>,
    budget: Arc<Budget>,
    sources: Sources,
}

impl Core {
    fn start(config: &Config, clock: Clock, guard: &Arc<Guard>) -> Result<Core, StartError> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mailbox = MailboxOptions {
            messages_max: config.limits.mailbox_messages_max,
            bytes_max: config.limits.mailbox_bytes_max,
        };
        let seeds: Vec<Seed> = (0..config.shard_count(processors))
            .filter_map(ShardId::new)
            .map(|id| Seed::new(id, mailbox, Arc::clone(guard)))
            .collect();
        let mailboxes: Vec<_> = seeds.iter().map(|seed| Arc::clone(&seed.mailbox)).collect();
        let registry =
            Arc::new(Registry::new(registry_options(config), mailboxes.clone(), Box::new(draw)));
        // The last block is that of this thread, for what the broker publishes itself.
        let mut blocks: Vec<_> = seeds.iter().map(|seed| Arc::clone(&seed.counters)).collect();
        blocks.push(Arc::default());
        let budget = Budget::new(config.limits.outbound_total_bytes_max, blocks.clone());
        let budget = Arc::new(budget);
        let start = |seed: Seed| {
            seed.start(Arc::clone(&registry), shard_options(config), Arc::clone(&budget), clock)
        };
        let shards: Result<Vec<ShardHandle>, io::Error> = seeds.into_iter().map(start).collect();
        let shards = shards.map_err(StartError::Shard)?.into();
        let waiting = Waiting::default();
        let sources = Sources { blocks, mailboxes, registry: Arc::clone(&registry), waiting };
        Ok(Core { shards, registry, budget, sources })
    }
}

/// Tells the budget what memory the process has, where the system says what it may have.
fn watch_memory(limits: &config::Limits, budget: Arc<Budget>) -> Option<JoinHandle<()>> {
    let allowed = limits.memory_allowed(memory::granted())?;
    Some(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(MEMORY_INTERVAL);
        loop {
            ticks.tick().await;
            if let Some(bytes) = memory::resident() {
                budget.note_resident(bytes, allowed);
            }
        }
    }))
}

/// The admin API over these parts.
fn admin_of(
    (shards, registry, sources): (&[ShardHandle], Arc<Registry>, Sources),
    broker: Arc<Broker>,
    lock: Lock,
    control: Control,
) -> Admin {
    Admin {
        lock,
        broker,
        registry,
        shards: shards.iter().map(ShardHandle::jobs).collect(),
        // The last block is that of the thread that serves it.
        counters: sources.blocks.last().map(Arc::clone).unwrap_or_default(),
        sources,
        control,
        watching: tokio::sync::Mutex::default(),
    }
}

async fn sweep(registry: Arc<Registry>, clock: Clock) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        registry.sweep(clock.now());
    }
}

async fn feed(mut feeds: Feeds, broker: Arc<Broker>, counters: Arc<Counters>, clock: Clock) {
    let mut recent = Recent::default();
    loop {
        let now = clock.now();
        for draft in feeds.poll(now) {
            let topic = draft.topic.clone();
            if let Err(refusal) = broker.publish(&mut recent, draft, &counters, now) {
                tracing::warn!(%topic, %refusal, "a demo feed was refused");
            }
        }
        tokio::time::sleep(feeds.next_due().saturating_sub(clock.now().uptime)).await;
    }
}

fn draw() -> Option<u128> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).ok()?;
    Some(u128::from_ne_bytes(bits))
}

fn bind_error(address: SocketAddr, purpose: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::Bind { address, purpose, error }
}

fn address_of(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Raises the soft limit of open files as far as it goes, and tells it.
fn open_files_max() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The certificate, if there is to be TLS.
fn credentials(tls: &config::Tls) -> Result<Option<Arc<Credentials>>, BadCredentials> {
    let Some(paths) = paths(tls) else { return Ok(None) };
    Ok(Some(Arc::new(Credentials::load(paths)?)))
}

fn paths(tls: &config::Tls) -> Option<Paths> {
    let config::Tls { certificate, key, client_ca, .. } = tls.clone();
    Some(Paths { certificate: certificate?, key: key?, client_ca })
}

fn gate_options(config: &Config) -> GateOptions {
    let limits = &config.limits;
    GateOptions {
        connections_max: limits.connections_allowed(open_files_max()),
        pending_max: limits.pending_max,
        handshakes_max: limits.tls_handshakes_max,
        connections_per_address: limits.address_connections_max,
        address_rate: Rate::new(limits.address_rate, limits.address_burst),
        accept_rate: Rate::new(limits.accept_rate, limits.accept_rate),
        step: limits.handshake_timeout,
        total: limits.pending_timeout,
        trusted: config.listen.trusted_proxies.clone(),
    }
}

fn shard_options(config: &Config) -> ShardOptions {
    ShardOptions {
        outbound_bytes_max: config.limits.outbound_bytes_max,
        outbound_age_max: config.limits.outbound_age_max,
        cursors_max: config.limits.cursors_max,
        write_stall_max: config.limits.write_stall_max,
        ping_interval: config.websocket.ping_interval,
        pong_timeout: config.websocket.pong_timeout,
        authenticate: config.limits.authenticate,
        message_timeout: config.limits.message_timeout,
    }
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    let subscribe_burst = limits.subscribe_burst.max(limits.subscriptions_max);
    Limits {
        message_bytes_max: limits.message_bytes_max,
        fragments_max: u32::try_from(limits.fragments_max).unwrap_or(u32::MAX),
        subscriptions_max: limits.subscriptions_max,
        filters_max: limits.filters_max,
        snapshot_topics_max: limits.snapshot_topics_max,
        resume: resume_options(config),
        publishes: limits.publish_rate.map(|rate| Rate::new(rate, limits.publish_burst)),
        deliveries: limits.delivery_rate.map(|rate| Rate::new(rate, rate)),
        new_topics: limits.topic_rate.map(|rate| Rate::new(rate, limits.topic_burst)),
        subscribes: limits.subscribe_rate.map(|rate| Rate::new(rate, subscribe_burst)),
        controls: limits.control_rate.map(|rate| Rate::new(rate, limits.control_burst)),
        bad_commands_max: u32::try_from(limits.bad_commands_max).unwrap_or(u32::MAX),
        http_body_bytes_max: limits.http_body_bytes_max,
        ..Limits::default()
    }
}

fn resume_options(config: &Config) -> ResumeOptions {
    ResumeOptions {
        messages_max: config.limits.resume_messages_max,
        bytes_max: config.limits.resume_bytes_max,
    }
}

fn registry_options(config: &Config) -> RegistryOptions {
    RegistryOptions {
        topics_max: config.limits.topics_max,
        history_bytes_max: config.topics.history_bytes_max,
        rules: config.topics.to_rules(),
        resume: resume_options(config),
        idempotency: IdempotencyOptions {
            window: config.topics.idempotency_window,
            keys_max: config.topics.idempotency_keys_max,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_without_life_is_one_too_many() {
        let (one, two) = (Beats::default(), Beats::default());
        let mut pulse = Pulse { shards: vec![(one.clone(), 0), (two.clone(), 0)] };
        one.beat();
        assert!(!pulse.beats(), "the second has not even begun");
        one.beat();
        two.beat();
        assert!(pulse.beats());
        assert!(!pulse.beats(), "nothing came since");
        two.beat();
        assert!(!pulse.beats(), "the first hangs");
    }
}
