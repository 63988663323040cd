//! The backend's side: the program that decapsulates, one for each interface, and its pinned state, which outlives the process. It
//! must not know the load balancer's tables.
//!
//! ```text
//!  /sys/fs/bpf/maglev-decap/eth0   locked by the process that decapsulates on eth0
//!    links/7                       the program's hold on the interface
//!    egress/7                      the hold of the program that lowers the MSS
//!    decap-v1/                     the maps: counters go on, prefixes are changed in place
//! ```
//!
//! The next process loads its own program onto these maps and puts it in the place of the one that the link holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use aya::maps::{Array, ArrayOfMaps, MapData, MapError, MapType};
use ipnet::IpNet;
use maglev_common::maps as names;
use maglev_common::pod::Word;
use maglev_common::settings::Mss;
use maglev_common::syn::SYNS;
use maglev_net::links::Link;

use super::attach::{self, Attached, Interface, InterfaceSettings, Refresh};
use super::bpf::LinkKind;
use super::counters::DecapSnapshot;
use super::egress::Egress;
use super::error::DataplaneError;
use super::maps;
use super::object::{self, Loaded};
use super::pins::{PinnedLink, Pins};
use super::shared::{Mapped, Shape};

pub use prefixes::{Prefixes, can_be_vips, within_limit};

mod prefixes;

/// The set of pinned maps. Another layout, or counters in another order, takes another number.
const SET: &str = "decap-v1";

const SOURCES: [&str; 2] = [names::DECAP_SOURCES4, names::DECAP_SOURCES6];
const VIPS: [&str; 2] = [names::DECAP_VIPS4, names::DECAP_VIPS6];

/// The settings of decapsulation.
#[derive(Clone, Debug)]
pub struct DecapSettings {
    /// The interfaces encapsulated packets come in by.
    pub interfaces: Vec<InterfaceSettings>,
    /// The load balancers' outer source addresses: at most [`names::MAX_DECAP_SOURCES`] prefixes of each family.
    pub sources: Vec<IpNet>,
    /// The addresses that packets are unwrapped for: see [`within_limit`].
    pub vips: Prefixes,
    /// How the MSS in answers to encapsulated SYNs is lowered, if they are routed via one of the interfaces.
    pub mss: Mss,
    /// A folder in the BPF file system. In it, each interface has a folder of its own, named for it.
    pub pin: Option<PathBuf>,
}

/// Decapsulation on some interfaces. Dropping it detaches the programs, unless they are pinned.
#[derive(Debug)]
pub struct Decap {
    places: Vec<Place>,
}

impl Decap {
    /// Loads the programs, or adopts the pinned ones, and attaches them to those interfaces that exist.
    ///
    /// # Errors
    /// One line that says what is missing and the remedy. Nothing stays attached that was not so before.
    pub fn start(settings: &DecapSettings, links: &[Link]) -> Result<Self, DataplaneError> {
        let DecapSettings { interfaces, sources: _, vips: _, mss, pin: _ } = settings;
        if let Some(twice) =
            interfaces.iter().enumerate().find(|(n, one)| interfaces[..*n].iter().any(|other| other.name == one.name))
        {
            return Err(DataplaneError::Setting(format!("interfaces: {} is named twice", twice.1.name)));
        }
        let syns = if *mss == Mss::Off { None } else { Some(create_syns()?) };
        let mut decap = Self { places: Vec::new() };
        match interfaces.iter().try_for_each(|interface| decap.add(interface, settings, syns.as_ref(), links)) {
            Ok(()) => Ok(decap),
            Err(error) => {
                decap.places.into_iter().filter(|place| !place.is_adopted()).for_each(Place::stop);
                Err(error)
            }
        }
    }

    fn add(
        &mut self,
        wanted: &InterfaceSettings,
        settings: &DecapSettings,
        syns: Option<&SynMap>,
        links: &[Link],
    ) -> Result<(), DataplaneError> {
        self.places.push(Place::load(wanted, settings, syns)?);
        match self.places.last_mut().map(|place| place.attach(links)) {
            None | Some(Ok(()) | Err(DataplaneError::InterfaceAbsent { .. })) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    /// The names of the interfaces that were not there yet: the program is attached once they are.
    pub fn waiting(&self) -> Vec<String> {
        self.places.iter().filter(|place| place.is_waiting()).map(|place| place.settings.name.clone()).collect()
    }

    /// Replaces the addresses that packets are unwrapped for.
    ///
    /// # Errors
    /// A map could not be written. The old addresses are accepted, and some of the new ones.
    pub fn serve(&mut self, vips: &Prefixes) -> Result<(), DataplaneError> {
        self.places.iter_mut().try_for_each(|place| vips.write(&mut place.ebpf, VIPS))
    }

    /// All counters, summed over the CPUs and the interfaces.
    pub fn snapshot(&self) -> DecapSnapshot {
        self.places.iter().map(|place| DecapSnapshot::read(&place.counters)).sum()
    }

    /// Attaches to interfaces that have come, or were made anew under their names.
    pub fn refresh(&mut self, links: &[Link]) -> Refresh {
        let mut all = Refresh::default();
        for place in &mut self.places {
            let Refresh { detached, unguarded, problems } = place.refresh(links);
            all.detached.extend(detached);
            all.unguarded.extend(unguarded);
            all.problems.extend(problems);
        }
        all
    }

    /// The attached interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.places.iter().flat_map(|place| place.attached.interfaces())
    }

    /// Detaches the programs and frees their maps: nothing is left.
    pub fn stop(self) {
        self.places.into_iter().for_each(Place::stop);
    }

    /// The program of the first interface.
    #[cfg(test)]
    pub(super) fn ebpf(&mut self) -> &mut Loaded {
        self.ebpf_at(0)
    }

    /// The programs of an interface.
    #[cfg(test)]
    pub(super) fn ebpf_at(&mut self, n: usize) -> &mut Loaded {
        &mut self.places.get_mut(n).expect("an interface").ebpf
    }
}

/// The program of one interface, attached to it or waiting for it.
#[derive(Debug)]
struct Place {
    settings: InterfaceSettings,
    /// Declared first of those below, so that it is dropped first: nothing is unmapped under a program that still runs.
    attached: Attached,
    /// The program that lowers the MSS, if that is asked for.
    egress: Option<Egress>,
    counters: Mapped<Word>,
    /// Holds the programs and the tries.
    ebpf: Loaded,
    left: Option<Left>,
}

/// [`maglev_common::syn::SynWord`]s: one map for all interfaces, since an answer may be routed via another one than its SYN.
type SynMap = Array<MapData, u64>;

fn create_syns() -> Result<SynMap, DataplaneError> {
    Array::create(SYNS as u32, 0).map_err(|error| DataplaneError::map(names::DECAP_SYNS, "BPF_MAP_CREATE", &error))
}

/// The state that is left to the next process.
#[derive(Debug)]
struct Left {
    pins: Arc<Pins>,
    /// Whether another process left it to this one.
    adopted: bool,
}

impl Place {
    fn load(
        wanted: &InterfaceSettings,
        settings: &DecapSettings,
        syns: Option<&SynMap>,
    ) -> Result<Self, DataplaneError> {
        let left = settings.pin.as_ref().map(|folder| Left::claim(folder, &wanted.name)).transpose()?;
        match Self::with(wanted, left.as_ref(), settings, syns) {
            Ok((ebpf, counters)) => {
                let pins = left.as_ref().map(|left| Arc::clone(&left.pins));
                let egress = syns.map(|_| Egress::outliving(names::DECAP_EGRESS_PROGRAM, pins));
                Ok(Self { settings: wanted.clone(), attached: Attached::default(), egress, counters, ebpf, left })
            }
            Err(error) => {
                left.iter().filter(|left| !left.adopted).for_each(|left| left.pins.remove_set(SET));
                Err(error)
            }
        }
    }

    fn with(
        wanted: &InterfaceSettings,
        left: Option<&Left>,
        settings: &DecapSettings,
        syns: Option<&SynMap>,
    ) -> Result<(Loaded, Mapped<Word>), DataplaneError> {
        let DecapSettings { interfaces: _, sources, vips, mss, pin: _ } = settings;
        let cpus = object::possible_cpus()?;
        let mut ebpf = Loaded::backend(names::DECAP_PROGRAM, cpus, *mss, left.map(|left| (&*left.pins, SET)))?;
        if let Some(syns) = syns {
            let failed = |error: &MapError| DataplaneError::map(names::DECAP_SYNS, "update", error);
            let outer = ArrayOfMaps::try_from(ebpf.map_mut(names::DECAP_SYNS)?);
            outer.and_then(|mut outer| outer.set(0, syns, 0)).map_err(|error| failed(&error))?;
            ebpf.load_classifier(names::DECAP_EGRESS_PROGRAM)?;
        }
        Prefixes::new(sources.iter().copied()).write(&mut ebpf, SOURCES)?;
        vips.write(&mut ebpf, VIPS)?;
        let counters = maps::open(&ebpf, names::DECAP_COUNTERS, cpus * names::COUNTER_REGION)?;
        if let Some(left) = left.filter(|left| left.adopted) {
            tracing::info!(interface = wanted.name, folder = %left.pins.folder().display(), "decapsulation adopted");
        }
        Ok((ebpf, counters))
    }

    fn is_adopted(&self) -> bool {
        self.left.as_ref().is_some_and(|left| left.adopted)
    }

    fn is_waiting(&self) -> bool {
        self.attached.interfaces().is_empty()
    }

    /// Attaches the program to the interface, or puts it in the place of the one that a pinned link holds there.
    fn attach(&mut self, links: &[Link]) -> Result<(), DataplaneError> {
        let Self { settings, attached, ebpf, left, .. } = self;
        let mut held = left.as_ref().map_or_else(|| Ok(BTreeMap::new()), |left| left.pins.links(LinkKind::Xdp))?;
        for interface in attach::choose(slice::from_ref(settings), links, &held)? {
            let at = links.iter().find(|link| link.index == interface.index).and_then(|link| link.xdp);
            match held.remove(&interface.index) {
                Some(link) if at.is_some_and(|at| interface.mode.is(at.at)) => attached.take_over(interface, link),
                other => {
                    // A link cannot change its mode.
                    other.into_iter().for_each(PinnedLink::end);
                    attached.attach(ebpf, names::DECAP_PROGRAM, interface)?;
                }
            }
        }
        if let Some(left) = left {
            if let Err(error) = attached.outlive(&left.pins, ebpf.program(names::DECAP_PROGRAM)?) {
                *attached = Attached::default();
                return Err(error);
            }
            // Of an interface that had this name.
            held.into_values().for_each(PinnedLink::end);
            left.pins.remove_sets_but(&[SET]);
        }
        self.guard()
    }

    /// Attaches the program that lowers the MSS where the other one is, or removes the one that a process before this left.
    fn guard(&mut self) -> Result<(), DataplaneError> {
        let Self { settings, attached, egress, ebpf, left, .. } = self;
        let Some(egress) = egress else {
            let pins = left.as_ref().map(|left| Arc::clone(&left.pins));
            Egress::outliving(names::DECAP_EGRESS_PROGRAM, pins).end_left(&settings.name);
            return Ok(());
        };
        let program = ebpf.classifier(names::DECAP_EGRESS_PROGRAM)?;
        egress.follow(program, attached.interfaces()).pop().map_or(Ok(()), |(_, error)| Err(error))
    }

    fn refresh(&mut self, links: &[Link]) -> Refresh {
        let name = self.settings.name.clone();
        if self.is_waiting() {
            let problems = match self.attach(links) {
                Ok(()) => return Refresh::default(),
                Err(DataplaneError::InterfaceAbsent { .. }) => Vec::new(),
                Err(problem) => vec![problem.to_string()],
            };
            return Refresh { detached: vec![name], problems, ..Refresh::default() };
        }
        let mut refresh = self.attached.refresh(&mut self.ebpf, names::DECAP_PROGRAM, None, links);
        if self.egress.is_some()
            && refresh.detached.is_empty()
            && let Err(problem) = self.guard()
        {
            refresh.unguarded.push(name);
            refresh.problems.push(problem.to_string());
        }
        refresh
    }

    fn stop(self) {
        let Self { settings, mut attached, egress, counters, ebpf, left } = self;
        attached.unpin();
        drop(attached);
        egress.into_iter().for_each(Egress::stop);
        if let Some(left) = &left {
            // Of an interface that is not there now, too.
            left.pins.links(LinkKind::Xdp).into_iter().flat_map(BTreeMap::into_values).for_each(PinnedLink::end);
            left.pins.remove_set(SET);
        }
        drop((counters, ebpf));
        tracing::info!(interface = settings.name, "decapsulation detached");
    }
}

impl Left {
    /// Takes the folder of an interface for this process.
    fn claim(folder: &Path, interface: &str) -> Result<Self, DataplaneError> {
        // The BPF file system takes no dots in names, and no interface's name has a colon.
        let pins = Pins::hold(&folder.join(interface.replace('.', ":"))).map_err(|error| match error {
            DataplaneError::PinsInUse { folder, holder } => {
                DataplaneError::DecapInUse { interface: interface.to_owned(), folder, holder }
            }
            other => other,
        })?;
        let adopted = fits(&pins, object::possible_cpus()?);
        if !adopted {
            pins.remove_set(SET);
        }
        pins.pin_set(SET, &[])?;
        Ok(Self { pins: Arc::new(pins), adopted })
    }
}

/// Whether the maps that are pinned are those that this release's program uses.
fn fits(pins: &Pins, cpus: u32) -> bool {
    let trie = |key, entries| Shape { kind: MapType::LpmTrie, key, value: 4, entries, flags: 0 };
    let counters =
        Shape { kind: MapType::Array, key: 4, value: 8, entries: cpus * names::COUNTER_REGION, flags: names::MMAPABLE };
    let shapes = [
        (names::DECAP_SOURCES4, trie(8, names::DECAP_SOURCES_ROOM)),
        (names::DECAP_SOURCES6, trie(20, names::DECAP_SOURCES_ROOM)),
        (names::DECAP_VIPS4, trie(8, names::DECAP_VIPS_ROOM)),
        (names::DECAP_VIPS6, trie(20, names::DECAP_VIPS_ROOM)),
        (names::DECAP_COUNTERS, counters),
    ];
    shapes
        .iter()
        .all(|(name, shape)| MapData::from_pin(pins.part(SET, name)).is_ok_and(|data| shape.check(name, &data).is_ok()))
}
