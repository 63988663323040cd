//! Interfaces: those the program is attached to, their mode, and their records in the packet path. It must
//! not know tables or plans.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use aya::maps::{Map, xdp::DevMap};
use aya::programs::loaded_programs;
use maglev_common::backend::{InterfaceRecord, MemberId};
use maglev_common::maps::{DEVICES, MAX_INTERFACES};
use maglev_net::links::{AttachedXdp, Link, XdpAt};
use nix::errno::Errno;

use super::bpf::{self, LinkKind};
use super::driver_report::{DriverReport, Surroundings};
use super::error::DataplaneError;
use super::held::Held;
use super::maps::Maps;
use super::mode::Mode;
use super::object::{Loaded, Runnable};
use super::pins::{PinnedLink, Pins};

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// Its name.
    pub name: String,
    /// In which mode.
    pub mode: Mode,
    /// MAC addresses beside its own whose frames are balanced: at most [`maglev_common::backend::MAX_ALSO`].
    pub also: Vec<[u8; 6]>,
}

/// An interface the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index; 0 as long as it does not exist.
    pub index: u32,
    /// Its position in the configuration, and in the device map.
    pub slot: u16,
    /// In which mode the program is attached.
    pub mode: Mode,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// MAC addresses beside its own whose frames are balanced.
    pub also: Vec<[u8; 6]>,
    /// Its MTU in bytes, IP header included.
    pub mtu: u32,
}

impl Interface {
    /// Whether it exists, or did at the last refresh.
    pub(super) const fn exists(&self) -> bool {
        self.index != 0
    }

    /// What its driver demands in its mode.
    pub(super) fn driver_report(&self, surroundings: Surroundings<'_>) -> DriverReport {
        match self.mode {
            Mode::Native => DriverReport::read(&self.name, self.index, self.mtu, surroundings),
            Mode::Generic => DriverReport::default(),
        }
    }
}

/// Finds the configured interfaces among those that exist, each free, or held by one of our pinned links, able to carry
/// Ethernet, and within the limits of its driver.
pub(super) fn choose(
    wanted: &[InterfaceSettings],
    links: &[Link],
    ours: &BTreeMap<u32, PinnedLink>,
) -> Result<Vec<Interface>, DataplaneError> {
    let chosen = choose_or_await(wanted, links, ours)?;
    match chosen.iter().find(|interface| !interface.exists()) {
        Some(interface) => Err(absent(&interface.name, links)),
        None => Ok(chosen),
    }
}

/// The same; one that does not exist yet is waited for.
pub(super) fn choose_or_await(
    wanted: &[InterfaceSettings],
    links: &[Link],
    ours: &BTreeMap<u32, PinnedLink>,
) -> Result<Vec<Interface>, DataplaneError> {
    if wanted.is_empty() || wanted.len() > MAX_INTERFACES as usize {
        let count = wanted.len();
        return Err(DataplaneError::Setting(format!("interfaces: {count} is not within 1…{MAX_INTERFACES}")));
    }
    let surroundings = Surroundings { links, alone: wanted.len() == 1 };
    let mut chosen: Vec<Interface> = Vec::new();
    for (slot, InterfaceSettings { name, mode, also }) in (0..).zip(wanted) {
        if chosen.iter().any(|other| other.name == *name) {
            return Err(DataplaneError::Setting(format!("interfaces: {name} is named twice")));
        }
        let Some(link) = links.iter().find(|link| link.name == *name) else {
            let (name, also) = (name.clone(), also.clone());
            chosen.push(Interface { name, index: 0, slot, mode: *mode, mac: [0; 6], also, mtu: 0 });
            continue;
        };
        let Some(mac) = link.mac else {
            let reason = "it has no Ethernet address".to_owned();
            return Err(DataplaneError::Attach { interface: name.clone(), mode: *mode, reason });
        };
        let is_ours =
            |attached: &AttachedXdp| ours.get(&link.index).is_some_and(|ours| ours.program == attached.program);
        if let Some(attached) = link.xdp.filter(|attached| !is_ours(attached)) {
            return Err(foreign(name, attached));
        }
        let (name, also) = (name.clone(), also.clone());
        let interface = Interface { name, index: link.index, slot, mode: *mode, mac, also, mtu: link.mtu };
        if !runs(&interface, links) {
            interface.driver_report(surroundings).verdict()?;
        }
        chosen.push(interface);
    }
    Ok(chosen)
}

/// Whether an interface that was chosen runs our program in its mode already.
pub(super) fn runs(interface: &Interface, links: &[Link]) -> bool {
    let link = links.iter().find(|link| link.index == interface.index);
    link.and_then(|link| link.xdp).is_some_and(|attached| interface.mode.is(attached.at))
}

/// Refuses an interface that does not exist, unless it is one of those that are `known`, and lost: a wrong name must not pass as one
/// that is waited for, nor a renamed interface be detached.
pub(super) fn refuse_unknown(
    wanted: &[InterfaceSettings],
    links: &[Link],
    known: &[Interface],
) -> Result<(), DataplaneError> {
    let is_lost = |name: &str| {
        let known = known.iter().find(|known| known.name == name);
        known.is_some_and(|known| links.iter().all(|link| link.index != known.index))
    };
    let is_there = |name: &str| links.iter().any(|link| link.name == name);
    match wanted.iter().find(|wanted| !is_there(&wanted.name) && !is_lost(&wanted.name)) {
        Some(wanted) => Err(absent(&wanted.name, links)),
        None => Ok(()),
    }
}

/// Refuses a change of an interface's mode, for which its link ends before another one begins, unless it may be cut.
pub(super) fn refuse_cuts(
    chosen: &[Interface],
    held: &BTreeMap<u32, PinnedLink>,
    cut: bool,
    links: &[Link],
) -> Result<(), DataplaneError> {
    let attached = |interface: &Interface| links.iter().find(|link| link.index == interface.index)?.xdp;
    let is_cut = |interface: &&Interface| {
        held.contains_key(&interface.index) && attached(interface).is_some_and(|at| !interface.mode.is(at.at))
    };
    match chosen.iter().find(is_cut).filter(|_| !cut) {
        Some(interface) => Err(DataplaneError::ModeChange { interface: interface.name.clone(), to: interface.mode }),
        None => Ok(()),
    }
}

/// Publishes an interface to the packet path: its record and its place in the device map.
pub(super) fn describe(
    ebpf: &mut Loaded,
    maps: &Maps,
    slot: usize,
    interface: &Interface,
) -> Result<(), DataplaneError> {
    let record = InterfaceRecord::new(interface.mac, interface.index, interface.mtu).with_also(&interface.also);
    publish(ebpf, maps, slot, &if maps.sizes.interfaces == 1 { record.alone() } else { record })
}

/// Publishes a record, and the device that its frames are sent on.
pub(super) fn publish(
    ebpf: &mut Loaded,
    maps: &Maps,
    slot: usize,
    record: &InterfaceRecord,
) -> Result<(), DataplaneError> {
    publish_as(ebpf, maps, slot, record, record.index())
}

/// The same, with the index of another device in its place.
pub(super) fn publish_as(
    ebpf: &mut Loaded,
    maps: &Maps,
    slot: usize,
    record: &InterfaceRecord,
    device: u32,
) -> Result<(), DataplaneError> {
    let map: &mut Map = ebpf.map_mut(DEVICES)?;
    let mut devices = DevMap::try_from(map).map_err(|error| DataplaneError::map(DEVICES, "look-up", &error))?;
    let set = devices.set(slot as u32, device, None, 0);
    set.map_err(|error| DataplaneError::map(DEVICES, "update", &error))?;
    maps.forwarding().set_interface(slot, record);
    renew_all(maps, slot);
    Ok(())
}

/// Takes back a slot's record: nothing is sent by it any more.
pub(super) fn withdraw(maps: &Maps, slot: usize) {
    maps.forwarding().set_interface(slot, &InterfaceRecord::default());
    renew_all(maps, slot);
}

/// Rebuilds the templates of all members that are reached through an interface.
fn renew_all(maps: &Maps, slot: usize) {
    let forwarding = maps.forwarding();
    for id in (1..=MemberId::MAX).filter_map(MemberId::new) {
        let next_hop = forwarding.member(id).next_hop();
        if next_hop.is_resolved() && usize::from(next_hop.interface().0) == slot {
            forwarding.renew(id);
        }
    }
}

/// The result of a refresh of the existing interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refresh {
    /// The names of the interfaces the program is not attached to: they are gone, or there is a problem.
    pub detached: Vec<String>,
    /// The names of those at whose egress nothing encapsulates health checks, for a problem.
    pub unguarded: Vec<String>,
    /// The errors; the next refresh tries again.
    pub problems: Vec<String>,
}

impl Refresh {
    /// Logs new problems.
    pub fn log_news(&self, before: &Self) {
        for name in self.detached.iter().filter(|name| !before.detached.contains(name)) {
            tracing::error!(interface = name, "the XDP program is not attached; retrying");
        }
        for problem in self.problems.iter().filter(|problem| !before.problems.contains(problem)) {
            tracing::error!("{problem}; retrying every few seconds");
        }
    }
}

/// The interfaces a program is attached to. Dropping it detaches all links that are not pinned.
#[derive(Debug, Default)]
pub(super) struct Attached {
    interfaces: Vec<Interface>,
    /// The program's hold on each; `None` for one that does not exist yet.
    links: Vec<Option<Held>>,
    /// Where links are pinned, if they are to outlive the daemon.
    pins: Option<Arc<Pins>>,
}

impl Attached {
    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Attaches a program, in the mode asked for or not at all.
    pub(super) fn attach(
        &mut self,
        ebpf: &mut Loaded,
        program: &'static str,
        interface: Interface,
        surroundings: Surroundings<'_>,
    ) -> Result<(), DataplaneError> {
        self.links.push(Some(link(ebpf, program, &interface, surroundings)?));
        self.interfaces.push(interface);
        Ok(())
    }

    /// Waits for an interface that does not exist yet: [`Self::refresh`] attaches the program to it.
    pub(super) fn wait_for(&mut self, interface: Interface) {
        tracing::warn!(interface = interface.name, "the interface does not exist yet: waiting for it");
        self.links.push(None);
        self.interfaces.push(interface);
    }

    /// The names of the interfaces that are waited for.
    pub(super) fn awaited(&self) -> Vec<String> {
        let all = self.interfaces.iter().zip(&self.links);
        all.filter(|(_, held)| held.is_none()).map(|(interface, _)| interface.name.clone()).collect()
    }

    /// Takes over a link that another daemon pinned, with the program it holds.
    pub(super) fn take_over(&mut self, interface: Interface, link: PinnedLink) {
        self.links.push(Some(Held::from(link)));
        self.interfaces.push(interface);
    }

    /// Replaces the program in every link, and pins the links, which then outlive this.
    pub(super) fn outlive(&mut self, pins: &Arc<Pins>, program: Runnable<'_>) -> Result<(), DataplaneError> {
        let Runnable { fd, id } = program;
        for (interface, held) in self.interfaces.iter().zip(&mut self.links) {
            let Some(held) = held else { continue };
            match held.replace(fd, id) {
                Ok(true) => tracing::info!(interface = interface.name, "XDP program replaced"),
                Ok(false) => {}
                // It is gone: [`Self::refresh`] attaches to it once it is back.
                Err(Errno::ENOLINK) => continue,
                Err(errno) => return Err(refused(interface, errno)),
            }
            held.pin_to(pins, LinkKind::Xdp, interface.index)?;
        }
        self.pins = Some(Arc::clone(pins));
        Ok(())
    }

    /// Replaces the program in every link. An interface that is gone has none: [`Self::refresh`] attaches to it once it is back.
    pub(super) fn replace(&mut self, program: Runnable<'_>) -> Result<(), DataplaneError> {
        let Runnable { fd, id } = program;
        for (interface, held) in self.interfaces.iter().zip(&mut self.links) {
            match held.as_mut().map(|held| held.replace(fd, id)) {
                None | Some(Ok(_) | Err(Errno::ENOLINK)) => {}
                Some(Err(errno)) => return Err(refused(interface, errno)),
            }
        }
        Ok(())
    }

    /// Lets nothing outlive this: dropped links are detached.
    pub(super) fn unpin(&mut self) {
        self.links.iter_mut().flatten().for_each(Held::unpin);
    }

    /// Applies changes; an interface that was made anew under its name is attached to anew. Only the load balancer's
    /// maps need an update. A failure on one interface does not affect the others.
    pub(super) fn refresh(
        &mut self,
        ebpf: &mut Loaded,
        program: &'static str,
        maps: Option<&Maps>,
        found: &[Link],
    ) -> Refresh {
        let mut refresh = Refresh::default();
        let pins = self.pins.clone();
        let surroundings = Surroundings { links: found, alone: maps.is_none() || self.interfaces.len() == 1 };
        for (slot, (interface, held)) in self.interfaces.iter_mut().zip(&mut self.links).enumerate() {
            let same = found.iter().find(|link| link.index == interface.index);
            let Some(now) = same.or_else(|| found.iter().find(|link| link.name == interface.name)) else {
                refresh.detached.push(interface.name.clone());
                continue;
            };
            let mac = now.mac.unwrap_or(interface.mac);
            let current = Interface { index: now.index, mac, mtu: now.mtu, ..interface.clone() };
            let attached = held.is_some() && current.index == interface.index && now.xdp.is_some();
            if attached && current == *interface {
                continue;
            }
            let mut renew = || {
                if now.mac.is_none() {
                    return Err(no_ethernet(&current));
                }
                maps.map_or(Ok(()), |maps| describe(ebpf, maps, slot, &current))?;
                if !attached {
                    // Its link is gone; so is its name.
                    held.iter_mut().for_each(Held::unpin);
                    let held = held.insert(link(ebpf, program, &current, surroundings)?);
                    pins.as_ref().map_or(Ok(()), |pins| held.pin_to(pins, LinkKind::Xdp, current.index))?;
                }
                Ok::<_, DataplaneError>(())
            };
            if let Err(problem) = renew() {
                if !attached {
                    refresh.detached.push(current.name);
                }
                refresh.problems.push(problem.to_string());
                continue;
            }
            *interface = current;
        }
        refresh
    }
}

/// Attaches a program to one interface that is within the limits of its driver.
fn link(
    ebpf: &mut Loaded,
    program: &'static str,
    interface: &Interface,
    surroundings: Surroundings<'_>,
) -> Result<Held, DataplaneError> {
    let report = interface.driver_report(surroundings);
    report.verdict()?;
    let flags = match interface.mode {
        Mode::Native => bpf::DRIVER_MODE,
        Mode::Generic => bpf::SKB_MODE,
    };
    let Runnable { fd, id } = ebpf.program(program)?;
    let link = bpf::link_xdp(fd, interface.index, flags)
        .map_err(|errno| refused_because(interface, errno, report.causes(errno)))?;
    tracing::info!(interface = interface.name, index = interface.index, mode = %interface.mode, "XDP attached");
    report.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(Held::new(link, id))
}

fn no_ethernet(interface: &Interface) -> DataplaneError {
    let reason = "it has no Ethernet address".to_owned();
    DataplaneError::Attach { interface: interface.name.clone(), mode: interface.mode, reason }
}

fn absent(name: &str, links: &[Link]) -> DataplaneError {
    let existing: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
    DataplaneError::InterfaceAbsent { name: name.to_owned(), existing: existing.join(", ") }
}

fn foreign(interface: &str, attached: AttachedXdp) -> DataplaneError {
    let AttachedXdp { at, program: id } = attached;
    let program = program_name(id);
    let keyword = match at {
        XdpAt::Native => "xdpdrv",
        XdpAt::Generic => "xdpgeneric",
        XdpAt::Hardware => "xdpoffload",
        XdpAt::Several => "xdp",
    };
    DataplaneError::ForeignProgram { interface: interface.to_owned(), program, id, keyword }
}

/// The name of a loaded program. Only root and CAP_SYS_ADMIN may inspect other programs: `None` for others.
pub fn program_name(id: u32) -> Option<String> {
    let found = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    let name = found.as_ref().and_then(|program| program.name_as_str()).filter(|name| !name.is_empty());
    name.map(str::to_owned)
}

fn refused(interface: &Interface, errno: Errno) -> DataplaneError {
    refused_because(interface, errno, None)
}

fn refused_because(interface: &Interface, errno: Errno, causes: Option<String>) -> DataplaneError {
    let name = interface.name.clone();
    let attach = |reason: &str| DataplaneError::Attach {
        interface: interface.name.clone(),
        mode: interface.mode,
        reason: reason.to_owned(),
    };
    match errno {
        Errno::EPERM => DataplaneError::NotPermitted("attach XDP programs"),
        Errno::EBUSY | Errno::EEXIST => attach("another XDP program was attached meanwhile; it is not replaced"),
        Errno::ENODEV => attach("it is gone"),
        errno if interface.mode == Mode::Native => {
            DataplaneError::NativeRefused { interface: name, source: io::Error::from(errno), causes }
        }
        errno => attach(errno.desc()),
    }
}
