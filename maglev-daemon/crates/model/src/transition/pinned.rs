//! The flow tables' entries for slots in transition: which flows are *pinned*, that is, belong to another member than
//! their slot's owner. It must not know where the entries lie.

use std::collections::BTreeMap;
use std::sync::Arc;

use maglev_common::backend::MemberId;
use maglev_common::flow::{FlowEntry, Seconds};
use maglev_common::table::SLOTS;

use super::Transition;

/// The pinned flows of one pool.
#[derive(Clone, Debug, Default)]
pub struct Pinned {
    /// Per slot, whether a flow is pinned to another member than its owner; empty if none is.
    slots: Vec<bool>,
    /// How many, by the member they are pinned to.
    members: BTreeMap<MemberId, u32>,
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

/// A survey of every entry of every CPU's flow table, for one pool.
///
/// It must not begin before the slots that it may settle were published as tracked and every packet that saw them learning
/// has ended: such a packet may still write an entry.
#[derive(Clone, Debug)]
pub struct Survey {
    transition: Arc<Transition>,
    now: Seconds,
    idle: u16,
    stable_too: bool,
    found: Pinned,
}

impl Survey {
    /// Begins a survey at a time: entries that were seen within `idle` seconds before count.
    pub fn new(transition: Arc<Transition>, now: Seconds, idle: u16) -> Self {
        Self { transition, now, idle, stable_too: false, found: Pinned::default() }
    }

    /// Counts entries of slots that are not in transition too: where every flow is tracked, they bind.
    #[must_use]
    pub fn with_all_slots(self) -> Self {
        Self { stable_too: true, ..self }
    }

    /// Examines one entry, of a live member of the pool. Returns whether to clear it: its flow was silent for so long that it is
    /// assumed to have ended, and once its slot has settled nothing checks that again.
    pub fn look(&mut self, entry: FlowEntry) -> bool {
        let (slot, member) = (entry.slot().index(), entry.member());
        let moving = self.transition.is_moving(slot);
        if !moving && !self.stable_too {
            return false;
        }
        // An entry that was used a moment after the survey began is recent too.
        let age = self.now.since(entry.last_seen());
        if age > self.idle && age <= u16::MAX / 2 {
            return moving;
        }
        if self.transition.owners()[slot].owner() != member {
            self.found.slots.resize(SLOTS, false);
            self.found.slots[slot] = true;
            *self.found.members.entry(member).or_default() += 1;
        }
        false
    }

    /// The slots that it covers, as they were when it began, and the result.
    pub fn end(self) -> (Arc<Transition>, Pinned) {
        (self.transition, self.found)
    }
}
