//! Drives the Rust client for `tests/flaky`: `flaky URL SPELLING TOPIC…` subscribes to each topic and
//! prints a line of JSON for each event, until its input ends.
//! # Invariants: a line is written whole, before the next event is looked at.
//! # Not here: what the events should be (`tests/flaky/judge.py`).
#![allow(clippy::print_stdout, reason = "whoever started it reads what it prints")]

use fanfare::client::{Client, Error, Event};
use serde_json::{Value, json};
use std::io::{Write, stdout};
use std::time::Duration;
use tokio::io::{AsyncReadExt, stdin};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(spelling)) = (words.next(), words.next()) else {
        return Err("flaky URL SPELLING TOPIC…".into());
    };
    // Dead connections are found soon, so that a run of seconds has many of them.
    let connecting = Client::connect(&url)
        .backoff(Duration::from_millis(50), Duration::from_millis(500))
        .patience(Duration::from_secs(2))
        .silence(Duration::from_secs(1));
    let connecting = if spelling == "protobuf" { connecting.protobuf() } else { connecting };
    let client = connecting.start()?;
    let mut following = JoinSet::new();
    for topic in words {
        following.spawn(follow(client.clone(), topic));
    }
    let mut rest = Vec::new();
    let mut input = stdin();
    tokio::select! {
        ended = input.read_to_end(&mut rest) => {
            ended?;
            client.close().await;
        }
        // A subscription does not end by itself.
        Some(ended) = following.join_next() => ended??,
    }
    Ok(())
}

async fn follow(client: Client, topic: String) -> Result<(), Error> {
    let mut subscription = client.subscribe(&topic).buffer(100_000).await?;
    tell(&topic, "ready", &json!(true));
    while let Some(event) = subscription.next().await {
        match event? {
            Event::Message(message) => {
                let position = message.position();
                let epoch = position.map(|position| position.epoch.to_string());
                let data: Value = message.json().unwrap_or_default();
                let (name, offset) = (message.topic.as_str(), message.offset);
                let told = json!({ "topic": name, "offset": offset, "epoch": epoch, "data": data });
                tell(&topic, "message", &told);
            }
            Event::Gap(gap) => {
                let (name, reason) = (gap.topic.as_str(), gap.reason.name());
                let told = json!({ "topic": name, "from": gap.from, "to": gap.to, "count": gap.count, "reason": reason });
                tell(&topic, "gap", &told);
            }
            Event::Recovered(recovery) => {
                let reason = recovery.loss.map(|loss| loss.name());
                let told = json!({ "topic": recovery.topic, "recovered": reason.is_none(), "reason": reason });
                tell(&topic, "recovered", &told);
            }
            _ => {}
        }
    }
    Ok(())
}

fn tell(subscription: &str, what: &str, value: &Value) {
    println!("{}", json!({ "subscription": subscription, what: value }));
    // Whoever reads may have gone; then there is nobody to tell.
    let _ = stdout().flush();
}
