//! SYNs noted, and their answers' options, byte for byte.

use std::vec;
use std::vec::Vec;

use etherparse::{Ipv4Header, PacketBuilder, TcpHeader, TcpOptionElement};
use maglev_common::counters::DecapCounter;
use maglev_common::pod::Word;
use maglev_common::syn::SYNS;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{CLIENT4, CLIENT6, NODE_MAC, ROUTER_MAC, VIP4, VIP6, VecPacket};
use crate::path::decap::decapsulate;
use crate::testing::{BACKEND4, BACKEND6, FakeDecap, SOURCE4, SOURCE6};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];

fn words(address: [u8; 16]) -> [u64; 2] {
    [0, 8].map(|n| u64::from_le_bytes(address[n..n + 8].try_into().unwrap()))
}

fn backend(mss: Mss, mtu: u32) -> FakeDecap {
    let mut syns = Vec::new();
    syns.resize_with(SYNS, Word::default);
    FakeDecap {
        sources4: [u32::from_le_bytes(SOURCE4)].into(),
        sources6: [words(SOURCE6)].into(),
        vips4: [u32::from_le_bytes(VIP4)].into(),
        vips6: [words(VIP6)].into(),
        mss,
        mtu,
        syns,
        ..FakeDecap::default()
    }
}

/// A segment with these options as they are, from client to VIP or back.
fn segment(v6: bool, from_client: bool, flags: u8, options: &[u8]) -> Vec<u8> {
    let (source, destination) = if from_client { (40_000, 80) } else { (80, 40_000) };
    let mut tcp = TcpHeader::new(source, destination, 1, 64_000);
    (tcp.fin, tcp.syn, tcp.rst) = (flags & 1 != 0, flags & SYN != 0, flags & 4 != 0);
    (tcp.ack, tcp.ece) = (flags & ACK != 0, flags & 0x40 != 0);
    tcp.set_options_raw(options).unwrap();
    let ethernet = PacketBuilder::ethernet2(ROUTER_MAC, NODE_MAC);
    let ip = match (v6, from_client) {
        (false, true) => ethernet.ipv4(CLIENT4, VIP4, 64),
        (false, false) => ethernet.ipv4(VIP4, CLIENT4, 64),
        (true, true) => ethernet.ipv6(CLIENT6, VIP6, 64),
        (true, false) => ethernet.ipv6(VIP6, CLIENT6, 64),
    };
    let mut bytes = Vec::new();
    ip.tcp_header(tcp).write(&mut bytes, &[]).unwrap();
    bytes
}

/// A client's frame in an outer header.
fn wrapped(frame: &[u8], outer_v6: bool) -> Vec<u8> {
    let inner = &frame[14..];
    let protocol = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let mut bytes = frame[..12].to_vec();
    if outer_v6 {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        bytes.extend((inner.len() as u16).to_be_bytes());
        bytes.extend([protocol, 64]);
        bytes.extend([SOURCE6, BACKEND6].concat());
    } else {
        bytes.extend([8, 0]);
        let header = Ipv4Header::new(inner.len() as u16, 64, etherparse::IpNumber(protocol), SOURCE4, BACKEND4);
        bytes.extend(header.unwrap().to_bytes());
    }
    bytes.extend(inner);
    bytes
}

fn unwrap(tables: &FakeDecap, frame: &[u8], outer_v6: bool) {
    decapsulate(&mut VecPacket::new(&wrapped(frame, outer_v6)), tables);
    assert_eq!(tables.last.get(), Some(DecapCounter::Decapsulated));
}

/// A segment as it leaves: by the change as the kernel makes it, if any.
fn leave(tables: &FakeDecap, frame: &[u8]) -> (Vec<u8>, bool) {
    let packet = VecPacket::new(frame);
    let mut bytes = packet.bytes.clone();
    let Some(change) = lower(&packet, tables) else { return (bytes, false) };
    assert_eq!(bytes[change.at..][..2], change.old.to_be_bytes());
    bytes[change.at..][..2].copy_from_slice(&change.new.to_be_bytes());
    let (old, new) = change.summed();
    let sum = u16::from_ne_bytes(bytes[change.checksum..][..2].try_into().unwrap());
    let sum = crate::packet::checksum::replaced(sum, old, new);
    bytes[change.checksum..][..2].copy_from_slice(&sum.to_ne_bytes());
    (bytes, true)
}

/// The MSS that a backend's answer of 1,460 leaves with.
fn announced(tables: &FakeDecap, v6: bool) -> u16 {
    let answer = segment(v6, false, SYN | ACK, &MSS_1460);
    let (bytes, _) = leave(tables, &answer);
    let value: [u8; 2] = bytes[bytes.len() - 2..].try_into().unwrap();
    assert_eq!(bytes, segment(v6, false, SYN | ACK, &[&MSS_1460[..2], &value].concat()), "the checksum is right");
    u16::from_be_bytes(value)
}

#[test]
fn auto_leaves_room_for_the_longest_outer_header_of_the_syns_family() {
    for (outer_v6, mtu, expected) in [
        (false, 1_500, [1_428, 1_408]),
        (true, 1_500, [1_408, 1_388]),
        (false, 1_600, [1_460; 2]),
        (true, 1_280, [1_188, 1_168]),
        (false, 68, [88; 2]),
    ] {
        for (v6, expected) in [false, true].into_iter().zip(expected) {
            let tables = backend(Mss::Auto, mtu);
            unwrap(&tables, &segment(v6, true, SYN, &MSS_1460), outer_v6);
            assert_eq!(announced(&tables, v6), expected, "IPv6 {v6} in IPv6 {outer_v6}, {mtu}");
        }
    }
}

#[test]
fn a_limit_is_ipv4s_and_packets_of_ipv6_are_as_long() {
    for (limit, expected) in [(1_400, [1_400, 1_380]), (536, [536, 516]), (65_495, [1_460; 2])] {
        for (v6, expected) in [false, true].into_iter().zip(expected) {
            let tables = backend(Mss::Limit(limit), 0);
            unwrap(&tables, &segment(v6, true, SYN, &[]), v6);
            assert_eq!(announced(&tables, v6), expected);
        }
    }
}

#[test]
fn only_the_answer_to_a_syn_that_came_encapsulated_is_changed() {
    for v6 in [false, true] {
        let tables = backend(Mss::Auto, 1_500);
        assert_eq!(announced(&tables, v6), 1_460, "no SYN came");
        // What is no SYN notes nothing.
        for flags in [ACK, SYN | ACK, SYN | 4, SYN | 1] {
            unwrap(&tables, &segment(v6, true, flags, &[]), false);
        }
        assert_eq!(announced(&tables, v6), 1_460);
        unwrap(&tables, &segment(v6, true, SYN | 0x40, &[]), false);
        assert_eq!(announced(&tables, !v6), 1_460, "another flow's");
        for (from_client, flags) in [(false, ACK), (false, SYN), (false, SYN | ACK | 4), (true, SYN | ACK)] {
            let other = segment(v6, from_client, flags, &MSS_1460);
            assert_eq!(leave(&tables, &other), (other, false));
        }
        assert!(announced(&tables, v6) < 1_460);
        tables.now.set(64);
        assert_eq!(announced(&tables, v6), 1_460, "answered no more");
    }
    let off = backend(Mss::Off, 1_500);
    unwrap(&off, &segment(false, true, SYN, &[]), false);
    assert!(off.syns.iter().all(|word| word.get() == 0));
}

#[test]
fn the_option_is_found_wherever_it_stands() {
    let tables = backend(Mss::Limit(1_000), 0);
    unwrap(&tables, &segment(false, true, SYN, &[]), false);
    let padded = |nops: usize| [&vec![1; nops][..], &MSS_1460, &vec![1; (36 - nops) % 4]].concat();
    for nops in 0..=36 {
        let lowered = |options: Vec<u8>| {
            let (bytes, changed) = leave(&tables, &segment(false, false, SYN | ACK, &options));
            let mut expected = options.clone();
            if let Some(at) = expected.windows(4).position(|four| four == MSS_1460) {
                expected[at + 2..at + 4].copy_from_slice(&1_000_u16.to_be_bytes());
            }
            assert_eq!(bytes, segment(false, false, SYN | ACK, &expected), "{nops}");
            changed
        };
        assert!(lowered(padded(nops)));
    }
    let other = [
        TcpOptionElement::SelectiveAcknowledgementPermitted,
        TcpOptionElement::Timestamp(1, 2),
        TcpOptionElement::Noop,
        TcpOptionElement::WindowScale(7),
        TcpOptionElement::MaximumSegmentSize(1_460),
    ];
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, NODE_MAC).ipv4(VIP4, CLIENT4, 64).tcp(80, 40_000, 1, 64_000);
    let mut bytes = Vec::new();
    builder.syn().ack(2).options(&other).unwrap().write(&mut bytes, &[]).unwrap();
    assert!(leave(&tables, &bytes).1);
}

#[test]
fn options_that_cannot_be_read_are_left() {
    let tables = backend(Mss::Limit(1_000), 0);
    unwrap(&tables, &segment(false, true, SYN, &[]), false);
    for options in [
        &[][..],
        &[0, 2, 4, 5, 0xb4, 0, 0, 0],
        &[2, 3, 5, 0xb4],
        &[8, 0, 2, 4, 5, 0xb4, 0, 0],
        &[8, 200, 2, 4, 5, 0xb4, 0, 0],
        &[1, 1, 1, 2],
        // Less than the limit already.
        &[2, 4, 1, 0],
    ] {
        let answer = segment(false, false, SYN | ACK, options);
        assert_eq!(leave(&tables, &answer), (answer, false), "{options:?}");
    }
    // A fragment, a header that says more than there is, and a packet that ends before its options do.
    let answer = segment(false, false, SYN | ACK, &MSS_1460);
    for (at, value) in [(20, 0x20), (21, 1), (14 + 20 + 12, 0x70), (17, 43)] {
        let mut bytes = answer.clone();
        bytes[at] = value;
        assert_eq!(leave(&tables, &bytes), (bytes, false), "{at}");
    }
    assert!(!leave(&tables, &answer[..answer.len() - 1]).1);
}

proptest! {
    #[test]
    fn any_answer_keeps_all_but_its_mss(bytes in prop::collection::vec(any::<u8>(), 0..80), keep in 14_usize..74) {
        let tables = backend(Mss::Limit(1_000), 0);
        unwrap(&tables, &segment(false, true, SYN, &[]), false);
        let mut frame = segment(false, false, SYN | ACK, &MSS_1460);
        frame.truncate(keep);
        frame.extend(&bytes);
        if let Some(change) = lower(&VecPacket::new(&frame), &tables) {
            prop_assert!(change.new < change.old && change.at + 2 <= frame.len() && change.at > change.checksum);
            prop_assert_eq!(&frame[change.at - 2..change.at], &[2, 4]);
        }
    }
}
