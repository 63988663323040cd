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
    /// New ones.
    pub added: usize,
    /// Changed ones.
    pub changed: usize,
    /// Removed ones.
    pub removed: usize,
}

impl Services {
    /// The differences from these services to others.
    pub fn difference(&self, next: &Self) -> Difference {
        Delta::between(self, next).counts
    }
}
