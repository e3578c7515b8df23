//! The public HTTP side: WebSocket upgrades, streams of events, publishing, looking, the dashboard.
//! # Invariants: one `match` routes; every refusal is a row of the reason table with its status;
//! after an upgrade or the beginning of a stream nothing of HTTP is left on the connection.
//! # Not here: the WebSocket itself (`ws`), metrics and health (`ops`).

pub mod admin;
mod assets;
mod body;
mod cors;
mod entry;
mod look;
mod ops;
mod outlet;
mod publish;
mod sse;
mod waiting;

pub use ops::{Ops, serve as serve_ops};

use admin::Window;

use crate::auth::Identity;
use crate::dialect::{Event, encode, frame};
use crate::limits::accounts::Holder;
use crate::listen::gate::{Held, Pending};
use crate::listen::pipe::Pipe;
use crate::listen::rate::Origin;
use crate::listen::{Arrival, Gate, Ticket, count_refusal, hops};
use crate::reason::{Reason, Refusal};
use crate::session::Broker;
use crate::shard::conduit::{Conduit, More};
use crate::shard::worker::Context;
use crate::topics::message::Wire;
use crate::ws;
use crate::ws::connection::Upgraded;
use crate::ws::handshake::{Policy, Refused, Spoken};
use crate::ws::origin;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use look::{Sight, look};
use outlet::{Backlog, Outlet, Patience};
use std::any::Any;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Bytes that a request's head may have; hyper's own default is 400 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Paths that pages of other origins may use, and how.
const OPEN: [(&str, &str); 5] = [
    ("/sse", "GET"),
    ("/v1/publish", "POST"),
    ("/v1/history", "GET"),
    ("/v1/snapshot", "GET"),
    ("/v1/presence", "GET"),
];

/// What the public side serves, and to whom.
#[derive(Debug)]
pub struct Site {
    /// What all sessions share.
    pub broker: Arc<Broker>,
    /// What the configuration decides about upgrades and pages.
    pub policy: Policy,
    /// How long a request's head, and then its body, may take.
    pub request_timeout: Duration,
    /// How long an answer waits for a reader who takes nothing of it.
    pub write_stall_max: Duration,
    /// Whose word about their clients counts, and how often those may come.
    pub gate: Arc<Gate>,
    /// What of the admin API is shown here.
    pub window: Arc<Window>,
    /// The address of a listener on loopback before which no proxy is trusted.
    pub alone: Option<IpAddr>,
}

impl Site {
    /// Refuses what calls a broker by a name of somebody else, if it asks nobody who they are because
    /// only this machine reaches it: pages under names that lead here would be its own (DNS rebinding).
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self.alone {
            Some(own) if self.broker.guard.authority().is_open() => {
                let named = self.policy.origins.iter().any(|origin| origin.names_host(headers));
                match origin::check_host(headers, &[own]) {
                    Err(refusal) if refusal.reason == Reason::BadHost && !named => Err(refusal),
                    // No page leaves it out.
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
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
    /// What becomes of it.
    upgrade: Cell<Option<Upgrade>>,
    /// A stream has begun, whose answer is not one of HTTP's.
    is_taken: Cell<bool>,
}

impl Guest {
    /// Who asks, who may be behind a proxy.
    fn behind<B>(&self, request: &Request<B>) -> IpAddr {
        let forwarded = request.headers().get_all("x-forwarded-for").iter();
        let forwarded = forwarded.map(HeaderValue::as_bytes);
        hops::client(self.client, forwarded, &self.site.gate.options().trusted)
    }

    /// Whose rates a request uses up: those of whoever showed a token, on whatever connection and from
    /// wherever, and else those of an address.
    fn holder<B>(&self, request: &Request<B>, identity: Option<&Identity>) -> Holder {
        let subject = identity.map(|identity| &*identity.subject).filter(|it| !it.is_empty());
        let who = match subject {
            Some(subject) => Who::Subject(subject),
            None => Who::Address(self.behind(request).into()),
        };
        self.context.accounts().holder(&who)
    }
}

/// Who has an account.
#[derive(Hash)]
enum Who<'a> {
    Subject(&'a str),
    Address(Origin),
}

/// What leaves HTTP behind, and was accepted.
struct Upgrade {
    kind: Kind,
    /// Who is behind the proxy that asked for it.
    client: Option<IpAddr>,
    /// One connection of that client.
    held: Option<Held>,
}

enum Kind {
    /// What is spoken, and who showed a token.
    WebSocket(Spoken, entry::Shown),
    Stream(Box<sse::Accepted>),
}

/// A connection that is HTTP no more.
enum Freed {
    WebSocket(Upgraded),
    /// With its socket, and how much was read behind the request.
    Stream(Box<sse::Accepted>, (Conduit, usize)),
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
        upgrade: Cell::new(None),
        is_taken: Cell::new(false),
    });
    let upgraded = tokio::select! {
        upgraded = until_upgrade(&guest, pipe, held) => upgraded,
        () = too_late(&guest, until) => None,
    };
    let (context, broker) = (Rc::clone(&guest.context), Arc::clone(&guest.site.broker));
    match upgraded {
        None => {}
        Some(Freed::WebSocket(upgraded)) => {
            tokio::task::spawn_local(ws::connection::serve(context, broker, upgraded, place));
        }
        Some(Freed::Stream(accepted, socket)) => {
            tokio::task::spawn_local(sse::serve(context, broker, *accepted, socket, place));
        }
    }
}

/// Returns when the first request should have been there, and is not.
async fn too_late(guest: &Guest, until: Duration) {
    tokio::time::sleep(until.saturating_sub(guest.context.now().uptime)).await;
    if guest.pending.take().is_none() {
        std::future::pending::<()>().await;
    }
    count_refusal(&guest.context, Reason::TooLate);
}

/// Serves requests. If the last one asked for something else than an answer, that is still to be
/// served.
async fn until_upgrade(guest: &Rc<Guest>, pipe: Pipe, held: Option<Held>) -> Option<Freed> {
    let service = service_fn(|request| {
        let guest = Rc::clone(guest);
        Box::pin(async move {
            let answer = route(request, &guest).await;
            guest.pending.take();
            if guest.is_taken.get() {
                // The stream's own answer is the only one.
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(answer)
        })
    });
    let backlog = Rc::new(Backlog::new(guest.site.broker.clock));
    let outlet = TokioIo::new(Outlet::new(pipe, Rc::clone(&backlog)));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(guest.site.request_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(outlet, service);
    let begun = guest.context.now().uptime;
    let mut patience = Patience::new(guest.site.write_stall_max);
    let ended = poll_fn(|task| match connection.poll_without_shutdown(task) {
        // Answers to requests before that of the stream have left.
        Poll::Pending if guest.is_taken.get() && !backlog.is_full() => Poll::Ready(Ok(Ok(()))),
        Poll::Pending => patience.poll(&backlog, &guest.site.broker.budget, task).map(Err),
        Poll::Ready(result) => Poll::Ready(Ok(result)),
    });
    let ended = match ended.await {
        Ok(ended) => ended,
        Err(reason) => {
            tracing::debug!(%reason, "an answer is not read");
            guest.context.with(|shard| shard.counters().closes.of(reason).increment());
            return None;
        }
    };
    // A head that does not come ends the connection without a word of why.
    let took = guest.context.now().uptime.saturating_sub(begun);
    if guest.pending.take().is_some() && took >= guest.site.request_timeout {
        count_refusal(&guest.context, Reason::TooLate);
    }
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke");
        return None;
    }
    let parts = connection.into_parts();
    let mut pipe = parts.io.into_inner().pipe;
    let Some(upgrade) = guest.upgrade.take() else {
        pipe.farewell();
        return None;
    };
    let Upgrade { kind, client, held: behind } = upgrade;
    let held = behind.or(held).map(|held| Box::new(held) as Box<dyn Any>);
    let (socket, unread) = pipe.into_conduit(More { channel: None, client, held });
    Some(match kind {
        Kind::WebSocket(spoken, shown) => {
            // Copied: even an empty piece of hyper's buffer would keep all 8 KiB of it.
            let early = [&parts.read_buf[..], &unread].concat();
            Freed::WebSocket(Upgraded { socket, spoken, early, shown })
        }
        Kind::Stream(accepted) => {
            Freed::Stream(accepted, (socket, parts.read_buf.len() + unread.len()))
        }
    })
}

/// Decides about a request for a WebSocket.
fn welcome(request: &Request<Incoming>, guest: &Guest) -> Result<Answer, Refused> {
    let (accepted, shown) = entry::upgrade(request, &guest.context, &guest.site)?;
    depart(request, Kind::WebSocket(accepted.spoken, shown), guest)?;
    Ok(accepted.response.map(|()| Full::default()))
}

/// Decides about a request for a stream, whose answer is written where it is served.
fn begin(request: &Request<Incoming>, guest: &Guest) -> Result<Answer, Refused> {
    let accepted = sse::judge(request, &guest.context, &guest.site)?;
    depart(request, Kind::Stream(Box::new(accepted)), guest)?;
    guest.is_taken.set(true);
    Ok(Answer::default())
}

/// Has a connection leave HTTP, if its client, who may be behind a proxy, may have one.
fn depart(request: &Request<Incoming>, kind: Kind, guest: &Guest) -> Result<(), Refused> {
    let (site, client) = (&guest.site, guest.behind(request));
    let held = if client == guest.client {
        None
    } else {
        let admitted = site.gate.admit(client, guest.context.now().uptime);
        admitted.map_err(|reason| Refused::from(Refusal::from(reason)))?
    };
    let client = (client != guest.peer).then_some(client);
    guest.upgrade.set(Some(Upgrade { kind, client, held }));
    Ok(())
}

async fn route(request: Request<Incoming>, guest: &Guest) -> Answer {
    let Guest { context, site, .. } = guest;
    let open = OPEN.iter().find(|(path, _)| *path == request.uri().path());
    let origin = open.and_then(|_| cors::origin_of(request.headers(), site));
    let answered = match (request.method(), request.uri().path()) {
        (_, path)
            if let (true, Err(refusal)) =
                (open.is_some() || path == "/ws", site.check_host(request.headers())) =>
        {
            Err(refusal.into())
        }
        (&Method::OPTIONS, _) if let Some((_, methods)) = open => {
            cors::preflight(request.headers(), methods, site).map_err(Refused::from)
        }
        (_, "/ws") => {
            let welcome = welcome(&request, guest);
            if let Err(refused) = &welcome {
                let reason = refused.refusal.reason;
                context.with(|shard| shard.counters().handshakes_refused.of(reason).increment());
            }
            welcome
        }
        (_, "/sse") => begin(&request, guest),
        (_, "/v1/history") => look(&request, Sight::History, guest),
        (_, "/v1/snapshot") => look(&request, Sight::Snapshot, guest),
        (_, "/v1/presence") => look(&request, Sight::Presence, guest),
        (&Method::POST, "/v1/publish") => {
            publish::publish(request, guest).await.map_err(Refused::from)
        }
        (_, "/v1/publish") => Err(Refused {
            refusal: Refusal::new(Reason::MethodNotAllowed, "publishing is POST"),
            headers: &[("allow", "POST")],
        }),
        (_, path) if path.starts_with("/admin/") => site.window.look(request, guest.client).await,
        (&Method::GET | &Method::HEAD, path) => assets::find(path).map_err(Refused::from),
        _ => Err(Refusal::from(Reason::NotFound).into()),
    };
    let mut answer = answered.unwrap_or_else(|refused| {
        context.with(|shard| shard.counters().refusals.of(refused.refusal.reason).increment());
        refuse(&refused)
    });
    if open.is_some() {
        cors::allow(&mut answer, origin);
    }
    answer
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
    // Whoever was refused an upgrade may have sent frames behind it: they are not requests. Whoever
    // publishes or looks too often has sent one that was whole, and a connection more would help nobody.
    let reason = refused.refusal.reason;
    if !matches!(reason, Reason::TooOften | Reason::TooManyDeliveries | Reason::TooManyNewTopics) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
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
