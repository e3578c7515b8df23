//! The list that every client is held to, in every way that this one can speak.
//! # Not here: what the list is for (`clients/scenarios.md`).

use crate::ear::Ear;
use crate::link::Link;
use crate::rig::{Rig, Way, run, within};
use crate::script::{Script, position};
use crate::scripted::{self, until};
use fanfare::auth::{Algorithm, Signer, sign};
use fanfare::client::{
    Beginning, Client, Durability, Event, GapReason, Loss, Payload, Policy, Published, Retry,
    State, Terms,
};
use fanfare::clock::Clock;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Runs a test in every way.
fn in_all_ways(test: impl AsyncFn(Way)) {
    run(async {
        for way in Way::ALL {
            test(way).await;
        }
    });
}

/// Publishes a text. Returns where it is.
async fn say(client: &Client, topic: &str, text: &str) -> Published {
    within("an answer", client.publish(topic).text(text).into_future()).await.expect("published")
}

/// Publishes the numbers of a range as texts.
async fn count(client: &Client, topic: &str, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        say(client, topic, &number.to_string()).await;
    }
}

fn texts(numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

async fn listen(client: &Client, topic: &str) -> Ear {
    let subscription = within("a subscription", client.subscribe(topic).into_future()).await;
    Ear::new(subscription.expect("accepted"))
}

#[test]
fn a_subscription_gets_what_is_published_after_it() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("");
            let client = rig.client(way).await;
            say(&client, "a.b", "before").await;
            let (mut exact, mut filter) =
                (listen(&client, "a.b").await, listen(&client, "a.>").await);
            let published = client.publish("a.b").json(&json!({"x": [1.5]})).key("k").await;
            let published = published.expect("published");
            let other = say(&client, "a.c", "c").await;
            let last = say(&client, "a.b", "last").await;
            for ear in [&mut exact, &mut filter] {
                let message = ear.message().await;
                assert_eq!(message.topic.as_str(), "a.b", "{way:?}");
                assert_eq!(message.position(), Some(published.position));
                assert_eq!((message.offset, message.key.as_str()), (2, "k"));
                assert!(message.time_ms > 1_700_000_000_000, "{message:?}");
                assert_eq!(message.json::<Value>().expect("JSON"), json!({"x": [1.5]}));
            }
            assert_eq!(filter.message().await.position(), Some(other.position));
            for ear in [&mut exact, &mut filter] {
                assert_eq!(ear.message().await.position(), Some(last.position), "once, in order");
            }
        }
    });
}

#[test]
fn a_snapshot_comes_first_and_ends() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("");
            let client = rig.client(way).await;
            for (topic, text) in [("t.a", "1"), ("t.a", "2"), ("t.b", "3")] {
                say(&client, topic, text).await;
            }
            let mut ear = Ear::new(client.subscribe("t.*").snapshot().await.expect("accepted"));
            assert_eq!(ear.texts(2).await, ["2", "3"], "{way:?}");
            assert_eq!(ear.next_told().await, Event::SnapshotEnd { topics: 2 });
            let live = say(&client, "t.a", "4").await;
            assert_eq!(ear.message().await.position(), Some(live.position));
        }
    });
}

#[test]
fn history_is_asked_for_page_by_page() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("");
            let client = rig.client(way).await;
            count(&client, "log", 1..=5).await;
            let mut pages = Vec::new();
            let latest = client.history("log").limit(1).await.expect("a page");
            let top = latest.top.expect("a topic");
            assert_eq!((top, latest.last()), (top, Some(top)), "{way:?}");
            let mut since = position(0);
            since.epoch = top.epoch;
            loop {
                let page = client.history("log").since(since).limit(2).await.expect("a page");
                assert_eq!(page.top, Some(top));
                since = page.last().expect("messages");
                let more = page.more;
                pages.push(page.messages.len());
                if !more {
                    break;
                }
            }
            assert_eq!((pages, since), (vec![2, 2, 1], top), "together they are the topic");
            let nothing = client.history("nowhere").await.expect("a page");
            assert_eq!((nothing.top, nothing.messages.len()), (None, 0));
            let error = client.history("log").since(position(1)).await.expect_err("another epoch");
            assert_eq!(error.name(), "epochChanged");
        }
    });
}

#[test]
fn a_publish_is_answered_with_its_position() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("");
            let client = rig.client(way).await;
            let answers: Vec<_> = ["1", "2", "3"]
                .map(|text| client.publish("t").text(text).send().expect("room"))
                .into_iter()
                .collect();
            for (answer, offset) in answers.into_iter().zip(1..) {
                let published = within("an answer", answer).await.expect("published");
                assert_eq!(published.position.offset.0, offset, "{way:?}");
                assert_eq!(published.durability, Durability::Memory);
            }
            let error = client.publish("t").delete().await.expect_err("a delete needs a key");
            assert_eq!((error.code(), error.name(), error.retry()), (106, "badKey", Retry::Never));
            let error = client.publish("t").payload(Payload::Json("{".into())).await;
            assert_eq!(error.expect_err("no JSON").name(), "badPayload");
        }
    });
}

#[test]
fn a_publish_repeated_with_its_idempotency_key_is_one_message() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("");
            let link = Link::to(rig.address(way)).await;
            let mut direct = listen(&rig.client(way).await, "t").await;
            let client = way.client(link.address).open().await.expect("connected");
            link.mute();
            let answer = client.publish("t").text("once").send().expect("room");
            let seen = direct.message().await;
            link.cut();
            link.open();
            let published = within("the answer", answer).await.expect("published");
            assert_eq!(Some(published.position), seen.position(), "{way:?}");
            say(&client, "t", "twice").await;
            assert_eq!(direct.texts(1).await, ["twice"]);
        }
    });
}

#[test]
fn a_connection_that_is_cut_is_resumed_without_loss_or_double() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("");
            let link = Link::to(rig.address(way)).await;
            let publisher = rig.client(way).await;
            let client = way.client(link.address).open().await.expect("connected");
            let mut ears = [listen(&client, "r.a").await, listen(&client, "r.>").await];
            count(&publisher, "r.a", 1..=10).await;
            for ear in &mut ears {
                assert_eq!(ear.texts(10).await, texts(1..=10), "{way:?}");
            }
            for round in 1..=3 {
                link.shut();
                count(&publisher, "r.a", round * 10 + 1..=round * 10 + 5).await;
                link.open();
                count(&publisher, "r.a", round * 10 + 6..=round * 10 + 10).await;
                for ear in &mut ears {
                    let expected = texts(round * 10 + 1..=round * 10 + 10);
                    assert_eq!(ear.texts(10).await, expected, "{way:?}");
                }
            }
            for ear in &ears {
                assert_eq!(ear.losses(), [None, None, None], "{way:?}");
            }
        }
    });
}

#[test]
fn a_broker_that_lost_its_history_is_told_as_not_recovered() {
    run(async {
        for way in Way::ALL {
            let (first, second) = (Rig::start(""), Rig::start(""));
            let link = Link::to(first.address(way)).await;
            let client = way.client(link.address).open().await.expect("connected");
            let mut ears = [listen(&client, "r.a").await, listen(&client, "r.>").await];
            count(&client, "r.a", 1..=3).await;
            for ear in &mut ears {
                ear.texts(3).await;
            }
            link.lead_to(second.address(way));
            link.cut();
            for ear in &mut ears {
                let recovery = ear.recovery().await;
                assert_eq!((&*recovery.topic, recovery.loss), ("r.a", Some(Loss::EpochChanged)));
            }
            let anew = say(&client, "r.a", "anew").await;
            assert_eq!(anew.position.offset.0, 1);
            for ear in &mut ears {
                assert_eq!(ear.message().await.position(), Some(anew.position), "{way:?}");
            }
        }
    });
}

#[test]
fn a_resume_from_before_the_history_is_told_as_not_recovered() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("topics.history.messages = 5");
            let link = Link::to(rig.address(way)).await;
            let publisher = rig.client(way).await;
            let client = way.client(link.address).open().await.expect("connected");
            let mut ears = [listen(&client, "r.a").await, listen(&client, "r.>").await];
            count(&publisher, "r.a", 1..=1).await;
            for ear in &mut ears {
                ear.texts(1).await;
            }
            link.shut();
            count(&publisher, "r.a", 2..=20).await;
            link.open();
            for ear in &mut ears {
                assert_eq!(ear.recovery().await.loss, Some(Loss::Trimmed), "{way:?}");
            }
            count(&publisher, "r.a", 21..=21).await;
            for ear in &mut ears {
                assert_eq!(ear.texts(1).await, ["21"], "{way:?}");
            }
        }
    });
}

#[test]
fn a_gap_is_told() {
    in_all_ways(scripted::gap);
}

#[test]
fn terms_are_changed_while_messages_flow() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("");
            let link = Link::to(rig.address(way)).await;
            let publisher = rig.client(way).await;
            let client = way.client(link.address).open().await.expect("connected");
            let mut ear = listen(&client, "t").await;
            let rated = ear.subscription.update().max_hz(5.0).await.expect("granted");
            assert!(
                matches!(rated.policy, Policy::MaxHz(rate) if rate.millihertz() == 5_000),
                "{rated:?}"
            );
            let error = ear.subscription.update().max_hz(0.0).await.expect_err("no rate");
            assert_eq!(error.name(), "badOption");
            let latest = ear.subscription.update().policy(Policy::Latest).await.expect("granted");
            assert_eq!(latest, Terms { policy: Policy::Latest, overflow: None });
            let all = ear.subscription.update().policy(Policy::All).await.expect("granted");
            assert_eq!(all.policy, Policy::All);
            count(&publisher, "t", 1..=50).await;
            assert_eq!(ear.texts(50).await, texts(1..=50), "nothing is lost under `all`: {way:?}");
            ear.subscription.update().max_hz(2.0).await.expect("granted");
            link.cut();
            let again = ear.subscribed().await;
            assert_eq!(again.beginning, Beginning::Resumed);
            assert!(
                matches!(again.terms.policy, Policy::MaxHz(rate) if rate.millihertz() == 2_000)
            );
        }
    });
}

#[test]
fn presence_tells_who_is_there() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("topics.rules = [{ filter = 'room.*', presence = true }]");
            let link = Link::to(rig.address(way)).await;
            let ann = way.client(link.address).name("ann").open().await.expect("connected");
            let bob = way.client(rig.address(way)).name("bob").open().await.expect("connected");
            let mut ear = Ear::new(ann.subscribe("room.1").presence().await.expect("accepted"));
            let Event::Present(alone) = ear.next_told().await else { panic!("nobody is told") };
            assert_eq!((alone.count, alone.members[0].name.as_str()), (1, "ann"), "{way:?}");
            let there = listen(&bob, "room.1").await;
            let Event::Joined(member) = ear.next_told().await else { panic!("nobody joined") };
            assert_eq!(member.name, "bob");
            let both = bob.presence("room.1").await.expect("an answer");
            assert_eq!((both.count, both.more), (2, false));
            link.cut();
            assert_eq!(ear.recovery().await.loss, None);
            let Event::Present(again) = ear.next_told().await else { panic!("not told again") };
            assert!(again.members.contains(&member), "{again:?}");
            drop(there);
            loop {
                // The one that was cut may be told to leave, too.
                match ear.next_told().await {
                    Event::Left(left) if left == member => break,
                    Event::Left(_) | Event::Joined(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            let error = bob.presence("street.1").await.expect_err("its rule keeps none");
            assert_eq!(error.name(), "notAllowed");
        }
    });
}

const SECRET: &str = "a secret of the tests that is long enough for HS256";

/// Settings with a key, which are in a folder that must stay.
fn with_key(more: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, SECRET).expect("a file");
    let path = path.display();
    let key = format!("[[auth.keys]]\nalgorithm = 'HS256'\nfile = '{path}'\n");
    (folder, format!("{more}\n[auth]\naudience = 'tests'\nleeway = '0s'\n{key}"))
}

fn token(seconds: u64) -> String {
    let signer = Signer::of_file(Algorithm::Hs256, SECRET.as_bytes()).expect("a secret");
    let now = Clock::start().now().wall_ms / 1000;
    let rights = json!({"subscribe": ["room.>"], "publish": ["room.>"]});
    let claims = json!({"sub": "ann", "aud": "tests", "exp": now + seconds, "fanfare": rights});
    sign(&signer, None, &claims).expect("signed")
}

#[test]
fn a_token_is_refreshed_before_it_expires() {
    run(async {
        let (_folder, settings) = with_key("");
        let rig = Rig::start(&settings);
        let [json, proto, tcp] = Way::ALL.map(|way| outlive_a_token(&rig, way));
        tokio::join!(json, proto, tcp);
    });
}

/// Begins with a token of six seconds, and goes on for longer.
async fn outlive_a_token(rig: &Rig, way: Way) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let end = Clock::start().now().wall_ms + 7_000;
    let fetch = move || {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move { Ok::<_, std::convert::Infallible>(token(if first { 6 } else { 600 })) }
    };
    let client = way.client(rig.address(way)).token_with(fetch).open().await.expect("connected");
    let topic = format!("room.{way:?}");
    let mut ear = listen(&client, &topic).await;
    let before = client.state();
    // Until the end of the first one is over by the broker's clock.
    while Clock::start().now().wall_ms < end {
        say(&client, &topic, "still here").await;
        assert_eq!(ear.texts(1).await, ["still here"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(client.state(), before, "it is the same connection: {way:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 2, "{way:?}");
}

#[test]
fn a_token_that_is_refused_ends_the_client_with_an_error() {
    run(async {
        let (_folder, settings) = with_key("");
        let rig = Rig::start(&settings);
        for way in Way::ALL {
            let client = way.client(rig.address(way)).token("not-a-token").start().expect("begun");
            let answer = client.publish("room.1").text("x").send().expect("room");
            let refused = client.subscribe("room.1").await.expect_err("refused");
            assert_eq!((refused.code(), refused.name()), (4501, "badToken"), "{way:?}");
            assert_eq!(refused.retry(), Retry::Never);
            assert_eq!(within("the answer", answer).await, Err(refused.clone()), "{way:?}");
            let state = until(&client, |state| matches!(state, State::Closed { .. })).await;
            assert_eq!(state, State::Closed { error: Some(refused.clone()) });
            assert_eq!(client.publish("room.1").text("x").await, Err(refused));
        }
    });
}

#[test]
fn a_topic_that_is_refused_is_an_error_of_its_own_subscription() {
    run(async {
        let (_folder, settings) = with_key("");
        let rig = Rig::start(&settings);
        for way in Way::ALL {
            let client = way.client(rig.address(way)).token(token(600)).open().await.expect("in");
            let mut ear = listen(&client, "room.1").await;
            let error = client.subscribe("a..b").await.expect_err("no name");
            assert_eq!((error.code(), error.name()), (101, "badTopic"), "{way:?}");
            let error = client.subscribe("street.1").await.expect_err("not granted");
            assert_eq!((error.code(), error.name()), (115, "notAllowed"), "{way:?}");
            say(&client, "room.1", "the other goes on").await;
            assert_eq!(ear.texts(1).await, ["the other goes on"]);
        }
    });
}

#[test]
fn a_server_that_says_when_to_come_back_is_obeyed() {
    in_all_ways(scripted::afterwards);
}

#[test]
fn a_wrong_subprotocol_ends_the_client_with_an_error() {
    run(async {
        for (way, wrong) in [(Way::Json, "fanfare.v1.proto"), (Way::Proto, "fanfare.v9.proto")] {
            let script = Script::start(way).await;
            let client = way.client(script.address).start().expect("a client");
            let mut peer = script.accept().await;
            let answer = peer.upgrade(wrong).await;
            peer.write(answer.as_bytes()).await;
            let state = until(&client, |state| matches!(state, State::Closed { .. })).await;
            let State::Closed { error: Some(error) } = state else { panic!("{state:?}") };
            assert_eq!((error.name(), error.retry()), ("badSubprotocol", Retry::Never));
            assert!(error.to_string().contains(wrong), "{error}");
            peer.left().await;
        }
    });
}

#[test]
fn a_server_that_is_gone_at_any_step_of_the_handshake_is_tried_again() {
    in_all_ways(scripted::steps);
}

#[test]
fn a_malformed_event_ends_the_connection_and_not_the_client() {
    in_all_ways(scripted::malformed);
}

#[test]
fn subscriptions_beyond_the_limit_are_errors_of_their_own() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("limits.subscriptions_max = 2\nlimits.filters_max = 1");
            let client = rig.client(way).await;
            let mut ears = [listen(&client, "t.1").await, listen(&client, "t.2").await];
            let error = client.subscribe("t.3").await.expect_err("beyond the limit");
            assert_eq!(error.name(), "tooManySubscriptions", "{way:?}");
            for (ear, name) in ears.iter_mut().zip(["t.1", "t.2"]) {
                say(&client, name, "goes on").await;
                assert_eq!(ear.texts(1).await, ["goes on"]);
            }
        }
    });
}

#[test]
fn what_is_published_offline_waits_up_to_a_bound_and_is_refused_beyond_it() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("");
            let mut direct = listen(&rig.client(way).await, "t").await;
            let link = Link::to(rig.address(way)).await;
            link.shut();
            let client = way.client(link.address).queue(3).start().expect("a client");
            let send = |text| client.publish("t").text(text).send();
            let kept = ["1", "2", "3"].map(|text| send(text).expect("room"));
            let error = send("4").expect_err("no room");
            assert_eq!((error.code(), error.name(), error.retry()), (0, "queueFull", Retry::Later));
            link.open();
            for (answer, offset) in kept.into_iter().zip(1..) {
                let published = within("an answer", answer).await.expect("published");
                assert_eq!(published.position.offset.0, offset, "{way:?}");
            }
            assert_eq!(direct.texts(3).await, ["1", "2", "3"]);
        }
    });
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    in_all_ways(scripted::silence);
}

#[test]
fn a_delete_is_delivered() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("topics.rules = [{ filter = 'row.*', snapshot = 'keys' }]");
            let client = rig.client(way).await;
            let mut ear = listen(&client, "row.a").await;
            for key in ["x", "y"] {
                client.publish("row.a").key(key).text(key).await.expect("published");
            }
            client.publish("row.a").key("x").delete().await.expect("published");
            ear.texts(2).await;
            let delete = ear.message().await;
            assert_eq!((delete.key.as_str(), delete.is_delete()), ("x", true), "{way:?}");
            assert_eq!((delete.payload.as_ref(), delete.offset), (None, 3));
            let other = rig.client(way).await;
            let mut rows = Ear::new(other.subscribe("row.a").snapshot().await.expect("accepted"));
            assert_eq!(rows.message().await.key, "y");
            assert_eq!(rows.next_told().await, Event::SnapshotEnd { topics: 1 });
        }
    });
}

#[test]
fn text_and_bytes_come_back_as_they_were() {
    run(async {
        let every: String =
            ('\0'..='\u{10FFFF}').step_by(97).chain("\"\\/\n\u{2028}".chars()).collect();
        let bytes: Vec<u8> = (0..=255).collect();
        let payloads = [
            Payload::Json(r#"{"x": 1.50, "y": [null, "ä\u0000"]}"#.into()),
            Payload::Json("null".into()),
            Payload::Text(every),
            Payload::Text(String::new()),
            Payload::Binary(bytes.into()),
            Payload::Binary(Vec::new().into()),
        ];
        for way in Way::ALL {
            let rig = Rig::start("");
            let client = rig.client(way).await;
            let mut ear = listen(&client, "t").await;
            for payload in &payloads {
                client.publish("t").payload(payload.clone()).await.expect("published");
                assert_eq!(ear.message().await.payload.as_ref(), Some(payload), "{way:?}");
            }
        }
    });
}

#[test]
fn what_waits_for_a_slow_reader_is_bounded() {
    run(async {
        for way in Way::ALL {
            let rig = Rig::start("limits.write_stall_max = '10m'\nlimits.outbound_age_max = '10m'");
            let (publisher, client) = (rig.client(way).await, rig.client(way).await);
            let slow = client.subscribe("t").buffer(10).overflow(fanfare::client::Overflow::Gap);
            let mut ear = Ear::new(slow.await.expect("accepted"));
            // More than two sockets and the broker's queue hold.
            let (large, total) = ("x".repeat(60_000), 600);
            for _ in 0..total {
                say(&publisher, "t", &large).await;
            }
            say(&publisher, "other", "end").await;
            let (mut next, mut missing) = (1, 0);
            while next <= total {
                match ear.event().await {
                    Event::Message(message) => {
                        assert_eq!(message.offset, next, "{way:?}");
                        next += 1;
                    }
                    Event::Gap(gap) => {
                        assert_eq!((gap.from, gap.reason), (next, GapReason::Slow), "{way:?}");
                        (next, missing) = (gap.to + 1, missing + gap.count);
                    }
                    Event::Subscribed(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(missing > 0, "the server was never held back: {way:?}");
        }
    });
}

#[test]
fn a_client_says_hello_with_its_name_and_goes_with_a_close() {
    in_all_ways(scripted::goodbye);
}
