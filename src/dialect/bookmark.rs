//! Where a reader of server-sent events stands, as the text of an event's id: all that it has to say
//! when it comes back.
//! Owns that text: `EPOCH:OFFSET` of a stream of one topic, else `TOPIC@EPOCH:OFFSET` of each topic and
//! each filter that has begun, with commas between, and `!` at the end where topics had no room.
//! # Invariants: a position never goes back within an epoch; noting one allocates nothing once the text
//! has grown; a bookmark is at most [`BYTES_MAX`] bytes long, however its offsets grow, and never leaves
//! something out in silence; one that comes back holds no more than was ever told, and nothing twice.
//! # Not here: which connection has one (`shard`), what becomes of one that comes back (`query`).

use super::{Event, TopicPosition};
use crate::reason::{Reason, Refusal};
use crate::topics::message::{Epoch, Message, Offset, Payload, Position, Stream, TopicHead, Wire};
use crate::topics::name::{TopicFilter, TopicName};

/// Topics that one bookmark holds.
pub const TOPICS_MAX: usize = 64;

/// Bytes that it has at most: proxies take 8 KiB of headers.
pub const BYTES_MAX: usize = 4 << 10;

/// At the end of one that does not hold every topic of its stream.
const MORE: &str = "!";

/// Digits of the largest offset, [`INTEGER_MAX`](super::raw::INTEGER_MAX).
const DIGITS_MAX: usize = 16;

/// Where one connection stands in the topics of its stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bookmark {
    naming: Naming,
    text: Vec<u8>,
    entries: Vec<Entry>,
    room: Room,
    /// Something was noted that the reader has not been told.
    is_new: bool,
}

/// Whether every topic of the stream is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Room {
    /// Each is.
    #[default]
    Enough,
    /// Some were not in the one that the reader came back with, and not all of it was told yet.
    WasFull,
    /// Some had no room.
    Full,
}

/// Whether topics are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// Each by its name.
    #[default]
    Named,
    /// There is one, and it is known which.
    Bare,
}

/// In place of a topic's id: it is only known by its name yet.
const UNKNOWN: u64 = u64::MAX;

/// In place of a topic's id: it is a filter, all of whose topics are here.
const FILTER: u64 = u64::MAX - 1;

/// A topic in the text, in its order.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    /// The id of its head.
    topic: u64,
    offset: Offset,
    /// Where its text ends.
    end: usize,
}

impl Bookmark {
    /// One that holds nothing yet.
    pub fn new(naming: Naming) -> Bookmark {
        Bookmark { naming, ..Bookmark::default() }
    }

    /// Has it begin with a place that the reader came back with, so that being cut once more while
    /// its subscriptions begin loses nothing.
    pub fn seed(&mut self, topic: &TopicName, position: Position) {
        self.add_place(topic, position, UNKNOWN);
    }

    /// Has it begin as the one of a reader that came back without some of its places.
    pub fn seed_full(&mut self) {
        if self.room == Room::Enough {
            self.room = Room::WasFull;
            self.is_new = true;
        }
    }

    /// All subscriptions have begun: what was lost before has been told. So is what became of each
    /// place that the reader came back with; where there is no such topic, it has no place.
    pub fn settle(&mut self) {
        if self.room == Room::WasFull {
            self.room = Room::Enough;
            self.is_new = true;
        }
        while let Some(index) = self.entries.iter().position(|entry| entry.topic == UNKNOWN) {
            self.remove(index);
        }
    }

    /// Notes that a filter has begun, so that a topic of it which is not here begins later.
    pub fn note_filter(&mut self, filter: &TopicFilter) {
        let text = filter.as_str().as_bytes();
        if self.parts().any(|(entry, part)| entry.topic == FILTER && part == text) {
            return;
        }
        self.add(FILTER, text.len(), |out| {
            out.extend_from_slice(text);
            Offset::default()
        });
    }

    /// Notes that there are topics which have no room.
    pub fn note_full(&mut self) {
        self.is_new |= self.room == Room::Enough;
        self.room = Room::Full;
    }

    /// Notes that a topic has been sent up to here.
    pub fn note(&mut self, head: &TopicHead, offset: Offset) {
        if head.stream != Stream::Messages {
            return;
        }
        match self.entries.iter().position(|entry| entry.topic == head.id) {
            Some(index) => self.advance(index, offset),
            None => self.begin(head, offset),
        }
    }

    /// Appends the line that tells it, if there is something new to tell.
    pub fn tell(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(&self.text);
        if self.room != Room::Enough {
            let comma: &[u8] = if self.text.is_empty() { b"" } else { b"," };
            out.extend_from_slice(comma);
            out.extend_from_slice(MORE.as_bytes());
        }
        out.push(b'\n');
    }

    /// How long the line that tells it may be.
    pub fn line_len(&self) -> usize {
        "id: ".len() + self.text.len() + DIGITS_MAX + ",!\n".len()
    }

    /// Becomes what another one is, in the memory that it has.
    pub fn copy_from(&mut self, other: &Bookmark) {
        self.naming = other.naming;
        self.text.clone_from(&other.text);
        self.entries.clone_from(&other.entries);
        self.room = other.room;
        self.is_new = other.is_new;
    }

    fn advance(&mut self, index: usize, offset: Offset) {
        let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.offset < offset) else {
            return;
        };
        let (mut old, mut new) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (old, new) = (old.format(entry.offset.0), new.format(offset.0));
        entry.offset = offset;
        let (end, grown) = (entry.end, new.len() - old.len());
        let begin = end - old.len();
        if grown > 0 {
            self.text.splice(end..end, std::iter::repeat_n(b'0', grown));
            for later in self.entries.iter_mut().skip(index) {
                later.end += grown;
            }
        }
        if let Some(digits) = self.text.get_mut(begin..end + grown) {
            digits.copy_from_slice(new.as_bytes());
        }
        self.is_new = true;
    }

    #[cold]
    fn begin(&mut self, head: &TopicHead, offset: Offset) {
        self.forget(&head.name);
        self.add_place(&head.name, Position { epoch: head.epoch, offset }, head.id);
    }

    fn add_place(&mut self, topic: &TopicName, position: Position, id: u64) {
        let (name, naming) = (topic.as_bytes(), self.naming);
        self.add(id, name.len() + "@:".len() + Epoch::TEXT_LEN + DIGITS_MAX, |out| {
            if naming == Naming::Named {
                out.extend_from_slice(name);
                out.push(b'@');
            }
            write_position(position, out);
            position.offset
        });
    }

    /// Adds a part of at most so many bytes, which `write` appends.
    fn add(&mut self, topic: u64, len: usize, write: impl FnOnce(&mut Vec<u8>) -> Offset) {
        if self.entries.len() >= TOPICS_MAX || self.len_max() + len + ",,!".len() > BYTES_MAX {
            return self.note_full();
        }
        self.is_new = true;
        if !self.text.is_empty() {
            self.text.push(b',');
        }
        let offset = write(&mut self.text);
        self.entries.push(Entry { topic, offset, end: self.text.len() });
    }

    /// How long the text becomes when all of its offsets are the largest.
    fn len_max(&self) -> usize {
        let mut digits = itoa::Buffer::new();
        let positions = self.entries.iter().filter(|entry| entry.topic != FILTER);
        let room = positions
            .map(|entry| DIGITS_MAX.saturating_sub(digits.format(entry.offset.0).len()))
            .sum::<usize>();
        self.text.len() + room
    }

    /// The parts of the text.
    fn parts(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let part = self.text.get(start..entry.end).unwrap_or_default();
            start = entry.end + 1;
            (entry, part)
        })
    }

    /// Takes a topic out that has begun anew.
    fn forget(&mut self, name: &TopicName) {
        let found = self.parts().position(|(_, part)| match self.naming {
            Naming::Bare => true,
            Naming::Named => part.strip_prefix(name.as_bytes()).is_some_and(is_position),
        });
        if let Some(index) = found {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) {
        self.is_new = true;
        let entry = self.entries.remove(index);
        let start = index.checked_sub(1).and_then(|before| self.entries.get(before));
        let start = start.map_or(0, |before| before.end + 1);
        let end = (entry.end + 1).min(self.text.len());
        self.text.drain(start..end);
        for later in self.entries.iter_mut().skip(index) {
            later.end -= end - start;
        }
        if self.text.last() == Some(&b',') {
            self.text.pop();
        }
    }
}

/// Whether this is what follows a name: names may have the characters of it, too.
fn is_position(text: &[u8]) -> bool {
    text.first() == Some(&b'@')
        && text.get(1 + Epoch::TEXT_LEN) == Some(&b':')
        && text.get(2 + Epoch::TEXT_LEN..).is_some_and(|rest| rest.iter().all(u8::is_ascii_digit))
}

fn write_position(position: Position, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(position.epoch.as_bytes());
    out.push(b':');
    out.extend_from_slice(digits.format(position.offset.0).as_bytes());
}

/// What follows the JSON of an event beside its end.
pub(super) fn write_lines(event: &Event, wire: Wire, out: &mut Vec<u8>) {
    match event {
        Event::Message(message) if wire == Wire::SseTopic => write_id(message, out),
        Event::Reconnect { after_ms: after_ms @ 1.. } => {
            let mut digits = itoa::Buffer::new();
            out.extend_from_slice(b"\nretry: ");
            out.extend_from_slice(digits.format(*after_ms).as_bytes());
        }
        _ => {}
    }
}

/// The position of a message as the id of its event, in a stream of its topic alone.
pub(super) fn write_id(message: &Message, out: &mut Vec<u8>) {
    if !matches!(message.payload, Payload::Joined(_) | Payload::Left(_)) {
        out.extend_from_slice(b"\nid: ");
        write_position(Position { epoch: message.head.epoch, offset: message.offset }, out);
    }
}

/// What a reader says that comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The position of the one topic of the stream.
    pub bare: Option<Position>,
    /// The positions of topics that are named.
    pub named: Vec<TopicPosition>,
    /// The filters that had begun.
    pub filters: Vec<TopicFilter>,
    /// Whether the stream had further topics.
    pub has_more: bool,
}

/// Reads a bookmark that has come back.
///
/// # Errors
/// [`Reason::BadPosition`], also when something is there twice, and [`Reason::TooManyPositions`].
pub fn parse(text: &str) -> Result<Places, Refusal> {
    let mut places = Places::default();
    for part in text.split(',') {
        if part != MORE && places.named.len() + places.filters.len() >= TOPICS_MAX {
            let detail = format!("the last event's id names at most {TOPICS_MAX}");
            return Err(Refusal::new(Reason::TooManyPositions, detail));
        }
        let is_there = if part == MORE {
            std::mem::replace(&mut places.has_more, true)
        } else if part.contains(['*', '>']) {
            let filter = TopicFilter::parse(part).map_err(|bad| bad_id(&bad.to_string()))?;
            push_once(&mut places.filters, filter, PartialEq::eq)
        } else if part.contains('@') {
            let place = parse_named(part)?;
            push_once(&mut places.named, place, |one, other| one.topic == other.topic)
        } else {
            places.bare.replace(parse_position(part)?).is_some()
        };
        if is_there {
            return Err(bad_id(&format!("`{}` is there twice", super::frame::cut(part, 64))));
        }
    }
    if places.bare.is_some() && text.contains(',') {
        return Err(bad_id("a position without a topic stands alone"));
    }
    Ok(places)
}

/// Appends this unless its like is there, which is the answer.
fn push_once<T>(all: &mut Vec<T>, one: T, is_like: impl Fn(&T, &T) -> bool) -> bool {
    let is_there = all.iter().any(|other| is_like(other, &one));
    if !is_there {
        all.push(one);
    }
    is_there
}

/// Reads `TOPIC@EPOCH:OFFSET`.
///
/// # Errors
/// [`Reason::BadPosition`].
pub fn parse_named(text: &str) -> Result<TopicPosition, Refusal> {
    let (topic, position) = text.rsplit_once('@').ok_or_else(|| bad_id("it names no topic"))?;
    let topic = TopicName::parse(topic).map_err(|bad| bad_id(&bad.to_string()))?;
    Ok(TopicPosition { topic, position: parse_position(position)? })
}

/// Reads `EPOCH:OFFSET`.
///
/// # Errors
/// [`Reason::BadPosition`].
pub fn parse_position(text: &str) -> Result<Position, Refusal> {
    let (epoch, offset) = text.split_once(':').ok_or_else(|| bad_id("it is not EPOCH:OFFSET"))?;
    let epoch = epoch.parse().map_err(|bad| bad_id(&format!("{bad}")))?;
    let is_number = !offset.is_empty() && offset.bytes().all(|byte| byte.is_ascii_digit());
    let offset =
        offset.parse().ok().filter(|offset| is_number && *offset <= super::raw::INTEGER_MAX);
    let offset = offset.ok_or_else(|| {
        bad_id(&format!("an offset is a number from 0 to {}", super::raw::INTEGER_MAX))
    })?;
    Ok(Position { epoch, offset: Offset(offset) })
}

fn bad_id(detail: &str) -> Refusal {
    Refusal::new(Reason::BadPosition, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::rule::Rule;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn head(id: u64, name: &str) -> TopicHead {
        let name = TopicName::parse(name).expect("a name");
        TopicHead::new(id, name, Epoch::from_bits(u128::from(id)), Arc::new(Rule::default()))
    }

    fn told(bookmark: &mut Bookmark) -> String {
        let mut line = Vec::new();
        bookmark.tell(&mut line);
        String::from_utf8(line).expect("ASCII")
    }

    /// What comes back of a line, by topic.
    fn back(line: &str) -> (BTreeMap<String, Position>, bool) {
        let text = line.strip_prefix("id: ").and_then(|line| line.strip_suffix('\n'));
        let places = parse(text.expect("a line")).expect("a bookmark");
        let named = places.named.into_iter().map(|it| (it.topic.to_string(), it.position));
        (named.collect(), places.has_more)
    }

    #[test]
    fn what_was_told_is_told_once() {
        let mut bookmark = Bookmark::new(Naming::Named);
        assert_eq!(told(&mut bookmark), "");
        bookmark.note(&head(1, "a.b"), Offset(9));
        bookmark.note(&head(2, "c"), Offset(0));
        let epoch = |id| Epoch::from_bits(id);
        let line = format!("id: a.b@{}:9,c@{}:0\n", epoch(1), epoch(2));
        assert_eq!(told(&mut bookmark), line);
        assert_eq!(told(&mut bookmark), "");
        bookmark.note(&head(1, "a.b"), Offset(9));
        bookmark.note(&head(1, "a.b"), Offset(8));
        assert_eq!(told(&mut bookmark), "", "a position does not go back");
        bookmark.note(&head(1, "a.b"), Offset(10));
        let line = format!("id: a.b@{}:10,c@{}:0\n", epoch(1), epoch(2));
        assert_eq!(told(&mut bookmark), line);
    }

    #[test]
    fn a_bare_one_holds_the_topic_that_there_is() {
        let mut bookmark = Bookmark::new(Naming::Bare);
        bookmark.note(&head(1, "a.b"), Offset(9));
        assert_eq!(told(&mut bookmark), format!("id: {}:9\n", Epoch::from_bits(1)));
        bookmark.note(&head(2, "a.b"), Offset(1));
        assert_eq!(told(&mut bookmark), format!("id: {}:1\n", Epoch::from_bits(2)));
    }

    #[test]
    fn what_a_reader_came_back_with_stays_until_its_topic_is_noted() {
        let mut bookmark = Bookmark::new(Naming::Named);
        let name = |raw| TopicName::parse(raw).expect("a name");
        let old = |offset| Position { epoch: Epoch::from_bits(9), offset: Offset(offset) };
        bookmark.seed(&name("a"), old(5));
        bookmark.seed(&name("b"), old(6));
        bookmark.seed_full();
        let nine = Epoch::from_bits(9);
        assert_eq!(told(&mut bookmark), format!("id: a@{nine}:5,b@{nine}:6,!\n"));
        bookmark.note(&head(1, "a"), Offset(2));
        let one = Epoch::from_bits(1);
        assert_eq!(told(&mut bookmark), format!("id: b@{nine}:6,a@{one}:2,!\n"));
        bookmark.settle();
        assert_eq!(told(&mut bookmark), format!("id: a@{one}:2\n"), "there is no `b`");
        bookmark.settle();
        assert_eq!(told(&mut bookmark), "");
    }

    #[test]
    fn a_filter_that_has_begun_is_told_once() {
        let mut bookmark = Bookmark::new(Naming::Named);
        let filter = TopicFilter::parse("a.>").expect("a filter");
        bookmark.note(&head(1, "a.b"), Offset(1));
        bookmark.note_filter(&filter);
        bookmark.note_filter(&filter);
        bookmark.note(&head(2, "a.b"), Offset(2));
        let line = told(&mut bookmark);
        assert_eq!(line, format!("id: a.>,a.b@{}:2\n", Epoch::from_bits(2)));
        let text = line.trim_start_matches("id: ").trim_end();
        let places = parse(text).expect("a bookmark");
        assert_eq!((places.filters, places.named.len()), (vec![filter], 1));
    }

    #[test]
    fn topics_that_have_no_room_are_told_to_be_there() {
        let mut bookmark = Bookmark::new(Naming::Named);
        for id in 0..=TOPICS_MAX as u64 {
            bookmark.note(&head(id, &format!("t.{id}")), Offset(1));
        }
        let (named, has_more) = back(&told(&mut bookmark));
        assert_eq!((named.len(), has_more), (TOPICS_MAX, true));
        let mut long = Bookmark::new(Naming::Named);
        for id in 0..TOPICS_MAX as u64 {
            long.note(&head(id, &format!("{}{id}", "x".repeat(250))), Offset(u64::MAX >> 11));
        }
        let line = told(&mut long);
        assert!(
            line.len() <= "id: ".len() + BYTES_MAX + 1 && back(&line).1,
            "{} bytes",
            line.len()
        );
    }

    proptest! {
        #[test]
        fn a_bookmark_is_the_latest_position_of_each_topic(
            notes in prop::collection::vec((0usize..5, 0u64..3, 0u64..200_000), 1..80),
        ) {
            // The third is what the first has behind it: names may look like positions.
            let names = ["a", "ab", "a@DAAAAAAAAAAAAAAAAAAAAA:1", "b.c", "b"];
            let mut bookmark = Bookmark::new(Naming::Named);
            let mut model: BTreeMap<String, (u64, u64)> = BTreeMap::new();
            for (index, life, offset) in notes {
                let name = names[index];
                let life = model.get(name).map_or(life, |(before, _)| life.max(*before));
                bookmark.note(&head(life * 10 + index as u64, name), Offset(offset));
                let entry = model.entry(name.to_owned()).or_insert((life, offset));
                *entry = if entry.0 == life { (life, entry.1.max(offset)) } else { (life, offset) };
            }
            let position = |(name, (life, offset)): (String, (u64, u64))| {
                let index = names.iter().position(|other| **other == name).expect("known") as u64;
                let epoch = Epoch::from_bits(u128::from(life * 10 + index));
                (name, Position { epoch, offset: Offset(offset) })
            };
            let expected: BTreeMap<String, Position> = model.into_iter().map(position).collect();
            prop_assert_eq!(back(&told(&mut bookmark)), (expected, false));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[ab@:,*!>0-9A-D]{0,60}") {
            drop(parse(&text));
        }
    }

    #[test]
    fn what_is_no_bookmark_is_refused() {
        let epoch = Epoch::from_bits(7);
        for text in [
            String::new(),
            "a".to_owned(),
            format!("{epoch}"),
            format!("{epoch}:"),
            format!("{epoch}:-1"),
            format!("{epoch}:+1"),
            format!("{epoch}:9007199254740992"),
            format!("{epoch}:1,"),
            format!("{epoch}:1,!"),
            format!("{epoch}:1,a@{epoch}:1"),
            format!("@{epoch}:1"),
            format!("a.>@{epoch}:1"),
            "a.>.b".to_owned(),
            format!("a@{epoch}x:1"),
            "a@:1".to_owned(),
        ] {
            let refusal = parse(&text).expect_err(&text);
            assert_eq!(refusal.reason, Reason::BadPosition, "{text}");
        }
        for text in [
            format!("a@{epoch}:1,b@{epoch}:1,a@{epoch}:2"),
            "a.>,b,a.>".replace('b', &format!("b@{epoch}:1")),
            "!,!".to_owned(),
        ] {
            let refusal = parse(&text).expect_err(&text);
            assert_eq!(refusal.reason, Reason::BadPosition, "{text}");
            assert!(refusal.to_string().contains("is there twice"), "{refusal}");
        }
    }

    #[test]
    fn what_comes_back_is_no_more_than_is_ever_told() {
        let epoch = Epoch::from_bits(7);
        let part = |n: usize| if n == 0 { "a.>".to_owned() } else { format!("t.{n}@{epoch}:1") };
        let text = |count: usize| (0..count).map(part).collect::<Vec<_>>().join(",");
        let most = format!("{},!", text(TOPICS_MAX));
        assert_eq!(parse(&most).map(|places| places.named.len()), Ok(TOPICS_MAX - 1));
        let refusal = parse(&text(TOPICS_MAX + 1)).expect_err("too many");
        assert_eq!(refusal.reason, Reason::TooManyPositions);
    }

    #[test]
    fn offsets_may_grow_as_long_as_they_can_be_and_all_comes_back() {
        let mut bookmark = Bookmark::new(Naming::Named);
        for offset in [1, super::super::raw::INTEGER_MAX] {
            for id in 0..TOPICS_MAX as u64 {
                let head = head(id, &format!("{}.{id}", "x".repeat(40)));
                bookmark.note(&head, Offset(offset));
            }
        }
        let line = told(&mut bookmark);
        let text = line.trim_start_matches("id: ").trim_end().to_owned();
        assert!(text.len() <= BYTES_MAX, "{} bytes", text.len());
        let mut again = Bookmark::new(Naming::Named);
        for place in parse(text.trim_end_matches(",!")).expect("a bookmark").named.iter().rev() {
            again.seed(&place.topic, place.position);
        }
        let (named, is_full) = back(&told(&mut again));
        assert_eq!((named, is_full), (back(&line).0, false), "it has room for what was told");
    }
}
