//! Another configuration for a broker that runs: what changes at once, what does not, and that a bad
//! one changes nothing.
//! # Not here: the service manager (`systemd`), certificates by themselves (`tls`).

use crate::certificates::Keyring;
use crate::client::Client;
use crate::harness::{Broker, config, run};
use crate::http;
use crate::process::Process;
use crate::socket::request;
use fanfare::auth::Hash;
use fanfare::control::Changes;
use fanfare::topics::message::Wire;
use rustix::process::Signal;
use serde_json::{Value, json};

async fn ask(client: &mut Client, command: Value) -> Value {
    let mut command = command;
    command["id"] = 1.into();
    client.ask(&command).await
}

/// How many messages of a topic can be had again after these.
async fn kept(client: &mut Client, topic: &str, published: usize) -> usize {
    for _ in 0..published {
        let publish = json!({"publish": {"topic": topic, "data": 1}});
        assert!(ask(client, publish).await["published"].is_object());
    }
    let page = ask(client, json!({"history": {"topic": topic}})).await;
    page["historyPage"]["messages"].as_array().map_or(0, Vec::len)
}

/// What a page of another origin is answered.
async fn status(broker: &Broker, headers: &str) -> u16 {
    http::ask(broker.public(), &request(broker.public(), headers)).await.status
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

#[test]
fn rules_and_limits_are_in_force_for_what_begins_then() {
    run(async {
        let mut broker = Broker::start("topics.history.messages = 1");
        let mut before = Client::connect(&broker, Wire::WebSocketJson).await;
        assert_eq!(kept(&mut before, "old", 3).await, 1);
        let changes = broker
            .reload(
                "topics.history.messages = 2\nlimits.subscriptions_max = 1\n\
                 limits.filters_max = 1\ntopics.rules = [{ filter = 'none', \
                 history = { messages = 0 }, group = 'new' }]",
            )
            .await
            .expect("sound");
        let rule = changes.changed.iter().filter(|key| key.starts_with("topics.rules")).count();
        assert!(rule > 1, "{changes:?}");
        let others = changes.changed.iter().filter(|key| !key.starts_with("topics.rules"));
        let others: Vec<_> = others.cloned().collect();
        let expected =
            ["limits.filters_max", "limits.subscriptions_max", "topics.history.messages"];
        assert_eq!(others, keys(&expected));
        assert_eq!(changes.needs_restart, keys(&["topics.rules[0].group"]));

        let mut after = Client::connect(&broker, Wire::TcpProto).await;
        assert_eq!(kept(&mut after, "old", 3).await, 1);
        assert_eq!(kept(&mut after, "new", 3).await, 2);
        assert_eq!(kept(&mut after, "none", 3).await, 0);
        for (client, allowed) in [(&mut before, 3), (&mut after, 1)] {
            for number in 0..3 {
                let subscribe = json!({"subscribe": {"topic": format!("t.{number}")}});
                let reply = ask(client, subscribe).await;
                assert_eq!(reply["subscribed"].is_object(), number < allowed, "{reply}");
            }
        }
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn who_is_let_in_changes_for_those_who_are_there_already() {
    run(async {
        let mut broker = Broker::start("");
        let mut client = Client::connect(&broker, Wire::WebSocketJson).await;
        ask(&mut client, json!({"subscribe": {"topic": "a"}})).await;
        let token = "0123456789abcdef0123456789abcdef";
        let hash = Hash::of(token);
        let tokens = format!(
            "[[auth.tokens]]\nname = 'svc'\nsha256 = '{hash}'\npublish = ['>']\nsubscribe = ['>']"
        );
        let changes = broker.reload(&tokens).await.expect("sound");
        assert!(changes.changed.contains(&"auth.tokens[0].sha256".to_owned()), "{changes:?}");
        assert!(!format!("{changes:?}").contains(&hash.to_string()));
        // It has shown nothing, and now has to.
        client.ending().await;
        let mut client = Client::connect(&broker, Wire::WebSocketJson).await;
        let refused = ask(&mut client, json!({"subscribe": {"topic": "a"}})).await;
        assert_eq!(refused["error"]["name"], "unauthenticated", "{refused}");
        let reply = ask(&mut client, json!({"connect": {"token": token}})).await;
        assert!(reply["connected"].is_object(), "{reply}");
        broker.reload("").await.expect("sound");
        let mut anybody = Client::connect(&broker, Wire::WebSocketJson).await;
        let reply = ask(&mut anybody, json!({"subscribe": {"topic": "a"}})).await;
        assert!(reply["subscribed"].is_object(), "{reply}");
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn what_needs_a_restart_is_named_and_stays() {
    run(async {
        let mut broker = Broker::start("");
        let mut other = config("limits.mailbox_messages_max = 77\nlog.format = 'json'");
        other.shards = Some(1);
        other.listen.admin = None;
        let changes = broker.reload_to(&other).await.expect("sound");
        let expected =
            ["limits.mailbox_messages_max", "listen.admin", "log.format", "shards"].as_slice();
        assert_eq!(changes, Changes { needs_restart: keys(expected), ..Changes::default() });
        // It is told again, as nothing of it is in force.
        let again = broker.reload_to(&other).await.expect("sound");
        assert_eq!(again, changes);
        broker.count("fanfare_connections").await;
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn origins_are_let_in_as_the_last_configuration_says() {
    run(async {
        let mut broker = Broker::start("");
        let page = "origin: https://app.example.net\r\n";
        assert_eq!(status(&broker, page).await, 403);
        broker.reload("websocket.origins = ['https://app.example.net']").await.expect("sound");
        assert_eq!(status(&broker, page).await, 101);
        broker.reload("").await.expect("sound");
        assert_eq!(status(&broker, page).await, 403);
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing_at_all() {
    run(async {
        let keyring = Keyring::new();
        let settings = format!("tls.ingress = false\n{}", keyring.settings());
        let mut broker = Broker::start(&settings);
        let stranger = "topics.history.messages = 0\n";
        keyring.put("server.key", "nonsense");
        let error = broker.reload(&format!("{stranger}{settings}")).await.expect_err("no key");
        assert!(error.to_string().contains("server.key"), "{error}");
        keyring.renew();
        let key = "auth.keys = [{ algorithm = 'HS256', file = '/nowhere/secret' }]";
        let text = format!("auth.audience = 'x'\n{key}\n{stranger}{settings}");
        let error = broker.reload(&text).await.expect_err("no file");
        assert!(error.to_string().contains("/nowhere/secret"), "{error}");
        let mut client = Client::connect(&broker, Wire::TcpProto).await;
        assert_eq!(kept(&mut client, "t", 3).await, 3);
        assert_eq!(broker.drain().await, 0);
    });
}

/// How many were put into force, and how many refused.
async fn reloads(broker: &Broker) -> (u64, u64) {
    let count =
        async |result| broker.count(&format!("fanfare_reloads_total{{result=\"{result}\"}}")).await;
    (count("ok").await, count("refused").await)
}

#[test]
fn a_hangup_reads_the_file_anew_and_says_what_came_of_it() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fanfare.toml");
        let write = |text: &str| std::fs::write(&file, text).expect("a file");
        write("");
        let path = file.to_string_lossy().into_owned();
        let (mut process, broker) =
            Process::serve_with("127.0.0.1:0", "127.0.0.1:0", &["--config", &path]);
        let mut client = Client::connect(&broker, Wire::WebSocketJson).await;
        let times = ["ok", "refused"]
            .map(|result| format!("fanfare_last_reload_timestamp_seconds{{result=\"{result}\"}}"));
        let begun = broker.count(&times[0]).await;
        assert!(begun > 0, "the start was the first time");
        assert_eq!(broker.count(&times[1]).await, 0);

        write("topics.history.messages = 0\n[limits]\nmesage_bytes_max = 5\n");
        process.signal(Signal::HUP);
        let line = process.line("the configuration stays as it was");
        let error = line["error"].as_str().expect("why");
        assert!(error.contains(&path) && error.contains("limits.message_bytes_max"), "{error}");
        assert_eq!(reloads(&broker).await, (0, 1));
        assert_eq!(kept(&mut client, "first", 3).await, 3);

        write("shards = 7\ntopics.history.messages = 2\nlog.level = 'debug'\n");
        process.signal(Signal::HUP);
        let line = process.line("the configuration was read anew");
        assert_eq!(line["changed"], "log.level topics.history.messages");
        // The flag of the command line beats the file, so `shards` is as it was.
        assert_eq!(line["needs_restart"], "");
        assert_eq!(reloads(&broker).await, (1, 1));
        assert_eq!(kept(&mut client, "second", 3).await, 2);
        assert!(broker.count(&times[0]).await >= begun);
        assert!(broker.count(&times[1]).await >= begun);
        client.say_text("nonsense").await;

        process.signal(Signal::TERM);
        drop(client);
        assert_eq!(process.code().await, Some(0));
    });
}
