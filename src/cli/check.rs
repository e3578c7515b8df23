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
    let rules = &loaded.config.topics.rules;
    let rule = loaded.config.topics.rule(topic);
    let found = match rule {
        Some((index, rule)) => {
            let (number, count) = (index + 1, rules.len());
            format!("rule {number} of {count} (topics.rules[{index}]), {}", rule.filter)
        }
        None => "no rule, so topics.history and defaults".to_owned(),
    };
    let mut settings = loaded.granted(rule.map(|(index, _)| index));
    leave_out_idle(&mut settings);
    let rows = settings.into_iter().map(|Setting { key, value, source }| {
        let origin = origin(loaded, source);
        [format!("  {key}"), value, origin]
    });
    format!("{topic}: {found}\n{}", align(&rows.collect::<Vec<_>>()))
}

/// Keys that mean nothing while another one has this value.
const IDLE: [(&str, &str, &str); 4] = [
    ("history.age", "history.messages", "0"),
    ("history.bytes", "history.messages", "0"),
    ("snapshot_keys_max", "snapshot", "latest"),
    ("presence_members_max", "presence", "false"),
];

/// Leaves out what means nothing for the topic, unless its rule says it in so many words.
fn leave_out_idle(settings: &mut Vec<Setting>) {
    let has = |key: &str, value: &str| {
        settings.iter().any(|setting| setting.key == key && setting.value == value)
    };
    let idle: Vec<_> = IDLE.iter().filter(|(_, key, value)| has(key, value)).collect();
    settings.retain(|setting| {
        let is_said = !matches!(setting.source, Source::Default | Source::Setting(_));
        is_said || idle.iter().all(|(key, ..)| *key != setting.key)
    });
}

/// Where a value of a topic comes from, for a reader who has the topic's rule in mind.
fn origin(loaded: &Loaded, source: Source) -> String {
    let key = match source {
        Source::Default => return "default".to_owned(),
        Source::File(_) | Source::Variable(_) | Source::Flag(_) => return "this rule".to_owned(),
        Source::Setting(key) => key,
    };
    if let Some((_, own)) = key.split_once("].") {
        return format!("follows from {own}");
    }
    let general = loaded.settings.iter().find(|setting| setting.key == key);
    let source = general.map_or(&Source::Default, |general| &general.source);
    format!("from {key} ({source})")
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
        topics.history.age = '2m'\n\
        [[topics.rules]]\n\
        filter = 'ticker.>'\n\
        group = 'prices'\n\
        history.messages = 10\n\
        snapshot = 'keys'\n\
        max_hz = 0.5\n\
        stale_after = '30s'\n\
        [[topics.rules]]\n\
        filter = 'ticker.IBM'\n\
        [[topics.rules]]\n\
        filter = 'now.*'\n\
        history.messages = 0\n\
        presence = true\n\
        snapshot_keys_max = 7\n";

    #[test]
    fn the_first_rule_that_matches_says_everything() {
        check(
            RULES,
            "ticker.IBM",
            &expect![[r"
                ticker.IBM: rule 1 of 3 (topics.rules[0]), ticker.>
                  group              prices   this rule
                  history.messages   10       this rule
                  history.age        2m       from topics.history.age (fanfare.toml)
                  history.bytes      1 MiB    from topics.history.bytes (default)
                  snapshot           keys     this rule
                  snapshot_keys_max  1000     default
                  overflow           catchUp  default
                  policy             maxHz    follows from max_hz
                  max_hz             0.5      this rule
                  presence           false    default
                  idle_ttl           1m       from topics.idle_ttl (default)
                  stale_after        30s      this rule
            "]],
        );
    }

    #[test]
    fn what_follows_from_something_else_says_from_what() {
        check(
            RULES,
            "now.cpu",
            &expect![[r"
                now.cpu: rule 3 of 3 (topics.rules[2]), now.*
                  group                 other   default
                  history.messages      0       this rule
                  snapshot              latest  default
                  snapshot_keys_max     7       this rule
                  overflow              gap     follows from history.messages
                  policy                all     default
                  max_hz                off     default
                  presence              true    this rule
                  presence_members_max  1000    default
                  idle_ttl              1m      from topics.idle_ttl (default)
                  stale_after           off     default
            "]],
        );
    }

    #[test]
    fn a_topic_without_a_rule_has_the_general_history() {
        check(
            RULES,
            "chat.1",
            &expect![[r"
                chat.1: no rule, so topics.history and defaults
                  group             other    default
                  history.messages  1000     from topics.history.messages (default)
                  history.age       2m       from topics.history.age (fanfare.toml)
                  history.bytes     1 MiB    from topics.history.bytes (default)
                  snapshot          latest   default
                  overflow          catchUp  default
                  policy            all      default
                  max_hz            off      default
                  presence          false    default
                  idle_ttl          1m       from topics.idle_ttl (default)
                  stale_after       off      default
            "]],
        );
    }

    #[test]
    fn what_is_said_of_a_topic_is_what_the_broker_keeps_to() {
        let loaded = loaded(RULES);
        let rules = loaded.config.topics.to_rules();
        for (raw, index) in [("ticker.IBM", Some(0)), ("now.cpu", Some(2)), ("chat.1", None)] {
            let topic = TopicName::parse(raw).expect("valid name");
            let said = loaded.granted(index);
            let said = |key: &str| {
                let setting = said.iter().find(|setting| setting.key == key);
                setting.map(|setting| setting.value.clone()).expect("a setting")
            };
            let kept = rules.of(&topic);
            let group = loaded.config.topics.groups()[usize::from(kept.group)];
            assert_eq!(said("group"), group, "{raw}");
            assert_eq!(said("history.messages"), kept.history.messages.to_string(), "{raw}");
            assert_eq!(said("overflow"), kept.overflow(None).name(), "{raw}");
            assert_eq!(said("policy"), kept.cap.unwrap_or_default().name(), "{raw}");
        }
    }

    #[test]
    fn each_topic_is_told_by_itself() {
        let topics = ["a", "b"].map(|name| TopicName::parse(name).expect("valid name"));
        let loaded = loaded(RULES);
        let each = topics.each_ref().map(|topic| report(&loaded, std::slice::from_ref(topic)));
        assert_eq!(report(&loaded, &topics), each.join("\n"));
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "every setting is one")]
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
            shards                                auto                                  default
            insecure                              false                                 default
            listen.public                         127.0.0.1:7600                        default
            listen.ingress                        off                                   --ingress
            listen.admin                          127.0.0.1:7602                        default
            listen.trusted_proxies                none                                  default
            listen.proxy_protocol                 false                                 default
            auth.audience                         off                                   default
            auth.issuer                           off                                   default
            auth.leeway                           30s                                   default
            auth.jwks                             off                                   default
            auth.jwks_refresh                     5m                                    default
            auth.jwks_ca                          off                                   default
            auth.revocations_max                  10000                                 default
            auth.anonymous.subscribe              none                                  default
            auth.anonymous.publish                none                                  default
            auth.keys                             none                                  default
            auth.certificates                     none                                  default
            auth.tokens                           none                                  default
            admin.token                           off                                   default
            admin.dashboard                       false                                 default
            admin.metrics_age                     1s                                    default
            tls.certificate                       off                                   default
            tls.key                               off                                   default
            tls.client_ca                         off                                   default
            tls.public                            true                                  default
            tls.ingress                           true                                  default
            tls.admin                             false                                 default
            websocket.origins                     https://a.example, https://b.example  fanfare.toml
            websocket.ping_interval               25s                                   default
            websocket.pong_timeout                10s                                   default
            websocket.compression                 false                                 default
            limits.connections_max                auto                                  default
            limits.message_bytes_max              100000 B                              fanfare.toml
            limits.fragments_max                  64                                    default
            limits.subscriptions_max              128                                   default
            limits.filters_max                    8                                     default
            limits.outbound_bytes_max             1 MiB                                 default
            limits.outbound_age_max               5s                                    default
            limits.outbound_total_bytes_max       256 MiB                               default
            limits.publish_rate                   50                                    default
            limits.publish_burst                  100                                   default
            limits.delivery_rate                  100000                                default
            limits.topic_rate                     100                                   default
            limits.topic_burst                    1000                                  default
            limits.subscribe_rate                 100                                   default
            limits.subscribe_burst                128                                   default
            limits.control_rate                   20                                    default
            limits.control_burst                  50                                    default
            limits.message_timeout                30s                                   default
            limits.memory_max                     auto                                  default
            limits.cursors_max                    16384                                 default
            limits.write_stall_max                10s                                   default
            limits.handshake_timeout              5s                                    default
            limits.authenticate                   10s                                   default
            limits.pending_timeout                10s                                   default
            limits.pending_max                    4096                                  default
            limits.tls_handshakes_max             1024                                  default
            limits.accept_rate                    10000                                 default
            limits.address_rate                   50                                    default
            limits.address_burst                  200                                   default
            limits.address_connections_max        off                                   default
            limits.http_body_bytes_max            1 MiB                                 default
            limits.topics_max                     1000000                               default
            limits.snapshot_topics_max            1024                                  default
            limits.resume_messages_max            1000                                  default
            limits.resume_bytes_max               512 KiB                               default
            limits.mailbox_messages_max           65536                                 default
            limits.mailbox_bytes_max              64 MiB                                default
            limits.bad_commands_max               16                                    default
            topics.idle_ttl                       1m                                    default
            topics.history_bytes_max              256 MiB                               default
            topics.idempotency_window             5m                                    default
            topics.idempotency_keys_max           100000                                default
            topics.history.messages               1000                                  default
            topics.history.age                    5m                                    default
            topics.history.bytes                  1 MiB                                 default
            topics.rules[0].filter                ticker.>                              fanfare.toml
            topics.rules[0].group                 other                                 default
            topics.rules[0].history.messages      1                                     fanfare.toml
            topics.rules[0].history.age           5m                                    topics.history.age
            topics.rules[0].history.bytes         1 MiB                                 topics.history.bytes
            topics.rules[0].snapshot              latest                                default
            topics.rules[0].snapshot_keys_max     1000                                  default
            topics.rules[0].overflow              catchUp                               default
            topics.rules[0].policy                all                                   default
            topics.rules[0].max_hz                off                                   default
            topics.rules[0].presence              false                                 default
            topics.rules[0].presence_members_max  1000                                  default
            topics.rules[0].idle_ttl              1m                                    topics.idle_ttl
            topics.rules[0].stale_after           off                                   default
            log.format                            auto                                  default
            log.level                             info                                  default
            shutdown.delay                        0s                                    default
            shutdown.spread                       1m                                    default
            shutdown.grace                        1m 30s                                FANFARE__SHUTDOWN__GRACE
            shutdown.reconnect_after              0s                                    default
            shutdown.snapshot                     off                                   default
            shutdown.termination_grace            off                                   default
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
