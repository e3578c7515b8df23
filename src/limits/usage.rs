//! What one connection has used up of its rates.
//! # Invariants: a connection that has used up nothing of late owns no memory for it.
//! # Not here: the rates, and what becomes of who comes too often (`session`).

use super::rate::Spent;
use std::time::Duration;

/// What one connection has used up. Most connections are idle, so it is one word until it is needed.
#[derive(Debug, Default)]
pub struct Usage(Option<Box<Account>>);

/// What has been used up of each rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Of publishes.
    pub publishes: Spent,
    /// Of what these were delivered to.
    pub deliveries: Spent,
    /// Of topics that began.
    pub new_topics: Spent,
    /// Of subscriptions that began or changed.
    pub subscribes: Spent,
    /// Of control frames.
    pub controls: Spent,
}

impl Usage {
    /// What has been used up, to be changed.
    pub fn account(&mut self) -> &mut Account {
        self.0.get_or_insert_default()
    }

    /// What has been used up.
    pub fn seen(&self) -> Account {
        self.0.as_deref().copied().unwrap_or_default()
    }

    /// Whether anything was used that has not been forgiven.
    pub fn is_used(&self) -> bool {
        self.0.is_some()
    }

    /// Lets go of the memory if all is as if nothing had ever been used.
    pub fn forgive(&mut self, uptime: Duration) {
        if self.0.as_ref().is_some_and(|account| account.is_whole(uptime)) {
            self.0 = None;
        }
    }
}

impl Account {
    fn is_whole(&self, uptime: Duration) -> bool {
        let Account { publishes, deliveries, new_topics, subscribes, controls } = self;
        [publishes, deliveries, new_topics, subscribes, controls]
            .iter()
            .all(|spent| spent.is_whole(uptime))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::rate::Rate;

    #[test]
    fn usage_is_a_word_and_owns_nothing_once_all_is_made_up_for() {
        assert_eq!(size_of::<Usage>(), size_of::<usize>());
        let (rate, second) = (Rate::new(1, 2), Duration::from_secs(1));
        let mut usage = Usage::default();
        assert_eq!(usage.account().controls.take(rate, second), Ok(()));
        usage.forgive(second);
        assert!(usage.0.is_some(), "it has still to be made up for");
        usage.forgive(2 * second);
        assert!(usage.0.is_none());
        assert!(usage.seen().is_whole(Duration::ZERO));
    }
}
