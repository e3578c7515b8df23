//! The papers say what the code says: tables of reasons, metrics, limits, imports and dependencies,
//! and every function that they name.
//! # Invariants: a table stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; one that is
//! not there, or empty, fails.
//! # Not here: links and line ends (`tidy`), examples (`it`).
#![allow(clippy::expect_used, clippy::panic, reason = "a test stops at what it did not expect")]

#[path = "papers/limits.rs"]
mod limits;

use fanfare::config;
use fanfare::metrics::{Page, Sources, Waiting};
use fanfare::reason::Reason;
use fanfare::topics::registry::{Registry, RegistryOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of a table's rows, without its head.
fn table(text: &str, name: &str) -> Vec<Vec<String>> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let rest = text.split_once(&begin).expect("the table begins").1;
    let inside = rest.split_once(&end).expect("the table ends").0;
    let cells = |line: &str| {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<_> = inside.lines().filter(|line| !line.is_empty()).skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "the table {name} has no rows");
    rows
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn joined(words: &[&str]) -> String {
    words.join(" ")
}

#[test]
fn the_table_of_reasons_is_that_of_the_code() {
    let row = |reason: &Reason| {
        let (code, status) = (reason.code().to_string(), reason.status().to_string());
        let name = format!("`{}`", reason.name());
        vec![code, name, reason.retry().name().into(), status, reason.sentence().into()]
    };
    let expected: Vec<_> = Reason::ALL.iter().map(row).collect();
    assert_eq!(table(&read("docs/protocol.md"), "reasons"), expected);
}

#[test]
fn the_limits_have_their_defaults() {
    let defaults = config::load(config::Sources::default()).expect("the defaults are sound");
    let defaults: BTreeMap<_, _> =
        defaults.settings.into_iter().map(|setting| (setting.key, setting.value)).collect();
    let text = read("docs/protocol.md");
    let mut told = BTreeSet::new();
    for row in table(&text, "limits") {
        let key = joined(&quoted(&row[0]));
        assert_eq!(defaults.get(&key), Some(&row[1]), "{key}");
        told.insert(key);
    }
    let limits: Vec<_> = defaults.keys().filter(|key| key.starts_with("limits.")).collect();
    assert!(limits.iter().all(|key| told.contains(*key)), "one of {limits:?} is missing");
    // And no other text names a setting that does not exist.
    for word in text.split('`').filter(|word| word.starts_with("limits.")) {
        assert!(defaults.contains_key(word), "there is no setting {word}");
    }
}

#[test]
fn the_table_of_metrics_is_what_the_broker_serves() {
    // Beside what is ours the page has numbers of the process, which depend on the system.
    let is_ours = |name: &str| cfg!(target_os = "linux") || name.starts_with("fanfare_");
    let told: BTreeMap<_, _> = table(&read("docs/metrics.md"), "metrics")
        .into_iter()
        .map(|row| (joined(&quoted(&row[0])), (row[1].clone(), joined(&quoted(&row[2])))))
        .filter(|(name, _)| is_ours(name))
        .collect();
    let served = served();
    assert_eq!(told, served.into_iter().filter(|(name, _)| is_ours(name)).collect());
}

#[test]
fn deployment_files_ask_for_metrics_and_reasons_that_are_there() {
    let served = served();
    let known = |name: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let is_histogram =
            |base: &str| served.get(base).is_some_and(|(kind, _)| kind == "histogram");
        served.contains_key(name) || histogram.is_some_and(is_histogram)
    };
    let mut asked = BTreeSet::new();
    for (path, text) in deployment_files(&["yaml", "json"]) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for word in text.split(|c: char| !is_name(c)) {
            let is_process = cfg!(target_os = "linux") && word.starts_with("process_");
            // A colon is in the names of recordings, which promtool knows.
            if (word.starts_with("fanfare_") || is_process) && !word.contains(':') {
                assert!(known(word), "{path} asks for {word}");
                asked.insert(word.to_owned());
            }
        }
        for text in text.replace('\\', "").split("reason=").skip(1) {
            let reasons = text.trim_start_matches('~').split('"').nth(1).expect("a value");
            for name in reasons.split('|') {
                let is_there = Reason::ALL.iter().any(|reason| reason.name() == name);
                assert!(is_there, "{path} asks for the reason {name}");
            }
        }
    }
    assert!(asked.len() > 40, "only {asked:?} are asked for");
}

#[test]
fn deployment_files_have_settings_that_are_sound() {
    let files = deployment_files(&["toml"]);
    assert!(files.len() > 2, "there are {} of them", files.len());
    for (path, text) in files {
        let file = Some((path.into(), text));
        let loaded = config::load(config::Sources { file, ..config::Sources::default() });
        if let Err(error) = loaded {
            panic!("{error}");
        }
    }
}

/// The paths and texts of the files below `deploy` that end so.
fn deployment_files(ends: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec!["deploy".to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder).read_dir();
        for entry in entries.expect("a folder").map(|entry| entry.expect("an entry")) {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().expect("a type").is_dir() {
                folders.push(path);
            } else if ends.iter().any(|end| path.ends_with(&format!(".{end}"))) {
                let text = read(&path);
                found.push((path, text));
            }
        }
    }
    found
}

/// The page of metrics of a broker that has just begun.
fn page() -> String {
    let registry = Registry::new(RegistryOptions::default(), Vec::new(), Box::new(|| Some(1)));
    let blocks = vec![Arc::default()];
    let sources = Sources {
        blocks,
        mailboxes: Vec::new(),
        registry: Arc::new(registry),
        waiting: Waiting::default(),
    };
    Page::new(sources).text()
}

/// Every metric's name, type and labels.
fn served() -> BTreeMap<String, (String, String)> {
    let text = page();
    let mut served = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let series = format!("\n{name}{{");
        let label = text.split_once(&series).and_then(|(_, rest)| rest.split_once('='));
        let label = label.map_or("", |(label, _)| label);
        served.insert(name.to_owned(), (kind.to_owned(), label.to_owned()));
    }
    served
}

#[test]
fn the_table_of_imports_is_the_one_that_is_enforced() {
    let source = read("tests/tidy/imports.rs");
    let (_, rest) = source.split_once("TABLE: &[Row] = &[").expect("the table begins");
    let (inside, _) = rest.split_once("];").expect("the table ends");
    let mut enforced = Vec::new();
    for line in inside.lines() {
        let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        if let [module, used] = words.as_slice() {
            enforced.push((String::from(*module), String::from(*used)));
        }
    }
    let told = table(&read("ARCHITECTURE.md"), "imports");
    let told = told.iter().map(|row| {
        let used = match row[1].as_str() {
            "nothing of ours" => String::new(),
            "all above" => "*".to_owned(),
            cell => joined(&quoted(cell)),
        };
        (joined(&quoted(&row[0])), used)
    });
    assert_eq!(told.collect::<Vec<_>>(), enforced);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let mut used = BTreeSet::new();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && let Some((name, _)) = line.split_once(" = ")
        {
            used.insert(name.to_owned());
        }
    }
    let rows = table(&read("ARCHITECTURE.md"), "dependencies");
    let told = rows.iter().flat_map(|row| quoted(&row[0]));
    assert_eq!(told.map(str::to_owned).collect::<BTreeSet<_>>(), used);
}

#[test]
fn every_function_that_is_named_is_there() {
    let text = read("ARCHITECTURE.md");
    assert!(text.lines().count() <= 250, "the page is longer than it may be");
    let mut named = 0;
    for place in text.lines().flat_map(quoted) {
        let Some((path, function)) = place.split_once(" · ") else { continue };
        let source = read(path);
        let is_there = ["(", "<"].iter().any(|end| source.contains(&format!("fn {function}{end}")));
        assert!(is_there, "{path} has no function {function}");
        named += 1;
    }
    assert!(named > 30, "only {named} functions are named");
}

#[test]
fn every_threat_has_a_test_or_says_why_not() {
    let rows = table(&read("docs/threat-model.md"), "threats");
    assert_eq!(rows.len(), 38, "threats");
    for (index, row) in rows.iter().enumerate() {
        let name = format!("T{}", index + 1);
        assert_eq!(row[0], name);
        let tests: Vec<_> = row[3].split('`').skip(1).step_by(2).collect();
        let owns_up = ["**Not built", "**Not tested"].iter().any(|words| row[2].contains(words));
        assert!(!tests.is_empty() || owns_up, "{name} has no test and does not say why");
        for place in tests {
            let (path, test) = place.split_once(" · ").expect("a file and a test");
            let source = read(path);
            let ways = [format!("fn {test}("), format!("def {test}("), format!("test('{test}'")];
            assert!(
                ways.iter().any(|way| source.contains(way)),
                "{name}: {path} has no test {test}"
            );
        }
    }
}

#[test]
fn every_client_has_a_test_of_every_scenario() {
    let text = read("clients/scenarios.md");
    let titles: Vec<_> = table(&text, "scenarios").iter().map(|row| row[1].clone()).collect();
    let clients = table(&text, "clients");
    assert_eq!(clients.len(), 3, "clients");
    for row in clients {
        let path = joined(&quoted(&row[1]));
        let source = read(&path);
        for title in &titles {
            let name = title.replace(' ', "_");
            let ways = [format!("('{title}',"), format!("fn {name}("), format!("def test_{name}(")];
            assert!(ways.iter().any(|way| source.contains(way)), "{path} has no test of: {title}");
        }
    }
}
