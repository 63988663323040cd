//! The answers to packets that no backend can be given; packets are built and dissected by another implementation.

use std::vec;
use std::vec::Vec;

use etherparse::{
    Icmpv4Type, Icmpv6Type, Ipv4HeaderSlice, NetSlice, SlicedPacket, TcpHeader, TransportSlice, icmpv4, icmpv6,
};
use proptest::prelude::*;

use super::*;
use crate::fixtures::*;
use crate::path::forward::forward;
use crate::testing::FakeTables;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// A VIP of TCP, or of UDP, at both addresses, whose pool is empty and which answers.
fn empty(protocol: u8) -> FakeTables {
    let mut tables = FakeTables::with_members(1);
    tables.unserved = Unserved::Reset;
    tables.serve4(VIP4, PORT, protocol);
    tables.serve6(VIP6, PORT, protocol);
    tables.set_owner(0);
    tables.answers.set(1_000);
    tables
}

fn run(tables: &FakeTables, frame: &[u8]) -> (Verdict, Vec<u8>) {
    tables.renew(1);
    let mut packet = VecPacket::new(frame);
    (forward(&mut packet, tables), packet.bytes)
}

/// Where the IP header of a frame begins.
fn l3(frame: &[u8]) -> usize {
    let starts = |bytes: &[u8]| matches!(bytes, [8, 0, 0x45..=0x4f] | [0x86, 0xdd, 0x60..=0x6f]);
    2 + frame.windows(3).position(starts).unwrap()
}

/// The length of the IP packet in a frame.
fn length(frame: &[u8]) -> usize {
    let packet = &frame[l3(frame)..];
    let at = |n: usize| usize::from(u16::from_be_bytes([packet[n], packet[n + 1]]));
    if packet[0] >> 4 == 6 { 40 + at(4) } else { at(2) }
}

/// A frame whose IPv4 header, if it has one, has the right checksum.
fn with_ip_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let at = l3(&frame);
    if frame[at] != 0x60 {
        let checksum = Ipv4HeaderSlice::from_slice(&frame[at..]).unwrap().to_header().calc_header_checksum();
        frame[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
    }
    frame
}

/// The transport header of an answer to a frame, once everything in front of it is checked.
fn answered<'a>(answer: &'a [u8], frame: &[u8]) -> TransportSlice<'a> {
    assert_eq!([&answer[..6], &answer[6..12]], [ROUTER_MAC, NODE_MAC]);
    assert_eq!(answer[12..l3(answer)], frame[12..l3(frame)], "tags and EtherType stay");
    assert!(length(answer) <= length(frame), "no answer is longer than the packet");
    let answer = SlicedPacket::from_ethernet(answer).unwrap();
    let asked = &frame[l3(frame)..];
    match answer.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!((&header.source[..], &header.destination[..]), (&asked[16..20], &asked[12..16]));
            assert_eq!((header.header_checksum, header.time_to_live), (header.calc_header_checksum(), 64));
            assert!(header.options.is_empty() && header.dont_fragment && !header.more_fragments);
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!((&header.source[..], &header.destination[..]), (&asked[24..40], &asked[8..24]));
            assert_eq!((header.hop_limit, ip.extensions().is_empty()), (64, true));
        }
        other => panic!("{other:?}"),
    }
    answer.transport.unwrap()
}

/// The RST that answers a frame; its checksum is checked.
fn reset_of(answer: &[u8], frame: &[u8]) -> TcpHeader {
    let TransportSlice::Tcp(segment) = answered(answer, frame) else { panic!("no segment") };
    let (header, ip) = (segment.to_header(), SlicedPacket::from_ethernet(answer).unwrap().net.unwrap());
    let checksum = match ip {
        NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), &[]).unwrap(),
        NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), &[]).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!((header.checksum, segment.payload()), (checksum, &[][..]));
    header
}

/// Sets flags and numbers of the segment in a frame: its header ends the frame, and `payload` bytes behind it.
fn with_segment(mut frame: Vec<u8>, payload: usize, flags: u8, [sequence, acknowledged]: [u32; 2]) -> Vec<u8> {
    let at = frame.len() - payload - 20;
    frame[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[at + 8..at + 12].copy_from_slice(&acknowledged.to_be_bytes());
    frame[at + 13] = flags;
    frame
}

/// Segments of every shape to the VIP.
fn segments() -> Vec<(&'static str, Vec<u8>, usize)> {
    let bare = [("bare", tcp4(b""), 0), ("bare, IPv6", tcp6(b""), 0), ("long", tcp4(&[7; 1_400]), 1_400)];
    bare.into_iter().chain(peculiar().into_iter().map(|(what, frame)| (what, frame, 5))).collect()
}

#[test]
fn a_segment_is_answered_by_the_rst_that_its_sender_accepts() {
    for (what, frame, payload) in segments() {
        let bytes = payload as u32;
        for (flags, expected) in [
            (SYN, (0, 100 + bytes + 1, RST | ACK)),
            (FIN, (0, 100 + bytes + 1, RST | ACK)),
            (SYN | FIN, (0, 100 + bytes + 2, RST | ACK)),
            (0, (0, 100 + bytes, RST | ACK)),
            (ACK, (7, 0, RST)),
            (SYN | ACK, (7, 0, RST)),
            (PSH | ACK | FIN, (7, 0, RST)),
        ] {
            let tables = empty(6);
            let frame = with_segment(frame.clone(), payload, flags, [100, 7]);
            let (verdict, answer) = run(&tables, &frame);
            assert_eq!((verdict, tables.counted(Counter::Reset)), (Verdict::Transmit, 1), "{what} {flags:x}");
            let header = reset_of(&answer, &frame);
            assert_eq!((header.source_port, header.destination_port), (PORT, 40_000), "{what}");
            let found = (u8::from(header.rst) * RST) | (u8::from(header.ack) * ACK);
            assert!(!(header.syn || header.fin || header.psh || header.urg) && header.options.is_empty(), "{what}");
            let number = if header.ack { header.acknowledgment_number } else { 0 };
            assert_eq!((header.sequence_number, number, found), expected, "{what} {flags:x}");
            assert!(tables.vip_bytes.get() > 0, "{what}: it counts as the VIP's");
        }
    }
}

#[test]
fn numbers_wrap() {
    let frame = with_segment(tcp4(b"hello"), 5, SYN, [u32::MAX - 2, 9]);
    assert_eq!(reset_of(&run(&empty(6), &frame).1, &frame).acknowledgment_number, 3);
}

#[test]
fn a_padded_frame_keeps_the_padding_that_ethernet_wants_and_no_more() {
    for (frame, padded, expected) in
        [(tcp4(b""), 60, 60), (tcp4(&[7; 900]), 914, 60), (tcp4(b"hello"), 59, 54), (tcp6(b""), 90, 74)]
    {
        let mut frame = frame;
        frame.resize(frame.len().max(padded), 0xee);
        let (_, answer) = run(&empty(6), &frame);
        assert_eq!(answer.len(), expected);
        reset_of(&answer, &frame);
        let end = 14 + length(&answer);
        assert!(answer[end..].iter().all(|byte| *byte == 0), "padding holds nothing of the packet");
    }
}

/// Datagrams with enough in them for an answer; those with extension headers get none.
fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let as_udp = |(what, mut frame): (&'static str, Vec<u8>)| {
        let at = l3(&frame);
        if frame[at] == 0x60 && frame[at + 6] != 6 {
            return None;
        }
        let protocol = if frame[at] == 0x60 { at + 6 } else { at + 9 };
        frame[protocol] = 17;
        Some((what, frame))
    };
    let lengthened = |(what, mut frame): (&'static str, Vec<u8>)| {
        frame.extend([0x5a; 28]);
        let at = l3(&frame);
        let field = if frame[at] == 0x60 { at + 4 } else { at + 2 };
        let length = u16::from_be_bytes([frame[field], frame[field + 1]]) + 28;
        frame[field..field + 2].copy_from_slice(&length.to_be_bytes());
        (what, with_ip_checksum(frame))
    };
    let frames = [("plain", tcp4(&[7; 20])), ("plain, IPv6", tcp6(&[7; 40])), ("long", tcp4(&[7; 1_300]))];
    let others = peculiar().into_iter().filter(|(what, _)| !what.contains("IPv6")).map(lengthened);
    frames.into_iter().map(|(what, frame)| (what, with_ip_checksum(frame))).chain(others).filter_map(as_udp).collect()
}

#[test]
fn a_datagram_is_answered_with_port_unreachable_that_quotes_its_headers() {
    for (what, frame) in datagrams() {
        let tables = empty(17);
        let frame = with_ip_checksum(frame);
        let (verdict, answer) = run(&tables, &frame);
        assert_eq!((verdict, tables.counted(Counter::PortUnreachable)), (Verdict::Transmit, 1), "{what}");
        let at = l3(&frame);
        let quoted = match answered(&answer, &frame) {
            TransportSlice::Icmpv4(message) => {
                let Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port) = message.icmp_type()
                else {
                    panic!("{:?}", message.icmp_type())
                };
                assert_eq!(message.checksum(), message.icmp_type().calc_checksum(message.payload()), "{what}");
                assert_eq!(message.payload().len(), usize::from(frame[at] & 0xf) * 4 + 8);
                message.payload().to_vec()
            }
            TransportSlice::Icmpv6(message) => {
                let Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port) = message.icmp_type() else {
                    panic!("{:?}", message.icmp_type())
                };
                assert!(message.is_checksum_valid(VIP6, CLIENT6), "{what}");
                assert_eq!(message.payload().len(), 48);
                message.payload().to_vec()
            }
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(quoted, frame[at..at + quoted.len()], "{what}: the headers as they came");
    }
}

#[test]
fn a_datagram_that_is_shorter_than_its_answer_gets_none() {
    let long_enough = |frame: Vec<u8>, to: usize| {
        let mut frame = frame;
        frame.resize(to, 7);
        let (at, length) = (l3(&frame), (to - 14) as u16);
        let (field, length) = if frame[at] == 0x60 { (at + 4, length - 40) } else { (at + 2, length) };
        frame[field..field + 2].copy_from_slice(&length.to_be_bytes());
        run(&empty(17), &with_ip_checksum(frame)).0
    };
    let (four, six) = (14 + 56, 14 + 96);
    assert_eq!([four - 1, four].map(|to| long_enough(udp4(VIP4, PORT), to)), [Verdict::Drop, Verdict::Transmit]);
    assert_eq!([six - 1, six].map(|to| long_enough(udp6(PORT), to)), [Verdict::Drop, Verdict::Transmit]);
    // Extension headers would have to be summed up.
    let (_, mut extended) = peculiar().into_iter().find(|(what, _)| *what == "hop-by-hop options").unwrap();
    (extended[54], extended[18], extended[19]) = (17, 0, 200);
    extended.resize(54 + 200, 7);
    let tables = empty(17);
    assert_eq!(run(&tables, &extended), (Verdict::Drop, extended));
    assert_eq!(tables.counted(Counter::Unanswerable), 1);
}

#[test]
fn a_port_that_no_vip_has_is_answered_if_the_address_says_so() {
    let datagram = with_ip_checksum([udp4(VIP4, 9), vec![7; 23]].concat());
    for (frame, answered) in [(datagram, Counter::PortUnreachable), (tcp4(b""), Counter::Reset)] {
        let mut frame = frame;
        (frame[36], frame[37]) = (0, 9);
        if answered == Counter::PortUnreachable {
            (frame[16], frame[17]) = (0, 56);
            frame = with_ip_checksum(frame);
        }
        for (unserved, expected) in [(Unserved::Reset, answered), (Unserved::Drop, Counter::NoSuchVip)] {
            let mut tables = FakeTables::with_members(1);
            tables.unserved = unserved;
            tables.serve4(VIP4, PORT, 6);
            let (verdict, out) = run(&tables, &frame);
            assert_eq!(
                (verdict == Verdict::Transmit, out != frame),
                (unserved == Unserved::Reset, unserved == Unserved::Reset)
            );
            assert_eq!(tables.counted(expected), 1, "{unserved:?}");
        }
    }
}

#[test]
fn without_reset_packets_are_dropped_by_their_reason() {
    let mut tables = FakeTables::with_members(1);
    tables.serve4(VIP4, PORT, 6);
    tables.set_owner(0);
    assert_eq!(run(&tables, &tcp4(b"")), (Verdict::Drop, tcp4(b"")));
    assert_eq!((tables.counted(Counter::NoBackend), tables.answers.get()), (1, 2));
}

#[test]
fn what_must_not_be_answered_is_dropped() {
    type Change = fn(&mut Vec<u8>);
    let rows: [(&str, Change, Counter); 10] = [
        ("a RST", |p| p[47] = RST, Counter::NoBackend),
        ("a RST that acknowledges", |p| p[47] = RST | ACK, Counter::NoBackend),
        ("a header longer than the segment", |p| p[46] = 0xf0, Counter::NoBackend),
        ("a header of four words", |p| p[46] = 0x40, Counter::NoBackend),
        ("from a VIP, as a land packet is", |p| p[26..30].copy_from_slice(&VIP4), Counter::Unanswerable),
        ("from a multicast address", |p| p[26] = 230, Counter::Unanswerable),
        ("from the broadcast address", |p| p[26..30].fill(255), Counter::Unanswerable),
        ("from a loopback address", |p| p[26] = 127, Counter::Unanswerable),
        ("from no address", |p| p[26..30].fill(0), Counter::Unanswerable),
        ("from a network of experiments", |p| p[26] = 241, Counter::Unanswerable),
    ];
    for (what, change, reason) in rows {
        for protocol in [6, 17] {
            let tables = empty(protocol);
            let mut frame = tcp4(&[0; 20]);
            change(&mut frame);
            frame[23] = protocol;
            let is_segments = reason == Counter::NoBackend;
            if protocol == 17 && is_segments {
                continue;
            }
            assert_eq!(run(&tables, &frame), (Verdict::Drop, frame), "{what} {protocol}");
            assert_eq!((tables.counted(reason), tables.answers.get()), (1, 1_000), "{what} {protocol}");
        }
    }
    for source in [[0xff; 16], [0; 16], VIP6, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]] {
        let (tables, mut frame) = (empty(6), tcp6(b""));
        frame[22..38].copy_from_slice(&source);
        assert_eq!(run(&tables, &frame), (Verdict::Drop, frame), "{source:?}");
        assert_eq!(tables.counted(Counter::Unanswerable), 1);
    }
}

#[test]
fn the_outcome_of_a_flow_says_that_it_is_answered() {
    let reason = |tables: &FakeTables, port: u16, protocol: u8| {
        let addresses = u64::from(u32::from_le_bytes(CLIENT4)) | u64::from(u32::from_le_bytes(VIP4)) << 32;
        let ports = u32::from(port.swap_bytes()) << 16 | 7;
        let tuple = Tuple4 { addresses, transport: maglev_common::hash::Transport::new(ports, protocol) };
        crate::path::forward::decide(tuple, crate::env::Segment::OTHER, tables).unwrap_err()
    };
    let resetting = empty(6);
    assert_eq!(reason(&resetting, PORT, 6), Counter::Reset);
    assert_eq!((reason(&resetting, 9, 6), reason(&resetting, 9, 17)), (Counter::Reset, Counter::PortUnreachable));
    let mut dropping = FakeTables::with_members(1);
    dropping.serve4(VIP4, PORT, 6);
    dropping.set_owner(0);
    assert_eq!((reason(&dropping, PORT, 6), reason(&dropping, 9, 17)), (Counter::NoBackend, Counter::NoSuchVip));
}

#[test]
fn answers_are_limited() {
    let tables = empty(6);
    tables.answers.set(2);
    let verdicts = [(); 3].map(|()| run(&tables, &tcp6(b"")).0);
    assert_eq!(verdicts, [Verdict::Transmit, Verdict::Transmit, Verdict::Drop]);
    assert_eq!((tables.counted(Counter::Reset), tables.counted(Counter::AnswerLimit)), (2, 1));
}

#[test]
fn without_room_a_datagram_is_dropped() {
    let tables = empty(17);
    let frame = datagrams().remove(0).1;
    tables.renew(1);
    let mut packet = VecPacket { headroom: 27, ..VecPacket::new(&frame) };
    assert_eq!(forward(&mut packet, &tables), Verdict::Drop);
    assert_eq!((tables.counted(Counter::NoBackend), tables.counted(Counter::PortUnreachable)), (1, 0));
}

proptest! {
    /// Nothing for a VIP's address is ever handed to the host if its frame is addressed to the node, whatever it is.
    #[test]
    fn nothing_for_a_vips_address_is_the_hosts_and_no_answer_is_longer(
        base in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        keep in any::<prop::sample::Index>(),
        (whole, is_empty, reset, silent) in any::<(bool, bool, bool, bool)>(),
        protocol in prop::sample::select(vec![6, 17]),
    ) {
        let others = [errors(), echoes(), peculiar(), datagrams()].concat().into_iter().map(|(_, frame)| frame);
        let bases: Vec<_> =
            unbalanced4().into_iter().chain(unbalanced6()).map(|row| row.frame).chain(others).collect();
        let original = base.get(&bases);
        let mut frame = original.clone();
        // A header that says another version is still one of its EtherType.
        let at = 2 + original.windows(2).position(|kind| matches!(kind, [8, 0] | [0x86, 0xdd])).unwrap();
        let is4 = original[at - 2] == 8;
        let (kept, shortest) = if is4 { (at + 16..at + 20, at + 20) } else { (at + 24..at + 40, at + 40) };
        for (change, byte) in changes {
            let change = change.index(frame.len());
            if change >= at && !kept.contains(&change) {
                frame[change] = byte;
            }
        }
        if !whole {
            frame.truncate(shortest + keep.index(frame.len() - shortest + 1));
        }
        let mut tables = FakeTables::with_members(1);
        tables.unserved = if reset { Unserved::Reset } else { Unserved::Drop };
        tables.silent = silent;
        tables.answers.set(1_000);
        tables.serve4(VIP4, PORT, protocol);
        tables.serve6(VIP6, PORT, protocol);
        if is_empty {
            tables.set_owner(0);
        }
        let (verdict, out) = run(&tables, &frame);
        prop_assert_ne!(verdict, Verdict::Pass);
        let answers = [Counter::Reset, Counter::PortUnreachable, Counter::EchoReply];
        let answered: u64 = answers.iter().map(|counter| tables.counted(*counter)).sum();
        if answered > 0 {
            prop_assert_eq!(verdict, Verdict::Transmit);
            prop_assert!(out.len() <= frame.len());
        }
        let counted: u64 = Counter::ALL
            .iter()
            .filter(|counter| counter.outcome() != maglev_common::counters::Outcome::Noted)
            .map(|counter| tables.counted(*counter))
            .sum();
        prop_assert_eq!(counted, 1);
    }

    /// A RST's numbers, against the rules read anew.
    #[test]
    fn a_rst_has_the_numbers_of_its_segment(
        flags in any::<u8>(), offset in any::<u8>(), sequence in any::<u32>(), acknowledged in any::<u32>(),
        ports in any::<u32>(), length in 0_u32..70_000,
    ) {
        let segment = Tcp {
            ports: U32::new(ports), sequence: sequence.into(), acknowledged: acknowledged.into(), offset, flags,
            window: [1; 2], checksum: U16::new(7), urgent: [1; 2],
        };
        let header = u32::from(offset >> 4) * 4;
        let is_answered = flags & RST == 0 && (20..=60).contains(&header) && header <= length;
        let answer = segment.reset(length);
        prop_assert_eq!(answer.is_some(), is_answered);
        let Some(answer) = answer else { return Ok(()) };
        prop_assert_eq!(answer.offset, 0x50);
        if flags & ACK != 0 {
            prop_assert_eq!((answer.sequence.get(), answer.acknowledged.get(), answer.flags), (acknowledged, 0, RST));
        } else {
            let counted = u64::from(length - header) + u64::from(flags & SYN == SYN) + u64::from(flags & FIN == FIN);
            let next = ((u64::from(sequence) + counted) & 0xffff_ffff) as u32;
            prop_assert_eq!((answer.sequence.get(), answer.acknowledged.get(), answer.flags), (0, next, RST | ACK));
        }
    }
}
