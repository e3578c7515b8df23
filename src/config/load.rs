//! Puts the configuration together: defaults, then a file, then variables, then flags.
//! Owns the errors of all of them and where each setting came from.
//! # Invariants: [`load`] is a function of its argument; an error names the file, variable or flag
//! that is to blame.
//! # Not here: reading the file and the variables (`source`), defaults (`Config`), bounds (`bounds`).

use super::bounds::{self, Fault};
use super::keys::{KeyFault, Node};
use super::source::{Flag, PREFIX, Source, Sources};
use super::{Config, Rule, Topics, form};
use crate::topics::name::TopicFilter;
use ::config as layers;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use thiserror::Error;

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, within all bounds.
    pub config: Config,
    /// Every setting, in the order of the structs.
    pub settings: Vec<Setting>,
    /// What topics without a rule keep and grant, key by key as in a rule.
    unruled: Vec<Setting>,
}

impl Loaded {
    /// What the topics of one rule, or those without one, keep and grant: the keys of a rule
    /// without its filter, in the order of the structs.
    pub fn granted(&self, rule: Option<usize>) -> Vec<Setting> {
        rule.map_or_else(|| self.unruled.clone(), |index| of_rule(&self.settings, index))
    }
}

/// One effective setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its full key: `limits.message_bytes_max`.
    pub key: String,
    /// Its value as a person would write it.
    pub value: String,
    /// Who set it.
    pub source: Source,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file is not there, may not be read, is too long or not text.
    #[error("{}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file is not TOML.
    #[error("{}: {diagram}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and the line itself.
        diagram: String,
    },
    /// There is no such setting.
    #[error("{found_in}: unknown key `{key}`{}", guess(nearest.as_deref()))]
    UnknownKey {
        /// Who set it.
        found_in: Source,
        /// Its full key.
        key: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A value is of the wrong kind, out of bounds, or does not fit another one.
    #[error("{found_in}: {problem}")]
    BadValue {
        /// Who set it.
        found_in: Source,
        /// The key, what it is, and what it should be.
        problem: String,
    },
}

fn guess(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(", did you mean `{nearest}`?"))
}

/// Makes a configuration.
///
/// # Errors
/// The first thing that is wrong, with the file, variable or flag to blame.
pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
    let known = Node::known().map_err(|error| internal(&error))?;
    let mut layers = Layers::default();
    if let Some((path, text)) = sources.file {
        layers.add_file(&known, path, &text)?;
    }
    for (name, value) in sources.env {
        layers.add_variable(&known, &name, value)?;
    }
    for flag in sources.flags {
        layers.add_flag(&known, flag)?;
    }
    layers.finish()
}

/// Settings given so far; a later one replaces an earlier one of the same key.
#[derive(Default)]
struct Layers {
    given: BTreeMap<String, (Source, layers::Value)>,
}

impl Layers {
    fn add_file(&mut self, known: &Node, path: PathBuf, text: &str) -> Result<(), ConfigError> {
        let file = layers::File::from_str(text, layers::FileFormat::Toml);
        let table = layers::Source::collect(&file).map_err(|error| ConfigError::Syntax {
            path: path.clone(),
            diagram: error.to_string().trim_end().to_owned(),
        })?;
        let source = Source::File(path);
        let settings = known.settle(table).map_err(|fault| key_error(&source, fault))?;
        for (key, value) in settings {
            self.add(key, source.clone(), value)?;
        }
        Ok(())
    }

    fn add_variable(&mut self, known: &Node, name: &str, value: String) -> Result<(), ConfigError> {
        let Some(path) = name.strip_prefix(PREFIX) else {
            return Ok(());
        };
        let source = Source::Variable(name.to_owned());
        let key = path.replace("__", ".").to_lowercase();
        known.settle_one(&key, &value).map_err(|fault| key_error(&source, in_capitals(fault)))?;
        if variable(&key) != name {
            let nearest = Some(variable(&key));
            return Err(ConfigError::UnknownKey {
                found_in: source,
                key: path.to_owned(),
                nearest,
            });
        }
        self.add(key, source, layers::Value::new(None, value))
    }

    fn add_flag(&mut self, known: &Node, flag: Flag) -> Result<(), ConfigError> {
        let source = Source::Flag(flag.name);
        known.settle_one(flag.key, &flag.value).map_err(|fault| key_error(&source, fault))?;
        self.add(flag.key.to_owned(), source, layers::Value::new(None, flag.value))
    }

    /// Takes a setting if it alone, over the defaults, is of the right kind; that way an error is
    /// always the fault of the one source at hand.
    fn add(
        &mut self,
        key: String,
        source: Source,
        value: layers::Value,
    ) -> Result<(), ConfigError> {
        if let Err(error) = merge([(key.as_str(), value.clone())]) {
            let problem = describe(&key, &error);
            return Err(ConfigError::BadValue { found_in: source, problem });
        }
        self.given.insert(key, (source, value));
        Ok(())
    }

    fn finish(self) -> Result<Loaded, ConfigError> {
        let values = self.given.iter().map(|(key, (_, value))| (key.as_str(), value.clone()));
        let config = merge(values).map_err(|error| internal(&error))?;
        bounds::check(&config).map_err(|fault| self.blame(fault))?;
        let settings = self.settings(&config).map_err(|error| internal(&error))?;
        let unruled = self.unruled(&config).map_err(|error| internal(&error))?;
        Ok(Loaded { config, settings, unruled })
    }

    fn blame(&self, fault: Fault) -> ConfigError {
        let mut sources = fault.keys.iter().map(|key| self.source(key));
        let found_in = sources.find(|source| *source != Source::Default);
        ConfigError::BadValue { found_in: found_in.unwrap_or(Source::Default), problem: fault.text }
    }

    /// Who set this key. What stands inside of a list counts only if the list has it.
    fn source(&self, key: &str) -> Source {
        let list = key.split('[').next().unwrap_or(key);
        let given = self.given.get(list).filter(|(_, value)| {
            let inside = key.strip_prefix(list).unwrap_or_default();
            inside.is_empty() || holds(value, inside)
        });
        given.map_or(Source::Default, |(source, _)| source.clone())
    }

    /// Every setting of a configuration that these layers made.
    fn settings(&self, config: &Config) -> Result<Vec<Setting>, serde_json::Error> {
        let leaves = Node::of(config)?.leaves();
        let inherited = |key: &str| {
            let (_, part) = key.rsplit_once("].")?;
            let general = format!("topics.{part}");
            let value = leaves.iter().find(|(key, _)| *key == general)?.1.clone();
            Some((value, Source::Setting(general)))
        };
        let setting = |(key, value): &(String, String)| {
            let decided = match value.as_str() {
                form::INHERIT => inherited(key),
                form::AUTO => self.automatic(&config.topics, key),
                _ => None,
            };
            let (value, source) = decided.unwrap_or_else(|| (value.clone(), self.source(key)));
            Setting { key: key.clone(), value, source }
        };
        Ok(leaves.iter().map(setting).collect())
    }

    /// The settings of a rule that says nothing, behind all others.
    fn unruled(&self, config: &Config) -> Result<Vec<Setting>, serde_json::Error> {
        let mut config = config.clone();
        let index = config.topics.rules.len();
        config.topics.rules.extend(TopicFilter::parse(">").map(Rule::new));
        Ok(of_rule(&self.settings(&config)?, index))
    }

    /// What stands for the `"auto"` of a rule, and who decides that.
    fn automatic(&self, topics: &Topics, key: &str) -> Option<(String, Source)> {
        let (index, part) = key.strip_prefix("topics.rules[")?.split_once("].")?;
        let rule = topics.rules.get(index.parse::<usize>().ok()?)?;
        let (value, decider) = rule.automatic(part, topics.history)?;
        let source = match decider {
            Some(decider) => Source::Setting(format!("topics.rules[{index}].{decider}")),
            None => self.source(key),
        };
        Some((value.to_owned(), source))
    }
}

/// The settings of one rule under the keys that they have in it, without its filter.
fn of_rule(settings: &[Setting], index: usize) -> Vec<Setting> {
    let section = format!("topics.rules[{index}].");
    let inside = settings.iter().filter_map(|setting| {
        let key = setting.key.strip_prefix(&section)?.to_owned();
        Some(Setting { key, ..setting.clone() })
    });
    inside.filter(|setting| setting.key != "filter").collect()
}

/// Whether a list has a value at a path such as `[0].history.age`.
fn holds(list: &layers::Value, path: &str) -> bool {
    let mut value = Some(list);
    for name in path.split(['[', ']', '.']).filter(|name| !name.is_empty()) {
        value = value.and_then(|value| match &value.kind {
            layers::ValueKind::Array(items) => items.get(name.parse::<usize>().ok()?),
            layers::ValueKind::Table(table) => table.get(name),
            _ => None,
        });
    }
    value.is_some()
}

/// The defaults with these values over them.
fn merge<'a>(
    values: impl IntoIterator<Item = (&'a str, layers::Value)>,
) -> Result<Config, layers::ConfigError> {
    let mut builder = layers::Config::builder();
    for (key, value) in values {
        builder = builder.set_override(key, value)?;
    }
    builder.build()?.try_deserialize()
}

/// The name of the variable for a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn in_capitals(fault: KeyFault) -> KeyFault {
    match fault {
        KeyFault::Unknown { key, nearest } => {
            let nearest = nearest.as_deref().map(variable);
            KeyFault::Unknown { key, nearest }
        }
        KeyFault::Misfit { .. } => fault,
    }
}

fn key_error(source: &Source, fault: KeyFault) -> ConfigError {
    let found_in = source.clone();
    match fault {
        KeyFault::Unknown { key, nearest } => ConfigError::UnknownKey { found_in, key, nearest },
        KeyFault::Misfit { key, words } => {
            let problem = format!("`{key}` {words}");
            ConfigError::BadValue { found_in, problem }
        }
    }
}

/// The words of the `config` crate's error in our order: the key first.
fn describe(key: &str, error: &layers::ConfigError) -> String {
    match error {
        layers::ConfigError::At { error, key: Some(at), .. } => describe(&dotted(at), error),
        layers::ConfigError::NotFound(missing) => format!("`{}` is missing", dotted(missing)),
        layers::ConfigError::Message(words) => format!("`{key}` {words}"),
        other => format!("`{key}`: {other}"),
    }
}

/// The `config` crate joins `rules[0]` and `filter` without a dot.
fn dotted(key: &str) -> String {
    key.replace(']', "].").replace("..", ".")
}

/// What cannot happen as long as the defaults are sound; said rather than panicked about.
fn internal(error: &dyn fmt::Display) -> ConfigError {
    ConfigError::BadValue { found_in: Source::Default, problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::words::{env, file, flag};
    use crate::config::{LogLevel, RuleHistory};
    use crate::topics::name::TopicName;
    use proptest::prelude::*;
    use std::time::Duration;

    fn config(sources: Sources) -> Config {
        load(sources).expect("a sound configuration").config
    }

    fn refused(sources: Sources) -> String {
        load(sources).expect_err("must be refused").to_string()
    }

    fn setting(loaded: &Loaded, key: &str) -> (String, String) {
        let found = loaded.settings.iter().find(|setting| setting.key == key);
        let found = found.expect(key);
        (found.value.clone(), found.source.to_string())
    }

    #[test]
    fn nothing_given_is_the_default() {
        let loaded = load(Sources::default()).expect("the defaults are sound");
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.settings.iter().all(|setting| setting.source == Source::Default));
    }

    const EXAMPLE: &str = include_str!("../../deploy/fanfare.toml");

    #[test]
    fn the_example_has_every_key_at_its_default() {
        let loaded = load(file(EXAMPLE)).expect("the example is sound");
        assert_eq!(loaded.config, Config::default());
        for setting in loaded.settings {
            assert_eq!(setting.source.to_string(), "fanfare.toml", "{}", setting.key);
        }
    }

    #[test]
    fn the_rules_that_the_example_shows_are_sound_and_complete() {
        let (before, rest) = EXAMPLE.split_once("rules = []\n").expect("no rules");
        let (between, rest) = rest.split_once("# [[topics.rules]]\n").expect("an example of rules");
        let (rules, after) = rest.split_once("\n\n").expect("an end of it");
        for line in rules.lines().take_while(|line| *line != "#") {
            let (setting, comment) = line.rsplit_once(" # ").expect("a comment on each key");
            assert!(setting.contains(" = ") && !comment.is_empty(), "{line}");
        }
        let rules = rules.replace("\n# ", "\n").replace("\n#\n", "\n");
        let rules = rules.strip_prefix("# ").expect("a comment");
        let text = format!("{before}{between}[[topics.rules]]\n{rules}\n{after}");
        let loaded = load(file(&text)).expect("sound");
        assert_eq!(loaded.config.topics.rules.len(), 2);
        for Setting { key, source, .. } in loaded.granted(Some(0)) {
            assert_eq!(source.to_string(), "fanfare.toml", "{key}");
        }
    }

    #[test]
    fn a_later_layer_wins_and_is_named_as_the_source() {
        let mut sources =
            file("[limits]\nfragments_max = 2\nfilters_max = 2\nsubscriptions_max = 2");
        sources.env = vec![
            ("FANFARE__LIMITS__FILTERS_MAX".to_owned(), "3".to_owned()),
            ("FANFARE__LIMITS__SUBSCRIPTIONS_MAX".to_owned(), "3".to_owned()),
        ];
        sources.flags = flag("--subscriptions", "limits.subscriptions_max", "4").flags;
        let loaded = load(sources).expect("sound");
        let cases = [
            ("limits.bad_commands_max", "16", "default"),
            ("limits.fragments_max", "2", "fanfare.toml"),
            ("limits.filters_max", "3", "FANFARE__LIMITS__FILTERS_MAX"),
            ("limits.subscriptions_max", "4", "--subscriptions"),
        ];
        for (key, value, source) in cases {
            assert_eq!(setting(&loaded, key), (value.to_owned(), source.to_owned()), "{key}");
        }
        assert_eq!(loaded.config.limits.subscriptions_max, 4);
    }

    #[test]
    fn every_kind_of_value_can_be_a_variable() {
        let of = |name: &str, value: &str| config(env(name, value));
        assert_eq!(of("FANFARE__SHARDS", "3").shards, Some(3));
        assert_eq!(of("FANFARE__SHARDS", "auto").shards, None);
        assert!(of("FANFARE__INSECURE", "true").insecure);
        assert_eq!(of("FANFARE__LISTEN__ADMIN", "off").listen.admin, None);
        assert_eq!(of("FANFARE__LISTEN__PUBLIC", "[::1]:0").listen.public.port(), 0);
        assert_eq!(of("FANFARE__LOG__LEVEL", "debug").log.level, LogLevel::Debug);
        assert_eq!(of("FANFARE__TOPICS__HISTORY__MESSAGES", "0").topics.history.messages, 0);
        let grace = of("FANFARE__SHUTDOWN__GRACE", "1m 30s").shutdown.grace;
        assert_eq!(grace, Duration::from_secs(90));
        let bytes = of("FANFARE__LIMITS__MESSAGE_BYTES_MAX", "1 KiB").limits.message_bytes_max;
        assert_eq!(bytes, 1024);
        let origins = of("FANFARE__WEBSOCKET__ORIGINS", "https://a.example, http://b.example:81");
        assert_eq!(origins.websocket.origins, ["https://a.example", "http://b.example:81"]);
    }

    #[test]
    fn variables_without_the_whole_prefix_are_not_ours() {
        for name in ["FANFARE_PORT", "FANFARE_SERVICE_HOST", "XFANFARE__SHARDS", "fanfare__shards"]
        {
            assert_eq!(config(env(name, "tcp://10.0.0.1:7600")), Config::default(), "{name}");
        }
    }

    #[test]
    fn a_rule_leaves_what_it_does_not_say_to_the_general_history() {
        let loaded = load(file(
            "[topics.history]\nage = '2m'\n\
             [[topics.rules]]\nfilter = 'ticker.>'\nhistory = { messages = 1 }\n\
             [[topics.rules]]\nfilter = '>'\nhistory.bytes = '2 KiB'\nhistory.age = 'inherit'",
        ))
        .expect("sound");
        let topics = &loaded.config.topics;
        let rule = |filter: &str, history| Rule {
            history,
            ..Rule::new(TopicFilter::parse(filter).expect("valid filter"))
        };
        let first = RuleHistory { messages: Some(1), ..RuleHistory::default() };
        let second = RuleHistory { bytes: Some(2048), ..RuleHistory::default() };
        assert_eq!(topics.rules, [rule("ticker.>", first), rule(">", second)]);

        let topic = TopicName::parse("ticker.AAPL").expect("valid name");
        assert_eq!(topics.rule(&topic).map(|(index, _)| index), Some(0));
        let history = topics.to_rules().of(&topic).history;
        assert_eq!((history.messages, history.bytes), (1, 1 << 20));
        assert_eq!(history.age, Duration::from_mins(2));

        let cases = [
            ("topics.rules[0].filter", "ticker.>", "fanfare.toml"),
            ("topics.rules[0].history.messages", "1", "fanfare.toml"),
            ("topics.rules[0].history.age", "2m", "topics.history.age"),
            ("topics.rules[1].history.age", "2m", "topics.history.age"),
            ("topics.rules[1].history.bytes", "2 KiB", "fanfare.toml"),
            ("topics.rules[1].idle_ttl", "1m", "topics.idle_ttl"),
            ("topics.rules[1].snapshot", "latest", "default"),
        ];
        for (key, value, source) in cases {
            assert_eq!(setting(&loaded, key), (value.to_owned(), source.to_owned()), "{key}");
        }
    }

    #[test]
    fn what_a_rule_decides_about_itself_names_the_key_that_decides() {
        let loaded = load(file(
            "[[topics.rules]]\nfilter = 'a'\nmax_hz = 2.5\nhistory.messages = 0\n\
             [[topics.rules]]\nfilter = 'b'\npolicy = 'latest'\nmax_hz = 3\noverflow = 'gap'\n\
             [[topics.rules]]\nfilter = 'c'\noverflow = 'auto'",
        ))
        .expect("sound");
        let cases = [
            ("topics.rules[0].policy", "maxHz", "topics.rules[0].max_hz"),
            ("topics.rules[0].max_hz", "2.5", "fanfare.toml"),
            ("topics.rules[0].overflow", "gap", "topics.rules[0].history.messages"),
            ("topics.rules[1].policy", "latest", "fanfare.toml"),
            ("topics.rules[1].max_hz", "3", "fanfare.toml"),
            ("topics.rules[1].overflow", "gap", "fanfare.toml"),
            ("topics.rules[2].policy", "all", "default"),
            ("topics.rules[2].overflow", "catchUp", "fanfare.toml"),
        ];
        for (key, value, source) in cases {
            assert_eq!(setting(&loaded, key), (value.to_owned(), source.to_owned()), "{key}");
        }
    }

    #[test]
    fn a_deeply_nested_file_is_refused() {
        for text in [
            format!("{}a = 1", "a.".repeat(500_000)),
            format!("[{}a]", "a.".repeat(500_000)),
            format!("a = {}", "[".repeat(500_000)),
            format!("a = {}", "{a=".repeat(300_000)),
            format!("{} = 1", "a".repeat(1_000_000)),
        ] {
            let refusal = refused(file(&text));
            assert!(refusal.starts_with("fanfare.toml: "));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_configuration_or_an_error(
            lines in prop::collection::vec(
                "(\\[{0,2}(limits|topics|topics\\.rules|log)\\]{0,2}|\
                  (shards|history|filter|limits\\.filters_max|\"\\PC{0,3}\"|\\PC{0,4}) = \
                  ([0-9]{1,20}|'\\PC{0,6}'|\\[\\]|\\{\\}|\\PC{0,6}))",
                0..6,
            ),
        ) {
            if let Err(error) = load(file(&lines.join("\n"))) {
                prop_assert!(error.to_string().starts_with("fanfare.toml: "));
            }
        }

        #[test]
        fn any_variable_is_a_setting_or_an_error_with_its_name(
            name in "(SHARDS|LOG__LEVEL|LIMITS__[A-Z_]{0,8}|\\PC{0,10})",
            value in "\\PC{0,12}",
        ) {
            let name = format!("FANFARE__{name}");
            if let Err(error) = load(env(&name, &value)) {
                prop_assert!(error.to_string().starts_with(&name));
            }
        }
    }
}
