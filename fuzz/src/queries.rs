//! What stands in URLs and comes back as the id of an event.
//! # Invariants: whatever is understood can be told again, within the bounds of an id.

use fanfare::dialect::bookmark::{self, BYTES_MAX, TOPICS_MAX};
use fanfare::dialect::query::{self, Stream, TARGETS_MAX};
use fanfare::topics::name::Target;

/// The query of a stream, and behind a line break what its reader says it had last.
pub fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (raw, said) = text.split_once('\n').map_or((text, None), |(raw, said)| (raw, Some(said)));
    drop((query::history(raw), query::target(raw), query::topic(raw)));
    let Ok(stream) = Stream::parse(raw, said, 0) else { return };
    let Stream { subscriptions, mut bookmark, .. } = stream;
    assert!((1..=TARGETS_MAX).contains(&subscriptions.len()), "a stream of nothing, or too much");
    let is_filter = |target: &Target| matches!(target, Target::Filter(_));
    let begun = subscriptions.filter_map(|(_, subscribe)| subscribe.ok());
    let kinds: Vec<bool> = begun.map(|subscribe| is_filter(&subscribe.target)).collect();
    assert!(kinds.is_sorted(), "a filter before a topic");
    let mut line = Vec::new();
    bookmark.tell(&mut line);
    let line = std::str::from_utf8(&line).expect("an id is ASCII");
    let Some(id) = line.strip_prefix("id: ") else { return };
    let id = id.strip_suffix('\n').expect("a line ends");
    assert!(id.len() <= BYTES_MAX && !id.contains(['\n', '\r', '\0']), "{} bytes", id.len());
    let places = bookmark::parse(id).expect("what was told is understood");
    assert!(places.named.len() + places.filters.len() <= TOPICS_MAX);
}
