//! Publishing at a rate or with a window while a crowd listens: what a phase of it gives.
//! # Invariants: a phase is over when everything published has been delivered, or nothing has come
//! for three seconds; so its counts and its processor time are of the same messages.
//! # Not here: which phases a scenario has (`fanout`).

use super::crowd::Crowd;
use super::error::BenchError;
use super::figures::{self, Sheet, real};
use super::process::{Process, Usage};
use super::publisher::{Load, Publisher};
use super::sockets::Pass;
use super::stage::Stage;
use super::stopwatch::{REST, nanos, rest};
use crate::cli::numbers::whole;
use std::time::Duration;

/// Time without a delivery after which the rest is lost.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// Time in which a repetition would show after the last message.
const REPEATED_AFTER: Duration = Duration::from_millis(50);

/// How often things are done that are not part of the load.
const CHORES_EVERY: Duration = Duration::from_millis(50);

/// Time without a delivery after which a full window is given up, so that publishing goes on.
const WINDOW_LOST_AFTER: Duration = Duration::from_secs(2);

/// When the next message is due, and how many have been published.
struct Pacer {
    load: Load,
    began_ns: u64,
    until_ns: u64,
    published: u64,
    expected: u64,
    /// Deliveries before the phase, and those that were given up.
    before: u64,
    written_off: u64,
    /// Readers of a topic, on average.
    readers: u64,
    late_ns: u64,
    /// Deliveries when they last became more, and when that was.
    seen: (u64, u64),
}

/// What a phase was.
struct Phase {
    published: u64,
    expected: u64,
    late_ns: u64,
    began_ns: u64,
    rss_max: u64,
}

/// A crowd, its publisher, and the process that serves them.
pub(super) struct Traffic<'a> {
    pub(super) stage: &'a Stage,
    pub(super) crowd: Crowd,
    pub(super) publisher: Publisher,
    pub(super) process: Option<Process>,
    pub(super) readers: Vec<u64>,
}

/// Counters at one moment.
struct Moment {
    server: Option<Usage>,
    own: Option<Usage>,
    ns: u64,
    delivered: u64,
    repeated: u64,
    disordered: u64,
    unreadable: u64,
    gaps: u64,
    reads: u64,
    bytes: u64,
}

impl Traffic<'_> {
    /// Publishes without measuring.
    pub(super) fn warm_up(&mut self, load: Load, time: Duration) -> Result<(), BenchError> {
        if !time.is_zero() {
            self.phase(load, time)?;
        }
        self.crowd.forget_latencies();
        Ok(())
    }

    /// Publishes and measures.
    pub(super) fn measure(&mut self, load: Load, time: Duration) -> Result<Sheet, BenchError> {
        let before = self.moment();
        let phase = self.phase(load, time)?;
        let after = self.moment();
        let sheet = self.sheet(&phase, &before, &after);
        self.crowd.forget_latencies();
        if self.crowd.ended[0] > 0 {
            let words = self.crowd.why.clone().unwrap_or_default();
            return Err(BenchError::Wrong(format!(
                "{} subscribers were cut off: {words}",
                self.crowd.ended[0]
            )));
        }
        Ok(sheet)
    }

    fn phase(&mut self, load: Load, time: Duration) -> Result<Phase, BenchError> {
        let watch = self.stage.watch;
        let mut pacer = Pacer::new(load, time, watch.ns(), self);
        let mut rss_max = 0;
        let mut chores_ns = 0;
        loop {
            let now_ns = watch.ns();
            let delivered = self.crowd.tally().delivered;
            pacer.step(&mut self.publisher, now_ns, delivered)?;
            self.publisher.flush()?;
            let is_out = pacer.is_over(now_ns) && self.publisher.unsent_len() == 0;
            if is_out && pacer.is_delivered(now_ns, delivered) {
                break;
            }
            let mut failed = Ok(());
            let publisher = &mut self.publisher;
            let pass = self.crowd.pass(&mut |now_ns, delivered| {
                if failed.is_ok() && now_ns > 0 {
                    failed = pacer.step(publisher, now_ns, delivered);
                }
            })?;
            failed?;
            if now_ns.saturating_sub(chores_ns) > nanos(CHORES_EVERY) {
                chores_ns = now_ns;
                self.publisher.listen()?;
                self.stage.progress.show();
                let rss = self.process.as_ref().and_then(Process::rss_bytes);
                rss_max = rss_max.max(rss.unwrap_or_default());
            }
            if pass == Pass::Quiet {
                rest(REST.min(pacer.time_left(watch.ns())));
            }
        }
        let Pacer { published, expected, late_ns, began_ns, .. } = pacer;
        Ok(Phase { published, expected, late_ns, began_ns, rss_max })
    }

    fn moment(&self) -> Moment {
        let tally = self.crowd.tally();
        Moment {
            server: self.process.as_ref().and_then(Process::usage),
            own: self.stage.own.as_ref().and_then(Process::usage),
            ns: self.stage.watch.ns(),
            delivered: tally.delivered,
            repeated: tally.repeated,
            disordered: tally.disordered,
            unreadable: tally.unreadable,
            gaps: tally.gaps,
            reads: tally.reads,
            bytes: tally.bytes,
        }
    }

    fn sheet(&self, phase: &Phase, a: &Moment, b: &Moment) -> Sheet {
        let tally = self.crowd.tally();
        let delivered = b.delivered - a.delivered;
        let repeated = b.repeated - a.repeated;
        let each = |amount: u64| real(amount) / real(delivered.max(1));
        let mut sheet = Sheet::default();
        sheet.count(&figures::PUBLISHED, phase.published);
        sheet.count(&figures::EXPECTED, phase.expected);
        sheet.count(&figures::DELIVERED, delivered);
        sheet.count(&figures::LOST, (phase.expected + repeated).saturating_sub(delivered));
        sheet.count(&figures::REPEATED, repeated);
        sheet.count(&figures::DISORDERED, b.disordered - a.disordered);
        sheet.count(&figures::UNREADABLE, b.unreadable - a.unreadable);
        sheet.count(&figures::GAPS, b.gaps - a.gaps);
        let time_ns = tally.last_ns.saturating_sub(phase.began_ns).max(1);
        sheet.put(&figures::DELIVERIES, real(delivered) * 1e9 / real(time_ns));
        sheet.latencies(&tally.latency);
        let wall_ns = real(b.ns - a.ns);
        if let (Some(before), Some(after)) = (a.server, b.server) {
            let cpu_ns = after.cpu_ns.saturating_sub(before.cpu_ns);
            sheet.put(&figures::CPU_PER_DELIVERY, each(cpu_ns) / 1e3);
            sheet.put(&figures::CORES, real(cpu_ns) / wall_ns);
            sheet.put(&figures::RSS, real(phase.rss_max.max(after.rss_bytes)));
        }
        sheet.put(&figures::WIRE, each(b.bytes - a.bytes));
        sheet.put(&figures::READS, each(b.reads - a.reads));
        if let (Some(before), Some(after)) = (a.own, b.own) {
            sheet.put(&figures::CLIENT_CORES, real(after.cpu_ns - before.cpu_ns) / wall_ns);
        }
        sheet.put(&figures::LATE, real(phase.late_ns) / 1e3);
        sheet
    }
}

impl Pacer {
    fn new(load: Load, time: Duration, now_ns: u64, traffic: &Traffic<'_>) -> Pacer {
        let delivered = traffic.crowd.tally().delivered;
        let topics = u64::try_from(traffic.readers.len()).unwrap_or(1).max(1);
        Pacer {
            load,
            began_ns: now_ns,
            until_ns: now_ns + nanos(time),
            published: 0,
            expected: 0,
            before: delivered,
            written_off: 0,
            readers: (traffic.readers.iter().sum::<u64>() / topics).max(1),
            late_ns: 0,
            seen: (delivered, now_ns),
        }
    }

    /// Publishes what is due, or what there is room for.
    fn step(
        &mut self,
        publisher: &mut Publisher,
        now_ns: u64,
        delivered: u64,
    ) -> Result<(), BenchError> {
        if delivered > self.seen.0 {
            self.seen = (delivered, now_ns);
        }
        let before = self.published;
        match self.load {
            Load::Rate(_) => self.publish_due(publisher, now_ns),
            Load::Window(window) => self.fill_window(publisher, window, now_ns),
        }
        if self.published > before { publisher.flush() } else { Ok(()) }
    }

    fn publish_due(&mut self, publisher: &mut Publisher, now_ns: u64) {
        while self.due_ns() <= now_ns && self.due_ns() < self.until_ns && publisher.has_room() {
            let due_ns = self.due_ns();
            self.late_ns = self.late_ns.max(now_ns - due_ns);
            self.expected += publisher.publish(due_ns);
            self.published += 1;
        }
    }

    fn fill_window(&mut self, publisher: &mut Publisher, window: u64, now_ns: u64) {
        if now_ns >= self.until_ns {
            return;
        }
        let room = window * self.readers;
        let under_way =
            |pacer: &Pacer| pacer.expected.saturating_sub(pacer.arrived() + pacer.written_off);
        if under_way(self) >= room && now_ns - self.seen.1 > nanos(WINDOW_LOST_AFTER) {
            self.written_off += under_way(self);
            self.seen.1 = now_ns;
        }
        // Several at once, because a write for each would be the publisher's cost, and would decide
        // how much the server can join.
        let step = (window / 8).max(1) * self.readers;
        if under_way(self) + step > room {
            return;
        }
        while under_way(self) + self.readers <= room && publisher.has_room() {
            self.expected += publisher.publish(now_ns);
            self.published += 1;
        }
    }

    /// Deliveries of this phase.
    fn arrived(&self) -> u64 {
        self.seen.0 - self.before
    }

    fn due_ns(&self) -> u64 {
        match self.load {
            Load::Rate(rate) => self.began_ns + whole(real(self.published) * 1e9 / rate),
            Load::Window(_) => 0,
        }
    }

    /// Whether nothing more is to be published.
    fn is_over(&self, now_ns: u64) -> bool {
        match self.load {
            Load::Rate(_) => self.due_ns() >= self.until_ns,
            Load::Window(_) => now_ns >= self.until_ns,
        }
    }

    /// Whether everything has come that will.
    fn is_delivered(&mut self, now_ns: u64, delivered: u64) -> bool {
        if delivered > self.seen.0 {
            self.seen = (delivered, now_ns);
        }
        let is_all = self.arrived() >= self.expected;
        let silence = if is_all { REPEATED_AFTER } else { LOST_AFTER };
        now_ns.saturating_sub(self.seen.1) > nanos(silence)
    }

    /// Until the next message is due.
    fn time_left(&self, now_ns: u64) -> Duration {
        match self.load {
            Load::Rate(_) if self.due_ns() < self.until_ns => {
                Duration::from_nanos(self.due_ns().saturating_sub(now_ns))
            }
            Load::Rate(_) | Load::Window(_) => REST,
        }
    }
}
