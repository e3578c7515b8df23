//! Commands as they were spelled, and the one place that understands them.
//! Owns what every field of a command may hold, for both spellings.
//! # Invariants: there is no other way from bytes to a [`Command`], so what one
//! spelling refuses, the other refuses for the same reason; of a list of positions at most
//! [`POSITIONS_MAX`] are kept, however many are sent.
//! # Not here: syntax (`json`, `proto`).

use super::depth::{DEPTH_MAX, is_too_deep};
use super::secret::Secret;
use super::{
    Action, BadCommand, Command, Connect, History, MEMBER_NAME_BYTES_MAX, Overflow, POSITIONS_MAX,
    Policy, Subscribe, TopicPosition, Update, json,
};
use crate::reason::{Reason, Refusal};
use crate::topics::message::{Draft, Epoch, KEY_BYTES_MAX, Offset, Payload, Position, TTL_MAX};
use crate::topics::name::{Target, TopicName};
use crate::topics::terms::Rate;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::Duration;

/// The largest integer that every JSON implementation keeps exactly: ids and offsets stay below it.
pub(super) const INTEGER_MAX: u64 = (1 << 53) - 1;

/// A command whose fields are known by name, but not yet checked. Every field may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawCommand<'a> {
    pub(super) id: Option<Number>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) connect: Option<RawConnect<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) subscribe: Option<RawSubscribe<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) unsubscribe: Option<RawTopic<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) update: Option<RawUpdate<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) publish: Option<RawPublish<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) history: Option<RawHistory<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) presence: Option<RawTopic<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) refresh: Option<RawRefresh<'a>>,
    #[serde(deserialize_with = "json::object")]
    pub(super) ping: Option<RawNothing>,
}

/// A command without fields.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawNothing {}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawConnect<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    pub(super) batch: Option<bool>,
    #[serde(borrow)]
    pub(super) token: Option<Secret<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawRefresh<'a> {
    #[serde(borrow)]
    pub(super) token: Option<Secret<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawSubscribe<'a> {
    #[serde(borrow)]
    pub(super) topic: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) since: Option<RawPosition<'a>>,
    pub(super) last: Option<Number>,
    pub(super) snapshot: Option<bool>,
    pub(super) overflow: Option<Choice<Overflow>>,
    #[serde(borrow)]
    pub(super) positions: Option<RawPositions<'a>>,
    pub(super) policy: Option<Choice<PolicyWord>>,
    pub(super) max_hz: Option<RawRate>,
    pub(super) presence: Option<bool>,
}

/// What only names a topic or filter.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawTopic<'a> {
    #[serde(borrow)]
    pub(super) topic: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawUpdate<'a> {
    #[serde(borrow)]
    pub(super) topic: Option<Text<'a>>,
    pub(super) overflow: Option<Choice<Overflow>>,
    pub(super) policy: Option<Choice<PolicyWord>>,
    pub(super) max_hz: Option<RawRate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawPublish<'a> {
    #[serde(borrow)]
    pub(super) topic: Option<RawName<'a>>,
    #[serde(borrow, deserialize_with = "json::value")]
    pub(super) data: Option<Data<'a>>,
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) base64: Option<Text<'a>>,
    #[serde(skip)]
    pub(super) binary: Option<&'a [u8]>,
    #[serde(borrow)]
    pub(super) key: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) idempotency_key: Option<Text<'a>>,
    pub(super) delete: Option<bool>,
    pub(super) ttl_ms: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawHistory<'a> {
    #[serde(borrow)]
    pub(super) topic: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "json::object")]
    pub(super) since: Option<RawPosition<'a>>,
    pub(super) limit: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawPosition<'a> {
    #[serde(borrow)]
    pub(super) epoch: Option<Text<'a>>,
    pub(super) offset: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawTopicPosition<'a> {
    #[serde(borrow)]
    pub(super) topic: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) epoch: Option<Text<'a>>,
    pub(super) offset: Option<Number>,
}

/// The first positions of a list, and how many it had.
#[derive(Debug, Default)]
pub(super) struct RawPositions<'a> {
    kept: Vec<RawTopicPosition<'a>>,
    count: usize,
}

/// Text, borrowed from the command where it needed no unescaping.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A topic of a publish.
#[derive(Debug)]
pub(super) enum RawName<'a> {
    /// It was understood while it was read: it is ASCII, so nothing else had to be looked at.
    Known(TopicName),
    Text(Text<'a>),
}

impl<'a, 'de: 'a> Deserialize<'de> for RawName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawName<'a>, D::Error> {
        Text::deserialize(deserializer).map(RawName::Text)
    }
}

impl RawName<'_> {
    fn understand(self) -> Result<TopicName, Refusal> {
        match self {
            RawName::Known(name) => Ok(name),
            RawName::Text(text) => TopicName::parse(&text.0),
        }
    }
}

/// An integer from 0 on; `None` if it is something else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub(super) Option<u64>);

/// A number that should be a rate; NaN if it is something else.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawRate(pub(super) f64);

/// One of a few words.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice<T> {
    /// The word that leaves the choice open, as if it were not there.
    Open,
    /// This one.
    Known(T),
    /// One that nobody knows.
    Unknown,
}

/// A policy without its rate.
#[derive(Clone, Copy, Debug)]
pub(super) enum PolicyWord {
    All,
    Latest,
    MaxHz,
}

/// The `data` of a publish.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// One JSON value.
    Value(&'a RawValue),
    /// What may or may not be one.
    Bytes(&'a [u8]),
}

impl RawCommand<'_> {
    /// Checks every field.
    pub(super) fn understand(self) -> Result<Command, BadCommand> {
        let said = [
            self.connect.is_some(),
            self.subscribe.is_some(),
            self.unsubscribe.is_some(),
            self.update.is_some(),
            self.publish.is_some(),
            self.history.is_some(),
            self.presence.is_some(),
            self.refresh.is_some(),
            self.ping.is_some(),
        ];
        if said.into_iter().filter(|is_said| *is_said).count() > 1 {
            return said_more_than_one(self.id);
        }
        let one = None
            .or(self.publish.map(RawAction::Publish))
            .or(self.subscribe.map(RawAction::Subscribe))
            .or(self.unsubscribe.map(RawAction::Unsubscribe))
            .or(self.update.map(RawAction::Update))
            .or(self.connect.map(RawAction::Connect))
            .or(self.history.map(RawAction::History))
            .or(self.presence.map(RawAction::Presence))
            .or(self.refresh.map(RawAction::Refresh))
            .or(self.ping.map(RawAction::Ping));
        one.map_or_else(|| said_nothing(self.id), |action| action.said(self.id))
    }
}

/// What a command may say.
const KNOWN: &str =
    "connect, subscribe, unsubscribe, update, publish, history, presence, refresh, ping";

/// Refuses a command that says nothing.
pub(super) fn said_nothing(id: Option<Number>) -> Result<Command, BadCommand> {
    let detail = format!("it has none of {KNOWN}");
    said(id, || Err(Refusal::new(Reason::BadCommand, detail)))
}

/// Refuses a command that says too much.
pub(super) fn said_more_than_one(id: Option<Number>) -> Result<Command, BadCommand> {
    let detail = format!("it has more than one of {KNOWN}");
    said(id, || Err(Refusal::new(Reason::BadCommand, detail)))
}

/// The command with this id, if that is one.
fn said(
    id: Option<Number>,
    understand: impl FnOnce() -> Result<Action, Refusal>,
) -> Result<Command, BadCommand> {
    let id = integer("id", id, INTEGER_MAX, Reason::BadCommand)
        .map_err(|refusal| BadCommand { id: 0, refusal })?;
    match understand() {
        Ok(action) => Ok(Command { id, action }),
        Err(refusal) => Err(BadCommand { id, refusal }),
    }
}

/// One thing that a command says.
pub(super) enum RawAction<'a> {
    Connect(RawConnect<'a>),
    Subscribe(RawSubscribe<'a>),
    Unsubscribe(RawTopic<'a>),
    Update(RawUpdate<'a>),
    Publish(RawPublish<'a>),
    History(RawHistory<'a>),
    Presence(RawTopic<'a>),
    Refresh(RawRefresh<'a>),
    Ping(RawNothing),
}

impl RawAction<'_> {
    /// The command that says this, with every field checked.
    pub(super) fn said(self, id: Option<Number>) -> Result<Command, BadCommand> {
        said(id, || self.understand())
    }

    fn understand(self) -> Result<Action, Refusal> {
        match self {
            RawAction::Connect(connect) => connect.understand().map(Action::Connect),
            RawAction::Subscribe(subscribe) => {
                subscribe.understand().map(|subscribe| Action::Subscribe(Box::new(subscribe)))
            }
            RawAction::Unsubscribe(RawTopic { topic }) => {
                Target::parse(text(topic.as_ref())).map(Action::Unsubscribe)
            }
            RawAction::Update(update) => update.understand().map(Action::Update),
            RawAction::Publish(publish) => publish.understand().map(Action::Publish),
            RawAction::History(history) => history.understand().map(Action::History),
            RawAction::Presence(RawTopic { topic }) => {
                TopicName::parse(text(topic.as_ref())).map(Action::Presence)
            }
            RawAction::Refresh(RawRefresh { token }) => {
                let token = token.and_then(Secret::understand);
                token.map(Action::Refresh).ok_or_else(|| bad_option("`token` is missing"))
            }
            RawAction::Ping(RawNothing {}) => Ok(Action::Ping),
        }
    }
}

impl RawConnect<'_> {
    fn understand(self) -> Result<Connect, Refusal> {
        let name = text(self.name.as_ref());
        if name.len() > MEMBER_NAME_BYTES_MAX {
            let len = name.len();
            let detail = format!("`name` is {len} bytes, the limit is {MEMBER_NAME_BYTES_MAX}");
            return Err(bad_option(detail));
        }
        if name.contains(char::is_control) {
            return Err(bad_option("`name` may have no control characters"));
        }
        Ok(Connect {
            name: (!name.is_empty()).then(|| name.into()),
            batch: self.batch.unwrap_or_default(),
            token: self.token.and_then(Secret::understand),
        })
    }
}

impl RawSubscribe<'_> {
    /// Checks every field.
    pub(super) fn understand(self) -> Result<Subscribe, Refusal> {
        let target = Target::parse(text(self.topic.as_ref()))?;
        let since = self.since.map(RawPosition::understand).transpose()?;
        let positions = self.positions.unwrap_or_default().understand()?;
        let last = small_integer("last", self.last)?;
        let snapshot = self.snapshot.unwrap_or_default();
        let policy = policy(self.policy, self.max_hz)?;
        let overflow = overflow(self.overflow)?;
        let presence = self.presence.unwrap_or_default();
        match target {
            Target::Topic(_) if !positions.is_empty() => {
                return Err(bad_option("`positions` are for a filter, a topic has `since`"));
            }
            Target::Filter(_) if since.is_some() => {
                return Err(bad_option("`since` is for a topic, a filter has `positions`"));
            }
            Target::Filter(_) if presence => {
                return Err(bad_option("`presence` is for a topic, not for a filter"));
            }
            Target::Topic(_) | Target::Filter(_) => {}
        }
        Ok(Subscribe {
            target,
            since,
            last,
            snapshot,
            policy,
            overflow,
            positions,
            presence,
            kept: None,
        })
    }
}

impl RawUpdate<'_> {
    fn understand(self) -> Result<Update, Refusal> {
        Ok(Update {
            target: Target::parse(text(self.topic.as_ref()))?,
            policy: policy(self.policy, self.max_hz)?,
            overflow: overflow(self.overflow)?,
        })
    }
}

impl RawPublish<'_> {
    /// The command that says this, with every field checked.
    pub(super) fn said(self, id: Option<Number>) -> Result<Command, BadCommand> {
        said(id, || self.understand().map(Action::Publish))
    }

    /// Checks every field.
    pub(super) fn understand(self) -> Result<Draft, Refusal> {
        let draft = Draft {
            topic: self.topic.map_or_else(|| TopicName::parse(""), RawName::understand)?,
            key: key("key", self.key)?,
            idempotency_key: key("idempotencyKey", self.idempotency_key)?,
            ttl: ttl(self.ttl_ms)?,
            payload: match (self.data, self.text, self.base64, self.binary) {
                (None, None, None, None) if self.delete == Some(true) => Payload::Deleted,
                _ if self.delete == Some(true) => {
                    return Err(bad_payload("a delete has no payload"));
                }
                (Some(data), None, None, None) => data.understand().map(Payload::Json)?,
                (None, Some(Text(text)), None, None) => {
                    Payload::Text(Bytes::copy_from_slice(text.as_bytes()))
                }
                (None, None, Some(Text(base64)), None) => Payload::Binary(unwrap_base64(&base64)?),
                (None, None, None, Some(binary)) => Payload::Binary(Bytes::copy_from_slice(binary)),
                (None, None, None, None) => {
                    return Err(bad_payload("it has none of data, text, base64"));
                }
                _ => return Err(bad_payload("it has more than one of data, text, base64")),
            },
        };
        if draft.payload == Payload::Deleted && draft.key.is_none() {
            return Err(Refusal::new(Reason::BadKey, "a delete needs a `key`"));
        }
        Ok(draft)
    }
}

impl RawHistory<'_> {
    /// Checks every field.
    pub(super) fn understand(self) -> Result<History, Refusal> {
        Ok(History {
            topic: TopicName::parse(text(self.topic.as_ref()))?,
            since: self.since.map(RawPosition::understand).transpose()?,
            limit: small_integer("limit", self.limit)?,
        })
    }
}

impl RawPosition<'_> {
    fn understand(self) -> Result<Position, Refusal> {
        let epoch: Epoch = text(self.epoch.as_ref())
            .parse()
            .map_err(|bad| Refusal::new(Reason::BadPosition, format!("{bad}")))?;
        let offset = integer("offset", self.offset, INTEGER_MAX, Reason::BadPosition)?;
        Ok(Position { epoch, offset: Offset(offset) })
    }
}

impl<'a> RawPositions<'a> {
    /// Counts one more position; keeps it if there may be so many.
    pub(super) fn push(&mut self, position: RawTopicPosition<'a>) {
        self.count += 1;
        if self.kept.len() < POSITIONS_MAX {
            self.kept.push(position);
        }
    }

    fn understand(self) -> Result<Vec<TopicPosition>, Refusal> {
        if self.count > POSITIONS_MAX {
            return Err(Refusal::new(
                Reason::TooManyPositions,
                format!("it names {}, the limit is {POSITIONS_MAX}", self.count),
            ));
        }
        self.kept.into_iter().map(RawTopicPosition::understand).collect()
    }
}

impl RawTopicPosition<'_> {
    fn understand(self) -> Result<TopicPosition, Refusal> {
        let topic = TopicName::parse(text(self.topic.as_ref()))?;
        let position = RawPosition { epoch: self.epoch, offset: self.offset }.understand()?;
        Ok(TopicPosition { topic, position })
    }
}

impl RawRate {
    fn understand(self) -> Result<Rate, Refusal> {
        Rate::from_hz(self.0).map_err(|_| {
            let (min, max) = (Rate::MIN_HZ, Rate::MAX_HZ);
            bad_option(format!("`maxHz` must be a number from {min} to {max}"))
        })
    }
}

impl Data<'_> {
    /// Copies the value out, without line breaks: JSON has them only between its tokens, and
    /// without them a value never ends a line of newline-delimited events.
    fn understand(self) -> Result<Bytes, Refusal> {
        let value = match self {
            Data::Value(value) => value,
            Data::Bytes(bytes) => simdutf8::basic::from_utf8(bytes)
                .ok()
                .and_then(|text| serde_json::from_str(text).ok())
                .ok_or_else(|| bad_payload("`data` must be one JSON value in UTF-8"))?,
        };
        if is_too_deep(value.get().as_bytes()) {
            let detail =
                format!("`data` has more than {DEPTH_MAX} arrays and objects in each other");
            return Err(bad_payload(&detail));
        }
        let mut bytes = value.get().as_bytes().to_vec();
        for byte in &mut bytes {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        Ok(Bytes::from(bytes))
    }
}

fn text<'a>(field: Option<&'a Text<'_>>) -> &'a str {
    field.map_or("", |text| &text.0)
}

fn key(name: &str, field: Option<Text<'_>>) -> Result<Option<Box<str>>, Refusal> {
    let Some(Text(key)) = field else {
        return Ok(None);
    };
    match key.len() {
        0 => Ok(None),
        1..=KEY_BYTES_MAX => Ok(Some(Box::from(key))),
        len => Err(Refusal::new(
            Reason::BadKey,
            format!("`{name}` is {len} bytes, the limit is {KEY_BYTES_MAX}"),
        )),
    }
}

fn policy(
    word: Option<Choice<PolicyWord>>,
    max_hz: Option<RawRate>,
) -> Result<Option<Policy>, Refusal> {
    let word = Choice::known(word, "`policy` must be one of all, latest, maxHz")?;
    let rate = max_hz.map(RawRate::understand).transpose()?;
    match (word, rate) {
        (None, None) => Ok(None),
        (None | Some(PolicyWord::MaxHz), Some(rate)) => Ok(Some(Policy::MaxHz(rate))),
        (Some(PolicyWord::All), None) => Ok(Some(Policy::All)),
        (Some(PolicyWord::Latest), None) => Ok(Some(Policy::Latest)),
        (Some(PolicyWord::MaxHz), None) => Err(bad_option("the policy maxHz needs `maxHz`")),
        (Some(PolicyWord::All | PolicyWord::Latest), Some(_)) => {
            Err(bad_option("`maxHz` belongs to the policy maxHz"))
        }
    }
}

fn overflow(word: Option<Choice<Overflow>>) -> Result<Option<Overflow>, Refusal> {
    Choice::known(word, "`overflow` must be one of catchUp, gap, disconnect")
}

fn ttl(field: Option<Number>) -> Result<Option<Duration>, Refusal> {
    const MAX: u64 = TTL_MAX.as_secs() * 1_000;
    let ms = integer("ttlMs", field, MAX, Reason::BadOption)?;
    Ok((ms > 0).then(|| Duration::from_millis(ms)))
}

fn integer(name: &str, field: Option<Number>, max: u64, reason: Reason) -> Result<u64, Refusal> {
    match field {
        None => Ok(0),
        Some(Number(Some(number))) if number <= max => Ok(number),
        Some(_) => {
            Err(Refusal::new(reason, format!("`{name}` must be an integer from 0 to {max}")))
        }
    }
}

fn small_integer(name: &str, field: Option<Number>) -> Result<u32, Refusal> {
    let number = integer(name, field, u32::MAX.into(), Reason::BadOption)?;
    // The line above has just refused what does not fit.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

fn unwrap_base64(text: &str) -> Result<Bytes, Refusal> {
    BASE64.decode(text).map(Bytes::from).map_err(|_| {
        bad_payload("`base64` must be of the standard alphabet, in groups of four padded with `=`")
    })
}

fn bad_option(detail: impl Into<Box<str>>) -> Refusal {
    Refusal::new(Reason::BadOption, detail)
}

fn bad_payload(detail: &str) -> Refusal {
    Refusal::new(Reason::BadPayload, detail)
}
