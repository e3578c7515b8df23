//! What those have used up of their rates who come with one request at a time, and each perhaps on a
//! connection of its own.
//! # Invariants: however many there are, the table is bounded; whoever finds no room in it shares one
//! account with all others who find none.
//! # Not here: who is one (`http`), the rates (`session`).

use super::usage::Usage;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

/// Accounts that are kept; each costs some 80 bytes.
const ACCOUNTS_MAX: usize = 4_096;

/// A full table is looked through for accounts to close no more often than this.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Accounts of one shard: whoever has requests on several shards has as many accounts. Peers choose
/// who they are, so the standard library's keyed hash it is, and only it is kept: a name may be long.
#[derive(Debug, Default)]
pub struct Accounts {
    of: HashMap<u64, Usage>,
    /// Of all who find no room.
    common: Usage,
    /// When the full table is looked through again.
    next_sweep: Duration,
}

/// Somebody who has an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(u64);

impl Accounts {
    /// Whose account it is.
    pub fn holder(&self, who: &impl Hash) -> Holder {
        Holder(self.of.hasher().hash_one(who))
    }

    /// What somebody has used up.
    pub fn of(&mut self, Holder(holder): Holder, uptime: Duration) -> &mut Usage {
        if !self.of.contains_key(&holder) && !self.has_room(uptime) {
            return &mut self.common;
        }
        self.of.entry(holder).or_default()
    }

    /// Whether there is room for one more, perhaps because others have made up for all they did.
    fn has_room(&mut self, uptime: Duration) -> bool {
        if self.of.len() >= ACCOUNTS_MAX && uptime >= self.next_sweep {
            self.next_sweep = uptime + SWEEP_INTERVAL;
            self.of.retain(|_, usage| {
                usage.forgive(uptime);
                usage.is_used()
            });
        }
        self.of.len() < ACCOUNTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::rate::Rate;

    const SECOND: Duration = Duration::from_secs(1);

    fn take(accounts: &mut Accounts, who: &str, uptime: Duration) -> bool {
        let holder = accounts.holder(&who);
        let rate = Rate::new(1, 2);
        accounts.of(holder, uptime).account().publishes.take(rate, uptime).is_ok()
    }

    #[test]
    fn each_has_an_account_of_their_own() {
        let mut accounts = Accounts::default();
        assert_eq!(accounts.holder(&"ann"), accounts.holder(&"ann"));
        for who in ["ann", "bob"] {
            let taken = [(); 3].map(|()| take(&mut accounts, who, SECOND));
            assert_eq!(taken, [true, true, false], "{who}");
        }
        assert!(take(&mut accounts, "ann", 2 * SECOND));
        assert!(!take(&mut accounts, "ann", 2 * SECOND));
    }

    #[test]
    fn a_full_table_has_one_account_for_all_others_until_somebody_is_whole_again() {
        let mut accounts = Accounts::default();
        for number in 0..ACCOUNTS_MAX {
            assert!(take(&mut accounts, &number.to_string(), SECOND));
        }
        let taken = ["x", "y", "z"].map(|who| take(&mut accounts, who, SECOND));
        assert_eq!(taken, [true, true, false], "strangers share two");
        assert!(take(&mut accounts, "7", SECOND), "who is known does not");
        assert_eq!(accounts.of.len(), ACCOUNTS_MAX);
        // All but one have made up for theirs.
        let taken = ["x", "y", "z"].map(|who| take(&mut accounts, who, 2 * SECOND));
        assert_eq!(taken, [true; 3]);
        assert_eq!(accounts.of.len(), 4);
    }
}
