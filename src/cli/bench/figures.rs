//! The figures of a bench: what each is called, in which unit it is, and those of one run.
//! # Invariants: a figure that could not be had is not there; it is never zero instead.
//! # Not here: medians and ratios (`report`).

use crate::cli::numbers::{grouped, whole};
use hdrhistogram::Histogram;
use serde_json::{Map, Number, Value};

/// A kind of figure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Figure {
    /// Its name in JSON, which ends in its unit.
    pub(super) name: &'static str,
    /// What the table calls it, or nothing if it is only in JSON.
    pub(super) label: Option<&'static str>,
    pub(super) unit: Unit,
}

/// What a figure counts, which decides how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Count,
    /// A count that must be 0.
    Fault,
    PerSecond,
    Micros,
    Bytes,
    /// Processors, ratios, and whatever else is small.
    Plain,
}

const fn shown(name: &'static str, label: &'static str, unit: Unit) -> Figure {
    Figure { name, label: Some(label), unit }
}

const fn hidden(name: &'static str, unit: Unit) -> Figure {
    Figure { name, label: None, unit }
}

pub(super) const PUBLISHED: Figure = shown("published", "published", Unit::Count);
pub(super) const EXPECTED: Figure = hidden("expected", Unit::Count);
pub(super) const DELIVERED: Figure = shown("delivered", "delivered", Unit::Count);
pub(super) const LOST: Figure = shown("lost", "lost", Unit::Fault);
pub(super) const REPEATED: Figure = hidden("repeated", Unit::Fault);
pub(super) const DISORDERED: Figure = hidden("disordered", Unit::Fault);
pub(super) const UNREADABLE: Figure = hidden("unreadable", Unit::Fault);
pub(super) const GAPS: Figure = hidden("gaps", Unit::Fault);
pub(super) const DELIVERIES: Figure =
    shown("deliveries_per_second", "deliveries a second", Unit::PerSecond);
pub(super) const CPU_PER_DELIVERY: Figure =
    shown("cpu_us_per_delivery", "CPU per delivery", Unit::Micros);
pub(super) const CORES: Figure = shown("cores", "CPU, in cores", Unit::Plain);
pub(super) const P50: Figure = shown("latency_p50_us", "latency p50", Unit::Micros);
pub(super) const P90: Figure = hidden("latency_p90_us", Unit::Micros);
pub(super) const P99: Figure = shown("latency_p99_us", "latency p99", Unit::Micros);
pub(super) const P999: Figure = hidden("latency_p999_us", Unit::Micros);
pub(super) const MAX: Figure = hidden("latency_max_us", Unit::Micros);
pub(super) const RSS: Figure = shown("rss_bytes", "memory, at most", Unit::Bytes);
pub(super) const WIRE: Figure = shown("bytes_per_delivery", "bytes per delivery", Unit::Plain);
pub(super) const READS: Figure = hidden("reads_per_delivery", Unit::Plain);
pub(super) const CLIENT_CORES: Figure = shown("client_cores", "clients, in cores", Unit::Plain);
pub(super) const LATE: Figure = hidden("publisher_late_us", Unit::Micros);

pub(super) const STALLED_P99: Figure =
    shown("latency_p99_us_while_stalled", "p99 while some stall", Unit::Micros);
pub(super) const STALLED_RATIO: Figure = shown("p99_ratio", "p99, ratio of both", Unit::Plain);
pub(super) const STALLED_CUT_OFF: Figure =
    shown("stalled_cut_off", "stalled and cut off", Unit::Count);

pub(super) const CONNECTIONS: Figure = shown("connections", "connections", Unit::Count);
pub(super) const ACCEPTS: Figure = shown("accepts_per_second", "accepts a second", Unit::PerSecond);
pub(super) const CPU_PER_ACCEPT: Figure =
    shown("cpu_us_per_accept", "CPU per accept", Unit::Micros);
pub(super) const RSS_PER_CONNECTION: Figure =
    shown("rss_bytes_per_connection", "memory per connection", Unit::Bytes);
pub(super) const IDLE_CORES: Figure = shown("idle_cores", "CPU at rest, in cores", Unit::Plain);

pub(super) const LIVES: Figure = shown("lives", "lives", Unit::Count);
pub(super) const LIVES_PER_SECOND: Figure =
    shown("lives_per_second", "lives a second", Unit::PerSecond);
pub(super) const CPU_PER_LIFE: Figure = shown("cpu_us_per_life", "CPU per life", Unit::Micros);
pub(super) const UNANSWERED_CLOSES: Figure =
    shown("unanswered_closes", "closes without answer", Unit::Fault);

pub(super) const PUBLISHES_PER_SECOND: Figure =
    shown("publishes_per_second", "publishes a second", Unit::PerSecond);
pub(super) const CPU_PER_PUBLISH: Figure =
    shown("cpu_us_per_publish", "CPU per publish", Unit::Micros);
pub(super) const REFUSED: Figure = shown("refused", "refused", Unit::Fault);

pub(super) const ROUND_TRIPS: Figure = shown("round_trips", "round trips", Unit::Count);

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Sheet(Vec<(&'static Figure, f64)>);

impl Sheet {
    pub(super) fn put(&mut self, figure: &'static Figure, value: f64) {
        self.0.push((figure, value));
    }

    pub(super) fn count(&mut self, figure: &'static Figure, value: u64) {
        self.put(figure, real(value));
    }

    /// Puts what a histogram of nanoseconds tells.
    pub(super) fn latencies(&mut self, histogram: &Histogram<u64>) {
        for (figure, quantile) in [(&P50, 0.5), (&P90, 0.9), (&P99, 0.99), (&P999, 0.999)] {
            self.put(figure, real(histogram.value_at_quantile(quantile)) / 1e3);
        }
        self.put(&MAX, real(histogram.max()) / 1e3);
    }

    pub(super) fn get(&self, figure: &Figure) -> Option<f64> {
        self.0.iter().find(|(found, _)| *found == figure).map(|(_, value)| *value)
    }

    /// The kinds of figures, in the order in which they were put.
    pub(super) fn figures(&self) -> impl Iterator<Item = &'static Figure> {
        self.0.iter().map(|(figure, _)| *figure)
    }

    /// As a JSON object.
    pub(super) fn to_json(&self) -> Value {
        let fields = self
            .0
            .iter()
            .map(|(figure, value)| (figure.name.to_owned(), figure.unit.to_json(*value)));
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

impl Unit {
    /// A value as a number of JSON.
    pub(super) fn to_json(self, value: f64) -> Value {
        match self {
            Unit::Count | Unit::Fault => Value::from(whole(value)),
            Unit::PerSecond | Unit::Micros | Unit::Bytes | Unit::Plain => {
                let rounded = (value * 1e4).round() / 1e4;
                Number::from_f64(rounded).map_or(Value::Null, Value::Number)
            }
        }
    }

    /// A value for people.
    pub(super) fn to_text(self, value: f64) -> String {
        match self {
            Unit::Count | Unit::Fault | Unit::PerSecond => grouped(whole(value)),
            Unit::Micros if value < 10.0 => format!("{value:.3} µs"),
            Unit::Micros if value < 1e3 => format!("{value:.1} µs"),
            Unit::Micros if value < 1e6 => format!("{:.2} ms", value / 1e3),
            Unit::Micros => format!("{:.2} s", value / 1e6),
            Unit::Bytes if value < 1e5 => format!("{} B", grouped(whole(value))),
            Unit::Bytes => format!("{:.1} MB", value / 1e6),
            Unit::Plain if value < 10.0 => format!("{value:.3}"),
            Unit::Plain => format!("{value:.1}"),
        }
    }

    /// Whether dividing the broker's by the limit's says something.
    pub(super) const fn is_compared(self) -> bool {
        match self {
            Unit::PerSecond | Unit::Micros | Unit::Bytes | Unit::Plain => true,
            Unit::Count | Unit::Fault => false,
        }
    }
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(super) fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_in_the_unit_that_reads_best() {
        let cases = [
            (Unit::Count, 1_234_567.0, "1,234,567"),
            (Unit::PerSecond, 999.6, "1,000"),
            (Unit::Fault, 0.0, "0"),
            (Unit::Micros, 0.1434, "0.143 µs"),
            (Unit::Micros, 48.25, "48.2 µs"),
            (Unit::Micros, 5_660.0, "5.66 ms"),
            (Unit::Micros, 2_500_000.0, "2.50 s"),
            (Unit::Bytes, 1_340.0, "1,340 B"),
            (Unit::Bytes, 12_000_000.0, "12.0 MB"),
            (Unit::Plain, 0.98765, "0.988"),
            (Unit::Plain, 187.0, "187.0"),
        ];
        for (unit, value, expected) in cases {
            assert_eq!(unit.to_text(value), expected);
        }
    }

    #[test]
    fn a_sheet_is_an_object_with_whole_counts() {
        let mut sheet = Sheet::default();
        sheet.count(&PUBLISHED, 7);
        sheet.put(&CORES, 0.123_456_78);
        sheet.put(&P50, f64::NAN);
        let expected = serde_json::json!({"published": 7, "cores": 0.1235, "latency_p50_us": null});
        assert_eq!(sheet.to_json(), expected);
        assert_eq!((sheet.get(&PUBLISHED), sheet.get(&LOST)), (Some(7.0), None));
    }
}
