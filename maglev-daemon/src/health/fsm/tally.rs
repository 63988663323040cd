//! Whether everything fails at once: then the checker is the likelier fault. It must not know what is checked.

/// How many of those that were healthy are failing now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) healthy: usize,
    pub(super) failing: usize,
}

impl Tally {
    /// Whether all fail, which says something only of several.
    pub(super) const fn is_common(self) -> bool {
        self.healthy >= 2 && self.failing == self.healthy
    }

    pub(super) fn add(&mut self, healthy: bool, failing: bool) {
        self.healthy += usize::from(healthy);
        self.failing += usize::from(healthy && failing);
    }

    pub(super) fn remove(&mut self, healthy: bool, failing: bool) {
        self.healthy -= usize::from(healthy);
        self.failing -= usize::from(healthy && failing);
    }
}
