//! The backend's side: programs that decapsulate, one for each interface, and their settings, which change while they run. It must
//! not know the load balancer's tables.

use std::fmt;
use std::path::PathBuf;

use aya::maps::{Array, MapData};
use ipnet::IpNet;
use maglev_common::maps as names;
use maglev_common::settings::Mss;
use maglev_common::syn::SYNS;
use maglev_net::links::Link;

use super::attach::{Interface, InterfaceSettings, Refresh};
use super::counters::DecapSnapshot;
use super::error::DataplaneError;
use super::object;

mod left;
mod place;
mod prefixes;

pub use place::DecapPlace;
use place::Place;
pub use prefixes::{Prefixes, can_be_vips, within_limit};

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
    /// The object of the programs.
    object: &'static [u8],
    /// As they are in force, but for the interfaces: these are those of `places`.
    settings: DecapSettings,
    /// Once the MSS is lowered.
    syns: Option<SynMap>,
    places: Vec<Place>,
    /// Counted on interfaces that were removed since.
    removed: DecapSnapshot,
}

/// [`maglev_common::syn::SynWord`]s: one map for all interfaces, since an answer may be routed via another one than its SYN.
struct SynMap(Array<MapData, u64>);

impl SynMap {
    fn create() -> Result<Self, DataplaneError> {
        let created = Array::create(SYNS as u32, 0);
        created.map(Self).map_err(|error| DataplaneError::map(names::DECAP_SYNS, "BPF_MAP_CREATE", &error))
    }
}

impl fmt::Debug for SynMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SynMap")
    }
}

impl Decap {
    /// Loads the programs, or adopts the pinned ones, and attaches them to those interfaces that exist.
    ///
    /// # Errors
    /// One line that says what is missing and the remedy. Nothing stays attached that was not so before.
    pub fn start(settings: &DecapSettings, links: &[Link]) -> Result<Self, DataplaneError> {
        Self::start_of(object::BACKEND_OBJECT, settings, links)
    }

    /// The same with the programs of any object that takes our maps and globals.
    pub(super) fn start_of(
        object: &'static [u8],
        settings: &DecapSettings,
        links: &[Link],
    ) -> Result<Self, DataplaneError> {
        let syns = if settings.mss == Mss::Off { None } else { Some(SynMap::create()?) };
        let removed = std::iter::empty().sum();
        let mut decap = Self { object, settings: settings.clone(), syns, places: Vec::new(), removed };
        match settings.interfaces.iter().try_for_each(|interface| decap.add(interface, links)) {
            Ok(()) => Ok(decap),
            Err(error) => {
                decap.places.into_iter().for_each(Place::withdraw);
                Err(error)
            }
        }
    }

    /// Loads or adopts the program of one more interface, and attaches it if the interface exists.
    ///
    /// # Errors
    /// The interface is there already; or one line that says what is missing and the remedy. The other interfaces stay as they are.
    pub fn add(&mut self, wanted: &InterfaceSettings, links: &[Link]) -> Result<(), DataplaneError> {
        let name = &wanted.name;
        if self.places.iter().any(|place| place.name() == name) {
            return Err(DataplaneError::Setting(format!("interfaces: {name} is named twice")));
        }
        let syns = self.syns.as_ref().filter(|_| self.settings.mss != Mss::Off);
        let mut place = Place::load(self.object, wanted, &self.settings, syns)?;
        match place.attach(links) {
            Ok(()) | Err(DataplaneError::InterfaceAbsent { .. }) => {
                self.places.push(place);
                Ok(())
            }
            Err(error) => {
                place.withdraw();
                Err(error)
            }
        }
    }

    /// Detaches the program of an interface and frees its maps. What it counted stays counted.
    pub fn remove(&mut self, name: &str) {
        for place in self.places.extract_if(.., |place| place.name() == name) {
            let counted = place.snapshot();
            self.removed = [self.removed.clone(), counted].into_iter().sum();
            place.stop();
        }
    }

    /// Takes back an interface that was just added. A program that another process left there goes on.
    pub fn take_back(&mut self, name: &str) {
        self.places.extract_if(.., |place| place.name() == name).for_each(Place::withdraw);
    }

    /// The names of the interfaces that were not there yet: the program is attached once they are.
    pub fn waiting(&self) -> Vec<String> {
        self.places.iter().filter(|place| place.is_waiting()).map(|place| place.name().to_owned()).collect()
    }

    /// Replaces the outer sources that packets are unwrapped from.
    ///
    /// # Errors
    /// A map could not be written. The old sources are accepted, and some of the new ones.
    pub fn accept(&mut self, sources: &[IpNet]) -> Result<(), DataplaneError> {
        self.places.iter_mut().try_for_each(|place| place.accept(sources))?;
        self.settings.sources = sources.to_vec();
        Ok(())
    }

    /// Replaces the addresses that packets are unwrapped for.
    ///
    /// # Errors
    /// A map could not be written. The old addresses are accepted, and some of the new ones.
    pub fn serve(&mut self, vips: &Prefixes) -> Result<(), DataplaneError> {
        self.places.iter_mut().try_for_each(|place| place.serve(vips))?;
        self.settings.vips = vips.clone();
        Ok(())
    }

    /// Replaces the programs by those with another MSS, on the same maps: no packet passes without one. Needs pinned maps.
    ///
    /// # Errors
    /// A program cannot be loaded: nothing changed; or not put into its place: some interfaces have the new MSS.
    pub fn set_mss(&mut self, mss: Mss) -> Result<(), DataplaneError> {
        if mss == self.settings.mss {
            return Ok(());
        }
        if mss != Mss::Off && self.syns.is_none() {
            self.syns = Some(SynMap::create()?);
        }
        let syns = self.syns.as_ref().filter(|_| mss != Mss::Off);
        let loaded =
            self.places.iter().map(|place| place.load_with(self.object, mss, syns)).collect::<Result<Vec<_>, _>>()?;
        self.settings.mss = mss;
        self.places.iter_mut().zip(loaded).try_for_each(|(place, ebpf)| place.replace(ebpf, mss))
    }

    /// All counters, summed over the CPUs and the interfaces.
    pub fn snapshot(&self) -> DecapSnapshot {
        self.places.iter().map(Place::snapshot).chain([self.removed.clone()]).sum()
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
        self.places.iter().flat_map(Place::interfaces)
    }

    /// Each interface with its program, attached or awaited, in the order in which they were added.
    pub fn places(&self) -> Vec<DecapPlace> {
        self.places.iter().map(Place::view).collect()
    }

    /// The interfaces on which an earlier process left decapsulation running, in the same pin folder, and which no process holds now.
    pub fn abandoned(&self) -> Vec<String> {
        self.settings.pin.as_deref().map(left::abandoned).unwrap_or_default()
    }

    /// The settings in force. The interfaces are in [`Self::places`].
    pub fn settings(&self) -> &DecapSettings {
        &self.settings
    }

    /// Detaches the programs and frees their maps: nothing is left.
    pub fn stop(self) {
        self.places.into_iter().for_each(Place::stop);
    }

    /// The program of the first interface.
    #[cfg(test)]
    pub(super) fn ebpf(&mut self) -> &mut object::Loaded {
        self.ebpf_at(0)
    }

    /// The programs of an interface.
    #[cfg(test)]
    pub(super) fn ebpf_at(&mut self, n: usize) -> &mut object::Loaded {
        self.places.get_mut(n).expect("an interface").ebpf()
    }
}
