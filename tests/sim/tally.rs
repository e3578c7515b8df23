//! How often each kind of thing happened, so that a run cannot pass by being dull.
//! # Not here: whether it should have (`checker`).

use crate::history::{Ending, Event, Fact, Policy, Record};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<String, usize>);

impl Tally {
    pub(crate) fn add(&mut self, history: &[Record]) {
        for Record { fact, .. } in history {
            for name in names(fact) {
                *self.0.entry(name).or_default() += 1;
            }
        }
    }

    /// How often this happened.
    pub(crate) fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, count)| writeln!(f, "{count:>8} {name}"))
    }
}

fn names(fact: &Fact) -> Vec<String> {
    match fact {
        Fact::Crash {} => vec!["crash".into()],
        Fact::TurnedAway {} => vec!["turned away".into()],
        Fact::Closed { by: Ending::Server, .. } => vec!["ended by the server".into()],
        Fact::Closed { by: Ending::Cut, .. } => vec!["cut".into()],
        Fact::Heard { event, .. } => heard(event),
        _ => Vec::new(),
    }
}

fn heard(event: &Event) -> Vec<String> {
    let recovery = |recovered: bool, reason: &str| {
        if recovered { "recovered".to_owned() } else { format!("not recovered: {reason}") }
    };
    match event {
        Event::Message(message) if message.content.is_delete() => vec!["delete".into()],
        Event::Message(_) => vec!["message".into()],
        Event::Subscribed(subscribed) => {
            let own = subscribed.recovered.map(|recovered| recovery(recovered, &subscribed.reason));
            let topics = subscribed.topics.iter().map(|t| recovery(t.recovered, &t.reason));
            let name = match subscribed.policy {
                Policy::All => "subscribed",
                Policy::Latest => "subscribed: latest",
                Policy::MaxHz(_) => "subscribed: maxHz",
            };
            own.into_iter().chain(topics).chain([name.into()]).collect()
        }
        Event::Unsubscribed { .. } => vec!["unsubscribed".into()],
        Event::Published(_) => vec!["published".into()],
        Event::Error { name } => vec![format!("error: {name}")],
        Event::Gap(gap) => vec![format!("gap: {:?}", gap.reason).to_lowercase()],
        Event::SnapshotEnd { .. } => vec!["snapshot end".into()],
        Event::HistoryPage(_) => vec!["history page".into()],
        Event::Position(_) => vec!["position".into()],
        Event::Close { code } => vec![format!("close {code}")],
        Event::Updated(_) => vec!["updated".into()],
        Event::PresenceState { .. } => vec!["presence state".into()],
        Event::Joined { .. } => vec!["joined".into()],
        Event::Left { .. } => vec!["left".into()],
        Event::Stale { .. } => vec!["stale".into()],
        Event::Fresh { .. } => vec!["fresh".into()],
        Event::Connected { batch: true, .. } => vec!["connected: batch".into()],
        Event::Connected { .. } | Event::Pong {} | Event::Ping {} => Vec::new(),
    }
}
