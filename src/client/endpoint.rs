//! The address of a broker: `ws://127.0.0.1:7600/ws`.
//! # Invariants: an [`Endpoint`] exists only if it is valid.
//! # Not here: connecting.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Longest address, in bytes.
const ENDPOINT_BYTES_MAX: usize = 2048;

/// Where a broker is and how to talk to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// How to talk to it.
    pub transport: Transport,
    /// Whether others can read that on the way.
    pub security: Security,
    /// A name or an IP address, IPv6 without its brackets.
    pub host: String,
    /// The port; without one 80, with TLS 443, or 7601 for TCP.
    pub port: u16,
    /// The path and query of an HTTP request; without one `/ws` or `/v1/publish`. Empty for TCP.
    pub path: String,
}

/// How to talk to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Length-delimited protobuf over TCP.
    Tcp,
    /// The publish API.
    Http,
}

/// Whether others can read on the way what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// They can.
    Plain,
    /// They cannot.
    Tls,
}

impl Security {
    const ALL: [Security; 2] = [Security::Plain, Security::Tls];
}

impl Transport {
    /// Every transport.
    pub const ALL: [Transport; 3] = [Transport::WebSocket, Transport::Tcp, Transport::Http];

    /// How the address begins.
    pub const fn scheme(self, security: Security) -> &'static str {
        match (self, security) {
            (Transport::WebSocket, Security::Plain) => "ws",
            (Transport::WebSocket, Security::Tls) => "wss",
            (Transport::Tcp, Security::Plain) => "tcp",
            (Transport::Tcp, Security::Tls) => "tls",
            (Transport::Http, Security::Plain) => "http",
            (Transport::Http, Security::Tls) => "https",
        }
    }

    /// What an address that begins so means.
    fn of_scheme(scheme: &str) -> Option<(Transport, Security)> {
        let all = Security::ALL.into_iter().flat_map(|it| Transport::ALL.map(|all| (all, it)));
        all.into_iter().find(|(transport, security)| transport.scheme(*security) == scheme)
    }

    const fn port(self, security: Security) -> u16 {
        match (self, security) {
            (Transport::Tcp, _) => 7601,
            (_, Security::Plain) => 80,
            (_, Security::Tls) => 443,
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Transport::WebSocket => "/ws",
            Transport::Tcp => "",
            Transport::Http => "/v1/publish",
        }
    }
}

/// Why a text is not the address of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadEndpoint {
    /// Another scheme, or none.
    #[error("it begins with none of ws://, wss://, tcp://, tls://, http://, https://")]
    Scheme,
    /// The host is missing or has characters that no host has.
    #[error("the host is not valid")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A path where none is allowed, or with characters that no path has.
    #[error("the path is not valid")]
    Path,
    /// More text than any address needs.
    #[error("it is longer than {ENDPOINT_BYTES_MAX} bytes")]
    TooLong,
}

impl Endpoint {
    /// The host and port as a `Host` header and a connection take them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.transport.scheme(self.security);
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, BadEndpoint> {
        if text.len() > ENDPOINT_BYTES_MAX {
            return Err(BadEndpoint::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(BadEndpoint::Scheme)?;
        let (transport, security) = Transport::of_scheme(scheme).ok_or(BadEndpoint::Scheme)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = parse_authority(authority)?;
        Ok(Endpoint {
            transport,
            security,
            host: host.to_owned(),
            port: port.unwrap_or(transport.port(security)),
            path: parse_path(transport, path)?,
        })
    }
}

fn parse_authority(authority: &str) -> Result<(&str, Option<u16>), BadEndpoint> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(BadEndpoint::Host)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| BadEndpoint::Host)?;
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(BadEndpoint::Host),
            some => some,
        };
        (host, port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(BadEndpoint::Host);
        }
        (host, port)
    };
    let Some(port) = port else {
        return Ok((host, None));
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadEndpoint::Port);
    }
    match port.parse() {
        Ok(0) | Err(_) => Err(BadEndpoint::Port),
        Ok(port) => Ok((host, Some(port))),
    }
}

fn parse_path(transport: Transport, path: &str) -> Result<String, BadEndpoint> {
    // It goes into a request line, where a space or a line break would begin something else.
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(BadEndpoint::Path);
    }
    match (transport, path) {
        (_, "" | "/") => Ok(transport.path().to_owned()),
        (Transport::Tcp, _) => Err(BadEndpoint::Path),
        (_, query) if query.starts_with('?') => Ok(format!("{}{query}", transport.path())),
        (_, path) => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_completed_with_what_it_leaves_out() {
        let cases = [
            ("ws://127.0.0.1:7600/ws", "ws://127.0.0.1:7600/ws"),
            ("ws://127.0.0.1:7600", "ws://127.0.0.1:7600/ws"),
            ("ws://example.com/", "ws://example.com:80/ws"),
            ("ws://example.com/live/feed?x=1", "ws://example.com:80/live/feed?x=1"),
            ("ws://example.com?x=1", "ws://example.com:80/ws?x=1"),
            ("tcp://localhost", "tcp://localhost:7601"),
            ("tcp://[::1]:9", "tcp://[::1]:9"),
            ("http://[::1]", "http://[::1]:80/v1/publish"),
            ("wss://example.com", "wss://example.com:443/ws"),
            ("https://example.com:8443/", "https://example.com:8443/v1/publish"),
            ("tls://example.com", "tls://example.com:7601"),
        ];
        for (text, expected) in cases {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.to_string(), expected);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint), "{text}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_for_its_own_reason() {
        let cases = [
            ("", BadEndpoint::Scheme),
            ("127.0.0.1:7600", BadEndpoint::Scheme),
            ("ftp://a", BadEndpoint::Scheme),
            ("mqtts://a", BadEndpoint::Scheme),
            ("tls://a/b", BadEndpoint::Path),
            ("ws://", BadEndpoint::Host),
            ("ws://user@a", BadEndpoint::Host),
            ("ws://a b", BadEndpoint::Host),
            ("ws://[::1", BadEndpoint::Host),
            ("ws://[::1]7600", BadEndpoint::Host),
            ("ws://[a.b]", BadEndpoint::Host),
            ("ws://a:", BadEndpoint::Port),
            ("ws://a:0", BadEndpoint::Port),
            ("ws://a:+1", BadEndpoint::Port),
            ("ws://a:65536", BadEndpoint::Port),
            ("ws://::1", BadEndpoint::Host),
            ("ws://a/b c", BadEndpoint::Path),
            ("ws://a/b\r\nX: y", BadEndpoint::Path),
            ("ws://a/#b", BadEndpoint::Path),
            ("tcp://a/b", BadEndpoint::Path),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Endpoint>(), Err(expected), "{text}");
        }
        let long = format!("ws://{}", "a".repeat(ENDPOINT_BYTES_MAX));
        assert_eq!(long.parse::<Endpoint>(), Err(BadEndpoint::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in "(ws|tcp|http|wss|tls|https)://\\PC{0,20}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
        }
    }
}
