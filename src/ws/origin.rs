//! Which web pages may use this server: the `Origin` of a request against its `Host` and a list.
//! Owns the only defence of an open WebSocket against a foreign page in a visitor's browser.
//! # Invariants: an origin is compared whole (scheme, host, port), never by prefix or suffix; what
//! cannot be read is refused; a request without an origin does not come from a page.
//! # Not here: who the visitor is (tokens), which origins a configuration lists.

use crate::reason::{Reason, Refusal};
use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An origin whose pages may use this server beside the server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// Pages that were opened as files, and frames that any page has put into a sandbox: browsers
    /// call both of them `null`, and nothing tells them apart.
    Null,
    /// Pages of one place.
    Place {
        /// In lower case.
        scheme: Box<str>,
        /// In lower case.
        host: Box<str>,
        /// The default port of the scheme if none is written, and `None` if it has no default.
        port: Option<u16>,
    },
}

impl AllowedOrigin {
    /// Parses `scheme://host` or `scheme://host:port`, as a browser writes it, or `null`.
    ///
    /// # Errors
    /// [`OriginError`] for anything else, a wildcard above all: it would let in whoever can get a
    /// name under it.
    pub fn parse(raw: &str) -> Result<AllowedOrigin, OriginError> {
        let fail = |fault| OriginError { raw: raw.into(), fault };
        if raw.contains('*') {
            return Err(fail(Fault::Wildcard));
        }
        if raw.eq_ignore_ascii_case(NULL) {
            return Ok(AllowedOrigin::Null);
        }
        let origin = Origin::parse(raw).map_err(fail)?;
        Ok(AllowedOrigin::Place {
            scheme: origin.scheme.to_ascii_lowercase().into(),
            host: origin.place.host.to_ascii_lowercase().into(),
            port: origin.port(),
        })
    }

    /// Whether a request calls this server by the host of this origin.
    pub fn names_host(&self, headers: &HeaderMap) -> bool {
        let AllowedOrigin::Place { host, .. } = self else { return false };
        self::host(headers).is_ok_and(|place| host.eq_ignore_ascii_case(place.host))
    }

    fn is(&self, origin: &Origin<'_>) -> bool {
        let AllowedOrigin::Place { scheme, host, port } = self else { return false };
        scheme.eq_ignore_ascii_case(origin.scheme)
            && host.eq_ignore_ascii_case(origin.place.host)
            && *port == origin.port()
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AllowedOrigin::Place { scheme, host, port } = self else { return f.write_str(NULL) };
        write!(f, "{scheme}://{host}")?;
        match *port {
            port if port == default_port(scheme) => Ok(()),
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// What a browser sends for a page that has no origin.
const NULL: &str = "null";

/// Why something is not an [`AllowedOrigin`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{raw:?} is not an origin: it {fault}; write scheme://host or scheme://host:port")]
pub struct OriginError {
    raw: Box<str>,
    fault: Fault,
}

/// Refuses the request of a page that may not use this server.
///
/// A request without `Origin` passes, for it does not come from a page. A page passes if it is the
/// server's own, which is so if its host and port are those of `Host`, whether it was loaded by http
/// or https: a proxy may have ended TLS. Else its origin must be in `allowed`.
///
/// Whoever owns a name can point it at this server, and a page under that name then counts as the
/// server's own; what keeps such a page out is a token.
///
/// # Errors
/// [`Reason::BadOrigin`], also for `null` unless that is allowed, and for everything that cannot be
/// read.
pub fn check(headers: &HeaderMap, allowed: &[AllowedOrigin]) -> Result<(), Refusal> {
    let mut values = headers.get_all(ORIGIN).iter();
    let raw = match (values.next(), values.next()) {
        (None, _) => return Ok(()),
        (Some(value), None) => value.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => {
            let detail = "the request has more than one origin";
            return Err(Refusal::new(Reason::BadOrigin, detail));
        }
    };
    if raw == NULL && allowed.contains(&AllowedOrigin::Null) {
        return Ok(());
    }
    // The whole of it may be 16 KiB of somebody else's choice, too much for an answer or a log.
    let shown = raw.get(..SHOWN_BYTES_MAX).unwrap_or(raw);
    let origin = Origin::parse(raw).map_err(|fault| {
        let detail = format!("origin {shown:?} {fault}");
        Refusal::new(Reason::BadOrigin, detail)
    })?;
    let own = host(headers).is_ok_and(|host| origin.is_served_at(&host));
    if own || allowed.iter().any(|allowed| allowed.is(&origin)) {
        return Ok(());
    }
    let detail = format!("origin {shown:?} is neither the host of the request nor allowed");
    Err(Refusal::new(Reason::BadOrigin, detail))
}

/// Refuses a request that does not name exactly one host.
///
/// # Errors
/// [`Reason::BadRequest`].
pub fn check_one_host(headers: &HeaderMap) -> Result<(), Refusal> {
    host(headers).map(drop)
}

/// Refuses a request that calls this server by a name which is not an address of this machine alone,
/// nor one of `own`. Whoever owns a name can point it here, and then a page under that name counts as
/// the server's own for a browser; what such a page cannot do is to send another `Host`.
///
/// # Errors
/// [`Reason::BadHost`]; [`Reason::BadRequest`] when it cannot be read.
pub fn check_host(headers: &HeaderMap, own: &[IpAddr]) -> Result<(), Refusal> {
    let place = host(headers)?;
    if place.host.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    let address = place.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_ours = |address: IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || own.iter().any(|own| own.to_canonical() == address)
    };
    if address.is_ok_and(is_ours) {
        return Ok(());
    }
    let shown = place.host.get(..SHOWN_BYTES_MAX).unwrap_or(place.host);
    Err(Refusal::new(Reason::BadHost, format!("the host header says {shown:?}")))
}

/// Reads the one `Host` that a request must have.
pub(super) fn host(headers: &HeaderMap) -> Result<Place<'_>, Refusal> {
    let host = single(headers, &HOST)?;
    Place::parse(host.to_str().unwrap_or_default())
        .map_err(|fault| Refusal::new(Reason::BadRequest, format!("the host header {fault}")))
}

/// Finds a header that must be there exactly once.
pub(super) fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<&'h HeaderValue, Refusal> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let detail = format!("the request must have exactly one {name} header");
        return Err(Refusal::new(Reason::BadRequest, detail));
    };
    Ok(value)
}

/// How much of an origin is repeated to the peer.
const SHOWN_BYTES_MAX: usize = 128;

/// An `Origin` header.
struct Origin<'a> {
    scheme: &'a str,
    place: Place<'a>,
}

impl Origin<'_> {
    fn parse(raw: &str) -> Result<Origin<'_>, Fault> {
        let (scheme, place) = raw.split_once("://").ok_or(Fault::NoScheme)?;
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            || !scheme.bytes().all(letters)
        {
            return Err(Fault::Scheme);
        }
        let place = Place::parse(place)?;
        Ok(Origin { scheme, place })
    }

    fn port(&self) -> Option<u16> {
        self.place.port.or(default_port(self.scheme))
    }

    fn is_served_at(&self, host: &Place<'_>) -> bool {
        let web = ["http", "https"];
        web.iter().any(|web| web.eq_ignore_ascii_case(self.scheme))
            && host.host.eq_ignore_ascii_case(self.place.host)
            && host.port.or(default_port(self.scheme)) == self.port()
    }
}

/// A host and, if it is written, a port.
pub(super) struct Place<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl Place<'_> {
    fn parse(raw: &str) -> Result<Place<'_>, Fault> {
        if raw.contains('@') {
            return Err(Fault::User);
        }
        if raw.contains(['/', '?', '#']) {
            return Err(Fault::Path);
        }
        // The colons of an IPv6 address lie before its bracket.
        let (host, port) = match raw.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(parse_port(port)?)),
            _ => (raw, None),
        };
        let valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(is_host_byte),
        };
        if !valid {
            return Err(Fault::Host);
        }
        Ok(Place { host, port })
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

fn parse_port(raw: &str) -> Result<u16, Fault> {
    // `u16::from_str` would take a sign.
    if !raw.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::Port);
    }
    raw.parse().map_err(|_| Fault::Port)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        scheme if scheme.eq_ignore_ascii_case("http") => Some(80),
        scheme if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

/// What is wrong with an origin or a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("has a wildcard")]
    Wildcard,
    #[error("has no scheme")]
    NoScheme,
    #[error("has a scheme that is not valid")]
    Scheme,
    #[error("has user information")]
    User,
    #[error("has a path")]
    Path,
    #[error("has a host that is not valid")]
    Host,
    #[error("has a port that is not a number up to 65535")]
    Port,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a request with these origins at this host, where one foreign origin is allowed.
    fn judge(origins: &[&[u8]], host: &str) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_bytes(origin).unwrap());
        }
        let allowed = [
            AllowedOrigin::parse("https://Partner.example:8443").unwrap(),
            AllowedOrigin::parse("capacitor://localhost").unwrap(),
        ];
        check(&headers, &allowed)
    }

    #[test]
    fn the_server_itself_and_listed_origins_pass() {
        let rows = [
            ("https://example.com", "example.com"),
            ("http://example.com", "example.com"),
            ("HTTPS://EXAMPLE.com", "Example.COM"),
            ("https://example.com", "example.com:443"),
            ("https://example.com:443", "example.com"),
            ("http://example.com", "example.com:80"),
            ("http://example.com:80", "example.com"),
            ("http://example.com:7600", "example.com:7600"),
            ("https://example.com:7600", "example.com:7600"),
            ("http://localhost:7600", "localhost:7600"),
            ("http://127.0.0.1:7600", "127.0.0.1:7600"),
            ("http://[::1]:7600", "[::1]:7600"),
            ("http://[2001:DB8::1]", "[2001:db8::1]"),
            ("https://xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("http://example.com.", "example.com."),
            ("http://my_host", "my_host"),
            ("https://partner.example:8443", "example.com"),
            ("https://PARTNER.example:8443", "example.com"),
            ("capacitor://localhost", "example.com"),
        ];
        for (origin, host) in rows {
            assert_eq!(judge(&[origin.as_bytes()], host), Ok(()), "{origin} at {host}");
        }
        assert_eq!(judge(&[], "example.com"), Ok(()));
    }

    #[test]
    fn pages_without_an_origin_are_let_in_only_where_that_is_said() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("example.com"));
        headers.insert(ORIGIN, HeaderValue::from_static("null"));
        let of = |raw| AllowedOrigin::parse(raw).unwrap();
        let others = [of("https://null"), of("http://localhost")];
        assert_eq!(check(&headers, &others).map_err(|it| it.reason), Err(Reason::BadOrigin));
        assert_eq!(check(&headers, &[of("null")]), Ok(()));
        assert_eq!(of("null").to_string(), "null");
        headers.insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert_eq!(check(&headers, &[of("null")]).map_err(|it| it.reason), Err(Reason::BadOrigin));
    }

    #[test]
    fn foreign_origins_are_refused() {
        let rows = [
            ("https://evil-example.com", "example.com"),
            ("https://example.com.evil", "example.com"),
            ("https://example.com.evil.net", "example.com"),
            ("https://evil.net", "example.com"),
            ("https://www.example.com", "example.com"),
            ("https://example.com", "www.example.com"),
            ("https://example.co", "example.com"),
            ("https://xample.com", "example.com"),
            ("https://example.com.", "example.com"),
            ("https://example.com", "example.com."),
            ("https://b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("https://xn--exmple-cua.com", "example.com"),
            ("https://example.com:8080", "example.com"),
            ("https://example.com", "example.com:8080"),
            ("https://example.com:80", "example.com"),
            ("http://example.com:443", "example.com"),
            ("http://example.com", "example.com:443"),
            ("https://example.com", "example.com:80"),
            ("http://localhost:7600", "127.0.0.1:7600"),
            ("http://localhost:5173", "localhost:7600"),
            ("http://[::1]:7600", "[::2]:7600"),
            ("ws://example.com", "example.com"),
            ("ftp://example.com", "example.com"),
            ("chrome-extension://example.com", "example.com"),
            ("https://partner.example", "example.com"),
            ("http://partner.example:8443", "example.com"),
            ("https://partner.example:8444", "example.com"),
            ("https://a.partner.example:8443", "example.com"),
            ("capacitor://localhost:80", "example.com"),
            ("http://localhost", "example.com"),
            ("https://example.com", "example.com, evil.net"),
        ];
        for (origin, host) in rows {
            let refusal = judge(&[origin.as_bytes()], host).expect_err(origin);
            assert_eq!(refusal.reason, Reason::BadOrigin, "{origin} at {host}");
        }
    }

    #[test]
    fn what_is_not_one_origin_is_refused() {
        let rows: [(&[u8], &str); 24] = [
            (b"", "has no scheme"),
            (b"null", "has no scheme"),
            (b"*", "has no scheme"),
            (b"example.com", "has no scheme"),
            (b"//example.com", "has no scheme"),
            (b"https:example.com", "has no scheme"),
            (b"https:/example.com", "has no scheme"),
            (b"://example.com", "has a scheme that is not valid"),
            (b"1http://example.com", "has a scheme that is not valid"),
            (b" http://example.com", "has a scheme that is not valid"),
            (b"file://", "has a host that is not valid"),
            (b"file:///etc", "has a path"),
            (b"https://", "has a host that is not valid"),
            (b"https://*", "has a host that is not valid"),
            (b"https://exa mple.com", "has a host that is not valid"),
            (b"https://example.com https://evil.net", "has a path"),
            (b"https://[::1", "has a host that is not valid"),
            (b"https://[example.com]", "has a host that is not valid"),
            (b"https://example.com/", "has a path"),
            (b"https://example.com?x", "has a path"),
            (b"https://me@example.com", "has user information"),
            (b"https://example.com@evil.net", "has user information"),
            (b"https://example.com:", "has a port that is not a number up to 65535"),
            (b"https://example.com:+443", "has a port that is not a number up to 65535"),
        ];
        for (origin, fault) in rows {
            let refusal = judge(&[origin], "example.com").unwrap_err();
            assert_eq!(refusal.reason, Reason::BadOrigin);
            let detail = refusal.detail.unwrap();
            assert!(detail.ends_with(fault), "{detail}");
        }
        assert!(judge(&[b"https://example.com:65536"], "example.com").is_err());
        assert!(judge(&[b"https://example.com\xFF"], "example.com").is_err());
        assert!(judge(&[&b"https://example.com"[..]; 2], "example.com").is_err());
    }

    #[test]
    fn a_long_origin_is_not_repeated_in_full() {
        let long = format!("https://{}.example", "a".repeat(10_000));
        let detail = judge(&[long.as_bytes()], "example.com").unwrap_err().detail;
        assert!(detail.unwrap().len() < 256);
    }

    #[test]
    fn an_allowed_origin_is_written_as_browsers_write_it() {
        for (raw, shown) in [
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.com:443", "https://example.com"),
            ("http://[::1]:7600", "http://[::1]:7600"),
            ("tauri://localhost", "tauri://localhost"),
        ] {
            assert_eq!(AllowedOrigin::parse(raw).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_bad_allowed_origin_is_refused_with_what_to_write() {
        let rows = [
            ("*", "has a wildcard"),
            ("https://*.example.com", "has a wildcard"),
            ("nil", "has no scheme"),
            ("example.com", "has no scheme"),
            ("https://example.com/", "has a path"),
            ("https://me@example.com", "has user information"),
            ("https://b\u{fc}cher.example", "has a host that is not valid"),
            ("https://", "has a host that is not valid"),
            ("https://example.com:70000", "has a port that is not a number up to 65535"),
        ];
        for (raw, fault) in rows {
            let advice = "write scheme://host or scheme://host:port";
            let expected = format!("{raw:?} is not an origin: it {fault}; {advice}");
            assert_eq!(AllowedOrigin::parse(raw).unwrap_err().to_string(), expected);
        }
    }
}
