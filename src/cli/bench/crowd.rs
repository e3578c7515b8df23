//! The subscribers of a bench, who stay.
//! # Not here: sockets (`sockets`), what is published (`publisher`).

use super::error::BenchError;
use super::link::{Habit, State};
use super::sockets::{Pass, Sockets};
use super::stopwatch::{REST, Stopwatch, nanos, rest};
use super::subject::Target;
use super::tally::Tally;
use std::time::Duration;

/// Connections that are set up at once.
const OPENING_MAX: usize = 128;

/// Time in which the next connection must become ready.
const SETUP_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a look at the sockets may wait while connections are set up.
const SETUP_WAIT: Duration = Duration::from_millis(20);

/// Time without a byte after which those who stalled have read everything.
const QUIET_AFTER: Duration = Duration::from_millis(300);

/// Longest time that is spent on them.
const RESUME_TIME_MAX: Duration = Duration::from_secs(3);

/// Who subscribes to what.
#[derive(Clone, Debug)]
pub(super) struct Audience {
    /// The topics of each subscriber.
    pub(super) topics: Vec<Vec<u32>>,
    /// How many of them will stop reading.
    pub(super) stalling: usize,
}

impl Audience {
    /// Everybody reads the same topic.
    pub(super) fn of_one_topic(subscribers: usize) -> Audience {
        Audience { topics: vec![vec![0]; subscribers], stalling: 0 }
    }

    /// Spread evenly, so that those who stall are not served one after the other.
    fn habit(&self, index: usize) -> Habit {
        let part = |index: usize| index * self.stalling / self.topics.len().max(1);
        if part(index) == part(index + 1) { Habit::Reads } else { Habit::Stalls }
    }

    /// How many subscribers of each topic read to the end.
    pub(super) fn readers(&self, topics: usize) -> Vec<u64> {
        let mut readers = vec![0; topics];
        for (index, topics) in self.topics.iter().enumerate() {
            if self.habit(index) == Habit::Stalls {
                continue;
            }
            for topic in topics {
                if let Some(count) = readers.get_mut(*topic as usize) {
                    *count += 1;
                }
            }
        }
        readers
    }
}

/// Subscribers that are ready.
pub(super) struct Crowd {
    pub(super) sockets: Sockets,
    /// Subscribers that have ended, of those who read and of those who were to stall.
    pub(super) ended: [usize; 2],
    /// Why the first reader ended.
    pub(super) why: Option<String>,
}

impl Crowd {
    /// Connects and subscribes everybody.
    pub(super) fn open(
        target: &Target,
        audience: &Audience,
        watch: Stopwatch,
    ) -> Result<Crowd, BenchError> {
        let sockets = Sockets::new(target, watch)?;
        let mut crowd = Crowd { sockets, ended: [0; 2], why: None };
        let wanted = audience.topics.len();
        let mut topics = audience.topics.iter().enumerate();
        let mut ready = 0;
        let mut progress_ns = watch.ns();
        while ready < wanted {
            while crowd.sockets.len() - ready < OPENING_MAX
                && let Some((index, topics)) = topics.next()
            {
                crowd.sockets.add(topics, audience.habit(index))?;
            }
            crowd.sockets.pass(SETUP_WAIT, &mut |_, _| {})?;
            let before = ready;
            ready += crowd.became_ready()?;
            if ready > before {
                progress_ns = watch.ns();
            } else if watch.ns() - progress_ns > nanos(SETUP_TIMEOUT) {
                let seconds = SETUP_TIMEOUT.as_secs();
                return Err(BenchError::Setup { ready, wanted, seconds });
            }
        }
        Ok(crowd)
    }

    /// How many became ready since this was last asked.
    fn became_ready(&mut self) -> Result<usize, BenchError> {
        let mut ready = 0;
        for change in std::mem::take(&mut self.sockets.changes) {
            match change.ending {
                Some(words) if change.before == State::Subscribing => {
                    return Err(BenchError::Subscription(words));
                }
                Some(words) => return Err(BenchError::Connection { index: change.index, words }),
                None => ready += usize::from(self.sockets.state(change.index) == State::Ready),
            }
        }
        Ok(ready)
    }

    /// Reads what there is; `between` is told the time and the deliveries so far after each socket.
    pub(super) fn pass(&mut self, between: &mut dyn FnMut(u64, u64)) -> Result<Pass, BenchError> {
        let pass = self.sockets.pass(Duration::ZERO, between)?;
        for change in self.sockets.changes.drain(..) {
            let Some(words) = change.ending else { continue };
            match change.habit {
                Habit::Reads => {
                    self.ended[0] += 1;
                    self.why.get_or_insert(words);
                }
                Habit::Stalls => self.ended[1] += 1,
            }
        }
        Ok(pass)
    }

    /// Reads what those have got who stalled, and counts whom the server has ended.
    pub(super) fn count_cut_off(&mut self) -> Result<usize, BenchError> {
        self.sockets.resume();
        let watch = self.sockets.watch;
        let began_ns = watch.ns();
        let mut seen = (self.sockets.aside.bytes, began_ns);
        loop {
            self.pass(&mut |_, _| {})?;
            let now_ns = watch.ns();
            if self.sockets.aside.bytes > seen.0 {
                seen = (self.sockets.aside.bytes, now_ns);
            }
            let is_quiet = now_ns - seen.1 > nanos(QUIET_AFTER);
            if is_quiet || now_ns - began_ns > nanos(RESUME_TIME_MAX) {
                return Ok(self.ended[1]);
            }
            rest(REST);
        }
    }

    /// What those got who read to the end.
    pub(super) fn tally(&self) -> &Tally {
        &self.sockets.tally
    }

    /// Forgets the latencies so far.
    pub(super) fn forget_latencies(&mut self) {
        self.sockets.tally.latency.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_stall_are_spread_and_not_counted_as_readers() {
        let audience = Audience { stalling: 3, ..Audience::of_one_topic(12) };
        let stalls: Vec<usize> =
            (0..12).filter(|index| audience.habit(*index) == Habit::Stalls).collect();
        assert_eq!(stalls, [3, 7, 11]);
        assert_eq!(audience.readers(1), [9]);
        assert_eq!(Audience::of_one_topic(12).readers(1), [12]);
    }
}
