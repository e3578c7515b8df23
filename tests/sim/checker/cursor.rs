//! How far a connection has heard of one topic, and what may come next.
//! # Not here: which topics it hears of at all (`stream`), how often (`pace`).

use super::deferred::{Cause, First, Passed};
use super::log::{Log, seam_fault};
use super::pace::Round;
use super::{Checked, Invariant, Moment, fault};
use crate::history::{Message, Payload, Policy, Span};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// How far a connection has heard of a topic.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) epoch: String,
    pub(super) offset: u64,
    /// Up to here the past is sent again; live messages come behind it.
    pub(super) seam: u64,
    pub(super) past: Past,
    /// When the past was asked for and the answer came.
    pub(super) asked: Moment,
    /// When the terms changed under which messages were passed over so far: what was passed over
    /// until then shows at the next message.
    pub(super) conflated_until: Option<Moment>,
    /// The last messages that its rate allowed.
    pub(super) round: Option<Round>,
    replayed: Replayed,
}

/// What comes up to the seam.
#[derive(Debug)]
pub(super) enum Past {
    /// What was missing, under a policy.
    Missing(Policy),
    /// So many of the latest messages; of each key one, too, if the topic keeps them.
    First { latest: u64, snapshot: bool, heard: Vec<u64> },
    /// Some of the latest messages that may have ended, and nobody told the seam.
    Latest,
}

#[derive(Debug, Default)]
struct Replayed {
    messages: u64,
    bytes: u64,
}

/// A message as it reaches a cursor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) message: &'a Message,
    pub(super) moment: Moment,
    pub(super) sent: Option<Span>,
    /// The life of the broker that the connection is of.
    pub(super) life: usize,
    /// What the connection gets of the topic.
    pub(super) policy: Policy,
}

impl Cursor {
    /// A cursor from which live messages go on.
    pub(super) fn live(epoch: &str, offset: u64, asked: Moment) -> Cursor {
        Cursor {
            epoch: epoch.to_owned(),
            offset,
            seam: offset,
            past: Past::Missing(Policy::All),
            asked,
            conflated_until: None,
            round: None,
            replayed: Replayed::default(),
        }
    }

    /// Some of the latest messages come again, behind where it stands now.
    pub(super) fn repeat(&mut self, asked: Moment) {
        (self.past, self.asked) = (Past::Latest, asked);
        self.replayed = Replayed::default();
    }

    /// The next message of the topic.
    pub(super) fn take(&mut self, arrival: Arrival<'_>, log: &mut Log) -> Checked {
        let Message { topic, offset, .. } = arrival.message;
        let offset = *offset;
        if offset <= self.seam {
            self.check_replay(arrival, log)?;
        }
        if let Past::First { heard, .. } = &mut self.past
            && offset <= self.seam
        {
            if heard.last().is_some_and(|last| *last >= offset) {
                let says = format!("{offset} comes after {heard:?}");
                return fault(Invariant::Order, topic, says);
            }
            heard.push(offset);
            return Ok(());
        }
        if offset > self.seam {
            self.complete(topic, arrival.moment, log)?;
        }
        if offset <= self.offset {
            let says = format!("{offset} comes after {}", self.offset);
            return fault(Invariant::Order, topic, says);
        }
        let changed = self.conflated_until.take();
        if offset > self.offset + 1 {
            let cause = self.cause(&arrival, changed)?;
            self.pass(topic, offset - 1, cause, log);
        }
        if arrival.message.time > self.asked.at && matches!(self.past, Past::Latest) {
            self.past = Past::Missing(Policy::All);
        }
        self.offset = offset;
        Ok(())
    }

    /// Why messages in front of this one may be missing.
    fn cause(&self, arrival: &Arrival<'_>, changed: Option<Moment>) -> Result<Cause, super::Fault> {
        let Message { topic, offset, .. } = arrival.message;
        let is_past = *offset <= self.seam;
        let conflates = match self.past {
            Past::Missing(policy) if is_past => policy.conflates(),
            _ => arrival.policy.conflates(),
        };
        match (changed, &self.past) {
            _ if conflates => Ok(Cause::Conflated(arrival.moment)),
            (Some(changed), _) => Ok(Cause::Conflated(changed)),
            (None, Past::Latest) => Ok(Cause::Ended(arrival.moment)),
            (None, _) => {
                let invariant = if is_past { Invariant::Seam } else { Invariant::Gap };
                fault(invariant, topic, format!("{offset} comes after {}", self.offset))
            }
        }
    }

    /// Goes on behind messages that are not coming.
    pub(super) fn pass(&mut self, topic: &str, to: u64, cause: Cause, log: &mut Log) {
        let (epoch, from) = (self.epoch.clone(), self.offset + 1);
        log.passed.push(Passed { topic: topic.to_owned(), epoch, from, to, cause });
        self.offset = to;
    }

    /// No more of the past comes.
    pub(super) fn complete(&mut self, topic: &str, moment: Moment, log: &mut Log) -> Checked {
        let seam = self.seam;
        match std::mem::replace(&mut self.past, Past::Missing(Policy::All)) {
            Past::First { latest, snapshot, heard } => {
                let (epoch, topic) = (self.epoch.clone(), topic.to_owned());
                let asked = self.asked;
                log.firsts.push(First { topic, epoch, seam, latest, snapshot, heard, asked });
            }
            Past::Missing(policy) if self.offset < seam => {
                if !policy.conflates() {
                    let says = format!("the past ends at {} and not at {seam}", self.offset);
                    return Err(seam_fault(topic, says));
                }
                self.pass(topic, seam, Cause::Conflated(moment), log);
            }
            Past::Latest => {
                if self.offset < seam {
                    self.pass(topic, seam, Cause::Ended(moment), log);
                }
                self.past = Past::Latest;
            }
            Past::Missing(_) => {}
        }
        Ok(())
    }

    /// What is sent again is bounded, and its time is not over.
    fn check_replay(&mut self, arrival: Arrival<'_>, log: &Log) -> Checked {
        let Message { topic, offset, content, .. } = arrival.message;
        self.replayed.messages += 1;
        self.replayed.bytes += payload_bytes(&content.payload);
        let most = log.promise.replay;
        if self.replayed.messages > most.messages_max || self.replayed.bytes > most.bytes_max {
            let says = format!("{:?} is sent again up to {offset}", self.replayed);
            return fault(Invariant::Bound, topic, says);
        }
        log.check_end(arrival.message, arrival.life, arrival.sent)
    }
}

fn payload_bytes(payload: &Payload) -> u64 {
    let bytes = match payload {
        Payload::Data(text) | Payload::Text(text) => text.len(),
        Payload::Base64(text) => BASE64.decode(text).map_or(0, |bytes| bytes.len()),
        Payload::Deleted => 0,
    };
    bytes as u64
}
