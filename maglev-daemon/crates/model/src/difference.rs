//! How two sets of services differ, counted. It must not know which of them is in use.

use super::{Delta, Services};

/// How many of each kind differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// VIPs, by name.
    pub vips: Counts,
    /// Pools, by name; a change of a backend does not count as a change of its pool.
    pub pools: Counts,
    /// Backends, by pool and name.
    pub backends: Counts,
}

/// How many of a kind differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that are new.
    pub added: usize,
    /// Those that are others than before.
    pub changed: usize,
    /// Those that are gone.
    pub removed: usize,
}

impl Services {
    /// What leads from these services to others.
    pub fn difference(&self, next: &Self) -> Difference {
        Delta::between(self, next).counts
    }
}
