//! The path over whole packets: what comes out, byte for byte, and what is counted. Packets are built and dissected by
//! another implementation.

use std::vec;
use std::vec::Vec;

use etherparse::{Ipv4HeaderSlice, Ipv6FlowLabel, Ipv6HeaderSlice};
use maglev_common::backend::{InterfaceRecord, InterfaceSlot, NextHop};
use maglev_common::table::{PoolWord, TableIndex};
use maglev_common::vip::Rule;
use proptest::prelude::*;

use super::*;
use crate::fixtures::*;
use crate::packet::Ip;
use crate::testing::{BACKEND4, BACKEND6, FakeTables, INGRESS, SOURCE4, SOURCE6, backend4, backend6, tables};

/// Balances a packet as the program does: as a plain one if it is one, else by the whole path.
fn balance_as_shipped(packet: &mut VecPacket, tables: &FakeTables) -> Verdict {
    tables.renew(1);
    forward(packet, tables)
}

fn run(tables: &FakeTables, bytes: &[u8]) -> (Verdict, VecPacket) {
    let mut packet = VecPacket::new(bytes);
    let verdict = balance_as_shipped(&mut packet, tables);
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
    tables.forwarding.interfaces[1] = InterfaceRecord::new([2, 0, 0, 0, 0, 2], 8, 1_600);
    tables.forwarding.members[1].next_hop.set(NextHop::new(HOP_MAC, InterfaceSlot(1)).0);
    let (verdict, packet) = run(&tables, &tcp4(b""));
    assert_eq!(verdict, Verdict::Redirect(InterfaceSlot(1)));
    assert_eq!(packet.bytes[6..12], [2, 0, 0, 0, 0, 2], "the source is the outgoing interface's MAC address");
}

#[test]
fn the_mtu_bounds_the_outer_packet_exactly() {
    let mut tables = tables(backend4());
    let packet = tcp4(&[7; 100]);
    let outer = packet.len() as u32 - 14 + 20;
    tables.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, outer);
    assert_eq!(run(&tables, &packet).0, Verdict::Transmit);
    tables.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, outer - 1);
    assert_eq!(run(&tables, &packet).0, Verdict::Drop);
    assert_eq!(tables.counted(Counter::TooBig), 1);
}

#[test]
fn a_frame_that_only_its_trailer_makes_too_long_is_cut_and_sent() {
    for (record, overhead) in [(backend4(), 20), (backend6(), 40)] {
        for frame in [tcp4(&[7; 100]), tcp6(&[7; 100])] {
            let mut tables = tables(record.clone());
            let outer = frame.len() as u32 - 14 + overhead;
            tables.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, outer + 3);
            // By four bytes, by many, and not at all: what fits keeps its padding.
            for (trailer, sent) in [(4, 0), (300, 0), (3, 3)] {
                let padded = [frame.clone(), vec![0xee; trailer]].concat();
                let (verdict, packet) = run(&tables, &padded);
                assert_eq!(verdict, Verdict::Transmit, "a trailer of {trailer} bytes");
                assert_eq!(packet.bytes.len(), frame.len() + overhead as usize + sent);
                assert_eq!(packet.bytes[14 + overhead as usize..][..frame.len() - 14], frame[14..]);
            }
            assert_eq!(tables.counted(Counter::Transmitted), 3);
            let bytes = 3 * frame.len() as u64 + 4 + 300 + 3;
            assert_eq!((tables.vip_bytes.get(), tables.member_bytes.get()), (bytes, bytes), "as they came in, once");
            // The packet itself is too long by a byte: nothing is cut.
            tables.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, outer - 1);
            let padded = [frame.clone(), vec![0xee; 9]].concat();
            assert_eq!(run(&tables, &padded), (Verdict::Drop, VecPacket::new(&padded)));
            assert_eq!(tables.counted(Counter::TooBig), 1);
        }
    }
}

#[test]
fn a_frame_to_another_mac_address_is_the_hosts() {
    for Unbalanced { what, frame, reason } in misaddressed() {
        assert_eq!(refused(&tables(backend4()), &frame), (Verdict::Pass, reason), "{what}");
        let mut elsewhere = FakeTables::with_members(1);
        elsewhere.serve4([203, 0, 113, 99], PORT, 6);
        assert_eq!(refused(&elsewhere, &frame), (Verdict::Pass, Counter::NotVip), "{what}, for another address");
    }
}

#[test]
fn a_frame_to_a_further_mac_address_of_the_interface_is_balanced() {
    let virtual_router = [0, 0, 0x5e, 0, 1, 7];
    let tables = tables(backend4());
    let mut frame = tcp4(b"hello");
    frame[..6].copy_from_slice(&virtual_router);
    assert_eq!(refused(&tables, &frame), (Verdict::Pass, Counter::OtherMac));
    tables.forwarding.set_interface(0, &InterfaceRecord::new(NODE_MAC, INGRESS, 1_600).with_also(&[virtual_router]));
    let (verdict, packet) = run(&tables, &frame);
    assert_eq!((verdict, &packet.bytes[6..12]), (Verdict::Transmit, &NODE_MAC[..]), "and answered from its own");
    // An address that changed while packets come in.
    tables.forwarding.set_interface(0, &InterfaceRecord::new(virtual_router, INGRESS, 1_600));
    assert_eq!(run(&tables, &frame).0, Verdict::Transmit);
    assert_eq!(run(&tables, &tcp4(b"hello")).0, Verdict::Pass);
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

#[test]
fn what_is_not_balanced_is_dropped_by_reason_for_a_vip_and_passed_otherwise() {
    for Unbalanced { what, frame, reason } in unbalanced4().into_iter().chain(unbalanced6()) {
        assert_eq!(refused(&tables(backend4()), &frame), (Verdict::Drop, reason), "{what}");
        let mut elsewhere = FakeTables::with_members(1);
        elsewhere.serve4([203, 0, 113, 99], PORT, 6);
        assert_eq!(refused(&elsewhere, &frame), (Verdict::Pass, Counter::NotVip), "{what}, for another address");
    }
    let mut udp = udp4(VIP4, PORT);
    assert_eq!(refused(&tables(backend4()), &udp), (Verdict::Drop, Counter::NoSuchVip));
    udp.truncate(20);
    assert_eq!(refused(&tables(backend4()), &udp), (Verdict::Pass, Counter::Truncated));
}

#[test]
fn tags_options_and_extension_headers_change_no_flows_backend() {
    for (what, frame) in peculiar() {
        for (backend, overhead) in [(backend4(), 20), (backend6(), 40)] {
            let tables = tables(backend);
            let starts = |bytes: &[u8]| matches!(bytes, [8, 0, 0x45..=0x4f] | [0x86, 0xdd, 0x60]);
            let inner = 2 + frame.windows(3).position(starts).unwrap();
            let plain = if frame[inner] == 0x60 { tcp6(b"") } else { tcp4(b"") };
            let (_, flow) = run(&tables, &plain);
            let (verdict, sent) = run(&tables, &frame);
            assert_eq!(verdict, Verdict::Transmit, "{what}");
            assert_eq!(
                sent.bytes[14 + overhead..],
                frame[inner..],
                "{what}: the packet is untouched, its tags are gone"
            );
            let addresses = if overhead == 20 { 26..34 } else { 22..54 };
            assert_eq!(sent.bytes[addresses.clone()], flow.bytes[addresses], "{what}: as the flow's plain packets");
        }
    }
}

#[test]
fn what_is_not_for_a_vip_is_the_hosts() {
    for Unbalanced { what, frame, reason } in passed() {
        assert_eq!(refused(&tables(backend4()), &frame), (Verdict::Pass, reason), "{what}");
    }
    assert_eq!(refused(&tables(backend4()), &[0; 13]), (Verdict::Pass, Counter::Truncated));
}

#[test]
fn a_vip_for_many_ports_takes_those_of_its_protocol() {
    for lengths in [[32, 128], [24, 64], [31, 127]] {
        let mut tables = tables(backend4());
        tables.serve_by_rules(lengths, &[Rule::new(0, u16::MAX, 17), Rule::new(80, 81, 6)]);
        for frame in [udp4(VIP4, 53), udp4(VIP4, 5_353), udp6(53), tcp4(b""), tcp6(b"")] {
            assert_eq!(run(&tables, &frame).0, Verdict::Transmit, "{lengths:?}: {frame:02x?}");
        }
        let other_port = |frame: Vec<u8>, at| refused(&tables, &changed(&frame, at, 82));
        assert_eq!(other_port(tcp4(b""), 37), (Verdict::Drop, Counter::NoSuchVip));
        assert_eq!(refused(&tables, &changed(&tcp4(b""), 30, 9)), (Verdict::Pass, Counter::NotVip), "another network");
    }
}

fn changed(frame: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] = byte;
    frame
}

#[test]
fn a_vip_of_any_protocol_takes_those_without_ports_too() {
    let protocols = [(6, "TCP"), (17, "UDP"), (132, "SCTP"), (136, "UDP-Lite"), (47, "GRE"), (50, "ESP"), (59, "none")];
    let frames = |protocol| [changed(&tcp4(b"hello"), 23, protocol), changed(&tcp6(b"hello"), 20, protocol)];
    let mut all = tables(backend4());
    all.serve_by_rules([32, 128], &[Rule::new(0, u16::MAX, 0)]);
    for (protocol, name) in protocols {
        let mut one = tables(backend4());
        one.serve_by_rules([24, 64], &[Rule::new(0, u16::MAX, protocol)]);
        for frame in frames(protocol) {
            for tables in [&all, &one] {
                let (verdict, sent) = run(tables, &frame);
                assert_eq!((verdict, &sent.bytes[34..]), (Verdict::Transmit, &frame[14..]), "{name}");
            }
        }
        let other = if protocol == 50 { 47 } else { 50 };
        for frame in frames(other) {
            let (verdict, packet) = run(&one, &frame);
            assert_eq!((verdict, packet.bytes), (Verdict::Drop, frame), "{name} alone");
        }
        assert_eq!(one.counted(Counter::OtherProtocol), 2, "{name} alone");
    }
    for frame in frames(4).into_iter().chain(frames(41)) {
        assert_eq!(run(&all, &frame).0, Verdict::Drop, "an address of any protocol is no tunnel's end");
    }
    assert_eq!(all.counted(Counter::Nested), 4);
}

#[test]
fn flows_of_a_source_find_one_slot_and_so_do_errors_and_fragments_of_them() {
    for (bits, shared) in [([24, 56], true), ([32, 128], false)] {
        let mut tables = tables(backend4());
        tables.serve_by_source([32, 128], &[Rule::new(0, u16::MAX, 6)], bits);
        // A neighbor in the same /24 and /56.
        let (neighbor4, neighbor6) = (changed(&tcp4(b""), 29, 9), changed(&tcp6(b""), 37, 9));
        let slot = |frame: &[u8]| {
            let packet = VecPacket::new(frame);
            let flow4 = match <Tuple4 as Ip>::parse(&packet, 14) {
                Parsed::Flow(inner) => Some(decide(inner.tuple, Segment::OTHER, &tables).unwrap().flow.hash),
                _ => None,
            };
            flow4.unwrap_or_else(|| match <Tuple6 as Ip>::parse(&packet, 14) {
                Parsed::Flow(inner) => decide(inner.tuple, Segment::OTHER, &tables).unwrap().flow.hash,
                other => panic!("{other:?}"),
            })
        };
        for (frame, neighbor, port) in [(tcp4(b""), neighbor4, 35), (tcp6(b""), neighbor6, 55)] {
            let (one, other) = (slot(&frame), slot(&changed(&frame, port, 7)));
            assert_eq!(one.slot(), other.slot(), "{bits:?}: whatever the port");
            assert_ne!(one.set(u32::MAX), other.set(u32::MAX), "{bits:?}: with entries of their own");
            assert_eq!(one.slot() == slot(&neighbor).slot(), shared, "{bits:?}: a neighbor");
        }
        // What is sent has its source from the whole hash: an error has that of its flow.
        let outer = |frame: &[u8]| run(&tables, frame).1.bytes[26..30].to_vec();
        assert_eq!(outer(&icmp4(3, 4, &reply4())), outer(&tcp4(b"")), "{bits:?}");
    }
}

#[test]
fn without_a_way_to_send_packets_are_dropped_and_counted() {
    type Change = fn(&mut FakeTables);
    let rows: &[(&str, Change, Counter)] = &[
        ("an empty pool", |t| t.set_owner(0), Counter::NoBackend),
        ("a member without a record", |t| t.set_owner(9), Counter::NoBackend),
        ("a dead member", |t| t.kill(1), Counter::NoBackend),
        ("no neighbor", |t| t.forwarding.members[1].next_hop.set(0), Counter::NextHopUnresolved),
        ("no such interface", |t| t.forwarding.interfaces[0] = InterfaceRecord::default(), Counter::NextHopUnresolved),
    ];
    for (what, change, reason) in rows {
        let mut tables = tables(backend4());
        tables.set_word(PoolWord::settled(TableIndex(1)));
        change(&mut tables);
        assert_eq!(refused(&tables, &tcp4(b"")), (Verdict::Drop, *reason), "{what}");
    }
}

#[test]
fn a_flow_goes_on_when_its_pool_takes_no_new_ones() {
    let mut tables = tables(backend4());
    let frame = tcp4(b"");
    assert_eq!(run(&tables, &frame).0, Verdict::Transmit);
    tables.set_owner(0);
    assert_eq!(run(&tables, &frame).0, Verdict::Transmit);
    let mut newcomer = frame;
    newcomer[34] ^= 1;
    assert_eq!(refused(&tables, &newcomer), (Verdict::Drop, Counter::NoBackend));
}

#[test]
fn a_frame_without_headroom_is_dropped_and_counted() {
    let tables = tables(backend4());
    let mut packet = VecPacket { headroom: 19, ..VecPacket::new(&tcp4(b"")) };
    assert_eq!(balance_as_shipped(&mut packet, &tables), Verdict::Drop);
    assert_eq!(tables.counted(Counter::NoHeadroom), 1);
}

proptest! {
    #[test]
    fn a_plain_packet_is_treated_as_the_whole_path_would(
        changes in prop::collection::vec((0_usize..90, any::<u8>()), 0..3),
        (kind, length) in (0_usize..4, 0_usize..90),
        room in 0_usize..64,
        mtu in 60_u32..160,
        outer6 in any::<bool>(),
    ) {
        let mut bytes = [tcp4(b"0123456789"), tcp6(b"0123"), udp4(VIP4, PORT), udp6(PORT)][kind].clone();
        for (at, byte) in changes {
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
        }
        bytes.resize(length, 0xee);
        let both = [true, false].map(|plain| {
            let mut tables = tables(if outer6 { backend6() } else { backend4() });
            tables.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, mtu);
            let mut packet = VecPacket { headroom: room, ..VecPacket::new(&bytes) };
            // Twice: the second meets the flow table.
            let verdicts = [(), ()].map(|()| {
                packet.bytes.clone_from(&bytes);
                packet.headroom = room;
                tables.renew(1);
                if plain { forward(&mut packet, &tables) } else { finish(&mut packet, &tables, Left::Otherwise) }
            });
            (verdicts, packet, tables.all_counted())
        });
        let [plain, whole] = both;
        prop_assert_eq!(plain, whole);
    }

    #[test]
    fn a_trailer_changes_the_fate_of_no_packet(payload in 0_usize..80, trailer in 0_usize..80, mtu in 60_u32..160, v6 in any::<bool>()) {
        let payload = vec![7; payload];
        let frame = if v6 { tcp6(&payload) } else { tcp4(&payload) };
        let padded = [frame.clone(), vec![0xee; trailer]].concat();
        let [bare, padded] = [frame, padded].map(|frame| {
            let mut tables = tables(backend4());
            tables.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, mtu);
            let (verdict, packet) = run(&tables, &frame);
            (verdict, tables.all_counted().0, packet.bytes.len() <= 14 + mtu as usize || verdict == Verdict::Drop)
        });
        prop_assert!(padded.2, "what is sent fits");
        prop_assert_eq!(bare, padded);
    }

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
