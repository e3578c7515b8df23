//! Topic names and topic filters: parsing and matching.
//! # Invariants: a [`TopicName`] or [`TopicFilter`] exists only if it is valid; no code behind the
//! parser checks again.
//! # Not here: finding the topics or filters that match (`registry`, `filters`).

use super::label::Label;
use crate::reason::{Reason, Refusal};
use std::fmt;

/// Longest topic name or filter, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most segments of a topic name or filter.
pub const NAME_SEGMENTS_MAX: usize = 16;

/// A valid topic name: 1 to 16 segments of `[A-Za-z0-9_:@=~/-]` joined by dots, at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Label);

impl TopicName {
    /// Takes a name if it is valid.
    ///
    /// # Errors
    /// [`Reason::BadTopic`] with what is wrong.
    pub fn parse(raw: &str) -> Result<TopicName, Refusal> {
        check(raw, Wildcards::None).map_err(|fault| fault.refusal(raw, Reason::BadTopic))?;
        Ok(TopicName(Label::new(raw.as_bytes())))
    }

    /// Takes a name if it is valid; a fault is not worth finding out which.
    pub fn plain(raw: &[u8]) -> Option<TopicName> {
        is_plain(raw).then(|| TopicName(Label::new(raw)))
    }

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name as it is written, in ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The parts between the dots.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('.')
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::borrow::Borrow<[u8]> for TopicName {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A valid filter: like a topic name, but a segment may be `*` (exactly one segment) and the last
/// one may be `>` (one or more segments). A filter without wildcards matches one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Label);

impl TopicFilter {
    /// Takes a filter if it is valid.
    ///
    /// # Errors
    /// [`Reason::BadFilter`] with what is wrong.
    pub fn parse(raw: &str) -> Result<TopicFilter, Refusal> {
        check(raw, Wildcards::Allowed).map_err(|fault| fault.refusal(raw, Reason::BadFilter))?;
        Ok(TopicFilter(Label::new(raw.as_bytes())))
    }

    /// The filter as it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The parts between the dots, wildcards among them.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('.')
    }

    /// Whether the filter covers this topic.
    pub fn matches(&self, topic: &TopicName) -> bool {
        let mut names = topic.segments();
        for part in self.segments() {
            match (part, names.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(name)) if literal == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether every topic that `other` matches is one that this filter matches.
    pub fn contains(&self, other: &TopicFilter) -> bool {
        let mut theirs = other.segments();
        for part in self.segments() {
            match (part, theirs.next()) {
                (">", Some(_)) => return true,
                // One segment is all there is of one or more where a name has room for no second.
                ("*", Some(">")) if !other.has_room() => {}
                ("*", Some(theirs)) if theirs != ">" => {}
                (literal, Some(theirs)) if literal == theirs => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether a name with more segments than this filter is within the limits of a name.
    fn has_room(&self) -> bool {
        // A further segment is at least one character behind a dot.
        self.segments().count() < NAME_SEGMENTS_MAX && self.as_str().len() + 2 <= NAME_BYTES_MAX
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a subscription is for: one topic, or every topic that a filter covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Exactly this topic.
    Topic(TopicName),
    /// Every topic that matches; the filter has at least one wildcard.
    Filter(TopicFilter),
}

impl Target {
    /// Takes a topic name, or a filter if there is a wildcard in it.
    ///
    /// # Errors
    /// [`Reason::BadTopic`] or [`Reason::BadFilter`] with what is wrong.
    pub fn parse(raw: &str) -> Result<Target, Refusal> {
        if raw.contains(['*', '>']) {
            TopicFilter::parse(raw).map(Target::Filter)
        } else {
            TopicName::parse(raw).map(Target::Topic)
        }
    }

    /// Whether it is for this topic.
    pub fn covers(&self, topic: &TopicName) -> bool {
        match self {
            Target::Topic(name) => name == topic,
            Target::Filter(filter) => filter.matches(topic),
        }
    }

    /// The topic or filter as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Target::Topic(name) => name.as_str(),
            Target::Filter(filter) => filter.as_str(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wildcards {
    None,
    Allowed,
}

#[derive(Clone, Copy)]
enum NameFault {
    Empty,
    TooLong,
    TooManySegments,
    EmptySegment,
    Reserved,
    Wildcard,
    WildcardInSegment,
    TailNotLast,
    Character(char),
}

impl NameFault {
    fn refusal(self, raw: &str, reason: Reason) -> Refusal {
        let detail = match self {
            NameFault::Empty => "it is empty".to_owned(),
            NameFault::TooLong => {
                format!("it is {} bytes, the limit is {NAME_BYTES_MAX}", raw.len())
            }
            NameFault::TooManySegments => {
                format!("it has more than {NAME_SEGMENTS_MAX} segments")
            }
            NameFault::EmptySegment => "it has an empty segment".to_owned(),
            NameFault::Reserved => "segments that start with `$` are reserved".to_owned(),
            NameFault::Wildcard => "a topic name has no wildcards".to_owned(),
            NameFault::WildcardInSegment => "a wildcard must be a segment of its own".to_owned(),
            NameFault::TailNotLast => "`>` may only be the last segment".to_owned(),
            NameFault::Character(c) => {
                format!("{c:?} is not one of A-Z a-z 0-9 _ : @ = ~ / -")
            }
        };
        Refusal::new(reason, detail)
    }
}

fn check(raw: &str, wildcards: Wildcards) -> Result<(), NameFault> {
    if is_plain(raw.as_bytes()) {
        return Ok(());
    }
    if raw.is_empty() {
        return Err(NameFault::Empty);
    }
    if raw.len() > NAME_BYTES_MAX {
        return Err(NameFault::TooLong);
    }
    let mut tail_seen = false;
    for (index, segment) in raw.split('.').enumerate() {
        if index == NAME_SEGMENTS_MAX {
            return Err(NameFault::TooManySegments);
        }
        if tail_seen {
            return Err(NameFault::TailNotLast);
        }
        tail_seen = segment == ">";
        check_segment(segment, wildcards)?;
    }
    Ok(())
}

/// Whether this is a name without wildcards, found in one look at each byte. What is not may be a
/// filter, or has a fault that is worth the time to name it.
fn is_plain(raw: &[u8]) -> bool {
    const LITERAL: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte: u8 = 0;
        while byte < 128 {
            table[byte as usize] = is_name_character(byte as char);
            byte += 1;
        }
        table
    };
    let mut dots = 0;
    let mut is_empty = true;
    for byte in raw {
        if LITERAL.get(usize::from(*byte)).copied().unwrap_or_default() {
            is_empty = false;
        } else if *byte == b'.' && !is_empty {
            is_empty = true;
            dots += 1;
        } else {
            return false;
        }
    }
    !is_empty && dots < NAME_SEGMENTS_MAX && raw.len() <= NAME_BYTES_MAX
}

fn check_segment(segment: &str, wildcards: Wildcards) -> Result<(), NameFault> {
    match segment {
        "" => return Err(NameFault::EmptySegment),
        "*" | ">" if wildcards == Wildcards::Allowed => return Ok(()),
        _ => {}
    }
    if segment.starts_with('$') {
        return Err(NameFault::Reserved);
    }
    match segment.chars().find(|c| !is_name_character(*c)) {
        None => Ok(()),
        Some('*' | '>') if wildcards == Wildcards::None => Err(NameFault::Wildcard),
        Some('*' | '>') => Err(NameFault::WildcardInSegment),
        Some(other) => Err(NameFault::Character(other)),
    }
}

const fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '@' | '=' | '~' | '/' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(raw: &str) -> String {
        Target::parse(raw).expect_err("must be refused").to_string()
    }

    #[test]
    fn valid_names_are_taken_as_they_are() {
        for raw in [
            "a",
            "ticker.AAPL",
            "a:b@c=d~e/f-g_h.0",
            &"x".repeat(255),
            "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p",
        ] {
            assert_eq!(TopicName::parse(raw).expect(raw).as_str(), raw);
        }
    }

    #[test]
    fn every_kind_of_bad_name_is_refused_with_its_own_words() {
        let cases = [
            ("", "it is empty"),
            (".", "empty segment"),
            ("a..b", "empty segment"),
            ("a.", "empty segment"),
            ("$sys", "reserved"),
            ("a.$b", "reserved"),
            ("a b", "' ' is not one of"),
            ("a\n", "'\\n' is not one of"),
            ("ä", "'ä' is not one of"),
            ("a.b*", "segment of its own"),
            ("a.>.b", "only be the last"),
            (">.>", "only be the last"),
            ("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q", "more than 16 segments"),
        ];
        for (raw, part) in cases {
            assert!(refused(raw).contains(part), "{raw:?}: {}", refused(raw));
        }
        assert!(refused(&"x".repeat(256)).contains("it is 256 bytes, the limit is 255"));
        assert!(TopicName::parse("a.*").is_err_and(|r| r.to_string().contains("no wildcards")));
    }

    #[test]
    fn filters_match_by_segment() {
        let cases = [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a", false),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("*", "a.b", false),
            ("*.>", "a", false),
            ("*.>", "a.b.c", true),
        ];
        for (filter, name, expected) in cases {
            let filter = TopicFilter::parse(filter).expect("valid filter");
            let name = TopicName::parse(name).expect("valid name");
            assert_eq!(filter.matches(&name), expected, "{filter} {name}");
        }
    }

    /// The definition of a match, written as a recursion over the remaining segments.
    fn oracle(filter: &[&str], name: &[&str]) -> bool {
        match (filter, name) {
            ([], []) | ([">"], [_, ..]) => true,
            (["*", f @ ..], [_, n @ ..]) => oracle(f, n),
            ([a, f @ ..], [b, n @ ..]) => a == b && oracle(f, n),
            _ => false,
        }
    }

    #[test]
    fn a_filter_contains_those_that_match_less() {
        let full = format!("{}b", "a.".repeat(15));
        let (star, tail) = (full.replace('b', "*"), full.replace('b', ">"));
        let long = "x".repeat(253);
        let cases = [
            (">", "a.*.b", true),
            ("a.>", "a.>", true),
            ("a.>", "a.*.>", true),
            ("a.>", "a", false),
            ("a.*", "a.b", true),
            ("a.*", "a.>", false),
            ("a.b", "a.*", false),
            ("*.>", ">", false),
            ("*.b", "a.b", true),
            ("*.b", "*.*", false),
            ("a.*", "a.b.c", false),
            // A tail that has room for one segment only is a star.
            (&star, &tail, true),
            (&full, &tail, false),
            (&format!("{long}.*"), &format!("{long}.>"), true),
            (&format!("{}.*", &long[1..]), &format!("{}.>", &long[1..]), true),
            (&format!("{}.*", &long[2..]), &format!("{}.>", &long[2..]), false),
        ];
        for (wide, narrow, expected) in cases {
            let filter = |raw| TopicFilter::parse(raw).expect("valid filter");
            assert_eq!(filter(wide).contains(&filter(narrow)), expected, "{wide} {narrow}");
        }
    }

    /// Every way to join one to `depth` of these parts.
    fn joined(parts: &[&str], depth: usize) -> Vec<String> {
        let mut longest = vec![String::new()];
        let mut all = Vec::new();
        for _ in 0..depth {
            longest = longest
                .iter()
                .flat_map(|start| parts.iter().map(move |part| format!("{start}.{part}")))
                .collect();
            all.extend(longest.iter().map(|text| text[1..].to_owned()));
        }
        all
    }

    #[test]
    fn containing_agrees_with_trying_every_name() {
        // Behind nothing there is room for more segments than any filter has; behind the others
        // names reach the most segments, and the most bytes, odd and even.
        let long = |bytes| format!("{}.", "x".repeat(bytes));
        for beginning in [String::new(), "x.".repeat(12), long(247), long(248)] {
            let whole = |end: &String| format!("{beginning}{end}");
            let names: Vec<_> = joined(&["a", "b", "c"], 5).iter().map(whole).collect();
            let names: Vec<_> = names.iter().filter_map(|raw| TopicName::parse(raw).ok()).collect();
            let filters: Vec<_> = joined(&["a", "b", "*", ">"], 4).iter().map(whole).collect();
            let filters = filters.iter().filter_map(|raw| TopicFilter::parse(raw).ok());
            let tried: Vec<(TopicFilter, Vec<bool>)> = filters
                .map(|filter| {
                    let matches = names.iter().map(|name| filter.matches(name)).collect();
                    (filter, matches)
                })
                .collect();
            for (wide, all) in &tried {
                for (narrow, some) in &tried {
                    let expected = some.iter().zip(all).all(|(some, all)| *all || !some);
                    assert_eq!(wide.contains(narrow), expected, "{wide} {narrow}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            filter in "([ab]|\\*)(\\.([ab]|\\*)){0,4}(\\.>)?",
            name in "[ab](\\.[ab]){0,5}",
        ) {
            let parsed = TopicFilter::parse(&filter).expect("valid filter");
            let topic = TopicName::parse(&name).expect("valid name");
            let expected = oracle(
                &filter.split('.').collect::<Vec<_>>(),
                &name.split('.').collect::<Vec<_>>(),
            );
            prop_assert_eq!(parsed.matches(&topic), expected);
        }

        #[test]
        fn parsing_never_panics_and_keeps_the_name(raw in "\\PC{0,300}") {
            if let Ok(target) = Target::parse(&raw) {
                prop_assert_eq!(target.as_str(), raw);
            }
        }
    }
}
