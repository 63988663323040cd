//! From the domain to the words that the packet path reads: member records and directory keys. It must not know the published
//! state.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use maglev_common::backend::{MemberRecord, MemberState, NextHop};
use maglev_common::encap::Encap;
use maglev_common::pod::Word;
use maglev_common::table::PoolIndex;
use maglev_common::vip::{Key4, Key6, VipId, VipWord};

use crate::{Echo, OuterSources, PacketSettings, Service, Unserved};

/// The bits of an IPv4 outer source that vary by flow, if its prefix leaves them free. More are never used, even with a shorter prefix: 65,536 sources are enough to distinguish flows.
const MOST_HOST_BITS: Ipv4Addr = Ipv4Addr::new(0, 0, 255, 255);

/// The record of a living member.
///
/// A family without an outer source gets the unspecified address; services with such backends are refused earlier.
pub fn member_record(pool: PoolIndex, backend: IpAddr, outer: &OuterSources, next_hop: NextHop) -> MemberRecord {
    let (destination, source, mask, family, checksum) = match backend {
        IpAddr::V4(to) => {
            let net = outer.v4.unwrap_or_default();
            let checksum = partial_checksum(net.network(), to);
            let mask = words4(net.hostmask() & MOST_HOST_BITS);
            (words4(to), words4(net.network()), mask, Encap::IpIp4, checksum)
        }
        IpAddr::V6(to) => {
            let net = outer.v6.unwrap_or_default();
            (words6(to), words6(net.network()), words6(net.hostmask()), Encap::IpIp6, 0)
        }
    };
    MemberRecord {
        next_hop: Word::new(next_hop.0),
        state: Word::new(MemberState::alive(pool, family, checksum).with_path_mtu(next_hop.1).0),
        destination: destination.map(Word::new),
        source: source.map(Word::new),
        source_hash_mask: mask.map(Word::new),
    }
}

/// The constant part of the outer IPv4 header's checksum (RFC 1071), as [`MemberState`] documents it.
fn partial_checksum(source: Ipv4Addr, destination: Ipv4Addr) -> u16 {
    const VERSION_IHL_TOS: [u8; 2] = [0x45, 0];
    const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
    const TTL_PROTOCOL: [u8; 2] = [64, 0];
    let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
    let words = [VERSION_IHL_TOS, DONT_FRAGMENT, TTL_PROTOCOL, [a, b], [c, d], [e, f], [g, h]];
    let mut sum: u32 = words.into_iter().map(|word| u32::from(u16::from_le_bytes(word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The contents of the IPv4 and the IPv6 directory.
pub type Directories = (Vec<(Key4, VipWord)>, Vec<(Key6, VipWord)>);

/// A VIP as the directories have it.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// The packets it takes.
    pub service: Service,
    /// Its number.
    pub id: VipId,
    /// The pool that serves it.
    pub pool: PoolIndex,
    /// The handling of its packets while its pool has no backend.
    pub when_empty: Unserved,
    /// Whether its pool has a backend that takes new flows.
    pub is_serving: bool,
}

/// The contents of both families' directories: each VIP's key, and each VIP address marked as in use. Sorted by
/// service, so the same VIPs give the same directories.
pub fn directories(vips: impl IntoIterator<Item = Listed>, packets: PacketSettings) -> Directories {
    let mut vips: Vec<_> = vips.into_iter().collect();
    vips.sort_unstable_by_key(|vip| vip.service);
    let (mut keys4, mut keys6) = (Vec::new(), Vec::new());
    let mut add = |address: IpAddr, port: u16, protocol: u8, word: VipWord| match address {
        IpAddr::V4(address) => keys4.push((Key4::new(word4(address), port, protocol), word)),
        IpAddr::V6(address) => keys6.push((Key6::new(words6(address), port, protocol), word)),
    };
    for Listed { service: Service { address, port, protocol }, id, pool, when_empty, is_serving: _ } in &vips {
        let port = port.map_or(0, |port| u16::from_le_bytes(port.get().to_be_bytes()));
        add(*address, port, protocol.number(), VipWord::vip(*id, *pool).with_unserved(*when_empty));
    }
    let PacketSettings { unknown_port, echo } = packets;
    let mut addresses = BTreeMap::<_, bool>::new();
    for vip in &vips {
        *addresses.entry(vip.service.address).or_default() |= vip.is_serving;
    }
    for (address, is_serving) in addresses {
        let word = VipWord::ADDRESS_IN_USE.with_unserved(unknown_port);
        let is_silent = match echo {
            Echo::Always => false,
            Echo::Serving => !is_serving,
            Echo::Off => true,
        };
        add(address, 0, 0, if is_silent { word.silent() } else { word });
    }
    (keys4, keys6)
}

fn word4(address: Ipv4Addr) -> u32 {
    u32::from_le_bytes(address.octets())
}

fn words4(address: Ipv4Addr) -> [u64; 2] {
    [u64::from(word4(address)), 0]
}

fn words6(address: Ipv6Addr) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
    [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]].map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outer() -> OuterSources {
        OuterSources { v4: Some("10.64.11.0/24".parse().unwrap()), v6: Some("2001:db8::7/128".parse().unwrap()) }
    }

    #[test]
    fn addresses_stand_as_on_the_wire() {
        let record = member_record(PoolIndex(3), "10.0.1.11".parse().unwrap(), &outer(), NextHop::UNRESOLVED);
        assert_eq!(record.destination[0].get().to_le_bytes(), [10, 0, 1, 11, 0, 0, 0, 0]);
        assert_eq!(record.source[0].get().to_le_bytes(), [10, 64, 11, 0, 0, 0, 0, 0]);
        assert_eq!(record.source_hash_mask[0].get().to_le_bytes(), [0, 0, 0, 255, 0, 0, 0, 0]);
        assert!(record.state().serves(PoolIndex(3)));
        let record = member_record(PoolIndex(3), "2001:db8::1".parse().unwrap(), &outer(), NextHop::UNRESOLVED);
        assert_eq!(record.destination[0].get().to_le_bytes(), [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0]);
        assert_eq!(record.destination[1].get().to_le_bytes(), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(record.state().partial_checksum(), 0);
        assert_eq!(record.source_hash_mask, <[Word; 2]>::default());
    }

    fn vip(address: &str, port: &str, id: u16) -> Listed {
        let service = Service::parse(address, port, "tcp").unwrap();
        Listed { service, id: VipId(id), pool: PoolIndex(id), when_empty: Unserved::Drop, is_serving: false }
    }

    #[test]
    fn words_say_how_packets_are_handled_without_a_backend_and_of_echo_requests() {
        let resetting = Listed { when_empty: Unserved::Reset, ..vip("203.0.113.1", "443", 2) };
        let serving = Listed { is_serving: true, ..vip("203.0.113.1", "80", 1) };
        let word_of = |vips: &[Listed], unknown_port, echo, port: u16| {
            let (keys, _) = directories(vips.iter().copied(), PacketSettings { unknown_port, echo });
            let key = Key4::new(u32::from_le_bytes([203, 0, 113, 1]), port.swap_bytes(), if port == 0 { 0 } else { 6 });
            let word = keys.iter().find(|(found, _)| *found == key).unwrap().1;
            (word.unserved(), word.is_silent())
        };
        let (drop, reset) = (Unserved::Drop, Unserved::Reset);
        let both = [resetting, serving];
        for (vips, unknown_port, echo, port, expected) in [
            (&both[..], drop, Echo::Always, 443, (reset, false)),
            (&both, drop, Echo::Always, 80, (drop, false)),
            (&both, drop, Echo::Always, 0, (drop, false)),
            (&both, reset, Echo::Off, 80, (drop, false)),
            (&both, reset, Echo::Off, 0, (reset, true)),
            (&both, drop, Echo::Serving, 0, (drop, false)),
            (&both[..1], drop, Echo::Serving, 0, (drop, true)),
            (&both[..1], drop, Echo::Always, 0, (drop, false)),
        ] {
            assert_eq!(word_of(vips, unknown_port, echo, port), expected, "{unknown_port:?} {echo:?} {port}");
        }
    }

    #[test]
    fn a_directory_names_each_vip_and_marks_each_address_once() {
        let vips = [vip("203.0.113.1", "443", 2), vip("203.0.113.1", "any", 1), vip("2001:db8::1", "80", 0)];
        let (keys4, keys6) = directories(vips, PacketSettings::default());
        let address = u32::from_le_bytes([203, 0, 113, 1]);
        assert_eq!(keys4.len(), 3);
        assert!(keys4.contains(&(Key4::new(address, 443_u16.swap_bytes(), 6), VipWord::vip(VipId(2), PoolIndex(2)))));
        assert!(keys4.contains(&(Key4::new(address, 0, 6), VipWord::vip(VipId(1), PoolIndex(1)))));
        assert!(keys4.contains(&(Key4::new(address, 0, 0), VipWord::ADDRESS_IN_USE)));
        assert_eq!(keys6.len(), 2);
    }

    proptest! {
        /// The partial sum, completed as the packet path does it, makes a header that verifies (RFC 1071).
        #[test]
        fn a_completed_checksum_verifies(to in any::<[u8; 4]>(), host in any::<u8>(), length in 40_u16..1600, tos in any::<u8>(), protocol in prop_oneof![Just(4_u8), Just(41)]) {
            let record = member_record(PoolIndex(0), IpAddr::from(to), &outer(), NextHop::UNRESOLVED);
            let [l0, l1] = length.to_be_bytes();
            let le = |a: u8, b: u8| u32::from(u16::from_le_bytes([a, b]));
            let mut sum = record.state().partial_checksum() + le(0, tos) + le(l0, l1) + le(0, protocol) + le(0, host);
            while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16); }
            let [c0, c1] = (!(sum as u16)).to_le_bytes();
            let header = [0x45, tos, l0, l1, 0, 0, 0x40, 0, 64, protocol, c0, c1, 10, 64, 11, host, to[0], to[1], to[2], to[3]];
            let mut sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
            while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16); }
            prop_assert_eq!(sum, 0xffff);
        }
    }
}
