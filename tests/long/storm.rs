//! Everybody comes back at once: a broker with thousands of clients is restarted, and all of them
//! connect again, show their tokens, and go on where they were.
//! # Invariants: every client must end at the top of its topic, without a hole and without a double.
//! # Not here: how a client comes back (`herd`), a proxy in front (`tests/interop`).

use crate::herd::{Herd, Plan};
use crate::number;
use crate::process::{Home, Process, get};
use crate::table::{Table, mib};
use fanfare::auth::{Algorithm, Signer, sign};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Clients of a run, where nobody says otherwise.
const CLIENTS: u64 = 500;

/// How many clients share a topic.
const AUDIENCE: u64 = 250;

const KEY: &str = include_str!("../keys/p256.pem");
const PUBLIC_KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/p256.pub.pem");

/// What the metrics say of connections that had to wait or were refused.
const REFUSALS: [&str; 5] = [
    "fanfare_accepts_delayed_total",
    "fanfare_arrivals_refused_total",
    "fanfare_handshakes_refused_total",
    "fanfare_tokens_refused_total",
    "fanfare_resumes_refused_total",
];

/// What a storm is measured by.
struct Storm {
    /// From the signal to the end of the first process, and on to the second one's listening.
    gone: Duration,
    back: Duration,
    /// From there to the last client's being live.
    live: Duration,
    /// Processor time of the second process until then.
    seconds: f64,
}

fn settings(home: &Home) -> String {
    format!(
        r#"
shutdown.snapshot = "{}"
shutdown.spread = "3s"
auth.audience = "tests"

[[auth.keys]]
algorithm = "ES256"
file = "{PUBLIC_KEY}"
"#,
        home.file("topics").display()
    )
}

/// A token of one client.
fn token(signer: &Signer, subject: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({
        "sub": format!("client-{subject}"), "aud": "tests", "exp": now + 86_400,
        "fanfare": {"subscribe": ["storm.*"], "publish": ["storm.*"]},
    });
    sign(signer, None, &claims).expect("a token")
}

#[test]
#[ignore = "needs thousands of sockets: ./test.sh storm"]
fn everybody_comes_back_after_a_restart_and_misses_nothing() {
    let clients = number("STORM_CLIENTS").unwrap_or(CLIENTS);
    let home = Home::new("");
    home.write(&settings(&home));
    let mut broker = home.serve("127.0.0.1:0");
    let public = broker.public;
    let signer = Signer::of_file(Algorithm::Es256, KEY.as_bytes()).expect("a key");
    let tokens = (0..=clients).map(|subject| token(&signer, subject)).collect();
    let topics = clients.div_ceil(AUDIENCE);
    let herd = Herd::start(Plan { address: public, clients, topics, tokens });
    let begin = Instant::now();
    herd.until("all are live", |herd| herd.live() == clients);
    let first = begin.elapsed();
    herd.until("all have heard something", |herd| herd.heard() >= 3 * clients);
    let peak = broker.peak();

    let storm = restart(&home, &mut broker, &herd, clients);
    let enough = herd.heard() + 3 * clients;
    herd.until("all hear what is new", |herd| herd.heard() >= enough);
    let published = herd.finish(&broker.log());
    tell(&broker, &herd, &storm, (clients, first, peak, published));
    let metrics = broker.metrics();
    assert_eq!(metrics.get("fanfare_gaps_total"), Some(&0.0));
    assert!(get(broker.admin, "/healthz").is_ok());
    broker.stop();
}

/// Ends the broker as a service manager does, starts the next one, and waits for everybody.
fn restart(home: &Home, broker: &mut Process, herd: &Herd, clients: u64) -> Storm {
    let public = broker.public.to_string();
    let begin = Instant::now();
    broker.terminate();
    herd.until("the broker has ended", |_| broker.ended().is_some());
    let status = broker.ended().expect("it has ended");
    assert!(status.success(), "{status}; {}", broker.log());
    let gone = begin.elapsed();
    herd.until("all have noticed", |herd| herd.live() == 0);
    herd.begin_again();
    let begin = Instant::now();
    *broker = home.serve(&public);
    let back = begin.elapsed();
    let begin = Instant::now();
    herd.until("all are live again", |herd| herd.live() == clients);
    Storm { gone, back, live: begin.elapsed(), seconds: broker.cpu_seconds() }
}

fn tell(
    broker: &Process,
    herd: &Herd,
    storm: &Storm,
    (clients, first, peak, published): (u64, Duration, u64, u64),
) {
    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    let mut table = Table::new("Storm");
    table.row("clients, each with a token of ES256", clients);
    table.row("first time: from nothing to all live", seconds(first));
    table.row("from the signal to the end of the process", seconds(storm.gone));
    table.row("until the next one listened", seconds(storm.back));
    table.row("until half of the clients were live again", seconds(herd.live_again(50)));
    table.row("until 99 of 100 were", seconds(herd.live_again(99)));
    table.row("until the last was", seconds(storm.live));
    table.row("processor time of the broker until then", format!("{:.2} s", storm.seconds));
    table.row("peak of memory before and after", format!("{}, {}", mib(peak), mib(broker.peak())));
    table.row("attempts to connect that failed", herd.failures());
    table.row("clients that were told to come back", herd.farewells());
    let metrics: BTreeMap<String, f64> = broker.metrics();
    for name in REFUSALS {
        table.row(name, metrics.get(name).copied().unwrap_or(0.0));
    }
    for (series, count) in metrics.range("fanfare_arrivals_refused_total{".to_owned()..) {
        if series.starts_with("fanfare_arrivals_refused_total{") && *count > 0.0 {
            table.row(series, count);
        }
    }
    let recovered = metrics.get("fanfare_resumes_recovered_total").copied().unwrap_or(0.0);
    table.row("recovered", recovered);
    table.row("messages published, heard", format!("{published}, {}", herd.heard()));
    table.tell();
    assert!(recovered >= clients as f64, "only {recovered} were recovered");
}
