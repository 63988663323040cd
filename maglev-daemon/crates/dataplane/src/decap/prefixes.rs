//! Prefixes as the backend's program looks them up, and how a trie is updated. It must not know interfaces.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapError};
use ipnet::{IpNet, Ipv4Net};
use maglev_common::maps as names;
pub use maglev_model::can_be_vips;

use crate::error::DataplaneError;
use crate::object::Loaded;

/// Prefixes, and whether an address is accepted that is of none longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes(BTreeMap<IpNet, bool>);

impl Prefixes {
    /// All of these.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        Self(prefixes.into_iter().map(|prefix| (prefix, true)).collect())
    }

    /// The addresses that can be VIPs, among those that the host owns by its loopback device. The last address of an IPv4 prefix
    /// there is a broadcast address.
    pub fn from_loopback(held: impl IntoIterator<Item = IpNet>) -> Self {
        let held: Vec<_> = held.into_iter().filter(|&prefix| can_be_vips(prefix)).collect();
        let broadcast = |prefix: &IpNet| match prefix {
            IpNet::V4(prefix) if prefix.prefix_len() < 31 => Some(Ipv4Net::from(prefix.broadcast()).into()),
            _ => None,
        };
        let mut all: BTreeMap<_, _> = held.iter().filter_map(broadcast).map(|address| (address, false)).collect();
        all.extend(held.into_iter().map(|prefix| (prefix, true)));
        Self(all)
    }

    /// Whether no address is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The prefixes that are accepted.
    pub fn accepted(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().filter(|(_, accepts)| **accepts).map(|(prefix, _)| *prefix)
    }

    fn v4(&self) -> BTreeMap<(u32, [u8; 4]), u32> {
        let of = |(prefix, accepts): (&IpNet, &bool)| match prefix {
            IpNet::V4(prefix) => Some(((prefix.prefix_len().into(), prefix.network().octets()), u32::from(*accepts))),
            IpNet::V6(_) => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    fn v6(&self) -> BTreeMap<(u32, [u8; 16]), u32> {
        let of = |(prefix, accepts): (&IpNet, &bool)| match prefix {
            IpNet::V6(prefix) => Some(((prefix.prefix_len().into(), prefix.network().octets()), u32::from(*accepts))),
            IpNet::V4(_) => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    /// Makes the tries of both families hold these, and nothing else. What is in both, before and after, is accepted all the
    /// time.
    pub(crate) fn write(&self, ebpf: &mut Loaded, [v4, v6]: [&'static str; 2]) -> Result<(), DataplaneError> {
        replace(ebpf.map_mut(v4)?, &self.v4()).map_err(|error| DataplaneError::map(v4, "update", &error))?;
        replace(ebpf.map_mut(v6)?, &self.v6()).map_err(|error| DataplaneError::map(v6, "update", &error))
    }
}

/// The first prefixes of each family that there is room for, and how many there is none for.
pub fn within_limit(prefixes: Prefixes) -> (Prefixes, usize) {
    let most = names::MAX_DECAP_VIPS as usize;
    let (mut v4, mut v6, mut left) = (0, 0, 0);
    let mut kept = prefixes;
    kept.0.retain(|prefix, accepts| {
        let count = if prefix.addr().is_ipv4() { &mut v4 } else { &mut v6 };
        *count += usize::from(*accepts);
        left += usize::from(*count > most && *accepts);
        *count <= most || !*accepts
    });
    (kept, left)
}

/// Makes a trie hold these, and nothing else.
fn replace<const N: usize>(map: &mut Map, wanted: &BTreeMap<(u32, [u8; N]), u32>) -> Result<(), MapError> {
    let mut trie = LpmTrie::<_, [u8; N], u32>::try_from(map)?;
    let mut present = BTreeMap::new();
    for entry in &trie {
        let (key, value) = entry?;
        present.insert((key.prefix_len(), key.data()), value);
    }
    for (&(length, data), value) in wanted.iter().filter(|(key, value)| present.get(key) != Some(value)) {
        trie.insert(&Key::new(length, data), value, 0)?;
    }
    for &(length, data) in present.keys().filter(|key| !wanted.contains_key(key)) {
        trie.remove(&Key::new(length, data))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn vips_are_what_can_be_reached_from_beyond_a_link() {
        let held =
            nets(&["127.0.0.0/8", "::1/128", "fe80::1/128", "169.254.1.1/32", "203.0.113.10/32", "2001:db8::10/128"]);
        let vips = Prefixes::from_loopback(held);
        assert_eq!(vips.accepted().collect::<Vec<_>>(), nets(&["203.0.113.10/32", "2001:db8::10/128"]));
        assert!(Prefixes::from_loopback(nets(&["127.0.0.0/8", "::1/128"])).is_empty());
    }

    #[test]
    fn a_prefix_on_loopback_has_a_broadcast_address_that_is_no_vip() {
        let vips = Prefixes::from_loopback(nets(&["203.0.113.0/24", "198.51.100.0/31"]));
        assert_eq!(vips.0.get(&nets(&["203.0.113.255/32"])[0]), Some(&false));
        assert_eq!(vips.0.len(), 3);
        assert_eq!(vips.accepted().count(), 2);
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        let many = (0..names::MAX_DECAP_VIPS + 3)
            .map(|n| IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from((10 << 24) + n))));
        let (kept, left) = within_limit(Prefixes::new(many.chain(nets(&["2001:db8::/64"]))));
        assert_eq!((kept.accepted().count(), left), (names::MAX_DECAP_VIPS as usize + 1, 3));
    }
}
