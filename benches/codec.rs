//! What it costs to understand a command and to spell a message.

#![allow(missing_docs, reason = "the macros of the harness make public items")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up should end")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanfare::clock::Now;
use fanfare::dialect::{Dialect, encode_message, schema};
use fanfare::topics::message::{Draft, Epoch, Message, Offset, Payload, TopicHead, Wire};
use fanfare::topics::name::TopicName;
use fanfare::ws::decoder::{Decoder, DecoderLimits};
use fanfare::ws::extensions::Compression;
use prost::Message as _;
use std::hint::black_box;
use std::sync::Arc;

const TEXT: &str = "a payload of one hundred and twenty-eight bytes, which is about what a quote \
                    with a handful of fields takes when spelled as JSON";

fn message() -> Message {
    let topic = TopicName::parse("ticker.IBM").expect("valid name");
    let head = TopicHead::new(1, topic.clone(), Epoch::from_bits(1), Arc::default());
    let payload = Payload::Text(TEXT.into());
    let draft = Draft { key: Some("IBM".into()), ..Draft::new(topic, payload) };
    Message::new(Arc::new(head), Offset(123_456), draft, Now::at_ms(1_795_000_000_000))
}

fn decode(c: &mut Criterion) {
    let json = format!(r#"{{"id":7,"publish":{{"topic":"ticker.IBM","text":"{TEXT}"}}}}"#);
    let publish = schema::Publish {
        topic: "ticker.IBM".into(),
        payload: Some(schema::publish::Payload::Text(TEXT.into())),
        ..Default::default()
    };
    let action = Some(schema::command::Action::Publish(publish));
    let proto = schema::Command { id: 7, action }.encode_to_vec();
    let mut group = c.benchmark_group("decode publish");
    for (name, dialect, bytes) in
        [("json", Dialect::Json, json.as_bytes()), ("proto", Dialect::Proto, proto.as_slice())]
    {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| dialect.decode(black_box(bytes))));
    }
}

fn encode(c: &mut Criterion) {
    let message = message();
    let mut group = c.benchmark_group("encode message");
    for wire in Wire::ALL {
        group.bench_function(wire.name(), |b| b.iter(|| encode_message(black_box(&message), wire)));
    }
}

fn frames(c: &mut Criterion) {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut stream = Vec::new();
    for _ in 0..64 {
        stream.extend([0x82, 0x80 | 0x7d]);
        stream.extend(mask);
        stream.extend([0xaa; 125]);
    }
    let mut group = c.benchmark_group("websocket");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 frames of 125 bytes", |b| {
        let mut decoder = Decoder::new(DecoderLimits::default(), Compression::None);
        b.iter_batched_ref(
            || stream.clone(),
            |bytes| {
                let mut input = bytes.as_mut_slice();
                let mut whole = 0;
                while let Ok(Some(_)) = decoder.next(&mut input) {
                    whole += 1;
                }
                whole
            },
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, decode, encode, frames);
criterion_main!(benches);
