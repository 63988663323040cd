//! The settings and the stages of a drain of the node. It must not know what takes it from one to the next.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an operator says of drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long prefixes are announced as least preferred before they are withdrawn.
    pub lead: Duration,
    /// How long no packet for a VIP may come in until the node is drained.
    pub quiet: Duration,
    /// No other node announces the VIPs of this one.
    pub last_node: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lead: Duration::from_secs(10), quiet: Duration::from_secs(10), last_node: false }
    }
}

/// The stages of a drain. By these names everywhere, in what the API answers too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is saved that the node is to be drained.
    Marked,
    /// Prefixes are announced as least preferred.
    Leaving,
    /// Neighbours are being told that nothing is announced any more. What arrives is forwarded, here and later.
    Withdrawing,
    /// Packets for VIPs are waited for to stop.
    Waiting,
    /// They have stopped.
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
