//! How many values each map has. It must not know what they mean.

use maglev_common::flow::MAX_SETS;
use maglev_common::maps as names;

use super::Settings;
use super::error::DataplaneError;
use super::machine::possible_cpus;

/// How many entries each map gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Regions in the per-CPU arrays: one more than the highest possible CPU's number.
    pub(super) cpus: u32,
    pub(super) pools: u32,
    pub(super) tables: u32,
    /// Sets in a CPU's region of the flow table.
    pub(super) flow_sets: u32,
    pub(super) flows: u32,
    /// Sets in a CPU's region of the flow table that this one follows; 0: it follows none of another size.
    pub(super) sets_before: u32,
    /// Regions of counters: one for each CPU, and what was counted before.
    pub(super) counts: u32,
    /// Interfaces the program is attached to.
    pub(super) interfaces: usize,
    pub(super) vips: u32,
    /// Members, the reserved id 0 included.
    pub(super) member_ids: u32,
}

impl Sizes {
    /// The sizes for these settings on this machine.
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, DataplaneError> {
        let limits = settings.limits;
        let cpus = possible_cpus()?;
        for (what, value, most) in [
            ("VIPs", limits.vips, names::MAX_VIPS),
            ("pools", limits.pools, names::MAX_POOLS),
            ("backends", limits.backends, names::MAX_MEMBERS),
            ("flow sets", settings.flow_sets, MAX_SETS),
        ] {
            if value == 0 || value > most {
                return Err(DataplaneError::Setting(format!("limit of {what}: {value} is not within 1…{most}")));
            }
        }
        if !settings.flow_sets.is_power_of_two() {
            return Err(DataplaneError::Setting(format!("flow sets: {} is not a power of two", settings.flow_sets)));
        }
        let sets = settings.flow_sets;
        let too_many = || format!("flow sets: {sets} for each of {cpus} CPUs exceed a map's 2^32 entries");
        Ok(Self {
            cpus,
            pools: limits.pools,
            tables: limits.pools + names::SPARE_TABLES,
            flow_sets: sets,
            flows: cpus.checked_mul(sets).ok_or_else(|| DataplaneError::Setting(too_many()))?,
            sets_before: 0,
            counts: cpus + 1,
            interfaces: settings.interfaces.len(),
            vips: limits.vips,
            member_ids: limits.backends + 1,
        })
    }

    /// Sets in the flow table that this one follows; where there is none, the map has one all the same.
    pub(super) fn flows_before(&self) -> u32 {
        (self.cpus * self.sets_before).max(1)
    }

    /// The same sizes beside a flow table of another size, of which so many sets are pinned.
    pub(super) fn after(self, flows: u32) -> Self {
        Self { sets_before: if flows > 1 { flows / self.cpus } else { 0 }, ..self }
    }
}
