//! `/v1/overview`: the counters as they are, in one answer; whoever asks twice has the rates.
//! # Invariants: nothing here costs more than adding up the blocks.
//! # Not here: what is counted (`metrics`).

use super::query::Query;
use super::{Admin, show};
use crate::http::Answer;
use crate::memory;
use crate::metrics::{Count, Counters};
use crate::reason::{Reason, Refusal};
use crate::topics::mailbox::Mailbox;
use crate::topics::message::Wire;
use serde::Serialize;

/// The broker in numbers. Those that end in `Total` only grow.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Overview {
    server: &'static str,
    time_ms: u64,
    uptime_ms: u64,
    shards: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    connections: u64,
    blocked: u64,
    topic_subscriptions: u64,
    filter_subscriptions: u64,
    topics: usize,
    history_bytes: usize,
    queued_bytes: u64,
    mailbox_messages: usize,
    revocations: usize,
    opened_total: u64,
    published_total: u64,
    published_bytes_total: u64,
    delivered_total: u64,
    encoded_total: u64,
    received_bytes_total: u64,
    sent_bytes_total: u64,
    gaps_total: u64,
    dropped_total: u64,
    conflated_total: u64,
    caught_up_total: u64,
    refused_total: u64,
}

/// # Errors
/// [`Reason::BadRequest`].
pub(super) fn overview(admin: &Admin, query: &Query) -> Result<Answer, Refusal> {
    query.only(&[])?;
    let (sources, now) = (&admin.sources, admin.broker.clock.now());
    let sum = |of: &dyn Fn(&Counters) -> &Count| {
        // Blocks that count in both directions may be negative one by one; the sum is not.
        sources.blocks.iter().fold(0, |sum: u64, block| sum.wrapping_add(of(block).get()))
    };
    let by_wire = |of: fn(&Counters, Wire) -> &Count| {
        Wire::ALL.iter().fold(0, |all: u64, wire| all.wrapping_add(sum(&|block| of(block, *wire))))
    };
    let refused = |reason: &Reason| {
        sum(&|block| block.refusals.of(*reason))
            + sum(&|block| block.handshakes_refused.of(*reason))
            + sum(&|block| block.arrivals_refused.of(*reason))
    };
    show(&Overview {
        server: concat!("fanfare/", env!("CARGO_PKG_VERSION")),
        time_ms: now.wall_ms,
        uptime_ms: u64::try_from(now.uptime.as_millis()).unwrap_or(u64::MAX),
        shards: admin.shards.len(),
        memory_bytes: memory::resident(),
        connections: by_wire(|block, wire| block.connections.of(wire)),
        blocked: sum(&|block| &block.blocked),
        topic_subscriptions: sum(&|block| &block.topic_subscriptions),
        filter_subscriptions: sum(&|block| &block.filter_subscriptions),
        topics: admin.registry.topic_count(),
        history_bytes: admin.registry.history_bytes(),
        queued_bytes: sum(&|block| &block.outbound_bytes),
        mailbox_messages: sources.mailboxes.iter().map(|mailbox| Mailbox::depth(mailbox)).sum(),
        revocations: admin.broker.guard.revocation_count(),
        opened_total: by_wire(|block, wire| block.opened.of(wire)),
        published_total: sum(&|block| &block.published),
        published_bytes_total: sum(&|block| &block.published_bytes),
        delivered_total: sum(&|block| &block.deliveries),
        encoded_total: by_wire(|block, wire| block.encodes.of(wire)),
        received_bytes_total: sum(&|block| &block.received_bytes),
        sent_bytes_total: sum(&|block| &block.sent_bytes),
        gaps_total: sum(&|block| &block.gaps),
        dropped_total: sum(&|block| &block.dropped),
        conflated_total: sum(&|block| &block.conflated_latest)
            + sum(&|block| &block.conflated_max_hz),
        caught_up_total: sum(&|block| &block.caught_up),
        refused_total: Reason::ALL.iter().map(refused).sum(),
    })
}
