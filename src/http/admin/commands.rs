//! What an operator does: end connections, revoke tokens, drain, reload.
//! # Invariants: a command takes JSON and nothing else, so that no page can send it without being
//! asked first; it is one object, of which every field is known.
//! # Not here: what a revocation does (`auth`), carrying out a drain or a reload (`control`).

use super::connections::{is_of, parse};
use super::query::Query;
use super::{Admin, show};
use crate::auth::Revocation;
use crate::control::{Changes, Unheard};
use crate::http::{Answer, body};
use crate::reason::{Reason, Refusal};
use crate::shard::Shard;
use hyper::Request;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Most bytes of a command.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Time for a command to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that one job of a shard closes.
const CLOSED_MAX: usize = 256;

/// Longest revocation: a year.
const REVOKED_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// Most bytes of a subject or of the id of a token, which are kept.
const NAME_BYTES_MAX: usize = 1_024;

/// Time for a reload, which reads files and may wait for others.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    connection: Option<String>,
    subject: Option<String>,
}

#[derive(Debug, Serialize)]
struct Disconnected {
    disconnected: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Revoke {
    subject: Option<Box<str>>,
    token_id: Option<Box<str>>,
    for_ms: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Revoked {
    until_ms: u64,
    revocations: usize,
}

/// A command that has nothing to say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Serialize)]
struct Draining {
    draining: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reloaded {
    changed: Vec<String>,
    read_anew: Vec<String>,
    needs_restart: Vec<String>,
}

/// Closes a connection, or all of a subject. Who was closed may come back.
///
/// # Errors
/// [`Reason::NoConnection`], [`Reason::Overloaded`], and those of a body.
pub(super) async fn disconnect(
    admin: &Admin,
    request: Request<Incoming>,
    query: &Query,
) -> Result<Answer, Refusal> {
    let command: Disconnect = read(request, query).await?;
    let disconnected = match (command.connection, command.subject) {
        (Some(name), None) => close_one(admin, &name).await?,
        (None, Some(subject)) => close_subject(admin, subject.into()).await?,
        _ => return Err(one_of("`connection` or `subject`")),
    };
    show(&Disconnected { disconnected })
}

async fn close_one(admin: &Admin, name: &str) -> Result<usize, Refusal> {
    let (shard, id) = parse(admin, name)?;
    let is_open = admin.ask(shard, move |shard| {
        let is_open = shard.is_open(id);
        shard.close(id, &Reason::Disconnected.into());
        is_open
    });
    if is_open.await? { Ok(1) } else { Err(Reason::NoConnection.into()) }
}

async fn close_subject(admin: &Admin, subject: Arc<str>) -> Result<usize, Refusal> {
    let mut count = 0;
    for shard in 0..admin.shards.len() {
        let mut place = Some(0);
        while let Some(from) = place {
            let subject = Arc::clone(&subject);
            let look = admin.ask(shard, move |shard| {
                let wanted =
                    |shard: &Shard<_>, id| shard.is_open(id) && is_of(shard, id, Some(&subject));
                let look = shard.look(from, CLOSED_MAX, wanted);
                for id in &look.found {
                    shard.close(*id, &Reason::Disconnected.into());
                }
                look
            });
            let look = look.await?;
            count += look.found.len();
            place = look.next;
        }
    }
    Ok(count)
}

/// Lets a token, or all tokens of a subject, count no more for a while, and closes whoever was let in
/// by them.
///
/// # Errors
/// [`Reason::TooManyRevocations`], and those of a body.
pub(super) async fn revoke(
    admin: &Admin,
    request: Request<Incoming>,
    query: &Query,
) -> Result<Answer, Refusal> {
    let command: Revoke = read(request, query).await?;
    let revocation = match (command.subject, command.token_id) {
        (Some(name), None) if is_name(&name) => Revocation::Subject(name),
        (None, Some(name)) if is_name(&name) => Revocation::Token(name),
        (Some(_), None) | (None, Some(_)) => {
            let detail = format!("a subject and a token's id have 1 to {NAME_BYTES_MAX} bytes");
            return Err(Refusal::new(Reason::BadRequest, detail));
        }
        _ => return Err(one_of("`subject` or `tokenId`")),
    };
    if !(1..=REVOKED_MS_MAX).contains(&command.for_ms) {
        let detail = format!("`forMs` must be a number from 1 to {REVOKED_MS_MAX}");
        return Err(Refusal::new(Reason::BadRequest, detail));
    }
    let (guard, now) = (&admin.broker.guard, admin.broker.clock.now());
    // Whole seconds, and never less than was asked for.
    let until_s = now.wall_ms.saturating_add(command.for_ms).div_ceil(1000);
    guard
        .revoke(revocation, until_s, now)
        .map_err(|error| Refusal::new(Reason::TooManyRevocations, error.to_string()))?;
    for shard in &admin.shards {
        // One that has no room for it looks at its next tick.
        shard.run(|context| context.with(Shard::review)).unwrap_or_default();
    }
    let until = until_s.saturating_mul(1000);
    show(&Revoked { until_ms: until, revocations: guard.revocation_count() })
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

/// Begins to drain.
///
/// # Errors
/// [`Reason::NotReady`] when that has begun already, and those of a body.
pub(super) async fn drain(
    admin: &Admin,
    request: Request<Incoming>,
    query: &Query,
) -> Result<Answer, Refusal> {
    let Nothing {} = read(request, query).await?;
    let begun = timeout(RELOAD_TIMEOUT, admin.control.drain()).await;
    begun.map_err(|_| unheard(Unheard))?.map_err(unheard)?;
    show(&Draining { draining: true })
}

/// Has the configuration read anew.
///
/// # Errors
/// [`Reason::BadReload`], [`Reason::NotReady`], and those of a body.
pub(super) async fn reload(
    admin: &Admin,
    request: Request<Incoming>,
    query: &Query,
) -> Result<Answer, Refusal> {
    let Nothing {} = read(request, query).await?;
    let reloaded = timeout(RELOAD_TIMEOUT, admin.control.reload()).await;
    let reloaded = reloaded.map_err(|_| unheard(Unheard))?.map_err(unheard)?;
    let Changes { changed, read_anew, needs_restart } =
        reloaded.map_err(|error| Refusal::new(Reason::BadReload, error.to_string()))?;
    show(&Reloaded { changed, read_anew, needs_restart })
}

fn unheard(error: Unheard) -> Refusal {
    Refusal::new(Reason::NotReady, error.to_string())
}

fn one_of(fields: &str) -> Refusal {
    Refusal::new(Reason::BadRequest, format!("the body must have {fields}, and not both"))
}

/// Reads the body of a command; an empty one is `{}`.
async fn read<T: DeserializeOwned>(
    request: Request<Incoming>,
    query: &Query,
) -> Result<T, Refusal> {
    query.only(&[])?;
    body::check_type(&request)?;
    let body = body::read(request, BODY_BYTES_MAX, BODY_TIMEOUT).await?;
    let body = if body.is_empty() { &b"{}"[..] } else { &body };
    if body.trim_ascii_start().first() != Some(&b'{') {
        // A list would be taken for the values of the fields.
        return Err(Refusal::new(Reason::BadRequest, "the body must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(Reason::BadRequest, error.to_string()))
}
