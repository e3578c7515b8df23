//! Which processors the server and its clients run on.
//! # Invariants: a server and its clients share no processor, unless there is only one.

use super::error::BenchError;
#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Whether to bind to processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// The server gets so many, or all but one, and the clients the others.
    Server(usize),
    /// The limit runs where this process runs; the clients are left alone.
    Like(u32),
    /// The system decides.
    Off,
}

/// The processors of the two sides, where they are bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Cores {
    /// Those of the server, in words.
    pub(super) server: Option<String>,
    #[cfg(target_os = "linux")]
    sets: Option<(CpuSet, CpuSet)>,
}

#[cfg(target_os = "linux")]
impl Cores {
    /// Divides the processors that this process may use.
    pub(super) fn divide(binding: Binding) -> Result<Cores, BenchError> {
        let failed = |error: rustix::io::Errno| BenchError::System {
            doing: "cannot learn the processors",
            error: error.into(),
        };
        let all = sched_getaffinity(None).map_err(failed)?;
        let usable = numbers(&all);
        let (server, clients) = match binding {
            Binding::Server(count) if usable.len() >= 2 => {
                usable.split_at(count.clamp(1, usable.len() - 1))
            }
            Binding::Like(pid) => {
                let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
                let server = sched_getaffinity(pid).map_err(failed)?;
                return Ok(Cores { server: None, sets: Some((server, all)) });
            }
            Binding::Server(_) | Binding::Off => return Ok(Cores::default()),
        };
        let words = server.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let cores = Cores { server: Some(words), sets: Some((set(server), set(clients))) };
        cores.of_the_broker(|| ());
        Ok(cores)
    }

    /// Starts something on the server's processors; this thread then runs on the others.
    pub(super) fn of_the_broker<T>(&self, start: impl FnOnce() -> T) -> T {
        let Some((server, clients)) = &self.sets else {
            return start();
        };
        // A child has the processors of the thread that starts it. Where they cannot be chosen, the
        // figures are noisier, and no less true.
        sched_setaffinity(None, server).unwrap_or_default();
        let started = start();
        sched_setaffinity(None, clients).unwrap_or_default();
        started
    }
}

#[cfg(target_os = "linux")]
fn numbers(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()
}

#[cfg(target_os = "linux")]
fn set(numbers: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for number in numbers {
        set.set(*number);
    }
    set
}

#[cfg(not(target_os = "linux"))]
impl Cores {
    /// Other systems do not let a program choose.
    pub(super) fn divide(_: Binding) -> Result<Cores, BenchError> {
        Ok(Cores::default())
    }

    /// Starts something.
    pub(super) fn of_the_broker<T>(&self, start: impl FnOnce() -> T) -> T {
        start()
    }
}
