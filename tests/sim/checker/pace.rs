//! How often a rate lets messages through.
//! What is known is when a message went into the socket, and since when the socket had taken all
//! that came before: the broker decided to send it somewhen between.
//! # Not here: which messages may be passed over (`cursor`, `deferred`).

use super::cursor::Cursor;
use super::{Checked, Invariant, fault};
use crate::history::{Message, Policy, Span};
use std::collections::BTreeSet;

/// Messages of one topic that were sent together.
#[derive(Debug)]
pub(super) struct Round {
    span: Span,
    keys: BTreeSet<String>,
    /// The next one comes this much later at the earliest.
    interval_ms: u64,
}

impl Cursor {
    /// Counts a live message to the round that it belongs to.
    pub(super) fn count(
        &mut self,
        message: &Message,
        sent: Option<Span>,
        policy: Policy,
    ) -> Checked {
        let (Policy::MaxHz(hz), Some(sent)) = (policy, sent) else {
            self.round = None;
            return Ok(());
        };
        let interval_ms = policy.interval_ms();
        if let Some(round) = &mut self.round {
            let is_same = sent.since <= round.span.at;
            let is_new_key =
                message.content.is_delete() || round.keys.insert(message.content.key.clone());
            if is_same && is_new_key {
                return Ok(());
            }
            if sent.at < round.span.since + round.interval_ms {
                let says = format!(
                    "{} was sent {sent:?}, the round before {:?}, at {hz} Hz",
                    message.offset, round.span
                );
                return fault(Invariant::Rate, &message.topic, says);
            }
        }
        // A delete does not keep the key's last message back.
        let keys = Some(message.content.key.clone()).filter(|_| !message.content.is_delete());
        let keys = keys.into_iter().collect();
        self.round = Some(Round { span: sent, keys, interval_ms });
        Ok(())
    }

    /// The subscription has another rate, or none.
    pub(super) fn change_rate(&mut self, policy: Policy) {
        match policy {
            Policy::All | Policy::Latest => self.round = None,
            Policy::MaxHz(_) => {
                if let Some(round) = &mut self.round {
                    round.interval_ms = round.interval_ms.min(policy.interval_ms());
                }
            }
        }
    }
}
