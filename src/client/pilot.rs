//! What a client does next: a state machine that is told what was heard and how late it is.
//! Owns the subscriptions, the calls that wait for an answer, and when to connect, to give up and to end.
//! # Invariants: no socket and no clock; commands leave in the order in which they were made; every
//! queue and map has a bound; whoever asked for something is answered, and once.
//! # Not here: bytes (`wire`), waiting (`driver`), what a subscription makes of an event (`feed`).

mod calls;
mod events;

pub(super) use calls::Purpose;

use super::agreement::{Outcome, Wish};
use super::backoff::Backoff;
use super::error::Error;
use super::event::Event;
use super::feed::{Asked, Feed, spelled};
use super::lane::Lane;
use super::wire::Fault;
use crate::clock::Now;
use crate::dialect::schema::{self, command::Action};
use crate::reason::{Reason, Retry};
use crate::topics::message::Position;
use crate::topics::name::{Target, TopicName};
use calls::Calls;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// The longest ping interval that is believed, and the longest time for which a server that stops is
/// left alone.
const SERVER_WAIT_MAX: Duration = Duration::from_hours(1);
/// How often a server pings that does not say.
const PING: Duration = Duration::from_secs(25);
/// The shortest time between two tokens, however short they live.
const REFRESH_MIN: Duration = Duration::from_millis(100);

/// What a client may be told to be, beside where the broker is.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) backoff: Backoff,
    /// A connection that lasted so long starts the backoff anew.
    pub(super) stable: Duration,
    /// How long the hello of a server may take.
    pub(super) patience: Duration,
    /// How much longer than its ping interval the server may be silent.
    pub(super) silence: Duration,
    /// How long an answer may take on a connection that is there.
    pub(super) answer: Duration,
    /// Calls that may wait for an answer.
    pub(super) queue_max: usize,
    /// A publish that was sent is repeated only for so long, because the server forgets its key.
    pub(super) retry_max: Duration,
    pub(super) tokens: Tokens,
}

/// Whether there is another token when one has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tokens {
    /// There is one, or none at all.
    Fixed,
    /// A function gives them.
    Renewed,
}

/// Where the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A connection is being made.
    Connecting,
    /// The server has said hello.
    Connected {
        /// The server and its version.
        server: String,
        /// What the server calls this connection.
        connection: String,
    },
    /// The next attempt is waited for.
    Waiting {
        /// Why there is no connection.
        reason: Error,
        /// How long.
        delay: Duration,
    },
    /// The end: by the application, or because the server has said that coming back is of no use.
    Closed {
        /// Why, unless the application wanted it.
        error: Option<Error>,
    },
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Make a connection.
    Dial,
    /// Wait for so long, and ask again.
    Wait(Duration),
    /// Go on with the connection that is there.
    Serve,
    /// Nothing more.
    Stop,
}

/// Where the connection stands, with what is needed to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Dialling,
    Greeting,
    Connected { since: Now },
    Waiting { until: Duration },
    Closed,
}

/// What a client does next.
pub(super) struct Pilot {
    settings: Settings,
    phase: Phase,
    state: State,
    feeds: BTreeMap<u64, Feed>,
    /// The ids of subscriptions that have not ended, by topic or filter.
    by_target: HashMap<Box<str>, u64>,
    filters: BTreeSet<u64>,
    /// Subscriptions that were left, though what they asked to come first is still coming.
    left: Vec<Target>,
    /// Subscriptions whose lanes are full.
    full: BTreeSet<u64>,
    calls: Calls,
    outgoing: VecDeque<schema::Command>,
    last_feed: u64,
    /// How many attempts have failed in a row.
    attempts: u32,
    /// How long the server has asked to stay away.
    after: Duration,
    heard_at: Now,
    silence: Duration,
    refresh_at: Option<Duration>,
    /// What the server said about the connection before it ended.
    farewell: Option<schema::Error>,
}

impl Pilot {
    pub(super) fn new(settings: Settings, now: Now) -> Pilot {
        Pilot {
            calls: Calls::new(settings.queue_max),
            silence: settings.patience,
            settings,
            phase: Phase::Dialling,
            state: State::Connecting,
            feeds: BTreeMap::new(),
            by_target: HashMap::new(),
            filters: BTreeSet::new(),
            left: Vec::new(),
            full: BTreeSet::new(),
            outgoing: VecDeque::new(),
            last_feed: 0,
            attempts: 0,
            after: Duration::ZERO,
            heard_at: now,
            refresh_at: None,
            farewell: None,
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// What to do now.
    pub(super) fn order(&mut self, now: Now) -> Order {
        match self.phase {
            Phase::Dialling => Order::Dial,
            Phase::Waiting { until } if until <= now.uptime => {
                self.phase = Phase::Dialling;
                self.state = State::Connecting;
                Order::Dial
            }
            Phase::Waiting { until } => Order::Wait(until.saturating_sub(now.uptime)),
            Phase::Greeting | Phase::Connected { .. } => Order::Serve,
            Phase::Closed => Order::Stop,
        }
    }

    // === The connection ===

    /// A connection is there: says hello, with a token if no header could carry it.
    pub(super) fn opened(&mut self, now: Now, token: Option<&str>) {
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = Phase::Greeting;
        self.heard_at = now;
        self.silence = self.settings.patience;
        let hello = schema::Connect {
            token: token.unwrap_or_default().to_owned(),
            name: self.settings.name.clone(),
            batch: true,
        };
        self.command(now, Action::Connect(hello), Purpose::Hello);
    }

    /// The server has said hello.
    fn connected(&mut self, now: Now, hello: schema::Connected) {
        let ping = match hello.ping_ms {
            0 => PING,
            ms => Duration::from_millis(ms.into()).min(SERVER_WAIT_MAX),
        };
        self.silence = ping + self.settings.silence;
        self.phase = Phase::Connected { since: now };
        self.plan_refresh(now, hello.expires_ms);
        let ids: Vec<_> =
            self.by_target.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
        for id in ids {
            self.subscribe_now(now, id);
        }
        self.outgoing.extend(self.calls.resend(now, self.settings.retry_max));
        let schema::Connected { server, connection, .. } = hello;
        self.state = State::Connected { server, connection };
    }

    /// There is no connection, or there is none any more.
    pub(super) fn lost(&mut self, now: Now, fault: Fault) {
        if self.phase == Phase::Closed {
            return;
        }
        let error = self.explain(fault);
        if let Phase::Connected { since } = self.phase
            && elapsed(since, now) >= self.settings.stable
        {
            self.attempts = 0;
        }
        self.outgoing.clear();
        self.left.clear();
        self.refresh_at = None;
        for feed in self.feeds.values_mut() {
            feed.lost();
        }
        self.calls.lost();
        let renewed = self.settings.tokens == Tokens::Renewed;
        let is_end = match error.retry() {
            Retry::Never => true,
            Retry::Refresh => !renewed,
            Retry::Later | Retry::Resume => false,
        };
        if is_end {
            return self.finish(Some(error));
        }
        let delay = self.after + self.settings.backoff.wait(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        self.after = Duration::ZERO;
        self.phase = Phase::Waiting { until: now.uptime + delay };
        self.state = State::Waiting { reason: error, delay };
    }

    /// What a connection ended for. On TCP the last word is an error, because there are no close codes.
    fn explain(&mut self, fault: Fault) -> Error {
        match (self.farewell.take(), fault) {
            (Some(schema::Error { code, name, message, .. }), Fault::Ended | Fault::Lost(_)) => {
                let code = u16::try_from(code).unwrap_or(u16::MAX);
                Error::from(Fault::Closed { code, text: format!("{name}: {message}") })
            }
            (_, fault) => fault.into(),
        }
    }

    /// Ends everything, for good.
    pub(super) fn close(&mut self) {
        if self.phase != Phase::Closed {
            self.finish(None);
        }
    }

    fn finish(&mut self, error: Option<Error>) {
        self.phase = Phase::Closed;
        self.outgoing.clear();
        self.calls.end(&error.clone().unwrap_or_else(Error::closed));
        let ids: Vec<_> = self.by_target.values().copied().collect();
        for id in ids {
            self.end(id, error.as_ref());
        }
        self.state = State::Closed { error };
    }

    /// When [`Pilot::tick`] is to be called next, by the uptime.
    pub(super) fn deadline(&self) -> Duration {
        let silent = self.heard_at.uptime + self.silence;
        let tries = self.feeds.values().filter_map(|feed| feed.again_at);
        let oldest = self.calls.oldest(|id| self.is_awaited(id));
        let answers = oldest.map(|sent| sent.uptime + self.settings.answer);
        tries.chain(answers).fold(silent, Duration::min)
    }

    /// When another token is to be shown, by the uptime.
    pub(super) fn refresh_at(&self) -> Option<Duration> {
        self.refresh_at
    }

    /// What is due: tries again what was refused for a while, gives up answers that do not come, and
    /// says whether the connection is to be given up.
    pub(super) fn tick(&mut self, now: Now) -> Result<(), Fault> {
        if !self.may_read() {
            // The server is not silent: nobody listens.
            self.heard_at = now;
        }
        if elapsed(self.heard_at, now) >= self.silence {
            return Err(Fault::Silent(self.silence));
        }
        for id in self.calls.give_up(now, self.settings.answer) {
            self.give_up(now, id);
        }
        let due = |feed: &Feed| feed.again_at.is_some_and(|at| at <= now.uptime);
        let due: Vec<_> =
            self.feeds.iter().filter(|(_, feed)| due(feed)).map(|(id, _)| *id).collect();
        for id in due {
            self.subscribe_now(now, id);
        }
        Ok(())
    }

    /// Whether the application still waits to hear whether this subscription is accepted.
    fn is_awaited(&self, id: u64) -> bool {
        self.feeds.get(&id).is_some_and(Feed::is_awaited)
    }

    /// The answer to a subscription has not come.
    fn give_up(&mut self, now: Now, id: u64) {
        let Some(feed) = self.feeds.get(&id).filter(|feed| feed.is_awaited()) else { return };
        let topic = feed.target.as_str().to_owned();
        self.end(id, Some(&Error::unanswered(self.settings.answer)));
        let action = Action::Unsubscribe(schema::Unsubscribe { topic });
        self.command(now, action, Purpose::Nothing);
    }

    fn plan_refresh(&mut self, now: Now, expires_ms: u64) {
        let renewed = self.settings.tokens == Tokens::Renewed && expires_ms > 0;
        let life = Duration::from_millis(expires_ms);
        // A fifth of its life is left then: time for a second try, and a third.
        let wait = life.saturating_sub(life / 5).max(REFRESH_MIN);
        self.refresh_at = renewed.then(|| now.uptime.saturating_add(wait));
    }

    /// Shows another token, or tries again later if there is none.
    pub(super) fn refresh(&mut self, now: Now, token: Option<&str>) {
        let wait = self.settings.backoff.wait(1).max(REFRESH_MIN);
        self.refresh_at = Some(now.uptime + wait);
        if let (Some(token), Phase::Connected { .. }) = (token, self.phase) {
            self.refresh_at = None;
            let token = token.to_owned();
            self.command(now, Action::Refresh(schema::Refresh { token }), Purpose::Refresh);
        }
    }

    // === Commands ===

    /// What is to be sent next.
    pub(super) fn next_command(&mut self) -> Option<schema::Command> {
        self.outgoing.pop_front()
    }

    /// Whether there is something to send.
    pub(super) fn has_commands(&self) -> bool {
        !self.outgoing.is_empty()
    }

    fn command(&mut self, now: Now, action: Action, purpose: Purpose) {
        let command = self.calls.add(now, action, purpose);
        self.outgoing.push_back(command);
    }

    /// A command on behalf of the application, which waits for the answer.
    pub(super) fn call(
        &mut self,
        now: Now,
        action: Action,
        reply: oneshot::Sender<calls::Reply>,
    ) -> Result<(), Error> {
        if let State::Closed { error } = &self.state {
            return Err(error.clone().unwrap_or_else(Error::closed));
        }
        self.calls.check_room()?;
        if let Phase::Connected { .. } = self.phase {
            self.command(now, action, Purpose::Asked(reply));
        } else {
            self.calls.keep(action, reply);
        }
        Ok(())
    }

    /// Begins a subscription. Returns its id; `ready` learns whether the server accepts it.
    pub(super) fn subscribe(
        &mut self,
        now: Now,
        (target, asked): (Target, Asked),
        (buffer, ready): (usize, oneshot::Sender<Result<(), Error>>),
    ) -> Result<u64, Error> {
        if let State::Closed { error } = &self.state {
            return Err(error.clone().unwrap_or_else(Error::closed));
        }
        if self.by_target.contains_key(target.as_str()) {
            return Err(Error::reason(&Reason::AlreadySubscribed.into()));
        }
        self.last_feed += 1;
        let id = self.last_feed;
        self.by_target.insert(target.as_str().into(), id);
        if let Target::Filter(_) = target {
            self.filters.insert(id);
        }
        self.feeds.insert(id, Feed::new(target, asked, Lane::new(buffer), ready));
        self.subscribe_now(now, id);
        Ok(id)
    }

    fn subscribe_now(&mut self, now: Now, id: u64) {
        let (Phase::Connected { .. }, Some(feed)) = (self.phase, self.feeds.get_mut(&id)) else {
            return;
        };
        feed.again_at = None;
        let subscribe = feed.command();
        self.command(now, Action::Subscribe(subscribe), Purpose::Subscribe(id));
    }

    /// Ends a subscription that the application wants no more.
    pub(super) fn leave(&mut self, now: Now, id: u64) {
        let Some(feed) = self.feeds.get(&id) else { return };
        let (target, was_there) = (feed.target.clone(), !feed.lane.has_ended());
        let filling = feed.is_filling();
        self.end(id, None);
        self.feeds.remove(&id);
        if let (Phase::Connected { .. }, true) = (self.phase, was_there) {
            let topic = target.as_str().to_owned();
            let action = Action::Unsubscribe(schema::Unsubscribe { topic });
            self.command(now, action, Purpose::Nothing);
            if filling {
                self.left.push(target);
            }
        }
    }

    /// Changes the terms of a subscription.
    pub(super) fn update(&mut self, now: Now, id: u64, (wish, outcome): (Wish, Outcome)) {
        match self.feeds.get_mut(&id) {
            Some(feed) if !feed.lane.has_ended() => {
                feed.agreement.change(wish, outcome);
                self.update_now(now, id);
            }
            _ => outcome.send(Err(Error::closed())).unwrap_or_default(),
        }
    }

    /// Tells the server of a change of terms, one after the other.
    fn update_now(&mut self, now: Now, id: u64) {
        let Some(feed) = self.feeds.get_mut(&id).filter(|feed| feed.is_live()) else { return };
        let Some(wish) = feed.agreement.next() else { return };
        let (policy, max_hz, overflow) = spelled(wish);
        let topic = feed.target.as_str().to_owned();
        let update = schema::Update { topic, overflow, policy, max_hz };
        self.command(now, Action::Update(update), Purpose::Update(id));
    }

    /// Takes a subscription off the list. What it still has to tell stays until it is taken.
    fn end(&mut self, id: u64, error: Option<&Error>) {
        let Some(feed) = self.feeds.get_mut(&id).filter(|feed| !feed.lane.has_ended()) else {
            return;
        };
        feed.end(error);
        self.by_target.remove(feed.target.as_str());
        self.filters.remove(&id);
        self.full.remove(&id);
    }

    // === The application ===

    /// What a subscription has to tell next, and whether that has made room for more.
    pub(super) fn poll(
        &mut self,
        id: u64,
        context: &Context<'_>,
    ) -> (Poll<Option<Result<Event, Error>>>, Room) {
        let Some(feed) = self.feeds.get_mut(&id) else { return (Poll::Ready(None), Room::Same) };
        let polled = feed.lane.poll(context);
        if feed.lane.filled() == 0 && self.full.remove(&id) {
            return (polled, Room::More);
        }
        (polled, Room::Same)
    }

    /// The last position of each topic that the application has taken.
    pub(super) fn positions(&self, id: u64) -> Vec<(TopicName, Position)> {
        self.feeds.get(&id).map(Feed::processed).unwrap_or_default()
    }

    /// Whether the connection is to be read. It is not while the application leaves what is there, so
    /// that the server's policy decides; but as long as somebody waits for an answer, as much again may
    /// come before it.
    pub(super) fn may_read(&self) -> bool {
        if self.full.is_empty() {
            return true;
        }
        let awaited = self.calls.are_awaited() || self.feeds.values().any(Feed::is_awaited);
        let limit = if awaited { 2 } else { 1 };
        let filled = |id: &u64| self.feeds.get(id).map_or(0, |feed| feed.lane.filled());
        self.full.iter().all(|id| filled(id) < limit)
    }
}

/// Whether a subscription that was full has room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Same,
    More,
}

/// How much time has passed. The wall clock goes on while a laptop sleeps; the other is never set back.
fn elapsed(since: Now, now: Now) -> Duration {
    let wall = Duration::from_millis(now.wall_ms.saturating_sub(since.wall_ms));
    now.uptime.saturating_sub(since.uptime).max(wall)
}

#[cfg(test)]
mod tests;
