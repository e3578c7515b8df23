//! Whether a connection knows that a topic has gone quiet.
//! # Not here: messages (`stream`).

use super::log::Log;
use super::stream::Stream;
use super::{Checked, Invariant, fault};
use crate::history::{Message, Span, TopicPosition};

/// What a connection was told of a topic, and what it has heard of it.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Whether it is stale; a filter is not told of topics that it does not ask for.
    is_stale: Option<bool>,
    /// When it had its last message, as the connection was told; none when it was not told.
    since: Option<u64>,
    /// The latest time of a message that the connection was sent.
    heard: u64,
}

impl Stream {
    pub(super) fn begin_quiet(&mut self, topic: &str, is_stale: Option<bool>) {
        let quiet = self.quiets.entry(topic.to_owned()).or_default();
        (quiet.is_stale, quiet.since) = (is_stale, None);
    }

    pub(super) fn told_stale(
        &mut self,
        (topic, since): (&str, u64),
        sent: Option<Span>,
        log: &Log,
    ) -> Checked {
        let quiet = self.quiets.entry(topic.to_owned()).or_default();
        let Some(after) = log.rule(topic).stale_ms else {
            return fault(Invariant::Stale, topic, "it has no time to be stale after".into());
        };
        if quiet.is_stale.replace(true) == Some(true) {
            return fault(Invariant::Stale, topic, "it is stale twice".into());
        }
        quiet.since = Some(since);
        let is_early = sent.is_some_and(|sent| since > 0 && since + after > sent.at);
        if is_early || since > 0 && since < quiet.heard {
            let says = format!("{since} is told at {sent:?}, {} was heard", quiet.heard);
            return fault(Invariant::Stale, topic, says);
        }
        Ok(())
    }

    pub(super) fn told_fresh(&mut self, topic: &str, log: &Log) -> Checked {
        let quiet = self.quiets.entry(topic.to_owned()).or_default();
        if quiet.is_stale.replace(false) == Some(false) || log.rule(topic).stale_ms.is_none() {
            return fault(Invariant::Stale, topic, "it is fresh, and was not stale".into());
        }
        Ok(())
    }

    /// A message that ends the quiet comes behind `fresh`.
    pub(super) fn end_quiet(&mut self, message: &Message) -> Checked {
        let quiet = self.quiets.entry(message.topic.clone()).or_default();
        quiet.heard = quiet.heard.max(message.time);
        let ends = match quiet.since {
            Some(since) => message.time > since,
            None => true,
        };
        if quiet.is_stale == Some(true) && ends {
            let says = format!("{} comes while it is stale", message.offset);
            return fault(Invariant::Stale, &message.topic, says);
        }
        Ok(())
    }

    /// Whoever has a subscription to exactly the topic knows.
    pub(super) fn check_stale(&self, top: &TopicPosition, at: u64, log: &Log) -> Checked {
        let TopicPosition { topic, position } = top;
        let (Some(after), Some(exact)) = (log.rule(topic).stale_ms, self.subscriptions.get(topic))
        else {
            return Ok(());
        };
        let mut last = log.entries(topic, &position.epoch, position.offset, position.offset);
        let expected = match last.next() {
            Some((_, entry)) => match entry.known_time() {
                Some(time) => at >= time + after,
                None => return Ok(()),
            },
            None if position.offset == 0 && at >= exact.at + after => true,
            None => return Ok(()),
        };
        let told = self.quiets.get(topic).and_then(|quiet| quiet.is_stale);
        if told.is_some_and(|told| told != expected) {
            let says = format!("that it is stale is {expected} and told is {told:?}");
            return fault(Invariant::Stale, topic, says);
        }
        Ok(())
    }
}
