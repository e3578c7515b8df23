//! The extensions that a client offers, and the one that is answered: permessage-deflate, RFC 7692.
//! # Invariants: of an offer only what is in our own table is answered; every message stands alone
//! in both directions, so no connection has a compressor.
//! # Not here: compressing (`dialect`), the bit that marks a compressed message (`head`).

use crate::reason::{Reason, Refusal};
use hyper::HeaderMap;
use hyper::header::SEC_WEBSOCKET_EXTENSIONS;

/// What messages of a connection may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Compressed one by one, in both directions.
    Deflate,
}

/// The answer to every offer that leaves the window of the server alone.
///
/// Without context takeover a message is compressed without the ones before it: once for all
/// subscribers, with one compressor per thread. With it, each connection would need a compressor
/// (312 KiB measured) and each message a compression per subscriber.
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The answer to an offer that names the largest window, which has to be repeated.
const ANSWER_WITH_WINDOW: &str = "permessage-deflate; server_no_context_takeover; \
     client_no_context_takeover; server_max_window_bits=15";

/// Reads the offers of a request and returns the answer to the first that is acceptable.
///
/// # Errors
/// [`Reason::BadRequest`] if they are not a list of extensions: RFC 6455 section 9.1 demands that
/// such a handshake fails. An offer that is well-formed and not acceptable, on the other hand, is
/// passed over.
pub(super) fn negotiate(headers: &HeaderMap) -> Result<Option<&'static str>, Refusal> {
    let mut answer = None;
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        let mut scanner = Scanner { bytes: value.as_bytes(), at: 0 };
        let found = scanner.offers().map_err(|Malformed { at }| {
            let detail = format!(
                "the sec-websocket-extensions header is not a list of extensions from byte {at} on"
            );
            Refusal::new(Reason::BadRequest, detail)
        })?;
        answer = answer.or(found);
    }
    Ok(answer)
}

/// One offer, as far as it has been read.
struct Offer {
    acceptable: bool,
    /// Parameters that were there, one bit each.
    seen: u8,
    window: bool,
}

impl Offer {
    fn new(name: &[u8]) -> Offer {
        Offer { acceptable: name == b"permessage-deflate", seen: 0, window: false }
    }

    fn add(&mut self, name: &[u8], value: Option<&[u8]>) {
        let (bit, acceptable) = match (name, value) {
            (b"server_no_context_takeover", value) => (1, value.is_none()),
            (b"client_no_context_takeover", value) => (2, value.is_none()),
            // A smaller window would need frames of its own.
            (b"server_max_window_bits", value) => (4, value == Some(b"15")),
            // The client says what it can do if it is told to; it is not.
            (b"client_max_window_bits", value) => (8, value.is_none_or(is_window)),
            _ => (0, false),
        };
        self.acceptable &= acceptable && self.seen & bit == 0;
        self.seen |= bit;
        self.window = self.seen & 4 != 0;
    }

    fn answer(&self) -> Option<&'static str> {
        let answer = if self.window { ANSWER_WITH_WINDOW } else { ANSWER };
        self.acceptable.then_some(answer)
    }
}

/// Whether this is the size of a window, RFC 7692 section 7.1.2.
fn is_window(value: &[u8]) -> bool {
    matches!(value, [b'8' | b'9'] | [b'1', b'0'..=b'5'])
}

/// A header value has a byte where it has no place.
struct Malformed {
    at: usize,
}

/// Reads a header value from left to right; its length is bounded by that of a request's head.
struct Scanner<'h> {
    bytes: &'h [u8],
    at: usize,
}

impl<'h> Scanner<'h> {
    /// Reads a list of extensions to its end, and answers the first acceptable one.
    fn offers(&mut self) -> Result<Option<&'static str>, Malformed> {
        let mut answer = None;
        loop {
            // Lists may have empty places, RFC 9110 section 5.6.1.
            while self.take(b',') {}
            if self.at == self.bytes.len() {
                return Ok(answer);
            }
            let offer = self.offer().filter(|_| matches!(self.peek(), None | Some(b',')));
            let offer = offer.ok_or(Malformed { at: self.at })?;
            answer = answer.or_else(|| offer.answer());
        }
    }

    fn offer(&mut self) -> Option<Offer> {
        let mut offer = Offer::new(self.token()?);
        while self.take(b';') {
            let name = self.token()?;
            if !self.take(b'=') {
                offer.add(name, None);
            } else if self.take(b'"') {
                offer.add(name, Some(&self.quoted()?));
            } else {
                offer.add(name, Some(self.token()?));
            }
        }
        Some(offer)
    }

    /// The rest of a quoted string, which has to be a token once its escapes are resolved.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut token = Vec::new();
        loop {
            let mut byte = self.peek()?;
            if byte == b'"' {
                break;
            }
            if byte == b'\\' {
                self.at += 1;
                byte = self.peek()?;
            }
            if !is_token_byte(byte) {
                return None;
            }
            token.push(byte);
            self.at += 1;
        }
        self.at += 1;
        self.skip_spaces();
        (!token.is_empty()).then_some(token)
    }

    fn token(&mut self) -> Option<&'h [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(rest.len());
        self.at += length;
        self.skip_spaces();
        rest.get(..length).filter(|token| !token.is_empty())
    }

    /// Takes one byte, and the spaces around it, if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_spaces();
        let next = self.peek() == Some(byte);
        if next {
            self.at += 1;
            self.skip_spaces();
        }
        next
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

/// Whether a byte may be in a token, RFC 9110 section 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn say(values: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_bytes(value).unwrap());
        }
        match negotiate(&headers) {
            Ok(None) => "none".to_owned(),
            Ok(Some(ANSWER)) => "yes".to_owned(),
            Ok(Some(ANSWER_WITH_WINDOW)) => "yes, 15".to_owned(),
            Ok(Some(other)) => panic!("{other}"),
            Err(refusal) => {
                let words = "the sec-websocket-extensions header is not a list of extensions from ";
                let detail = refusal.detail.unwrap();
                format!("{} {}", refusal.reason.status(), detail.strip_prefix(words).unwrap())
            }
        }
    }

    fn check(rows: &[(&str, &str)]) {
        for (offer, expected) in rows {
            assert_eq!(say(&[offer.as_bytes()]), *expected, "{offer:?}");
        }
    }

    #[test]
    fn the_answers_say_that_every_message_stands_alone() {
        for answer in [ANSWER, ANSWER_WITH_WINDOW] {
            assert!(answer.starts_with(
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            ));
        }
        assert!(
            ANSWER_WITH_WINDOW.ends_with("client_no_context_takeover; server_max_window_bits=15")
        );
    }

    #[test]
    fn what_browsers_and_others_offer_is_accepted() {
        check(&[
            ("permessage-deflate", "yes"),
            ("permessage-deflate; client_max_window_bits", "yes"),
            ("permessage-deflate;client_max_window_bits", "yes"),
            ("permessage-deflate ; client_max_window_bits = 8", "yes"),
            ("permessage-deflate; client_max_window_bits=\"1\\0\"", "yes"),
            ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", "yes"),
            ("permessage-deflate; server_max_window_bits=15", "yes, 15"),
            (
                "permessage-deflate; server_max_window_bits=\"15\"; client_max_window_bits",
                "yes, 15",
            ),
            (" permessage-deflate\t", "yes"),
        ]);
    }

    #[test]
    fn an_offer_that_is_not_acceptable_is_passed_over() {
        check(&[
            ("", "none"),
            (", ,", "none"),
            ("x-webkit-deflate-frame", "none"),
            ("Permessage-Deflate", "none"),
            ("permessage-deflate; unknown", "none"),
            ("permessage-deflate; unknown=1", "none"),
            ("permessage-deflate; Client_max_window_bits", "none"),
            ("permessage-deflate; server_max_window_bits", "none"),
            ("permessage-deflate; server_max_window_bits=14", "none"),
            ("permessage-deflate; server_max_window_bits=8", "none"),
            ("permessage-deflate; server_max_window_bits=16", "none"),
            ("permessage-deflate; server_max_window_bits=015", "none"),
            ("permessage-deflate; client_max_window_bits=7", "none"),
            ("permessage-deflate; client_max_window_bits=16", "none"),
            ("permessage-deflate; client_max_window_bits=08", "none"),
            ("permessage-deflate; server_no_context_takeover=1", "none"),
            ("permessage-deflate; client_no_context_takeover=true", "none"),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", "none"),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", "none"),
        ]);
    }

    #[test]
    fn the_first_acceptable_offer_is_answered() {
        check(&[
            ("mux; x=1; y=\"z\", permessage-deflate", "yes"),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", "yes"),
            ("permessage-deflate, permessage-deflate; server_max_window_bits=15", "yes"),
            ("permessage-deflate; server_max_window_bits=15,, permessage-deflate", "yes, 15"),
            ("permessage-deflate; server_max_window_bits=9, mux", "none"),
        ]);
        let rows: [(&[&[u8]], &str); 3] = [
            (&[b"mux", b"permessage-deflate"], "yes"),
            (&[b"permessage-deflate; server_max_window_bits=15", b"permessage-deflate"], "yes, 15"),
            (&[b"permessage-deflate", b"a b"], "400 byte 2 on"),
        ];
        for (values, expected) in rows {
            assert_eq!(say(values), expected);
        }
    }

    #[test]
    fn what_is_not_a_list_of_extensions_fails_the_handshake() {
        check(&[
            ("permessage-deflate;", "400 byte 19 on"),
            ("; client_max_window_bits", "400 byte 0 on"),
            ("permessage-deflate client_max_window_bits", "400 byte 19 on"),
            ("permessage-deflate; client_max_window_bits=", "400 byte 43 on"),
            ("permessage-deflate; =15", "400 byte 20 on"),
            ("permessage-deflate; a=1=2", "400 byte 23 on"),
            ("permessage-deflate; a=\"\"", "400 byte 24 on"),
            ("permessage-deflate; a=\"15", "400 byte 25 on"),
            ("permessage-deflate; a=\"1 5\"", "400 byte 24 on"),
            ("permessage-deflate; a=\"15\\", "400 byte 26 on"),
            ("permessage-deflate, (x)", "400 byte 20 on"),
            ("\"permessage-deflate\"", "400 byte 0 on"),
            ("permessage-deflate, mux, a b", "400 byte 27 on"),
        ]);
        assert_eq!(say(&[b"permessage-deflate; caf\xc3\xa9"]), "400 byte 23 on");
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused_at_a_byte_of_it(
            value in "[ \t,;=\"\\\\a1x]{0,40}|(permessage-deflate|[,; =15\"]|client_max_window_bits){0,9}",
        ) {
            let mut scanner = Scanner { bytes: value.as_bytes(), at: 0 };
            let read = scanner.offers().is_ok();
            prop_assert!(scanner.at <= value.len());
            prop_assert!(!read || scanner.at == value.len());
        }
    }
}
