//! A backend's health, as its checks tell it.

use std::net::SocketAddr;

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
    /// Checks so far.
    pub checks: CheckCounts,
}

/// Checks of a backend since it is checked by this daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCounts {
    /// Those that succeeded.
    pub passed: u64,
    /// Those that failed.
    pub failed: u64,
    /// How often it became healthy or unhealthy by them.
    pub changes: u64,
}

/// `POST /v1/pools/NAME/backends/NAME/check`: what came of one check, made beside what goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
    /// All that was checked.
    pub targets: Vec<CheckedTarget>,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedTarget {
    /// Whom packets were addressed to.
    pub destination: SocketAddr,
    /// The VIP that was asked through the encapsulation; absent: the backend itself was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// The kind of check.
    pub kind: String,
    /// Whether it succeeded.
    pub passed: bool,
    /// How long it took.
    pub microseconds: u64,
    /// Why it failed; absent if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CheckReport {
    /// How many failed.
    pub fn failed(&self) -> usize {
        self.targets.iter().filter(|target| !target.passed).count()
    }
}

/// A check that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheck {
    /// When, in seconds since 1970.
    pub at: u64,
    /// How long it took.
    pub microseconds: u64,
    /// Why it failed; absent if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What checks tell of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolHealth {
    /// How its backends are checked, as `services.yaml` says it.
    pub check: String,
    /// Below this share of healthy backends in percent, all are used; 0 is never.
    pub panic_percent: u8,
    /// How long a backend that comes back takes to reach its full weight.
    pub slow_start_milliseconds: u64,
    /// Its backends that are healthy.
    pub healthy: usize,
    /// Those that have not been checked yet.
    pub checking: usize,
    /// Those whose checks fail.
    pub unhealthy: usize,
    /// Those without a next hop.
    pub unreachable: usize,
    /// Why nothing is checked; absent if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

impl PoolHealth {
    /// How many of its backends are in this state.
    pub const fn count(&self, state: HealthState) -> usize {
        match state {
            HealthState::Checking => self.checking,
            HealthState::Healthy => self.healthy,
            HealthState::Unhealthy => self.unhealthy,
            HealthState::Unreachable => self.unreachable,
        }
    }

    /// How many are checked.
    pub fn all(&self) -> usize {
        HealthState::ALL.iter().map(|state| self.count(*state)).sum()
    }
}

/// The body of what sets checks of a pool: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewHealth {
    /// How its backends are checked, as `services.yaml` says it: `kind: http, path: /healthz`. Null: they are not.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub check: Option<Option<String>>,
    /// Below this share of healthy backends in percent, all are used: 0 (never) to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_percent: Option<u8>,
    /// How long a backend that comes back takes to reach its full weight: up to an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start_milliseconds: Option<u64>,
}

/// Tells null from nothing.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Checking, Self::Healthy, Self::Unhealthy, Self::Unreachable];

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
