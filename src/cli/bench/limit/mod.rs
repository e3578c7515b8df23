//! The limit: the least that a process can do and still be such a server on ordinary sockets. A
//! broker's figures are told as ratios to what it costs on the same machine.
//! # Invariants: a message is framed once, and its bytes go to every socket as they are; nothing is
//! queued unless a socket is full.
//! # Not here: whatever makes a broker: no protocol, no limits, no history, no refusals.

mod echo;
mod server;

use super::args::{Engine, LimitArgs};
use super::error::BenchError;
use std::net::TcpListener;
use std::process::ExitCode;

/// How the line begins that says where it listens.
pub(super) const LISTENING: &str = "the limit listens on ";

/// Runs it until it is ended.
pub(super) fn run(args: &LimitArgs) -> ExitCode {
    if args.child {
        super::end_with_parent();
    }
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::cli::fail(&error),
    }
}

fn serve(args: &LimitArgs) -> Result<(), BenchError> {
    super::raise_open_files();
    let listener = TcpListener::bind(args.address);
    let listener = listener.map_err(BenchError::system("cannot listen"))?;
    let address = listener.local_addr().map_err(BenchError::system("cannot listen"))?;
    crate::cli::tell(&format!("{LISTENING}{address}"));
    match args.engine {
        Engine::Write | Engine::Coalesce => server::serve(listener, args.engine),
        Engine::Echo => echo::serve(&listener),
    }
    .map_err(BenchError::system("the limit has failed"))
}
