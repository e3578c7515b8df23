//! A subscriber that keeps account, topic by topic, of what it has heard and what it was told.
//! # Invariants: offsets ascend; what is missing has been told in a gap, unless the policy lets
//! messages be passed over; after a gap, and before the first message of a topic that a filter
//! brings, comes the topic's position.
//! # Not here: what a test expects to have been heard.

use crate::client::{Client, Ending};
use crate::harness::Broker;
use crate::pipe::Pipe;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A client with one subscription.
pub(crate) struct Reader {
    pub(crate) client: Client,
    /// The answer to `subscribe`, its body.
    pub(crate) subscribed: Value,
    /// Whether messages may be missing without a gap.
    pub(crate) skips: bool,
    topics: BTreeMap<String, Account>,
}

/// What was heard of one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// Up to where everything was heard, told or passed over.
    pub(crate) last: u64,
    /// Bodies of the messages.
    pub(crate) messages: Vec<Value>,
    /// From, to and reason of each gap.
    pub(crate) gaps: Vec<(u64, u64, String)>,
    /// A gap was told, its position was not yet.
    owed: bool,
}

impl Account {
    /// The offsets of the messages.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.messages.iter().map(offset_of).collect()
    }

    /// The latest message of every key; the key of those without one is null.
    pub(crate) fn latest(&self) -> BTreeMap<String, &Value> {
        self.messages.iter().map(|message| (message["key"].to_string(), message)).collect()
    }
}

impl Reader {
    /// Subscribes.
    pub(crate) async fn begin(broker: &Broker, wire: Wire, subscribe: &Value) -> Reader {
        Reader::of(Client::connect(broker, wire).await, subscribe).await
    }

    /// Subscribes on a connection whose kernel holds little for it.
    pub(crate) async fn narrow(broker: &Broker, wire: Wire, subscribe: &Value) -> Reader {
        Reader::of(narrow(broker, wire).await, subscribe).await
    }

    /// Subscribes with a client.
    pub(crate) async fn of(mut client: Client, subscribe: &Value) -> Reader {
        let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
        let subscribed = reply["subscribed"].clone();
        assert!(subscribed.is_object(), "{reply}");
        let skips = matches!(subscribed["policy"].as_str(), Some("latest" | "maxHz"));
        let mut reader = Reader { client, subscribed, skips, topics: BTreeMap::new() };
        reader.take_places(subscribe);
        reader
    }

    /// Where the topics stand from which this subscription goes on.
    fn take_places(&mut self, subscribe: &Value) {
        let name = subscribe["topic"].as_str().expect("a topic");
        let subscribed = self.subscribed.clone();
        if let Some(top) = subscribed["position"]["offset"].as_u64() {
            let since = &subscribe["since"]["offset"];
            let resumed = since.as_u64().filter(|_| subscribed["recovered"] == true);
            self.start(name, resumed.unwrap_or(top));
        }
        let asked = subscribe["positions"].as_array().into_iter().flatten();
        for (asked, answer) in asked.zip(subscribed["topics"].as_array().into_iter().flatten()) {
            let place = if answer["recovered"] == true { asked } else { &answer["position"] };
            if let Some(offset) = place["offset"].as_u64() {
                self.start(answer["topic"].as_str().expect("a topic"), offset);
            }
        }
    }

    /// Notes that messages of a topic come after this offset.
    pub(crate) fn start(&mut self, topic: &str, last: u64) {
        self.topics.entry(topic.to_owned()).or_default().last = last;
    }

    /// What was heard of a topic.
    pub(crate) fn account(&self, topic: &str) -> Account {
        self.topics.get(topic).cloned().unwrap_or_default()
    }

    /// Hears until a topic has come to this offset.
    pub(crate) async fn until(&mut self, topic: &str, offset: u64) {
        while self.topics.get(topic).is_none_or(|account| account.last < offset || account.owed) {
            self.hear().await;
        }
    }

    /// As [`Reader::until`], but the server may close. Says whether it did not.
    pub(crate) async fn is_there_until(&mut self, topic: &str, offset: u64) -> bool {
        while self.topics.get(topic).is_none_or(|account| account.last < offset || account.owed) {
            let Some(event) = self.client.try_hear().await else { return false };
            let is_farewell = event["error"].is_object() && event["id"].is_null();
            if is_farewell {
                return false;
            }
            self.note(&event);
        }
        true
    }

    /// The next event, which is accounted for.
    pub(crate) async fn hear(&mut self) -> Value {
        let event = self.client.hear().await;
        self.note(&event);
        event
    }

    /// Hears until the server closes.
    pub(crate) async fn end(&mut self) -> Ending {
        loop {
            match self.client.hear_or_end().await {
                Ok(event) => self.note(&event),
                Err(ending) => return ending,
            }
        }
    }

    /// Asks for something and hears until it is answered. Returns the answer.
    pub(crate) async fn ask(&mut self, command: &Value) -> Value {
        self.client.say(command).await;
        loop {
            let event = self.hear().await;
            if event["id"] == command["id"] {
                return event;
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let (name, body) = event
            .as_object()
            .and_then(|event| event.iter().find(|(name, _)| *name != "id"))
            .unwrap_or_else(|| panic!("{event}"));
        match name.as_str() {
            "message" => self.note_message(body),
            "gap" => self.note_gap(body),
            "position" => self.note_position(body),
            "error" => panic!("{event}"),
            _ => {}
        }
    }

    fn known(&mut self, body: &Value) -> &mut Account {
        let topic = body["topic"].as_str().expect("a topic");
        let account = self.topics.get_mut(topic);
        account.unwrap_or_else(|| panic!("nothing has told where {topic} stands: {body}"))
    }

    fn note_message(&mut self, body: &Value) {
        let skips = self.skips;
        let account = self.known(body);
        let (last, offset) = (account.last, offset_of(body));
        assert!(!account.owed, "a gap without its position: {body}");
        let follows = if skips { offset > last } else { offset == last + 1 };
        assert!(follows, "{offset} after {last}: {}", body["topic"]);
        account.last = offset;
        account.messages.push(body.clone());
    }

    fn note_gap(&mut self, body: &Value) {
        let skips = self.skips;
        let account = self.known(body);
        let [from, to, count] = ["from", "to", "count"].map(|name| body[name].as_u64());
        let (from, to) = (from.expect("an offset"), to.expect("an offset"));
        assert_eq!(count, Some(to + 1 - from), "{body}");
        let follows = if skips { from > account.last } else { from == account.last + 1 };
        assert!(follows && from <= to && !account.owed, "after {}: {body}", account.last);
        account.last = to;
        account.owed = true;
        account.gaps.push((from, to, body["reason"].as_str().expect("a reason").to_owned()));
    }

    fn note_position(&mut self, body: &Value) {
        let topic = body["topic"].as_str().expect("a topic").to_owned();
        let offset = offset_of(body);
        let skips = self.skips;
        let account = self
            .topics
            .entry(topic)
            .or_insert_with(|| Account { last: offset, ..Account::default() });
        let fits = if skips { offset >= account.last } else { offset == account.last };
        assert!(fits, "at {}: {body}", account.last);
        account.owed = false;
    }
}

/// A client whose kernel holds little for it.
pub(crate) async fn narrow(broker: &Broker, wire: Wire) -> Client {
    let address = if wire == Wire::TcpProto { broker.ingress() } else { broker.public() };
    Client::begin(broker, wire, Pipe::connect_narrow(address).await).await
}

/// The offset of a message or a position.
pub(crate) fn offset_of(body: &Value) -> u64 {
    body["offset"].as_u64().unwrap_or_else(|| panic!("an offset: {body}"))
}
