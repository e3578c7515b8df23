//! `fanfare subscribe`: prints messages as they come, and tells on standard error what is missing.
//! # Invariants: a message is one line, the same on every wire; a gap and a resume that failed are
//! always told; after `--count` messages nothing more is printed.
//! # Not here: coming back after the connection is lost.

use super::args::SubscribeArgs;
use super::client::{ClientError, Connection, Receiver, Sender, explain, failure_name};
use super::line::{self, LineForm};
use crate::dialect::schema::{self, command::Action, event::Body};
use crate::dialect::{Dialect, Overflow};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// How long a server may be silent before it has said how often it pings.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints messages until there are enough or the connection ends.
pub(super) fn run(args: &SubscribeArgs) -> ExitCode {
    super::end(super::block_on(subscribe(args)))
}

async fn subscribe(args: &SubscribeArgs) -> Result<(), ClientError> {
    let dialect = if args.proto { Dialect::Proto } else { Dialect::Json };
    let Connection { mut sender, mut receiver } = Connection::open(&args.url, dialect).await?;
    // Both are needed at once: the answers to many commands may be more than waits in between.
    let read = read(args, &mut receiver);
    let ask = ask(args, &mut sender);
    let mut read = std::pin::pin!(read);
    tokio::select! {
        enough = &mut read => enough?,
        asked = ask => match asked {
            Ok(()) => read.await?,
            Err(error) => return Err(explain(error, read).await),
        }
    }
    sender.close().await;
    Ok(())
}

/// Says hello, to hear how often the server pings, and asks for every topic.
async fn ask(args: &SubscribeArgs, sender: &mut Sender) -> Result<(), ClientError> {
    for (id, action) in (1..).zip(actions(args)) {
        sender.send(schema::Command { id, action: Some(action) }).await?;
    }
    Ok(())
}

fn actions(args: &SubscribeArgs) -> impl Iterator<Item = Action> {
    let since = args.since.map(|position| schema::Position {
        epoch: position.epoch.to_string(),
        offset: position.offset.0,
    });
    let overflow = match args.overflow {
        Overflow::CatchUp => schema::Overflow::CatchUp,
        Overflow::Gap => schema::Overflow::Gap,
        Overflow::Disconnect => schema::Overflow::Disconnect,
    };
    let subscribe = move |topic: &str| {
        Action::Subscribe(schema::Subscribe {
            topic: topic.to_owned(),
            since: since.clone(),
            last: args.last,
            snapshot: args.snapshot,
            overflow: overflow.into(),
            ..Default::default()
        })
    };
    let subscriptions = args.targets.iter().map(move |target| subscribe(target.as_str()));
    std::iter::once(Action::Connect(schema::Connect::default())).chain(subscriptions)
}

async fn read(args: &SubscribeArgs, receiver: &mut Receiver) -> Result<(), ClientError> {
    let form = if args.raw { LineForm::Raw } else { LineForm::Json };
    let mut silence_max = HELLO_TIMEOUT;
    let mut wanted = args.count.unwrap_or(u64::MAX);
    while wanted > 0 {
        let event = timeout(silence_max, receiver.next()).await;
        match event.map_err(|_| ClientError::Silent(silence_max))??.body {
            Some(Body::Message(message)) => {
                super::put(&line::print(&message, form)?)?;
                wanted -= 1;
            }
            // One ping may be late; two are not.
            Some(Body::Connected(connected)) => {
                silence_max = Duration::from_millis(connected.ping_ms.into()) * 2;
            }
            Some(Body::Error(error)) => return Err(super::refused(error)),
            Some(Body::Unsubscribed(end)) => return Err(ClientError::Unsubscribed(end.topic)),
            Some(body) => {
                if let Some(words) = words(&body) {
                    super::tell(&words);
                }
            }
            // A newer server may say what this program does not know.
            None => {}
        }
    }
    Ok(())
}

/// What a person should know of an event that is no message.
fn words(body: &Body) -> Option<String> {
    match body {
        Body::Subscribed(subscribed) => Some(subscribed_words(subscribed)),
        Body::Gap(schema::Gap { topic, from, to, count, .. }) => {
            Some(format!("gap: {topic} {from}..{to} ({count} messages)"))
        }
        Body::SnapshotEnd(end) => {
            let count = end.positions.len();
            Some(format!("snapshot end: {} ({count} topics)", end.topic))
        }
        // Only a filter is told positions, and a filter is not resumed from here.
        _ => None,
    }
}

fn subscribed_words(subscribed: &schema::Subscribed) -> String {
    let topic = &subscribed.topic;
    let place = match &subscribed.position {
        Some(position) => format!(", live after {}:{}", position.epoch, position.offset),
        None => String::new(),
    };
    match subscribed.recovered {
        None => format!("subscribed: {topic}{place}"),
        Some(true) => format!("resumed: {topic}{place}"),
        Some(false) => {
            let reason = failure_name(subscribed.reason());
            format!("not resumed: {topic}, {reason}, messages are missing{place}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn subscribed(recovered: Option<bool>, place: Option<u64>) -> Body {
        let failure = match recovered {
            Some(false) => schema::RecoveryFailure::Trimmed,
            Some(true) | None => schema::RecoveryFailure::Unspecified,
        };
        Body::Subscribed(schema::Subscribed {
            topic: "a.b".into(),
            position: place.map(|offset| schema::Position { epoch: EPOCH.into(), offset }),
            recovered,
            reason: failure.into(),
            ..Default::default()
        })
    }

    #[test]
    fn whatever_is_missing_and_whatever_begins_is_told_in_a_line() {
        let gap = schema::Gap { topic: "a.b".into(), from: 50, to: 61, count: 12, reason: 1 };
        let end = schema::SnapshotEnd { topic: "a.>".into(), positions: Vec::new() };
        let place = format!("live after {EPOCH}:44");
        let cases = [
            (Body::Gap(gap), "gap: a.b 50..61 (12 messages)".to_owned()),
            (Body::SnapshotEnd(end), "snapshot end: a.> (0 topics)".to_owned()),
            (subscribed(None, None), "subscribed: a.b".to_owned()),
            (subscribed(None, Some(44)), format!("subscribed: a.b, {place}")),
            (subscribed(Some(true), Some(44)), format!("resumed: a.b, {place}")),
            (
                subscribed(Some(false), Some(44)),
                format!("not resumed: a.b, trimmed, messages are missing, {place}"),
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(words(&body), Some(expected), "{body:?}");
        }
        assert_eq!(words(&Body::Ping(schema::ServerPing {})), None);
    }
}
