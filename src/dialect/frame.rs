//! Heads of what the server sends: RFC 6455 frames, the length before an event on TCP, and the lines
//! around a server-sent event.
//! Owns the room in front of a body, so that the head can be written when the body is there.
//! # Invariants: a frame is final, unmasked and complete; a control frame carries at most 125 bytes.
//! # Not here: reading frames (`ws`), what a body says (`json`, `proto`).

use super::deflate;
use crate::topics::message::Wire;
use bytes::Bytes;
use std::cell::RefCell;

/// Most bytes that RFC 6455 lets a control frame carry.
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest head: two bytes and a 64-bit length.
pub const HEAD_BYTES_MAX: usize = 10;

/// Room in front of a body: a head, and in batches the longest varint of a 32-bit length.
const ROOM_BYTES: usize = HEAD_BYTES_MAX + 5;

/// The length in front of an event on TCP.
const LENGTH_BYTES: usize = 4;

/// What stands before the JSON of a server-sent event, and behind it and its other lines.
const SSE_HEAD: &[u8; 6] = b"data: ";
const SSE_END: &[u8] = b"\n\n";

const FIN: u8 = 0x80;
/// Marks a compressed message, RFC 7692.
const RSV1: u8 = 0x40;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// In place of a length: the length is in the next two bytes.
const LENGTH_16: u8 = 126;
/// In place of a length: the length is in the next eight bytes.
const LENGTH_64: u8 = 127;

/// Memory that a thread keeps for the next frame. What takes more is handed out as it is.
const SCRATCH_BYTES_MAX: usize = 16 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A frame whose body `fill` appends. Frames live as long as their messages: this one is a single
/// allocation, with no room to spare unless it is long.
pub(super) fn whole(wire: Wire, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        scratch.resize(ROOM_BYTES, 0);
        fill(scratch);
        let start = close_frame(scratch, 0, wire);
        if scratch.len() > SCRATCH_BYTES_MAX {
            return Bytes::from(std::mem::take(scratch)).slice(start..);
        }
        Bytes::copy_from_slice(scratch.get(start..).unwrap_or_default())
    })
}

/// Appends a frame, whose body `fill` appends, to a block of finished ones.
pub(super) fn append(block: &mut Vec<u8>, wire: Wire, fill: impl FnOnce(&mut Vec<u8>)) {
    let end = block.len();
    if wire == Wire::TcpProto {
        // Its head is always as long.
        block.extend_from_slice(&[0; LENGTH_BYTES]);
        fill(block);
        let body_len = block.len().saturating_sub(end + LENGTH_BYTES);
        if let Some(head) = block.get_mut(end..).and_then(<[u8]>::first_chunk_mut) {
            *head = length(body_len);
        }
        return;
    }
    block.resize(end + ROOM_BYTES, 0);
    fill(block);
    let start = close_frame(block, end, wire);
    // The head did not need all of its room.
    block.copy_within(start.., end);
    block.truncate(block.len() - (start - end));
}

/// Ends a frame whose room begins at `at`: writes its head right in front of the body, which goes
/// to the end. Returns where the frame starts.
fn close_frame(bytes: &mut Vec<u8>, at: usize, wire: Wire) -> usize {
    if wire.is_batched() && wire.is_json() {
        bytes.push(b'\n');
    }
    if wire.is_sse() {
        bytes.extend_from_slice(SSE_END);
    }
    let body_len = bytes.len().saturating_sub(at + ROOM_BYTES);
    let Some(room) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<ROOM_BYTES>) else {
        return at;
    };
    let mut start = ROOM_BYTES;
    if wire.is_batched() && !wire.is_json() {
        start = write_varint(room, body_len);
    }
    let unit_len = body_len + ROOM_BYTES - start;
    if let Some(room) = room.get_mut(..start).and_then(<[u8]>::last_chunk_mut) {
        let head_start = match wire {
            Wire::TcpProto => write_length(room, unit_len),
            Wire::SseTopic | Wire::SseTopics => write_sse_head(room),
            wire => write_web_socket_head(room, opcode(wire), unit_len),
        };
        start = start - HEAD_BYTES_MAX + head_start;
    }
    at + start
}

const fn opcode(wire: Wire) -> u8 {
    if wire.is_json() { TEXT } else { BINARY }
}

/// The length of a WebSocket frame's head, or of what stands in front of a body elsewhere.
pub fn head_len(frame: &[u8], wire: Wire) -> usize {
    if wire.is_sse() {
        return SSE_HEAD.len();
    }
    match (wire, frame.get(1)) {
        (Wire::TcpProto, _) | (_, Some(&LENGTH_16)) => 4,
        (_, Some(&LENGTH_64)) => 10,
        _ => 2,
    }
}

/// The head of a WebSocket message that joins events of `unit_len` bytes together, at the end of
/// its room; the second is where it starts.
pub fn batch_head(wire: Wire, unit_len: usize) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut room = [0; HEAD_BYTES_MAX];
    let start = write_web_socket_head(&mut room, opcode(wire), unit_len);
    (room, start)
}

/// What a finished frame of `wire` carries, without its head: one event, on a batched wire as it
/// stands in a batch.
pub fn body(frame: &Bytes, wire: Wire) -> Bytes {
    frame.slice(head_len(frame, wire).min(frame.len())..)
}

/// What a finished frame of the plain wire says, compressed; `None` if that does not pay.
pub(super) fn deflate(plain: &Bytes, wire: Wire) -> Option<Bytes> {
    let body = plain.get(head_len(plain, wire)..)?;
    let mut bytes = vec![0; HEAD_BYTES_MAX];
    if !deflate::deflate(body, &mut bytes) {
        return None;
    }
    let payload_len = bytes.len() - HEAD_BYTES_MAX;
    let start = write_web_socket_head(bytes.first_chunk_mut()?, RSV1 | opcode(wire), payload_len);
    // These bytes live as long as the message: they do not keep the room that was not needed.
    bytes.shrink_to_fit();
    Some(Bytes::from(bytes).slice(start..))
}

/// A WebSocket ping. Bytes of `payload` beyond [`CONTROL_BYTES_MAX`] are left out.
pub fn ping(payload: &[u8]) -> Bytes {
    control(PING, &[], payload)
}

/// A WebSocket pong. Bytes of `payload` beyond [`CONTROL_BYTES_MAX`] are left out.
pub fn pong(payload: &[u8]) -> Bytes {
    control(PONG, &[], payload)
}

/// A WebSocket close with `code` and as many whole characters of `text` as fit: 123 bytes.
pub fn close(code: u16, text: &str) -> Bytes {
    let code = code.to_be_bytes();
    let text = cut(text, CONTROL_BYTES_MAX - code.len());
    control(CLOSE, &code, text.as_bytes())
}

/// A WebSocket close without a code, the answer to one without.
pub fn empty_close() -> Bytes {
    control(CLOSE, &[], &[])
}

/// The longest beginning of `text` that has at most `bytes_max` bytes and only whole characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn control(opcode: u8, front: &[u8], back: &[u8]) -> Bytes {
    let body = (front.len() + back.len()).min(CONTROL_BYTES_MAX);
    let mut frame = Vec::with_capacity(2 + body);
    frame.extend([FIN | opcode, 0]);
    frame.extend(front.iter().chain(back).take(CONTROL_BYTES_MAX));
    let body_len = frame.len() - 2;
    if let (Some(length), Ok(body_len)) = (frame.get_mut(1), u8::try_from(body_len)) {
        *length = body_len;
    }
    Bytes::from(frame)
}

/// Writes the head at the end of its room; returns where it starts.
fn write_web_socket_head(room: &mut [u8; HEAD_BYTES_MAX], opcode: u8, body_len: usize) -> usize {
    let first = FIN | opcode;
    // The long form fills the room. The shorter ones use the end of the same big-endian length
    // and overwrite what is in front of it.
    room[0] = first;
    room[1] = LENGTH_64;
    room[2..].copy_from_slice(&(body_len as u64).to_be_bytes());
    match body_len {
        0..=125 => {
            room[8] = first;
            8
        }
        126..=0xFFFF => {
            room[6] = first;
            room[7] = LENGTH_16;
            6
        }
        _ => 0,
    }
}

/// Writes a varint at the end of its room; returns where it starts.
fn write_varint(room: &mut [u8; ROOM_BYTES], value: usize) -> usize {
    // Limits on messages and pages keep every body far below 4 GiB.
    let mut rest = u32::try_from(value).unwrap_or(u32::MAX);
    let mut digits = [0; 5];
    let mut len = 0;
    for digit in &mut digits {
        *digit = (rest & 0x7F) as u8 | 0x80;
        rest >>= 7;
        len += 1;
        if rest == 0 {
            *digit &= 0x7F;
            break;
        }
    }
    let start = ROOM_BYTES - len;
    for (place, digit) in room.iter_mut().skip(start).zip(digits) {
        *place = digit;
    }
    start
}

/// Writes the name of the field at the end of its room; returns where it starts.
fn write_sse_head(room: &mut [u8; HEAD_BYTES_MAX]) -> usize {
    if let Some(place) = room.last_chunk_mut() {
        *place = *SSE_HEAD;
    }
    HEAD_BYTES_MAX - SSE_HEAD.len()
}

/// Writes a 32-bit length at the end of its room; returns where it starts.
fn write_length(room: &mut [u8; HEAD_BYTES_MAX], body_len: usize) -> usize {
    room[6..].copy_from_slice(&length(body_len));
    6
}

fn length(body_len: usize) -> [u8; LENGTH_BYTES] {
    // Limits on messages and pages keep every body far below 4 GiB.
    u32::try_from(body_len).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(wire: Wire, body_len: usize) -> Bytes {
        whole(wire, |body| body.extend(std::iter::repeat_n(b'x', body_len)))
    }

    #[test]
    fn a_head_is_as_long_as_the_length_of_the_body_needs() {
        // Body length, head behind the WebSocket opcode, head on TCP.
        let cases: [(usize, &[u8], [u8; 4]); 7] = [
            (0, &[0], [0, 0, 0, 0]),
            (1, &[1], [0, 0, 0, 1]),
            (125, &[125], [0, 0, 0, 125]),
            (126, &[126, 0, 126], [0, 0, 0, 126]),
            (65_535, &[126, 0xFF, 0xFF], [0, 0, 0xFF, 0xFF]),
            (65_536, &[127, 0, 0, 0, 0, 0, 1, 0, 0], [0, 1, 0, 0]),
            (65_793, &[127, 0, 0, 0, 0, 0, 1, 1, 1], [0, 1, 1, 1]),
        ];
        for (body_len, web_socket, tcp) in cases {
            for (wire, head) in [
                (Wire::WebSocketJson, [&[0x81], web_socket].concat()),
                (Wire::WebSocketProto, [&[0x82], web_socket].concat()),
                (Wire::TcpProto, tcp.to_vec()),
            ] {
                let frame = frame(wire, body_len);
                assert_eq!(frame[..head.len()], head, "{wire:?} {body_len}");
                assert_eq!(frame.len(), head.len() + body_len, "{wire:?} {body_len}");
                assert!(frame[head.len()..].iter().all(|byte| *byte == b'x'));
            }
        }
    }

    #[test]
    fn frames_that_are_appended_are_the_same_frames() {
        for wire in Wire::ALL {
            let mut block = b"before".to_vec();
            let mut expected = block.clone();
            for body_len in [0, 1, 125, 126, 127, 65_535, 65_536] {
                append(&mut block, wire, |body| body.extend(std::iter::repeat_n(b'x', body_len)));
                expected.extend_from_slice(&frame(wire, body_len));
            }
            assert_eq!(block, expected, "{wire:?}");
        }
    }

    #[test]
    fn the_body_of_a_frame_is_what_was_written() {
        for wire in Wire::ALL {
            for body_len in [0, 1, 125, 126, 127, 65_535, 65_536] {
                let body = body(&frame(wire, body_len), wire);
                let length = if wire.is_batched() && !wire.is_json() {
                    {
                        let mut length = Vec::new();
                        prost::encode_length_delimiter(body_len, &mut length).expect("room");
                        length
                    }
                } else {
                    Vec::new()
                };
                let end = match wire {
                    wire if wire.is_sse() => "\n\n",
                    wire if wire.is_batched() && wire.is_json() => "\n",
                    _ => "",
                };
                let expected = [&length, &vec![b'x'; body_len], end.as_bytes()].concat();
                assert_eq!(body, expected, "{wire:?} {body_len}");
            }
        }
    }

    #[test]
    fn what_is_too_short_for_a_head_has_no_body() {
        for wire in Wire::ALL {
            for bytes in [&b""[..], b"\x81", b"\x81\x7f"] {
                assert!(body(&Bytes::from_static(bytes), wire).is_empty());
            }
        }
    }

    #[test]
    fn control_frames_are_final_and_short() {
        assert_eq!(ping(b""), &b"\x89\x00"[..]);
        assert_eq!(pong(b"abc"), &b"\x8a\x03abc"[..]);
        assert_eq!(close(1001, "goingAway"), &b"\x88\x0b\x03\xe9goingAway"[..]);
        for frame in [ping(&[7; 126]), pong(&[7; 126])] {
            assert_eq!(frame.len(), 2 + 125);
            assert_eq!(frame[1], 125);
        }
    }

    #[test]
    fn the_text_of_a_close_is_cut_between_characters() {
        for (text, kept) in [
            ("x".repeat(123), 123),
            ("x".repeat(124), 123),
            ("ä".repeat(62), 122),
            (format!("x{}", "ä".repeat(62)), 123),
        ] {
            let frame = close(4500, &text);
            assert_eq!(usize::from(frame[1]), 2 + kept);
            assert_eq!(&frame[4..], &text.as_bytes()[..kept]);
        }
    }
}
