//! `GET /sse`: what a stream tells, how its reader comes back, how it ends.
//! # Not here: looks without a stream (`looks`), browsers (`tests/page`).

use crate::events::{Events, request};
use crate::harness::{Broker, Bystander, Dice, with_broker};
use crate::http::{Answer, ask, get};
use crate::identity::House;
use crate::pipe::Pipe;
use crate::publisher::Publisher;
use fanfare::auth::Revocation;
use fanfare::reason::Reason;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

/// Publishes a number to a topic; returns its place.
async fn publish(publisher: &mut Publisher, topic: &str, number: u64) -> Value {
    publisher.publish(&json!({"topic": topic, "data": number})).await
}

/// Does these at once.
async fn join_all(all: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    poll_fn(|task| {
        all.retain_mut(|one| one.as_mut().poll(task).is_pending());
        if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A position as an id has it.
fn written(place: &Value) -> String {
    format!("{}:{}", place["epoch"].as_str().expect("an epoch"), place["offset"])
}

/// The positions that an id holds, by topic.
fn places(id: &str) -> BTreeMap<String, String> {
    let parts = id.split(',').filter_map(|part| part.rsplit_once('@'));
    parts.map(|(topic, position)| (topic.to_owned(), position.to_owned())).collect()
}

#[test]
fn a_stream_of_one_topic_carries_its_position_as_the_id() {
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let first = publish(&mut publisher, "a.b", 1).await;
        let mut events = Events::begin(broker, "topic=a.b&snapshot=true").await;
        assert_eq!(events.head.header("cache-control"), Some("no-store"));
        assert_eq!(events.head.header("x-accel-buffering"), Some("no"));
        let answer = events.answer(1).await;
        assert_eq!(answer["subscribed"]["position"]["offset"], 1, "{answer}");
        // Cut now, it has nothing of the snapshot.
        let start = format!("{}:0", first["epoch"].as_str().expect("an epoch"));
        assert_eq!(events.last_id, Some(start));
        assert_eq!(events.message().await["data"], 1);
        assert_eq!(events.last_id, Some(written(&first)));
        assert!(events.hear().await["snapshotEnd"].is_object());
        let second = publish(&mut publisher, "a.b", 2).await;
        assert_eq!(events.message().await["offset"], 2);
        assert_eq!(events.last_id, Some(written(&second)));
    });
}

#[test]
fn a_stream_of_many_topics_answers_each_and_its_ids_say_where_each_stands() {
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let query = "topic=a&topic=c.%3E&maxHz=1000&topic=b..b&topic=a&topic=e&policy=latest";
        let mut events = Events::begin(broker, query).await;
        let mut answers = BTreeMap::new();
        for _ in 0..5 {
            let answer = events.hear().await;
            answers.insert(answer["id"].as_u64().expect("an id"), answer);
        }
        assert_eq!(answers[&1]["subscribed"]["topic"], "a");
        assert_eq!(answers[&2]["subscribed"]["maxHz"], 1000);
        assert_eq!(answers[&3]["error"]["name"], "badTopic");
        assert_eq!(answers[&4]["error"]["name"], "alreadySubscribed");
        assert_eq!(answers[&5]["subscribed"]["policy"], "latest");
        let mut expected = places(events.last_id.as_ref().expect("an id"));
        assert_eq!(expected.keys().collect::<Vec<_>>(), ["a", "e"]);
        for (number, topic) in ["c.1", "a", "c.2", "e", "a", "c.1"].into_iter().enumerate() {
            let place = publish(&mut publisher, topic, number as u64).await;
            let message = events.message().await;
            assert_eq!((&message["topic"], &message["data"]), (&json!(topic), &json!(number)));
            expected.insert(topic.to_owned(), written(&place));
            assert_eq!(places(events.last_id.as_ref().expect("an id")), expected);
        }
    });
}

#[test]
fn what_stands_before_the_first_topic_holds_for_all() {
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        for number in 1..=3 {
            publish(&mut publisher, "a", number).await;
            publish(&mut publisher, "b", number).await;
        }
        let mut events = Events::begin(broker, "last=2&topic=a&topic=b&last=1").await;
        let mut heard = Vec::new();
        for _ in 0..5 {
            let event = events.hear().await;
            heard.push(match event["id"].as_u64() {
                Some(id) => format!("{id}"),
                None => format!("{} {}", event["message"]["topic"], event["message"]["data"]),
            });
        }
        assert_eq!(heard, ["1", "\"a\" 2", "\"a\" 3", "2", "\"b\" 3"]);
    });
}

#[test]
fn presence_is_told_and_is_no_place_to_come_back_to() {
    let settings = "topics.rules = [{ filter = 'room', presence = true }]";
    with_broker(settings, async |broker| {
        let mut events = Events::begin(broker, "topic=room&presence=true").await;
        events.answer(1).await;
        let id = events.last_id.clone();
        let mut other = Events::begin(broker, "topic=room").await;
        other.answer(1).await;
        let event = events.hear().await;
        assert_eq!(event["joined"]["topic"], "room", "{event}");
        assert_eq!(events.last_id, id);
    });
}

/// Publishes to three topics.
async fn publish_much(broker: &Broker, rounds: u64) {
    let mut publisher = Publisher::connect(broker).await;
    for number in 1..=rounds {
        let publish = |topic| json!({"topic": topic, "data": {"n": number, "x": "y".repeat(100)}});
        publisher.publish_all(&["a.b", "c.1", "c.2"].map(publish)).await;
    }
}

/// A reader that is cut again and again.
struct Restless<'a> {
    query: &'a str,
    /// What it wants to have heard of each topic.
    until: BTreeMap<&'a str, u64>,
    last_id: String,
    dice: Dice,
}

impl<'a> Restless<'a> {
    /// Begins, and hears the answers to all topics.
    async fn begin(broker: &Broker, query: &'a str, topics: &[&'a str], until: u64) -> Self {
        let mut events = Events::begin(broker, query).await;
        for _ in query.split('&').filter(|part| part.starts_with("topic=")) {
            while events.hear().await["subscribed"].is_null() {}
        }
        let until = topics.iter().map(|topic| (*topic, until)).collect();
        let last_id = events.last_id.expect("an id");
        Restless { query, until, last_id, dice: Dice::new(query.len() as u64) }
    }

    fn has_all(&self, heard: &BTreeMap<String, u64>) -> bool {
        self.until.iter().all(|(topic, all)| heard.get(*topic).is_some_and(|n| n >= all))
    }

    /// Reads until everything was heard.
    async fn read(mut self, broker: &Broker) {
        let mut heard: BTreeMap<String, u64> = BTreeMap::new();
        let mut cuts = 0;
        while !self.has_all(&heard) {
            let mut events = Events::resume(broker, self.query, Some(&self.last_id)).await;
            // What of an event comes before a cut does not count, so a cut between two is any cut.
            for _ in 0..self.dice.below(12) {
                if self.has_all(&heard) {
                    break;
                }
                let event = events.hear().await;
                assert!(!event.to_string().contains(r#""recovered":false"#), "{event}");
                assert_eq!(event.get("gap"), None, "{event}");
                assert_eq!(event.get("error"), None, "{event}");
                if let Some(topic) = event["message"]["topic"].as_str() {
                    let before = heard.entry(topic.to_owned()).or_default();
                    let offset = &event["message"]["offset"];
                    assert_eq!(*offset, *before + 1, "{topic} after {cuts} cuts, {}", self.last_id);
                    *before += 1;
                }
            }
            self.last_id = events.last_id.clone().expect("an id");
            cuts += 1;
        }
        assert!(cuts > 10, "{cuts} cuts");
    }
}

#[test]
fn a_reader_that_is_cut_anywhere_loses_nothing_and_gets_nothing_twice() {
    const ROUNDS: u64 = 300;
    with_broker("topics.history.messages = 2000", async |broker| {
        let all = ["a.b", "c.1", "c.2"];
        let queries = [
            ("topic=a.b", &all[..1]),
            ("topic=a.b&topic=c.1&topic=c.2", &all),
            ("topic=c.%3E&snapshot=true&topic=a.b", &all),
            ("topic=%3E", &all),
            ("topic=c.1&topic=%2A.%2A&topic=c.%3E", &all),
        ];
        let mut readers = Vec::new();
        for (query, topics) in queries {
            readers.push(Restless::begin(broker, query, topics, ROUNDS).await);
        }
        let reading = readers.into_iter().map(|reader| reader.read(broker));
        tokio::join!(publish_much(broker, ROUNDS), join_all(reading));
    });
}
