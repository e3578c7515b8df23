//! HTTP as a client: the requests of the publish API, and the one that begins a WebSocket.
//! Owns the reading of answers, which are positions or refusals.
//! # Invariants: requests follow one another on one connection; an answer's body is bounded.
//! The first command, `connect`, is answered here, because HTTP has none.
//! # Not here: the WebSocket that follows (`websocket`).

use super::tls::{Duplex, Stream};
use super::{Fault, json};
use crate::client::endpoint::Endpoint;
use crate::dialect::Token;
use crate::dialect::schema::{self, command::Action, event::Body};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, http};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

/// Longest body of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Answers that wait to be looked at; whoever sends waits for them to be taken.
const ANSWERS_MAX: usize = 16;

/// Sends requests, one after another.
pub(crate) struct Sender {
    requests: SendRequest<Full<Bytes>>,
    authority: String,
    path: String,
    token: Option<Token>,
    answers: mpsc::Sender<schema::Event>,
}

/// Hands out the answers as the events that a stream would have brought.
pub(crate) struct Receiver(mpsc::Receiver<schema::Event>);

/// Makes the two halves of a connection to the publish API.
pub(super) async fn begin(
    endpoint: &Endpoint,
    stream: Stream,
    token: Option<&Token>,
) -> Result<(Sender, Receiver), Fault> {
    let (answers, inbox) = mpsc::channel(ANSWERS_MAX);
    let sender = Sender {
        requests: speak(stream).await?,
        authority: endpoint.authority(),
        path: endpoint.path.clone(),
        token: token.cloned(),
        answers,
    };
    Ok((sender, Receiver(inbox)))
}

/// Begins to speak HTTP/1.1 on a connection.
pub(super) async fn speak(
    stream: impl Duplex + 'static,
) -> Result<SendRequest<Full<Bytes>>, Fault> {
    let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // What ends it is told to the request that waits.
    tokio::spawn(async move { connection.with_upgrades().await.unwrap_or_default() });
    Ok(requests)
}

/// The beginning of every request.
pub(super) fn request(
    authority: &str,
    path: &str,
    token: Option<&Token>,
) -> http::request::Builder {
    let request = Request::builder().uri(path).header(HOST, authority);
    let request = request.header(USER_AGENT, crate::dialect::SERVER);
    match token {
        Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.reveal())),
        None => request,
    }
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn send(
    requests: &mut SendRequest<Full<Bytes>>,
    request: Result<Request<Full<Bytes>>, http::Error>,
) -> Result<Response<Incoming>, Fault> {
    let request = request.map_err(|error| Fault::Malformed(error.to_string()))?;
    requests.ready().await.map_err(lost)?;
    requests.send_request(request).await.map_err(lost)
}

/// Asks for a page: the status and the text of the answer.
#[cfg(feature = "server")]
pub(super) async fn get(
    page: &Endpoint,
    stream: Stream,
    token: Option<&Token>,
) -> Result<(u16, String), Fault> {
    let request = request(&page.authority(), &page.path, token).body(Full::default());
    let response = send(&mut speak(stream).await?, request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Fault::Lost(error.to_string()))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// What an answer says: a position, or the refusal that its status stands for.
pub(super) async fn read(response: Response<Incoming>) -> Result<Body, Fault> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Fault::Lost(error.to_string()))?.to_bytes();
    match json::decode_answer(&body) {
        Some(body) => Ok(body),
        None => Err(Fault::Malformed(format!("an HTTP answer with status {status}"))),
    }
}

impl Sender {
    pub(super) async fn send(&mut self, command: schema::Command) -> Result<(), Fault> {
        let body = match &command.action {
            Some(Action::Publish(publish)) => Some(self.publish(publish).await?),
            // Nobody promises to speak unasked.
            Some(Action::Connect(_)) => Some(Body::Connected(schema::Connected {
                server: "HTTP".to_owned(),
                ping_ms: u32::MAX,
                ..Default::default()
            })),
            _ => Some(Body::Error(publish_only())),
        };
        let event = schema::Event { id: command.id, body };
        self.answers.send(event).await.map_err(|_| Fault::Ended)
    }

    async fn publish(&mut self, publish: &schema::Publish) -> Result<Body, Fault> {
        let body = Full::new(Bytes::from(json::encode_publish(publish)?));
        let request = request(&self.authority, &self.path, self.token.as_ref())
            .method(Method::POST)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let response = send(&mut self.requests, request).await?;
        read(response).await
    }
}

fn publish_only() -> schema::Error {
    schema::Error {
        code: 0,
        name: "publishOnly".to_owned(),
        retry: schema::Retry::Never.into(),
        message: "HTTP carries messages to publish and nothing else".to_owned(),
    }
}

impl Receiver {
    pub(super) async fn next(&mut self) -> Result<schema::Event, Fault> {
        self.0.recv().await.ok_or(Fault::Ended)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn lost(error: hyper::Error) -> Fault {
    Fault::Lost(error.to_string())
}
