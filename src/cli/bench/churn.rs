//! `fanfare bench churn`: connect, subscribe, close, again.
//! # Invariants: a life counts when the server has answered its close; one that fails ends the
//! bench.

use super::args::ChurnArgs;
use super::error::BenchError;
use super::figures::{self, Sheet, real};
use super::link::{Habit, State};
use super::process::Process;
use super::sockets::{Pass, Sockets};
use super::stage::Stage;
use super::stopwatch::{REST, nanos, rest};
use super::subject::Subject;
use super::tally::histogram;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Time that a server has to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often connections are looked for whose close is not answered.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The topic that everybody subscribes to.
const TOPICS: [u32; 1] = [0];

/// Lives that are led at the same time.
struct Lives {
    sockets: Sockets,
    /// When the life in each place began, and when it was closed.
    began_ns: Vec<u64>,
    closed_ns: Vec<u64>,
    led: u64,
    unanswered: u64,
    begun: usize,
    /// From connecting to the subscription.
    setup: Histogram<u64>,
}

/// Leads lives one after the other in every place.
pub(super) fn run(stage: &Stage, subject: &Subject, args: &ChurnArgs) -> Result<Sheet, BenchError> {
    let count = args.connections as usize;
    let mut lives = Lives {
        sockets: Sockets::new(&subject.target, stage.watch)?,
        began_ns: vec![0; count],
        closed_ns: vec![0; count],
        led: 0,
        unanswered: 0,
        begun: count,
        setup: histogram(),
    };
    for began_ns in &mut lives.began_ns {
        *began_ns = stage.watch.ns();
        lives.sockets.add(&TOPICS, Habit::Reads)?;
    }
    lives.lead(stage, args.warmup)?;
    lives.setup.reset();
    let usage = || subject.process.as_ref().and_then(Process::usage);
    let (before, led, unanswered) = (usage(), lives.led, lives.unanswered);
    let began_ns = stage.watch.ns();
    lives.lead(stage, args.duration)?;
    let wall_ns = real((stage.watch.ns() - began_ns).max(1));
    let after = usage();
    let led = lives.led - led;
    let mut sheet = Sheet::default();
    sheet.count(&figures::LIVES, led);
    sheet.count(&figures::UNANSWERED_CLOSES, lives.unanswered - unanswered);
    sheet.put(&figures::LIVES_PER_SECOND, real(led) * 1e9 / wall_ns);
    if let (Some(before), Some(after)) = (before, after) {
        let cpu_ns = real(after.cpu_ns.saturating_sub(before.cpu_ns));
        sheet.put(&figures::CPU_PER_LIFE, cpu_ns / 1e3 / real(led.max(1)));
        sheet.put(&figures::CORES, cpu_ns / wall_ns);
        sheet.put(&figures::RSS, real(after.rss_bytes));
    }
    sheet.latencies(&lives.setup);
    Ok(sheet)
}

impl Lives {
    fn lead(&mut self, stage: &Stage, time: Duration) -> Result<(), BenchError> {
        let until_ns = stage.watch.ns() + nanos(time);
        let mut looked_ns = 0;
        loop {
            let pass = self.sockets.pass(Duration::ZERO, &mut |_, _| {})?;
            let now_ns = stage.watch.ns();
            for change in std::mem::take(&mut self.sockets.changes) {
                match (change.ending, self.sockets.state(change.index)) {
                    (None, State::Ready) => self.close(change.index, now_ns),
                    (None, _) => {}
                    (Some(_), _) if change.before == State::Closing => {
                        self.led += 1;
                        self.begin(change.index, now_ns)?;
                    }
                    (Some(words), _) => {
                        return Err(BenchError::Connection { index: change.index, words });
                    }
                }
            }
            if now_ns >= until_ns {
                return Ok(());
            }
            if now_ns - looked_ns > nanos(LOOK_EVERY) {
                looked_ns = now_ns;
                stage.progress.show();
                self.cut_silent(now_ns)?;
            }
            if pass == Pass::Quiet {
                rest(REST);
            }
        }
    }

    fn close(&mut self, index: usize, now_ns: u64) {
        if let (Some(began_ns), Some(closed_ns)) =
            (self.began_ns.get(index), self.closed_ns.get_mut(index))
        {
            self.setup.saturating_record(now_ns.saturating_sub(*began_ns).max(1));
            *closed_ns = now_ns;
        }
        self.sockets.close(index);
    }

    fn begin(&mut self, index: usize, now_ns: u64) -> Result<(), BenchError> {
        if let Some(began_ns) = self.began_ns.get_mut(index) {
            *began_ns = now_ns;
        }
        self.begun += 1;
        self.sockets.replace(index, self.begun, &TOPICS)
    }

    /// Ends those whose close nobody answers.
    fn cut_silent(&mut self, now_ns: u64) -> Result<(), BenchError> {
        for index in 0..self.closed_ns.len() {
            let closed_ns = self.closed_ns.get(index).copied().unwrap_or(now_ns);
            let is_closing = self.sockets.state(index) == State::Closing;
            if is_closing && now_ns.saturating_sub(closed_ns) > nanos(CLOSE_TIMEOUT) {
                self.unanswered += 1;
                self.sockets.cut(index);
                self.begin(index, now_ns)?;
            }
        }
        Ok(())
    }
}
