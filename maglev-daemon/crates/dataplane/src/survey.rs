//! Surveys: a walk through the flow tables of all CPUs, by parts, under the programs that write them. What an entry means
//! is said elsewhere.

use maglev_common::flow::{FlowEntry, Seconds};
use maglev_common::pod::Word;
use maglev_model::plan::{SurveyOrder, Surveyed};
use maglev_model::transition;

use super::flows;
use super::maps::Maps;
use super::shared::Mapped;

/// Buckets of a part: two megabytes.
const PART: usize = 1 << 15;

/// A walk that is under way.
#[derive(Debug)]
pub struct Survey {
    /// By pool index.
    pools: Vec<Option<transition::Survey>>,
    /// The next bucket.
    next: usize,
}

impl Survey {
    pub(super) fn new(orders: Vec<SurveyOrder>, now: Seconds) -> Self {
        let mut pools = Vec::new();
        for SurveyOrder { pool, transition, idle, all_slots } in orders {
            let index = usize::from(pool.0);
            if pools.len() <= index {
                pools.resize_with(index + 1, || None);
            }
            let survey = transition::Survey::new(transition, now, idle);
            pools[index] = Some(if all_slots { survey.with_all_slots() } else { survey });
        }
        Self { pools, next: 0 }
    }

    /// Examines the next part. Returns whether there are more.
    pub(super) fn go_on(&mut self, maps: &Maps) -> bool {
        let all = [Some(&maps.flows), maps.flows_before.as_ref()].map(|table| table.map_or(&[][..], Mapped::values));
        let (first, sets) = (all[0].len(), all[0].len() + all[1].len());
        let end = (self.next + PART).min(sets);
        for set in self.next..end {
            let before = set.checked_sub(first);
            for word in before.map_or_else(|| &all[0][set], |set| &all[1][set]).entries() {
                // What was taken over counts where it is now.
                let entry = FlowEntry(word.get());
                if !entry.is_empty() && before.is_none_or(|set| !flows::is_promoted(maps, set, entry)) {
                    self.look(maps, word, entry);
                }
            }
        }
        self.next = end;
        end < sets
    }

    fn look(&mut self, maps: &Maps, word: &Word, entry: FlowEntry) {
        let state = maps.forwarding().template(entry.member()).state();
        let Some(Some(pool)) = self.pools.get_mut(usize::from(state.pool().0)) else { return };
        if state.is_alive() && pool.look(entry) {
            // Unless the program renews it in this moment: then its flow is not over.
            word.replace(entry.0, FlowEntry::EMPTY.0);
        }
    }

    /// The result.
    pub fn end(self) -> Vec<Surveyed> {
        let found = |(index, survey): (usize, Option<transition::Survey>)| {
            let (transition, pinned) = survey?.end();
            let pool = maglev_common::table::PoolIndex(u16::try_from(index).ok()?);
            Some(Surveyed { pool, transition, pinned })
        };
        self.pools.into_iter().enumerate().filter_map(found).collect()
    }
}
