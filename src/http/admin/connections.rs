//! `/v1/connections`: who is connected, one page after another; those who lag most; one of them.
//! # Invariants: a job of a shard passes a bounded number of places, a request makes a bounded number
//! of jobs.
//! # Not here: what a connection is (`shard`).

use super::query::Query;
use super::{Admin, show};
use crate::http::Answer;
use crate::reason::{Reason, Refusal};
use crate::shard::conduit::Conduit;
use crate::shard::outbound::Socket;
use crate::shard::{ConnectionId, Look, Shard};
use crate::topics::name::Target;
use serde::Serialize;
use std::cmp::Reverse;
use std::rc::Rc;
use std::sync::Arc;

/// Connections of a page that says nothing else, and of any.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Connections that are slow, unless something else is said, and at most.
const SLOWEST: usize = 10;
const SLOWEST_MAX: usize = 100;

/// Jobs of one request; each passes some thousand places.
const JOBS_MAX: usize = 64;

/// Subscriptions that are shown of one connection.
const SUBSCRIPTIONS_MAX: usize = 1_000;

/// One connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    /// Who is at the other end of its socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// Who is behind the proxy at the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Box<str>>,
    wire: &'static str,
    connected_ms: u64,
    subscriptions: usize,
    queued_bytes: usize,
    behind: usize,
    sent_bytes: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    closing: bool,
}

#[derive(Debug, Serialize)]
struct Page {
    connections: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    #[serde(flatten)]
    row: Row,
    subscribed_to: Vec<String>,
}

/// Where to look on: a shard and a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    shard: usize,
    place: u32,
}

impl Cursor {
    const BEGIN: Cursor = Cursor { shard: 0, place: 0 };

    /// Reads what `next` of a page said, or goes on behind a connection.
    fn parse(text: &str) -> Option<Cursor> {
        if let Some((shard, id)) = ConnectionId::parse(text) {
            return Some(Cursor { shard, place: id.place().saturating_add(1) });
        }
        let (shard, place) = text.split_once('-')?;
        Some(Cursor { shard: shard.parse().ok()?, place: place.parse().ok()? })
    }

    /// Where to go on after a look at this shard.
    fn after(self, look: &Look) -> Cursor {
        match look.next {
            Some(place) => Cursor { place, ..self },
            None => Cursor { shard: self.shard.saturating_add(1), place: 0 },
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.shard, self.place)
    }
}

/// A page of all connections, or of those of one subject.
///
/// # Errors
/// [`Reason::BadRequest`], [`Reason::Overloaded`].
pub(super) async fn page(admin: &Admin, query: &Query) -> Result<Answer, Refusal> {
    query.only(&["after", "limit", "subject"])?;
    let limit = query.number("limit", PAGE, 1..=PAGE_MAX)?;
    let mut cursor = match query.text("after") {
        Some(text) => Cursor::parse(text).ok_or_else(|| {
            let detail = "`after` must be the id of a connection, or what `next` said";
            Refusal::new(Reason::BadRequest, detail)
        })?,
        None => Cursor::BEGIN,
    };
    let subject: Option<Arc<str>> = query.text("subject").map(Into::into);
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..JOBS_MAX {
        if cursor.shard >= admin.shards.len() || rows.len() >= limit {
            break;
        }
        let (place, room, subject) = (cursor.place, limit - rows.len(), subject.clone());
        let looked = admin.ask(cursor.shard, move |shard| {
            let wanted = |shard: &Shard<_>, id| is_of(shard, id, subject.as_deref());
            let look = shard.look(place, room, wanted);
            (rows_of(shard, &look.found), look)
        });
        let (found, look) = looked.await?;
        rows.extend(found);
        cursor = cursor.after(&look);
    }
    let next = (cursor.shard < admin.shards.len()).then(|| cursor.to_string());
    show(&Page { connections: rows, next })
}

/// The connections for which most waits, among all that something waits for.
///
/// # Errors
/// [`Reason::BadRequest`], [`Reason::Overloaded`].
pub(super) async fn slowest(admin: &Admin, query: &Query) -> Result<Answer, Refusal> {
    let limit = query.only(&["limit"])?.number("limit", SLOWEST, 1..=SLOWEST_MAX)?;
    let mut slowest = Slowest { limit, rows: Vec::new() };
    let mut cursor = Cursor::BEGIN;
    for _ in 0..JOBS_MAX * admin.shards.len() {
        if cursor.shard >= admin.shards.len() {
            break;
        }
        let place = cursor.place;
        let looked = admin.ask(cursor.shard, move |shard| {
            let mut look = shard.look(place, usize::MAX, |shard, id| shard.lag(id) > (0, 0));
            look.found.sort_by_key(|id| Reverse(shard.lag(*id)));
            look.found.truncate(limit);
            (rows_of(shard, &look.found), look)
        });
        let (found, look) = looked.await?;
        slowest.add(found);
        cursor = cursor.after(&look);
    }
    show(&Page { connections: slowest.rows, next: None })
}

/// One connection, with what it is subscribed to.
///
/// # Errors
/// [`Reason::NoConnection`], [`Reason::BadRequest`], [`Reason::Overloaded`].
pub(super) async fn one(admin: &Admin, name: &str, query: &Query) -> Result<Answer, Refusal> {
    query.only(&[])?;
    let (shard, id) = parse(admin, name)?;
    let detail = admin.ask(shard, move |shard| {
        let row = row_of(shard, id)?;
        let targets = shard.subscriptions(id, SUBSCRIPTIONS_MAX);
        let subscribed_to = targets.iter().map(Target::to_string).collect();
        Some(Detail { row, subscribed_to })
    });
    show(&detail.await?.ok_or(Reason::NoConnection)?)
}

/// The shard and the connection that a name is of.
///
/// # Errors
/// [`Reason::NoConnection`]: then nothing is, or was, called that.
pub(super) fn parse(admin: &Admin, name: &str) -> Result<(usize, ConnectionId), Refusal> {
    let parsed = ConnectionId::parse(name).filter(|(shard, _)| *shard < admin.shards.len());
    parsed.ok_or_else(|| Reason::NoConnection.into())
}

/// Whether a connection is one of this subject, or of anybody.
pub(super) fn is_of<S: Socket>(shard: &Shard<S>, id: ConnectionId, subject: Option<&str>) -> bool {
    let Some(subject) = subject else { return true };
    shard.identity(id).is_some_and(|identity| &*identity.subject == subject)
}

fn rows_of(shard: &Shard<Rc<Conduit>>, ids: &[ConnectionId]) -> Vec<Row> {
    ids.iter().filter_map(|id| row_of(shard, *id)).collect()
}

fn row_of(shard: &Shard<Rc<Conduit>>, id: ConnectionId) -> Option<Row> {
    let sighting = shard.sighting(id)?;
    let socket = shard.socket(id)?;
    let peer = socket.stream().peer_addr().ok();
    let client = socket.client().filter(|client| peer.is_none_or(|peer| peer.ip() != *client));
    let age_ms = u64::try_from(sighting.age.as_millis()).unwrap_or(u64::MAX);
    Some(Row {
        id: sighting.name,
        peer: peer.map(|peer| peer.to_string()),
        client: client.map(|client| client.to_string()),
        subject: sighting.subject,
        wire: sighting.wire.name(),
        connected_ms: shard.now().wall_ms.saturating_sub(age_ms),
        subscriptions: sighting.subscriptions,
        queued_bytes: sighting.waiting,
        behind: sighting.behind,
        sent_bytes: sighting.sent,
        closing: sighting.is_closing,
    })
}

/// Those that lag most of all that were added.
struct Slowest {
    limit: usize,
    rows: Vec<Row>,
}

impl Slowest {
    fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
        self.rows.sort_by_key(|row| Reverse((row.queued_bytes, row.behind)));
        self.rows.truncate(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_what_a_page_said_or_the_place_behind_a_connection() {
        let at = |shard, place| Some(Cursor { shard, place });
        let cases = [
            ("0-0", at(0, 0)),
            ("3-17", at(3, 17)),
            ("3-17.2", at(3, 18)),
            ("0-4294967295.1", at(0, u32::MAX)),
            ("", None),
            ("3", None),
            ("-1", None),
            ("a-1", None),
            ("1-2.", None),
            ("1-4294967296", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Cursor::parse(text), expected, "{text}");
        }
        let begin = Cursor::BEGIN;
        let (more, end) =
            (Look { found: vec![], next: Some(9) }, Look { found: vec![], next: None });
        assert_eq!(begin.after(&more).to_string(), "0-9");
        assert_eq!(begin.after(&end).to_string(), "1-0");
    }
}
