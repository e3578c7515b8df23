//! The admin side: metrics and health for everybody who reaches it, and the admin API.
//! # Invariants: it serves no page; a command is the API's.
//! # Not here: what is counted (`metrics`).

use super::admin::Admin;
use super::{Answer, HEAD_BYTES_MAX, refuse};
use crate::listen::pipe::Pipe;
use crate::listen::{Doorway, Places, shake_hands};
use crate::metrics::KeptPage;
use crate::reason::{Reason, Refusal};
use crate::tls::{Credentials, Demand};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What the admin side shows.
#[derive(Debug)]
pub struct Ops {
    /// The numbers.
    pub page: KeptPage,
    /// Whether new connections are welcome.
    pub ready: AtomicBool,
    /// What operators see and do.
    pub admin: Admin,
}

/// Connections at once: a few scrapers and a person.
const CONNECTIONS_MAX: usize = 64;

/// Time for a handshake, and then for each request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves everyone who connects, for ever.
pub async fn serve(ops: Arc<Ops>, mut doorway: Doorway, tls: Option<(Arc<Credentials>, Demand)>) {
    let places = Places::new(CONNECTIONS_MAX);
    loop {
        // Whoever scrapes comes again, if no file is left or no place.
        let (stream, _) = doorway.next(|_, _| ()).await;
        if let Some(place) = places.take() {
            let (ops, tls) = (Arc::clone(&ops), tls.clone());
            tokio::spawn(async move {
                if let Some(pipe) = begin(stream, tls).await {
                    serve_one(ops, pipe).await;
                }
                drop(place);
            });
        }
    }
}

/// Begins TLS, where that is spoken.
async fn begin(stream: TcpStream, tls: Option<(Arc<Credentials>, Demand)>) -> Option<Pipe> {
    let Some((credentials, demand)) = tls else { return Some(stream.into()) };
    let shaken = shake_hands(stream, &credentials, demand);
    timeout(REQUEST_TIMEOUT, shaken).await.ok()?.ok()
}

async fn serve_one(ops: Arc<Ops>, pipe: Pipe) {
    let service = service_fn(|request: Request<Incoming>| {
        let ops = Arc::clone(&ops);
        async move { Ok::<_, Infallible>(route(request, &ops).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(pipe), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection broke");
    }
}

async fn route(request: Request<Incoming>, ops: &Ops) -> Answer {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/metrics" | "/healthz" | "/readyz" if !is_read => {
            refuse(&Refusal::new(Reason::MethodNotAllowed, "this is only read").into())
        }
        "/metrics" => text(
            ops.page.text(ops.admin.broker.clock.now()),
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        "/healthz" => text("ok\n", "text/plain; charset=utf-8"),
        "/readyz" if ops.ready.load(Ordering::Acquire) => {
            text("ready\n", "text/plain; charset=utf-8")
        }
        "/readyz" => refuse(&Refusal::from(Reason::NotReady).into()),
        _ => ops.admin.answer(request).await.unwrap_or_else(|refused| refuse(&refused)),
    }
}

fn text(body: impl Into<Bytes>, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
