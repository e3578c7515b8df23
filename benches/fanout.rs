//! What it costs to give a message its place and to offer it to its subscribers, with sockets that
//! take everything and cost nothing: the broker's own share of a delivery.

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up should end")]

mod rig;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::topics::message::Wire;
use rig::Rig;

fn fan_out(c: &mut Criterion) {
    const MESSAGES: usize = 64;
    let mut group = c.benchmark_group("64 messages to 1,000 connections");
    group.throughput(Throughput::Elements(1_000 * MESSAGES as u64));
    for wire in [Wire::WebSocketJson, Wire::WebSocketProto, Wire::WebSocketProtoBatch] {
        let mut rig = Rig::new(1, 1_000, 1, wire);
        group.bench_function(wire.name(), |b| {
            b.iter(|| {
                rig.commit(MESSAGES);
                rig.deliver();
            });
        });
    }
}

fn ticker(c: &mut Criterion) {
    const MESSAGES: usize = 1_000;
    let mut group = c.benchmark_group("1,000 topics, 2,000 connections with 10 each");
    group.throughput(Throughput::Elements(20 * MESSAGES as u64));
    for wire in [Wire::WebSocketJson, Wire::WebSocketProtoBatch] {
        let mut rig = Rig::new(1_000, 2_000, 10, wire);
        group.bench_function(wire.name(), |b| {
            b.iter(|| {
                rig.commit(MESSAGES);
                rig.deliver();
            });
        });
    }
}

fn commit(c: &mut Criterion) {
    const MESSAGES: usize = 1_000;
    let mut group = c.benchmark_group("publish to one subscriber");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for topics in [1, 1_000, 1_000_000] {
        // A connection for every thousand topics: what is measured is the topics.
        let each = topics.min(1_000);
        let mut rig = Rig::new(topics, topics / each, each, Wire::TcpProto);
        group.bench_function(BenchmarkId::new("topics", topics), |b| {
            b.iter(|| {
                rig.commit(MESSAGES);
                rig.deliver();
            });
        });
    }
    for filters in [100, 100_000] {
        let mut rig = Rig::new(1_000, 1, 1_000, Wire::TcpProto).with_filters(filters);
        group.bench_function(BenchmarkId::new("filters", filters), |b| {
            b.iter(|| {
                rig.commit(MESSAGES);
                rig.deliver();
            });
        });
    }
}

criterion_group!(benches, fan_out, ticker, commit);
criterion_main!(benches);
