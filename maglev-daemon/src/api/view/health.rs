//! A backend's health, as its checks tell it.

use serde::{Deserialize, Serialize};

use crate::health::fsm;

/// What is known by checks, and by what was asked last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is known.
    pub state: HealthState,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// The part of its weight that it has, in percent: slow start.
    pub weight_percent: u8,
    /// The last check that ended; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastCheck>,
    /// Why nothing is checked; absent if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// A check that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheck {
    /// When, in seconds since 1970.
    pub at: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// Why it failed; absent if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is known of a backend by checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// No check has ended yet.
    Checking,
    /// It serves.
    Healthy,
    /// Its checks fail.
    Unhealthy,
    /// There is no way to it: it has no next hop.
    Unreachable,
}

impl HealthState {
    /// The word in JSON, text and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
        }
    }
}

impl From<fsm::Health> for HealthState {
    fn from(health: fsm::Health) -> Self {
        match health {
            fsm::Health::Checking => Self::Checking,
            fsm::Health::Healthy => Self::Healthy,
            fsm::Health::Unhealthy => Self::Unhealthy,
        }
    }
}
