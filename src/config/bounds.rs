//! Which values make sense: least and most of every number, and how settings relate.
//! # Invariants: nothing outside `config` meets a value that these rows refuse.
//! # Not here: how values are spelled (`form`).

use super::form::{print_size, print_span};
use super::{
    Auth, Cap, Config, History, Limits, Rule, SHARDS_MAX, SNAPSHOT_TIME_MAX, Shutdown, Topics,
    listeners,
};
use crate::topics::name::TopicFilter;
use crate::topics::terms::Overflow;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const MILLION: usize = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const YEAR: Duration = Duration::from_hours(365 * 24);
/// The shortest timeout that does not fire by mere scheduling.
const BLINK: Duration = Duration::from_millis(100);

/// Most rules and most origins: both are searched from the front.
const LIST_MAX: usize = 1024;
/// Most networks of proxies: all are looked through for each connection.
const PROXIES_MAX: usize = 64;
/// Most names of groups: each is a series of its own in every metric that has groups.
const GROUPS_MAX: usize = 32;

/// Why a configuration is refused, and by which settings. The first is the one to blame, unless
/// it is at its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) keys: Vec<String>,
    pub(super) text: String,
}

/// Whether every value is within its bounds and fits the others.
pub(super) fn check(config: &Config) -> Result<(), Fault> {
    check_rows(config)?;
    check_relations(config)?;
    check_histories(&config.topics)?;
    check_rules(&config.topics)?;
    check_auth(&config.auth)?;
    check_shutdown(&config.shutdown)?;
    listeners::check(config)
}

/// An amount in the unit of its setting.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Amount {
    Count(usize),
    Bytes(usize),
    Span(Duration),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Bytes(bytes) => f.write_str(&print_size(*bytes)),
            Amount::Span(span) => f.write_str(&print_span(*span)),
        }
    }
}

/// A setting, its value, and the least and most it may be.
struct Row {
    key: String,
    value: Amount,
    least: Amount,
    most: Amount,
}

impl Row {
    fn check(&self) -> Result<(), Fault> {
        let words = if self.value < self.least {
            format!("the least is {}", self.least)
        } else if self.value > self.most {
            format!("the most is {}", self.most)
        } else {
            return Ok(());
        };
        Err(Fault {
            keys: vec![self.key.clone()],
            text: format!("`{}` is {}, {words}", self.key, self.value),
        })
    }
}

fn count(key: impl Into<String>, value: usize, range: RangeInclusive<usize>) -> Row {
    row(key, value, range, Amount::Count)
}

fn bytes(key: impl Into<String>, value: usize, range: RangeInclusive<usize>) -> Row {
    row(key, value, range, Amount::Bytes)
}

fn span(key: impl Into<String>, value: Duration, range: RangeInclusive<Duration>) -> Row {
    row(key, value, range, Amount::Span)
}

fn row<T: Copy>(
    key: impl Into<String>,
    value: T,
    range: RangeInclusive<T>,
    amount: fn(T) -> Amount,
) -> Row {
    Row {
        key: key.into(),
        value: amount(value),
        least: amount(*range.start()),
        most: amount(*range.end()),
    }
}

fn check_rows(config: &Config) -> Result<(), Fault> {
    rows(config).iter().try_for_each(Row::check)
}

fn rows(config: &Config) -> Vec<Row> {
    let mut rows = limit_rows(&config.limits);
    rows.extend(topic_rows(&config.topics));
    rows.extend(general_rows(config));
    rows
}

/// A number that can be set, and how little and how much it may be, as a person would write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its full key; that of a rule begins with `topics.rules[0]`.
    pub key: String,
    /// The least.
    pub least: String,
    /// The most, unless it is what a machine can count.
    pub most: Option<String>,
}

/// Every number that can be set, limits first.
pub fn numbers() -> Vec<Bounds> {
    let mut config = Config::default();
    let rule = TopicFilter::parse(">").map(Rule::new);
    config.topics.rules =
        rule.map(|rule| Rule { stale_after: Some(SECOND), ..rule }).into_iter().collect();
    let bounds = |row: Row| Bounds {
        key: row.key,
        least: row.least.to_string(),
        most: (row.most != Amount::Bytes(usize::MAX)).then(|| row.most.to_string()),
    };
    rows(&config).into_iter().map(bounds).collect()
}

fn general_rows(config: &Config) -> Vec<Row> {
    let (socket, auth) = (&config.websocket, &config.auth);
    vec![
        span("auth.leeway", auth.leeway, Duration::ZERO..=HOUR / 6),
        span("admin.metrics_age", config.admin.metrics_age, Duration::ZERO..=HOUR),
        span("auth.jwks_refresh", auth.jwks_refresh, SECOND..=24 * HOUR),
        count("auth.revocations_max", auth.revocations_max, 1..=MILLION),
        count("auth.keys", auth.keys.len(), 0..=LIST_MAX),
        count("auth.certificates", auth.certificates.len(), 0..=LIST_MAX),
        count("auth.tokens", auth.tokens.len(), 0..=LIST_MAX),
        count("auth.anonymous.subscribe", auth.anonymous.subscribe.len(), 0..=LIST_MAX),
        count("auth.anonymous.publish", auth.anonymous.publish.len(), 0..=LIST_MAX),
        count("shards", config.shards.unwrap_or(1), 1..=SHARDS_MAX),
        count("websocket.origins", socket.origins.len(), 0..=LIST_MAX),
        count("listen.trusted_proxies", config.listen.trusted_proxies.len(), 0..=PROXIES_MAX),
        span("websocket.ping_interval", socket.ping_interval, SECOND..=HOUR),
        span("websocket.pong_timeout", socket.pong_timeout, BLINK..=HOUR),
        span("shutdown.delay", config.shutdown.delay, Duration::ZERO..=HOUR),
        span("shutdown.spread", config.shutdown.spread, Duration::ZERO..=HOUR),
        span("shutdown.grace", config.shutdown.grace, Duration::ZERO..=HOUR),
        span("shutdown.reconnect_after", config.shutdown.reconnect_after, Duration::ZERO..=HOUR),
    ]
}

fn limit_rows(limits: &Limits) -> Vec<Row> {
    let connections = limits.connections_max.unwrap_or(1);
    let of_address = limits.address_connections_max.unwrap_or(1);
    vec![
        count("limits.connections_max", connections, 1..=100 * MILLION),
        bytes("limits.message_bytes_max", limits.message_bytes_max, 1..=64 * MIB),
        count("limits.fragments_max", limits.fragments_max, 1..=64 * KIB),
        count("limits.subscriptions_max", limits.subscriptions_max, 1..=MILLION),
        count("limits.filters_max", limits.filters_max, 0..=MILLION),
        bytes("limits.outbound_bytes_max", limits.outbound_bytes_max, 1..=GIB),
        span("limits.outbound_age_max", limits.outbound_age_max, SECOND..=HOUR),
        bytes("limits.outbound_total_bytes_max", limits.outbound_total_bytes_max, 1..=usize::MAX),
        count("limits.publish_rate", limits.publish_rate.unwrap_or(1), 1..=MILLION),
        count("limits.publish_burst", limits.publish_burst, 1..=MILLION),
        count("limits.delivery_rate", limits.delivery_rate.unwrap_or(1), 1..=MILLION),
        count("limits.topic_rate", limits.topic_rate.unwrap_or(1), 1..=MILLION),
        count("limits.topic_burst", limits.topic_burst, 1..=MILLION),
        count("limits.subscribe_rate", limits.subscribe_rate.unwrap_or(1), 1..=MILLION),
        count("limits.subscribe_burst", limits.subscribe_burst, 1..=MILLION),
        count("limits.control_rate", limits.control_rate.unwrap_or(1), 1..=MILLION),
        count("limits.control_burst", limits.control_burst, 1..=MILLION),
        span("limits.message_timeout", limits.message_timeout, SECOND..=HOUR),
        bytes("limits.memory_max", limits.memory_max.unwrap_or(GIB), 64 * MIB..=usize::MAX),
        count("limits.cursors_max", limits.cursors_max, 1..=MILLION),
        span("limits.write_stall_max", limits.write_stall_max, BLINK..=HOUR),
        span("limits.handshake_timeout", limits.handshake_timeout, BLINK..=HOUR),
        span("limits.authenticate", limits.authenticate, SECOND..=HOUR),
        span("limits.pending_timeout", limits.pending_timeout, BLINK..=HOUR),
        count("limits.pending_max", limits.pending_max, 1..=100 * MILLION),
        count("limits.tls_handshakes_max", limits.tls_handshakes_max, 1..=MILLION),
        count("limits.accept_rate", limits.accept_rate, 1..=MILLION),
        count("limits.address_rate", limits.address_rate, 1..=MILLION),
        count("limits.address_burst", limits.address_burst, 1..=MILLION),
        count("limits.address_connections_max", of_address, 1..=100 * MILLION),
        bytes("limits.http_body_bytes_max", limits.http_body_bytes_max, 1..=GIB),
        count("limits.topics_max", limits.topics_max, 1..=100 * MILLION),
        count("limits.snapshot_topics_max", limits.snapshot_topics_max, 1..=MILLION),
        count("limits.resume_messages_max", limits.resume_messages_max, 1..=MILLION),
        bytes("limits.resume_bytes_max", limits.resume_bytes_max, 1..=GIB),
        count("limits.mailbox_messages_max", limits.mailbox_messages_max, 1..=100 * MILLION),
        bytes("limits.mailbox_bytes_max", limits.mailbox_bytes_max, 1..=usize::MAX),
        count("limits.bad_commands_max", limits.bad_commands_max, 1..=MILLION),
    ]
}

fn topic_rows(topics: &Topics) -> Vec<Row> {
    let window = topics.idempotency_window;
    let mut rows = vec![
        span("topics.idle_ttl", topics.idle_ttl, SECOND..=YEAR),
        bytes("topics.history_bytes_max", topics.history_bytes_max, 1..=usize::MAX),
        span("topics.idempotency_window", window, SECOND..=24 * HOUR),
        count("topics.idempotency_keys_max", topics.idempotency_keys_max, 1..=100 * MILLION),
        count("topics.rules", topics.rules.len(), 0..=LIST_MAX),
    ];
    for (key, history) in histories(topics) {
        rows.push(count(format!("{key}.messages"), history.messages, 0..=100 * MILLION));
        rows.push(span(format!("{key}.age"), history.age, BLINK..=YEAR));
        rows.push(bytes(format!("{key}.bytes"), history.bytes, 1..=usize::MAX));
    }
    for (index, rule) in topics.rules.iter().enumerate() {
        let key = |name: &str| format!("topics.rules[{index}].{name}");
        let (keys, members) = (rule.snapshot_keys_max, rule.presence_members_max);
        rows.push(count(key("snapshot_keys_max"), keys, 1..=100_000));
        rows.push(count(key("presence_members_max"), members, 1..=100_000));
        rows.push(span(key("idle_ttl"), rule.idle_ttl.unwrap_or(topics.idle_ttl), SECOND..=YEAR));
        rows.extend(rule.stale_after.map(|after| span(key("stale_after"), after, SECOND..=YEAR)));
    }
    rows
}

/// The default history and those of the rules, each with its key.
fn histories(topics: &Topics) -> impl Iterator<Item = (String, History)> {
    let rules = topics.rules.iter().enumerate().map(|(index, rule)| {
        (format!("topics.rules[{index}].history"), rule.history.over(topics.history))
    });
    std::iter::once(("topics.history".to_owned(), topics.history)).chain(rules)
}

/// A setting that must not exceed another.
struct Relation {
    lesser: (&'static str, Amount),
    greater: (&'static str, Amount),
}

fn check_relations(config: &Config) -> Result<(), Fault> {
    let limits = &config.limits;
    let socket = &config.websocket;
    let message = ("limits.message_bytes_max", Amount::Bytes(limits.message_bytes_max));
    let room = |key, value| Relation { lesser: message, greater: (key, Amount::Bytes(value)) };
    let relations = [
        room("limits.outbound_bytes_max", limits.outbound_bytes_max),
        Relation {
            lesser: ("limits.outbound_bytes_max", Amount::Bytes(limits.outbound_bytes_max)),
            greater: (
                "limits.outbound_total_bytes_max",
                Amount::Bytes(limits.outbound_total_bytes_max),
            ),
        },
        room("limits.http_body_bytes_max", limits.http_body_bytes_max),
        room("limits.resume_bytes_max", limits.resume_bytes_max),
        room("limits.mailbox_bytes_max", limits.mailbox_bytes_max),
        Relation {
            lesser: ("limits.filters_max", Amount::Count(limits.filters_max)),
            greater: ("limits.subscriptions_max", Amount::Count(limits.subscriptions_max)),
        },
        Relation {
            lesser: ("limits.handshake_timeout", Amount::Span(limits.handshake_timeout)),
            greater: ("limits.pending_timeout", Amount::Span(limits.pending_timeout)),
        },
        Relation {
            lesser: ("websocket.pong_timeout", Amount::Span(socket.pong_timeout)),
            greater: ("websocket.ping_interval", Amount::Span(socket.ping_interval)),
        },
    ];
    relations.iter().try_for_each(Relation::check)
}

impl Relation {
    fn check(&self) -> Result<(), Fault> {
        let (greater, most) = self.greater;
        let (lesser, value) = self.lesser;
        if value <= most {
            return Ok(());
        }
        Err(Fault {
            keys: vec![greater.to_owned(), lesser.to_owned()],
            text: format!("`{greater}` is {most}, less than `{lesser}`, which is {value}"),
        })
    }
}

fn check_histories(topics: &Topics) -> Result<(), Fault> {
    let total = topics.history_bytes_max;
    for (key, history) in histories(topics) {
        if history.bytes > total {
            let text = format!(
                "`{key}.bytes` is {}, more than `topics.history_bytes_max`, which is {}",
                print_size(history.bytes),
                print_size(total)
            );
            let keys = vec![format!("{key}.bytes"), "topics.history_bytes_max".to_owned()];
            return Err(Fault { keys, text });
        }
    }
    Ok(())
}

fn check_rules(topics: &Topics) -> Result<(), Fault> {
    for (index, rule) in topics.rules.iter().enumerate() {
        let key = format!("topics.rules[{index}]");
        check_cap(rule, &key)?;
        check_overflow(rule, &key, topics.history)?;
    }
    check_groups(topics)
}

fn check_cap(rule: &Rule, key: &str) -> Result<(), Fault> {
    let (Some(rate), Some(Cap::All)) = (rule.max_hz, rule.policy) else { return Ok(()) };
    let keys = vec![format!("{key}.max_hz"), format!("{key}.policy")];
    let text = format!(
        "`{key}.max_hz` is {rate}, but `{key}.policy` is \"all\", which leaves nothing out: \
         take one of them away"
    );
    Err(Fault { keys, text })
}

fn check_overflow(rule: &Rule, key: &str, general: History) -> Result<(), Fault> {
    if rule.overflow != Some(Overflow::CatchUp) || rule.history.over(general).messages > 0 {
        return Ok(());
    }
    let section = if rule.history.messages.is_some() { key } else { "topics" };
    let keys = vec![format!("{key}.overflow"), format!("{section}.history.messages")];
    let text = format!(
        "`{key}.overflow` is \"catchUp\", but `{section}.history.messages` is 0, so there is \
         nothing to catch up from: keep some history, or choose \"gap\" or \"disconnect\""
    );
    Err(Fault { keys, text })
}

fn check_groups(topics: &Topics) -> Result<(), Fault> {
    // The first is `other`, which nobody names.
    let groups = topics.groups();
    let Some(name) = groups.get(GROUPS_MAX + 1) else { return Ok(()) };
    let named = topics.rules.iter().position(|rule| rule.group.as_deref() == Some(name));
    let key = format!("topics.rules[{}].group", named.unwrap_or_default());
    let text = format!("`{key}` is {name:?}, one name too many: the most are {GROUPS_MAX}");
    Err(Fault { keys: vec![key], text })
}

fn check_auth(auth: &Auth) -> Result<(), Fault> {
    let fault = |key: &str, text: String| Fault { keys: vec![key.to_owned()], text };
    if auth.has_keys() && auth.audience.is_none() {
        let key = if auth.jwks.is_some() { "auth.jwks" } else { "auth.keys" };
        let text = format!(
            "`{key}` is set, but `auth.audience` is not, so tokens that were made for others would \
             be taken: set it to what `aud` says in yours"
        );
        return Err(fault(key, text));
    }
    for (key, is_set) in
        [("auth.audience", auth.audience.is_some()), ("auth.issuer", auth.issuer.is_some())]
    {
        if is_set && !auth.has_keys() {
            let text = format!(
                "`{key}` is set, but there is no key to verify a token with: add `[[auth.keys]]` \
                 or set `auth.jwks`"
            );
            return Err(fault(key, text));
        }
    }
    if let Some(url) = auth.jwks.as_deref().filter(|jwks| is_open_url(jwks)) {
        let text = format!(
            "`auth.jwks` is {url:?}, and whoever is on the way could put keys of their own there: \
             use https or a file"
        );
        return Err(fault("auth.jwks", text));
    }
    check_tokens(auth)
}

fn check_shutdown(shutdown: &Shutdown) -> Result<(), Fault> {
    let Some(patience) = shutdown.termination_grace else { return Ok(()) };
    let writing = shutdown.snapshot.as_ref().map_or(Duration::ZERO, |_| SNAPSHOT_TIME_MAX);
    let longest = shutdown.delay + shutdown.spread + shutdown.grace + writing;
    if longest <= patience {
        return Ok(());
    }
    let text = format!(
        "`shutdown.termination_grace` is {}, but `shutdown.delay`, `shutdown.spread`, \
         `shutdown.grace` and what it takes to write `shutdown.snapshot` are {} together, so connections would be cut off: shorten these, or have \
         whoever supervises the broker wait longer",
        print_span(patience),
        print_span(longest)
    );
    let keys = ["termination_grace", "delay", "spread", "grace", "snapshot"];
    Err(Fault { keys: keys.map(|key| format!("shutdown.{key}")).to_vec(), text })
}

/// Names and hashes of API tokens, and names of certificates, are there once: who is meant would be a matter of order.
fn check_tokens(auth: &Auth) -> Result<(), Fault> {
    for (index, token) in auth.tokens.iter().enumerate() {
        let mut earlier = auth.tokens.iter().take(index);
        if earlier.any(|other| other.name == token.name || other.sha256 == token.sha256) {
            let key = format!("auth.tokens[{index}].name");
            let text = format!("`{key}` is {:?}, and it or its hash is there twice", token.name);
            return Err(Fault { keys: vec![key], text });
        }
    }
    for (index, certificate) in auth.certificates.iter().enumerate() {
        let mut earlier = auth.certificates.iter().take(index);
        if earlier.any(|other| other.name == certificate.name) {
            let key = format!("auth.certificates[{index}].name");
            let text = format!("`{key}` is {:?}, and it is there twice", certificate.name);
            return Err(Fault { keys: vec![key], text });
        }
    }
    Ok(())
}

/// Whether this is a URL that others can answer.
fn is_open_url(jwks: &str) -> bool {
    let Some(rest) = jwks.strip_prefix("http://") else { return false };
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match place.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => place,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    !(loopback || host == "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::Node;

    /// Keys that hold no amount, or one that its form already bounds.
    const NO_AMOUNTS: [&str; 7] =
        ["filter", "group", "snapshot", "overflow", "policy", "max_hz", "presence"];

    #[test]
    fn every_limit_and_every_number_of_a_topic_has_a_row() {
        let mut config = Config::default();
        let rule = |filter| Rule {
            stale_after: Some(SECOND),
            ..Rule::new(TopicFilter::parse(filter).expect("a filter"))
        };
        config.topics.rules = vec![rule("a"), rule("b")];
        let mut rows = limit_rows(&config.limits);
        rows.extend(topic_rows(&config.topics));
        let known = Node::of(&config).expect("a configuration can be serialised");
        let mut keys: Vec<_> = known.leaves().into_iter().map(|(key, _)| key).collect();
        keys.retain(|key| key.starts_with("limits.") || key.starts_with("topics."));
        keys.retain(|key| !NO_AMOUNTS.iter().any(|name| key.ends_with(&format!("].{name}"))));
        keys.push("topics.rules".to_owned());
        let mut bounded: Vec<_> = rows.into_iter().map(|row| row.key).collect();
        keys.sort();
        bounded.sort();
        assert_eq!(bounded, keys);
    }
}
