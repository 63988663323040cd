//! The load balancer's maps as memory, each by its name and type. It must not know what is written to them when.

use std::array;

use aya::maps::{Map, MapData};
use maglev_common::backend::{InterfaceRecord, MemberRecord};
use maglev_common::counters::Traffic;
use maglev_common::flow::Bucket;
use maglev_common::maps as names;
use maglev_common::pod::Word;
use maglev_common::table::{PADDED_SLOTS, SlotWord};
use maglev_common::vip::{Directory4, Directory6, Switch};

use super::error::DataplaneError;
use super::object::{Loaded, Sizes};
use super::shared::{Mapped, Shared};

/// Slots in one word of a table.
const SLOTS_PER_WORD: usize = 4;

/// A table as words: user space fills it, and the kernel reads its slots.
pub(super) type TableWords = [Word; PADDED_SLOTS / SLOTS_PER_WORD];

/// The maps.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) directories4: Mapped<Directory4>,
    pub(super) directories6: Mapped<Directory6>,
    pub(super) switch: Mapped<Switch>,
    pub(super) pools: Mapped<Word>,
    pub(super) tables: Mapped<TableWords>,
    pub(super) members: Mapped<MemberRecord>,
    pub(super) interfaces: Mapped<InterfaceRecord>,
    pub(super) flows: Mapped<Bucket>,
    pub(super) counters: Mapped<Word>,
    pub(super) vip_traffic: Mapped<Traffic>,
    pub(super) member_traffic: Mapped<Traffic>,
    pub(super) sizes: Sizes,
}

impl Maps {
    /// Maps them all into memory.
    pub(super) fn open(ebpf: &Loaded, sizes: &Sizes) -> Result<Self, DataplaneError> {
        Ok(Self {
            directories4: open(ebpf, names::DIRECTORIES4, 2)?,
            directories6: open(ebpf, names::DIRECTORIES6, 2)?,
            switch: open(ebpf, names::SWITCH, 1)?,
            pools: open(ebpf, names::POOLS, sizes.pools)?,
            tables: open(ebpf, names::TABLES, sizes.tables)?,
            members: open(ebpf, names::MEMBERS, sizes.member_region)?,
            interfaces: open(ebpf, names::INTERFACES, names::MAX_INTERFACES)?,
            flows: open(ebpf, names::FLOWS, sizes.flows)?,
            counters: open(ebpf, names::COUNTERS, sizes.counters)?,
            vip_traffic: open(ebpf, names::VIP_TRAFFIC, sizes.vip_traffic)?,
            member_traffic: open(ebpf, names::MEMBER_TRAFFIC, sizes.member_traffic)?,
            sizes: *sizes,
        })
    }

    /// Bytes by map.
    pub(super) fn memory(&self) -> Vec<(&'static str, u64)> {
        let Self {
            directories4,
            directories6,
            switch,
            pools,
            tables,
            members,
            interfaces,
            flows,
            counters,
            vip_traffic,
            member_traffic,
            sizes: _,
        } = self;
        vec![
            directories4.memory(),
            directories6.memory(),
            switch.memory(),
            pools.memory(),
            tables.memory(),
            members.memory(),
            interfaces.memory(),
            flows.memory(),
            counters.memory(),
            vip_traffic.memory(),
            member_traffic.memory(),
        ]
    }

    /// The traffic of one index on every CPU.
    pub(super) fn regions(traffic: &Mapped<Traffic>, region: u32, index: usize) -> impl Iterator<Item = &Traffic> {
        traffic.values().chunks_exact(region.max(1) as usize).filter_map(move |region| region.get(index))
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

/// Slots as they lie in a table's word.
pub(super) fn pack(slots: &[SlotWord]) -> u64 {
    let bytes: [[u8; 2]; SLOTS_PER_WORD] = array::from_fn(|n| slots.get(n).map_or([0; 2], |slot| slot.0.to_ne_bytes()));
    let [[a, b], [c, d], [e, f], [g, h]] = bytes;
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// A slot of a table.
pub(super) fn slot(table: &TableWords, index: usize) -> SlotWord {
    let word = table.get(index / SLOTS_PER_WORD).map_or(0, Word::get).to_ne_bytes();
    let (slots, _) = word.as_chunks::<2>();
    SlotWord(u16::from_ne_bytes(slots[index % SLOTS_PER_WORD]))
}

/// How slots are cut into words.
pub(super) fn words(slots: &[SlotWord]) -> impl Iterator<Item = u64> {
    slots.chunks(SLOTS_PER_WORD).map(pack)
}
