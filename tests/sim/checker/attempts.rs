//! Attempts to publish, and what became of each.
//! # Not here: places in a topic (`log`).

use super::{Checked, Invariant, Moment, fault};
use crate::history::{Content, Position, Publish};
use std::collections::HashMap;

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) connection: u64,
    pub(super) life: usize,
    pub(super) publish: Publish,
    pub(super) sent: Moment,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It may have happened or may still happen.
    Unknown,
    Acked(Position, Moment),
    Refused,
}

/// A key of one topic in one life of the broker.
type Key = (usize, String, String);

/// What one topic was told in one life of the broker.
pub(super) type Said = (usize, String, Content);

#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) all: Vec<Attempt>,
    by_content: HashMap<Said, Vec<usize>>,
    by_key: HashMap<Key, Vec<usize>>,
}

impl Attempts {
    pub(super) fn add(
        &mut self,
        connection: u64,
        life: usize,
        publish: &Publish,
        sent: Moment,
    ) -> usize {
        let number = self.all.len();
        let said = (life, publish.topic.clone(), publish.content.clone());
        self.by_content.entry(said).or_default().push(number);
        if !publish.idempotency_key.is_empty() {
            self.by_key.entry(key(life, publish)).or_default().push(number);
        }
        let (publish, outcome) = (publish.clone(), Outcome::Unknown);
        self.all.push(Attempt { connection, life, publish, sent, outcome });
        number
    }

    /// Forgets all but these. Nobody may wait for the answer to one.
    pub(super) fn forget(&mut self, is_kept: impl Fn(&Attempt, &Said) -> bool) {
        let before = std::mem::take(self);
        for attempt in before.all {
            let Attempt { life, publish, .. } = &attempt;
            let said = (*life, publish.topic.clone(), publish.content.clone());
            if !is_kept(&attempt, &said) {
                continue;
            }
            let number = self.all.len();
            self.by_content.entry(said).or_default().push(number);
            if !publish.idempotency_key.is_empty() {
                self.by_key.entry(key(*life, publish)).or_default().push(number);
            }
            self.all.push(attempt);
        }
    }

    /// The attempts to say this.
    pub(super) fn saying(&self, life: usize, topic: &str, content: &Content) -> Vec<&Attempt> {
        let said = (life, topic.to_owned(), content.clone());
        let numbers = self.by_content.get(&said).into_iter().flatten();
        numbers.map(|number| &self.all[*number]).collect()
    }

    /// The attempts with the key of this one, itself among them; itself alone if it has none.
    fn with_key_of(&self, number: usize) -> Vec<&Attempt> {
        let attempt = &self.all[number];
        match self.by_key.get(&key(attempt.life, &attempt.publish)) {
            Some(numbers) => numbers.iter().map(|number| &self.all[*number]).collect(),
            None => vec![attempt],
        }
    }

    /// Whether nobody else has used its key so far, so that its place is new.
    pub(super) fn is_alone(&self, number: usize) -> bool {
        self.with_key_of(number).len() == 1
    }

    /// One key gives one answer while it is kept.
    pub(super) fn check_acked(&self, number: usize, window_ms: u64) -> Checked {
        let this = &self.all[number];
        let Outcome::Acked(position, heard) = &this.outcome else { return Ok(()) };
        let with_key = self.with_key_of(number);
        // The key is kept from when the first of them was done, which was after it was sent.
        if heard.at >= with_key[0].sent.at + window_ms {
            return Ok(());
        }
        for other in with_key {
            let Outcome::Acked(first, _) = &other.outcome else { continue };
            let topic = &this.publish.topic;
            if other.publish.content != this.publish.content {
                let key = &this.publish.idempotency_key;
                let says = format!("key `{key}` was taken for two messages");
                return fault(Invariant::Idempotence, topic, says);
            }
            if first != position {
                let says = format!("a retry got {position:?}, the answer was {first:?}");
                return fault(Invariant::Idempotence, topic, says);
            }
        }
        Ok(())
    }

    /// A key is refused only if it was used for something else.
    pub(super) fn check_refused(&self, number: usize, name: &str) -> Checked {
        let this = &self.all[number];
        let differs = |other: &&Attempt| {
            other.publish.content != this.publish.content && other.outcome != Outcome::Refused
        };
        if name == "idempotencyMismatch" && !self.with_key_of(number).iter().any(differs) {
            let says = format!("key `{}` had no other use", this.publish.idempotency_key);
            return fault(Invariant::Idempotence, &this.publish.topic, says);
        }
        Ok(())
    }

    /// How often a content may have found a place: once, and again when its key was forgotten.
    pub(super) fn places_max(
        &self,
        life: usize,
        topic: &str,
        content: &Content,
        window_ms: u64,
    ) -> usize {
        let attempts = self.saying(life, topic, content);
        let Some(first) = attempts.first() else { return 0 };
        if content.is_delete() {
            // All deletes of a key are alike.
            return attempts.iter().filter(|a| a.outcome != Outcome::Refused).count();
        }
        let may_be_late = |attempt: &&&Attempt| match &attempt.outcome {
            Outcome::Unknown => true,
            Outcome::Acked(_, heard) => heard.at >= first.sent.at + window_ms,
            Outcome::Refused => false,
        };
        (1 + attempts.iter().filter(may_be_late).count()).min(attempts.len())
    }
}

fn key(life: usize, publish: &Publish) -> Key {
    (life, publish.topic.clone(), publish.idempotency_key.clone())
}
