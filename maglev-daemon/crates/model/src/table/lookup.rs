//! The Maglev lookup table (Eisenbud et al., NSDI 2016, section 3.4), a pure function of backend names and weights.
//! It must not know member ids, addresses or history: two nodes given the same set hold the same bytes.
//!
//! Each backend walks its own permutation of the slots and claims the next free one on its turn. Turns follow the
//! weights: in each round every backend, in the order of names, accumulates its weight; one whose accumulator has
//! reached the largest weight takes a slot and pays that much. Equal weights take turns as in the paper.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use maglev_common::table::SLOTS;
use xxhash_rust::xxh64::xxh64;

use crate::{Name, Weight};

/// The value of a slot without an owner.
pub const NO_OWNER: u16 = u16::MAX;

const M: u32 = SLOTS as u32;

/// A table: the owner of each slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    names: Box<[Name]>,
    slots: Box<[u16]>,
}

impl Table {
    /// Builds the table of a set of backends, given in any order. A backend of weight 0 is left out; at most 32,767
    /// can own slots, as many as there are member ids.
    pub fn build<'a>(backends: impl IntoIterator<Item = (&'a Name, Weight)>) -> Self {
        let mut backends: Vec<_> = backends.into_iter().filter(|(_, weight)| weight.0 > 0).collect();
        backends.sort_unstable();
        backends.dedup_by(|a, b| a.0 == b.0);
        backends.truncate(NO_OWNER as usize);
        let slots = fill(&backends);
        Self { names: backends.into_iter().map(|(name, _)| name.clone()).collect(), slots }
    }

    /// The backends that take part, in the order of their names.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Per slot the owner's index in [`Self::names`]; [`NO_OWNER`] in every slot of an empty table.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }

    /// The name of a slot's owner.
    pub fn owner(&self, slot: usize) -> Option<&Name> {
        self.names.get(usize::from(*self.slots.get(slot)?))
    }

    /// How many slots each backend owns, in the order of [`Self::names`].
    pub fn shares(&self) -> Vec<u32> {
        let mut shares = vec![0; self.names.len()];
        for &owner in &self.slots {
            if let Some(share) = shares.get_mut(usize::from(owner)) {
                *share += 1;
            }
        }
        shares
    }
}

/// One backend's walk over the slots: the permutation is (offset + n × skip) mod 65,537, never written out.
struct Walk {
    cursor: u32,
    skip: u32,
    /// Two skips at once.
    stride: u32,
    weight: u32,
    accumulated: u32,
}

impl Walk {
    fn new(name: &Name, weight: Weight) -> Self {
        let [offset, skip] = SEEDS.map(|seed| xxh64(name.as_str().as_bytes(), seed));
        // 1 to 65,536: every step visits all slots, because their number is prime.
        let skip = (skip % u64::from(M - 1)) as u32 + 1;
        Self {
            cursor: (offset % u64::from(M)) as u32,
            skip,
            stride: on(skip, skip),
            weight: u32::from(weight.0),
            accumulated: 0,
        }
    }

    /// The next slot of the walk that fits. Two slots are checked for each stride: the processor need not wait for the first to know
    /// the third.
    #[inline(always)]
    fn find(&mut self, fits: impl Fn(u32) -> bool) -> u32 {
        let mut slot = self.cursor;
        while !fits(slot) {
            let next = on(slot, self.skip);
            if fits(next) {
                slot = next;
                break;
            }
            slot = on(slot, self.stride);
        }
        self.cursor = on(slot, self.skip);
        slot
    }
}

/// The slot so many slots on, without a division.
#[inline(always)]
const fn on(slot: u32, by: u32) -> u32 {
    let next = slot + by;
    if next >= M { next - M } else { next }
}

/// How many turns are examined for each slot before they are kept in a queue instead. Where weights are similar, most turns take
/// a slot, and skipping the others is cheaper than a queue.
const MOST_LOOKS: u64 = 16;

fn fill(backends: &[(&Name, Weight)]) -> Box<[u16]> {
    let mut slots = Slots::new();
    let mut walks: Vec<_> = backends.iter().map(|&(name, weight)| Walk::new(name, weight)).collect();
    let Some(heaviest) = walks.iter().map(|walk| walk.weight).max() else { return slots.owners };
    let total: u64 = walks.iter().map(|walk| u64::from(walk.weight)).sum();
    if walks.len() as u64 * u64::from(heaviest) <= MOST_LOOKS * total {
        fill_by_rounds(&mut walks, heaviest, &mut slots);
    } else {
        fill_by_turns(&mut walks, heaviest, &mut slots);
    }
    slots.owners
}

/// Slots that are being filled.
struct Slots {
    owners: Box<[u16]>,
    /// A bit for each slot that has an owner: most steps meet such a slot, and these bits stay in the first-level cache.
    taken: [u64; SLOTS / 64 + 1],
    free: usize,
}

impl Slots {
    fn new() -> Self {
        Self { owners: vec![NO_OWNER; SLOTS].into_boxed_slice(), taken: [0; SLOTS / 64 + 1], free: SLOTS }
    }

    #[inline(always)]
    fn is_free(&self, slot: u32) -> bool {
        self.taken[slot as usize / 64] >> (slot % 64) & 1 == 0
    }

    /// Gives the next free slot of a walk to its backend. Returns whether another one is free.
    #[inline(always)]
    fn take(&mut self, walk: &mut Walk, index: usize) -> bool {
        let slot = walk.find(|slot| self.is_free(slot)) as usize;
        self.taken[slot / 64] |= 1 << (slot % 64);
        self.owners[slot] = index as u16;
        self.free -= 1;
        self.free > 0
    }
}

/// Examines every backend in every round.
fn fill_by_rounds(walks: &mut [Walk], heaviest: u32, slots: &mut Slots) {
    loop {
        for (index, walk) in walks.iter_mut().enumerate() {
            walk.accumulated += walk.weight;
            if walk.accumulated < heaviest {
                continue;
            }
            walk.accumulated -= heaviest;
            if !slots.take(walk, index) {
                return;
            }
        }
    }
}

/// The same turns, only those that take a slot, in the order of rounds and backends: a backend's nth comes in the first
/// round by which its weight has accumulated to n times the heaviest.
fn fill_by_turns(walks: &mut [Walk], heaviest: u32, slots: &mut Slots) {
    let round = |weight: u32, turn: u64| (turn * u64::from(heaviest)).div_ceil(u64::from(weight));
    let first = walks.iter().enumerate().map(|(index, walk)| Reverse((round(walk.weight, 1), index, 1)));
    let mut turns: BinaryHeap<Reverse<(u64, usize, u64)>> = first.collect();
    while let Some(mut next) = turns.peek_mut() {
        let Reverse((_, index, turn)) = *next;
        let walk = &mut walks[index];
        if !slots.take(walk, index) {
            return;
        }
        *next = Reverse((round(walk.weight, turn + 1), index, turn + 1));
    }
}

/// The seeds of offset and skip. With XXH64 they define every table of every node for good.
const SEEDS: [u64; 2] = [0x6d61_676c_6576_2d30, 0x6d61_676c_6576_2d31];

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
