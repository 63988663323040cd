//! The state of decapsulation that outlives its process, and what a process before this one left. It must not know programs.
//!
//! ```text
//!  /sys/fs/bpf/maglev-decap/eth0   locked by the process that decapsulates on eth0
//!    links/7                       the program's hold on the interface
//!    egress/7                      the hold of the program that lowers the MSS
//!    decap-v1/                     the maps: counters go on, prefixes are changed in place
//! ```
//!
//! The next process loads its own program onto these maps and puts it in the place of the one that the link holds: an upgrade is a
//! start. Maps of another layout have a set of another number; the program on them decapsulates until the link holds the new one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::maps::{MapData, MapType};
use maglev_common::maps as names;

use crate::error::DataplaneError;
use crate::object;
use crate::pins::Pins;
use crate::shared::Shape;

/// The set of pinned maps. Another layout, or counters in another order, takes another number.
pub(super) const SET: &str = "decap-v1";

/// How the names of sets begin.
const SETS: &str = "decap-v";

/// The state that is left to the next process.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) pins: Arc<Pins>,
    /// Whether another process left it to this one.
    pub(super) adopted: bool,
    /// The reason why what another process left is replaced, if it is.
    pub(super) misfit: Option<String>,
}

impl Left {
    /// Takes the folder of an interface for this process. Pinned maps that this release's program cannot use are unpinned: the program
    /// that uses them goes on until it is replaced.
    pub(super) fn claim(folder: &Path, interface: &str) -> Result<Self, DataplaneError> {
        // The BPF file system takes no dots in names, and no interface's name has a colon.
        let pins = Pins::hold(&folder.join(interface.replace('.', ":"))).map_err(|error| match error {
            DataplaneError::PinsInUse { folder, holder } => {
                DataplaneError::DecapInUse { interface: interface.to_owned(), folder, holder }
            }
            other => other,
        })?;
        let (adopted, misfit) = match find(&pins, object::possible_cpus()?) {
            Found::Nothing => (false, None),
            Found::Fitting => (true, None),
            Found::Misfit(reason) => {
                tracing::warn!(interface, folder = %pins.folder().display(), "replacing pinned maps, counters begin anew: {reason}");
                pins.remove_set(SET);
                (false, Some(reason))
            }
        };
        pins.pin_set(SET, &[])?;
        Ok(Self { pins: Arc::new(pins), adopted, misfit })
    }

    /// Where the maps are.
    pub(super) fn set(&self) -> PathBuf {
        self.pins.folder().join(SET)
    }
}

/// The interfaces below a pin folder on which a process left decapsulation running that no process holds now.
pub(super) fn abandoned(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let left = entries.filter(|entry| !sets(&entry.path()).is_empty() && Pins::hold(&entry.path()).is_ok());
    let mut names: Vec<_> = left.filter_map(|entry| Some(entry.file_name().to_str()?.replace(':', "."))).collect();
    names.sort();
    names
}

/// What another process left in a folder.
enum Found {
    Nothing,
    /// Maps as this release's program uses them.
    Fitting,
    /// Other maps, with the difference.
    Misfit(String),
}

fn find(pins: &Pins, cpus: u32) -> Found {
    let sets = sets(pins.folder());
    if !sets.iter().any(|set| set == SET) {
        return match sets.first() {
            Some(other) => Found::Misfit(format!("{other} is of another release, this one has {SET}")),
            None => Found::Nothing,
        };
    }
    let pinned = || fs::read_dir(pins.folder().join(SET)).into_iter().flatten().flatten();
    if pinned().next().is_none() {
        return Found::Nothing;
    }
    let misfit = shapes(cpus).into_iter().find_map(|(name, shape)| {
        let path = pins.part(SET, name);
        if !path.exists() {
            return Some(format!("map {name} is missing"));
        }
        match MapData::from_pin(&path) {
            Ok(data) => shape.check(name, &data).err().map(|error| error.to_string()),
            Err(_) => Some(format!("{name} is not a map")),
        }
    });
    misfit.map_or(Found::Fitting, Found::Misfit)
}

/// The sets in a folder, of any release.
fn sets(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sets: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.strip_prefix(SETS).is_some_and(|number| number.parse::<u32>().is_ok()))
        .collect();
    sets.sort();
    sets
}

/// The maps that are pinned, as this release's program uses them.
fn shapes(cpus: u32) -> [(&'static str, Shape); 5] {
    let trie = |key, entries| Shape { kind: MapType::LpmTrie, key, value: 4, entries, flags: 0 };
    let counters =
        Shape { kind: MapType::Array, key: 4, value: 8, entries: cpus * names::COUNTER_REGION, flags: names::MMAPABLE };
    [
        (names::DECAP_SOURCES4, trie(8, names::DECAP_SOURCES_ROOM)),
        (names::DECAP_SOURCES6, trie(20, names::DECAP_SOURCES_ROOM)),
        (names::DECAP_VIPS4, trie(8, names::DECAP_VIPS_ROOM)),
        (names::DECAP_VIPS6, trie(20, names::DECAP_VIPS_ROOM)),
        (names::DECAP_COUNTERS, counters),
    ]
}
