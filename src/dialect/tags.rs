//! The protobuf wire format: tagged fields, borrowed from a message or appended to one.
//! Owns tags, varints, doubles and lengths.
//! # Invariants: reading copies nothing, does not recurse by itself and stays within its input;
//! writing puts bytes where they belong at once, and moves only messages whose length was not
//! foreseen.
//! # Not here: which fields there are (`proto`).

use smallvec::SmallVec;

/// Ways in which bytes fail to be what the schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The message ends inside a field.
    #[error("it ends within a field")]
    Cut,
    /// A number does not fit 64 bits.
    #[error("it has a number of more than 64 bits")]
    Varint,
    /// A tag that no field can have.
    #[error("it has a tag that is not valid")]
    Tag,
    /// The value is of another type than that of the field.
    #[error("field {0} is of another type")]
    Type(u32),
    /// A string that is not one.
    #[error("field {0} is not UTF-8")]
    Utf8(u32),
    /// The field was there before.
    #[error("field {0} occurs twice")]
    Twice(u32),
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    /// Its number in the schema.
    pub(super) number: u32,
    value: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// 64 bits, which are a double wherever the schema has them.
    Fixed64([u8; 8]),
    /// 32 bits, which no field of the schema has.
    Fixed32,
}

/// Bytes of the longest varint: 64 bits in groups of seven.
const VARINT_BYTES_MAX: usize = 10;

/// The least number that has more than eight groups of seven bits.
const VARINT_WORD_END: u64 = 1 << 56;

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED_32: u32 = 5;

/// The fields of a message, in the order in which they come; nothing after the first fault.
#[inline]
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, Fault>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = read_field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

impl<'a> Field<'a> {
    /// Puts what `read` makes of the field into `slot`, which must be empty.
    #[inline]
    pub(super) fn fill<T>(
        self,
        slot: &mut Option<T>,
        read: impl FnOnce(Field<'a>) -> Result<T, Fault>,
    ) -> Result<(), Fault> {
        if slot.is_some() {
            return Err(Fault::Twice(self.number));
        }
        *slot = Some(read(self)?);
        Ok(())
    }

    /// The number that the field holds.
    #[inline]
    pub(super) fn varint(self) -> Result<u64, Fault> {
        match self.value {
            Value::Varint(number) => Ok(number),
            Value::Bytes(_) | Value::Fixed64(_) | Value::Fixed32 => Err(Fault::Type(self.number)),
        }
    }

    /// The double that the field holds.
    pub(super) fn double(self) -> Result<f64, Fault> {
        match self.value {
            Value::Fixed64(bytes) => Ok(f64::from_le_bytes(bytes)),
            Value::Varint(_) | Value::Bytes(_) | Value::Fixed32 => Err(Fault::Type(self.number)),
        }
    }

    /// The bytes that the field holds.
    #[inline]
    pub(super) fn bytes(self) -> Result<&'a [u8], Fault> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32 => Err(Fault::Type(self.number)),
        }
    }

    /// The text that the field holds.
    pub(super) fn text(self) -> Result<&'a str, Fault> {
        simdutf8::basic::from_utf8(self.bytes()?).map_err(|_| Fault::Utf8(self.number))
    }

    /// The fields of the message that the field holds.
    #[inline]
    pub(super) fn fields(
        self,
    ) -> Result<impl Iterator<Item = Result<Field<'a>, Fault>> + use<'a>, Fault> {
        self.bytes().map(fields)
    }
}

#[expect(clippy::inline_always, reason = "in a call a field is handed over by memory, measured")]
#[inline(always)]
fn read_field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, Fault> {
    let tag = u32::try_from(read_varint(rest)?).map_err(|_| Fault::Tag)?;
    let number = tag >> 3;
    if number == 0 {
        return Err(Fault::Tag);
    }
    let value = match tag & 7 {
        VARINT => Value::Varint(read_varint(rest)?),
        LENGTH_DELIMITED => {
            let len = usize::try_from(read_varint(rest)?).map_err(|_| Fault::Cut)?;
            Value::Bytes(take(rest, len)?)
        }
        rare => read_rare(rare, rest)?,
    };
    Ok(Field { number, value })
}

/// A value of a type that few fields have, or none.
#[cold]
fn read_rare<'a>(kind: u32, rest: &mut &'a [u8]) -> Result<Value<'a>, Fault> {
    match kind {
        FIXED_64 => {
            let (bytes, tail) = rest.split_first_chunk().ok_or(Fault::Cut)?;
            *rest = tail;
            Ok(Value::Fixed64(*bytes))
        }
        FIXED_32 => take(rest, 4).map(|_| Value::Fixed32),
        // Groups, which proto3 does not have.
        _ => Err(Fault::Tag),
    }
}

#[expect(clippy::inline_always, reason = "most have a byte or two, measured")]
#[inline(always)]
fn read_varint(rest: &mut &[u8]) -> Result<u64, Fault> {
    // Tags, and most lengths and numbers.
    match *rest {
        [byte @ ..0x80, tail @ ..] => {
            *rest = tail;
            Ok(u64::from(*byte))
        }
        [first, byte @ ..0x80, tail @ ..] => {
            *rest = tail;
            Ok(u64::from(*first & 0x7F) | u64::from(*byte) << 7)
        }
        _ => read_long_varint(rest),
    }
}

fn read_long_varint(rest: &mut &[u8]) -> Result<u64, Fault> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(Fault::Cut)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7F);
        // Ten groups of seven bits are 70: the last group may only use one of its own.
        if shift == 63 && bits > 1 {
            return Err(Fault::Varint);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Fault::Varint)
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Fault> {
    let (taken, tail) = rest.split_at_checked(len).ok_or(Fault::Cut)?;
    *rest = tail;
    Ok(taken)
}

/// A message that is being written.
#[derive(Debug)]
pub(super) struct Tags<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Tags<'a> {
    /// Appends to `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Tags<'a> {
        Tags { out }
    }

    /// Writes a number; 0 is left out, as proto3 has it.
    #[inline]
    pub(super) fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.present_number(field, number);
        }
    }

    /// Writes a number, even 0.
    #[inline]
    pub(super) fn present_number(&mut self, field: u32, number: u64) {
        self.varint((field << 3 | VARINT).into());
        self.varint(number);
    }

    /// Writes a value of an enumeration of the schema.
    #[inline]
    pub(super) fn choice(&mut self, field: u32, value: impl Into<i32>) {
        // The schema has no negative values.
        self.number(field, u64::try_from(value.into()).unwrap_or_default());
    }

    /// Writes a double, even 0.
    pub(super) fn double(&mut self, field: u32, number: f64) {
        self.varint((field << 3 | FIXED_64).into());
        self.put(&number.to_le_bytes());
    }

    /// Writes a string; an empty one is left out, as proto3 has it.
    pub(super) fn string(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// Writes bytes, even if there are none.
    #[inline]
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.head(field, bytes.len());
        self.put(bytes);
    }

    /// Writes a message with the fields that `fill` writes.
    #[inline]
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Tags<'_>)) {
        self.long_message(field, 0, fill);
    }

    /// As [`Tags::message`], for one that will most likely have about so many bytes.
    #[inline]
    pub(super) fn long_message(
        &mut self,
        field: u32,
        about: usize,
        fill: impl FnOnce(&mut Tags<'_>),
    ) {
        self.varint((field << 3 | LENGTH_DELIMITED).into());
        // The length stands in front, and is known when the fields are there.
        let place = self.out.len();
        self.varint(about as u64);
        let begin = self.out.len();
        fill(self);
        let len = self.out.len().saturating_sub(begin);
        match (u8::try_from(len), begin - place) {
            (Ok(short @ ..0x80), 1) => {
                self.out.iter_mut().skip(place).take(1).for_each(|b| *b = short);
            }
            _ => self.put_length(place, begin, len),
        }
    }

    /// Puts the length of the last `len` bytes, which begin at `begin`, at `place` in front of them.
    fn put_length(&mut self, place: usize, begin: usize, len: usize) {
        if let (0x80..0x4000, 2) = (len, begin - place)
            && let Some(room) = self.out.get_mut(place..begin)
        {
            let [low, high, ..] = len.to_le_bytes();
            return room.copy_from_slice(&[low | 0x80, high << 1 | low >> 7]);
        }
        let mut length = SmallVec::<[u8; VARINT_BYTES_MAX]>::new();
        write_varint(len as u64, |byte| length.push(byte));
        let end = place + length.len();
        if end != begin {
            self.out.resize(end.max(begin) + len, 0);
            self.out.copy_within(begin..begin + len, end);
            self.out.truncate(end + len);
        }
        for (room, byte) in self.out.iter_mut().skip(place).zip(length) {
            *room = byte;
        }
    }

    #[inline]
    fn head(&mut self, field: u32, len: usize) {
        let tag = field << 3 | LENGTH_DELIMITED;
        if let (Ok(tag @ ..0x80), Ok(len @ ..0x80)) = (u8::try_from(tag), u8::try_from(len)) {
            self.put(&[tag, len]);
        } else {
            self.varint(tag.into());
            self.varint(len as u64);
        }
    }

    #[inline]
    fn varint(&mut self, number: u64) {
        // Several bytes at once, because each call looks for room.
        let [zero, one, ..] = number.to_le_bytes();
        match number {
            ..0x80 => self.put(&[zero]),
            0x80..0x4000 => self.put(&[zero | 0x80, one << 1 | zero >> 7]),
            0x4000..VARINT_WORD_END => self.varint_word(number),
            _ => write_varint(number, |byte| self.out.push(byte)),
        }
    }

    /// Writes a number of at most eight groups of seven bits, in one piece of a fixed size: bytes that
    /// are written one by one cannot be read as a word at once, and a number's length is hard to
    /// foresee for a processor.
    #[inline]
    fn varint_word(&mut self, number: u64) {
        let groups = (u64::BITS - number.leading_zeros()).div_ceil(7).max(1);
        // Seven bits of each byte: 28 of each half, 14 of each quarter, then 7.
        let halves = (number & 0x00FF_FFFF_F000_0000) << 4 | (number & 0x0FFF_FFFF);
        let quarters = (halves & 0x0FFF_C000_0FFF_C000) << 2 | (halves & 0x0000_3FFF_0000_3FFF);
        let bytes = (quarters & 0x3F80_3F80_3F80_3F80) << 1 | (quarters & 0x007F_007F_007F_007F);
        let more = 0x0080_8080_8080_8080 & !(u64::MAX << (8 * (groups - 1)));
        let end = self.out.len() + groups as usize;
        self.put(&(bytes | more).to_le_bytes());
        self.out.truncate(end);
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }
}

fn write_varint(number: u64, mut put: impl FnMut(u8)) {
    let mut rest = number;
    while rest >= 0x80 {
        let [bits, ..] = rest.to_le_bytes();
        put(bits | 0x80);
        rest >>= 7;
    }
    let [bits, ..] = rest.to_le_bytes();
    put(bits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_fault(message: &[u8], expected: Fault) {
        let read: Result<Vec<_>, _> = fields(message).collect();
        assert_eq!(read.map(|_| ()), Err(expected), "{message:x?}");
    }

    #[test]
    fn numbers_of_every_length_survive() {
        let powers = (0..64).map(|bit| 1_u64 << bit);
        for number in powers.flat_map(|power| [power - 1, power]).chain([u64::MAX]) {
            let mut out = Vec::new();
            Tags::new(&mut out).present_number(15, number);
            let read: Vec<_> = fields(&out).collect::<Result<_, _>>().expect("valid");
            assert_eq!(read.len(), 1);
            assert_eq!((read[0].number, read[0].varint()), (15, Ok(number)));
        }
    }

    #[test]
    fn doubles_survive_bit_by_bit() {
        for number in [0.0, -0.0, 0.01, 1_000.0, f64::MIN_POSITIVE, f64::INFINITY, f64::NAN] {
            let mut out = Vec::new();
            Tags::new(&mut out).double(8, number);
            assert_eq!(out.len(), 9);
            let read: Vec<_> = fields(&out).collect::<Result<_, _>>().expect("valid");
            let bits = read[0].double().map(f64::to_bits);
            assert_eq!((read[0].number, bits), (8, Ok(number.to_bits())));
            assert_eq!(read[0].varint(), Err(Fault::Type(8)));
        }
        let others: Vec<_> = fields(b"\x40\x01\x42\x00\x45\0\0\0\0").collect();
        assert_eq!(others.len(), 3);
        for field in others {
            assert_eq!(field.and_then(Field::double), Err(Fault::Type(8)));
        }
    }

    #[test]
    fn a_message_has_its_length_in_front_however_long_it_is() {
        let lengths = [0, 1, 125, 126, 127, 128, 16_380, 16_384, 1 << 21];
        let pairs = lengths.into_iter().flat_map(|len| lengths.map(|about| (len, about)));
        for (len, about) in pairs {
            let text = vec![b'x'; len];
            let mut out = b"before".to_vec();
            Tags::new(&mut out).long_message(3, about, |tags| {
                tags.message(2, |tags| tags.bytes(1, &text));
            });
            let read = |message| fields(message).next().expect("a field").expect("valid").bytes();
            let outer = read(&out[6..]).expect("a message");
            let inner = read(outer).expect("a message");
            assert_eq!(read(inner), Ok(text.as_slice()), "{len}");
            let length = |len: usize| prost::length_delimiter_len(len);
            let expected = 6 + 1 + length(outer.len()) + outer.len();
            assert_eq!((out.len(), outer.len()), (expected, 1 + length(inner.len()) + inner.len()));
        }
    }

    #[test]
    fn defaults_are_left_out_and_messages_are_not() {
        let mut out = Vec::new();
        let mut tags = Tags::new(&mut out);
        tags.number(1, 0);
        tags.string(2, "");
        tags.choice(3, 0);
        tags.message(4, |_| {});
        tags.bytes(5, b"");
        tags.present_number(6, 0);
        assert_eq!(out, [0x22, 0, 0x2A, 0, 0x30, 0]);
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_unless_a_field_ends_there() {
        let mut whole = Vec::new();
        let mut tags = Tags::new(&mut whole);
        tags.number(1, 300);
        tags.string(2, "text");
        // 32 and 64 bits, as a later version may have them.
        whole.extend(b"\x1d\x00\x00\x00\x01\x19\x00\x00\x00\x00\x00\x00\x00\x01");
        let ends = [0, 3, 9, 14, 23];
        assert_eq!(whole.len(), 23);
        for len in 0..=whole.len() {
            if ends.contains(&len) {
                assert!(fields(&whole[..len]).all(|field| field.is_ok()), "{len}");
            } else {
                check_fault(&whole[..len], Fault::Cut);
            }
        }
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        check_fault(b"\x00\x01", Fault::Tag); // field 0
        check_fault(b"\x0b", Fault::Tag); // start of a group
        check_fault(b"\x0c", Fault::Tag); // end of a group
        check_fault(b"\x0e", Fault::Tag); // a type that does not exist
        check_fault(b"\x80\x80\x80\x80\x10\x00", Fault::Tag); // a tag of 33 bits
        check_fault(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Fault::Varint);
        check_fault(b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", Fault::Varint);
        check_fault(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Fault::Cut);
    }

    #[test]
    fn nothing_is_read_after_a_fault() {
        let mut read = fields(b"\x08\x01\x0b\x08\x01");
        assert!(read.next().is_some_and(|field| field.is_ok()));
        assert!(read.next().is_some_and(|field| field.is_err()));
        assert!(read.next().is_none());
    }
}
