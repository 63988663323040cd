//! Interfaces: which ones the program is attached to, in which mode, and what the packet path knows of them. It must
//! not know tables or plans.

use std::fmt;
use std::io;

use aya::maps::{Map, xdp::DevMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, XdpMode, loaded_programs};
use maglev_common::backend::InterfaceRecord;
use maglev_common::maps::{DEVICES, MAX_INTERFACES};
use nix::errno::Errno;

use super::error::{DataplaneError, chain, os_error};
use super::maps::Maps;
use super::object::Loaded;
use crate::net::links::{AttachedXdp, Link, XdpAt};

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the network stack: any interface, slower.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// Its name.
    pub name: String,
    /// In which mode.
    pub mode: Mode,
}

/// An interface the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its position in the configuration, and in the device map.
    pub slot: u16,
    /// In which mode the program is attached.
    pub mode: Mode,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU in bytes, IP header included.
    pub mtu: u32,
}

/// Finds the configured interfaces among those that exist, each free and able to carry Ethernet.
pub(super) fn choose(wanted: &[InterfaceSettings], links: &[Link]) -> Result<Vec<Interface>, DataplaneError> {
    if wanted.is_empty() || wanted.len() > MAX_INTERFACES as usize {
        let count = wanted.len();
        return Err(DataplaneError::Setting(format!("interfaces: {count} is not within 1…{MAX_INTERFACES}")));
    }
    let mut chosen: Vec<Interface> = Vec::new();
    for (slot, InterfaceSettings { name, mode }) in (0..).zip(wanted) {
        let link = links.iter().find(|link| link.name == *name).ok_or_else(|| absent(name, links))?;
        if chosen.iter().any(|other| other.name == *name) {
            return Err(DataplaneError::Setting(format!("interfaces: {name} is named twice")));
        }
        let Some(mac) = link.mac else {
            let reason = "it has no Ethernet address".to_owned();
            return Err(DataplaneError::Attach { interface: name.clone(), mode: *mode, reason });
        };
        if let Some(attached) = link.xdp {
            return Err(foreign(name, attached));
        }
        chosen.push(Interface { name: name.clone(), index: link.index, slot, mode: *mode, mac, mtu: link.mtu });
    }
    Ok(chosen)
}

/// Tells the packet path of an interface: its record and its place in the device map.
pub(super) fn describe(
    ebpf: &mut Loaded,
    maps: &Maps,
    slot: usize,
    interface: &Interface,
) -> Result<(), DataplaneError> {
    let InterfaceRecord { mac, index_mtu } = InterfaceRecord::new(interface.mac, interface.index, interface.mtu);
    if let Some(record) = maps.interfaces.get(slot) {
        record.mac.set(mac.get());
        record.index_mtu.set(index_mtu.get());
    }
    let map: &mut Map = ebpf.map_mut(DEVICES)?;
    let mut devices = DevMap::try_from(map).map_err(|error| DataplaneError::map(DEVICES, "look-up", &error))?;
    devices.set(slot as u32, interface.index, None, 0).map_err(|error| DataplaneError::map(DEVICES, "update", &error))
}

/// The interfaces a program is attached to. Dropping it detaches: each link lasts as long as its file descriptor.
#[derive(Debug, Default)]
pub(super) struct Attached {
    interfaces: Vec<Interface>,
    links: Vec<FdLink>,
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
    ) -> Result<(), DataplaneError> {
        let mode = match interface.mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        let program = ebpf.xdp(program)?;
        let id = program.attach_to_if_index(interface.index, mode).map_err(|error| refused(&interface, &error))?;
        let link = program.take_link(id).map_err(|error| refused(&interface, &error))?;
        let link = FdLink::try_from(link).map_err(|_| DataplaneError::kernel("it has no BPF links for XDP"))?;
        tracing::info!(interface = interface.name, index = interface.index, mode = %interface.mode, "XDP attached");
        self.links.push(link);
        self.interfaces.push(interface);
        Ok(())
    }

    /// Takes over what changed; tells who is gone.
    pub(super) fn refresh(
        &mut self,
        ebpf: &mut Loaded,
        maps: &Maps,
        links: &[Link],
    ) -> Result<Vec<String>, DataplaneError> {
        let mut gone = Vec::new();
        for (slot, interface) in self.interfaces.iter_mut().enumerate() {
            let Some(link) = links.iter().find(|link| link.index == interface.index) else {
                gone.push(interface.name.clone());
                continue;
            };
            let (mac, mtu) = (link.mac.unwrap_or(interface.mac), link.mtu);
            if (mac, mtu) != (interface.mac, interface.mtu) {
                (interface.mac, interface.mtu) = (mac, mtu);
                describe(ebpf, maps, slot, interface)?;
            }
        }
        Ok(gone)
    }
}

fn absent(name: &str, links: &[Link]) -> DataplaneError {
    let existing: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
    DataplaneError::InterfaceAbsent { name: name.to_owned(), existing: existing.join(", ") }
}

fn foreign(interface: &str, attached: AttachedXdp) -> DataplaneError {
    let AttachedXdp { at, program: id } = attached;
    let found = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    let program = found.as_ref().and_then(|program| program.name_as_str()).unwrap_or("unknown").to_owned();
    let keyword = match at {
        XdpAt::Native => "xdpdrv",
        XdpAt::Generic => "xdpgeneric",
        XdpAt::Hardware => "xdpoffload",
        XdpAt::Several => "xdp",
    };
    DataplaneError::ForeignProgram { interface: interface.to_owned(), program, id, keyword }
}

fn refused(interface: &Interface, error: &ProgramError) -> DataplaneError {
    let name = interface.name.clone();
    match os_error(error) {
        Some(Errno::EPERM) => DataplaneError::NotPermitted("attach XDP programs"),
        Some(Errno::EBUSY | Errno::EEXIST) => DataplaneError::Attach {
            interface: name,
            mode: interface.mode,
            reason: "another XDP program was attached meanwhile; it is not replaced".to_owned(),
        },
        Some(errno) if interface.mode == Mode::Native => {
            DataplaneError::NativeRefused { interface: name, source: io::Error::from(errno) }
        }
        _ => DataplaneError::Attach { interface: name, mode: interface.mode, reason: chain(error) },
    }
}
