//! `fanfare token` and what a broker says that does not start: from outside.
//! # Not here: what makes a token valid (`auth`).

use super::{Broker, Outcome, run};
use std::io::Write;
use tempfile::NamedTempFile;

/// A file with a text.
fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("writable");
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("UTF-8")
}

fn said(outcome: &Outcome) -> String {
    assert_eq!(outcome.code, Some(0), "{:?}", outcome.stderr);
    outcome.stdout.join("\n")
}

#[test]
fn tokens_are_made_hashed_inspected_and_used_on_every_transport() {
    let random = || file(&said(&run(&["token", "random"])));
    let (secret, api) = (random(), random());
    let hash = said(&run(&["token", "hash", path(&api)]));
    let key = path(&secret);
    let settings = format!(
        "[auth]\naudience = 'x'\n[[auth.keys]]\nalgorithm = 'HS256'\nfile = '{key}'\n\
         [[auth.tokens]]\nname = 'svc'\nsha256 = '{hash}'\npublish = ['room.*']\n"
    );
    let mint = ["token", "mint", "--key", key, "--aud", "x", "--sub", "alice"];
    let alice = file(&said(&run(&[&mint[..], &["--subscribe", "room.>"]].concat())));
    let inspected = said(&run(&["token", "inspect", path(&alice), "--key", key]));
    for part in ["alg HS256", "sub \"alice\"", "may subscribe to room.>", "valid for "] {
        assert!(inspected.contains(part), "{inspected}");
    }
    let config = file(&settings);
    let inspected = said(&run(&["token", "inspect", path(&alice), "--config", path(&config)]));
    assert!(inspected.ends_with("valid: alice"), "{inspected}");
    let old = file(&said(&run(&[&mint[..], &["--ttl", "0s"]].concat())));
    let inspected = said(&run(&["token", "inspect", path(&old), "--key", key]));
    assert!(inspected.contains("not valid: it has expired"), "{inspected}");

    let broker = Broker::start_with(&settings);
    let token = ["--token-file", path(&api)];
    for url in [broker.ws(), broker.tcp(), broker.http()] {
        let publish = |topic| ["publish", "--url", &url, topic, "1"];
        said(&run(&[&publish("room.1")[..], &token].concat()));
        for (arguments, reason) in
            [(&[][..], "unauthenticated"), (&["--token-file", path(&secret)], "badToken")]
        {
            let told = run(&[&publish("room.1")[..], arguments].concat()).stderr.join("\n");
            let is_closed = told.contains("4501");
            assert!(told.contains(reason) || is_closed, "{url} {reason}: {told}");
        }
        let told = run(&[&publish("else")[..], &token].concat()).stderr.join("\n");
        assert!(told.contains("notAllowed"), "{told}");
    }
    for url in [broker.ws(), broker.tcp()] {
        let subscribe = ["subscribe", "--url", &url, "room.1", "--last", "1", "--count", "1"];
        let outcome = run(&[&subscribe[..], &["--token-file", path(&alice)]].concat());
        assert!(said(&outcome).contains("room.1"));
    }
}

#[test]
fn a_token_command_says_what_is_wrong_and_repeats_no_secret() {
    let (short, jwt) = (file("canary-short"), file("canary.canary.canary-0123456789-0123456789"));
    let mint = |key| ["token", "mint", "--key", key, "--aud", "x", "--sub", "a"].to_vec();
    let cases = [
        (vec!["token", "hash", path(&short)], "the least is 32"),
        (vec!["token", "hash", path(&jwt)], "it has a dot"),
        (vec!["token", "inspect", path(&jwt)], "the token"),
        (mint(path(&short)), "the secret is 12 bytes, the least is 32"),
        (mint("/nowhere"), "/nowhere"),
        ([mint(path(&short)), vec!["--alg", "none"]].concat(), "it is one of HS256"),
    ];
    for (arguments, words) in cases {
        let outcome = run(&arguments);
        let told = outcome.stderr.join("\n");
        assert_ne!(outcome.code, Some(0), "{arguments:?}");
        assert!(told.contains(words), "{arguments:?}: {told}");
        assert!(!told.contains("canary"), "{arguments:?}: {told}");
    }
}

#[test]
fn a_broker_does_not_start_on_what_is_unsafe_and_says_how_to_mend_it() {
    let (short, secret) = (file("too short"), file(&"k".repeat(40)));
    let keys = |file: &str| format!("[[auth.keys]]\nalgorithm = 'HS256'\nfile = '{file}'\n");
    let set = |jwks: &str| format!("auth = {{ audience = 'x', jwks = '{jwks}' }}\n");
    let cases = [
        (keys(path(&secret)), "set it to what `aud` says"),
        (format!("auth.audience = 'x'\n{}", keys(path(&short))), "the least is 32"),
        (format!("auth.audience = 'x'\n{}", keys("/nowhere/key")), "/nowhere/key"),
        ("auth.audience = 'x'\n".to_owned(), "there is no key to verify a token with"),
        (set("http://a.example/keys"), "use https"),
        (set("ftp://a.example/keys"), "nor a URL of https"),
        (set("/nowhere/keys"), "/nowhere/keys"),
        (
            "listen.public = '0.0.0.0:0'\n[auth.anonymous]\nsubscribe = ['>']\n".to_owned(),
            "without proving who they are",
        ),
        ("auth.tokens = [{ name = 'a', sha256 = 'canary' }]".to_owned(), "fanfare token hash"),
    ];
    for (settings, words) in cases {
        let config = file(&settings);
        let any =
            ["serve", "--ingress", "127.0.0.1:0", "--admin", "off", "--config", path(&config)];
        let outcome = run(&any);
        let told = outcome.stderr.join("\n");
        assert_eq!(outcome.code, Some(1), "{settings}: {told}");
        assert!(told.contains(words) && !told.contains("canary"), "{settings}: {told}");
    }
}
