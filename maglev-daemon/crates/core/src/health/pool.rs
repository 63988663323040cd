//! A pool: which of its backends are used, by the health of each. It must not know other pools.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use maglev_model::{Health, Name, Percent, Pool, Ramp, Services, Standing};

use super::all_dead::AllDead;
use super::fleet::News;
use super::member::{Member, Presumed};
use super::panic::Panic;
use super::target::targets;

/// Backends by name and address: one whose address changes is another.
pub(super) type Key = (Name, IpAddr);

/// The state before a pool is followed for the first time.
#[derive(Debug)]
pub(super) struct Past {
    /// The backends that were in use when another daemon ended, if one knew the pool.
    pub(super) recalled: Option<BTreeSet<Key>>,
    /// Whether its backends are in use unchecked.
    pub(super) unchecked: bool,
}

impl Past {
    /// The health assumed for a new backend. `first`: no backend of its pool has been checked yet.
    fn presumed(&self, key: &Key, first: bool, can_be_checked: bool) -> Presumed {
        match &self.recalled {
            Some(recalled) if recalled.contains(key) => Presumed::InUse,
            Some(_) => Presumed::Nothing,
            None if first && self.unchecked => Presumed::InUse,
            None if first => Presumed::Untried,
            // Its check would never run.
            None if !can_be_checked => Presumed::InUse,
            None => Presumed::Nothing,
        }
    }
}

/// A pool whose backends are checked.
#[derive(Clone, Debug)]
pub(super) struct CheckedPool {
    name: Name,
    pub(super) members: BTreeMap<Key, Member>,
    pub(super) panic: Panic,
    pub(super) all_dead: AllDead,
    threshold: Percent,
    slow_start: Duration,
}

impl CheckedPool {
    pub(super) fn new(name: Name) -> Self {
        let (panic, all_dead, members) = (Panic::default(), AllDead::default(), BTreeMap::new());
        Self { name, members, panic, all_dead, threshold: Percent(0), slow_start: Duration::ZERO }
    }

    /// Applies the pool's settings and backends.
    pub(super) fn follow(
        &mut self,
        services: &Services,
        pool: &Pool,
        past: &Past,
        now: Duration,
        news: &mut Vec<News>,
    ) {
        self.threshold = pool.health.panic;
        self.slow_start = pool.health.slow_start;
        let checked = pool.backends.values().filter(|backend| !backend.is_disabled());
        let wanted: BTreeMap<Key, _> =
            checked.map(|backend| ((backend.name.clone(), backend.address), backend)).collect();
        self.members.retain(|key, _| wanted.contains_key(key));
        // A backend that is added before any has been checked is in use until then, like all others. New, unchecked targets of others do
        // not matter here.
        let first = !self.members.values().any(|member| member.was_checked);
        for (key, backend) in wanted {
            let Some(check) = pool.health.check_of(&backend.name) else { continue };
            let targets = targets(services, pool, backend, &check);
            let presumed = past.presumed(&key, first, targets.is_ok());
            let takes = backend.takes_new_flows();
            let before = self.members.get(&key).map(Member::health);
            let new = || Member::new(takes, presumed, past.recalled.is_some(), now);
            let member = self.members.entry(key).or_insert_with(new);
            member.takes = takes;
            member.follow(targets, now);
            news.extend(before.and_then(|before| member.news(&self.name, &backend.name, before, now)));
        }
    }

    /// Decides which backends are used. Returns whether they, or the parts of their weights, changed.
    pub(super) fn assess(&mut self, now: Duration, news: &mut Vec<News>) -> bool {
        let takers = || self.members.values().filter(|member| member.takes);
        let known = takers().filter(|member| member.is_known()).count();
        let healthy = takers().filter(|member| member.counts_as_healthy()).count();
        if self.panic.update(self.threshold, healthy, known, now) {
            news.push(News::Panic { pool: self.name.clone(), on: self.panic.is_on(), healthy, of: known });
        }
        let (panic, unknown, slow_start) = (self.panic.is_on(), known == 0, self.slow_start);
        let mut changed = self.assess_death(now);
        for member in self.members.values_mut() {
            let standing = stand(member, panic, unknown, slow_start, now);
            changed |= standing != member.standing;
            member.standing = standing;
        }
        changed
    }

    /// Decides whether all backends that may take new flows are dead. Returns whether that begins, ends, or lasts long enough now.
    pub(super) fn assess_death(&mut self, now: Duration) -> bool {
        let takers = || self.members.values().filter(|member| member.takes);
        let all = takers().next().is_some() && takers().all(Member::is_dead);
        self.all_dead.update(all, now)
    }

    /// When time alone changes something, or should have.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let ramps = self.members.values().filter_map(|member| member.ramp?.next(member.standing.percent));
        ramps.chain(self.panic.deadline()).chain(self.all_dead.deadline()).min()
    }

    /// How many backends are in use that have not been checked yet.
    pub(super) fn awaited(&self) -> usize {
        self.members.values().filter(|member| member.is_awaited() && member.standing.serves).count()
    }
}

/// In panic all are used; while no health is known, all backends of unknown health.
fn stand(member: &mut Member, panic: bool, unknown: bool, slow_start: Duration, now: Duration) -> Standing {
    let healthy = member.counts_as_healthy();
    let was_used = member.was_healthy || member.standing.serves;
    member.was_healthy = healthy;
    if healthy && !was_used {
        member.ramp = Ramp::begin(now, slow_start);
    }
    if panic || !healthy {
        member.ramp = None;
    }
    let percent = member.ramp.map_or(Ramp::FULL, |ramp| ramp.percent(now));
    if percent == Ramp::FULL {
        member.ramp = None;
    }
    let health = member.health();
    let serves = panic || healthy || (unknown && health == Health::Checking);
    Standing { serves, lives: panic || health != Health::Unhealthy, percent }
}
