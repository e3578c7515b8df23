//! What the server says, handed to whom it concerns.
//! # Invariants: what does not hold what it must ends the connection; what nobody knows is passed over.
//! # Not here: what a subscription makes of it (`feed`).

use super::super::error::Error;
use super::super::event::{
    Event, Gap, Message, Presence, malformed, position_of, terms_of, topic_of,
};
use super::super::wire::Fault;
use super::{Feed, Pilot, Purpose, SERVER_WAIT_MAX};
use crate::clock::Now;
use crate::dialect::schema::{self, command::Action, event::Body};
use crate::reason::Retry;
use crate::topics::message::Position;
use crate::topics::name::TopicName;
use smallvec::SmallVec;
use std::time::Duration;

/// The ids of subscriptions: mostly one.
type Ids = SmallVec<[u64; 4]>;

impl Pilot {
    /// What the server has said.
    pub(in crate::client) fn heard(&mut self, now: Now, event: schema::Event) -> Result<(), Fault> {
        self.heard_at = now;
        match event.body {
            // A newer server may say what this client does not know.
            None => Ok(()),
            Some(body) if event.id == 0 => self.told(body),
            Some(body) => self.answered(now, event.id, body),
        }
    }

    // === Answers ===

    fn answered(&mut self, now: Now, id: u64, body: Body) -> Result<(), Fault> {
        // It may have been given up meanwhile.
        let Some((purpose, _)) = self.calls.answered(id) else { return Ok(()) };
        match (purpose, body) {
            (Purpose::Asked(reply), Body::Error(error)) => {
                reply.send(Err(error.into())).unwrap_or_default();
            }
            (Purpose::Asked(reply), body) => reply.send(Ok(body)).unwrap_or_default(),
            (Purpose::Hello, Body::Connected(hello)) => self.connected(now, hello),
            (Purpose::Hello, Body::Error(error)) => return Err(unwelcome(error)),
            (Purpose::Subscribe(id), Body::Subscribed(answer)) => {
                self.subscribed(now, id, &answer)?;
            }
            (Purpose::Subscribe(id), Body::Error(error)) => self.refused(now, id, &error.into()),
            (Purpose::Update(id), Body::Updated(updated)) => {
                let terms = terms_of(updated.policy, updated.max_hz, updated.overflow());
                if let Some(feed) = self.feeds.get_mut(&id) {
                    feed.agreement.grant(terms);
                }
                self.update_now(now, id);
            }
            (Purpose::Update(id), Body::Error(error)) => {
                if let Some(feed) = self.feeds.get_mut(&id) {
                    feed.agreement.refuse(&error.into());
                }
                self.update_now(now, id);
            }
            (Purpose::Watch(id), Body::PresenceState(state)) => {
                self.tell(id, Event::Present(state.into()));
            }
            (Purpose::Refresh, Body::Refreshed(refreshed)) => {
                self.plan_refresh(now, refreshed.expires_ms);
            }
            // The token of before counts until it expires; meanwhile there may be a better one.
            (Purpose::Refresh, Body::Error(_)) => self.refresh(now, None),
            (Purpose::Nothing, _) | (Purpose::Watch(_), Body::Error(_)) => {}
            (purpose, _) => return Err(malformed(&format!("an answer that fits no {purpose:?}"))),
        }
        Ok(())
    }

    fn subscribed(&mut self, now: Now, id: u64, answer: &schema::Subscribed) -> Result<(), Fault> {
        let Some(feed) = self.feeds.get_mut(&id).filter(|feed| !feed.lane.has_ended()) else {
            return Ok(());
        };
        feed.subscribed(answer)?;
        self.note(id);
        if self.feeds.get(&id).is_some_and(Feed::watches) {
            let presence = schema::Presence { topic: answer.topic.clone() };
            self.command(now, Action::Presence(presence), Purpose::Watch(id));
        }
        self.update_now(now, id);
        Ok(())
    }

    fn refused(&mut self, now: Now, id: u64, error: &Error) {
        let Some(feed) = self.feeds.get_mut(&id) else { return };
        if error.retry() == Retry::Later {
            let wait = self.settings.backoff.wait(feed.tries);
            feed.tries = feed.tries.saturating_add(1);
            feed.again_at = Some(now.uptime + wait);
        } else if feed.forget(error) {
            self.subscribe_now(now, id);
        } else {
            self.end(id, Some(error));
        }
    }

    // === What comes unasked ===

    fn told(&mut self, body: Body) -> Result<(), Fault> {
        match body {
            Body::Message(message) => self.message(&Message::of(message)?),
            Body::Gap(gap) => self.gap(&Gap::of(&gap)?),
            Body::Position(at) => {
                let (topic, at) = place(&at)?;
                for id in self.route(&topic) {
                    self.with(id, |feed| feed.place(&topic, at));
                }
            }
            Body::SnapshotEnd(end) => self.snapshot_end(&end)?,
            Body::PresenceState(state) => {
                let topic = state.topic.clone();
                self.seen(&topic, Event::Present(Presence::from(state)));
            }
            Body::Joined(schema::Joined { topic, member: Some(member) }) => {
                self.seen(&topic, Event::Joined(member.into()));
            }
            Body::Left(schema::Left { topic, member: Some(member) }) => {
                self.seen(&topic, Event::Left(member.into()));
            }
            Body::Stale(schema::Stale { topic, since }) => {
                let topic = topic_of(&topic)?;
                for id in self.route(&topic) {
                    self.with(id, |feed| feed.stale(&topic, (since > 0).then_some(since)));
                }
            }
            Body::Fresh(schema::Fresh { topic }) => {
                let topic = topic_of(&topic)?;
                for id in self.route(&topic) {
                    self.with(id, |feed| feed.fresh(&topic));
                }
            }
            Body::Reconnect(schema::Reconnect { after_ms }) => {
                self.after = Duration::from_millis(after_ms.into()).min(SERVER_WAIT_MAX);
            }
            Body::Unsubscribed(ended) => self.unsubscribed(ended),
            // About the connection itself, or a command that wanted no answer.
            Body::Error(error) if error.code >= 1000 => self.farewell = Some(error),
            // Pings, and answers to nothing.
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, message: &Message) {
        let takers = self.takers(&message.topic, message.offset);
        let known = |id: &u64| self.feeds.get(id).and_then(|feed| feed.epoch(&message.topic));
        let epoch = takers.iter().find_map(known);
        let dense = self.dense(&message.topic);
        for id in takers {
            self.with(id, |feed| feed.take(message, epoch, dense));
        }
    }

    fn gap(&mut self, gap: &Gap) {
        let dense = self.dense(&gap.topic);
        for id in self.takers(&gap.topic, gap.from) {
            self.with(id, |feed| feed.gap(gap, dense));
        }
    }

    fn snapshot_end(&mut self, end: &schema::SnapshotEnd) -> Result<(), Fault> {
        let positions: Vec<_> = end.positions.iter().map(place).collect::<Result<_, _>>()?;
        if let Some(index) = self.left.iter().position(|left| left.as_str() == end.topic) {
            self.left.remove(index);
        } else if let Some(id) = self.by_target.get(&*end.topic) {
            self.with(*id, |feed| feed.snapshot_end(&positions));
        }
        Ok(())
    }

    fn unsubscribed(&mut self, ended: schema::Unsubscribed) {
        let schema::Unsubscribed { topic, reason } = ended;
        let Some(id) = self.by_target.get(&*topic).copied() else { return };
        // One that is not live yet has been opened anew: the event is about its predecessor.
        if !self.feeds.get(&id).is_some_and(Feed::is_live) {
            return;
        }
        let name = if reason.is_empty() { "unsubscribed" } else { &reason };
        let text = format!("the server ended the subscription of {topic}");
        self.end(id, Some(&Error::local(name, Retry::Never, text)));
    }

    /// Tells the subscription to exactly this topic about who is there.
    fn seen(&mut self, topic: &str, event: Event) {
        if let Some(id) = self.by_target.get(topic).copied() {
            self.tell(id, event);
        }
    }

    fn tell(&mut self, id: u64, event: Event) {
        self.with(id, |feed| {
            if feed.is_live() && feed.watches() {
                feed.tell(event);
            }
        });
    }

    /// Does something with a subscription, and sees whether it is full then.
    fn with(&mut self, id: u64, change: impl FnOnce(&mut Feed)) {
        if let Some(feed) = self.feeds.get_mut(&id) {
            change(feed);
            self.note(id);
        }
    }

    fn note(&mut self, id: u64) {
        if self.feeds.get(&id).is_some_and(|feed| feed.lane.filled() > 0) {
            self.full.insert(id);
        }
    }

    /// The live subscriptions that a topic belongs to. There are few filters: the server allows 8.
    fn route(&self, topic: &TopicName) -> Ids {
        let exact = self.by_target.get(topic.as_str());
        let live = |id: &&u64| {
            let feed = self.feeds.get(id);
            feed.is_some_and(|feed| feed.is_live() && feed.target.covers(topic))
        };
        exact.into_iter().chain(&self.filters).filter(live).copied().collect()
    }

    /// The subscriptions to be told of a message, or of a gap that begins at `offset`. What was asked to
    /// come first is for who asked: it may have holes, and be older than what the others asked for.
    fn takers(&self, topic: &TopicName, offset: u64) -> Ids {
        let mut ids = self.route(topic);
        let filling = |id: &u64| self.feeds.get(id).is_some_and(Feed::is_filling);
        if ids.iter().any(filling) || self.left.iter().any(|left| left.covers(topic)) {
            let follows =
                |id: &u64| self.feeds.get(id).is_some_and(|feed| feed.follows(topic, offset));
            ids.retain(|id| filling(id) || follows(id));
        }
        ids
    }

    /// The terms under which the server passes over no message of a topic, if that is certain. It is
    /// where there is a subscription to exactly this topic, because its terms are the ones that count.
    fn dense(&self, topic: &TopicName) -> Option<u64> {
        let exact = self.feeds.get(self.by_target.get(topic.as_str())?)?;
        if exact.is_live() { exact.dense() } else { None }
    }
}

fn place(at: &schema::TopicPosition) -> Result<(TopicName, Position), Fault> {
    Ok((topic_of(&at.topic)?, position_of(&at.epoch, at.offset)?))
}

/// The server does not want this connection.
fn unwelcome(error: schema::Error) -> Fault {
    let code = u16::try_from(error.code).unwrap_or(u16::MAX);
    if code >= 1000 {
        return Fault::Closed { code, text: format!("{}: {}", error.name, error.message) };
    }
    Fault::Handshake { status: code, refusal: Some(Box::new(error)) }
}
