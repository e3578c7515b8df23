//! `POST /v1/publish` and the other paths of the public side.
//! # Not here: upgrades (`edge`), the admin side (`ops`).

use crate::client::Client;
use crate::harness::{Broker, Bystander, with_broker};
use crate::http::{self, Answer, get, publish, publish_request, refusal};
use crate::pipe::Pipe;
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

async fn subscriber(broker: &Broker, topic: &str) -> Client {
    let mut client = Client::connect(broker, Wire::WebSocketJson).await;
    client.ask(&json!({"id": 1, "subscribe": {"topic": topic}})).await;
    client
}

/// The answer must be a position. Returns its offset.
fn offset(json: &Value) -> u64 {
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(3), "{json}");
    assert_eq!(json["epoch"].as_str().map(str::len), Some(22), "{json}");
    assert_eq!(json["durability"], "memory", "{json}");
    json["offset"].as_u64().expect("an offset")
}

#[test]
fn one_message_is_published_and_answered_with_its_position() {
    with_broker("", async |broker| {
        let mut subscriber = subscriber(broker, "t").await;
        let cases = [
            (r#"{"topic":"t","data":{"x":[1,2]}}"#, json!({"data": {"x": [1, 2]}})),
            (r#"{"topic":"t","text":"ä"}"#, json!({"text": "ä"})),
            (r#"{"topic":"t","base64":"AP8="}"#, json!({"base64": "AP8="})),
            (r#"  {"key":"k","data":null,"topic":"t"}  "#, json!({"data": null, "key": "k"})),
        ];
        for (index, (body, expected)) in cases.into_iter().enumerate() {
            let answer = publish(broker.public(), body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(offset(&answer.json()), index as u64 + 1);
            let event = subscriber.hear().await;
            for (name, value) in expected.as_object().expect("fields") {
                assert_eq!(event["message"][name], *value, "{event}");
            }
        }
    });
}

#[test]
fn a_list_is_answered_message_by_message() {
    with_broker("", async |broker| {
        let mut subscriber = subscriber(broker, "t").await;
        let body = r#"[{"topic":"t","text":"1"},{"topic":""},{"topic":"t"},5,
            {"topic":"t","text":"2","key":"k"},{"topic":"u","text":"3"}]"#;
        let answer = publish(broker.public(), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let list = answer.json();
        assert_eq!(list.as_array().map(Vec::len), Some(6), "{list}");
        assert_eq!(offset(&list[0]), 1);
        refusal(&list[1], Reason::BadTopic);
        refusal(&list[2], Reason::BadPayload);
        refusal(&list[3], Reason::BadCommand);
        assert_eq!(offset(&list[4]), 2);
        assert_eq!(offset(&list[5]), 1);
        for text in ["1", "2"] {
            assert_eq!(subscriber.hear().await["message"]["text"], text);
        }
        assert_eq!(publish(broker.public(), "[]").await.json(), json!([]));
        assert_eq!(broker.count("fanfare_refusals_total{reason=\"badTopic\"}").await, 1);
    });
}

#[test]
fn a_retry_with_its_key_gets_the_first_answer_whatever_way_it_takes() {
    with_broker("", async |broker| {
        let body = r#"{"topic":"t","data":1,"idempotencyKey":"k"}"#;
        let first = publish(broker.public(), body).await.json();
        assert_eq!(publish(broker.public(), body).await.json(), first);
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        let command =
            json!({"id": 1, "publish": serde_json::from_str::<Value>(body).expect("JSON")});
        assert_eq!(client.ask(&command).await["published"], first);
        let other =
            publish(broker.public(), r#"{"topic":"t","data":2,"idempotencyKey":"k"}"#).await;
        other.must_refuse(Reason::IdempotencyMismatch);
        let next = publish(broker.public(), r#"{"topic":"t","data":2}"#).await;
        assert_eq!(offset(&next.json()), 2);
    });
}

#[test]
fn a_body_that_is_not_a_message_is_refused() {
    with_broker("limits.message_bytes_max = 1000", async |broker| {
        let big = format!(r#"{{"topic":"t","text":"{}"}}"#, "x".repeat(1001));
        let fits = format!(r#"{{"topic":"t","text":"{}"}}"#, "x".repeat(1000));
        let with_key = format!(r#"{{"topic":"t","key":"k","text":"{}"}}"#, "x".repeat(1000));
        let long_list = format!("[{}1]", "1,".repeat(1000));
        let cases = [
            ("", Reason::BadCommand),
            ("hello", Reason::BadCommand),
            ("5", Reason::BadCommand),
            ("{\"topic\":\"t\",\"text\":\"x\"", Reason::BadCommand),
            ("{\"topic\":\"t\",\"text\":\"x\"} x", Reason::BadCommand),
            ("[{\"topic\":\"t\",\"text\":\"x\"}", Reason::BadRequest),
            ("[1,]", Reason::BadRequest),
            ("{}", Reason::BadTopic),
            (r#"{"topic":"a.*","text":""}"#, Reason::BadTopic),
            (r#"{"topic":"a"}"#, Reason::BadPayload),
            (&big, Reason::TooLarge),
            (&with_key, Reason::TooLarge),
            (&long_list, Reason::TooLarge),
        ];
        for (body, reason) in cases {
            println!("{}", body.get(..50).unwrap_or(body));
            publish(broker.public(), body).await.must_refuse(reason);
        }
        assert_eq!(offset(&publish(broker.public(), &fits).await.json()), 1);
        let mut pipe = Pipe::connect(broker.public()).await;
        let request = publish_request(broker.public(), "{\"topic\":\"t\",\"text\":\"xx\"}");
        let mut bytes = request.into_bytes();
        let at = bytes.len() - 4;
        bytes[at] = 0xFF;
        pipe.send(&bytes).await;
        Answer::read(&mut pipe).await.must_refuse(Reason::BadRequest);
        assert_eq!(broker.count("fanfare_published_total").await, 1);
    });
}

#[test]
fn a_body_over_the_limit_is_refused_whether_or_not_it_says_its_length() {
    with_broker("limits.http_body_bytes_max = \"70 KiB\"", async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let body = format!("[{}]", " ".repeat(70 << 10));
        let mut declared = Pipe::connect(broker.public()).await;
        declared.try_send(publish_request(broker.public(), &body).as_bytes()).await;
        Answer::read(&mut declared).await.must_refuse(Reason::TooLarge);
        let mut chunked = Pipe::connect(broker.public()).await;
        let head = "POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
        chunked.try_send((head.to_owned() + &chunk.repeat(18)).as_bytes()).await;
        Answer::read(&mut chunked).await.must_refuse(Reason::TooLarge);
        bystander.is_fine().await;
    });
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    with_broker("limits.handshake_timeout = \"200ms\"", async |broker| {
        let mut pipe = Pipe::connect(broker.public()).await;
        let request = publish_request(broker.public(), r#"{"topic":"t","text":"x"}"#);
        pipe.send(&request.as_bytes()[..request.len() - 1]).await;
        Answer::read(&mut pipe).await.must_refuse(Reason::BadRequest);
        pipe.end().await;
    });
}

/// A publish request with one thing changed.
async fn changed(broker: &Broker, from: &str, to: &str) -> Answer {
    let request = publish_request(broker.public(), r#"{"topic":"t","text":"x"}"#);
    assert!(request.contains(from), "{request}");
    http::ask(broker.public(), &request.replacen(from, to, 1)).await
}

#[test]
fn only_a_post_of_json_from_nowhere_or_from_here_publishes() {
    with_broker("websocket.origins = [\"https://app.example\"]", async |broker| {
        let kind = "content-type: application/json";
        for other in ["", "content-type: text/plain", "content-type: application/jsonx", "x: y"] {
            let line = if other.is_empty() { String::new() } else { format!("{other}\r\n") };
            let answer = changed(broker, &format!("{kind}\r\n"), &line).await;
            answer.must_refuse(Reason::BadContentType);
        }
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            let answer = changed(broker, "POST", method).await;
            answer.must_refuse(Reason::MethodNotAllowed);
            assert_eq!(answer.header("allow"), Some("POST"));
        }
        for origin in ["https://evil.example", "null", "http://app.example"] {
            let line = format!("{kind}\r\norigin: {origin}");
            changed(broker, kind, &line).await.must_refuse(Reason::BadOrigin);
        }
        assert_eq!(broker.count("fanfare_published_total").await, 0);

        let own = format!("{kind}\r\norigin: http://{}", broker.public());
        let allowed = format!("{kind}\r\norigin: https://app.example");
        let spelled = "Content-Type: Application/JSON; charset=utf-8";
        for line in [own.as_str(), &allowed, spelled] {
            assert_eq!(changed(broker, kind, line).await.status, 200, "{line}");
        }
    });
}

#[test]
fn other_paths_are_not_there() {
    with_broker("", async |broker| {
        let address = broker.public();
        for path in
            ["/v1/publis", "/v1", "/ws/", "/metrics", "/healthz", "/../etc/passwd", "/%2e%2e/"]
        {
            println!("{path}");
            get(address, path).await.must_refuse(Reason::NotFound);
            changed(broker, "/v1/publish", path).await.must_refuse(Reason::NotFound);
        }
        let page = get(address, "/").await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
        changed(broker, "/v1/publish", "/").await.must_refuse(Reason::NotFound);
    });
}

#[test]
fn requests_may_follow_each_other_on_one_connection() {
    with_broker("", async |broker| {
        let address = broker.public();
        let body = |n| format!(r#"{{"topic":"t","data":{n}}}"#);
        let mut pipe = Pipe::connect(address).await;
        for n in 1..=5 {
            pipe.send(publish_request(address, &body(n)).as_bytes()).await;
            assert_eq!(offset(&Answer::read(&mut pipe).await.json()), n);
        }
        // Also without waiting for the answers.
        let requests: Vec<_> = (6..=50).map(|n| publish_request(address, &body(n))).collect();
        pipe.send(requests.concat().as_bytes()).await;
        for n in 6..=50 {
            assert_eq!(offset(&Answer::read(&mut pipe).await.json()), n);
        }
        // And a WebSocket after that.
        pipe.send(crate::socket::request(address, "").as_bytes()).await;
        crate::socket::must_accept(&Answer::read(&mut pipe).await, None);
        let mut client = Client::of(crate::socket::Socket::new(pipe), Wire::WebSocketJson);
        let page = client.ask(&json!({"id": 1, "history": {"topic": "t"}})).await;
        assert_eq!(page["historyPage"]["messages"].as_array().map(Vec::len), Some(50));
    });
}
