//! A model client: reads events, remembers where it stands, and comes back from there.
//! # Invariants: the place it remembers of a topic is the last one it has processed.
//! # Not here: whether what it hears is right (`checker`), when it acts (`world`).

use crate::history::{Command, Event, Position, Publish, Record, Subscribe, TopicPosition};
use crate::history::{Ending, Fact};
use crate::random::Random;
use crate::socket::{End, SimSocket, Upward};
use crate::spelling::{Heard, Parser, encode};
use fanfare::topics::message::Wire;
use fanfare::topics::name::{Target, TopicName};
use std::collections::BTreeMap;

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Everything there is.
    Fast,
    /// A few bytes at a time.
    Crawling,
    /// Nothing.
    Stalled,
}

/// One client over all its connections.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) number: u64,
    pub(crate) wire: Wire,
    pub(crate) pace: Pace,
    pub(crate) link: Option<Link>,
    /// Subscriptions that it has or has asked for.
    pub(crate) wants: BTreeMap<String, Subscribe>,
    /// The last processed position of each topic.
    pub(crate) places: BTreeMap<String, Position>,
    /// What it published with a key, for asking again.
    pub(crate) keyed: Vec<Publish>,
    next_id: u64,
}

/// The client's end of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: u64,
    pub(crate) pipe: SimSocket,
    parser: Parser,
    /// Commands whose answer has not come.
    asked: BTreeMap<u64, Command>,
    has_closed: bool,
}

impl Client {
    pub(crate) fn new(number: u64, wire: Wire) -> Client {
        Client {
            number,
            wire,
            pace: Pace::Fast,
            link: None,
            wants: BTreeMap::new(),
            places: BTreeMap::new(),
            keyed: Vec::new(),
            next_id: 1,
        }
    }

    pub(crate) fn connected(&mut self, connection: u64, pipe: SimSocket) {
        let parser = Parser::new(self.wire);
        let asked = BTreeMap::new();
        self.link = Some(Link { connection, pipe, parser, asked, has_closed: false });
    }

    /// Sends a command, if there is a connection. Returns what happened.
    pub(crate) fn send(&mut self, command: Command) -> Option<Fact> {
        let link = self.link.as_mut().filter(|link| !link.has_closed)?;
        let id = self.next_id;
        self.next_id += 1;
        match &command {
            Command::Subscribe(subscribe) => {
                let target = subscribe.topic.clone();
                self.wants.entry(target).or_insert_with(|| subscribe.clone());
            }
            Command::Unsubscribe { topic } => drop(self.wants.remove(topic)),
            Command::Publish(publish) if !publish.idempotency_key.is_empty() => {
                self.keyed.push(publish.clone());
            }
            _ => {}
        }
        link.pipe.up.borrow_mut().push_back(Upward::Command(encode(id, &command, self.wire)));
        link.asked.insert(id, command.clone());
        Some(Fact::Sent { connection: link.connection, id, command })
    }

    /// What to send on a new connection: each subscription again, from where this client stands.
    pub(crate) fn resumes(&self) -> Vec<Command> {
        self.wants.values().map(|want| Command::Subscribe(self.going_on(want))).collect()
    }

    /// A subscription that goes on from where this client stands.
    pub(crate) fn going_on(&self, want: &Subscribe) -> Subscribe {
        let mut subscribe = want.clone();
        match Target::parse(&want.topic) {
            // It will be refused.
            Err(_) => {}
            Ok(Target::Topic(topic)) => subscribe.since = self.places.get(topic.as_str()).cloned(),
            Ok(Target::Filter(filter)) => {
                let covered =
                    |topic: &str| filter.matches(&TopicName::parse(topic).expect("a topic"));
                let places = self.places.iter().filter(|(topic, _)| covered(topic));
                let position = |(topic, position): (&String, &Position)| TopicPosition {
                    topic: topic.clone(),
                    position: position.clone(),
                };
                subscribe.positions = places.map(position).collect();
            }
        }
        subscribe
    }

    /// Takes bytes off the connection and processes every event that is whole.
    pub(crate) fn receive(&mut self, most: usize, at: u64, history: &mut Vec<Record>) {
        let Some(link) = &mut self.link else { return };
        let bytes = link.pipe.receive(most);
        link.parser.feed(&bytes);
        while let Some(link) = &mut self.link {
            let connection = link.connection;
            let place = link.parser.place();
            let Some(heard) = link.parser.next() else { break };
            let fact = match heard {
                Ok(Heard::Ping) => {
                    link.pipe.up.borrow_mut().push_back(Upward::Pong);
                    continue;
                }
                Ok(Heard::Event(id, event)) => {
                    let sent = link.pipe.span_of(place);
                    self.process(id, &event);
                    Fact::Heard { connection, id, event, sent }
                }
                Err(detail) => Fact::Garbled { connection, detail },
            };
            let is_garbled = matches!(fact, Fact::Garbled { .. });
            history.push(Record { at, fact });
            if is_garbled {
                self.end(Ending::Cut, at, history);
            }
        }
        self.notice_end(at, history);
    }

    /// Notices that the server will send nothing more.
    fn notice_end(&mut self, at: u64, history: &mut Vec<Record>) {
        let Some(link) = &self.link else { return };
        let connection = link.connection;
        if link.pipe.server.get() == End::Open || link.pipe.waiting() > 0 {
            return;
        }
        let by = match link.pipe.server.get() {
            End::Finished => Ending::Server,
            End::Open | End::Cut => Ending::Cut,
        };
        if by == Ending::Server && link.parser.is_within_a_frame() {
            let detail = "the stream ends within a frame".to_owned();
            history.push(Record { at, fact: Fact::Garbled { connection, detail } });
        }
        self.end(by, at, history);
    }

    /// Breaks the connection: what was on its way to this client is lost.
    pub(crate) fn cut(&mut self, at: u64, history: &mut Vec<Record>) {
        self.end(Ending::Cut, at, history);
    }

    fn end(&mut self, by: Ending, at: u64, history: &mut Vec<Record>) {
        let Some(link) = self.link.take() else { return };
        link.pipe.client.set(End::Cut);
        history.push(Record { at, fact: Fact::Closed { connection: link.connection, by } });
    }

    /// Begins the closing handshake; the server answers by ending the stream.
    pub(crate) fn leave(&mut self) {
        let Some(link) = self.link.as_mut().filter(|link| !link.has_closed) else { return };
        link.has_closed = true;
        let mut up = link.pipe.up.borrow_mut();
        match self.wire {
            Wire::TcpProto => link.pipe.client.set(End::Finished),
            _ => up.push_back(Upward::Close(1000)),
        }
    }

    fn process(&mut self, id: u64, event: &Event) {
        let Some(link) = &mut self.link else { return };
        let asked = link.asked.remove(&id);
        match event {
            Event::Message(message) => {
                if let Some(place) = self.places.get_mut(&message.topic) {
                    place.offset = place.offset.max(message.offset);
                }
            }
            Event::Subscribed(subscribed) => {
                let Some(Command::Subscribe(subscribe)) = asked else { return };
                if let Some(position) = &subscribed.position {
                    let begin = if subscribed.recovered == Some(true) {
                        subscribe.since.clone().unwrap_or_else(|| position.clone())
                    } else {
                        position.clone()
                    };
                    self.advance(&subscribed.topic, &begin);
                }
                for (recovery, asked) in subscribed.topics.iter().zip(&subscribe.positions) {
                    match &recovery.position {
                        Some(_) if recovery.recovered => {
                            self.advance(&recovery.topic, &asked.position);
                        }
                        Some(position) => self.advance(&recovery.topic, position),
                        None => drop(self.places.remove(&recovery.topic)),
                    }
                }
            }
            Event::Error { name } => {
                if let Some(Command::Subscribe(subscribe)) = asked
                    && name != "alreadySubscribed"
                {
                    self.wants.remove(&subscribe.topic);
                }
            }
            Event::Position(TopicPosition { topic, position }) => self.advance(topic, position),
            Event::SnapshotEnd { positions, .. } => {
                for TopicPosition { topic, position } in positions {
                    self.advance(topic, position);
                }
            }
            Event::Close { code } => {
                if !std::mem::replace(&mut link.has_closed, true) {
                    link.pipe.up.borrow_mut().push_back(Upward::Close(*code));
                }
            }
            Event::Updated(_) => {
                if let Some(Command::Update(update)) = asked
                    && let Some(want) = self.wants.get_mut(&update.topic)
                {
                    want.policy = update.policy.unwrap_or(want.policy);
                    want.overflow = update.overflow.or(want.overflow);
                }
            }
            // The position comes right behind a gap.
            Event::Gap(_)
            | Event::Unsubscribed { .. }
            | Event::PresenceState { .. }
            | Event::Joined { .. }
            | Event::Left { .. }
            | Event::Stale { .. }
            | Event::Fresh { .. }
            | Event::Connected { .. }
            | Event::Published(_)
            | Event::Pong {}
            | Event::Ping {}
            | Event::HistoryPage(_) => {}
        }
    }

    /// Processed so far. A position of the same epoch that is further back is nothing new.
    fn advance(&mut self, topic: &str, to: &Position) {
        match self.places.get_mut(topic) {
            Some(place) if place.epoch == to.epoch => place.offset = place.offset.max(to.offset),
            _ => drop(self.places.insert(topic.to_owned(), to.clone())),
        }
    }

    /// How many bytes it would take off its connection now.
    pub(crate) fn appetite(&self, chance: &mut Random) -> usize {
        match self.pace {
            Pace::Fast => usize::MAX,
            Pace::Crawling => chance.within(1..=40),
            Pace::Stalled => 0,
        }
    }
}
