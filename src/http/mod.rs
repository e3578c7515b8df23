//! The public HTTP side: WebSocket upgrades, publishing, the dashboard.
//! # Invariants: one `match` routes; every refusal is a row of the reason table with its status;
//! after an upgrade nothing of HTTP is left on the connection.
//! # Not here: the WebSocket itself (`ws`), metrics and health (`ops`).

pub mod admin;
mod assets;
mod body;
mod entry;
mod ops;
mod publish;

pub use ops::{Ops, serve as serve_ops};

use crate::dialect::{Event, encode, frame};
use crate::limits::usage::Usage;
use crate::listen::gate::{Held, Pending};
use crate::listen::pipe::Pipe;
use crate::listen::{Arrival, Gate, Ticket, count_refusal, hops};
use crate::reason::{Reason, Refusal};
use crate::session::Broker;
use crate::shard::conduit::More;
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
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

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
    /// Whose word about their clients counts, and how often those may come.
    pub gate: Arc<Gate>,
}

/// One connection as its requests see it.
struct Guest {
    context: Rc<Context>,
    site: Arc<Site>,
    /// The address at its other end: a proxy's, perhaps.
    peer: IpAddr,
    /// Who it is, as far as the connection itself tells.
    client: IpAddr,
    /// Held until its first request has been answered.
    pending: Cell<Option<Pending>>,
    /// What it has used up of its rates.
    usage: RefCell<Usage>,
    /// What becomes of it.
    upgrade: Cell<Option<Upgrade>>,
}

/// An upgrade that was accepted.
struct Upgrade {
    spoken: Spoken,
    /// Who showed a token.
    shown: entry::Shown,
    /// Who is behind the proxy that asked for it.
    client: Option<IpAddr>,
    /// One connection of that client.
    held: Option<Held>,
}

type Answer = Response<Full<Bytes>>;

/// Serves one connection: requests until it ends or becomes a WebSocket, which is a task of its own,
/// so that the memory of this one is gone. The place is held until the end.
pub async fn serve(context: Rc<Context>, site: Arc<Site>, arrival: Arrival) {
    let Arrival { pipe, peer, ticket: Ticket { place, pending, client, held } } = arrival;
    let until = pending.until;
    let guest = Rc::new(Guest {
        context,
        site,
        peer,
        client,
        pending: Cell::new(Some(pending)),
        usage: RefCell::default(),
        upgrade: Cell::new(None),
    });
    let upgraded = tokio::select! {
        upgraded = until_upgrade(&guest, pipe, held) => upgraded,
        () = too_late(&guest, until) => None,
    };
    let Some(upgraded) = upgraded else { return };
    let (context, broker) = (Rc::clone(&guest.context), Arc::clone(&guest.site.broker));
    tokio::task::spawn_local(ws::connection::serve(context, broker, upgraded, place));
}

/// Returns when the first request should have been there, and is not.
async fn too_late(guest: &Guest, until: Duration) {
    tokio::time::sleep(until.saturating_sub(guest.context.now().uptime)).await;
    if guest.pending.take().is_none() {
        std::future::pending::<()>().await;
    }
    count_refusal(&guest.context, Reason::TooLate);
}

/// Serves requests. If the last one asked for a WebSocket, that is still to be served.
async fn until_upgrade(guest: &Rc<Guest>, pipe: Pipe, held: Option<Held>) -> Option<Upgraded> {
    let service = service_fn(|request| {
        let guest = Rc::clone(guest);
        async move {
            let answer = route(request, &guest).await;
            guest.pending.take();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(guest.site.request_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(pipe), service)
        .without_shutdown();
    let begun = guest.context.now().uptime;
    let ended = connection.await;
    // A head that does not come ends the connection without a word of why.
    let took = guest.context.now().uptime.saturating_sub(begun);
    if guest.pending.take().is_some() && took >= guest.site.request_timeout {
        count_refusal(&guest.context, Reason::TooLate);
    }
    let parts = match ended {
        Ok(parts) => parts,
        Err(error) => {
            tracing::debug!(%error, "an HTTP connection broke");
            return None;
        }
    };
    let mut pipe = parts.io.into_inner();
    let Some(upgrade) = guest.upgrade.take() else {
        pipe.farewell();
        return None;
    };
    let Upgrade { spoken, shown, client, held: behind } = upgrade;
    let held = behind.or(held).map(|held| Box::new(held) as Box<dyn Any>);
    let (socket, unread) = pipe.into_conduit(More { channel: None, client, held });
    // Copied: even an empty piece of hyper's buffer would keep all 8 KiB of it.
    let early = [&parts.read_buf[..], &unread].concat();
    Some(Upgraded { socket, spoken, early, shown })
}

/// Decides about a request for a WebSocket, whose client may be behind a proxy.
fn welcome(request: &Request<Incoming>, guest: &Guest) -> Result<(Upgrade, Answer), Refused> {
    let site = &guest.site;
    let (accepted, shown) = entry::upgrade(request, &guest.context, site)?;
    let forwarded = request.headers().get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
    let client = hops::client(guest.client, forwarded, &site.gate.options().trusted);
    let held = if client == guest.client {
        None
    } else {
        let admitted = site.gate.admit(client, guest.context.now().uptime);
        admitted.map_err(|reason| Refused::from(Refusal::from(reason)))?
    };
    let behind = (client != guest.peer).then_some(client);
    let upgrade = Upgrade { spoken: accepted.spoken, shown, client: behind, held };
    Ok((upgrade, accepted.response.map(|()| Full::default())))
}

async fn route(request: Request<Incoming>, guest: &Guest) -> Answer {
    let Guest { context, site, .. } = guest;
    let answered = match (request.method(), request.uri().path()) {
        (_, "/ws") => {
            let welcome = welcome(&request, guest);
            if let Err(refused) = &welcome {
                let reason = refused.refusal.reason;
                context.with(|shard| shard.counters().handshakes_refused.of(reason).increment());
            }
            welcome.map(|(upgrade, answer)| {
                guest.upgrade.set(Some(upgrade));
                answer
            })
        }
        (&Method::POST, "/v1/publish") => {
            publish::publish(request, &guest.usage, context, site).await.map_err(Refused::from)
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
