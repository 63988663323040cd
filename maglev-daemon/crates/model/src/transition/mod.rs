//! Transitions: which slots of a pool got another owner while the old one lives, their previous owners, and until when their flows
//! are learned. Pure; it knows slots and member ids, not tables in memory, names or clocks.
//!
//! ```text
//!                  change                  deadline                 settle
//!   settled ─────────────────▶ learning ─────────────▶ tracked ─────────────────▶ settled
//!      ▲                       │      ▲                   │  change: learning again
//!      └── previous owner dies ┘      └───────────────────┘
//! ```
//!
//! While a slot is *learning*, its previous owner is known and its live flows are recorded by their packets. When the deadline
//! has passed the slot is *tracked*: a flow without an entry is new. It is *settled* once no recent entry
//! disagrees with the owner.

use std::collections::BTreeMap;
use std::time::Duration;

use maglev_common::backend::MemberId;
use maglev_common::table::{SLOTS, SlotWord};

mod pinned;
mod saved;
#[cfg(test)]
mod tests;

pub use pinned::{Pinned, Survey};
pub use saved::SavedTransition;

/// Deadlines that a pool's learning slots have: slots that changed together share one.
type Deadlines = BTreeMap<u16, Duration>;

/// The phase of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is not in transition.
    Settled,
    /// Flows without an entry belong to the previous owner, until the deadline.
    Learning {
        /// The previous owner.
        previous: MemberId,
        /// When learning ends.
        deadline: Duration,
    },
    /// Flows without an entry are new.
    Tracked,
}

/// The slots of one pool: owners, and transitions. Most of the time no slot is in transition, and nothing is kept for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// As words of settled slots: a full node has a million slots, and members' ids by themselves are twice as large.
    owners: Vec<SlotWord>,
    moving: Option<Moving>,
}

/// Slots in transition, of which there is at least one.
#[derive(Clone, Debug, PartialEq)]
struct Moving {
    /// Per slot [`SETTLED`], [`TRACKED`], or the number of its deadline.
    phases: Vec<u16>,
    /// Per slot the previous owner while it is learning, else no member.
    previous: Vec<SlotWord>,
    deadlines: Deadlines,
}

/// A slot without an owner, or without a previous owner.
const NO_OWNER: SlotWord = SlotWord::settled(MemberId::NOBODY);

const SETTLED: u16 = 0;
const TRACKED: u16 = 1;
const FIRST_DEADLINE: u16 = 2;

/// How many slots are in each phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Learning slots.
    pub learning: u32,
    /// Tracked slots.
    pub tracked: u32,
    /// When the last learning slot's learning ends.
    pub until: Option<Duration>,
    /// Learning slots by their previous owner: its flows may still be found.
    pub learning_for: BTreeMap<MemberId, u32>,
}

/// Which of a pool's published tables are out of date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outdated {
    /// Both: slots have other owners, or began to learn. They are to be built aside, and switched to by one store.
    pub both: bool,
    /// The current one, in which slots entered or left transition: each slot can be rewritten by itself.
    pub current: bool,
    /// The previous one, in which owners were forgotten: likewise.
    pub previous: bool,
}

impl Outdated {
    /// Whether there is anything to publish.
    pub const fn any(self) -> bool {
        self.both || self.current || self.previous
    }

    /// Both states of two together.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            both: self.both || other.both,
            current: self.current || other.current,
            previous: self.previous || other.previous,
        }
    }
}

/// A change of a pool's owners.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// The new owner of each slot, if any. These words do not hold which slots are in transition.
    pub owners: &'a [SlotWord],
    /// Whether a member lives as a previous owner: neither disabled nor dead nor unreachable.
    pub lives: &'a dyn Fn(MemberId) -> bool,
    /// The time of the change.
    pub now: Duration,
    /// How long the flows of a slot with a new owner are learned.
    pub learning: Duration,
    /// Whether owners of tracked slots only stood in for others: flows that began with them have entries, and all others are not
    /// theirs. Nothing is learned of such a slot.
    pub stand_ins: bool,
}

impl Default for Transition {
    fn default() -> Self {
        Self::new()
    }
}

impl Transition {
    /// Slots without owners, all settled.
    pub fn new() -> Self {
        Self { owners: vec![NO_OWNER; SLOTS], moving: None }
    }

    /// The owner of each slot, whether or not that is in transition.
    pub fn owners(&self) -> &[SlotWord] {
        &self.owners
    }

    /// Sets new owners. A slot that gets another owner while the old one lives starts to learn; one that is learning already keeps
    /// its oldest living previous owner and its deadline: flows that began since are in the flow tables, by their SYN. A previous
    /// owner that died is forgotten for good.
    pub fn change(&mut self, change: Change<'_>) -> Outdated {
        let Change { owners, lives, now, learning, stand_ins } = change;
        let mut moving = self.moving.take().unwrap_or_else(Moving::new);
        let fresh = moving.deadline(now + learning);
        let mut outdated = Outdated::default();
        for (slot, &new) in owners.iter().enumerate().take(SLOTS) {
            outdated.previous |= moving.forget_dead(slot, lives);
            let old = std::mem::replace(&mut self.owners[slot], new);
            outdated.both |= old != new;
            let stood_in = stand_ins && moving.phases[slot] == TRACKED;
            if old != new && old != NO_OWNER && lives(old.owner()) && !stood_in && moving.previous[slot] == NO_OWNER {
                moving.phases[slot] = fresh;
                moving.previous[slot] = old;
            }
        }
        self.moving = moving.unless_settled();
        outdated
    }

    /// Sets new owners without learning the old ones' flows. Slots in transition stay so.
    pub fn replace(&mut self, owners: &[SlotWord], lives: &dyn Fn(MemberId) -> bool) -> Outdated {
        let mut outdated = Outdated::default();
        if let Some(mut moving) = self.moving.take() {
            (0..SLOTS).for_each(|slot| outdated.previous |= moving.forget_dead(slot, lives));
            self.moving = moving.unless_settled();
        }
        for (old, &new) in self.owners.iter_mut().zip(owners) {
            outdated.both |= *old != new;
            *old = new;
        }
        outdated
    }

    /// For a node without history: slots that `before` gives to a member that lives but owns nothing any more are learning, as if
    /// they had just got another owner.
    pub fn derive(&mut self, before: &[SlotWord], draining: &dyn Fn(MemberId) -> bool, deadline: Duration) {
        let mut moving = self.moving.take().unwrap_or_else(Moving::new);
        let fresh = moving.deadline(deadline);
        for (slot, &old) in before.iter().enumerate().take(SLOTS) {
            if old != self.owners[slot] && draining(old.owner()) && moving.previous[slot] == NO_OWNER {
                moving.phases[slot] = fresh;
                moving.previous[slot] = old;
            }
        }
        self.moving = moving.unless_settled();
    }

    /// Ends all learning at once: flows that were not recorded are treated as new. Used if there is no free table of previous
    /// owners.
    pub fn learn_no_more(&mut self) {
        let Some(moving) = &mut self.moving else { return };
        moving.deadlines.clear();
        moving.previous.fill(NO_OWNER);
        moving.phases.iter_mut().filter(|phase| **phase != SETTLED).for_each(|phase| *phase = TRACKED);
    }

    /// Marks every slot as tracked that is not in transition: entries that disagree with owners may be about.
    pub fn track_all(&mut self) {
        let moving = self.moving.get_or_insert_with(Moving::new);
        moving.phases.iter_mut().filter(|phase| **phase == SETTLED).for_each(|phase| *phase = TRACKED);
    }

    /// Marks the slots as tracked that are not in transition and have another owner than these: their owners stand in. Returns
    /// whether there are any.
    pub fn track_stand_ins(&mut self, rightful: &[SlotWord]) -> bool {
        let mut moving = self.moving.take().unwrap_or_else(Moving::new);
        let mut marked = false;
        for ((phase, owner), rightful) in moving.phases.iter_mut().zip(&self.owners).zip(rightful) {
            if *phase == SETTLED && owner != rightful {
                *phase = TRACKED;
                marked = true;
            }
        }
        self.moving = moving.unless_settled();
        marked
    }

    /// Lets the slots whose learning ends at one time learn until another. Returns whether there are any.
    pub fn postpone(&mut self, from: Duration, to: Duration) -> bool {
        let deadlines = self.moving.iter_mut().flat_map(|moving| moving.deadlines.values_mut());
        deadlines.filter(|at| **at == from).map(|at| *at = to).count() > 0
    }

    /// Whether there are slots whose learning ends at this time.
    pub fn learns_until(&self, at: Duration) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.deadlines.values().any(|deadline| *deadline == at))
    }

    /// Ends learning where its deadline has passed. Returns whether it did anywhere.
    pub fn expire(&mut self, now: Duration) -> bool {
        let Some(moving) = &mut self.moving else { return false };
        let over: Vec<u16> = moving.deadlines.iter().filter(|(_, at)| **at <= now).map(|(&number, _)| number).collect();
        if over.is_empty() {
            return false;
        }
        moving.deadlines.retain(|number, _| !over.contains(number));
        for (phase, previous) in moving.phases.iter_mut().zip(&mut moving.previous) {
            if *phase >= FIRST_DEADLINE && over.contains(phase) {
                *phase = TRACKED;
                *previous = NO_OWNER;
            }
        }
        true
    }

    /// The next time at which [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.moving.as_ref()?.deadlines.values().min().copied()
    }

    /// Settles the tracked slots for which a survey of all flow tables found no flow of another member. Returns whether any
    /// settled.
    ///
    /// The survey must have been begun after the slots became tracked: see [`Survey`].
    pub fn settle(&mut self, pinned: &Pinned) -> bool {
        let Some(mut moving) = self.moving.take() else { return false };
        let mut settled = false;
        for (slot, phase) in moving.phases.iter_mut().enumerate() {
            if *phase == TRACKED && !pinned.holds(slot) {
                *phase = SETTLED;
                settled = true;
            }
        }
        self.moving = moving.unless_settled();
        settled
    }

    /// Whether every slot is settled.
    pub fn is_settled(&self) -> bool {
        self.moving.is_none()
    }

    /// Whether a slot is in transition.
    pub fn is_moving(&self, slot: usize) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.phases.get(slot).is_some_and(|&phase| phase != SETTLED))
    }

    /// The phase of a slot.
    pub fn phase(&self, slot: usize) -> Phase {
        let Some(moving) = &self.moving else { return Phase::Settled };
        match moving.phases.get(slot) {
            None | Some(&SETTLED) => Phase::Settled,
            Some(&TRACKED) => Phase::Tracked,
            Some(number) => Phase::Learning {
                previous: moving.previous[slot].owner(),
                deadline: moving.deadlines.get(number).copied().unwrap_or_default(),
            },
        }
    }

    /// How many slots are in each phase.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        let Some(moving) = &self.moving else { return progress };
        for (&phase, &previous) in moving.phases.iter().zip(&moving.previous) {
            progress.tracked += u32::from(phase == TRACKED);
            if phase >= FIRST_DEADLINE {
                progress.learning += 1;
                *progress.learning_for.entry(previous.owner()).or_default() += 1;
            }
        }
        Progress { until: moving.deadlines.values().max().copied(), ..progress }
    }

    /// The table as it is published: owners, and which slots are in transition.
    pub fn words(&self) -> impl Iterator<Item = SlotWord> + '_ {
        let word = |(slot, &settled): (usize, &SlotWord)| match self.is_moving(slot) {
            true => SlotWord::moving(settled.owner()),
            false => settled,
        };
        self.owners.iter().enumerate().map(word)
    }

    /// Whether any slot is learning: only then is there a table of previous owners.
    pub fn is_learning(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| !moving.deadlines.is_empty())
    }

    /// The table of previous owners as it is published.
    pub fn previous_words(&self) -> impl Iterator<Item = SlotWord> + '_ {
        (0..SLOTS).map(|slot| self.moving.as_ref().map_or(NO_OWNER, |moving| moving.previous[slot]))
    }
}

impl Moving {
    fn new() -> Self {
        Self { phases: vec![SETTLED; SLOTS], previous: vec![NO_OWNER; SLOTS], deadlines: Deadlines::new() }
    }

    /// The number of a deadline, which may be new.
    fn deadline(&mut self, at: Duration) -> u16 {
        if let Some((&number, _)) = self.deadlines.iter().find(|(_, known)| **known == at) {
            return number;
        }
        // Never without one: there are more numbers than slots that could hold them.
        let number = (FIRST_DEADLINE..=u16::MAX).find(|number| !self.deadlines.contains_key(number));
        let number = number.unwrap_or(u16::MAX);
        self.deadlines.insert(number, at);
        number
    }

    /// A slot whose previous owner died learns no more: entries for other members still apply. Returns whether it
    /// did.
    fn forget_dead(&mut self, slot: usize, lives: &dyn Fn(MemberId) -> bool) -> bool {
        let previous = self.previous[slot];
        let dead = previous != NO_OWNER && !lives(previous.owner());
        if dead {
            self.previous[slot] = NO_OWNER;
            self.phases[slot] = TRACKED;
        }
        dead
    }

    /// Without deadlines that no slot has; nothing if all slots are settled.
    fn unless_settled(mut self) -> Option<Self> {
        let mut used = vec![false; usize::from(u16::MAX) + 1];
        self.phases.iter().for_each(|&phase| used[usize::from(phase)] = true);
        self.deadlines.retain(|&number, _| used[usize::from(number)]);
        let settled = self.deadlines.is_empty() && !used[usize::from(TRACKED)];
        (!settled).then_some(self)
    }
}
