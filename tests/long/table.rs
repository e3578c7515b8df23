//! The figures of a run, as a table in plain text.
//! # Not here: whether they are right.

use std::fmt::{self, Display};
use std::fs::OpenOptions;
use std::io::Write as _;

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

impl Table {
    /// Prints it, and adds it to the file that `FIGURES` names.
    pub(crate) fn tell(&self) {
        println!("{self}");
        let Some(path) = std::env::var_os("FIGURES") else { return };
        let file = OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("a file for the figures"), "{self}").expect("room for the figures");
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.rows.iter().try_for_each(|(name, value)| writeln!(f, "  {name:<width$}  {value}"))
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}
