//! The path over whole packets: what comes out, byte for byte, and what is counted. Packets are built and dissected by
//! another implementation.

use std::vec;
use std::vec::Vec;

use etherparse::{Ipv4Header, Ipv4HeaderSlice, Ipv6FlowLabel, Ipv6HeaderSlice, PacketBuilder};
use maglev_common::backend::{Family, InterfaceRecord, InterfaceSlot, MemberRecord, MemberState, NextHop};
use maglev_common::pod::Word;
use proptest::prelude::*;

use super::*;
use crate::testing::{FakePacket, FakeTables, POOL};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const HOP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const CLIENT4: [u8; 4] = [198, 51, 100, 7];
const VIP4: [u8; 4] = [203, 0, 113, 10];
const BACKEND4: [u8; 4] = [10, 0, 1, 11];
const SOURCE4: [u8; 4] = [10, 64, 11, 0];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
const BACKEND6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
const SOURCE6: [u8; 16] = [0xfd, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn words(bytes: [u8; 16]) -> [Word; 2] {
    let [low, high] = [0, 8].map(|n| u64::from_le_bytes(bytes[n..n + 8].try_into().unwrap()));
    [Word::new(low), Word::new(high)]
}

fn words4(bytes: [u8; 4]) -> [Word; 2] {
    [Word::new(u32::from_le_bytes(bytes).into()), Word::new(0)]
}

/// The sum over the constant words of the outer header, by the book.
fn partial_checksum(source: [u8; 4], destination: [u8; 4]) -> u16 {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 0, 0, 0];
    header.extend(source);
    header.extend(destination);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))).sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}

fn backend4() -> MemberRecord {
    let checksum = partial_checksum(SOURCE4, BACKEND4);
    MemberRecord {
        next_hop: Word::new(NextHop::new(HOP_MAC, InterfaceSlot(0)).0),
        state: Word::new(MemberState::alive(POOL, Family::V4, checksum).0),
        destination: words4(BACKEND4),
        source: words4(SOURCE4),
        source_hash_mask: words4([0, 0, 0, 255]),
    }
}

fn backend6() -> MemberRecord {
    let mut mask = [0; 16];
    mask[8..].fill(255);
    MemberRecord {
        next_hop: Word::new(NextHop::new(HOP_MAC, InterfaceSlot(0)).0),
        state: Word::new(MemberState::alive(POOL, Family::V6, 0).0),
        destination: words(BACKEND6),
        source: words(SOURCE6),
        source_hash_mask: words(mask),
    }
}

/// Tables that serve port 80 over TCP and UDP port 53 nowhere else, on both addresses.
fn tables(record: MemberRecord) -> FakeTables {
    let mut tables = FakeTables::with_members(1);
    tables.members[1] = record;
    tables.serve4(VIP4, 80, 6);
    tables.serve6(VIP6, 80, 6);
    tables
}

fn tcp4(payload: &[u8]) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 61, etherparse::IpNumber::TCP, CLIENT4, VIP4).unwrap();
    header.dscp = 10.try_into().unwrap();
    header.ecn = 2.try_into().unwrap();
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, NODE_MAC)
        .ip(etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()))
        .tcp(40_000, 80, 1, 64_000);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn tcp6(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, NODE_MAC).ipv6(CLIENT6, VIP6, 61).tcp(40_000, 80, 1, 64_000);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn udp4(destination: [u8; 4], port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, NODE_MAC).ipv4(CLIENT4, destination, 61).udp(40_000, port);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, b"query").unwrap();
    bytes
}

fn run(tables: &FakeTables, bytes: &[u8]) -> (Verdict, FakePacket) {
    let mut packet = FakePacket::new(bytes);
    let verdict = forward(&mut packet, tables);
    (verdict, packet)
}

/// What a packet that must come out unchanged is counted by.
fn refused(tables: &FakeTables, bytes: &[u8]) -> (Verdict, Counter) {
    let (verdict, packet) = run(tables, bytes);
    assert_eq!(packet.bytes, bytes, "a refused packet is left as it was");
    let counted = |counter: &&Counter| tables.counted(**counter) == 1;
    (verdict, *Counter::ALL.iter().find(counted).expect("something is counted"))
}

#[test]
fn an_outer_ipv4_header_is_correct_in_every_field() {
    for (inner, protocol) in [(tcp4(b"hello"), 4), (tcp6(b"hello"), 41)] {
        let tables = tables(backend4());
        let (verdict, packet) = run(&tables, &inner);
        assert_eq!(verdict, Verdict::Transmit);
        assert_eq!(packet.bytes[..14], [&HOP_MAC[..], &NODE_MAC, &[8, 0]].concat());
        assert_eq!(packet.bytes[34..], inner[14..], "the inner packet is untouched");

        let outer = Ipv4HeaderSlice::from_slice(&packet.bytes[14..]).unwrap();
        let header = outer.to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(header.protocol.0, protocol);
        assert_eq!(usize::from(header.total_len), packet.bytes.len() - 14);
        assert_eq!((header.time_to_live, header.dont_fragment, header.identification), (64, true, 0));
        assert_eq!(header.destination, BACKEND4);
        assert_eq!(header.source[..3], SOURCE4[..3]);
        let expected = if protocol == 4 { (10, 2) } else { (0, 0) };
        assert_eq!((header.dscp.value(), header.ecn.value()), expected, "DSCP and ECN are the inner packet's");
    }
}

#[test]
fn an_outer_ipv6_header_is_correct_in_every_field() {
    for (inner, protocol) in [(tcp4(b"hello"), 4), (tcp6(b"hello"), 41)] {
        let tables = tables(backend6());
        let (verdict, packet) = run(&tables, &inner);
        assert_eq!(verdict, Verdict::Transmit);
        assert_eq!(packet.bytes[..14], [&HOP_MAC[..], &NODE_MAC, &[0x86, 0xdd]].concat());
        assert_eq!(packet.bytes[54..], inner[14..], "the inner packet is untouched");

        let header = Ipv6HeaderSlice::from_slice(&packet.bytes[14..]).unwrap().to_header();
        assert_eq!(header.next_header.0, protocol);
        assert_eq!(usize::from(header.payload_length), packet.bytes.len() - 54);
        assert_eq!(header.hop_limit, 64);
        assert_eq!(header.destination, BACKEND6);
        assert_eq!(header.source[..8], SOURCE6[..8]);
        assert_ne!(header.source[8..], SOURCE6[8..], "host bits come from the flow hash");
        assert_ne!(header.flow_label, Ipv6FlowLabel::ZERO);
        assert_eq!(header.traffic_class, if protocol == 4 { 10 << 2 | 2 } else { 0 });
    }
}

#[test]
fn traffic_is_counted_by_packet_and_frame_bytes() {
    let tables = tables(backend4());
    let packet = tcp4(b"hello");
    run(&tables, &packet);
    assert_eq!(tables.vip_bytes.get(), packet.len() as u64);
    assert_eq!(tables.member_bytes.get(), packet.len() as u64);
    assert_eq!(tables.counted(Counter::Transmitted), 1);
}

#[test]
fn another_interface_is_reached_by_redirect() {
    let mut tables = tables(backend4());
    tables.interfaces.push(InterfaceRecord::new([2, 0, 0, 0, 0, 2], 8, 1_600));
    tables.members[1].next_hop.set(NextHop::new(HOP_MAC, InterfaceSlot(1)).0);
    let (verdict, packet) = run(&tables, &tcp4(b""));
    assert_eq!(verdict, Verdict::Redirect(InterfaceSlot(1)));
    assert_eq!(packet.bytes[6..12], [2, 0, 0, 0, 0, 2], "the source is the outgoing interface's MAC address");
}

#[test]
fn the_mtu_bounds_the_outer_packet_exactly() {
    let mut tables = tables(backend4());
    let packet = tcp4(&[7; 100]);
    let outer = packet.len() as u32 - 14 + 20;
    tables.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, outer);
    assert_eq!(run(&tables, &packet).0, Verdict::Transmit);
    tables.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, outer - 1);
    assert_eq!(run(&tables, &packet).0, Verdict::Drop);
    assert_eq!(tables.counted(Counter::TooBig), 1);
}

#[test]
fn ethernet_padding_is_not_mistaken_for_the_packet() {
    let tables = tables(backend4());
    let mut packet = tcp4(b"");
    let length = packet.len();
    packet.resize(60, 0xee);
    let (verdict, sent) = run(&tables, &packet);
    assert_eq!(verdict, Verdict::Transmit);
    let outer = Ipv4HeaderSlice::from_slice(&sent.bytes[14..]).unwrap();
    assert_eq!(usize::from(outer.total_len()), length - 14 + 20);
}

type Change = fn(&mut Vec<u8>);

#[test]
fn what_is_not_balanced_is_dropped_by_reason_for_a_vip_and_passed_otherwise() {
    let rows: &[(&str, Change, Counter)] = &[
        ("a later fragment", |p| p[21] = 1, Counter::Fragment),
        ("a first fragment", |p| p[20] = 0x20, Counter::Fragment),
        ("options", |p| p[14] = 0x46, Counter::Options),
        ("a header of four words", |p| p[14] = 0x44, Counter::Malformed),
        ("version 5", |p| p[14] = 0x55, Counter::Malformed),
        ("longer than the frame", |p| p[17] += 1, Counter::Malformed),
        ("too short for TCP", |p| p[17] = 39, Counter::Malformed),
        ("shorter than its own header", |p| p[17] = 19, Counter::Malformed),
        ("ICMP", |p| p[23] = 1, Counter::Icmp),
        ("SCTP", |p| p[23] = 132, Counter::OtherProtocol),
        ("another port", |p| p[37] = 81, Counter::NoSuchVip),
        ("another protocol on the VIP's port", |p| p[23] = 17, Counter::NoSuchVip),
        ("a VLAN tag", |p| drop(p.splice(12..12, [0x81, 0, 0, 5])), Counter::Vlan),
        ("two VLAN tags", |p| drop(p.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6])), Counter::Vlan),
    ];
    for (what, change, reason) in rows {
        let mut packet = tcp4(b"");
        change(&mut packet);
        assert_eq!(refused(&tables(backend4()), &packet), (Verdict::Drop, *reason), "{what}");

        let mut elsewhere = FakeTables::with_members(1);
        elsewhere.serve4([203, 0, 113, 99], 80, 6);
        assert_eq!(refused(&elsewhere, &packet), (Verdict::Pass, Counter::NotVip), "{what}, for another address");
    }
}

#[test]
fn what_is_not_balanced_in_ipv6_is_dropped_by_reason_for_a_vip_and_passed_otherwise() {
    let rows: &[(&str, Change, Counter)] = &[
        ("hop-by-hop options", |p| p[20] = 0, Counter::ExtensionHeader),
        ("a routing header", |p| p[20] = 43, Counter::ExtensionHeader),
        ("destination options", |p| p[20] = 60, Counter::ExtensionHeader),
        ("ESP", |p| p[20] = 50, Counter::ExtensionHeader),
        ("a fragment", |p| p[20] = 44, Counter::Fragment),
        ("ICMPv6", |p| p[20] = 58, Counter::Icmp),
        ("no next header", |p| p[20] = 59, Counter::OtherProtocol),
        ("version 4", |p| p[14] = 0x45, Counter::Malformed),
        ("longer than the frame", |p| p[19] += 1, Counter::Malformed),
        ("too short for TCP", |p| p[19] = 19, Counter::Malformed),
        ("another port", |p| p[57] = 81, Counter::NoSuchVip),
        ("a VLAN tag", |p| drop(p.splice(12..12, [0x81, 0, 0, 5])), Counter::Vlan),
    ];
    for (what, change, reason) in rows {
        let mut packet = tcp6(b"");
        change(&mut packet);
        assert_eq!(refused(&tables(backend4()), &packet), (Verdict::Drop, *reason), "{what}");
        assert_eq!(refused(&FakeTables::with_members(1), &packet), (Verdict::Pass, Counter::NotVip), "{what}");
    }
}

#[test]
fn what_is_not_for_a_vip_is_the_hosts() {
    let tables = tables(backend4());
    assert_eq!(refused(&tables, &udp4([10, 0, 0, 1], 53)), (Verdict::Pass, Counter::NotVip));
    let mut arp = tcp4(b"");
    arp[13] = 6;
    assert_eq!(refused(&self::tables(backend4()), &arp), (Verdict::Pass, Counter::NotIp));
    assert_eq!(refused(&self::tables(backend4()), &[0; 13]), (Verdict::Pass, Counter::Truncated));
    assert_eq!(refused(&self::tables(backend4()), &tcp4(b"")[..33]), (Verdict::Pass, Counter::Truncated));
}

#[test]
fn a_vip_for_any_port_takes_them_all_and_yields_to_an_exact_one() {
    let mut tables = tables(backend4());
    tables.serve4(VIP4, 0, 17);
    assert_eq!(run(&tables, &udp4(VIP4, 53)).0, Verdict::Transmit);
    assert_eq!(run(&tables, &udp4(VIP4, 5_353)).0, Verdict::Transmit);
    assert_eq!(run(&tables, &tcp4(b"")).0, Verdict::Drop, "the protocol still counts");
}

#[test]
fn without_a_way_to_send_packets_are_dropped_and_counted() {
    type Change = fn(&mut FakeTables);
    let rows: &[(&str, Change, Counter)] = &[
        ("an empty pool", |t| t.owner = 0, Counter::NoBackend),
        ("a member without a record", |t| t.owner = 9, Counter::NoBackend),
        ("a dead member", |t| t.kill(1), Counter::NoBackend),
        ("no neighbour", |t| t.members[1].next_hop.set(0), Counter::NextHopUnresolved),
        ("no such interface", |t| t.interfaces.clear(), Counter::NextHopUnresolved),
    ];
    for (what, change, reason) in rows {
        let mut tables = tables(backend4());
        tables.tracking = maglev_common::settings::Tracking::None;
        change(&mut tables);
        assert_eq!(refused(&tables, &tcp4(b"")), (Verdict::Drop, *reason), "{what}");
    }
}

#[test]
fn a_frame_without_headroom_is_dropped_and_counted() {
    let tables = tables(backend4());
    let mut packet = FakePacket { headroom: 19, ..FakePacket::new(&tcp4(b"")) };
    assert_eq!(forward(&mut packet, &tables), Verdict::Drop);
    assert_eq!(tables.counted(Counter::NoHeadroom), 1);
}

proptest! {
    #[test]
    fn any_bytes_are_counted_once_and_never_more_than_encapsulated(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        v6 in any::<bool>(),
        keep in 0_usize..70,
    ) {
        // Half a real packet, half noise: pure noise never gets past the EtherType.
        let mut packet = if v6 { tcp6(b"") } else { tcp4(b"") };
        packet.truncate(keep);
        packet.extend(&bytes);
        let tables = tables(backend4());
        let (verdict, after) = run(&tables, &packet);
        let counted: u64 =
            Counter::ALL.iter().filter(|c| c.outcome() != Outcome::Noted).map(|c| tables.counted(*c)).sum();
        prop_assert_eq!(counted, 1);
        match verdict {
            Verdict::Transmit => prop_assert_eq!(&after.bytes[34..], &packet[14..]),
            _ => prop_assert_eq!(&after.bytes, &packet),
        }
    }

    #[test]
    fn the_outer_checksum_always_holds(client in any::<[u8; 4]>(), port in any::<u16>(), class in any::<u8>(), n in 0_usize..1_400) {
        let tables = tables(backend4());
        let mut packet = tcp4(&vec![0; n]);
        packet[15] = class;
        packet[26..30].copy_from_slice(&client);
        packet[34..36].copy_from_slice(&port.to_be_bytes());
        let (_, sent) = run(&tables, &packet);
        let header = Ipv4HeaderSlice::from_slice(&sent.bytes[14..]).unwrap().to_header();
        prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
        prop_assert_eq!(header.dscp.value() << 2 | header.ecn.value(), class);
    }
}
