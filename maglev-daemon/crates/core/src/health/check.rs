//! One check target: its health by its results. It must not know the others.

use std::time::Duration;

use maglev_model::{Health, Hysteresis};

use super::damping::Damping;

/// The state of one check target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    health: Health,
    since: Duration,
    /// How many checks in a row had the same result as the last one.
    run: u32,
    /// Whether that result was a failure.
    failing: bool,
    /// When the first of them ended.
    began: Duration,
    damping: Damping,
}

impl Check {
    /// Nothing has been checked yet.
    pub fn new(now: Duration) -> Self {
        let damping = Damping::default();
        Self { health: Health::Checking, since: now, run: 0, failing: false, began: now, damping }
    }

    /// The health by these results.
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Since when.
    pub const fn since(&self) -> Duration {
        self.since
    }

    /// How many checks in a row failed, up to the last one.
    pub const fn failures(&self) -> u32 {
        if self.failing { self.run } else { 0 }
    }

    /// Until when flap damping holds back a target whose checks pass now.
    pub fn held_until(&self) -> Option<Duration> {
        let passing = self.health == Health::Unhealthy && !self.failing && self.run > 0;
        let hold = self.damping.hold(self.began);
        (passing && !hold.is_zero()).then(|| self.began + hold)
    }

    /// Whether any check has ended.
    pub const fn has_result(&self) -> bool {
        self.run > 0
    }

    /// A check succeeded.
    pub fn passed(&mut self, Hysteresis { rise, fall: _ }: Hysteresis, now: Duration) {
        self.count(false, now);
        let trusted = match self.health {
            Health::Checking => true,
            Health::Healthy => false,
            Health::Unhealthy => self.run >= rise && now.saturating_sub(self.began) >= self.damping.hold(now),
        };
        if trusted {
            self.enter(Health::Healthy, now);
        }
    }

    /// A check failed. [`Self::fall`] decides whether the target becomes unhealthy.
    pub fn failed(&mut self, now: Duration) {
        self.count(true, now);
        self.damping.failed(now);
    }

    /// Becomes unhealthy if it has failed often enough, and `tolerance` times more. A target that is `relied_on` although its health
    /// is unknown has as many tries as a healthy one: connections are at stake. Returns whether it did.
    pub fn fall(&mut self, hysteresis: Hysteresis, relied_on: bool, tolerance: u32, now: Duration) -> bool {
        let Hysteresis { fall, rise: _ } = hysteresis;
        let enough = match self.health {
            Health::Checking if !relied_on => 1,
            Health::Checking | Health::Healthy => fall,
            Health::Unhealthy => return false,
        };
        let falls = self.failures() >= enough.saturating_add(tolerance);
        if falls {
            if relied_on || self.health == Health::Healthy {
                self.damping.fell();
            }
            self.enter(Health::Unhealthy, now);
        }
        falls
    }

    fn count(&mut self, failing: bool, now: Duration) {
        if self.run == 0 || self.failing != failing {
            (self.run, self.failing, self.began) = (0, failing, now);
        }
        self.run = self.run.saturating_add(1);
    }

    fn enter(&mut self, health: Health, now: Duration) {
        (self.health, self.since) = (health, now);
    }
}
