//! VLAN devices: packets to next hops behind them, and checks, leave with their tags; they follow the devices. The devices are
//! those of a list: the running kernel need not have any.

use maglev_common::backend::{Tag, mac_word};
use maglev_common::forwarding::OwnMac;
use maglev_ebpf::fixtures::{self, HOP_MAC};
use maglev_net::links::{LinkState, Vlan};

use super::packets::{self, plan};
use super::{egress, *};

const VLAN_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];

/// The interfaces that exist, and VLAN 100 on the first of the two, VLAN 200 of a provider on the second.
fn links_with_vlans() -> Vec<Link> {
    let mut links = links();
    for (index, below, id, protocol) in [(4_100, "eth1", 100, 0x8100), (4_200, "eth2", 200, 0x88a8)] {
        let on = links.iter().find(|link| link.name == below).unwrap().index;
        let name = format!("{below}.{id}");
        let vlan = Some(Vlan { on, id, protocol });
        links.push(Link {
            index,
            name,
            mac: Some(VLAN_MAC),
            mtu: 1_400,
            state: LinkState::Up,
            xdp: None,
            vlan,
            master: None,
        });
    }
    links
}

fn slots(plane: &Dataplane) -> Vec<(u32, u16, u16)> {
    plane.vlans().iter().map(|device| (device.index, device.slot, device.vlan())).collect()
}

fn to_slot(id: u16, slot: u16) -> Step {
    Step::SetNextHop { id: member(id), next_hop: NextHop::new(HOP_MAC, InterfaceSlot(slot)) }
}

fn tagged(mut frame: Vec<u8>, tag: Tag) -> Vec<u8> {
    frame.splice(12..12, tag.0.to_le_bytes());
    frame
}

#[test]
fn packets_leave_with_the_tag_of_their_next_hop() {
    in_namespace(|| {
        let mut rig = packets::Rig::new();
        assert_eq!(rig.plane.refresh(&links_with_vlans()), Refresh::default());
        assert_eq!(slots(&rig.plane), [(4_100, 2, 100), (4_200, 3, 200)]);
        let tags = [Tag::new(0x8100, 100), Tag::new(0x88a8, 200)];
        let sent = [(action::TX, Counter::Transmitted), (action::REDIRECT, Counter::Redirected)];
        let frames = [fixtures::tcp4(b"hello"), fixtures::tcp6(b"hello"), fixtures::udp4(fixtures::VIP4, 80)];
        let errors = fixtures::errors().into_iter().map(|(_, frame)| frame);
        for frame in frames.into_iter().chain(errors) {
            for id in [1, 2] {
                rig.plane.publish(&[to_slot(id, 0)]).unwrap();
            }
            let (_, mut plain, _) = rig.counted(&frame);
            plain[6..12].copy_from_slice(&VLAN_MAC);
            for (n, ((action, fate), tag)) in sent.into_iter().zip(tags).enumerate() {
                for id in [1, 2] {
                    rig.plane.publish(&[to_slot(id, 2 + n as u16)]).unwrap();
                }
                for came in [frame.clone(), tagged(frame.clone(), Tag::new(0x8100, 5))] {
                    let (done, out, counted) = rig.counted(&came);
                    assert_eq!((done, counted), (action, fate));
                    assert_eq!(out, tagged(plain.clone(), tag));
                }
            }
        }
    });
}

#[test]
fn the_smaller_mtu_of_a_vlan_device_and_its_interface_bounds_packets() {
    in_namespace(|| {
        let mut rig = packets::Rig::new();
        let mut links = links_with_vlans();
        rig.plane.refresh(&links);
        rig.plane.publish(&[to_slot(1, 2)]).unwrap();
        let fate = |rig: &mut packets::Rig, length: usize| rig.counted(&fixtures::tcp4(&vec![7; length - 40])).2;
        assert_eq!([1_380, 1_381].map(|n| fate(&mut rig, n)), [Counter::Transmitted, Counter::PacketTooBig]);
        links.iter_mut().find(|link| link.name == "eth1").unwrap().mtu = 1_300;
        rig.plane.refresh(&links);
        assert_eq!([1_280, 1_281].map(|n| fate(&mut rig, n)), [Counter::Transmitted, Counter::PacketTooBig]);
    });
}

#[test]
fn frames_to_a_vlan_device_that_comes_and_goes() {
    in_namespace(|| {
        let mut rig = packets::Rig::new();
        let mut frame = tagged(fixtures::tcp4(b""), Tag::new(0x8100, 100));
        frame[..6].copy_from_slice(&VLAN_MAC);
        let there = links_with_vlans();
        let fate = |rig: &mut packets::Rig| rig.counted(&frame).2;
        rig.plane.refresh(&there);
        rig.plane.publish(&[to_slot(1, 2)]).unwrap();
        assert_eq!(fate(&mut rig), Counter::Transmitted);
        rig.plane.refresh(&links());
        assert!(slots(&rig.plane).is_empty());
        assert_eq!(fate(&mut rig), Counter::OtherMac, "it is addressed to another host");
        assert_eq!(rig.counted(&fixtures::tcp4(b"")).2, Counter::NextHopUnresolved);
        rig.plane.refresh(&there);
        assert_eq!(fate(&mut rig), Counter::Transmitted);
    });
}

#[test]
fn checks_leave_with_the_tag_of_their_next_hop_beside_their_bytes() {
    in_namespace(|| {
        let mut rig = egress::Rig::new();
        let plain = rig.run(&fixtures::tcp4(b""), egress::check(1)).1;
        rig.plane.refresh(&links_with_vlans());
        rig.plane.publish(&plan()).unwrap();
        for (slot, redirected) in [(2, false), (3, true)] {
            rig.plane.publish(&[to_slot(1, slot)]).unwrap();
            for came in [fixtures::tcp4(b""), tagged(fixtures::tcp4(b""), Tag::new(0x8100, 100))] {
                let (action, out, mark, counted) = rig.run(&came, egress::check(1));
                assert_eq!((action, mark, counted), (if redirected { 7 } else { u32::MAX }, 0, [1, 0, 0]));
                assert_eq!((&out[..6], &out[6..12], &out[12..]), (&plain[..6], &VLAN_MAC[..], &plain[12..]));
            }
        }
    });
}

#[test]
fn frames_that_come_in_by_a_bonds_member_are_compared_with_the_bonds_address_at_once() {
    in_namespace(|| {
        let mut rig = packets::Rig::new();
        let mut links = links();
        let [bond, other] = ["eth1", "eth2"].map(|name| links.iter().find(|link| link.name == name).unwrap().clone());
        let own = |rig: &packets::Rig| rig.plane.maps.forwarding().own_mac(4_100);
        assert_eq!(own(&rig), OwnMac::NONE, "which of the two interfaces it is part of is not known");
        links.push(Link { index: 4_100, name: "member".to_owned(), master: Some(bond.index), ..bond.clone() });
        rig.plane.refresh(&links);
        assert_eq!(own(&rig), OwnMac::new(mac_word(bond.mac.unwrap())));
        let [first, second] = [bond, other].map(|link| mac_word(link.mac.unwrap()));
        let owns = |mac| rig.plane.maps.forwarding().owns(4_100, mac);
        assert!(owns(first) && owns(second), "at a second look, any of the node's addresses is its own");
    });
}
