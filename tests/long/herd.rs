//! Thousands of clients in one thread, each of which comes back with a growing and random delay and
//! resumes where it was.
//! # Invariants: what a client hears of its topic has no hole and no double; the first fault ends
//! the test.
//! # Not here: the broker, and when it is there (`storm`).

mod follower;

use crate::random::Random;
use crate::table::Table;
use follower::{Follower, publish};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take that everybody must do.
const PATIENCE: Duration = Duration::from_mins(3);

/// Time between two messages of the publisher.
const PUBLISH_PAUSE: Duration = Duration::from_millis(40);

/// Who comes, and what he is to do.
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) clients: u64,
    pub(crate) topics: u64,
    /// One for each client, and the last one for the publisher.
    pub(crate) tokens: Vec<String>,
}

/// What happens to all of them.
#[derive(Debug, Default)]
struct Shared {
    live: AtomicU64,
    heard: AtomicU64,
    failures: AtomicU64,
    farewells: AtomicU64,
    stopping: AtomicBool,
    /// The offsets that the publisher was told, by topic.
    tops: Mutex<Vec<u64>>,
    /// How many clients have heard everything.
    done: AtomicU64,
    fault: Mutex<Option<String>>,
    /// When the broker began again, and when each client was live after that.
    begun: Mutex<Option<Instant>>,
    returns: Mutex<Vec<Duration>>,
}

pub(crate) struct Herd {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    clients: u64,
}

impl Herd {
    pub(crate) fn start(plan: Plan) -> Herd {
        let shared = Arc::new(Shared::default());
        *shared.tops.lock().expect("no panic") = vec![0; plan.topics as usize];
        let (own, clients) = (Arc::clone(&shared), plan.clients);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(follow_all(plan, own));
        });
        Herd { shared, thread: Mutex::new(Some(thread)), clients }
    }

    /// Clients that have a subscription which was answered.
    pub(crate) fn live(&self) -> u64 {
        self.shared.live.load(Ordering::SeqCst)
    }

    /// Messages that were heard by all together.
    pub(crate) fn heard(&self) -> u64 {
        self.shared.heard.load(Ordering::SeqCst)
    }

    /// Attempts to connect that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::SeqCst)
    }

    /// Times that a client was told to come back.
    pub(crate) fn farewells(&self) -> u64 {
        self.shared.farewells.load(Ordering::SeqCst)
    }

    /// From now on it is counted how long clients take to be live again.
    pub(crate) fn begin_again(&self) {
        *self.shared.begun.lock().expect("no panic") = Some(Instant::now());
    }

    /// How long it took until so many of a hundred were live again.
    pub(crate) fn live_again(&self, percent: usize) -> Duration {
        let mut returns = self.shared.returns.lock().expect("no panic").clone();
        returns.sort_unstable();
        let index = (returns.len() * percent / 100).min(returns.len().saturating_sub(1));
        returns.get(index).copied().unwrap_or_default()
    }

    /// Waits until it is so.
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Herd) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            self.check();
            assert!(begin.elapsed() < PATIENCE, "{what}: not in time; {}", self.state());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn check(&self) {
        let fault = self.shared.fault.lock().expect("no panic").clone();
        assert_eq!(fault, None, "{}", self.state());
    }

    fn state(&self) -> String {
        let mut table = Table::new("The clients");
        table.row("live", self.live());
        table.row("heard", self.heard());
        table.row("failures", self.failures());
        table.row("done", self.shared.done.load(Ordering::SeqCst));
        table.to_string()
    }

    /// Ends publishing and waits until everybody has heard everything. Returns how much that was.
    pub(crate) fn finish(&self, log: &str) -> u64 {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let clients = self.clients;
        self.until("all have heard everything", |herd| {
            herd.shared.done.load(Ordering::SeqCst) == clients
        });
        let thread = self.thread.lock().expect("no panic").take();
        thread.expect("it runs").join().unwrap_or_else(|_| panic!("{log}"));
        self.check();
        self.shared.tops.lock().expect("no panic").iter().sum()
    }
}

async fn follow_all(plan: Plan, shared: Arc<Shared>) {
    let Plan { address, clients, topics, mut tokens } = plan;
    let publisher = publish(address, tokens.pop().unwrap_or_default(), Arc::clone(&shared));
    let local = tokio::task::LocalSet::new();
    local.spawn_local(publisher);
    let mut tasks = Vec::new();
    for (number, token) in (0..clients).zip(tokens) {
        let chance = Random::new(number);
        let follower = Follower::new(address, (number, number % topics), token, chance);
        tasks.push(local.spawn_local(follower.follow(Arc::clone(&shared))));
    }
    local
        .run_until(async {
            for task in tasks {
                task.await.expect("no panic");
            }
        })
        .await;
}
