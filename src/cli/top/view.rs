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
const FIXED: usize = 12;

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
    let traffic = [
        ("in", rate(rates.published), bytes_rate(rates.published_bytes)),
        ("out", rate(rates.delivered), bytes_rate(rates.sent_bytes)),
    ];
    let levels = [
        ("connections", count(now.connections)),
        ("subscriptions", count(subscriptions)),
        ("topics", count(now.topics)),
        ("queued", bytes(now.queued_bytes)),
        ("memory", memory),
    ];
    let events = [
        ("gaps", rates.gaps, now.gaps_total),
        ("dropped", rates.dropped, now.dropped_total),
        ("conflated", rates.conflated, now.conflated_total),
        ("caught up", rates.caught_up, now.caught_up_total),
        ("refused", rates.refused, now.refused_total),
    ];
    let head = format!(
        " {:3}{:>11}{:>13}  {:13}{:>11}  {:9}{:>7}{:>8}",
        "", "messages/s", "bytes/s", "", "now", "", "per s", "total"
    );
    let mut lines = vec![Line { text: head, style: Style::Head }];
    let mut traffic = traffic.into_iter();
    for ((level, is), (event, per_second, total)) in levels.into_iter().zip(events) {
        let (way, messages, bytes) = traffic.next().unwrap_or_default();
        let (happens, happened) = (rate(per_second), count(total));
        lines.push(plain(format!(
            " {way:3}{messages:>11}{bytes:>13}  {level:13}{is:>11}  {event:9}{happens:>7}{happened:>8}"
        )));
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn overview() -> Overview {
        Overview {
            server: "fanfare/0.1.0".to_owned(),
            time_ms: 1_763_683_200_000,
            uptime_ms: 183_900_000,
            shards: 2,
            memory_bytes: Some(52 << 20),
            connections: 12_345,
            topic_subscriptions: 20_000,
            filter_subscriptions: 4_690,
            topics: 1_024,
            queued_bytes: 3 << 20,
            gaps_total: 1_234,
            dropped_total: 98_765_432,
            conflated_total: 77,
            refused_total: 3,
            ..Overview::default()
        }
    }

    fn sample(rows: usize) -> Sample {
        let slow = |index: usize| Slow {
            id: format!("{}-{index}.1", index % 2),
            peer: Some(format!("127.0.0.1:4{index:04}")),
            subject: index.is_multiple_of(2).then(|| "alice".to_owned()),
            wire: "websocket_json".to_owned(),
            connected_ms: 1_763_683_200_000 - index as u64 * 100_000,
            queued_bytes: (1 << 20) >> index,
            behind: 12_u64.saturating_sub(index as u64),
            sent_bytes: 123_456_789 >> index,
            ..Slow::default()
        };
        let hot = |index: usize| Hot {
            topic: format!("ticker.SYMBOL{index}"),
            offset: 1_000_000 >> index,
            per_second: 12_345.6 / 10_f64.powi(i32::try_from(index).unwrap()),
        };
        Sample {
            address: "127.0.0.1:7602".to_owned(),
            overview: overview(),
            rates: Rates {
                published: 1_234.0,
                published_bytes: 123_456.0,
                delivered: 987_654.0,
                sent_bytes: 123_456_789.0,
                gaps: 2.5,
                dropped: 12_345.0,
                ..Rates::default()
            },
            slowest: (0..rows).map(slow).collect(),
            hottest: Some((0..rows).map(hot).collect()),
        }
    }

    fn check(state: &State<'_>, (width, height): (usize, usize), expected: &Expect) {
        let lines = lines(state, width, height);
        assert!(lines.len() <= height && lines.iter().all(|it| it.text.chars().count() <= width));
        let text: Vec<_> = lines.iter().map(|line| line.text.trim_end()).collect();
        // The first line begins where the others would without their indentation.
        expected.assert_eq(&format!("{width}x{height}\n{}\n", text.join("\n")));
    }

    #[test]
    fn a_small_terminal_shows_the_worst_of_each_table() {
        let sample = sample(20);
        check(
            &State { sample: Some(&sample), problem: None },
            (80, 24),
            &expect![[r"
                80x24
                 fanfare/0.1.0 at 127.0.0.1:7602, up 2d 3h, 2 shards               00:00:00 UTC

                     messages/s      bytes/s                       now             per s   total
                 in       1,234  120.6 KiB/s  connections       12,345  gaps         2.5   1,234
                 out    987,654  117.7 MiB/s  subscriptions     24,690  dropped   12,345   98.8M
                                              topics             1,024  conflated      0      77
                                              queued           3.0 MiB  caught up      0       0
                                              memory          52.0 MiB  refused        0       3

                      queued   behind        sent      age  slowest connections
                     1.0 MiB       12   117.7 MiB       0s  0-0.1 alice 127.0.0.1:40000 websock…
                   512.0 KiB       11    58.9 MiB   1m 40s  1-1.1 127.0.0.1:40001 websocket_json
                   256.0 KiB       10    29.4 MiB   3m 20s  0-2.1 alice 127.0.0.1:40002 websock…
                   128.0 KiB        9    14.7 MiB    5m 0s  1-3.1 127.0.0.1:40003 websocket_json
                    64.0 KiB        8     7.4 MiB   6m 40s  0-4.1 alice 127.0.0.1:40004 websock…
                    32.0 KiB        7     3.7 MiB   8m 20s  1-5.1 127.0.0.1:40005 websocket_json

                  messages/s             messages  hottest topics
                      12,346                1.00M  ticker.SYMBOL0
                       1,235              500,000  ticker.SYMBOL1
                         123              250,000  ticker.SYMBOL2
                        12.3              125,000  ticker.SYMBOL3
                         1.2               62,500  ticker.SYMBOL4
                         0.1               31,250  ticker.SYMBOL5
            "]],
        );
    }

    #[test]
    fn a_large_terminal_shows_more_of_everything() {
        let sample = sample(12);
        check(
            &State { sample: Some(&sample), problem: None },
            (120, 40),
            &expect![[r"
                120x40
                 fanfare/0.1.0 at 127.0.0.1:7602, up 2d 3h, 2 shards                                                       00:00:00 UTC

                     messages/s      bytes/s                       now             per s   total
                 in       1,234  120.6 KiB/s  connections       12,345  gaps         2.5   1,234
                 out    987,654  117.7 MiB/s  subscriptions     24,690  dropped   12,345   98.8M
                                              topics             1,024  conflated      0      77
                                              queued           3.0 MiB  caught up      0       0
                                              memory          52.0 MiB  refused        0       3

                      queued   behind        sent      age  slowest connections
                     1.0 MiB       12   117.7 MiB       0s  0-0.1 alice 127.0.0.1:40000 websocket_json
                   512.0 KiB       11    58.9 MiB   1m 40s  1-1.1 127.0.0.1:40001 websocket_json
                   256.0 KiB       10    29.4 MiB   3m 20s  0-2.1 alice 127.0.0.1:40002 websocket_json
                   128.0 KiB        9    14.7 MiB    5m 0s  1-3.1 127.0.0.1:40003 websocket_json
                    64.0 KiB        8     7.4 MiB   6m 40s  0-4.1 alice 127.0.0.1:40004 websocket_json
                    32.0 KiB        7     3.7 MiB   8m 20s  1-5.1 127.0.0.1:40005 websocket_json
                    16.0 KiB        6     1.8 MiB   10m 0s  0-6.1 alice 127.0.0.1:40006 websocket_json
                     8.0 KiB        5   941.9 KiB  11m 40s  1-7.1 127.0.0.1:40007 websocket_json
                     4.0 KiB        4   471.0 KiB  13m 20s  0-8.1 alice 127.0.0.1:40008 websocket_json
                     2.0 KiB        3   235.5 KiB   15m 0s  1-9.1 127.0.0.1:40009 websocket_json
                     1.0 KiB        2   117.7 KiB  16m 40s  0-10.1 alice 127.0.0.1:40010 websocket_json
                       512 B        1    58.9 KiB  18m 20s  1-11.1 127.0.0.1:40011 websocket_json

                  messages/s             messages  hottest topics
                      12,346                1.00M  ticker.SYMBOL0
                       1,235              500,000  ticker.SYMBOL1
                         123              250,000  ticker.SYMBOL2
                        12.3              125,000  ticker.SYMBOL3
                         1.2               62,500  ticker.SYMBOL4
                         0.1               31,250  ticker.SYMBOL5
                         0.0               15,625  ticker.SYMBOL6
                         0.0                7,812  ticker.SYMBOL7
                         0.0                3,906  ticker.SYMBOL8
                         0.0                1,953  ticker.SYMBOL9
                         0.0                  976  ticker.SYMBOL10
                         0.0                  488  ticker.SYMBOL11
            "]],
        );
    }

    #[test]
    fn where_there_is_nothing_it_is_said() {
        let sample = Sample { slowest: Vec::new(), hottest: None, ..sample(0) };
        let problem = Some("the connection was lost: it ended");
        check(
            &State { sample: Some(&sample), problem },
            (80, 24),
            &expect![[r"
                80x24
                 fanfare/0.1.0 at 127.0.0.1:7602, up 2d 3h, 2 shards               00:00:00 UTC
                the connection was lost: it ended
                     messages/s      bytes/s                       now             per s   total
                 in       1,234  120.6 KiB/s  connections       12,345  gaps         2.5   1,234
                 out    987,654  117.7 MiB/s  subscriptions     24,690  dropped   12,345   98.8M
                                              topics             1,024  conflated      0      77
                                              queued           3.0 MiB  caught up      0       0
                                              memory          52.0 MiB  refused        0       3

                      queued   behind        sent      age  slowest connections
                           -  nothing waits for anybody

                  messages/s             messages  hottest topics
                           -  somebody else is watching the topics
            "]],
        );
    }

    #[test]
    fn no_size_is_too_small_and_no_name_too_long() {
        let mut sample = sample(5);
        sample.hottest.iter_mut().flatten().for_each(|hot| hot.topic = "日\u{1b}".repeat(200));
        sample.slowest.iter_mut().for_each(|slow| slow.subject = Some("x".repeat(500)));
        let problem = "y".repeat(300);
        let state = State { sample: Some(&sample), problem: Some(&problem) };
        for width in [0, 1, 7, 40, 79, 200] {
            for height in [0, 1, 5, 12, 13, 14, 60] {
                let lines = lines(&state, width, height);
                assert!(lines.len() <= height, "{width}x{height}");
                for line in lines {
                    assert!(line.text.chars().count() <= width, "{width}x{height}");
                    assert!(!line.text.contains('\u{1b}'));
                }
            }
        }
    }

    #[test]
    fn a_pipe_gets_one_line_for_each_look() {
        let line = one_line(&sample(2));
        let expected = expect![[r"
            00:00:00 UTC in 1,234/s 120.6 KiB/s out 987,654/s 117.7 MiB/s connections 12,345
            gaps 2.5/s refused 0/s memory 52.0 MiB slowest 0-0.1 1.0 MiB hottest ticker.SYMBOL0 12,346/s
        "]];
        expected.assert_eq(&line.replace(" gaps", "\ngaps"));
        assert_eq!(line.lines().count(), 1);
    }
}
