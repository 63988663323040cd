//! The prefixes to announce to neighbors. It must not know how they are sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::Route;

/// Prefixes and the attributes of each.
pub type Routes = BTreeMap<IpNet, Arc<Route>>;

/// The prefixes to announce to neighbors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Prefixes, and the attributes of each.
    pub routes: Routes,
    /// The set is complete: only changes follow. Neighbors that kept prefixes over a restart drop those that are not in it.
    pub complete: bool,
    /// The version of the set: greater than that of every set before.
    pub version: u64,
}
