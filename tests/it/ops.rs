//! The admin side: metrics and health.
//! # Not here: what single series count (beside the behaviour that they are about).

use crate::client::{Client, WIRES, wire_of};
use crate::harness::{Broker, config, run, with_broker};
use crate::http::{self, ask, get};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[test]
fn a_running_broker_is_healthy_and_ready() {
    with_broker("", async |broker| {
        for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
            let answer = get(broker.admin(), path).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, body));
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        }
    });
}

#[test]
fn the_admin_side_is_only_read() {
    with_broker("", async |broker| {
        for path in ["/", "/ws", "/v1/publish", "/metricsx"] {
            get(broker.admin(), path).await.must_refuse(Reason::NotFound);
        }
        for method in ["POST", "PUT", "DELETE"] {
            let request = format!("{method} /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
            let answer = ask(broker.admin(), &request).await;
            answer.must_refuse(Reason::MethodNotAllowed);
        }
    });
}

#[test]
fn the_metrics_count_what_has_happened() {
    with_broker("", async |broker| {
        let mut json = Client::connect(broker, Wire::WebSocketJson).await;
        let mut proto = Client::connect(broker, Wire::WebSocketProto).await;
        let mut tcp = Client::connect(broker, Wire::TcpProto).await;
        json.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
        json.ask(&json!({"id": 2, "subscribe": {"topic": "u"}})).await;
        proto.ask(&json!({"id": 1, "subscribe": {"topic": ">"}})).await;
        for n in 1..=5 {
            tcp.ask(&json!({"id": n, "publish": {"topic": "t", "text": "1234"}})).await;
        }
        for _ in 0..5 {
            json.hear().await;
        }
        for _ in 0..6 {
            proto.hear().await;
        }
        tcp.ask(&json!({"id": 9, "unsubscribe": {"topic": "t"}})).await;
        tcp.ask(&json!({"id": 9, "subscribe": {"topic": "t", "last": 3}})).await;
        for _ in 0..3 {
            tcp.hear().await;
        }
        broker.until("fanfare_deliveries_total", |count| count == 10).await;
        let expected = [
            ("fanfare_published_total", 5),
            ("fanfare_published_bytes_total", 20),
            ("fanfare_replayed_total", 3),
            ("fanfare_dropped_total", 0),
            ("fanfare_gaps_total", 0),
            ("fanfare_topics", 2),
            ("fanfare_mailbox_depth", 0),
            ("fanfare_outbound_bytes", 0),
            ("fanfare_blocked_connections", 0),
            ("fanfare_subscriptions{target=\"topic\"}", 3),
            ("fanfare_subscriptions{target=\"filter\"}", 1),
            ("fanfare_connections{wire=\"websocket_json\"}", 1),
            ("fanfare_connections{wire=\"websocket_proto\"}", 1),
            ("fanfare_connections{wire=\"tcp_proto\"}", 1),
            ("fanfare_connections_opened_total{wire=\"tcp_proto\"}", 1),
            // Five messages once for each wire that got them live, three more from history.
            ("fanfare_encodes_total{wire=\"websocket_json\"}", 5),
            ("fanfare_encodes_total{wire=\"websocket_proto\"}", 5),
            ("fanfare_encodes_total{wire=\"tcp_proto\"}", 3),
            ("fanfare_refusals_total{reason=\"notSubscribed\"}", 1),
            ("fanfare_refusals_total{reason=\"badTopic\"}", 0),
            ("fanfare_closes_total{reason=\"normal\"}", 0),
            ("fanfare_delivery_latency_seconds_count", 5),
        ];
        for (series, count) in expected {
            // Each shard that delivered a message has observed it.
            let got = broker.count(series).await;
            let shards = if series.contains("latency") { 2 } else { 1 };
            assert!(got == count || got == count * shards, "{series} is {got}, not {count}");
        }
    });
}

#[test]
fn a_thousand_subscribers_cost_one_encoding_per_wire() {
    with_broker("", async |broker| {
        let mut subscribers = Vec::new();
        for index in 0..300 {
            let mut client = Client::connect(broker, wire_of(index)).await;
            client.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
            subscribers.push(client);
        }
        let mut publisher = Client::connect(broker, Wire::TcpProto).await;
        publisher.ask(&json!({"id": 1, "publish": {"topic": "t", "data": {"x": 1}}})).await;
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.hear().await["message"]["offset"], 1);
        }
        for wire in WIRES {
            let series = format!("fanfare_encodes_total{{wire=\"{}\"}}", wire.name());
            assert_eq!(broker.count(&series).await, 1, "{series}");
        }
        assert_eq!(broker.count("fanfare_deliveries_total").await, 300);
    });
}

#[test]
fn the_metrics_page_is_what_prometheus_reads() {
    with_broker("", async |broker| {
        let answer = get(broker.admin(), "/metrics").await;
        assert_eq!(answer.status, 200);
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
        let (mut kinds, mut series) = (BTreeMap::new(), BTreeSet::new());
        let text = answer.text();
        assert!(text.ends_with('\n'));
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                assert!(kinds.insert(name, kind).is_none(), "{name} has two types");
            } else if !line.starts_with("# HELP ") {
                let (full, value) = line.rsplit_once(' ').expect("a series and a value");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(series.insert(full), "{full} is there twice");
                let name = full.split('{').next().expect("a name");
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end).filter(|base| kinds.contains_key(base)));
                let kind = kinds.get(base.unwrap_or(name)).copied();
                let ours = name.starts_with("fanfare_") || name.starts_with("process_");
                assert!(ours, "{name} has the prefix of somebody else");
                match kind {
                    Some("counter") => assert!(name.ends_with("_total"), "{name}"),
                    Some("gauge") => assert!(!name.ends_with("_total"), "{name}"),
                    Some("histogram") => assert!(base.is_some(), "{name}"),
                    other => panic!("{name} is of the kind {other:?}"),
                }
                assert!(text.contains(&format!("# HELP {} ", base.unwrap_or(name))), "{name}");
            }
        }
        assert!(series.len() > 50, "only {} series", series.len());
    });
}

#[test]
fn what_a_scrape_tells_is_told_again_until_it_is_too_old() {
    run(async {
        let mut settings = config("");
        settings.admin.metrics_age = Duration::from_hours(1);
        let mut broker = Broker::of(&settings);
        let published = "fanfare_published_total";
        assert_eq!(broker.count(published).await, 0);
        let message = r#"{"topic":"t","data":1}"#;
        assert_eq!(http::publish(broker.public(), message).await.status, 200);
        for _ in 0..3 {
            assert_eq!(broker.count(published).await, 0);
        }
        settings.admin.metrics_age = Duration::ZERO;
        let changes = broker.reload_to(&settings).await.expect("sound");
        assert_eq!(changes.changed, ["admin.metrics_age"]);
        assert_eq!(broker.count(published).await, 1);
        assert_eq!(http::publish(broker.public(), message).await.status, 200);
        assert_eq!(broker.count(published).await, 2);
        assert_eq!(broker.drain().await, 0);
    });
}
