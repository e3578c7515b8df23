//! Who may use the admin API.
//! # Invariants: without a token it is for this machine alone, and for no page that a browser on it
//! may show; a token is compared in the same time whichever it is.
//! # Not here: where the token is configured (`config`).

use crate::auth::Hash;
use crate::http::entry::{bearer, check_url};
use crate::reason::{Reason, Refusal};
use crate::ws::origin;
use hyper::Request;
use parking_lot::Mutex;
use std::net::SocketAddr;

/// Who may use the admin API.
#[derive(Debug)]
pub struct Lock {
    /// Where it is served.
    address: SocketAddr,
    /// The hash of the token that must be shown.
    token: Mutex<Option<Hash>>,
}

impl Lock {
    /// The lock of an API that is served at this address, for whoever shows the token.
    pub fn new(address: SocketAddr, token: Option<Hash>) -> Lock {
        Lock { address, token: Mutex::new(token) }
    }

    /// Puts another token in place, for all requests that are still to come.
    pub fn change(&self, token: Option<Hash>) {
        *self.token.lock() = token;
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// [`Reason::BadOrigin`], [`Reason::BadHost`] and [`Reason::BadRequest`];
    /// [`Reason::Unauthenticated`], [`Reason::BadToken`] and [`Reason::NotAllowed`].
    pub(super) fn open<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        check_url(request)?;
        origin::check(request.headers(), &[])?;
        let token = *self.token.lock();
        let Some(hash) = token else { return self.open_to_this_machine(request) };
        let shown = bearer(request)?.ok_or(Reason::Unauthenticated)?;
        if hash.is(&Hash::of(shown.reveal())) { Ok(()) } else { Err(Reason::BadToken.into()) }
    }

    fn open_to_this_machine<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let address = self.address.ip().to_canonical();
        if !address.is_loopback() {
            let detail = format!(
                "the admin API is served at {address} and `admin.token` is off: set it, or listen \
                 on 127.0.0.1"
            );
            return Err(Refusal::new(Reason::NotAllowed, detail));
        }
        // A name of somebody else that leads here makes a page of theirs one of ours.
        origin::check_host(request.headers(), &[address])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(lock: &Lock, headers: &[(&str, &str)]) -> Result<(), Reason> {
        let mut request = Request::builder().uri("/v1/overview");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        lock.open(&request.body(()).unwrap()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn without_a_token_it_is_for_this_machine_and_for_no_page_of_others() {
        let here = Lock::new("127.0.0.1:7602".parse().unwrap(), None);
        let there = Lock::new("[::]:7602".parse().unwrap(), None);
        let cases: [(&[(&str, &str)], _); 10] = [
            (&[("host", "127.0.0.1:7602")], Ok(())),
            (&[("host", "localhost:9")], Ok(())),
            (&[("host", "[::1]:7602")], Ok(())),
            (&[("host", "127.9.9.9")], Ok(())),
            (&[("host", "evil.example:7602")], Err(Reason::BadHost)),
            (&[("host", "localhost.evil.example")], Err(Reason::BadHost)),
            (&[("host", "192.0.2.1:7602")], Err(Reason::BadHost)),
            (&[], Err(Reason::BadRequest)),
            (&[("host", "localhost"), ("origin", "http://localhost")], Ok(())),
            (&[("host", "localhost"), ("origin", "http://evil.example")], Err(Reason::BadOrigin)),
        ];
        for (headers, expected) in cases {
            assert_eq!(open(&here, headers), expected, "{headers:?}");
            let elsewhere = expected.and(Err(Reason::NotAllowed));
            let opened = open(&there, headers);
            assert!(opened == elsewhere || opened == Err(Reason::NotAllowed), "{headers:?}");
        }
    }

    #[test]
    fn a_token_opens_it_and_nothing_else_does() {
        let lock = Lock::new("[::]:7602".parse().unwrap(), Some(Hash::of("secret")));
        let host = ("host", "broker.internal");
        let with = |value| open(&lock, &[host, ("authorization", value)]);
        assert_eq!(open(&lock, &[host]), Err(Reason::Unauthenticated));
        assert_eq!(with("Basic secret"), Err(Reason::Unauthenticated));
        for wrong in ["Bearer secre", "Bearer secret2", "Bearer Secret", "Bearer  "] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert_eq!(with("Bearer secret"), Ok(()));
        let page = [host, ("authorization", "Bearer secret"), ("origin", "https://evil.example")];
        assert_eq!(open(&lock, &page), Err(Reason::BadOrigin));
        lock.change(Some(Hash::of("other")));
        assert_eq!(with("Bearer secret"), Err(Reason::BadToken));
    }
}
