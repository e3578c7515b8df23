//! The upgrade of an HTTP request to a WebSocket: accepted with a dialect, or refused with a reason.
//! Owns every demand of RFC 6455 section 4.2 on the request, and the choice of subprotocol and
//! extension.
//! # Invariants: nothing that a peer offers is echoed except what is in a table of our own; a page of
//! a foreign origin is refused before it learns what is spoken here.
//! # Not here: paths, tokens, connection limits (`http`), and the frames that follow (`decoder`).

use super::extensions::{self, Compression, is_token_byte};
use super::origin::{self, AllowedOrigin, single};
use crate::dialect::{Dialect, Token};
use crate::reason::{Reason, Refusal};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use fastwebsockets::upgrade::{is_upgrade_request, upgrade};
use hyper::header::{
    CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
};
use hyper::{HeaderMap, Method, Request, Response, Version};

/// What a configuration decides about upgrades.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Origins whose pages may connect beside the server's own. Default none. The pages of a listed
    /// origin act with the cookies and from the network of whoever visits them.
    pub origins: Vec<AllowedOrigin>,
    /// What messages may be, if the client offers it too. Default as they are. Whoever is answered
    /// an extension may have what it sends inflated, so whoever has shown no token where one is
    /// needed is answered none.
    pub compression: Compression,
}

/// What is spoken on a connection from its upgrade on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// How commands and events are spelled.
    pub dialect: Dialect,
    /// What messages may be.
    pub compression: Compression,
}

/// An upgrade that is accepted.
#[derive(Debug)]
pub struct Accepted {
    /// What is spoken on the connection.
    pub spoken: Spoken,
    /// The subprotocol that was chosen; `None` if none was offered.
    pub subprotocol: Option<&'static str>,
    /// The 101 that says so; its body is empty.
    pub response: Response<()>,
}

/// An upgrade that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why; its reason has the status.
    pub refusal: Refusal,
    /// Headers that HTTP wants in an answer of that status.
    pub headers: &'static [(&'static str, &'static str)],
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let headers: &[_] = match refusal.reason {
            Reason::UpgradeRequired => &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
            ],
            Reason::MethodNotAllowed => &[("allow", "GET")],
            Reason::BadToken | Reason::TokenExpired | Reason::Unauthenticated => {
                &[("www-authenticate", "Bearer")]
            }
            Reason::TooManyFromAddress => &[("retry-after", "1")],
            _ => &[],
        };
        Refused { refusal, headers }
    }
}

/// Decides about a request that has reached the WebSocket path.
///
/// # Errors
/// [`Refused`] with one of [`Reason::MethodNotAllowed`], [`Reason::UpgradeRequired`] (the request
/// is not for a WebSocket of version 13), [`Reason::BadRequest`] (it is, but not a valid one),
/// [`Reason::BadOrigin`] and [`Reason::BadSubprotocol`].
pub fn judge<B>(request: &Request<B>, policy: &Policy) -> Result<Accepted, Refused> {
    let headers = request.headers();
    check_request(request)?;
    check_body(headers)?;
    let key = read_key(headers)?;
    origin::check(headers, &policy.origins)?;
    let (dialect, subprotocol) = choose(headers)?;
    let offered = extensions::negotiate(headers)?;
    let extension = offered.filter(|_| policy.compression == Compression::Deflate);
    let compression = extension.map_or(Compression::None, |_| Compression::Deflate);
    let response = switch(
        key,
        &[(SEC_WEBSOCKET_PROTOCOL, subprotocol), (SEC_WEBSOCKET_EXTENSIONS, extension)],
    )?;
    Ok(Accepted { spoken: Spoken { dialect, compression }, subprotocol, response })
}

fn check_request<B>(request: &Request<B>) -> Result<(), Refusal> {
    if request.method() != Method::GET {
        let detail = "a WebSocket begins with GET";
        return Err(Refusal::new(Reason::MethodNotAllowed, detail));
    }
    if request.version() != Version::HTTP_11 {
        let detail = format!("the request is {:?}, not HTTP/1.1", request.version());
        return Err(Refusal::new(Reason::BadRequest, detail));
    }
    origin::host(request.headers())?;
    if !is_upgrade_request(request) {
        let detail = "the request lacks `connection: upgrade` or `upgrade: websocket`";
        return Err(Refusal::new(Reason::UpgradeRequired, detail));
    }
    let version = single(request.headers(), &SEC_WEBSOCKET_VERSION);
    if !version.is_ok_and(|version| version == "13") {
        let detail = "the request needs one sec-websocket-version header, which is 13";
        return Err(Refusal::new(Reason::UpgradeRequired, detail));
    }
    Ok(())
}

/// Refuses a body: a server and a proxy that disagree on where it ends can be made to read it as
/// another request.
///
/// # Errors
/// [`Reason::BadRequest`].
pub fn check_body(headers: &HeaderMap) -> Result<(), Refusal> {
    let length = headers.get_all(CONTENT_LENGTH).iter().any(|it| it != "0");
    if length || headers.contains_key(TRANSFER_ENCODING) {
        let detail = "a request for a WebSocket or a stream of events has no body";
        return Err(Refusal::new(Reason::BadRequest, detail));
    }
    Ok(())
}

/// Finds the key, which is base64 of 16 bytes.
fn read_key(headers: &HeaderMap) -> Result<&HeaderValue, Refusal> {
    let key = single(headers, &SEC_WEBSOCKET_KEY)?;
    // 24 characters may hold up to 18 bytes.
    let mut bytes = [0; 18];
    if BASE64_STANDARD.decode_slice(key, &mut bytes) != Ok(16) {
        let detail = "the sec-websocket-key header is not base64 of 16 bytes";
        return Err(Refusal::new(Reason::BadRequest, detail));
    }
    Ok(key)
}

/// Most subprotocols that a client may offer.
const OFFERS_MAX: usize = 16;

/// Most bytes in which it may offer them; the longest token fits in base64.
const OFFER_BYTES_MAX: usize = 12 << 10;

/// What an offer begins with that carries a token, because a page can set no header of its own.
const TOKEN_PREFIX: &[u8] = b"fanfare.token.";

/// Chooses the first offered subprotocol that is spoken here; without an offer it is JSON.
///
/// Offers that carry a token are left aside. No offer is ever repeated: it may be a secret.
fn choose(headers: &HeaderMap) -> Result<(Dialect, Option<&'static str>), Refusal> {
    let mut names = read_offers(headers)?;
    names.retain(|name| !name.starts_with(TOKEN_PREFIX));
    if names.is_empty() {
        return Ok((Dialect::Json, None));
    }
    let Some((name, dialect)) = names.into_iter().find_map(find_dialect) else {
        let detail = format!("spoken are {}", Dialect::SUBPROTOCOLS.join(" and "));
        return Err(Refusal::new(Reason::BadSubprotocol, detail));
    };
    Ok((dialect, Some(name)))
}

/// The token that an offer carries, if one does.
///
/// # Errors
/// [`Reason::BadRequest`] where there are two, or one is not base64url of text.
pub fn offered_token(headers: &HeaderMap) -> Result<Option<Token>, Refusal> {
    let offers = read_offers(headers)?;
    let mut tokens = offers.into_iter().filter_map(|offer| offer.strip_prefix(TOKEN_PREFIX));
    let (first, second) = (tokens.next(), tokens.next());
    if second.is_some() {
        let detail = "more than one subprotocol carries a token";
        return Err(Refusal::new(Reason::BadRequest, detail));
    }
    let read = |raw| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(raw).ok()?;
        String::from_utf8(bytes).ok().map(Token::new)
    };
    let bad = || {
        let detail = "the subprotocol that carries a token is not base64url of it without padding";
        Refusal::new(Reason::BadRequest, detail)
    };
    first.map(|raw| read(raw).ok_or_else(bad)).transpose()
}

/// Reads all offered subprotocols, in order; they may be spread over several headers.
fn read_offers(headers: &HeaderMap) -> Result<Vec<&[u8]>, Refusal> {
    let bad = |detail: String| Err(Refusal::new(Reason::BadRequest, detail));
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let bytes: usize = values.iter().map(HeaderValue::len).sum();
    if bytes > OFFER_BYTES_MAX {
        return bad(format!("subprotocols are {bytes} bytes, the limit is {OFFER_BYTES_MAX}"));
    }
    let offers: Vec<&[u8]> = values
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|offer| !offer.is_empty())
        .collect();
    if offers.len() > OFFERS_MAX {
        let count = offers.len();
        return bad(format!("{count} subprotocols are offered, the limit is {OFFERS_MAX}"));
    }
    let mut bytes = offers.iter().copied().flatten();
    match bytes.find(|byte| !is_token_byte(**byte)) {
        Some(byte) => {
            bad(format!("a subprotocol has the byte {byte:#04x}, which no name may have"))
        }
        None => Ok(offers),
    }
}

fn find_dialect(offer: &[u8]) -> Option<(&'static str, Dialect)> {
    let dialects = [Dialect::Json, Dialect::Proto];
    let mut spoken = Dialect::SUBPROTOCOLS.into_iter().zip(dialects);
    spoken.find(|(name, _)| name.as_bytes() == offer)
}

/// Writes the 101 with those headers that have a value.
fn switch(
    key: &HeaderValue,
    chosen: &[(HeaderName, Option<&'static str>)],
) -> Result<Response<()>, Refusal> {
    // All that `upgrade` looks at are these two headers, which have been checked.
    let mut checked = Request::new(());
    checked.headers_mut().insert(SEC_WEBSOCKET_KEY, key.clone());
    checked.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let (response, _) = upgrade(&mut checked)
        .map_err(|error| Refusal::new(Reason::BadRequest, error.to_string()))?;
    let mut response = response.map(|_| ());
    for (header, value) in chosen {
        if let Some(value) = value {
            response.headers_mut().insert(header, HeaderValue::from_static(value));
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;
    use hyper::header::{CONNECTION, HOST, ORIGIN, UPGRADE};

    /// The request of RFC 6455 section 1.2 without subprotocols.
    fn request() -> Request<()> {
        Request::builder()
            .uri("/ws")
            .header(HOST, "server.example.com")
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "Upgrade")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .header(ORIGIN, "http://server.example.com")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .body(())
            .unwrap()
    }

    fn offering(offers: &[&str]) -> Request<()> {
        let mut request = request();
        for offer in offers {
            let value = HeaderValue::from_bytes(offer.as_bytes()).unwrap();
            request.headers_mut().append(SEC_WEBSOCKET_PROTOCOL, value);
        }
        request
    }

    fn say(request: &Request<()>) -> String {
        match judge(request, &Policy::default()) {
            Ok(accepted) => format!("{:?} {:?}", accepted.spoken.dialect, accepted.subprotocol),
            Err(Refused { refusal, .. }) => {
                let detail = refusal.detail.unwrap_or_default();
                format!("{} {detail}", refusal.reason.status())
            }
        }
    }

    #[test]
    fn the_sample_of_rfc_6455_is_accepted_with_its_accept_key() {
        let accepted = judge(&request(), &Policy::default()).unwrap();
        assert_eq!(accepted.spoken.dialect, Dialect::Json);
        let response = accepted.response;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut headers: Vec<_> = response.headers().iter().collect();
        headers.sort_by_key(|(name, _)| name.as_str());
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected = [
            ("connection", "upgrade"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("upgrade", "websocket"),
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_a_browser_or_a_proxy_may_write_otherwise_is_accepted() {
        let rows = [
            (CONNECTION, "keep-alive, Upgrade"),
            (CONNECTION, "UPGRADE"),
            (UPGRADE, "WebSocket"),
            (UPGRADE, "h2c, websocket"),
            (CONTENT_LENGTH, "0"),
        ];
        for (name, value) in rows {
            let mut request = request();
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert(&name, value.clone());
            assert_eq!(say(&request), "Json None", "{name}: {value:?}");
        }
        let mut request = request();
        request.headers_mut().remove(ORIGIN);
        assert_eq!(say(&request), "Json None");
    }

    #[test]
    fn a_request_line_that_begins_no_websocket_is_refused() {
        for method in [Method::POST, Method::HEAD, Method::CONNECT, Method::OPTIONS] {
            let mut request = request();
            *request.method_mut() = method;
            assert_eq!(say(&request), "405 a WebSocket begins with GET");
        }
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let mut request = request();
            *request.version_mut() = version;
            let expected = format!("400 the request is {version:?}, not HTTP/1.1");
            assert_eq!(say(&request), expected);
        }
    }

    const HOSTS: &str = "400 the request must have exactly one host header";
    const KEYS: &str = "400 the request must have exactly one sec-websocket-key header";
    const KEY: &str = "400 the sec-websocket-key header is not base64 of 16 bytes";
    const TOKENS: &str = "426 the request lacks `connection: upgrade` or `upgrade: websocket`";
    const VERSION: &str = "426 the request needs one sec-websocket-version header, which is 13";
    const BODY: &str = "400 a request for a WebSocket or a stream of events has no body";

    #[test]
    fn a_header_that_is_wrong_is_refused() {
        let rows = [
            (HOST, "", "400 the host header has a host that is not valid"),
            (HOST, "a b", "400 the host header has a host that is not valid"),
            (HOST, "me@a.example", "400 the host header has user information"),
            (
                HOST,
                "a.example:x",
                "400 the host header has a port that is not a number up to 65535",
            ),
            (UPGRADE, "h2c", TOKENS),
            (UPGRADE, "websockets", TOKENS),
            (CONNECTION, "close", TOKENS),
            (CONNECTION, "keep-alive", TOKENS),
            (SEC_WEBSOCKET_VERSION, "8", VERSION),
            (SEC_WEBSOCKET_VERSION, "13, 8", VERSION),
            (SEC_WEBSOCKET_VERSION, "013", VERSION),
            (SEC_WEBSOCKET_KEY, "", KEY),
            (SEC_WEBSOCKET_KEY, "x", KEY),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ", KEY),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25j", KEY),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZSE=", KEY),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZSEhISEh", KEY),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25j_Q==", KEY),
            (CONTENT_LENGTH, "1", BODY),
            (CONTENT_LENGTH, "0, 5", BODY),
            (TRANSFER_ENCODING, "chunked", BODY),
        ];
        for (name, value, expected) in rows {
            let mut request = request();
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert(&name, value.clone());
            assert_eq!(say(&request), expected, "{name}: {value:?}");
        }
    }

    #[test]
    fn a_header_that_is_missing_or_there_twice_is_refused() {
        let rows = [
            (HOST, HOSTS, HOSTS),
            (SEC_WEBSOCKET_KEY, KEYS, KEYS),
            (SEC_WEBSOCKET_VERSION, VERSION, VERSION),
            (ORIGIN, "Json None", "403 the request has more than one origin"),
            (UPGRADE, TOKENS, "Json None"),
            (CONNECTION, TOKENS, "Json None"),
        ];
        for (name, missing, twice) in rows {
            let mut request = request();
            let value = request.headers_mut().remove(&name).unwrap();
            assert_eq!(say(&request), missing, "no {name}");
            request.headers_mut().append(&name, value.clone());
            request.headers_mut().append(&name, value);
            assert_eq!(say(&request), twice, "two {name}");
        }
    }

    #[test]
    fn a_foreign_page_is_refused_unless_its_origin_is_listed() {
        let mut request = request();
        let foreign = HeaderValue::from_static("https://app.example.net");
        request.headers_mut().insert(ORIGIN, foreign);
        let detail =
            "origin \"https://app.example.net\" is neither the host of the request nor allowed";
        assert_eq!(say(&request), format!("403 {detail}"));
        let policy = Policy {
            origins: vec![AllowedOrigin::parse("https://app.example.net").unwrap()],
            ..Policy::default()
        };
        assert!(judge(&request, &policy).is_ok());
    }

    #[test]
    fn a_refusal_has_the_headers_that_its_status_demands() {
        let mut old = request();
        let version = HeaderValue::from_static("8");
        old.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
        let refused = judge(&old, &Policy::default()).unwrap_err();
        assert_eq!(refused.refusal.reason, Reason::UpgradeRequired);
        assert!(refused.headers.contains(&("sec-websocket-version", "13")));
        assert!(refused.headers.contains(&("upgrade", "websocket")));
        let mut post = request();
        *post.method_mut() = Method::POST;
        let refused = judge(&post, &Policy::default()).unwrap_err();
        assert_eq!(refused.headers, [("allow", "GET")]);
        let refused = judge(&offering(&["soap"]), &Policy::default()).unwrap_err();
        assert_eq!(refused.headers, []);
    }

    #[test]
    fn the_first_offered_subprotocol_that_is_spoken_wins() {
        let json = "Json Some(\"fanfare.v1.json\")";
        let proto = "Proto Some(\"fanfare.v1.proto\")";
        let none = "400 spoken are fanfare.v1.json and fanfare.v1.proto";
        let rows: &[(&[&str], &str)] = &[
            (&[], "Json None"),
            (&[""], "Json None"),
            (&["fanfare.v1.json"], json),
            (&["fanfare.v1.proto"], proto),
            (&["fanfare.v1.proto, fanfare.v1.json"], proto),
            (&["fanfare.v1.json,fanfare.v1.proto"], json),
            (&["fanfare.v1.proto", "fanfare.v1.json"], proto),
            (&["mqtt, , soap ,\tfanfare.v1.proto"], proto),
            (&["fanfare.token.abc, fanfare.v1.proto"], proto),
            (&["fanfare.v1.json", "fanfare.token.abc"], json),
            (&["fanfare.token.abc"], "Json None"),
            (&["mqtt"], none),
            (&["mqtt, fanfare.token.abc"], none),
            (&["FANFARE.V1.JSON"], none),
            (&["fanfare.v1.json2"], none),
            (&["fanfare.v1"], none),
            (
                &["fanfare.v1.json;q=1"],
                "400 a subprotocol has the byte 0x3b, which no name may have",
            ),
            (&["fanfare v1"], "400 a subprotocol has the byte 0x20, which no name may have"),
            (
                &["fanfare.v1.json, \"mqtt\""],
                "400 a subprotocol has the byte 0x22, which no name may have",
            ),
            (
                &["fanfare.token.YQ==, fanfare.v1.json"],
                "400 a subprotocol has the byte 0x3d, which no name may have",
            ),
            (
                &["fanfare.v1.json, caf\u{e9}"],
                "400 a subprotocol has the byte 0xc3, which no name may have",
            ),
        ];
        for (offers, expected) in rows {
            assert_eq!(say(&offering(offers)), *expected, "{offers:?}");
        }
    }

    #[test]
    fn the_chosen_subprotocol_and_no_token_is_in_the_response() {
        let request = offering(&["fanfare.token.secret, mqtt, fanfare.v1.proto"]);
        let accepted = judge(&request, &Policy::default()).unwrap();
        let headers = accepted.response.headers();
        assert_eq!(headers.get(SEC_WEBSOCKET_PROTOCOL).unwrap(), "fanfare.v1.proto");
        assert!(!format!("{headers:?}").contains("secret"));
        let refused = judge(&offering(&["fanfare.token.secret=, mqtt"]), &Policy::default());
        assert!(!format!("{refused:?}").contains("secret"));
    }

    #[test]
    fn offers_are_bounded_in_number_and_bytes() {
        let many = |count: usize| vec!["fanfare.v1.json"; count].join(",");
        assert_eq!(say(&offering(&[&many(16)])), "Json Some(\"fanfare.v1.json\")");
        let expected = "400 17 subprotocols are offered, the limit is 16";
        assert_eq!(say(&offering(&[&many(17)])), expected);
        assert_eq!(say(&offering(&[&many(8), &many(9)])), expected);
        assert_eq!(say(&offering(&[&"x".repeat(12_288)])).get(..10), Some("400 spoken"));
        let expected = "400 subprotocols are 12289 bytes, the limit is 12288";
        assert_eq!(say(&offering(&[&"x".repeat(12_000), &"x".repeat(289)])), expected);
    }

    #[test]
    fn compression_is_answered_where_it_is_configured_and_offered() {
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let rows = [
            (Compression::None, None, None),
            (Compression::None, Some("permessage-deflate"), None),
            (Compression::Deflate, None, None),
            (Compression::Deflate, Some("mux, permessage-deflate"), Some(answer)),
            (Compression::Deflate, Some("permessage-deflate; x"), None),
        ];
        for (compression, offer, expected) in rows {
            let policy = Policy { compression, ..Policy::default() };
            let mut request = offering(&["fanfare.v1.proto"]);
            if let Some(offer) = offer {
                let offer = HeaderValue::from_static(offer);
                request.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, offer);
            }
            let accepted = judge(&request, &policy).unwrap();
            assert_eq!(accepted.spoken.compression == Compression::Deflate, expected.is_some());
            let headers = accepted.response.headers();
            let said = headers.get(SEC_WEBSOCKET_EXTENSIONS).map(|value| value.to_str().unwrap());
            assert_eq!(said, expected, "{compression:?} {offer:?}");
            assert_eq!(headers.get(SEC_WEBSOCKET_PROTOCOL).unwrap(), "fanfare.v1.proto");
        }
    }

    #[test]
    fn offers_of_extensions_that_cannot_be_read_are_refused_even_if_none_is_spoken() {
        let mut request = request();
        let offer = HeaderValue::from_static("permessage-deflate;");
        request.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, offer);
        let expected = "400 the sec-websocket-extensions header is not a list of extensions from \
                        byte 19 on";
        assert_eq!(say(&request), expected);
    }
}
