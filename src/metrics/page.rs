//! The `/metrics` page: reads every block of counters and writes the Prometheus text format.
//! # Invariants: handles are made once, when the page is; a scrape allocates only the text.
//! # Not here: HTTP.

use super::{Count, Counters, LATENCY_BUCKETS_MICROS, Latency, PANICS};
use crate::auth::Fault;
use crate::reason::Reason;
use crate::topics::message::Wire;
use crate::topics::registry::Registry;
use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the numbers come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// One block per counting thread.
    pub blocks: Vec<Arc<Counters>>,
    /// One mailbox per shard.
    pub mailboxes: Vec<Arc<crate::topics::mailbox::Mailbox>>,
    /// The topics.
    pub registry: Arc<Registry>,
    /// Who is on the way in.
    pub waiting: Waiting,
}

/// How many are on the way in. Any thread counts here, so rarely enough.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// Connections that have not sent their whole first request.
    pub pending: Arc<AtomicUsize>,
    /// TLS handshakes under way.
    pub handshakes: Arc<AtomicUsize>,
}

/// The page.
pub struct Page {
    sources: Sources,
    counters: Vec<(Counter, Read)>,
    gauges: Vec<(Gauge, Read)>,
    process: metrics_process::Collector,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

type Read = Box<dyn Fn(&Sources) -> u64 + Send + Sync>;

impl Page {
    /// A page over these sources.
    pub fn new(sources: Sources) -> Page {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let process = metrics_process::Collector::default();
        let (counters, gauges) = metrics::with_local_recorder(&recorder, || {
            process.describe();
            let mut counters = counters();
            counters.extend(group_counters(&sources));
            (counters, gauges())
        });
        Page { sources, counters, gauges, process, recorder, handle }
    }

    /// The text of a scrape.
    pub fn text(&self) -> String {
        for (counter, read) in &self.counters {
            counter.absolute(read(&self.sources));
        }
        for (gauge, read) in &self.gauges {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
            gauge.set(read(&self.sources) as f64);
        }
        metrics::with_local_recorder(&self.recorder, || self.process.collect());
        let mut text = self.handle.render();
        for histogram in HISTOGRAMS {
            self.write_latency(&mut text, *histogram);
        }
        text
    }

    /// The exporter cannot take a histogram that is counted elsewhere, so its lines are written
    /// here.
    fn write_latency(&self, text: &mut String, (name, help, of): Histogram) {
        let blocks = || self.sources.blocks.iter().map(|block| of(block));
        let mut below = 0;
        push(text, format_args!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
        for (index, micros) in LATENCY_BUCKETS_MICROS.iter().enumerate() {
            below += blocks().filter_map(|l| l.buckets.get(index)).map(Count::get).sum::<u64>();
            let bound = seconds(*micros);
            push(text, format_args!("{name}_bucket{{le=\"{bound}\"}} {below}\n"));
        }
        let count: u64 = blocks().map(|latency| latency.count.get()).sum();
        let sum = seconds(blocks().map(|latency| latency.micros.get()).sum());
        push(text, format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
        push(text, format_args!("{name}_sum {sum}\n{name}_count {count}\n\n"));
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts seconds in doubles")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    text.write_fmt(line).unwrap_or_default();
}

/// Adds one number of every block.
fn sum(of: impl Fn(&Counters) -> &Count + Send + Sync + 'static) -> Read {
    // Blocks that count in both directions may be negative one by one; the sum is not.
    Box::new(move |sources| {
        sources.blocks.iter().fold(0, |sum, block| sum.wrapping_add(of(block).get()))
    })
}

type Label = Option<(&'static str, &'static str)>;

#[expect(clippy::disallowed_macros, reason = "this is the one place that registers")]
fn counter(name: &'static str, help: &'static str, label: Label, read: Read) -> (Counter, Read) {
    metrics::describe_counter!(name, help);
    let counter = if let Some((key, value)) = label {
        metrics::counter!(name, key => value)
    } else {
        metrics::counter!(name)
    };
    (counter, read)
}

#[expect(clippy::disallowed_macros, reason = "this is the one place that registers")]
fn gauge(name: &'static str, help: &'static str, label: Label, read: Read) -> (Gauge, Read) {
    metrics::describe_gauge!(name, help);
    let gauge = if let Some((key, value)) = label {
        metrics::gauge!(name, key => value)
    } else {
        metrics::gauge!(name)
    };
    (gauge, read)
}

/// A number that every block has: its name, its help and where it is.
type Row = (&'static str, &'static str, fn(&Counters) -> &Count);

const COUNTERS: &[Row] = &[
    ("fanfare_published_total", "Messages taken from publishers.", |c| &c.published),
    ("fanfare_published_bytes_total", "Payload bytes taken from publishers.", |c| {
        &c.published_bytes
    }),
    ("fanfare_deliveries_total", "Messages handed to connections.", |c| &c.deliveries),
    (
        "fanfare_dropped_total",
        "Messages that a connection did not get because it did not read fast enough.",
        |c| &c.dropped,
    ),
    (
        "fanfare_caught_up_total",
        "Messages read from history by connections that were behind.",
        |c| &c.caught_up,
    ),
    ("fanfare_catch_ups_total", "Times that a connection began to catch up on a topic.", |c| {
        &c.catch_ups
    }),
    ("fanfare_gaps_total", "Gap events sent.", |c| &c.gaps),
    (
        "fanfare_replayed_total",
        "Messages sent from history: resumes, snapshots and the latest ones.",
        |c| &c.replayed,
    ),
    ("fanfare_resumes_recovered_total", "Resumes that sent exactly what was missing.", |c| {
        &c.resumes_recovered
    }),
    ("fanfare_accepts_delayed_total", "Times that accepting was put off by its rate.", |c| {
        &c.accepts_delayed
    }),
    ("fanfare_tls_handshakes_total", "TLS handshakes done.", |c| &c.tls_handshakes),
    ("fanfare_received_bytes_total", "Bytes received on WebSocket and TCP connections.", |c| {
        &c.received_bytes
    }),
    ("fanfare_sent_bytes_total", "Bytes written to connections.", |c| &c.sent_bytes),
    (
        "fanfare_deflate_in_bytes_total",
        "Bytes of messages encoded for connections with compression, before it.",
        |c| &c.deflate_in_bytes,
    ),
    ("fanfare_deflate_out_bytes_total", "The same, after it.", |c| &c.deflate_out_bytes),
    ("fanfare_tokens_total", "Tokens taken, of whatever kind.", |c| &c.tokens_taken),
    ("fanfare_key_sets_total", "Sets of keys read.", |c| &c.key_sets),
    ("fanfare_key_sets_failed_total", "Sets of keys that could not be had.", |c| {
        &c.key_sets_failed
    }),
    (
        "fanfare_unsubscribed_total",
        "Subscriptions that the server ended because they were allowed no more.",
        |c| &c.pruned,
    ),
    ("fanfare_writes_total", "Writes to connections; several messages may share one.", |c| {
        &c.writes
    }),
];

const GAUGES: &[Row] = &[
    ("fanfare_local_topics", "Topics that shards deliver; one counts once for each shard.", |c| {
        &c.local_topics
    }),
    ("fanfare_outbound_bytes", "Bytes that wait for connections.", |c| &c.outbound_bytes),
    ("fanfare_blocked_connections", "Connections whose socket takes no bytes.", |c| &c.blocked),
    (
        "fanfare_tls_certificate_expiry_timestamp_seconds",
        "When the certificate in use expires, in seconds since 1970; 0 without one.",
        |c| &c.certificate_expires_s,
    ),
];

type Histogram = (&'static str, &'static str, fn(&Counters) -> &Latency);

const HISTOGRAMS: &[Histogram] = &[
    (
        "fanfare_delivery_latency_seconds",
        "From taking a message to having written it to all ready subscribers of one shard.",
        |c| &c.latency,
    ),
    ("fanfare_engine_latency_seconds", "From a publish to its answer; a sample.", |c| &c.engine),
];

fn counters() -> Vec<(Counter, Read)> {
    let mut all: Vec<_> =
        COUNTERS.iter().map(|(name, help, of)| counter(name, help, None, sum(of))).collect();
    all.push(counter(
        "fanfare_idempotency_keys_evicted_total",
        "Idempotency keys forgotten before their window ended.",
        None,
        Box::new(|sources| sources.registry.idempotency().evicted()),
    ));
    let panics: Read = Box::new(|_| PANICS.load(Ordering::Relaxed));
    all.push(counter("fanfare_panics_total", "Bugs that have shown.", None, panics));
    let mut add = |policy, read| {
        const HELP: &str = "Messages passed over for later ones of their key.";
        all.push(counter("fanfare_conflated_total", HELP, Some(("policy", policy)), read));
    };
    add("latest", sum(|c| &c.conflated_latest));
    add("maxHz", sum(|c| &c.conflated_max_hz));
    let mut add = |result, read| {
        const HELP: &str = "Times that the configuration was read anew.";
        all.push(counter("fanfare_reloads_total", HELP, Some(("result", result)), read));
    };
    add("ok", sum(|c| &c.reloads.ok));
    add("refused", sum(|c| &c.reloads.refused));
    for fault in Fault::ALL {
        const HELP: &str = "Tokens refused, by what was wrong with them.";
        let read = sum(move |c| c.tokens_refused.of(fault));
        all.push(counter(
            "fanfare_tokens_refused_total",
            HELP,
            Some(("fault", fault.name())),
            read,
        ));
    }
    for wire in Wire::ALL {
        let label = Some(("wire", wire.name()));
        let mut add = |name, help, read| all.push(counter(name, help, label, read));
        let opened = sum(move |c| c.opened.of(wire));
        add("fanfare_connections_opened_total", "Connections opened.", opened);
        let encodes = sum(move |c| c.encodes.of(wire));
        add("fanfare_encodes_total", "Messages encoded; many deliveries share one.", encodes);
    }
    for reason in Reason::ALL.iter().copied() {
        let label = Some(("reason", reason.name()));
        let mut add = |name, help, read| all.push(counter(name, help, label, read));
        let closes = sum(move |c| c.closes.of(reason));
        add("fanfare_closes_total", "Connections closed, by the reason told.", closes);
        let refusals = sum(move |c| c.refusals.of(reason));
        add("fanfare_refusals_total", "Commands and requests refused.", refusals);
        if reason.is_arrival_failure() {
            let refused = sum(move |c| c.arrivals_refused.of(reason));
            let help = "Connections that ended before their first request.";
            add("fanfare_arrivals_refused_total", help, refused);
        }
        if reason.is_handshake_failure() {
            let refused = sum(move |c| c.handshakes_refused.of(reason));
            add("fanfare_handshakes_refused_total", "Upgrades to WebSocket refused.", refused);
        }
        if reason.is_recovery_failure() {
            let refused = sum(move |c| c.resumes_refused.of(reason));
            add("fanfare_resumes_refused_total", "Resumes that could not be exact.", refused);
        }
    }
    all
}

/// Numbers of each group of topics that the configuration names, and of all others.
#[expect(clippy::disallowed_macros, reason = "this is the other place that registers")]
fn group_counters(sources: &Sources) -> Vec<(Counter, Read)> {
    let published = "fanfare_group_published_total";
    metrics::describe_counter!(published, "Messages taken from publishers, by group of topics.");
    let deliveries = "fanfare_group_deliveries_total";
    metrics::describe_counter!(deliveries, "Messages handed to connections, by group of topics.");
    let mut all: Vec<(Counter, Read)> = Vec::new();
    for (number, name) in (0_u8..).zip(sources.registry.rules().group_names()) {
        let read = sum(move |c| c.group_published.of(number));
        all.push((metrics::counter!(published, "group" => name.clone()), read));
        let read = sum(move |c| c.group_deliveries.of(number));
        all.push((metrics::counter!(deliveries, "group" => name), read));
    }
    all
}

fn gauges() -> Vec<(Gauge, Read)> {
    let mut all: Vec<_> =
        GAUGES.iter().map(|(name, help, of)| gauge(name, help, None, sum(of))).collect();
    let mut add = |name, help, label, read| all.push(gauge(name, help, label, read));
    add("fanfare_topics", "Topics.", None, Box::new(|s| s.registry.topic_count() as u64));
    let bytes: Read = Box::new(|s| s.registry.history_bytes() as u64);
    add("fanfare_history_bytes", "Bytes that histories hold.", None, bytes);
    let keys: Read = Box::new(|s| s.registry.idempotency().used() as u64);
    add("fanfare_idempotency_keys", "Answers kept for publishers that ask twice.", None, keys);
    let pending: Read = Box::new(|s| s.waiting.pending.load(Ordering::Relaxed) as u64);
    add("fanfare_pending_connections", "Connections before their first request.", None, pending);
    let handshakes: Read = Box::new(|s| s.waiting.handshakes.load(Ordering::Relaxed) as u64);
    add("fanfare_tls_handshakes", "TLS handshakes under way.", None, handshakes);
    let depth: Read = Box::new(|s| s.mailboxes.iter().map(|mailbox| mailbox.depth() as u64).sum());
    add("fanfare_mailbox_depth", "Messages that wait for shards.", None, depth);
    let oldest: Read = Box::new(|sources| {
        let ages = sources.blocks.iter().map(|block| block.outbound_age_seconds.get());
        ages.max().unwrap_or(0)
    });
    add("fanfare_outbound_age_seconds", "How long the oldest queue has waited.", None, oldest);
    let mut reload = |result, read| {
        const HELP: &str = "When the configuration was last read anew, in seconds since 1970.";
        let name = "fanfare_last_reload_timestamp_seconds";
        add(name, HELP, Some(("result", result)), read);
    };
    reload("ok", sum(|c| &c.last_reload_s.ok));
    reload("refused", sum(|c| &c.last_reload_s.refused));
    let topic = sum(|c| &c.topic_subscriptions);
    add("fanfare_subscriptions", "Subscriptions.", Some(("target", "topic")), topic);
    let filter = sum(|c| &c.filter_subscriptions);
    add("fanfare_subscriptions", "Subscriptions.", Some(("target", "filter")), filter);
    for wire in Wire::ALL {
        let read = sum(move |c| c.connections.of(wire));
        add("fanfare_connections", "Open connections.", Some(("wire", wire.name())), read);
    }
    all
}
