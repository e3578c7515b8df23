//! `fanfare check`: every setting with its source, and which rule decides over a topic.
//! # Invariants: the report is a function of the configuration.
//! # Not here: what is wrong with a configuration (`config`).

use super::args::CheckArgs;
use crate::config::{Loaded, Topics};
use crate::topics::name::TopicName;
use std::process::ExitCode;

/// Prints the report, or what is wrong.
pub fn run(args: &CheckArgs) -> ExitCode {
    match args.settings.load() {
        Ok(loaded) => super::say(&report(&loaded, args.topic.as_ref())),
        Err(error) => super::fail(&error),
    }
}

/// A table of every setting, or what is kept of one topic and why.
fn report(loaded: &Loaded, topic: Option<&TopicName>) -> String {
    match topic {
        Some(topic) => explain(&loaded.config.topics, topic),
        None => table(loaded),
    }
}

fn table(loaded: &Loaded) -> String {
    let rows: Vec<[String; 3]> = loaded
        .settings
        .iter()
        .map(|setting| [setting.key.clone(), setting.value.clone(), setting.source.to_string()])
        .collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let (keys, values) = (width(0).unwrap_or(0), width(1).unwrap_or(0));
    let line =
        |[key, value, source]: &[String; 3]| format!("{key:keys$}  {value:values$}  {source}");
    let lines: Vec<String> = rows.iter().map(line).collect();
    lines.join("\n") + "\n"
}

fn explain(topics: &Topics, topic: &TopicName) -> String {
    let why = match topics.rule(topic) {
        Some((index, rule)) => format!("rule {} of topics.rules, `{}`", index + 1, rule.filter),
        None => "no rule, so topics.history decides".to_owned(),
    };
    let history = topics.history_of(topic);
    format!(
        "{topic}: {why}\nhistory: {} messages, {:?}, {} bytes\n",
        history.messages, history.age, history.bytes
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use expect_test::{Expect, expect};
    use std::path::PathBuf;

    fn loaded(text: &str) -> Loaded {
        let file = Some((PathBuf::from("fanfare.toml"), text.to_owned()));
        load(Sources { file, ..Sources::default() }).expect("valid configuration")
    }

    fn check(text: &str, topic: &str, expected: &Expect) {
        let topic = TopicName::parse(topic).expect("valid name");
        expected.assert_eq(&report(&loaded(text), Some(&topic)));
    }

    const RULES: &str = "\
        [[topics.rules]]\n\
        filter = \"ticker.>\"\n\
        history = { messages = 10 }\n\
        [[topics.rules]]\n\
        filter = \"ticker.IBM\"\n\
        history = { messages = 20 }\n";

    #[test]
    fn the_first_rule_that_matches_is_named() {
        check(
            RULES,
            "ticker.IBM",
            &expect![[r"
            ticker.IBM: rule 1 of topics.rules, `ticker.>`
            history: 10 messages, 300s, 1048576 bytes
        "]],
        );
        check(
            RULES,
            "chat.1",
            &expect![[r"
            chat.1: no rule, so topics.history decides
            history: 1000 messages, 300s, 1048576 bytes
        "]],
        );
    }

    #[test]
    fn the_table_names_every_setting_once_with_its_source() {
        let loaded = loaded("[limits]\nfilters_max = 9\n");
        let table = report(&loaded, None);
        assert_eq!(table.lines().count(), loaded.settings.len());
        let filters = table.lines().find(|line| line.starts_with("limits.filters_max "));
        let words: Vec<&str> = filters.unwrap_or_default().split_whitespace().collect();
        assert_eq!(words, ["limits.filters_max", "9", "fanfare.toml"]);
        let defaults = table.lines().filter(|line| line.ends_with(" default")).count();
        assert_eq!(defaults, loaded.settings.len() - 1);
    }
}
