//! A data plane that continues another one, of another daemon or of this process, with programs of its own: on its flow table and its
//! counters, with forwarding state that is written anew. The other one forwards until this one can. It must not know why they differ.
//!
//! ```text
//!             pinned set          new set
//!  program    old ──── forwards until outlive() ──▶ new
//!  FORWARDING its tables          the same members by the same ids; tables by the first plan
//!  FLOWS, FRAGMENTS, COUNTS ═══════ the same maps, pinned in both sets
//! ```
//!
//! A flow table of another size is the new set's FLOWS_BEFORE, from which its program takes over the entries of flows that come.
//! Counters of another layout are added where no program counts: as they are, and at the end what was counted meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::maps::MapData;
use maglev_common::backend::{MemberId, MemberRecord};
use maglev_common::counters::Counts;
use maglev_common::flow::Bucket;
use maglev_common::fragment::{self, Line};
use maglev_common::maps as names;
use maglev_net::links::Link;
use serde::{Deserialize, Serialize};

use super::adopt::{self, Fingerprint};
use super::barrier::Barrier;
use super::bpf::LinkKind;
use super::counters::{self, Earlier};
use super::driver_report::Surroundings;
use super::error::DataplaneError;
use super::maps::Maps;
use super::object::Loaded;
use super::pins::Pins;
use super::shared::{Mapped, Shape};
use super::sizes::Sizes;
use super::{Dataplane, Interface, Settings, attach, flows, publish};

/// What is continued of another daemon's set.
#[derive(Clone, Debug)]
pub(super) struct Continued<'a> {
    pub(super) set: &'a str,
    maps: Vec<&'static str>,
    /// Whether its flow table is of another size.
    promotes: bool,
    /// The layout of its counters, if they are to be added.
    adds: Option<counters::Layout>,
    /// Whether this process runs it.
    is_of_this_process: bool,
}

impl<'a> Continued<'a> {
    fn new(set: &'a str, before: &Fingerprint, mine: &Fingerprint) -> Self {
        let (maps, promotes, adds) = (mine.continues(before), mine.promotes(before), mine.adds(before));
        Self { set, maps, promotes, adds, is_of_this_process: false }
    }

    /// Whether the set is of a data plane that this process runs.
    pub(super) const fn is_of_this_process(&self) -> bool {
        self.is_of_this_process
    }

    /// The pinned maps that the new program goes on with, and their sizes. One of another shape than its layout says is not ours.
    pub(super) fn maps(&self, pins: &Pins, sizes: Sizes) -> (Vec<(&'static str, PathBuf)>, Sizes) {
        let at = |name: &&'static str| (*name, pins.part(self.set, name));
        let mut maps: Vec<_> = self.maps.iter().map(at).filter(|(name, path)| fits(name, path, &sizes)).collect();
        // Entries that wait to be taken over may do so in the next set too.
        let before = if self.promotes { names::FLOWS } else { names::FLOWS_BEFORE };
        let is_read = self.promotes || self.maps.contains(&names::FLOWS);
        let path = pins.part(self.set, before);
        let sizes = match is_read.then(|| flows_of(&path, sizes)).flatten() {
            Some((_, sizes)) => {
                maps.push((names::FLOWS_BEFORE, path));
                sizes
            }
            None => sizes,
        };
        (maps, sizes)
    }

    /// Takes over what waits in the flow table from before the one that the new one follows.
    pub(super) fn take_over(&self, pins: &Pins, maps: &Maps) {
        let path = pins.part(self.set, names::FLOWS_BEFORE);
        if self.promotes
            && let Some((earlier, _)) = flows_of(&path, maps.sizes)
        {
            flows::take_over(maps, earlier.values());
        }
    }

    /// The counters that are to be added.
    pub(super) fn counters(&self, pins: &Pins) -> Option<Earlier> {
        let path = pins.part(self.set, names::COUNTS);
        let layout = self.adds.as_ref()?;
        let opened = pinned(names::COUNTS, &path).and_then(|data| Earlier::open(&data, layout));
        opened.inspect_err(|error| tracing::warn!(%error, "counters begin at 0")).ok()
    }
}

/// A pinned flow table, and the sizes beside it, unless it is empty or none.
fn flows_of(path: &Path, sizes: Sizes) -> Option<(Mapped<Bucket>, Sizes)> {
    let data = MapData::from_pin(path).ok()?;
    let sizes = sizes.after(data.info().ok()?.max_entries());
    let flows = Mapped::<Bucket>::open(names::FLOWS_BEFORE, &data, sizes.flows_before()).ok()?;
    let is_used = sizes.sets_before.is_power_of_two()
        && flows.values().iter().flat_map(Bucket::entries).any(|word| word.get() != 0);
    is_used.then_some((flows, sizes))
}

fn pinned(name: &'static str, path: &Path) -> Result<MapData, DataplaneError> {
    MapData::from_pin(path).map_err(|error| DataplaneError::map(name, "BPF_OBJ_GET", &error))
}

fn fits(name: &'static str, path: &Path, sizes: &Sizes) -> bool {
    let shape = match name {
        names::FLOWS => Shape::of_values(size_of::<Bucket>(), sizes.flows),
        names::FRAGMENTS => Shape::of_values(size_of::<Line>(), fragment::LINES),
        _ => Shape::of_values(size_of::<Counts>(), sizes.counts),
    };
    let fit = pinned(name, path).and_then(|data| shape.check(name, &data));
    fit.inspect_err(|error| tracing::warn!(%error, "a pinned map does not fit, and begins anew")).is_ok()
}

impl Dataplane {
    /// Loads programs of this release that continue another daemon's set, which forwards until [`Self::outlive`] and stays until
    /// [`Self::release`]. Its members are to be given to [`Self::continue_members`] before the first plan.
    ///
    /// # Errors
    /// As for [`Self::start`]; another daemon's set keeps forwarding.
    pub fn succeed(
        settings: &Settings,
        links: &[Link],
        pins: &Arc<Pins>,
        (set, before): (&str, &Fingerprint),
    ) -> Result<Self, DataplaneError> {
        Self::go_on_from(settings, links, pins, &Continued::new(set, before, &Fingerprint::from_settings(settings)?))
    }

    /// The same for the set of a data plane that this process runs, with these interfaces; until [`Self::take_over`]. If this one is
    /// dropped before, nothing has changed.
    ///
    /// # Errors
    /// As for [`Self::succeed`]; or an interface does not exist, and is not one that was lost.
    pub fn prepare(
        settings: &Settings,
        links: &[Link],
        pins: &Arc<Pins>,
        (set, before): (&str, &Fingerprint),
        known: &[Interface],
    ) -> Result<Self, DataplaneError> {
        attach::refuse_unknown(&settings.interfaces, links, known)?;
        let continued = Continued::new(set, before, &Fingerprint::from_settings(settings)?);
        Self::go_on_from(settings, links, pins, &Continued { is_of_this_process: true, ..continued })
    }

    fn go_on_from(
        settings: &Settings,
        links: &[Link],
        pins: &Arc<Pins>,
        continued: &Continued<'_>,
    ) -> Result<Self, DataplaneError> {
        let plane = Self::load(settings, links, Some(pins), Some(continued))?;
        let (set, maps) = (continued.set, continued.maps.join(" "));
        tracing::info!(set, maps, "the maps of the pinned data plane that are continued");
        Ok(plane)
    }

    /// Does what a start does, up to the moment at which it would attach a program: the programs are loaded, and freed again.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn rehearse(settings: &Settings, links: &[Link], pins: Option<&Pins>) -> Result<Rehearsal, DataplaneError> {
        let held = pins.map_or_else(|| Ok(BTreeMap::new()), |pins| pins.links(LinkKind::Xdp))?;
        let chosen = attach::choose_or_await(&settings.interfaces, links, &held)?;
        attach::refuse_cuts(&chosen, &held, settings.cut, links)?;
        Barrier::choose()?;
        let sizes = Sizes::from_settings(settings)?;
        let mut ebpf = Loaded::balancer(settings, &sizes, &[])?;
        ebpf.load_classifier(names::EGRESS_PROGRAM)?;
        let maps = Maps::open(&ebpf, &sizes, settings)?;
        let surroundings = Surroundings { links, alone: chosen.len() == 1 };
        let attached = chosen.iter().filter(|interface| interface.exists() && !attach::runs(interface, links));
        let warnings = attached.flat_map(|interface| interface.driver_report(surroundings).warnings()).collect();
        Ok(Rehearsal { memory_bytes: maps.memory().iter().map(|(_, bytes)| bytes).sum(), warnings })
    }

    /// Writes members as they were in the set that this one continues, so that flow entries and counters mean the same.
    ///
    /// # Errors
    /// An id beyond the limit.
    pub fn continue_members(&mut self, members: &BTreeMap<MemberId, MemberRecord>) -> Result<(), DataplaneError> {
        members.iter().try_for_each(|(id, record)| publish::continue_member(&self.maps, *id, record))?;
        adopt::forget_dead(&self.maps)
    }

    /// The devices that packets can leave through, by their slots.
    pub fn slots(&self) -> Slots {
        let interfaces = self.interfaces().iter().map(|it| (it.slot, Device::Interface(it.name.clone())));
        Slots(interfaces.chain(self.vlans().iter().map(|vlan| (vlan.slot, Device::Vlan(vlan.index)))).collect())
    }
}

/// What a start would do, without a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// The bytes that its maps take.
    pub memory_bytes: u64,
    /// What the drivers of the interfaces that it attaches to are known for.
    pub warnings: Vec<String>,
}

/// The devices that packets can leave through, by their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots(pub(super) BTreeMap<u16, Device>);

/// A device that packets can leave through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// An interface, by its configured name.
    Interface(String),
    /// A VLAN device, by its index.
    Vlan(u32),
}

impl Slots {
    /// The device in a slot.
    pub fn device(&self, slot: u16) -> Option<&Device> {
        self.0.get(&slot)
    }

    /// The slot of a device.
    pub fn slot_of(&self, device: &Device) -> Option<u16> {
        self.0.iter().find(|(_, other)| *other == device).map(|(slot, _)| *slot)
    }
}
