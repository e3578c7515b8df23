//! What tokens are taken and refused: published samples, attacks that are known, mutations, and every
//! claim in every type.
//! # Not here: delivery paths (`session`), sockets (`tests/it`).

use super::*;
use crate::clock::Now;
use crate::topics::name::{Target, TopicFilter, TopicName};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NOW_S: u64 = 1_800_000_000;

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

/// A key for an algorithm, and what signs for it.
fn pair(algorithm: Algorithm, id: Option<&str>) -> (Key, Signer) {
    let (public, private) = match algorithm {
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
            (SECRET.to_vec(), SECRET.to_vec())
        }
        Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 => (pem("rsa.pub"), pem("rsa")),
        Algorithm::Es256 => (pem("p256.pub"), pem("p256")),
        Algorithm::Es384 => (pem("p384.pub"), pem("p384")),
        Algorithm::EdDsa => (pem("ed25519.pub"), pem("ed25519")),
    };
    let key = Key::of_file(id.map(Into::into), algorithm, &public).expect("a key");
    (key, Signer::of_file(algorithm, &private).expect("a signer"))
}

fn rules(keys: Vec<Key>) -> Rules {
    Rules {
        audience: "fanfare".to_owned(),
        leeway_s: 30,
        keys,
        revocations_max: 8,
        ..Rules::default()
    }
}

fn claims() -> Value {
    json!({
        "sub": "alice", "aud": "fanfare", "exp": NOW_S + 60, "jti": "t-1",
        "fanfare": {"subscribe": ["room.>"], "publish": ["room.*"]},
    })
}

/// What becomes of these claims, signed as they should be.
fn judge(claims: &str) -> Result<Identity, Fault> {
    let (key, signer) = pair(Algorithm::Hs256, None);
    let token = signer.sign_raw(br#"{"alg":"HS256"}"#, claims.as_bytes()).expect("signed");
    Authority::of(rules(vec![key])).authenticate(&token, NOW_S)
}

fn with(name: &str, value: &Value) -> String {
    let mut claims = claims();
    claims[name] = value.clone();
    claims.to_string()
}

#[test]
fn a_token_of_each_algorithm_is_taken_by_its_key_and_by_no_other() {
    for (index, algorithm) in Algorithm::ALL.iter().enumerate() {
        let (key, signer) = pair(*algorithm, Some("k"));
        let token = sign(&signer, Some("k"), &claims()).expect("signed");
        let identity = Authority::of(rules(vec![key])).authenticate(&token, NOW_S).expect("taken");
        assert_eq!((&*identity.subject, identity.expires_s), ("alice", Some(NOW_S + 60)));
        for (other_index, other) in Algorithm::ALL.iter().enumerate() {
            let (key, _) = pair(*other, Some("k"));
            let judged = Authority::of(rules(vec![key])).authenticate(&token, NOW_S);
            assert_eq!(judged.is_ok(), index == other_index, "{algorithm:?} {other:?}");
        }
    }
}

/// RFC 7515 A.1 to A.3 and RFC 8037 A.4. Their claims are not ours, but their signatures are good.
#[test]
fn the_samples_of_the_rfcs_have_good_signatures() {
    let samples = include_str!("../../tests/keys/rfc-samples.json");
    let samples: Value = serde_json::from_str(samples).unwrap();
    let secret = BASE64_URL_SAFE_NO_PAD.decode(samples["secret"].as_str().unwrap()).unwrap();
    let mut keys = vec![Key::of_secret(None, Algorithm::Hs256, &secret).unwrap()];
    keys.extend(parse_key_set(samples.to_string().as_bytes()).unwrap());
    let tokens = samples["tokens"].as_array().unwrap();
    assert_eq!((keys.len(), tokens.len()), (4, 4));
    for (key, token) in keys.iter().zip(tokens) {
        let token = token.as_str().unwrap();
        assert_eq!(look_into(token).unwrap().verify(key), Err(Fault::Claims), "{key:?}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = format!("{signed}.Z{}", &signature[1..]);
        assert_eq!(look_into(&other).unwrap().verify(key), Err(Fault::Signature), "{key:?}");
    }
}

/// RFC 8725 sections 2 and 3, as far as they are about the header and the signature.
#[test]
fn what_rfc_8725_warns_of_is_refused() {
    let (rsa, rsa_signer) = pair(Algorithm::Rs256, Some("rsa"));
    let (hmac, hmac_signer) = pair(Algorithm::Hs256, Some("hmac"));
    let authority = Authority::of(rules(vec![rsa, hmac]));
    let body = claims().to_string();
    let judge = |token: &str| authority.authenticate(token, NOW_S).map(|_| ());
    let by = |signer: &Signer, header: &str| {
        signer.sign_raw(header.as_bytes(), body.as_bytes()).unwrap()
    };
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    // A public key as the secret of an HMAC: the classic, which needs a key that is for any algorithm.
    assert!(Signer::of_file(Algorithm::Hs256, &pem("rsa.pub")).is_err());
    let confused = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &pem("rsa.pub"));
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256","kid":"rsa"}"#), encode(&body));
    let tag = ring::hmac::sign(&confused, signed.as_bytes());
    let confused = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag));
    let unsigned = |alg: &str| {
        format!("{}.{}.", encode(&format!(r#"{{"alg":"{alg}","kid":"hmac"}}"#)), encode(&body))
    };
    let rows = [
        (by(&rsa_signer, r#"{"alg":"RS256","kid":"rsa"}"#), Ok(())),
        (by(&hmac_signer, r#"{"alg":"HS256","kid":"hmac","typ":"jwt"}"#), Ok(())),
        (confused, Err(Fault::Algorithm)),
        (by(&hmac_signer, r#"{"alg":"HS256","kid":"rsa"}"#), Err(Fault::Algorithm)),
        (by(&rsa_signer, r#"{"alg":"RS256","kid":"hmac"}"#), Err(Fault::Algorithm)),
        (by(&hmac_signer, r#"{"alg":"RS256","kid":"rsa"}"#), Err(Fault::Signature)),
        (by(&rsa_signer, r#"{"alg":"RS256"}"#), Err(Fault::UnknownKey)),
        (by(&rsa_signer, r#"{"alg":"RS256","kid":"other"}"#), Err(Fault::UnknownKey)),
        (by(&rsa_signer, r#"{"alg":"RS256","kid":null}"#), Err(Fault::Header)),
        (by(&rsa_signer, r#"{"alg":"RS256","kid":"rsa","kid":"rsa"}"#), Err(Fault::Header)),
        (by(&rsa_signer, r#"{"alg":"RS256","kid":"rsa","crit":["exp"]}"#), Err(Fault::Header)),
        (
            by(&rsa_signer, r#"{"alg":"RS256","kid":"rsa","typ":"secevent+jwt"}"#),
            Err(Fault::Header),
        ),
        (by(&rsa_signer, r#"{"alg":["RS256"],"kid":"rsa"}"#), Err(Fault::Header)),
        (by(&rsa_signer, r#"{"kid":"rsa"}"#), Err(Fault::Header)),
        (by(&rsa_signer, r#"["RS256","rsa"]"#), Err(Fault::Header)),
        (unsigned("none"), Err(Fault::Algorithm)),
        (unsigned("None"), Err(Fault::Algorithm)),
        (unsigned(""), Err(Fault::Algorithm)),
        (unsigned("HS256"), Err(Fault::Signature)),
    ];
    for (token, expected) in rows {
        assert_eq!(judge(&token), expected, "{token}");
    }
    // A key that the token brings itself is never looked at.
    let own = by(
        &hmac_signer,
        r#"{"alg":"HS256","kid":"hmac","jwk":{"kty":"oct","k":"AA"},"jku":"http://evil"}"#,
    );
    assert_eq!(judge(&own), Ok(()));
}

#[test]
fn what_is_no_token_is_refused_by_its_form() {
    let authority = Authority::of(rules(vec![pair(Algorithm::Hs256, None).0]));
    let long = format!("a.b.{}", "c".repeat(TOKEN_BYTES_MAX));
    let deep = format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(8), "]".repeat(8));
    let deep = format!("{}.e30.AA", BASE64_URL_SAFE_NO_PAD.encode(deep));
    let rows = [
        ("", Fault::UnknownToken),
        ("abc", Fault::UnknownToken),
        (&long[3..], Fault::TooLong),
        (&long, Fault::TooLong),
        (".", Fault::Malformed),
        ("..", Fault::Header),
        ("a.b", Fault::Malformed),
        ("a.b.c.d.e", Fault::Malformed),
        ("e30.e30.=", Fault::Malformed),
        ("e30.e30.A", Fault::Malformed),
        ("e30=.e30.AA", Fault::Malformed),
        ("e3 0.e30.AA", Fault::Malformed),
        ("e30.e30.AA", Fault::Header),
        (&deep, Fault::Header),
    ];
    for (token, expected) in rows {
        assert_eq!(authority.authenticate(token, NOW_S), Err(expected), "{token:.40}");
    }
}

/// CVE-2026-25537 and its like: a claim of another type is not an absent one.
#[test]
fn every_claim_of_another_type_is_refused() {
    let wrong = [
        json!(null),
        json!(true),
        json!(-1),
        json!("1900000000"),
        json!("x"),
        json!([]),
        json!({}),
        json!([1]),
        json!(1e300),
        json!(9_007_199_254_740_992_u64),
    ];
    for name in ["exp", "nbf", "iat"] {
        for value in &wrong {
            assert_eq!(judge(&with(name, value)), Err(Fault::Claims), "{name} {value}");
        }
    }
    let no_text = [json!(null), json!(true), json!(1), json!([]), json!(["x"]), json!({})];
    for name in ["sub", "jti", "iss"] {
        for value in &no_text {
            assert_eq!(judge(&with(name, value)), Err(Fault::Claims), "{name} {value}");
        }
    }
    for name in ["sub", "jti"] {
        for value in ["", &"x".repeat(256)] {
            assert_eq!(judge(&with(name, &json!(value))), Err(Fault::Claims), "{name} {value}");
        }
    }
    for value in [json!(null), json!(1), json!({}), json!([1]), json!([["fanfare"]])] {
        assert_eq!(judge(&with("aud", &value)), Err(Fault::Claims), "{value}");
    }
    let grants = [
        json!(null),
        json!([]),
        json!([["a"], ["b"]]),
        json!("a.>"),
        json!({"subscribe": "a.>"}),
        json!({"subscribe": [1]}),
        json!({"subscribe": null}),
        json!({"subscribe": ["a..b"]}),
        json!({"publish": [""]}),
        json!({"deny": ["a"]}),
        json!({"subscribe": vec!["a"; 129]}),
    ];
    for value in grants {
        assert_eq!(judge(&with("fanfare", &value)), Err(Fault::Claims), "{value}");
    }
    for missing in ["sub", "aud", "exp"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(missing);
        assert_eq!(judge(&claims.to_string()), Err(Fault::Claims), "{missing}");
    }
    let twice = claims().to_string().replacen('{', r#"{"exp":9999999999,"#, 1);
    for claims in [&*twice, "null", "[]", "1", "", r#"["alice","fanfare",1900000000]"#] {
        assert_eq!(judge(claims), Err(Fault::Claims), "{claims}");
    }
    let deep = format!("{}{}", "[".repeat(8), "]".repeat(8));
    let deep = claims().to_string().replacen('{', &format!(r#"{{"x":{deep},"#), 1);
    assert_eq!(judge(&deep), Err(Fault::Claims));
}

#[test]
fn times_count_with_the_leeway_and_not_a_second_longer() {
    let rows = [
        ("exp", NOW_S + 1, None),
        ("exp", NOW_S - 29, None),
        ("exp", NOW_S - 30, Some(Fault::Expired)),
        ("exp", 0, Some(Fault::Expired)),
        ("nbf", NOW_S, None),
        ("nbf", NOW_S + 30, None),
        ("nbf", NOW_S + 31, Some(Fault::NotYet)),
        // When it was made is not what makes it count.
        ("iat", NOW_S + 1000, None),
    ];
    for (name, value, expected) in rows {
        assert_eq!(judge(&with(name, &json!(value))).err(), expected, "{name} {value}");
    }
    #[expect(clippy::cast_precision_loss, reason = "it is exact")]
    let fraction = NOW_S as f64 - 29.5;
    assert_eq!(judge(&with("exp", &json!(fraction))).err(), Some(Fault::Expired));
}

#[test]
fn a_token_is_for_this_audience_and_by_this_issuer() {
    for (aud, is_taken) in [
        (json!("fanfare"), true),
        (json!(["x", "fanfare"]), true),
        (json!(["x"]), false),
        (json!([]), false),
        (json!("fanfare "), false),
        (json!("Fanfare"), false),
    ] {
        let expected = (!is_taken).then_some(Fault::Audience);
        assert_eq!(judge(&with("aud", &aud)).err(), expected, "{aud}");
    }
    let (key, signer) = pair(Algorithm::Hs256, None);
    let rules = Rules { issuer: Some("us".to_owned()), ..rules(vec![key]) };
    let authority = Authority::of(rules);
    for (iss, expected) in [(json!("us"), None), (json!("them"), Some(Fault::Issuer))] {
        let mut claims = claims();
        claims["iss"] = iss;
        let token = sign(&signer, None, &claims).unwrap();
        assert_eq!(authority.authenticate(&token, NOW_S).err(), expected);
    }
    let token = sign(&signer, None, &claims()).unwrap();
    assert_eq!(authority.authenticate(&token, NOW_S).err(), Some(Fault::Issuer));
}

#[test]
fn keys_that_can_be_guessed_or_are_of_another_kind_are_refused() {
    let bad = |algorithm, bytes: &[u8]| Key::of_file(None, algorithm, bytes).expect_err("refused");
    assert_eq!(bad(Algorithm::Hs256, &SECRET[..31]), BadKey::ShortSecret(31));
    // A line feed at the end is not a secret.
    assert_eq!(bad(Algorithm::Hs256, &[&SECRET[..31], b"\n"].concat()), BadKey::ShortSecret(31));
    assert!(Key::of_file(None, Algorithm::Hs512, &SECRET[..32]).is_ok());
    assert!(matches!(bad(Algorithm::Hs256, &pem("rsa.pub")), BadKey::Form(_)));
    assert_eq!(bad(Algorithm::Rs256, &pem("rsa1024.pub")), BadKey::ShortModulus(1024));
    assert_eq!(bad(Algorithm::Es256, &pem("p384.pub")), BadKey::Kind("ES256"));
    assert_eq!(bad(Algorithm::EdDsa, &pem("rsa.pub")), BadKey::Kind("EdDSA"));
    assert!(matches!(bad(Algorithm::Rs256, &pem("rsa")), BadKey::Form(_)));
}

#[test]
fn a_set_gives_the_keys_that_sign_and_no_secrets() {
    let set = json!({"keys": [
        {"kty": "oct", "k": BASE64_URL_SAFE_NO_PAD.encode(SECRET), "kid": "secret", "alg": "HS256"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a", "use": "sig"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "b", "use": "enc"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "c", "key_ops": ["sign"]},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "d", "alg": "HS256"},
        {"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "e"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "f"},
        {"kty": "new", "kid": 5}, 7,
    ]});
    let keys = parse_key_set(set.to_string().as_bytes()).unwrap();
    let ids: Vec<_> = keys.iter().map(|key| (key.id.as_deref(), key.algorithm)).collect();
    assert_eq!(ids, [(Some("a"), Algorithm::EdDsa)]);
    for bad in ["", "{}", "[]", r#"{"keys":5}"#] {
        assert!(parse_key_set(bad.as_bytes()).is_err(), "{bad}");
    }
    let many = json!({"keys": vec![json!({}); 65]}).to_string();
    assert_eq!(parse_key_set(many.as_bytes()).unwrap_err(), BadKey::TooMany(65));
}

#[test]
fn what_a_key_or_a_token_is_made_of_is_never_shown() {
    let (key, signer) = pair(Algorithm::Hs256, Some("k"));
    let token = ApiToken { name: "n".into(), hash: Hash::of("canary"), grants: Grants::all() };
    let rules = Rules { tokens: vec![token], ..rules(vec![key]) };
    let authority = Authority::of(rules);
    let shown = format!("{authority:?} {signer:?} {:?}", Guard::new(authority.clone()));
    let secret = String::from_utf8_lossy(SECRET);
    assert!(!shown.contains(&*secret) && !shown.contains("canary"), "{shown}");
    assert!(!shown.contains("48, 49, 50, 51"), "{shown}");
}

#[test]
fn an_api_token_is_who_it_was_given_to() {
    let grants = |filter: &str| Grants {
        publish: TopicFilter::parse(filter).into_iter().collect(),
        ..Grants::default()
    };
    let token = |name: &str, secret: &str, filter: &str| ApiToken {
        name: name.into(),
        hash: Hash::of(secret),
        grants: grants(filter),
    };
    let tokens = vec![token("one", "s-1", "a.>"), token("two", "s-2", "b.>")];
    let authority = Authority::of(Rules { tokens, ..rules(vec![]) });
    let two = authority.authenticate("s-2", NOW_S).unwrap();
    assert_eq!((&*two.subject, two.expires_s, &two.grants), ("two", None, &grants("b.>")));
    for wrong in ["s-3", "s-2 ", "S-2", ""] {
        assert_eq!(authority.authenticate(wrong, NOW_S), Err(Fault::UnknownToken), "{wrong:?}");
    }
}

#[test]
fn an_identity_is_renewed_as_long_as_what_it_rests_on_is_there() {
    let now = Now::at_ms(NOW_S * 1000);
    let (key, signer) = pair(Algorithm::Hs256, Some("k"));
    let (other, _) = pair(Algorithm::Es256, Some("k"));
    let token = |filter: &str| ApiToken {
        name: "svc".into(),
        hash: Hash::of("s-1"),
        grants: Grants {
            subscribe: TopicFilter::parse(filter).into_iter().collect(),
            ..Grants::default()
        },
    };
    let guard =
        Guard::new(Authority::of(Rules { tokens: vec![token("a.>")], ..rules(vec![key.clone()]) }));
    let alice = guard.authenticate(&sign(&signer, Some("k"), &claims()).unwrap(), now).unwrap();
    let service = guard.authenticate("s-1", now).unwrap();
    assert_eq!(
        (guard.review(&alice, now), guard.review(&service, now)),
        (Review::Same, Review::Same)
    );
    let before = guard.generation();
    guard.replace(&Authority::of(Rules { tokens: vec![token("b.>")], ..rules(vec![key]) }));
    assert_ne!(guard.generation(), before);
    assert_eq!(guard.review(&alice, now), Review::Same);
    let Review::Changed(changed) = guard.review(&service, now) else { panic!("not changed") };
    assert_eq!(changed.grants, token("b.>").grants);
    guard.replace(&Authority::of(rules(vec![other])));
    assert_eq!(guard.review(&alice, now), Review::Gone(Fault::UnknownKey));
    assert_eq!(guard.review(&service, now), Review::Gone(Fault::UnknownToken));
}

#[test]
fn a_rotated_key_counts_beside_those_of_the_configuration_and_survives_a_reload() {
    let now = Now::at_ms(NOW_S * 1000);
    let (key, signer) = pair(Algorithm::Es256, Some("new"));
    let guard = Guard::new(Authority::of(rules(vec![])));
    let token = sign(&signer, Some("new"), &claims()).unwrap();
    assert_eq!(guard.authenticate(&token, now), Err(Fault::UnknownKey));
    assert_eq!(guard.unknown_keys(), 1);
    guard.replace_fetched(vec![key]);
    let alice = guard.authenticate(&token, now).unwrap();
    guard.replace(&Authority::of(rules(vec![])));
    assert_eq!(guard.review(&alice, now), Review::Same);
    guard.replace_fetched(Vec::new());
    assert_eq!(guard.review(&alice, now), Review::Gone(Fault::UnknownKey));
}

#[test]
fn a_revocation_refuses_and_ends_whoever_it_names() {
    let now = Now::at_ms(NOW_S * 1000);
    let (key, signer) = pair(Algorithm::Hs256, None);
    let guard = Guard::new(Authority::of(rules(vec![key])));
    let token = sign(&signer, None, &claims()).unwrap();
    for revocation in [Revocation::Subject("alice".into()), Revocation::Token("t-1".into())] {
        let alice = guard.authenticate(&token, now).unwrap();
        guard.revoke(revocation.clone(), NOW_S + 60, now).unwrap();
        assert_eq!(guard.authenticate(&token, now), Err(Fault::Revoked));
        assert_eq!(guard.review(&alice, now), Review::Gone(Fault::Revoked));
        assert!(guard.lift(&revocation));
    }
    assert!(guard.authenticate(&token, now).is_ok());
}

fn mutated(token: &str, at: usize, with: u8) -> Option<String> {
    let mut bytes = token.as_bytes().to_vec();
    let place = at % bytes.len();
    if bytes[place] == with {
        return None;
    }
    bytes[place] = with;
    String::from_utf8(bytes).ok()
}

proptest! {
    #[test]
    fn no_token_that_differs_in_a_byte_is_taken(at in any::<usize>(), with in 0x21u8..0x7f, which in 0usize..9) {
        let (key, signer) = pair(Algorithm::ALL[which], None);
        let token = sign(&signer, None, &claims()).unwrap();
        let authority = Authority::of(rules(vec![key]));
        prop_assert!(authority.authenticate(&token, NOW_S).is_ok());
        if let Some(mutated) = mutated(&token, at, with) {
            prop_assert!(authority.authenticate(&mutated, NOW_S).is_err(), "{}", mutated);
        }
        let cut = token.get(..at % token.len()).unwrap_or_default();
        prop_assert!(authority.authenticate(cut, NOW_S).is_err());
    }

    #[test]
    fn nothing_that_is_sent_as_a_token_makes_it_panic(header in "\\PC{0,60}", claims in "\\PC{0,60}", raw in "\\PC{0,80}") {
        let (key, signer) = pair(Algorithm::Hs256, None);
        let authority = Authority::of(rules(vec![key]));
        let token = signer.sign_raw(header.as_bytes(), claims.as_bytes()).unwrap();
        prop_assert!(authority.authenticate(&token, NOW_S).is_err());
        prop_assert!(authority.authenticate(&raw, NOW_S).is_err());
    }

    #[test]
    fn permission_is_what_trying_every_topic_says(
        granted in prop::collection::vec("([ab]|\\*)(\\.([ab]|\\*)){0,2}(\\.>)?", 0..4),
        asked in "([ab]|\\*)(\\.([ab]|\\*)){0,2}(\\.>)?",
    ) {
        let parsed: Vec<_> = granted.iter().map(|raw| TopicFilter::parse(raw).unwrap()).collect();
        let grants = Grants { subscribe: parsed.iter().cloned().collect(), ..Grants::default() };
        let identity = Identity::anonymous(grants);
        let target = Target::parse(&asked).unwrap();
        // One filter must grant all that is asked for.
        let names = every_name();
        let wanted: Vec<_> = names.iter().filter(|name| target.covers(name)).collect();
        let expected = parsed.iter().any(|one| wanted.iter().all(|name| one.matches(name)));
        prop_assert_eq!(permits(&identity, Ask::Subscribe(&target)), expected);
        for name in &names {
            let granted = parsed.iter().any(|one| one.matches(name));
            prop_assert_eq!(permits(&identity, Ask::Read(name)), granted);
            prop_assert!(!permits(&identity, Ask::Publish(name)));
            // What a permitted subscription brings is granted, topic by topic.
            prop_assert!(!expected || !target.covers(name) || granted);
        }
    }
}

/// Every name of up to five segments of three letters.
fn every_name() -> Vec<TopicName> {
    let mut longest = vec![String::new()];
    let mut all = Vec::new();
    for _ in 0..5 {
        longest =
            longest.iter().flat_map(|it| ["a", "b", "c"].map(|s| format!("{it}.{s}"))).collect();
        all.extend(longest.iter().map(|raw| TopicName::parse(&raw[1..]).unwrap()));
    }
    all
}
