//! A shard with connections whose sockets take everything and cost nothing, and what it delivers:
//! the broker's own share of a delivery, without the kernel's.

use fanfare::clock::Now;
use fanfare::shard::outbound::Socket;
use fanfare::shard::pressure::Budget;
use fanfare::shard::{Joiner, Progress, Shard, ShardOptions};
use fanfare::topics::mailbox::{Mailbox, MailboxOptions};
use fanfare::topics::message::{Draft, Payload, Wire};
use fanfare::topics::name::{TopicFilter, TopicName};
use fanfare::topics::registry::{Registry, RegistryOptions};
use fanfare::topics::terms::Terms;
use fanfare::topics::topic::{Ask, ShardId};
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Takes everything.
pub(crate) struct NoSocket;

impl Socket for NoSocket {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
    fn shutdown(&self) {}
    fn abort(&self) {}
}

/// A registry and one shard.
pub(crate) struct Rig {
    registry: Arc<Registry>,
    shard: Shard<NoSocket>,
    topics: Vec<TopicName>,
    next: usize,
}

impl Rig {
    /// `topics` topics, and `connections` connections with `each` of them.
    pub(crate) fn new(topics: usize, connections: usize, each: usize, wire: Wire) -> Rig {
        let mailbox = Arc::new(Mailbox::new(MailboxOptions::default(), || {}));
        let options = RegistryOptions { topics_max: usize::MAX, ..RegistryOptions::default() };
        let registry = Arc::new(Registry::new(options, vec![mailbox], Box::new(|| Some(1))));
        let id = ShardId::new(0).expect("a shard");
        let budget = Arc::new(Budget::new(usize::MAX, Vec::new()));
        let options = ShardOptions::default();
        let mut shard = Shard::new(id, Arc::clone(&registry), options, Arc::default(), budget);
        let name = |number: usize| TopicName::parse(&format!("bench.{number}"));
        let topics: Vec<TopicName> =
            (0..topics).map(|number| name(number).expect("valid name")).collect();
        for number in 0..connections {
            let connection = shard.open(NoSocket, wire);
            for turn in 0..each {
                let joiner = Joiner { connection, terms: Terms::default() };
                // Two connections rarely have more than one topic in common.
                let topic = (number + turn * (number / topics.len() * 2 + 1) * 7) % topics.len();
                let topic = topics.get(topic).expect("one of them");
                shard.join_topic(joiner, topic, &Ask::default()).expect("joined");
            }
        }
        Rig { registry, shard, topics, next: 0 }
    }

    /// Adds filters that match none of the topics.
    pub(crate) fn with_filters(self, filters: usize) -> Rig {
        for number in 0..filters {
            let filter = TopicFilter::parse(&format!("other.{number}.*")).expect("valid filter");
            self.registry.join_filter(&filter, ShardId::new(0).expect("a shard"));
        }
        self
    }

    /// Gives messages their places, in topics that lie far apart.
    pub(crate) fn commit(&mut self, messages: usize) {
        // A prime beyond every number of topics here, so that each has its turn.
        const STEP: usize = 7_368_787;
        for _ in 0..messages {
            self.next = (self.next + STEP) % self.topics.len();
            let topic = self.topics.get(self.next).expect("one of them");
            let payload = Payload::Text(bytes::Bytes::from_static(&[b'x'; 128]));
            let draft = Draft::new(topic.clone(), payload);
            self.registry.commit(draft, Now::at_ms(1)).expect("committed");
        }
    }

    /// Delivers what was committed.
    pub(crate) fn deliver(&mut self) {
        while self.shard.turn() == Progress::More {}
    }
}
