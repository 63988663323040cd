//! The program that passes every packet: the peer of a transmitting veth runs it.

use std::collections::BTreeMap;

use maglev_common::maps as names;
use maglev_common::settings::Mss;
use maglev_net::links::Link;

use super::attach::{self, Attached, Interface, InterfaceSettings, Refresh};
use super::driver_report::Surroundings;
use super::error::DataplaneError;
use super::object::{self, Loaded};

/// The attached program that passes every packet. Dropping it detaches the program.
#[derive(Debug)]
pub struct Pass {
    attached: Attached,
    ebpf: Loaded,
}

impl Pass {
    /// Loads and attaches the program.
    ///
    /// # Errors
    /// One line that says what is missing and the remedy. Nothing stays attached.
    pub fn start(interfaces: &[InterfaceSettings], links: &[Link]) -> Result<Self, DataplaneError> {
        let chosen = attach::choose(interfaces, links, &BTreeMap::new())?;
        let mut ebpf = Loaded::backend(names::PASS_PROGRAM, object::possible_cpus()?, Mss::Off, None)?;
        let mut attached = Attached::default();
        for interface in chosen {
            attached.attach(&mut ebpf, names::PASS_PROGRAM, interface, Surroundings { links, alone: true })?;
        }
        Ok(Self { attached, ebpf })
    }

    /// Attaches to interfaces that were made anew under their names.
    pub fn refresh(&mut self, links: &[Link]) -> Refresh {
        self.attached.refresh(&mut self.ebpf, names::PASS_PROGRAM, None, links)
    }

    /// The attached interfaces.
    pub fn interfaces(&self) -> &[Interface] {
        self.attached.interfaces()
    }
}
