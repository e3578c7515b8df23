//! Commands that are spelled in the query of a URL, and where a stream of server-sent events goes on.
//! # Invariants: what a query says is understood by the same code as any other command (`raw`); a name
//! that is not known is refused, not passed over; a position of a bookmark is used by one subscription
//! alone, so that nothing is sent twice; what a stream is asked for by takes a few times its size, for
//! the positions of a bookmark are there once, and once more for the subscription whose turn it is.
//! # Not here: HTTP, what commands do (`session`).

use super::bookmark::{Bookmark, Naming, Places};
use super::raw::{
    Choice, Number, RawHistory, RawPosition, RawPositions, RawRate, RawSubscribe, RawTopicPosition,
    Text,
};
use super::{History, Kept, Subscribe, bookmark};
use crate::reason::{Reason, Refusal};
use crate::topics::message::Wire;
use crate::topics::name::{Target, TopicName};
use std::borrow::Cow;
use std::collections::HashMap;
use std::vec;

/// Topics and filters that a stream may always name; more where a connection may have more.
pub const TARGETS_MAX: usize = 128;

/// What a stream may be asked for by.
const STREAM_NAMES: [&str; 9] = [
    "topic",
    "since",
    "last",
    "snapshot",
    "policy",
    "maxHz",
    "overflow",
    "presence",
    "lastEventId",
];

/// How alike a name must be to one that is known to be taken for it.
const LIKENESS_MIN: f64 = 0.6;

/// A name and its value, percent decoded.
pub type Pair = (String, String);

/// A stream of server-sent events that is asked for.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What it subscribes to.
    pub subscriptions: Subscriptions,
    /// Whether it is of one topic.
    pub naming: Naming,
    /// Where its reader stands before anything is sent.
    pub bookmark: Bookmark,
}

impl Stream {
    /// The layout of its events.
    pub fn wire(&self) -> Wire {
        match self.naming {
            Naming::Bare => Wire::SseTopic,
            Naming::Named => Wire::SseTopics,
        }
    }

    /// Understands the query of a stream. `last_event_id` is what its header says, and
    /// `subscriptions_max` how many subscriptions a connection may have.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] when a name is not known, or not in its place;
    /// [`Reason::TooManySubscriptions`] for more topics than that and than [`TARGETS_MAX`]; those of
    /// [`bookmark::parse`]. What is wrong with the subscription to one topic is its own refusal.
    pub fn parse(
        raw: &str,
        last_event_id: Option<&str>,
        subscriptions_max: usize,
    ) -> Result<Stream, Refusal> {
        let (general, groups, said) = group(raw, subscriptions_max.max(TARGETS_MAX))?;
        if groups.is_empty() {
            return Err(bad("the query names no `topic`"));
        }
        let understand = |group: &Group<'_>| understand(&general, group);
        let mut asked: Vec<_> = (1..).zip(groups.iter().map(understand)).collect();
        let naming = match asked.as_slice() {
            [(_, Ok(Subscribe { target: Target::Topic(_), .. }))] => Naming::Bare,
            _ => Naming::Named,
        };
        asked.sort_by_key(|(_, subscribe)| {
            matches!(subscribe, Ok(Subscribe { target: Target::Filter(_), .. }))
        });
        // A header is what a browser adds by itself, so it is the later word.
        let said = last_event_id.or(said.as_deref()).filter(|said| !said.is_empty());
        let places = said.map(bookmark::parse).transpose()?.unwrap_or_default();
        if places.bare.is_some() && naming == Naming::Named {
            let detail = "the last event's id is that of a stream of one topic";
            return Err(Refusal::new(Reason::BadPosition, detail));
        }
        let bookmark = begin(&asked, naming, &places);
        let subscriptions = Subscriptions { asked: asked.into_iter(), places };
        Ok(Stream { subscriptions, naming, bookmark })
    }
}

/// What a stream subscribes to, in the order in which that is done, each with its place in the query:
/// topics before filters, so that nothing live comes before what a topic resumes with.
///
/// Of topics that several of them cover each is given the position when it is taken; the session uses
/// it once.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    asked: vec::IntoIter<Asked>,
    /// Where the reader stands.
    places: Places,
}

/// A place in the query, and what is asked for there.
type Asked = (u64, Result<Subscribe, Refusal>);

impl Iterator for Subscriptions {
    type Item = Asked;

    fn next(&mut self) -> Option<Asked> {
        let (id, mut subscribe) = self.asked.next()?;
        if let Ok(subscribe) = &mut subscribe {
            resume(subscribe, &self.places);
        }
        Some((id, subscribe))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.asked.size_hint()
    }
}

impl ExactSizeIterator for Subscriptions {}

/// One `topic` of a query, and what stands behind it.
#[derive(Default)]
struct Group<'a> {
    topic: Cow<'a, str>,
    options: Options<'a>,
    since: Vec<Cow<'a, str>>,
}

type Options<'a> = HashMap<&'static str, Cow<'a, str>>;

/// What holds for all topics, each topic with its own, and the bookmark.
type Grouped<'a> = (Options<'a>, Vec<Group<'a>>, Option<Cow<'a, str>>);

fn group(raw: &str, targets_max: usize) -> Result<Grouped<'_>, Refusal> {
    let (mut general, mut groups, mut said) = (Options::new(), Vec::<Group<'_>>::new(), None);
    for pair in decoded(raw) {
        let (name, value) = pair?;
        match known(&name, &STREAM_NAMES)? {
            "topic" if groups.len() >= targets_max => {
                let detail = format!("a query names at most {targets_max}");
                return Err(Refusal::new(Reason::TooManySubscriptions, detail));
            }
            "topic" => groups.push(Group { topic: value, ..Group::default() }),
            "lastEventId" if said.is_some() => return Err(twice(&name)),
            "lastEventId" => said = Some(value),
            "since" => match groups.last_mut() {
                Some(group) => group.since.push(value),
                None => return Err(bad("`since` stands behind its `topic`")),
            },
            option => {
                let options = groups.last_mut().map_or(&mut general, |group| &mut group.options);
                if options.insert(option, value).is_some() {
                    return Err(twice(&name));
                }
            }
        }
    }
    Ok((general, groups, said))
}

fn understand(general: &Options<'_>, group: &Group<'_>) -> Result<Subscribe, Refusal> {
    let option = |name: &str| {
        let value = group.options.get(name).or_else(|| general.get(name));
        value.map(|value| &**value)
    };
    let is_true = |name| option(name).map(|value| truth(name, value)).transpose();
    let rate = |value: &str| RawRate(value.parse().unwrap_or(f64::NAN));
    let is_filter = group.topic.contains(['*', '>']);
    let mut positions = RawPositions::default();
    let mut since = None;
    for value in &group.since {
        if is_filter {
            positions.push(topic_position(value)?);
        } else if since.replace(position(value)?).is_some() {
            let detail = "`since` is there twice, and a topic has one";
            return Err(Refusal::new(Reason::BadOption, detail));
        }
    }
    RawSubscribe {
        topic: Some(text(&group.topic)),
        since,
        last: option("last").map(number),
        snapshot: is_true("snapshot")?,
        overflow: option("overflow").map(Choice::overflow),
        positions: is_filter.then_some(positions),
        policy: option("policy").map(Choice::policy),
        max_hz: option("maxHz").map(rate),
        presence: is_true("presence")?,
    }
    .understand()
    .map(|subscribe| Subscribe { kept: Some(Kept::Nothing), ..subscribe })
}

/// The bookmark of a reader that comes back to these.
fn begin(asked: &[Asked], naming: Naming, places: &Places) -> Bookmark {
    let mut bookmark = Bookmark::new(naming);
    if places.has_more {
        bookmark.seed_full();
    }
    let targets = asked.iter().filter_map(|(_, subscribe)| subscribe.as_ref().ok());
    let targets: Vec<&Target> = targets.map(|subscribe| &subscribe.target).collect();
    for filter in &places.filters {
        if targets.iter().any(|target| matches!(target, Target::Filter(own) if own == filter)) {
            bookmark.note_filter(filter);
        }
    }
    for place in &places.named {
        if targets.iter().any(|target| target.covers(&place.topic)) {
            bookmark.seed(&place.topic, place.position);
        }
    }
    if let (Some(place), [Target::Topic(topic)]) = (places.bare, targets.as_slice()) {
        bookmark.seed(topic, place);
    }
    bookmark
}

/// Has a subscription go on where its reader stands.
fn resume(subscribe: &mut Subscribe, places: &Places) {
    let named = |topic: &TopicName| places.named.iter().find(|place| place.topic == *topic);
    match &subscribe.target {
        Target::Topic(topic) => {
            let place = named(topic).map(|place| place.position).or(places.bare);
            if place.is_some() || places.has_more {
                subscribe.since = place;
                subscribe.kept = Some(if place.is_some() { Kept::All } else { Kept::Some });
            }
        }
        Target::Filter(filter) => {
            let has_begun = places.filters.contains(filter);
            subscribe.kept = Some(match (places.has_more, has_begun) {
                (true, _) => Kept::Some,
                (false, true) => Kept::All,
                (false, false) => Kept::Nothing,
            });
            if places.has_more || has_begun {
                subscribe.positions.clear();
            }
            subscribe.positions.retain(|place| named(&place.topic).is_none());
            let own = places.named.iter().filter(|place| filter.matches(&place.topic));
            subscribe.positions.extend(own.cloned());
        }
    }
}

/// Understands a query for history.
///
/// # Errors
/// [`Reason::BadRequest`] when a name is not known; else what the command would be refused for.
pub fn history(raw: &str) -> Result<History, Refusal> {
    let [topic, since, limit] = once(raw, ["topic", "since", "limit"])?;
    let since = since.as_deref().map(position).transpose()?;
    let topic = topic.as_deref().map(text);
    RawHistory { topic, since, limit: limit.as_deref().map(number) }.understand()
}

/// Understands a query that names a topic or filter.
///
/// # Errors
/// [`Reason::BadRequest`] when a name is not known; [`Reason::BadTopic`] and [`Reason::BadFilter`].
pub fn target(raw: &str) -> Result<Target, Refusal> {
    let [topic] = once(raw, ["topic"])?;
    Target::parse(&topic.unwrap_or_default())
}

/// Understands a query that names a topic.
///
/// # Errors
/// [`Reason::BadRequest`] when a name is not known; [`Reason::BadTopic`].
pub fn topic(raw: &str) -> Result<TopicName, Refusal> {
    let [topic] = once(raw, ["topic"])?;
    TopicName::parse(&topic.unwrap_or_default())
}

/// Cuts a query into names and values.
///
/// # Errors
/// [`Reason::BadRequest`] when it is not percent encoded UTF-8.
pub fn pairs(raw: &str) -> Result<Vec<Pair>, Refusal> {
    let owned = |(name, value): Decoded<'_>| (name.into_owned(), value.into_owned());
    decoded(raw).map(|pair| pair.map(owned)).collect()
}

/// A name and its value, percent decoded where they must be.
type Decoded<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The names and values of a query, one by one, so that what is refused is not kept.
fn decoded(raw: &str) -> impl Iterator<Item = Result<Decoded<'_>, Refusal>> {
    raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = decode(name).zip(decode(value));
        decoded.ok_or_else(|| bad("the query of the path is not percent encoded"))
    })
}

fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains(['%', '+']) {
        return Some(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The values of these names, each at most once.
fn once<'a, const N: usize>(
    raw: &'a str,
    names: [&'static str; N],
) -> Result<[Option<Cow<'a, str>>; N], Refusal> {
    let mut values = [const { None }; N];
    for pair in decoded(raw) {
        let (name, value) = pair?;
        let found = known(&name, &names)?;
        let place = names.iter().zip(&mut values).find(|(own, _)| **own == found);
        if let Some((_, place)) = place
            && place.replace(value).is_some()
        {
            return Err(twice(&name));
        }
    }
    Ok(values)
}

/// The name that this is.
fn known(name: &str, names: &[&'static str]) -> Result<&'static str, Refusal> {
    if let Some(known) = names.iter().find(|known| **known == name) {
        return Ok(known);
    }
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(name, known);
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let nearest = nearest.filter(|nearest| likeness(nearest) >= LIKENESS_MIN);
    let shown = super::frame::cut(name, 64);
    Err(bad(&match nearest {
        Some(nearest) => format!("the query has no `{shown}`: did you mean `{nearest}`?"),
        None => format!("the query has no `{shown}`: it takes {}", names.join(", ")),
    }))
}

fn position(value: &str) -> Result<RawPosition<'_>, Refusal> {
    let (epoch, offset) = value
        .split_once(':')
        .ok_or_else(|| Refusal::new(Reason::BadPosition, "`since` of a topic is EPOCH:OFFSET"))?;
    Ok(RawPosition { epoch: Some(text(epoch)), offset: Some(number(offset)) })
}

fn topic_position(value: &str) -> Result<RawTopicPosition<'_>, Refusal> {
    let bad = || Refusal::new(Reason::BadPosition, "`since` of a filter is TOPIC@EPOCH:OFFSET");
    let (topic, position) = value.rsplit_once('@').ok_or_else(bad)?;
    let (epoch, offset) = position.split_once(':').ok_or_else(bad)?;
    Ok(RawTopicPosition {
        topic: Some(text(topic)),
        epoch: Some(text(epoch)),
        offset: Some(number(offset)),
    })
}

fn text(text: &str) -> Text<'_> {
    Text(Cow::Borrowed(text))
}

fn number(value: &str) -> Number {
    // What is spelled otherwise, `+1` for instance, is not one.
    let is_plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    Number(value.parse().ok().filter(|_| is_plain))
}

fn truth(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Refusal::new(Reason::BadOption, format!("`{name}` must be true or false"))),
    }
}

fn twice(name: &str) -> Refusal {
    bad(&format!("`{name}` is there twice"))
}

fn bad(detail: &str) -> Refusal {
    Refusal::new(Reason::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "AAAAAAAAAAAAAAAAAAAAAB";

    /// Each subscription: its place, its target, where it goes on, and what is known of the rest.
    fn understood(raw: &str, said: Option<&str>) -> Vec<String> {
        let stream = Stream::parse(raw, said, 0).expect("a stream");
        let told = |(id, subscribe): (u64, Result<Subscribe, Refusal>)| {
            let subscribe = subscribe.expect("a subscription");
            let since = subscribe.since.map(|since| format!(" since {}", since.offset));
            let positions = subscribe.positions.iter();
            let positions: Vec<_> =
                positions.map(|it| format!(" {}:{}", it.topic, it.position.offset)).collect();
            let positions = positions.concat();
            let kept = subscribe.kept.expect("positions are kept");
            format!("{id} {}{}{positions} {kept:?}", subscribe.target, since.unwrap_or_default())
        };
        stream.subscriptions.map(told).collect()
    }

    #[test]
    fn topics_come_before_filters_and_each_goes_on_where_the_bookmark_says() {
        let raw = format!("topic=c.*&since=c.9@{EPOCH}:9&topic=a&since={EPOCH}:1&topic=d.*");
        let own = ["2 a since 1 Nothing", "1 c.* c.9:9 Nothing", "3 d.* Nothing"];
        assert_eq!(understood(&raw, None), own);
        assert_eq!(understood(&raw, Some("")), own);
        let cases = [
            // The second filter had not begun, so its own words count.
            ("a@E:5,c.*,c.1@E:6", ["2 a since 5 All", "1 c.* c.1:6 All", "3 d.* Nothing"]),
            ("c.1@E:6", ["2 a since 1 Nothing", "1 c.* c.9:9 c.1:6 Nothing", "3 d.* Nothing"]),
            ("c.*,c.1@E:6,!", ["2 a Some", "1 c.* c.1:6 Some", "3 d.* Some"]),
        ];
        for (said, expected) in cases {
            assert_eq!(understood(&raw, Some(&said.replace('E', EPOCH))), expected, "{said}");
        }
        let both = format!("topic=a&topic=*&lastEventId=a@{EPOCH}:4");
        assert_eq!(understood(&both, None), ["1 a since 4 All", "2 * a:4 Nothing"]);
        let header = format!("a@{EPOCH}:7");
        assert_eq!(understood(&both, Some(&header))[0], "1 a since 7 All");
    }

    #[test]
    fn a_stream_of_one_topic_has_a_layout_of_its_own() {
        let wire = |raw| Stream::parse(raw, None, 0).expect("a stream").wire();
        assert_eq!(wire("topic=a"), Wire::SseTopic);
        for raw in ["topic=a&topic=b", "topic=a.*", "topic=a&topic=a", "topic="] {
            assert_eq!(wire(raw), Wire::SseTopics, "{raw}");
        }
    }

    #[test]
    fn a_query_names_as_many_topics_as_a_connection_may_have_and_128_at_least() {
        for (subscriptions_max, targets_max) in [(0, TARGETS_MAX), (128, 128), (300, 300)] {
            let parse = |count: usize| {
                let raw = vec!["topic=*"; count].join("&");
                Stream::parse(&raw, None, subscriptions_max).map(|it| it.subscriptions.len())
            };
            assert_eq!(parse(targets_max), Ok(targets_max));
            let refusal = parse(targets_max + 1).expect_err("too many");
            assert_eq!(refusal.reason, Reason::TooManySubscriptions);
        }
    }

    #[test]
    fn a_stream_of_one_topic_that_comes_back_by_name_stands_there_once() {
        for said in [format!("a@{EPOCH}:5"), format!("{EPOCH}:5")] {
            let mut stream = Stream::parse("topic=a", Some(&said), 0).expect("a stream");
            let mut line = Vec::new();
            stream.bookmark.tell(&mut line);
            assert_eq!(line, format!("id: {EPOCH}:5\n").as_bytes(), "{said}");
        }
    }
}
