//! The numbers of tables: allocated to fill one aside, freed once no packet can read it any more.

use maglev_common::maps::SPARE_TABLES;
use maglev_common::table::TableIndex;

use super::Step;
use super::ids::Numbers;

/// Tables of previous owners in use at a time. Each pool can then have one of its owners, and beside these there is
/// room to fill one of either kind before the old one is given back.
const MOST_PREVIOUS: usize = SPARE_TABLES as usize - 3;

/// Table numbers that are free, and those that were unpublished in this plan.
#[derive(Debug)]
pub(super) struct Tables {
    free: Numbers,
    retired: Vec<TableIndex>,
    /// Tables of previous owners.
    in_transition: usize,
}

impl Tables {
    /// As many as there is room for beside so many pools; number 0 is the empty table.
    pub(super) fn new(pools: u32) -> Self {
        Self { free: Numbers::new(1..pools + SPARE_TABLES), retired: Vec::new(), in_transition: 0 }
    }

    /// Allocates this table: it is in use.
    pub(super) fn claim(&mut self, table: TableIndex) {
        self.free.claim(table.0);
    }

    /// The same for a table of previous owners.
    pub(super) fn claim_previous(&mut self, table: TableIndex) {
        self.claim(table);
        self.in_transition += usize::from(table != TableIndex::EMPTY);
    }

    /// Whether a pool may have a table of previous owners: one it has already is given back for it.
    pub(super) const fn has_previous_for(&self, has_one: bool) -> bool {
        has_one || self.in_transition < MOST_PREVIOUS
    }

    /// A table for previous owners, as [`Self::take`] gives one.
    pub(super) fn take_previous(&mut self, steps: &mut Vec<Step>) -> Option<TableIndex> {
        let table = self.take(steps)?;
        self.in_transition += 1;
        Some(table)
    }

    /// A table of previous owners that is no longer published.
    pub(super) fn give_back(&mut self, table: TableIndex) {
        self.in_transition -= usize::from(table != TableIndex::EMPTY);
        self.retire(table);
    }

    /// A table that no packet can read. When they run out, a barrier frees those that were unpublished in this plan.
    pub(super) fn take(&mut self, steps: &mut Vec<Step>) -> Option<TableIndex> {
        if self.free.free() == 0 && !self.retired.is_empty() {
            steps.push(Step::Barrier);
            self.release();
        }
        self.free.take().map(TableIndex)
    }

    /// A table that is no longer published.
    pub(super) fn retire(&mut self, table: TableIndex) {
        if table != TableIndex::EMPTY {
            self.retired.push(table);
        }
    }

    /// Whether packets may still read tables that are no longer published.
    pub(super) fn linger(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Frees all that were unpublished: a barrier comes between.
    pub(super) fn release(&mut self) {
        self.retired.drain(..).for_each(|table| self.free.release(table.0));
    }
}
