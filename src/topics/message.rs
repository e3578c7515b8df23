//! What travels: drafts on the way in, messages with their place on the way out.
//! Owns positions, payloads and the slots in which a message's encoded frames are shared.
//! # Invariants: a message never changes after commit; a frame holds nothing of one connection,
//! so every subscriber of a wire layout gets the same bytes.
//! # Not here: how to encode (`dialect`).

use super::name::TopicName;
use super::rule::Rule;
use bytes::Bytes;
use once_cell::race::OnceBox;
use parking_lot::Mutex;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A message's place in its topic: 1, 2, 3… within one epoch. 0 is the place before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0.saturating_add(1))
    }

    /// The place before this one; that of 0 is 0.
    #[must_use]
    pub fn previous(self) -> Offset {
        Offset(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one life of a topic: 128 random bits, written as 22 characters of base64url. It is kept as it
/// is written, because every answer to a publisher has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
// Whole words, so that what is handed on is read in the pieces in which it was written.
#[repr(align(8))]
pub struct Epoch([u8; Epoch::TEXT_LEN]);

impl Epoch {
    /// Length of the written form.
    pub const TEXT_LEN: usize = 22;

    /// The epoch of these bits.
    pub fn from_bits(bits: u128) -> Epoch {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut rest = bits;
        let mut text = [0; Epoch::TEXT_LEN];
        for place in text.iter_mut().rev() {
            // Six bits index a table of 64.
            *place = DIGITS.get((rest & 63) as usize).copied().unwrap_or(b'A');
            rest >>= 6;
        }
        Epoch(text)
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The written form in ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Epoch {
    type Err = BadEpoch;

    fn from_str(text: &str) -> Result<Epoch, BadEpoch> {
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let digits: [u8; Epoch::TEXT_LEN] = text.as_bytes().try_into().map_err(|_| BadEpoch)?;
        // 22 digits hold 132 bits: the first digit may only use two of its six.
        if digits[0] > b'D' || !digits[0].is_ascii_uppercase() || !digits.iter().all(is_digit) {
            return Err(BadEpoch);
        }
        Ok(Epoch(digits))
    }
}

/// The text is not an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch has 22 characters of A-Z a-z 0-9 - _")]
pub struct BadEpoch;

/// A place that outlives a connection: an offset means something only together with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the topic.
    pub epoch: Epoch,
    /// The place in it.
    pub offset: Offset,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// One JSON value, as its publisher wrote it, without line breaks.
    Json(Bytes),
    /// UTF-8 text.
    Text(Bytes),
    /// Bytes of any kind.
    Binary(Bytes),
    /// Nothing: the thing that the key names is gone.
    Deleted,
    /// Not said by anyone: the connection has subscribed to the topic. Travels by a companion
    /// topic, whose head has the topic's own name.
    Joined(Member),
    /// As [`Payload::Joined`]: it is no longer subscribed.
    Left(Member),
}

/// A connection that is subscribed to a topic, as others are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Names the connection.
    pub connection: Box<str>,
    /// The name that it gave itself.
    pub name: Option<Box<str>>,
}

impl Payload {
    /// The bytes of the payload.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Payload::Json(bytes) | Payload::Text(bytes) | Payload::Binary(bytes) => bytes,
            Payload::Deleted | Payload::Joined(_) | Payload::Left(_) => {
                static NOTHING: Bytes = Bytes::new();
                &NOTHING
            }
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Json(bytes) => write!(f, "Json({})", String::from_utf8_lossy(bytes)),
            Payload::Text(bytes) => write!(f, "Text({:?})", String::from_utf8_lossy(bytes)),
            Payload::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
            Payload::Deleted => f.write_str("Deleted"),
            Payload::Joined(member) => write!(f, "Joined({})", member.connection),
            Payload::Left(member) => write!(f, "Left({})", member.connection),
        }
    }
}

/// A message on its way to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where it goes.
    pub topic: TopicName,
    /// What it says.
    pub payload: Payload,
    /// The thing it is about, at most [`KEY_BYTES_MAX`] bytes.
    pub key: Option<Box<str>>,
    /// Makes a retry safe, at most [`KEY_BYTES_MAX`] bytes.
    pub idempotency_key: Option<Box<str>>,
    /// How long it may be sent for, at most [`TTL_MAX`]; `None` for as long as it is held.
    pub ttl: Option<Duration>,
}

impl Draft {
    /// A message that says this, and nothing else.
    pub fn new(topic: TopicName, payload: Payload) -> Draft {
        Draft { topic, payload, key: None, idempotency_key: None, ttl: None }
    }

    /// Whether it deletes what its key names.
    pub fn is_delete(&self) -> bool {
        self.payload == Payload::Deleted
    }
}

/// Longest time that a message may ask to be sent for.
pub const TTL_MAX: Duration = Duration::from_hours(30 * 24);

/// Longest key or idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// What all messages of one life of a topic share.
#[derive(Debug)]
pub struct TopicHead {
    /// Unique in this process; a topic that begins anew gets another one.
    pub id: u64,
    /// Its name.
    pub name: TopicName,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it keeps and grants.
    pub rule: Arc<Rule>,
    /// What its messages are.
    pub stream: Stream,
    /// How many connections they go to.
    pub audience: Audience,
}

/// About how many connections a topic or a filter has, as the shards tell it. Of a topic they tell
/// those with a subscription to exactly this one at once, and those with a filter when a message meets
/// them; until then as many are expected as its filters had when it began. Who has both counts twice.
#[derive(Debug, Default)]
pub struct Audience {
    told: AtomicU32,
    expected: AtomicU32,
}

impl Audience {
    /// That of a topic which begins.
    pub fn expecting(count: u32) -> Audience {
        Audience { told: AtomicU32::new(0), expected: AtomicU32::new(count) }
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.told.load(Ordering::Relaxed).max(self.expected.load(Ordering::Relaxed))
    }

    /// Puts what a shard has now in place of what it told before.
    #[inline]
    pub fn tell(&self, before: u32, now: u32) {
        // Hardly ever: the word lies beside what every delivery reads.
        if before != now {
            self.told.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Puts what shards tell in place of what was expected.
    #[inline]
    pub fn meet(&self) {
        if self.expected.load(Ordering::Relaxed) != 0 {
            self.expected.store(0, Ordering::Relaxed);
        }
    }
}

/// What the messages of a topic are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// What publishers say.
    Messages,
    /// Who joined and who left: each topic with presence has such a companion of the same name.
    Presence,
}

impl TopicHead {
    /// The head of a topic of messages.
    pub fn new(id: u64, name: TopicName, epoch: Epoch, rule: Arc<Rule>) -> TopicHead {
        let (stream, audience) = (Stream::Messages, Audience::default());
        TopicHead { id, name, epoch, rule, stream, audience }
    }
}

/// One message of a topic.
#[derive(Debug)]
pub struct Message {
    /// The topic.
    pub head: Arc<TopicHead>,
    /// Its place.
    pub offset: Offset,
    /// When the broker took it: milliseconds since 1970.
    pub time_ms: u64,
    /// When the broker took it, by the monotonic clock.
    pub committed: Duration,
    /// From when on it is not sent any more, by the monotonic clock.
    pub expires: Option<Duration>,
    /// The thing it is about.
    pub key: Option<Box<str>>,
    /// What it says.
    pub payload: Payload,
    frames: Frames,
    /// Held while bytes are made, so that no two threads make the same.
    encoding: Mutex<()>,
}

/// The finished bytes of a message, one link for each wire layout that somebody needed: most messages
/// ever need one or two.
type Frames = OnceBox<Frame>;

/// The finished bytes for one wire layout.
#[derive(Debug)]
struct Frame {
    wire: Wire,
    bytes: Bytes,
    others: Frames,
}

impl Message {
    /// A message that is about to be committed.
    pub fn new(
        head: Arc<TopicHead>,
        offset: Offset,
        draft: Draft,
        now: crate::clock::Now,
    ) -> Message {
        Message {
            head,
            offset,
            time_ms: now.wall_ms,
            committed: now.uptime,
            expires: draft.ttl.map(|ttl| now.uptime.saturating_add(ttl)),
            key: draft.key,
            payload: draft.payload,
            frames: Frames::new(),
            encoding: Mutex::new(()),
        }
    }

    /// Whether it may no longer be sent.
    pub fn is_expired(&self, uptime: Duration) -> bool {
        self.expires.is_some_and(|expires| expires <= uptime)
    }

    /// Whether it deletes what its key names.
    pub fn is_delete(&self) -> bool {
        self.payload == Payload::Deleted
    }

    /// The finished bytes for one wire layout, made on first use. `encode` may look at those that are
    /// there, and asks for no others.
    #[inline]
    pub fn frame(&self, wire: Wire, encode: impl FnOnce(&Message, Wire) -> Bytes) -> &Bytes {
        match self.encoded(wire) {
            Some(bytes) => bytes,
            None => self.make_frame(wire, encode),
        }
    }

    fn make_frame(&self, wire: Wire, encode: impl FnOnce(&Message, Wire) -> Bytes) -> &Bytes {
        let _alone = self.encoding.lock();
        let mut encode = Some(encode);
        let mut frames = &self.frames;
        loop {
            let frame = frames.get_or_init(|| {
                let bytes = encode.take().map(|encode| encode(self, wire)).unwrap_or_default();
                Box::new(Frame { wire, bytes, others: Frames::new() })
            });
            if frame.wire == wire {
                return &frame.bytes;
            }
            frames = &frame.others;
        }
    }

    /// The finished bytes for one wire layout, if somebody has made them.
    pub fn encoded(&self, wire: Wire) -> Option<&Bytes> {
        let mut next = self.frames.get();
        while let Some(frame) = next {
            if frame.wire == wire {
                return Some(&frame.bytes);
            }
            next = frame.others.get();
        }
        None
    }

    /// What a history that keeps this message is charged, in bytes: the payload as it came and as
    /// it leaves in both WebSocket spellings, and the message itself.
    pub fn cost(&self) -> usize {
        let once = self.payload.bytes().len() + self.key.as_ref().map_or(0, |key| key.len());
        let itself = size_of::<Message>() + 2 * size_of::<Frame>();
        once * 3 + self.head.name.as_bytes().len() * 2 + itself
    }
}

/// A layout of the bytes on a connection. Every message is encoded at most once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// A WebSocket text message of JSON.
    WebSocketJson,
    /// A WebSocket binary message of protobuf.
    WebSocketProto,
    /// A length and protobuf, on a TCP connection.
    TcpProto,
    /// WebSocket text messages of one or more lines, each of them JSON.
    WebSocketJsonBatch,
    /// WebSocket binary messages of one or more events, each a varint length and protobuf.
    WebSocketProtoBatch,
    /// As [`Wire::WebSocketJson`], messages compressed where that pays (RFC 7692).
    WebSocketJsonDeflate,
    /// As [`Wire::WebSocketProto`], messages compressed where that pays.
    WebSocketProtoDeflate,
    /// As [`Wire::WebSocketJsonBatch`]; compressed messages travel alone.
    WebSocketJsonBatchDeflate,
    /// As [`Wire::WebSocketProtoBatch`]; compressed messages travel alone.
    WebSocketProtoBatchDeflate,
    /// Server-sent events of JSON about one topic: a message carries its position as the event's id.
    SseTopic,
    /// Server-sent events of JSON about any topics: each connection has ids of its own.
    SseTopics,
}

impl Wire {
    /// How many layouts there are.
    pub const COUNT: usize = 11;
    /// Every layout, in the order of their discriminants.
    pub const ALL: [Wire; Wire::COUNT] = [
        Wire::WebSocketJson,
        Wire::WebSocketProto,
        Wire::TcpProto,
        Wire::WebSocketJsonBatch,
        Wire::WebSocketProtoBatch,
        Wire::WebSocketJsonDeflate,
        Wire::WebSocketProtoDeflate,
        Wire::WebSocketJsonBatchDeflate,
        Wire::WebSocketProtoBatchDeflate,
        Wire::SseTopic,
        Wire::SseTopics,
    ];

    /// The layout as metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Wire::WebSocketJson => "websocket_json",
            Wire::WebSocketProto => "websocket_proto",
            Wire::TcpProto => "tcp_proto",
            Wire::WebSocketJsonBatch => "websocket_json_batch",
            Wire::WebSocketProtoBatch => "websocket_proto_batch",
            Wire::WebSocketJsonDeflate => "websocket_json_deflate",
            Wire::WebSocketProtoDeflate => "websocket_proto_deflate",
            Wire::WebSocketJsonBatchDeflate => "websocket_json_batch_deflate",
            Wire::WebSocketProtoBatchDeflate => "websocket_proto_batch_deflate",
            Wire::SseTopic => "sse_topic",
            Wire::SseTopics => "sse_topics",
        }
    }

    /// Whether events are spelled in JSON.
    pub const fn is_json(self) -> bool {
        matches!(
            self,
            Wire::WebSocketJson
                | Wire::WebSocketJsonBatch
                | Wire::WebSocketJsonDeflate
                | Wire::WebSocketJsonBatchDeflate
                | Wire::SseTopic
                | Wire::SseTopics
        )
    }

    /// Whether events are framed as server-sent ones.
    pub const fn is_sse(self) -> bool {
        matches!(self, Wire::SseTopic | Wire::SseTopics)
    }

    /// Whether events travel in WebSocket messages: then a ping is answered, and a close has a code.
    pub const fn is_web_socket(self) -> bool {
        !(self.is_sse() || matches!(self, Wire::TcpProto))
    }

    /// Whether several events may share one WebSocket message.
    pub const fn is_batched(self) -> bool {
        matches!(
            self,
            Wire::WebSocketJsonBatch
                | Wire::WebSocketProtoBatch
                | Wire::WebSocketJsonBatchDeflate
                | Wire::WebSocketProtoBatchDeflate
        )
    }

    /// Whether messages may be compressed.
    pub const fn is_deflated(self) -> bool {
        self.plain() as u8 != self as u8
    }

    /// The same layout without compression.
    #[must_use]
    pub const fn plain(self) -> Wire {
        match self {
            Wire::WebSocketJsonDeflate => Wire::WebSocketJson,
            Wire::WebSocketProtoDeflate => Wire::WebSocketProto,
            Wire::WebSocketJsonBatchDeflate => Wire::WebSocketJsonBatch,
            Wire::WebSocketProtoBatchDeflate => Wire::WebSocketProtoBatch,
            plain => plain,
        }
    }

    /// The same layout with messages compressed where that pays. Outside of WebSocket none are.
    #[must_use]
    pub const fn deflated(self) -> Wire {
        match self {
            Wire::WebSocketJson => Wire::WebSocketJsonDeflate,
            Wire::WebSocketProto => Wire::WebSocketProtoDeflate,
            Wire::WebSocketJsonBatch => Wire::WebSocketJsonBatchDeflate,
            Wire::WebSocketProtoBatch => Wire::WebSocketProtoBatchDeflate,
            same => same,
        }
    }

    /// The same layout with several events in one WebSocket message. Elsewhere there are none.
    #[must_use]
    pub const fn batched(self) -> Wire {
        match self {
            Wire::WebSocketJson => Wire::WebSocketJsonBatch,
            Wire::WebSocketProto => Wire::WebSocketProtoBatch,
            Wire::WebSocketJsonDeflate => Wire::WebSocketJsonBatchDeflate,
            Wire::WebSocketProtoDeflate => Wire::WebSocketProtoBatchDeflate,
            same => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_wire_has_bytes_of_its_own_that_are_made_once() {
        let name = TopicName::parse("t").expect("valid name");
        let head = TopicHead::new(1, name.clone(), Epoch::from_bits(1), Arc::default());
        let draft = Draft::new(name, Payload::Text("x".into()));
        let now = crate::clock::Now::at_ms(0);
        let message = Message::new(Arc::new(head), Offset(1), draft, now);
        for made_before in [false, true] {
            for wire in Wire::ALL {
                assert_eq!(message.encoded(wire).is_some(), made_before, "{wire:?}");
                let made = |_: &Message, wire: Wire| {
                    assert!(!made_before, "{wire:?} is made again");
                    Bytes::from_static(wire.name().as_bytes())
                };
                assert_eq!(message.frame(wire, made), wire.name());
            }
        }
    }

    proptest! {
        #[test]
        fn an_epoch_survives_being_written(bits in any::<u128>()) {
            let epoch = Epoch::from_bits(bits);
            prop_assert_eq!(epoch.as_str().len(), Epoch::TEXT_LEN);
            prop_assert_eq!(epoch.to_string().parse::<Epoch>(), Ok(epoch));
        }

        #[test]
        fn what_is_not_an_epoch_is_refused(text in "\\PC{0,30}") {
            if let Ok(epoch) = text.parse::<Epoch>() {
                prop_assert_eq!(epoch.to_string(), text);
            }
        }
    }
}
