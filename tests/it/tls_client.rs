//! The client commands over TLS: they believe whom they are told to, and nobody else.
//! # Not here: what else they do (`tests/cli.rs`).

use crate::certificates::Keyring;
use crate::client::Client;
use crate::harness::{Broker, with_broker, within};
use crate::pipe::Pipe;
use fanfare::topics::message::Wire;
use serde_json::json;
use std::process::Output;

/// Runs `fanfare` with these arguments to its end.
async fn fanfare(arguments: Vec<String>) -> Output {
    let run = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command.args(arguments).stdin(std::process::Stdio::null()).output().expect("it starts")
    });
    within("the command", run).await.expect("it did not panic")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn subscribed(broker: &Broker) {
    broker.until("fanfare_subscriptions{target=\"topic\"}", |count| count > 0).await;
}

#[test]
fn a_message_goes_by_tls_from_command_to_command() {
    let keyring = Keyring::new();
    let (certificate, key) = keyring.clients.issue();
    keyring.put("client.pem", &certificate);
    keyring.put("client.key", &key);
    with_broker(&keyring.mutual_settings(), async |broker| {
        let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"]
            .map(|name| keyring.path(name).to_string_lossy().into_owned());
        let (public, ingress) = (broker.public(), broker.ingress());
        let proof = ["--client-certificate", &certificate, "--client-key", &key];
        let urls = [format!("wss://{public}"), format!("tls://{ingress}")];
        for (offset, url) in (1..).zip(&urls) {
            let subscribe = words(&["subscribe", "t", "--count=1", "--raw", "--ca", &ca]);
            let subscribe = [subscribe, words(&["--url", url]), words(&proof)].concat();
            let subscriber = tokio::spawn(fanfare(subscribe));
            subscribed(broker).await;
            let publish = words(&["publish", "t", "hello", "--ca", &ca, "--url", url]);
            let published = fanfare([publish, words(&proof)].concat()).await;
            assert!(published.status.success(), "{published:?}");
            let heard = within("the subscriber", subscriber).await.expect("no panic");
            assert!(heard.status.success(), "{heard:?}");
            assert_eq!(String::from_utf8_lossy(&heard.stdout), "hello\n");
            let topic = "fanfare_subscriptions{target=\"topic\"}";
            broker.until(topic, |count| count == 0).await;
            assert_eq!(broker.count("fanfare_published_total").await, offset);
        }
        let url = format!("https://{public}");
        let published = fanfare(words(&["publish", "t", "1", "--ca", &ca, "--url", &url])).await;
        assert!(published.status.success(), "{published:?}");
    });
}

#[test]
fn a_server_that_cannot_be_believed_is_told_as_such() {
    let keyring = Keyring::new();
    with_broker(&keyring.settings(), async |broker| {
        let public = broker.public();
        let ca = keyring.path("ca.pem").to_string_lossy().into_owned();
        let other = keyring.path("clients.pem").to_string_lossy().into_owned();
        let port = public.port();
        let cases = [
            (format!("wss://{public}"), &other, "UnknownIssuer"),
            // Its certificate is for 127.0.0.1.
            (format!("wss://localhost:{port}"), &ca, "not valid for name"),
            (format!("wss://{public}"), &"/nowhere.pem".to_owned(), "/nowhere.pem"),
            (format!("ws://{public}"), &ca, "cannot"),
        ];
        for (url, ca, expected) in cases {
            let ended = fanfare(words(&["publish", "t", "1", "--ca", ca, "--url", &url])).await;
            let error = String::from_utf8_lossy(&ended.stderr);
            assert!(!ended.status.success(), "{url}");
            println!("{url}: {error}");
            assert!(expected == "cannot" || error.contains(expected), "{url}: {error}");
        }
        assert_eq!(broker.count("fanfare_published_total").await, 0);
        let pipe: Pipe = keyring.connect(public).await;
        let mut client = Client::begin(broker, Wire::WebSocketJson, pipe).await;
        client.ask(&json!({"id": 1, "ping": {}})).await;
    });
}
