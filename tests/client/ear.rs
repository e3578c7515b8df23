//! A subscription that a test listens to.
//! # Invariants: what a test did not wait for is kept, and can be looked at.
//! # Not here: what is expected (`scenarios`).

use crate::rig::within;
use fanfare::client::{Event, Gap, Loss, Message, Recovery, Subscribed, Subscription};

/// A subscription, and what it has told beside messages.
pub(crate) struct Ear {
    pub(crate) subscription: Subscription,
    pub(crate) told: Vec<Event>,
}

impl Ear {
    pub(crate) fn new(subscription: Subscription) -> Ear {
        Ear { subscription, told: Vec::new() }
    }

    /// The next event of any kind.
    pub(crate) async fn event(&mut self) -> Event {
        let event = within("an event", self.subscription.next()).await;
        event.expect("the subscription goes on").expect("without an error")
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            match self.event().await {
                Event::Message(message) => return message,
                other => self.told.push(other),
            }
        }
    }

    /// The texts of so many next messages.
    pub(crate) async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            texts.push(self.message().await.text().expect("a text").to_owned());
        }
        texts
    }

    /// The next event that is none of those which tell where the subscription stands.
    pub(crate) async fn next_told(&mut self) -> Event {
        loop {
            match self.event().await {
                Event::Subscribed(_) => {}
                other => return other,
            }
        }
    }

    /// What became of the next topic that is resumed.
    pub(crate) async fn recovery(&mut self) -> Recovery {
        match self.next_told().await {
            Event::Recovered(recovery) => recovery,
            other => panic!("{other:?}"),
        }
    }

    /// What the server grants the next time.
    pub(crate) async fn subscribed(&mut self) -> Subscribed {
        loop {
            match self.event().await {
                Event::Subscribed(subscribed) => return subscribed,
                other => self.told.push(other),
            }
        }
    }

    pub(crate) async fn gap(&mut self) -> Gap {
        match self.next_told().await {
            Event::Gap(gap) => gap,
            other => panic!("{other:?}"),
        }
    }

    /// What was told of resumes so far, in order.
    pub(crate) fn losses(&self) -> Vec<Option<Loss>> {
        let loss = |event: &Event| match event {
            Event::Recovered(recovery) => Some(recovery.loss),
            _ => None,
        };
        self.told.iter().filter_map(loss).collect()
    }
}
