//! The bounded queue into a shard: reserve in every shard, then post in every shard.
//! # Invariants: what is posted was reserved, so a post cannot fail; messages and bytes in the
//! queue stay within their bounds; order out is order in.
//! # Not here: who reads it, and what the reader does.

use super::message::Message;
use super::topic::ShardId;
use crate::planted::{self, Bug};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    queue: Mutex<VecDeque<Arc<Message>>>,
    /// Reserved and queued messages.
    messages: AtomicUsize,
    /// Reserved and queued payload bytes.
    bytes: AtomicUsize,
    options: MailboxOptions,
    /// Wakes the reader; called when the queue was empty.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// What a shard has taken out of its mailbox and not yet delivered, in the order of the posts.
#[derive(Debug)]
pub struct Inbox {
    /// Whose it is.
    pub shard: ShardId,
    /// The messages, oldest first.
    pub queue: VecDeque<Arc<Message>>,
}

/// The right to post one message. Dropping it gives the room back.
#[derive(Debug)]
pub struct Permit<'a> {
    /// Taken by the post: the room then belongs to the queued message, and `drain` gives it back.
    mailbox: Option<&'a Mailbox>,
    cost: usize,
}

impl Mailbox {
    /// An empty mailbox that calls `wake` when something arrives in an empty queue.
    pub fn new(options: MailboxOptions, wake: impl Fn() + Send + Sync + 'static) -> Mailbox {
        Mailbox {
            queue: Mutex::default(),
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            options,
            wake: Box::new(wake),
        }
    }

    /// Makes room for one message of `cost` payload bytes, or says that there is none.
    pub fn reserve(&self, cost: usize) -> Option<Permit<'_>> {
        if self.messages.fetch_add(1, Ordering::AcqRel) >= self.options.messages_max {
            self.messages.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        if self.bytes.fetch_add(cost, Ordering::AcqRel) + cost > self.options.bytes_max {
            self.messages.fetch_sub(1, Ordering::AcqRel);
            self.bytes.fetch_sub(cost, Ordering::AcqRel);
            return None;
        }
        Some(Permit { mailbox: Some(self), cost })
    }

    /// Moves everything that waits to the end of `into`. Into an empty queue it moves by changing
    /// places, so the memory of both is used again and again.
    pub fn drain(&self, into: &mut VecDeque<Arc<Message>>) {
        let already = into.len();
        {
            let mut queue = self.queue.lock();
            if already == 0 {
                std::mem::swap(&mut *queue, into);
            } else {
                into.append(&mut queue);
            }
        }
        let drained = into.range(already..);
        self.messages.fetch_sub(drained.len(), Ordering::AcqRel);
        let bytes = drained.map(|message| message.payload.bytes().len()).sum();
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Messages that wait or have a reservation.
    pub fn depth(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }
}

impl Permit<'_> {
    /// Posts the message that the room was reserved for.
    pub fn post(mut self, message: Arc<Message>) {
        debug_assert_eq!(self.cost, message.payload.bytes().len(), "a permit is for one message");
        let Some(mailbox) = self.mailbox.take() else { return };
        let was_empty = {
            let mut queue = mailbox.queue.lock();
            queue.push_back(message);
            queue.len() == 1
        };
        if was_empty && !planted::is(Bug::WakeLost) {
            (mailbox.wake)();
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox {
            mailbox.messages.fetch_sub(1, Ordering::AcqRel);
            mailbox.bytes.fetch_sub(self.cost, Ordering::AcqRel);
        }
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
    fn messages_and_bytes_are_bounded_and_a_dropped_permit_gives_its_room_back() {
        let (mailbox, _) = small();
        let first = mailbox.reserve(60).expect("room");
        assert!(mailbox.reserve(60).is_none(), "120 bytes would be over the bound");
        let second = mailbox.reserve(10).expect("room");
        assert!(mailbox.reserve(1).is_none(), "a third message would be over the bound");
        drop((first, second));
        assert_eq!(mailbox.depth(), 0);
        assert!(mailbox.reserve(100).is_some());
    }

    #[test]
    fn what_is_drained_is_in_order_and_gives_its_room_back() {
        let (mailbox, woken) = small();
        let mut inbox = VecDeque::new();
        for round in 0..3 {
            for offset in [1, 2] {
                mailbox.reserve(5).expect("room").post(message(round * 2 + offset, 5));
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
