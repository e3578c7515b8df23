//! Commands in both spellings.

use fanfare::dialect::{Dialect, decode_draft, schema};
use prost::Message;
use schema::command::Action;
use schema::publish::Payload;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Bytes as a command in JSON: it is understood or refused, and what is understood is JSON.
pub fn json(input: &[u8]) {
    if Dialect::Json.decode(input).is_ok() {
        assert!(serde_json::from_slice::<&RawValue>(input).is_ok(), "what is no JSON is a command");
    }
    drop(decode_draft(input));
}

/// Bytes as a command in protobuf: it is understood or refused, and what is understood is also
/// understood by code that was generated from the schema.
pub fn proto(input: &[u8]) {
    if let Ok(command) = Dialect::Proto.decode(input) {
        let generated = schema::Command::decode(input).expect("a command of the schema");
        assert_eq!(generated.id, command.id);
        assert!(generated.action.is_some());
    }
}

/// A command of the schema, written in protobuf and in JSON: both say the same, or are refused for
/// the same reason.
pub fn json_proto_diff(input: &[u8]) {
    let Ok(command) = schema::Command::decode(input) else { return };
    let Some(json) = spell(&command) else { return };
    let in_proto = Dialect::Proto.decode(&command.encode_to_vec());
    let in_json = Dialect::Json.decode(json.as_bytes());
    let told = |refused: fanfare::dialect::BadCommand| (refused.id, refused.refusal.reason);
    assert_eq!(in_proto.map_err(told), in_json.map_err(told), "{json}");
}

/// The JSON of a command, unless JSON has no words for it.
fn spell(command: &schema::Command) -> Option<String> {
    let mut object = Map::new();
    if command.id != 0 {
        object.insert("id".into(), command.id.into());
    }
    // A payload of JSON is written as it came.
    let mut raw = None;
    if let Some(action) = &command.action {
        let (name, value) = match action {
            Action::Connect(it) => {
                let token = text(&it.token);
                let connect =
                    [("token", token), ("name", text(&it.name)), ("batch", flag(it.batch))];
                ("connect", fields(connect))
            }
            Action::Subscribe(it) => ("subscribe", subscribe(it)?),
            Action::Unsubscribe(it) => ("unsubscribe", fields([("topic", text(&it.topic))])),
            Action::Update(it) => {
                let update = [
                    ("topic", text(&it.topic)),
                    ("overflow", overflow(it.overflow)),
                    ("policy", policy(it.policy)),
                    ("maxHz", rate(it.max_hz)?),
                ];
                ("update", fields(update))
            }
            Action::Publish(it) => {
                raw = raw_data(it)?;
                ("publish", publish(it))
            }
            Action::History(it) => {
                let since = it.since.as_ref().map(position);
                let history = [
                    ("topic", text(&it.topic)),
                    ("since", since),
                    ("limit", number(it.limit.into())),
                ];
                ("history", fields(history))
            }
            Action::Presence(it) => ("presence", fields([("topic", text(&it.topic))])),
            Action::Ping(_) => ("ping", json!({})),
            Action::Refresh(it) => ("refresh", fields([("token", text(&it.token))])),
        };
        object.insert(name.into(), value);
    }
    let json = Value::Object(object).to_string();
    Some(match raw {
        Some(data) => json.replacen(&format!("\"{MARK}\""), data, 1),
        None => json,
    })
}

/// Stands for the payload until that is put in; no fuzzer will find it.
const MARK: &str = "e6a1c1f0-data-d9b3";

fn raw_data(publish: &schema::Publish) -> Option<Option<&str>> {
    let Some(Payload::Data(data)) = &publish.payload else { return Some(None) };
    // What is no JSON cannot be written as JSON.
    serde_json::from_slice::<&RawValue>(data).ok()?;
    std::str::from_utf8(data).ok().map(Some)
}

fn publish(it: &schema::Publish) -> Value {
    let payload = match &it.payload {
        None => ("data", None),
        Some(Payload::Data(_)) => ("data", Some(MARK.into())),
        Some(Payload::Text(text)) => ("text", Some(text.as_str().into())),
        Some(Payload::Binary(bytes)) => ("base64", Some(base64(bytes).into())),
    };
    fields([
        ("topic", text(&it.topic)),
        payload,
        ("key", text(&it.key)),
        ("idempotencyKey", text(&it.idempotency_key)),
        ("delete", flag(it.delete)),
        ("ttlMs", number(it.ttl_ms)),
    ])
}

fn subscribe(it: &schema::Subscribe) -> Option<Value> {
    let place = |place: &schema::TopicPosition| {
        let offset = Some(place.offset.into());
        fields([("topic", text(&place.topic)), ("epoch", text(&place.epoch)), ("offset", offset)])
    };
    let positions: Vec<Value> = it.positions.iter().map(place).collect();
    Some(fields([
        ("topic", text(&it.topic)),
        ("since", it.since.as_ref().map(position)),
        ("last", number(it.last.into())),
        ("snapshot", flag(it.snapshot)),
        ("overflow", overflow(it.overflow)),
        ("positions", (!positions.is_empty()).then(|| positions.into())),
        ("policy", policy(it.policy)),
        ("maxHz", rate(it.max_hz)?),
        ("presence", flag(it.presence)),
    ]))
}

fn position(it: &schema::Position) -> Value {
    fields([("epoch", text(&it.epoch)), ("offset", Some(it.offset.into()))])
}

/// An object of those fields that are there.
fn fields<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect())
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

fn flag(is_set: bool) -> Option<Value> {
    is_set.then(|| true.into())
}

fn number(number: u64) -> Option<Value> {
    (number != 0).then(|| number.into())
}

/// JSON has no word for what is not finite: then there is no JSON.
fn rate(rate: Option<f64>) -> Option<Option<Value>> {
    match rate {
        None => Some(None),
        Some(rate) if rate.is_finite() => Some(Some(rate.into())),
        Some(_) => None,
    }
}

fn overflow(value: i32) -> Option<Value> {
    use schema::Overflow as Known;
    word(value, Known::try_from(value).ok(), |known| match known {
        Known::CatchUp => "catchUp",
        Known::Gap => "gap",
        Known::Disconnect => "disconnect",
        _ => "unspecified",
    })
}

fn policy(value: i32) -> Option<Value> {
    use schema::Policy as Known;
    word(value, Known::try_from(value).ok(), |known| match known {
        Known::All => "all",
        Known::Latest => "latest",
        Known::MaxHz => "maxHz",
        _ => "unspecified",
    })
}

/// The word for a choice; what nobody knows in one spelling, nobody knows in the other.
fn word<T>(value: i32, known: Option<T>, name: impl FnOnce(T) -> &'static str) -> Option<Value> {
    (value != 0).then(|| known.map_or("nobody knows", name).into())
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            let is_there = digit <= three.len();
            text.push(if is_there { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}
