//! A subscription as an application asks for it, and as it holds it.
//! # Invariants: whoever drops a subscription is subscribed no more.
//! # Not here: what it is told (`feed`).

use super::agreement::Wish;
use super::error::Error;
use super::event::Event;
use super::feed::Asked;
use super::handle::{Boxed, Client};
use super::pilot::Room;
use crate::reason::{Reason, Refusal};
use crate::topics::message::Position;
use crate::topics::name::{Target, TopicName};
use crate::topics::terms::{Overflow, Policy, Rate, Terms};
use std::fmt;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Events that wait for an application which did not say how many may.
const BUFFER: usize = 1_000;

/// A subscription that is being made. Made by [`Client::subscribe`].
#[derive(Debug)]
#[must_use = "nothing is subscribed to before it is awaited"]
pub struct Subscribing {
    client: Client,
    target: Result<Target, Error>,
    asked: Asked,
    buffer: usize,
}

impl Subscribing {
    pub(super) fn new(client: Client, topic: &str) -> Subscribing {
        let target = Target::parse(topic).map_err(|refusal| Error::reason(&refusal));
        Subscribing { client, target, asked: Asked::default(), buffer: BUFFER }
    }

    /// The latest message of each topic comes first, or of each key where the topic keeps those; and
    /// again after a reconnect that could not be resumed.
    pub fn snapshot(mut self) -> Subscribing {
        self.asked.snapshot = true;
        self
    }

    /// So many of the latest messages of each topic come first.
    pub fn last(mut self, messages: u32) -> Subscribing {
        self.asked.last = messages;
        self
    }

    /// Goes on after this position of the topic.
    pub fn since(mut self, position: Position) -> Subscribing {
        match &self.target {
            Ok(Target::Topic(topic)) => self.asked.since = vec![(topic.clone(), position)],
            Ok(Target::Filter(_)) => {
                let detail = "a filter goes on after a position for each topic";
                let refusal = Refusal::new(Reason::BadPosition, detail);
                self.target = Err(Error::reason(&refusal));
            }
            Err(_) => {}
        }
        self
    }

    /// Goes on after these positions, one for each topic: those of an earlier subscription, its
    /// [`Subscription::positions`].
    pub fn positions(
        mut self,
        positions: impl IntoIterator<Item = (TopicName, Position)>,
    ) -> Subscribing {
        if let Ok(target) = &self.target {
            let covered = positions.into_iter().filter(|(topic, _)| target.covers(topic));
            self.asked.since = covered.collect();
        }
        self
    }

    /// Which messages: all of them if nothing is said.
    pub fn policy(mut self, policy: Policy) -> Subscribing {
        self.asked.terms.policy = Some(policy);
        self
    }

    /// Every message while this connection takes them, else only the latest of each key.
    pub fn latest(self) -> Subscribing {
        self.policy(Policy::Latest)
    }

    /// As [`Subscribing::latest`], and each topic at most so many times a second, from 0.01 to 1,000.
    pub fn max_hz(mut self, hz: f64) -> Subscribing {
        match rate(hz) {
            Ok(policy) => self.policy(policy),
            Err(error) => {
                self.target = self.target.and(Err(error));
                self
            }
        }
    }

    /// What the server does when this client falls behind under [`Policy::All`]; without it the topic's
    /// rule decides.
    pub fn overflow(mut self, overflow: Overflow) -> Subscribing {
        self.asked.terms.overflow = Some(overflow);
        self
    }

    /// Be told who is there, who joins and who leaves; only of a topic, and one whose rule lets it be known.
    pub fn presence(mut self) -> Subscribing {
        self.asked.presence = true;
        self
    }

    /// How many events may wait for the application: 1,000, and 4 MiB of them. What the connection has read
    /// already comes beyond that, at most 64 KiB at once.
    pub fn buffer(mut self, events: usize) -> Subscribing {
        self.buffer = events;
        self
    }
}

impl IntoFuture for Subscribing {
    type Output = Result<Subscription, Error>;
    type IntoFuture = Boxed<Self::Output>;

    fn into_future(self) -> Boxed<Self::Output> {
        Box::pin(async move {
            let Subscribing { client, target, asked, buffer } = self;
            let target = target?;
            let (ready, accepted) = oneshot::channel();
            let wanted = (target.clone(), asked);
            let id =
                client.shared().ask(|pilot, now| pilot.subscribe(now, wanted, (buffer, ready)))?;
            // Dropped while it waits, it is subscribed no more.
            let subscription = Subscription { client, id, target };
            accepted.await.unwrap_or_else(|_| Err(Error::closed()))?;
            Ok(subscription)
        })
    }
}

/// A subscription: a bounded stream of events. Dropping it unsubscribes.
///
/// What is not taken is not read from the socket once there is enough of it, and then the server does what
/// the subscription's policy and overflow say. The connection is one for all subscriptions of a client: who
/// leaves one of them unread holds up the others.
pub struct Subscription {
    client: Client,
    id: u64,
    target: Target,
}

impl Subscription {
    /// The topic or filter.
    pub fn topic(&self) -> &str {
        self.target.as_str()
    }

    /// Waits for the next event; an error is the last thing that comes before `None`. Nothing is lost if
    /// it is dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Subscription::next`], for who makes a `Stream` of it.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        let shared = self.client.shared();
        let (polled, room) = shared.act(|pilot, _| pilot.poll(self.id, context));
        if room == Room::More {
            shared.wake();
        }
        polled
    }

    /// The last position of each topic that has been taken: where another program, or this one when it is
    /// started again, can go on by [`Subscribing::positions`].
    pub fn positions(&self) -> Vec<(TopicName, Position)> {
        self.client.shared().act(|pilot, _| pilot.positions(self.id))
    }

    /// Changes the terms while messages flow, and for after a reconnect. Await what is returned.
    pub fn update(&self) -> Updating<'_> {
        Updating { subscription: self, wish: Ok(Wish::default()) }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.target)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.shared().ask(|pilot, now| pilot.leave(now, self.id));
    }
}

/// A change of terms; what is left out stays as it is. Made by [`Subscription::update`].
///
/// Changes that follow each other quickly may become one; the last one counts.
#[derive(Debug)]
#[must_use = "nothing changes before it is awaited"]
pub struct Updating<'a> {
    subscription: &'a Subscription,
    wish: Result<Wish, Error>,
}

impl Updating<'_> {
    /// Which messages.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.wish = self.wish.map(|wish| Wish { policy: Some(policy), ..wish });
        self
    }

    /// Each topic at most so many times a second, from 0.01 to 1,000.
    pub fn max_hz(mut self, hz: f64) -> Self {
        match rate(hz) {
            Ok(policy) => self.policy(policy),
            Err(error) => {
                self.wish = self.wish.and(Err(error));
                self
            }
        }
    }

    /// What the server does when this client falls behind.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.wish = self.wish.map(|wish| Wish { overflow: Some(overflow), ..wish });
        self
    }
}

impl<'a> IntoFuture for Updating<'a> {
    type Output = Result<Terms, Error>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (outcome, answer) = oneshot::channel();
            let (change, id) = ((self.wish?, outcome), self.subscription.id);
            self.subscription.client.shared().ask(|pilot, now| pilot.update(now, id, change));
            answer.await.unwrap_or_else(|_| Err(Error::closed()))
        })
    }
}

fn rate(hz: f64) -> Result<Policy, Error> {
    Rate::from_hz(hz)
        .map(Policy::MaxHz)
        .map_err(|bad| Error::reason(&Refusal::new(Reason::BadOption, bad.to_string())))
}
