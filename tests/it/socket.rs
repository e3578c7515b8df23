//! A WebSocket client that can send anything and accepts only what RFC 6455 and, where that is
//! negotiated, RFC 7692 let a server send.
//! # Invariants: a frame of the server is final, unmasked, of a known opcode and of the fewest bytes
//! in which its length can be written, or the test fails. What is compressed is not the broker's own
//! code here.
//! # Not here: what messages mean (`client`).

use crate::harness::Broker;
use crate::http::Answer;
use crate::pipe::Pipe;
use std::net::SocketAddr;

pub(crate) const FIN: u8 = 0x80;
/// In the first byte of a frame: its message is compressed.
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// In the second byte of a frame: it is masked.
pub(crate) const MASKED: u8 = 0x80;
/// There, in place of a length: it is in the next two bytes, or eight.
pub(crate) const LENGTH_16: u8 = 0x7E;
pub(crate) const LENGTH_64: u8 = 0x7F;

/// The key of RFC 6455 section 1.3 and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The payload of a text.
    pub(crate) fn text(self) -> String {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        String::from_utf8(self.payload).expect("a text is UTF-8")
    }

    /// The code and reason of a close.
    pub(crate) fn close(self) -> Option<(u16, String)> {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        let (code, reason) = self.payload.split_first_chunk()?;
        let reason = String::from_utf8(reason.to_vec()).expect("a reason is UTF-8");
        Some((u16::from_be_bytes(*code), reason))
    }
}

/// The head of a request for a WebSocket, with more headers.
pub(crate) fn request(address: SocketAddr, headers: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{headers}\r\n"
    )
}

/// What a client offers that can inflate, as browsers do.
const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// The answer to that.
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// An open WebSocket.
pub(crate) struct Socket {
    pub(crate) pipe: Pipe,
    /// The lengths of all compressed messages heard; `None` if there may be none.
    pub(crate) compressed: Option<Vec<usize>>,
}

impl Socket {
    /// A connection that has been upgraded, without an extension.
    pub(crate) fn new(pipe: Pipe) -> Socket {
        Socket { pipe, compressed: None }
    }

    /// Turns a fresh connection into a WebSocket that has agreed on compression.
    pub(crate) async fn upgrade_compressed(
        broker: &Broker,
        mut pipe: Pipe,
        subprotocol: &str,
    ) -> Socket {
        let headers = format!(
            "sec-websocket-protocol: {subprotocol}\r\nsec-websocket-extensions: {OFFER}\r\n"
        );
        pipe.send(request(broker.public(), &headers).as_bytes()).await;
        let answer = Answer::read(&mut pipe).await;
        must_agree(&answer, Some(subprotocol), Some(AGREED));
        Socket { pipe, compressed: Some(Vec::new()) }
    }

    /// Opens a WebSocket with this subprotocol, or offers none.
    pub(crate) async fn open(broker: &Broker, subprotocol: Option<&str>) -> Socket {
        Socket::upgrade(broker, Pipe::connect(broker.public()).await, subprotocol).await
    }

    /// Turns a fresh connection into a WebSocket.
    pub(crate) async fn upgrade(
        broker: &Broker,
        mut pipe: Pipe,
        subprotocol: Option<&str>,
    ) -> Socket {
        let offer = |name| format!("sec-websocket-protocol: {name}\r\n");
        let headers = subprotocol.map(offer).unwrap_or_default();
        pipe.send(request(broker.public(), &headers).as_bytes()).await;
        let answer = Answer::read(&mut pipe).await;
        must_accept(&answer, subprotocol);
        Socket::new(pipe)
    }

    /// Sends one final frame.
    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.pipe.send(&frame(FIN | opcode, payload)).await;
    }

    /// A message in one frame, compressed if that is negotiated.
    pub(crate) fn spell(&self, opcode: u8, body: &[u8]) -> Vec<u8> {
        match self.compressed {
            Some(_) => frame(FIN | RSV1 | opcode, &deflated(body)),
            None => frame(FIN | opcode, body),
        }
    }

    /// The next frame of the server.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.try_frame().await.expect("a frame before the end")
    }

    /// The code of the close that the server stops with, after it has said that it does.
    pub(crate) async fn farewell(&mut self) -> Option<u16> {
        assert_eq!(self.frame().await.text(), r#"{"reconnect":{}}"#);
        self.frame().await.close().map(|(code, _)| code)
    }

    /// The next frame of the server, unless it ends.
    pub(crate) async fn try_frame(&mut self) -> Option<Frame> {
        let head = self.pipe.take(2).await?;
        let (first, second) = (head[0], head[1]);
        let opcode = first & 0x0F;
        let is_compressed = first & RSV1 != 0 && opcode < CLOSE && self.compressed.is_some();
        let bits = if is_compressed { FIN | RSV1 } else { FIN };
        assert_eq!(first & 0xF0, bits, "a frame of the server is not final or has reserved bits");
        assert_eq!(second & MASKED, 0, "a frame of the server is masked");
        let known = [TEXT, BINARY, CLOSE, PING, PONG];
        assert!(known.contains(&opcode), "opcode {opcode:#x} of the server");
        let length = match second {
            LENGTH_16 => {
                let bytes = self.pipe.take(2).await?;
                let length = u64::from(u16::from_be_bytes(bytes.try_into().expect("2 bytes")));
                assert!(length >= 126, "a length of {length} in 16 bits");
                length
            }
            LENGTH_64 => {
                let bytes = self.pipe.take(8).await?;
                let length = u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
                assert!(length > 0xFFFF, "a length of {length} in 64 bits");
                length
            }
            short => u64::from(short),
        };
        assert!(opcode < CLOSE || length <= 125, "a control frame of {length} bytes");
        let mut payload = self.pipe.take(usize::try_from(length).expect("a length")).await?;
        if is_compressed {
            let lengths = self.compressed.get_or_insert_default();
            lengths.push(payload.len());
            payload = inflated(&payload);
        }
        Some(Frame { opcode, payload })
    }

    /// The server must close with this code now, and end once that is answered. Returns the reason.
    pub(crate) async fn must_close(mut self, code: u16) -> String {
        let close = self.frame().await.close();
        let (got, reason) = close.unwrap_or_else(|| panic!("a close without a code, not {code}"));
        assert_eq!(got, code, "{reason}");
        self.pipe.try_send(&frame(FIN | CLOSE, &code.to_be_bytes())).await;
        self.pipe.end().await;
        reason
    }
}

/// A frame of a client: its first byte, the fewest bytes for its length, a mask, the payload.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ ..126) => bytes.push(MASKED | length.to_be_bytes()[1]),
        Ok(length) => {
            bytes.push(MASKED | LENGTH_16);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(MASKED | LENGTH_64);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A body as another implementation compresses it, its last block marked as such: RFC 7692
/// section 7.2.3.4.
pub(crate) fn deflated(body: &[u8]) -> Vec<u8> {
    let mut payload = miniz_oxide::deflate::compress_to_vec(body, 6);
    payload.push(0);
    payload
}

/// What a payload says, which has to end at the end of a block.
fn inflated(payload: &[u8]) -> Vec<u8> {
    let end = [0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];
    let whole = [payload, &end].concat();
    miniz_oxide::inflate::decompress_to_vec(&whole).expect("deflate data")
}

/// The answer must be a 101 for this subprotocol, without an extension.
pub(crate) fn must_accept(answer: &Answer, subprotocol: Option<&str>) {
    must_agree(answer, subprotocol, None);
}

/// The answer must be a 101 for these.
pub(crate) fn must_agree(answer: &Answer, subprotocol: Option<&str>, extension: Option<&str>) {
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(answer.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    assert_eq!(
        answer.header("connection").map(str::to_ascii_lowercase).as_deref(),
        Some("upgrade")
    );
    assert_eq!(answer.header("sec-websocket-protocol"), subprotocol);
    assert_eq!(answer.header("sec-websocket-extensions"), extension);
}
