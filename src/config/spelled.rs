//! A value as it was found, before anybody knows what it should be.
//! Owns the words for what was found: "is 12.5, expected …".
//! # Invariants: the words are short and free of control characters, however long and odd the value.
//! # Not here: what a value should be (`form`).

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Characters of a value or key that an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 64;

/// A value as it was found, before anybody knows what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Spelled {
    Integer(i128),
    Fraction(f64),
    Switch(bool),
    Text(String),
    List(Vec<Spelled>),
    /// Something that no setting can be, with the words for it.
    Other(String),
}

impl Spelled {
    /// The predicate of an error: "is 12.5, expected a whole number".
    pub(super) fn misfit(&self, expected: &str) -> String {
        format!("is {self}, expected {expected}")
    }
}

impl From<&str> for Spelled {
    fn from(text: &str) -> Spelled {
        Spelled::Text(text.to_owned())
    }
}

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spelled::Integer(number) => write!(f, "{number}"),
            Spelled::Fraction(number) => write!(f, "{number:?}"),
            Spelled::Switch(switch) => write!(f, "{switch}"),
            Spelled::Text(text) => write!(f, "{:?}", shorten(text)),
            Spelled::List(_) => f.write_str("a list"),
            Spelled::Other(words) => f.write_str(words),
        }
    }
}

/// The beginning of a text that may be of any length.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl<'de> Deserialize<'de> for Spelled {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Spelled, D::Error> {
        from.deserialize_any(SpelledVisitor)
    }
}

struct SpelledVisitor;

impl<'de> Visitor<'de> for SpelledVisitor {
    type Value = Spelled;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, switch: bool) -> Result<Spelled, E> {
        Ok(Spelled::Switch(switch))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Spelled, E> {
        Ok(Spelled::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Spelled, E> {
        Ok(Spelled::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Spelled, E> {
        Ok(Spelled::Fraction(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Spelled, E> {
        Ok(Spelled::from(text))
    }

    fn visit_unit<E>(self) -> Result<Spelled, E> {
        Ok(Spelled::Other("nothing".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Spelled, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Spelled::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spelled, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Spelled::Other("a table".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shortened_and_its_controls_are_escaped() {
        let shown = Spelled::Text(format!("\u{1b}[31m{}", "ä".repeat(500))).to_string();
        assert!(shown.starts_with(r#""\u{1b}[31mä"#), "{shown}");
        assert_eq!(shown.matches('ä').count() + 5, SHOWN_CHARACTERS_MAX);
    }
}
