//! Bytes as they come from a socket: frames, a request for a WebSocket, messages on TCP.

use fanfare::dialect::Dialect;
use fanfare::ingress::Lengths;
use fanfare::ws::decoder::{Decoder, DecoderLimits, Incoming};
use fanfare::ws::extensions::Compression;
use fanfare::ws::handshake::{Policy, judge};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request, Version};

/// Small enough that a fuzzer reaches them.
const LIMITS: DecoderLimits = DecoderLimits { message_bytes_max: 2_000, fragments_max: 8 };

/// A stream of frames: what comes out is within the limits, and nothing comes behind an end. The
/// first byte says whether compression is negotiated.
pub fn frames(input: &[u8]) {
    let Some((first, stream)) = input.split_first() else { return };
    let said = decode(compression(*first), [stream]);
    let ends = said.iter().position(|said| matches!(said, Said::Closed(_) | Said::Refused(_)));
    assert!(ends.is_none_or(|at| at + 1 == said.len()), "something is said behind the end");
    for said in said {
        match said {
            Said::Text(bytes) => {
                assert!(bytes.len() <= LIMITS.message_bytes_max);
                assert!(std::str::from_utf8(&bytes).is_ok());
            }
            Said::Binary(bytes) => assert!(bytes.len() <= LIMITS.message_bytes_max),
            Said::Control(bytes) | Said::Closed(bytes) => assert!(bytes.len() <= 125),
            Said::Refused(code) => assert!(matches!(code, 1002 | 1007 | 1009)),
        }
    }
}

/// A stream of frames says the same however it is cut into reads. The first byte says whether
/// compression is negotiated, the next seven how the rest is cut.
pub fn stream_split(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(7) else { return };
    let whole = decode(compression(*first), [stream]);
    let mut sizes = sizes.iter().map(|size| usize::from(*size) + 1).cycle();
    let mut reads = Vec::new();
    let mut left = stream;
    while !left.is_empty() {
        let (read, later) = left.split_at(left.len().min(sizes.next().unwrap_or(1)));
        reads.push(read);
        left = later;
    }
    assert_eq!(decode(compression(*first), reads), whole);
}

fn compression(byte: u8) -> Compression {
    if byte & 1 == 1 { Compression::Deflate } else { Compression::None }
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Control(Vec<u8>),
    Closed(Vec<u8>),
    Refused(u16),
}

fn decode<'r>(compression: Compression, reads: impl IntoIterator<Item = &'r [u8]>) -> Vec<Said> {
    let mut decoder = Decoder::new(LIMITS, compression);
    let mut said = Vec::new();
    for read in reads {
        let mut read = read.to_vec();
        let mut input = &mut read[..];
        loop {
            said.push(match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Incoming::Text(text))) => Said::Text(text.into()),
                Ok(Some(Incoming::Binary(bytes))) => Said::Binary(bytes.into()),
                Ok(Some(Incoming::Ping(bytes) | Incoming::Pong(bytes))) => {
                    Said::Control(bytes.into())
                }
                Ok(Some(Incoming::Close(close))) => {
                    let close = close.map(|(code, reason)| (code.to_be_bytes(), reason));
                    Said::Closed(close.map_or(Vec::new(), |(code, reason)| {
                        [&code[..], reason.as_bytes()].concat()
                    }))
                }
                Err(violation) => Said::Refused(violation.reason().code()),
            });
        }
        assert!(input.is_empty(), "nothing more is said, yet {} bytes are left", input.len());
    }
    said
}

/// A request in lines, `method target version` and then headers: what is accepted is what RFC 6455
/// wants, and nothing that was offered is repeated but names of our own.
pub fn upgrade(input: &[u8]) {
    let Some(request) = read_request(input) else { return };
    let policy = Policy { compression: Compression::Deflate, ..Policy::default() };
    let Ok(accepted) = judge(&request, &policy) else { return };
    let headers = request.headers();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.version(), Version::HTTP_11);
    assert!(!headers.contains_key(TRANSFER_ENCODING));
    assert!(headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0"));
    assert_eq!(headers.get_all(HOST).iter().count(), 1);
    assert!(accepted.subprotocol.is_none_or(|name| Dialect::SUBPROTOCOLS.contains(&name)));
    assert_eq!(accepted.response.status(), 101);
    for (name, value) in accepted.response.headers() {
        let value = value.as_bytes();
        assert!(match name.as_str() {
            "connection" | "upgrade" => true,
            "sec-websocket-accept" => value.len() == 28,
            "sec-websocket-protocol" => {
                Dialect::SUBPROTOCOLS.iter().any(|own| own.as_bytes() == value)
            }
            "sec-websocket-extensions" => value.starts_with(b"permessage-deflate; server_no"),
            _ => false,
        });
    }
}

fn read_request(input: &[u8]) -> Option<Request<()>> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let uri = std::str::from_utf8(words.next()?).ok()?;
    let version = match words.next()? {
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/2.0" => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let mut request = Request::builder().method(method).uri(uri).version(version);
    for line in lines.take(100) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
        request = request.header(HeaderName::from_bytes(name).ok()?, value);
    }
    request.body(()).ok()
}

/// The stream of a TCP connection, read whole and cut as its first byte says: the same messages come
/// out, none is too long, and each is a command or is refused.
pub fn ingress(input: &[u8]) {
    let Some((size, stream)) = input.split_first() else { return };
    let whole = messages([stream]);
    assert_eq!(messages(stream.chunks(usize::from(*size) + 1)), whole);
    for message in whole.iter().flatten() {
        assert!(message.len() <= LIMITS.message_bytes_max);
        drop(Dialect::Proto.decode(message));
    }
}

/// The messages up to the first that is refused, which is `None`.
fn messages<'r>(reads: impl IntoIterator<Item = &'r [u8]>) -> Vec<Option<Vec<u8>>> {
    let mut lengths = Lengths::new(LIMITS.message_bytes_max);
    let mut messages = Vec::new();
    for mut read in reads {
        loop {
            match lengths.next(&mut read) {
                Ok(None) => break,
                Ok(Some(message)) => messages.push(Some(message.to_vec())),
                Err(_) => {
                    messages.push(None);
                    return messages;
                }
            }
        }
        assert!(read.is_empty());
    }
    messages
}
