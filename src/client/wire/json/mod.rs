//! The JSON spelling of the protocol from the client's side.
//! Owns the words that stand for the values of enumerations.
//! # Invariants: an embedded JSON value travels as it is; fields and events that are not known are
//! passed over, as the protocol asks of a client.
//! # Not here: what events mean.

mod commands;
mod events;

pub(crate) use commands::{encode, encode_publish};
pub(crate) use events::{decode, decode_answer};

use crate::dialect::schema::{self, GapReason, RecoveryFailure};

/// Why a resume did not succeed, and how it is spelled.
const FAILURES: [(RecoveryFailure, &str); 6] = [
    (RecoveryFailure::EpochChanged, "epochChanged"),
    (RecoveryFailure::Trimmed, "trimmed"),
    (RecoveryFailure::Expired, "expired"),
    (RecoveryFailure::TooMany, "tooMany"),
    (RecoveryFailure::NotAllowed, "notAllowed"),
    (RecoveryFailure::EngineUnavailable, "engineUnavailable"),
];

/// How much of a topic a subscription gets.
const POLICIES: [(schema::Policy, &str); 3] = [
    (schema::Policy::All, "all"),
    (schema::Policy::Latest, "latest"),
    (schema::Policy::MaxHz, "maxHz"),
];

/// What happens to slow readers.
const OVERFLOWS: [(schema::Overflow, &str); 3] = [
    (schema::Overflow::CatchUp, "catchUp"),
    (schema::Overflow::Gap, "gap"),
    (schema::Overflow::Disconnect, "disconnect"),
];

/// Why messages are missing.
const GAP_REASONS: [(GapReason, &str); 3] =
    [(GapReason::Slow, "slow"), (GapReason::Trimmed, "trimmed"), (GapReason::Expired, "expired")];

/// What to do about a refusal.
const RETRIES: [(schema::Retry, &str); 4] = [
    (schema::Retry::Never, "never"),
    (schema::Retry::Later, "later"),
    (schema::Retry::Refresh, "refresh"),
    (schema::Retry::Resume, "resume"),
];

/// The word for a value of one of the tables, if it has one.
fn word<T: Copy + PartialEq>(table: &[(T, &'static str)], value: T) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == value).map(|(_, word)| *word)
}

/// The value that a word stands for in one of the tables, or the one for what nobody knows.
fn named<T: Copy + Default>(table: &[(T, &str)], name: Option<&str>) -> T {
    let row = table.iter().find(|(_, known)| Some(*known) == name);
    row.map_or_else(T::default, |(value, _)| *value)
}

#[cfg(test)]
pub(crate) mod tests;
