//! Names: of topics and filters, and of who is behind a proxy.

use fanfare::listen::hops::{self as chain, Network};
use fanfare::listen::proxy::{BODY_BYTES_MAX, HEAD_BYTES, read_head};
use fanfare::topics::filters::FilterTrie;
use fanfare::topics::name::{Target, TopicFilter, TopicName};
use std::net::{IpAddr, Ipv4Addr};

/// Lines, each a filter or a topic: every filter matches what a slow and simple comparison says it
/// does, so does the index of filters, and a filter that contains another one matches all it matches.
pub fn filters(input: &[u8]) {
    let lines = input.split(|byte| *byte == b'\n').take(16);
    let lines: Vec<&str> = lines.filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let filters: Vec<_> = lines.iter().filter_map(|line| TopicFilter::parse(line).ok()).collect();
    let topics: Vec<_> = lines.iter().filter_map(|line| TopicName::parse(line).ok()).collect();
    for line in &lines {
        assert_eq!(TopicName::plain(line.as_bytes()), TopicName::parse(line).ok());
        assert_eq!(Target::parse(line).is_ok(), TopicFilter::parse(line).is_ok());
    }
    let mut index = FilterTrie::default();
    for (number, filter) in filters.iter().enumerate() {
        let all: &mut Vec<usize> = index.entry(filter);
        all.push(number);
    }
    for topic in &topics {
        let mut expected = Vec::new();
        for (number, filter) in filters.iter().enumerate() {
            let (pattern, name) = (parts(filter.as_str()), parts(topic.as_str()));
            assert_eq!(filter.matches(topic), covers(&pattern, &name), "{filter} and {topic}");
            if filter.matches(topic) {
                expected.push(number);
            }
        }
        let mut found: Vec<usize> = Vec::new();
        index.for_each_match(topic, |numbers| found.extend(numbers));
        found.sort_unstable();
        assert_eq!(found, expected, "{topic}");
        for wide in &filters {
            for narrow in filters.iter().filter(|narrow| wide.contains(narrow)) {
                assert!(wide.matches(topic) || !narrow.matches(topic), "{wide}, {narrow}, {topic}");
            }
        }
    }
}

fn parts(name: &str) -> Vec<&str> {
    name.split('.').collect()
}

/// What a filter means, one segment at a time.
fn covers(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        ([first, filter @ ..], [name, topic @ ..]) => {
            (first == name || *first == "*") && covers(filter, topic)
        }
        _ => false,
    }
}

/// The beginning of a connection as a PROXY header: it is one or it is not, and one is never longer
/// than it may be.
pub fn proxy(input: &[u8]) {
    let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else { return };
    let Ok(head) = read_head(head) else { return };
    assert!(head.body_bytes <= BODY_BYTES_MAX);
    if let Some(body) = rest.get(..head.body_bytes) {
        let client = head.client(body);
        assert!(client.is_none_or(|client| client == client.to_canonical()));
        assert_eq!(head.client(rest), client, "what is behind the header changes who it is");
    }
}

/// X-Forwarded-For headers, one a line: nobody is believed who is not trusted, and what stands in
/// front of the hop that counts changes nothing.
pub fn hops(input: &[u8]) {
    let headers: Vec<&[u8]> = input.split(|byte| *byte == b'\n').take(8).collect();
    let Ok(trusted) = ["10.0.0.0/8".parse::<Network>(), "2001:db8::/32".parse()]
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    let stranger = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(chain::client(stranger, headers.iter().copied(), &trusted), stranger);
    let proxy = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1));
    let client = chain::client(proxy, headers.iter().copied(), &trusted);
    assert_eq!(client, client.to_canonical());
    if !chain::is_trusted(&trusted, client) {
        let forged = [&b"10.9.9.9, 203.0.113.9"[..]];
        let forged = chain::client(proxy, forged.into_iter().chain(headers), &trusted);
        assert_eq!(forged, client, "a header in front changes who it is");
    }
}
