//! Answers that are kept so that a publisher may safely ask twice.
//! # Invariants: within the window one key gives one answer; the number of keys kept by all topics
//! together is bounded, and a key that had to go early is counted.
//! # Not here: the topic's lock, which makes look-up and append one step (`registry`).

use super::kept::KeptAnswer;
use super::message::{Draft, Offset};
use crate::planted::{self, Bug};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How long and how many answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyOptions {
    /// How long an answer is kept. Default 5 minutes.
    pub window: Duration,
    /// Answers of all topics together. Default 100,000; each costs about 150 bytes and its key.
    pub keys_max: usize,
}

impl Default for IdempotencyOptions {
    fn default() -> IdempotencyOptions {
        IdempotencyOptions { window: Duration::from_mins(5), keys_max: 100_000 }
    }
}

/// What the answers of all topics share: the bounds, and the hasher of contents.
#[derive(Debug)]
pub struct IdempotencyWindow {
    options: IdempotencyOptions,
    hasher: RandomState,
    used: AtomicUsize,
    evicted: AtomicU64,
}

impl IdempotencyWindow {
    /// An empty window.
    pub fn new(options: IdempotencyOptions) -> IdempotencyWindow {
        IdempotencyWindow {
            options,
            hasher: RandomState::new(),
            used: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// Answers kept now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Answers that went before their time, because there were too many.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Stands for what a draft says: drafts that differ have the same digest with a chance of 2⁻⁶⁴.
    pub fn digest(&self, draft: &Draft) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        std::mem::discriminant(&draft.payload).hash(&mut hasher);
        draft.payload.bytes().hash(&mut hasher);
        draft.key.hash(&mut hasher);
        draft.ttl.hash(&mut hasher);
        hasher.finish()
    }
}

/// The answers of one topic.
#[derive(Debug, Default)]
pub struct Answers {
    by_key: HashMap<Arc<str>, Answer>,
    /// Keys in the order in which they end.
    order: VecDeque<(Arc<str>, Duration)>,
}

/// What was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Stands for the message, see [`IdempotencyWindow::digest`]; `None` where that is not known any
    /// more: then any message is taken for it.
    pub digest: Option<u64>,
    /// The place it was given.
    pub offset: Offset,
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The key is new.
    Nothing,
    /// The same message has this place already.
    Same(Offset),
    /// The key was used for another message.
    Other,
}

impl Answers {
    /// Looks for an earlier answer.
    pub fn find(&self, key: &str, digest: u64) -> Found {
        match self.by_key.get(key) {
            None => Found::Nothing,
            Some(answer)
                if answer.digest.is_none_or(|known| known == digest)
                    || planted::is(Bug::KeyShared) =>
            {
                Found::Same(answer.offset)
            }
            Some(_) => Found::Other,
        }
    }

    /// Keeps an answer. The key must be new. When all topics together hold too many, this topic
    /// gives up its oldest.
    pub fn keep(
        &mut self,
        key: &str,
        answer: Answer,
        uptime: Duration,
        window: &IdempotencyWindow,
    ) {
        self.restore(key, answer, uptime + window.options.window, window);
    }

    /// The same for an answer that is kept until `end`, which is no earlier than that of those before.
    pub fn restore(
        &mut self,
        key: &str,
        answer: Answer,
        end: Duration,
        window: &IdempotencyWindow,
    ) {
        let key: Arc<str> = Arc::from(key);
        self.order.push_back((Arc::clone(&key), end));
        self.by_key.insert(key, answer);
        // A topic keeps its newest key in any case: a publisher that was answered may ask again.
        let is_over = window.used.fetch_add(1, Ordering::Relaxed) >= window.options.keys_max;
        if is_over && self.order.len() > 1 {
            self.drop_oldest(window);
            window.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives up the answers whose time has come.
    pub fn expire(&mut self, uptime: Duration, window: &IdempotencyWindow) {
        while self.order.front().is_some_and(|(_, end)| *end <= uptime) {
            self.drop_oldest(window);
        }
    }

    /// All of them, in the order in which they end.
    pub fn kept(&self) -> Vec<KeptAnswer> {
        let answer = |(key, end): &(Arc<str>, Duration)| {
            let offset = self.by_key.get(key)?.offset;
            Some(KeptAnswer { key: (&**key).into(), offset, end: *end })
        };
        self.order.iter().filter_map(answer).collect()
    }

    /// Whether no answer is kept.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn drop_oldest(&mut self, window: &IdempotencyWindow) {
        if let Some((key, _)) = self.order.pop_front() {
            self.by_key.remove(&key);
            window.used.fetch_sub(1, Ordering::Relaxed);
        }
        if self.by_key.is_empty() {
            *self = Answers::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_with_the_window() {
        let window = IdempotencyWindow::new(IdempotencyOptions {
            window: Duration::from_secs(10),
            keys_max: 100,
        });
        let mut answers = Answers::default();
        let answer = Answer { digest: Some(1), offset: Offset(7) };
        answers.keep("a", answer, Duration::ZERO, &window);
        assert_eq!(answers.find("a", 1), Found::Same(Offset(7)));
        assert_eq!(answers.find("a", 2), Found::Other);
        assert_eq!(answers.find("b", 1), Found::Nothing);
        answers.expire(Duration::from_secs(9), &window);
        assert!(!answers.is_empty());
        answers.expire(Duration::from_secs(10), &window);
        assert_eq!(answers.find("a", 1), Found::Nothing);
        assert_eq!(window.used(), 0);
    }

    #[test]
    fn too_many_answers_push_out_the_oldest_and_are_counted() {
        let window = IdempotencyWindow::new(IdempotencyOptions {
            window: Duration::from_secs(10),
            keys_max: 2,
        });
        let mut answers = Answers::default();
        for (offset, key) in (1..).zip(["a", "b", "c"]) {
            let answer = Answer { digest: Some(0), offset: Offset(offset) };
            answers.keep(key, answer, Duration::ZERO, &window);
        }
        assert_eq!(answers.find("a", 0), Found::Nothing);
        assert_eq!(answers.find("c", 0), Found::Same(Offset(3)));
        assert_eq!((window.used(), window.evicted()), (2, 1));
    }
}
