//! The memory that waits for all connections together, and that of the whole process, and what is
//! given up when either runs short.
//! # Invariants: things are given up in one order, the least harmful first: new connections, then
//! the queues of slow readers, then the slowest readers, then publishers.
//! # Not here: the bound of one connection (`late`), the memory of histories (`topics`).

use super::Shard;
use super::connection::ConnectionId;
use super::outbound::Socket;
use crate::metrics::Counters;
use crate::planted::{self, Bug};
use crate::reason::Reason;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a broker that is short of memory gives up. Each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    #[default]
    Calm,
    /// From 70 % on: new connections are refused.
    RefuseNew,
    /// From 80 % on: what a socket does not take at once is not queued, but dropped and told, or read
    /// from history later.
    DropLive,
    /// From 90 % on: each shard closes the connection with the longest queue, one each turn.
    CloseSlowest,
    /// From 100 % on: publishers are refused.
    RefusePublishes,
}

/// The levels and the percentage from which each applies, the strictest first.
const LEVELS: [(Pressure, usize); 4] = [
    (Pressure::RefusePublishes, 100),
    (Pressure::CloseSlowest, 90),
    (Pressure::DropLive, 80),
    (Pressure::RefuseNew, 70),
];

/// What may wait for all connections of a broker.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    shards: Vec<Arc<Counters>>,
    /// Percent of the memory that the process may have, as it was told last.
    resident_percent: AtomicU64,
    /// The level, as of the last measurement: read often and rarely written, so that reading it
    /// costs no traffic between cores.
    level: AtomicU8,
}

impl Budget {
    /// A budget over what these shards count.
    pub fn new(bytes_max: usize, shards: Vec<Arc<Counters>>) -> Budget {
        let resident_percent = AtomicU64::new(0);
        Budget { bytes_max, shards, resident_percent, level: AtomicU8::new(0) }
    }

    /// Notes how much memory the process has of what it may have. From then on that counts too.
    pub fn note_resident(&self, bytes: u64, bytes_max: u64) {
        let percent = bytes.saturating_mul(100) / bytes_max.max(1);
        self.resident_percent.store(percent, Ordering::Relaxed);
        self.measure();
    }

    /// Adds up what waits, and notes how short memory is. Each shard does this once a turn.
    pub fn measure(&self) -> Pressure {
        let waiting: u64 = self.shards.iter().map(|shard| shard.outbound_bytes.get()).sum();
        let waiting_percent = waiting.saturating_mul(100) / (self.bytes_max as u64).max(1);
        let percent = waiting_percent.max(self.resident_percent.load(Ordering::Relaxed));
        let applies = |(_, from): &&(Pressure, usize)| percent >= *from as u64;
        let pressure = LEVELS.iter().find(applies).map_or(Pressure::Calm, |(level, _)| *level);
        if self.level.load(Ordering::Relaxed) != pressure as u8 {
            self.level.store(pressure as u8, Ordering::Relaxed);
        }
        pressure
    }

    /// How short memory was at the last measurement.
    pub fn pressure(&self) -> Pressure {
        // Every publisher asks.
        match self.level.load(Ordering::Relaxed) {
            CALM => Pressure::Calm,
            level => {
                let mut levels = LEVELS.iter().map(|(level, _)| *level);
                levels.find(|candidate| *candidate as u8 == level).unwrap_or_default()
            }
        }
    }
}

const CALM: u8 = Pressure::Calm as u8;

impl<S: Socket> Shard<S> {
    /// Sees how short memory is, and gives up what this shard has to.
    pub(super) fn relieve(&mut self) {
        self.pressure = self.budget.measure();
        let from =
            if planted::is(Bug::ShedEarly) { Pressure::RefuseNew } else { Pressure::CloseSlowest };
        if self.pressure < from {
            return;
        }
        let open = self.connections.iter().filter(|(_, connection)| connection.is_open());
        let longest = open.max_by_key(|(_, connection)| connection.outbound.bytes());
        let id = longest.filter(|(_, connection)| !connection.outbound.is_empty()).map(
            |(slot, connection)| ConnectionId {
                slot: u32::try_from(slot).unwrap_or(u32::MAX),
                generation: connection.generation,
            },
        );
        if let Some(id) = id {
            self.close(id, &Reason::Shed.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_comes_in_one_order() {
        let shards = vec![Arc::<Counters>::default(), Arc::default()];
        let budget = Budget::new(1_000, shards.clone());
        let mut seen = vec![budget.pressure()];
        for _ in 0..100 {
            for shard in &shards {
                shard.outbound_bytes.add(5);
            }
            let pressure = budget.measure();
            assert_eq!(budget.pressure(), pressure);
            if seen.last() != Some(&pressure) {
                seen.push(pressure);
            }
        }
        let order = [
            Pressure::Calm,
            Pressure::RefuseNew,
            Pressure::DropLive,
            Pressure::CloseSlowest,
            Pressure::RefusePublishes,
        ];
        assert_eq!(seen, order);
        assert!(order.is_sorted());
    }

    #[test]
    fn the_memory_of_the_process_counts_as_what_waits_does() {
        let shard = Arc::<Counters>::default();
        let budget = Budget::new(1_000, vec![Arc::clone(&shard)]);
        let levels = [(69, Pressure::Calm), (70, Pressure::RefuseNew), (85, Pressure::DropLive)];
        for (resident, expected) in levels {
            budget.note_resident(resident, 100);
            assert_eq!(budget.pressure(), expected, "{resident} of 100");
        }
        shard.outbound_bytes.add(950);
        assert_eq!(budget.measure(), Pressure::CloseSlowest, "the worse of both counts");
        shard.outbound_bytes.add(0_u64.wrapping_sub(950));
        budget.note_resident(101, 100);
        assert_eq!(budget.pressure(), Pressure::RefusePublishes);
        budget.note_resident(10, 100);
        assert_eq!(budget.pressure(), Pressure::Calm);
    }
}
