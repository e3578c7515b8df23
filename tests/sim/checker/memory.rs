//! What waits for connections, and what is given up when it is too much.
//! # Not here: what a connection misses by that (`stream`).

use super::{Checked, Invariant, fault};
use crate::history::{Held, Promise};
use std::collections::BTreeMap;

/// The most that has waited in each life of the broker.
#[derive(Debug, Default)]
pub(super) struct Memory {
    most: BTreeMap<usize, u64>,
}

/// What a broker that is short of memory gives up, and from which percentage of its budget on.
#[derive(Clone, Copy, Debug)]
pub(super) enum GivenUp {
    NewConnections = 70,
    Slowest = 90,
    Publishers = 100,
}

impl Memory {
    pub(super) fn held(&mut self, held: &Held, life: usize, promise: &Promise) -> Checked {
        let Held { shard, connections, bytes } = *held;
        if shard.is_none() {
            self.most.insert(life, bytes);
        } else if bytes > connections * promise.held_bytes_max {
            let says = format!("{held:?} is more than {} for each", promise.held_bytes_max);
            return fault(Invariant::Bound, "", says);
        }
        Ok(())
    }

    /// Nothing is given up before its turn.
    pub(super) fn gives_up(&self, what: GivenUp, life: usize, promise: &Promise) -> Checked {
        let most = self.most.get(&life).copied().unwrap_or(0);
        let is_time = promise.budget_bytes.is_some_and(|max| most * 100 >= max * what as u64);
        if is_time {
            return Ok(());
        }
        let says = format!("{what:?} are given up at {most} of {:?}", promise.budget_bytes);
        fault(Invariant::Bound, "", says)
    }
}
