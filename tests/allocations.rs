//! What delivering and publishing take from the allocator, counted by one that counts.
//! # Invariants: everything happens on the one thread of the one test of this binary, after the
//! memory that is kept from turn to turn has grown.
//! # Not here: bytes per connection (`docs/benchmarks.md`), what hostile input takes.
#![allow(clippy::expect_used, reason = "a test stops at what it did not expect")]

#[path = "../benches/rig/mod.rs"]
mod rig;

use fanfare::dialect::Dialect;
use fanfare::topics::message::Wire;
use rig::Rig;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Messages of a turn.
const MESSAGES: usize = 64;

/// Most allocations for a message, from its commit to its frame: the message, a frame's place and
/// its bytes, and now and then room in a ring that grows.
const PER_MESSAGE_MAX: usize = 4;

/// The same where the frame is compressed: the plain one comes first, and the other one is cut to
/// what it needs.
const PER_DEFLATED_MAX: usize = 7;

/// Allocations, among them those that make room larger.
fn count(act: impl FnOnce()) -> usize {
    let region = Region::new(COUNTING);
    act();
    let stats = region.change();
    stats.allocations + stats.reallocations
}

/// What publishing and delivering a turn take when `connections` get it, beside filters for others.
fn turn(connections: usize, wire: Wire) -> (usize, usize) {
    let mut rig = Rig::new(1, connections, 1, wire).with_filters(100);
    // A history as long as it may be, and the memory of a turn.
    for _ in 0..40 {
        rig.commit(MESSAGES);
        rig.deliver();
    }
    (count(|| rig.commit(MESSAGES)), count(|| rig.deliver()))
}

#[test]
fn a_delivery_allocates_nothing_and_a_publish_a_handful() {
    for wire in Wire::ALL {
        let (commit, one) = turn(1, wire);
        let (_, thousand) = turn(1_000, wire);
        let deliveries = 999 * MESSAGES;
        assert_eq!(one, thousand, "{wire:?}: {deliveries} deliveries more");
        let message = (commit + one).div_ceil(MESSAGES);
        let max = if wire.is_deflated() { PER_DEFLATED_MAX } else { PER_MESSAGE_MAX };
        assert!((1..=max).contains(&message), "{wire:?}: {message} for a message");
    }
    let text = "x".repeat(128);
    let json = format!(r#"{{"id":7,"publish":{{"topic":"ticker.AAPL","text":"{text}"}}}}"#);
    let decoded = count(|| drop(Dialect::Json.decode(json.as_bytes()).expect("a command")));
    assert_eq!(decoded, 1, "its payload, copied out of the read buffer");
}
