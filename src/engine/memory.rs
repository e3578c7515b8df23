//! The embedded engine: a publish is a commit to the registry of this process.
//! # Invariants: an epoch is random and lives in this process only, so a restart can never be
//! mistaken for a continuation.
//! # Not here: persistence.

use crate::clock::Now;
use crate::reason::Reason;
use crate::topics::message::Draft;
use crate::topics::registry::{Committed, Recent, Registry};
use std::sync::Arc;

/// The embedded engine.
#[derive(Clone, Debug)]
pub struct Memory {
    registry: Arc<Registry>,
}

impl Memory {
    pub(super) fn new(registry: Arc<Registry>) -> Memory {
        Memory { registry }
    }

    pub(super) fn publish<'a>(
        &self,
        recent: &'a mut Recent,
        draft: Draft,
        now: Now,
    ) -> Result<Committed<'a>, Reason> {
        self.registry.commit_again(recent, draft, now)
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}
