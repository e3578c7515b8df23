//! The command line: what it says, and what each command does.
//! # Invariants: only this module prints; a command ends with 0 if it did what was asked.
//! # Not here: what the settings mean (`config`), the broker (`server`).

pub mod args;
pub mod bench;
pub mod check;
mod error;
mod line;
mod log;
mod numbers;
mod panics;
mod payload;
pub mod probe;
mod publish;
pub mod secret;
mod serve;
pub mod settings;
mod subscribe;
pub mod token;
pub mod top;

pub use args::{Cli, Command};

use error::CommandError;
use serve::Mode;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Does what a command line asks.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Serve(args) => serve::run(&args, Mode::Serve),
        Command::Demo(args) => serve::run(&args, Mode::Demo),
        Command::Check(args) => check::run(&args),
        Command::Token(command) => token::run(&command),
        Command::Bench(args) => bench::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Subscribe(args) => subscribe::run(&args),
    }
}

/// Prints what was asked for.
fn say(text: &str) -> ExitCode {
    end(put(text.as_bytes()).map_err(CommandError::from))
}

/// Says what went wrong, and makes the command fail.
fn fail(error: &impl Display) -> ExitCode {
    tell(&format!("error: {error}"));
    ExitCode::FAILURE
}

/// Writes to standard output, so that whoever reads it has it at once.
fn put(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line to standard error.
fn tell(line: &str) {
    // There is no place left to complain to.
    writeln!(io::stderr(), "{line}").unwrap_or_default();
}

/// Ends a command. A reader that has gone away, as `head` does, has got what it wanted.
fn end(result: Result<(), CommandError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

/// Runs the work of a client command.
fn block_on(work: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CommandError::Runtime)?;
    let result = runtime.block_on(work);
    // A thread may be waiting for input that nobody needs any more.
    runtime.shutdown_background();
    result
}
