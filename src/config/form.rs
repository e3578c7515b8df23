//! How one value is spelled in a file, a variable or a flag: counts, sizes, durations, addresses.
//! Owns the words for what would have been right.
//! # Invariants: what a form writes, it reads back as the same value, but for the group that cannot
//! be named.
//! # Not here: which keys exist (`keys`), which values make sense (`bounds`).

use super::spelled::Spelled;
use crate::topics::name::TopicFilter;
use crate::topics::terms::Rate;
use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

/// One way to spell a value.
pub(super) trait Form {
    /// What the rest of the program uses.
    type Value;

    /// What would have been right, as the end of "expected …".
    fn expected() -> String;

    /// Takes a value, or says "is …, expected …".
    fn read(spelled: &Spelled) -> Result<Self::Value, String>;

    /// The value as a person would write it.
    fn write(value: &Self::Value) -> Written;
}

/// Lets a field name its form: `#[serde(with = "As::<Size>")]`.
pub(super) struct As<F>(PhantomData<F>);

impl<F: Form> As<F> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<F::Value, D::Error> {
        F::read(&Spelled::deserialize(from)?).map_err(D::Error::custom)
    }

    pub(super) fn serialize<S: Serializer>(value: &F::Value, to: S) -> Result<S::Ok, S::Error> {
        match F::write(value) {
            Written::Number(number) => to.serialize_u64(number),
            Written::Switch(switch) => to.serialize_bool(switch),
            Written::Text(text) => to.serialize_str(&text),
            Written::List(texts) => texts.serialize(to),
        }
    }
}

/// A value on its way out.
pub(super) enum Written {
    Number(u64),
    Switch(bool),
    Text(String),
    List(Vec<String>),
}

// === Forms ===

/// A whole number. A variable or flag has only text, so text of digits is taken too.
pub(super) struct Count;

impl Form for Count {
    type Value = usize;

    fn expected() -> String {
        "a whole number".to_owned()
    }

    fn read(spelled: &Spelled) -> Result<usize, String> {
        let count = match spelled {
            Spelled::Integer(number) => usize::try_from(*number).ok(),
            Spelled::Text(text) => parse_digits(text),
            _ => None,
        };
        count.ok_or_else(|| spelled.misfit(&Self::expected()))
    }

    fn write(value: &usize) -> Written {
        Written::Number(u64::try_from(*value).unwrap_or(u64::MAX))
    }
}

/// A number of bytes: `65536` or `"64 KiB"`.
pub(super) struct Size;

/// Only the binary units: a reader of `64 KB` could not tell which thousand is meant.
const SIZE_UNITS: [(&str, usize); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Form for Size {
    type Value = usize;

    fn expected() -> String {
        r#"a size such as 65536, "64 KiB" or "1 MiB""#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<usize, String> {
        let size = match spelled {
            Spelled::Integer(number) => usize::try_from(*number).ok(),
            Spelled::Text(text) => parse_size(text),
            _ => None,
        };
        size.ok_or_else(|| spelled.misfit(&Self::expected()))
    }

    fn write(value: &usize) -> Written {
        Written::Text(print_size(*value))
    }
}

/// A span of time: `"25s"`, `"1m 30s"`.
pub(super) struct Span;

impl Form for Span {
    type Value = Duration;

    fn expected() -> String {
        r#"a duration such as "25s" or "1m 30s""#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<Duration, String> {
        let Spelled::Text(text) = spelled else {
            return Err(spelled.misfit(&Self::expected()));
        };
        SpanParser::new()
            .parse_unsigned_duration(text.trim())
            .map_err(|_| spelled.misfit(&Self::expected()))
    }

    fn write(value: &Duration) -> Written {
        Written::Text(print_span(*value))
    }
}

/// How often a second. A fraction is a number in a file and text everywhere else.
pub(super) struct Hertz;

impl Form for Hertz {
    type Value = Rate;

    fn expected() -> String {
        format!("a number from {} to {}", Rate::MIN_HZ, Rate::MAX_HZ)
    }

    fn read(spelled: &Spelled) -> Result<Rate, String> {
        let hertz = match spelled {
            Spelled::Integer(number) => i32::try_from(*number).ok().map(f64::from),
            Spelled::Fraction(number) => Some(*number),
            Spelled::Text(text) => parse_fraction(text),
            _ => None,
        };
        let rate = hertz.and_then(|hertz| Rate::from_hz(hertz).ok());
        rate.ok_or_else(|| spelled.misfit(&Self::expected()))
    }

    fn write(value: &Rate) -> Written {
        Written::Text(value.to_string())
    }
}

/// An address and port to listen on.
pub(super) struct Address;

impl Form for Address {
    type Value = SocketAddr;

    fn expected() -> String {
        r#"an address and port such as "127.0.0.1:7600" or "[::1]:7600""#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<SocketAddr, String> {
        let address = match spelled {
            Spelled::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        address.ok_or_else(|| spelled.misfit(&Self::expected()))
    }

    fn write(value: &SocketAddr) -> Written {
        Written::Text(value.to_string())
    }
}

/// `true` or `false`.
pub(super) struct Switch;

impl Form for Switch {
    type Value = bool;

    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(spelled: &Spelled) -> Result<bool, String> {
        match spelled {
            Spelled::Switch(switch) => Ok(*switch),
            Spelled::Text(text) => match text.trim() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(spelled.misfit(&Self::expected())),
            },
            _ => Err(spelled.misfit(&Self::expected())),
        }
    }

    fn write(value: &bool) -> Written {
        Written::Switch(*value)
    }
}

/// A topic filter.
pub(super) struct Filter;

impl Form for Filter {
    type Value = TopicFilter;

    fn expected() -> String {
        r#"a topic filter such as "ticker.>""#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<TopicFilter, String> {
        let Spelled::Text(text) = spelled else {
            return Err(spelled.misfit(&Self::expected()));
        };
        TopicFilter::parse(text).map_err(|refusal| format!("is {spelled}, but {refusal}"))
    }

    fn write(value: &TopicFilter) -> Written {
        Written::Text(value.to_string())
    }
}

/// The name of a group of topics in the metrics; `None` is the group of those without one.
pub(super) struct Group;

/// The group of topics that no rule gives one.
pub(super) const OTHER: &str = "other";
/// Most characters of a group's name.
const GROUP_CHARACTERS_MAX: usize = 32;

impl Form for Group {
    type Value = Option<String>;

    fn expected() -> String {
        format!(
            "a name of a-z, 0-9 and _ that begins with a letter, at most {GROUP_CHARACTERS_MAX} \
             characters"
        )
    }

    fn read(spelled: &Spelled) -> Result<Option<String>, String> {
        match spelled {
            Spelled::Text(text) if text == OTHER => {
                Err(format!("is {spelled}, which is what topics without a group are counted as"))
            }
            Spelled::Text(text) if is_group(text) => Ok(Some(text.clone())),
            _ => Err(spelled.misfit(&Self::expected())),
        }
    }

    fn write(value: &Option<String>) -> Written {
        Written::Text(value.as_deref().unwrap_or(OTHER).to_owned())
    }
}

/// A list of web origins, kept as browsers send them: lower case, without a default port.
/// A variable has only text, so text with commas is taken too.
pub(super) struct Origins;

impl Form for Origins {
    type Value = Vec<String>;

    fn expected() -> String {
        r#"origins such as "https://example.com" or "http://localhost:3000""#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<Vec<String>, String> {
        let misfit = |spelled: &Spelled| spelled.misfit(&Self::expected());
        match spelled {
            Spelled::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| parse_origin(part).ok_or_else(|| misfit(&Spelled::from(part))))
                .collect(),
            Spelled::List(items) => items
                .iter()
                .map(|item| match item {
                    Spelled::Text(text) => parse_origin(text).ok_or_else(|| misfit(item)),
                    _ => Err(misfit(item)),
                })
                .collect(),
            _ => Err(misfit(spelled)),
        }
    }

    fn write(value: &Vec<String>) -> Written {
        Written::List(value.clone())
    }
}

/// A word that stands in for a value: `"auto"`, `"off"` or `"inherit"`.
pub(super) trait Word {
    const WORD: &str;
}

/// Stands for a value that follows from other things.
pub(super) const AUTO: &str = "auto";

/// The program chooses.
pub(super) struct Auto;

impl Word for Auto {
    const WORD: &str = AUTO;
}

/// There is none.
pub(super) struct Off;

impl Word for Off {
    const WORD: &str = "off";
}

/// Stands for the value of a more general setting.
pub(super) const INHERIT: &str = "inherit";

/// A more general setting decides.
pub(super) struct Inherit;

impl Word for Inherit {
    const WORD: &str = INHERIT;
}

/// Either a word, read as `None`, or a value.
pub(super) struct Or<W, F>(PhantomData<(W, F)>);

impl<W: Word, F: Form> Form for Or<W, F> {
    type Value = Option<F::Value>;

    fn expected() -> String {
        format!("{:?} or {}", W::WORD, F::expected())
    }

    fn read(spelled: &Spelled) -> Result<Option<F::Value>, String> {
        match spelled {
            Spelled::Text(text) if text == W::WORD => Ok(None),
            _ => F::read(spelled).map(Some).map_err(|_| spelled.misfit(&Self::expected())),
        }
    }

    fn write(value: &Option<F::Value>) -> Written {
        match value {
            None => Written::Text(W::WORD.to_owned()),
            Some(value) => F::write(value),
        }
    }
}

/// A type whose values each have one name.
pub(super) trait Choice: Copy + PartialEq + 'static {
    const ALL: &[Self];

    fn name(self) -> &'static str;
}

/// One of a few names.
pub(super) struct OneOf<C>(PhantomData<C>);

impl<C: Choice> Form for OneOf<C> {
    type Value = C;

    fn expected() -> String {
        let names: Vec<_> = C::ALL.iter().map(|choice| choice.name()).collect();
        format!("one of {}", names.join(", "))
    }

    fn read(spelled: &Spelled) -> Result<C, String> {
        let Spelled::Text(text) = spelled else {
            return Err(spelled.misfit(&Self::expected()));
        };
        let found = C::ALL.iter().find(|choice| choice.name() == text);
        found.copied().ok_or_else(|| spelled.misfit(&Self::expected()))
    }

    fn write(value: &C) -> Written {
        Written::Text(value.name().to_owned())
    }
}

// === Texts ===

/// Digits only: `str::parse` would also take a leading `+`.
fn parse_digits(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Digits and a point: `f64::from_str` would also take `inf`, `1e3` and a sign.
fn parse_fraction(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    digits.then(|| text.parse().ok()).flatten()
}

fn is_group(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= GROUP_CHARACTERS_MAX
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    for (unit, bytes) in SIZE_UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return parse_digits(number)?.checked_mul(bytes);
        }
    }
    parse_digits(text)
}

/// A size in the largest unit that divides it.
pub(super) fn print_size(size: usize) -> String {
    let unit = SIZE_UNITS.into_iter().find(|(_, bytes)| size > 0 && size.is_multiple_of(*bytes));
    let (name, bytes) = unit.unwrap_or(("B", 1));
    format!("{} {name}", size / bytes)
}

/// A duration in the units a person would choose.
pub(super) fn print_span(span: Duration) -> String {
    SpanPrinter::new().unsigned_duration_to_string(&span)
}

/// `scheme://host[:port]` in lower case and without the scheme's default port.
fn parse_origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let plain = |part: &str, extra: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_fits = match host.strip_prefix('[') {
        Some(rest) => plain(rest.strip_suffix(']')?, ":."),
        None => plain(host, "-._"),
    };
    let port_fits = port.is_none_or(|port| plain(port, "") && port.parse::<u16>().is_ok());
    if !(plain(scheme, "+-.") && host_fits && port_fits) {
        return None;
    }
    Some(match (scheme, port) {
        (_, None) | ("http", Some("80")) | ("https", Some("443")) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_integers_or_have_a_binary_unit() {
        let cases = [
            ("0", Some(0)),
            ("65536", Some(65_536)),
            ("64 KiB", Some(65_536)),
            ("64KiB", Some(65_536)),
            (" 1 MiB ", Some(1 << 20)),
            ("2 GiB", Some(2 << 30)),
            ("7 B", Some(7)),
            ("64 KB", None),
            ("64k", None),
            ("1.5 MiB", None),
            ("-1", None),
            ("+1", None),
            ("KiB", None),
            ("", None),
            ("99999999999999999999", None),
            ("99999999999999999 GiB", None),
        ];
        for (text, expected) in cases {
            // A lone unit has no digits, and no digits are no number.
            assert_eq!(Size::read(&Spelled::from(text)).ok(), expected, "{text:?}");
        }
        assert_eq!(Size::read(&Spelled::Integer(12)), Ok(12));
        assert_eq!(
            Size::read(&Spelled::Integer(-1)),
            Err(r#"is -1, expected a size such as 65536, "64 KiB" or "1 MiB""#.to_owned())
        );
    }

    #[test]
    fn durations_name_their_units() {
        let cases = [
            ("25s", Some(25_000)),
            ("1m 30s", Some(90_000)),
            ("5 minutes", Some(300_000)),
            ("250ms", Some(250)),
            ("1.5h", Some(5_400_000)),
            ("0s", Some(0)),
            ("25", None),
            ("-5s", None),
            ("5 parsecs", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = Span::read(&Spelled::from(text)).ok();
            assert_eq!(read, expected.map(Duration::from_millis), "{text:?}");
        }
        assert_eq!(
            Span::read(&Spelled::Integer(25)),
            Err(r#"is 25, expected a duration such as "25s" or "1m 30s""#.to_owned())
        );
    }

    #[test]
    fn rates_are_numbers_or_their_digits() {
        let rate = |hertz| Rate::from_hz(hertz).ok();
        let cases = [
            (Spelled::Integer(10), rate(10.0)),
            (Spelled::Fraction(0.01), rate(0.01)),
            (Spelled::Fraction(1_000.0), rate(1_000.0)),
            (Spelled::from(" 0.5 "), rate(0.5)),
            (Spelled::from("3"), rate(3.0)),
            (Spelled::Integer(0), None),
            (Spelled::Integer(1_001), None),
            (Spelled::Integer(i128::MAX), None),
            (Spelled::Fraction(f64::NAN), None),
            (Spelled::Fraction(-1.0), None),
            (Spelled::from("1e2"), None),
            (Spelled::from("+1"), None),
            (Spelled::from("."), None),
            (Spelled::from(""), None),
            (Spelled::Switch(true), None),
        ];
        for (spelled, expected) in cases {
            assert_eq!(Hertz::read(&spelled).ok(), expected, "{spelled}");
        }
        assert_eq!(
            Hertz::read(&Spelled::Fraction(0.001)),
            Err("is 0.001, expected a number from 0.01 to 1000".to_owned())
        );
    }

    #[test]
    fn groups_are_short_plain_names() {
        let long = "a".repeat(33);
        for name in ["a", "prices", "room_2", &long[1..]] {
            assert_eq!(Group::read(&Spelled::from(name)), Ok(Some(name.to_owned())));
        }
        for name in ["", "2", "_a", "Prices", "a-b", "a.b", "ä", "a b", &long, "other"] {
            assert!(Group::read(&Spelled::from(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn origins_are_kept_as_browsers_send_them() {
        let cases = [
            ("https://example.com", Some("https://example.com")),
            ("https://Example.com:443", Some("https://example.com")),
            ("http://example.com:80", Some("http://example.com")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("http://[::1]", Some("http://[::1]")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("https://example.com/", None),
            ("https://example.com/path", None),
            ("https://*.example.com", None),
            ("https://user@example.com", None),
            ("https://example.com:99999", None),
            ("https://example.com:", None),
            ("https://bücher.example", None),
            ("example.com", None),
            ("null", None),
            ("*", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_origin(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(size: usize, millis in 0..u64::from(u32::MAX)) {
            prop_assert_eq!(parse_size(&print_size(size)), Some(size));
            let span = Duration::from_millis(millis);
            prop_assert_eq!(Span::read(&Spelled::Text(print_span(span))), Ok(span));
            if let Ok(rate) = Rate::from_hz(millis as f64 / 1e3) {
                prop_assert_eq!(Hertz::read(&Spelled::Text(rate.to_string())), Ok(rate));
            }
        }

        #[test]
        fn reading_any_text_never_panics(text in "\\PC{0,80}") {
            let spelled = Spelled::from(text.as_str());
            for read in [
                Size::read(&spelled).err(),
                Count::read(&spelled).err(),
                Hertz::read(&spelled).err(),
                Group::read(&spelled).err(),
                Span::read(&spelled).err(),
                Address::read(&spelled).err(),
                Origins::read(&spelled).err(),
            ] {
                prop_assert!(read.is_none_or(|words| words.contains("expected")));
            }
        }
    }
}
