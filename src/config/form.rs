//! How one value is spelled in a file, a variable or a flag: counts, sizes, durations, addresses.
//! Owns the words for what would have been right.
//! # Invariants: what a form writes, it reads back as the same value, but for the group that cannot
//! be named.
//! # Not here: which keys exist (`keys`), which values make sense (`bounds`).

mod identity;

pub(super) use identity::{Filters, Sha256, Words};

use super::spelled::Spelled;
use crate::listen::hops::Network;
use crate::topics::name::TopicFilter;
use crate::topics::terms::Rate;
use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
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

/// The name of a file.
pub(super) struct FileName;

/// Longest name of a file, in bytes: what systems allow.
const FILE_NAME_BYTES_MAX: usize = 4096;

impl Form for FileName {
    type Value = PathBuf;

    fn expected() -> String {
        r#"the name of a file such as "/etc/fanfare/tls.pem""#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<PathBuf, String> {
        match spelled {
            Spelled::Text(text)
                if !text.trim().is_empty()
                    && text.len() <= FILE_NAME_BYTES_MAX
                    && !text.contains('\0') =>
            {
                Ok(text.into())
            }
            _ => Err(spelled.misfit(&Self::expected())),
        }
    }

    fn write(value: &PathBuf) -> Written {
        Written::Text(value.to_string_lossy().into_owned())
    }
}

/// A list of networks.
pub(super) struct Networks;

impl Form for Networks {
    type Value = Vec<Network>;

    fn expected() -> String {
        r#"addresses or networks such as "10.0.0.0/8" or "::1""#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<Vec<Network>, String> {
        read_list(spelled, &Self::expected(), |text| text.parse().ok())
    }

    fn write(value: &Vec<Network>) -> Written {
        Written::List(value.iter().map(ToString::to_string).collect())
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
pub(super) struct Origins;

impl Form for Origins {
    type Value = Vec<String>;

    fn expected() -> String {
        r#"origins such as "https://example.com" or "http://localhost:3000""#.to_owned()
    }

    fn read(spelled: &Spelled) -> Result<Vec<String>, String> {
        read_list(spelled, &Self::expected(), parse_origin)
    }

    fn write(value: &Vec<String>) -> Written {
        Written::List(value.clone())
    }
}

/// The items of a list of texts, or of a text with commas: a variable has no other lists.
fn read_list<T>(
    spelled: &Spelled,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    let item = |item: &Spelled| match item {
        Spelled::Text(text) => parse(text).ok_or_else(|| item.misfit(expected)),
        _ => Err(item.misfit(expected)),
    };
    match spelled {
        Spelled::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| item(&Spelled::from(part)))
            .collect(),
        Spelled::List(items) => items.iter().map(item).collect(),
        _ => Err(spelled.misfit(expected)),
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
    if text == "null" {
        return Some(text);
    }
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
mod tests;
