//! Which settings may change while a broker runs.
//! # Invariants: a setting that is not named here needs a restart; nothing is told of a value, only
//! of keys.
//! # Not here: how they are put into force (`server`), how the new ones are read (`load`).

use super::bounds;
use super::keys::Node;
use super::{Config, Limits, Listen, Log, Shutdown, Tls, Topics, WebSocket};
use crate::control::{BadReload, Changes};
use std::collections::BTreeMap;

/// Settings that name files, which may hold something else although their names are the same.
const FILES: [&str; 5] =
    ["tls.certificate", "tls.key", "tls.client_ca", "auth.jwks", "auth.jwks_ca"];

/// What becomes of a new configuration: what is in force then, and what that changes.
///
/// # Errors
/// [`BadReload`] when the new settings do not fit those that need a restart.
pub fn adopt(current: &Config, new: &Config) -> Result<(Config, Changes), BadReload> {
    let adopted = live(current, new);
    bounds::check(&adopted).map_err(|fault| {
        let text = fault.text;
        BadReload(format!("with the settings that need a restart as they were: {text}"))
    })?;
    let leaves = |config| Leaves::of(config).map_err(|error| BadReload(error.to_string()));
    let (before, after, wanted) = (leaves(current)?, leaves(&adopted)?, leaves(new)?);
    let changes = Changes {
        changed: before.differing(&after),
        read_anew: after.files(),
        needs_restart: after.differing(&wanted),
    };
    Ok((adopted, changes))
}

/// The current configuration with all of the new one that may change.
fn live(current: &Config, new: &Config) -> Config {
    Config {
        shards: current.shards,
        insecure: new.insecure,
        listen: Listen {
            trusted_proxies: new.listen.trusted_proxies.clone(),
            ..current.listen.clone()
        },
        auth: new.auth.clone(),
        admin: new.admin.clone(),
        tls: tls(&current.tls, &new.tls),
        websocket: WebSocket {
            origins: new.websocket.origins.clone(),
            pong_timeout: new.websocket.pong_timeout,
            compression: new.websocket.compression,
            ping_interval: current.websocket.ping_interval,
        },
        limits: limits(&current.limits, &new.limits),
        topics: topics(&current.topics, &new.topics),
        log: Log { level: new.log.level, format: current.log.format },
        shutdown: Shutdown::clone(&new.shutdown),
    }
}

/// Whether a listener speaks TLS stays; by which certificate may change.
fn tls(current: &Tls, new: &Tls) -> Tls {
    if current.certificate.is_none() || new.certificate.is_none() {
        return current.clone();
    }
    let Tls { certificate, key, client_ca, .. } = new.clone();
    Tls { certificate, key, client_ca, ..current.clone() }
}

/// What sizes something at the start stays.
fn limits(current: &Limits, new: &Limits) -> Limits {
    Limits {
        outbound_total_bytes_max: current.outbound_total_bytes_max,
        memory_max: current.memory_max,
        topics_max: current.topics_max,
        resume_messages_max: current.resume_messages_max,
        resume_bytes_max: current.resume_bytes_max,
        mailbox_messages_max: current.mailbox_messages_max,
        mailbox_bytes_max: current.mailbox_bytes_max,
        ..new.clone()
    }
}

/// A name of a group that was not there at the start is not counted before the next one.
fn topics(current: &Topics, new: &Topics) -> Topics {
    let groups = current.groups();
    let mut topics = Topics {
        history_bytes_max: current.history_bytes_max,
        idempotency_window: current.idempotency_window,
        idempotency_keys_max: current.idempotency_keys_max,
        ..new.clone()
    };
    for rule in &mut topics.rules {
        rule.group = rule.group.take().filter(|group| groups.contains(&group.as_str()));
    }
    topics
}

/// Every setting of a configuration and its value.
struct Leaves(BTreeMap<String, String>);

impl Leaves {
    fn of(config: &Config) -> Result<Leaves, serde_json::Error> {
        Ok(Leaves(Node::of(config)?.leaves().into_iter().collect()))
    }

    /// The keys that only one has, or that have another value in the other.
    fn differing(&self, other: &Leaves) -> Vec<String> {
        let gone = self.0.iter().filter(|(key, _)| !other.0.contains_key(*key));
        let other = other.0.iter().filter(|(key, value)| self.0.get(*key) != Some(value));
        let mut keys: Vec<String> = gone.chain(other).map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys
    }

    /// The keys that name a file.
    fn files(&self) -> Vec<String> {
        let names_file = |key: &str| FILES.contains(&key) || is_key_file(key);
        let set = self.0.iter().filter(|(key, value)| names_file(key) && is_file(value));
        set.map(|(key, _)| key.clone()).collect()
    }
}

/// Whether this is the file of one of the keys of JWTs.
fn is_key_file(key: &str) -> bool {
    key.starts_with("auth.keys[") && key.ends_with("].file")
}

fn is_file(value: &str) -> bool {
    let value = value.trim_matches('"');
    value != "off" && !value.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::config::words::file;

    fn config(text: &str) -> Config {
        load(file(text)).expect("sound").config
    }

    fn adopted(current: &str, new: &str) -> Changes {
        adopt(&config(current), &config(new)).expect("they fit").1
    }

    #[test]
    fn a_change_is_in_force_or_needs_a_restart() {
        let (live, restart) = (true, false);
        let cases = [
            ("limits.cursors_max", "5", live),
            ("limits.message_bytes_max", "5", live),
            ("limits.accept_rate", "5", live),
            ("limits.message_timeout", "'5s'", live),
            ("limits.subscribe_rate", "'off'", live),
            ("limits.topics_max", "5", restart),
            ("limits.memory_max", "'1 GiB'", restart),
            ("limits.mailbox_messages_max", "5", restart),
            ("limits.resume_messages_max", "5", restart),
            ("limits.outbound_total_bytes_max", "'1 GiB'", restart),
            ("topics.idle_ttl", "'5s'", live),
            ("topics.history.messages", "5", live),
            ("topics.history_bytes_max", "'1 GiB'", restart),
            ("topics.idempotency_window", "'5s'", restart),
            ("websocket.pong_timeout", "'5s'", live),
            ("websocket.compression", "true", live),
            ("websocket.ping_interval", "'20s'", restart),
            ("auth.leeway", "'5s'", live),
            ("admin.metrics_age", "'5s'", live),
            ("log.level", "'debug'", live),
            ("log.format", "'json'", restart),
            ("shutdown.grace", "'1s'", live),
            ("shutdown.snapshot", "'x'", live),
            ("insecure", "true", live),
            ("shards", "5", restart),
            ("listen.public", "'127.0.0.1:1'", restart),
            ("listen.trusted_proxies", "['127.0.0.1']", live),
        ];
        for (key, value, is_live) in cases {
            let changes = adopted("", &format!("{key} = {value}"));
            let (here, elsewhere) = if is_live {
                (changes.changed, changes.needs_restart)
            } else {
                (changes.needs_restart, changes.changed)
            };
            assert_eq!(elsewhere, [""; 0], "{key}");
            assert!(!here.is_empty() && here.iter().all(|found| found.starts_with(key)), "{key}");
        }
    }

    #[test]
    fn nothing_changes_where_nothing_did() {
        assert_eq!(adopted("limits.cursors_max = 5", "limits.cursors_max = 5"), Changes::default());
    }

    #[test]
    fn a_certificate_changes_and_whether_there_is_one_does_not() {
        let tls = |name| format!("tls.certificate = '{name}.pem'\ntls.key = '{name}.key'");
        let changes = adopted(&tls("a"), &tls("b"));
        let both = ["tls.certificate", "tls.key"].map(ToOwned::to_owned);
        assert_eq!((&*changes.changed, &*changes.read_anew), (&both[..], &both[..]));
        assert_eq!(changes.needs_restart, [""; 0]);
        for (current, new) in [(tls("a"), String::new()), (String::new(), tls("a"))] {
            let changes = adopted(&current, &new);
            assert_eq!((&*changes.changed, &*changes.needs_restart), (&[][..], &both[..]));
        }
    }

    #[test]
    fn what_would_be_unsafe_with_the_listeners_there_are_is_refused() {
        let current = config("insecure = true\nlisten.public = '0.0.0.0:7600'");
        let refused = adopt(&current, &config("")).expect_err("it stays on every address");
        assert!(refused.0.contains("as they were: `listen.public`"), "{refused}");
    }
}
