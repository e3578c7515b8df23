//! What it costs to give a message its place and to offer it to a thousand connections, with
//! sockets that take everything and cost nothing: the broker's own share of a delivery.

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up should end")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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

struct NoSocket;

impl Socket for NoSocket {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
    fn shutdown(&self) {}
    fn abort(&self) {}
}

fn registry() -> Arc<Registry> {
    let mailbox = Arc::new(Mailbox::new(MailboxOptions::default(), || {}));
    Arc::new(Registry::new(RegistryOptions::default(), vec![mailbox], Box::new(|| Some(1))))
}

fn draft(topic: &TopicName) -> Draft {
    let payload = Payload::Binary(bytes::Bytes::from_static(&[7; 128]));
    Draft::new(topic.clone(), payload)
}

fn deliver(c: &mut Criterion) {
    const SUBSCRIBERS: usize = 1_000;
    const MESSAGES: usize = 64;
    let registry = registry();
    let id = ShardId::new(0).expect("a shard");
    let budget = Arc::new(Budget::new(usize::MAX, Vec::new()));
    let mut shard =
        Shard::new(id, Arc::clone(&registry), ShardOptions::default(), Arc::default(), budget);
    let topic = TopicName::parse("bench.0").expect("valid name");
    for _ in 0..SUBSCRIBERS {
        let connection = shard.open(NoSocket, Wire::WebSocketProto);
        let joiner = Joiner { connection, terms: Terms::default() };
        shard.join_topic(joiner, &topic, &Ask::default()).expect("joined");
    }
    let mut group = c.benchmark_group("deliver");
    group.throughput(Throughput::Elements((SUBSCRIBERS * MESSAGES) as u64));
    group.bench_function("64 messages to 1,000 connections", |b| {
        b.iter(|| {
            for _ in 0..MESSAGES {
                registry.commit(draft(&topic), Now::at_ms(1)).expect("committed");
            }
            while shard.turn() == Progress::More {}
        });
    });
}

fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    for filters in [0, 100, 10_000] {
        let registry = registry();
        let shard = ShardId::new(0).expect("a shard");
        for number in 0..filters {
            let filter = TopicFilter::parse(&format!("other.{number}.*")).expect("valid filter");
            registry.join_filter(&filter, shard);
        }
        let topic = TopicName::parse("bench.0").expect("valid name");
        group.bench_function(format!("beside {filters} filters"), |b| {
            b.iter(|| registry.commit(draft(&topic), Now::at_ms(1)).expect("committed"));
        });
    }
}

criterion_group!(benches, deliver, commit);
criterion_main!(benches);
