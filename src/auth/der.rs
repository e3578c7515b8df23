//! DER, element by element, and public keys as files hold them: PEM around a `SubjectPublicKeyInfo`.
//! # Invariants: every length is checked against what is there; nothing is read beyond it.
//! # Not here: certificates (`certificate`), private keys.

use super::fault::BadKey;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_ID: u8 = 0x06;

/// The tag of an element, and what it holds.
pub(super) type Element<'a> = (u8, &'a [u8]);

/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.132.0.34
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// What a file said its key is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// The bytes of the first PEM block with this label.
pub(super) fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(body).ok()
}

/// Reads `-----BEGIN PUBLIC KEY-----`.
pub(super) fn public_key(text: &str) -> Result<PublicKey, BadKey> {
    const EXPECTED: BadKey = BadKey::Form("PEM of a public key, `-----BEGIN PUBLIC KEY-----`");
    let der = pem(text, "PUBLIC KEY").ok_or(EXPECTED)?;
    read_info(&der).ok_or(EXPECTED)
}

fn read_info(der: &[u8]) -> Option<PublicKey> {
    let info = whole(der, SEQUENCE)?;
    let (algorithm, rest) = take(info, SEQUENCE)?;
    // The first byte of a bit string says how many bits of its last byte do not count.
    let key = whole(rest, BIT_STRING)?.strip_prefix(&[0])?;
    let (kind, parameters) = take(algorithm, OBJECT_ID)?;
    if kind == RSA {
        let (modulus, exponent) = take(whole(key, SEQUENCE)?, INTEGER)?;
        let exponent = whole(exponent, INTEGER)?;
        return Some(PublicKey::Rsa { modulus: unsigned(modulus), exponent: unsigned(exponent) });
    }
    if kind == ED25519 {
        return Some(PublicKey::Ed25519(key.to_vec()));
    }
    let curve = (kind == EC).then(|| whole(parameters, OBJECT_ID)).flatten()?;
    match curve {
        P256 => Some(PublicKey::P256(key.to_vec())),
        P384 => Some(PublicKey::P384(key.to_vec())),
        _ => None,
    }
}

/// An integer without the zero that keeps it positive.
fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default().to_vec()
}

/// The first element, and what is behind it.
pub(super) fn next(der: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(len, rest)| (usize::from(*len), rest))?,
        0x82 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        _ => return None,
    };
    let (inner, rest) = rest.split_at_checked(len)?;
    Some(((*tag, inner), rest))
}

/// All elements, up to the first that is not whole.
pub(super) fn elements(der: &[u8]) -> impl Iterator<Item = Element<'_>> {
    let mut rest = der;
    std::iter::from_fn(move || {
        let (element, behind) = next(rest)?;
        rest = behind;
        Some(element)
    })
}

/// What an element with this tag holds, and what is behind it.
pub(super) fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    next(der).filter(|((found, _), _)| *found == tag).map(|((_, inner), rest)| (inner, rest))
}

/// What an element with this tag holds, if there is nothing behind it.
pub(super) fn whole(der: &[u8], tag: u8) -> Option<&[u8]> {
    take(der, tag).filter(|(_, rest)| rest.is_empty()).map(|(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 8410 section 10.1.
    const ED: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn the_sample_of_rfc_8410_is_read() {
        let Ok(PublicKey::Ed25519(key)) = public_key(ED) else { panic!("not read") };
        assert_eq!((key.len(), key[0], key[31]), (32, 0x19, 0xe1));
    }

    #[test]
    fn what_is_cut_or_another_thing_is_refused() {
        let der = pem(ED, "PUBLIC KEY").unwrap();
        for len in 0..der.len() {
            assert_eq!(read_info(&der[..len]), None, "{len}");
        }
        let private = ED.replace("PUBLIC", "PRIVATE");
        for text in ["", "x", &private, "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----"] {
            assert!(public_key(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0usize..44) {
            let _ = read_info(&bytes);
            let mut der = pem(ED, "PUBLIC KEY").unwrap();
            let end = der.len().min(at + bytes.len());
            der[at..end].copy_from_slice(&bytes[..end - at]);
            let _ = read_info(&der);
        }
    }
}
