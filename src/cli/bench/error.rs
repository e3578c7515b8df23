//! Why a bench gives no figures, or none to believe, in words for a terminal.

use super::frame::BadFrame;
use std::io;
use thiserror::Error;

/// Why a bench ended without what was asked for.
#[derive(Debug, Error)]
pub(super) enum BenchError {
    #[error("no broker at {address}: {error}; without --address, bench starts one itself")]
    NoBroker { address: String, error: io::Error },
    #[error("--pid {0}: there is no such process, or this system does not tell about processes")]
    NoProcess(u32),
    #[error("publish measures the TCP ingress, so --address needs --ingress HOST:PORT beside it")]
    NoIngress,
    #[error(
        "{needed} open files are needed and {allowed} allowed; raise the limit with `ulimit -n \
         {needed}`, or measure with fewer connections"
    )]
    OpenFiles { needed: u64, allowed: u64 },
    #[error("cannot start {what}: {error}")]
    Spawn { what: &'static str, error: io::Error },
    #[error("{what} did not start{words}")]
    Child { what: &'static str, words: String },
    #[error("{ready} of {wanted} subscribers are ready after {seconds} seconds")]
    Setup { ready: usize, wanted: usize, seconds: u64 },
    #[error("a subscription was refused: {0}")]
    Subscription(String),
    #[error("a publish was refused: {0}")]
    Publish(String),
    #[error("connection {index} ended while it was set up: {words}")]
    Connection { index: usize, words: String },
    #[error("the publisher's connection ended: {0}")]
    Publisher(String),
    #[error("{0}")]
    Frame(#[from] BadFrame),
    #[error("{doing}: {error}")]
    System { doing: &'static str, error: io::Error },
    #[error("the answer to {0} took longer than {1} seconds")]
    Silent(&'static str, u64),
    #[error("the figures are not to be believed: {0}")]
    Wrong(String),
    #[error(transparent)]
    Output(io::Error),
}

impl BenchError {
    /// An error of the system while doing something.
    pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> BenchError {
        move |error| BenchError::System { doing, error }
    }
}
