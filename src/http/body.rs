//! The body of a request: JSON, whole, in time and not too large.
//! # Invariants: no more of it is kept than the limit allows.
//! # Not here: what it says.

use crate::reason::{Reason, Refusal};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use std::time::Duration;
use tokio::time;

/// A page may send other types across origins without being asked first.
///
/// # Errors
/// [`Reason::BadContentType`].
pub(super) fn check_type<B>(request: &Request<B>) -> Result<(), Refusal> {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Reason::BadContentType.into())
    }
}

/// Reads it, if it has at most so many bytes and takes at most so long.
///
/// # Errors
/// [`Reason::TooLarge`], and [`Reason::BadRequest`] if it did not come whole.
pub(super) async fn read(
    request: Request<Incoming>,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, Refusal> {
    let body = Limited::new(request.into_body(), bytes_max).collect();
    match time::timeout(timeout, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the limit of a body is {bytes_max} bytes");
            Err(Refusal::new(Reason::TooLarge, detail))
        }
        Ok(Err(_)) => Err(Refusal::new(Reason::BadRequest, "the body did not arrive whole")),
        Err(_) => Err(Refusal::new(Reason::BadRequest, "the body did not arrive in time")),
    }
}
