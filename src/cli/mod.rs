//! The command line: what it says, and what each command does.
//! # Invariants: only this module prints; a command ends with 0 if it did what was asked.
//! # Not here: what the settings mean (`config`), the broker (`server`).

pub mod args;
pub mod check;
pub mod endpoint;
mod log;
mod serve;
pub mod settings;

pub use args::{Cli, Command};

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
        Command::Publish(_) | Command::Subscribe(_) => ExitCode::FAILURE,
    }
}

/// Prints what was asked for. A reader that has seen enough, as in `fanfare check | head`, is no
/// failure.
fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Says what went wrong, and makes the command fail.
#[expect(clippy::print_stderr, reason = "this is the command line")]
fn fail(error: &impl Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
