//! Fragments go where their datagram's first went, as its flow does; others are dropped.

use std::vec::Vec;

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

fn served() -> FakeTables {
    let mut tables = tables(backend4());
    tables.serve4(VIP4, PORT, 17);
    tables.serve6(VIP6, PORT, 17);
    tables
}

/// The outer source and destination of what is sent.
fn outer(sent: &[u8]) -> ([u8; 4], [u8; 4]) {
    (sent[26..30].try_into().unwrap(), sent[30..34].try_into().unwrap())
}

#[test]
fn all_fragments_follow_the_first_from_one_source() {
    for (what, _, fragments) in fragmented() {
        let tables = served();
        let l3 = if what.contains("two VLAN tags") {
            22
        } else if what.contains("a VLAN tag") {
            18
        } else {
            14
        };
        let mut outers = Vec::new();
        for frame in &fragments {
            let (verdict, sent) = run(&tables, frame);
            assert_eq!(verdict, Verdict::Transmit, "{what}");
            assert_eq!(sent[34..], frame[l3..], "{what}: untouched");
            outers.push(outer(&sent));
        }
        assert!(outers.iter().all(|outer| *outer == (outers[0].0, BACKEND4)), "{what}: {outers:?}");
        assert_eq!((tables.counted(Counter::Transmitted), tables.counted(Counter::FragmentNoted)), (3, 1), "{what}");
        let bytes: usize = fragments.iter().map(Vec::len).sum();
        assert_eq!((tables.vip_bytes.get(), tables.member_bytes.get()), (bytes as u64, bytes as u64), "{what}");
    }
}

#[test]
fn what_comes_before_its_first_or_too_late_is_dropped() {
    for (what, _, fragments) in fragmented() {
        let tables = served();
        let unknown = |frame: &[u8], times: u64| {
            assert_eq!(run(&tables, frame), (Verdict::Drop, frame.to_vec()), "{what}");
            assert_eq!(tables.counted(Counter::FragmentUnknown), times, "{what}");
        };
        unknown(&fragments[1], 1);
        assert_eq!(run(&tables, &fragments[0]).0, Verdict::Transmit, "{what}");
        assert_eq!(run(&tables, &fragments[2]).0, Verdict::Transmit, "{what}: in any order behind the first");
        tables.advance(8);
        unknown(&fragments[1], 2);
        assert_eq!(run(&tables, &fragments[0]).0, Verdict::Transmit, "{what}: it is sent again");
        unknown(&other_datagram(&fragments[1]), 3);
    }
}

/// The same fragment of a datagram with another identification.
fn other_datagram(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let identification = [[7_u8, 9], [0xab, 0xcd]];
    let at = frame.windows(2).position(|bytes| identification.iter().any(|id| id == bytes)).unwrap();
    frame[at] ^= 1;
    frame
}

#[test]
fn a_datagram_goes_where_its_flow_goes_while_its_slot_is_in_transition() {
    for (udp, first) in [(UdpPolicy::New, 1), (UdpPolicy::Keep, 2)] {
        for (what, whole, fragments) in fragmented() {
            let mut tables = FakeTables::with_members(2);
            tables.serve4(VIP4, PORT, 17);
            tables.serve6(VIP6, PORT, 17);
            tables.move_slots(1, 2, udp);
            for id in [1_u8, 2] {
                tables.forwarding.members[usize::from(id)].destination[0].set(0x0001_000a | u64::from(id) << 24);
            }
            let goes = |frame: &[u8]| run(&tables, frame).1[33];
            assert_eq!(goes(&fragments[0]), first, "{what}");
            assert_eq!([goes(&whole), goes(&fragments[2])], [first; 2], "{what}: by its entry, and by the note");
        }
    }
}

#[test]
fn so_many_datagrams_may_begin_in_a_second() {
    for (what, _, fragments) in fragmented() {
        let tables = served();
        tables.fragmented.set(1);
        assert_eq!(run(&tables, &fragments[0]).0, Verdict::Transmit, "{what}");
        assert_eq!(run(&tables, &other_datagram(&fragments[0])).0, Verdict::Drop, "{what}");
        assert_eq!(run(&tables, &fragments[1]).0, Verdict::Transmit, "{what}: what began goes on");
        assert_eq!(tables.counted(Counter::FragmentLimit), 1, "{what}");
    }
}

#[test]
fn a_fragment_that_does_not_fit_is_dropped_and_a_first_one_with_df_is_answered() {
    use maglev_common::backend::InterfaceRecord;
    let (_, _, fragments) = fragmented().remove(0);
    let mut tables = served();
    run(&tables, &fragments[0]);
    tables.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, 40);
    assert_eq!(run(&tables, &fragments[1]).0, Verdict::Drop);
    assert_eq!(run(&tables, &fragments[0]).0, Verdict::Drop, "without DF");
    assert_eq!(tables.counted(Counter::TooBig), 2);

    let mut long = fragments[0].clone();
    long.resize(14 + 28 + 1_456, 0xee);
    long[16..18].copy_from_slice(&1_484_u16.to_be_bytes());
    long[20] |= 0x40;
    tables.forwarding.interfaces[0] = InterfaceRecord::new(NODE_MAC, 7, 1_400);
    assert_eq!(run(&tables, &long).0, Verdict::Transmit);
    assert_eq!(tables.counted(Counter::PacketTooBig), 1);
}

#[test]
fn a_member_that_died_gets_no_later_fragments() {
    let (_, _, fragments) = fragmented().remove(0);
    let tables = served();
    run(&tables, &fragments[0]);
    tables.kill(1);
    assert_eq!(run(&tables, &fragments[1]).0, Verdict::Drop);
    assert_eq!(tables.counted(Counter::NoBackend), 1);
}
