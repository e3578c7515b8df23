//! HTTP as a test sees it: a request in bytes, an answer in parts.
//! # Not here: what comes after an upgrade (`socket`).

use crate::pipe::Pipe;
use fanfare::reason::Reason;
use serde_json::Value;
use std::net::SocketAddr;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads an answer, its body by its length.
    pub(crate) async fn read(pipe: &mut Pipe) -> Answer {
        Answer::try_read(pipe).await.expect("an answer before the end")
    }

    /// Reads an answer, unless the peer ends.
    pub(crate) async fn try_read(pipe: &mut Pipe) -> Option<Answer> {
        let head = pipe.take_until(b"\r\n\r\n").await?;
        let head = String::from_utf8(head).expect("a head is ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let header = |line: &str| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let headers = lines.map(header).collect();
        let status = status.parse().expect("a status");
        let mut answer = Answer { status, headers, body: Vec::new() };
        if let Some(length) = answer.header("content-length") {
            answer.body = pipe.take(length.parse().expect("a length")).await?;
        }
        Some(answer)
    }

    /// The only header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "two headers are called {name}: {self:?}");
        value
    }

    /// The body.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a body of text")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    /// The answer must be this refusal, with its status and as JSON. Returns the message.
    pub(crate) fn must_refuse(&self, reason: Reason) -> String {
        assert_eq!(self.status, reason.status(), "{self:?}");
        refusal(&self.json(), reason)
    }
}

/// `{"error":{…}}` must be this refusal. Returns the message.
pub(crate) fn refusal(json: &Value, reason: Reason) -> String {
    let error = &json["error"];
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(1), "{json}");
    assert_eq!(error.as_object().map(serde_json::Map::len), Some(4), "{json}");
    assert_eq!(error["code"], reason.code(), "{json}");
    assert_eq!(error["name"], reason.name(), "{json}");
    assert_eq!(error["retry"], reason.retry().name(), "{json}");
    let message = error["message"].as_str().expect("a message");
    assert!(message.starts_with(reason.sentence()), "{message}");
    message.to_owned()
}

/// Asks on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut pipe = Pipe::connect(address).await;
    pipe.send(request.as_bytes()).await;
    Answer::read(&mut pipe).await
}

/// Gets a path on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
        .await
}

/// The request that publishes this JSON.
pub(crate) fn publish_request(address: SocketAddr, json: &str) -> String {
    let length = json.len();
    format!(
        "POST /v1/publish HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{json}"
    )
}

/// Publishes JSON on a connection of its own.
pub(crate) async fn publish(address: SocketAddr, json: &str) -> Answer {
    ask(address, &publish_request(address, json)).await
}
