//! Drives the client: `flaky URL SPELLING TOPIC…` prints a line of JSON for each event, and ends when its
//! input does. SPELLING is `json` or `protobuf`. It is what `tests/flaky` puts behind a bad network.
//! # Not here: what should have been told (`tests/flaky/judge.py`).
#![allow(clippy::print_stdout, reason = "whoever started it reads what it prints")]

use fanfare::client::{Client, Error, Event, Gap, Loss, Message, Payload, Recovery};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (url, spelling) = (arguments.next().unwrap_or_default(), arguments.next());
    // Dead connections are found soon, so that a run of seconds has many of them.
    let mut client = Client::connect(&url)
        .backoff(Duration::from_millis(50), Duration::from_millis(500))
        .patience(Duration::from_secs(2))
        .silence(Duration::from_secs(1));
    if spelling.as_deref() == Some("protobuf") {
        client = client.protobuf();
    }
    let client = client.start()?;
    let mut following = JoinSet::new();
    for topic in arguments {
        following.spawn(follow(client.clone(), topic));
    }
    let mut input = tokio::io::stdin();
    let mut rest = Vec::new();
    tokio::select! {
        _ = input.read_to_end(&mut rest) => {}
        Some(ended) = following.join_next() => ended.unwrap_or(Ok(()))?,
    }
    following.shutdown().await;
    client.close().await;
    Ok(())
}

/// Tells what a subscription tells, until an error ends it.
async fn follow(client: Client, topic: String) -> Result<(), Error> {
    let mut subscription = client.subscribe(&topic).buffer(100_000).await?;
    println!("{}", json!({"subscription": topic, "ready": true}));
    while let Some(event) = subscription.next().await {
        let (what, told) = match event? {
            Event::Message(message) => ("message", told(&message)),
            Event::Gap(Gap { topic, from, to, count, reason, .. }) => {
                let (topic, reason) = (topic.as_str(), reason.name());
                let gap = json!({"topic": topic, "from": from, "to": to, "count": count, "reason": reason});
                ("gap", gap)
            }
            Event::Recovered(Recovery { topic, loss, .. }) => {
                let reason = loss.map(Loss::name);
                (
                    "recovered",
                    json!({"topic": topic, "recovered": reason.is_none(), "reason": reason}),
                )
            }
            _ => continue,
        };
        println!("{}", json!({"subscription": topic, what: told}));
    }
    Ok(())
}

fn told(message: &Message) -> Value {
    let Message { topic, offset, epoch, payload, .. } = message;
    let data = match payload {
        Some(Payload::Json(text)) => serde_json::from_slice::<&RawValue>(text).ok(),
        _ => None,
    };
    let epoch = epoch.map(|epoch| epoch.to_string());
    json!({"topic": topic.as_str(), "offset": offset, "epoch": epoch, "data": data})
}
