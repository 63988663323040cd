//! One backend of a pool: what all that is checked of it says together. It must not know the pool's other backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use maglev_model::{Health, Name, Ramp, Standing};

use super::check::Check;
use super::fleet::News;
use super::target::{Target, Targets};

/// The last check of something.
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
    /// The backend answers, and not as it should.
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

/// Checks that ended, and what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that succeeded.
    pub passed: u64,
    /// Those that failed.
    pub failed: u64,
    /// How often the backend became healthy or unhealthy by them.
    pub changes: u64,
}

/// A backend's health as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHealth {
    /// What is known by checks.
    pub health: Health,
    /// Since when.
    pub since: Duration,
    /// The last check that ended; of several things checked, the one that is worst off.
    pub last: Option<Last>,
    /// Why nothing is checked.
    pub waiting: Option<Arc<str>>,
    /// Until when flap damping holds it back though its checks pass.
    pub held_until: Option<Duration>,
    /// The part of its weight that it has, in percent.
    pub percent: u8,
    /// Checks since it is followed.
    pub counts: Counts,
}

/// What is taken for granted of a backend until its first checks have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presumed {
    /// Nothing: it is not used before it is known to be well.
    Nothing,
    /// It is used because nobody of its pool has been checked yet. Nobody relies on it: its first check decides.
    Untried,
    /// It was in use before: it falls by as many failures as one that is healthy.
    InUse,
}

/// Something that is checked, and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) settings: Arc<maglev_model::Check>,
    pub(super) check: Check,
    pub(super) last: Option<Last>,
}

impl Checked {
    /// Whether it is in use, or would be if it were for this alone.
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
    /// Whether an operator lets it take new flows.
    pub(super) takes: bool,
    pub(super) presumed: Presumed,
    /// Whether checks have said anything of it, to this daemon or to the one before.
    pub(super) heard_of: bool,
    pub(super) checked: BTreeMap<Arc<Target>, Checked>,
    pub(super) waiting: Option<Arc<str>>,
    /// Whether it counted as healthy when the pool was last assessed, and what followed.
    pub(super) was_healthy: bool,
    pub(super) standing: Standing,
    pub(super) ramp: Option<Ramp>,
    pub(super) counts: Counts,
    since: Duration,
}

impl Member {
    pub(super) fn new(takes: bool, presumed: Presumed, heard_of: bool, now: Duration) -> Self {
        let was_healthy = presumed != Presumed::Nothing;
        let standing = Standing { serves: takes && was_healthy, ..Standing::default() };
        let (checked, waiting, ramp) = (BTreeMap::new(), None, None);
        let counts = Counts::default();
        Self { takes, presumed, heard_of, checked, waiting, was_healthy, standing, ramp, counts, since: now }
    }

    /// Follows these targets from now on. What is new is checked before it counts, unless the backend is in use by now.
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

    /// All that is checked of it and relied on.
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

    /// Whether it is not known yet because checks have not ended that will.
    pub(super) fn is_awaited(&self) -> bool {
        self.health() == Health::Checking && self.checked.values().any(|checked| !checked.check.is_heard())
    }

    /// Whether it counts among those of which some must be healthy.
    pub(super) fn is_known(&self) -> bool {
        self.health() != Health::Checking || self.presumed != Presumed::Nothing
    }

    /// Whether none of what is checked of it answers anything.
    pub(super) fn is_dead(&self) -> bool {
        let dead = |checked: &Checked| {
            let last = checked.last.as_ref().map(|last| &last.outcome);
            matches!(last, Some(Err(Failure::Dead(_)))) && checked.check.health() == Health::Unhealthy
        };
        !self.checked.is_empty() && self.checked.values().all(dead)
    }

    /// What there is to tell if its health is another than `before`, which began now. It is counted.
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

    /// Until when flap damping holds back what its checks would make healthy.
    fn held_until(&self) -> Option<Duration> {
        let unhealthy = self.checked.values().filter(|checked| checked.check.health() == Health::Unhealthy);
        let held = unhealthy.map(|checked| checked.check.held_until()).collect::<Option<Vec<_>>>()?;
        held.into_iter().max()
    }

    /// Of the things checked, the one that is worst off.
    fn worst(&self) -> Option<&Checked> {
        self.checked.values().min_by_key(|checked| (checked.check.health(), checked.check.since()))
    }
}
