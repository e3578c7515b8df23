//! The public HTTP side: WebSocket upgrades, publishing, the dashboard.
//! # Invariants: one `match` routes; every refusal is a row of the reason table with its status;
//! after an upgrade nothing of HTTP is left on the connection.
//! # Not here: the WebSocket itself (`ws`), metrics and health (`ops`).

mod assets;
mod entry;
mod ops;
mod publish;

pub use ops::{Ops, serve as serve_ops};

use crate::dialect::{Event, encode, frame};
use crate::listen::Place;
use crate::reason::{Reason, Refusal};
use crate::session::Broker;
use crate::shard::worker::Context;
use crate::topics::message::Wire;
use crate::ws;
use crate::ws::connection::Upgraded;
use crate::ws::handshake::{Policy, Refused, Spoken};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Bytes that a request's head may have; hyper's own default is 400 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What the public side serves, and to whom.
#[derive(Debug)]
pub struct Site {
    /// What all sessions share.
    pub broker: Arc<Broker>,
    /// What the configuration decides about upgrades and pages.
    pub policy: Policy,
    /// How long a request's head, and then its body, may take.
    pub request_timeout: Duration,
}

type Answer = Response<Full<Bytes>>;

/// Serves one connection: requests until it ends or becomes a WebSocket, which is a task of its own,
/// so that the memory of this one is gone. The place is held until the end.
pub async fn serve(context: Rc<Context>, site: Arc<Site>, stream: TcpStream, place: Place) {
    let Some(upgraded) = until_upgrade(&context, &site, stream).await else { return };
    let socket = ws::connection::serve(context, Arc::clone(&site.broker), upgraded, place);
    tokio::task::spawn_local(socket);
}

/// Serves requests. If the last one asked for a WebSocket, that is still to be served.
async fn until_upgrade(
    context: &Rc<Context>,
    site: &Arc<Site>,
    stream: TcpStream,
) -> Option<Upgraded> {
    let upgrade = Rc::new(Cell::new(None));
    let service = service_fn(|request| {
        let (context, site, upgrade) = (Rc::clone(context), Arc::clone(site), Rc::clone(&upgrade));
        async move { Ok::<_, Infallible>(route(request, &context, &site, &upgrade).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(site.request_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .without_shutdown();
    match connection.await {
        Ok(parts) => {
            let (spoken, shown) = upgrade.take()?;
            // Copied: even an empty piece of hyper's buffer would keep all 8 KiB of it.
            let early = parts.read_buf.to_vec();
            Some(Upgraded { stream: parts.io.into_inner(), spoken, early, shown })
        }
        Err(error) => {
            tracing::debug!(%error, "an HTTP connection broke");
            None
        }
    }
}

async fn route(
    request: Request<Incoming>,
    context: &Rc<Context>,
    site: &Site,
    upgrade: &Cell<Option<(Spoken, entry::Shown)>>,
) -> Answer {
    let answered = match (request.method(), request.uri().path()) {
        (_, "/ws") => {
            let judged = entry::upgrade(&request, context, site);
            if let Err(refused) = &judged {
                let reason = refused.refusal.reason;
                context.with(|shard| shard.counters().handshakes_refused.of(reason).increment());
            }
            judged.map(|(accepted, shown)| {
                upgrade.set(Some((accepted.spoken, shown)));
                accepted.response.map(|()| Full::default())
            })
        }
        (&Method::POST, "/v1/publish") => {
            publish::publish(request, context, site).await.map_err(Refused::from)
        }
        (_, "/v1/publish") => Err(Refused {
            refusal: Refusal::new(Reason::MethodNotAllowed, "publishing is POST"),
            headers: &[("allow", "POST")],
        }),
        (&Method::GET | &Method::HEAD, path) => assets::find(path).map_err(Refused::from),
        _ => Err(Refusal::from(Reason::NotFound).into()),
    };
    answered.unwrap_or_else(|refused| {
        context.with(|shard| shard.counters().refusals.of(refused.refusal.reason).increment());
        refuse(&refused)
    })
}

/// The answer to a request that is refused.
fn refuse(refused: &Refused) -> Answer {
    let status = StatusCode::from_u16(refused.refusal.reason.status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(status, error_body(&refused.refusal));
    let headers = answer.headers_mut();
    for (name, value) in refused.headers {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    // Whoever was refused an upgrade may have sent frames behind it: they are not requests.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// What a connection is told that is not taken, for this reason: an HTTP answer, whole.
pub fn turn_away(reason: Reason) -> Vec<u8> {
    let body = error_body(&reason.into());
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// `{"error":{…}}`, as the JSON spelling writes it.
fn error_body(refusal: &Refusal) -> Bytes {
    let event = encode(0, &Event::Error(refusal.clone()), Wire::WebSocketJson);
    frame::body(&event, Wire::WebSocketJson)
}

fn json(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
