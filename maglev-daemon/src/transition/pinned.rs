//! What the flow tables say of the slots in transition: which flows are *pinned*, that is, belong to another member than
//! their slot's owner. It must not know where the entries lie.

use std::collections::BTreeMap;

use maglev_common::backend::MemberId;
use maglev_common::flow::{FlowEntry, Seconds};
use maglev_common::table::SLOTS;

use super::Transition;

/// The pinned flows of one pool.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// Per slot, whether a flow is pinned to another member than its owner.
    slots: Vec<bool>,
    /// How many, by the member they are pinned to.
    members: BTreeMap<MemberId, u32>,
}

impl Default for Pinned {
    fn default() -> Self {
        Self { slots: vec![false; SLOTS], members: BTreeMap::new() }
    }
}

impl Pinned {
    /// Whether a flow of this slot is pinned.
    pub fn holds(&self, slot: usize) -> bool {
        self.slots.get(slot).copied().unwrap_or(false)
    }

    /// How many flows are pinned to a member.
    pub fn to(&self, member: MemberId) -> u32 {
        self.members.get(&member).copied().unwrap_or(0)
    }

    /// How many flows are pinned.
    pub fn total(&self) -> u32 {
        self.members.values().sum()
    }
}

/// A look at every entry of every CPU's flow table, for one pool.
///
/// It must not begin before the slots that it may settle were published as tracked and every packet that saw them learning
/// has ended: such a packet may still write an entry.
pub struct Survey<'a> {
    transition: &'a Transition,
    /// Whether a member is alive and the pool's: its entries bind their flows.
    binds: &'a dyn Fn(MemberId) -> bool,
    now: Seconds,
    idle: u16,
    found: Pinned,
}

impl<'a> Survey<'a> {
    /// Begins a survey at a time: entries that were seen within `idle` seconds before count.
    pub fn new(transition: &'a Transition, binds: &'a dyn Fn(MemberId) -> bool, now: Seconds, idle: u16) -> Self {
        Self { transition, binds, now, idle, found: Pinned::default() }
    }

    /// Looks at one entry. Tells whether it is to be cleared: its flow was silent for so long that it is taken to be over,
    /// and once its slot has settled nobody would look whether that is so.
    pub fn look(&mut self, entry: FlowEntry) -> bool {
        let (slot, member) = (entry.slot().index(), entry.member());
        if member.is_nobody() || !self.transition.is_moving(slot) || !(self.binds)(member) {
            return false;
        }
        // What was seen a moment after the survey began is recent too.
        let age = self.now.since(entry.last_seen());
        if age > self.idle && age <= u16::MAX / 2 {
            return true;
        }
        if self.transition.owners()[slot] != member {
            self.found.slots[slot] = true;
            *self.found.members.entry(member).or_default() += 1;
        }
        false
    }

    /// What was found.
    pub fn end(self) -> Pinned {
        self.found
    }
}
