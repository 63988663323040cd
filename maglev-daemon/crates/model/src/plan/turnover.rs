//! How a pool's slots get new owners: from its backends to owners and transitions, and from these to tables. It must not
//! know the other pools.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::backend::MemberId;
use maglev_common::settings::Tracking;
use maglev_common::table::{PoolWord, SlotWord, TableIndex};

use super::owners::{Owners, by_slot, owners, table_of};
use super::published::{Begun, Member, PublishedPool};
use super::tables::Tables;
use super::{Slots, Step};
use crate::transition::{Change, Outdated, Pinned, Transition};
use crate::{AdminState, Backend, Name, Pool, PoolSettings};

impl PublishedPool {
    /// Whether anything changed since the last turn-over: settings, backends, their state, or time.
    pub(super) fn has_news(&mut self, now: Duration) -> bool {
        let is_due = self.transition.deadline().is_some_and(|deadline| deadline <= now);
        std::mem::take(&mut self.stirred) || is_due || self.awaits.is_some() || self.differs
    }

    /// Applies the desired state of a pool: owners, states, settings; and what is due by time. A pool that no VIP used until
    /// now has no flows.
    pub(super) fn turn_over(&mut self, desired: &Pool, is_served: bool, now: Duration) {
        // The daemon that made the last plan may have ended before it was carried out.
        self.begun = self.begin(now);
        if self.transition.deadline().is_some_and(|deadline| deadline <= now) {
            Arc::make_mut(&mut self.transition).expire(now);
            self.outdated.previous = true;
            self.pinned = None;
        }
        let (owners, living) = (owners(self.candidates(desired.backends.values())), living(self, desired, now));
        self.awaits = self.awaits.filter(|until| now < *until);
        if owners != self.owners || living != self.living {
            let slots = self.rebuild(owners);
            let learns = is_served && desired.settings.tracking == Tracking::Exception;
            self.hand_over(&slots, &living, learns.then_some(desired.settings.transition.learning), now);
            self.living = living;
        }
        if self.awaits.is_some() && desired.settings.tracking == Tracking::Exception {
            self.note_stand_ins(desired);
        }
        if self.settings.tracking == Tracking::Always && desired.settings.tracking == Tracking::Exception {
            Arc::make_mut(&mut self.transition).track_all();
            self.outdated.current = true;
            self.pinned = None;
        }
        self.settings = desired.settings;
    }

    /// Assigns the slots to their new owners. Without a learning time nothing is learned: every flow is tracked, or there is none.
    fn hand_over(
        &mut self,
        owners: &[SlotWord],
        living: &BTreeSet<MemberId>,
        learning: Option<Duration>,
        now: Duration,
    ) {
        let lives = |id: MemberId| living.contains(&id);
        let transition = Arc::make_mut(&mut self.transition);
        let outdated = match learning {
            None => transition.replace(owners, &lives),
            Some(learning) => {
                let stand_ins = self.awaits.is_some();
                let outdated = transition.change(Change { owners, lives: &lives, now, learning, stand_ins });
                self.begun = Some(Begun { until: now + learning, takes: learning });
                outdated
            }
        };
        self.outdated = self.outdated.or(outdated);
        if outdated.any() {
            self.pinned = None;
        }
    }

    /// Of a node without history that has not reached some backends yet: slots in which others stand in for these are tracked. New
    /// flows stay with the backend that got them; unknown flows belong to the awaited backend, once it is reachable.
    fn note_stand_ins(&mut self, desired: &Pool) {
        let candidates = self.candidates(desired.backends.values());
        if candidates.iter().all(|candidate| candidate.is_resolved) {
            self.awaits = None;
            return;
        }
        let rightful: Owners = candidates.into_iter().map(|candidate| candidate.owner).collect();
        if Arc::make_mut(&mut self.transition).track_stand_ins(&by_slot(&table_of(&rightful), &rightful)) {
            self.outdated.current = true;
            self.pinned = None;
        }
    }

    /// Of a node without history: slots that draining backends would own if they were active are learning.
    pub(super) fn derive(&mut self, desired: &Pool, now: Duration) {
        let draining = |backend: &&Backend| matches!(backend.state, AdminState::Draining { .. });
        if desired.settings.tracking == Tracking::Always || !desired.backends.values().any(|backend| draining(&backend))
        {
            return;
        }
        let member =
            |backend: &Backend| self.member(&backend.name, backend.address).filter(|id| self.living.contains(id));
        let weighted = desired.backends.values().filter(|backend| backend.weight.0 > 0);
        let before: Owners =
            weighted.filter_map(|backend| Some((backend.name.clone(), backend.weight, member(backend)?))).collect();
        let drained: BTreeSet<MemberId> = desired.backends.values().filter(draining).filter_map(member).collect();
        let takes = desired.settings.transition.learning;
        let deadline = now + takes;
        self.begun = Some(Begun { until: deadline, takes });
        let transition = Arc::make_mut(&mut self.transition);
        transition.derive(&by_slot(&table_of(&before), &before), &|id| drained.contains(&id), deadline);
        self.outdated.both = true;
    }

    /// Publishes the outdated parts: owners by tables filled aside and one switch, transitions that end in place. Returns
    /// whether a packet may still see the earlier state of a table that stays.
    pub(super) fn publish(&mut self, tables: &mut Tables, steps: &mut Vec<Step>) -> bool {
        let outdated = std::mem::take(&mut self.outdated);
        if outdated.both {
            self.refill(tables, steps);
        }
        let in_place = !outdated.both && (outdated.current || outdated.previous);
        if in_place && outdated.current && self.current != TableIndex::EMPTY {
            steps.push(Step::UpdateTable { table: self.current, slots: Slots::owners(&self.transition) });
        }
        if in_place && outdated.previous && self.previous != TableIndex::EMPTY {
            match Slots::previous_owners(&self.transition) {
                Some(slots) => steps.push(Step::UpdateTable { table: self.previous, slots }),
                None => tables.give_back(std::mem::take(&mut self.previous)),
            }
        }
        if outdated.any() {
            self.progress = self.transition.progress();
        }
        let word = self.word();
        if word != self.published {
            steps.push(Step::SwitchPool { pool: self.index, word });
            self.published = word;
        }
        if self.pinned.is_none() && self.transition.is_settled() && self.settings.tracking == Tracking::Exception {
            self.pinned = Some(Pinned::default());
        }
        in_place
    }

    /// Fills tables aside and names them in the pool's word to come.
    fn refill(&mut self, tables: &mut Tables, steps: &mut Vec<Step>) {
        if self.transition.is_learning() && !tables.has_previous_for(self.previous != TableIndex::EMPTY) {
            Arc::make_mut(&mut self.transition).learn_no_more();
        }
        let slots = Slots::owners(&self.transition);
        let current = if self.owners.is_empty() && self.transition.is_settled() {
            TableIndex::EMPTY
        } else if let Some(table) = tables.take(steps) {
            steps.push(Step::FillTable { table, slots });
            table
        } else {
            // Never: there is one for each pool beside those of pools in transition. The earlier state is better than none.
            self.outdated.both = true;
            return;
        };
        let previous = Slots::previous_owners(&self.transition).and_then(|slots| {
            let table = tables.take_previous(steps)?;
            steps.push(Step::FillTable { table, slots });
            Some(table)
        });
        // Not before both are filled: they are published still.
        tables.retire(std::mem::replace(&mut self.current, current));
        tables.give_back(std::mem::replace(&mut self.previous, previous.unwrap_or_default()));
    }

    /// Unpublishes its tables: the pool is removed.
    pub(super) fn unpublish(&mut self, tables: &mut Tables, steps: &mut Vec<Step>) {
        if self.published != PoolWord::default() {
            steps.push(Step::SwitchPool { pool: self.index, word: PoolWord::default() });
            self.published = PoolWord::default();
        }
        self.idle(0, steps);
        tables.retire(std::mem::take(&mut self.current));
        tables.give_back(std::mem::take(&mut self.previous));
    }

    fn word(&self) -> PoolWord {
        let PoolSettings { tracking, transition, min_healthy: _, encap: _ } = self.settings;
        PoolWord::settled(self.current).tracked(tracking, transition.udp).learning(self.previous)
    }

    /// Applies the result of a survey. Slots settle if they are unchanged since it began; returns whether any did.
    pub fn surveyed(&mut self, surveyed: &Arc<Transition>, pinned: Pinned) -> bool {
        if !Arc::ptr_eq(surveyed, &self.transition) || self.outdated.any() {
            return false;
        }
        // A copy: the survey is also held by the code that reports it. A stand-in may still have to hand slots back.
        let settled = self.awaits.is_none() && Arc::make_mut(&mut self.transition).settle(&pinned);
        self.outdated = self.outdated.or(Outdated { current: settled, ..Outdated::default() });
        self.pinned = Some(pinned);
        settled
    }
}

/// The members whose flows are kept when their slots get other owners: neither removed nor disabled, nor unreachable for
/// long.
fn living(pool: &PublishedPool, desired: &Pool, now: Duration) -> BTreeSet<MemberId> {
    let stays = |(name, address): &(Name, std::net::IpAddr)| {
        desired.backends.get(name).is_some_and(|backend| backend.address == *address && !backend.is_disabled())
    };
    let lives =
        |(key, member): (&(Name, std::net::IpAddr), &Member)| (stays(key) && member.lives(now)).then_some(member.id);
    pool.members.iter().filter_map(lives).collect()
}
