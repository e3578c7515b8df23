//! `GET /v1/history`, `/v1/snapshot` and `/v1/presence`.
//! # Not here: what topics keep (`snapshots`, `presence`), pages of other origins (`sse_edge`).

use crate::client::Client;
use crate::events::Events;
use crate::harness::{Broker, with_broker, within};
use crate::http::{Answer, ask, get, publish};
use crate::identity::House;
use crate::pipe::Pipe;
use crate::publisher::Publisher;
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

const RULES: &str = "topics.rules = [{ filter = 'row.*', snapshot = 'keys' }, \
                     { filter = 'room', presence = true }]";

/// The data of messages.
fn data(messages: &Value) -> Vec<&Value> {
    messages.as_array().expect("messages").iter().map(|message| &message["data"]).collect()
}

#[test]
fn history_is_the_page_that_the_command_answers() {
    with_broker(RULES, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let mut places = Vec::new();
        for number in 1..=5 {
            places.push(publisher.publish(&json!({"topic": "a.b", "data": number})).await);
        }
        let epoch = places[0]["epoch"].as_str().expect("an epoch");
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        for (query, fields) in [
            ("topic=a.b".to_owned(), json!({})),
            ("topic=a.b&limit=2".to_owned(), json!({"limit": 2})),
            (
                format!("topic=a.b&since={epoch}:2&limit=2"),
                json!({"since": {"epoch": epoch, "offset": 2}, "limit": 2}),
            ),
            ("topic=never".to_owned(), json!({"topic": "never"})),
        ] {
            let mut history = json!({"topic": "a.b"});
            for (name, value) in fields.as_object().expect("fields") {
                history[name] = value.clone();
            }
            let reply = client.ask(&json!({"id": 1, "history": history})).await;
            let answer = get(broker.public(), &format!("/v1/history?{query}")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json(), reply["historyPage"], "{query}");
        }
        let answer = get(broker.public(), "/v1/history?topic=a.b&limit=2").await.json();
        assert_eq!(data(&answer["messages"]), [4, 5]);
        let other = format!("/v1/history?topic=a.b&since={}:1", "A".repeat(22));
        get(broker.public(), &other).await.must_refuse(Reason::EpochChanged);
    });
}

#[test]
fn a_snapshot_is_what_a_subscription_is_sent_first() {
    with_broker(RULES, async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        for (topic, key, number) in [
            ("row.1", "x", 1),
            ("row.1", "y", 2),
            ("row.1", "x", 3),
            ("row.2", "z", 4),
            ("a", "", 5),
        ] {
            publisher.publish(&json!({"topic": topic, "key": key, "data": number})).await;
        }
        for (query, expected) in [
            ("topic=row.1", vec![2, 3]),
            ("topic=row.*", vec![2, 3, 4]),
            ("topic=%3E", vec![5, 2, 3, 4]),
            ("topic=never", vec![]),
        ] {
            let answer = get(broker.public(), &format!("/v1/snapshot?{query}")).await.json();
            assert_eq!(data(&answer["messages"]), expected, "{query}: {answer}");
            let mut events = Events::begin(broker, &format!("snapshot=true&{query}")).await;
            events.answer(1).await;
            let mut messages = Vec::new();
            let positions = loop {
                let event = events.hear().await;
                match event.get("message") {
                    Some(message) => messages.push(message.clone()),
                    None => break event["snapshotEnd"]["positions"].clone(),
                }
            };
            assert_eq!(answer["messages"], json!(messages), "{query}");
            if query != "topic=never" {
                assert_eq!(answer["positions"], positions, "{query}");
            }
        }
        let small = "limits.resume_messages_max = 2";
        with_snapshot_of_three(small, Reason::SnapshotTooLarge);
    });
}

/// Three topics have a message each, and a snapshot of them is refused.
fn with_snapshot_of_three(settings: &str, reason: Reason) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            with_broker(settings, async |broker| {
                let mut publisher = Publisher::connect(broker).await;
                for topic in ["a", "b", "c"] {
                    publisher.publish(&json!({"topic": topic, "data": 1})).await;
                }
                get(broker.public(), "/v1/snapshot?topic=*").await.must_refuse(reason);
            });
        });
    });
}

#[test]
fn presence_is_the_list_that_the_command_answers() {
    with_broker(RULES, async |broker| {
        let mut events = Events::begin(broker, "topic=room").await;
        events.answer(1).await;
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        client.ask(&json!({"id": 1, "connect": {"name": "ann"}})).await;
        client.ask(&json!({"id": 2, "subscribe": {"topic": "room"}})).await;
        let reply = client.ask(&json!({"id": 3, "presence": {"topic": "room"}})).await;
        let answer = get(broker.public(), "/v1/presence?topic=room").await;
        assert_eq!(answer.json(), reply["presenceState"]);
        assert_eq!(answer.json()["count"], 2);
        get(broker.public(), "/v1/presence?topic=a").await.must_refuse(Reason::NotAllowed);
    });
}

#[test]
fn a_look_that_is_not_understood_is_refused() {
    with_broker("", async |broker| {
        let address = broker.public();
        for (path, reason) in [
            ("/v1/history", Reason::BadTopic),
            ("/v1/history?topic=a.*", Reason::BadTopic),
            ("/v1/history?topic=a&since=1", Reason::BadPosition),
            ("/v1/history?topic=a&limit=x", Reason::BadOption),
            ("/v1/history?topic=a&limt=1", Reason::BadRequest),
            ("/v1/history?topic=a&topic=b", Reason::BadRequest),
            ("/v1/snapshot?topic=a..b", Reason::BadTopic),
            ("/v1/snapshot?topic=%3E.a", Reason::BadFilter),
            ("/v1/snapshot?filter=a", Reason::BadRequest),
            ("/v1/presence?topic=a.*", Reason::BadTopic),
            ("/v1/look?topic=a", Reason::NotFound),
        ] {
            get(address, path).await.must_refuse(reason);
        }
        for path in ["/v1/history", "/v1/snapshot", "/v1/presence"] {
            let request = format!("POST {path}?topic=a HTTP/1.1\r\nhost: {address}\r\n\r\n");
            let answer = ask(address, &request).await;
            answer.must_refuse(Reason::MethodNotAllowed);
            assert_eq!(answer.header("allow"), Some("GET, OPTIONS"));
        }
    });
}

/// A request that looks, of whoever shows this token.
fn look(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n")
}

#[test]
fn who_looks_is_asked() {
    let house = House::new();
    with_broker(&house.settings(""), async |broker| {
        let address = broker.public();
        get(address, "/v1/history?topic=a").await.must_refuse(Reason::Unauthenticated);
        let bearer = format!("authorization: Bearer {}\r\n", house.token("ann", 600, &["room.*"]));
        for path in ["/v1/history?topic=room.1", "/v1/snapshot?topic=room.*"] {
            assert_eq!(ask(address, &look(path, &bearer)).await.status, 200);
        }
        for path in
            ["/v1/history?topic=vault", "/v1/snapshot?topic=%3E", "/v1/presence?topic=vault"]
        {
            ask(address, &look(path, &bearer)).await.must_refuse(Reason::NotAllowed);
        }
    });
}

/// Asks so often, each time on a connection of its own. How often was that too often?
async fn refused(broker: &Broker, request: &str, times: usize) -> usize {
    let mut refused = 0;
    for _ in 0..times {
        let answer = ask(broker.public(), request).await;
        if answer.status != 200 {
            answer.must_refuse(Reason::TooOften);
            refused += 1;
        }
    }
    refused
}

const RARE: &str = "limits.publish_rate = 1\nlimits.publish_burst = 3\n";

#[test]
fn who_connects_anew_has_not_asked_less_often() {
    let house = House::new();
    with_broker(&house.settings(RARE), async |broker| {
        let bearer = |subject| {
            format!("authorization: Bearer {}\r\n", house.token(subject, 600, &["room.*"]))
        };
        for path in ["/v1/history?topic=room.1", "/v1/snapshot?topic=room.*"] {
            assert!(refused(broker, &look(path, &bearer("ann")), 100).await > 0, "{path}");
        }
        // There are two shards, and an account on each.
        let bob = look("/v1/history?topic=room.1", &bearer("bob"));
        assert_eq!(refused(broker, &bob, 3).await, 0, "others have accounts of their own");
        // What was too often leaves the connection as it is.
        let mut pipe = Pipe::connect(broker.public()).await;
        let carl = look("/v1/history?topic=room.1", &bearer("carl"));
        pipe.send(carl.repeat(100).as_bytes()).await;
        let mut statuses = Vec::new();
        for _ in 0..100 {
            let answer = Answer::read(&mut pipe).await;
            assert_eq!(answer.header("connection"), None);
            statuses.push(answer.status);
        }
        assert_eq!(statuses[..3], [200; 3], "{statuses:?}");
        assert!(statuses.contains(&429), "{statuses:?}");
    });
}

#[test]
fn who_shows_no_token_is_an_address_and_behind_a_proxy_each_is_their_own() {
    let house = House::new();
    let open = "[auth.anonymous]\nsubscribe = ['>']\npublish = ['>']";
    let trusted = "listen.trusted_proxies = [\"127.0.0.0/8\"]\n";
    let settings = house.settings(&format!("{RARE}{trusted}")) + open;
    with_broker(&settings, async |broker| {
        let ask_for =
            |client: &str| look("/v1/history?topic=a", &format!("x-forwarded-for: {client}\r\n"));
        assert!(refused(broker, &ask_for("198.51.100.1"), 100).await > 0);
        assert_eq!(refused(broker, &ask_for("198.51.100.2"), 3).await, 0);
        assert!(refused(broker, &ask_for("203.0.113.9, 198.51.100.1"), 100).await > 0, "forged");
        let mut statuses = Vec::new();
        for _ in 0..100 {
            let answer = publish(broker.public(), r#"{"topic":"a","data":1}"#).await;
            statuses.push(answer.status);
        }
        assert!(statuses.contains(&429) && statuses.contains(&200), "{statuses:?}");
    });
}

/// Pages of some hundred kibibytes.
const PAGES: &str = "limits.write_stall_max = '2s'\n\
                     topics.rules = [{ filter = 'big', snapshot = 'keys' }]\n";

const PAGE_BYTES: usize = 200 << 10;

async fn fill(broker: &Broker) {
    let mut publisher = Publisher::connect(broker).await;
    for number in 0..8 {
        let key = number.to_string();
        publisher.publish(&json!({"topic": "big", "key": key, "text": "x".repeat(60_000)})).await;
    }
}

/// Asks for a page that is not read.
async fn neglect(broker: &Broker, path: &str) -> Pipe {
    let mut pipe = Pipe::connect_narrow(broker.public()).await;
    pipe.send(look(path, "").as_bytes()).await;
    pipe
}

/// Connections that were ended because nobody read.
async fn ended(broker: &Broker) -> u64 {
    let slow = broker.count("fanfare_closes_total{reason=\"slowConsumer\"}").await;
    slow + broker.count("fanfare_closes_total{reason=\"shed\"}").await
}

#[test]
fn an_answer_that_nobody_reads_counts_as_waiting_and_ends_its_connection() {
    let settings = format!("{PAGES}limits.outbound_total_bytes_max = '64 MiB'");
    with_broker(&settings, async |broker| {
        fill(broker).await;
        let mut pipes = Vec::new();
        for path in ["/v1/history?topic=big", "/v1/snapshot?topic=*"].repeat(3) {
            // Who reads is told everything, and then nothing waits.
            let whole = get(broker.public(), path).await.text().len();
            assert!(whole > PAGE_BYTES, "{whole} bytes");
            pipes.push((whole, neglect(broker, path).await));
        }
        broker.until("fanfare_outbound_bytes", |bytes| bytes > PAGE_BYTES as u64).await;
        broker.until("fanfare_outbound_bytes", |bytes| bytes == 0).await;
        assert_eq!(ended(broker).await, 6);
        for (whole, mut pipe) in pipes {
            let heard = pipe.rest().await.len();
            assert!(heard < whole, "{heard} bytes of {whole}");
        }
    });
}

#[test]
fn who_looks_and_does_not_read_leaves_memory_for_others() {
    let settings = format!("{PAGES}limits.outbound_total_bytes_max = '2 MiB'");
    with_broker(&settings, async |broker| {
        fill(broker).await;
        let mut publisher = Publisher::connect(broker).await;
        let mut early = Pipe::connect(broker.public()).await;
        let mut pipes = Vec::new();
        for _ in 0..10 {
            pipes.push(Pipe::connect_narrow(broker.public()).await);
        }
        // All of them are in before the first asks.
        for pipe in &mut pipes {
            pipe.send(look("/v1/history?topic=none", "").as_bytes()).await;
            assert_eq!(Answer::read(pipe).await.status, 200);
        }
        let mut shed = 0;
        for pipe in &mut pipes {
            pipe.send(look("/v1/history?topic=big", "").as_bytes()).await;
            let head = pipe.take_until(b"\r\n").await.expect("an answer");
            shed += usize::from(head.starts_with(b"HTTP/1.1 503 "));
        }
        assert!((1..9).contains(&shed), "{shed} were refused");
        early.send(look("/v1/snapshot?topic=*", "").as_bytes()).await;
        Answer::read(&mut early).await.must_refuse(Reason::Shed);
        let waiting = broker.count("fanfare_outbound_bytes").await;
        assert!((1 << 20..2 << 20).contains(&waiting), "{waiting} bytes wait");
        // Nobody who was there before pays for it, and in the end nobody at all.
        publisher.publish(&json!({"topic": "small", "data": 1})).await;
        broker.until("fanfare_outbound_bytes", |bytes| bytes == 0).await;
        assert_eq!(ended(broker).await, (10 - shed) as u64);
        let answered =
            async { while get(broker.public(), "/v1/history?topic=small").await.status != 200 {} };
        within("an answer", answered).await;
    });
}
