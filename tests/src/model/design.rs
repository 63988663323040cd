//! The designs that are compared. All run through the same packet path and the same control plane; they differ in
//! settings.

use std::fmt;

use maglev_common::settings::Tracking;

/// How connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Design {
    /// The table alone decides.
    Table,
    /// Every flow is recorded: the Maglev paper's design.
    Always,
    /// Affinity by exception.
    Exception {
        /// Seconds for which slots learn.
        learning: u32,
        /// The rule of a node without history.
        fresh: Fresh,
    },
}

/// Whether a node that knows no history learns the flows of members that it finds draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// As long as any slot, from its start: what ships.
    FromStart,
    /// As long as nodes with history go on learning them.
    SinceTheDrain,
    /// A flow without an entry is treated as new.
    NotAtAll,
}

impl Design {
    /// By exception, as it ships.
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

    /// The rule of a node without history.
    pub(super) const fn fresh(self) -> Fresh {
        match self {
            Self::Table | Self::Always => Fresh::FromStart,
            Self::Exception { fresh, .. } => fresh,
        }
    }

    /// Whether slots are in transition after their owner changed.
    pub(super) const fn has_transitions(self) -> bool {
        matches!(self, Self::Exception { .. })
    }

    /// The pools' setting. Where the table alone decides, none is heeded; this one spares the control plane transitions.
    pub(super) const fn tracking(self) -> Tracking {
        match self {
            Self::Table | Self::Always => Tracking::Always,
            Self::Exception { .. } => Tracking::Exception,
        }
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
