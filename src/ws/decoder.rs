//! RFC 6455 frames of a client, read strictly: bytes in, whole messages and control frames out,
//! inflated if they were compressed (RFC 7692).
//! Owns the bytes of a message that has arrived in part; between messages it owns no memory.
//! # Invariants: what comes out does not depend on how the bytes were cut into reads, so a read may
//! be cancelled anywhere; a declared length is never trusted with memory; nothing comes out after a
//! violation or a close.
//! # Not here: sockets, answers (pong, close), how often a peer may send, what a message means.

#![expect(clippy::mut_mut, reason = "the input is a slice from whose front bytes are taken")]

use super::extensions::Compression;
use super::head::{HEAD_BYTES_MIN, Head, Start, take};
use super::violation::Violation;
use crate::dialect::deflate::{InflateError, inflate};
use fastwebsockets::{OpCode, unmask};

/// How much a client may send before a message is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Bytes of one message, its fragments summed, as it comes and as it is inflated; a message of
    /// exactly this size is accepted.
    /// Default 65,536 (64 KiB). A connection may hold this much while its message is incomplete, so
    /// the worst case is this times the connection count. A message that arrives in many reads is
    /// moved once per 4 KiB, which makes limits of many MiB slow to fill.
    pub message_bytes_max: usize,
    /// Frames of one fragmented message, empty ones included. Default 64. Each costs its sender as
    /// little as 6 bytes and lets it keep the message open, so raising this makes that cheaper.
    pub fragments_max: u32,
}

impl Default for DecoderLimits {
    fn default() -> DecoderLimits {
        DecoderLimits { message_bytes_max: 64 * 1024, fragments_max: 64 }
    }
}

/// What a client sent; the bytes are lent until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with the same bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The last frame of the client: its code and reason, if it gave any.
    Close(Option<(u16, &'a str)>),
}

impl Incoming<'_> {
    /// Whether it is a message, and not a control frame.
    pub fn is_message(&self) -> bool {
        matches!(self, Incoming::Text(_) | Incoming::Binary(_))
    }

    /// How many bytes it carries.
    pub fn bytes(&self) -> usize {
        match self {
            Incoming::Text(text) => text.len(),
            Incoming::Binary(bytes) | Incoming::Ping(bytes) | Incoming::Pong(bytes) => bytes.len(),
            Incoming::Close(close) => close.map_or(0, |(_, reason)| 2 + reason.len()),
        }
    }
}

/// Reads the frames of one client.
///
/// It is small and `Send`, and it never waits: whoever owns the socket feeds it what was read.
#[derive(Debug)]
pub struct Decoder {
    // The limits field by field: as a struct they would leave no room for the byte below them.
    message_bytes_max: usize,
    fragments_max: u32,
    compression: Compression,
    state: State,
    /// The fragmented message under way, from its first frame to its last.
    message: Option<Fragments>,
    /// Unmasked bytes that had to be kept: those of an incomplete message, then those of an
    /// incomplete control frame that came between its fragments; or those of an inflated message.
    gathered: Vec<u8>,
}

impl Decoder {
    /// A decoder for a connection on which nothing has been received.
    pub fn new(limits: DecoderLimits, compression: Compression) -> Decoder {
        let DecoderLimits { message_bytes_max, fragments_max } = limits;
        Decoder {
            message_bytes_max,
            fragments_max,
            compression,
            state: State::Head(Head::default()),
            message: None,
            gathered: Vec::new(),
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next message or control frame.
    ///
    /// `Ok(None)` means that more bytes are needed and `input` is empty. A message that lies in
    /// `input` as one frame is unmasked there and lent without a copy; the memory of any other is
    /// released by the next call, so call until there is nothing more. After an error or
    /// [`Incoming::Close`] whatever comes is discarded.
    ///
    /// # Errors
    /// The first [`Violation`], once everything before it has been lent.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<Incoming<'a>>, Violation> {
        let whole = match self.advance(input).and_then(|whole| self.inflate(whole)) {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(None),
            Err(violation) => {
                self.state = State::Closed;
                self.gathered = Vec::new();
                return Err(violation);
            }
        };
        let payload = match whole.payload {
            Payload::Input(bytes) => bytes,
            Payload::Gathered { from } => self.gathered.get(from..).unwrap_or_default(),
        };
        let incoming = read(whole.opcode, payload);
        if matches!(incoming, Ok(Incoming::Close(_)) | Err(_)) {
            self.state = State::Closed;
        }
        incoming.map(Some)
    }

    /// Lets go of the memory of what was lent last. The next call of [`Decoder::next`] does so too.
    pub fn release(&mut self) {
        let State::Lent { keep } = self.state else { return };
        self.gathered.truncate(keep);
        if keep == 0 {
            self.gathered = Vec::new();
        }
        self.state = State::Head(Head::default());
    }

    /// Whether the next byte begins a message: no message is open and no frame.
    pub fn is_between_messages(&self) -> bool {
        let in_frame = match self.state {
            State::Head(head) => !head.is_empty(),
            State::Payload(_) => true,
            State::Lent { .. } | State::Closed => false,
        };
        !in_frame && self.message.is_none()
    }

    /// Moves to the end of the next frame that makes something whole, or of `input`.
    fn advance<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Whole<'i>>, Violation> {
        loop {
            match &mut self.state {
                State::Head(head) => {
                    if !head.fill(HEAD_BYTES_MIN, input) {
                        return Ok(None);
                    }
                    let start = head.start(self.compression)?;
                    check_order(start.opcode, self.message)?;
                    if !head.fill(start.head_bytes(), input) {
                        return Ok(None);
                    }
                    let (length, mask) = head.length_and_mask()?;
                    self.admit(start, length)?;
                    self.state = State::Payload(Frame {
                        start,
                        mask,
                        missing: length,
                        from: self.gathered.len(),
                    });
                }
                State::Payload(frame) => {
                    let piece = take(input, frame.missing);
                    unmask(piece, frame.mask);
                    frame.mask.rotate_left(piece.len() % 4);
                    frame.missing -= piece.len();
                    let frame = *frame;
                    if frame.missing == 0 && frame.stands_alone(self.gathered.len()) {
                        self.state = State::Head(Head::default());
                        return Ok(Some(Whole {
                            opcode: frame.start.opcode,
                            compressed: frame.start.compressed,
                            payload: Payload::Input(piece),
                        }));
                    }
                    self.gather(piece, frame.missing);
                    if frame.missing > 0 {
                        return Ok(None);
                    }
                    if let Some(whole) = self.finish(frame)? {
                        return Ok(Some(whole));
                    }
                }
                State::Lent { .. } => self.release(),
                State::Closed => {
                    self.gathered = Vec::new();
                    *input = &mut [];
                    return Ok(None);
                }
            }
        }
    }

    /// Checks a frame against the limits before any of its payload is kept.
    fn admit(&mut self, start: Start, length: usize) -> Result<(), Violation> {
        if start.is_control() {
            return Ok(());
        }
        let bytes = self.gathered.len().saturating_add(length);
        let limit = self.message_bytes_max;
        if bytes > limit {
            return Err(Violation::TooBig { bytes, limit });
        }
        if start.fin && self.message.is_none() {
            return Ok(());
        }
        let message = self.message.get_or_insert(Fragments {
            opcode: start.opcode,
            compressed: start.compressed,
            frames: 0,
            valid: 0,
        });
        message.frames = message.frames.saturating_add(1);
        let limit = self.fragments_max;
        if message.frames > limit {
            return Err(Violation::TooManyFragments { limit });
        }
        Ok(())
    }

    /// Keeps bytes of a frame of which `missing` more are to come.
    fn gather(&mut self, piece: &[u8], missing: usize) {
        if piece.len() > self.gathered.capacity() - self.gathered.len() {
            let ahead = missing.min(AHEAD_BYTES_MAX);
            self.gathered.reserve_exact(piece.len() + ahead);
        }
        self.gathered.extend_from_slice(piece);
    }

    /// Ends a frame whose payload has been gathered.
    fn finish<'i>(&mut self, frame: Frame) -> Result<Option<Whole<'i>>, Violation> {
        let start = frame.start;
        let (opcode, compressed, from) = if start.is_control() {
            (start.opcode, false, frame.from)
        } else if start.fin {
            let message = self.message.take();
            let kind = message.map_or((start.opcode, start.compressed), Fragments::kind);
            (kind.0, kind.1, 0)
        } else {
            if let Some(message) = &mut self.message {
                message.check_text(&self.gathered)?;
            }
            self.state = State::Head(Head::default());
            return Ok(None);
        };
        self.state = State::Lent { keep: from };
        let payload = Payload::Gathered { from };
        Ok(Some(Whole { opcode, compressed, payload }))
    }

    /// Puts the inflated bytes of a compressed message in place of what came.
    fn inflate<'i>(&mut self, whole: Option<Whole<'i>>) -> Result<Option<Whole<'i>>, Violation> {
        let Some(Whole { opcode, compressed: true, payload }) = whole else { return Ok(whole) };
        let limit = self.message_bytes_max;
        let inflated = match payload {
            Payload::Input(bytes) => inflate(bytes, limit),
            Payload::Gathered { .. } => inflate(&self.gathered, limit),
        };
        self.gathered = inflated.map_err(|error| match error {
            InflateError::Corrupt => Violation::NotDeflate,
            InflateError::TooBig => Violation::InflatesTooBig { limit },
        })?;
        self.state = State::Lent { keep: 0 };
        Ok(Some(Whole { opcode, compressed: false, payload: Payload::Gathered { from: 0 } }))
    }
}

/// Most bytes for which memory is taken before they are received.
const AHEAD_BYTES_MAX: usize = 4096;

/// Where in the stream of frames the next byte belongs.
#[derive(Clone, Copy, Debug)]
enum State {
    /// To the head of a frame.
    Head(Head),
    /// To the payload of a frame.
    Payload(Frame),
    /// To the head of a frame, once the gathered bytes beyond `keep`, which are lent, are dropped.
    Lent { keep: usize },
    /// Nowhere.
    Closed,
}

/// A message of which at least the first frame has begun.
#[derive(Clone, Copy, Debug)]
struct Fragments {
    opcode: OpCode,
    compressed: bool,
    frames: u32,
    /// How many of the gathered bytes are known to be UTF-8, if this is a text.
    valid: usize,
}

impl Fragments {
    fn kind(self) -> (OpCode, bool) {
        (self.opcode, self.compressed)
    }

    /// Checks what the last frame added to a text, up to a character that the next one may complete.
    fn check_text(&mut self, gathered: &[u8]) -> Result<(), Violation> {
        if self.opcode != OpCode::Text || self.compressed {
            return Ok(());
        }
        let added = gathered.get(self.valid..).unwrap_or_default();
        match simdutf8::compat::from_utf8(added) {
            Ok(_) => self.valid = gathered.len(),
            Err(error) => {
                self.valid += error.valid_up_to();
                if error.error_len().is_some() {
                    return Err(Violation::NotUtf8 { at: self.valid });
                }
            }
        }
        Ok(())
    }
}

/// A frame whose head has been read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    start: Start,
    /// Turned so that its first byte belongs to the next byte of the payload.
    mask: [u8; 4],
    /// How many bytes of the payload have not been received.
    missing: usize,
    /// Where its payload begins in the gathered bytes, if it has to be gathered.
    from: usize,
}

impl Frame {
    /// Whether this frame is whole by itself and none of it has been gathered.
    fn stands_alone(&self, gathered: usize) -> bool {
        let whole = self.start.fin && self.start.opcode != OpCode::Continuation;
        whole && gathered == self.from
    }
}

/// A message or control frame that is complete but not yet checked.
struct Whole<'i> {
    opcode: OpCode,
    compressed: bool,
    payload: Payload<'i>,
}

/// Where a payload lies.
enum Payload<'i> {
    /// In the input.
    Input(&'i [u8]),
    /// In the gathered bytes, up to their end.
    Gathered { from: usize },
}

/// Checks that a message begins when none is open, and goes on when one is.
fn check_order(opcode: OpCode, open: Option<Fragments>) -> Result<(), Violation> {
    match (opcode, open) {
        (OpCode::Continuation, None) => Err(Violation::NothingToContinue),
        (OpCode::Text | OpCode::Binary, Some(_)) => Err(Violation::MessageOpen),
        _ => Ok(()),
    }
}

fn read(opcode: OpCode, payload: &[u8]) -> Result<Incoming<'_>, Violation> {
    match opcode {
        OpCode::Text => read_text(payload).map(Incoming::Text),
        OpCode::Binary | OpCode::Continuation => Ok(Incoming::Binary(payload)),
        OpCode::Ping => Ok(Incoming::Ping(payload)),
        OpCode::Pong => Ok(Incoming::Pong(payload)),
        OpCode::Close => read_close(payload).map(Incoming::Close),
    }
}

fn read_text(bytes: &[u8]) -> Result<&str, Violation> {
    simdutf8::compat::from_utf8(bytes)
        .map_err(|error| Violation::NotUtf8 { at: error.valid_up_to() })
}

fn read_close(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::CloseOfOneByte),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    match code {
        // RFC 6455 section 7.4 and the IANA registry; 1004, 1005, 1006 and 1015 are never sent.
        1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Some((code, read_text(reason)?))),
        _ => Err(Violation::CloseCode(code)),
    }
}

#[cfg(test)]
mod compressed;
#[cfg(test)]
mod tests;
