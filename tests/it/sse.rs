//! `GET /sse`: what a stream tells, how its reader comes back, how it ends.
//! # Not here: looks without a stream (`looks`), browsers (`tests/page`).

use crate::events::{Events, request};
use crate::harness::{Broker, Bystander, Dice, with_broker};
use crate::http::{Answer, ask, get};
use crate::identity::{House, now};
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

#[test]
fn what_an_id_had_no_room_for_is_told_as_not_recovered() {
    with_broker("", async |broker| {
        let topics: Vec<String> = (0..70).map(|n| format!("topic=t.{n:02}")).collect();
        let query = topics.join("&");
        let mut events = Events::begin(broker, &query).await;
        for id in 1..=70 {
            events.answer(id).await;
        }
        let id = events.last_id.clone().expect("an id");
        assert!(id.ends_with(",!") && id.len() <= 4096, "{id}");
        let mut again = Events::resume(broker, &query, Some(&id)).await;
        for n in 1..=70 {
            let subscribed = again.answer(n).await["subscribed"].clone();
            let reason = if n <= 64 { Value::Null } else { json!("tooMany") };
            assert_eq!(subscribed["recovered"], n <= 64, "{subscribed}");
            assert_eq!(subscribed["reason"], reason, "{subscribed}");
        }
        let over = Events::begin(broker, "topic=t.*").await.answer(1).await;
        assert_eq!(over["subscribed"].get("recovered"), None, "it is not a resume: {over}");
        let over = Events::resume(broker, "topic=t.*", Some(&id)).await.answer(1).await;
        assert_eq!(over["subscribed"]["reason"], "tooMany", "{over}");
        assert_eq!(over["subscribed"]["topics"].as_array().map(Vec::len), Some(64), "{over}");
    });
}

#[test]
fn being_cut_while_subscriptions_begin_loses_no_place() {
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let query = "topic=a&topic=b&topic=c.%3E";
        let mut events = Events::begin(broker, query).await;
        for id in 1..=3 {
            events.answer(id).await;
        }
        for topic in ["b", "c.1"] {
            publish(&mut publisher, topic, 1).await;
            events.message().await;
        }
        let before = places(events.last_id.as_ref().expect("an id"));
        // It hears the hello and nothing more.
        let again = Events::resume(broker, query, events.last_id.as_deref()).await;
        assert_eq!(places(again.last_id.as_ref().expect("an id")), before);
        publish(&mut publisher, "b", 2).await;
        let mut again = Events::resume(broker, query, again.last_id.as_deref()).await;
        assert_eq!(again.answer(1).await["subscribed"]["recovered"], true);
        assert_eq!(again.answer(2).await["subscribed"]["recovered"], true);
        assert_eq!(again.message().await["data"], 2);
        let answer = again.answer(3).await;
        assert_eq!(answer["subscribed"]["topics"][0]["recovered"], true, "{answer}");
    });
}

#[test]
fn a_query_may_say_where_to_go_on() {
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let first = written(&publish(&mut publisher, "c.1", 1).await);
        publish(&mut publisher, "c.1", 2).await;
        for (query, place) in [
            (format!("topic=c.1&since={first}"), "subscribed"),
            (format!("topic=c.1&lastEventId={first}"), "subscribed"),
            (format!("topic=c.1&topic=d&lastEventId=c.1%40{first}"), "subscribed"),
            (format!("topic=c.*&since=c.1@{first}"), "topics"),
            (format!("topic=c.*&lastEventId=c.*,c.1@{first}"), "topics"),
        ] {
            let mut events = Events::begin(broker, &query).await;
            let answer = events.answer(1).await["subscribed"].clone();
            let told = if place == "topics" { &answer["topics"][0] } else { &answer };
            assert_eq!(told["recovered"], true, "{query}: {answer}");
            assert_eq!(events.message().await["data"], 2, "{query}");
        }
    });
}

#[test]
fn positions_of_a_broker_that_is_gone_are_told_as_not_recovered() {
    let query = "topic=a.b&topic=c.%3E&snapshot=true";
    let ids = std::cell::Cell::new(None);
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        publish(&mut publisher, "a.b", 1).await;
        publish(&mut publisher, "c.1", 1).await;
        let mut events = Events::begin(broker, query).await;
        while events.hear().await["snapshotEnd"].is_null() {}
        ids.set(events.last_id);
    });
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        publish(&mut publisher, "a.b", 1).await;
        let id = ids.take().expect("an id");
        let mut events = Events::resume(broker, query, Some(&id)).await;
        let answer = events.answer(1).await["subscribed"].clone();
        assert_eq!(answer["recovered"], false, "{answer}");
        assert_eq!(answer["reason"], "epochChanged", "{answer}");
        let answer = events.answer(2).await["subscribed"]["topics"][0].clone();
        assert_eq!(answer, json!({"topic": "c.1", "recovered": false, "reason": "epochChanged"}));
    });
}

#[test]
fn an_id_forgets_what_was_answered_as_not_there() {
    with_broker("", async |broker| {
        let mut publisher = Publisher::connect(broker).await;
        let epoch = publish(&mut publisher, "f.old", 1).await["epoch"].clone();
        let epoch = epoch.as_str().expect("an epoch");
        let forged = (0..28).map(|n| format!("f.{n:02}{}@{epoch}:1", "x".repeat(90)));
        let forged: Vec<_> =
            ["f.*".to_owned(), format!("f.old@{epoch}:1")].into_iter().chain(forged).collect();
        let mut events = Events::resume(broker, "topic=f.*", Some(&forged.join(","))).await;
        let answer = events.answer(1).await["subscribed"]["topics"].clone();
        let topics = answer.as_array().expect("topics");
        assert_eq!((topics.len(), &topics[0]["recovered"]), (29, &json!(true)));
        assert!(topics[1..].iter().all(|topic| topic["reason"] == "epochChanged"), "{answer}");
        let place = written(&publish(&mut publisher, "f.old", 2).await);
        assert_eq!(events.message().await["data"], 2);
        assert_eq!(events.last_id, Some(format!("f.*,f.old@{place}")));
    });
}

#[test]
fn more_topics_than_a_connection_may_ever_have_are_refused_whole() {
    with_broker("limits.subscriptions_max = 130", async |broker| {
        let address = broker.public();
        let query = |count: usize| vec!["topic=*"; count].join("&");
        ask(address, &request(address, &query(131), ""))
            .await
            .must_refuse(Reason::TooManySubscriptions);
        let mut events = Events::begin(broker, &query(130)).await;
        assert!(events.answer(1).await["subscribed"].is_object());
        for id in 2..=130 {
            assert_eq!(events.answer(id).await["error"]["name"], "alreadySubscribed");
        }
        let epoch = "A".repeat(22);
        let many: Vec<_> = (0..65).map(|n| format!("t.{n}@{epoch}:1")).collect();
        let header = format!("last-event-id: {}\r\n", many.join(","));
        let answer = ask(address, &request(address, "topic=*", &header)).await;
        answer.must_refuse(Reason::TooManyPositions);
    });
}

#[test]
fn a_slow_reader_is_told_its_gap_and_comes_back_behind_it() {
    let settings = "limits.outbound_bytes_max = '64 KiB'\nlimits.outbound_age_max = '1s'\n\
                    topics.history.messages = 5000\ntopics.history.bytes = '64 MiB'";
    for query in ["topic=a.b&overflow=gap", "topic=a.*&overflow=gap"] {
        with_broker(settings, async |broker| {
            let mut bystander = Bystander::join(broker).await;
            let pipe = Pipe::connect_narrow(broker.public()).await;
            let mut events = Events::over(broker, pipe, query, None).await;
            events.answer(1).await;
            let mut publisher = Publisher::connect(broker).await;
            let text = "x".repeat(8 << 10);
            let publish = json!({"topic": "a.b", "text": text});
            while broker.count("fanfare_dropped_total").await == 0 {
                publisher.publish_all(&vec![publish.clone(); 50]).await;
            }
            bystander.is_fine().await;
            let last = publisher.publish(&publish).await["offset"].as_u64().expect("an offset");
            let (mut next, mut gaps) = (1, 0);
            while next <= last {
                let event = events.hear().await;
                if let Some(offset) = event["message"]["offset"].as_u64() {
                    assert_eq!(offset, next, "after {gaps} gaps");
                    next += 1;
                } else if let Some(from) = event["gap"]["from"].as_u64() {
                    assert_eq!(from, next, "{event}");
                    next = event["gap"]["to"].as_u64().expect("an end") + 1;
                    gaps += 1;
                } else {
                    assert!(event["position"].is_object(), "{event}");
                }
                let id = events.last_id.as_ref().expect("an id");
                let told: u64 = id.rsplit(':').next().and_then(|n| n.parse().ok()).expect("digits");
                // Between a gap and its position the id still stands before the gap.
                assert!(
                    told + 1 == next || event["gap"].is_object(),
                    "{id} before {next}: {event}"
                );
            }
            assert!(gaps > 0);
            let mut again = Events::resume(broker, query, events.last_id.as_deref()).await;
            assert!(again.answer(1).await.to_string().contains(r#""recovered":true"#));
            publisher.publish(&json!({"topic": "a.b", "data": 7})).await;
            assert_eq!(again.message().await["data"], 7);
        });
    }
}

#[test]
fn a_reader_that_takes_nothing_is_ended() {
    let settings = "limits.outbound_bytes_max = '64 KiB'\nlimits.write_stall_max = '1s'";
    with_broker(settings, async |broker| {
        let pipe = Pipe::connect_narrow(broker.public()).await;
        let mut events = Events::over(broker, pipe, "topic=a.b&topic=a.*", None).await;
        events.answer(1).await;
        events.answer(2).await;
        let mut publisher = Publisher::connect(broker).await;
        let publish = json!({"topic": "a.b", "text": "x".repeat(8 << 10)});
        while broker.count("fanfare_blocked_connections").await == 0 {
            publisher.publish_all(&vec![publish.clone(); 20]).await;
        }
        broker.until("fanfare_closes_total{reason=\"slowConsumer\"}", |count| count == 1).await;
        broker.until("fanfare_connections{wire=\"sse_topics\"}", |count| count == 0).await;
    });
}

#[test]
fn a_stream_shows_life() {
    with_broker("websocket.ping_interval = '1s'\nwebsocket.pong_timeout = '1s'", async |broker| {
        let mut events = Events::begin(broker, "topic=a").await;
        events.answer(1).await;
        for _ in 0..3 {
            assert_eq!(events.hear().await, json!({"ping": {}}), "and no pong is waited for");
        }
    });
}

#[test]
fn a_broker_that_stops_says_when_to_come_back() {
    let settings = "shutdown.reconnect_after = '3s'";
    crate::harness::run(async {
        let broker = Broker::start(settings);
        let mut events = Events::begin(&broker, "topic=a").await;
        events.answer(1).await;
        let drain = broker.drain();
        let hear = async {
            let event = events.hear().await;
            assert!(event["reconnect"].is_object(), "{event}");
            assert_eq!(events.retry, event["reconnect"]["afterMs"].as_u64());
            events.must_end("goingAway").await;
        };
        let (left, ()) = tokio::join!(drain, hear);
        assert_eq!(left, 0);
    });
}

#[test]
fn who_reads_is_asked_as_everywhere() {
    let house = House::new();
    with_broker(&house.settings(""), async |broker| {
        let stream = |headers: &str| request(broker.public(), "topic=room.1&topic=vault", headers);
        let answer = ask(broker.public(), &stream("")).await;
        answer.must_refuse(Reason::Unauthenticated);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let answer = ask(broker.public(), &stream("authorization: Bearer x.y.z\r\n")).await;
        answer.must_refuse(Reason::BadToken);
        let answer = get(broker.public(), "/sse?topic=a&access_token=x").await;
        answer.must_refuse(Reason::BadRequest);
        for (subject, seconds, reason) in [("ann", 600, "forbidden"), ("bob", 2, "tokenExpired")] {
            let token = house.token(subject, seconds, &["room.>"]);
            let mut pipe = Pipe::connect(broker.public()).await;
            let header = format!("authorization: Bearer {token}\r\n");
            pipe.send(stream(&header).as_bytes()).await;
            let head = Answer::read(&mut pipe).await;
            assert_eq!(head.status, 200, "{head:?}");
            let mut events = Events { pipe, head, last_id: None, retry: None };
            let hello = events.hear().await;
            assert!(hello["connected"]["expiresMs"].is_u64(), "{hello}");
            assert!(events.answer(1).await["subscribed"].is_object());
            assert_eq!(events.answer(2).await["error"]["name"], "notAllowed");
            if subject == "ann" {
                let revocation = Revocation::Subject("ann".into());
                broker.guard().revoke(revocation, u64::MAX, now()).expect("room");
                broker.review();
            }
            events.must_end(reason).await;
        }
    });
}

#[test]
fn the_limits_of_a_connection_are_those_of_a_stream() {
    with_broker("limits.subscriptions_max = 2\nlimits.filters_max = 1", async |broker| {
        let mut events = Events::begin(broker, "topic=a.*&topic=b.*&topic=c&topic=d").await;
        assert!(events.answer(3).await["subscribed"].is_object());
        assert!(events.answer(4).await["subscribed"].is_object());
        for id in [1, 2] {
            assert_eq!(events.answer(id).await["error"]["name"], "tooManySubscriptions");
        }
        let mut events = Events::begin(broker, "topic=a.*&topic=b.*").await;
        assert!(events.answer(1).await["subscribed"].is_object());
        assert_eq!(events.answer(2).await["error"]["name"], "tooManyFilters");
    });
}

#[test]
fn a_malformed_query_is_refused_whole_and_a_bad_topic_by_itself() {
    let epoch = "A".repeat(22);
    let cases = [
        ("", "the query names no `topic`"),
        ("snapshot=true", "the query names no `topic`"),
        ("topc=a", "the query has no `topc`: did you mean `topic`?"),
        ("topic=a&maxhz=1", "the query has no `maxhz`: did you mean `maxHz`?"),
        ("topic=a&colour=red", "the query has no `colour`: it takes topic, since, last"),
        ("topic=a&last=1&last=2", "`last` is there twice"),
        ("snapshot=true&snapshot=true&topic=a", "`snapshot` is there twice"),
        ("since=x&topic=a", "`since` stands behind its `topic`"),
        ("topic=%zz", "the query of the path is not percent encoded"),
        ("topic=a&lastEventId=1&lastEventId=1", "`lastEventId` is there twice"),
    ];
    let single = [
        ("topic=", "badTopic"),
        ("topic=a..b", "badTopic"),
        ("topic=a.%3E.b", "badFilter"),
        ("topic=a&last=-1", "badOption"),
        ("topic=a&last=4294967296", "badOption"),
        ("topic=a&snapshot=yes", "badOption"),
        ("topic=a&policy=some", "badOption"),
        ("topic=a&policy=maxHz", "badOption"),
        ("topic=a&maxHz=0", "badOption"),
        ("topic=a&maxHz=NaN", "badOption"),
        ("topic=a&overflow=drop", "badOption"),
        ("topic=a.*&presence=true", "badOption"),
        ("topic=a&since=1", "badPosition"),
        ("topic=a&since=x:1", "badPosition"),
        ("topic=a.*&since=x:1", "badPosition"),
    ];
    with_broker("", async |broker| {
        for (query, expected) in cases {
            let answer = ask(broker.public(), &request(broker.public(), query, "")).await;
            let message = answer.must_refuse(Reason::BadRequest);
            assert!(message.contains(expected), "{query}: {message}");
        }
        for (query, expected) in single {
            let mut events = Events::begin(broker, query).await;
            assert_eq!(events.answer(1).await["error"]["name"], expected, "{query}");
        }
        let twice = format!("topic=a&since={epoch}:1&since={epoch}:2");
        let mut events = Events::begin(broker, &twice).await;
        assert_eq!(events.answer(1).await["error"]["name"], "badOption");
        for id in [
            "x",
            "a@b:1",
            "a@:",
            &format!("{epoch}:1,{epoch}:2"),
            &format!("{epoch}:1,!"),
            &format!("a@{epoch}:1,a@{epoch}:2"),
        ] {
            let header = format!("last-event-id: {id}\r\n");
            let answer = ask(broker.public(), &request(broker.public(), "topic=a", &header)).await;
            answer.must_refuse(Reason::BadPosition);
        }
        let header = format!("last-event-id: {epoch}:1\r\n");
        let two = request(broker.public(), "topic=a&topic=b", &header);
        ask(broker.public(), &two).await.must_refuse(Reason::BadPosition);
        let two = format!("{header}{header}");
        let answer = ask(broker.public(), &request(broker.public(), "topic=a", &two)).await;
        answer.must_refuse(Reason::BadRequest);
    });
}
