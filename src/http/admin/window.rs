//! The window: what of the admin API the dashboard shows, on the public listener.
//! # Invariants: there is none unless the configuration asks for it; nothing can be changed through
//! it, and no name of a client's token is told to whoever shows none, but on this machine.
//! # Not here: what is shown (`overview`, `connections`, `topics`).

use super::{Lock, Page};
use crate::auth::Hash;
use crate::http::{Answer, Ops};
use crate::reason::{Reason, Refusal};
use crate::ws::handshake::Refused;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{FORWARDED, HeaderMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What the paths of the window begin with, so that a proxy can shut it in one line.
const PREFIX: &str = "/admin";

/// The operators' numbers as the public listener shows them.
#[derive(Debug)]
pub struct Window {
    lock: Lock,
    /// Whether a token must be shown.
    is_guarded: bool,
    ops: Arc<Ops>,
}

impl Window {
    /// A window on these numbers, at the address of the public listener, for whoever shows the token;
    /// for this machine, if there is none.
    pub fn new(ops: Arc<Ops>, address: SocketAddr, token: Option<Hash>) -> Window {
        Window { lock: Lock::new(address, token), is_guarded: token.is_some(), ops }
    }

    /// Answers a request of this client for one of its pages.
    ///
    /// # Errors
    /// [`Reason::NotFound`] for what is not shown here, [`Reason::NotAllowed`] and the refusals of the
    /// lock and of the page.
    pub(in crate::http) async fn look(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
    ) -> Result<Answer, Refused> {
        let uri = request.uri().clone();
        let page = find(uri.path()).ok_or(Refusal::from(Reason::NotFound))?;
        if !self.is_guarded && !is_from_here(request.headers(), client) {
            let detail = "`admin.token` is off: the numbers are for this machine alone";
            return Err(Refusal::new(Reason::NotAllowed, detail).into());
        }
        self.ops.admin.enter(page, &self.lock, request).await
    }
}

/// What is shown: nothing that changes something, and no list of everybody.
fn find(path: &str) -> Option<Page<'_>> {
    let page = Page::find(path.strip_prefix(PREFIX)?)?;
    matches!(page, Page::Overview | Page::Slowest | Page::Hottest).then_some(page)
}

/// Whether a request comes from this machine, and not from a proxy on it.
fn is_from_here(headers: &HeaderMap, client: IpAddr) -> bool {
    let forwarding = ["x-forwarded-for", "x-real-ip", "via", FORWARDED.as_str()];
    client.to_canonical().is_loopback()
        && !forwarding.iter().any(|name| headers.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn only_three_pages_that_change_nothing_are_shown() {
        for path in ["/v1/overview", "/v1/connections/slowest", "/v1/topics/hottest"] {
            assert!(find(&format!("{PREFIX}{path}")).is_some(), "{path}");
            assert_eq!(find(path), None, "{path}");
        }
        let others = ["drain", "reload", "revoke", "disconnect", "connections", "topics"];
        for name in others.into_iter().chain(["connections/0-1.2", "overview/", ""]) {
            assert_eq!(find(&format!("{PREFIX}/v1/{name}")), None, "{name}");
        }
    }

    #[test]
    fn a_proxy_on_this_machine_does_not_make_its_clients_one_of_us() {
        let here = IpAddr::from([127, 0, 0, 1]);
        assert!(is_from_here(&HeaderMap::new(), here));
        assert!(is_from_here(&HeaderMap::new(), "::ffff:127.0.0.1".parse().unwrap()));
        assert!(!is_from_here(&HeaderMap::new(), IpAddr::from([192, 0, 2, 1])));
        for name in ["x-forwarded-for", "x-real-ip", "via", "forwarded"] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("192.0.2.1"));
            assert!(!is_from_here(&headers, here), "{name}");
        }
    }
}
