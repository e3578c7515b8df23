//! `fanfare bench`: measures a broker beside the physical limit of the machine.
//! # Invariants: the broker, the limit and the clients are processes apart; broker and limit take
//! turns; figures that are not to be believed make the command fail.
//! # Not here: what the figures mean, and what they cannot tell (`docs/bench.md`).

pub mod args;
mod churn;
mod conduit;
mod cores;
mod crowd;
mod error;
mod fanout;
mod figures;
mod frame;
mod idle;
mod ingress;
mod job;
mod limit;
mod link;
mod mark;
mod process;
mod progress;
mod publisher;
mod report;
mod roundtrip;
mod sockets;
mod speech;
mod stage;
mod stopwatch;
mod subject;
mod tally;
mod traffic;

use super::serve::{self, Mode};
use super::settings::ConfigArgs;
use args::{BenchArgs, Scenario};
use error::BenchError;
use job::Job;
use std::io;
use std::process::ExitCode;

/// Measures, or serves as what is measured.
pub(super) fn run(args: &BenchArgs) -> ExitCode {
    match &args.scenario {
        Scenario::Limit(args) => limit::run(args),
        Scenario::Broker(args) => broker(args),
        measured => match measure(measured) {
            Ok(()) => ExitCode::SUCCESS,
            Err(BenchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Err(error) => super::fail(&error),
        },
    }
}

/// Serves like `fanfare serve`, until the process that started this has ended.
fn broker(args: &ConfigArgs) -> ExitCode {
    end_with_parent();
    serve::run(args, Mode::Serve)
}

/// Asks to be ended with the process that started this one, however that ends.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::TERM)).unwrap_or_default();
    }
}

fn measure(scenario: &Scenario) -> Result<(), BenchError> {
    let Some(job) = Job::of(scenario) else {
        return Ok(());
    };
    let is_json = job.is_json();
    let report = job.run()?;
    let text = if is_json { format!("{}\n", report.to_json()) } else { report.to_text() };
    super::put(text.as_bytes()).map_err(BenchError::Output)?;
    report.judge()
}

/// Raises the soft limit of open files as far as it goes, and tells it.
fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is then allowed is asked again, and compared with what is needed.
    setrlimit(Resource::Nofile, limit).unwrap_or_default();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
