//! Bugs that can be planted, so that the simulator can show that it would find them.
//! Owns their names; each stands in one condition at the place where somebody could make it.
//! # Invariants: without the feature `planted-bugs` no bug is ever there, and the compiler takes
//! the conditions away; an optimized build refuses the feature.
//! # Not here: what finds them (`tests/sim`, `tests/long`).

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("bugs are planted for tests only: build without `planted-bugs`");

macro_rules! bugs {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])+ $name,)+
        }

        impl Bug {
            /// Every bug there is.
            pub const ALL: &[Bug] = &[$(Bug::$name),+];
        }
    };
}

bugs! {
    /// A seam tells the place before the latest one.
    SeamOffByOne,
    /// A resume sends what history still holds and calls that all.
    HoleRecovered,
    /// A resume compares offsets of different epochs.
    EpochIgnored,
    /// A full mailbox is left out, where the publish should be refused.
    FullMailboxSkipped,
    /// A join does not drain the mailbox under the topic's lock.
    InboxNotDrained,
    /// The answer to an idempotency key is not kept.
    KeyForgotten,
    /// A key that was used for another message answers with that one's place.
    KeyShared,
    /// A topic that begins anew has the epoch that it had before.
    EpochReused,
    /// A publish is refused after it was taken.
    RefusedYetKept,
    /// Topics do not notice a new filter.
    FilterUnnoticed,
    /// A message in an empty mailbox wakes nobody.
    WakeLost,
    /// History holds one message less than it says.
    HistoryTooShort,
    /// A gap is not told.
    GapUntold,
    /// A gap ends one offset early.
    GapTooShort,
    /// A message comes once for each subscription that matches.
    DeliveredTwice,
    /// A connection meets a topic through a filter without its position.
    PositionUntold,
    /// Closing a slow connection gives up a frame that was begun.
    BegunFrameCut,
    /// What a turn has for a connection leaves in reverse.
    ChainReversed,
    /// A block of frames serves connections of every wire.
    BlockOfAnotherWire,
    /// The last subscriber ends a shard's interest while another one joins.
    InterestLost,
    /// A filter is given what waited in the mailbox from before.
    StaleMailbox,
    /// A position that does not fit is left out, and its message is not.
    PositionParted,
    /// A gap is told after the subscriptions have changed.
    GapToldLate,
    /// The head of a batch counts one byte too few.
    BatchMiscounted,
    /// A batch that a socket took in part loses its last frame.
    BatchCut,
    /// The answer that promises batches is one already.
    BatchesEarly,
    /// The gaps of a topic that began anew are told in any order.
    GapsUnordered,
    /// Nobody waits for a socket that takes no bytes.
    PumpForgotten,
    /// A connection that has caught up still counts as blocked.
    BlockedForEver,
    /// A member that takes the place of one who left is not told.
    MovedUntold,
    /// An unsubscribe is answered and not done.
    StaysSubscribed,
    /// An unsubscribe is done and not answered.
    UnsubscribeUnanswered,
    /// A delete is passed over for a later message of its key.
    DeleteConflated,
    /// A rate allows twice as much as it says.
    RateExceeded,
    /// What a rate held back is forgotten when its time comes.
    TrailingLost,
    /// History has gone past a connection that catches up, and it is not told.
    LapUntold,
    /// A message is sent though its time is over.
    ExpiredSent,
    /// A message whose time is over is left out and not told.
    ExpiredUntold,
    /// An update is answered and not done.
    UpdateIgnored,
    /// What was passed over under the old terms is forgotten when they change.
    UpdateForgets,
    /// A rate holds back after the first message of a subscription only.
    RateForgotten,
    /// A rule's cap is told and does not apply.
    CapIgnored,
    /// Of two filters the one that gives less counts.
    WeakestFilter,
    /// The message that begins a conflation is not part of it.
    ConflationLate,
    /// A conflation leaves out the first message behind its cursor.
    ConflationOffByOne,
    /// A cursor that one serving was not enough for ends.
    CursorDropped,
    /// The cursors of a connection that goes stay.
    CursorsLeft,
    /// Who wants to catch up is told a gap.
    CatchUpRefused,
    /// What is left of an old epoch comes behind the position of the new one.
    EpochsMixed,
    /// A queue takes whatever comes.
    QueueUnbounded,
    /// The slowest are closed when new connections should be refused.
    ShedEarly,
    /// Publishers are refused when queues should be dropped.
    PublishersFirst,
    /// A delete does not end its key.
    DeletedKept,
    /// One key more than the rule says has room.
    KeysOverfilled,
    /// Who watches is not told that a member has left.
    LeftUntold,
    /// A connection that goes stays a member.
    MemberStays,
    /// A departure that had no room in a mailbox is not told later.
    ExitForgotten,
    /// Who was too slow for the changes is not told who is there.
    AttendanceUntold,
    /// A quiet topic is not told as stale.
    StaleUntold,
    /// A topic that is heard of again is not told as fresh.
    FreshUntold,
    /// A topic is stale in half the time.
    StaleEarly,
}

#[cfg(feature = "planted-bugs")]
mod plot {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = Cell::new(named());
    }

    /// The bug that the environment plants in every thread of a process: `FANFARE_PLANTED=WakeLost`.
    fn named() -> Option<Bug> {
        let name = std::env::var("FANFARE_PLANTED").ok()?;
        Bug::ALL.iter().copied().find(|bug| format!("{bug:?}") == name)
    }

    /// Plants a bug in this thread, or takes it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is planted in this thread.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use plot::{is, plant};

/// Whether this bug is planted: it is not.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
pub const fn is(_: Bug) -> bool {
    false
}
