//! Endurance: clients of every wire, policy and way to be slow, which come, go and come back for as
//! long as is asked, while the checker judges everything that each of them hears.
//! What happens is cut by quiet moments; behind each the checker forgets what is over, so that it
//! needs no more memory in the last hour than in the first minute.
//! # Invariants: no two publishes say the same, but for retries and deletes; one thread sees all that
//! judged clients send and hear, in that order.
//! # Not here: what is right (`checker`), connections that only come and go (`churn`).

mod crowd;
mod draw;

use crate::churn::Churn;
use crate::history::{Fact, TopicPosition};
use crate::number;
use crate::process::{Home, Process};
use crate::slope::Samples;
use crate::table::{Table, mib};
use crate::wire::Door;
use crowd::Crowd;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Seconds of a run, where nobody says otherwise.
const SECONDS: u64 = 45;

/// A run is cut into so many rounds, or into more if these were longer than a minute.
const ROUNDS: u64 = 9;

/// Of the rounds one in so many is before the measurement: in it what is kept for long grows to its size.
const WARM_UP: usize = 3;

/// Connections that come and go in a second.
const CHURN_RATE: u64 = 300;

/// By how many bytes the memory may grow for each connection that has come and gone: 100 would be a
/// leak. In a short run the memory may grow by what pages do by chance; from some 65,000
/// connections on that is less.
const LEAK_BYTES_MAX: f64 = 64.0;
const CHANCE_BYTES_MAX: f64 = 4_194_304.0;

/// From where on a run waits for what is swept once a minute.
const LONG: Duration = Duration::from_mins(3);

/// What the checker may remember at a quiet moment. It depends on the rate of messages and on the
/// length of a round, not on that of the run.
const REMEMBERED_MAX: usize = 100_000;

/// How long everything may take to become quiet, and all traces of clients to go.
const PATIENCE: Duration = Duration::from_secs(90);

/// What must have happened in every run, or it proved little; the last of them in a long one.
const SEEN: [&str; 15] = [
    "connected: batch",
    "cut",
    "delete",
    "gap: slow",
    "history page",
    "message",
    "position",
    "published",
    "recovered",
    "subscribed: latest",
    "subscribed: maxHz",
    "updated",
    "close 4408",
    "error: slowConsumer",
    "gap: trimmed",
];
const SEEN_IN_TIME: usize = 3;

/// Metrics that must be 0 when nobody is there. The last of them are swept once a minute: a short
/// run does not wait for that.
const NAMES: [&str; 8] = [
    "fanfare_connections",
    "fanfare_subscriptions",
    "fanfare_outbound_bytes",
    "fanfare_blocked_connections",
    "fanfare_mailbox_depth",
    "fanfare_pending_connections",
    "fanfare_local_topics",
    "fanfare_idempotency_keys",
];
const SWEPT: usize = 2;

/// The broker's settings: little is kept and little may wait, so that every bound is met.
const SETTINGS: &str = r#"
shards = 2
limits.outbound_bytes_max = "64 KiB"
limits.outbound_age_max = "2s"
limits.write_stall_max = "4s"
limits.publish_rate = "off"
topics.idle_ttl = "1s"
topics.idempotency_window = "10s"
topics.history = { messages = 60, age = "10s", bytes = "16 MiB" }
shutdown.spread = "1s"

[[topics.rules]]
filter = "hot.*"
history = { messages = 60, age = "10s", bytes = "16 MiB" }

[[topics.rules]]
filter = "row.*"
snapshot = "keys"
snapshot_keys_max = 64
history = { messages = 60, age = "10s", bytes = "16 MiB" }

[[topics.rules]]
filter = "brief.*"
history = { messages = 4, age = "1s", bytes = "1 MiB" }

[[topics.rules]]
filter = "churn.>"
history = { messages = 4, age = "1s", bytes = "1 MiB" }
"#;

/// What the run shows of the process.
struct Watch {
    /// Bytes of memory, over the connections that had come and gone by then.
    memory: Samples,
    /// The most that the checker remembered.
    remembered: usize,
    files: BTreeMap<String, usize>,
    threads: u64,
    is_long: bool,
}

#[test]
#[ignore = "runs for a minute or more: ./test.sh soak"]
fn a_broker_keeps_its_promises_and_its_size_for_as_long_as_it_runs() {
    let length = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(SECONDS));
    let seed = number("SOAK_SEED").unwrap_or(1);
    let home = Home::new(SETTINGS);
    let broker = home.serve("127.0.0.1:0");
    let door = Door { public: broker.public, ingress: broker.ingress };
    let mut watch = Watch::begin(&broker, length);
    let churn = Churn::start(door, seed, number("SOAK_CHURN").unwrap_or(CHURN_RATE));
    let mut crowd = Crowd::new(door, seed, number("SOAK_CLIENTS").unwrap_or(60));
    let begin = Instant::now();
    let rounds = ROUNDS.max(length.as_secs() / 60);
    for round in 1..=rounds {
        crowd.act_until(begin + length.mul_f64(round as f64 / rounds as f64));
        churn.pause();
        let tops = quiet(&mut crowd, &broker);
        crowd.settle(&tops);
        watch.memory.add(churn.done() as f64, broker.resident() as f64);
        watch.remembered = watch.remembered.max(crowd.remembered());
        churn.go_on();
    }
    let churned = churn.stop();
    crowd.go();
    empty(&mut crowd, &broker, &watch);
    let measured = watch.memory.behind(watch.memory.count() / WARM_UP);
    let (slope, bound) = (measured.slope(), LEAK_BYTES_MAX.max(CHANCE_BYTES_MAX / measured.span()));
    tell(&crowd, &broker, &watch, (length, churned, slope, bound));
    broker.stop();
    assert!(slope < bound, "the memory grows by {slope:.0} B for each connection that has gone");
    assert!(watch.remembered < REMEMBERED_MAX, "the checker remembers {}", watch.remembered);
    let count = if watch.is_long { SEEN.len() } else { SEEN.len() - SEEN_IN_TIME };
    let unseen: Vec<_> = SEEN[..count].iter().filter(|name| crowd.tally.of(name) == 0).collect();
    assert!(unseen.is_empty(), "nothing was seen of {unseen:?}");
}

impl Watch {
    fn begin(broker: &Process, length: Duration) -> Watch {
        // What the first look opens stays open.
        broker.metrics();
        let mut last = BTreeMap::new();
        let files =
            broker.files_until(|files| std::mem::replace(&mut last, files.clone()) == *files);
        let (memory, threads, is_long) = (Samples::default(), broker.threads(), length >= LONG);
        Watch { memory, remembered: 0, files, threads, is_long }
    }
}

/// Waits until nothing is on its way any more, and asks where the topics stand.
fn quiet(crowd: &mut Crowd, broker: &Process) -> Vec<TopicPosition> {
    let names = ["fanfare_mailbox_depth", "fanfare_outbound_bytes", "fanfare_blocked_connections"];
    let begin = Instant::now();
    crowd.hurry();
    while begin.elapsed() < PATIENCE {
        crowd.listen_until_silent();
        let metrics = broker.metrics();
        if names.iter().all(|name| metrics.get(*name) == Some(&0.0)) && !crowd.is_waiting() {
            let tops = crowd.tops();
            crowd.note(Fact::Quiet { tops: tops.clone(), rosters: BTreeMap::new() });
            return tops;
        }
    }
    crowd.note(Fact::Restless {});
    Vec::new()
}

/// Everybody has gone: nothing of them may be left.
fn empty(crowd: &mut Crowd, broker: &Process, watch: &Watch) {
    let swept = if watch.is_long { 0 } else { SWEPT };
    let names = &NAMES[..NAMES.len() - swept];
    broker.until(PATIENCE, |metrics| names.iter().all(|name| metrics.get(*name) == Some(&0.0)));
    let files = broker.files_until(|files| *files == watch.files);
    let metrics = broker.metrics();
    let gauge = |name: &&str| ((*name).to_owned(), metrics.get(*name).map_or(1, |n| *n as u64));
    let mut gauges: BTreeMap<String, u64> = names.iter().map(gauge).collect();
    for (kind, count) in files {
        let before = watch.files.get(&kind).copied().unwrap_or(0);
        gauges.insert(format!("files more than at first: {kind}"), count.abs_diff(before) as u64);
    }
    let threads = broker.threads().saturating_sub(watch.threads);
    gauges.insert("threads more than at first".into(), threads);
    crowd.note(Fact::Empty { gauges });
}

fn tell(
    crowd: &Crowd,
    broker: &Process,
    watch: &Watch,
    (length, churned, slope, bound): (Duration, u64, f64, f64),
) {
    println!("{}", crowd.tally);

    let mut table = Table::new("Soak");
    table.row("duration", format!("{} s", length.as_secs()));
    table.row("judged clients, their connections", crowd.counts());
    table.row("records judged", crowd.records());
    table.row("most that the checker remembered", watch.remembered);
    table.row("messages heard and judged", crowd.tally.of("message"));
    table.row("published and acknowledged", crowd.tally.of("published"));
    table.row("resumes recovered", crowd.tally.of("recovered"));
    table.row("gaps told", crowd.tally.of("gap: slow") + crowd.tally.of("gap: trimmed"));
    table.row("connections come and gone", churned);
    let seconds = broker.cpu_seconds();
    table.row("processor time of the broker", format!("{seconds:.1} s"));
    table.row(
        "memory at the end, at most",
        format!("{}, {}", mib(broker.resident()), mib(broker.peak())),
    );
    table.row("memory at quiet moments, in KiB", &watch.memory);
    table.row("memory per connection gone", format!("{slope:.1} B, the bound is {bound:.0} B"));
    table.row(
        "open files, threads at the end",
        format!("{} and {}, as at first", watch.files.values().sum::<usize>(), broker.threads()),
    );
    table.tell();
}
