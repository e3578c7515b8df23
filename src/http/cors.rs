//! What a page of another origin is let read, and the question that its browser asks before.
//! # Invariants: exactly the origins that may open a WebSocket; no cookies.
//! # Not here: which origins those are (`ws::origin`).

use super::{Answer, Site};
use crate::reason::Refusal;
use crate::ws::origin;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Response, StatusCode};

/// The headers of a request that a page may set.
const HEADERS: &str = "authorization, content-type, last-event-id";

/// Seconds for which a browser need not ask again.
const MAX_AGE: &str = "600";

/// Answers the question whether a page may send a request.
///
/// # Errors
/// Those of [`origin::check`].
pub(super) fn preflight(
    headers: &HeaderMap,
    methods: &'static str,
    site: &Site,
) -> Result<Answer, Refusal> {
    origin::check(headers, &site.policy.origins)?;
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, methods),
        (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(answer)
}

/// Who asks, if it is a page that may use this server.
pub(super) fn origin_of(headers: &HeaderMap, site: &Site) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    origin::check(headers, &site.policy.origins).is_ok().then(|| origin.clone())
}

/// Lets the page at this origin read an answer.
pub(super) fn allow(answer: &mut Answer, origin: Option<HeaderValue>) {
    answer.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}

/// The same as lines of a head, for a request whose origin was checked.
pub(super) fn lines(headers: &HeaderMap) -> String {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let allowed = origin.map(|origin| format!("{ACCESS_CONTROL_ALLOW_ORIGIN}: {origin}\r\n"));
    format!("vary: origin\r\n{}", allowed.unwrap_or_default())
}
