//! Streams of events as HTTP sees them: methods, versions, bytes behind the request, pages of other
//! origins, what is shared and counted.
//! # Not here: what a stream tells (`sse`), requests that are refused (`corpus`).

use crate::events::{Events, request};
use crate::harness::{Bystander, with_broker};
use crate::http::{Answer, ask, get, publish, publish_request};
use crate::pipe::Pipe;
use crate::publisher::Publisher;
use fanfare::reason::Reason;
use serde_json::json;

#[test]
fn a_stream_begins_with_get_and_in_both_versions_of_http() {
    with_broker("", async |broker| {
        let address = broker.public();
        let mut pipe = Pipe::connect(address).await;
        let head = format!("HEAD /sse?topic=a HTTP/1.1\r\nhost: {address}\r\n\r\n");
        pipe.send(head.as_bytes()).await;
        let answer = String::from_utf8(pipe.rest().await).expect("ASCII");
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        for method in ["POST", "PUT", "DELETE"] {
            let request = format!("{method} /sse?topic=a HTTP/1.1\r\nhost: {address}\r\n\r\n");
            let answer = ask(address, &request).await;
            assert_eq!(answer.status, 405, "{method}: {answer:?}");
            assert_eq!(answer.header("allow"), Some("GET"));
        }
        for version in ["1.0", "1.1"] {
            let mut pipe = Pipe::connect(address).await;
            let line = format!("GET /sse?topic=a HTTP/{version}\r\nhost: {address}\r\n\r\n");
            pipe.send(line.as_bytes()).await;
            let head = Answer::read(&mut pipe).await;
            assert_eq!(head.status, 200, "{head:?}");
            assert_eq!(head.header("connection"), Some("close"), "{head:?}");
            assert_eq!(head.header("content-length"), None, "{head:?}");
            let mut events = Events { pipe, head, last_id: None, retry: None };
            assert!(events.hear().await["connected"].is_object());
        }
    });
}

#[test]
fn a_stream_may_follow_other_requests_on_its_connection() {
    with_broker("", async |broker| {
        let address = broker.public();
        let mut pipe = Pipe::connect(address).await;
        let page = format!("GET /uplot.js HTTP/1.1\r\nhost: {address}\r\n\r\n");
        // Together, so that the answer to the first is still on its way.
        let together = format!("{page}{page}{}", request(address, "topic=a", ""));
        pipe.send(together.as_bytes()).await;
        for _ in 0..2 {
            let answer = Answer::read(&mut pipe).await;
            assert_eq!(
                answer.text().len(),
                include_str!("../../src/http/assets/vendor/uplot.js").len()
            );
        }
        let head = Answer::read(&mut pipe).await;
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let mut events = Events { pipe, head, last_id: None, retry: None };
        assert!(events.hear().await["connected"].is_object());
        assert!(events.answer(1).await["subscribed"].is_object());
    });
}

#[test]
fn what_a_peer_says_behind_its_request_is_not_heard_and_soon_too_much() {
    with_broker("", async |broker| {
        let address = broker.public();
        let mut bystander = Bystander::join(broker).await;
        let mut pipe = Pipe::connect(address).await;
        let hidden = publish_request(address, r#"{"topic":"hidden","data":1}"#);
        let together = format!("{}{hidden}", request(address, "topic=hidden&topic=seen", ""));
        pipe.send(together.as_bytes()).await;
        let head = Answer::read(&mut pipe).await;
        let mut events = Events { pipe, head, last_id: None, retry: None };
        assert!(events.hear().await["connected"].is_object());
        events.answer(1).await;
        events.answer(2).await;
        events.pipe.send(hidden.as_bytes()).await;
        publish(address, r#"{"topic":"seen","data":1}"#).await;
        assert_eq!(events.message().await["topic"], "seen");
        events.pipe.send(&vec![b'x'; 17 << 10]).await;
        events.must_end("badRequest").await;
        bystander.is_fine().await;
    });
}

#[test]
fn a_peer_that_ends_is_forgotten() {
    with_broker("", async |broker| {
        let series = |wire| format!("fanfare_connections{{wire=\"{wire}\"}}");
        let one = Events::begin(broker, "topic=a").await;
        let many = Events::begin(broker, "topic=a.*").await;
        assert_eq!(broker.count(&series("sse_topic")).await, 1);
        assert_eq!(broker.count(&series("sse_topics")).await, 1);
        drop(one);
        many.pipe.reset();
        broker.until(&series("sse_topic"), |count| count == 0).await;
        broker.until(&series("sse_topics"), |count| count == 0).await;
        assert_eq!(broker.count("fanfare_subscriptions{target=\"topic\"}").await, 0);
    });
}

#[test]
fn a_message_is_encoded_once_for_all_streams_of_a_kind() {
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let mut readers = Vec::new();
        for query in ["topic=a", "topic=a&topic=b", "topic=*"] {
            for _ in 0..10 {
                let mut events = Events::begin(broker, query).await;
                for _ in query.split('&') {
                    assert!(events.hear().await["subscribed"].is_object());
                }
                readers.push(events);
            }
        }
        publisher.publish(&json!({"topic": "a", "data": 1})).await;
        for events in &mut readers {
            assert_eq!(events.message().await["data"], 1);
        }
        for wire in ["sse_topic", "sse_topics"] {
            let encodes = broker.count(&format!("fanfare_encodes_total{{wire=\"{wire}\"}}")).await;
            assert_eq!(encodes, 1, "{wire}");
        }
    });
}

#[test]
fn line_breaks_of_a_publisher_break_no_event() {
    with_broker("", async |broker| {
        let mut events = Events::begin(broker, "topic=a").await;
        events.answer(1).await;
        let spelled = "{\"topic\":\"a\",\"data\":{\"x\":\r\n[1,\n\n2],\"id: 7\":\"\\n\\n\"}}";
        publish(broker.public(), spelled).await;
        let text = json!({"topic": "a", "text": "one\n\ntwo\r\rdata: x\u{2028}", "key": "k\n\n"});
        publish(broker.public(), &text.to_string()).await;
        assert_eq!(events.message().await["data"], json!({"x": [1, 2], "id: 7": "\n\n"}));
        let message = events.message().await;
        assert_eq!((&message["text"], &message["key"]), (&text["text"], &text["key"]));
    });
}

#[test]
fn pages_of_listed_origins_may_use_it_and_no_others() {
    const LISTED: &str = "https://app.example";
    let settings = format!("websocket.origins = ['{LISTED}']");
    with_broker(&settings, async |broker| {
        let address = broker.public();
        let header = |origin: &str| format!("origin: {origin}\r\n");
        let mut pipe = Pipe::connect(address).await;
        pipe.send(request(address, "topic=a", &header(LISTED)).as_bytes()).await;
        let head = Answer::read(&mut pipe).await;
        assert_eq!(head.header("access-control-allow-origin"), Some(LISTED));
        assert_eq!(head.header("vary"), Some("origin"));
        assert_eq!(head.header("access-control-allow-credentials"), None);
        let foreign =
            ask(address, &request(address, "topic=a", &header("https://evil.example"))).await;
        foreign.must_refuse(Reason::BadOrigin);
        assert_eq!(foreign.header("access-control-allow-origin"), None);
        // A page that may ask is told why it was refused.
        let refused = ask(address, &request(address, "topc=a", &header(LISTED))).await;
        refused.must_refuse(Reason::BadRequest);
        assert_eq!(refused.header("access-control-allow-origin"), Some(LISTED));
        let paths = ["/sse", "/v1/publish", "/v1/history", "/v1/snapshot", "/v1/presence"];
        for path in paths {
            let asking = |origin: &str| {
                format!(
                    "OPTIONS {path} HTTP/1.1\r\nhost: {address}\r\n{}\
                     access-control-request-method: GET\r\n\r\n",
                    header(origin)
                )
            };
            let answer = ask(address, &asking(LISTED)).await;
            assert_eq!(answer.status, 204, "{path}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(LISTED));
            let method = if path == "/v1/publish" { "POST" } else { "GET" };
            assert_eq!(answer.header("access-control-allow-methods"), Some(method));
            let allowed = answer.header("access-control-allow-headers").expect("headers");
            assert!(allowed.contains("authorization") && allowed.contains("last-event-id"));
            ask(address, &asking("https://evil.example")).await.must_refuse(Reason::BadOrigin);
        }
        assert_eq!(get(address, "/").await.header("access-control-allow-origin"), None);
    });
}
