//! The two spellings of the protocol, translated by the schema: commands from JSON to protobuf,
//! events from protobuf to JSON.
//! Owns a second opinion: nothing here uses the broker's own code for either.
//! # Invariants: a field that the schema lacks fails the test; what the JSON spelling leaves out is
//! left out here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fanfare::dialect::schema::{
    self, command::Action, event::Body, message::Payload as Got, publish::Payload as Load,
};
use serde_json::{Map, Value, json};

/// A command of the JSON spelling as protobuf.
pub(crate) fn command(json: Value) -> schema::Command {
    let mut fields = Fields::of(json);
    let id = fields.number("id");
    let actions = [
        fields.object("connect").map(connect),
        fields.object("subscribe").map(subscribe),
        fields
            .object("unsubscribe")
            .map(|fields| Action::Unsubscribe(schema::Unsubscribe { topic: only_topic(fields) })),
        fields.object("update").map(update),
        fields.object("publish").map(|fields| Action::Publish(publish(fields))),
        fields.object("history").map(history),
        fields
            .object("presence")
            .map(|fields| Action::Presence(schema::Presence { topic: only_topic(fields) })),
        fields.object("refresh").map(refresh),
        fields.object("ping").map(|fields| {
            fields.end();
            Action::Ping(schema::Ping {})
        }),
    ];
    fields.end();
    let mut actions = actions.into_iter().flatten();
    let action = actions.next();
    assert!(actions.next().is_none(), "two actions cannot be said in protobuf");
    schema::Command { id, action }
}

fn connect(mut fields: Fields) -> Action {
    let name = fields.text("name");
    let batch = fields.flag("batch");
    let token = fields.text("token");
    fields.end();
    Action::Connect(schema::Connect { token, name, batch })
}

fn refresh(mut fields: Fields) -> Action {
    let token = fields.text("token");
    fields.end();
    Action::Refresh(schema::Refresh { token })
}

fn subscribe(mut fields: Fields) -> Action {
    let since = fields.object("since").map(position);
    let positions = fields.list("positions").into_iter().map(Fields::of).map(topic_position);
    let subscribe = schema::Subscribe {
        topic: fields.text("topic"),
        since,
        last: fields.small("last"),
        snapshot: fields.flag("snapshot"),
        overflow: overflow(&mut fields),
        positions: positions.collect(),
        policy: policy(&mut fields),
        max_hz: max_hz(&mut fields),
        presence: fields.flag("presence"),
    };
    fields.end();
    Action::Subscribe(subscribe)
}

fn update(mut fields: Fields) -> Action {
    let update = schema::Update {
        topic: fields.text("topic"),
        overflow: overflow(&mut fields),
        policy: policy(&mut fields),
        max_hz: max_hz(&mut fields),
    };
    fields.end();
    Action::Update(update)
}

/// What nobody knows in one spelling, nobody knows in the other.
const UNKNOWN: i32 = 99;

fn overflow(fields: &mut Fields) -> i32 {
    match fields.text("overflow").as_str() {
        "" => 0,
        "catchUp" => schema::Overflow::CatchUp.into(),
        "gap" => schema::Overflow::Gap.into(),
        "disconnect" => schema::Overflow::Disconnect.into(),
        _ => UNKNOWN,
    }
}

fn policy(fields: &mut Fields) -> i32 {
    match fields.text("policy").as_str() {
        "" => 0,
        "all" => schema::Policy::All.into(),
        "latest" => schema::Policy::Latest.into(),
        "maxHz" => schema::Policy::MaxHz.into(),
        _ => UNKNOWN,
    }
}

/// What is not a number in one spelling is none in the other.
fn max_hz(fields: &mut Fields) -> Option<f64> {
    fields.value("maxHz").map(|value| value.as_f64().unwrap_or(f64::NAN))
}

fn only_topic(mut fields: Fields) -> String {
    let topic = fields.text("topic");
    fields.end();
    topic
}

/// The object of a publish command as protobuf.
pub(crate) fn publish(mut fields: Fields) -> schema::Publish {
    let data = fields.value("data").map(|value| Load::Data(value.to_string().into()));
    let text = fields.value("text").map(|value| Load::Text(text(value)));
    let binary = fields.value("base64").map(|value| {
        let bytes = BASE64.decode(text_of(&value)).expect("base64");
        Load::Binary(bytes.into())
    });
    let mut payloads = [data, text, binary].into_iter().flatten();
    let publish = schema::Publish {
        topic: fields.text("topic"),
        payload: payloads.next(),
        key: fields.text("key"),
        idempotency_key: fields.text("idempotencyKey"),
        delete: fields.flag("delete"),
        ttl_ms: fields.number("ttlMs"),
    };
    assert!(payloads.next().is_none(), "two payloads cannot be said in protobuf");
    fields.end();
    publish
}

fn history(mut fields: Fields) -> Action {
    let since = fields.object("since").map(position);
    let (topic, limit) = (fields.text("topic"), fields.small("limit"));
    fields.end();
    Action::History(schema::History { topic, since, limit })
}

fn position(mut fields: Fields) -> schema::Position {
    let position =
        schema::Position { epoch: fields.text("epoch"), offset: fields.number("offset") };
    fields.end();
    position
}

fn topic_position(mut fields: Fields) -> schema::TopicPosition {
    let position = schema::TopicPosition {
        topic: fields.text("topic"),
        epoch: fields.text("epoch"),
        offset: fields.number("offset"),
    };
    fields.end();
    position
}

/// The fields of an object that have not been read.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of an object.
    pub(crate) fn of(value: Value) -> Fields {
        match value {
            Value::Object(fields) => Fields(fields),
            other => panic!("{other} is not an object"),
        }
    }

    fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    fn object(&mut self, name: &str) -> Option<Fields> {
        self.value(name).map(Fields::of)
    }

    fn list(&mut self, name: &str) -> Vec<Value> {
        match self.value(name) {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => panic!("{other} is not a list"),
        }
    }

    fn text(&mut self, name: &str) -> String {
        self.value(name).map(text).unwrap_or_default()
    }

    fn flag(&mut self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value.as_bool().expect("a flag"))
    }

    fn number(&mut self, name: &str) -> u64 {
        self.value(name).map_or(0, |value| value.as_u64().expect("an integer from 0 on"))
    }

    fn small(&mut self, name: &str) -> u32 {
        u32::try_from(self.number(name)).expect("an integer of 32 bits")
    }

    fn end(self) {
        assert!(self.0.is_empty(), "the schema lacks {:?}", self.0);
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => panic!("{other} is not a string"),
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// An event as the JSON spelling has it.
pub(crate) fn event(event: schema::Event) -> Value {
    let (name, body) = match event.body.expect("an event has a body") {
        Body::Message(said) => ("message", message(said)),
        Body::Connected(said) => {
            let (connection, server) = (said.connection, said.server);
            let mut body =
                json!({"connection": connection, "server": server, "pingMs": said.ping_ms});
            if said.batch {
                body["batch"] = true.into();
            }
            put(&mut body, "expiresMs", (said.expires_ms != 0).then(|| said.expires_ms.into()));
            ("connected", body)
        }
        Body::Subscribed(said) => ("subscribed", subscribed(&said)),
        Body::Unsubscribed(said) => {
            let mut body = json!({"topic": said.topic});
            put(&mut body, "reason", (!said.reason.is_empty()).then(|| said.reason.into()));
            ("unsubscribed", body)
        }
        Body::Refreshed(said) => {
            let mut body = json!({});
            put(&mut body, "expiresMs", (said.expires_ms != 0).then(|| said.expires_ms.into()));
            ("refreshed", body)
        }
        Body::Published(said) => {
            let durability = camel(said.durability().as_str_name());
            let body =
                json!({"epoch": said.epoch, "offset": said.offset, "durability": durability});
            ("published", body)
        }
        Body::Error(said) => ("error", error(&said)),
        Body::Gap(said) => ("gap", gap(&said)),
        Body::SnapshotEnd(said) => {
            let positions: Vec<_> = said.positions.iter().map(placed).collect();
            ("snapshotEnd", json!({"topic": said.topic, "positions": positions}))
        }
        Body::Pong(schema::Pong {}) => ("pong", json!({})),
        Body::Ping(schema::ServerPing {}) => ("ping", json!({})),
        Body::HistoryPage(said) => ("historyPage", history_page(said)),
        Body::Position(said) => ("position", placed(&said)),
        Body::Updated(said) => ("updated", updated(&said)),
        Body::PresenceState(said) => ("presenceState", presence_state(&said)),
        Body::Joined(schema::Joined { topic, member }) => ("joined", presence(&topic, member)),
        Body::Left(schema::Left { topic, member }) => ("left", presence(&topic, member)),
        Body::Stale(said) => ("stale", stale(&said)),
        Body::Fresh(said) => ("fresh", json!({"topic": said.topic})),
        Body::Reconnect(schema::Reconnect { after_ms: 0 }) => ("reconnect", json!({})),
        Body::Reconnect(said) => ("reconnect", json!({"afterMs": said.after_ms})),
    };
    let mut json = json!({ name: body });
    put(&mut json, "id", (event.id != 0).then(|| event.id.into()));
    json
}

fn message(said: schema::Message) -> Value {
    let mut json = json!({"topic": said.topic, "offset": said.offset, "time": said.time});
    put(&mut json, "key", (!said.key.is_empty()).then(|| said.key.into()));
    let (name, payload) = match said.payload {
        Some(Got::Data(bytes)) => ("data", serde_json::from_slice(&bytes).expect("a JSON value")),
        Some(Got::Text(text)) => ("text", text.into()),
        Some(Got::Binary(bytes)) => ("base64", BASE64.encode(bytes).into()),
        None => ("deleted", said.deleted.into()),
    };
    assert_eq!(said.deleted, name == "deleted", "a message has a payload or is a delete");
    put(&mut json, name, Some(payload));
    json
}

fn subscribed(said: &schema::Subscribed) -> Value {
    let mut json = json!({"topic": said.topic});
    put(&mut json, "position", said.position.as_ref().map(place));
    put(&mut json, "recovered", said.recovered.map(Value::from));
    put(&mut json, "reason", why(said.reason()));
    let topics: Vec<_> = said.topics.iter().map(topic_recovery).collect();
    put(&mut json, "topics", (!topics.is_empty()).then(|| topics.into()));
    put_terms(&mut json, said.policy(), said.max_hz, said.overflow());
    put(&mut json, "stale", said.stale.then(|| true.into()));
    json
}

fn updated(said: &schema::Updated) -> Value {
    let mut json = json!({"topic": said.topic});
    put_terms(&mut json, said.policy(), said.max_hz, said.overflow());
    json
}

fn put_terms(
    json: &mut Value,
    policy: schema::Policy,
    max_hz: Option<f64>,
    overflow: schema::Overflow,
) {
    let policy_is_told = policy != schema::Policy::Unspecified;
    put(json, "policy", policy_is_told.then(|| camel(policy.as_str_name()).into()));
    // A whole number has no fraction in the JSON spelling.
    put(json, "maxHz", max_hz.map(|hz| serde_json::from_str(&hz.to_string()).expect("a number")));
    let overflow_is_told = overflow != schema::Overflow::Unspecified;
    put(json, "overflow", overflow_is_told.then(|| camel(overflow.as_str_name()).into()));
}

fn topic_recovery(said: &schema::TopicRecovery) -> Value {
    let mut json = json!({"topic": said.topic, "recovered": said.recovered});
    put(&mut json, "position", said.position.as_ref().map(place));
    put(&mut json, "reason", why(said.reason()));
    json
}

fn why(reason: schema::RecoveryFailure) -> Option<Value> {
    let is_given = reason != schema::RecoveryFailure::Unspecified;
    is_given.then(|| camel(reason.as_str_name()).into())
}

fn error(said: &schema::Error) -> Value {
    let retry = camel(said.retry().as_str_name());
    json!({"code": said.code, "name": said.name, "retry": retry, "message": said.message})
}

fn gap(said: &schema::Gap) -> Value {
    let name = said.reason().as_str_name();
    let reason = camel(name.strip_prefix("GAP_REASON_").unwrap_or(name));
    json!({
        "topic": said.topic, "from": said.from, "to": said.to, "count": said.count,
        "reason": reason,
    })
}

fn history_page(said: schema::HistoryPage) -> Value {
    let messages: Vec<_> = said.messages.into_iter().map(message).collect();
    let mut json = json!({"topic": said.topic, "messages": messages, "more": said.more});
    put(&mut json, "top", said.top.as_ref().map(place));
    json
}

fn presence_state(said: &schema::PresenceState) -> Value {
    let members: Vec<_> = said.members.iter().map(member).collect();
    json!({"topic": said.topic, "count": said.count, "members": members, "more": said.more})
}

fn presence(topic: &str, changed: Option<schema::Member>) -> Value {
    json!({"topic": topic, "member": member(&changed.expect("somebody"))})
}

fn member(said: &schema::Member) -> Value {
    let mut json = json!({"connection": said.connection});
    put(&mut json, "name", (!said.name.is_empty()).then(|| said.name.as_str().into()));
    json
}

fn stale(said: &schema::Stale) -> Value {
    let mut json = json!({"topic": said.topic});
    put(&mut json, "since", (said.since != 0).then(|| said.since.into()));
    json
}

fn place(said: &schema::Position) -> Value {
    json!({"epoch": said.epoch, "offset": said.offset})
}

fn placed(said: &schema::TopicPosition) -> Value {
    json!({"topic": said.topic, "epoch": said.epoch, "offset": said.offset})
}

fn put(json: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        json[name] = value;
    }
}

/// `EPOCH_CHANGED` as `epochChanged`.
fn camel(name: &str) -> String {
    let mut words = name.split('_').map(str::to_ascii_lowercase);
    let first = words.next().unwrap_or_default();
    let capital = |word: String| word[..1].to_ascii_uppercase() + &word[1..];
    first + &words.map(capital).collect::<String>()
}
