//! The state that another daemon left: whether it can be adopted, and its contents. It must not know why it was left.

use std::collections::BTreeMap;

use maglev_common::backend::MemberId;
use maglev_common::flow::{Bucket, FlowEntry};
use maglev_common::maps as names;
use maglev_common::table::PoolWord;
use maglev_model::Limits;
use maglev_model::digest::Digest;
use maglev_model::plan::Live;
use serde::{Deserialize, Serialize};

use super::error::DataplaneError;
use super::maps::Maps;
use super::object::{self, CONTINUED, LAYOUTS, Sizes, sha256};
use super::{Settings, flows, publish};

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
            limits: [vips, pools, backends],
            rates: [settings.answers, settings.fragmented],
            interfaces: settings.interfaces.iter().map(|interface| interface.name.clone()).collect(),
        })
    }

    /// Everything in which two differ, as the operator knows it.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { layouts, object, program, hash_key, flow_sets, cpus, limits, rates, interfaces } = self;
        let facts = [
            ("the layout of the maps", *layouts == other.layouts),
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
        let layout = |maps: &Self, map: &str| maps.layouts.get(map).copied();
        let is_same = |map: &&'static str| layout(self, map).is_some() && layout(self, map) == layout(before, map);
        let fits = |map: &&'static str| *map != names::FLOWS || self.flow_sets == before.flow_sets;
        let all = CONTINUED.into_iter().filter(|_| self.has_same_slots(before) && self.cpus == before.cpus);
        all.filter(is_same).filter(fits).collect()
    }

    /// What the program that is to be loaded continues of `before`.
    pub fn keeps(&self, before: &Self) -> Kept {
        let continued = self.continues(before);
        let has = |map| continued.contains(&map);
        Kept { flows: has(names::FLOWS), counters: has(names::COUNTS) }
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
    let words = maps.flows.values().iter().flat_map(Bucket::entries);
    let ids: std::collections::BTreeSet<_> =
        words.map(|word| FlowEntry(word.get())).filter(|entry| !entry.is_empty()).map(FlowEntry::member).collect();
    let dead: Vec<_> = ids.into_iter().filter(|&id| dead(id)).collect();
    if !dead.is_empty() {
        flows::purge(maps, &dead);
    }
    Ok(())
}
