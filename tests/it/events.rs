//! A reader of server-sent events, as the HTML standard wants one.
//! # Invariants: an event counts when the empty line behind it has come, its id with it; every line of
//! a stream is one of a known field.
//! # Not here: what a test expects to be told (`sse`).

use crate::harness::Broker;
use crate::http::Answer;
use crate::pipe::Pipe;
use serde_json::Value;
use std::net::SocketAddr;

/// The bytes between two events.
const END: &[u8] = b"\n\n";

/// A stream that has begun.
pub(crate) struct Events {
    pub(crate) pipe: Pipe,
    /// The head of the answer.
    pub(crate) head: Answer,
    /// The id of the last event.
    pub(crate) last_id: Option<String>,
    /// What the server asked to wait before the next connection, in milliseconds.
    pub(crate) retry: Option<u64>,
}

/// The request for a stream, with further headers.
pub(crate) fn request(address: SocketAddr, query: &str, headers: &str) -> String {
    format!(
        "GET /sse?{query} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n{headers}\r\n"
    )
}

impl Events {
    /// Begins a stream.
    pub(crate) async fn begin(broker: &Broker, query: &str) -> Events {
        Events::resume(broker, query, None).await
    }

    /// Begins a stream again, as a browser does.
    pub(crate) async fn resume(broker: &Broker, query: &str, last_id: Option<&str>) -> Events {
        let pipe = Pipe::connect(broker.public()).await;
        Events::over(broker, pipe, query, last_id).await
    }

    /// Begins a stream on a connection that is there.
    pub(crate) async fn over(
        broker: &Broker,
        mut pipe: Pipe,
        query: &str,
        last_id: Option<&str>,
    ) -> Events {
        let header = last_id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        pipe.send(request(broker.public(), query, &header).as_bytes()).await;
        let head = Answer::read(&mut pipe).await;
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let last_id = last_id.map(str::to_owned);
        let mut events = Events { pipe, head, last_id, retry: None };
        let hello = events.hear().await;
        assert!(hello["connected"]["connection"].is_string(), "{hello}");
        events
    }

    /// The next event.
    pub(crate) async fn hear(&mut self) -> Value {
        self.try_hear().await.expect("an event before the end")
    }

    /// The next event, unless the stream ends. What has not come whole by then does not count.
    pub(crate) async fn try_hear(&mut self) -> Option<Value> {
        let block = self.pipe.take_until(END).await?;
        Some(self.understand(&block))
    }

    /// The answer to the topic at this place of the query.
    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        let answer = self.hear().await;
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Value {
        loop {
            let event = self.hear().await;
            if event["message"].is_object() {
                return event["message"].clone();
            }
            assert!(event["position"].is_object(), "{event}");
        }
    }

    /// The stream must end with this reason, and without another byte.
    pub(crate) async fn must_end(&mut self, name: &str) {
        let event = self.hear().await;
        assert_eq!(event["error"]["name"], name, "{event}");
        assert_eq!(event.get("id"), None, "{event}");
        self.pipe.end().await;
    }

    fn understand(&mut self, block: &[u8]) -> Value {
        let block = std::str::from_utf8(block).expect("a stream is UTF-8");
        let (mut id, mut data) = (None, Vec::new());
        for line in block.trim_end().lines() {
            match line.split_once(": ").expect("a field") {
                ("id", value) => assert_eq!(id.replace(value.to_owned()), None, "{block}"),
                ("data", value) => data.push(value),
                ("retry", value) => self.retry = Some(value.parse().expect("a number")),
                _ => panic!("{line}"),
            }
        }
        self.last_id = id.or(self.last_id.take());
        serde_json::from_str(&data.join("\n")).expect("JSON")
    }
}
