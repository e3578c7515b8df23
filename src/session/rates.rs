//! How often one connection may do what costs the broker more than the one who asks for it.
//! # Invariants: what is refused has been counted first, so trying costs what doing would; a refusal
//! says how long to wait; services, and brokers that ask nobody who they are, publish without a rate.
//! # Not here: how a rate is kept (`limits`), rates of connecting (`listen`).

use super::{Broker, Close, Session};
use crate::auth::Ask;
use crate::clock::Now;
use crate::limits::rate::{Rate, Spent};
use crate::limits::usage::Usage;
use crate::reason::{Reason, Refusal};
use crate::shard::outbound::Socket;
use crate::shard::{Shard, Standing};
use crate::topics::name::TopicName;
use crate::topics::registry::Committed;
use std::time::Duration;

/// Subscriptions with which a connection may begin before they are counted, which takes memory: most
/// never have more, and then are idle.
const UNCOUNTED: u32 = 8;

impl Broker {
    /// Asks whether somebody may publish to a topic now, whatever way they came. `usage` is what their
    /// connection has used up.
    ///
    /// # Errors
    /// Those of [`Standing::permit`]; [`Reason::TooOften`], [`Reason::TooManyDeliveries`] and
    /// [`Reason::TooManyNewTopics`].
    pub fn may_publish(
        &self,
        standing: Standing<'_>,
        topic: &TopicName,
        usage: &mut Usage,
        now: Now,
    ) -> Result<(), Refusal> {
        standing.permit(Ask::Publish(topic))?;
        if !standing.is_rated() {
            return Ok(());
        }
        if let Some(rate) = self.limits.publishes {
            let spent = &mut usage.account().publishes;
            spent.take(rate, now.uptime).map_err(too_soon(Reason::TooOften))?;
        }
        let seen = usage.seen();
        check(seen.deliveries, self.limits.deliveries, now)
            .map_err(too_soon(Reason::TooManyDeliveries))?;
        self.may_begin(topic, seen.new_topics, now)
    }

    /// Counts a request that looks at topics: it is one of those that a connection may publish. `usage`
    /// is what that has used up.
    ///
    /// # Errors
    /// [`Reason::TooOften`].
    pub fn may_look(
        &self,
        standing: Standing<'_>,
        usage: &mut Usage,
        now: Now,
    ) -> Result<(), Refusal> {
        match self.limits.publishes.filter(|_| standing.is_rated()) {
            Some(rate) => {
                let spent = &mut usage.account().publishes;
                spent.take(rate, now.uptime).map_err(too_soon(Reason::TooOften))
            }
            None => Ok(()),
        }
    }

    /// Charges a connection for what has come of a publish that [`Broker::may_publish`] let it do and
    /// that has a rate.
    pub fn charge(&self, usage: &mut Usage, committed: Committed<'_>, now: Now) {
        if committed.is_new_topic {
            self.charge_new_topic(usage, now);
        }
        // What was published before is not delivered again.
        let audience = committed.group.map_or(0, |_| committed.audience);
        if let Some(rate) = self.limits.deliveries.filter(|_| audience > 0) {
            usage.account().deliveries.charge(rate, audience.into(), now.uptime);
        }
    }

    /// Whether a topic is there or may be begun by a connection that has begun so many.
    fn may_begin(&self, topic: &TopicName, spent: Spent, now: Now) -> Result<(), Refusal> {
        match check(spent, self.limits.new_topics, now) {
            Err(wait) if !self.engine.registry().has(topic) => {
                Err(too_soon(Reason::TooManyNewTopics)(wait))
            }
            _ => Ok(()),
        }
    }

    fn charge_new_topic(&self, usage: &mut Usage, now: Now) {
        if let Some(rate) = self.limits.new_topics {
            usage.account().new_topics.charge(rate, 1, now.uptime);
        }
    }
}

impl Session {
    /// Counts a ping of the peer, or a pong that answers none of ours.
    ///
    /// # Errors
    /// [`Close`] where there are more than there may be.
    pub fn note_control(&mut self, now: Now) -> Result<(), Close> {
        let Some(rate) = self.broker.limits.controls else { return Ok(()) };
        let spent = &mut self.usage.account().controls;
        let taken = spent.take(rate, now.uptime);
        taken.map_err(|_| Close(Reason::TooManyPings.into()))
    }

    /// Notes that the connection is idle, as far as can be seen: it owns no more than it must.
    pub fn rest(&mut self, now: Now) {
        self.usage.forgive(now.uptime);
    }

    /// Counts a subscription that begins or changes. One that ends is not counted: it had to begin.
    pub(super) fn count_subscribe(&mut self, now: Now) -> Result<(), Refusal> {
        let Some(rate) = self.broker.limits.subscribes else { return Ok(()) };
        if self.uncounted < UNCOUNTED {
            self.uncounted += 1;
            return Ok(());
        }
        let spent = &mut self.usage.account().subscribes;
        spent.take(rate, now.uptime).map_err(too_soon(Reason::SubscribesTooOften))
    }

    /// Asks whether this connection may subscribe to a topic that is perhaps not there yet.
    pub(super) fn may_begin<S: Socket>(
        &self,
        topic: &TopicName,
        shard: &Shard<S>,
    ) -> Result<(), Refusal> {
        if !shard.standing(self.connection).is_rated() {
            return Ok(());
        }
        self.broker.may_begin(topic, self.usage.seen().new_topics, shard.now())
    }

    /// Counts a topic that this connection has begun.
    pub(super) fn count_new_topic<S: Socket>(&mut self, shard: &Shard<S>) {
        if shard.standing(self.connection).is_rated() {
            self.broker.charge_new_topic(&mut self.usage, shard.now());
        }
    }
}

fn check(spent: Spent, rate: Option<Rate>, now: Now) -> Result<(), Duration> {
    rate.map_or(Ok(()), |rate| spent.wait(rate, now.uptime))
}

fn too_soon(reason: Reason) -> impl FnOnce(Duration) -> Refusal {
    move |wait| Refusal::new(reason, format!("try again in {} ms", wait.as_millis() + 1))
}
