//! The answers to packets that are too long; packets are built and dissected by another implementation.

use std::vec::Vec;

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};
use maglev_common::backend::InterfaceRecord;

use super::*;
use crate::fixtures::*;
use crate::path::forward::forward;
use crate::testing::{FakeTables, INGRESS, backend4, backend6, tables};

/// Tables whose backend is reached over a link of this MTU.
fn over(mtu: u32) -> FakeTables {
    let tables = tables(backend4());
    tables.forwarding.set_interface(0, &InterfaceRecord::new(NODE_MAC, INGRESS, mtu));
    tables.answers.set(100);
    tables
}

fn run(tables: &FakeTables, frame: &[u8]) -> (Verdict, Vec<u8>) {
    tables.renew(1);
    let mut packet = VecPacket::new(frame);
    (forward(&mut packet, tables), packet.bytes)
}

/// The MTU in the answer to a frame; everything else in it is checked.
fn told(answer: &[u8], frame: &[u8]) -> u32 {
    assert_eq!([&answer[..6], &answer[6..12]], [ROUTER_MAC, NODE_MAC]);
    let [asked, answered] = [frame, answer].map(|frame| SlicedPacket::from_ethernet(frame).unwrap());
    assert_eq!(answered.vlan_ids(), asked.vlan_ids());
    let packet =
        &frame[frame.windows(3).position(|at| matches!(at, [8, 0, 0x45..=0x4f] | [0x86, 0xdd, 0x60])).unwrap() + 2..];
    let (told, quoted) = match (answered.net.unwrap(), answered.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(message)) => {
            let header = ip.header().to_header();
            assert_eq!((header.source, header.destination, header.total_len), (VIP4, CLIENT4, 576));
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(message.checksum(), message.icmp_type().calc_checksum(message.payload()));
            let Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu }) =
                message.icmp_type()
            else {
                panic!("{:?}", message.icmp_type())
            };
            (u32::from(next_hop_mtu), message.payload().to_vec())
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(message)) => {
            let header = ip.header().to_header();
            assert_eq!((header.source, header.destination, header.payload_length), (VIP6, CLIENT6, 1_240));
            assert!(message.is_checksum_valid(VIP6, CLIENT6));
            let Icmpv6Type::PacketTooBig { mtu } = message.icmp_type() else { panic!("{:?}", message.icmp_type()) };
            (mtu, message.payload().to_vec())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(quoted, packet[..quoted.len()], "the packet as it came");
    assert!(answer.len() <= frame.len(), "no answer is longer than the packet");
    told
}

#[test]
fn the_sender_of_a_long_packet_is_told_the_mtu_of_its_backends_path() {
    for (frame, mtu, expected) in [
        (tcp4(&[7; 1_441]), 1_500, 1_480),
        (tcp6(&[7; 1_421]), 1_500, 1_480),
        (tcp4(&[7; 1_441]), 1_400, 1_380),
        (tcp4(&[7; 600]), 300, 576),
        (tcp6(&[7; 1_300]), 1_000, 1_280),
    ] {
        let tables = over(mtu);
        let (verdict, answer) = run(&tables, &frame);
        assert_eq!((verdict, told(&answer, &frame)), (Verdict::Transmit, expected));
        assert_eq!((tables.counted(Counter::PacketTooBig), tables.counted(Counter::TooBig)), (1, 0));
        assert_eq!(tables.member_bytes.get(), 0);
    }
}

#[test]
fn tags_and_options_stay_and_what_is_quoted_has_them() {
    let tables = over(700);
    for tags in [&[0x81, 0, 0, 6][..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]] {
        let mut frame = tcp4(&[7; 900]);
        frame.splice(12..12, tags.iter().copied());
        let (verdict, answer) = run(&tables, &frame);
        assert_eq!((verdict, told(&answer, &frame)), (Verdict::Transmit, 680));
    }
    let mut frame = tcp4(&[7; 900]);
    frame.splice(34..34, [1; 4]);
    (frame[14], frame[17]) = (0x46, frame[17] + 4);
    let (verdict, answer) = run(&tables, &frame);
    assert_eq!((verdict, told(&answer, &frame)), (Verdict::Transmit, 680));
}

#[test]
fn what_must_not_be_answered_is_dropped() {
    type Change = fn(&mut Vec<u8>);
    let rows: [(&str, Change); 5] = [
        ("without DF", |p| p[20] = 0),
        ("from a multicast address", |p| p[26] = 230),
        ("from a loopback address", |p| p[26] = 127),
        ("from a VIP", |p| p[26..30].copy_from_slice(&VIP4)),
        ("no longer than the MTU that would be told", |p| p.truncate(14 + 576)),
    ];
    for (what, change) in rows {
        let tables = over(400);
        let mut frame = tcp4(&[7; 900]);
        change(&mut frame);
        let length = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        assert_eq!(run(&tables, &frame), (Verdict::Drop, frame), "{what}");
        assert_eq!(tables.counted(Counter::TooBig), 1, "{what}");
    }
    let error = icmp4(3, 4, &[&reply4()[..], &[0; 1_000]].concat());
    let tables = over(700);
    assert_eq!(run(&tables, &error), (Verdict::Drop, error));
}

#[test]
fn answers_are_limited() {
    let (tables, frame) = (over(1_000), tcp6(&[7; 1_400]));
    tables.answers.set(1);
    assert_eq!([(); 2].map(|()| run(&tables, &frame).0), [Verdict::Transmit, Verdict::Drop]);
    assert_eq!((tables.counted(Counter::AnswerLimit), tables.counted(Counter::TooBig)), (1, 0));
}

#[test]
fn without_room_nothing_is_answered() {
    let tables = over(1_000);
    tables.renew(1);
    let mut packet = VecPacket { headroom: 27, ..VecPacket::new(&tcp4(&[7; 1_400])) };
    assert_eq!(forward(&mut packet, &tables), Verdict::Drop);
    assert_eq!((tables.counted(Counter::AnswerLimit), tables.counted(Counter::TooBig)), (0, 1));
}

#[test]
fn an_outer_ipv6_header_makes_the_mtu_smaller() {
    let tables = tables(backend6());
    tables.forwarding.set_interface(0, &InterfaceRecord::new(NODE_MAC, INGRESS, 1_500));
    let frame = tcp4(&[7; 1_460]);
    assert_eq!(told(&run(&tables, &frame).1, &frame), 1_460);
}
