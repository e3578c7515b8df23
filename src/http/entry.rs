//! Who sends a request: where a token may stand in it, and where not.
//! # Invariants: a token in a URL is refused even where none is needed, since logs keep URLs; an
//! offer that carries a token is never repeated.
//! # Not here: verifying it (`auth`).

use super::Site;
use crate::auth::Identity;
use crate::dialect::Token;
use crate::reason::{Reason, Refusal};
use crate::shard::worker::Context;
use crate::ws::extensions::Compression;
use crate::ws::handshake::{Accepted, Policy, Refused, judge, offered_token};
use hyper::Request;
use hyper::header::AUTHORIZATION;
use std::rc::Rc;
use std::sync::Arc;

/// What a request for a WebSocket shows: nobody, somebody, or why it is not told in the answer.
pub(super) type Shown = Option<Result<Arc<Identity>, Refusal>>;

/// Parameters that tokens are put into where they do not belong.
const URL_NAMES: [&str; 4] = ["token", "access_token", "jwt", "authorization"];

/// Decides about a request for a WebSocket.
///
/// # Errors
/// Those of [`judge`]; [`Reason::BadRequest`], and the refusal of a token in the header: what came
/// as a subprotocol is from a page, which sees why it is closed, but not why it is not let in.
pub(super) fn upgrade<B>(
    request: &Request<B>,
    context: &Rc<Context>,
    site: &Site,
) -> Result<(Accepted, Shown), Refused> {
    check_url(request)?;
    let accepted = judge(request, &site.policy)?;
    let authority = site.broker.guard.authority();
    if authority.is_open() {
        return Ok((accepted, None));
    }
    let (header, offer) = (bearer(request)?, offered_token(request.headers())?);
    let authenticate = |token: &Token| {
        context
            .with(|shard| site.broker.authenticate(token.reveal(), shard.counters(), shard.now()))
    };
    let shown = match (header, offer) {
        (Some(_), Some(_)) => {
            let detail = "a token is in the authorization header and in a subprotocol";
            return Err(Refusal::new(Reason::BadRequest, detail).into());
        }
        (Some(token), None) => Some(Ok(authenticate(&token)?)),
        (None, Some(token)) => Some(authenticate(&token)),
        (None, None) => None,
    };
    let is_known = shown.as_ref().map_or(authority.anonymous().is_some(), Result::is_ok);
    if is_known || accepted.spoken.compression == Compression::None {
        return Ok((accepted, shown));
    }
    // What is inflated costs more than what was sent: not for whoever has shown nothing.
    let policy = Policy { compression: Compression::None, ..site.policy.clone() };
    Ok((judge(request, &policy)?, shown))
}

/// Who sends a request; `None` where everybody may do everything.
///
/// # Errors
/// [`Reason::Unauthenticated`], [`Reason::BadToken`], [`Reason::TokenExpired`] and
/// [`Reason::BadRequest`].
pub(super) fn reader<B>(
    request: &Request<B>,
    context: &Rc<Context>,
    site: &Site,
) -> Result<Option<Arc<Identity>>, Refusal> {
    check_url(request)?;
    let authority = site.broker.guard.authority();
    if authority.is_open() {
        return Ok(None);
    }
    if let Some(token) = bearer(request)? {
        let shown = context
            .with(|shard| site.broker.authenticate(token.reveal(), shard.counters(), shard.now()));
        return shown.map(Some);
    }
    let anonymous = authority.anonymous().cloned();
    anonymous.map(Some).ok_or_else(|| Reason::Unauthenticated.into())
}

pub(super) fn check_url<B>(request: &Request<B>) -> Result<(), Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let mut names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    if names.any(|name| URL_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))) {
        let detail = "a token does not belong into a URL, which logs keep: send it in the \
                      authorization header, as a subprotocol, or in `connect`";
        return Err(Refusal::new(Reason::BadRequest, detail));
    }
    Ok(())
}

/// The token of an `authorization` header of the scheme `Bearer`. Other schemes are for others, for
/// instance for a proxy.
pub(super) fn bearer<B>(request: &Request<B>) -> Result<Option<Token>, Refusal> {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        let detail = "the request has more than one authorization header";
        return Err(Refusal::new(Reason::BadRequest, detail));
    }
    let Some(value) = first.and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let Some((scheme, token)) = value.trim().split_once(' ') else { return Ok(None) };
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    Ok(is_bearer.then(|| Token::new(token.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_token_in_a_url_is_refused_whatever_it_is_called() {
        for uri in [
            "/ws?token=x",
            "/ws?a=1&access_token=x",
            "/ws?TOKEN",
            "/ws?jwt=",
            "/ws?Authorization=x",
        ] {
            let refusal = check_url(&request(uri, &[])).expect_err(uri);
            assert_eq!(refusal.reason, Reason::BadRequest, "{uri}");
        }
        for uri in ["/ws", "/ws?tokens=1", "/ws?a=token", "/token"] {
            assert_eq!(check_url(&request(uri, &[])), Ok(()), "{uri}");
        }
    }

    #[test]
    fn the_bearer_is_found_in_the_header_and_other_schemes_are_not_ours() {
        let find = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            bearer(&request("/", &headers)).map(|token| token.map(|it| it.reveal().to_owned()))
        };
        assert_eq!(find(&[]), Ok(None));
        assert_eq!(find(&["Bearer abc"]), Ok(Some("abc".to_owned())));
        assert_eq!(find(&["bEARER   abc "]), Ok(Some("abc".to_owned())));
        assert_eq!(find(&["Basic abc"]), Ok(None));
        assert_eq!(find(&["Bearer"]), Ok(None));
        assert!(find(&["Bearer a", "Bearer b"]).is_err());
    }
}
