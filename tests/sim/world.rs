//! A run: one broker, its clients, and chance, which decides who acts next.
//! # Invariants: all that happens follows from the seed; what clients see goes into the history.
//! # Not here: what clients ask for (`commands`), quiet and the end (`endings`), what is right or
//! wrong (`checker`).

mod commands;
mod endings;

use crate::broker::Life;
use crate::client::{Client, Pace};
use crate::history::{Command, Fact, Position, Publish, Record};
use crate::random::Random;
use crate::scenario::{Action, Scenario};
use crate::socket::{Pipe, SimClock};
use fanfare::clock::Now;
use fanfare::topics::message::Wire;

/// Whether a run says what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Silent,
    Told,
}

/// Runs a seed to its end.
pub(crate) fn run(seed: u64, trace: Trace) -> Vec<Record> {
    let _named = Named(seed);
    let mut world = World::new(seed, trace);
    let steps = world.scenario.steps;
    for step in 0..steps {
        world.step();
        if step == steps / 2 {
            world.quiet();
        }
    }
    world.quiet();
    world.empty();
    world.history
}

/// Names the seed whose run panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {} panics; replay it with: just sim {}", self.0, self.0);
        }
    }
}

struct World {
    chance: Random,
    scenario: Scenario,
    now_ms: u64,
    /// The same, for sockets.
    clock: SimClock,
    life: Life,
    clients: Vec<Client>,
    history: Vec<Record>,
    /// Publishes with an idempotency key, for asking again.
    keyed: Vec<Publish>,
    /// The number of the publisher beside the connections, anew in each life.
    direct: u64,
    next_connection: u64,
    next_content: u64,
    /// The most that waited for all connections when that was last noted.
    most_held: u64,
    trace: Trace,
}

/// How clients read, as often as it stands here.
const PACES: [Pace; 5] = [Pace::Fast, Pace::Fast, Pace::Crawling, Pace::Crawling, Pace::Stalled];

/// Time that passes in one step takes at most this many ticks.
const TICK_MS: u64 = 1_000;

/// Ticks after which nothing of a client that has gone may be left: longer than every age, window
/// and quiet time of a scenario.
const TICKS_TO_EMPTY: u64 = 130;

/// What connections begin with.
const WIRES: [Wire; 3] = [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto];

/// Rounds in which a run without new commands must become quiet.
const ROUNDS_MAX: usize = 20_000;

impl World {
    fn new(seed: u64, trace: Trace) -> World {
        let mut chance = Random::new(seed);
        let scenario = Scenario::draw(&mut chance);
        let life = Life::new(&scenario, Now::at_ms(0), chance.bits());
        let mut client = |number| {
            let mut client = Client::new(number, WIRES[chance.below(WIRES.len())]);
            client.pace = *chance.pick(&PACES).expect("not empty");
            client
        };
        let clients = (1..=scenario.clients as u64).map(&mut client).collect();
        let mut world = World {
            chance,
            now_ms: 0,
            clock: SimClock::default(),
            life,
            clients,
            history: Vec::new(),
            keyed: Vec::new(),
            direct: 0,
            next_connection: 1,
            next_content: 1,
            most_held: 0,
            trace,
            scenario,
        };
        if world.trace == Trace::Told {
            println!("{:#?}", world.scenario);
        }
        world.note(Fact::Begin(world.scenario.promise()));
        world.open_direct();
        world
    }

    fn step(&mut self) {
        let action = self.scenario.action(&mut self.chance);
        let before = self.history.len();
        match action {
            Action::Read => drop(self.read_some()),
            Action::Turn => {
                let station = self.chance.below(self.scenario.shards);
                self.life.turn(station);
            }
            Action::Pump => self.pump_one(),
            Action::Receive => self.receive(),
            Action::Pass => self.pass(),
            Action::Connect => self.connect(),
            Action::Publish => self.publish(),
            Action::Retry => self.retry(),
            Action::PublishDirectly => self.publish_directly(),
            Action::Subscribe => self.subscribe(),
            Action::Unsubscribe => self.unsubscribe(),
            Action::Update => self.update(),
            Action::AskHistory => self.ask_history(),
            Action::AskPresence => self.ask_presence(),
            Action::Ping => self.ping(),
            Action::SayHello => {
                let index = self.chance.below(self.clients.len());
                self.say_hello(index);
            }
            Action::Leave => self.some_client().leave(),
            Action::Cut => self.cut(),
            Action::ChangePace => self.change_pace(),
            Action::Sweep => self.life.sweep(),
            Action::CloseAll => self.life.close_all(),
            Action::Crash => self.crash(),
        }
        self.note_most();
        if self.trace == Trace::Told {
            println!("{:>7} ms  {action:?}", self.now_ms);
            for record in &self.history[before..] {
                println!(
                    "            {}",
                    serde_json::to_string(&record.fact).expect("plain data")
                );
            }
        }
    }

    fn note(&mut self, fact: Fact) {
        self.history.push(Record { at: self.now_ms, fact });
    }

    /// Notes how much waits for all connections when it has become more by what matters.
    fn note_most(&mut self) {
        if let Some(held) = self.life.most(self.most_held) {
            self.most_held = held.bytes;
            self.note(Fact::Held(held));
        }
    }

    fn some_client(&mut self) -> &mut Client {
        let index = self.chance.below(self.clients.len());
        &mut self.clients[index]
    }

    /// A topic, mostly one of those that the scenario has a rule for.
    fn some_topic(&mut self) -> String {
        (*self.chance.pick(&self.scenario.topics).expect("at least one")).to_owned()
    }

    // === What the broker does ===

    fn read_some(&mut self) -> bool {
        if self.life.served.is_empty() {
            return false;
        }
        let index = self.chance.below(self.life.served.len());
        self.life.read(index)
    }

    fn pump_one(&mut self) {
        let station = self.chance.below(self.scenario.shards);
        let full = self.life.stations[station].full.len();
        if full > 0 {
            let index = self.chance.below(full);
            self.life.pump(station, index);
        }
    }

    fn pass(&mut self) {
        let passed = self.chance.below(self.scenario.pass_ms + 1) as u64;
        self.pass_ms(passed);
    }

    fn pass_ms(&mut self, passed: u64) {
        let ticks = (self.now_ms + passed) / TICK_MS - self.now_ms / TICK_MS;
        self.now_ms += passed;
        self.clock.set(self.now_ms);
        self.life.now = Now::at_ms(self.now_ms);
        for _ in 0..ticks {
            for station in 0..self.scenario.shards {
                self.life.tick(station);
            }
        }
    }

    fn crash(&mut self) {
        self.life.crash();
        // What the kernel still has of it reaches the clients; they read it as coming from before.
        self.note(Fact::Closed { connection: self.direct, by: crate::history::Ending::Cut });
        self.note(Fact::Crash {});
        self.most_held = 0;
        self.life = Life::new(&self.scenario, Now::at_ms(self.now_ms), self.chance.bits());
        self.open_direct();
    }

    // === What clients do ===

    fn open_direct(&mut self) {
        self.direct = self.take_connection();
        self.note(Fact::Open {
            connection: self.direct,
            client: 0,
            wire: "direct".into(),
            name: String::new(),
        });
    }

    fn take_connection(&mut self) -> u64 {
        self.next_connection += 1;
        self.next_connection - 1
    }

    fn connect(&mut self) {
        let index = self.chance.below(self.clients.len());
        if self.clients[index].link.is_some() {
            return;
        }
        if self.life.turns_away() {
            return self.note(Fact::TurnedAway {});
        }
        let connection = self.take_connection();
        let width = self.scenario.width(&mut self.chance);
        let pipe = Pipe::new(width, Random::new(self.chance.bits()), SimClock::clone(&self.clock));
        let client = &mut self.clients[index];
        let (number, wire) = (client.number, client.wire);
        client.connected(connection, std::rc::Rc::clone(&pipe));
        let station = self.chance.below(self.scenario.shards);
        let name = self.life.open(station, pipe, wire);
        self.note(Fact::Open { connection, client: number, wire: wire.name().into(), name });
        if self.chance.chance(45) {
            self.say_hello(index);
        }
        for command in self.clients[index].resumes() {
            self.send(index, command);
        }
    }

    fn send(&mut self, index: usize, command: Command) {
        if let Some(fact) = self.clients[index].send(command) {
            self.note(fact);
        }
    }

    fn receive(&mut self) {
        let index = self.chance.below(self.clients.len());
        let most = self.clients[index].appetite(&mut self.chance);
        if most > 0 {
            self.clients[index].receive(most, self.now_ms, &mut self.history);
        }
    }

    fn cut(&mut self) {
        let index = self.chance.below(self.clients.len());
        if let Some(link) = &self.clients[index].link
            && self.chance.chance(50)
        {
            // What it sent last may be lost too.
            link.pipe.up.borrow_mut().clear();
        }
        self.clients[index].cut(self.now_ms, &mut self.history);
    }

    fn change_pace(&mut self) {
        let pace = *self.chance.pick(&PACES).expect("not empty");
        self.some_client().pace = pace;
    }

    fn ping(&mut self) {
        let index = self.chance.below(self.clients.len());
        self.send(index, Command::Ping {});
    }
}

fn place(position: fanfare::topics::message::Position) -> Position {
    Position { epoch: position.epoch.to_string(), offset: position.offset.0 }
}
