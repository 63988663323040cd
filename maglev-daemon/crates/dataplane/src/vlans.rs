//! VLAN devices on the interfaces the program is attached to: each takes an interface slot behind those of the interfaces, so that
//! a next hop can name it. Frames for it are sent on the interface that carries it, with its tag. And the members of bonds, by which
//! frames come in. It must not know next hops.

use std::collections::BTreeSet;

use maglev_common::backend::{InterfaceRecord, Tag, mac_word};
use maglev_common::maps::MAX_INTERFACES;
use maglev_net::links::Link;

use super::attach::{self, Interface};
use super::error::DataplaneError;
use super::maps::Maps;
use super::mode::Mode;
use super::object::Loaded;
use super::offloads;

/// A VLAN device through which packets can leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanDevice {
    /// Its index.
    pub index: u32,
    /// Its interface slot.
    pub slot: u16,
    /// The name of the interface that carries its frames, as configured.
    pub on: String,
    record: InterfaceRecord,
}

impl VlanDevice {
    /// The VLAN's number.
    pub fn vlan(&self) -> u16 {
        self.record.tag().vlan()
    }
}

/// The VLAN devices.
#[derive(Debug, Default)]
pub(super) struct Vlans {
    devices: Vec<VlanDevice>,
}

impl Vlans {
    pub(super) fn devices(&self) -> &[VlanDevice] {
        &self.devices
    }

    /// Publishes the VLAN devices that exist now on these interfaces, and takes back those that are gone. One for which there is no
    /// slot is not published.
    pub(super) fn follow(
        &mut self,
        ebpf: &mut Loaded,
        maps: &Maps,
        interfaces: &[Interface],
        links: &[Link],
    ) -> Result<(), DataplaneError> {
        let first = interfaces.len() as u16;
        let wanted = wanted(interfaces, links, maps.sizes.interfaces == 1);
        let devices = assign(&self.devices, first, wanted, |slot| tag_in(maps, slot));
        let kept: BTreeSet<u16> = devices.iter().map(|device| device.slot).collect();
        for slot in (first..MAX_INTERFACES as u16).filter(|slot| !kept.contains(slot)) {
            if tag_in(maps, slot).is_some() {
                attach::withdraw(maps, usize::from(slot));
            }
        }
        for device in &devices {
            let now = &maps.forwarding().interfaces[usize::from(device.slot)];
            if !self.devices.contains(device) || *now != device.record {
                attach::publish(ebpf, maps, usize::from(device.slot), &device.record)?;
                warn_of_stripped_tags(device, interfaces);
                tracing::info!(
                    index = device.index,
                    interface = device.on,
                    vlan = device.vlan(),
                    slot = device.slot,
                    "VLAN device found"
                );
            }
        }
        self.devices = devices;
        follow_members(maps, interfaces, links);
        Ok(())
    }
}

/// Frames come in by the members of a bond, to the bond's address. To be done after every change of a record.
fn follow_members(maps: &Maps, interfaces: &[Interface], links: &[Link]) {
    for link in links {
        let bond = |interface: &&Interface| interface.exists() && link.master == Some(interface.index);
        if let Some(bond) = interfaces.iter().find(bond) {
            maps.forwarding().set_member_of_interface(link.index, mac_word(bond.mac));
        }
    }
}

/// Frames whose tags the card strips are balanced all the same; but what the node itself answers goes back without a tag.
fn warn_of_stripped_tags(device: &VlanDevice, interfaces: &[Interface]) {
    let native = interfaces.iter().any(|interface| interface.name == device.on && interface.mode == Mode::Native);
    if native && offloads::strips_tags(&device.on) == Some(true) {
        tracing::warn!(
            interface = device.on,
            vlan = device.vlan(),
            "the network card strips VLAN tags before XDP sees frames: answers of the node itself, such as to pings of VIPs, are sent \
             without a tag; turn it off with `ethtool -K {} rxvlan off`",
            device.on
        );
    }
}

/// A VLAN device without its slot.
struct Wanted {
    index: u32,
    on: String,
    record: InterfaceRecord,
}

/// The VLAN devices on interfaces, by index.
fn wanted(interfaces: &[Interface], links: &[Link], alone: bool) -> Vec<Wanted> {
    let on = |index: u32| interfaces.iter().find(|interface| interface.exists() && interface.index == index);
    let mut wanted: Vec<_> = links
        .iter()
        .filter_map(|link| {
            let (vlan, mac) = (link.vlan?, link.mac?);
            let on = on(vlan.on)?;
            let record = InterfaceRecord::new(mac, on.index, link.mtu.min(on.mtu));
            let record = record.tagged(Tag::new(vlan.protocol, vlan.id));
            let record = if alone { record.alone() } else { record };
            Some(Wanted { index: link.index, on: on.name.clone(), record })
        })
        .collect();
    wanted.sort_by_key(|device| device.index);
    wanted
}

/// What a slot holds of a VLAN device: the index of the interface that carries it, and its tag.
fn tag_in(maps: &Maps, slot: u16) -> Option<(u32, Tag)> {
    let record = maps.forwarding().interfaces.get(usize::from(slot))?;
    record.tag().exists().then(|| (record.index(), record.tag()))
}

/// Gives each a slot: the one it has, or the previous daemon gave it, or a free one. The first of those for which there is none,
/// and all after it, get none.
fn assign(
    before: &[VlanDevice],
    first: u16,
    wanted: Vec<Wanted>,
    held: impl Fn(u16) -> Option<(u32, Tag)>,
) -> Vec<VlanDevice> {
    let slots = || first..MAX_INTERFACES as u16;
    let known = |of: &Wanted| {
        let mine = before.iter().find(|device| device.index == of.index).map(|device| device.slot);
        mine.or_else(|| slots().find(|slot| held(*slot) == Some((of.record.index(), of.record.tag()))))
    };
    let mut taken: BTreeSet<u16> = BTreeSet::new();
    let known: Vec<_> = wanted.iter().map(|of| known(of).filter(|slot| taken.insert(*slot))).collect();
    let mut devices = Vec::new();
    for (Wanted { index, on, record }, known) in wanted.into_iter().zip(known) {
        let Some(slot) = known.or_else(|| slots().find(|slot| !taken.contains(slot))) else { continue };
        taken.insert(slot);
        devices.push(VlanDevice { index, slot, on, record });
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32, vlan: u16) -> Wanted {
        let record = InterfaceRecord::new([2; 6], 3, 1_500).tagged(Tag::new(0x8100, vlan));
        Wanted { index, on: "eth0".to_owned(), record }
    }

    fn slots(devices: &[VlanDevice]) -> Vec<(u32, u16)> {
        devices.iter().map(|device| (device.index, device.slot)).collect()
    }

    #[test]
    fn a_vlan_device_keeps_its_slot() {
        let first = assign(&[], 2, vec![device(10, 100), device(11, 200)], |_| None);
        assert_eq!(slots(&first), [(10, 2), (11, 3)]);
        let second = assign(&first, 2, vec![device(9, 300), device(11, 200)], |_| None);
        assert_eq!(slots(&second), [(9, 2), (11, 3)], "what is free is used again");
    }

    #[test]
    fn slots_of_the_previous_daemon_are_taken_over() {
        let held = |slot| (slot == 5).then(|| (3, Tag::new(0x8100, 200)));
        let devices = assign(&[], 2, vec![device(10, 100), device(11, 200)], held);
        assert_eq!(slots(&devices), [(10, 2), (11, 5)]);
    }

    #[test]
    fn there_are_no_more_devices_than_slots() {
        let many = |n: u16| (0..n).map(|n| device(10 + u32::from(n), n)).collect();
        let devices = assign(&[], 1, many(70), |_| None);
        assert_eq!(devices.len(), MAX_INTERFACES as usize - 1);
        let again = assign(&devices, 1, many(70), |_| None);
        assert_eq!(slots(&again), slots(&devices));
    }
}
