//! Faults that were found by running the product, each with others of its kind, through the object that ships.

use maglev_ebpf::fixtures::{self, HOP_MAC, NODE_MAC, PORT, Unbalanced, VIP4};
use maglev_testing::matrix::Row;

use super::super::egress::check;
use super::super::outlive::Folder;
use super::super::packets::Rig;
use super::super::*;

/// A frame, addressed to another MAC address.
fn to(mac: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame
}

#[test]
fn frames_that_are_not_addressed_to_the_node_are_the_hosts() {
    in_namespace(|| {
        let mut rig = Rig::new();
        let mut row = Row::fault("D3", "frames to other hosts', broadcast and multicast MAC addresses pass, counted");
        let rows = fixtures::misaddressed();
        row.says(format!("{} kinds of frames", rows.len()));
        for Unbalanced { what, frame, reason } in rows {
            assert_eq!(rig.counted(&frame), (action::PASS, frame, reason), "{what}");
        }
    });
}

#[test]
fn each_interface_has_its_own_mac_address_and_a_change_is_followed() {
    in_namespace(|| {
        let mut rig = Rig::new();
        let frame = || fixtures::tcp4(b"hello");
        let (first, second) = (rig.ingress(), rig.plane.interfaces()[1].index);
        let (second_mac, new) = (rig.plane.interfaces()[1].mac, [2, 0, 0, 0, 0, 0x77]);
        let row = Row::fault("D3", "an interface does not accept frames for another interface's MAC address");
        assert_eq!(rig.harness.run(second, &frame()).0, action::PASS);
        assert_eq!(rig.harness.run(second, &to(second_mac, frame())).0, action::REDIRECT);
        assert_eq!(rig.harness.run(first, &to(second_mac, frame())).0, action::PASS);
        drop(row);
        let _row = Row::fault("D3", "a MAC address that changes while packets come in");
        ip("link set eth1 address 02:00:00:00:00:77");
        assert_eq!(rig.plane.refresh(&links()), Refresh::default());
        assert_eq!(rig.harness.run(first, &frame()).0, action::PASS);
        let (verdict, sent) = rig.harness.run(first, &to(new, frame()));
        assert_eq!((verdict, &sent[6..12]), (action::TX, &new[..]));
    });
}

#[test]
fn further_mac_addresses_are_balanced_where_the_node_file_names_them() {
    in_namespace(|| {
        let _row = Row::fault("D3", "a virtual router's MAC address in `also`");
        let virtual_router = [0, 0, 0x5e, 0, 1, 7];
        let mut rig = Rig::with_also(&[virtual_router]);
        for frame in [fixtures::tcp4(b"hello"), fixtures::udp4(VIP4, PORT), fixtures::tcp6(b"hello")] {
            let own = rig.counted(&frame);
            let (verdict, out, fate) = rig.counted(&to(virtual_router, frame.clone()));
            assert_eq!((verdict, fate), (action::TX, Counter::Transmitted));
            assert_eq!(out, own.1, "sent as what came to its own address");
            assert_eq!(rig.counted(&to(HOP_MAC, frame)).2, Counter::OtherMac);
        }
        let second = rig.plane.interfaces()[1].index;
        let frame = to(virtual_router, fixtures::tcp4(b"hello"));
        assert_eq!(rig.harness.run(second, &frame).0, action::PASS, "of that interface alone");
    });
}

#[test]
fn trailers_are_cut_where_the_frame_would_not_fit() {
    in_namespace(|| {
        let mut rig = Rig::new();
        let longest = 1_500 - 20 - 40;
        for (case, payload, trailer, length) in [
            ("a trailer by which a frame is too long is cut: what is counted as sent is sent", 100, 1_450, 100 + 20),
            ("by a byte, of the longest packet that fits", longest, 1, 1_500 - 40),
            ("padding that fits stays", 100, 30, 100 + 20 + 30),
        ] {
            let _row = Row::fault("D6", case);
            let bare = fixtures::tcp4(&vec![7; payload]);
            let expected = rig.counted(&bare).1;
            let padded = [bare.clone(), vec![0xee; trailer]].concat();
            let (verdict, out, fate) = rig.counted(&padded);
            assert_eq!((verdict, fate), (action::TX, Counter::Transmitted));
            assert_eq!(out.len(), 14 + 40 + length, "within the MTU of 1,500");
            assert_eq!(out[..expected.len()], expected);
        }
        let _row =
            Row::fault("D6", "what is too long without its trailer, and has no DF, stays too_big, and is left alone");
        let mut padded = [fixtures::tcp4(&vec![7; longest + 1]), vec![0xee; 50]].concat();
        padded[20] = 0;
        let before = rig.plane.snapshot().vip(VipId(0));
        assert_eq!(rig.counted(&padded), (action::DROP, padded.clone(), Counter::TooBig));
        let after = rig.plane.snapshot().vip(VipId(0));
        assert_eq!((after.packets, after.bytes), (before.packets + 1, before.bytes + padded.len() as u64), "once");
    });
}

#[test]
fn packets_without_hops_left_are_dropped() {
    in_namespace(|| {
        let mut rig = Rig::new();
        for (case, at, frame) in [
            ("a TTL of 0", 22, fixtures::tcp4(b"hello")),
            ("a hop limit of 0", 21, fixtures::tcp6(b"hello")),
            ("a datagram's TTL of 0", 22, fixtures::udp4(VIP4, PORT)),
        ] {
            let _row = Row::fault("D9", case);
            let with = |hops| {
                let mut frame = frame.clone();
                frame[at] = hops;
                frame
            };
            assert_eq!(rig.counted(&with(0)), (action::DROP, with(0), Counter::HopLimit));
            assert_eq!(rig.counted(&with(1)).2, Counter::Transmitted, "the last hop");
            assert_eq!(rig.counted(&to(HOP_MAC, with(0))).2, Counter::OtherMac);
        }
    });
}

#[test]
fn a_removed_backend_is_no_longer_checked() {
    in_namespace(|| {
        let mut rig = egress::Rig::new();
        let frame = fixtures::tcp4(b"");
        let counted = |rig: &mut egress::Rig, id| rig.run(&frame, check(id)).3;
        let row = Row::fault("D15", "a removed backend's number is dead at egress at once");
        assert_eq!(counted(&mut rig, 1), [1, 0, 0]);
        rig.plane.publish(&[Step::RemoveMember { id: member(1) }]).unwrap();
        assert_eq!(counted(&mut rig, 1), [0, 0, 1]);
        drop(row);
        let row = Row::fault("D15", "one that is only unhealthy is checked on");
        rig.plane.publish(&[Step::KillMember { id: member(2) }]).unwrap();
        assert_eq!(counted(&mut rig, 2), [1, 0, 0]);
        rig.plane.publish(&[Step::RemoveMember { id: member(2) }]).unwrap();
        assert_eq!(counted(&mut rig, 2), [0, 0, 1], "until it is removed as well");
        drop(row);
        let _row = Row::fault("D15", "a number that is given out again");
        rig.plane.publish(&[Step::WriteMember { id: member(1), record: record(0) }]).unwrap();
        assert_eq!(counted(&mut rig, 1), [1, 0, 0]);
    });
}

#[test]
fn dead_members_of_another_daemon_are_removed_when_its_maps_are_adopted() {
    in_namespace(|| {
        let _row = Row::fault("D15", "numbers that a killed daemon had not cleared");
        let (_peer, folder) = (two_veths(), Folder::new());
        let settings = settings(&[("eth1", Mode::Native)]);
        let mut plane = Dataplane::replace(&settings, &links(), &folder.hold()).unwrap();
        plane.publish(&first_plan()).unwrap();
        plane.publish(&[Step::WriteMember { id: member(2), record: record(0) }]).unwrap();
        plane.publish(&[Step::KillMember { id: member(2) }]).unwrap();
        plane.outlive().unwrap();
        let set = plane.set().unwrap().1.to_owned();
        drop(plane);
        let plane = Dataplane::adopt(&settings, &links(), &folder.hold(), &set).unwrap();
        let known = |id| plane.maps.forwarding().member(member(id)).state().is_member();
        assert_eq!((known(1), known(2)), (true, false));
        assert_eq!(plane.interfaces()[0].mac, NODE_MAC);
        plane.stop();
    });
}
