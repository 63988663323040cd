//! The path by which a check's packets leave the node, and what is ordered of the scheduler. It must not know how a
//! socket is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use maglev_model::Check;

use super::target::Target;

/// The path by which packets leave. By default as the host's routes say, and unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckPath {
    /// The mark that tells the program at the interface's egress which member the packets are for.
    pub mark: Option<u32>,
    /// The index of the interface that they leave by, whatever the routes become: at others, nothing might encapsulate
    /// them.
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

/// How something is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is asked, and when.
    pub check: Arc<Check>,
    /// The path; or why there is none: then every check fails for that.
    pub path: Result<CheckPath, NoPath>,
}

/// All that is checked, and how.
pub type Orders = BTreeMap<Arc<Target>, Order>;
