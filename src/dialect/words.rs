//! Words of which a command takes one of a few, spelled as text.
//! # Invariants: each spelling that is text takes the same words.
//! # Not here: what they mean (`topics::terms`), which fields hold them (`raw`).

use super::Overflow;
use super::raw::{Choice, PolicyWord};
use crate::reason::{Reason, Refusal};

impl Choice<PolicyWord> {
    /// The policy that a word names.
    pub(super) fn policy(word: &str) -> Self {
        match word {
            "all" => Choice::Known(PolicyWord::All),
            "latest" => Choice::Known(PolicyWord::Latest),
            "maxHz" => Choice::Known(PolicyWord::MaxHz),
            _ => Choice::Unknown,
        }
    }
}

impl Choice<Overflow> {
    /// The overflow that a word names.
    pub(super) fn overflow(word: &str) -> Self {
        match word {
            "catchUp" => Choice::Known(Overflow::CatchUp),
            "gap" => Choice::Known(Overflow::Gap),
            "disconnect" => Choice::Known(Overflow::Disconnect),
            _ => Choice::Unknown,
        }
    }
}

impl<T> Choice<T> {
    /// The word that was chosen, if any; an unknown one is refused with `detail`.
    ///
    /// # Errors
    /// [`Reason::BadOption`].
    pub(super) fn known(word: Option<Choice<T>>, detail: &str) -> Result<Option<T>, Refusal> {
        match word {
            None | Some(Choice::Open) => Ok(None),
            Some(Choice::Known(word)) => Ok(Some(word)),
            Some(Choice::Unknown) => Err(Refusal::new(Reason::BadOption, detail)),
        }
    }
}
