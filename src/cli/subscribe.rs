//! `fanfare subscribe`: prints messages as they come, and tells on standard error what is missing.
//! # Invariants: a message is one line, the same on every wire, except that a delete has no payload to
//! print alone; a gap and a resume that failed are always told; after `--count` messages nothing more is printed.
//! # Not here: coming back after the connection is lost.

use super::args::SubscribeArgs;
use super::client::{ClientError, Connection, Receiver, Sender, explain};
use super::client::{failure_name, gap_name, overflow_name, policy_name};
use super::line::{self, LineForm};
use crate::dialect::schema::{self, command::Action, event::Body};
use crate::dialect::{Dialect, Overflow, Policy};
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
    let shown = (&args.trust, args.token.token()?);
    let Connection { mut sender, mut receiver } =
        Connection::open(&args.url, dialect, shown).await?;
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
        None => schema::Overflow::Unspecified,
        Some(Overflow::CatchUp) => schema::Overflow::CatchUp,
        Some(Overflow::Gap) => schema::Overflow::Gap,
        Some(Overflow::Disconnect) => schema::Overflow::Disconnect,
    };
    let (policy, max_hz) = match args.policy() {
        Policy::All => (schema::Policy::Unspecified, None),
        Policy::Latest => (schema::Policy::Latest, None),
        Policy::MaxHz(rate) => (schema::Policy::MaxHz, Some(rate.hz())),
    };
    let subscribe = move |topic: &str| {
        Action::Subscribe(schema::Subscribe {
            topic: topic.to_owned(),
            since: since.clone(),
            last: args.last,
            snapshot: args.snapshot,
            overflow: overflow.into(),
            policy: policy.into(),
            max_hz,
            presence: args.presence,
            ..Default::default()
        })
    };
    let present = |topic: &str| Action::Presence(schema::Presence { topic: topic.to_owned() });
    let name = args.name.clone().unwrap_or_default();
    let hello = std::iter::once(Action::Connect(schema::Connect { name, ..Default::default() }));
    let subscriptions = args.targets.iter().map(move |target| subscribe(target.as_str()));
    // Who comes and goes is told from the subscription on, so nobody is missed in between.
    let watched = args.targets.iter().filter(|_| args.presence);
    hello.chain(subscriptions).chain(watched.map(move |target| present(target.as_str())))
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
                if form == LineForm::Raw && message.deleted {
                    super::tell(&format!("deleted: {} {}", message.topic, message.key));
                }
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
        Body::Gap(gap) => {
            let schema::Gap { topic, from, to, count, .. } = gap;
            let reason = gap_name(gap.reason());
            Some(format!("gap: {topic} {from}..{to} ({count} messages, {reason})"))
        }
        Body::Stale(stale) => Some(stale_words(stale)),
        Body::Fresh(schema::Fresh { topic }) => Some(format!("fresh: {topic}")),
        Body::Joined(schema::Joined { topic, member }) => {
            Some(seen("joined", topic, member.as_ref()))
        }
        Body::Left(schema::Left { topic, member }) => Some(seen("left", topic, member.as_ref())),
        Body::PresenceState(state) => Some(present_words(state)),
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
    let granted = granted_words(subscribed);
    match subscribed.recovered {
        None => format!("subscribed: {topic}{place}{granted}"),
        Some(true) => format!("resumed: {topic}{place}{granted}"),
        Some(false) => {
            let reason = failure_name(subscribed.reason());
            format!("not resumed: {topic}, {reason}, messages are missing{place}{granted}")
        }
    }
}

/// What was granted that is not the default, and whether there is nothing new at the moment.
fn granted_words(subscribed: &schema::Subscribed) -> String {
    let hz = subscribed.max_hz.map(|hz| format!(" {hz}")).unwrap_or_default();
    let policy = policy_name(subscribed.policy()).map(|policy| format!(", {policy}{hz}"));
    let overflow = overflow_name(subscribed.overflow()).map(|overflow| format!(", {overflow}"));
    let stale = subscribed.stale.then(|| ", stale".to_owned());
    [policy, overflow, stale].into_iter().flatten().collect()
}

fn stale_words(schema::Stale { topic, since }: &schema::Stale) -> String {
    match since {
        0 => format!("stale: {topic}, without any message"),
        since => format!("stale: {topic}, the last message is of {since}"),
    }
}

/// Somebody who comes or goes.
fn seen(what: &str, topic: &str, member: Option<&schema::Member>) -> String {
    let member = member.map(member_words).unwrap_or_default();
    format!("{what}: {topic} {member}")
}

fn member_words(schema::Member { connection, name }: &schema::Member) -> String {
    if name.is_empty() { connection.clone() } else { format!("{connection} ({name})") }
}

fn present_words(state: &schema::PresenceState) -> String {
    let mut words = format!("present: {} {}", state.topic, state.count);
    for (index, member) in state.members.iter().enumerate() {
        words += if index == 0 { ": " } else { ", " };
        words += &member_words(member);
    }
    words + if state.more { " and others" } else { "" }
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
        let member = |name: &str| schema::Member { connection: "1-42".into(), name: name.into() };
        let joined = schema::Joined { topic: "a.b".into(), member: Some(member("alice")) };
        let left = schema::Left { topic: "a.b".into(), member: Some(member("")) };
        let present = schema::PresenceState {
            topic: "a.b".into(),
            count: 3,
            members: vec![member("alice"), member("")],
            more: true,
        };
        let stale = |since| Body::Stale(schema::Stale { topic: "a.b".into(), since });
        let granted = Body::Subscribed(schema::Subscribed {
            topic: "a.b".into(),
            policy: schema::Policy::MaxHz.into(),
            max_hz: Some(0.5),
            overflow: schema::Overflow::Gap.into(),
            stale: true,
            ..Default::default()
        });
        let place = format!("live after {EPOCH}:44");
        let cases = [
            (Body::Gap(gap), "gap: a.b 50..61 (12 messages, slow)".to_owned()),
            (Body::SnapshotEnd(end), "snapshot end: a.> (0 topics)".to_owned()),
            (Body::Joined(joined), "joined: a.b 1-42 (alice)".to_owned()),
            (Body::Left(left), "left: a.b 1-42".to_owned()),
            (
                Body::PresenceState(present),
                "present: a.b 3: 1-42 (alice), 1-42 and others".to_owned(),
            ),
            (stale(0), "stale: a.b, without any message".to_owned()),
            (stale(5), "stale: a.b, the last message is of 5".to_owned()),
            (Body::Fresh(schema::Fresh { topic: "a.b".into() }), "fresh: a.b".to_owned()),
            (subscribed(None, None), "subscribed: a.b".to_owned()),
            (granted, "subscribed: a.b, maxHz 0.5, gap, stale".to_owned()),
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
