//! The embedded eBPF objects: their digest, its size in the kernel, and how it is loaded. It must not know interfaces or
//! plans.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::LazyLock;

use aya::maps::{Map, MapData, MapType, RingBuf};
use aya::programs::{Program, ProgramError, ProgramInfo, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use maglev_common::forwarding::{self, Forwarding};
use maglev_common::maps as names;
use maglev_common::settings::{self, Mss};
use maglev_common::table::PADDED_SLOTS;
use sha2::{Digest, Sha256};

use super::Settings;
use super::error::DataplaneError;
use super::features;
pub(super) use super::machine::{jiffy_nanoseconds, possible_cpus, seconds_per_jiffy};
use super::pins::{self, PROGRAM_PART, Pins};
use super::shared::{DEVICE, Shape};
use super::sizes::Sizes;

/// The version of a set: which parts it has.
const SET_VERSION: u32 = 5;

/// The layout of each map: a number that changes with the meaning of a bit in it. A program never runs over a map of another layout.
pub(super) const LAYOUTS: [(&str, u32); 5] =
    [(names::FORWARDING, 3), (names::FLOWS, 1), (names::FRAGMENTS, 1), (names::COUNTS, 3), (names::DEVICES, 1)];

/// The maps that the program of another set may go on with.
pub(super) const CONTINUED: [&str; 3] = [names::FLOWS, names::FRAGMENTS, names::COUNTS];

/// The object file, built by this crate's build script. ELF headers are read in place, so it must stand aligned.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/maglev-xdp"));

/// The same with the load balancer that captures packets, over the same maps.
static CAPTURED_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/maglev-captured"));

/// The same with the backend's programs: a backend has no use for the load balancer's maps.
pub(super) static BACKEND_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/maglev-backend"));

static SHA256: LazyLock<String> = LazyLock::new(|| digest(OBJECT));
static BACKEND_SHA256: LazyLock<String> = LazyLock::new(|| digest(BACKEND_OBJECT));

fn digest(object: &[u8]) -> String {
    Sha256::digest(object).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of the embedded eBPF object of the load balancer, in hexadecimal.
pub fn sha256() -> &'static str {
    &SHA256
}

/// The same of the backend's.
pub fn backend_sha256() -> &'static str {
    &BACKEND_SHA256
}

/// The name of the program for this purpose.
pub(super) const fn program(wanted: &Settings) -> &'static str {
    match wanted {
        Settings { trace: true, .. } => names::TRACED_PROGRAM,
        Settings { watchdog: Some(_), .. } => names::WATCHED_PROGRAM,
        _ => names::PROGRAM,
    }
}

/// Programs and their maps in the kernel, attached or not.
#[derive(Debug)]
pub(super) enum Loaded {
    /// Loaded from an object.
    New(Box<Ebpf>),
    /// A program of another daemon.
    Pinned {
        /// The program that it had attached.
        program: OwnedFd,
        /// Its name.
        name: &'static str,
        /// The kernel's number of it.
        id: u32,
        /// The program at the interfaces' egress.
        egress: Box<SchedClassifier>,
        maps: BTreeMap<&'static str, Map>,
    },
}

/// A program in the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runnable<'a> {
    pub(super) fd: BorrowedFd<'a>,
    /// The kernel's number of it.
    pub(super) id: u32,
}

/// The maps that a daemon leaves to the next one.
pub(super) const LEFT: [&str; 6] =
    [names::FORWARDING, names::FLOWS, names::FLOWS_BEFORE, names::FRAGMENTS, names::COUNTS, names::DEVICES];

/// Packets that each CPU may answer in a second, and datagrams in fragments that may begin, however many CPUs there are.
pub(super) const LEAST_OF_EACH: u32 = 10;

/// What an object is given beside the settings.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside<'a> {
    /// Globals of its own.
    pub(super) globals: &'a [(&'static str, u32)],
    /// Maps of its own, and how many values each has.
    pub(super) entries: &'a [(&'static str, u32)],
    /// Pinned maps that it goes on with.
    pub(super) continued: &'a [(&'static str, PathBuf)],
}

/// The name of the program at the interfaces' egress.
const EGRESS_PART: &str = "egress";

/// How often a program is given to the kernel whose verifier was interrupted: as often as libbpf does.
const ATTEMPTS: usize = 5;

/// Gives the kernel a program again if its verifier stopped because of a signal for this process (`EAGAIN`).
fn uninterrupted(load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    repeated(load, |error| match error {
        ProgramError::LoadError { io_error, .. } => io_error.kind() == ErrorKind::WouldBlock,
        _ => false,
    })
}

fn repeated<E>(mut load: impl FnMut() -> Result<(), E>, is_interrupted: impl Fn(&E) -> bool) -> Result<(), E> {
    let mut given = load();
    for _ in 1..ATTEMPTS {
        match &given {
            Err(error) if is_interrupted(error) => given = load(),
            _ => break,
        }
    }
    given
}

impl Loaded {
    /// The load balancer that ships, its maps sized and its globals set; over those of these maps that are pinned.
    pub(super) fn balancer(
        wanted: &Settings,
        sizes: &Sizes,
        continued: &[(&'static str, PathBuf)],
    ) -> Result<Self, DataplaneError> {
        Self::balancer_of(OBJECT, program(wanted), wanted, sizes, Beside { continued, ..Beside::default() })
    }

    /// The load balancer that captures packets, over all maps of a set that is pinned.
    pub(super) fn capturing(
        wanted: &Settings,
        sizes: &Sizes,
        pinned: &[(&'static str, PathBuf)],
    ) -> Result<Self, DataplaneError> {
        let entries = [(names::CAPTURE_STATE, sizes.cpus)];
        let beside = Beside { entries: &entries, continued: pinned, ..Beside::default() };
        Self::balancer_of(CAPTURED_OBJECT, names::CAPTURED_PROGRAM, wanted, sizes, beside)
    }

    /// The same of any object that takes our maps and globals, and these globals beside them.
    pub(super) fn balancer_of(
        object: &[u8],
        program: &'static str,
        wanted: &Settings,
        sizes: &Sizes,
        beside: Beside<'_>,
    ) -> Result<Self, DataplaneError> {
        let Beside { globals, entries, continued } = beside;
        let seconds_per_jiffy = seconds_per_jiffy()?;
        let share = |of_node: u32| (of_node / sizes.cpus.max(1)).max(LEAST_OF_EACH);
        let (answers, fragmented) = (share(wanted.answers), share(wanted.fragmented));
        let table_words = sizes.tables * PADDED_SLOTS as u32;
        let object = with_tables(object, sizes.tables)?;
        let mut loader = EbpfLoader::new();
        loader
            .override_global(settings::TABLE_WORDS, &table_words, true)
            .override_global(settings::FLOW_SETS, &sizes.flow_sets, true)
            .override_global(settings::ANSWERS_PER_SECOND, &answers, true)
            .override_global(settings::FRAGMENTED_PER_SECOND, &fragmented, true)
            .override_global(settings::SECONDS_PER_JIFFY, &seconds_per_jiffy, true)
            .map_max_entries(names::DEVICES, names::MAX_INTERFACES)
            .map_max_entries(names::FLOWS, sizes.flows)
            .map_max_entries(names::COUNTS, sizes.counts);
        if sizes.sets_before != 0 {
            loader
                .override_global(settings::FLOW_SETS_BEFORE, &sizes.sets_before, true)
                .map_max_entries(names::FLOWS_BEFORE, sizes.flows_before());
        }
        for (name, value) in globals {
            loader.override_global(name, value, true);
        }
        for (name, entries) in entries {
            loader.map_max_entries(name, *entries);
        }
        for (name, path) in continued {
            loader.map_pin_path(name, path);
        }
        Self::load(&mut loader, &object, program)
    }

    /// One of the backend's programs, on the maps of a set that are pinned already. Missing maps are pinned there.
    pub(super) fn backend(
        program: &'static str,
        cpus: u32,
        mss: Mss,
        pinned: Option<(&Pins, &str)>,
    ) -> Result<Self, DataplaneError> {
        Self::backend_of(BACKEND_OBJECT, program, cpus, mss, pinned)
    }

    /// The same of any object that takes our maps and globals.
    pub(super) fn backend_of(
        object: &[u8],
        program: &'static str,
        cpus: u32,
        mss: Mss,
        pinned: Option<(&Pins, &str)>,
    ) -> Result<Self, DataplaneError> {
        let (mut loader, mss) = (EbpfLoader::new(), mss.bits());
        loader.override_global(settings::DECAP_MSS, &mss, true);
        loader.map_max_entries(names::DECAP_COUNTERS, cpus * names::COUNTER_REGION);
        if let Some((pins, set)) = pinned {
            for name in names::DECAP_MAPS {
                loader.map_pin_path(name, pins.part(set, name));
            }
        }
        Self::load(&mut loader, object, program)
    }

    fn load(loader: &mut EbpfLoader<'_>, object: &[u8], program: &'static str) -> Result<Self, DataplaneError> {
        let ebpf = loader.load(object).map_err(|error| features::blame(DataplaneError::loading(program, &error)))?;
        let mut loaded = Self::New(Box::new(ebpf));
        let xdp = loaded.xdp(program)?;
        uninterrupted(|| xdp.load()).map_err(|error| features::blame(DataplaneError::program(program, &error)))?;
        Ok(loaded)
    }

    /// Another daemon's set. Maps that are mapped into memory are checked as they are mapped; the one that is not mapped is checked
    /// here.
    pub(super) fn pinned(pins: &Pins, set: &str, name: &'static str) -> Result<Self, DataplaneError> {
        let path = pins.part(set, PROGRAM_PART);
        let info = ProgramInfo::from_pin(&path).map_err(|error| DataplaneError::program(name, &error))?;
        if info.name_as_str() != Some(name) {
            return Err(DataplaneError::Load(format!("the pinned map is {:?}, not '{name}'", info.name_as_str())));
        }
        let program = pins::open(&path)?;
        let open = |name| {
            let opened = MapData::from_pin(pins.part(set, name));
            let data = opened.map_err(|error| DataplaneError::map(name, "BPF_OBJ_GET", &error))?;
            Ok((name, if name == names::DEVICES { Map::DevMap(data) } else { Map::Array(data) }))
        };
        let maps = LEFT.into_iter().map(open).collect::<Result<BTreeMap<_, _>, _>>()?;
        let egress = SchedClassifier::from_pin(pins.part(set, EGRESS_PART))
            .map_err(|error| DataplaneError::program(names::EGRESS_PROGRAM, &error))?;
        let loaded = Self::Pinned { program, name, id: info.id(), egress: Box::new(egress), maps };
        if let Map::DevMap(data) = loaded.map(names::DEVICES)? {
            Shape { kind: MapType::DevMap, key: 4, value: DEVICE, entries: names::MAX_INTERFACES, flags: 0 }
                .check(names::DEVICES, data)?;
        }
        Ok(loaded)
    }

    /// Gives the kernel a program for the interfaces' egress too.
    pub(super) fn load_classifier(&mut self, name: &'static str) -> Result<(), DataplaneError> {
        let program = self.classifier(name)?;
        uninterrupted(|| program.load()).map_err(|error| features::blame(DataplaneError::program(name, &error)))
    }

    /// The load balancer's program at the interfaces' egress.
    pub(super) fn egress(&mut self) -> Result<&mut SchedClassifier, DataplaneError> {
        self.classifier(names::EGRESS_PROGRAM)
    }

    /// A program for the interfaces' egress.
    pub(super) fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, DataplaneError> {
        match self {
            Self::Pinned { egress, .. } if name == names::EGRESS_PROGRAM => Ok(egress),
            Self::Pinned { .. } => Err(absent(name)),
            Self::New(ebpf) => match ebpf.program_mut(name) {
                Some(Program::SchedClassifier(program)) => Ok(program),
                _ => Err(absent(name)),
            },
        }
    }

    /// Pins programs and maps for the next daemon; returns the name of the set.
    pub(super) fn pin(&mut self, pins: &Pins, program: &'static str) -> Result<String, DataplaneError> {
        let owned = |fd: std::io::Result<OwnedFd>| fd.map_err(|error| DataplaneError::Load(error.to_string()));
        let failed = |error| DataplaneError::program(names::EGRESS_PROGRAM, &error);
        let egress = owned(self.egress()?.fd().map_err(failed)?.as_fd().try_clone_to_owned())?;
        let fd = owned(self.program(program)?.fd.try_clone_to_owned())?;
        let data = |map| match map {
            &Map::Array(ref data) | &Map::DevMap(ref data) => Ok(data),
            _ => Err(DataplaneError::Load("its maps are of other types".to_owned())),
        };
        let info = data(self.map(names::FORWARDING)?)?.info();
        let id = info.map_err(|error| DataplaneError::map(names::FORWARDING, "BPF_OBJ_GET_INFO_BY_FD", &error))?.id();
        let set = format!("v{SET_VERSION}-{}-{id}", &sha256()[..12]);
        let mut parts = vec![(PROGRAM_PART, fd.as_fd()), (EGRESS_PART, egress.as_fd())];
        for name in LEFT {
            parts.push((name, data(self.map(name)?)?.fd().as_fd()));
        }
        pins.pin_set(&set, &parts)?;
        Ok(set)
    }

    /// A program, to be attached.
    pub(super) fn program(&mut self, wanted: &'static str) -> Result<Runnable<'_>, DataplaneError> {
        match self {
            Self::Pinned { program, name, id, .. } => {
                let found = Runnable { fd: (*program).as_fd(), id: *id };
                if *name == wanted { Ok(found) } else { Err(absent(wanted)) }
            }
            Self::New(ebpf) => {
                let failed = |error| DataplaneError::program(wanted, &error);
                let program = xdp_of(ebpf, wanted)?;
                Ok(Runnable { id: program.info().map_err(failed)?.id(), fd: program.fd().map_err(failed)?.as_fd() })
            }
        }
    }

    /// A program of an object.
    pub(super) fn xdp(&mut self, wanted: &str) -> Result<&mut Xdp, DataplaneError> {
        match self {
            Self::New(ebpf) => xdp_of(ebpf, wanted),
            Self::Pinned { .. } => Err(absent(wanted)),
        }
    }

    /// A map of the object.
    pub(super) fn map(&self, name: &'static str) -> Result<&Map, DataplaneError> {
        match self {
            Self::New(ebpf) => ebpf.map(name),
            Self::Pinned { maps, .. } => maps.get(name),
        }
        .ok_or_else(|| DataplaneError::no_map(name))
    }

    /// A ring of the object, to be read.
    pub(super) fn take_ring(&mut self, name: &'static str) -> Result<RingBuf<MapData>, DataplaneError> {
        let Self::New(ebpf) = self else { return Err(DataplaneError::no_map(name)) };
        let map = ebpf.take_map(name).ok_or_else(|| DataplaneError::no_map(name))?;
        RingBuf::try_from(map).map_err(|error| DataplaneError::map(name, "mmap", &error))
    }

    /// How many values a map of the object has.
    pub(super) fn entries(&self, name: &'static str) -> Result<u32, DataplaneError> {
        let (Map::Array(data) | Map::DevMap(data)) = self.map(name)? else { return Err(DataplaneError::no_map(name)) };
        let info = data.info().map_err(|error| DataplaneError::map(name, "BPF_OBJ_GET_INFO_BY_FD", &error))?;
        Ok(info.max_entries())
    }

    /// The same, to write to through the kernel.
    pub(super) fn map_mut(&mut self, name: &'static str) -> Result<&mut Map, DataplaneError> {
        match self {
            Self::New(ebpf) => ebpf.map_mut(name),
            Self::Pinned { maps, .. } => maps.get_mut(name),
        }
        .ok_or_else(|| DataplaneError::no_map(name))
    }
}

/// An object whose map of forwarding state has room for so many tables. Its definition, in the section `maps`, begins with type, key
/// size, value size and number of values: the one that has the value size of a [`Forwarding`] without tables.
fn with_tables(object: &[u8], tables: u32) -> Result<Vec<u8>, DataplaneError> {
    let definition = |value: usize| [MapType::Array as u32, 4, value as u32, 1].map(u32::to_ne_bytes).concat();
    let (compiled, wanted) = (definition(size_of::<Forwarding>()), definition(forwarding::value_size(tables)));
    let mut found = object.windows(compiled.len()).enumerate().filter(|(_, window)| *window == compiled);
    match (found.next(), found.next()) {
        (Some((at, _)), None) => {
            let mut object = object.to_vec();
            object[at..at + wanted.len()].copy_from_slice(&wanted);
            Ok(object)
        }
        _ => Err(DataplaneError::Load(format!("its map {} has another layout than this release's", names::FORWARDING))),
    }
}

fn xdp_of<'a>(ebpf: &'a mut Ebpf, wanted: &str) -> Result<&'a mut Xdp, DataplaneError> {
    match ebpf.program_mut(wanted) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => Err(absent(wanted)),
    }
}

fn absent(program: &str) -> DataplaneError {
    DataplaneError::Load(format!("it has no program '{program}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_verifier_starts_again_five_times_at_most() {
        let failing = |error: ErrorKind, times: usize| {
            let mut calls = 0;
            let load = || {
                calls += 1;
                if calls > times { Ok(()) } else { Err(error) }
            };
            (repeated(load, |error| *error == ErrorKind::WouldBlock).is_ok(), calls)
        };
        let again = ErrorKind::WouldBlock;
        assert_eq!([0, 4, 9].map(|times| failing(again, times)), [(true, 1), (true, 5), (false, 5)]);
        assert_eq!(failing(ErrorKind::InvalidInput, 1), (false, 1));
    }

    #[test]
    fn the_digest_is_of_the_embedded_object() {
        assert_eq!(sha256().len(), 64);
        assert!(OBJECT.starts_with(b"\x7fELF"));
    }
}
