//! Previews of changes to a backend. It must not know how a preview is computed.

use serde::{Deserialize, Serialize};

use super::{NewBackend, StateOrder, Tracking};

/// The body of `POST /v1/plan`: the change to preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase", deny_unknown_fields)]
pub enum Proposal {
    /// A new backend.
    Add {
        /// In this pool.
        pool: String,
        /// The backend.
        backend: NewBackend,
    },
    /// The removal of a backend.
    Remove {
        /// Its pool.
        pool: String,
        /// Its name.
        name: String,
        /// Even if connections are dropped.
        #[serde(default)]
        force: bool,
    },
    /// Another weight.
    Weight {
        /// Its pool.
        pool: String,
        /// Its name.
        name: String,
        /// The new weight.
        weight: u16,
        /// Even if that takes out of service more than is allowed at once.
        #[serde(default)]
        force: bool,
    },
    /// Another state.
    State {
        /// Its pool.
        pool: String,
        /// Its name.
        name: String,
        /// The new state.
        order: StateOrder,
        /// Even if that takes out of service more than is allowed at once.
        #[serde(default)]
        force: bool,
    },
}

/// `POST /v1/plan`: the preview of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The change in words.
    pub change: String,
    /// The backend's pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
    /// The slots of the pool's table.
    pub slots: u32,
    /// The slots whose owner would change.
    pub moved_slots: u32,
    /// The moved slots that no change of shares explains.
    pub collateral_slots: u32,
    /// Recently active flows in the flow tables on the slots that would move: all with tracking `always`; with `exception`,
    /// flows of settled slots are not recorded.
    pub active_flows: u64,
    /// For which packets the flow table is consulted.
    pub tracking: Tracking,
    /// Whether connections of the backend would be dropped.
    pub cuts: bool,
    /// The pool's backends by name.
    pub backends: Vec<PlanShare>,
}

/// The slots of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanShare {
    /// The backend.
    pub name: String,
    /// How many it owns.
    pub slots_before: u32,
    /// How many it would own.
    pub slots_after: u32,
}
