//! Whether everything fails at once: then a local fault is likelier. It must not know the targets.

use super::member::Checked;

/// How many of the targets that are relied on are failing now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Those that were healthy, or are in use, and have a result.
    pub(super) healthy: usize,
    pub(super) failing: usize,
    /// Those that are in use and have no result yet.
    pub(super) unchecked: usize,
}

impl Tally {
    /// Whether all fail, which is significant only with several targets.
    pub(super) const fn is_common(self) -> bool {
        self.healthy >= 2 && self.failing == self.healthy
    }

    /// Whether all may fail: those with a result do, and others have none.
    pub(super) const fn is_open(self) -> bool {
        self.unchecked > 0 && self.failing == self.healthy && self.healthy + self.unchecked >= 2
    }

    /// Adds a target that is relied on.
    pub(super) fn add(&mut self, Checked { check, .. }: &Checked) {
        let has_result = check.has_result();
        self.unchecked += usize::from(!has_result);
        self.healthy += usize::from(has_result);
        self.failing += usize::from(check.failures() > 0);
    }

    /// Removes one that was added.
    pub(super) fn remove(&mut self, Checked { check, .. }: &Checked) {
        let has_result = check.has_result();
        self.unchecked -= usize::from(!has_result);
        self.healthy -= usize::from(has_result);
        self.failing -= usize::from(check.failures() > 0);
    }
}
