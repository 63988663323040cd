//! The settings and the stages of a drain of the node. It must not know the triggers of the stages.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An operator's settings of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long prefixes are announced as least preferred before they are withdrawn.
    pub lead: Duration,
    /// For how long no packet for a VIP may arrive before the node counts as drained.
    pub quiet: Duration,
    /// No other node announces this node's VIPs.
    pub last_node: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lead: Duration::from_secs(10), quiet: Duration::from_secs(10), last_node: false }
    }
}

/// The stages of a drain. The API and the CLI use the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The order to drain the node is saved.
    Marked,
    /// Prefixes are announced as least preferred.
    Leaving,
    /// All prefixes are being withdrawn. Packets that still arrive are forwarded, in this stage and later.
    Withdrawing,
    /// Waiting until no more packets for VIPs arrive.
    Waiting,
    /// No more packets arrive.
    Drained,
}

impl Stage {
    /// Each of them, in their order.
    pub const ALL: [Self; 5] = [Self::Marked, Self::Leaving, Self::Withdrawing, Self::Waiting, Self::Drained];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::Leaving => "leaving",
            Self::Withdrawing => "withdrawing",
            Self::Waiting => "waiting",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
