//! Permission on every way a message can take, against an oracle that tries every topic.
//!
//! Worlds are made by chance: who may do what, and what everybody asks for. In each, everybody
//! publishes, reads history and presence, resumes, takes snapshots and subscribes, on both wires of
//! protobuf; then rights change while the subscriptions are alive. What came out is compared with
//! what the oracle allows, for each identity, topic and way.
//! # Invariants: the oracle shares no code with what it judges: it compares texts, segment by segment.
//! # Not here: HTTP and real sockets (`tests/it/identity.rs`), how filters contain each other
//! (`topics::name`).

use super::{Broker, Session};
use crate::auth::{ApiToken, Ask, Authority, Grants, Guard, Hash, Revocation, Rules};
use crate::clock::{Clock, Now};
use crate::dialect::schema::{self, event::Body};
use crate::dialect::{Action, Command, Connect, History, Subscribe, Token, TopicPosition};
use crate::engine::Engine;
use crate::limits::Limits;
use crate::shard::outbound::Socket;
use crate::shard::pressure::Budget;
use crate::shard::{ConnectionId, Progress, Shard, ShardOptions, Standing};
use crate::topics::mailbox::{Mailbox, MailboxOptions};
use crate::topics::message::{Draft, Payload, Wire};
use crate::topics::name::{Target, TopicFilter, TopicName};
use crate::topics::registry::{Recent, Registry, RegistryOptions};
use crate::topics::rule::{Presence, Rule, Rules as TopicRules};
use crate::topics::topic::ShardId;
use prost::Message as _;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

/// How many triples of an identity, a topic and a rule on one way are compared. Set the variable
/// `FANFARE_ORACLE_TRIPLES` for another number.
const TRIPLES: usize = 1_000_000;
const PEOPLE: usize = 24;
const NOW: Now = Now::at_ms(1_800_000_000_000);

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("small") % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// One to three segments, some of them wildcards.
    fn filter(&mut self) -> String {
        let count = 1 + self.below(3);
        let mut parts: Vec<&str> = (0..count).map(|_| *self.pick(&["a", "b", "c", "*"])).collect();
        if self.below(4) == 0 {
            parts.push(">");
        }
        parts.join(".")
    }

    fn filters(&mut self) -> Vec<String> {
        (0..self.below(4)).map(|_| self.filter()).collect()
    }
}

// === The oracle ===

fn covers(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) =
        (filter.split('.').collect(), topic.split('.').collect());
    let (fixed, open) = match filter.split_last() {
        Some((&">", fixed)) => (fixed, true),
        _ => (&filter[..], false),
    };
    let lengths = if open { topic.len() > fixed.len() } else { topic.len() == fixed.len() };
    lengths && fixed.iter().zip(&topic).all(|(part, name)| *part == "*" || part == name)
}

/// Every topic that the filters of a world can tell apart: a letter that none has among them, and
/// two segments more than any has.
struct Oracle {
    universe: Vec<String>,
    known: HashMap<String, Rc<Vec<bool>>>,
}

impl Oracle {
    fn new() -> Oracle {
        let mut longest = vec![String::new()];
        let mut universe = Vec::new();
        for depth in 0..5 {
            let letters: &[&str] = if depth < 3 { &["a", "b", "c", "z"] } else { &["a", "z"] };
            let add = |start: &String| {
                let start = start.clone();
                letters.iter().map(move |letter| format!("{start}.{letter}"))
            };
            longest = longest.iter().flat_map(add).collect();
            universe.extend(longest.iter().map(|name| name[1..].to_owned()));
        }
        Oracle { universe, known: HashMap::new() }
    }

    fn reach(&mut self, filter: &str) -> Rc<Vec<bool>> {
        if let Some(known) = self.known.get(filter) {
            return Rc::clone(known);
        }
        let reach: Rc<Vec<bool>> =
            Rc::new(self.universe.iter().map(|topic| covers(filter, topic)).collect());
        self.known.insert(filter.to_owned(), Rc::clone(&reach));
        reach
    }

    /// Whether one of the granted filters has every topic that the asked one has.
    fn grants(&mut self, granted: &[String], asked: &str) -> bool {
        let asked = self.reach(asked);
        granted.iter().any(|one| {
            let one = self.reach(one);
            asked.iter().zip(one.iter()).all(|(asked, granted)| *granted || !asked)
        })
    }
}

fn has(granted: &[String], topic: &str) -> bool {
    granted.iter().any(|filter| covers(filter, topic))
}

// === The world ===

#[derive(Clone, Default)]
struct Rights {
    subscribe: Vec<String>,
    publish: Vec<String>,
}

impl Rights {
    fn draw(dice: &mut Dice) -> Rights {
        Rights { subscribe: dice.filters(), publish: dice.filters() }
    }

    fn grants(&self) -> Grants {
        let parse =
            |raw: &[String]| raw.iter().map(|raw| TopicFilter::parse(raw).unwrap()).collect();
        Grants { subscribe: parse(&self.subscribe), publish: parse(&self.publish) }
    }
}

#[derive(Clone, Debug, Default)]
struct Sink {
    bytes: Rc<RefCell<Vec<u8>>>,
    gone: Rc<Cell<bool>>,
}

impl Socket for Sink {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut bytes = self.bytes.borrow_mut();
        let before = bytes.len();
        for slice in slices {
            bytes.extend_from_slice(slice);
        }
        Ok(bytes.len() - before)
    }

    fn shutdown(&self) {
        self.gone.set(true);
    }

    fn abort(&self) {
        self.gone.set(true);
    }
}

struct Person {
    /// `None` is somebody without a token.
    token: Option<String>,
    id: ConnectionId,
    session: Session,
    sink: Sink,
    wire: Wire,
    /// Targets that were granted.
    joined: Vec<String>,
}

struct World {
    shard: Shard<Sink>,
    broker: Arc<Broker>,
    topics: Vec<String>,
    people: Vec<Person>,
    rights: Vec<Rights>,
    anonymous: Rights,
    triples: usize,
}

fn authority(rights: &[Rights], anonymous: &Rights) -> Authority {
    let tokens = rights.iter().enumerate().map(|(index, rights)| ApiToken {
        name: format!("p{index}"),
        hash: Hash::of(&format!("token-{index}")),
        grants: rights.grants(),
    });
    Authority::of(Rules {
        tokens: tokens.collect(),
        anonymous: anonymous.grants(),
        revocations_max: PEOPLE,
        ..Rules::default()
    })
}

fn name(raw: &str) -> TopicName {
    TopicName::parse(raw).expect("valid")
}

impl World {
    fn new(dice: &mut Dice, universe: &[String]) -> World {
        let rights: Vec<_> = (0..PEOPLE).map(|_| Rights::draw(dice)).collect();
        let anonymous = if dice.below(2) == 0 { Rights::default() } else { Rights::draw(dice) };
        let guard = Arc::new(Guard::new(authority(&rights, &anonymous)));
        let mailbox = Arc::new(Mailbox::new(MailboxOptions::default(), || {}));
        let rule = Rule { presence: Presence::On { members_max: 100 }, ..Rule::default() };
        let rules = TopicRules { other: Arc::new(rule), ..TopicRules::default() };
        let options = RegistryOptions { rules, ..RegistryOptions::default() };
        let registry = Arc::new(Registry::new(options, vec![mailbox], Box::new(|| Some(7))));
        let budget = Arc::new(Budget::new(usize::MAX, Vec::new()));
        let id = ShardId::new(0).expect("a shard");
        let options = ShardOptions::default();
        let mut shard =
            Shard::new(id, Arc::clone(&registry), options, Arc::default(), Arc::clone(&budget));
        shard.follow(Arc::clone(&guard));
        shard.set_now(NOW);
        let broker = Arc::new(Broker {
            engine: Engine::memory(registry),
            guard,
            limits: Limits { bad_commands_max: u32::MAX, ..Limits::default() },
            ping_ms: 0,
            clock: Clock::start(),
            budget,
        });
        let topics: BTreeSet<_> = (0..24).map(|_| dice.pick(universe).clone()).collect();
        let mut world = World {
            shard,
            broker,
            topics: topics.into_iter().collect(),
            people: Vec::new(),
            rights,
            anonymous,
            triples: 0,
        };
        for index in 0..=PEOPLE {
            let token = (index < PEOPLE).then(|| format!("token-{index}"));
            let wire = *dice.pick(&[Wire::TcpProto, Wire::WebSocketProto]);
            world.enter(token, wire);
        }
        world
    }

    fn enter(&mut self, token: Option<String>, wire: Wire) {
        let sink = Sink::default();
        let id = self.shard.open(sink.clone(), wire);
        let session = Session::new(Arc::clone(&self.broker), id);
        let connect = Connect { token: token.clone().map(Token::new), ..Connect::default() };
        self.people.push(Person { token, id, session, sink, wire, joined: Vec::new() });
        let person = self.people.len() - 1;
        self.say(person, Action::Connect(connect));
        self.hear(person);
    }

    /// What somebody may do, as the world made it up.
    fn rights(&self, person: usize) -> &Rights {
        self.rights.get(person).unwrap_or(&self.anonymous)
    }

    fn say(&mut self, person: usize, action: Action) {
        let person = &mut self.people[person];
        let command = Command { id: 9, action };
        drop(person.session.handle(Ok(command), &mut self.shard));
        self.shard.flush(person.id);
    }

    fn hear(&mut self, person: usize) -> Vec<Body> {
        let person = &self.people[person];
        let bytes = std::mem::take(&mut *person.sink.bytes.borrow_mut());
        events(&bytes, person.wire)
    }

    fn ask(&mut self, person: usize, action: Action) -> Vec<Body> {
        self.say(person, action);
        self.hear(person)
    }

    /// Publishes one message to every topic, with nobody's right.
    fn publish_all(&mut self) {
        for topic in self.topics.clone() {
            let draft = Draft::new(name(&topic), Payload::Text("x".into()));
            let counters = self.shard.counters();
            let recent = &mut Recent::default();
            self.broker.publish(recent, draft, counters, NOW).expect("published");
            while self.shard.turn() == Progress::More {}
        }
        while self.shard.turn() == Progress::More {}
    }

    fn check(&mut self, way: &str, person: usize, topic: &str, (is, should): (bool, bool)) {
        self.triples += 1;
        let rights = self.rights(person);
        assert_eq!(
            is, should,
            "{way}: {topic} for {person}, who may subscribe to {:?} and publish to {:?}",
            rights.subscribe, rights.publish
        );
    }

    fn commands(&mut self, person: usize) {
        let rights = self.rights(person).clone();
        for topic in self.topics.clone() {
            let draft = Draft::new(name(&topic), Payload::Text("x".into()));
            let heard = self.ask(person, Action::Publish(draft));
            let is = matches!(heard[..], [Body::Published(_)]);
            self.check("publish", person, &topic, (is, has(&rights.publish, &topic)));
            let history = History { topic: name(&topic), since: None, limit: 1 };
            let heard = self.ask(person, Action::History(history));
            let is = matches!(heard[..], [Body::HistoryPage(_)]);
            self.check("history", person, &topic, (is, has(&rights.subscribe, &topic)));
            let heard = self.ask(person, Action::Presence(name(&topic)));
            let is = matches!(heard[..], [Body::PresenceState(_)]);
            self.check("presence", person, &topic, (is, has(&rights.subscribe, &topic)));
        }
        // A request of HTTP comes to this function with the identity of its header.
        let Some(token) = self.people[person].token.clone() else { return };
        let identity = self.broker.guard.authenticate(&token, NOW).expect("known");
        for topic in self.topics.clone() {
            let asked = name(&topic);
            let permitted = Standing::As(&identity).permit(Ask::Publish(&asked)).is_ok();
            self.check("HTTP", person, &topic, (permitted, has(&rights.publish, &topic)));
        }
    }

    /// Subscribes to something, from a position, with a snapshot or from now on.
    fn subscribe(&mut self, person: usize, dice: &mut Dice, oracle: &mut Oracle) {
        let raw = if dice.below(3) == 0 { dice.pick(&self.topics).clone() } else { dice.filter() };
        let target = Target::parse(&raw).expect("valid");
        let should = oracle.grants(&self.rights(person).subscribe.clone(), &raw);
        let is_filter = matches!(target, Target::Filter(_));
        let resumes = is_filter && dice.below(2) == 0;
        let positions = if resumes { self.positions() } else { Vec::new() };
        let subscribe = Subscribe {
            target,
            since: None,
            last: u32::try_from(dice.below(2)).expect("small"),
            snapshot: dice.below(2) == 0,
            policy: None,
            overflow: None,
            positions,
            presence: !is_filter && dice.below(2) == 0,
            kept: None,
        };
        if self.people[person].joined.contains(&raw) {
            return;
        }
        let sent_first = subscribe.snapshot || subscribe.last > 0;
        let heard = self.ask(person, Action::Subscribe(Box::new(subscribe)));
        let reply = heard.iter().find_map(|body| match body {
            Body::Subscribed(reply) => Some(reply.clone()),
            _ => None,
        });
        self.check("subscribe", person, &raw, (reply.is_some(), should));
        if should {
            self.people[person].joined.push(raw.clone());
        }
        let told = messages(&heard);
        let recovered: BTreeMap<_, _> = reply
            .iter()
            .flat_map(|reply| &reply.topics)
            .map(|topic| (topic.topic.clone(), topic.recovered))
            .collect();
        for topic in self.topics.clone() {
            let allowed = should && covers(&raw, &topic);
            if sent_first && !resumes {
                self.check("snapshot", person, &topic, (told.contains(&topic), allowed));
            } else {
                self.check("past", person, &topic, (told.contains(&topic) && !allowed, false));
            }
            if resumes && reply.is_some() {
                let is = recovered.get(&topic).copied().unwrap_or_default();
                self.check("resume", person, &topic, (is, allowed));
            }
        }
    }

    /// The present position of every topic.
    fn positions(&self) -> Vec<TopicPosition> {
        let registry = self.broker.engine.registry();
        let top = |raw: &String| {
            let topic = name(raw);
            let page = registry.history(&topic, None, 1, NOW).ok().flatten()?;
            Some(TopicPosition { topic, position: page.top })
        };
        self.topics.iter().filter_map(top).collect()
    }

    /// Whoever is subscribed gets exactly what the targets that were granted have.
    fn live(&mut self, way: &str) {
        for person in 0..self.people.len() {
            self.hear(person);
        }
        self.publish_all();
        for person in 0..self.people.len() {
            let heard = self.hear(person);
            let told = messages(&heard);
            let joined = self.people[person].joined.clone();
            let rights = self.rights(person).clone();
            for topic in self.topics.clone() {
                let should = joined.iter().any(|target| covers(target, &topic));
                self.check(way, person, &topic, (told.contains(&topic), should));
                // What the targets say is what the rights say, asked once more for the topic.
                assert!(!should || has(&rights.subscribe, &topic), "{way}: {topic}");
            }
        }
    }

    /// Gives everybody other rights while their subscriptions are alive, and revokes somebody.
    fn change(&mut self, dice: &mut Dice, oracle: &mut Oracle) {
        for rights in &mut self.rights {
            if dice.below(2) == 0 {
                *rights = Rights::draw(dice);
            }
        }
        if !self.anonymous.subscribe.is_empty() {
            self.anonymous.subscribe.pop();
        }
        self.broker.guard.replace(&authority(&self.rights, &self.anonymous));
        let gone = dice.below(PEOPLE);
        let revoked = Revocation::Subject(format!("p{gone}").into());
        let never = u64::MAX;
        self.broker.guard.revoke(revoked, never, NOW).expect("room");
        self.shard.tick();
        self.rights[gone] = Rights::default();
        for person in 0..self.people.len() {
            let rights = self.rights(person).clone();
            let kept = |target: &String| oracle.grants(&rights.subscribe, target);
            self.people[person].joined.retain(kept);
        }
        assert!(!self.shard.is_open(self.people[gone].id));
    }
}

fn messages(heard: &[Body]) -> BTreeSet<String> {
    let topic = |body: &Body| match body {
        Body::Message(message) => Some(message.topic.clone()),
        _ => None,
    };
    heard.iter().filter_map(topic).collect()
}

fn events(mut bytes: &[u8], wire: Wire) -> Vec<Body> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let (skipped, len) = match (wire, bytes) {
            (Wire::TcpProto, [a, b, c, d, ..]) => {
                (4, u32::from_be_bytes([*a, *b, *c, *d]) as usize)
            }
            (_, [_, 126, high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            (_, [_, short, ..]) => (2, usize::from(*short)),
            _ => panic!("cut off: {bytes:?}"),
        };
        let (body, rest) = bytes[skipped..].split_at(len);
        let is_event = wire == Wire::TcpProto || bytes[0] == 0x82;
        let event = is_event.then(|| schema::Event::decode(body).expect("an event"));
        events.extend(event.and_then(|event| event.body));
        bytes = rest;
    }
    events
}

#[test]
fn a_million_triples_are_judged_as_the_oracle_says_on_every_way() {
    let wanted = std::env::var("FANFARE_ORACLE_TRIPLES").ok();
    let wanted = wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(TRIPLES);
    let mut oracle = Oracle::new();
    let universe = oracle.universe.clone();
    let (mut triples, mut seed) = (0, 0_u64);
    while triples < wanted {
        seed += 1;
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut world = World::new(&mut dice, &universe);
        world.publish_all();
        for person in 0..world.people.len() {
            world.commands(person);
            for _ in 0..4 {
                world.subscribe(person, &mut dice, &mut oracle);
            }
        }
        world.live("live");
        world.change(&mut dice, &mut oracle);
        world.live("live after a change");
        for person in 0..world.people.len() {
            if world.shard.is_open(world.people[person].id) {
                world.commands(person);
            }
        }
        triples += world.triples;
    }
}
