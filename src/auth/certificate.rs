//! What a certificate says that somebody else has verified: until when it counts, and whose it is.
//! # Invariants: what cannot be read is nobody's and has no end, never another's.
//! # Not here: handshakes (`tls`), and signatures and chains, which rustls judges there.

use super::der::{self, INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE};
use super::grants::Grants;
use jiff::civil;
use jiff::tz::TimeZone;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SET: u8 = 0x31;
/// `[0] EXPLICIT`: the version, which is in front of everything, but may be left out.
const VERSION: u8 = 0xa0;
/// `[3] EXPLICIT`.
const EXTENSIONS: u8 = 0xa3;
/// An e-mail address, a DNS name and a URI among the names of a subject.
const TEXT_NAMES: [u8; 3] = [0x81, 0x82, 0x86];

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// Most names that are read of one certificate.
const NAMES_MAX: usize = 64;

/// A name that certificates bear, and what whoever shows one may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The name in the certificate, and the subject of whoever shows it.
    pub name: String,
    /// What they may do.
    pub grants: Grants,
}

/// The parts of a certificate that are looked at.
struct Parts<'a> {
    validity: &'a [u8],
    subject: &'a [u8],
    /// What follows the subject.
    rest: &'a [u8],
}

/// When a certificate ends, in seconds since 1970.
pub fn expires_s(certificate: &[u8]) -> Option<u64> {
    let validity = parts(certificate)?.validity;
    let (tag, text) = der::elements(validity).nth(1)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (century, text) = match (tag, text.len()) {
        // RFC 5280 4.1.2.5.1: 50 is 1950, 49 is 2049.
        (UTC_TIME, 12) => (if text < "50" { 2000 } else { 1900 }, text),
        (GENERALIZED_TIME, 14) => (100 * text.get(..2)?.parse::<i16>().ok()?, text.get(2..)?),
        _ => return None,
    };
    let two = |at: usize| text.get(at..at + 2)?.parse::<i8>().ok();
    let year = century.checked_add(i16::from(two(0)?))?;
    let date = civil::DateTime::new(year, two(2)?, two(4)?, two(6)?, two(8)?, two(10)?, 0).ok()?;
    let time = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    u64::try_from(time.as_second()).ok()
}

/// Whose a certificate is: its DNS names, e-mail addresses and URIs; its common name, if there are
/// none of those.
pub(super) fn names(certificate: &[u8]) -> Vec<Box<str>> {
    let Some(parts) = parts(certificate) else { return Vec::new() };
    let names = alternative_names(parts.rest).map(der::elements).into_iter().flatten();
    let names = names.filter(|(tag, _)| TEXT_NAMES.contains(tag)).map(|(_, text)| text);
    let names: Vec<_> = names.take(NAMES_MAX).filter_map(text).collect();
    if !names.is_empty() {
        return names;
    }
    der::elements(parts.subject).filter_map(common_name).filter_map(text).take(1).collect()
}

fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let (signed, _) = der::take(der::whole(certificate, SEQUENCE)?, SEQUENCE)?;
    let rest = der::take(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = der::take(rest, INTEGER)?;
    let (_algorithm, rest) = der::take(rest, SEQUENCE)?;
    let (_issuer, rest) = der::take(rest, SEQUENCE)?;
    let (validity, rest) = der::take(rest, SEQUENCE)?;
    let (subject, rest) = der::take(rest, SEQUENCE)?;
    Some(Parts { validity, subject, rest })
}

/// The list of names in the extensions.
fn alternative_names(rest: &[u8]) -> Option<&[u8]> {
    let (_, extensions) = der::elements(rest).find(|(tag, _)| *tag == EXTENSIONS)?;
    let mut extensions = der::elements(der::whole(extensions, SEQUENCE)?);
    extensions.find_map(|(_, extension)| {
        let (kind, rest) = der::take(extension, OBJECT_ID)?;
        // Whether it is critical stands between, or not.
        let value = der::elements(rest).find(|(tag, _)| *tag == OCTET_STRING);
        value.filter(|_| kind == ALTERNATIVE_NAMES).and_then(|(_, der)| der::whole(der, SEQUENCE))
    })
}

/// The common name in one part of a subject.
fn common_name((tag, part): der::Element<'_>) -> Option<&[u8]> {
    let mut attributes = der::elements(part).filter(|_| tag == SET);
    attributes.find_map(|(_, attribute)| {
        let (kind, value) = der::take(attribute, OBJECT_ID)?;
        let ((_, text), _) = der::next(value)?;
        (kind == COMMON_NAME).then_some(text)
    })
}

fn text(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Ask, Authority, Fault, Guard, Identity, Review, Revocation, Rules, permits};
    use crate::clock::Now;
    use crate::topics::name::{TopicFilter, TopicName};
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_both_spellings_of_a_time() {
        let rows = [
            ((2026, 11, 21), 1_795_219_200),
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 1, 1), 2_524_608_000),
            ((1999, 1, 1), 915_148_800),
        ];
        for ((year, month, day), expected) in rows {
            let made = certificate(|params| {
                params.not_before = date_time_ymd(1990, 1, 1);
                params.not_after = date_time_ymd(year, month, day);
            });
            assert_eq!(expires_s(&made), Some(expected), "{year}");
        }
    }

    #[test]
    fn names_are_those_of_the_extension_or_else_the_common_name() {
        let text = |text: &str| text.try_into().expect("plain text");
        let made = certificate(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "somebody");
            params.distinguished_name.push(DnType::CommonName, "feeder");
        });
        assert_eq!(names(&made), ["feeder".into()]);
        let made = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "feeder");
            params.subject_alt_names = vec![
                SanType::IpAddress([127, 0, 0, 1].into()),
                SanType::DnsName(text("feeder.example")),
                SanType::URI(text("spiffe://example/feeder")),
                SanType::Rfc822Name(text("feeder@example")),
            ];
        });
        let expected = ["feeder.example", "spiffe://example/feeder", "feeder@example"];
        assert_eq!(names(&made), expected.map(Into::into));
    }

    fn authority(rules: &[(&str, &str)]) -> Authority {
        let certified = |(name, filter): &(&str, &str)| Certified {
            name: String::from(*name),
            grants: Grants {
                publish: TopicFilter::parse(filter).into_iter().collect(),
                ..Grants::default()
            },
        };
        let certificates = rules.iter().map(certified).collect();
        Authority::of(Rules { certificates, revocations_max: 8, ..Rules::default() })
    }

    #[test]
    fn the_first_rule_that_names_a_certificate_says_what_it_may_do_as_long_as_it_counts() {
        let made = certificate(|params| {
            params.not_after = date_time_ymd(2050, 1, 1);
            params.subject_alt_names = ["two", "one"]
                .map(|name| SanType::DnsName(name.try_into().expect("plain text")))
                .into();
            params.distinguished_name.push(DnType::CommonName, "common");
        });
        let may = |identity: &Identity, topic: &str| {
            permits(identity, Ask::Publish(&TopicName::parse(topic).expect("a topic")))
        };
        let guard = Guard::new(authority(&[("common", ">"), ("one", "a"), ("two", "b")]));
        let shown = guard.recognize(&made).expect("somebody");
        assert_eq!((&*shown.subject, shown.ends_ms()), ("one", Some(2_524_608_000_000)));
        assert!(may(&shown, "a") && !may(&shown, "b") && shown.is_service());
        // Nobody can refresh it, so nobody is told when it ends.
        assert_eq!(shown.expires_in_ms(0), None);

        let now = Now::at_ms(1_000);
        assert_eq!(guard.review(&shown, now), Review::Same);
        guard.replace_whole(authority(&[("two", "c")]));
        let Review::Changed(changed) = guard.review(&shown, now) else { panic!("as before") };
        assert_eq!((&*changed.subject, changed.ends_ms()), ("two", shown.ends_ms()));
        assert!(may(&changed, "c") && !may(&changed, "a"));
        guard.revoke(Revocation::Subject("two".into()), 100, now).expect("room");
        assert_eq!(guard.review(&changed, now), Review::Gone(Fault::Revoked));
        guard.replace_whole(authority(&[("three", ">")]));
        assert_eq!(guard.review(&shown, now), Review::Gone(Fault::UnknownToken));
        assert_eq!(guard.recognize(&made), None);
        assert_eq!(guard.recognize(b"nothing of the kind"), None);
    }

    #[test]
    fn what_is_cut_has_neither_an_end_nor_a_name() {
        let made = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "feeder");
        });
        for len in 0..made.len() {
            assert_eq!(expires_s(&made[..len]), None, "{len}");
            assert_eq!(names(&made[..len]), [], "{len}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(
            at in 0_usize..400,
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut made = certificate(|_| ());
            let begin = at.min(made.len());
            let end = made.len().min(begin + bytes.len());
            made[begin..end].copy_from_slice(&bytes[..end - begin]);
            let _ = (expires_s(&made), names(&made));
        }
    }
}
