//! What a connection may do, and doing it: permission, limits and engine meet here and nowhere
//! else.
//! # Invariants: every command with an id gets exactly one reply; what a subscription sends first
//! follows its reply and precedes its live messages; a refused command changes nothing.
//! # Not here: bytes and their spelling (`dialect`), sockets, how messages are delivered (`shard`).

mod identify;
pub mod look;
#[cfg(test)]
mod oracle;
mod rates;
mod subscribe;

use crate::auth::{Ask, Guard};
use crate::clock::{Clock, Now};
use crate::dialect::{Action, BadCommand, Command, Connect, Connected, Event, Update, Updated};
use crate::engine::Engine;
use crate::limits::Limits;
use crate::limits::usage::Usage;
use crate::metrics::{Counters, ENGINE_SAMPLE};
use crate::planted::{self, Bug};
use crate::reason::{Reason, Refusal};
use crate::shard::outbound::Socket;
use crate::shard::pressure::{Budget, Pressure};
use crate::shard::{ConnectionId, Shard, expires_in_ms};
use crate::topics::message::{Draft, Wire};
use crate::topics::name::Target;
use crate::topics::registry::{Committed, Recent};
use crate::topics::terms::Terms;
use std::sync::Arc;

/// What all sessions share.
#[derive(Debug)]
pub struct Broker {
    /// Where messages are given their place.
    pub engine: Engine,
    /// Who may do what.
    pub guard: Arc<Guard>,
    /// What one connection or request may ask for.
    pub limits: Limits,
    /// The server sends a ping at least this often, in milliseconds.
    pub ping_ms: u32,
    /// Times the engine.
    pub clock: Clock,
    /// What may wait for all connections.
    pub budget: Arc<Budget>,
}

impl Broker {
    /// Publishes a message, whatever way it came. `recent` is the publisher's own.
    ///
    /// # Errors
    /// [`Reason::TooLarge`], and those of [`Engine::publish`].
    pub fn publish<'a>(
        &self,
        recent: &'a mut Recent,
        draft: Draft,
        counters: &Counters,
        now: Now,
    ) -> Result<Committed<'a>, Refusal> {
        let from = if planted::is(Bug::PublishersFirst) {
            Pressure::DropLive
        } else {
            Pressure::RefusePublishes
        };
        if self.budget.pressure() >= from {
            return Err(Refusal::new(Reason::Overloaded, "the broker is short of memory"));
        }
        let bytes = draft.payload.bytes().len();
        let size = bytes + draft.key.as_ref().map_or(0, |key| key.len());
        let max = self.limits.message_bytes_max;
        if size > max {
            let detail = format!("message is {size} bytes, the limit is {max}");
            return Err(Refusal::new(Reason::TooLarge, detail));
        }
        let committed = self.engine.publish(recent, draft, now)?;
        if counters.published.get().is_multiple_of(ENGINE_SAMPLE) {
            counters.engine.observe(self.clock.now().uptime.saturating_sub(now.uptime));
        }
        counters.published.increment();
        counters.published_bytes.add_len(bytes);
        if let Some(group) = committed.group {
            counters.group_published.of(group).increment();
        }
        Ok(committed)
    }
}

/// One connection's session.
#[derive(Debug)]
pub struct Session {
    broker: Arc<Broker>,
    connection: ConnectionId,
    /// What the client calls itself.
    name: Option<Box<str>>,
    bad_commands: u32,
    /// Subscriptions that it began before they were counted.
    uncounted: u32,
    /// What it has used up of its rates.
    usage: Usage,
    recent: Recent,
}

/// How much work a command was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A few microseconds at most.
    Small,
    /// It may have read a page of history or looked through all topics: others should have their
    /// turn before the next one.
    Large,
}

/// The connection must be closed for this reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close(pub Refusal);

impl Session {
    /// The session of a connection that the shard has taken in.
    pub fn new(broker: Arc<Broker>, connection: ConnectionId) -> Session {
        Session {
            broker,
            connection,
            name: None,
            bad_commands: 0,
            uncounted: 0,
            usage: Usage::default(),
            recent: Recent::default(),
        }
    }

    /// What this session's broker allows.
    pub fn limits(&self) -> &Limits {
        &self.broker.limits
    }

    /// Says hello to a client that cannot ask for it.
    pub fn greet<S: Socket>(&self, shard: &mut Shard<S>) {
        let Some(wire) = shard.wire(self.connection) else { return };
        let connected = self.connected(wire, shard);
        shard.send(self.connection, 0, &Event::Connected(connected));
    }

    /// Does what a command asks and queues the reply.
    ///
    /// # Errors
    /// [`Close`] when the connection must end; the refusal has been told already.
    pub fn handle<S: Socket>(
        &mut self,
        command: Result<Command, BadCommand>,
        shard: &mut Shard<S>,
    ) -> Result<Effort, Close> {
        let command = match command {
            // Apart from the others, which have larger answers to move about.
            Ok(Command { id, action: Action::Publish(draft) }) => {
                return self.publish(id, draft, shard).map(|()| Effort::Small);
            }
            Ok(command) => command,
            Err(bad) => {
                self.refuse(bad.id, bad.refusal, shard);
                return self.count_bad_command().map(|()| Effort::Small);
            }
        };
        let id = command.id;
        if let Action::Connect(connect) = &command.action {
            if let Some(token) = &connect.token {
                self.show(id, token, shard)?;
            }
        } else if self.is_stranger(shard) {
            self.refuse(id, Reason::Unauthenticated.into(), shard);
            return self.count_bad_command().map(|()| Effort::Small);
        }
        let effort = match command.action {
            Action::Subscribe(_) | Action::History(_) => Effort::Large,
            Action::Connect(_)
            | Action::Unsubscribe(_)
            | Action::Update(_)
            | Action::Publish(_)
            | Action::Presence(_)
            | Action::Refresh(_)
            | Action::Ping => Effort::Small,
        };
        match self.act(command, shard) {
            Ok(Some(Event::Unsubscribed(_))) if planted::is(Bug::UnsubscribeUnanswered) => {}
            Ok(Some(reply)) if id != 0 => shard.send(self.connection, id, &reply),
            Ok(_) => {}
            Err(refusal) => self.refuse(id, refusal, shard),
        }
        Ok(effort)
    }

    fn publish<S: Socket>(
        &mut self,
        id: u64,
        draft: Draft,
        shard: &mut Shard<S>,
    ) -> Result<(), Close> {
        let now = shard.now();
        let mut is_rated = false;
        if shard.is_guarded() {
            let standing = shard.standing(self.connection);
            is_rated = standing.is_rated();
            let may = self.broker.may_publish(standing, &draft.topic, &mut self.usage, now);
            if let Err(refused) = may {
                self.refuse(id, refused, shard);
                // Whoever has shown no token gets no further by trying.
                return if self.is_stranger(shard) { self.count_bad_command() } else { Ok(()) };
            }
        }
        let counters = shard.counters();
        match self.broker.publish(&mut self.recent, draft, counters, now) {
            Ok(committed) => {
                if is_rated {
                    self.broker.charge(&mut self.usage, committed, now);
                }
                if id != 0 {
                    shard.send(self.connection, id, &Event::Published(committed.position()));
                }
            }
            Err(refusal) => self.refuse(id, refusal, shard),
        }
        Ok(())
    }

    /// Asks whether this connection may do something.
    fn permit<S: Socket>(&self, ask: Ask<'_>, shard: &Shard<S>) -> Result<(), Reason> {
        shard.standing(self.connection).permit(ask)
    }

    fn act<S: Socket>(
        &mut self,
        command: Command,
        shard: &mut Shard<S>,
    ) -> Result<Option<Event>, Refusal> {
        match command.action {
            Action::Connect(connect) => {
                self.hello(command.id, &connect, shard);
                self.name = connect.name;
                Ok(None)
            }
            Action::Ping => Ok(Some(Event::Pong)),
            // `handle` has seen to it.
            Action::Publish(_) => Ok(None),
            Action::Refresh(token) => self.refresh(&token, shard).map(Some),
            Action::Subscribe(subscribe) => {
                self.count_subscribe(shard.now())?;
                self.subscribe(command.id, &subscribe, shard).map(|()| None)
            }
            Action::Unsubscribe(target) => self.unsubscribe(target, shard).map(Some),
            Action::History(query) => {
                let standing = shard.standing(self.connection);
                self.broker.history(standing, query, shard.now()).map(Some)
            }
            Action::Update(update) => {
                self.count_subscribe(shard.now())?;
                self.update(update, shard).map(Some)
            }
            Action::Presence(topic) => {
                self.broker.attendance(shard.standing(self.connection), topic).map(Some)
            }
        }
    }

    /// Answers a hello. What follows comes in batches, if the client asked for that.
    fn hello<S: Socket>(&self, id: u64, connect: &Connect, shard: &mut Shard<S>) {
        let Some(before) = shard.wire(self.connection) else { return };
        let wire = if connect.batch { before.batched() } else { before };
        if planted::is(Bug::BatchesEarly) {
            shard.change_wire(self.connection, wire);
        }
        if id != 0 {
            let connected = self.connected(wire, shard);
            shard.send(self.connection, id, &Event::Connected(connected));
        }
        shard.change_wire(self.connection, wire);
    }

    fn connected<S: Socket>(&self, wire: Wire, shard: &Shard<S>) -> Connected {
        Connected {
            connection: shard.name_of(self.connection),
            ping_ms: self.broker.ping_ms,
            batch: wire.is_batched(),
            expires_ms: expires_in_ms(shard.identity(self.connection), shard.now()),
        }
    }

    fn unsubscribe<S: Socket>(
        &self,
        target: Target,
        shard: &mut Shard<S>,
    ) -> Result<Event, Refusal> {
        if !planted::is(Bug::StaysSubscribed) {
            shard.leave(self.connection, &target)?;
        }
        Ok(Event::Unsubscribed(target))
    }

    fn update<S: Socket>(&self, update: Update, shard: &mut Shard<S>) -> Result<Event, Refusal> {
        let change = |terms: Terms| Terms {
            policy: update.policy.unwrap_or(terms.policy),
            overflow: update.overflow.or(terms.overflow),
        };
        let terms = shard.update(self.connection, &update.target, change)?;
        let registry = self.broker.engine.registry();
        let rule = match &update.target {
            Target::Topic(topic) => registry.rule(topic),
            Target::Filter(filter) => Arc::clone(registry.rules().covering(filter)),
        };
        let policy = terms.policy.capped(rule.cap);
        let overflow = (!policy.conflates()).then(|| rule.overflow(terms.overflow));
        let terms = Terms { policy, overflow };
        Ok(Event::Updated(Updated { target: update.target, terms }))
    }

    fn refuse<S: Socket>(&self, id: u64, refusal: Refusal, shard: &mut Shard<S>) {
        shard.counters().refusals.of(refusal.reason).increment();
        shard.send(self.connection, id, &Event::Error(refusal));
    }

    fn count_bad_command(&mut self) -> Result<(), Close> {
        self.bad_commands += 1;
        let max = self.broker.limits.bad_commands_max;
        if self.bad_commands > max {
            let detail = format!("the limit is {max}");
            return Err(Close(Refusal::new(Reason::BadProtocol, detail)));
        }
        Ok(())
    }
}
