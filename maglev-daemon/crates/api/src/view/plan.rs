//! What a change to a backend would move, and how it is asked for. It must not know how that is found out.

use serde::{Deserialize, Serialize};

use super::{NewBackend, StateOrder, Tracking};

/// The body of `POST /v1/plan`: a change that is not made.
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
    /// The end of a backend.
    Remove {
        /// Its pool.
        pool: String,
        /// Its name.
        name: String,
        /// Even if that cuts connections.
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
        /// What is ordered.
        order: StateOrder,
        /// Even if that takes out of service more than is allowed at once.
        #[serde(default)]
        force: bool,
    },
}

/// `POST /v1/plan`: what a change would move.
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
    /// Those whose owner would be another.
    pub moved_slots: u32,
    /// Of these, what no change of shares explains.
    pub collateral_slots: u32,
    /// Recently active flows that the flow tables know on the slots that would move. All there are where tracking is
    /// `always`; flows of settled slots are not recorded where it is `exception`.
    pub active_flows: u64,
    /// For which packets the flow table is consulted.
    pub tracking: Tracking,
    /// Whether it would cut connections that the backend has.
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
