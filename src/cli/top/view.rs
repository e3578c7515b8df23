//! How a look at a broker is laid out: a function of what was seen and of the size of the terminal.
//! # Invariants: never more lines than there are rows, and no line wider than the terminal.
//! # Not here: colours and the cursor (`screen`), how numbers are written (`figures`).

use super::figures::{bytes, bytes_rate, count, name, rate, span, time_of_day};
use super::sample::{Hot, Overview, Rates, Sample, Slow};
use std::time::Duration;

/// What there is to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct State<'a> {
    /// The latest look.
    pub(super) sample: Option<&'a Sample>,
    /// Why there is no newer one.
    pub(super) problem: Option<&'a str>,
}

/// A line of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) style: Style,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// The first line.
    Title,
    /// The head of a table.
    Head,
    /// Something that went wrong.
    Problem,
}

/// Lines that are always there: the title, the numbers, the heads of the tables and what is between.
const FIXED: usize = 13;

/// Most columns that a name may have.
const NAME_MAX: usize = 72;

/// The view, line by line.
pub(super) fn lines(state: &State<'_>, width: usize, height: usize) -> Vec<Line> {
    let empty = Sample::default();
    let sample = state.sample.unwrap_or(&empty);
    let mut lines = vec![title(sample, width)];
    match state.problem {
        Some(problem) => lines.push(Line { text: problem.to_owned(), style: Style::Problem }),
        None => lines.push(plain("")),
    }
    lines.extend(numbers(&sample.overview, &sample.rates));
    let room = height.saturating_sub(FIXED);
    let hottest = sample.hottest.as_deref();
    // Each table may have half of the rows, and what the other one leaves.
    let (slow, hot) = (sample.slowest.len().max(1), hottest.map_or(1, |rows| rows.len().max(1)));
    let slow_rows = slow.min((room / 2).max(room.saturating_sub(hot)));
    lines.push(plain(""));
    lines.extend(slowest(&sample.slowest, sample.overview.time_ms, slow_rows, width));
    lines.push(plain(""));
    lines.extend(hottest_topics(hottest, room.saturating_sub(slow_rows), width));
    lines.truncate(height);
    for line in &mut lines {
        line.text = cut(&line.text, width);
    }
    lines
}

/// A look in one line, for a file or a pipe.
pub(super) fn one_line(sample: &Sample) -> String {
    let (now, rates) = (&sample.overview, &sample.rates);
    let topic = sample.hottest.iter().flatten().next();
    let topic = topic.map_or("-".to_owned(), |hot| {
        format!("{} {}/s", name(&hot.topic, NAME_MAX), rate(hot.per_second))
    });
    let slow = sample.slowest.first();
    let slow =
        slow.map_or("-".to_owned(), |slow| format!("{} {}", slow.id, bytes(slow.queued_bytes)));
    format!(
        "{} in {}/s {} out {}/s {} connections {} gaps {}/s refused {}/s memory {} slowest {slow} \
         hottest {topic}\n",
        time_of_day(now.time_ms),
        rate(rates.published),
        bytes_rate(rates.published_bytes),
        rate(rates.delivered),
        bytes_rate(rates.sent_bytes),
        count(now.connections),
        rate(rates.gaps),
        rate(rates.refused),
        now.memory_bytes.map_or("-".to_owned(), bytes),
    )
}

fn plain(text: impl Into<String>) -> Line {
    Line { text: text.into(), style: Style::Plain }
}

fn title(sample: &Sample, width: usize) -> Line {
    let now = &sample.overview;
    let up = span(Duration::from_millis(now.uptime_ms));
    let shards = if now.shards == 1 { "shard" } else { "shards" };
    let left = format!(
        " {} at {}, up {up}, {} {shards}",
        name(&now.server, 24),
        name(&sample.address, 40),
        now.shards
    );
    let right = format!("{} ", time_of_day(now.time_ms));
    let room = width.saturating_sub(right.chars().count());
    let text = format!("{:room$}{right}", cut(&left, room));
    Line { text, style: Style::Title }
}

/// What goes in and out, what there is, and what should not be.
fn numbers(now: &Overview, rates: &Rates) -> Vec<Line> {
    let subscriptions = now.topic_subscriptions + now.filter_subscriptions;
    let memory = now.memory_bytes.map_or("-".to_owned(), bytes);
    let rows = [
        [("connections", count(now.connections)), ("gaps", each(rates.gaps, now.gaps_total))],
        [
            ("subscriptions", count(subscriptions)),
            ("dropped", each(rates.dropped, now.dropped_total)),
        ],
        [("topics", count(now.topics)), ("conflated", each(rates.conflated, now.conflated_total))],
        [
            ("queued", bytes(now.queued_bytes)),
            ("caught up", each(rates.caught_up, now.caught_up_total)),
        ],
        [("memory", memory), ("refused", each(rates.refused, now.refused_total))],
    ];
    let traffic = [
        ("", "messages/s".to_owned(), "bytes/s".to_owned()),
        ("in", rate(rates.published), bytes_rate(rates.published_bytes)),
        ("out", rate(rates.delivered), bytes_rate(rates.sent_bytes)),
        ("", String::new(), String::new()),
        ("", String::new(), String::new()),
    ];
    let line =
        |((way, messages, bytes), [(one, is), (other, happens)]): (_, [(&str, String); 2])| {
            plain(format!(
                " {way:3}{messages:>11}{bytes:>13}  {one:13}{is:>11}  {other:9}{happens:>14}"
            ))
        };
    let head = "                             now                      /s       total";
    let mut lines = vec![Line { text: head.to_owned(), style: Style::Head }];
    lines.extend(traffic.into_iter().zip(rows).map(line));
    lines
}

/// What happens in a second, and what has happened since the start.
fn each(per_second: f64, total: u64) -> String {
    format!("{:>6}{:>12}", rate(per_second), count(total))
}

fn slowest(rows: &[Slow], now_ms: u64, room: usize, width: usize) -> Vec<Line> {
    let text =
        format!("{:>12}{:>9}{:>12}{:>9}  slowest connections", "queued", "behind", "sent", "age");
    let mut lines = vec![Line { text, style: Style::Head }];
    if rows.is_empty() {
        lines.push(plain("           -  nothing waits for anybody"));
    }
    let who_room = width.saturating_sub(44).min(NAME_MAX);
    lines.extend(rows.iter().map(|row| {
        let age = span(Duration::from_millis(now_ms.saturating_sub(row.connected_ms)));
        let address = row.client.as_deref().or(row.peer.as_deref()).unwrap_or_default();
        let who = [&row.id, row.subject.as_deref().unwrap_or_default(), address, &row.wire];
        let who: Vec<&str> = who.into_iter().filter(|word| !word.is_empty()).collect();
        plain(format!(
            "{:>12}{:>9}{:>12}{age:>9}  {}",
            bytes(row.queued_bytes),
            count(row.behind),
            bytes(row.sent_bytes),
            name(&who.join(" "), who_room)
        ))
    }));
    lines.truncate(room + 1);
    lines
}

fn hottest_topics(rows: Option<&[Hot]>, room: usize, width: usize) -> Vec<Line> {
    let text = format!("{:>12}{:>21}  hottest topics", "messages/s", "messages");
    let mut lines = vec![Line { text, style: Style::Head }];
    match rows {
        None => lines.push(plain("           -  somebody else is watching the topics")),
        Some([]) => lines.push(plain("           -  no topic gets messages")),
        Some(rows) => lines.extend(rows.iter().map(|row| {
            let topic = name(&row.topic, width.saturating_sub(35).min(NAME_MAX));
            plain(format!("{:>12}{:>21}  {topic}", rate(row.per_second), count(row.offset)))
        })),
    }
    lines.truncate(room + 1);
    lines
}

/// At most so many characters.
fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}
