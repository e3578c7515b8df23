//! The table of limits in `docs/operating.md`: its first three columns and its costs are made of the
//! code, and every limit names a metric and a test that are there.
//! # Invariants: `UPDATE_EXPECT=1 cargo test --test papers` writes what is made and keeps what was
//! written by hand; a limit that is new is named with all that it lacks.
//! # Not here: what happens beyond a limit (`docs/protocol.md`).

use super::{page, quoted, read, table};
use fanfare::config::{self, Sources};
use std::collections::BTreeMap;
use std::path::Path;

const PAPER: &str = "docs/operating.md";
const HEAD: &str = "| Limit | Default | Range | What it costs | Metric that shows it | Test that shows it |\n\
                    |---|---|---|---|---|---|\n";

/// Where the structs are whose fields are the settings.
const SOURCES: [&str; 5] = [
    "src/config/mod.rs",
    "src/config/auth.rs",
    "src/config/limits.rs",
    "src/config/topics.rs",
    "src/config/topics/rule.rs",
];

/// Words for what no metric can show, because nothing is met while the broker runs.
const NO_METRIC: [&str; 3] =
    ["none: refused at the start", "none: a pace", "none: subscribers are told"];

/// One row, cell by cell.
type Cells = [String; 6];

#[test]
fn the_table_of_limits_is_made_of_the_code() {
    let text = read(PAPER);
    let written = by_hand(&text);
    let rows: Vec<Cells> = config::numbers().iter().map(|number| row(number, &written)).collect();
    let lines = rows.iter().map(|cells| ["| ", &cells.join(" | "), " |\n"].concat());
    let table: String = lines.collect();
    let (before, rest) = text.split_once("<!-- bounds:begin -->\n").expect("the table begins");
    let (_, after) = rest.split_once("<!-- bounds:end -->").expect("the table ends");
    let made = format!("{before}<!-- bounds:begin -->\n{HEAD}{table}<!-- bounds:end -->{after}");
    let faults: Vec<_> = rows.iter().flat_map(faults).collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAPER);
        std::fs::write(path, &made).expect("the paper can be written");
    } else {
        let first = made.lines().zip(text.lines()).find(|(made, told)| made != told);
        let words =
            "the code has another table: UPDATE_EXPECT=1 cargo test --test papers writes it";
        assert!(made == text, "{words}\n{first:#?}\n{}", faults.join("\n"));
    }
    assert!(faults.is_empty(), "{PAPER}, table of limits:\n{}", faults.join("\n"));
}

/// What people wrote: the last two cells of each limit.
fn by_hand(text: &str) -> BTreeMap<String, (String, String)> {
    let rows = table(text, "bounds").into_iter();
    let cells = |row: Vec<String>| match row.as_slice() {
        [name, .., metric, shown] if row.len() == 6 => {
            Some((name.clone(), (metric.clone(), shown.clone())))
        }
        _ => None,
    };
    rows.filter_map(cells).collect()
}

fn row(number: &config::Bounds, written: &BTreeMap<String, (String, String)>) -> Cells {
    let name = format!("`{}`", number.key.replace("[0]", "[]"));
    let (metric, test) = written.get(&name).cloned().unwrap_or_default();
    [name, default_of(&number.key), range(number), cost(&number.key), metric, test]
}

/// What it is if nobody says otherwise. A rule has its own defaults, and shows those.
fn default_of(key: &str) -> String {
    let text = "[[topics.rules]]\nfilter = '>'\n".to_owned();
    let file = key.contains("[0]").then(|| ("rule.toml".into(), text));
    let loaded = config::load(Sources { file, ..Sources::default() }).expect("sound");
    let setting = loaded.settings.into_iter().find(|setting| setting.key == key);
    setting.expect("a bounded number is a setting").value
}

fn range(number: &config::Bounds) -> String {
    let mut words = match &number.most {
        Some(most) => format!("{} to {most}", number.least),
        None => format!("{} or more", number.least),
    };
    // In a list a word is one of its elements.
    for word in ["auto", "off"].into_iter().filter(|_| default_of(&number.key) != "none") {
        if is_taken(&number.key, word) {
            words.extend([", or `\"", word, "\"`"]);
        }
    }
    words
}

/// Whether this word may be given for a key.
fn is_taken(key: &str, word: &str) -> bool {
    let text = match key.strip_prefix("topics.rules[0].") {
        Some(part) => format!("[[topics.rules]]\nfilter = '>'\n{part} = '{word}'\n"),
        None => format!("{key} = '{word}'\n"),
    };
    let file = Some(("word.toml".into(), text));
    config::load(Sources { file, ..Sources::default() }).is_ok()
}

/// What the documentation of its field says after the default.
fn cost(key: &str) -> String {
    let texts = SOURCES.map(read);
    let mut owner = "Config".to_owned();
    let mut cost = String::new();
    for part in key.replace("[0]", "").split('.') {
        let (docs, kind) = texts
            .iter()
            .find_map(|text| field(text, &owner, part))
            .unwrap_or_else(|| panic!("{key}: {owner} has no field {part}"));
        let behind = docs.split_once("Default").and_then(|(_, rest)| rest.split_once(". "));
        cost = behind.map_or_else(String::new, |(_, rest)| rest.to_owned());
        owner = kind;
    }
    cost
}

/// The documentation of a field, in one line, and the struct that it is, or is a list of.
fn field(text: &str, owner: &str, name: &str) -> Option<(String, String)> {
    let (_, inside) = text.split_once(&format!("pub struct {owner} {{\n"))?;
    let (inside, _) = inside.split_once("\n}\n")?;
    let mut docs = Vec::new();
    for line in inside.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("/// ") {
            docs.push(doc);
        } else if let Some(field) = line.strip_prefix("pub ") {
            let (found, kind) = field.trim_end_matches(',').split_once(": ")?;
            if found == name {
                let kind = kind.trim_start_matches("Vec<").trim_end_matches('>');
                return Some((docs.join(" "), kind.to_owned()));
            }
            docs.clear();
        }
    }
    None
}

/// What a row lacks, in words that name it.
fn faults(cells: &Cells) -> Vec<String> {
    let [name, default, range, cost, metric, test] = cells;
    let mut faults = Vec::new();
    let mut add = |fault: String| faults.push(format!("{name}: {fault}"));
    for (cell, what) in [(default, "default"), (range, "range")] {
        if cell.is_empty() {
            add(format!("no {what}"));
        }
    }
    if cost.is_empty() {
        add("its documentation in src/config says nothing of costs after \"Default …\"".to_owned());
    }
    if metric.is_empty() || test.is_empty() {
        add("write by hand, into the last two cells, its metric and its test".to_owned());
    }
    let is_told =
        !quoted(metric).is_empty() || NO_METRIC.iter().any(|words| metric.starts_with(words));
    if !metric.is_empty() && !is_told {
        add(format!("{metric:?} is neither a metric nor one of {NO_METRIC:?}"));
    }
    let page = page();
    for series in quoted(metric) {
        // Every series is there from the start.
        if !page.contains(&format!("\n{series} ")) && !page.contains(&format!("# TYPE {series} ")) {
            add(format!("there is no metric {series}"));
        }
    }
    if !test.is_empty() && quoted(test).is_empty() {
        add(format!("{test:?} names no test"));
    }
    for place in quoted(test) {
        let there = place.split_once(" · ").is_some_and(|(path, test)| {
            Path::new(env!("CARGO_MANIFEST_DIR")).join(path).is_file()
                && [format!("fn {test}("), format!("def {test}(")]
                    .iter()
                    .any(|way| read(path).contains(way))
        });
        if !there {
            add(format!("there is no test {place}"));
        }
    }
    faults
}
