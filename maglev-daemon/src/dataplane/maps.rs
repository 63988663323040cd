//! The load balancer's maps as memory, each by its name and type. It must not know what is written to them when.

use std::array;

use aya::maps::{Map, MapData};
use maglev_common::counters::Counts;
use maglev_common::flow::Bucket;
use maglev_common::forwarding::Forwarding;
use maglev_common::maps as names;
use maglev_common::pod::Word;
use maglev_common::table::{PADDED_SLOTS, SlotWord};

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
    pub(super) forwarding: Mapped<Forwarding>,
    pub(super) tables: Mapped<TableWords>,
    pub(super) flows: Mapped<Bucket>,
    /// Of each CPU.
    pub(super) counts: Mapped<Counts>,
    pub(super) sizes: Sizes,
}

impl Maps {
    /// Maps them all into memory.
    pub(super) fn open(ebpf: &Loaded, sizes: &Sizes) -> Result<Self, DataplaneError> {
        Ok(Self {
            forwarding: open(ebpf, names::FORWARDING, 1)?,
            tables: open(ebpf, names::TABLES, sizes.tables)?,
            flows: open(ebpf, names::FLOWS, sizes.flows)?,
            counts: open(ebpf, names::COUNTS, sizes.cpus)?,
            sizes: *sizes,
        })
    }

    /// VIPs, pools, members and interfaces.
    pub(super) fn forwarding(&self) -> &Forwarding {
        self.forwarding.first()
    }

    /// Bytes by map.
    pub(super) fn memory(&self) -> Vec<(&'static str, u64)> {
        let Self { forwarding, tables, flows, counts, sizes: _ } = self;
        vec![forwarding.memory(), tables.memory(), flows.memory(), counts.memory()]
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
