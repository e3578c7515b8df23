//! One life of the broker: its registry, its shards and its sessions, without threads or a runtime.
//! What the runtime does around a shard is done here step by step: waking it, waiting for sockets,
//! reading, removing what has ended.
//! # Invariants: a shard works only when something woke it, and a full socket is written to only
//! when the shard asked for that: a wake-up that is lost shows.
//! # Not here: clients, what happens next (`world`).

use crate::history::{Held, Member, Roster};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::socket::{End, ServerEnd, SimSocket, Upward};
use crate::spelling::dialect;
use fanfare::auth::{Authority, Guard};
use fanfare::clock::Now;
use fanfare::dialect::decode_draft;
use fanfare::engine::Engine;
use fanfare::metrics::Counters;
use fanfare::reason::{Reason, Refusal};
use fanfare::session::{Broker, Close, Session};
use fanfare::shard::pressure::{Budget, Pressure};
use fanfare::shard::{ConnectionId, Progress, Shard};
use fanfare::topics::mailbox::Mailbox;
use fanfare::topics::message::{Position, Wire};
use fanfare::topics::name::TopicName;
use fanfare::topics::registry::{Recent, Registry};
use fanfare::topics::rule::Snapshot;
use fanfare::topics::topic::ShardId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) struct Life {
    registry: Arc<Registry>,
    broker: Arc<Broker>,
    mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) stations: Vec<Station>,
    pub(crate) served: Vec<Served>,
    /// What comes in beside the connections counts here.
    direct: Counters,
    pub(crate) now: Now,
    /// What may wait for all connections, if that is bounded.
    budget_bytes: Option<usize>,
    /// The most that has waited for all of them when a shard looked.
    most: Held,
}

/// A shard, and what its thread would remember for it.
pub(crate) struct Station {
    shard: Shard<ServerEnd>,
    counters: Arc<Counters>,
    woken: Arc<AtomicBool>,
    /// The slice before was not the last: the thread goes on without being woken again.
    is_busy: bool,
    /// Until when the thread sleeps if nobody wakes it.
    alarm: Option<Duration>,
    /// The most that has waited here for each connection.
    peak: Held,
    /// Connections whose socket was full and which are to be written to when it is not.
    pub(crate) full: Vec<ConnectionId>,
}

/// A connection from the server's side.
pub(crate) struct Served {
    station: usize,
    id: ConnectionId,
    wire: Wire,
    session: Session,
    pipe: SimSocket,
}

impl Life {
    pub(crate) fn new(scenario: &Scenario, now: Now, seed: u64) -> Life {
        let mut mailboxes = Vec::new();
        let mut wakers = Vec::new();
        for _ in 0..scenario.shards {
            let woken = Arc::new(AtomicBool::new(false));
            let waker = Arc::clone(&woken);
            let wake = move || waker.store(true, Ordering::Relaxed);
            mailboxes.push(Arc::new(Mailbox::new(scenario.mailbox, wake)));
            wakers.push(woken);
        }
        let drawn = AtomicU64::new(seed);
        let epochs = move || {
            let mut chance = Random::new(drawn.fetch_add(1, Ordering::Relaxed));
            Some(u128::from(chance.bits()) << 64 | u128::from(chance.bits()))
        };
        let registry =
            Arc::new(Registry::new(scenario.registry.clone(), mailboxes.clone(), Box::new(epochs)));
        let counters: Vec<Arc<Counters>> = wakers.iter().map(|_| Arc::default()).collect();
        let budget_bytes = scenario.budget_bytes;
        let budget = Arc::new(Budget::new(budget_bytes.unwrap_or(usize::MAX), counters.clone()));
        let station = |(index, (woken, counters))| {
            let id = ShardId::new(index).expect("few shards");
            let (registry, budget) = (Arc::clone(&registry), Arc::clone(&budget));
            let shard = Shard::new(id, registry, scenario.shard, Arc::clone(&counters), budget);
            let peak = Held { shard: Some(index as u64), connections: 0, bytes: 0 };
            let (is_busy, alarm, full) = (false, None, Vec::new());
            Station { shard, counters, woken, is_busy, alarm, peak, full }
        };
        let stations = wakers.into_iter().zip(counters).enumerate().map(station).collect();
        let engine = Engine::memory(Arc::clone(&registry));
        let broker = Arc::new(Broker {
            engine,
            guard: Arc::new(Guard::new(Authority::open())),
            limits: scenario.limits,
            ping_ms: 25_000,
            clock: fanfare::clock::Clock::start(),
            budget,
        });
        Life {
            registry,
            broker,
            mailboxes,
            stations,
            served: Vec::new(),
            direct: Counters::default(),
            now,
            budget_bytes,
            most: Held { shard: None, connections: 0, bytes: 0 },
        }
    }

    /// Whether new connections are refused before they begin.
    pub(crate) fn turns_away(&self) -> bool {
        self.broker.budget.pressure() >= Pressure::RefuseNew
    }

    /// Takes in a connection. Returns what the broker calls it.
    pub(crate) fn open(&mut self, station: usize, pipe: SimSocket, wire: Wire) -> String {
        let socket = ServerEnd(SimSocket::clone(&pipe));
        let id = self.with(station, |shard| shard.open(socket, wire));
        let name = self.stations[station].shard.name_of(id);
        let session = Session::new(Arc::clone(&self.broker), id);
        self.served.push(Served { station, id, wire, session, pipe });
        name
    }

    /// Runs `act` with a shard and sees to what it left to do, as the shard's thread does.
    fn with<T>(&mut self, station: usize, act: impl FnOnce(&mut Shard<ServerEnd>) -> T) -> T {
        let Station { shard, woken, full, counters, peak, .. } = &mut self.stations[station];
        shard.set_now(self.now);
        let result = act(shard);
        full.extend(shard.take_newly_blocked());
        if shard.has_work() || shard.take_rescheduled() {
            woken.store(true, Ordering::Relaxed);
        }
        let (connections, bytes) = (shard.connection_count() as u64, counters.outbound_bytes.get());
        if bytes * peak.connections.max(1) > peak.bytes * connections.max(1) {
            *peak = Held { connections, bytes, ..*peak };
        }
        result
    }

    /// Reads one thing that a client sent, or notices the end. Returns whether anything happened.
    pub(crate) fn read(&mut self, index: usize) -> bool {
        let Served { station, id, pipe, .. } = &self.served[index];
        let (station, id, pipe) = (*station, *id, SimSocket::clone(pipe));
        let is_drained = pipe.up.borrow().is_empty();
        let is_over = self.with(station, |shard| shard.is_ending(id) && !shard.has_outbound(id));
        if pipe.aborted.get() || is_over || is_drained && pipe.client.get() != End::Open {
            self.served.swap_remove(index);
            self.with(station, |shard| shard.remove(id));
            return true;
        }
        if is_drained {
            return false;
        }
        if self.with(station, |shard| shard.is_open(id) && shard.is_congested(id)) {
            self.with(station, |shard| shard.flush(id));
            return false;
        }
        let Some(upward) = pipe.up.borrow_mut().pop_front() else { return false };
        let mut served = self.served.swap_remove(index);
        self.with(station, |shard| served.take(upward, shard));
        self.served.push(served);
        true
    }

    /// Lets a shard do a slice of its work, if it was woken or has not finished.
    pub(crate) fn turn(&mut self, station: usize) -> bool {
        let Station { woken, is_busy, alarm, .. } = &self.stations[station];
        let is_due = alarm.is_some_and(|due| due <= self.now.uptime);
        if !*is_busy && !woken.swap(false, Ordering::Relaxed) && !is_due {
            return false;
        }
        self.note_most();
        let progress = self.with(station, Shard::turn);
        let is_busy = progress == Progress::More;
        self.stations[station].is_busy = is_busy;
        if !is_busy {
            self.stations[station].alarm = self.with(station, |shard| shard.next_due());
        }
        true
    }

    /// Notes how much waits for all connections, as a shard is about to find it.
    fn note_most(&mut self) {
        let bytes = self.stations.iter().map(|station| station.counters.outbound_bytes.get()).sum();
        if bytes > self.most.bytes {
            let connections = self.served.len() as u64;
            self.most = Held { shard: None, connections, bytes };
        }
    }

    /// The most that has waited for all connections, when it is more than `before` by what matters.
    pub(crate) fn most(&self, before: u64) -> Option<Held> {
        let percent = |bytes: u64| bytes * 100 / self.budget_bytes.unwrap_or(usize::MAX) as u64;
        let level = |bytes: u64| [70, 80, 90, 100].map(|from| percent(bytes) >= from);
        (self.budget_bytes.is_some() && level(before) != level(self.most.bytes))
            .then_some(self.most)
    }

    /// The most that has waited for the connections of each shard.
    pub(crate) fn peaks(&self) -> impl Iterator<Item = Held> {
        self.stations.iter().map(|station| station.peak).filter(|peak| peak.bytes > 0)
    }

    /// When something is due that no event will bring about, at the earliest.
    pub(crate) fn next_alarm(&self) -> Option<Duration> {
        self.stations.iter().filter_map(|station| station.alarm).min()
    }

    /// Writes to a socket that was full, if it takes bytes again.
    pub(crate) fn pump(&mut self, station: usize, index: usize) -> bool {
        let id = self.stations[station].full[index];
        let socket = self.stations[station].shard.socket(id);
        let is_writable = match socket {
            Some(ServerEnd(pipe)) => pipe.is_writable(),
            None => true,
        };
        if !is_writable {
            return false;
        }
        let is_blocked = self.with(station, |shard| {
            shard.flush(id);
            shard.is_blocked(id)
        });
        if !is_blocked {
            self.stations[station].full.swap_remove(index);
        }
        true
    }

    /// A second has passed for this shard.
    pub(crate) fn tick(&mut self, station: usize) {
        self.with(station, Shard::tick);
        self.stations[station].woken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn sweep(&self) {
        self.registry.sweep(self.now);
    }

    pub(crate) fn close_all(&mut self) {
        for station in 0..self.stations.len() {
            self.with(station, |shard| shard.close_all(&Reason::GoingAway.into()));
        }
    }

    /// Publishes what came in beside the connections.
    pub(crate) fn publish(&self, json: &[u8]) -> Result<Position, Refusal> {
        let mut recent = Recent::default();
        let committed =
            self.broker.publish(&mut recent, decode_draft(json)?, &self.direct, self.now)?;
        Ok(committed.position())
    }

    /// The position of the latest message of a topic, if there is such a topic.
    pub(crate) fn top(&self, topic: &str) -> Option<Position> {
        let topic = TopicName::parse(topic).expect("a topic");
        self.registry
            .history(&topic, None, 1, self.now)
            .expect("without a position")
            .map(|page| page.top)
    }

    /// Who is listed in a topic; nothing where nobody ever is.
    pub(crate) fn roster(&self, topic: &str) -> Option<Roster> {
        let there = self.registry.attendance(&TopicName::parse(topic).expect("a topic")).ok()?;
        let member = |member: &fanfare::topics::message::Member| Member {
            connection: member.connection.to_string(),
            name: member.name.as_deref().unwrap_or_default().to_owned(),
        };
        let members = there.members.iter().map(member).collect();
        Some(Roster { count: there.count, more: there.has_more(), members })
    }

    /// Ends every connection as a crash does: nobody is told.
    pub(crate) fn crash(&mut self) {
        for served in self.served.drain(..) {
            served.pipe.server.set(End::Cut);
        }
    }

    /// What must be 0 when nobody is there and enough time has passed.
    pub(crate) fn gauges(&self, topics: &[&str]) -> BTreeMap<String, u64> {
        let mut gauges = BTreeMap::new();
        let mut add = |name: &str, value: u64| {
            let sum: &mut u64 = gauges.entry(name.to_owned()).or_default();
            *sum = sum.wrapping_add(value);
        };
        for Station { counters, shard, .. } in &self.stations {
            for wire in Wire::ALL {
                add(&format!("connections {}", wire.name()), counters.connections.of(wire).get());
            }
            add("topic subscriptions", counters.topic_subscriptions.get());
            add("filter subscriptions", counters.filter_subscriptions.get());
            add("outbound bytes", counters.outbound_bytes.get());
            add("blocked connections", counters.blocked.get());
            add("local topics", counters.local_topics.get());
            add("connections in shards", shard.connection_count() as u64);
            add("things that are due", u64::from(shard.next_due().is_some()));
            add("work", u64::from(shard.has_work()));
        }
        for mailbox in &self.mailboxes {
            add("mailbox depth", mailbox.depth() as u64);
        }
        for topic in topics {
            add("members", self.roster(topic).map_or(0, |roster| roster.count));
        }
        // A topic that keeps its keys stays for as long as it has any.
        let rules = &self.registry.rules().ordered;
        let keeps_keys = rules.iter().filter(|(topic, rule)| {
            rule.snapshot != Snapshot::Latest && self.top(topic.as_str()).is_some()
        });
        let kept = keeps_keys.count() as u64;
        add("topics", self.registry.topic_count() as u64 - kept);
        if kept == 0 {
            add("history bytes", self.registry.history_bytes() as u64);
        }
        add("idempotency keys", self.registry.idempotency().used() as u64);
        gauges
    }
}

impl Served {
    /// What the reader of a connection does with one thing that was sent.
    fn take(&mut self, upward: Upward, shard: &mut Shard<ServerEnd>) {
        if !shard.is_open(self.id) {
            return;
        }
        match upward {
            Upward::Command(bytes) => {
                shard.heard(self.id, bytes.len());
                let command = dialect(self.wire).decode(&bytes);
                if let Err(Close(refusal)) = self.session.handle(command, shard) {
                    shard.close(self.id, &refusal);
                }
            }
            Upward::Pong => shard.heard(self.id, 6),
            Upward::Close(code) => {
                shard.heard(self.id, 8);
                shard.close_answered(self.id, Some(code));
            }
        }
        shard.flush(self.id);
    }
}
