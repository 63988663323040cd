//! Whether everything fails at once: then the checker is the likelier fault. It must not know what is checked.

use super::member::Checked;

/// How many of those that are relied on are failing now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Those that were healthy, or are in use, and of which a check has ended.
    pub(super) healthy: usize,
    pub(super) failing: usize,
    /// Those that are in use and of which no check has ended yet.
    pub(super) unheard: usize,
}

impl Tally {
    /// Whether all fail, which says something only of several.
    pub(super) const fn is_common(self) -> bool {
        self.healthy >= 2 && self.failing == self.healthy
    }

    /// Whether all may fail: those that were heard of do, and others were not.
    pub(super) const fn is_open(self) -> bool {
        self.unheard > 0 && self.failing == self.healthy && self.healthy + self.unheard >= 2
    }

    /// Takes in one that is relied on.
    pub(super) fn add(&mut self, Checked { check, .. }: &Checked) {
        let heard = check.is_heard();
        self.unheard += usize::from(!heard);
        self.healthy += usize::from(heard);
        self.failing += usize::from(check.failures() > 0);
    }

    /// Takes one out again, as it was taken in.
    pub(super) fn remove(&mut self, Checked { check, .. }: &Checked) {
        let heard = check.is_heard();
        self.unheard -= usize::from(!heard);
        self.healthy -= usize::from(heard);
        self.failing -= usize::from(check.failures() > 0);
    }
}
