//! What hostile input takes from the allocator: at most twice what was received and 8 KiB, of lists and of
//! URLs a stated multiple.
//! # Invariants: everything happens on the one thread of the one test of this binary; every byte
//! that is asked for counts, also if it is given back at once.
//! # Not here: what good input takes (`allocations`), what inflating takes (`dialect::deflate`).
#![allow(clippy::indexing_slicing, reason = "a test stops at what it did not expect")]

use fanfare::dialect::query::{self, Stream, TARGETS_MAX};
use fanfare::dialect::{Dialect, POSITIONS_MAX, decode_draft};
use fanfare::ingress::Lengths;
use fanfare::ws::decoder::{Decoder, DecoderLimits};
use fanfare::ws::extensions::Compression;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Beside what was received.
const SPARE_BYTES: usize = 8 << 10;

/// For each position of a list, which may be written in three bytes.
const POSITION_BYTES: usize = 256;

/// For each topic of a query, which may be named in six bytes.
const TARGET_BYTES: usize = 512;

/// What a byte of a query or of an id that comes back may take.
const QUERY_TIMES: usize = 8;

/// The bytes that `act` asks for, after it has run once for what a thread keeps.
fn bytes(act: impl Fn()) -> usize {
    act();
    let region = Region::new(COUNTING);
    act();
    region.change().bytes_allocated
}

fn check(what: &str, received: usize, spare: usize, act: impl Fn()) {
    let taken = bytes(act);
    assert!(taken <= 2 * received + spare, "{what}: {taken} bytes for {received}");
}

/// Feeds a decoder with reads of these sizes. The reads themselves are not the decoder's.
fn decode(reads: &mut [Vec<u8>]) {
    let mut decoder = Decoder::new(DecoderLimits::default(), Compression::None);
    for read in reads {
        let mut input = &mut read[..];
        while matches!(decoder.next(&mut input), Ok(Some(_))) {}
    }
}

fn check_frames(what: &str, stream: &[u8]) {
    for size in [stream.len(), 1_000, 7, 1] {
        let reads: Vec<Vec<u8>> = stream.chunks(size.max(1)).map(<[u8]>::to_vec).collect();
        // Payloads are unmasked where they lie: each run has its own.
        let all = std::cell::RefCell::new([reads.clone(), reads]);
        let turn = std::cell::Cell::new(0);
        check(what, stream.len(), SPARE_BYTES, || {
            decode(&mut all.borrow_mut()[turn.get()]);
            turn.set(1);
        });
    }
}

fn check_ingress(what: &str, stream: &[u8]) {
    for size in [stream.len(), 1_000, 7, 1] {
        check(what, stream.len(), SPARE_BYTES, || {
            let mut lengths = Lengths::new(64 << 10);
            for mut read in stream.chunks(size.max(1)) {
                while matches!(lengths.next(&mut read), Ok(Some(_))) {}
            }
        });
    }
}

fn check_command(what: &str, dialect: Dialect, command: &[u8], spare: usize) {
    check(what, command.len(), spare, || drop(dialect.decode(command)));
    check(what, command.len(), spare, || drop(decode_draft(command)));
}

/// What a query takes as a whole, and what each of its subscriptions takes in its turn.
fn check_query(what: &str, raw: &str, said: &str) {
    let most = QUERY_TIMES * (raw.len() + said.len()) + SPARE_BYTES + TARGETS_MAX * TARGET_BYTES;
    let parse = || Stream::parse(raw, Some(said), 0);
    check(what, 0, most, || drop(parse()));
    check(what, 0, most, || drop((query::history(raw), query::target(raw), query::topic(raw))));
    let Ok(mut stream) = parse() else { return };
    let most = QUERY_TIMES * said.len() + SPARE_BYTES;
    while stream.subscriptions.len() > 0 {
        let region = Region::new(COUNTING);
        drop(stream.subscriptions.next());
        let taken = region.change().bytes_allocated;
        assert!(taken <= most, "{what}: {taken} bytes for a subscription");
    }
}

/// The head of a masked frame of this length.
fn head(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xFF][..], &length.to_be_bytes(), &[0; 4]].concat()
}

#[test]
fn hostile_input_takes_at_most_twice_its_size_and_8_kib() {
    for length in [65_536, 65_537, 1 << 30, u64::MAX >> 1, u64::MAX] {
        check_frames("a length alone", &head(0x82, length));
        check_frames("a length of a fragment", &head(0x02, length));
        check_frames("a length and a byte", &[&head(0x82, length)[..], b"x"].concat());
    }
    let half = [&head(0x02, 65_536)[..], &vec![0; 30_000]].concat();
    check_frames("half a message", &half);
    let tiny = vec![0x02, 0x80, 0, 0, 0, 0];
    let more = [0x00, 0x81, 0, 0, 0, 0, b'x'].repeat(63);
    check_frames("fragments of a byte", &[tiny, more].concat());
    check_frames("a hundred pings", &[0x89, 0x81, 0, 0, 0, 0, b'x'].repeat(100));

    check_ingress("a length of 64 KiB", &65_536_u32.to_be_bytes());
    check_ingress("a length of 4 GiB", &u32::MAX.to_be_bytes());
    check_ingress("half a message", &[&65_536_u32.to_be_bytes()[..], &vec![0; 30_000]].concat());
    check_ingress("ten thousand empty messages", &vec![0; 40_000]);

    let long = "x".repeat(60_000);
    let deep = "[".repeat(60_000);
    let many = "{},".repeat(20_000);
    let positions = format!(r#"{{"id":1,"subscribe":{{"topic":"a.>","positions":[{many}{{}}]}}}}"#);
    for json in [
        format!(r#"{{"id":1,"publish":{{"topic":"a","data":{deep}"#),
        format!(r#"{{"id":1,"publish":{{"topic":"a","data":{deep}{}}}}}"#, "]".repeat(60_000)),
        format!(r#"{{"id":1,"publish":{{"topic":"a","text":"{long}"}}}}"#),
        format!(r#"{{"id":1,"publish":{{"topic":"{long}","text":""}}}}"#),
        format!(r#"{{"id":1,"publish":{{"topic":"a","text":"{}"}}}}"#, r"\u00e9".repeat(10_000)),
        format!(r#"{{"id":1,"subscribe":{{"topic":"{long}"}}}}"#),
        format!(r#"{{"id":1,"connect":{{"name":"{long}"}}}}"#),
        format!(r#"{{"{long}":1}}"#),
        format!("{{{}}}", r#""ping":{},"#.repeat(6_000)),
        deep.clone(),
        long.clone(),
    ] {
        check_command("JSON", Dialect::Json, json.as_bytes(), SPARE_BYTES);
    }
    let list = SPARE_BYTES + POSITIONS_MAX * POSITION_BYTES;
    check_command("positions in JSON", Dialect::Json, positions.as_bytes(), list);

    // A field of each number that claims all the rest, inside of each other or one behind the other.
    for field in 1..=10_u8 {
        let nested = [field << 3 | 2, 0xFF, 0x7F].repeat(20_000);
        let flat = [field << 3 | 2, 0].repeat(30_000);
        let claims = [field << 3 | 2, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
        for bytes in [&nested[..], &flat, &claims] {
            check_command("protobuf", Dialect::Proto, bytes, SPARE_BYTES);
        }
    }
    let empty = [6 << 3 | 2, 0].repeat(20_000);
    let length = [0xC0, 0xB8, 0x02];
    let subscribe = [&[3 << 3 | 2][..], &length, &empty].concat();
    check_command("positions in protobuf", Dialect::Proto, &subscribe, list);
    check_queries();
}

fn check_queries() {
    let position = "AAAAAAAAAAAAAAAAAAAAAA:1";
    let places = |count: usize, len: usize| {
        let place = |n| format!("{n:0len$}@{position}");
        (0..count).map(place).collect::<Vec<_>>().join(",")
    };
    let filters = |count: usize| vec!["topic=%3E"; count].join("&");
    let options = "topic=*&last=1&snapshot=true&policy=latest&maxHz=1&overflow=gap&presence=true&";
    let queries = [
        String::new(),
        filters(2),
        filters(TARGETS_MAX),
        "topic=*&".repeat(2_000),
        "topic&".repeat(2_700),
        options.repeat(TARGETS_MAX),
        format!("topic=*{}", "&since".repeat(2_700)),
        format!("topic=*{}", "&since=@:".repeat(1_800)),
        format!("topic=*{}", format!("&since=a@{position}").repeat(500)),
        format!("topic=*{}", "&last".repeat(3_000)),
        "x&".repeat(8_000),
        "%61&".repeat(4_000),
        format!("topic={}", "x".repeat(16_000)),
        format!("topic={}", "%61".repeat(5_000)),
    ];
    let longest = places(60, 250);
    let said = [
        String::new(),
        places(64, 1),
        places(500, 3),
        "!,".repeat(8_000),
        longest,
        ",".repeat(16_000),
    ];
    for query in &queries {
        for said in &said {
            let what = format!("{query:.40} and {said:.40}");
            check_query(&what, query, said);
        }
    }
}
