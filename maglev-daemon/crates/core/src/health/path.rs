//! The path on which a check's packets are sent, and the orders to the scheduler. It must not know how a
//! socket is configured.

use std::collections::BTreeMap;
use std::sync::Arc;

use maglev_model::Check;

use super::target::Target;

/// The path of packets. By default by the host's routes, and unmarked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckPath {
    /// The mark from which the program at the interface's egress learns the member of the packets.
    pub mark: Option<u32>,
    /// The index of the interface that they are sent on, even if routes change: on other interfaces, they might not be
    /// encapsulated.
    pub interface: Option<u32>,
}

/// Why there is no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPath {
    /// In words.
    pub reason: Arc<str>,
    /// The next hop is still being resolved, which takes a moment.
    pub pending: bool,
}

impl std::fmt::Display for NoPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl<T: Into<Arc<str>>> From<T> for NoPath {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), pending: false }
    }
}

/// How a target is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The request, and its times.
    pub check: Arc<Check>,
    /// The path; or why there is none: then every check fails with that reason.
    pub path: Result<CheckPath, NoPath>,
}

/// All targets, and how they are checked.
pub type Orders = BTreeMap<Arc<Target>, Order>;
