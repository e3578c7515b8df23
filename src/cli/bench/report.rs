//! What a bench has found: the rounds, their medians, and the ratios of these.
//! # Invariants: a ratio is one of medians of runs that took turns; faults are of all rounds.
//! # Not here: what the figures mean (`docs/bench.md`).

use super::error::BenchError;
use super::figures::{self, Figure, Sheet, Unit};
use crate::cli::numbers::whole;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;

/// The runs of one scenario.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) scenario: &'static str,
    /// The options that were in force, given or not.
    pub(super) options: Vec<(&'static str, Value)>,
    /// The processors the server was bound to.
    pub(super) bound_to: Option<String>,
    pub(super) broker: Vec<Sheet>,
    pub(super) limit: Vec<Sheet>,
}

impl Report {
    /// As one JSON object.
    pub(super) fn to_json(&self) -> Value {
        let rounds = |sheets: &[Sheet]| sheets.iter().map(Sheet::to_json).collect::<Value>();
        json!({
            "scenario": self.scenario,
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine(),
            "server_cores": self.bound_to,
            "options": self.options.iter().cloned().collect::<Value>(),
            "broker": medians(&self.broker).to_json(),
            "limit": if self.limit.is_empty() { Value::Null } else { medians(&self.limit).to_json() },
            "ratio": self.ratios(),
            "rounds": {"broker": rounds(&self.broker), "limit": rounds(&self.limit)},
        })
    }

    fn ratios(&self) -> Value {
        let (broker, limit) = (medians(&self.broker), medians(&self.limit));
        let ratios = broker.figures().filter_map(|figure| {
            let ratio = ratio(figure, &broker, &limit)?;
            Some((figure.name.to_owned(), Unit::Plain.to_json(ratio)))
        });
        Value::Object(ratios.collect())
    }

    /// As a table for people.
    pub(super) fn to_text(&self) -> String {
        let (broker, limit) = (medians(&self.broker), medians(&self.limit));
        let has_limit = !self.limit.is_empty();
        let heads =
            if has_limit { ["", "broker", "limit", "ratio"] } else { ["", "broker", "", ""] };
        let mut rows = vec![heads.map(str::to_owned)];
        for figure in broker.figures() {
            let Some(label) = figure.label else { continue };
            let show = |sheet: &Sheet| sheet.get(figure).map(|value| figure.unit.to_text(value));
            let ratio = ratio(figure, &broker, &limit).map(|ratio| format!("{ratio:.2}"));
            rows.push([
                label.to_owned(),
                show(&broker).unwrap_or_default(),
                show(&limit).unwrap_or_default(),
                ratio.unwrap_or_default(),
            ]);
        }
        let mut text = self.title();
        for [label, broker, limit, ratio] in rows {
            let line = format!("{label:<22} {broker:>14} {limit:>14} {ratio:>7}");
            writeln!(text, "{}", line.trim_end()).unwrap_or_default();
        }
        if broker.figures().all(|figure| *figure != figures::RSS) {
            text.push_str("memory and CPU are not available here\n");
        }
        text
    }

    fn title(&self) -> String {
        let options = self.options.iter().map(|(name, value)| match value {
            Value::String(text) => format!("{name} {text}"),
            other => format!("{name} {other}"),
        });
        let options = options.collect::<Vec<_>>().join(", ");
        let rounds = self.broker.len();
        let medians = if rounds == 1 { "1 round" } else { &format!("medians of {rounds} rounds") };
        format!("{}, {medians}: {options}\n\n", self.scenario)
    }

    /// Whether the figures may be believed.
    ///
    /// # Errors
    /// What must not have happened and did.
    pub(super) fn judge(&self) -> Result<(), BenchError> {
        let mut faults = Vec::new();
        for (who, sheets) in [("the broker", &self.broker), ("the limit", &self.limit)] {
            for figure in sheets.iter().take(1).flat_map(Sheet::figures) {
                let count: f64 = sheets.iter().filter_map(|sheet| sheet.get(figure)).sum();
                if figure.unit == Unit::Fault && whole(count) > 0 {
                    faults.push(format!("{who}: {} {}", whole(count), figure.name));
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(BenchError::Wrong(faults.join(", "))) }
    }
}

/// Of each figure the median over the runs.
fn medians(sheets: &[Sheet]) -> Sheet {
    let mut medians = Sheet::default();
    for figure in sheets.iter().take(1).flat_map(Sheet::figures) {
        let mut values: Vec<f64> = sheets.iter().filter_map(|sheet| sheet.get(figure)).collect();
        values.sort_by(f64::total_cmp);
        if let Some(median) = median(&values) {
            medians.put(figure, median);
        }
    }
    medians
}

/// The one in the middle, or the mean of the two.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(sorted.len() / 2 - 1).map(|lower| f64::midpoint(*lower, upper))
}

fn ratio(figure: &Figure, broker: &Sheet, limit: &Sheet) -> Option<f64> {
    let limit = limit.get(figure).filter(|limit| *limit > 0.0 && figure.unit.is_compared())?;
    Some(broker.get(figure)? / limit)
}

/// What the figures were measured on, as far as the system tells.
fn machine() -> Value {
    let line = |path: &str, name: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    json!({
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "kernel": kernel.map(|text| text.trim().to_owned()),
        "processors": std::thread::available_parallelism().ok().map(usize::from),
        "processor": line("/proc/cpuinfo", "model name"),
        "memory": line("/proc/meminfo", "MemTotal"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(cpu: f64, lost: u64) -> Sheet {
        let mut sheet = Sheet::default();
        sheet.count(&figures::DELIVERED, 10);
        sheet.count(&figures::LOST, lost);
        sheet.put(&figures::CPU_PER_DELIVERY, cpu);
        sheet
    }

    fn report() -> Report {
        let mut report = Report { scenario: "fanout", ..Report::default() };
        report.options.push(("subscribers", json!(2)));
        report.broker = [3.0, 1.0, 2.0].map(|cpu| sheet(cpu, 0)).into();
        report.limit = [1.0, 3.0, 0.5, 1.5].map(|cpu| sheet(cpu, 0)).into();
        report
    }

    #[test]
    fn a_ratio_is_one_of_medians() {
        let json = report().to_json();
        assert_eq!(json["broker"]["cpu_us_per_delivery"], 2.0);
        assert_eq!(json["limit"]["cpu_us_per_delivery"], 1.25);
        assert_eq!(json["ratio"], json!({"cpu_us_per_delivery": 1.6}));
        assert_eq!(json["rounds"]["broker"][0]["cpu_us_per_delivery"], 3.0);
    }

    #[test]
    fn the_table_shows_both_sides_and_their_ratio() {
        let text = report().to_text();
        assert!(text.starts_with("fanout, medians of 3 rounds: subscribers 2\n\n"), "{text}");
        let row = text.lines().find(|line| line.starts_with("CPU per delivery")).expect("a row");
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["CPU", "per", "delivery", "2.000", "µs", "1.250", "µs", "1.60"]);
        let alone = Report { limit: Vec::new(), ..report() };
        assert!(!alone.to_text().contains("limit"));
        assert_eq!(alone.to_json()["limit"], Value::Null);
    }

    #[test]
    fn a_loss_in_any_round_is_told() {
        assert!(report().judge().is_ok());
        let mut report = report();
        report.broker.push(sheet(1.0, 2));
        let words = report.judge().expect_err("a loss").to_string();
        assert_eq!(words, "the figures are not to be believed: the broker: 2 lost");
    }
}
