//! The figures of a run, as a table in plain text.
//! # Not here: whether they are right.

use std::fmt::{self, Display};

/// Names and values, in the order in which they were added.
#[derive(Debug)]
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<(String, String)>,
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Table {
        Table { title, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, name: impl Display, value: impl Display) {
        self.rows.push((name.to_string(), value.to_string()));
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.title)?;
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.rows.iter().try_for_each(|(name, value)| writeln!(f, "  {name:<width$}  {value}"))
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}
