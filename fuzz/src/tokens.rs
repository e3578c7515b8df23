//! Tokens and sets of keys.

use fanfare::auth::{Algorithm, Authority, Fault, Key, Rules, Signer, parse_key_set};
use std::sync::LazyLock;

const SECRET: &[u8] = b"a secret of the fuzzers, which nobody else knows";

/// In seconds since 1970.
const NOW: u64 = 1_800_000_000;

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let key = Key::of_secret(None, Algorithm::Hs256, SECRET).expect("a key");
    Authority::of(Rules { audience: "fanfare".into(), keys: vec![key], ..Rules::default() })
});

static SIGNER: LazyLock<Signer> =
    LazyLock::new(|| Signer::of_file(Algorithm::Hs256, SECRET).expect("a key that signs"));

/// A token, as the first byte says: as it is, which nobody has signed; or made of a header and claims
/// in two lines and signed, which may be accepted, and not if a byte is changed; or a set of keys.
pub fn jwt(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(token) = std::str::from_utf8(rest) else { return };
            assert!(AUTHORITY.authenticate(token, NOW).is_err(), "nobody has signed {token}");
        }
        1 => signed(rest),
        _ => drop(parse_key_set(rest)),
    }
}

fn signed(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let Ok(token) = SIGNER.sign_raw(header, claims) else { return };
    let Ok(identity) = AUTHORITY.authenticate(&token, NOW) else { return };
    assert!(identity.expires_in_ms(NOW * 1000).is_some_and(|left| left > 0), "{token}");
    // The first byte of the claims is always `e`: they begin with a brace.
    let forged = token.replacen(".e", ".f", 1);
    let told = AUTHORITY.authenticate(&forged, NOW).map(drop);
    assert_eq!(told, Err(Fault::Signature), "{forged}");
}
