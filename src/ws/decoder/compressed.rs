//! What the decoder promises about compressed messages.
//! Owns a compressor that is not the one of the product: any level, any blocks.
//! # Not here: what deflate data is (`dialect::deflate`), frames without compression (`tests`).

use super::tests::{BINARY, FIN, MORE, PING, Reader, TEXT, frame, say};
use super::*;
use flate2::{Compress, FlushCompress};
use proptest::prelude::*;
use proptest::sample::Index;

const RSV1: u8 = 0x40;

/// The payload of a compressed message, RFC 7692 section 7.2.1.
fn deflated(body: &[u8], level: u32) -> Vec<u8> {
    let mut state = Compress::new(flate2::Compression::new(level), false);
    let mut payload = Vec::with_capacity(body.len() * 2 + 1024);
    state.compress_vec(body, &mut payload, FlushCompress::Sync).unwrap();
    assert!(payload.ends_with(&[0, 0, 0xFF, 0xFF]));
    payload.truncate(payload.len() - 4);
    payload
}

fn decode(stream: &[u8], sizes: &[usize]) -> Vec<String> {
    Reader::inflating(DecoderLimits::default()).read(stream, sizes)
}

/// Decodes a stream whole, byte by byte and cut in two at every place; all must say `expected`.
fn check(stream: &[u8], expected: &[String]) {
    assert_eq!(decode(stream, &[usize::MAX]), expected, "whole: {stream:02x?}");
    for size in 1..stream.len() {
        assert_eq!(decode(stream, &[size]), expected, "reads of {size}: {stream:02x?}");
        let sizes = [size, usize::MAX];
        assert_eq!(decode(stream, &sizes), expected, "cut at {size}: {stream:02x?}");
    }
}

#[test]
fn the_samples_of_rfc_7692_are_understood() {
    // Section 7.2.3.1: in one frame, then in two.
    let whole = frame(FIN | RSV1 | TEXT, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    let parts = [
        frame(RSV1 | TEXT, &[0xf2, 0x48, 0xcd]),
        frame(FIN | PING, b""),
        frame(FIN, &[0xc9, 0xc9, 0x07, 0x00]),
    ];
    let plain = frame(FIN | TEXT, b"plain");
    let stream = [&whole[..], &parts.concat(), &plain, &whole].concat();
    let hello = "Text(\"Hello\")".to_owned();
    let expected =
        [hello.clone(), "Ping([])".into(), hello.clone(), "Text(\"plain\")".into(), hello];
    check(&stream, &expected);
}

#[test]
fn the_bit_stands_at_the_beginning_of_a_message_or_is_refused() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let rows = [
        (frame(FIN | RSV1, &hello), 4),
        (frame(FIN | RSV1 | PING, b""), 4),
        (frame(FIN | RSV1 | 0xA, b""), 4),
        (frame(FIN | RSV1 | 0x8, b""), 4),
        (frame(FIN | RSV1 | 0x3, &hello), 4),
        (frame(FIN | RSV1 | 0x20 | TEXT, &hello), 6),
        (frame(FIN | RSV1 | 0x10 | BINARY, &hello), 5),
        (frame(FIN | 0x20 | TEXT, &hello), 2),
    ];
    for (bad, bits) in rows {
        let refused = say(Violation::ReservedBits(bits));
        check(&bad, std::slice::from_ref(&refused));
        check(&[&frame(RSV1 | TEXT, &hello[..3])[..], &bad].concat(), &[refused]);
    }
    // A message that did not begin so does not go on so.
    let stream = [frame(TEXT, b"a"), frame(FIN | RSV1 | MORE, &hello)].concat();
    check(&stream, &[say(Violation::ReservedBits(4))]);
}

#[test]
fn nothing_is_compressed_unless_that_is_negotiated() {
    for opcode in [TEXT, BINARY, PING] {
        let stream = frame(FIN | RSV1 | opcode, &[0]);
        let said = Reader::new(DecoderLimits::default()).read(&stream, &[1]);
        assert_eq!(said, [say(Violation::ReservedBits(4))]);
    }
}

#[test]
fn both_what_comes_and_what_it_inflates_to_have_the_limit() {
    let exact = deflated(&vec![b'x'; 65_536], 6);
    let said = decode(&frame(FIN | RSV1 | BINARY, &exact), &[100]);
    assert!(said == [format!("{:?}", Incoming::Binary(&vec![b'x'; 65_536]))]);
    let bomb = deflated(&vec![b'x'; 32 << 20], 9);
    assert!(bomb.len() < 40_000);
    let refused = say(Violation::InflatesTooBig { limit: 65_536 });
    for body in [deflated(&vec![b'x'; 65_537], 6), bomb] {
        let (start, end) = body.split_at(body.len() / 2);
        let parts = [frame(RSV1 | BINARY, start), frame(FIN, end)].concat();
        for stream in [frame(FIN | RSV1 | BINARY, &body), parts] {
            assert_eq!(decode(&stream, &[5000]), std::slice::from_ref(&refused));
        }
    }
    let stream = frame(FIN | RSV1 | BINARY, &vec![0; 65_537]);
    assert_eq!(decode(&stream, &[5000]), ["1009 message is 65537 bytes, the limit is 65536"]);
}

#[test]
fn what_does_not_inflate_is_a_broken_protocol() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for payload in [&b""[..], b"{\"id\":1}", &[0xFF; 9], &hello[..5]] {
        check(&frame(FIN | RSV1 | TEXT, payload), &[say(Violation::NotDeflate)]);
    }
    let stream = [frame(RSV1 | TEXT, &hello[..2]), frame(FIN, &[0xFF])].concat();
    check(&stream, &[say(Violation::NotDeflate)]);
}

#[test]
fn utf_8_is_asked_of_what_a_text_inflates_to() {
    let body = "snow\u{2603}".repeat(3).into_bytes();
    let payload = deflated(&body, 6);
    // Not UTF-8 as it comes, in any of its parts.
    assert!(std::str::from_utf8(&payload).is_err());
    let (start, end) = payload.split_at(9);
    let stream = [frame(RSV1 | TEXT, start), frame(MORE, b""), frame(FIN, end)].concat();
    let text = std::str::from_utf8(&body).unwrap();
    check(&stream, &[format!("{:?}", Incoming::Text(text))]);
    let stream = frame(FIN | RSV1 | TEXT, &deflated(b"ab\xFF", 6));
    check(&stream, &[say(Violation::NotUtf8 { at: 2 })]);
    let stream = frame(FIN | RSV1 | BINARY, &deflated(b"ab\xFF", 6));
    check(&stream, &["Binary([97, 98, 255])".into()]);
}

#[test]
fn what_was_lent_is_released_at_the_latest_by_the_next_call() {
    let mut decoder = Decoder::new(DecoderLimits::default(), Compression::Deflate);
    let mut read = frame(FIN | RSV1 | TEXT, &deflated(&vec![b'x'; 60_000], 6));
    let mut input = &mut read[..];
    assert!(matches!(decoder.next(&mut input), Ok(Some(Incoming::Text(_)))));
    assert_eq!(decoder.gathered.capacity(), 60_000);
    assert!(decoder.is_between_messages());
    decoder.release();
    assert_eq!(decoder.gathered.capacity(), 0);
    assert_eq!(decoder.next(&mut input), Ok(None));
}

/// A message of a client: text or binary, whether compressed, how hard, and where it is cut.
type Sent = (Vec<u8>, bool, Option<u32>, Vec<Index>);

fn sent() -> impl Strategy<Value = Sent> {
    let cuts = || prop::collection::vec(any::<Index>(), 0..6);
    let level = || prop::option::weighted(0.7, 0_u32..10);
    prop_oneof![
        ("[a-c\u{2603}]{0,400}", level(), cuts()).prop_map(|(text, level, cuts)| (
            text.into_bytes(),
            true,
            level,
            cuts
        )),
        (prop::collection::vec(any::<u8>(), 0..300), level(), cuts())
            .prop_map(|(bytes, level, cuts)| (bytes, false, level, cuts)),
    ]
}

/// A valid stream and what it says; a ping comes before every continuation.
fn encode(all: &[Sent]) -> (Vec<u8>, Vec<String>) {
    let (mut stream, mut said) = (Vec::new(), Vec::new());
    for (body, is_text, level, cuts) in all {
        let payload = level.map_or_else(|| body.clone(), |level| deflated(body, level));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.sort_unstable();
        let mut first = if *is_text { TEXT } else { BINARY };
        first |= level.map_or(0, |_| RSV1);
        let mut from = 0;
        for cut in cuts {
            stream.extend(frame(first, &payload[from..cut]));
            stream.extend(frame(FIN | PING, b"between"));
            said.push(format!("{:?}", Incoming::Ping(b"between")));
            (first, from) = (MORE, cut);
        }
        stream.extend(frame(FIN | first, &payload[from..]));
        said.push(match std::str::from_utf8(body) {
            Ok(text) if *is_text => format!("{:?}", Incoming::Text(text)),
            _ => format!("{:?}", Incoming::Binary(body)),
        });
    }
    (stream, said)
}

proptest! {
    #[test]
    fn a_valid_stream_in_any_reads_says_what_was_sent(
        all in prop::collection::vec(sent(), 0..8),
        sizes in prop::collection::vec(1_usize..200, 1..20),
    ) {
        let (stream, said) = encode(&all);
        prop_assert_eq!(decode(&stream, &sizes), said);
    }

    #[test]
    fn a_broken_stream_says_the_same_in_any_reads(
        all in prop::collection::vec(sent(), 1..8),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        sizes in prop::collection::vec(1_usize..200, 1..20),
    ) {
        let (mut stream, _) = encode(&all);
        for (at, flip) in flips {
            let at = at.index(stream.len());
            stream[at] ^= flip;
        }
        let whole = decode(&stream, &[usize::MAX]);
        prop_assert_eq!(decode(&stream, &sizes), whole);
    }

    #[test]
    fn random_bytes_say_the_same_in_any_reads(
        mut stream in prop::collection::vec(any::<u8>(), 2..600),
        sizes in prop::collection::vec(1_usize..50, 1..20),
    ) {
        // A head that is taken, so that what is behind it is looked at.
        stream[0] = FIN | RSV1 | if stream[0] & 1 == 1 { TEXT } else { BINARY };
        stream[1] |= 0x80;
        let whole = decode(&stream, &[usize::MAX]);
        prop_assert_eq!(decode(&stream, &sizes), whole);
    }
}
