//! The bounded queue into a shard: reserve in every shard, then post in every shard.
//! # Invariants: what is posted was reserved, so a post cannot fail; messages and bytes in the
//! queue stay within their bounds; order out is order in. Who holds several permits took them in the
//! order of the shards, so that two of them never wait for each other.
//! # Not here: who reads it, and what the reader does.

use super::message::Message;
use super::topic::ShardId;
use crate::planted::{self, Bug};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// How much may wait for one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxOptions {
    /// Messages. Default 65,536; each costs 8 bytes here and its own size once, however many
    /// shards wait for it.
    pub messages_max: usize,
    /// Bytes of payload. Default 64 MiB.
    pub bytes_max: usize,
}

impl Default for MailboxOptions {
    fn default() -> MailboxOptions {
        MailboxOptions { messages_max: 65_536, bytes_max: 64 << 20 }
    }
}

/// The queue into one shard.
pub struct Mailbox {
    queue: Mutex<Queue>,
    options: MailboxOptions,
    /// Wakes the reader; called when the queue was empty.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// What waits.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Arc<Message>>,
    /// Bytes of their payloads.
    bytes: usize,
}

/// What a shard has taken out of its mailbox and not yet delivered, in the order of the posts.
#[derive(Debug)]
pub struct Inbox {
    /// Whose it is.
    pub shard: ShardId,
    /// The messages, oldest first.
    pub queue: VecDeque<Arc<Message>>,
}

/// The right to post one message. The queue stays locked until it is used or dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    mailbox: &'a Mailbox,
    queue: MutexGuard<'a, Queue>,
    cost: usize,
}

/// A reader that must be woken, because its queue was empty.
#[derive(Debug)]
#[must_use = "a reader that is not woken sleeps"]
pub struct Wake<'a>(&'a Mailbox);

impl Mailbox {
    /// An empty mailbox that calls `wake` when something arrives in an empty queue.
    pub fn new(options: MailboxOptions, wake: impl Fn() + Send + Sync + 'static) -> Mailbox {
        Mailbox { queue: Mutex::default(), options, wake: Box::new(wake) }
    }

    /// Makes room for one message of `cost` payload bytes, or says that there is none.
    pub fn reserve(&self, cost: usize) -> Option<Permit<'_>> {
        let queue = self.queue.lock();
        let has_room = queue.messages.len() < self.options.messages_max
            && queue.bytes.saturating_add(cost) <= self.options.bytes_max;
        has_room.then(|| Permit { mailbox: self, queue, cost })
    }

    /// Moves everything that waits to the end of `into`. Into an empty queue it moves by changing
    /// places, so the memory of both is used again and again.
    pub fn drain(&self, into: &mut VecDeque<Arc<Message>>) {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        if into.is_empty() {
            std::mem::swap(&mut queue.messages, into);
        } else {
            into.append(&mut queue.messages);
        }
    }

    /// Messages that wait.
    pub fn depth(&self) -> usize {
        self.queue.lock().messages.len()
    }
}

impl<'a> Permit<'a> {
    /// Posts the message that the room was reserved for. The reader, if it must be woken, is woken
    /// by the caller, when no queue is locked any more.
    pub fn post(mut self, message: Arc<Message>) -> Option<Wake<'a>> {
        debug_assert_eq!(self.cost, message.payload.bytes().len(), "a permit is for one message");
        self.queue.bytes += self.cost;
        self.queue.messages.push_back(message);
        let was_empty = self.queue.messages.len() == 1;
        (was_empty && !planted::is(Bug::WakeLost)).then_some(Wake(self.mailbox))
    }
}

impl Wake<'_> {
    /// Wakes the reader.
    pub fn wake(self) {
        (self.0.wake)();
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("depth", &self.depth()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::topics::message::{Draft, Epoch, Offset, Payload, TopicHead};
    use crate::topics::name::TopicName;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn message(offset: u64, size: usize) -> Arc<Message> {
        let topic = TopicName::parse("t").expect("valid name");
        let head = TopicHead::new(1, topic.clone(), Epoch::from_bits(1), Arc::default());
        let payload = Payload::Binary(vec![0; size].into());
        let draft = Draft::new(topic, payload);
        Arc::new(Message::new(Arc::new(head), Offset(offset), draft, Now::at_ms(0)))
    }

    fn small() -> (Mailbox, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let options = MailboxOptions { messages_max: 2, bytes_max: 100 };
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        (Mailbox::new(options, wake), woken)
    }

    #[test]
    fn messages_and_bytes_are_bounded_and_a_dropped_permit_takes_no_room() {
        let (mailbox, _) = small();
        drop(mailbox.reserve(100).expect("room"));
        assert!(mailbox.reserve(101).is_none(), "101 bytes would be over the bound");
        mailbox.reserve(60).expect("room").post(message(1, 60));
        assert!(mailbox.reserve(60).is_none(), "120 bytes would be over the bound");
        mailbox.reserve(10).expect("room").post(message(2, 10));
        assert!(mailbox.reserve(1).is_none(), "a third message would be over the bound");
        assert_eq!(mailbox.depth(), 2);
        mailbox.drain(&mut VecDeque::new());
        assert!(mailbox.reserve(100).is_some());
    }

    #[test]
    fn what_is_drained_is_in_order_and_gives_its_room_back() {
        let (mailbox, woken) = small();
        let mut inbox = VecDeque::new();
        for round in 0..3 {
            for offset in [1, 2] {
                let permit = mailbox.reserve(5).expect("room");
                permit.post(message(round * 2 + offset, 5)).into_iter().for_each(Wake::wake);
            }
            assert!(mailbox.reserve(5).is_none());
            mailbox.drain(&mut inbox);
        }
        let offsets: Vec<u64> = inbox.iter().map(|message| message.offset.0).collect();
        assert_eq!(offsets, [1, 2, 3, 4, 5, 6]);
        assert_eq!(woken.load(Ordering::Relaxed), 3, "only an empty queue wakes its reader");
        assert_eq!(mailbox.depth(), 0);
    }
}
