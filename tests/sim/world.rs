//! A run: one broker, its clients, and chance, which decides who acts next.
//! # Invariants: all that happens follows from the seed; what clients see goes into the history.
//! # Not here: what is right or wrong (`checker`).

use crate::broker::Life;
use crate::client::{Client, Pace};
use crate::history::{Command, Content, Event, Fact, Payload, Position, Publish, Query, Record};
use crate::history::{Overflow, Subscribe, TopicPosition};
use crate::random::Random;
use crate::scenario::{Action, Scenario};
use crate::socket::Pipe;
use crate::spelling::encode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
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
    life: Life,
    clients: Vec<Client>,
    history: Vec<Record>,
    /// Publishes with an idempotency key, for asking again.
    keyed: Vec<Publish>,
    /// The number of the publisher beside the connections, anew in each life.
    direct: u64,
    next_connection: u64,
    next_content: u64,
    trace: Trace,
}

/// How clients read, as often as it stands here.
const PACES: [Pace; 5] = [Pace::Fast, Pace::Fast, Pace::Crawling, Pace::Crawling, Pace::Stalled];

/// Time that passes in one step takes at most this many ticks.
const TICK_MS: u64 = 1_000;

/// Ticks after which nothing of a client that has gone may be left: longer than every age, window
/// and quiet time of a scenario.
const TICKS_TO_EMPTY: u64 = 130;

/// Rounds in which a run without new commands must become quiet.
const ROUNDS_MAX: usize = 20_000;

impl World {
    fn new(seed: u64, trace: Trace) -> World {
        let mut chance = Random::new(seed);
        let scenario = Scenario::draw(&mut chance);
        let life = Life::new(&scenario, Now::at_ms(0), chance.bits());
        let mut client = |number| {
            let mut client = Client::new(number, Wire::ALL[chance.below(Wire::COUNT)]);
            client.pace = *chance.pick(&PACES).expect("not empty");
            client
        };
        let clients = (1..=scenario.clients as u64).map(&mut client).collect();
        let mut world = World {
            chance,
            now_ms: 0,
            life,
            clients,
            history: Vec::new(),
            keyed: Vec::new(),
            direct: 0,
            next_connection: 1,
            next_content: 1,
            trace,
            scenario,
        };
        if world.trace == Trace::Told {
            println!("{:#?}", world.scenario);
        }
        world.note(Fact::Begin(world.scenario.terms()));
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
            Action::AskHistory => self.ask_history(),
            Action::Ping => self.ping(),
            Action::Leave => self.some_client().leave(),
            Action::Cut => self.cut(),
            Action::ChangePace => self.change_pace(),
            Action::Sweep => self.life.sweep(),
            Action::CloseAll => self.life.close_all(),
            Action::Crash => self.crash(),
        }
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
        self.life = Life::new(&self.scenario, Now::at_ms(self.now_ms), self.chance.bits());
        self.open_direct();
    }

    // === What clients do ===

    fn open_direct(&mut self) {
        self.direct = self.take_connection();
        self.note(Fact::Open { connection: self.direct, client: 0, wire: "direct".into() });
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
        let connection = self.take_connection();
        let width = self.scenario.width(&mut self.chance);
        let pipe = Pipe::new(width, Random::new(self.chance.bits()));
        let client = &mut self.clients[index];
        let (number, wire) = (client.number, client.wire);
        client.connected(connection, std::rc::Rc::clone(&pipe));
        let station = self.chance.below(self.scenario.shards);
        self.life.open(station, pipe, wire);
        self.note(Fact::Open { connection, client: number, wire: wire.name().into() });
        if self.chance.chance(20) {
            self.send(index, Command::Connect {});
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

    /// What nobody has said yet.
    fn draw_content(&mut self) -> Content {
        let number = self.next_content;
        self.next_content += 1;
        let padding = "x".repeat(self.chance.below(self.scenario.padding + 1));
        let payload = match self.chance.below(3) {
            0 => Payload::Data(format!(r#"{{"n":{number},"of":"{padding}"}}"#)),
            1 => Payload::Text(format!("{number} \"{padding}\"")),
            _ => Payload::Base64(BASE64.encode(format!("{number} {padding}"))),
        };
        let key = if self.chance.chance(20) { format!("k{}", number % 3) } else { String::new() };
        Content { key, payload }
    }

    fn draw_publish(&mut self) -> Publish {
        let (topic, content) = (self.some_topic(), self.draw_content());
        let idempotency_key = match self.chance.below(20) {
            0..=3 => format!("i{}", self.next_content),
            4 => format!("i{}", self.chance.below(4)),
            _ => String::new(),
        };
        let publish = Publish { topic, content, idempotency_key };
        if !publish.idempotency_key.is_empty() {
            self.keyed.push(publish.clone());
        }
        publish
    }

    fn publish(&mut self) {
        let index = self.chance.below(self.clients.len());
        for _ in 0..self.chance.within(1..=4) {
            if self.clients[index].link.is_some() {
                let publish = self.draw_publish();
                self.send(index, Command::Publish(publish));
            }
        }
    }

    /// Asks again what was asked before, most likely lately, or with a key that means something
    /// else already.
    fn retry(&mut self) {
        let lately = self.keyed.len().saturating_sub(4);
        let from = if self.chance.chance(80) { lately } else { 0 };
        let Some(publish) = self.chance.pick(&self.keyed[from..]).cloned() else { return };
        let publish = if self.chance.chance(20) {
            Publish { content: self.draw_content(), ..publish }
        } else {
            publish
        };
        if self.chance.chance(50) {
            let index = self.chance.below(self.clients.len());
            self.send(index, Command::Publish(publish));
        } else {
            self.publish_beside(publish);
        }
    }

    fn publish_directly(&mut self) {
        for _ in 0..self.chance.within(1..=4) {
            let publish = self.draw_publish();
            self.publish_beside(publish);
        }
    }

    fn publish_beside(&mut self, publish: Publish) {
        let command = Command::Publish(publish);
        let id = self.history.len() as u64 + 1;
        let bytes = encode(id, &command, Wire::WebSocketJson);
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("our own JSON");
        let result = self.life.publish(value["publish"].to_string().as_bytes());
        let event = match result {
            Ok(position) => Event::Published(place(position)),
            Err(refusal) => Event::Error { name: refusal.reason.name().into() },
        };
        self.note(Fact::Sent { connection: self.direct, id, command });
        self.note(Fact::Heard { connection: self.direct, id, event });
    }

    fn subscribe(&mut self) {
        let index = self.chance.below(self.clients.len());
        let overflow = if self.chance.chance(35) { Overflow::Disconnect } else { Overflow::Gap };
        let (mut last, mut snapshot) = (0, false);
        match self.chance.below(10) {
            0 | 1 => last = u32::try_from(self.chance.within(1..=5)).expect("small"),
            2 | 3 => snapshot = true,
            4 => (last, snapshot) = (2, true),
            _ => {}
        }
        let topic = match self.chance.below(20) {
            0 => "a..b".into(),
            1..=7 => (*self.chance.pick(&self.scenario.filters).expect("at least one")).into(),
            _ => self.some_topic(),
        };
        let is_valid = topic != "a..b";
        let mut subscribe = Subscribe { topic, last, snapshot, overflow, ..Subscribe::default() };
        if is_valid && self.chance.chance(60) {
            subscribe = self.clients[index].going_on(&subscribe);
            self.disturb(&mut subscribe);
        }
        self.send(index, Command::Subscribe(subscribe));
    }

    /// Some clients ask for more than they missed, or for what never was.
    fn disturb(&mut self, subscribe: &mut Subscribe) {
        let since = subscribe.since.iter_mut();
        for position in since.chain(subscribe.positions.iter_mut().map(|p| &mut p.position)) {
            match self.chance.below(12) {
                0..=2 => position.offset = position.offset.saturating_sub(self.chance.bits() % 6),
                3 => position.offset += 1 + self.chance.bits() % 3,
                4 => position.epoch = format!("AAAAAAAAAAAAAAAAAAAAA{}", self.chance.below(10)),
                _ => {}
            }
        }
        if self.chance.chance(10) && subscribe.topic.contains('>') {
            let topic = self.some_topic();
            let epoch = "AAAAAAAAAAAAAAAAAAAAAA".to_owned();
            if subscribe.positions.iter().all(|position| position.topic != topic) {
                let position = Position { epoch, offset: 1 };
                subscribe.positions.push(TopicPosition { topic, position });
            }
        }
    }

    fn unsubscribe(&mut self) {
        let index = self.chance.below(self.clients.len());
        let targets: Vec<String> = self.clients[index].wants.keys().cloned().collect();
        let topic = match self.chance.pick(&targets) {
            Some(target) if self.chance.chance(90) => target.clone(),
            _ => self.some_topic(),
        };
        self.send(index, Command::Unsubscribe { topic });
    }

    fn ask_history(&mut self) {
        let index = self.chance.below(self.clients.len());
        let topic = self.some_topic();
        let since = self.clients[index].places.get(&topic).cloned();
        let since = since.filter(|_| self.chance.chance(50)).map(|mut position| {
            position.offset = position.offset.saturating_sub(self.chance.bits() % 6);
            position
        });
        let limit = u32::try_from(self.chance.below(6)).expect("small");
        self.send(index, Command::History(Query { topic, since, limit }));
    }

    // === Endings ===

    /// Lets everything that is on its way arrive, without time passing.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for index in (0..self.life.served.len()).rev() {
                moved |= self.life.read(index);
            }
            for station in 0..self.scenario.shards {
                moved |= self.life.turn(station);
                for index in (0..self.life.stations[station].full.len()).rev() {
                    moved |= self.life.pump(station, index);
                }
            }
            let before = self.history.len();
            for client in &mut self.clients {
                let waiting = client.link.as_ref().map_or(0, |link| link.pipe.waiting());
                client.receive(usize::MAX, self.now_ms, &mut self.history);
                moved |= waiting > 0;
            }
            if !moved && self.history.len() == before {
                return;
            }
        }
        self.note(Fact::Restless {});
    }

    fn quiet(&mut self) {
        let before = self.history.len();
        self.settle();
        let mut tops = Vec::new();
        for topic in &self.scenario.topics {
            if let Some(position) = self.life.top(topic) {
                tops.push(TopicPosition { topic: (*topic).into(), position: place(position) });
            }
        }
        self.note(Fact::Quiet { tops });
        if self.trace == Trace::Told {
            println!("{:>7} ms  Quiet", self.now_ms);
            for record in &self.history[before..] {
                println!(
                    "            {}",
                    serde_json::to_string(&record.fact).expect("plain data")
                );
            }
        }
    }

    /// Everybody goes, some in good order and some not, and time passes.
    fn empty(&mut self) {
        for client in &mut self.clients {
            if self.chance.chance(50) {
                client.leave();
            } else {
                client.cut(self.now_ms, &mut self.history);
            }
        }
        self.settle();
        for _ in 0..TICKS_TO_EMPTY {
            self.pass_ms(TICK_MS);
            self.life.sweep();
        }
        self.settle();
        let gauges = self.life.gauges();
        self.note(Fact::Empty { gauges });
    }
}

fn place(position: fanfare::topics::message::Position) -> Position {
    Position { epoch: position.epoch.to_string(), offset: position.offset.0 }
}
