//! The backend's side: the program that decapsulates, and the one that passes every packet. It must not know the load
//! balancer's tables.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapError};
use ipnet::IpNet;
use maglev_common::maps as names;
use maglev_common::pod::Word;

use super::attach::{self, Attached, Interface, InterfaceSettings, Refresh};
use super::counters::DecapSnapshot;
use super::error::DataplaneError;
use super::maps;
use super::object::{self, Loaded};
use super::shared::Mapped;
use crate::net::links::Link;

/// What decapsulation is started with.
#[derive(Clone, Debug)]
pub struct DecapSettings {
    /// The interfaces encapsulated packets come in by.
    pub interfaces: Vec<InterfaceSettings>,
    /// The load balancers' outer source addresses: at most [`names::MAX_DECAP_SOURCES`] prefixes of each family.
    pub sources: Vec<IpNet>,
}

/// The attached decapsulation program. Dropping it detaches the program.
#[derive(Debug)]
pub struct Decap {
    attached: Attached,
    counters: Mapped<Word>,
    /// Holds the program and the tries.
    pub(super) ebpf: Loaded,
}

impl Decap {
    /// Loads the program, tells it the sources it accepts, and attaches it.
    ///
    /// # Errors
    /// One line that says what is missing and the remedy. Nothing stays attached.
    pub fn start(settings: &DecapSettings, links: &[Link]) -> Result<Self, DataplaneError> {
        let chosen = attach::choose(&settings.interfaces, links, &BTreeMap::new())?;
        let cpus = object::possible_cpus()?;
        let mut ebpf = Loaded::backend(names::DECAP_PROGRAM, cpus)?;
        for source in &settings.sources {
            accept(&mut ebpf, *source)?;
        }
        let counters = maps::open(&ebpf, names::DECAP_COUNTERS, cpus * names::COUNTER_REGION)?;
        let mut attached = Attached::default();
        for interface in chosen {
            attached.attach(&mut ebpf, names::DECAP_PROGRAM, interface)?;
        }
        Ok(Self { attached, counters, ebpf })
    }

    /// All counters, summed over the CPUs.
    pub fn snapshot(&self) -> DecapSnapshot {
        DecapSnapshot::of(&self.counters)
    }

    /// Attaches to interfaces that were made anew under their names.
    pub fn refresh(&mut self, links: &[Link]) -> Refresh {
        self.attached.refresh(&mut self.ebpf, names::DECAP_PROGRAM, None, links)
    }

    /// The attached interfaces.
    pub fn interfaces(&self) -> &[Interface] {
        self.attached.interfaces()
    }
}

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
        let mut ebpf = Loaded::backend(names::PASS_PROGRAM, object::possible_cpus()?)?;
        let mut attached = Attached::default();
        for interface in chosen {
            attached.attach(&mut ebpf, names::PASS_PROGRAM, interface)?;
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

/// Adds a prefix to the trie of its family.
fn accept(ebpf: &mut Loaded, source: IpNet) -> Result<(), DataplaneError> {
    let length = u32::from(source.prefix_len());
    let (name, inserted) = match source {
        IpNet::V4(source) => {
            let key = Key::new(length, source.network().octets());
            (names::DECAP_SOURCES4, insert(ebpf.map_mut(names::DECAP_SOURCES4)?, &key))
        }
        IpNet::V6(source) => {
            let key = Key::new(length, source.network().octets());
            (names::DECAP_SOURCES6, insert(ebpf.map_mut(names::DECAP_SOURCES6)?, &key))
        }
    };
    inserted.map_err(|error| DataplaneError::map(name, "insertion", &error))
}

fn insert<const N: usize>(map: &mut Map, key: &Key<[u8; N]>) -> Result<(), MapError> {
    LpmTrie::<_, [u8; N], u32>::try_from(map)?.insert(key, 1, 0)
}
