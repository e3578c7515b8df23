//! How far a connection has heard of one topic, and what may come next.
//! # Not here: which topics it hears of at all (`stream`).

use super::log::{Log, seam_fault};
use super::{Checked, Invariant, Moment, fault};
use crate::history::Position;

/// How far a connection has heard of a topic.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) epoch: String,
    pub(super) offset: u64,
    /// Up to here the past is sent again; live messages come behind it.
    pub(super) seam: u64,
    /// That many of the latest messages may come, or fewer; the first one decides.
    pub(super) latest: Option<u64>,
    /// When the past was asked for and the answer came.
    pub(super) asked: Moment,
}

impl Cursor {
    /// The next message of the topic.
    pub(super) fn take(&mut self, topic: &str, offset: u64, log: &Log) -> Checked {
        if let Some(latest) = self.latest
            && offset <= self.seam
        {
            if offset + latest <= self.seam {
                let says = format!("{offset} is not one of the latest {latest} at {}", self.seam);
                return Err(seam_fault(topic, says));
            }
            self.check_missing(topic, offset, latest, log)?;
            self.latest = None;
            self.offset = offset - 1;
        } else if offset > self.seam {
            self.complete(topic, log)?;
        }
        let invariant = match offset {
            next if next == self.offset + 1 => {
                self.offset = offset;
                return Ok(());
            }
            past if past <= self.offset => Invariant::Order,
            _ if self.offset < self.seam => Invariant::Seam,
            _ => Invariant::Gap,
        };
        fault(invariant, topic, format!("{offset} comes after {}", self.offset))
    }

    /// No more of the past comes.
    pub(super) fn complete(&mut self, topic: &str, log: &Log) -> Checked {
        if let Some(latest) = self.latest.take() {
            self.check_missing(topic, self.seam + 1, latest, log)?;
        }
        if self.offset < self.seam {
            let says = format!("the past ends at {} and not at {}", self.offset, self.seam);
            return Err(seam_fault(topic, says));
        }
        Ok(())
    }

    /// Of the latest messages, none is left out that was there.
    fn check_missing(&self, topic: &str, first: u64, latest: u64, log: &Log) -> Checked {
        let before = first.saturating_sub(1);
        let is_wanted = before > 0 && before + latest > self.seam;
        let place = Position { epoch: self.epoch.clone(), offset: before };
        if is_wanted && log.must_hold(topic, &place, self.seam, self.asked.at) {
            let says = format!("the latest {latest} at {} begin at {first}", self.seam);
            return fault(Invariant::Ack, topic, says);
        }
        Ok(())
    }
}
