//! What a subscriber asks for and what it is granted: how often, and what happens when it is slow.
//! # Invariants: a rate is within its bounds; a capped policy never gives more than was asked for.
//! # Not here: keeping to the terms (`shard`), which topic has which cap (`rule`).

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// Which of a topic's messages a subscription gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Every message.
    #[default]
    All,
    /// Every message while the connection takes them, else only the latest of each key.
    Latest,
    /// As [`Policy::Latest`], and each topic at most so often: the first message at once, the last
    /// one always.
    MaxHz(Rate),
}

impl Policy {
    /// What is granted to who asks for this where a rule allows `cap`.
    #[must_use]
    pub fn capped(self, cap: Option<Policy>) -> Policy {
        match (self, cap) {
            (Policy::All, Some(cap)) => cap,
            (Policy::Latest, Some(Policy::MaxHz(rate))) => Policy::MaxHz(rate),
            (Policy::MaxHz(asked), Some(Policy::MaxHz(rate))) => Policy::MaxHz(asked.min(rate)),
            (asked, _) => asked,
        }
    }

    /// Whether messages may be passed over for later ones of the same key.
    pub fn conflates(self) -> bool {
        !matches!(self, Policy::All)
    }

    /// The policy as the JSON spelling and the metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Policy::All => "all",
            Policy::Latest => "latest",
            Policy::MaxHz(_) => "maxHz",
        }
    }

    /// How much of a topic this gives: of two policies the larger one gives more.
    pub fn reach(self) -> u32 {
        match self {
            Policy::All => u32::MAX,
            Policy::Latest => u32::MAX - 1,
            Policy::MaxHz(rate) => rate.millihertz(),
        }
    }
}

/// How often a topic is sent, in steps of a thousandth of a hertz, from 0.01 to 1,000 a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(NonZeroU32);

impl Rate {
    /// The slowest rate, in hertz: one message in 100 seconds.
    pub const MIN_HZ: f64 = 0.01;
    /// The fastest rate, in hertz: the pace wheel counts milliseconds.
    pub const MAX_HZ: f64 = 1_000.0;

    /// The rate of so many hertz, rounded to a thousandth.
    ///
    /// # Errors
    /// [`BadRate`] for what is not from 0.01 to 1,000.
    pub fn from_hz(hz: f64) -> Result<Rate, BadRate> {
        if !(Rate::MIN_HZ..=Rate::MAX_HZ).contains(&hz) {
            return Err(BadRate);
        }
        // Within the bounds the product is from 10 to 1,000,000.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        let millihertz = (hz * 1_000.0).round() as u32;
        NonZeroU32::new(millihertz).map(Rate).ok_or(BadRate)
    }

    /// The rate in hertz.
    pub fn hz(self) -> f64 {
        f64::from(self.0.get()) / 1_000.0
    }

    /// The rate in thousandths of a hertz.
    pub fn millihertz(self) -> u32 {
        self.0.get()
    }

    /// The shortest time from one sending to the next, rounded up to a millisecond.
    pub fn interval(self) -> Duration {
        Duration::from_millis(u64::from(1_000_000_u32.div_ceil(self.0.get())))
    }
}

/// As a person writes it: `10`, `0.5`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.hz())
    }
}

/// The number is not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number from {} to {} per second", Rate::MIN_HZ, Rate::MAX_HZ)]
pub struct BadRate;

/// What happens when a subscriber of every message falls behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Leave live, read the topic's history at the client's pace, and come back. Where the topic
    /// keeps no history, or no longer holds what is missing, as [`Overflow::Gap`].
    #[default]
    CatchUp,
    /// Drop, tell it in one gap event, go on.
    Gap,
    /// Close the connection with [`Reason::SlowConsumer`](crate::reason::Reason::SlowConsumer).
    Disconnect,
}

impl Overflow {
    /// The word as the JSON spelling and the configuration write it.
    pub fn name(self) -> &'static str {
        match self {
            Overflow::CatchUp => "catchUp",
            Overflow::Gap => "gap",
            Overflow::Disconnect => "disconnect",
        }
    }
}

/// The terms of one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Which messages it gets.
    pub policy: Policy,
    /// What happens when it falls behind; `None` leaves it to the topic's rule. Only matters to
    /// [`Policy::All`]: the others fall behind by passing over.
    pub overflow: Option<Overflow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hz(hz: f64) -> Policy {
        Policy::MaxHz(Rate::from_hz(hz).expect("a rate"))
    }

    #[test]
    fn what_is_not_a_rate_is_refused() {
        let bad = [0.0, -0.0, -1.0, 0.009, 1_000.1, 1e300, f64::NAN, f64::INFINITY, f64::MIN];
        for number in bad {
            assert_eq!(Rate::from_hz(number), Err(BadRate), "{number}");
        }
        for (number, written, ms) in
            [(0.01, "0.01", 100_000), (3.0, "3", 334), (1_000.0, "1000", 1)]
        {
            let rate = Rate::from_hz(number).expect("a rate");
            assert_eq!((rate.to_string().as_str(), rate.interval().as_millis()), (written, ms));
        }
    }

    #[test]
    fn a_cap_never_gives_more_than_was_asked_for() {
        let policies = [Policy::All, Policy::Latest, hz(100.0), hz(10.0), hz(0.5)];
        for (asked, wanted) in policies.iter().enumerate() {
            assert_eq!(wanted.capped(None), *wanted);
            for (allowed, cap) in policies.iter().enumerate() {
                assert_eq!(wanted.capped(Some(*cap)), policies[asked.max(allowed)]);
            }
        }
        assert!(policies.is_sorted_by_key(|policy| std::cmp::Reverse(policy.reach())));
    }
}
