//! Compressed messages: a body as raw deflate and back, RFC 7692 section 7.2.
//! Owns one compressor and one decompressor per thread, made when first needed; a connection owns
//! neither.
//! # Invariants: each message stands alone, so one result serves every connection; the memory for a
//! body is bounded by its limit before it is known how large it is.
//! # Not here: who negotiated it (`ws`), heads of frames (`frame`), UTF-8.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;

/// Bodies below this are sent as they are.
///
/// Measured with events of a stock ticker in JSON: 122 bytes become 105, which is nothing beside the
/// 40 and more of TCP and IP; 171 become 132, 220 become 161, 350 become 236 and 600 become 350.
pub const BODY_BYTES_MIN: usize = 128;

/// How hard to try, of 1 to 9.
///
/// Measured with the same events: level 1 has fixed codes, which turn 350 bytes into 285 in 4 µs;
/// level 2 is the first with codes of its own, 236 bytes in 8 µs. Beyond it nothing is won below
/// 1 KiB, and 16 KiB take 1.8 times as long at level 6 and shrink by a sixteenth more. A message is
/// compressed once, whoever gets it, so the 4 µs between the first two are cheap.
const LEVEL: u32 = 2;

/// What ends every compressed message and is not sent.
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// An empty last block: what it ends was at the end of a block, and not cut off inside of one.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xFF, 0xFF];

/// Room for what is inflated, at first.
const ROOM: usize = 512;

thread_local! {
    static COMPRESSOR: RefCell<Compress> =
        RefCell::new(Compress::new(Compression::new(LEVEL), false));
    static DECOMPRESSOR: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Why bytes could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateError {
    /// They are not deflate data, or end inside of it.
    Corrupt,
    /// They are, and more than was allowed comes out.
    TooBig,
}

/// Appends `body`, compressed, to `payload`, and says whether that pays. If it does not, what was
/// appended is of no use.
#[must_use]
pub fn deflate(body: &[u8], payload: &mut Vec<u8>) -> bool {
    if body.len() < BODY_BYTES_MIN {
        return false;
    }
    // What does not fit in here is not smaller than the body.
    let start = payload.len();
    payload.reserve(body.len() + TAIL.len());
    COMPRESSOR.with_borrow_mut(|state| {
        state.reset();
        state.compress_vec(body, payload, FlushCompress::Sync).is_ok()
    }) && payload.len() < payload.capacity()
        && take_tail(payload)
        && payload.len() - start < body.len()
}

fn take_tail(payload: &mut Vec<u8>) -> bool {
    let end = payload.len().saturating_sub(TAIL.len());
    let ends = payload.ends_with(&TAIL);
    payload.truncate(end);
    ends
}

/// The body of a compressed message, if it has at most `limit` bytes.
///
/// It takes a few times as much memory as comes out, however small `payload` is.
///
/// # Errors
/// [`InflateError`], as soon as it is seen.
pub fn inflate(payload: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
    DECOMPRESSOR.with_borrow_mut(|state| {
        state.reset(false);
        let mut body = Vec::new();
        let mut ended = false;
        for piece in [payload, &TAIL, &LAST_BLOCK] {
            // A sender may mark its last block as such; what we add has no meaning behind it.
            if !ended {
                ended = append(state, piece, &mut body, limit)?;
            }
        }
        body.shrink_to_fit();
        if ended { Ok(body) } else { Err(InflateError::Corrupt) }
    })
}

/// Inflates all of `piece`, and says whether it ends with the end of a last block.
fn append(
    state: &mut Decompress,
    mut piece: &[u8],
    body: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, InflateError> {
    loop {
        if body.len() == body.capacity() {
            let room = body.len().max(ROOM).min((limit - body.len()).saturating_add(1));
            body.reserve_exact(room);
        }
        let (taken, made) = (state.total_in(), body.len());
        let status = state.decompress_vec(piece, body, FlushDecompress::Sync);
        let status = status.map_err(|_| InflateError::Corrupt)?;
        if body.len() > limit {
            return Err(InflateError::TooBig);
        }
        let taken = usize::try_from(state.total_in() - taken).unwrap_or(usize::MAX);
        piece = piece.get(taken..).unwrap_or_default();
        let ended = status == Status::StreamEnd;
        if ended {
            // RFC 7692 section 7.2.3.4 lets a message have several of these.
            state.reset(false);
        }
        if piece.is_empty() && body.len() < body.capacity() {
            return Ok(ended);
        }
        if taken == 0 && body.len() == made {
            return Err(InflateError::Corrupt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 65_536;

    fn deflated(body: &[u8]) -> Option<Vec<u8>> {
        let mut payload = b"head".to_vec();
        deflate(body, &mut payload).then(|| {
            assert!(payload.starts_with(b"head"));
            payload.split_off(4)
        })
    }

    /// What another encoder makes of a body: at any level, in several flushes.
    fn deflated_otherwise(pieces: &[Vec<u8>], level: u32) -> Vec<u8> {
        let mut state = Compress::new(Compression::new(level), false);
        let mut payload = Vec::new();
        for piece in pieces {
            payload.reserve(piece.len() * 2 + 1024);
            state.compress_vec(piece, &mut payload, FlushCompress::Sync).unwrap();
        }
        assert!(take_tail(&mut payload));
        payload
    }

    #[test]
    fn the_samples_of_rfc_7692_inflate() {
        // Section 7.2.3: one block, one without compression, with a last block, two blocks.
        let rows: [&[u8]; 4] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        for payload in rows {
            assert_eq!(inflate(payload, LIMIT).as_deref(), Ok(&b"Hello"[..]), "{payload:02x?}");
        }
        assert_eq!(inflate(&[0], LIMIT).as_deref(), Ok(&b""[..]));
        // A last block, and nothing behind it.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&last, LIMIT).as_deref(), Ok(&b"Hello"[..]));
    }

    #[test]
    fn what_is_no_deflate_data_or_ends_inside_of_it_is_corrupt() {
        let whole = deflated_otherwise(&[b"a body ".repeat(40)], 6);
        for end in 0..whole.len() {
            let said = inflate(&whole[..end], LIMIT);
            assert_eq!(said, Err(InflateError::Corrupt), "cut at {end} of {}", whole.len());
        }
        let rows: [&[u8]; 4] = [b"", b"{\"id\":1}", &[0xff; 20], &[0x06, 0, 0]];
        for payload in rows {
            assert_eq!(inflate(payload, LIMIT), Err(InflateError::Corrupt), "{payload:02x?}");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_takes_no_more_memory() {
        let bomb = deflated_otherwise(&[vec![0; 16 << 20]], 9);
        assert!(bomb.len() < 20_000);
        assert_eq!(inflate(&bomb, LIMIT), Err(InflateError::TooBig));
        let exact = deflated_otherwise(&[vec![7; LIMIT]], 9);
        let body = inflate(&exact, LIMIT).unwrap();
        assert!(body.len() == LIMIT && body.capacity() == LIMIT);
        assert_eq!(inflate(&exact, LIMIT - 1), Err(InflateError::TooBig));
        assert_eq!(inflate(&[0], 0).as_deref(), Ok(&b""[..]));
        assert_eq!(inflate(&exact, 0), Err(InflateError::TooBig));
    }

    #[test]
    fn many_last_blocks_are_one_message() {
        // An empty last block with fixed codes, 10 bits, padded.
        let payload = [0x03, 0x00].repeat(30_000);
        assert_eq!(inflate(&payload, LIMIT).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn compressing_pays_from_a_length_on_and_only_if_it_shrinks() {
        let text = br#"{"message":{"topic":"ticker.AAPL","offset":7}}"#.repeat(8);
        assert!(deflated(&text[..BODY_BYTES_MIN - 1]).is_none());
        let payload = deflated(&text[..BODY_BYTES_MIN]).unwrap();
        assert!(payload.len() < BODY_BYTES_MIN / 2);
        let noise: Vec<u8> =
            (0..70_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
        for length in [128, 300, 5_000, 70_000] {
            if let Some(payload) = deflated(&noise[..length]) {
                assert!(payload.len() < length);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_deflated_inflates(
            body in prop::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..5000),
        ) {
            match deflated(&body) {
                Some(payload) => {
                    prop_assert!(payload.len() < body.len());
                    prop_assert_eq!(inflate(&payload, body.len()), Ok(body.clone()));
                    prop_assert_eq!(inflate(&payload, body.len() - 1), Err(InflateError::TooBig));
                }
                None => {
                    // Nothing is left in the compressor for the next one.
                    prop_assert!(deflated(&[b'x'; 200]).is_some_and(|it| it.len() < 20));
                }
            }
        }

        #[test]
        fn what_others_deflate_inflates(
            pieces in prop::collection::vec(
                prop::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 1..3000),
                1..4,
            ),
            level in 0_u32..10,
        ) {
            let payload = deflated_otherwise(&pieces, level);
            prop_assert_eq!(inflate(&payload, LIMIT), Ok(pieces.concat()));
        }

        #[test]
        fn random_bytes_inflate_within_the_limit_or_not_at_all(
            payload in prop::collection::vec(any::<u8>(), 0..400),
            limit in 0_usize..2000,
        ) {
            if let Ok(body) = inflate(&payload, limit) {
                prop_assert!(body.len() <= limit);
            }
        }
    }
}
