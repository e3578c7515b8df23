//! What the system knows about a process: processor time and resident memory.
//! # Invariants: a number that the system does not give is left out, not guessed.
//! # Not here: whose process it is (`subject`).

use std::fs;
use std::path::{Path, PathBuf};

/// A process that is looked at.
#[derive(Clone, Debug)]
pub(super) struct Process {
    folder: PathBuf,
}

/// Its numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Processor time of its threads, user and system together.
    pub(super) cpu_ns: u64,
    /// Resident memory.
    pub(super) rss_bytes: u64,
}

impl Process {
    /// The process of this number, if the system tells about it.
    pub(super) fn of(pid: u32) -> Option<Process> {
        let process = Process { folder: PathBuf::from(format!("/proc/{pid}")) };
        process.usage().map(|_| process)
    }

    /// Its numbers now; nothing once it has ended.
    pub(super) fn usage(&self) -> Option<Usage> {
        let cpu_ns = scheduled(&self.folder.join("task")).or_else(|| self.ticks())?;
        Some(Usage { cpu_ns, rss_bytes: self.rss_bytes()? })
    }

    /// Its resident memory now.
    pub(super) fn rss_bytes(&self) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join("statm")).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
    }

    /// User and system time in the steps of the system's clock, usually 10 ms.
    fn ticks(&self) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join("stat")).ok()?;
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        Some(ticks_of(&text)? * tick_ns)
    }
}

/// What the scheduler has given to the threads, to the nanosecond. A kernel without these numbers
/// shows zeros.
fn scheduled(tasks: &Path) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(tasks).ok()?.flatten() {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        sum += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    (sum > 0).then_some(sum)
}

fn ticks_of(stat: &str) -> Option<u64> {
    // The name may hold spaces and brackets: what counts begins after the last of them.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let stat = "12 (a ) b (c) S 3 1 1 0 -1 0 0 0 0 0 70 30 5 6 20 0 9 0 0 0 0";
        assert_eq!(ticks_of(stat), Some(100));
        assert_eq!(ticks_of("12 (a) S 3"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_time_and_memory() {
        let process = Process::of(std::process::id()).expect("it runs");
        let usage = process.usage().expect("it runs");
        assert!(usage.cpu_ns > 0 && usage.rss_bytes > 0, "{usage:?}");
        assert!(process.ticks().is_some());
        // Above the highest number that any system gives.
        assert!(Process::of(u32::MAX).is_none());
    }
}
