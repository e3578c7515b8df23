//! `GET /v1/history`, `/v1/snapshot` and `/v1/presence`.
//! # Not here: what topics keep (`snapshots`, `presence`), pages of other origins (`sse_edge`).

use crate::client::Client;
use crate::events::Events;
use crate::harness::with_broker;
use crate::http::{ask, get};
use crate::identity::House;
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

#[test]
fn who_looks_is_asked_and_may_not_look_too_often() {
    let house = House::new();
    let settings = house.settings("limits.publish_rate = 1\nlimits.publish_burst = 3");
    with_broker(&settings, async |broker| {
        let address = broker.public();
        get(address, "/v1/history?topic=a").await.must_refuse(Reason::Unauthenticated);
        let token = house.token("ann", 600, &["room.*"]);
        let mut pipe = crate::pipe::Pipe::connect(address).await;
        let mut statuses = Vec::new();
        for path in [
            "/v1/history?topic=room.1",
            "/v1/snapshot?topic=room.*",
            "/v1/presence?topic=room.1",
            "/v1/history?topic=room.1",
        ] {
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
            );
            pipe.send(request.as_bytes()).await;
            let answer = crate::http::Answer::read(&mut pipe).await;
            statuses.push(answer.status);
            if answer.status >= 400 {
                pipe = crate::pipe::Pipe::connect(address).await;
            }
        }
        assert_eq!(statuses[..2], [200, 200], "{statuses:?}");
        for path in
            ["/v1/history?topic=vault", "/v1/snapshot?topic=%3E", "/v1/presence?topic=vault"]
        {
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
            );
            ask(address, &request).await.must_refuse(Reason::NotAllowed);
        }
        let mut pipe = crate::pipe::Pipe::connect(address).await;
        let look = format!(
            "GET /v1/history?topic=room.1 HTTP/1.1\r\nhost: {address}\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        pipe.send(look.repeat(4).as_bytes()).await;
        for _ in 0..3 {
            assert_eq!(crate::http::Answer::read(&mut pipe).await.status, 200);
        }
        crate::http::Answer::read(&mut pipe).await.must_refuse(Reason::TooOften);
    });
}
