//! JSON web tokens, RFC 7519, in their compact form.
//! # Invariants: a claim that decides something is of its type or the token is refused, `null`
//! included; nothing of a token is used before its signature was verified, but for `alg` and `kid`
//! to find the key.
//! # Not here: which key (`authority`), revocation (`guard`).

use super::fault::Fault;
use super::grants::{Filters, Grants};
use super::key::Key;
use super::token::TOKEN_BYTES_MAX;
use crate::topics::name::TopicFilter;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// How deep the JSON of a token may be nested.
const DEPTH_MAX: usize = 8;
/// Longest `sub`, `jti` or `kid`, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Most filters in one list of grants.
const FILTERS_MAX: usize = 128;
/// The largest time: what every JSON implementation keeps exactly.
const TIME_MAX: u64 = (1 << 53) - 1;

/// A token that was taken apart, and that nobody has verified.
#[derive(Debug)]
pub struct Unverified<'t> {
    /// What it says of itself.
    pub header: Header,
    payload: &'t str,
    signed: &'t str,
    signature: Vec<u8>,
}

/// The header of a token.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Header {
    /// The algorithm that it was signed with, or so it says.
    pub alg: String,
    /// Which key it was signed with.
    #[serde(default, deserialize_with = "some")]
    pub kid: Option<String>,
    #[serde(default, deserialize_with = "some")]
    typ: Option<String>,
    /// Extensions that must be understood: none is.
    #[serde(default, deserialize_with = "some")]
    crit: Option<serde_json::Value>,
}

/// The claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Claims {
    /// Who it is about.
    pub sub: String,
    /// Whom it is for.
    pub aud: Audience,
    /// When it expires, in seconds since 1970.
    pub exp: Time,
    /// When it begins to count.
    #[serde(default, deserialize_with = "some")]
    pub nbf: Option<Time>,
    /// When it was made.
    #[serde(default, deserialize_with = "some")]
    pub iat: Option<Time>,
    /// Who made it.
    #[serde(default, deserialize_with = "some")]
    pub iss: Option<String>,
    /// Which one it is.
    #[serde(default, deserialize_with = "some")]
    pub jti: Option<String>,
    /// What its subject may do here.
    #[serde(default, deserialize_with = "claimed")]
    fanfare: Claimed,
}

/// The claim `fanfare`. A field that is not known may take something away, so there must be none.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Claimed {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
}

/// One name or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Any of these.
    Many(Vec<String>),
}

impl Audience {
    /// Whether it names somebody.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Audience::One(one) => one == name,
            Audience::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// Seconds since 1970, without their fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub u64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        from.deserialize_any(TimeVisitor)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds since 1970")
    }

    fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Time, E> {
        if seconds > TIME_MAX {
            return Err(E::invalid_value(Unexpected::Unsigned(seconds), &self));
        }
        Ok(Time(seconds))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "it is within the range in which both are exact"
    )]
    fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Time, E> {
        // Not a number is in no range.
        if !(0.0..=TIME_MAX as f64).contains(&seconds) {
            return Err(E::invalid_value(Unexpected::Float(seconds), &self));
        }
        Ok(Time(seconds as u64))
    }
}

/// A field that is there: `null` is refused like any other value of a wrong type.
fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let value = T::deserialize(from)?;
    Ok(Some(value))
}

/// An object, not the list of its values, which derived code would take as well.
fn claimed<'de, D: Deserializer<'de>>(from: D) -> Result<Claimed, D::Error> {
    let raw = Box::<RawValue>::deserialize(from)?;
    if !raw.get().starts_with('{') {
        return Err(D::Error::custom("expected an object"));
    }
    serde_json::from_str(raw.get()).map_err(D::Error::custom)
}

/// Takes a token apart.
///
/// # Errors
/// [`Fault::TooLong`], [`Fault::Malformed`] and [`Fault::Header`].
pub fn look_into(token: &str) -> Result<Unverified<'_>, Fault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(Fault::Malformed)?;
    if payload.contains('.') {
        return Err(Fault::Malformed);
    }
    let signature = decode(signature)?;
    let header: Header = read(&decode(header)?).ok_or(Fault::Header)?;
    let typ = header.typ.as_deref().unwrap_or("JWT");
    let is_known = ["JWT", "at+jwt"].iter().any(|known| known.eq_ignore_ascii_case(typ));
    let is_long = header.kid.as_ref().is_some_and(|kid| kid.len() > NAME_BYTES_MAX);
    if header.crit.is_some() || !is_known || is_long {
        return Err(Fault::Header);
    }
    Ok(Unverified { header, payload, signed, signature })
}

impl Unverified<'_> {
    /// What it claims, if this key signed it.
    ///
    /// # Errors
    /// [`Fault::Algorithm`], [`Fault::Signature`] and [`Fault::Claims`].
    pub fn verify(&self, key: &Key) -> Result<Claims, Fault> {
        if key.algorithm.name() != self.header.alg {
            return Err(Fault::Algorithm);
        }
        if !key.verifies(self.signed.as_bytes(), &self.signature) {
            return Err(Fault::Signature);
        }
        self.claims()
    }

    /// What it claims, whoever signed it. Only for showing it to who holds it.
    ///
    /// # Errors
    /// [`Fault::Claims`].
    pub fn claims(&self) -> Result<Claims, Fault> {
        let claims: Claims = read(&decode(self.payload)?).ok_or(Fault::Claims)?;
        let names = [Some(&claims.sub), claims.jti.as_ref()];
        let is_name = |name: &String| (1..=NAME_BYTES_MAX).contains(&name.len());
        if !names.into_iter().flatten().all(is_name) {
            return Err(Fault::Claims);
        }
        Ok(claims)
    }
}

impl Claims {
    /// What its subject may do here.
    ///
    /// # Errors
    /// [`Fault::Claims`] where a filter is not valid, or there are too many.
    pub fn grants(&self) -> Result<Grants, Fault> {
        let claimed = &self.fanfare;
        let filters = |raw: &[String]| -> Result<Filters, Fault> {
            if raw.len() > FILTERS_MAX {
                return Err(Fault::Claims);
            }
            raw.iter().map(|raw| TopicFilter::parse(raw).map_err(|_| Fault::Claims)).collect()
        };
        Ok(Grants { subscribe: filters(&claimed.subscribe)?, publish: filters(&claimed.publish)? })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Fault> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed)
}

/// Reads an object that is nested no deeper than it may be.
fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Option<T> {
    // `null` and lists would be taken for objects without fields and with nameless ones.
    let is_object = json.trim_ascii_start().first() == Some(&b'{');
    (is_object && depth(json) <= DEPTH_MAX).then(|| serde_json::from_slice(json).ok()).flatten()
}

/// How deep JSON is nested. Of what is not JSON it may say anything.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

impl Header {
    /// Its parts as they were read, for a person.
    pub fn describe(&self) -> String {
        let kid = self.kid.as_deref().map_or(String::new(), |kid| format!(", kid {kid:?}"));
        format!("alg {}{kid}", self.alg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_the_deepest_bracket_outside_of_texts() {
        let rows: [(&[u8], usize); 6] = [
            (b"1", 0),
            (b"{}", 1),
            (br#"{"a":[1,[2]],"b":{}}"#, 3),
            (br#"{"[[[":"]]]{{\"[["}"#, 1),
            (br#"{"a":"\\"}"#, 1),
            (br#"{"a":"\\","b":[]}"#, 2),
        ];
        for (json, expected) in rows {
            assert_eq!(depth(json), expected, "{}", String::from_utf8_lossy(json));
        }
    }
}
