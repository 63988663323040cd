//! Errors reach their flow's backend, and echo requests are answered: packets are built and dissected by another
//! implementation.

use std::vec;
use std::vec::Vec;

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use maglev_common::flow::WAYS;
use maglev_common::settings::UdpPolicy;

use super::*;
use crate::fixtures::*;
use crate::path::forward::forward;
use crate::testing::{BACKEND4, FakeTables, backend4, tables};

fn run(tables: &FakeTables, frame: &[u8]) -> (Verdict, Vec<u8>) {
    tables.renew(2);
    let mut packet = VecPacket::new(frame);
    (forward(&mut packet, tables), packet.bytes)
}

/// The outer source of what is sent: its host bits are the flow's.
fn outer(sent: &[u8]) -> [u8; 8] {
    sent[26..34].try_into().unwrap()
}

#[test]
fn an_error_goes_where_its_flow_goes() {
    for (what, frame) in errors() {
        let tables = tables(backend4());
        let flow = if frame[12] == 0x86 { tcp6(b"") } else { tcp4(b"") };
        let (_, segment) = run(&tables, &flow);
        let (verdict, sent) = run(&tables, &frame);
        assert_eq!(verdict, Verdict::Transmit, "{what}");
        assert_eq!(sent[34..], frame[14..], "{what}: untouched");
        assert_eq!(outer(&sent), outer(&segment), "{what}: from the flow's own address to its backend");
        assert_eq!(sent[30..34], BACKEND4);
        assert_eq!((tables.counted(Counter::IcmpError), tables.counted(Counter::Transmitted)), (1, 2), "{what}");
    }
}

#[test]
fn an_error_follows_the_rules_of_a_transition_and_writes_nothing() {
    let (owner, previous) = (1, 2);
    let goes = |tables: &FakeTables, frame: &[u8]| {
        let entries = |tables: &FakeTables| (0..WAYS).map(|way| tables.buckets[0].entry(way)).collect::<Vec<_>>();
        let before = entries(tables);
        tables.forwarding.members[2].destination[0].set(0x0c01_000a);
        let (verdict, sent) = run(tables, frame);
        assert_eq!((verdict, entries(tables)), (Verdict::Transmit, before), "nothing is written");
        if sent[33] == 12 { previous } else { owner }
    };
    let error = icmp4(3, 4, &reply4());
    let mut learning = FakeTables::with_members(2);
    learning.serve4(VIP4, PORT, 6);
    learning.move_slots(owner, previous, UdpPolicy::New);
    assert_eq!([(); 4].map(|()| goes(&learning, &error)), [owner, previous, owner, previous]);

    let mut syn = tcp4(b"");
    syn[47] = 2;
    run(&learning, &syn);
    assert_eq!(goes(&learning, &error), owner, "as the flow table has it");

    let mut tracked = FakeTables::with_members(2);
    tracked.serve4(VIP4, PORT, 6);
    tracked.move_slots(owner, 0, UdpPolicy::New);
    assert_eq!(goes(&tracked, &error), owner);

    let datagram = |policy| {
        let mut tables = FakeTables::with_members(2);
        tables.serve4(VIP4, PORT, 17);
        tables.move_slots(owner, previous, policy);
        let mut quoted = reply4();
        quoted[9] = 17;
        goes(&tables, &icmp4(3, 3, &quoted))
    };
    assert_eq!([UdpPolicy::New, UdpPolicy::Keep].map(datagram), [owner, previous]);
}

#[test]
fn an_echo_request_is_answered_with_what_it_held() {
    for (what, frame) in echoes() {
        let tables = tables(backend4());
        let (verdict, sent) = run(&tables, &frame);
        assert_eq!((verdict, tables.counted(Counter::EchoReply)), (Verdict::Transmit, 1), "{what}");
        assert_eq!([&sent[..6], &sent[6..12]], [ROUTER_MAC, NODE_MAC], "{what}");
        let [asked, answered] = [&frame, &sent].map(|frame| SlicedPacket::from_ethernet(frame).unwrap());
        assert_eq!(answered.vlan_ids(), asked.vlan_ids(), "{what}");
        assert_eq!(addresses(&answered), {
            let (source, destination, _) = addresses(&asked);
            (destination, source, 64)
        });
        match answered.transport.unwrap() {
            TransportSlice::Icmpv4(reply) => {
                assert_eq!(reply.icmp_type(), Icmpv4Type::EchoReply(IcmpEchoHeader { id: 1, seq: 0x578 }));
                let checksum = reply.icmp_type().calc_checksum(reply.payload());
                assert_eq!(reply.checksum(), checksum, "{what}");
            }
            TransportSlice::Icmpv6(reply) => {
                assert!(matches!(reply.icmp_type(), Icmpv6Type::EchoReply(_)), "{what}");
                assert!(reply.is_checksum_valid(VIP6, ROUTER6), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(sent.len(), frame.len(), "{what}: never longer");
    }
}

/// Source, destination, and hops left; an IPv4 header's checksum holds.
fn addresses(packet: &SlicedPacket<'_>) -> (Vec<u8>, Vec<u8>, u8) {
    match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (header.source.to_vec(), header.destination.to_vec(), header.time_to_live)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (header.source.to_vec(), header.destination.to_vec(), header.hop_limit)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_are_limited() {
    let tables = tables(backend4());
    tables.answers.set(2);
    let verdicts = [(); 3].map(|()| run(&tables, &icmp4(8, 0, b"ping")).0);
    assert_eq!(verdicts, [Verdict::Transmit, Verdict::Transmit, Verdict::Drop]);
    assert_eq!((tables.counted(Counter::EchoReply), tables.counted(Counter::AnswerLimit)), (2, 1));
}

#[test]
fn a_silent_address_answers_no_echo_request_and_forwards_errors() {
    let mut silent = tables(backend4());
    silent.silent = true;
    silent.serve4(VIP4, PORT, 6);
    silent.serve6(VIP6, PORT, 6);
    for (what, frame) in echoes() {
        assert_eq!(run(&silent, &frame), (Verdict::Drop, frame), "{what}");
    }
    assert_eq!((silent.counted(Counter::EchoOff), silent.answers.get()), (echoes().len() as u64, 2));
    for (what, frame) in errors() {
        assert_eq!(run(&silent, &frame).0, Verdict::Transmit, "{what}");
    }
}

#[test]
fn every_type_of_message_has_its_reason() {
    let message = |is4: bool, kind, code| if is4 { icmp4(kind, code, &reply4()) } else { icmp6(kind, code, &reply6()) };
    for (is4, errors, echo) in [(true, vec![3, 11, 12], 8), (false, vec![1, 2, 3, 4], 128)] {
        for kind in 0..=255 {
            for code in [0, 1, 4, 255] {
                let tables = tables(backend4());
                let (verdict, _) = run(&tables, &message(is4, kind, code));
                let (expected, counter) = match kind {
                    kind if errors.contains(&kind) => (Verdict::Transmit, Counter::Transmitted),
                    kind if kind == echo => (Verdict::Transmit, Counter::EchoReply),
                    _ => (Verdict::Drop, Counter::Icmp),
                };
                assert_eq!((verdict, tables.counted(counter)), (expected, 1), "{is4} {kind} {code}");
            }
        }
    }
}

#[test]
fn an_error_is_forwarded_whatever_mtu_it_holds() {
    for mtu in [0_u32, 68, 1_280, 70_000, u32::MAX] {
        for mut frame in [icmp4(3, 4, &reply4()), icmp6(2, 0, &reply6())] {
            let at = if frame[12] == 8 { 38 } else { 58 };
            frame[at..at + 4].copy_from_slice(&mtu.to_be_bytes());
            let tables = tables(backend4());
            let (verdict, sent) = run(&tables, &frame);
            assert_eq!((verdict, &sent[34..]), (Verdict::Transmit, &frame[14..]), "{mtu}");
        }
    }
}

#[test]
fn an_error_about_a_vip_without_a_backend_is_dropped_and_never_answered() {
    let mut tables = tables(backend4());
    tables.unserved = maglev_common::settings::Unserved::Reset;
    tables.serve4(VIP4, PORT, 6);
    tables.set_owner(0);
    let error = icmp4(3, 4, &reply4());
    assert_eq!(run(&tables, &error), (Verdict::Drop, error));
    assert_eq!((tables.counted(Counter::NoBackend), tables.answers.get()), (1, 2));
}

#[test]
fn an_echo_request_to_another_address_is_the_hosts() {
    let mut elsewhere = FakeTables::with_members(1);
    elsewhere.serve4([203, 0, 113, 99], PORT, 6);
    for (what, frame) in [echoes(), errors()].concat() {
        let (verdict, sent) = run(&elsewhere, &frame);
        assert_eq!((verdict, elsewhere.counted(Counter::NotVip) > 0), (Verdict::Pass, true), "{what}");
        assert_eq!(sent, frame, "{what}");
    }
}
