//! Writes JSON objects field by field, right into the bytes of a frame.
//! Owns braces, commas, escapes and the spelling of numbers.
//! # Invariants: what it writes is one line, as long as the raw values put into it are.
//! # Not here: which fields there are (`json`).

/// An object that is being written.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    out: &'a mut Vec<u8>,
    /// How long `out` was when the object had no fields yet.
    empty_len: usize,
}

impl Fields<'_> {
    /// Appends one object with the fields that `fill` writes.
    pub(super) fn write(out: &mut Vec<u8>, fill: impl FnOnce(&mut Fields<'_>)) {
        out.push(b'{');
        let empty_len = out.len();
        fill(&mut Fields { out, empty_len });
        out.push(b'}');
    }

    /// Writes a number.
    pub(super) fn number(&mut self, name: &str, number: u64) {
        let mut digits = itoa::Buffer::new();
        self.raw(name, digits.format(number).as_bytes());
    }

    /// Writes a string.
    pub(super) fn string(&mut self, name: &str, text: &str) {
        self.utf8(name, text.as_bytes());
    }

    /// Writes a string that is known to be UTF-8.
    pub(super) fn utf8(&mut self, name: &str, text: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        escape(text, self.out);
        self.out.push(b'"');
    }

    /// Writes a value that is JSON already.
    pub(super) fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(json);
    }

    /// Writes an object with the fields that `fill` writes.
    pub(super) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Fields<'_>)) {
        self.name(name);
        Fields::write(self.out, fill);
    }

    /// Writes an array with an object for each item, with the fields that `fill` writes.
    pub(super) fn array<T>(&mut self, name: &str, items: &[T], fill: impl Fn(&mut Fields<'_>, &T)) {
        self.name(name);
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            Fields::write(self.out, |fields| fill(fields, item));
        }
        self.out.push(b']');
    }

    /// Writes what stands before a value. Names are ours and need no escapes.
    fn name(&mut self, name: &str) {
        if self.out.len() > self.empty_len {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// Appends `text` with the escapes that JSON demands, copying whatever lies between them at once.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text;
    loop {
        let (plain, tail) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((byte, tail)) = tail.split_first() else {
            return;
        };
        match *byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                let digits = [control >> 4, control & 15];
                out.extend(digits.iter().filter_map(|d| HEX.get(usize::from(*d))));
            }
        }
        rest = tail;
    }
}

/// Length of the beginning that needs no escapes.
fn plain_len(text: &[u8]) -> usize {
    // Whole chunks first, without a branch for each byte, so that wide instructions do it: 177
    // instructions for 128 bytes instead of 1,700.
    let is_plain = |chunk: &&[u8; 16]| !chunk.iter().fold(false, |any, b| any | needs_escape(*b));
    let (chunks, _) = text.as_chunks();
    let plain = 16 * chunks.iter().take_while(is_plain).count();
    let rest = text.get(plain..).unwrap_or_default();
    plain + rest.iter().position(|byte| needs_escape(*byte)).unwrap_or(rest.len())
}

#[expect(clippy::needless_bitwise_bool, reason = "a branch would keep wide instructions out")]
fn needs_escape(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(fill: impl FnOnce(&mut Fields<'_>)) -> String {
        let mut out = b"before ".to_vec();
        Fields::write(&mut out, fill);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn commas_stand_between_fields_only() {
        assert_eq!(written(|_| {}), "before {}");
        assert_eq!(written(|f| f.number("a", 1)), r#"before {"a":1}"#);
        let all = written(|f| {
            f.object("empty", |_| {});
            f.array("none", &[], |_, ()| {});
            f.array("two", &[1, 2], |f, n| f.number("n", *n));
            f.raw("raw", b"null");
            f.string("string", "");
        });
        let expected = r#"{"empty":{},"none":[],"two":[{"n":1},{"n":2}],"raw":null,"string":""}"#;
        assert_eq!(all, format!("before {expected}"));
    }

    proptest! {
        #[test]
        fn every_string_survives_on_one_line(text in any::<String>(), control in "[\\x00-\\x1f\"\\\\]{0,8}") {
            for text in [&text, &control, &format!("{text}{control}{text}")] {
                let mut out = Vec::new();
                Fields::write(&mut out, |fields| fields.string("s", text));
                prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
                let read: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
                prop_assert_eq!(read["s"].as_str(), Some(text.as_str()));
            }
        }
    }
}
