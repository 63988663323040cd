//! Decapsulation over whole packets, and its round trip with the load balancer's encapsulation.

use std::vec::Vec;

use etherparse::{Ipv4Header, Ipv4HeaderSlice, PacketBuilder};
use proptest::prelude::*;

use super::*;
use crate::fixtures::VecPacket;
use crate::testing::FakeDecap;

mod gue;

const NODE4: [u8; 4] = [10, 64, 11, 77];
const BACKEND4: [u8; 4] = [10, 0, 1, 11];
const NODE6: [u8; 16] = [0xfd, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const BACKEND6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

const CLIENT4: [u8; 4] = [198, 51, 100, 7];
const VIP4: [u8; 4] = [203, 0, 113, 10];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x51, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 1, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

fn backend() -> FakeDecap {
    let words = |address: [u8; 16]| [0, 8].map(|n| u64::from_le_bytes(address[n..n + 8].try_into().unwrap()));
    FakeDecap {
        sources4: [u32::from_le_bytes(NODE4)].into(),
        sources6: [words(NODE6)].into(),
        vips4: [u32::from_le_bytes(VIP4)].into(),
        vips6: [words(VIP6)].into(),
        ..FakeDecap::default()
    }
}

/// A packet as the client sent it, IP header first.
fn inner(v6: bool, traffic_class: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if v6 {
        let mut ip = etherparse::Ipv6Header { source: CLIENT6, destination: VIP6, ..Default::default() };
        ip.traffic_class = traffic_class;
        ip.hop_limit = 60;
        let headers = etherparse::IpHeaders::Ipv6(ip, etherparse::Ipv6Extensions::default());
        PacketBuilder::ip(headers).tcp(40_000, 80, 1, 64_000).write(&mut bytes, b"hello").unwrap();
    } else {
        let mut ip = Ipv4Header::new(0, 60, etherparse::IpNumber::TCP, CLIENT4, VIP4).unwrap();
        ip.dscp = (traffic_class >> 2).try_into().unwrap();
        ip.ecn = (traffic_class & 3).try_into().unwrap();
        let headers = etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default());
        PacketBuilder::ip(headers).tcp(40_000, 80, 1, 64_000).write(&mut bytes, b"hello").unwrap();
    }
    bytes
}

/// An inner packet in an outer header.
fn wrap(inner: &[u8], outer_v6: bool, traffic_class: u8) -> Vec<u8> {
    wrap_in(if inner[0] >> 4 == 4 { 4 } else { 41 }, inner, outer_v6, traffic_class)
}

/// The payload of a protocol in an outer header.
fn wrap_in(protocol: u8, payload: &[u8], outer_v6: bool, traffic_class: u8) -> Vec<u8> {
    let protocol = etherparse::IpNumber(protocol);
    let mut bytes = [&[2, 0, 0, 0, 0, 9][..], &[2, 0, 0, 0, 0, 1]].concat();
    if outer_v6 {
        bytes.extend([0x86, 0xdd]);
        let header = etherparse::Ipv6Header {
            traffic_class,
            payload_length: payload.len() as u16,
            next_header: protocol,
            hop_limit: 64,
            source: NODE6,
            destination: BACKEND6,
            ..Default::default()
        };
        bytes.extend(header.to_bytes());
    } else {
        bytes.extend([8, 0]);
        let mut header = Ipv4Header::new(payload.len() as u16, 64, protocol, NODE4, BACKEND4).unwrap();
        header.dscp = (traffic_class >> 2).try_into().unwrap();
        header.ecn = (traffic_class & 3).try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        bytes.extend(header.to_bytes());
    }
    bytes.extend(payload);
    bytes
}

fn run(bytes: &[u8]) -> (Verdict, DecapCounter, Vec<u8>) {
    let tables = backend();
    let mut packet = VecPacket::new(bytes);
    let verdict = decapsulate(&mut packet, &tables);
    (verdict, tables.last.get().expect("every packet is counted"), packet.bytes)
}

#[test]
fn all_four_combinations_of_families_come_out_as_the_client_sent_them() {
    for (inner_v6, outer_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let sent = inner(inner_v6, 0x28);
        let (verdict, counter, bytes) = run(&wrap(&sent, outer_v6, 0x28));
        assert_eq!((verdict, counter), (Verdict::Pass, DecapCounter::Decapsulated));
        let ether_type = if inner_v6 { [0x86, 0xdd] } else { [8, 0] };
        assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[12..14], ether_type);
        assert_eq!(bytes[14..], sent);
    }
}

/// RFC 6040, figure 4: rows are the inner field, columns the outer one; `None` is a drop.
#[test]
fn ecn_is_combined_as_rfc_6040_says() {
    const NOT: u8 = 0;
    const ECT1: u8 = 1;
    const ECT0: u8 = 2;
    const CE: u8 = 3;
    let figure = [
        (NOT, [(NOT, Some(NOT)), (ECT0, Some(NOT)), (ECT1, Some(NOT)), (CE, None)]),
        (ECT0, [(NOT, Some(ECT0)), (ECT0, Some(ECT0)), (ECT1, Some(ECT1)), (CE, Some(CE))]),
        (ECT1, [(NOT, Some(ECT1)), (ECT0, Some(ECT1)), (ECT1, Some(ECT1)), (CE, Some(CE))]),
        (CE, [(NOT, Some(CE)), (ECT0, Some(CE)), (ECT1, Some(CE)), (CE, Some(CE))]),
    ];
    for v6 in [false, true] {
        for (inner_ecn, row) in figure {
            for (outer_ecn, expected) in row {
                // The DSCP fields differ: the inner one must stay.
                let (verdict, counter, bytes) = run(&wrap(&inner(v6, 0x28 | inner_ecn), false, 0xb8 | outer_ecn));
                let Some(expected) = expected else {
                    assert_eq!((verdict, counter), (Verdict::Drop, DecapCounter::Congestion));
                    continue;
                };
                assert_eq!(bytes[14..], inner(v6, 0x28 | expected), "inner {inner_ecn}, outer {outer_ecn}");
            }
        }
    }
}

#[test]
fn only_the_load_balancers_are_believed() {
    let mut packet = wrap(&inner(false, 0), false, 0);
    packet[29] ^= 1;
    assert_eq!(run(&packet), (Verdict::Pass, DecapCounter::ForeignSource, packet));
    let mut packet = wrap(&inner(false, 0), true, 0);
    packet[37] ^= 1;
    assert_eq!(run(&packet), (Verdict::Pass, DecapCounter::ForeignSource, packet));
}

#[test]
fn what_is_not_encapsulated_passes_untouched() {
    let plain = [&[0; 12][..], &[8, 0], &inner(false, 0)].concat();
    for packet in [plain, [0; 60].to_vec(), Vec::new()] {
        assert_eq!(run(&packet), (Verdict::Pass, DecapCounter::NotEncapsulated, packet));
    }
}

#[test]
fn broken_tunnels_are_dropped() {
    type Change = fn(&mut Vec<u8>);
    let rows: &[(&str, Change, DecapCounter)] = &[
        ("an outer fragment", |p| p[20] = 0x20, DecapCounter::Fragment),
        ("outer options", |p| p[14] = 0x46, DecapCounter::Malformed),
        ("an outer length beyond the frame", |p| p[16] = 0xff, DecapCounter::Malformed),
        ("an inner version that is not the protocol's", |p| p[34] = 0x65, DecapCounter::Malformed),
        ("an inner header cut short", |p| p.truncate(50), DecapCounter::Malformed),
    ];
    for (what, change, reason) in rows {
        let mut packet = wrap(&inner(false, 0), false, 0);
        change(&mut packet);
        let (verdict, counter, bytes) = run(&packet);
        assert_eq!((verdict, counter), (Verdict::Drop, *reason), "{what}");
        assert_eq!(bytes, packet, "{what}");
    }
}

/// An inner packet that was changed, in an outer header that was made for it, of both families.
fn changed(v6: bool, change: impl Fn(&mut Vec<u8>)) -> [(Verdict, DecapCounter); 2] {
    let mut bytes = inner(v6, 0);
    change(&mut bytes);
    [false, true].map(|outer_v6| {
        let packet = wrap(&bytes, outer_v6, 0);
        let (verdict, counter, after) = run(&packet);
        assert!(verdict == Verdict::Pass || after == packet, "what is dropped is not changed");
        (verdict, counter)
    })
}

/// Replaces protocol and payload of an inner packet, and makes its length right.
fn carry(bytes: &mut Vec<u8>, protocol: u8, payload: &[u8]) {
    if bytes[0] >> 4 == 4 {
        bytes.truncate(20);
        bytes[9] = protocol;
        bytes[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    } else {
        bytes.truncate(40);
        bytes[6] = protocol;
        bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    bytes.extend(payload);
}

#[test]
fn inner_lengths_agree_with_the_outer_one() {
    type Change = fn(&mut Vec<u8>);
    let rows: &[(&str, bool, Change)] = &[
        ("a total length beyond the outer payload", false, |p| p[3] += 1),
        ("a total length short of the outer payload", false, |p| p[3] -= 1),
        ("a total length of nothing", false, |p| p[2..4].fill(0)),
        ("a header longer than the packet", false, |p| {
            carry(p, 6, b"");
            p[0] = 0x46;
        }),
        ("a header shorter than a header", false, |p| p[0] = 0x44),
        ("a packet shorter than a header", false, |p| p.truncate(19)),
        ("no packet", false, |p| p.truncate(1)),
        ("a payload length beyond the outer payload", true, |p| p[5] += 1),
        ("a payload length short of the outer payload", true, |p| p[5] -= 1),
        ("a payload length of nothing", true, |p| p[4..6].fill(0)),
        ("bytes behind an IPv4 packet", false, |p| p.push(0)),
        ("bytes behind an IPv6 packet", true, |p| p.push(0)),
        ("ICMP without a type", false, |p| carry(p, 1, b"")),
        ("ICMPv6 without a type", true, |p| carry(p, 58, b"")),
    ];
    for (what, v6, change) in rows {
        assert_eq!(changed(*v6, change), [(Verdict::Drop, DecapCounter::Malformed); 2], "{what}");
    }
    // A switch pads short frames behind the outer packet.
    let mut padded = wrap(&inner(false, 0), false, 0);
    padded.extend([0; 18]);
    assert_eq!(run(&padded).1, DecapCounter::Decapsulated);
}

#[test]
fn an_outer_packet_shorter_than_the_inner_header_is_malformed() {
    // As found: the inner total length of 27 lies within the frame and beyond the outer payload of 19.
    let found = [
        0x02, 0, 0, 0, 3, 2, 2, 0, 0, 0, 3, 1, 8, 0, 0x45, 0x8b, 0, 0x27, 0, 0, 0x40, 0, 0x40, 4, 0x1a, 0x9d, 10, 64,
        11, 0x5f, 10, 3, 0, 2, 0x45, 0xae, 0, 0x1b, 0xe4, 0x69, 0x40, 0, 0x44, 6, 0x58, 0xba, 0xbd, 0xa5, 1, 0x37,
        0x4e, 0xb4, 0xeb, 0x7a, 0x1e, 0x40, 0xe2, 0x64, 0xaf, 0x19, 0x77,
    ];
    let tables = FakeDecap {
        sources4: [u32::from_le_bytes([10, 64, 11, 0x5f])].into(),
        vips4: [u32::from_le_bytes([0x4e, 0xb4, 0xeb, 0x7a])].into(),
        ..FakeDecap::default()
    };
    assert_eq!(decapsulate(&mut VecPacket::new(&found), &tables), Verdict::Drop);
    assert_eq!(tables.last.get(), Some(DecapCounter::Malformed));
}

#[test]
fn only_packets_for_a_vip_come_out() {
    let dropped = [(Verdict::Drop, DecapCounter::ForeignDestination); 2];
    for to in [
        [203, 0, 113, 11],
        [10, 0, 1, 11],
        [224, 0, 0, 1],
        [255, 255, 255, 255],
        [127, 0, 0, 1],
        [0, 0, 0, 0],
        [169, 254, 1, 1],
    ] {
        assert_eq!(changed(false, |p| p[16..20].copy_from_slice(&to)), dropped, "{to:?}");
    }
    for to in ["2001:db8:113::11", "ff02::1", "fe80::1", "::1", "::", "::ffff:203.0.113.10"] {
        let to: std::net::Ipv6Addr = to.parse().unwrap();
        assert_eq!(changed(true, |p| p[24..40].copy_from_slice(&to.octets())), dropped, "{to}");
    }
    // Whatever the protocol.
    let passed = [(Verdict::Pass, DecapCounter::Decapsulated); 2];
    for protocol in [1, 6, 17, 47, 50, 132] {
        assert_eq!(changed(false, |p| carry(p, protocol, &[8; 8])), passed, "{protocol}");
    }
    for protocol in [6, 17, 44, 58, 60] {
        assert_eq!(changed(true, |p| carry(p, protocol, &[128; 8])), passed, "{protocol}");
    }
}

#[test]
fn what_configures_hosts_never_comes_out_even_if_it_is_for_a_vip() {
    let dropped = [(Verdict::Drop, DecapCounter::NeighborDiscovery); 2];
    for kind in 133..=137 {
        assert_eq!(changed(true, |p| carry(p, 58, &[kind, 0, 0, 0, 0, 0, 0, 0])), dropped, "ICMPv6 {kind}");
    }
    for header in [0, 43, 44, 51, 60, 135] {
        let hidden = |p: &mut Vec<u8>| {
            carry(p, header, &[58, 0, 0, 0, 0, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0]);
            p[7] = 255;
        };
        assert_eq!(changed(true, hidden), dropped, "behind {header}");
    }
    for kind in [5, 9, 10] {
        assert_eq!(changed(false, |p| carry(p, 1, &[kind, 0, 0, 0, 0, 0, 0, 0])), dropped, "ICMP {kind}");
        // Behind options, and in a first fragment.
        let optional = |p: &mut Vec<u8>| {
            carry(p, 1, &[1, 1, 1, 1, kind, 0, 0, 0]);
            (p[0], p[6]) = (0x46, 0x20);
        };
        assert_eq!(changed(false, optional), dropped, "ICMP {kind} behind options");
    }
}

#[test]
fn impossible_sources_do_not_come_out() {
    let dropped = [(Verdict::Drop, DecapCounter::ImpossibleSource); 2];
    for from in [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [169, 254, 1, 1],
        [224, 0, 0, 1],
        [239, 9, 9, 9],
        [240, 0, 0, 1],
        [255; 4],
        VIP4,
    ] {
        assert_eq!(changed(false, |p| p[12..16].copy_from_slice(&from)), dropped, "{from:?}");
    }
    for from in ["::", "::1", "::203.0.113.1", "::ffff:203.0.113.1", "ff02::1", "ff0e::7", "fe80::bad", "febf::1"] {
        let from: std::net::Ipv6Addr = from.parse().unwrap();
        assert_eq!(changed(true, |p| p[8..24].copy_from_slice(&from.octets())), dropped, "{from}");
    }
    assert_eq!(changed(true, |p| p[8..24].copy_from_slice(&VIP6)), dropped, "the destination");
    let passed = [(Verdict::Pass, DecapCounter::Decapsulated); 2];
    for from in [[1, 0, 0, 1], [126, 9, 9, 9], [128, 0, 0, 1], [169, 253, 1, 1], [223, 255, 255, 254]] {
        assert_eq!(changed(false, |p| p[12..16].copy_from_slice(&from)), passed, "{from:?}");
    }
    for from in ["64:ff9b::1", "fec0::1", "fd00::1", "fe00::1", "::1:0:0:0:1"] {
        let from: std::net::Ipv6Addr = from.parse().unwrap();
        assert_eq!(changed(true, |p| p[8..24].copy_from_slice(&from.octets())), passed, "{from}");
    }
}

proptest! {
    #[test]
    fn any_bytes_behind_a_tunnel_are_survived(
        noise in prop::collection::vec(any::<u8>(), 0..100),
        keep in 0_usize..90,
        outer_v6 in any::<bool>(),
        inner_v6 in any::<bool>(),
    ) {
        let mut packet = wrap(&inner(inner_v6, 1), outer_v6, 3);
        packet.truncate(keep);
        packet.extend(noise);
        let (verdict, counter, bytes) = run(&packet);
        let shorter = if outer_v6 { 40 } else { 20 };
        match counter {
            DecapCounter::Decapsulated => prop_assert_eq!(bytes.len() + shorter, packet.len()),
            _ => prop_assert_eq!(bytes, packet),
        }
        prop_assert_eq!(verdict == Verdict::Drop, counter.outcome() == Outcome::Dropped);
    }

    #[test]
    fn an_adjusted_checksum_is_the_computed_one(class in any::<u8>(), outer in any::<u8>()) {
        let (_, counter, bytes) = run(&wrap(&inner(false, class), false, outer));
        if counter == DecapCounter::Decapsulated {
            let header = Ipv4HeaderSlice::from_slice(&bytes[14..]).unwrap().to_header();
            prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
        }
    }
}
