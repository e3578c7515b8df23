//! Things by the tick at which they are due.
//! # Invariants: nothing comes out before its tick; what is put in costs the same however far away
//! its tick is.
//! # Not here: what a tick is, and what happens when one comes.

/// A hashed timing wheel.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    /// A thing is in the slot of its tick modulo their number, and stays while the wheel goes round.
    slots: Vec<Vec<(u64, T)>>,
    tick: u64,
    len: usize,
    /// Nothing is due before this tick.
    next: Option<u64>,
}

impl<T> Wheel<T> {
    /// An empty wheel that begins at this tick.
    pub(super) fn new(slots: usize, tick: u64) -> Wheel<T> {
        let slots = std::iter::repeat_with(Vec::new).take(slots.max(1)).collect();
        Wheel { slots, tick, len: 0, next: None }
    }

    /// The tick that it was last advanced to.
    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    /// Puts a thing in; one that is due already comes out with the next tick.
    pub(super) fn insert(&mut self, tick: u64, thing: T) {
        let tick = tick.max(self.tick + 1);
        let slot = self.slot(tick);
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.push((tick, thing));
            self.len += 1;
            self.next = Some(self.next.map_or(tick, |next| next.min(tick)));
        }
    }

    /// Moves what is due up to this tick to the end of `due`.
    pub(super) fn advance(&mut self, to: u64, due: &mut Vec<T>) {
        if self.next.is_none_or(|next| to < next) {
            self.tick = self.tick.max(to);
            return;
        }
        let rounds = to.saturating_sub(self.tick).min(self.slots.len() as u64);
        let already = due.len();
        for tick in (to - rounds + 1)..=to {
            self.take_due(self.slot(tick), to, due);
        }
        self.len -= due.len() - already;
        self.tick = self.tick.max(to);
        self.next = self.find_next();
    }

    /// The first tick at which something may be due; nothing is before it.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    fn find_next(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let mut ticks = self.tick + 1..=self.tick + self.slots.len() as u64;
        ticks.find(|tick| self.slots.get(self.slot(*tick)).is_some_and(|things| !things.is_empty()))
    }

    fn slot(&self, tick: u64) -> usize {
        usize::try_from(tick % self.slots.len() as u64).unwrap_or(0)
    }

    fn take_due(&mut self, slot: usize, to: u64, due: &mut Vec<T>) {
        let Some(things) = self.slots.get_mut(slot) else { return };
        due.extend(things.extract_if(.., |(tick, _)| *tick <= to).map(|(_, thing)| thing));
        if things.is_empty() && things.capacity() > KEPT_MAX {
            *things = Vec::new();
        }
    }
}

/// Room that a slot keeps when it is empty.
const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn everything_comes_out_at_its_tick_and_not_before(
            steps in prop::collection::vec((0u64..40, prop::collection::vec(0u64..100, 0..5)), 1..40),
        ) {
            let mut wheel = Wheel::new(16, 7);
            let mut waiting = Vec::new();
            for (step, inserted) in steps {
                for after in inserted {
                    let tick = wheel.tick() + after;
                    wheel.insert(tick, tick.max(wheel.tick() + 1));
                    waiting.push(tick.max(wheel.tick() + 1));
                }
                let first = waiting.iter().min().copied();
                prop_assert!(wheel.next() <= first && wheel.next().is_some() == first.is_some());
                let to = wheel.tick() + step;
                let mut due = Vec::new();
                wheel.advance(to, &mut due);
                due.sort_unstable();
                let mut expected: Vec<u64> =
                    waiting.extract_if(.., |tick| *tick <= to).collect();
                expected.sort_unstable();
                prop_assert_eq!(due, expected);
                prop_assert_eq!((wheel.tick(), wheel.len), (to, waiting.len()));
            }
        }
    }
}
