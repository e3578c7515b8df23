//! `fanfare bench idle`: connections with one subscription each, left alone.

use super::args::IdleArgs;
use super::crowd::{Audience, Crowd};
use super::error::BenchError;
use super::figures::{self, Sheet, real};
use super::process::Process;
use super::stage::Stage;
use super::stopwatch::{nanos, rest};
use super::subject::Subject;
use std::time::Duration;

/// How often the connections are looked at, to answer pings.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time for a process to come to rest after its start.
const SETTLE: Duration = Duration::from_millis(200);

/// Connects everybody and waits.
pub(super) fn run(stage: &Stage, subject: &Subject, args: &IdleArgs) -> Result<Sheet, BenchError> {
    let usage = || subject.process.as_ref().and_then(Process::usage);
    rest(SETTLE);
    let before = usage();
    let began_ns = stage.watch.ns();
    let audience = Audience::of_one_topic(args.subscribers as usize);
    let mut crowd = Crowd::open(&subject.target, &audience, stage.watch)?;
    let ready_ns = stage.watch.ns();
    let ready = usage();
    while stage.watch.ns() - ready_ns < nanos(args.duration) {
        crowd.pass(&mut |_, _| {})?;
        stage.progress.show();
        rest(LOOK_EVERY.min(args.duration));
    }
    let after = usage();
    if crowd.ended[0] > 0 {
        let words = crowd.why.unwrap_or_default();
        return Err(BenchError::Wrong(format!("{} connections ended: {words}", crowd.ended[0])));
    }
    let count = u64::from(args.subscribers);
    let mut sheet = Sheet::default();
    sheet.count(&figures::CONNECTIONS, count);
    let setup_ns = real(ready_ns - began_ns).max(1.0);
    sheet.put(&figures::ACCEPTS, real(count) * 1e9 / setup_ns);
    if let (Some(before), Some(ready), Some(after)) = (before, ready, after) {
        let each = |amount: u64| real(amount) / real(count.max(1));
        let accepting_ns = ready.cpu_ns.saturating_sub(before.cpu_ns);
        sheet.put(&figures::CPU_PER_ACCEPT, each(accepting_ns) / 1e3);
        let grown = after.rss_bytes.saturating_sub(before.rss_bytes);
        sheet.put(&figures::RSS_PER_CONNECTION, each(grown));
        sheet.put(&figures::RSS, real(after.rss_bytes));
        let idle_ns = real(after.cpu_ns.saturating_sub(ready.cpu_ns));
        sheet.put(&figures::IDLE_CORES, idle_ns / real(nanos(args.duration).max(1)));
    }
    Ok(sheet)
}
