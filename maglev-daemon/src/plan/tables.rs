//! The numbers of tables: taken to fill one aside, given back once no packet can read it any more.

use maglev_common::maps::SPARE_TABLES;
use maglev_common::table::TableIndex;

use super::Step;
use super::ids::Numbers;

/// Table numbers that are free, and those that were unpublished on the way.
#[derive(Debug)]
pub(super) struct Tables {
    free: Numbers,
    retired: Vec<TableIndex>,
}

impl Tables {
    /// As many as there is room for beside so many pools; number 0 is the empty table.
    pub(super) fn new(pools: u32) -> Self {
        Self { free: Numbers::new(1..pools + SPARE_TABLES), retired: Vec::new() }
    }

    /// Takes this table out of those that are filled aside: it is in use.
    pub(super) fn claim(&mut self, table: TableIndex) {
        self.free.claim(table.0);
    }

    /// A table that no packet can read. When they run out, a barrier gives back those that were unpublished on the way.
    pub(super) fn take(&mut self, steps: &mut Vec<Step>) -> Option<TableIndex> {
        if self.free.free() == 0 && !self.retired.is_empty() {
            steps.push(Step::Barrier);
            self.release();
        }
        self.free.take().map(TableIndex)
    }

    /// How many can be taken, once packets under way have ended.
    pub(super) fn room(&self) -> usize {
        self.free.free() + self.retired.len()
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

    /// Gives back all that was unpublished: a barrier comes between.
    pub(super) fn release(&mut self) {
        self.retired.drain(..).for_each(|table| self.free.release(table.0));
    }
}
