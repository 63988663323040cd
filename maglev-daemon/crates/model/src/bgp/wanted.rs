//! What neighbors are to know. It must not know how they are sent it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::Route;

/// Prefixes and what is said of each.
pub type Routes = BTreeMap<IpNet, Arc<Route>>;

/// What neighbors are to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Prefixes, and what is said of each.
    pub routes: Routes,
    /// This is all: only changes follow. Neighbors that kept prefixes over a restart drop those that are not among them.
    pub complete: bool,
    /// Which of the sets it is: each has a greater number than those before.
    pub version: u64,
}
