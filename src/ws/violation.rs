//! What a client can do on an open WebSocket that RFC 6455 or a limit forbids.
//! Owns the words for it, and which close code it earns.
//! # Invariants: every violation ends its connection; none holds bytes of the peer.
//! # Not here: finding violations (`decoder`, `head`), saying so to the peer.

use super::head::CONTROL_BYTES_MAX;
use crate::reason::{Reason, Refusal};

/// What a client did that RFC 6455 or a limit forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Section 5.1.
    #[error("a frame is not masked")]
    NotMasked,
    /// Section 5.2: no extension is negotiated that gives them a meaning.
    #[error("the reserved bits of a frame are {0:03b}, they must be 000")]
    ReservedBits(u8),
    /// Section 5.2.
    #[error("opcode {0:#x} is not defined")]
    UnknownOpcode(u8),
    /// Section 5.5.
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// Section 5.5.
    #[error("a control frame is longer than {CONTROL_BYTES_MAX} bytes")]
    ControlTooLong,
    /// Section 5.2.
    #[error("a length of {0} is not written in the fewest bytes")]
    LengthNotMinimal(u64),
    /// Section 5.2.
    #[error("a length has its top bit set")]
    LengthTopBit,
    /// Section 5.4.
    #[error("a message begins inside another one")]
    MessageOpen,
    /// Section 5.4.
    #[error("a continuation has no message to continue")]
    NothingToContinue,
    /// A message is beyond [`super::decoder::DecoderLimits::message_bytes_max`].
    #[error("message is {bytes} bytes, the limit is {limit}")]
    TooBig {
        /// What its heads have declared so far.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A compressed message is beyond the same limit.
    #[error("message inflates to more than {limit} bytes")]
    InflatesTooBig {
        /// The limit.
        limit: usize,
    },
    /// A message is beyond [`super::decoder::DecoderLimits::fragments_max`].
    #[error("message has more than {limit} fragments")]
    TooManyFragments {
        /// The limit.
        limit: u32,
    },
    /// RFC 7692 section 7.2.2. That one names no code: 1007 is for a payload that its type does not
    /// allow, and this one never came to be a payload, because a peer that compresses otherwise than
    /// was negotiated breaks the protocol.
    #[error("a compressed message is not whole deflate data")]
    NotDeflate,
    /// Section 8.1: a text, or the reason of a close.
    #[error("text is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// How many bytes before it are.
        at: usize,
    },
    /// Section 5.5.1.
    #[error("a close has 1 byte, its code takes 2")]
    CloseOfOneByte,
    /// Section 7.4.
    #[error("close code {0} may not be sent")]
    CloseCode(u16),
}

impl Violation {
    /// The row of the table of reasons; its code is the close code for the client.
    pub fn reason(self) -> Reason {
        match self {
            Violation::TooBig { .. }
            | Violation::InflatesTooBig { .. }
            | Violation::TooManyFragments { .. } => Reason::MessageTooBig,
            Violation::NotUtf8 { .. } => Reason::InvalidUtf8,
            Violation::NotMasked
            | Violation::ReservedBits(_)
            | Violation::UnknownOpcode(_)
            | Violation::ControlFragmented
            | Violation::ControlTooLong
            | Violation::LengthNotMinimal(_)
            | Violation::LengthTopBit
            | Violation::MessageOpen
            | Violation::NothingToContinue
            | Violation::NotDeflate
            | Violation::CloseOfOneByte
            | Violation::CloseCode(_) => Reason::ProtocolError,
        }
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Refusal {
        Refusal::new(violation.reason(), violation.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(violation: Violation, code: u16, words: &str) {
        let refusal = Refusal::from(violation);
        assert_eq!(refusal.reason.code(), code, "{violation:?}");
        assert_eq!(refusal.detail.as_deref(), Some(words));
    }

    #[test]
    fn a_broken_protocol_closes_with_1002() {
        let rows = [
            (Violation::NotMasked, "a frame is not masked"),
            (Violation::ReservedBits(4), "the reserved bits of a frame are 100, they must be 000"),
            (Violation::UnknownOpcode(0xB), "opcode 0xb is not defined"),
            (Violation::ControlFragmented, "a control frame is fragmented"),
            (Violation::ControlTooLong, "a control frame is longer than 125 bytes"),
            (Violation::LengthNotMinimal(5), "a length of 5 is not written in the fewest bytes"),
            (Violation::LengthTopBit, "a length has its top bit set"),
            (Violation::MessageOpen, "a message begins inside another one"),
            (Violation::NothingToContinue, "a continuation has no message to continue"),
            (Violation::NotDeflate, "a compressed message is not whole deflate data"),
            (Violation::CloseOfOneByte, "a close has 1 byte, its code takes 2"),
            (Violation::CloseCode(1005), "close code 1005 may not be sent"),
        ];
        for (violation, words) in rows {
            check(violation, 1002, words);
        }
    }

    #[test]
    fn a_limit_closes_with_1009_and_its_numbers() {
        let (bytes, limit) = (70_000, 65_536);
        let too_big = Violation::TooBig { bytes, limit };
        check(too_big, 1009, "message is 70000 bytes, the limit is 65536");
        let too_big = Violation::InflatesTooBig { limit };
        check(too_big, 1009, "message inflates to more than 65536 bytes");
        let too_many = Violation::TooManyFragments { limit: 64 };
        check(too_many, 1009, "message has more than 64 fragments");
    }

    #[test]
    fn a_text_that_is_not_utf_8_closes_with_1007() {
        let not_utf8 = Violation::NotUtf8 { at: 3 };
        check(not_utf8, 1007, "text is not UTF-8 from byte 3 on");
    }
}
