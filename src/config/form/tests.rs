//! What each form takes, refuses and writes, as tables.
//! # Not here: the words of a whole configuration that is refused (`words`).

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
        ("Null", Some("null")),
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
    }

    #[test]
    fn a_rate_that_is_printed_is_read_back(millihertz in 10..=1_000_000_u32) {
        let rate = Rate::from_hz(f64::from(millihertz) / 1e3).expect("a rate");
        prop_assert_eq!(Hertz::read(&Spelled::Text(rate.to_string())), Ok(rate));
        prop_assert_eq!(rate.millihertz(), millihertz);
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
