//! Why a client command ends early, in words for a terminal.
//! # Not here: what goes wrong between a client and a broker (`client`).

use crate::client::Error;
use crate::client::wire::{Fault, REFUSED};
use std::io;
use std::time::Duration;
use thiserror::Error;

/// Why a client command ends early.
#[derive(Debug, Error)]
pub(super) enum CommandError {
    /// The client or the broker says so.
    #[error("{}{}", .0, hint(.0))]
    Client(#[from] Error),
    /// The system has no means left to run anything.
    #[error("cannot begin: {0}")]
    Runtime(io::Error),
    /// What the server said is not what was expected.
    #[error("the server sent what cannot be understood: {0}")]
    Malformed(String),
    /// Nothing came for longer than it may take.
    #[error("nothing was heard of the server for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The server does not do what it is asked about.
    #[error("the server answered {status}: {body}")]
    Unwell { status: u16, body: String },
    /// The server refused a request of the admin API.
    #[error("{name}: {message}")]
    Refused { name: String, message: String },
    /// A message was sent and no answer came.
    #[error("no answer within {} seconds: the message may or may not be published", .0.as_secs())]
    Unknown(Duration),
    /// Some of many messages are not published.
    #[error("{refused} of {total} lines are not published")]
    Incomplete { refused: u64, total: u64 },
    /// The payload could not be read.
    #[error("cannot read {name}: {problem}")]
    Input { name: String, problem: String },
    /// The payload is not what it was said to be.
    #[error("the payload is not valid: {0}")]
    Payload(String),
    /// What came could not be printed.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl From<Fault> for CommandError {
    fn from(fault: Fault) -> CommandError {
        CommandError::Client(fault.into())
    }
}

/// What may help, where nobody listens.
fn hint(error: &Error) -> &'static str {
    if error.name() == "connect" && error.to_string().ends_with(REFUSED) {
        "; is a broker running there? try `fanfare demo`"
    } else {
        ""
    }
}
