//! Topics: the shared half of the broker. Synchronous, without I/O and without a clock.
//!
//! # Invariants
//! 1. **Order.** Per topic, offset order is mailbox order on every shard: assigning an offset and
//!    posting the message are one critical section (`registry`, `topic`).
//! 2. **All or none.** A commit reserves a place in every interested mailbox before it assigns an
//!    offset; a full mailbox refuses the publisher and never skips a shard (`mailbox`).
//! 3. **No gap, no double.** A seam reads history and the latest offset under the lock under which
//!    commits post, and tells from which offset on the mailbox brings the rest (`topic`).
//! 4. **Epoch.** An offset is compared only together with its epoch (`message`).
//!
//! # Locks, in the order in which they are taken
//! 1. one shard of the topic map: to clone an `Arc`, or by the sweep to remove a topic;
//! 2. the topic's own mutex;
//! 3. the filter trie (read), or the mailbox queues of interested shards in the order of the shards,
//!    each for a few instructions.
//!
//! Nobody awaits, encodes or takes a second topic under any of them.

pub mod filters;
pub mod history;
pub mod idempotency;
#[cfg(test)]
mod invariants;
pub mod kept;
mod label;
pub mod latest;
pub mod mailbox;
pub mod message;
pub mod name;
pub mod names;
pub mod presence;
pub mod registry;
pub mod rule;
pub mod terms;
pub mod topic;
