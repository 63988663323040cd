//! The designs that are compared. All run through the same packet path; they differ in what is published to it.

use std::fmt;

use maglev_common::settings::{Tracking, UdpPolicy};
use maglev_common::table::PoolWord;

/// How connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Design {
    /// The table alone decides.
    Table,
    /// Every flow is written down: the Maglev paper's design.
    Always,
    /// Affinity by exception.
    Exception {
        /// Seconds for which slots learn.
        learning: u32,
        /// What a node does that knows no history.
        fresh: Fresh,
    },
}

/// How long a node that knows no history learns the flows of members that it finds draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// As long as any slot, from its start.
    FromStart,
    /// As long as the other nodes do, who learned since the drain began; not at all once that is over.
    WithTheOthers,
}

impl Design {
    /// By exception, as the daemon does it.
    pub(super) const fn exception(learning: u32) -> Self {
        Self::Exception { learning, fresh: Fresh::FromStart }
    }

    /// For how many seconds slots learn.
    pub(super) const fn learning(self) -> u32 {
        match self {
            Self::Table | Self::Always => 0,
            Self::Exception { learning, .. } => learning,
        }
    }

    /// Whether slots are in transition after their owner changed.
    pub(super) const fn has_transitions(self) -> bool {
        matches!(self, Self::Exception { .. })
    }

    /// The word of a pool whose flows are kept like this.
    pub(super) const fn tracked(self, word: PoolWord) -> PoolWord {
        let tracking = match self {
            Self::Always => Tracking::Always,
            Self::Table | Self::Exception { .. } => Tracking::Exception,
        };
        word.tracked(tracking, UdpPolicy::Keep)
    }
}

impl fmt::Display for Design {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => f.write_str("table only"),
            Self::Always => f.write_str("always"),
            Self::Exception { learning, .. } => write!(f, "exception {learning} s"),
        }
    }
}
