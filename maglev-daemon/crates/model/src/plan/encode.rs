//! From the domain to the words that the packet path reads: member records and directory keys. It must not know the published
//! state.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use maglev_common::backend::{MemberRecord, MemberState, NextHop};
use maglev_common::encap::{Encap, EncapKind};
use maglev_common::pod::Word;
use maglev_common::table::PoolIndex;
use maglev_common::vip::{Contents, Key, Key4, Key6, Rule, VipId, VipWord};

use crate::{Affinity, Echo, OuterSources, PacketSettings, Ports, Service, Unserved};

/// The bits of an IPv4 outer source that vary by flow, if its prefix leaves them free. More are never used, even with a shorter prefix: 65,536 sources are enough to distinguish flows.
const MOST_HOST_BITS: Ipv4Addr = Ipv4Addr::new(0, 0, 255, 255);

/// The record of a living member whose packets are encapsulated so.
///
/// A family without an outer source gets the unspecified address; services with such backends are refused earlier.
pub fn member_record(
    pool: PoolIndex,
    backend: IpAddr,
    kind: EncapKind,
    outer: &OuterSources,
    next_hop: NextHop,
) -> MemberRecord {
    let encap = Encap::new(kind, backend.is_ipv6());
    let (destination, source, mask, checksum) = match backend {
        IpAddr::V4(to) => {
            let net = outer.v4.unwrap_or_default();
            let checksum = partial_checksum(net.network(), to);
            let mask = words4(net.hostmask() & MOST_HOST_BITS);
            (words4(to), words4(net.network()), mask, checksum)
        }
        IpAddr::V6(to) => {
            let net = outer.v6.unwrap_or_default();
            (words6(to), words6(net.network()), words6(net.hostmask()), 0)
        }
    };
    MemberRecord {
        next_hop: Word::new(next_hop.0),
        state: Word::new(MemberState::alive(pool, encap, checksum).with_path_mtu(next_hop.1).0),
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
pub type Directories = (Contents<Key4>, Contents<Key6>);

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
    /// By what its flows find their slots.
    pub affinity: Affinity,
    /// Whether its pool has a backend that takes new flows.
    pub is_serving: bool,
}

impl Listed {
    fn word(&self) -> VipWord {
        let bits = self.affinity.source_bits(self.service.network);
        VipWord::vip(self.id, self.pool).with_unserved(self.when_empty).by_source(bits)
    }

    /// Whether a key of its own leads to it: one address, one port, and nothing to be done that the shortest path cannot do.
    fn has_key(&self) -> bool {
        self.service.is_single() && self.affinity == Affinity::FiveTuple
    }

    fn rule(&self) -> Rule {
        let Service { ports, protocol, network: _ } = self.service;
        let (first, last) = match ports {
            Ports::Any => (0, u16::MAX),
            Ports::Range { first, last } => (first.get(), last.get()),
        };
        Rule::new(first, last, protocol.number())
    }
}

/// The contents of both families' directories: the key of each VIP with one address and one port, and each address and prefix of a VIP
/// with the rules of all others that it is in, the most specific first. Sorted by service, so the same VIPs give the same directories.
pub fn directories(vips: impl IntoIterator<Item = Listed>, packets: PacketSettings) -> Directories {
    let mut vips: Vec<_> = vips.into_iter().collect();
    vips.sort_unstable_by_key(|vip| vip.service);
    let (mut four, mut six) = Directories::default();
    for vip in vips.iter().filter(|vip| vip.has_key()) {
        let port = vip.service.ports.single().map_or(0, |port| port.get().swap_bytes());
        let protocol = vip.service.protocol.number();
        match vip.service.address() {
            IpAddr::V4(address) => four.keys.push((Key4::new(word4(address), port, protocol), vip.word())),
            IpAddr::V6(address) => six.keys.push((Key6::new(words6(address), port, protocol), vip.word())),
        }
    }
    let networks: BTreeSet<_> = vips.iter().map(|vip| vip.service.network).collect();
    for network in networks {
        let (rules, mark) = (rules_of(network, &vips), mark_of(network, &vips, packets));
        let length = network.prefix_len();
        match network {
            IpNet::V4(network) => {
                let key = Key4::new(word4(network.network()), 0, 0);
                add_network(&mut four, if length == 32 { key } else { key.prefix(length) }, rules, mark);
            }
            IpNet::V6(network) => {
                let key = Key6::new(words6(network.network()), 0, 0);
                add_network(&mut six, if length == 128 { key } else { key.prefix(length) }, rules, mark);
            }
        }
        let lengths = if network.addr().is_ipv4() { &mut four.lengths } else { &mut six.lengths };
        if length < network.max_prefix_len() && !lengths.contains(&length) {
            lengths.push(length);
            lengths.sort_unstable_by_key(|&length| Reverse(length));
        }
    }
    (four, six)
}

/// The rules of an address or prefix: of the VIPs that it is in, but for those with one address, to which keys lead.
fn rules_of(network: IpNet, vips: &[Listed]) -> Vec<(Rule, VipWord)> {
    let mut around: Vec<_> =
        vips.iter().filter(|vip| vip.service.network.contains(&network) && !vip.has_key()).collect();
    around.sort_by_key(|vip| Reverse(vip.service.specificity()));
    around.into_iter().map(|vip| (vip.rule(), vip.word())).collect()
}

/// The word of an address or prefix without rules: the handling of packets to ports that no VIP has, and whether pings are answered.
fn mark_of(network: IpNet, vips: &[Listed], PacketSettings { unknown_port, echo }: PacketSettings) -> VipWord {
    let word = VipWord::ADDRESS_IN_USE.with_unserved(unknown_port);
    let is_serving = || vips.iter().any(|vip| vip.is_serving && vip.service.network.contains(&network));
    let is_silent = match echo {
        Echo::Always => false,
        Echo::Serving => !is_serving(),
        Echo::Off => true,
    };
    if is_silent { word.silent() } else { word }
}

fn add_network<K>(contents: &mut Contents<K>, key: K, rules: Vec<(Rule, VipWord)>, mark: VipWord) {
    let first = if rules.is_empty() { 0 } else { contents.rules.len() };
    contents.keys.push((key, mark.with_rules(first as u16, rules.len() as u16)));
    contents.rules.extend(rules);
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
    use ipnet::Ipv4Net;
    use maglev_common::vip::{Annex, Directory, Index};
    use proptest::prelude::*;
    use zerocopy::FromZeros as _;

    use super::*;

    fn outer() -> OuterSources {
        OuterSources { v4: Some("10.64.11.0/24".parse().unwrap()), v6: Some("2001:db8::7/128".parse().unwrap()) }
    }

    fn record_of(backend: &str, kind: EncapKind) -> MemberRecord {
        member_record(PoolIndex(3), backend.parse().unwrap(), kind, &outer(), NextHop::UNRESOLVED)
    }

    #[test]
    fn the_kind_of_encapsulation_is_the_pools_and_the_family_the_backends() {
        for (kind, backend, encap) in [
            (EncapKind::IpIp, "10.0.1.11", Encap::IpIp4),
            (EncapKind::IpIp, "2001:db8::1", Encap::IpIp6),
            (EncapKind::Gue, "10.0.1.11", Encap::Gue4),
            (EncapKind::Gue, "2001:db8::1", Encap::Gue6),
        ] {
            let written = record_of(backend, kind);
            assert_eq!(written.state().encap(), encap);
            written.set_encap_kind(EncapKind::IpIp);
            assert_eq!(written, record_of(backend, EncapKind::IpIp), "nothing else depends on it");
        }
    }

    #[test]
    fn addresses_stand_as_on_the_wire() {
        let record = record_of("10.0.1.11", EncapKind::IpIp);
        assert_eq!(record.destination[0].get().to_le_bytes(), [10, 0, 1, 11, 0, 0, 0, 0]);
        assert_eq!(record.source[0].get().to_le_bytes(), [10, 64, 11, 0, 0, 0, 0, 0]);
        assert_eq!(record.source_hash_mask[0].get().to_le_bytes(), [0, 0, 0, 255, 0, 0, 0, 0]);
        assert!(record.state().serves(PoolIndex(3)));
        let record = record_of("2001:db8::1", EncapKind::IpIp);
        assert_eq!(record.destination[0].get().to_le_bytes(), [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0]);
        assert_eq!(record.destination[1].get().to_le_bytes(), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(record.state().partial_checksum(), 0);
        assert_eq!(record.source_hash_mask, <[Word; 2]>::default());
    }

    fn vip(network: &str, ports: &str, protocol: &str, id: u16) -> Listed {
        let service = Service::parse(network, ports, protocol).unwrap();
        Listed {
            service,
            id: VipId(id),
            pool: PoolIndex(id),
            when_empty: Unserved::Drop,
            affinity: Affinity::FiveTuple,
            is_serving: false,
        }
    }

    #[test]
    fn words_say_how_packets_are_handled_without_a_backend_and_of_echo_requests() {
        let resetting = Listed { when_empty: Unserved::Reset, ..vip("203.0.113.1", "443", "tcp", 2) };
        let serving = Listed { is_serving: true, ..vip("203.0.113.1", "80", "tcp", 1) };
        let word_of = |vips: &[Listed], unknown_port, echo, port: u16| {
            let (four, _) = directories(vips.iter().copied(), PacketSettings { unknown_port, echo });
            let key = Key4::new(u32::from_le_bytes([203, 0, 113, 1]), port.swap_bytes(), if port == 0 { 0 } else { 6 });
            let word = four.keys.iter().find(|(found, _)| *found == key).unwrap().1;
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
        let vips = [
            vip("203.0.113.1", "443", "tcp", 2),
            vip("203.0.113.1", "any", "tcp", 1),
            vip("2001:db8::1", "80", "tcp", 0),
        ];
        let (four, six) = directories(vips, PacketSettings::default());
        let address = u32::from_le_bytes([203, 0, 113, 1]);
        let exact = (Key4::new(address, 443_u16.swap_bytes(), 6), VipWord::vip(VipId(2), PoolIndex(2)));
        assert_eq!(four.keys, [exact, (Key4::new(address, 0, 0), VipWord::address(0, 1))]);
        assert_eq!(four.rules, [(Rule::new(0, u16::MAX, 6), VipWord::vip(VipId(1), PoolIndex(1)))]);
        assert_eq!((six.keys.len(), six.rules.len(), six.keys[1].1), (2, 0, VipWord::ADDRESS_IN_USE));
    }

    /// The VIP that a directory leads a packet to.
    fn found(contents: &Contents<Key4>, address: Ipv4Addr, port: u16, protocol: u8) -> Option<VipId> {
        let (mut directory, mut annexes) =
            (Directory::new_box_zeroed().unwrap(), <[Annex; 2]>::new_box_zeroed().unwrap());
        let word = directory.build(&mut annexes[0], 0, contents).unwrap();
        let index = Index { directory: &directory, annexes: &annexes, word };
        let key = Key4::new(word4(address), port.swap_bytes(), protocol);
        let exact = index.find(key);
        let word = if exact.is_present() { exact } else { index.find_by_rules(key) };
        (word.is_present() && !word.is_address()).then(|| word.id())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the VIPs, a packet is led to the most specific one that takes it.
        #[test]
        fn the_most_specific_vip_gets_a_packet(
            services in prop::collection::btree_set(
                (0_u32..8, 28_u8..=32, prop_oneof![Just("any"), Just("80"), Just("80-89"), Just("84-86")], prop_oneof![Just("tcp"), Just("udp"), Just("any")]),
                1..12,
            ),
            packets in prop::collection::vec((0_u32..8, 78_u16..92, prop_oneof![Just(6_u8), Just(17), Just(47)]), 40),
        ) {
            let address = |n: u32| Ipv4Addr::from_bits(0xcb00_7100 | n);
            let services: BTreeSet<_> = services.into_iter().filter_map(|(n, length, ports, protocol)| {
                let ports = if protocol == "any" { "any" } else { ports };
                let network = Ipv4Net::new(address(n), length).unwrap().trunc();
                Service::parse(&network.to_string(), ports, protocol).ok()
            }).collect();
            let listed: Vec<_> = services.iter().zip(0..).map(|(service, id)| Listed { service: *service, id: VipId(id), pool: PoolIndex(id), when_empty: Unserved::Drop, affinity: if id % 3 == 0 { Affinity::Prefix(24) } else { Affinity::FiveTuple }, is_serving: true }).collect();
            let (four, _) = directories(listed.iter().copied(), PacketSettings::default());
            for (n, port, protocol) in packets {
                let port = if protocol == 47 { 0 } else { port };
                let takes = |vip: &&Listed| {
                    let Service { network, ports, protocol: wanted } = vip.service;
                    let in_range = match ports { Ports::Any => true, Ports::Range { first, last } => (first.get()..=last.get()).contains(&port) };
                    network.contains(&IpAddr::from(address(n))) && in_range && [0, protocol].contains(&wanted.number())
                };
                let expected = listed.iter().filter(takes).max_by_key(|vip| vip.service.specificity()).map(|vip| vip.id);
                prop_assert_eq!(found(&four, address(n), port, protocol), expected, "{}:{} of {:?}", address(n), port, services);
            }
        }
    }

    proptest! {
        /// The partial sum, completed as the packet path does it, makes a header that verifies (RFC 1071).
        #[test]
        fn a_completed_checksum_verifies(to in any::<[u8; 4]>(), host in any::<u8>(), length in 40_u16..1600, tos in any::<u8>(), protocol in prop_oneof![Just(4_u8), Just(41), Just(17)]) {
            let record = member_record(PoolIndex(0), IpAddr::from(to), EncapKind::Gue, &outer(), NextHop::UNRESOLVED);
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
