//! WebSocket frames and the upgrade, as little of them as two sides need that trust each other.
//! # Invariants: a head is read only when it is whole; a declared length is bounded.
//! # Not here: what a hostile peer may send (`ws`), which commands there are (`speech`).

use memchr::memmem;
use thiserror::Error;

/// Longest frame that is taken.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Longest head of an HTTP request or response.
const HTTP_BYTES_MAX: usize = 16 << 10;

/// The key and its answer in RFC 6455 section 1.3. A key protects from caches, of which there are
/// none on the way.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const fn number(self) -> u8 {
        match self {
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }
}

/// Why bytes are not what was hoped for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum BadFrame {
    #[error("a frame begins with {0:#04x}, which is not a whole plain message")]
    Kind(u8),
    #[error("a frame is {0} bytes, the limit is {FRAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("the WebSocket was refused: {0}")]
    Refused(String),
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) opcode: Opcode,
    /// Only clients mask.
    pub(super) mask: Option<[u8; 4]>,
    /// Bytes before the payload.
    pub(super) len: usize,
    /// Bytes of the payload.
    pub(super) payload_len: usize,
}

impl Head {
    /// Reads a head, or nothing if it is cut.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Head>, BadFrame> {
        let (Some(&first), Some(&second)) = (bytes.first(), bytes.get(1)) else {
            return Ok(None);
        };
        let opcode = match first {
            0x81 => Opcode::Text,
            0x82 => Opcode::Binary,
            0x88 => Opcode::Close,
            0x89 => Opcode::Ping,
            0x8A => Opcode::Pong,
            _ => return Err(BadFrame::Kind(first)),
        };
        let rest = bytes.get(2..).unwrap_or_default();
        let (payload_len, extra) = match second & 0x7F {
            126 => match rest.first_chunk() {
                Some(len) => (usize::from(u16::from_be_bytes(*len)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(len) => (usize::from_be_bytes(*len), 8),
                None => return Ok(None),
            },
            short => (usize::from(short), 0),
        };
        if payload_len > FRAME_BYTES_MAX {
            return Err(BadFrame::TooLong(payload_len));
        }
        let mut head = Head { opcode, mask: None, len: 2 + extra, payload_len };
        if second & 0x80 != 0 {
            let Some(mask) = rest.get(extra..).and_then(<[u8]>::first_chunk) else {
                return Ok(None);
            };
            head.mask = Some(*mask);
            head.len += mask.len();
        }
        Ok(Some(head))
    }

    /// Bytes of the whole frame.
    pub(super) fn frame_len(&self) -> usize {
        self.len + self.payload_len
    }
}

/// Bytes of the head of a server's frame with such a payload.
pub(super) const fn server_head_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Appends a server's frame.
pub(super) fn put_server(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    put_head(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends a client's frame.
pub(super) fn put_client(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    put_head(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&mask);
    let begin = out.len();
    out.extend_from_slice(payload);
    apply_mask(out.get_mut(begin..).unwrap_or_default(), mask);
}

fn put_head(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize, masked: u8) {
    out.push(0x80 | opcode.number());
    match (u8::try_from(payload_len), u16::try_from(payload_len)) {
        (Ok(len @ 0..=125), _) => out.push(masked | len),
        (_, Ok(len)) => {
            out.push(masked | 0x7E);
            out.extend_from_slice(&len.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(masked | 0x7F);
            out.extend_from_slice(&payload_len.to_be_bytes());
        }
    }
}

/// Masks or unmasks.
pub(super) fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    fastwebsockets::unmask(payload, mask);
}

/// The request of a client.
pub(super) fn request(authority: &str, path: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    if let Some(name) = subprotocol {
        request.push_str("Sec-WebSocket-Protocol: ");
        request.push_str(name);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// The length of a server's answer that accepts [`request`], or nothing if it is cut.
pub(super) fn accepted(bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
    let Some((head, len)) = http_head(bytes)? else {
        return Ok(None);
    };
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        // What follows the head is the server's own explanation.
        let words = String::from_utf8_lossy(bytes.get(len..).unwrap_or_default());
        return Err(BadFrame::Refused(format!("{status} {}", words.trim()).trim().to_owned()));
    }
    match header(head, "sec-websocket-accept") {
        Some(ACCEPT) => Ok(Some(len)),
        _ => Err(BadFrame::Refused("its answer has the wrong accept key".to_owned())),
    }
}

/// The text of an HTTP head and its length, or nothing if it is cut.
pub(super) fn http_head(bytes: &[u8]) -> Result<Option<(&str, usize)>, BadFrame> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        if bytes.len() > HTTP_BYTES_MAX {
            return Err(BadFrame::Refused(format!("no end of the head in {HTTP_BYTES_MAX} bytes")));
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default());
    let head = head.map_err(|_| BadFrame::Refused("its head is not text".to_owned()))?;
    Ok(Some((head, end + 4)))
}

/// The value of a header.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_both_sides_are_read_as_they_were_put_and_a_cut_head_waits() {
        for len in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 70_000] {
            let payload: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            for mask in [None, Some([1, 2, 3, 4])] {
                let mut frame = Vec::new();
                match mask {
                    None => put_server(&mut frame, Opcode::Binary, &payload),
                    Some(mask) => put_client(&mut frame, Opcode::Binary, &payload, mask),
                }
                let head = Head::read(&frame).expect("sound").expect("whole");
                assert_eq!((head.mask, head.payload_len), (mask, len));
                assert_eq!(head.frame_len(), frame.len());
                for cut in 0..head.len {
                    assert_eq!(Head::read(&frame[..cut]), Ok(None), "{len} cut at {cut}");
                }
                let mut read = frame[head.len..].to_vec();
                apply_mask(&mut read, mask.unwrap_or_default());
                assert_eq!(read, payload);
                if mask.is_none() {
                    assert_eq!(head.len, server_head_len(len));
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_whole_plain_message_is_refused() {
        for first in [0x01, 0x80, 0x83, 0xC1, 0x09] {
            assert_eq!(Head::read(&[first, 0]), Err(BadFrame::Kind(first)));
        }
        let huge = [&[0x82, 127][..], &(1_usize << 40).to_be_bytes()].concat();
        assert_eq!(Head::read(&huge), Err(BadFrame::TooLong(1 << 40)));
    }

    #[test]
    fn an_upgrade_is_accepted_only_with_the_right_key() {
        let answer = |accept: &str| {
            format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {accept}\r\n\r\n!")
        };
        let good = answer(ACCEPT);
        assert_eq!(accepted(good.as_bytes()), Ok(Some(good.len() - 1)));
        assert_eq!(accepted(&good.as_bytes()[..50]), Ok(None));
        assert!(accepted(answer("no").as_bytes()).is_err());
        let refused = accepted(b"HTTP/1.1 503 Busy\r\n\r\nfull\n").expect_err("refused");
        assert_eq!(refused.to_string(), "the WebSocket was refused: HTTP/1.1 503 Busy full");
        assert!(accepted("x".repeat(HTTP_BYTES_MAX + 1).as_bytes()).is_err());
    }
}
