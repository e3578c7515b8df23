//! How deep a JSON value is: a broker that never looks inside hands it to subscribers, whose parsers
//! may recurse.
//! # Invariants: the value has been read as JSON before; nothing here recurses.
//! # Not here: who refuses what is too deep (`raw`).

/// Most arrays and objects of a payload that lie inside one another.
pub(super) const DEPTH_MAX: usize = 32;

/// Whether more of them do.
pub(super) fn is_too_deep(json: &[u8]) -> bool {
    // Most values have fewer brackets than that in all, those inside of strings included.
    memchr::memchr2_iter(b'[', b'{', json).count() > DEPTH_MAX && depth(json) > DEPTH_MAX
}

fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while bytes.next().is_some_and(|byte| match byte {
                    b'\\' => bytes.next().is_some(),
                    byte => *byte != b'"',
                }) {}
            }
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn measure(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(measure).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(measure).max().unwrap_or(0),
            _ => 0,
        }
    }

    #[test]
    fn the_limit_is_allowed_and_one_more_is_not() {
        for (levels, expected) in [(0, false), (1, false), (32, false), (33, true), (9999, true)] {
            let arrays = "[".repeat(levels) + "1" + &"]".repeat(levels);
            let objects = "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
            assert_eq!(is_too_deep(arrays.as_bytes()), expected, "{levels}");
            assert_eq!(is_too_deep(objects.as_bytes()), expected, "{levels}");
        }
    }

    #[test]
    fn what_lies_side_by_side_or_in_a_text_is_not_deep() {
        let flat = format!("[{}[]]", "[],".repeat(1000));
        let text = serde_json::to_string(&"[{\"\\".repeat(1000)).expect("JSON");
        for json in [flat, text.clone(), format!("{{{text}:{text}}}")] {
            assert!(!is_too_deep(json.as_bytes()), "{json}");
        }
    }

    proptest! {
        #[test]
        fn the_depth_is_what_a_parser_says(
            texts in prop::collection::vec(".{0,8}", 1..6),
            shape in prop::collection::vec(0..3_u8, 0..40),
        ) {
            let mut value = Value::from(texts.clone());
            for (at, kind) in shape.iter().enumerate() {
                let text = texts[at % texts.len()].clone();
                value = match kind {
                    0 => Value::from(vec![Value::from(text), value]),
                    1 => Value::from_iter([(text, value)]),
                    _ => Value::from(vec![value, Value::from_iter([(text, 1)])]),
                };
            }
            prop_assert_eq!(depth(value.to_string().as_bytes()), measure(&value));
        }
    }
}
