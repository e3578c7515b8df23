//! The admin API over real sockets: what it shows, what it does, and for whom.
//! # Not here: metrics and health (`ops`), the lock's cases one by one (`http::admin`).

use crate::client::{Client, wire_of};
use crate::harness::{Broker, run, with_broker};
use crate::http::{self, Answer, get};
use crate::process::Process;
use crate::reader::narrow;
use fanfare::auth::Hash;
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OPERATOR: &str = "the-token-of-the-operators-0123456789";

/// API tokens of two people, and what everybody may do.
fn people() -> String {
    let token = |name: &str| {
        format!(
            "[[auth.tokens]]\nname = '{name}'\nsha256 = '{}'\nsubscribe = ['>']\npublish = ['>']\n",
            Hash::of(name)
        )
    };
    let open = "[auth.anonymous]\nsubscribe = ['>']\npublish = ['>']\n";
    format!("{open}{}{}", token("alice"), token("bob"))
}

/// A connection of somebody, and what the broker calls it.
async fn join(broker: &Broker, wire: Wire, name: Option<&str>) -> (Client, String) {
    let mut client = Client::connect(broker, wire).await;
    let connect = name.map_or(json!({}), |name| json!({"token": name}));
    let reply = client.ask(&json!({"id": 1, "connect": connect})).await;
    let id = reply["connected"]["connection"].as_str().expect("a name").to_owned();
    (client, id)
}

/// A request with these headers, besides those of a body.
pub(crate) async fn ask(
    broker: &Broker,
    (method, path): (&str, &str),
    headers: &str,
    body: Option<&Value>,
) -> Answer {
    let admin = broker.admin();
    let host = if headers.contains("host:") { String::new() } else { format!("host: {admin}\r\n") };
    let head = format!("{method} {path} HTTP/1.1\r\n{host}{headers}connection: close\r\n");
    let text = body.map(ToString::to_string).unwrap_or_default();
    let kind = if body.is_some() { "content-type: application/json\r\n" } else { "" };
    let length = text.len();
    http::ask(admin, &format!("{head}{kind}content-length: {length}\r\n\r\n{text}")).await
}

async fn post(broker: &Broker, path: &str, body: Value) -> Answer {
    ask(broker, ("POST", path), "", Some(&body)).await
}

async fn read(broker: &Broker, path: &str) -> Value {
    let answer = get(broker.admin(), path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// All pages behind each other: their rows, of which none has more than `limit`.
async fn all_pages(broker: &Broker, path: &str, rows: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    for _ in 0..100 {
        let page = read(broker, &format!("{path}limit={limit}{after}")).await;
        let found = page[rows].as_array().expect("rows");
        assert!(found.len() <= limit, "{page}");
        all.extend(found.iter().cloned());
        let Some(next) = page["next"].as_str() else { return all };
        after = format!("&after={next}");
    }
    panic!("the pages have no end");
}

#[test]
fn pages_show_every_connection_once() {
    with_broker(&people(), async |broker| {
        let mut clients = Vec::new();
        for index in 0..25 {
            let name = (index % 5 == 0).then_some("alice");
            clients.push(join(broker, wire_of(index), name).await);
        }
        let names: BTreeSet<_> = clients.iter().map(|(_, name)| name.clone()).collect();
        for limit in [1, 4, 25, 1000] {
            let rows = all_pages(broker, "/v1/connections?", "connections", limit).await;
            assert_eq!(rows.len(), 25, "with a limit of {limit}");
            let seen = rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned());
            assert_eq!(seen.collect::<BTreeSet<_>>(), names);
        }
        let path = "/v1/connections?subject=alice&";
        let rows = all_pages(broker, path, "connections", 2).await;
        assert_eq!(rows.len(), 5);
        assert!(rows.iter().all(|row| row["subject"] == "alice"), "{rows:?}");
        // A page goes on behind a connection that has gone meanwhile.
        let first = read(broker, "/v1/connections?limit=1").await;
        let id = first["connections"][0]["id"].as_str().expect("an id").to_owned();
        let gone = clients.iter().position(|(_, name)| *name == id).expect("one of ours");
        clients.swap_remove(gone).0.reset();
        broker.until("fanfare_connections{wire=\"websocket_json\"}", |_| true).await;
        let rest = read(broker, &format!("/v1/connections?after={id}")).await;
        assert_eq!(rest["connections"].as_array().expect("rows").len(), 24);
    });
}

#[test]
fn a_connection_is_shown_with_who_it_is_and_what_it_wants() {
    with_broker(&people(), async |broker| {
        let (mut client, id) = join(broker, Wire::WebSocketProto, Some("alice")).await;
        for topic in ["b", "a.*", "a.b"] {
            client.ask(&json!({"id": 2, "subscribe": {"topic": topic}})).await;
        }
        let one = read(broker, &format!("/v1/connections/{id}")).await;
        assert_eq!(one["id"], id);
        assert_eq!(one["subject"], "alice");
        assert_eq!(one["wire"], "websocket_proto");
        assert_eq!(one["subscriptions"], 3);
        assert_eq!(one["subscribedTo"], json!(["a.*", "a.b", "b"]));
        assert_eq!((&one["queuedBytes"], &one["behind"]), (&json!(0), &json!(0)));
        assert!(one["sentBytes"].as_u64().expect("a number") > 50, "{one}");
        assert!(one["peer"].as_str().expect("a peer").starts_with("127.0.0.1:"), "{one}");
        assert!(one["connectedMs"].as_u64().expect("a time") > 1_600_000_000_000, "{one}");
        for nobody in ["9-0.1", "0-999.1", "0-0.0", "x", "0-1", "%20"] {
            let answer = get(broker.admin(), &format!("/v1/connections/{nobody}")).await;
            answer.must_refuse(Reason::NoConnection);
        }
    });
}

#[test]
fn topics_are_shown_in_pages_and_by_filter() {
    with_broker("", async |broker| {
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        for index in 0..10 {
            for _ in 0..=index {
                let publish = json!({"topic": format!("t.{index}"), "text": "1234"});
                client.ask(&json!({"id": 1, "publish": publish})).await;
            }
        }
        client.ask(&json!({"id": 2, "subscribe": {"topic": "other"}})).await;
        client.ask(&json!({"id": 3, "subscribe": {"topic": "t.*"}})).await;
        client.ask(&json!({"id": 4, "subscribe": {"topic": "t.3"}})).await;
        let rows = all_pages(broker, "/v1/topics?", "topics", 3).await;
        assert_eq!(rows.len(), 11);
        let rows = all_pages(broker, "/v1/topics?filter=t.%3E&", "topics", 3).await;
        let names: Vec<_> = rows.iter().map(|row| row["topic"].as_str().expect("a name")).collect();
        let expected: Vec<_> = (0..10).map(|index| format!("t.{index}")).collect();
        assert_eq!(names, expected);
        let row = &rows[3];
        assert_eq!((&row["offset"], &row["historyMessages"]), (&json!(4), &json!(4)), "{row}");
        assert_eq!(row["subscriptions"], 2, "{row}");
        assert!(row["historyBytes"].as_u64().expect("bytes") >= 16, "{row}");
        assert_eq!(row["epoch"].as_str().expect("an epoch").len(), 22);
        assert!(row["lastMessageMs"].as_u64().expect("a time") > 1_600_000_000_000);
        let other = read(broker, "/v1/topics?filter=other").await;
        let nothing = other["topics"][0].get("lastMessageMs");
        assert_eq!((other["topics"].as_array().map(Vec::len), nothing), (Some(1), None));
    });
}

#[test]
fn the_hottest_topics_are_those_that_get_messages_now() {
    with_broker("", async |broker| {
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        for topic in ["quiet", "warm", "hot"] {
            client.ask(&json!({"id": 1, "publish": {"topic": topic, "data": 1}})).await;
        }
        let publishing = async {
            loop {
                for topic in ["hot", "warm", "hot"] {
                    client.ask(&json!({"id": 1, "publish": {"topic": topic, "data": 1}})).await;
                }
            }
        };
        let hottest = tokio::select! {
            hottest = read(broker, "/v1/topics/hottest?limit=2&overMs=300") => hottest,
            () = publishing => unreachable!("it has no end"),
        };
        let topics = hottest["topics"].as_array().expect("topics");
        let names: Vec<_> =
            topics.iter().map(|row| row["topic"].as_str().expect("a name")).collect();
        assert_eq!(names, ["hot", "warm"], "{hottest}");
        assert!(topics[0]["messages"].as_u64() > topics[1]["messages"].as_u64(), "{hottest}");
        assert!(hottest["overMs"].as_u64().expect("a time") >= 300, "{hottest}");
        assert_eq!(hottest["watched"], 3);
        // Two at once would be twice the work.
        let (one, other) = tokio::join!(
            get(broker.admin(), "/v1/topics/hottest?overMs=300"),
            get(broker.admin(), "/v1/topics/hottest?overMs=300"),
        );
        let refused = if one.status == 200 { other } else { one };
        refused.must_refuse(Reason::TooManyRequests);
    });
}

#[test]
fn those_who_read_too_slowly_are_found() {
    with_broker("limits.outbound_bytes_max = '64 KiB'", async |broker| {
        let (_fast, _) = join(broker, Wire::WebSocketJson, None).await;
        let mut slow = narrow(broker, Wire::TcpProto).await;
        let reply = slow.ask(&json!({"id": 1, "connect": {}})).await;
        let id = reply["connected"]["connection"].as_str().expect("a name").to_owned();
        slow.ask(&json!({"id": 2, "subscribe": {"topic": "t"}})).await;
        let mut publisher = Client::connect(broker, Wire::TcpProto).await;
        let payload = "x".repeat(30_000);
        let slowest = loop {
            publisher.ask(&json!({"id": 1, "publish": {"topic": "t", "text": payload}})).await;
            let slowest = read(broker, "/v1/connections/slowest").await;
            if slowest["connections"][0]["behind"] == 1 {
                break slowest;
            }
        };
        let rows = slowest["connections"].as_array().expect("rows");
        assert_eq!((rows.len(), &rows[0]["id"]), (1, &json!(id)), "{slowest}");
        assert!(rows[0]["queuedBytes"].as_u64().expect("bytes") > 0, "{slowest}");
        assert_eq!(rows[0]["behind"], 1, "{slowest}");
        slow.reset();
    });
}

#[test]
fn a_connection_or_all_of_a_subject_are_closed_and_may_come_back() {
    with_broker(&people(), async |broker| {
        let (one, id) = join(broker, Wire::WebSocketJson, None).await;
        let (mut stays, _) = join(broker, Wire::WebSocketProto, Some("bob")).await;
        let answer = post(broker, "/v1/disconnect", json!({"connection": id})).await;
        assert_eq!(answer.json(), json!({"disconnected": 1}));
        assert_eq!(one.ending().await.code, Reason::Disconnected.code());
        let again = post(broker, "/v1/disconnect", json!({"connection": id})).await;
        again.must_refuse(Reason::NoConnection);
        let mut gone = Vec::new();
        for index in 0..5 {
            gone.push(join(broker, wire_of(index), Some("alice")).await.0);
        }
        let answer = post(broker, "/v1/disconnect", json!({"subject": "alice"})).await;
        assert_eq!(answer.json(), json!({"disconnected": 5}));
        for client in gone {
            assert_eq!(client.ending().await.code, Reason::Disconnected.code());
        }
        join(broker, Wire::TcpProto, Some("alice")).await;
        assert!(stays.ask(&json!({"id": 5, "ping": {}})).await["pong"].is_object());
    });
}

#[test]
fn a_revocation_ends_live_connections_and_keeps_them_out() {
    with_broker(&people(), async |broker| {
        let (alice, _) = join(broker, Wire::WebSocketJson, Some("alice")).await;
        let (mut bob, _) = join(broker, Wire::TcpProto, Some("bob")).await;
        let revoke = json!({"subject": "alice", "forMs": 60_000});
        let answer = post(broker, "/v1/revoke", revoke).await.json();
        assert_eq!(answer["revocations"], 1);
        assert!(answer["untilMs"].as_u64().expect("a time") > 1_600_000_000_000, "{answer}");
        assert_eq!(alice.ending().await.code, Reason::Forbidden.code());
        let mut again = Client::connect(broker, Wire::WebSocketJson).await;
        let reply = again.ask(&json!({"id": 1, "connect": {"token": "alice"}})).await;
        assert_eq!(reply["error"]["name"], "badToken");
        assert!(bob.ask(&json!({"id": 5, "ping": {}})).await["pong"].is_object());
    });
}

#[test]
fn no_more_may_be_revoked_than_is_configured() {
    let settings =
        people().replacen("[auth.anonymous]", "[auth]\nrevocations_max = 2\n[auth.anonymous]", 1);
    with_broker(&settings, async |broker| {
        for (id, reason) in [("a", None), ("b", None), ("c", Some(Reason::TooManyRevocations))] {
            let answer = post(broker, "/v1/revoke", json!({"tokenId": id, "forMs": 60_000})).await;
            match reason {
                None => assert_eq!(answer.status, 200),
                Some(reason) => drop(answer.must_refuse(reason)),
            }
        }
        let series = "fanfare_refusals_total{reason=\"tooManyRevocations\"}";
        assert_eq!(broker.count(series).await, 1);
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    with_broker("", async |broker| {
        for (path, reason) in [
            ("/v1/connections?limit=0", Reason::BadRequest),
            ("/v1/connections?limit=1001", Reason::BadRequest),
            ("/v1/connections?after=here", Reason::BadRequest),
            ("/v1/connections?colour=red", Reason::BadRequest),
            ("/v1/connections?token=x", Reason::BadRequest),
            ("/v1/topics?filter=a..b", Reason::BadFilter),
            ("/v1/topics?after=", Reason::BadTopic),
            ("/v1/topics/hottest?overMs=5001", Reason::BadRequest),
            ("/v1/overview?x", Reason::BadRequest),
            ("/v1/disconnect", Reason::MethodNotAllowed),
            ("/v2/overview", Reason::NotFound),
        ] {
            get(broker.admin(), path).await.must_refuse(reason);
        }
        for (path, body) in [
            ("/v1/disconnect", json!({})),
            ("/v1/disconnect", json!({"connection": "0-1.1", "subject": "a"})),
            ("/v1/disconnect", json!({"connexion": "0-1.1"})),
            ("/v1/disconnect", json!([])),
            ("/v1/revoke", json!({"subject": "a"})),
            ("/v1/revoke", json!({"subject": "", "forMs": 1})),
            ("/v1/revoke", json!({"subject": "a", "tokenId": "b", "forMs": 1})),
            ("/v1/revoke", json!({"subject": "a".repeat(1025), "forMs": 1})),
            ("/v1/revoke", json!({"subject": "a", "forMs": 0})),
            ("/v1/revoke", json!({"subject": "a", "forMs": u64::MAX})),
            ("/v1/drain", json!({"now": true})),
            // A list is not a command without fields, nor one whose fields have no names.
            ("/v1/drain", json!([])),
            ("/v1/revoke", json!(["alice", null, 1000])),
        ] {
            post(broker, path, body).await.must_refuse(Reason::BadRequest);
        }
        let large = json!({"subject": "a".repeat(20_000), "forMs": 1});
        post(broker, "/v1/revoke", large).await.must_refuse(Reason::TooLarge);
        let form = "content-type: text/plain\r\n";
        ask(broker, ("POST", "/v1/drain"), form, None).await.must_refuse(Reason::BadContentType);
        post(broker, "/v1/overview", json!({})).await.must_refuse(Reason::MethodNotAllowed);
    });
}

#[test]
fn pages_of_others_may_use_nothing_of_it() {
    with_broker("", async |broker| {
        let port = broker.admin().port();
        let own = format!("origin: http://127.0.0.1:{port}\r\n");
        let paths = [("GET", "/v1/connections"), ("GET", "/v1/overview"), ("POST", "/v1/drain")];
        for (method, path) in paths {
            let request = |headers: String| async move {
                ask(broker, (method, path), &headers, (method == "POST").then_some(&json!([])))
                    .await
            };
            let foreign = request("origin: https://evil.example\r\n".to_owned()).await;
            foreign.must_refuse(Reason::BadOrigin);
            request("origin: null\r\n".to_owned()).await.must_refuse(Reason::BadOrigin);
            // A name of theirs that leads here.
            let rebound = format!("host: evil.example:{port}\r\n");
            request(rebound.clone()).await.must_refuse(Reason::BadHost);
            let same = format!("{rebound}origin: http://evil.example:{port}\r\n");
            request(same).await.must_refuse(Reason::BadHost);
            let ours = request(own.clone()).await;
            assert!([200, 400].contains(&ours.status), "{ours:?}");
        }
        // Metrics and health are as open as they were.
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(ask(broker, ("GET", path), "host: x\r\n", None).await.status, 200);
        }
    });
}

#[test]
fn a_token_is_for_everything_but_metrics_and_health() {
    let settings = format!("admin.token = '{}'", Hash::of(OPERATOR));
    with_broker(&settings, async |broker| {
        let with = |path: &'static str, value: String| async move {
            ask(broker, ("GET", path), &format!("authorization: {value}\r\n"), None).await
        };
        for path in ["/v1/overview", "/v1/connections", "/v1/topics", "/v1/topics/hottest"] {
            get(broker.admin(), path).await.must_refuse(Reason::Unauthenticated);
            let wrong = format!("Bearer {}x", &OPERATOR[..OPERATOR.len() - 1]);
            let refused = with(path, wrong).await;
            refused.must_refuse(Reason::BadToken);
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
            // The hash is not the token.
            let hash = format!("Bearer {}", Hash::of(OPERATOR));
            with(path, hash).await.must_refuse(Reason::BadToken);
            assert_eq!(with(path, format!("Bearer {OPERATOR}")).await.status, 200, "{path}");
        }
        let revoke = json!({"subject": "a", "forMs": 1});
        post(broker, "/v1/revoke", revoke).await.must_refuse(Reason::Unauthenticated);
        assert_eq!(broker.guard().revocation_count(), 0);
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(get(broker.admin(), path).await.status, 200);
        }
    });
}

#[test]
fn where_others_can_reach_it_nothing_goes_without_a_token() {
    // The settings of every test name the address, too.
    let mut config = crate::harness::config("");
    config.insecure = true;
    config.listen.admin = Some("0.0.0.0:0".parse().expect("an address"));
    run(async {
        let broker = Broker::of(&config);
        let port = broker.admin().port();
        let here = format!("127.0.0.1:{port}").parse().expect("an address");
        get(here, "/v1/overview").await.must_refuse(Reason::NotAllowed);
        assert_eq!(get(here, "/metrics").await.status, 200);
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn names_that_clients_choose_are_in_no_metric() {
    with_broker(&people(), async |broker| {
        let series = |page: String| -> BTreeSet<String> {
            let lines = page.lines().filter(|line| !line.starts_with('#'));
            lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
        };
        let before = series(get(broker.admin(), "/metrics").await.text());
        for index in 0..20 {
            let (mut client, _) = join(broker, wire_of(index), Some("alice")).await;
            let topic = format!("canary.{index}");
            client.ask(&json!({"id": 2, "subscribe": {"topic": topic}})).await;
            client.ask(&json!({"id": 3, "publish": {"topic": topic, "data": index}})).await;
            read(broker, &format!("/v1/topics?filter=canary.{index}")).await;
            let name = format!("canary-{index}");
            post(broker, "/v1/revoke", json!({"tokenId": name, "forMs": 1000})).await;
            post(broker, "/v1/disconnect", json!({"subject": name})).await;
            get(broker.admin(), &format!("/v1/canary/{index}")).await;
        }
        let page = get(broker.admin(), "/metrics").await.text();
        assert!(!page.contains("canary") && !page.contains("alice"));
        assert_eq!(series(page), before);
    });
}

/// What `fanfare top` says about a broker, and whether it succeeded.
fn top(broker: &Broker, more: &[&str]) -> (bool, String) {
    let address = format!("http://{}", broker.admin());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(["top", "--once", "--address", &address]).args(more).env_remove("FANFARE_TOKEN");
    let output = command.output().expect("it ran");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).expect("text"))
}

#[test]
fn an_operator_looks_reloads_and_drains() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, token) = (folder.path().join("fanfare.toml"), folder.path().join("token"));
        let write = |text: &str| std::fs::write(&file, text).expect("a file");
        write("");
        std::fs::write(&token, OPERATOR).expect("a file");
        let path = file.to_string_lossy().into_owned();
        let arguments = ["--config", path.as_str()];
        let (mut process, broker) = Process::serve_with("127.0.0.1:0", "127.0.0.1:0", &arguments);
        let (mut client, _) = join(&broker, Wire::TcpProto, None).await;
        client.ask(&json!({"id": 2, "publish": {"topic": "t", "data": 1}})).await;
        let (succeeded, view) = top(&broker, &[]);
        assert!(succeeded && view.contains("connections            1"), "{view}");
        let (succeeded, json) = top(&broker, &["--json"]);
        let look: Value = serde_json::from_str(&json).expect("JSON");
        assert!(succeeded);
        assert_eq!(look["overview"]["publishedTotal"], 1, "{look}");

        write("limits.subscriptions_max = 0");
        let refused = post(&broker, "/v1/reload", json!({})).await.must_refuse(Reason::BadReload);
        assert!(refused.contains("limits.subscriptions_max"), "{refused}");
        write(&format!("admin.token = '{}'\n", Hash::of(OPERATOR)));
        let reloaded = post(&broker, "/v1/reload", json!({})).await.json();
        let expected = json!({"changed": ["admin.token"], "readAnew": [], "needsRestart": []});
        assert_eq!(reloaded, expected);

        // From now on everybody has to show it.
        post(&broker, "/v1/drain", json!({})).await.must_refuse(Reason::Unauthenticated);
        let (succeeded, why) = top(&broker, &[]);
        assert!(!succeeded && why.starts_with("error: unauthenticated: "), "{why}");
        let token = token.to_string_lossy();
        assert!(top(&broker, &["--token-file", &token]).0);
        let header = format!("authorization: Bearer {OPERATOR}\r\n");
        let drained = ask(&broker, ("POST", "/v1/drain"), &header, Some(&json!({}))).await;
        assert_eq!(drained.json(), json!({"draining": true}));
        drop(client);
        assert_eq!(process.code().await, Some(0));
    });
}

/// The examples of the paper: a command for curl, and the answer that it gets.
fn examples() -> Vec<(String, Value)> {
    let paper = include_str!("../../docs/admin.md");
    let mut examples = Vec::new();
    for block in paper.split("```sh\n").skip(1) {
        let (command, rest) = block.split_once("```").expect("a block ends");
        let answer = rest.split_once("```json\n").expect("an answer follows").1;
        let answer = answer.split_once("```").expect("a block ends").0;
        let answer =
            serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        examples.push((command.trim().replace("\\\n", " "), answer));
    }
    assert!(examples.len() >= 9, "there are {} of them", examples.len());
    examples
}

/// The names of the fields of an answer, those of rows once.
fn fields(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            into.insert(format!("{path}.{name}"));
            fields(value, &format!("{path}.{name}"), into);
        }),
        Value::Array(list) => list.iter().for_each(|value| fields(value, path, into)),
        _ => {}
    }
}

#[test]
fn every_example_of_the_paper_is_answered_as_it_says() {
    with_broker(&people(), async |broker| {
        let (mut alice, id) = join(broker, Wire::WebSocketJson, Some("alice")).await;
        let (mut feed, _) = join(broker, Wire::TcpProto, None).await;
        alice.ask(&json!({"id": 2, "subscribe": {"topic": "ticker.>"}})).await;
        let mut publishing = async || {
            for symbol in ["AAPL", "IBM"] {
                let publish = json!({"topic": format!("ticker.{symbol}"), "data": 1});
                feed.ask(&json!({"id": 1, "publish": publish})).await;
            }
        };
        publishing().await;
        for (command, expected) in examples() {
            // They are about a connection that is not there.
            let command = command.replace("0-3.4", &id);
            let body = command.split_once("-d '").map(|(_, rest)| {
                let body = rest.split_once('\'').expect("a body ends").0;
                serde_json::from_str::<Value>(body).expect("JSON")
            });
            let url = command.split("http://127.0.0.1:7602").nth(1).expect("an address");
            let path = url.split(['\'', ' ']).next().expect("a path");
            let method = if body.is_some() { "POST" } else { "GET" };
            if ["/v1/drain", "/v1/reload"].contains(&path) {
                // Whoever owns the broker answers these.
                continue;
            }
            let asked = ask(broker, (method, path), "", body.as_ref());
            let answer = tokio::select! {
                answer = asked => answer,
                () = async { loop { publishing().await; } } => unreachable!("it has no end"),
            };
            assert_eq!(answer.status, 200, "{command}: {answer:?}");
            let (mut told, mut got) = (BTreeSet::new(), BTreeSet::new());
            fields(&expected, "", &mut told);
            fields(&answer.json(), "", &mut got);
            // Nobody is slow here, and a page may be the last.
            told.remove(".next");
            got.remove(".next");
            if !path.contains("slowest") {
                assert_eq!(told, got, "{command}");
            }
        }
        let code = loop {
            if let Err(ending) = alice.hear_or_end().await {
                break ending.code;
            }
        };
        assert_eq!(code, Reason::Disconnected.code());
    });
}
