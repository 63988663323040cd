//! One backend of a pool: its health over all its targets. It must not know the pool's other backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use maglev_model::{Health, Name, Ramp, Standing};

use super::check::Check;
use super::fleet::News;
use super::target::{Target, Targets};

/// The last check of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// When it ended.
    pub at: Duration,
    /// How long it took.
    pub latency: Duration,
    /// Whether it passed, or why not.
    pub outcome: Result<(), Failure>,
}

/// Why a check failed, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The backend answers, but not as expected.
    Unready(Arc<str>),
    /// Nothing answers: the connection was refused, timed out, or has no route.
    Dead(Arc<str>),
}

impl Failure {
    /// The words.
    pub const fn reason(&self) -> &Arc<str> {
        match self {
            Self::Unready(reason) | Self::Dead(reason) => reason,
        }
    }
}

/// Checks that ended, and their results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that succeeded.
    pub passed: u64,
    /// Those that failed.
    pub failed: u64,
    /// How often they made the backend healthy or unhealthy.
    pub changes: u64,
}

/// A backend's health as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHealth {
    /// The result of its checks.
    pub health: Health,
    /// Since when.
    pub since: Duration,
    /// The last check that ended; of several targets, the worst.
    pub last: Option<Last>,
    /// Why nothing is checked.
    pub waiting: Option<Arc<str>>,
    /// Until when flap damping holds it back although its checks pass.
    pub held_until: Option<Duration>,
    /// The part of its weight that is in effect, in percent.
    pub percent: u8,
    /// Checks since it is followed.
    pub counts: Counts,
}

/// The health assumed for a backend until its first checks have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presumed {
    /// None: it is not used before it is healthy.
    Nothing,
    /// It is used because no backend of its pool has been checked yet. No connection depends on it: its first check decides.
    Untried,
    /// It was in use before: it becomes unhealthy by as many failures as a healthy one.
    InUse,
}

/// A check target, and its state.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) settings: Arc<maglev_model::Check>,
    pub(super) check: Check,
    pub(super) last: Option<Last>,
}

impl Checked {
    /// Whether the backend is in use, or would be by this target alone.
    pub(super) fn is_relied_on(&self, presumed: Presumed) -> bool {
        match self.check.health() {
            Health::Healthy => true,
            Health::Checking => presumed == Presumed::InUse,
            Health::Unhealthy => false,
        }
    }
}

/// A backend.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Whether its administrative state lets it take new flows.
    pub(super) takes: bool,
    pub(super) presumed: Presumed,
    /// Whether it has a check result, of this daemon or of the one before.
    pub(super) was_checked: bool,
    pub(super) checked: BTreeMap<Arc<Target>, Checked>,
    pub(super) waiting: Option<Arc<str>>,
    /// Whether it counted as healthy at the pool's last assessment, and its standing by that.
    pub(super) was_healthy: bool,
    pub(super) standing: Standing,
    pub(super) ramp: Option<Ramp>,
    pub(super) counts: Counts,
    since: Duration,
}

impl Member {
    pub(super) fn new(takes: bool, presumed: Presumed, was_checked: bool, now: Duration) -> Self {
        let was_healthy = presumed != Presumed::Nothing;
        let standing = Standing { serves: takes && was_healthy, ..Standing::default() };
        let (checked, waiting, ramp) = (BTreeMap::new(), None, None);
        let counts = Counts::default();
        Self { takes, presumed, was_checked, checked, waiting, was_healthy, standing, ramp, counts, since: now }
    }

    /// Follows these targets from now on. A new target is checked before it counts, unless the backend is in use.
    pub(super) fn follow(&mut self, wanted: Result<Targets, String>, now: Duration) {
        self.presumed = match self.health() {
            Health::Healthy => Presumed::InUse,
            Health::Checking => self.presumed,
            Health::Unhealthy => Presumed::Nothing,
        };
        let targets = match wanted {
            Ok(targets) => {
                self.waiting = None;
                targets
            }
            Err(why) => {
                self.waiting = Some(why.into());
                Targets::new()
            }
        };
        self.checked.retain(|target, _| targets.contains_key(target));
        for (target, settings) in targets {
            let known = self.checked.entry(target);
            let new = Checked { settings: Arc::clone(&settings), check: Check::new(now), last: None };
            known.or_insert(new).settings = settings;
        }
    }

    /// All its targets that are relied on.
    pub(super) fn relied_on(&self) -> impl Iterator<Item = &Checked> {
        self.checked.values().filter(|checked| checked.is_relied_on(self.presumed))
    }

    /// The worst that is known.
    pub(super) fn health(&self) -> Health {
        self.worst().map_or(Health::Checking, |worst| worst.check.health())
    }

    /// Whether it counts as healthy: by its checks, or presumed so until they have ended.
    pub(super) fn counts_as_healthy(&self) -> bool {
        match self.health() {
            Health::Healthy => true,
            Health::Checking => self.presumed != Presumed::Nothing,
            Health::Unhealthy => false,
        }
    }

    /// Whether its health is unknown until pending checks have ended.
    pub(super) fn is_awaited(&self) -> bool {
        self.health() == Health::Checking && self.checked.values().any(|checked| !checked.check.has_result())
    }

    /// Whether it counts in the share of healthy backends.
    pub(super) fn is_known(&self) -> bool {
        self.health() != Health::Checking || self.presumed != Presumed::Nothing
    }

    /// Whether none of its targets answers.
    pub(super) fn is_dead(&self) -> bool {
        let dead = |checked: &Checked| {
            let last = checked.last.as_ref().map(|last| &last.outcome);
            matches!(last, Some(Err(Failure::Dead(_)))) && checked.check.health() == Health::Unhealthy
        };
        !self.checked.is_empty() && self.checked.values().all(dead)
    }

    /// The change to report if its health differs from `before`, which began now. It is counted.
    pub(super) fn news(&mut self, pool: &Name, backend: &Name, before: Health, now: Duration) -> Option<News> {
        let MemberHealth { health, last, .. } = self.show();
        if health == before {
            return None;
        }
        self.since = now;
        self.counts.changes += u64::from(health != Health::Checking);
        let failure = last.filter(|_| health == Health::Unhealthy).and_then(|last| last.outcome.err());
        let reason = failure.map(|failure| Arc::clone(failure.reason()));
        Some(News::Health { pool: pool.clone(), backend: backend.clone(), health, reason })
    }

    pub(super) fn show(&self) -> MemberHealth {
        let worst = self.worst();
        MemberHealth {
            health: self.health(),
            since: self.since,
            last: worst.and_then(|worst| worst.last.clone()),
            waiting: self.waiting.clone(),
            held_until: self.held_until(),
            percent: self.standing.percent,
            counts: self.counts,
        }
    }

    /// Until when flap damping holds back a backend whose checks pass.
    fn held_until(&self) -> Option<Duration> {
        let unhealthy = self.checked.values().filter(|checked| checked.check.health() == Health::Unhealthy);
        let held = unhealthy.map(|checked| checked.check.held_until()).collect::<Option<Vec<_>>>()?;
        held.into_iter().max()
    }

    /// The worst of its targets.
    fn worst(&self) -> Option<&Checked> {
        self.checked.values().min_by_key(|checked| (checked.check.health(), checked.check.since()))
    }
}
