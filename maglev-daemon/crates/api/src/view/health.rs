//! Health by checks, and results of single checks.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use maglev_model::UnixTime;

/// The health of a backend, and its last check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The state.
    pub state: HealthState,
    /// The time of the last change of state, in seconds since 1970.
    pub since: u64,
    /// The time since then, by a clock that does not step.
    #[serde(default)]
    pub age_seconds: u64,
    /// The percentage of its weight that it has in slow start.
    pub weight_percent: u8,
    /// The last check that ended; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastCheck>,
    /// The reason why no check is made; absent if checks are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// How long flap damping still holds it back though its checks pass; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back_seconds: Option<u64>,
    /// Checks so far.
    pub checks: CheckCounts,
    /// The source of the times above, which are derived when they are read.
    #[serde(skip)]
    pub clock: HealthClock,
}

/// Times since the daemon's start, by the clock that does not step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthClock {
    /// The last change of state.
    pub since: Duration,
    /// When the last check ended.
    pub last: Duration,
    /// The end of flap damping.
    pub held_until: Option<Duration>,
}

/// Checks that were not made since the node lacks resources. They do not affect health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckShortage {
    /// How many since the daemon started.
    pub checks: u64,
    /// The resource that the last one lacked.
    pub reason: String,
    /// How long ago that was.
    pub seconds_ago: u64,
}

impl Health {
    /// Derives the times for the present uptime and time.
    pub(super) fn derive_times(&mut self, uptime: Duration, UnixTime(now): UnixTime) {
        let HealthClock { since, last, held_until } = self.clock;
        let ago = |time: Duration| uptime.saturating_sub(time).as_secs();
        (self.age_seconds, self.since) = (ago(since), now.saturating_sub(ago(since)));
        if let Some(check) = &mut self.last {
            check.at = now.saturating_sub(ago(last));
        }
        let left = held_until.and_then(|until| until.checked_sub(uptime)).filter(|left| !left.is_zero());
        self.held_back_seconds = left.map(|left| left.as_secs_f64().ceil() as u64);
    }
}

/// The numbers of a backend's checks by this daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCounts {
    /// Passed checks.
    pub passed: u64,
    /// Failed checks.
    pub failed: u64,
    /// How often its health changed.
    pub changes: u64,
}

/// `POST /v1/pools/NAME/backends/NAME/check`: the result of one check, made in addition to the regular ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
    /// The checked targets.
    pub targets: Vec<CheckedTarget>,
}

/// One checked target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedTarget {
    /// The destination of the packets.
    pub destination: SocketAddr,
    /// The VIP, for a check through the encapsulation; absent for a direct check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// The kind of check.
    pub kind: String,
    /// Whether it succeeded.
    pub passed: bool,
    /// How long it took.
    pub microseconds: u64,
    /// The error; absent if it succeeded.
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
    /// The error; absent if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The health of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolHealth {
    /// The check of its backends, in the form of `services.yaml`.
    pub check: String,
    /// The percentage of healthy backends below which all active backends are used (fail-open); 0 turns this off.
    pub panic_percent: u8,
    /// How long a recovered backend takes to reach its full weight.
    pub slow_start_milliseconds: u64,
    /// The action once no backend has answered a check for 60 s: `withdraw` or `keep`.
    #[serde(default)]
    pub on_all_dead: String,
    /// Whether no backend has answered a check for 60 s.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_dead: bool,
    /// The number of healthy backends.
    pub healthy: usize,
    /// The number of backends without a finished check.
    pub checking: usize,
    /// The number of backends whose checks fail.
    pub unhealthy: usize,
    /// The number of backends without a next hop.
    pub unreachable: usize,
    /// The reason why no check is made; absent if checks are made.
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

/// The settings of a pool's checks in a request; absent fields keep their value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewHealth {
    /// The check of its backends, in the form of `services.yaml`: `kind: http, path: /healthz`. Null: no check.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub check: Option<Option<String>>,
    /// The percentage of healthy backends below which all active backends are used (fail-open): 0 (off) to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_percent: Option<u8>,
    /// How long a recovered backend takes to reach its full weight: up to an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start_milliseconds: Option<u64>,
    /// The action once no backend has answered a check for 60 s: `withdraw` or `keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_all_dead: Option<String>,
}

/// Distinguishes null from an absent field.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// No check has ended yet.
    Checking,
    /// Its checks pass.
    Healthy,
    /// Its checks fail.
    Unhealthy,
    /// Its next hop is unresolved.
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

impl From<maglev_model::Health> for HealthState {
    fn from(health: maglev_model::Health) -> Self {
        match health {
            maglev_model::Health::Checking => Self::Checking,
            maglev_model::Health::Healthy => Self::Healthy,
            maglev_model::Health::Unhealthy => Self::Unhealthy,
        }
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use maglev_testing::matrix::Row;

    fn health() -> Health {
        let clock = HealthClock {
            since: Duration::from_secs(100),
            last: Duration::from_secs(130),
            held_until: Some(Duration::from_millis(140_500)),
        };
        let (state, last) = (HealthState::Unhealthy, Some(LastCheck { at: 0, microseconds: 1, error: None }));
        let checks = CheckCounts::default();
        let (since, age_seconds, weight_percent, waiting, held_back_seconds) = (0, 0, 100, None, None);
        Health { state, since, age_seconds, weight_percent, last, waiting, held_back_seconds, checks, clock }
    }

    #[test]
    fn times_follow_the_clock_that_does_not_step() {
        let mut health = health();
        for (case, now) in
            [("the wall clock steps forward by a year", 1_031_557_600), ("the wall clock steps back by a year", 1_000)]
        {
            let _row = Row::fault("R10", case);
            health.derive_times(Duration::from_secs(132), UnixTime(1_000_000_000));
            assert_eq!((health.age_seconds, health.since), (32, 999_999_968));
            health.derive_times(Duration::from_secs(133), UnixTime(now));
            assert_eq!((health.age_seconds, health.since), (33, now - 33));
            assert_eq!(health.last.as_ref().map(|last| last.at), Some(now - 3));
        }
    }

    #[test]
    fn the_rest_of_flap_damping_is_shown_until_its_end() {
        let mut row = Row::fault("R10", "the time left of flap damping, in JSON");
        let mut health = health();
        let mut left = |seconds| {
            health.derive_times(Duration::from_secs(seconds), UnixTime(1_000));
            health.held_back_seconds
        };
        assert_eq!([132, 140, 141].map(&mut left), [Some(9), Some(1), None]);
        row.says("held_back_seconds");
    }
}
