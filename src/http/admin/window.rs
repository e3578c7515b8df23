//! The window: what of the admin API the dashboard shows, on the public listener.
//! # Invariants: it is shut unless the configuration in force asks for it, also for connections that
//! began before; nothing can be changed through it, and no name of a client's token is told to whoever
//! shows none, but on this machine.
//! # Not here: what is shown (`overview`, `connections`, `topics`).

use super::{Lock, Page};
use crate::auth::Hash;
use crate::http::{Answer, Ops};
use crate::reason::{Reason, Refusal};
use crate::ws::handshake::Refused;
use hyper::body::Incoming;
use hyper::header::{FORWARDED, HeaderMap};
use hyper::{Request, Version};
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What the paths of the window begin with, so that a proxy can shut it in one line.
const PREFIX: &str = "/admin";

/// Who may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody: there is no window.
    Shut,
    /// Whoever is on this machine.
    ThisMachine,
    /// Whoever shows the token with this hash.
    Token(Hash),
}

/// The operators' numbers as the public listener shows them.
#[derive(Debug)]
pub struct Window {
    lock: Lock,
    access: Mutex<Access>,
    ops: Arc<Ops>,
}

impl Window {
    /// A window on these numbers, at the address of the public listener.
    pub fn new(ops: Arc<Ops>, address: SocketAddr, access: Access) -> Window {
        let window =
            Window { lock: Lock::new(address, None), access: Mutex::new(Access::Shut), ops };
        window.change(access);
        window
    }

    /// Lets others look, from the next request on.
    pub fn change(&self, access: Access) {
        // Shut while the token changes, so that nobody looks by half of each.
        *self.access.lock() = Access::Shut;
        self.lock.change(match access {
            Access::Token(hash) => Some(hash),
            Access::Shut | Access::ThisMachine => None,
        });
        *self.access.lock() = access;
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
        let access = *self.access.lock();
        let page = find(uri.path()).filter(|_| access != Access::Shut);
        let page = page.ok_or(Refusal::from(Reason::NotFound))?;
        if access == Access::ThisMachine && !is_from_here(&request, client) {
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

/// Whether a request comes from this machine, and not from a proxy on it, as far as that can be seen:
/// proxies say that they are there, or speak HTTP/1.0 (nginx does unless told otherwise).
fn is_from_here<B>(request: &Request<B>, client: IpAddr) -> bool {
    let forwarding = ["x-forwarded-for", "x-real-ip", "via", FORWARDED.as_str()];
    let headers: &HeaderMap = request.headers();
    client.to_canonical().is_loopback()
        && request.version() == Version::HTTP_11
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
        let plain = || Request::builder().body(()).unwrap();
        assert!(is_from_here(&plain(), here));
        assert!(is_from_here(&plain(), "::ffff:127.0.0.1".parse().unwrap()));
        assert!(!is_from_here(&plain(), IpAddr::from([192, 0, 2, 1])));
        let old = Request::builder().version(Version::HTTP_10).body(()).unwrap();
        assert!(!is_from_here(&old, here));
        for name in ["x-forwarded-for", "x-real-ip", "via", "forwarded"] {
            let mut request = plain();
            request.headers_mut().insert(name, HeaderValue::from_static("192.0.2.1"));
            assert!(!is_from_here(&request, here), "{name}");
        }
    }
}
