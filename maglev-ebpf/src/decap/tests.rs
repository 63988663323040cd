//! Decapsulation over whole packets, and its round trip with the load balancer's encapsulation.

use std::vec::Vec;

use etherparse::{Ipv4Header, Ipv4HeaderSlice, PacketBuilder};
use proptest::prelude::*;

use super::*;
use crate::fixtures::VecPacket;
use crate::testing::FakeDecap;

const NODE4: [u8; 4] = [10, 64, 11, 77];
const BACKEND4: [u8; 4] = [10, 0, 1, 11];
const NODE6: [u8; 16] = [0xfd, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const BACKEND6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

fn backend() -> FakeDecap {
    let node6 = [0, 8].map(|n| u64::from_le_bytes(NODE6[n..n + 8].try_into().unwrap()));
    FakeDecap { sources4: [u32::from_le_bytes(NODE4)].into(), sources6: [node6].into(), ..FakeDecap::default() }
}

/// A packet as the client sent it, IP header first.
fn inner(v6: bool, traffic_class: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if v6 {
        let mut ip = etherparse::Ipv6Header { source: [1; 16], destination: [2; 16], ..Default::default() };
        ip.traffic_class = traffic_class;
        ip.hop_limit = 60;
        let headers = etherparse::IpHeaders::Ipv6(ip, etherparse::Ipv6Extensions::default());
        PacketBuilder::ip(headers).tcp(40_000, 80, 1, 64_000).write(&mut bytes, b"hello").unwrap();
    } else {
        let mut ip = Ipv4Header::new(0, 60, etherparse::IpNumber::TCP, [198, 51, 100, 7], [203, 0, 113, 10]).unwrap();
        ip.dscp = (traffic_class >> 2).try_into().unwrap();
        ip.ecn = (traffic_class & 3).try_into().unwrap();
        let headers = etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default());
        PacketBuilder::ip(headers).tcp(40_000, 80, 1, 64_000).write(&mut bytes, b"hello").unwrap();
    }
    bytes
}

/// An inner packet in an outer header.
fn wrap(inner: &[u8], outer_v6: bool, traffic_class: u8) -> Vec<u8> {
    let protocol = etherparse::IpNumber(if inner[0] >> 4 == 4 { 4 } else { 41 });
    let mut bytes = [&[2, 0, 0, 0, 0, 9][..], &[2, 0, 0, 0, 0, 1]].concat();
    if outer_v6 {
        bytes.extend([0x86, 0xdd]);
        let header = etherparse::Ipv6Header {
            traffic_class,
            payload_length: inner.len() as u16,
            next_header: protocol,
            hop_limit: 64,
            source: NODE6,
            destination: BACKEND6,
            ..Default::default()
        };
        bytes.extend(header.to_bytes());
    } else {
        bytes.extend([8, 0]);
        let mut header = Ipv4Header::new(inner.len() as u16, 64, protocol, NODE4, BACKEND4).unwrap();
        header.dscp = (traffic_class >> 2).try_into().unwrap();
        header.ecn = (traffic_class & 3).try_into().unwrap();
        header.header_checksum = header.calc_header_checksum();
        bytes.extend(header.to_bytes());
    }
    bytes.extend(inner);
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
