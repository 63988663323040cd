//! The state that another daemon left: whether it can be adopted, and its contents. It must not know why it was left.

use std::collections::BTreeMap;
use std::sync::Arc;

use maglev_common::backend::MemberId;
use maglev_common::flow::{Bucket, FlowEntry};
use maglev_common::maps as names;
use maglev_common::table::PoolWord;
use maglev_model::Limits;
use maglev_model::digest::Digest;
use maglev_model::plan::Live;
use maglev_net::links::Link;
use serde::{Deserialize, Serialize};

use super::barrier::Barrier;
use super::bpf::LinkKind;
use super::error::DataplaneError;
use super::maps::Maps;
use super::object::{self, CONTINUED, LAYOUTS, Loaded, sha256};
use super::pins::Pins;
use super::sizes::Sizes;
use super::{Dataplane, Left, Settings, attach, counters, flows, publish};

/// The properties of a program and its maps that a daemon left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The layout of each map, by its name.
    layouts: BTreeMap<String, u32>,
    /// The object's SHA-256.
    object: String,
    program: String,
    /// The hash key's digest.
    hash_key: String,
    flow_sets: u32,
    cpus: u32,
    /// What lies where in the map of counters.
    #[serde(default)]
    pub(super) counts: counters::Layout,
    /// Of VIPs, pools and backends.
    limits: [u32; 3],
    /// Packets that may be answered, and datagrams in fragments that may begin, in a second.
    rates: [u32; 2],
    /// The interfaces' names in the order of their slots.
    interfaces: Vec<String>,
}

impl Fingerprint {
    /// The properties that a daemon with these settings loads.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn from_settings(settings: &Settings) -> Result<Self, DataplaneError> {
        let Limits { vips, pools, backends } = settings.limits;
        Ok(Self {
            layouts: LAYOUTS.into_iter().map(|(map, layout)| (map.to_owned(), layout)).collect(),
            object: sha256().to_owned(),
            program: object::program(settings).to_owned(),
            hash_key: Digest::from_key(settings.hash_key).to_string(),
            flow_sets: settings.flow_sets,
            cpus: Sizes::from_settings(settings)?.cpus,
            counts: counters::Layout::ours(),
            limits: [vips, pools, backends],
            rates: [settings.answers, settings.fragmented],
            interfaces: settings.interfaces.iter().map(|interface| interface.name.clone()).collect(),
        })
    }

    /// Everything in which two differ, as the operator knows it.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { layouts, object, program, hash_key, flow_sets, cpus, counts, limits, rates, interfaces } = self;
        let facts = [
            ("the layout of the maps", (layouts, counts) == (&other.layouts, &other.counts)),
            ("the eBPF object", *object == other.object),
            ("`trace` or `dataplane.watchdog`", *program == other.program),
            ("`hash_key`", *hash_key == other.hash_key),
            ("`flow_table`", *flow_sets == other.flow_sets),
            ("the number of CPUs", *cpus == other.cpus),
            ("`limits`", *limits == other.limits),
            ("the rates of answers", *rates == other.rates),
            ("`interfaces`", *interfaces == other.interfaces),
        ];
        facts.into_iter().filter(|(_, same)| !same).map(|(what, _)| what).collect()
    }

    /// Whether flows find the same slots in both, so that transitions and flow entries mean the same.
    pub fn has_same_slots(&self, other: &Self) -> bool {
        self.hash_key == other.hash_key
    }

    /// The names of interfaces by their slot.
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// The maps of `before` that a program of this one can go on with. Flow entries have no other meaning only if they lie in as many
    /// sets.
    pub(super) fn continues(&self, before: &Self) -> Vec<&'static str> {
        let fits = |map: &&'static str| match *map {
            names::FLOWS => self.flow_sets == before.flow_sets,
            names::COUNTS => self.counts.continues(&before.counts),
            _ => true,
        };
        CONTINUED.into_iter().filter(|map| self.reads(before, map)).filter(fits).collect()
    }

    /// Whether a map of `before` means to this one what it did.
    fn reads(&self, before: &Self, map: &str) -> bool {
        let layout = |maps: &Self| maps.layouts.get(map).copied();
        let is_same = layout(self).is_some() && layout(self) == layout(before);
        is_same && self.has_same_slots(before) && self.cpus == before.cpus
    }

    /// Whether entries of the flow table of `before`, which is of another size, are taken over as their flows come.
    pub(super) fn promotes(&self, before: &Self) -> bool {
        self.reads(before, names::FLOWS) && self.flow_sets != before.flow_sets
    }

    /// The layout of the counters, if this one can only add what they counted.
    pub(super) fn adds(&self, before: &Self) -> Option<counters::Layout> {
        let adds = !self.continues(before).contains(&names::COUNTS) && self.has_same_slots(before);
        adds.then(|| before.counts.clone()).filter(|layout| *layout != counters::Layout::default())
    }

    /// What the program that is to be loaded continues of `before`.
    pub fn keeps(&self, before: &Self) -> Kept {
        let continued = self.continues(before);
        let has = |map| continued.contains(&map);
        Kept {
            flows: has(names::FLOWS) || self.promotes(before),
            counters: has(names::COUNTS) || self.adds(before).is_some(),
        }
    }
}

/// What a program continues of another daemon's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The flow entries.
    pub flows: bool,
    /// The counters.
    pub counters: bool,
}

impl Kept {
    /// All of it.
    pub const ALL: Self = Self { flows: true, counters: true };
}

impl Dataplane {
    /// Adopts the program and the maps of another daemon's set, which keep forwarding.
    ///
    /// # Errors
    /// The mismatch. Another daemon's set keeps forwarding.
    pub fn adopt(settings: &Settings, links: &[Link], pins: &Arc<Pins>, set: &str) -> Result<Self, DataplaneError> {
        let program = object::program(settings);
        if settings.trace {
            return Err(DataplaneError::Setting("`trace` is on: an adopted program cannot be traced".to_owned()));
        }
        let mut barrier = Barrier::choose()?;
        let ebpf = Loaded::pinned(pins, set, program)?;
        let sizes = Sizes::from_settings(settings)?.after(ebpf.entries(names::FLOWS_BEFORE)?);
        let maps = Maps::open(&ebpf, &sizes, settings)?;
        // Packets of the other daemon's last steps have ended then.
        barrier.wait()?;
        forget_dead(&maps)?;
        let left = Left {
            pins: Arc::clone(pins),
            set: set.to_owned(),
            adopted: true,
            previous: None,
            earlier: None,
            whole: false,
            leftover: Vec::new(),
        };
        let (attached, egress, vlans) = <_>::default();
        let (trace, watchdog, left) = (None, settings.watchdog, Some(left));
        let (capturing, settings) = (None, settings.clone());
        let mut plane =
            Self { attached, egress, vlans, maps, barrier, ebpf, program, trace, watchdog, left, settings, capturing };
        plane.beat()?;
        let held = pins.links(LinkKind::Xdp)?;
        let chosen = attach::choose_or_await(&plane.settings.interfaces, links, &held)?;
        plane.attach(chosen, held, plane.settings.cut, links)?;
        plane.guard()?;
        tracing::info!(set, folder = %pins.folder().display(), "data plane adopted");
        Ok(plane)
    }
}

/// The contents of the maps.
pub(super) fn live(maps: &Maps) -> Live {
    let forwarding = maps.forwarding();
    let pools = &forwarding.pools[..maps.sizes.pools as usize];
    let alive = |id: MemberId| {
        let record = forwarding.member(id);
        record.state().is_alive().then(|| (id, record.clone()))
    };
    Live {
        pools: pools.iter().map(|word| PoolWord(word.get())).collect(),
        members: (1..=MemberId::MAX).filter_map(MemberId::new).filter_map(alive).collect(),
    }
}

/// Removes the dead members, and clears their flow entries: the daemon that left the maps may not have done it,
/// and this one begins anew with those whose backends still exist.
///
/// # Errors
/// A limit that the maps do not have: never, since they are read first.
pub(super) fn forget_dead(maps: &Maps) -> Result<(), DataplaneError> {
    let last = MemberId::MAX.min(u16::try_from(maps.sizes.member_ids - 1).unwrap_or(MemberId::MAX));
    for id in (1..=last).filter_map(MemberId::new) {
        let state = maps.forwarding().member(id).state();
        if state.is_member() && !state.is_alive() {
            publish::remove_member(maps, id)?;
        }
    }
    let dead = |member: MemberId| !maps.forwarding().member(member).state().is_alive();
    let words = maps.buckets().flat_map(Bucket::entries);
    let ids: std::collections::BTreeSet<_> =
        words.map(|word| FlowEntry(word.get())).filter(|entry| !entry.is_empty()).map(FlowEntry::member).collect();
    let dead: Vec<_> = ids.into_iter().filter(|&id| dead(id)).collect();
    if !dead.is_empty() {
        flows::purge(maps, &dead);
    }
    Ok(())
}
