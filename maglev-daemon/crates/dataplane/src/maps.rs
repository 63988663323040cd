//! The load balancer's maps as memory, each by its name and type. It must not know their contents.

use aya::maps::{Map, MapData};
use maglev_common::counters::Counts;
use maglev_common::flow::Bucket;
use maglev_common::forwarding::{self, Forwarding, TABLES_OFFSET, Table};
use maglev_common::fragment::{self, Line};
use maglev_common::maps as names;

use super::Settings;
use super::error::DataplaneError;
use super::object::Loaded;
use super::shared::{Mapped, Shape, Shared};
use super::sizes::Sizes;

/// Seconds for which confirmed flow entries are kept, until a plan says otherwise.
const DEFAULT_IDLE: u16 = 15 * 60;

/// The maps.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) forwarding: Mapped<Forwarding>,
    /// By index, in the same map. The first is never written.
    pub(super) tables: Mapped<Table>,
    pub(super) flows: Mapped<Bucket>,
    /// The flow table of another size that this one follows, which the packet path only reads.
    pub(super) flows_before: Option<Mapped<Bucket>>,
    /// Of each CPU, and what was counted before in a map of another layout.
    pub(super) counts: Mapped<Counts>,
    /// An object from before there was a fragment table has none: the benchmark loads such.
    pub(super) fragments: Option<Mapped<Line>>,
    pub(super) sizes: Sizes,
}

impl Maps {
    /// Maps them all into memory, before any packet comes.
    pub(super) fn open(ebpf: &Loaded, sizes: &Sizes, settings: &Settings) -> Result<Self, DataplaneError> {
        let forwarding = Shape::of_values(forwarding::value_size(sizes.tables), 1);
        let maps = Self {
            forwarding: Mapped::start_of(names::FORWARDING, array_data(ebpf, names::FORWARDING)?, &forwarding)?,
            tables: Mapped::part_of(
                names::FORWARDING,
                array_data(ebpf, names::FORWARDING)?,
                &forwarding,
                TABLES_OFFSET,
                sizes.tables,
            )?,
            flows: open(ebpf, names::FLOWS, sizes.flows)?,
            flows_before: match sizes.sets_before {
                0 => None,
                _ => Some(open(ebpf, names::FLOWS_BEFORE, sizes.flows_before())?),
            },
            counts: open(ebpf, names::COUNTS, sizes.counts)?,
            fragments: open(ebpf, names::FRAGMENTS, fragment::LINES).ok(),
            sizes: *sizes,
        };
        maps.forwarding().set_hash_key(settings.hash_key);
        maps.forwarding().set_first_idle(DEFAULT_IDLE);
        Ok(maps)
    }

    /// VIPs, pools, tables, members and interfaces.
    pub(super) fn forwarding(&self) -> &Forwarding {
        self.forwarding.first()
    }

    /// The sets of all CPUs, those of the flow table before included.
    pub(super) fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.flows.values().iter().chain(self.flows_before.iter().flat_map(Mapped::values))
    }

    /// The counters of each CPU.
    pub(super) fn counts_by_cpu(&self) -> &[Counts] {
        &self.counts.values()[..self.sizes.cpus as usize]
    }

    /// What was counted before in a map of another layout: no program counts there.
    pub(super) fn counted_before(&self) -> &Counts {
        &self.counts.values()[self.sizes.cpus as usize]
    }

    /// Bytes by map.
    pub(super) fn memory(&self) -> Vec<(&'static str, u64)> {
        let Self { forwarding, tables, flows, flows_before, counts, fragments, sizes: _ } = self;
        let before = flows_before.iter().map(Mapped::memory);
        let rest = before.chain(fragments.iter().map(Mapped::memory));
        let (name, bytes) = forwarding.memory();
        let forwarding = (name, bytes + tables.memory().1);
        [forwarding, flows.memory(), counts.memory()].into_iter().chain(rest).collect()
    }
}

/// Opens one map of the object.
pub(super) fn open<T: Shared>(ebpf: &Loaded, name: &'static str, entries: u32) -> Result<Mapped<T>, DataplaneError> {
    Mapped::open(name, array_data(ebpf, name)?, entries)
}

fn array_data<'a>(ebpf: &'a Loaded, name: &'static str) -> Result<&'a MapData, DataplaneError> {
    match ebpf.map(name)? {
        Map::Array(data) => Ok(data),
        _ => Err(DataplaneError::no_map(name)),
    }
}
