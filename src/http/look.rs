//! `GET /v1/history`, `/v1/snapshot` and `/v1/presence`: a look at topics without a connection.
//! # Invariants: the same permission, rates and limits as for any other way in; a broker that is short
//! of memory shows nothing.
//! # Not here: what the query says (`dialect::query`), what is answered (`session`).

use super::waiting::counted;
use super::{Answer, Guest, entry, json};
use crate::dialect::{encode_answer, encode_snapshot, query};
use crate::reason::{Reason, Refusal};
use crate::shard::Standing;
use crate::shard::pressure::Pressure;
use crate::ws::handshake::Refused;
use crate::ws::origin;
use hyper::{Method, Request, StatusCode};

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight {
    History,
    Snapshot,
    Presence,
}

/// Answers a request.
pub(super) fn look<B>(
    request: &Request<B>,
    sight: Sight,
    guest: &Guest,
) -> Result<Answer, Refused> {
    if request.method() != Method::GET {
        return Err(Refused {
            refusal: Refusal::new(Reason::MethodNotAllowed, "looking is GET"),
            headers: &[("allow", "GET, OPTIONS")],
        });
    }
    Ok(answer(request, sight, guest)?)
}

fn answer<B>(request: &Request<B>, sight: Sight, guest: &Guest) -> Result<Answer, Refusal> {
    let (context, site) = (&guest.context, &guest.site);
    origin::check(request.headers(), &site.policy.origins)?;
    let identity = entry::reader(request, context, site)?;
    let standing = identity.as_ref().map_or(Standing::Open, Standing::As);
    let (holder, now) = (guest.holder(request, identity.as_deref()), context.now());
    site.broker.may_look(standing, context.accounts().of(holder, now.uptime), now)?;
    // Measured anew: what others were answered since the last turn waits too.
    if site.broker.budget.measure() > Pressure::Calm {
        return Err(Reason::Shed.into());
    }
    let raw = request.uri().query().unwrap_or_default();
    let body = match sight {
        Sight::History => {
            let asked = query::history(raw)?;
            encode_answer(&site.broker.history(standing, asked, now)?)
        }
        Sight::Presence => encode_answer(&site.broker.attendance(standing, query::topic(raw)?)?),
        Sight::Snapshot => {
            let target = query::target(raw)?;
            let found = context.with(|shard| site.broker.snapshot(standing, &target, shard))?;
            encode_snapshot(&found.messages, &found.positions)
        }
    };
    Ok(json(StatusCode::OK, counted(body, context)))
}
