//! Where messages are given their place.
//!
//! The contract of an engine: `publish` gives each message of a topic the next offset of the
//! topic's epoch, in the order of the calls of one publisher, and answers only when what its
//! [`Durability`] promises has happened; or it answers with a reason, and then the message has no
//! place. An offset is never given twice in one epoch: an engine that could do so begins a new one.
//!
//! # Not here: delivery (`topics`, `shard`), permission (`session`).

mod memory;

pub use memory::Memory;

use crate::clock::Now;
use crate::reason::Reason;
use crate::topics::message::Draft;
use crate::topics::registry::{Committed, Recent, Registry};
use std::sync::Arc;

/// What has happened to a message when its publisher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is in this process's memory.
    Memory,
}

/// The engines there are.
#[derive(Clone, Debug)]
pub enum Engine {
    /// This process alone; everything is forgotten when it ends.
    Memory(Memory),
}

impl Engine {
    /// The embedded engine over this registry.
    pub fn memory(registry: Arc<Registry>) -> Engine {
        Engine::Memory(Memory::new(registry))
    }

    /// Gives a message its place. `recent` is the publisher's own.
    ///
    /// # Errors
    /// See [`Registry::commit`].
    pub fn publish<'a>(
        &self,
        recent: &'a mut Recent,
        draft: Draft,
        now: Now,
    ) -> Result<Committed<'a>, Reason> {
        match self {
            Engine::Memory(memory) => memory.publish(recent, draft, now),
        }
    }

    /// What an answered publish promises.
    pub fn durability(&self) -> Durability {
        match self {
            Engine::Memory(_) => Durability::Memory,
        }
    }

    /// The topics of this node.
    pub fn registry(&self) -> &Registry {
        match self {
            Engine::Memory(memory) => memory.registry(),
        }
    }
}
