//! How often each address may connect, and how many connections it has.
//! # Invariants: an address costs memory only while it uses up its rate or has connections; however
//! many addresses there are, the table of rates is bounded, and forgets the oldest first.
//! # Not here: rates themselves (`limits`), what happens to whoever comes too often (`listen`).

use crate::limits::rate::{Rate, Spent};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Addresses whose rate is remembered; each costs some 60 bytes.
const ADDRESSES_MAX: usize = 65_536;

/// The part of an address that counts as one: an IPv4 address, or the /64 that one IPv6 customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Origin {
        Origin(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }
}

/// What is remembered of addresses. Peers choose theirs, so the standard library's keyed hash it is.
#[derive(Debug, Default)]
pub struct Addresses {
    spent: HashMap<Origin, Spent>,
    /// The addresses of `spent`, the oldest first.
    order: VecDeque<Origin>,
    /// Connections of each address, where they are counted: as many entries as connections at most.
    open: HashMap<Origin, usize>,
}

impl Addresses {
    /// Lets an address connect once, or not yet.
    pub fn may_connect(&mut self, address: Origin, rate: Rate, now: Duration) -> bool {
        if let Some(spent) = self.spent.get_mut(&address) {
            return spent.take(rate, now).is_ok();
        }
        self.make_room(now);
        let mut spent = Spent::default();
        let may = spent.take(rate, now).is_ok();
        self.spent.insert(address, spent);
        self.order.push_back(address);
        may
    }

    /// Forgets those whose rate is whole again, and the oldest if that is not enough.
    fn make_room(&mut self, now: Duration) {
        while let Some(oldest) = self.order.front() {
            let is_whole = self.spent.get(oldest).is_none_or(|spent| spent.is_whole(now));
            if !is_whole && self.order.len() < ADDRESSES_MAX {
                return;
            }
            self.spent.remove(oldest);
            self.order.pop_front();
        }
    }

    /// Counts a connection of an address, unless it has as many as it may have.
    pub fn open(&mut self, address: Origin, max: usize) -> bool {
        let count = self.open.entry(address).or_default();
        let may = *count < max;
        *count += usize::from(may);
        may
    }

    /// Counts a connection no longer.
    pub fn close(&mut self, address: Origin) {
        if let Some(count) = self.open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> Origin {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_address_is_one_of_ipv4_or_64_bits_of_ipv6() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().expect("an address"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(origin("192.0.2.1"), origin("::ffff:192.0.2.1"));
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:2"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let (mut addresses, rate) = (Addresses::default(), Rate::new(1, 1));
        let most = u32::try_from(ADDRESSES_MAX).expect("a number");
        for number in 0..most + 10 {
            assert!(addresses.may_connect(address(number), rate, ms(1)));
        }
        assert_eq!(addresses.spent.len(), ADDRESSES_MAX);
        assert_eq!(addresses.order.len(), ADDRESSES_MAX);
        assert!(!addresses.may_connect(address(most), rate, ms(1)), "it was just there");
        assert!(addresses.may_connect(address(0), rate, ms(1)), "it was the oldest");
        // Whoever may connect again is no longer worth remembering.
        assert!(addresses.may_connect(address(most + 50), rate, ms(10_000)));
        assert_eq!(addresses.spent.len(), 1);
    }

    #[test]
    fn connections_of_an_address_are_counted_up_and_down() {
        let mut addresses = Addresses::default();
        assert!(addresses.open(address(1), 2) && addresses.open(address(1), 2));
        assert!(!addresses.open(address(1), 2) && addresses.open(address(2), 2));
        addresses.close(address(1));
        assert!(addresses.open(address(1), 2));
        for number in [1, 1, 2] {
            addresses.close(address(number));
        }
        assert!(addresses.open.is_empty(), "an address without connections costs nothing");
    }
}
