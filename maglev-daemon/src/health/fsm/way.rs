//! By what way a check's packets leave the node, and what is ordered of whoever makes checks. It must not know how a
//! socket is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::target::Target;
use crate::model::Check;

/// By what way packets leave. By default as the host's routes say, and unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The mark that tells the program at the interface's egress which member the packets are for.
    pub mark: Option<u32>,
    /// The index of the interface that they leave by, whatever the routes become: at others, nothing might encapsulate
    /// them.
    pub interface: Option<u32>,
}

/// How something is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is asked, and when.
    pub check: Arc<Check>,
    /// By what way; or why there is none, in words: then every check fails for that.
    pub way: Result<Way, Arc<str>>,
}

/// All that is checked, and how.
pub type Orders = BTreeMap<Arc<Target>, Order>;
