//! `fanfare bench fanout`, `ticker` and `slow`: a publisher, a crowd, and who of it reads.
//! # Not here: a phase of publishing (`traffic`).

use super::args::{FanoutArgs, SlowArgs, TickerArgs, TrafficArgs};
use super::crowd::{Audience, Crowd};
use super::error::BenchError;
use super::figures::{self, Sheet, real};
use super::publisher::Publisher;
use super::stage::Stage;
use super::subject::Subject;
use super::traffic::Traffic;
use crate::cli::numbers::whole;
use std::collections::BTreeSet;

/// Who listens to what, and how many topics there are.
pub(super) struct Plan {
    audience: Audience,
    topics: usize,
}

impl Plan {
    pub(super) fn fanout(args: &FanoutArgs) -> Plan {
        let audience = Audience::of_one_topic(args.traffic.subscribers as usize);
        Plan { audience, topics: 1 }
    }

    pub(super) fn ticker(args: &TickerArgs) -> Plan {
        let subscribers = args.traffic.subscribers as usize;
        let ruler = ruler(args.topics, args.per_subscriber as usize);
        let topics = (0..subscribers).map(|index| spread(index, args.topics, &ruler));
        let audience = Audience { topics: topics.collect(), stalling: 0 };
        Plan { audience, topics: args.topics as usize }
    }

    /// At least one stalls, and at least one reads.
    pub(super) fn slow(args: &SlowArgs) -> Plan {
        let subscribers = args.traffic.subscribers as usize;
        let stalling = whole(real(subscribers as u64) * args.fraction);
        let stalling = usize::try_from(stalling).unwrap_or(usize::MAX).max(1);
        let stalling = stalling.min(subscribers.saturating_sub(1));
        Plan { audience: Audience { stalling, ..Audience::of_one_topic(subscribers) }, topics: 1 }
    }

    fn open<'a>(
        &self,
        stage: &'a Stage,
        subject: &Subject,
        body_len: usize,
    ) -> Result<Traffic<'a>, BenchError> {
        let readers = self.audience.readers(self.topics);
        let crowd = Crowd::open(&subject.target, &self.audience, stage.watch)?;
        let publisher = Publisher::open(&subject.target, body_len, &readers)?;
        Ok(Traffic { stage, crowd, publisher, process: subject.process.clone(), readers })
    }

    /// Measures once, everybody reading.
    pub(super) fn run(
        &self,
        (stage, subject): (&Stage, &Subject),
        args: &TrafficArgs,
        body_len: usize,
    ) -> Result<Sheet, BenchError> {
        let mut traffic = self.open(stage, subject, body_len)?;
        traffic.warm_up(args.load(), args.run.warmup)?;
        traffic.measure(args.load(), args.run.duration)
    }

    /// Measures with everybody reading, and again with some who have stopped.
    pub(super) fn run_slow(
        &self,
        (stage, subject): (&Stage, &Subject),
        args: &TrafficArgs,
    ) -> Result<Sheet, BenchError> {
        let mut traffic = self.open(stage, subject, args.run.payload)?;
        traffic.warm_up(args.load(), args.run.warmup)?;
        let before = traffic.measure(args.load(), args.run.duration)?;
        traffic.crowd.sockets.stall();
        let stalled = traffic.measure(args.load(), args.run.duration)?;
        Ok(compare(&before, &stalled, traffic.crowd.count_cut_off()?))
    }
}

/// One sheet of both halves: what there was in all, and the tail of each.
fn compare(before: &Sheet, stalled: &Sheet, cut_off: usize) -> Sheet {
    let sum = [
        &figures::PUBLISHED,
        &figures::EXPECTED,
        &figures::DELIVERED,
        &figures::LOST,
        &figures::REPEATED,
        &figures::DISORDERED,
        &figures::UNREADABLE,
        &figures::GAPS,
    ];
    let mut sheet = Sheet::default();
    for figure in sum {
        let parts = before.get(figure).zip(stalled.get(figure));
        sheet.put(figure, parts.map_or(0.0, |(before, stalled)| before + stalled));
    }
    for figure in [&figures::P50, &figures::P99] {
        if let Some(value) = before.get(figure) {
            sheet.put(figure, value);
        }
    }
    if let (Some(before), Some(stalled)) = (before.get(&figures::P99), stalled.get(&figures::P99)) {
        sheet.put(&figures::STALLED_P99, stalled);
        sheet.put(&figures::STALLED_RATIO, stalled / before.max(1e-3));
    }
    for figure in [&figures::CPU_PER_DELIVERY, &figures::RSS, &figures::CLIENT_CORES] {
        if let Some(value) = stalled.get(figure) {
            sheet.put(figure, value);
        }
    }
    sheet.count(&figures::STALLED_CUT_OFF, cut_off as u64);
    sheet
}

/// Topics at distances that are all different, as far as there are such, so that two subscribers who
/// begin at different topics hardly ever share more than one.
fn ruler(topics: u32, marks: usize) -> Vec<u32> {
    let mut chosen = vec![0];
    let mut distances = BTreeSet::new();
    for next in 1..topics {
        if chosen.len() == marks {
            return chosen;
        }
        let both = |mark: &u32| [next - mark, topics - (next - mark)];
        let new: Vec<u32> = chosen.iter().flat_map(both).collect();
        if new.iter().all(|distance| !distances.contains(distance)) {
            distances.extend(new);
            chosen.push(next);
        }
    }
    let rest: Vec<u32> = (1..topics).filter(|topic| !chosen.contains(topic)).collect();
    let missing = marks.saturating_sub(chosen.len());
    chosen.extend(rest.into_iter().take(missing));
    chosen
}

/// Which topics a subscriber reads: the ruler, laid on at another place for each. The step has no
/// factor in common with round numbers, so that every topic has its turn.
fn spread(index: usize, topics: u32, ruler: &[u32]) -> Vec<u32> {
    let topics = u64::from(topics.max(1));
    let place = |mark: &u32| (index as u64 * 7 + u64::from(*mark)) % topics;
    ruler.iter().map(|mark| u32::try_from(place(mark)).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_spread_evenly_and_shared_by_few() {
        let ruler = ruler(1000, 10);
        let all: Vec<Vec<u32>> = (0..2000).map(|index| spread(index, 1000, &ruler)).collect();
        let audience = Audience { topics: all.clone(), stalling: 0 };
        assert_eq!(audience.readers(1000), vec![20; 1000]);
        let shared = |other: &Vec<u32>| other.iter().filter(|topic| all[0].contains(topic)).count();
        assert!(all[1..1000].iter().all(|other| shared(other) <= 1));
    }

    #[test]
    fn whoever_wants_all_topics_gets_each_once() {
        for (topics, marks) in [(8, 8), (1, 1), (5, 9), (1000, 1000)] {
            let mut chosen = spread(3, topics, &ruler(topics, marks));
            chosen.sort_unstable();
            assert_eq!(chosen, (0..topics).collect::<Vec<u32>>());
        }
    }
}
