//! The tag of the outgoing frame is that of the next hop, byte for byte, whatever tags the packet came with.

use std::vec::Vec;

use maglev_common::backend::{InterfaceRecord, MemberRecord, NextHop, Tag};
use maglev_common::mark::Mark;

use super::*;
use crate::fixtures::*;
use crate::path::egress::{Departure, Origin, depart};
use crate::path::forward::forward;
use crate::testing::{FakeTables, INGRESS, backend4, backend6, member, tables};

const OTHER: u32 = INGRESS + 1;
const VLAN_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const VLAN: Tag = Tag::new(0x8100, 100);
const SERVICE: Tag = Tag::new(0x88a8, 0xfff);

/// Slots: the interface that packets come in by, a VLAN device on it, another interface, and one on that.
fn tables_with(record: MemberRecord, slot: u16) -> FakeTables {
    let tables = tables(record);
    for (slot, record) in [
        (1, InterfaceRecord::new(VLAN_MAC, INGRESS, 1_500).tagged(VLAN)),
        (2, InterfaceRecord::new(OTHER_MAC, OTHER, 1_600)),
        (3, InterfaceRecord::new(OTHER_MAC, OTHER, 1_500).tagged(SERVICE)),
    ] {
        tables.forwarding.set_interface(slot, &record);
    }
    tables.forwarding.members[1].set_next_hop(NextHop::new(HOP_MAC, InterfaceSlot(slot)));
    tables.renew(1);
    tables
}

fn tagged(frame: &[u8], tags: &[Tag]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(12..12, tags.iter().flat_map(|tag| tag.0.to_le_bytes()));
    frame
}

/// What a next hop in a slot means: how frames are sent, by which source address, with which tag.
const SLOTS: [(u16, Verdict, [u8; 6], &[Tag]); 4] = [
    (0, Verdict::Transmit, NODE_MAC, &[]),
    (1, Verdict::Transmit, VLAN_MAC, &[VLAN]),
    (2, Verdict::Redirect(InterfaceSlot(2)), OTHER_MAC, &[]),
    (3, Verdict::Redirect(InterfaceSlot(3)), OTHER_MAC, &[SERVICE]),
];

/// Tags that packets come with.
const CAME: [&[Tag]; 4] = [&[], &[VLAN], &[Tag::new(0x8100, 7)], &[SERVICE, VLAN]];

#[test]
fn a_frame_leaves_with_the_tag_of_its_next_hop_and_no_other() {
    for (slot, expected, mac, tags) in SLOTS {
        for record in [backend4, backend6] {
            for frame in [tcp4(b"hello"), tcp6(b"hello")] {
                let mut plain = VecPacket::new(&frame);
                assert_eq!(forward(&mut plain, &tables_with(record(), 0)), Verdict::Transmit);
                plain.bytes[6..12].copy_from_slice(&mac);
                for came in CAME {
                    let tables = tables_with(record(), slot);
                    let mut packet = VecPacket::new(&tagged(&frame, came));
                    assert_eq!(forward(&mut packet, &tables), expected, "slot {slot}, {came:?}");
                    assert_eq!(packet.bytes, tagged(&plain.bytes, tags), "slot {slot}, {came:?}");
                    let fates = [Counter::Transmitted, Counter::Redirected].map(|counter| tables.counted(counter));
                    assert_eq!(fates, if expected == Verdict::Transmit { [1, 0] } else { [0, 1] });
                }
            }
        }
    }
}

#[test]
fn a_frame_without_room_for_its_tag_is_dropped_and_counted() {
    let tables = tables_with(backend4(), 1);
    let mut packet = VecPacket { headroom: 23, ..VecPacket::new(&tcp4(b"")) };
    assert_eq!(forward(&mut packet, &tables), Verdict::Drop);
    assert_eq!(tables.counted(Counter::NoHeadroom), 1);
}

#[test]
fn frames_to_a_vlan_devices_address_are_balanced() {
    let frame = tagged(&tcp4(b""), &[VLAN]);
    let to = |mac: [u8; 6]| [&mac, &frame[6..]].concat();
    let verdict = |frame: &[u8]| forward(&mut VecPacket::new(frame), &tables_with(backend4(), 0));
    assert_eq!(verdict(&to(VLAN_MAC)), Verdict::Transmit);
    assert_eq!(verdict(&to(OTHER_MAC)), Verdict::Pass, "the address of another interface");
}

#[test]
fn a_check_leaves_with_the_tag_of_its_next_hop_and_no_other() {
    let check = Origin { mark: Mark::from_member(member(1)), forwarded: false };
    for (slot, verdict, mac, tags) in SLOTS {
        for frame in [tcp4(b""), tcp6(b"")] {
            let mut plain = VecPacket::new(&frame);
            assert_eq!(forward(&mut plain, &tables_with(backend4(), 0)), Verdict::Transmit);
            plain.bytes[6..12].copy_from_slice(&mac);
            let expected =
                if verdict == Verdict::Transmit { Departure::Encapsulated } else { Departure::Redirect(OTHER) };
            for came in [&[][..], &[VLAN]] {
                let mut packet = VecPacket::new(&tagged(&frame, came));
                let tables = tables_with(backend4(), slot);
                assert_eq!(depart(&mut packet, &tables, check), expected, "slot {slot}, {came:?}");
                assert_eq!(packet.bytes, tagged(&plain.bytes, tags), "slot {slot}, {came:?}");
                assert_eq!(tables.counted(Counter::CheckSent), 1);
            }
        }
    }
}
