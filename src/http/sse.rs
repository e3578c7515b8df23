//! `GET /sse`: a connection of the shard whose commands stand in its query and whose events are framed
//! as server-sent ones.
//! # Invariants: after the request nothing that the peer says is understood, and little of it is read;
//! what is refused before the stream begins is an HTTP answer.
//! # Not here: what the query says (`dialect::query`), ids (`dialect::bookmark`), delivery (`shard`).

use super::{Site, cors, entry};
use crate::auth::Identity;
use crate::dialect::Command;
use crate::dialect::query::{self, Subscriptions};
use crate::dialect::{Action, BadCommand};
use crate::reason::{Reason, Refusal};
use crate::session::{Broker, Close, Session};
use crate::shard::conduit::Conduit;
use crate::shard::stream::{Protocol, Stream};
use crate::shard::worker::Context;
use crate::shard::{ConnectionId, Shard};
use crate::ws::handshake::check_body;
use crate::ws::origin;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Method, Request, Version};
use std::rc::Rc;
use std::sync::Arc;

/// What a browser says when it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Bytes behind the request that are read without being heard; then the connection ends.
const UNHEARD_BYTES_MAX: usize = 16 << 10;

/// The answer to every stream. It ends with the connection: a length there is none, and a proxy that
/// wants pieces makes them. `x-accel-buffering` keeps nginx from collecting events.
const HEAD: &str = "HTTP/1.1 200 OK\r\n\
    content-type: text/event-stream\r\n\
    cache-control: no-store\r\n\
    x-content-type-options: nosniff\r\n\
    x-accel-buffering: no\r\n\
    connection: close\r\n";

/// A stream that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    stream: query::Stream,
    /// Who showed a token.
    identity: Option<Arc<Identity>>,
    /// The head of the answer.
    head: Bytes,
}

/// Decides about a request for a stream.
///
/// # Errors
/// [`Reason::MethodNotAllowed`], [`Reason::BadOrigin`], those of [`entry::reader`] and of
/// [`query::Stream::parse`].
pub(super) fn judge<B>(
    request: &Request<B>,
    context: &Rc<Context>,
    site: &Site,
) -> Result<Accepted, Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Refusal::new(Reason::MethodNotAllowed, "a stream of events begins with GET"));
    }
    check_body(headers)?;
    if request.version() == Version::HTTP_11 {
        origin::check_one_host(headers)?;
    }
    origin::check(headers, &site.policy.origins)?;
    let identity = entry::reader(request, context, site)?;
    let said = last_event_id(headers)?;
    let raw = request.uri().query().unwrap_or_default();
    let stream = query::Stream::parse(raw, said, site.broker.limits.subscriptions_max)?;
    let allowed = cors::lines(headers);
    Ok(Accepted { stream, identity, head: format!("{HEAD}{allowed}\r\n").into() })
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Refusal::new(
            Reason::BadRequest,
            "the request has more than one last-event-id",
        ));
    }
    let text = first.map(|value| value.to_str()).transpose();
    text.map_err(|_| Refusal::new(Reason::BadPosition, "the last event's id is not ASCII"))
}

/// Serves a stream until it ends, and holds its place as long. `unheard` is how much came behind the
/// request.
pub(super) fn serve<P>(
    context: Rc<Context>,
    broker: Arc<Broker>,
    accepted: Accepted,
    (socket, unheard): (Conduit, usize),
    place: P,
) -> impl Future<Output = ()> {
    let Accepted { stream, identity, head } = accepted;
    let socket = Rc::new(socket);
    let wire = stream.wire();
    let (id, session) = context.with(|shard| {
        let id = shard.open(Rc::clone(&socket), wire);
        shard.begin_marks(id, stream.bookmark);
        shard.push(id, head);
        shard.flush(id);
        let session = Session::new(broker, id);
        match identity.map_or(Ok(()), |identity| shard.identify(id, &identity)) {
            Ok(()) => session.greet(shard),
            Err(reason) => shard.close(id, &reason.into()),
        }
        (id, session)
    });
    // Each of these bytes stands for a command, so that they have their turns as others do.
    let turns = vec![0; stream.subscriptions.len()];
    let (subscriptions, session) = (stream.subscriptions, Some(session));
    let connection = Connection { id, subscriptions, unheard, session, _place: place };
    Stream::new(context, socket, id).serve(turns, connection)
}

fn command(
    (id, subscribe): (u64, Result<crate::dialect::Subscribe, Refusal>),
) -> Result<Command, BadCommand> {
    match subscribe {
        Ok(subscribe) => Ok(Command { id, action: Action::Subscribe(Box::new(subscribe)) }),
        Err(refusal) => Err(BadCommand { id, refusal }),
    }
}

/// The reading side of a stream.
struct Connection<P> {
    id: ConnectionId,
    /// What is still to be done.
    subscriptions: Subscriptions,
    /// Bytes that came behind the request.
    unheard: usize,
    /// Until all of it is done.
    session: Option<Session>,
    _place: P,
}

impl<P> Protocol for Connection<P> {
    fn feed(&mut self, input: &mut [u8], shard: &mut Shard<Rc<Conduit>>) -> usize {
        if let Some(subscription) = self.subscriptions.next() {
            if shard.is_open(self.id)
                && let Some(session) = &mut self.session
                && let Err(Close(refusal)) = session.handle(command(subscription), shard)
            {
                shard.close(self.id, &refusal);
            }
            if self.subscriptions.len() == 0 {
                self.subscriptions = Subscriptions::default();
                self.session = None;
                shard.settle_marks(self.id);
            }
            return 1;
        }
        self.unheard = self.unheard.saturating_add(input.len());
        if self.unheard > UNHEARD_BYTES_MAX {
            let detail = "a stream of events takes nothing behind its request";
            shard.close(self.id, &Refusal::new(Reason::BadRequest, detail));
        }
        input.len()
    }
}
