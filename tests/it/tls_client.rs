//! The client commands over TLS: they believe whom they are told to, and nobody else.
//! # Not here: what else they do (`tests/cli.rs`).

use crate::certificates::Keyring;
use crate::client::Client;
use crate::harness::{Broker, with_broker, within};
use crate::pipe::Pipe;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::process::Output;

/// Runs `fanfare` with these arguments to its end.
async fn fanfare(arguments: Vec<String>) -> Output {
    let run = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command.args(arguments).stdin(std::process::Stdio::null()).output().expect("it starts")
    });
    within("the command", run).await.expect("it did not panic")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn subscribed(broker: &Broker) {
    broker.until("fanfare_subscriptions{target=\"topic\"}", |count| count > 0).await;
}

#[test]
fn a_message_goes_by_tls_from_command_to_command() {
    let keyring = Keyring::new();
    let (certificate, key) = keyring.clients.issue();
    keyring.put("client.pem", &certificate);
    keyring.put("client.key", &key);
    with_broker(&keyring.mutual_settings(), async |broker| {
        let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"]
            .map(|name| keyring.path(name).to_string_lossy().into_owned());
        let (public, ingress) = (broker.public(), broker.ingress());
        let proof = ["--client-certificate", &certificate, "--client-key", &key];
        let urls = [format!("wss://{public}"), format!("tls://{ingress}")];
        for (offset, url) in (1..).zip(&urls) {
            let subscribe = words(&["subscribe", "t", "--count=1", "--raw", "--ca", &ca]);
            let subscribe = [subscribe, words(&["--url", url]), words(&proof)].concat();
            let subscriber = tokio::spawn(fanfare(subscribe));
            subscribed(broker).await;
            let publish = words(&["publish", "t", "hello", "--ca", &ca, "--url", url]);
            let published = fanfare([publish, words(&proof)].concat()).await;
            assert!(published.status.success(), "{published:?}");
            let heard = within("the subscriber", subscriber).await.expect("no panic");
            assert!(heard.status.success(), "{heard:?}");
            assert_eq!(String::from_utf8_lossy(&heard.stdout), "hello\n");
            let topic = "fanfare_subscriptions{target=\"topic\"}";
            broker.until(topic, |count| count == 0).await;
            assert_eq!(broker.count("fanfare_published_total").await, offset);
        }
        let url = format!("https://{public}");
        let published = fanfare(words(&["publish", "t", "1", "--ca", &ca, "--url", &url])).await;
        assert!(published.status.success(), "{published:?}");
    });
}

#[test]
fn a_server_that_cannot_be_believed_is_told_as_such() {
    let keyring = Keyring::new();
    with_broker(&keyring.settings(), async |broker| {
        let public = broker.public();
        let ca = keyring.path("ca.pem").to_string_lossy().into_owned();
        let other = keyring.path("clients.pem").to_string_lossy().into_owned();
        let port = public.port();
        let cases = [
            (format!("wss://{public}"), &other, "UnknownIssuer"),
            // Its certificate is for 127.0.0.1.
            (format!("wss://localhost:{port}"), &ca, "not valid for name"),
            (format!("wss://{public}"), &"/nowhere.pem".to_owned(), "/nowhere.pem"),
            (format!("ws://{public}"), &ca, "cannot"),
        ];
        for (url, ca, expected) in cases {
            let ended = fanfare(words(&["publish", "t", "1", "--ca", ca, "--url", &url])).await;
            let error = String::from_utf8_lossy(&ended.stderr);
            assert!(!ended.status.success(), "{url}");
            println!("{url}: {error}");
            assert!(expected == "cannot" || error.contains(expected), "{url}: {error}");
        }
        assert_eq!(broker.count("fanfare_published_total").await, 0);
        let pipe: Pipe = keyring.connect(public).await;
        let mut client = Client::begin(broker, Wire::WebSocketJson, pipe).await;
        client.ask(&json!({"id": 1, "ping": {}})).await;
    });
}

/// The figures of a short bench of a broker that runs.
async fn bench(line: &str) -> Value {
    let short = "--duration 200ms --rounds 1 --no-limit --no-pin --json";
    let ended =
        fanfare(words(&format!("bench {line} {short}").split(' ').collect::<Vec<_>>())).await;
    assert!(ended.status.success(), "{line}: {}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).expect("one object")
}

#[test]
fn a_bench_measures_over_tls_what_it_measures_in_plain_text() {
    let keyring = Keyring::new();
    // A client that has to wait for the processor is not to miss anything for that.
    let more = "limits.accept_rate = 1000000\nlimits.outbound_bytes_max = \"64 MiB\"";
    let settings = format!("{}{more}", keyring.settings());
    with_broker(&settings, async |broker| {
        let ca = keyring.path("ca.pem").display().to_string();
        let at = format!("--address wss://{} --ca {ca}", broker.public());
        let run = format!("{at} --warmup 50ms");
        for speech in ["json", "proto --batch"] {
            // Longer than one record, and than the socket takes at once.
            for payload in [100, 40_000] {
                let line = format!(
                    "fanout {run} --subscribers 8 --rate 100 --payload {payload} --protocol {speech}"
                );
                let found = bench(&line).await;
                let count = |name: &str| found["broker"][name].as_u64().expect("a count");
                assert!(count("published") > 0, "{found}");
                assert_eq!(count("delivered"), 8 * count("published"), "{found}");
            }
        }
        let busy = bench(&format!("fanout {run} --subscribers 8 --payload 20000")).await;
        assert!(busy["broker"]["delivered"].as_u64() > Some(0), "{busy}");
        let trips = bench(&format!("roundtrip {run} --payload 40000")).await;
        assert!(trips["broker"]["round_trips"].as_u64() > Some(0), "{trips}");
        let idle = bench(&format!("idle {at} --subscribers 5")).await;
        assert_eq!(idle["broker"]["connections"], 5, "{idle}");
        let lives = bench(&format!("churn {at} --connections 3 --warmup 50ms")).await;
        assert!(lives["broker"]["lives"].as_u64() > Some(0), "{lives}");
        let ingress = broker.ingress();
        let published = bench(&format!("publish {run} --ingress tls://{ingress}")).await;
        assert!(published["broker"]["published"].as_u64() > Some(0), "{published}");
    });
}

#[test]
fn a_bench_believes_no_server_that_no_known_authority_vouches_for() {
    let keyring = Keyring::new();
    with_broker(&keyring.settings(), async |broker| {
        let other = keyring.path("clients.pem").display().to_string();
        let address = format!("wss://{}", broker.public());
        for scenario in ["fanout", "roundtrip"] {
            let line = ["bench", scenario, "--address", &address, "--ca", &other];
            let ended = fanfare(words(&line)).await;
            let error = String::from_utf8_lossy(&ended.stderr);
            assert!(!ended.status.success() && error.contains("UnknownIssuer"), "{error}");
        }
    });
}
