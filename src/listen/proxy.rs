//! Version 2 of the PROXY protocol: what a proxy says, before anything else, of whom it speaks for.
//! # Invariants: the parser is a function of bytes, takes no byte behind the header and refuses one
//! that is too long before it has arrived.
//! # Not here: whose header is believed (`hops`), how long it may take (`listen`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What every header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes from which on it is known how long a header is.
pub const HEAD_BYTES: usize = 16;

/// Most bytes behind those: the addresses, and what else a proxy may say, which is passed over.
pub const BODY_BYTES_MAX: usize = 1024;

/// The beginning of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    family: Family,
    /// Bytes that follow.
    pub body_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// The proxy speaks for itself, or for somebody without an IP address.
    None,
    V4,
    V6,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// It begins with something else.
    #[error("it does not begin with the signature of version 2")]
    Signature,
    /// A version, command or address family that there is not.
    #[error("its version, command or family is not known: {0:#06x}")]
    Kind(u16),
    /// It is longer than any proxy needs.
    #[error("it goes on for {0} bytes, the limit is {BODY_BYTES_MAX}")]
    TooLong(usize),
    /// It is too short for its addresses.
    #[error("it has {0} bytes, too few for its addresses")]
    TooShort(usize),
}

/// Reads the first 16 bytes.
///
/// # Errors
/// [`BadHeader`].
pub fn read_head(bytes: &[u8; HEAD_BYTES]) -> Result<Head, BadHeader> {
    let [signature @ .., command, family, high, low] = bytes;
    if *signature != SIGNATURE {
        return Err(BadHeader::Signature);
    }
    let body_bytes = usize::from(u16::from_be_bytes([*high, *low]));
    if body_bytes > BODY_BYTES_MAX {
        return Err(BadHeader::TooLong(body_bytes));
    }
    let family = match (command, family) {
        // LOCAL, whatever the family; and PROXY for what is not said, or a UNIX stream.
        (0x20, _) | (0x21, 0x00 | 0x31) => Family::None,
        (0x21, 0x11) => Family::V4,
        (0x21, 0x21) => Family::V6,
        _ => return Err(BadHeader::Kind(u16::from_be_bytes([*command, *family]))),
    };
    let least = match family {
        Family::None => 0,
        Family::V4 => 12,
        Family::V6 => 36,
    };
    if body_bytes < least {
        return Err(BadHeader::TooShort(body_bytes));
    }
    Ok(Head { family, body_bytes })
}

impl Head {
    /// Whom the proxy speaks for, from the bytes behind the head; `None` if it says nobody.
    pub fn client(self, body: &[u8]) -> Option<IpAddr> {
        match self.family {
            Family::None => None,
            Family::V4 => body.first_chunk().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes).into()),
            Family::V6 => body
                .first_chunk()
                .map(|bytes: &[u8; 16]| IpAddr::from(Ipv6Addr::from(*bytes)).to_canonical()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(kind: [u8; 2], len: u16) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..12].copy_from_slice(&SIGNATURE);
        bytes[12..14].copy_from_slice(&kind);
        bytes[14..].copy_from_slice(&len.to_be_bytes());
        bytes
    }

    #[test]
    fn a_header_says_who_the_client_is() {
        let v4 = [198, 51, 100, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 7;
        let cases: [([u8; 2], &[u8], Option<&str>); 5] = [
            ([0x21, 0x11], &v4, Some("198.51.100.7")),
            ([0x21, 0x21], &v6, Some("2001:db8::7")),
            ([0x20, 0x00], &[], None),
            ([0x20, 0x11], &v4, None),
            ([0x21, 0x31], &[1; 216], None),
        ];
        for (kind, body, expected) in cases {
            let len = u16::try_from(body.len()).expect("short");
            let head = read_head(&head(kind, len)).expect("a header");
            assert_eq!(head.body_bytes, body.len());
            let expected: Option<IpAddr> = expected.map(|text| text.parse().expect("an address"));
            assert_eq!(head.client(body), expected, "{kind:02x?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused_for_its_own_reason() {
        let cases = [
            (*b"PROXY TCP4 198.5", BadHeader::Signature),
            (*b"GET /ws HTTP/1.1", BadHeader::Signature),
            (head([0x11, 0x11], 12), BadHeader::Kind(0x1111)),
            (head([0x22, 0x11], 12), BadHeader::Kind(0x2211)),
            (head([0x21, 0x12], 12), BadHeader::Kind(0x2112)),
            (head([0x21, 0x11], 11), BadHeader::TooShort(11)),
            (head([0x21, 0x21], 35), BadHeader::TooShort(35)),
            (head([0x21, 0x11], 1025), BadHeader::TooLong(1025)),
            (head([0x20, 0x00], u16::MAX), BadHeader::TooLong(65_535)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read_head(&bytes), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_a_header_is_never_too_long(
            random in any::<[u8; HEAD_BYTES]>(),
            kind in any::<[u8; 2]>(),
            len in any::<u16>(),
            body in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            for bytes in [random, head(kind, len)] {
                if let Ok(head) = read_head(&bytes) {
                    prop_assert!(head.body_bytes <= BODY_BYTES_MAX);
                    let client = head.client(&body);
                    prop_assert!(client.is_some() || head.family == Family::None || body.len() < 16);
                }
            }
        }
    }
}
