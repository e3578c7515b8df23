//! The head of one frame of a client: two bytes, a longer length if needed, the mask.
//! Owns at most 14 received bytes and every rule that can be checked on them alone.
//! # Invariants: bytes are taken one head at a time and never beyond it; a head is refused as soon as
//! its first two bytes show why.
//! # Not here: the order of frames and the limits on messages (`decoder`).

#![expect(clippy::mut_mut, reason = "the input is a slice from whose front bytes are taken")]

use super::extensions::Compression;
use super::violation::Violation;
use fastwebsockets::OpCode;

/// The two bytes that every head begins with.
pub(super) const HEAD_BYTES_MIN: usize = 2;

/// The longest head: with a 64-bit length and the mask.
const HEAD_BYTES_MAX: usize = 14;

/// The longest payload of a control frame, RFC 6455 section 5.5.
pub(super) const CONTROL_BYTES_MAX: u8 = 125;

/// The bit that marks a compressed message where that is negotiated, RFC 7692 section 6.
const RSV1: u8 = 0x40;

/// As much of a frame's head as has been received.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    filled: usize,
}

impl Head {
    /// Whether none of it has been received.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes bytes until there are `wanted`, and says whether there are.
    pub(super) fn fill(&mut self, wanted: usize, input: &mut &mut [u8]) -> bool {
        let taken = take(input, wanted.saturating_sub(self.filled));
        for (slot, byte) in self.bytes.iter_mut().skip(self.filled).zip(&*taken) {
            *slot = *byte;
        }
        self.filled += taken.len();
        self.filled >= wanted
    }

    /// Reads the first two bytes and checks what can be said of them alone.
    pub(super) fn start(&self, compression: Compression) -> Result<Start, Violation> {
        let [first, second, ..] = self.bytes;
        // Only the first frame of a message may have it; that is text or binary.
        let begins = matches!(first & 0x0F, 0x1 | 0x2);
        let meant = if begins && compression == Compression::Deflate { RSV1 } else { 0 };
        if first & 0x70 & !meant != 0 {
            return Err(Violation::ReservedBits(first >> 4 & 0x07));
        }
        let opcode = first & 0x0F;
        let start = Start {
            fin: first & 0x80 != 0,
            opcode: OpCode::try_from(opcode).map_err(|_| Violation::UnknownOpcode(opcode))?,
            compressed: first & RSV1 != 0,
            length: second & 0x7F,
        };
        if second & 0x80 == 0 {
            return Err(Violation::NotMasked);
        }
        if start.is_control() && !start.fin {
            return Err(Violation::ControlFragmented);
        }
        if start.is_control() && start.length > CONTROL_BYTES_MAX {
            return Err(Violation::ControlTooLong);
        }
        Ok(start)
    }

    /// Reads what follows the first two bytes of a complete head.
    pub(super) fn length_and_mask(&self) -> Result<(usize, [u8; 4]), Violation> {
        let [_, second, ..] = self.bytes;
        let (length, shortest, mask) = match (second & 0x7F, self.bytes) {
            (127, [_, _, length @ .., m0, m1, m2, m3]) => {
                (u64::from_be_bytes(length), 1 << 16, [m0, m1, m2, m3])
            }
            (126, [_, _, high, low, m0, m1, m2, m3, ..]) => {
                (u16::from_be_bytes([high, low]).into(), 126, [m0, m1, m2, m3])
            }
            (length, [_, _, m0, m1, m2, m3, ..]) => (length.into(), 0, [m0, m1, m2, m3]),
        };
        if length >> 63 != 0 {
            return Err(Violation::LengthTopBit);
        }
        if length < shortest {
            return Err(Violation::LengthNotMinimal(length));
        }
        // What does not fit a `usize` is beyond every limit, and so is `usize::MAX`.
        Ok((usize::try_from(length).unwrap_or(usize::MAX), mask))
    }
}

/// The first two bytes of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) opcode: OpCode,
    /// Whether this is the last frame of its message.
    pub(super) fin: bool,
    /// Whether the message that it begins is compressed.
    pub(super) compressed: bool,
    /// The length, or 126 or 127 if it follows in 16 or 64 bits.
    length: u8,
}

impl Start {
    pub(super) fn is_control(self) -> bool {
        matches!(self.opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
    }

    /// How long the whole head is.
    pub(super) fn head_bytes(self) -> usize {
        match self.length {
            127 => HEAD_BYTES_MAX,
            126 => 8,
            _ => 6,
        }
    }
}

/// Splits off at most `most` bytes from the front of `input`.
pub(super) fn take<'i>(input: &mut &'i mut [u8], most: usize) -> &'i mut [u8] {
    let bytes = input.len().min(most);
    input.split_off_mut(..bytes).unwrap_or_default()
}
