//! `fanfare check`: every setting with its source, and what a topic keeps and grants by which rule.
//! # Invariants: the report is a function of the configuration.
//! # Not here: what is wrong with a configuration (`config`).

use super::settings::CheckArgs;
use crate::config::{Loaded, Setting, Source};
use crate::topics::name::TopicName;
use std::process::ExitCode;

/// A column grows with its texts up to this many characters; a longer text pushes its line out.
const COLUMN_CHARACTERS_MAX: usize = 48;

/// Prints the report, or what is wrong.
pub fn run(args: &CheckArgs) -> ExitCode {
    match args.settings.load() {
        Ok(loaded) => super::say(&report(&loaded, &args.topics)),
        Err(error) => super::fail(&error),
    }
}

/// A table of every setting, or what each of these topics keeps and grants, and why.
fn report(loaded: &Loaded, topics: &[TopicName]) -> String {
    if topics.is_empty() {
        return table(&loaded.settings);
    }
    let explained: Vec<_> = topics.iter().map(|topic| explain(loaded, topic)).collect();
    explained.join("\n")
}

fn table(settings: &[Setting]) -> String {
    let rows = settings
        .iter()
        .map(|Setting { key, value, source }| [key.clone(), value.clone(), source.to_string()]);
    align(&rows.collect::<Vec<_>>())
}

fn align(rows: &[[String; 3]]) -> String {
    let keys = width(rows.iter().map(|[key, ..]| key));
    let values = width(rows.iter().map(|[_, value, _]| value));
    let line =
        |[key, value, source]: &[String; 3]| format!("{key:keys$}  {value:values$}  {source}\n");
    rows.iter().map(line).collect()
}

fn width<'a>(texts: impl Iterator<Item = &'a String>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0).min(COLUMN_CHARACTERS_MAX)
}

fn explain(loaded: &Loaded, topic: &TopicName) -> String {
    let topics = &loaded.config.topics;
    let rule = topics.rule(topic);
    let found = match rule {
        Some((index, rule)) => {
            format!("rule {} of {}, `{}`", index + 1, topics.rules.len(), rule.filter)
        }
        None => "no rule: topics.history and defaults".to_owned(),
    };
    let settings = loaded.granted(rule.map(|(index, _)| index));
    let rows = settings.into_iter().map(|Setting { key, value, source }| {
        let origin = origin(loaded, source);
        [format!("  {key}"), value, origin]
    });
    format!("{topic}: {found}\n{}", align(&rows.collect::<Vec<_>>()))
}

/// Where a value of a topic comes from, for a reader who has the topic's rule in mind.
fn origin(loaded: &Loaded, source: Source) -> String {
    match source {
        Source::Default => "default".to_owned(),
        Source::File(_) | Source::Variable(_) | Source::Flag(_) => "this rule".to_owned(),
        Source::Setting(key) => match key.split_once("].") {
            Some((_, key)) => format!("follows from {key}"),
            None => {
                let general = loaded.settings.iter().find(|setting| setting.key == key);
                let source = general.map_or(&Source::Default, |general| &general.source);
                format!("{key} ({source})")
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flag, Sources, load};
    use expect_test::{Expect, expect};
    use std::path::PathBuf;

    fn loaded(text: &str) -> Loaded {
        let file = Some((PathBuf::from("fanfare.toml"), text.to_owned()));
        load(Sources { file, ..Sources::default() }).expect("valid configuration")
    }

    fn check(text: &str, topic: &str, expected: &Expect) {
        let topic = TopicName::parse(topic).expect("valid name");
        expected.assert_eq(&report(&loaded(text), &[topic]));
    }

    const RULES: &str = "\
        [[topics.rules]]\n\
        filter = \"ticker.>\"\n\
        history = { messages = 10 }\n\
        [[topics.rules]]\n\
        filter = \"ticker.IBM\"\n\
        history = { messages = 20 }\n\
        [[topics.rules]]\n\
        filter = \"now.*\"\n\
        history = { messages = 0 }\n";

    #[test]
    fn the_first_rule_that_matches_is_named() {
        check(
            RULES,
            "ticker.IBM",
            &expect![[r"
            ticker.IBM: rule 1 of topics.rules, `ticker.>`
            history: at most 10 messages, 5m and 1 MiB
        "]],
        );
        check(
            RULES,
            "now.cpu",
            &expect![[r"
            now.cpu: rule 3 of topics.rules, `now.*`
            history: none
        "]],
        );
        check(
            RULES,
            "chat.1",
            &expect![[r"
            chat.1: no rule, so topics.history decides
            history: at most 1000 messages, 5m and 1 MiB
        "]],
        );
    }

    #[test]
    fn the_table_names_every_setting_with_its_source() {
        let text = "websocket.origins = ['https://a.example', 'https://b.example']\n\
                    limits.message_bytes_max = 100000\n\
                    [[topics.rules]]\nfilter = 'ticker.>'\nhistory.messages = 1";
        let flag = |name, key, value: &str| Flag { name, key, value: value.to_owned() };
        let loaded = load(Sources {
            file: Some((PathBuf::from("fanfare.toml"), text.to_owned())),
            env: vec![("FANFARE__SHUTDOWN__GRACE".to_owned(), "1m 30s".to_owned())],
            flags: vec![flag("--ingress", "listen.ingress", "off")],
        });
        let table = report(&loaded.expect("valid configuration"), &[]);
        expect![[r"
            shards                            auto                                  default
            insecure                          false                                 default
            listen.public                     127.0.0.1:7600                        default
            listen.ingress                    off                                   --ingress
            listen.admin                      127.0.0.1:7602                        default
            websocket.origins                 https://a.example, https://b.example  fanfare.toml
            websocket.ping_interval           25s                                   default
            websocket.pong_timeout            10s                                   default
            limits.connections_max            auto                                  default
            limits.message_bytes_max          100000 B                              fanfare.toml
            limits.fragments_max              64                                    default
            limits.subscriptions_max          128                                   default
            limits.filters_max                8                                     default
            limits.outbound_bytes_max         1 MiB                                 default
            limits.write_stall_max            10s                                   default
            limits.handshake_timeout          5s                                    default
            limits.http_body_bytes_max        1 MiB                                 default
            limits.topics_max                 1000000                               default
            limits.snapshot_topics_max        1024                                  default
            limits.resume_messages_max        1000                                  default
            limits.resume_bytes_max           512 KiB                               default
            limits.mailbox_messages_max       65536                                 default
            limits.mailbox_bytes_max          64 MiB                                default
            limits.bad_commands_max           16                                    default
            topics.idle_ttl                   1m                                    default
            topics.history_bytes_max          256 MiB                               default
            topics.idempotency_window         5m                                    default
            topics.idempotency_keys_max       100000                                default
            topics.history.messages           1000                                  default
            topics.history.age                5m                                    default
            topics.history.bytes              1 MiB                                 default
            topics.rules[0].filter            ticker.>                              fanfare.toml
            topics.rules[0].history.messages  1                                     fanfare.toml
            topics.rules[0].history.age       5m                                    topics.history.age
            topics.rules[0].history.bytes     1 MiB                                 topics.history.bytes
            log.format                        auto                                  default
            log.level                         info                                  default
            shutdown.grace                    1m 30s                                FANFARE__SHUTDOWN__GRACE
        "]].assert_eq(&table);
    }

    #[test]
    fn a_long_value_does_not_push_every_source_away() {
        let origin = format!("https://{}.example", "a".repeat(100));
        let table = report(&loaded(&format!("websocket.origins = ['{origin}']")), &[]);
        let widest = |lines: &mut dyn Iterator<Item = &str>| lines.map(str::len).max();
        let (long, short): (Vec<_>, Vec<_>) =
            table.lines().partition(|line| line.contains(&origin));
        assert!(long.iter().all(|line| line.ends_with(&format!("{origin}  fanfare.toml"))));
        assert!(widest(&mut short.into_iter()) < Some(2 * COLUMN_CHARACTERS_MAX));
    }
}
