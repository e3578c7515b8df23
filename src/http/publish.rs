//! `POST /v1/publish`: one message or a list of them, as JSON.
//! # Invariants: a list is answered message by message, in order; a page of a foreign origin
//! publishes nothing.
//! # Not here: what a message may be (`dialect`), permission and limits on it (`session`).

use super::waiting::counted;
use super::{Answer, Guest, Site, body, entry, error_body, json};
use crate::auth::Identity;
use crate::dialect::decode_draft;
use crate::limits::accounts::Holder;
use crate::reason::{Reason, Refusal};
use crate::shard::Standing;
use crate::shard::worker::Context;
use crate::topics::message::Position;
use crate::topics::registry::Recent;
use crate::ws::origin;
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::value::RawValue;
use std::cell::RefMut;
use std::rc::Rc;
use std::sync::Arc;

/// Who publishes, and what is known from one of their messages to the next.
struct Publisher {
    /// `None` where nobody is asked who they are.
    identity: Option<Arc<Identity>>,
    /// Whose rates it uses up.
    holder: Holder,
    recent: Recent,
}

/// Answers a request.
pub(super) async fn publish(request: Request<Incoming>, guest: &Guest) -> Result<Answer, Refusal> {
    let Guest { context, site, .. } = guest;
    origin::check(request.headers(), &site.policy.origins)?;
    body::check_type(&request)?;
    // Before the body, which costs memory.
    let identity = entry::reader(&request, context, site)?;
    let holder = guest.holder(&request, identity.as_deref());
    let mut publisher = Publisher { identity, holder, recent: Recent::default() };
    let bytes_max = site.broker.limits.http_body_bytes_max;
    let body = body::read(request, bytes_max, site.request_timeout).await?;
    let text = std::str::from_utf8(&body)
        .map_err(|_| Refusal::new(Reason::BadRequest, "the body is not UTF-8"))?;
    let answer = if text.trim_start().starts_with('[') {
        publish_list(text, &mut publisher, context, site)?
    } else {
        position_body(publish_one(text, &mut publisher, context, site)?)
    };
    Ok(json(StatusCode::OK, counted(answer, context)))
}

fn publish_one(
    text: &str,
    publisher: &mut Publisher,
    context: &Rc<Context>,
    site: &Site,
) -> Result<Position, Refusal> {
    let draft = decode_draft(text.as_bytes())?;
    let Publisher { identity, holder, recent } = publisher;
    let standing = identity.as_ref().map_or(Standing::Open, Standing::As);
    let (broker, now) = (&site.broker, context.now());
    let usage = || RefMut::map(context.accounts(), |accounts| accounts.of(*holder, now.uptime));
    broker.may_publish(standing, &draft.topic, &mut usage(), now)?;
    let committed =
        context.with(|shard| broker.publish(recent, draft, shard.counters(), shard.now()))?;
    if standing.is_rated() {
        broker.charge(&mut usage(), committed, now);
    }
    Ok(committed.position())
}

fn publish_list(
    text: &str,
    publisher: &mut Publisher,
    context: &Rc<Context>,
    site: &Site,
) -> Result<Bytes, Refusal> {
    let list: Vec<&RawValue> = serde_json::from_str(text)
        .map_err(|error| Refusal::new(Reason::BadRequest, error.to_string()))?;
    let max = site.broker.limits.http_messages_max;
    if list.len() > max {
        let detail = format!("the list has {} messages, the limit is {max}", list.len());
        return Err(Refusal::new(Reason::TooLarge, detail));
    }
    let mut body = BytesMut::from(&b"["[..]);
    for (index, message) in list.into_iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(b",");
        }
        let answer = publish_one(message.get(), publisher, context, site).map(position_body);
        body.extend_from_slice(&answer.unwrap_or_else(|refusal| {
            context.with(|shard| shard.counters().refusals.of(refusal.reason).increment());
            error_body(&refusal)
        }));
    }
    body.extend_from_slice(b"]");
    Ok(body.freeze())
}

/// The position as the `published` event of the JSON spelling writes it.
fn position_body(position: Position) -> Bytes {
    let Position { epoch, offset } = position;
    format!(r#"{{"epoch":"{epoch}","offset":{offset},"durability":"memory"}}"#).into()
}
