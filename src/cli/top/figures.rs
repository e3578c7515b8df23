//! Numbers as people read them, in a few columns.
//! # Invariants: what comes from elsewhere has no character that a terminal obeys.
//! # Not here: where they stand (`view`).

use crate::cli::numbers::{grouped, whole};
use std::time::Duration;

/// A count in at most seven columns: `999,999` with its thousands apart, then `1.00M`, `98.8M`.
pub(super) fn count(number: u64) -> String {
    const UNITS: [&str; 5] = ["M", "G", "T", "P", "E"];
    if number >= 1_000_000 {
        #[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
        let mut value = number as f64 / 1e6;
        let mut units = UNITS.into_iter();
        let mut unit = units.next().unwrap_or_default();
        while value >= 999.5 {
            let Some(next) = units.next() else { break };
            (value, unit) = (value / 1000.0, next);
        }
        let decimals = usize::from(value < 99.95) + usize::from(value < 9.995);
        return format!("{value:.decimals$}{unit}");
    }
    grouped(number)
}

/// So many in a second: `0`, `0.3`, `12.5`, `1,234`.
pub(super) fn rate(number: f64) -> String {
    if number > 0.0 && number < 99.95 {
        return format!("{number:.1}");
    }
    count(whole(number))
}

/// Bytes: `0 B`, `1023 B`, `1.5 KiB`, `12.0 GiB`.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one decimal")]
    let mut value = number as f64 / 1024.0;
    let mut units = UNITS.into_iter();
    let mut unit = units.next().unwrap_or_default();
    // What would be rounded to 1024.0 is one of the next unit.
    while value >= 1023.95 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024.0, next);
    }
    format!("{value:.1} {unit}")
}

/// Bytes in a second.
pub(super) fn bytes_rate(number: f64) -> String {
    format!("{}/s", bytes(whole(number)))
}

/// A time by its two largest units: `42s`, `3m 5s`, `2d 3h`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// The time of day of a moment in milliseconds since 1970, in UTC.
pub(super) fn time_of_day(wall_ms: u64) -> String {
    let seconds = wall_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A name of somebody else's choice, at most so many columns wide.
pub(super) fn name(text: &str, columns: usize) -> String {
    let cells: Vec<(char, usize)> = text.chars().map(cell).collect();
    let wide: usize = cells.iter().map(|(_, width)| width).sum();
    if wide <= columns {
        return cells.into_iter().map(|(shown, _)| shown).collect();
    }
    let (mut left, mut cut) = (columns.saturating_sub(1), String::new());
    for (shown, width) in cells {
        let Some(rest) = left.checked_sub(width) else { break };
        left = rest;
        cut.push(shown);
    }
    cut.push('…');
    cut
}

/// How a character is shown, and how wide it may be: a terminal gives some of them two columns.
fn cell(character: char) -> (char, usize) {
    match character {
        ' '..='~' => (character, 1),
        _ if character.is_alphanumeric() => (character, 2),
        _ => ('?', 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_write_them() {
        let counts = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (999_999, "999,999"),
            (1_000_000, "1.00M"),
            (9_996_000, "10.0M"),
            (98_765_432, "98.8M"),
            (999_600_000, "1.00G"),
            (u64::MAX, "18.4E"),
        ];
        for (number, text) in counts {
            assert_eq!(count(number), text);
        }
        let rates = [(0.0, "0"), (0.04, "0.0"), (0.25, "0.2"), (99.9, "99.9"), (99.96, "100")];
        for (number, text) in rates {
            assert_eq!(rate(number), text);
        }
        assert_eq!(rate(12_345.6), "12,346");
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ];
        for (number, text) in sizes {
            assert_eq!(bytes(number), text);
        }
        let spans = [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_600, "1h 0m"), (90_000, "1d 1h")];
        for (seconds, text) in spans {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(time_of_day(86_400_000 + 3_723_000), "01:02:03 UTC");
    }

    #[test]
    fn a_name_commands_no_terminal_and_is_not_too_wide() {
        let cases = [
            ("ticker.IBM", 10, "ticker.IBM"),
            ("ticker.IBM", 9, "ticker.I…"),
            ("a\u{1b}[2Jb\nc", 20, "a?[2Jb?c"),
            ("right\u{202e}left", 20, "right?left"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("", 3, ""),
        ];
        for (text, columns, expected) in cases {
            assert_eq!(name(text, columns), expected, "{text:?}");
        }
    }
}
