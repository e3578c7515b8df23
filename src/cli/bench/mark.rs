//! What `fanfare bench` writes at the beginning of each body, to know it again.
//! # Invariants: a mark needs no escaping in any spelling, so that the same bytes travel on all.
//! # Not here: what is concluded from it (`tally`).

/// Bytes of a mark.
pub(super) const MARK_LEN: usize = 34;

/// How a mark begins. Neither topics nor the words of the protocol have these two characters.
const TAG: [u8; 2] = *b"@F";

/// When a message was due to be sent, and which one of its topic it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Nanoseconds of the bench's own clock.
    pub(super) due_ns: u64,
    /// The topic's number.
    pub(super) topic: u32,
    /// From 1, without holes in a topic.
    pub(super) number: u32,
}

impl Mark {
    /// Writes the mark over the beginning of a body. One that is too short stays as it is.
    pub(super) fn write(self, body: &mut [u8]) {
        let Some(place) = body.first_chunk_mut::<MARK_LEN>() else {
            return;
        };
        place[..2].copy_from_slice(&TAG);
        let numbers = [self.topic, self.number].map(u32::to_be_bytes);
        let due = self.due_ns.to_be_bytes();
        let words = due.as_chunks().0.iter().chain(&numbers);
        for (place, word) in place[2..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&hex(*word));
        }
    }

    /// Reads the mark at the beginning of `bytes`. What follows the tag is trusted to be a mark.
    pub(super) fn read(bytes: &[u8]) -> Option<Mark> {
        let (tag, rest) = bytes.split_first_chunk::<2>()?;
        let (high, rest) = rest.split_first_chunk()?;
        let (low, rest) = rest.split_first_chunk()?;
        let (topic, rest) = rest.split_first_chunk()?;
        let number = rest.first_chunk()?;
        let due_ns = u64::from(unhex(*high)) << 32 | u64::from(unhex(*low));
        (*tag == TAG).then(|| Mark { due_ns, topic: unhex(*topic), number: unhex(*number) })
    }

    /// The bytes from the first mark on.
    pub(super) fn find(bytes: &[u8]) -> Option<&[u8]> {
        let mut rest = bytes;
        loop {
            rest = rest.get(memchr::memchr(TAG[0], rest)?..)?;
            if rest.starts_with(&TAG) {
                return Some(rest);
            }
            rest = rest.get(1..)?;
        }
    }

    /// The topic of a body that begins with a mark, whoever made it.
    pub(super) fn topic_of(body: &[u8]) -> Option<u32> {
        body.get(18..)?.first_chunk().map(|digits| unhex(*digits))
    }
}

fn hex([a, b, c, d]: [u8; 4]) -> [u8; 8] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    [a >> 4, a & 15, b >> 4, b & 15, c >> 4, c & 15, d >> 4, d & 15].map(digit)
}

/// All eight digits at once: this runs for every delivery, and must not weigh on what is measured.
fn unhex(digits: [u8; 8]) -> u32 {
    let text = u64::from_be_bytes(digits);
    // Bit 6 tells letters from digits; 'a' & 15 is 1, and stands for 10.
    let nibbles = (text & 0x0f0f_0f0f_0f0f_0f0f) + 9 * (text >> 6 & 0x0101_0101_0101_0101);
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let words = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    let [.., a, b, c, d] = (words | words >> 16).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mark_is_found_behind_what_looks_like_one() {
        let mark = Mark { due_ns: 0x0123_4567_89ab_cdef, topic: 999, number: u32::MAX };
        let mut body = [b'x'; 40];
        mark.write(&mut body);
        let text = [b"{\"text\":\"me@home@", &body[..], b"\"}"].concat();
        assert_eq!(Mark::find(&text).and_then(Mark::read), Some(mark));
        assert_eq!(Mark::topic_of(&body), Some(999));
        assert_eq!(Mark::find(b"me@home@"), None);
    }

    #[test]
    fn a_body_that_is_too_short_has_no_mark() {
        let mut body = [b'x'; MARK_LEN - 1];
        Mark { due_ns: 1, topic: 1, number: 1 }.write(&mut body);
        assert_eq!(body, [b'x'; MARK_LEN - 1]);
        assert_eq!(Mark::read(b"@F0123"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(due_ns: u64, topic: u32, number: u32) {
            let mark = Mark { due_ns, topic, number };
            let mut body = [0; MARK_LEN];
            mark.write(&mut body);
            prop_assert_eq!(Mark::read(&body), Some(mark));
        }
    }
}
