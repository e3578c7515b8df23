//! Who is behind a proxy: the networks whose word counts, and what they say in X-Forwarded-For.
//! # Invariants: nobody is believed who is not in the list; the hop that counts is the last one that
//! a trusted proxy saw with its own eyes, so what a client writes in front of it changes nothing.
//! # Not here: the PROXY protocol (`proxy`).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Hops that are looked at, from the right: no chain of proxies is as long.
const HOPS_MAX: usize = 16;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is an address, or an address and a number of bits such as 10.0.0.0/8")]
pub struct BadNetwork;

impl Network {
    /// Whether an address is in it; `::ffff:10.0.0.1` is 10.0.0.1 in other clothes.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Network, BadNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or(BadNetwork)?
            }
            Some(_) => return Err(BadNetwork),
        };
        Ok(Network { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = if self.address.is_ipv4() { 32 } else { 128 };
        match self.bits {
            bits if bits == most => write!(f, "{}", self.address),
            bits => write!(f, "{}/{bits}", self.address),
        }
    }
}

/// Whether the word of a peer counts.
pub fn is_trusted(trusted: &[Network], peer: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(peer))
}

/// Who is at the other end: `peer`, unless that is a trusted proxy and says for whom it speaks.
/// `values` are those of all X-Forwarded-For headers, in their order.
pub fn client<'a>(
    peer: IpAddr,
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[Network],
) -> IpAddr {
    let mut client = peer;
    let hops = values.rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    for hop in hops.take(HOPS_MAX) {
        if !is_trusted(trusted, client) {
            break;
        }
        // Beyond what cannot be read nobody can be believed.
        let Some(address) = read(hop) else { break };
        client = address;
    }
    client.to_canonical()
}

/// An address, perhaps with a port, as proxies write it.
fn read(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    if let Ok(address) = hop.parse() {
        return Some(address);
    }
    let with_port: Option<std::net::SocketAddr> = hop.parse().ok();
    let bare = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    with_port.map(|address| address.ip()).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_has_the_addresses_with_its_bits() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::/32", "2001:db8:1::", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::1", "::1", true),
        ];
        for (network, address, expected) in cases {
            let contains = networks(&[network])[0].contains(ip(address));
            assert_eq!(contains, expected, "{address} in {network}");
            assert_eq!(networks(&[network])[0].to_string(), network);
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "::/129", "host", "10/8"] {
            assert_eq!(bad.parse::<Network>(), Err(BadNetwork), "{bad}");
        }
    }

    #[test]
    fn the_last_hop_that_no_trusted_proxy_is_counts() {
        let trusted = networks(&["10.0.0.0/8", "2001:db8::/32"]);
        #[rustfmt::skip]
        let cases: [(&str, &[&str], &str); 13] = [
            ("192.0.2.9", &["198.51.100.1"], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.1", "198.51.100.1 ,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db9::1]:4711"], "2001:db9::1"),
            ("10.0.0.1", &["[2001:db9::1]"], "2001:db9::1"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, 10.0.0.2, "], "10.0.0.1"),
            ("2001:db8::1", &["::ffff:198.51.100.1"], "198.51.100.1"),
        ];
        for (peer, headers, expected) in cases {
            let values = headers.iter().map(|value| value.as_bytes());
            assert_eq!(client(ip(peer), values, &trusted), ip(expected), "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_writes_in_front_changes_nothing(
            forged in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
            real in any::<u32>(),
            proxies in prop::collection::vec(any::<[u8; 3]>(), 0..6),
        ) {
            let trusted = networks(&["10.0.0.0/8"]);
            let real = IpAddr::from(real.to_be_bytes());
            prop_assume!(!is_trusted(&trusted, real));
            // Each proxy adds the one that it heard of.
            let mut value = vec![real.to_string()];
            value.extend(proxies.iter().map(|[a, b, c]| format!("10.{a}.{b}.{c}")));
            let value = value.join(", ").into_bytes();
            // A client's own header, or the front of the one that the first proxy goes on writing.
            let mut headers = forged.clone();
            headers.push([forged.concat(), b",".to_vec(), value].concat());
            let values = headers.iter().map(Vec::as_slice);
            prop_assert_eq!(client(ip("10.0.0.1"), values, &trusted), real);
        }

        #[test]
        fn a_peer_that_is_not_trusted_is_itself(
            peer in any::<[u8; 16]>(),
            value in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let peer = IpAddr::from(peer);
            let told = client(peer, std::iter::once(value.as_slice()), &[]);
            prop_assert_eq!(told, peer.to_canonical());
        }
    }
}
