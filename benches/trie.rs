//! What it costs to find the filters that match a topic, beside how many others there are.

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up should end")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fanfare::topics::filters::FilterTrie;
use fanfare::topics::name::{TopicFilter, TopicName};
use std::hint::black_box;

fn look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("filters of a topic");
    let topics: Vec<TopicName> = (0..1_000)
        .map(|number| TopicName::parse(&format!("a.{number}.c")).expect("valid name"))
        .collect();
    for filters in [100, 10_000, 100_000] {
        let mut trie = FilterTrie::<u64>::default();
        for number in 0..filters {
            // Half of them begin like the topics.
            let filter = match number % 4 {
                0 => format!("a.{number}.>"),
                1 => format!("a.*.{number}"),
                2 => format!("b.{number}.*"),
                _ => format!("*.{number}.c"),
            };
            *trie.entry(&TopicFilter::parse(&filter).expect("valid filter")) = number;
        }
        let mut topics = topics.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(filters), |b| {
            b.iter(|| {
                let mut sum = 0;
                let topic = topics.next().expect("endless");
                trie.for_each_match(black_box(topic), |number| sum += number);
                sum
            });
        });
    }
}

criterion_group!(benches, look_up);
criterion_main!(benches);
