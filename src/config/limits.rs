//! The limits: every queue, buffer and table of the broker has one here.
//! # Invariants: `bounds` has a row for every field.
//! # Not here: what happens at a limit (the module that owns the thing that is full).

use super::form::{As, Auto, Count, Off, Or, Size, Span};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Open files that are not connections: listeners, log, event queues and a reserve.
const FILES_RESERVED: u64 = 256;

/// What one connection, one topic and the whole broker may use at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections open at once; one more is answered with 503.
    /// Default `"auto"`: as many as the process may have files open, less 256.
    /// Each costs an open file, and when it reads slowly up to `outbound_bytes_max`.
    #[serde(with = "As::<Or<Auto, Count>>")]
    pub connections_max: Option<usize>,
    /// Bytes of one incoming message, all fragments together. Default 64 KiB.
    /// A connection holds up to this much while a message arrives.
    #[serde(with = "As::<Size>")]
    pub message_bytes_max: usize,
    /// Fragments of one incoming message, empty ones among them. Default 64.
    /// Each costs processor time that its sender does not pay for in bytes.
    #[serde(with = "As::<Count>")]
    pub fragments_max: usize,
    /// Subscriptions of one connection, filters among them. Default 128.
    /// Each costs memory, and work for every message that matches.
    #[serde(with = "As::<Count>")]
    pub subscriptions_max: usize,
    /// Subscriptions of one connection that have wildcards; 0 allows none. Default 8.
    /// Each is looked at whenever a topic begins, and may match every topic.
    #[serde(with = "As::<Count>")]
    pub filters_max: usize,
    /// Bytes that wait for one connection before its overflow policy applies. Default 1 MiB.
    /// The worst case of memory is this times the connections.
    #[serde(with = "As::<Size>")]
    pub outbound_bytes_max: usize,
    /// Time for which something has waited for a connection without a pause, after which nothing
    /// more is queued for it. Default 5s.
    /// Longer delays what a slow reader gets; shorter makes it miss or catch up sooner.
    #[serde(with = "As::<Span>")]
    pub outbound_age_max: Duration,
    /// Bytes that wait for all connections together. Default 256 MiB.
    /// This is what slow readers may make the broker grow by, however many they are.
    #[serde(with = "As::<Size>")]
    pub outbound_total_bytes_max: usize,
    /// Publishes of one connection in a second, or `"off"`. Default 50. Not for API tokens, and not
    /// where nobody is asked who they are. Over HTTP it is not the connection that counts but who shows
    /// a token, and else the address: on each shard on its own.
    /// Each may cost a write to every subscriber.
    #[serde(with = "As::<Or<Off, Count>>")]
    pub publish_rate: Option<usize>,
    /// Publishes at once, after a rest. Default 100.
    /// All of them may have to be written to every subscriber in one moment.
    #[serde(with = "As::<Count>")]
    pub publish_burst: usize,
    /// Deliveries in a second that one connection may cause by publishing, and as many at once, or
    /// `"off"`. Default 100000. Not for API tokens, and not where nobody is asked who they are.
    /// A message to more subscribers is delivered, and the next one waits until that is made up for.
    #[serde(with = "As::<Or<Off, Count>>")]
    pub delivery_rate: Option<usize>,
    /// Topics that one connection may begin in a second, or `"off"`. Default 100. Not for API tokens,
    /// and not where nobody is asked who they are.
    /// Each costs memory until it has been idle for `topics.idle_ttl`.
    #[serde(with = "As::<Or<Off, Count>>")]
    pub topic_rate: Option<usize>,
    /// Topics that it may begin at once, after a rest. Default 1000.
    /// All of them may cost their memory in one moment.
    #[serde(with = "As::<Count>")]
    pub topic_burst: usize,
    /// Subscriptions that one connection may begin or change in a second, or `"off"`. Default 100.
    /// The first 8 of a connection are not counted.
    /// Each may read a history or look through all topics.
    #[serde(with = "As::<Or<Off, Count>>")]
    pub subscribe_rate: Option<usize>,
    /// Those at once, after a rest. Default 128.
    /// It is never less than `subscriptions_max`: who reconnects may subscribe to everything again.
    #[serde(with = "As::<Count>")]
    pub subscribe_burst: usize,
    /// WebSocket pings, and pongs that answer no ping of the broker, in a second from one connection,
    /// or `"off"`. Default 20.
    /// Each costs processor time that its sender hardly pays for.
    #[serde(with = "As::<Or<Off, Count>>")]
    pub control_rate: Option<usize>,
    /// Those at once, after a rest. Default 50.
    /// So many are answered before their sender is judged.
    #[serde(with = "As::<Count>")]
    pub control_burst: usize,
    /// Time from the first byte of an incoming message to its last, all fragments together.
    /// Default 30s.
    /// Until then a connection holds up to `message_bytes_max`.
    #[serde(with = "As::<Span>")]
    pub message_timeout: Duration,
    /// Memory of the whole process, histories among it. Default `"auto"`: 80 % of what its control
    /// group, or the machine, allows.
    /// As it fills, the same is given up in the same order as for what waits for connections.
    #[serde(with = "As::<Or<Auto, Size>>")]
    pub memory_max: Option<usize>,
    /// Topics in which one connection may be behind, or held by its rate, at once. Default 16384.
    /// Each costs a few words while it lasts.
    #[serde(with = "As::<Count>")]
    pub cursors_max: usize,
    /// Time without any progress in writing after which a connection is closed. Default 10s.
    /// Until then it may hold `outbound_bytes_max`.
    #[serde(with = "As::<Span>")]
    pub write_stall_max: Duration,
    /// Time for each thing that comes first on a connection: a PROXY header, a TLS handshake, the
    /// head of a request. Default 5s.
    /// Until then it costs a file and a read buffer.
    #[serde(with = "As::<Span>")]
    pub handshake_timeout: Duration,
    /// Time from taking in a connection to its token, where one is needed. Default 10s.
    /// Until then it may say hello and nothing else.
    #[serde(with = "As::<Span>")]
    pub authenticate: Duration,
    /// Time from accepting a connection to its whole first request or command. Default 10s.
    /// Until then it is one of `pending_max`.
    #[serde(with = "As::<Span>")]
    pub pending_timeout: Duration,
    /// Connections that have not sent their whole first request or command. Default 4096.
    /// One more is answered with 503; each costs a file and a buffer.
    #[serde(with = "As::<Count>")]
    pub pending_max: usize,
    /// TLS handshakes under way at once; one more is cut off. Default 1024.
    /// Each costs processor time that its peer has not paid for yet.
    #[serde(with = "As::<Count>")]
    pub tls_handshakes_max: usize,
    /// Connections that each listener accepts in a second, and at once. Default 10000, about
    /// half of what one core can.
    /// Those beyond it wait in the system's queue of 1024, and then try again by themselves.
    #[serde(with = "As::<Count>")]
    pub accept_rate: usize,
    /// Connections in a second from one IPv4 address, or one /64 of IPv6; this machine and trusted
    /// proxies may have more. Default 50.
    /// Each costs what is done before anything is known of it: a file, and often a TLS handshake.
    #[serde(with = "As::<Count>")]
    pub address_rate: usize,
    /// Connections at once from an address that was quiet. Default 200.
    /// Many people may share one address.
    #[serde(with = "As::<Count>")]
    pub address_burst: usize,
    /// Connections that one address may have open, or `"off"`. Default `"off"`.
    /// Behind one address there may be a whole office or a mobile network.
    #[serde(with = "As::<Or<Off, Count>>")]
    pub address_connections_max: Option<usize>,
    /// Bytes of one HTTP request body. Default 1 MiB.
    /// Each request in flight holds up to this much.
    #[serde(with = "As::<Size>")]
    pub http_body_bytes_max: usize,
    /// Topics that exist at once; a publish to one more is refused. Default 1000000.
    /// Each costs memory for its name, its epoch and its history.
    #[serde(with = "As::<Count>")]
    pub topics_max: usize,
    /// Topics that one snapshot of a filter may cover. Default 1024.
    /// Each is a message to send before the subscription is live.
    #[serde(with = "As::<Count>")]
    pub snapshot_topics_max: usize,
    /// Messages that one resume may send; a client that missed more is told so. Default 1000.
    /// They are sent before the subscription is live.
    #[serde(with = "As::<Count>")]
    pub resume_messages_max: usize,
    /// Bytes that one resume may send. Default 512 KiB.
    /// They count against `outbound_bytes_max` until they are written.
    #[serde(with = "As::<Size>")]
    pub resume_bytes_max: usize,
    /// Messages that wait for one shard; when it is full, publishers are refused. Default 65536.
    /// Each costs a few words, and the delay of everything behind it.
    #[serde(with = "As::<Count>")]
    pub mailbox_messages_max: usize,
    /// Bytes that wait for one shard. Default 64 MiB.
    /// The worst case of memory is this times the shards.
    #[serde(with = "As::<Size>")]
    pub mailbox_bytes_max: usize,
    /// Commands that could not be understood before their connection is closed. Default 16.
    /// Each is answered, so a broken client costs this many answers.
    #[serde(with = "As::<Count>")]
    pub bad_commands_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: None,
            message_bytes_max: 64 << 10,
            fragments_max: 64,
            subscriptions_max: 128,
            filters_max: 8,
            outbound_bytes_max: 1 << 20,
            outbound_age_max: Duration::from_secs(5),
            outbound_total_bytes_max: 256 << 20,
            publish_rate: Some(50),
            publish_burst: 100,
            delivery_rate: Some(100_000),
            topic_rate: Some(100),
            topic_burst: 1_000,
            subscribe_rate: Some(100),
            subscribe_burst: 128,
            control_rate: Some(20),
            control_burst: 50,
            message_timeout: Duration::from_secs(30),
            memory_max: None,
            cursors_max: 16_384,
            write_stall_max: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            authenticate: Duration::from_secs(10),
            pending_timeout: Duration::from_secs(10),
            pending_max: 4096,
            tls_handshakes_max: 1024,
            accept_rate: 10_000,
            address_rate: 50,
            address_burst: 200,
            address_connections_max: None,
            http_body_bytes_max: 1 << 20,
            topics_max: 1_000_000,
            snapshot_topics_max: 1024,
            resume_messages_max: 1000,
            resume_bytes_max: 512 << 10,
            mailbox_messages_max: 65_536,
            mailbox_bytes_max: 64 << 20,
            bad_commands_max: 16,
        }
    }
}

impl Limits {
    /// The connections allowed in a process that may have `files_max` files open.
    /// At least one, so that a tiny allowance shows as refused connections and not as silence.
    pub fn connections_allowed(&self, files_max: u64) -> usize {
        let auto = files_max.saturating_sub(FILES_RESERVED).max(1);
        self.connections_max.unwrap_or_else(|| usize::try_from(auto).unwrap_or(usize::MAX))
    }

    /// The memory allowed to a process that is granted so much, if that is known. The rest is for what
    /// the kernel charges to it, and for what is on its way between two looks.
    pub fn memory_allowed(&self, granted: Option<u64>) -> Option<u64> {
        let fixed = self.memory_max.map(|bytes| bytes as u64);
        fixed.or_else(|| granted.map(|bytes| bytes / 5 * 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_memory_is_four_fifths_of_what_is_granted() {
        let auto = Limits::default();
        assert_eq!(auto.memory_allowed(Some(1000)), Some(800));
        assert_eq!(auto.memory_allowed(None), None);
        let fixed = Limits { memory_max: Some(10), ..auto };
        assert_eq!(fixed.memory_allowed(None), Some(10));
    }

    #[test]
    fn automatic_connections_leave_files_for_the_rest() {
        let auto = Limits::default();
        assert_eq!(auto.connections_allowed(1024), 768);
        assert_eq!(auto.connections_allowed(100), 1);
        assert_eq!(auto.connections_allowed(u64::MAX), usize::MAX - 256);
        let fixed = Limits { connections_max: Some(10), ..auto };
        assert_eq!(fixed.connections_allowed(1024), 10);
    }
}
