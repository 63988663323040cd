//! Outgoing packets, byte for byte, compared with the encapsulated form of a client's packet of the same flow.

use std::vec::Vec;

use maglev_common::backend::{InterfaceRecord, InterfaceSlot, MemberState, NextHop};
use proptest::prelude::*;

use super::*;
use crate::fixtures::*;
use crate::path::forward::forward;
use crate::testing::{FakeTables, INGRESS, backend4, backend6, member, tables};
use crate::verdict::Verdict;

fn check(id: u16) -> Origin {
    Origin { mark: Mark::from_member(member(id)), forwarded: false }
}

const UNMARKED: Origin = Origin { mark: Mark(0), forwarded: false };

fn run(tables: &FakeTables, bytes: &[u8], from: Origin) -> (Departure, Vec<u8>) {
    let mut packet = VecPacket::new(bytes);
    let departure = depart(&mut packet, tables, from);
    (departure, packet.bytes)
}

fn counted(tables: &FakeTables) -> [u64; 3] {
    [Counter::CheckSent, Counter::CheckUnsent, Counter::Stray].map(|counter| tables.counted(counter))
}

#[test]
fn a_check_gets_the_outer_header_that_a_clients_packet_of_its_flow_gets() {
    for record in [backend4, backend6] {
        for frame in [tcp4(b"hello"), tcp6(b"hello")] {
            let tables = tables(record());
            tables.renew(1);
            let mut clients = VecPacket::new(&frame);
            assert_eq!(forward(&mut clients, &tables), Verdict::Transmit);
            assert_eq!(run(&tables, &frame, check(1)), (Departure::Encapsulated, clients.bytes));
            assert_eq!(counted(&tables), [1, 0, 0]);
        }
    }
}

#[test]
fn a_check_goes_to_the_member_of_its_mark_whoever_owns_the_slot_and_dead_or_alive() {
    let mut tables = tables(backend4());
    tables.forwarding.members[2] = backend6();
    tables.set_owner(0);
    tables.kill(1);
    tables.kill(2);
    let sent = [1, 2].map(|id| run(&tables, &tcp4(b""), check(id)));
    assert_eq!(sent.each_ref().map(|(departure, _)| *departure), [Departure::Encapsulated; 2]);
    assert_eq!(sent.each_ref().map(|(_, bytes)| bytes[12..14].to_vec()), [[8, 0], [0x86, 0xdd]]);
    assert_eq!(counted(&tables), [2, 0, 0]);
}

#[test]
fn a_check_of_a_member_that_was_removed_is_a_stray() {
    let tables = tables(backend4());
    tables.kill(1);
    assert_eq!(run(&tables, &tcp4(b""), check(1)).0, Departure::Encapsulated, "its backend still exists");
    tables.forwarding.members[1].state.set(MemberState::NONE.0);
    for id in [1, 9] {
        assert_eq!(run(&tables, &tcp4(b""), check(id)), (Departure::Drop, tcp4(b"")));
    }
    assert_eq!(counted(&tables), [1, 0, 2]);
}

#[test]
fn a_check_leaves_by_the_interface_of_its_member() {
    let mut tables = tables(backend4());
    tables.forwarding.interfaces[1] = InterfaceRecord::new([2, 0, 0, 0, 0, 2], INGRESS + 1, 1_600);
    tables.forwarding.members[1].next_hop.set(NextHop::new(HOP_MAC, InterfaceSlot(1)).0);
    let (departure, bytes) = run(&tables, &tcp6(b""), check(1));
    assert_eq!(departure, Departure::Redirect(INGRESS + 1));
    assert_eq!(bytes[6..12], [2, 0, 0, 0, 0, 2], "the source is the outgoing interface's MAC address");
    assert_eq!(run(&tables, &bytes, UNMARKED), (Departure::Pass, bytes), "there it meets the program once more");
}

#[test]
fn a_check_of_any_port_is_sent() {
    let tables = tables(backend4());
    assert_eq!(run(&tables, &udp4(VIP4, 5_353), check(1)).0, Departure::Encapsulated, "check.port is no VIP's");
}

#[test]
fn what_the_node_itself_has_for_a_vip_goes_no_further() {
    for frame in [tcp4(b""), tcp6(b""), udp4(VIP4, 53), udp6(1)] {
        for mark in [0, 7, Mark::PREFIX, !Mark::PREFIX] {
            let tables = tables(backend4());
            let from = Origin { mark: Mark(mark), forwarded: false };
            assert_eq!(run(&tables, &frame, from), (Departure::Drop, frame.clone()), "{mark:#x}");
            assert_eq!(counted(&tables), [0, 0, 1]);
        }
    }
    for Unbalanced { what, frame, .. } in unbalanced4().into_iter().chain(unbalanced6()) {
        let tables = tables(backend4());
        assert_eq!(run(&tables, &frame, UNMARKED).0, Departure::Drop, "{what}");
        assert_eq!(counted(&tables), [0, 0, 1], "{what}");
    }
}

#[test]
fn what_the_node_passes_on_or_has_for_others_leaves_as_it_is() {
    let served = tables(backend4());
    for mark in [0, Mark::from_member(member(1)).0] {
        let from = Origin { mark: Mark(mark), forwarded: true };
        assert_eq!(run(&served, &tcp4(b""), from), (Departure::Pass, tcp4(b"")));
    }
    for Unbalanced { what, frame, .. } in passed() {
        for from in [UNMARKED, check(1)] {
            assert_eq!(run(&served, &frame, from), (Departure::Pass, frame.clone()), "{what}");
        }
    }
    assert_eq!(counted(&served), [0; 3]);
}

#[test]
fn a_check_that_cannot_be_sent_is_kept_back() {
    type Change = fn(&mut FakeTables);
    let rows: [(&str, Change); 3] = [
        ("no neighbor", |t| t.forwarding.members[1].next_hop.set(0)),
        ("no such interface", |t| t.forwarding.interfaces[0] = InterfaceRecord::default()),
        ("too long", |t| t.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, INGRESS, 59)),
    ];
    for (what, change) in rows {
        let mut tables = tables(backend4());
        change(&mut tables);
        assert_eq!(run(&tables, &tcp4(b""), check(1)), (Departure::Drop, tcp4(b"")), "{what}");
        assert_eq!(counted(&tables), [0, 1, 0], "{what}");
    }
    // Another port is no matter, but in fragments; else what is not balanced of clients is not sent of checks.
    for Unbalanced { what, frame, reason } in unbalanced4().into_iter().chain(unbalanced6()) {
        let tables = tables(backend4());
        let whole = reason == Counter::NoSuchVip && !what.contains("fragment");
        let (departure, sent) = if whole { (Departure::Encapsulated, 1) } else { (Departure::Drop, 0) };
        assert_eq!(run(&tables, &frame, check(1)).0, departure, "{what}");
        assert_eq!(counted(&tables), [sent, 1 - sent, 0], "{what}");
    }
}

proptest! {
    #[test]
    fn any_bytes_leave_as_they_are_or_encapsulated_whole(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        v6 in any::<bool>(),
        keep in 0_usize..70,
        mark in prop_oneof![Just(0), Just(Mark::from_member(member(1)).0), any::<u32>()],
    ) {
        let mut frame = if v6 { tcp6(b"") } else { tcp4(b"") };
        frame.truncate(keep);
        frame.extend(&bytes);
        let tables = tables(backend4());
        let (departure, after) = run(&tables, &frame, Origin { mark: Mark(mark), forwarded: false });
        let counted: u64 = counted(&tables).iter().sum();
        match departure {
            Departure::Encapsulated => prop_assert_eq!((&after[34..], counted), (&frame[14..], 1)),
            Departure::Drop => prop_assert_eq!((&after, counted), (&frame, 1)),
            Departure::Pass => prop_assert_eq!((&after, counted), (&frame, 0)),
            Departure::Redirect(_) => prop_assert!(false, "there is one interface"),
        }
    }
}
