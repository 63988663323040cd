//! The state that another daemon left: whether it can be adopted, and its contents. It must not know why it was left.

use maglev_common::backend::MemberId;
use maglev_common::flow::{Bucket, FlowEntry};
use maglev_common::table::PoolWord;
use maglev_model::Limits;
use maglev_model::digest::Digest;
use maglev_model::plan::Live;
use serde::{Deserialize, Serialize};

use super::error::DataplaneError;
use super::maps::Maps;
use super::object::{self, LAYOUT, Sizes, sha256};
use super::{Settings, flows, publish};

/// The properties that must agree between the daemon that left a program and its maps, and the one that adopts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    layout: u32,
    /// The object's SHA-256.
    object: String,
    program: String,
    /// The hash key's digest.
    hash_key: String,
    flow_sets: u32,
    cpus: u32,
    /// Of VIPs, pools and backends.
    limits: [u32; 3],
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
            layout: LAYOUT,
            object: sha256().to_owned(),
            program: object::program(settings).to_owned(),
            hash_key: Digest::from_key(settings.hash_key).to_string(),
            flow_sets: settings.flow_sets,
            cpus: Sizes::from_settings(settings)?.cpus,
            limits: [vips, pools, backends],
            interfaces: settings.interfaces.iter().map(|interface| interface.name.clone()).collect(),
        })
    }

    /// The first thing in which two differ.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let Self { layout, object, program, hash_key, flow_sets, cpus, limits, interfaces } = self;
        let facts = [
            ("the layout of the maps", *layout == other.layout),
            ("the eBPF object", *object == other.object),
            ("`trace`", *program == other.program),
            ("`hash_key`", *hash_key == other.hash_key),
            ("`flow_table`", *flow_sets == other.flow_sets),
            ("the number of CPUs", *cpus == other.cpus),
            ("`limits`", *limits == other.limits),
            ("`interfaces`", *interfaces == other.interfaces),
        ];
        facts.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
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
    let words = maps.flows.values().iter().flat_map(Bucket::entries);
    let ids: std::collections::BTreeSet<_> =
        words.map(|word| FlowEntry(word.get())).filter(|entry| !entry.is_empty()).map(FlowEntry::member).collect();
    let dead: Vec<_> = ids.into_iter().filter(|&id| dead(id)).collect();
    if !dead.is_empty() {
        flows::purge(maps, &dead);
    }
    Ok(())
}
