//! `/v1/topics`: which topics there are, one page after another, and which of them are busiest.
//! # Invariants: nothing is counted per message for this: how busy a topic is comes from two looks at
//! its offset; topics are watched for one request at a time.
//! # Not here: what a topic is (`topics`).

use super::query::Query;
use super::{Admin, show};
use crate::clock::Now;
use crate::http::Answer;
use crate::reason::{Reason, Refusal};
use crate::topics::message::Offset;
use crate::topics::name::{TopicFilter, TopicName};
use crate::topics::registry::Outline;
use serde::Serialize;
use std::cmp::Reverse;
use std::time::Duration;

/// Topics of a page that says nothing else, and of any.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Topics that are busy, unless something else is said, and at most.
const HOTTEST: usize = 10;
const HOTTEST_MAX: usize = 100;

/// Topics that are looked at to find the busiest ones.
const WATCHED_MAX: usize = 50_000;

/// A topic that has been silent for so long is not watched.
const SILENCE: Duration = Duration::from_mins(1);

/// For how long topics are watched, in milliseconds, and how long at most.
const WATCH_MS: usize = 1_000;
const WATCH_MS_MAX: usize = 5_000;

/// One topic.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    topic: String,
    epoch: String,
    /// Of its latest message, which is how many there were in this epoch.
    offset: u64,
    history_messages: usize,
    history_bytes: usize,
    keys: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_message_ms: Option<u64>,
    /// Subscriptions that match it.
    subscriptions: usize,
}

#[derive(Debug, Serialize)]
struct Page {
    topics: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A page of all topics, or of those that a filter matches.
///
/// # Errors
/// [`Reason::BadRequest`], [`Reason::BadFilter`], [`Reason::BadTopic`], [`Reason::Overloaded`].
pub(super) async fn page(admin: &Admin, query: &Query) -> Result<Answer, Refusal> {
    query.only(&["filter", "after", "limit"])?;
    let limit = query.number("limit", PAGE, 1..=PAGE_MAX)?;
    let filter = query.text("filter").map(TopicFilter::parse).transpose()?;
    let after = query.text("after").map(TopicName::parse).transpose()?;
    let (names, next) = admin.registry.names(filter.as_ref(), after.as_ref(), limit);
    let outlines: Vec<_> = names.iter().filter_map(|name| admin.registry.outline(name)).collect();
    let mut topics: Vec<_> = outlines.iter().map(row_of).collect();
    for shard in 0..admin.shards.len() {
        let names: Vec<_> = outlines.iter().map(|outline| outline.head.name.clone()).collect();
        let counts = admin.ask(shard, move |shard| {
            names.iter().map(|name| shard.subscribers_of(name)).collect::<Vec<_>>()
        });
        for (row, count) in topics.iter_mut().zip(counts.await?) {
            row.subscriptions += count;
        }
    }
    show(&Page { topics, next: next.map(|name| name.to_string()) })
}

fn row_of(outline: &Outline) -> Row {
    Row {
        topic: outline.head.name.to_string(),
        epoch: outline.head.epoch.to_string(),
        offset: outline.top.0,
        history_messages: outline.history_messages,
        history_bytes: outline.history_bytes,
        keys: outline.keys,
        last_message_ms: Some(outline.heard.wall_ms).filter(|wall_ms| *wall_ms > 0),
        subscriptions: 0,
    }
}

/// A topic that had messages while it was watched.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Busy {
    topic: String,
    offset: u64,
    messages: u64,
    per_second: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Hottest {
    /// For how long topics were watched.
    over_ms: u64,
    /// How many.
    watched: usize,
    /// Whether there are more topics than can be watched.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    topics: Vec<Busy>,
}

/// A topic as it was at the first look.
struct Seen {
    name: TopicName,
    id: u64,
    top: Offset,
}

/// The topics with the most messages while they were watched.
///
/// # Errors
/// [`Reason::BadRequest`], [`Reason::TooManyRequests`].
pub(super) async fn hottest(admin: &Admin, query: &Query) -> Result<Answer, Refusal> {
    query.only(&["limit", "overMs"])?;
    let limit = query.number("limit", HOTTEST, 1..=HOTTEST_MAX)?;
    let over_ms = query.number("overMs", WATCH_MS, 1..=WATCH_MS_MAX)?;
    let Ok(_alone) = admin.watching.try_lock() else {
        return Err(Reason::TooManyRequests.into());
    };
    let begun = admin.broker.clock.now();
    let (seen, partial) = first_look(admin, begun).await;
    tokio::time::sleep(Duration::from_millis(over_ms as u64)).await;
    let took = admin.broker.clock.now().uptime.saturating_sub(begun.uptime);
    let mut topics: Vec<Busy> = Vec::new();
    for (index, before) in seen.iter().enumerate() {
        topics.extend(busy(admin, before, took));
        give_way(index).await;
    }
    topics.sort_by(|one, other| {
        (Reverse(one.messages), &one.topic).cmp(&(Reverse(other.messages), &other.topic))
    });
    topics.truncate(limit);
    let over_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    show(&Hottest { over_ms, watched: seen.len(), partial, topics })
}

/// The topics that have not been silent for long, as they are, and whether there are too many to look
/// at all.
async fn first_look(admin: &Admin, now: Now) -> (Vec<Seen>, bool) {
    let (mut seen, mut looked_at, mut after) = (Vec::new(), 0, None);
    while looked_at < WATCHED_MAX {
        let (names, next) = admin.registry.names(None, after.as_ref(), PAGE_MAX);
        looked_at += names.len();
        for name in names {
            let Some(outline) = admin.registry.outline(&name) else { continue };
            if now.uptime.saturating_sub(outline.heard.uptime) <= SILENCE {
                seen.push(Seen { name, id: outline.head.id, top: outline.top });
            }
        }
        after = next;
        if after.is_none() {
            return (seen, false);
        }
        tokio::task::yield_now().await;
    }
    (seen, true)
}

/// What a topic has had since it was seen; nothing of one that began anew.
fn busy(admin: &Admin, before: &Seen, took: Duration) -> Option<Busy> {
    let outline = admin.registry.outline(&before.name).filter(|it| it.head.id == before.id)?;
    let messages = outline.top.0.saturating_sub(before.top.0);
    #[expect(clippy::cast_precision_loss, reason = "a rate to three digits")]
    let per_second = messages as f64 / took.as_secs_f64().max(0.001);
    let topic = before.name.to_string();
    let per_second = (per_second * 10.0).round() / 10.0;
    (messages > 0).then_some(Busy { topic, offset: outline.top.0, messages, per_second })
}

/// Others have their turn now and then.
async fn give_way(index: usize) {
    if index % PAGE_MAX == PAGE_MAX - 1 {
        tokio::task::yield_now().await;
    }
}
