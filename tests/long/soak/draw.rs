//! What clients ask for, and which topics there are.
//! # Not here: when they ask (`crowd`), the broker's settings (`soak`).

use crate::history::{
    Command, Content, Overflow, Payload, Policy, Promise, Publish, Query, Replay, Retention, Rule,
    Subscribe, Update,
};
use crate::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::VecDeque;

/// Topics with what they promise: messages and milliseconds that are kept, keys of a snapshot.
const TOPICS: [(&str, u64, u64, Option<u64>); 12] = [
    ("hot.x", 60, 10_000, None),
    ("hot.y", 60, 10_000, None),
    ("row.x", 60, 10_000, Some(64)),
    ("row.y", 60, 10_000, Some(64)),
    ("row.z", 60, 10_000, Some(64)),
    ("brief.x", 4, 1_000, None),
    ("brief.y", 4, 1_000, None),
    ("brief.z", 4, 1_000, None),
    ("news.w", 60, 10_000, None),
    ("news.x", 60, 10_000, None),
    ("news.y", 60, 10_000, None),
    ("news.z", 60, 10_000, None),
];

/// The first of them have most of the bytes.
const HOT: usize = 2;

const FILTERS: [&str; 6] = ["hot.*", "row.>", "*.x", "brief.*", "*.y", "*.*"];

/// The longest time that a topic keeps a message.
pub(super) const KEPT_MS: u64 = 10_000;

/// Publishes that somebody may ask for again.
const KEYED_MAX: usize = 8;

/// Bytes that a payload of a hot topic is filled up with at most, and of the others.
const PADDING: [usize; 2] = [12_000, 300];

pub(super) fn topics() -> impl Iterator<Item = &'static str> {
    TOPICS.iter().map(|(topic, ..)| *topic)
}

/// What the broker promises under the settings of a run.
pub(super) fn promise() -> Promise {
    let rule = |(topic, _, _, keys_max): &(&str, u64, u64, Option<u64>)| {
        let rule = Rule { has_history: true, keys_max: *keys_max, ..Rule::default() };
        ((*topic).to_owned(), rule)
    };
    let retention = |(topic, messages, age_ms, _): &(&str, u64, u64, Option<u64>)| {
        ((*topic).to_owned(), Retention { messages: *messages, age_ms: *age_ms })
    };
    Promise {
        idempotency_ms: 10_000,
        retention: TOPICS.iter().map(retention).collect(),
        rules: TOPICS.iter().map(rule).collect(),
        filter_cap: None,
        replay: Replay { messages_max: 1_000, bytes_max: 512 << 10 },
        held_bytes_max: u64::MAX,
        mailboxes_fill: false,
        budget_bytes: None,
    }
}

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Sayings {
    next: u64,
    keyed: VecDeque<Publish>,
}

impl Sayings {
    /// A publish of something that nobody has said yet, or a delete.
    pub(super) fn publish(&mut self, chance: &mut Random) -> Publish {
        let topics = if chance.chance(30) { &TOPICS[..HOT] } else { &TOPICS[..] };
        let topic = topics[chance.below(topics.len())].0.to_owned();
        let content = self.content(&topic, chance);
        if !content.key.is_empty() && chance.chance(5) {
            let content = Content { payload: Payload::Deleted, ..content };
            return Publish { topic, content, idempotency_key: String::new(), ttl_ms: 0 };
        }
        let is_keyed = chance.chance(40);
        let idempotency_key = if is_keyed { format!("i{}", self.next) } else { String::new() };
        let publish = Publish { topic, content, idempotency_key, ttl_ms: 0 };
        if is_keyed {
            self.keyed.push_back(publish.clone());
            self.keyed.drain(..self.keyed.len().saturating_sub(KEYED_MAX));
        }
        publish
    }

    /// A publish that somebody has sent a moment ago.
    pub(super) fn retry(&self, chance: &mut Random) -> Option<Publish> {
        self.keyed.get(chance.below(KEYED_MAX)).cloned()
    }

    /// Nobody asks again for what was said before.
    pub(super) fn forget(&mut self) {
        self.keyed.clear();
    }

    fn content(&mut self, topic: &str, chance: &mut Random) -> Content {
        self.next += 1;
        let number = self.next;
        let most = PADDING[usize::from(!topic.starts_with("hot."))];
        let padding = "x".repeat(chance.below(most));
        let payload = match chance.below(3) {
            0 => Payload::Data(format!(r#"{{"n":{number},"of":"{padding}"}}"#)),
            1 => Payload::Text(format!("{number} \"{padding}\"")),
            _ => Payload::Base64(BASE64.encode(format!("{number} {padding}"))),
        };
        let has_key = topic.starts_with("row.") || chance.chance(30);
        let key = if has_key { format!("k{}", chance.below(12)) } else { String::new() };
        Content { key, payload }
    }
}

pub(super) fn subscribe(chance: &mut Random) -> Subscribe {
    let topic = if chance.chance(40) {
        (*chance.pick(&FILTERS).expect("not empty")).to_owned()
    } else {
        TOPICS[chance.below(TOPICS.len())].0.to_owned()
    };
    let (last, snapshot) = match chance.below(5) {
        0 => (u32::try_from(chance.within(1..=5)).expect("small"), false),
        1 => (0, true),
        _ => (0, false),
    };
    let (overflow, policy) = (overflow(chance), policy(chance));
    Subscribe { topic, last, snapshot, overflow, policy, ..Subscribe::default() }
}

pub(super) fn update(topic: String, chance: &mut Random) -> Command {
    let policy = chance.chance(70).then(|| policy(chance));
    let overflow = if chance.chance(50) { overflow(chance) } else { None };
    Command::Update(Update { topic, overflow, policy })
}

pub(super) fn query(chance: &mut Random) -> Command {
    let topic = TOPICS[chance.below(TOPICS.len())].0.to_owned();
    let limit = u32::try_from(chance.below(20)).expect("small");
    Command::History(Query { topic, since: None, limit })
}

fn overflow(chance: &mut Random) -> Option<Overflow> {
    const ALL: [Option<Overflow>; 5] = [
        None,
        Some(Overflow::CatchUp),
        Some(Overflow::Gap),
        Some(Overflow::Gap),
        Some(Overflow::Disconnect),
    ];
    *chance.pick(&ALL).expect("not empty")
}

fn policy(chance: &mut Random) -> Policy {
    const ALL: [Policy; 6] = [
        Policy::All,
        Policy::All,
        Policy::All,
        Policy::Latest,
        Policy::MaxHz(5.0),
        Policy::MaxHz(20.0),
    ];
    *chance.pick(&ALL).expect("not empty")
}
