//! What the decoder promises, over tables of frames and over random streams in random reads.
//! Owns an encoder of client frames that is written apart from the decoder.
//! # Invariants: every row is read whole, byte by byte and cut in two at every place.
//! # Not here: the words of violations (`violation`).

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const MORE: u8 = 0x0;
const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
const PONG: u8 = 0xA;
pub(super) const FIN: u8 = 0x80;

/// A masked frame as a client writes it; `first` holds the opcode and, for the last one, `FIN`.
#[expect(clippy::cast_possible_truncation, reason = "the length has been matched")]
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xFFFF => {
            bytes.push(0xFE);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0xFF);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0xA1, 0x5C, length as u8, 0x37];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

pub(super) fn say(violation: Violation) -> String {
    format!("{} {violation}", violation.reason().code())
}

/// Feeds a decoder with reads and writes down what it says, and watches its memory.
pub(super) struct Reader {
    pub(super) decoder: Decoder,
    pub(super) said: Vec<String>,
}

impl Reader {
    pub(super) fn new(limits: DecoderLimits) -> Reader {
        Reader { decoder: Decoder::new(limits, Compression::None), said: Vec::new() }
    }

    /// One for whose connection permessage-deflate is negotiated.
    pub(super) fn inflating(limits: DecoderLimits) -> Reader {
        Reader { decoder: Decoder::new(limits, Compression::Deflate), said: Vec::new() }
    }

    pub(super) fn feed(&mut self, read: &[u8]) {
        let mut read = read.to_vec();
        let mut input = &mut read[..];
        loop {
            match self.decoder.next(&mut input) {
                Ok(Some(incoming)) => self.said.push(format!("{incoming:?}")),
                Ok(None) => break,
                Err(violation) => {
                    self.said.push(say(violation));
                    assert_eq!(self.decoder.next(&mut input), Ok(None));
                    break;
                }
            }
        }
        assert!(input.is_empty(), "nothing more, yet {} bytes are left", input.len());
        let gathered = &self.decoder.gathered;
        assert!(gathered.capacity() <= gathered.len() + 8192);
        assert!(!self.decoder.is_between_messages() || gathered.capacity() == 0);
    }

    /// Feeds a stream in reads of these sizes, over and over, and returns what it says.
    pub(super) fn read(mut self, stream: &[u8], sizes: &[usize]) -> Vec<String> {
        let mut rest = stream;
        for size in sizes.iter().cycle() {
            let (read, later) = rest.split_at(rest.len().min(*size));
            self.feed(read);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        self.said
    }
}

fn decode<'r>(limits: DecoderLimits, reads: impl IntoIterator<Item = &'r [u8]>) -> Vec<String> {
    let mut reader = Reader::new(limits);
    reads.into_iter().for_each(|read| reader.feed(read));
    reader.said
}

/// Decodes a stream whole, byte by byte and cut in two at every place; all must say `expected`.
fn check(stream: &[u8], expected: &[String]) {
    let limits = DecoderLimits::default();
    assert_eq!(decode(limits, [stream]), expected, "whole: {stream:02x?}");
    assert_eq!(decode(limits, stream.chunks(1)), expected, "by bytes: {stream:02x?}");
    for at in 0..stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(decode(limits, [head, tail]), expected, "cut at {at}: {stream:02x?}");
    }
}

#[test]
fn a_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 96, "{} bytes", size_of::<Decoder>());
}

#[test]
fn a_message_is_open_from_its_first_byte_to_its_last() {
    let mut reader = Reader::new(DecoderLimits::default());
    assert!(reader.decoder.is_between_messages());
    let stream = [frame(TEXT, b"o"), frame(FIN | PING, b""), frame(FIN, b"k")].concat();
    let (last, open) = stream.split_last().unwrap();
    for byte in open {
        reader.feed(&[*byte]);
        assert!(!reader.decoder.is_between_messages());
    }
    reader.feed(&[*last]);
    assert!(reader.decoder.is_between_messages());
}

#[test]
fn what_rfc_6455_allows_is_understood() {
    let mixed = [
        frame(TEXT, "snow\u{2603}".as_bytes().split_at(5).0),
        frame(FIN | PING, b"are you there"),
        frame(MORE, b""),
        frame(FIN | PONG, b""),
        frame(FIN, "\u{2603}".as_bytes().split_at(1).1),
        frame(FIN | BINARY, &[0xFF, 0]),
        frame(BINARY, &[]),
        frame(FIN, &[]),
        frame(FIN | TEXT, b""),
        frame(FIN | CLOSE, b""),
        frame(FIN | TEXT, b"after the close"),
    ];
    let expected = [
        "Ping([97, 114, 101, 32, 121, 111, 117, 32, 116, 104, 101, 114, 101])",
        "Pong([])",
        "Text(\"snow\u{2603}\")",
        "Binary([255, 0])",
        "Binary([])",
        "Text(\"\")",
        "Close(None)",
    ]
    .map(String::from);
    check(&mixed.concat(), &expected);
    // The sample of RFC 6455 section 5.7.
    check(
        &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58],
        &["Text(\"Hello\")".into()],
    );
    check(&frame(FIN | PING, &[7; 125]), &[format!("Ping({:?})", [7; 125])]);
}

/// Checks that `before` and a ping are understood, then `bad` is refused, then nothing is said.
fn check_refused(before: &[Vec<u8>], bad: &[u8], violation: Violation) {
    let (ping, text) = (frame(FIN | PING, b""), frame(FIN | TEXT, b"ok"));
    let mut expected = vec!["Ping([])".into(), say(violation)];
    if before.contains(&text) {
        expected.insert(0, "Text(\"ok\")".into());
    }
    check(&[&before.concat(), &ping, bad, &text].concat(), &expected);
}

/// A head that is spelled out, with a mask.
fn head(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[1, 2, 3, 4]].concat()
}

#[test]
fn a_broken_head_is_refused_between_messages_and_inside_one() {
    let rows = [
        (vec![0x81, 0x02, b'h', b'i'], Violation::NotMasked),
        (vec![0x80, 0x00], Violation::NotMasked),
        (vec![0x89, 0x00], Violation::NotMasked),
        (frame(FIN | 0x40 | TEXT, b"x"), Violation::ReservedBits(4)),
        (frame(FIN | 0x20 | PING, b"x"), Violation::ReservedBits(2)),
        (frame(FIN | 0x10, b"x"), Violation::ReservedBits(1)),
        (frame(FIN | 0x3, b""), Violation::UnknownOpcode(0x3)),
        (frame(FIN | 0x7, b""), Violation::UnknownOpcode(0x7)),
        (frame(FIN | 0xB, b""), Violation::UnknownOpcode(0xB)),
        (frame(FIN | 0xF, b""), Violation::UnknownOpcode(0xF)),
        (frame(PING, b""), Violation::ControlFragmented),
        (frame(CLOSE, b""), Violation::ControlFragmented),
        (frame(FIN | PING, &[0; 126]), Violation::ControlTooLong),
        (frame(FIN | PONG, &[0; 126]), Violation::ControlTooLong),
        (frame(FIN | CLOSE, &[3; 126]), Violation::ControlTooLong),
        (head(&[0x8A, 0xFF, 0, 0]), Violation::ControlTooLong),
        (frame(FIN | CLOSE, b"\x03"), Violation::CloseOfOneByte),
    ];
    for (bad, violation) in rows {
        check_refused(&[frame(FIN | TEXT, b"ok")], &bad, violation);
        check_refused(&[frame(TEXT, b"o")], &bad, violation);
    }
}

#[test]
fn a_length_is_minimal_and_within_the_limit() {
    let long = |length: u64| head(&[&[0x82, 0xFF], &length.to_be_bytes()[..]].concat());
    let too_big = |bytes| Violation::TooBig { bytes, limit: 65_536 };
    let rows = [
        (head(&[0x82, 0xFE, 0, 0]), Violation::LengthNotMinimal(0)),
        (head(&[0x82, 0xFE, 0, 125]), Violation::LengthNotMinimal(125)),
        (long(1), Violation::LengthNotMinimal(1)),
        (long(65_535), Violation::LengthNotMinimal(65_535)),
        (long(1 << 63), Violation::LengthTopBit),
        (long(u64::MAX), Violation::LengthTopBit),
        (long(65_537), too_big(65_537)),
        (long(60_000_000), too_big(60_000_000)),
    ];
    for (bad, violation) in rows {
        check_refused(&[frame(FIN | TEXT, b"ok")], &bad, violation);
    }
    let mut more = long(65_536);
    more[0] = MORE;
    check_refused(&[frame(TEXT, b"o")], &more, too_big(65_537));
}

#[test]
fn fragments_come_in_order() {
    for more in [frame(MORE, b"x"), frame(FIN, b"x"), frame(FIN, b"")] {
        let whole = [frame(FIN | TEXT, b"ok")];
        check_refused(&whole, &more, Violation::NothingToContinue);
    }
    for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
        let open = [frame(TEXT, b"o"), frame(MORE, b"p")];
        check_refused(&open, &frame(first, b"second"), Violation::MessageOpen);
    }
}

#[test]
fn text_is_utf_8_across_fragments() {
    let rows = [
        (vec![], frame(FIN | TEXT, b"ab\xFFcd"), 2),
        (vec![], frame(FIN | TEXT, b"\xC0\xAF"), 0),
        (vec![], frame(FIN | TEXT, b"\xED\xA0\x80"), 0),
        (vec![], frame(FIN | TEXT, b"\xF4\x90\x80\x80"), 0),
        // A message that ends inside a character.
        (vec![], frame(FIN | TEXT, b"a\xE2\x98"), 1),
        (vec![frame(TEXT, b"a")], frame(FIN, b"\xE2\x98"), 1),
        (vec![frame(TEXT, b"a\xE2")], frame(FIN, b""), 1),
        // What cannot become valid is refused without waiting for the last fragment.
        (vec![], frame(TEXT, b"\xFF"), 0),
        (vec![frame(TEXT, b"a\xE2")], frame(MORE, b"b"), 1),
        (vec![frame(TEXT, b"a\xE2"), frame(MORE, b"\x98")], frame(MORE, b"\x83b\xFF"), 5),
        // The reason of a close is a text of its own.
        (vec![frame(TEXT, b"\xE2")], frame(FIN | CLOSE, b"\x03\xE8bye\xFF"), 3),
    ];
    for (before, bad, at) in rows {
        check_refused(&before, &bad, Violation::NotUtf8 { at });
    }
}

#[test]
fn close_codes_are_those_that_may_be_sent() {
    let registered = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    let own = [3000, 3999, 4000, 4408, 4999];
    for code in registered.into_iter().chain(own) {
        let stream = frame(FIN | CLOSE, &[&u16::to_be_bytes(code)[..], b"bye"].concat());
        check(&stream, &[format!("Close(Some(({code}, \"bye\")))")]);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let stream = frame(FIN | CLOSE, &u16::to_be_bytes(code));
        check(&stream, &[say(Violation::CloseCode(code))]);
    }
}

#[test]
fn every_length_is_read_and_cut_anywhere_near_its_head_and_tail() {
    for length in [0, 1, 124, 125, 126, 127, 4095, 4096, 4097, 65_535, 65_536] {
        let payload: Vec<u8> = (0..=250).cycle().take(length).collect();
        let stream = [frame(FIN | BINARY, &payload), frame(FIN | PING, b"")].concat();
        let expected = [format!("{:?}", Incoming::Binary(&payload)), "Ping([])".into()];
        let near = (0..20).chain(stream.len().saturating_sub(20)..=stream.len());
        for at in near.filter(|at| *at <= stream.len()) {
            let (head, tail) = stream.split_at(at);
            let said = decode(DecoderLimits::default(), [head, tail]);
            assert!(said == expected, "{length} bytes cut at {at}");
        }
        let said = decode(DecoderLimits::default(), stream.chunks(1000));
        assert!(said == expected, "{length} bytes in chunks");
    }
}

#[test]
fn a_message_in_one_frame_is_lent_where_it_was_read() {
    let mut decoder = Decoder::new(DecoderLimits::default(), Compression::None);
    let mut read = [frame(FIN | TEXT, b"one"), frame(FIN | TEXT, b"two")].concat();
    let place = read.as_ptr_range();
    let mut input = &mut read[..];
    for expected in ["one", "two"] {
        match decoder.next(&mut input) {
            Ok(Some(Incoming::Text(text))) => {
                assert_eq!(text, expected);
                assert!(place.contains(&text.as_ptr()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(decoder.gathered.capacity(), 0);
}

#[test]
fn a_declared_length_is_not_trusted_with_memory() {
    let mut reader = Reader::new(DecoderLimits::default());
    let stream = frame(FIN | BINARY, &vec![0; 65_536]);
    reader.feed(&stream[..14]);
    assert_eq!(reader.decoder.gathered.capacity(), 0);
    reader.feed(&stream[14..15]);
    assert_eq!(reader.decoder.gathered.capacity(), 1 + AHEAD_BYTES_MAX);
}

#[test]
fn a_fragmented_message_may_have_the_whole_limit_but_no_more() {
    let limits = DecoderLimits { message_bytes_max: 1000, ..DecoderLimits::default() };
    let start = [frame(BINARY, &[1; 600]), frame(MORE, &[])].concat();
    let exact = [&start[..], &frame(FIN, &[1; 400])].concat();
    let over = [&start[..], &frame(FIN, &[1; 401])].concat();
    assert_eq!(decode(limits, [&exact[..]]), [format!("{:?}", Incoming::Binary(&[1; 1000]))]);
    assert_eq!(decode(limits, [&over[..]]), ["1009 message is 1001 bytes, the limit is 1000"]);
    let part = vec![0; 60_000];
    let flood = [frame(BINARY, &part), frame(MORE, &part)].concat();
    assert_eq!(
        decode(DecoderLimits::default(), flood.chunks(8192)),
        ["1009 message is 120000 bytes, the limit is 65536"]
    );
}

#[test]
fn fragments_are_counted_even_if_they_are_empty() {
    for payload in [&b""[..], b"x"] {
        let mut stream = frame(BINARY, payload);
        (0..62).for_each(|_| stream.extend(frame(MORE, payload)));
        let whole = [&stream[..], &frame(FIN, payload)].concat();
        let said = [format!("{:?}", Incoming::Binary(&payload.repeat(64)))];
        assert_eq!(decode(DecoderLimits::default(), [&whole[..]]), said);
        stream.extend(frame(MORE, payload));
        stream.extend(frame(FIN, payload));
        let said = decode(DecoderLimits::default(), [&stream[..]]);
        assert_eq!(said, ["1009 message has more than 64 fragments"]);
    }
}

/// One thing that a client sends: its opcode and payload, and where a message is cut.
fn sent() -> impl Strategy<Value = (u8, Vec<u8>, Vec<Index>)> {
    let cuts = || prop::collection::vec(any::<Index>(), 0..6);
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        (".{0,90}", cuts()).prop_map(|(text, cuts)| (TEXT, text.into_bytes(), cuts)),
        (bytes(300), cuts()).prop_map(|(bytes, cuts)| (BINARY, bytes, cuts)),
        bytes(126).prop_map(|bytes| (PING, bytes, Vec::new())),
        bytes(126).prop_map(|bytes| (PONG, bytes, Vec::new())),
    ]
}

/// A valid stream and what it says; a ping comes before every continuation.
fn encode(all: &[(u8, Vec<u8>, Vec<Index>)]) -> (Vec<u8>, Vec<String>) {
    let (mut stream, mut said) = (Vec::new(), Vec::new());
    for (opcode, payload, cuts) in all {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut opcode_now, mut from) = (*opcode, 0);
        for cut in cuts {
            stream.extend(frame(opcode_now, &payload[from..cut]));
            stream.extend(frame(FIN | PING, b"between"));
            said.push(format!("{:?}", Incoming::Ping(b"between")));
            (opcode_now, from) = (MORE, cut);
        }
        stream.extend(frame(FIN | opcode_now, &payload[from..]));
        said.push(match *opcode {
            TEXT => format!("{:?}", Incoming::Text(std::str::from_utf8(payload).unwrap())),
            BINARY => format!("{:?}", Incoming::Binary(payload)),
            PING => format!("{:?}", Incoming::Ping(payload)),
            _ => format!("{:?}", Incoming::Pong(payload)),
        });
    }
    (stream, said)
}

fn decode_in_reads(stream: &[u8], sizes: &[usize]) -> Vec<String> {
    Reader::new(DecoderLimits::default()).read(stream, sizes)
}

proptest! {
    #[test]
    fn a_valid_stream_in_any_reads_says_what_was_sent(
        all in prop::collection::vec(sent(), 0..8),
        sizes in prop::collection::vec(1usize..200, 1..20),
    ) {
        let (stream, said) = encode(&all);
        prop_assert_eq!(decode_in_reads(&stream, &sizes), said);
    }

    #[test]
    fn a_broken_stream_says_the_same_in_any_reads(
        all in prop::collection::vec(sent(), 1..8),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        sizes in prop::collection::vec(1usize..200, 1..20),
    ) {
        let (mut stream, _) = encode(&all);
        for (at, flip) in flips {
            let at = at.index(stream.len());
            stream[at] ^= flip;
        }
        let whole = decode(DecoderLimits::default(), [&stream[..]]);
        prop_assert_eq!(decode_in_reads(&stream, &sizes), whole);
    }

    #[test]
    fn random_bytes_say_the_same_in_any_reads(
        stream in prop::collection::vec(any::<u8>(), 0..600),
        sizes in prop::collection::vec(1usize..50, 1..20),
    ) {
        let whole = decode(DecoderLimits::default(), [&stream[..]]);
        prop_assert_eq!(decode_in_reads(&stream, &sizes), whole);
    }
}
