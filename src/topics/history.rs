//! The messages that a topic still holds: a ring bounded by count, age and bytes.
//! # Invariants: the ring holds consecutive offsets that end at the topic's latest message, or
//! nothing; no bound is exceeded after an append.
//! # Not here: locks, clocks, what is sent to whom.

use super::message::{Message, Offset};
use crate::planted::{self, Bug};
use crate::reason::Reason;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How much one topic holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Messages. 0 turns history off. Default 1,000: as many as one resume may send.
    pub messages: usize,
    /// Age since the broker took the message. Default 5 minutes.
    pub age: Duration,
    /// Bytes as [`Message::cost`] counts them. Default 1 MiB.
    pub bytes: usize,
}

impl Default for HistoryOptions {
    fn default() -> HistoryOptions {
        HistoryOptions { messages: 1_000, age: Duration::from_mins(5), bytes: 1 << 20 }
    }
}

/// The bytes that all histories together may hold.
///
/// The topic that grows pays: when an append takes the sum over the bound, that topic gives up its
/// own oldest messages. Quiet topics keep theirs until they age.
#[derive(Debug)]
pub struct HistoryBudget {
    used: AtomicUsize,
    max: usize,
}

impl HistoryBudget {
    /// A budget of `max` bytes.
    pub fn new(max: usize) -> HistoryBudget {
        HistoryBudget { used: AtomicUsize::new(0), max }
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether more is held than should be.
    pub fn exceeded(&self) -> bool {
        self.used() > self.max
    }

    /// Notes bytes that are held for a topic beside its ring.
    pub fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that a topic may hold, which holds `before` now.
    fn room(&self, before: usize) -> usize {
        self.max.saturating_sub(self.used().saturating_sub(before))
    }

    /// Notes that a topic holds `after` instead of `before`.
    fn settle(&self, before: usize, after: usize) {
        match after.checked_sub(before) {
            Some(0) => {}
            Some(more) => self.charge(more),
            None => self.release(before - after),
        }
    }

    /// Notes that they are not held any more.
    pub fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The ring of one topic.
#[derive(Debug, Default)]
pub struct History {
    ring: VecDeque<Arc<Message>>,
    bytes: usize,
    /// Why the newest of the messages that are gone went.
    last_loss: Option<Loss>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Trimmed,
    Expired,
}

impl History {
    /// Adds the topic's newest message and gives up what the bounds no longer allow.
    pub fn append(
        &mut self,
        message: Arc<Message>,
        options: &HistoryOptions,
        budget: &HistoryBudget,
    ) {
        let uptime = message.committed;
        let before = self.bytes;
        self.bytes += message.cost();
        self.ring.push_back(message);
        let messages_max = options.messages - usize::from(planted::is(Bug::HistoryTooShort));
        let bytes_max = options.bytes.min(budget.room(before));
        while self.ring.len() > messages_max || (self.bytes > bytes_max && !self.ring.is_empty()) {
            self.drop_oldest(Loss::Trimmed);
        }
        self.drop_expired(uptime, options);
        // Once: a ring that gives up as much as it takes costs no traffic between cores.
        budget.settle(before, self.bytes);
    }

    /// Gives up what has become too old.
    pub fn expire(&mut self, uptime: Duration, options: &HistoryOptions, budget: &HistoryBudget) {
        let before = self.bytes;
        self.drop_expired(uptime, options);
        budget.settle(before, self.bytes);
    }

    /// Gives up everything.
    pub fn clear(&mut self, budget: &HistoryBudget) {
        let before = self.bytes;
        while !self.ring.is_empty() {
            self.drop_oldest(Loss::Trimmed);
        }
        self.ring = VecDeque::new();
        budget.settle(before, self.bytes);
    }

    /// The messages after `since` up to `top`, oldest first; nothing if `since` is `top`.
    /// `top` is at most the offset of the topic's latest message.
    ///
    /// # Errors
    /// [`Reason::Trimmed`] or [`Reason::Expired`] when the first of them is gone.
    pub fn between(
        &self,
        since: Offset,
        top: Offset,
    ) -> Result<impl ExactSizeIterator<Item = &Arc<Message>> + Clone, Reason> {
        if since >= top {
            return Ok(self.ring.range(0..0));
        }
        let Some(first) = self.ring.front().map(|oldest| oldest.offset) else {
            return Err(self.loss());
        };
        if since.next() < first && !planted::is(Bug::HoleRecovered) {
            return Err(self.loss());
        }
        let start = index_of(since.next(), first).min(self.ring.len());
        let end = index_of(top.next(), first).min(self.ring.len());
        Ok(self.ring.range(start..end.max(start)))
    }

    /// The latest `count` messages, oldest first.
    pub fn latest(
        &self,
        count: usize,
    ) -> impl DoubleEndedIterator<Item = &Arc<Message>> + ExactSizeIterator + Clone {
        self.ring.range(self.ring.len().saturating_sub(count)..)
    }

    /// The oldest offset that it holds, and why those before it are gone.
    pub fn begin(&self) -> (Option<Offset>, Reason) {
        (self.ring.front().map(|oldest| oldest.offset), self.loss())
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    fn loss(&self) -> Reason {
        match self.last_loss {
            Some(Loss::Expired) => Reason::Expired,
            Some(Loss::Trimmed) | None => Reason::Trimmed,
        }
    }

    fn drop_expired(&mut self, uptime: Duration, options: &HistoryOptions) {
        while self
            .ring
            .front()
            .is_some_and(|oldest| uptime.saturating_sub(oldest.committed) > options.age)
        {
            self.drop_oldest(Loss::Expired);
        }
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
    }

    fn drop_oldest(&mut self, loss: Loss) {
        if let Some(oldest) = self.ring.pop_front() {
            self.bytes -= oldest.cost();
            self.last_loss = Some(loss);
        }
    }
}

fn index_of(offset: Offset, first: Offset) -> usize {
    usize::try_from(offset.0.saturating_sub(first.0)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::topics::message::{Draft, Epoch, Payload, TopicHead};
    use crate::topics::name::TopicName;
    use proptest::prelude::*;

    fn message(offset: u64, at_ms: u64, size: usize) -> Arc<Message> {
        let topic = TopicName::parse("t").expect("valid name");
        let head = TopicHead::new(1, topic.clone(), Epoch::from_bits(1), Arc::default());
        let draft = Draft::new(topic, Payload::Text(vec![b'x'; size].into()));
        Arc::new(Message::new(Arc::new(head), Offset(offset), draft, Now::at_ms(at_ms)))
    }

    fn offsets<'a>(messages: impl Iterator<Item = &'a Arc<Message>>) -> Vec<u64> {
        messages.map(|message| message.offset.0).collect()
    }

    fn options(messages: usize) -> HistoryOptions {
        HistoryOptions { messages, age: Duration::from_mins(1), bytes: 1 << 20 }
    }

    #[test]
    fn count_bytes_and_age_each_bound_the_ring() {
        let budget = HistoryBudget::new(1 << 30);
        let mut history = History::default();
        for offset in 1..=10 {
            history.append(message(offset, 0, 1), &options(3), &budget);
        }
        assert_eq!(offsets(history.latest(99)), [8, 9, 10]);
        assert_eq!(history.between(Offset(5), Offset(10)).err(), Some(Reason::Trimmed));

        let small = HistoryOptions { bytes: message(1, 0, 1000).cost() * 2, ..options(100) };
        history.append(message(11, 0, 1000), &small, &budget);
        history.append(message(12, 0, 1000), &small, &budget);
        assert_eq!(offsets(history.latest(99)), [11, 12]);

        history.append(message(13, 61_000, 1), &options(100), &budget);
        assert_eq!(offsets(history.latest(99)), [13]);
        assert_eq!(history.between(Offset(11), Offset(13)).err(), Some(Reason::Expired));
        history.clear(&budget);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_message_over_the_byte_bound_leaves_an_empty_ring() {
        let budget = HistoryBudget::new(1 << 30);
        let mut history = History::default();
        let tiny = HistoryOptions { bytes: 10, ..options(100) };
        history.append(message(1, 0, 1000), &tiny, &budget);
        assert!(history.is_empty());
        assert_eq!(history.between(Offset(0), Offset(1)).err(), Some(Reason::Trimmed));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_topic_that_grows_pays_for_the_common_budget() {
        let budget = HistoryBudget::new(message(1, 0, 100).cost() * 4);
        let (mut quiet, mut busy) = (History::default(), History::default());
        quiet.append(message(1, 0, 100), &options(100), &budget);
        for offset in 1..=10 {
            busy.append(message(offset, 0, 100), &options(100), &budget);
        }
        assert_eq!(quiet.len(), 1);
        assert_eq!(offsets(busy.latest(99)), [8, 9, 10]);
    }

    proptest! {
        #[test]
        fn what_is_between_is_exactly_what_was_appended(
            appended in 0u64..40, kept in 0usize..20, since in 0u64..45, top in 0u64..45,
        ) {
            let budget = HistoryBudget::new(1 << 30);
            let mut history = History::default();
            for offset in 1..=appended {
                history.append(message(offset, 0, 1), &options(kept), &budget);
            }
            let top = top.min(appended);
            let first_kept = appended.saturating_sub(kept as u64) + 1;
            let got = history.between(Offset(since), Offset(top)).map(offsets);
            if since >= top {
                prop_assert_eq!(got, Ok(vec![]));
            } else if since + 1 < first_kept {
                prop_assert_eq!(got, Err(Reason::Trimmed));
            } else {
                prop_assert_eq!(got, Ok((since + 1..=top).collect::<Vec<_>>()));
            }
            let latest = offsets(history.latest(5));
            let from = first_kept.max((appended + 1).saturating_sub(5)).max(1);
            prop_assert_eq!(latest, (from..=appended).collect::<Vec<_>>());
        }
    }
}
