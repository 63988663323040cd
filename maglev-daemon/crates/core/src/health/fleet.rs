//! All pools whose backends are checked. It must not know the effects of its decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use maglev_model::{Health, Name, Services, Standing};

use super::member::{Checked, Last, Member, MemberHealth};
use super::pool::{CheckedPool, Key, Past};
use super::tally::Tally;
use super::target::{Target, Targets};

/// A change to report to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A backend's health changed.
    Health {
        /// Its pool.
        pool: Name,
        /// Its name.
        backend: Name,
        /// Its health now.
        health: Health,
        /// Why, if a check failed.
        reason: Option<Arc<str>>,
    },
    /// A pool uses all its backends, or no longer does.
    Panic {
        /// The pool.
        pool: Name,
        /// Whether it does.
        on: bool,
        /// How many backends are healthy.
        healthy: usize,
        /// Of how many.
        of: usize,
    },
    /// Everything that is checked fails at once, or no longer does.
    CommonFailure {
        /// Whether it does.
        on: bool,
        /// How many things are checked and were healthy, or in use.
        healthy: usize,
    },
}

/// All pools whose backends are checked.
#[derive(Debug, Default)]
pub struct Fleet {
    pools: BTreeMap<Name, CheckedPool>,
    /// For how many rounds failures of everything are assumed to be a local fault.
    tolerance: u32,
    pub(super) tally: Tally,
    common: bool,
    /// Until their pools are followed: the backends that were in use when another daemon ended.
    recalled: BTreeMap<Name, BTreeSet<Key>>,
    /// Pools whose backends are in use unchecked.
    unchecked: BTreeSet<Name>,
    news: Vec<News>,
}

impl Fleet {
    /// Nothing is checked. `tolerance`: for how many rounds failures of everything at once are assumed to be a local fault.
    pub fn new(tolerance: u32) -> Self {
        Self { tolerance, ..Self::default() }
    }

    /// The backends that were in use when another daemon ended: until they have been checked, these are used.
    pub fn recall(&mut self, in_use: BTreeMap<Name, BTreeSet<(Name, IpAddr)>>) {
        self.recalled = in_use;
    }

    /// Applies the services. Returns whether the used backends, or the parts of their weights, changed: those of pools whose settings
    /// and backends are as before, too.
    pub fn follow(&mut self, services: &Services, now: Duration) -> bool {
        let mut changed = false;
        let wanted = |name: &Name| services.pools.get(name).filter(|pool| pool.health.check.is_some());
        let Self { pools, news, .. } = self;
        pools.retain(|name, pool| {
            let stays = wanted(name).is_some();
            if !stays && pool.panic.is_on() {
                // Where nothing is checked, all count as healthy.
                let all = services.pools.get(name).map_or(0, |pool| pool.available());
                news.push(News::Panic { pool: name.clone(), on: false, healthy: all, of: all });
            }
            stays
        });
        for (name, pool) in services.pools.iter().filter(|(name, _)| wanted(name).is_some()) {
            let past = Past { recalled: self.recalled.remove(name), unchecked: self.unchecked.contains(name) };
            let followed = self.pools.entry(name.clone()).or_insert_with(|| CheckedPool::new(name.clone()));
            followed.follow(services, pool, &past, now, &mut self.news);
            changed |= followed.assess(now, &mut self.news);
        }
        // A backend whose first check is new was in use until then.
        self.recalled.clear();
        self.unchecked = services.pools.keys().filter(|name| wanted(name).is_none()).cloned().collect();
        self.tally = self.count();
        self.look_at_all();
        changed
    }

    /// The targets, and how they are checked.
    pub fn targets(&self) -> Targets {
        let all = self.pools.values().flat_map(|pool| pool.members.values());
        let checked = all.flat_map(|member| &member.checked);
        checked.map(|(target, checked)| (Arc::clone(target), Arc::clone(&checked.settings))).collect()
    }

    /// A check ended. Returns whether the used backends, or the parts of their weights, changed. A result of a target that is no
    /// longer followed is ignored.
    pub fn checked(&mut self, target: &Target, last: Last, now: Duration) -> bool {
        let key = (target.backend.clone(), target.address);
        let Some(pool) = self.pools.get_mut(&target.pool) else { return false };
        let Some(member) = pool.members.get_mut(&key) else { return false };
        let (before, was_dead) = (member.health(), member.is_dead());
        let presumed = member.presumed;
        let Some(checked) = member.checked.get_mut(target) else { return false };
        member.was_checked = true;
        if checked.is_relied_on(presumed) {
            self.tally.remove(checked);
        }
        let Checked { settings, check, last: shown } = checked;
        match &last.outcome {
            Ok(()) => {
                member.counts.passed += 1;
                check.passed(settings.hysteresis, now);
            }
            Err(_) => {
                member.counts.failed += 1;
                check.failed(now);
            }
        }
        *shown = Some(last);
        if checked.is_relied_on(presumed) {
            self.tally.add(checked);
        }
        let mut changed = self.settle(&target.pool, &key, before, now);
        // Whether all fail decides whether this one falls.
        self.look_at_all();
        changed |= self.fall(target, &key, now);
        let Some(pool) = self.pools.get_mut(&target.pool) else { return changed };
        let dies = pool.members.get(&key).is_some_and(|member| member.is_dead() != was_dead);
        (dies && pool.assess_death(now)) | changed
    }

    /// Applies the time. Returns whether the used backends, or the parts of their weights, changed.
    pub fn tick(&mut self, now: Duration) -> bool {
        let Self { pools, news, .. } = self;
        pools.values_mut().fold(false, |changed, pool| pool.assess(now, news) | changed)
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.pools.values().filter_map(CheckedPool::deadline).min()
    }

    /// A backend's standing by its health.
    pub fn standing(&self, pool: &Name, backend: &Name, address: IpAddr) -> Standing {
        let Some(pool) = self.pools.get(pool) else { return Standing::default() };
        pool.members.get(&(backend.clone(), address)).map(|member| member.standing).unwrap_or_default()
    }

    /// A backend's health; `None` if it is not checked.
    pub fn health(&self, pool: &Name, backend: &Name, address: IpAddr) -> Option<MemberHealth> {
        Some(self.pools.get(pool)?.members.get(&(backend.clone(), address))?.show())
    }

    /// A backend's results; `None` if it is not checked.
    pub fn state(&self, pool: &Name, backend: &Name, address: IpAddr) -> Option<Health> {
        Some(self.pools.get(pool)?.members.get(&(backend.clone(), address))?.health())
    }

    /// Whether a pool is in panic.
    pub fn is_in_panic(&self, pool: &Name) -> bool {
        self.pools.get(pool).is_some_and(|pool| pool.panic.is_on())
    }

    /// Whether no backend of a pool answers, for long enough to withdraw its VIPs.
    pub fn is_all_dead(&self, pool: &Name) -> (bool, bool) {
        self.pools.get(pool).map_or((false, false), |pool| (pool.all_dead.is_on(), pool.all_dead.is_lasting()))
    }

    /// Whether everything that is checked fails at once.
    pub const fn is_common_failure(&self) -> bool {
        self.common
    }

    /// How many of a pool's backends are in use that have not been checked yet.
    pub fn awaited(&self, pool: &Name) -> usize {
        self.pools.get(pool).map_or(0, CheckedPool::awaited)
    }

    /// The changes to report since the last call.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn count(&self) -> Tally {
        let mut tally = Tally::default();
        let all = self.pools.values().flat_map(|pool| pool.members.values());
        all.flat_map(Member::relied_on).for_each(|checked| tally.add(checked));
        tally
    }

    /// Checks whether everything fails: that begins only once all targets have results, and ends with the first that passes. Then
    /// each target that failed often enough becomes unhealthy by its next failure: the cause may have been local.
    fn look_at_all(&mut self) {
        let common = self.tolerance > 0 && self.tally.is_common() && (self.common || !self.tally.is_open());
        if std::mem::replace(&mut self.common, common) != common {
            self.news.push(News::CommonFailure { on: common, healthy: self.tally.healthy });
        }
    }

    /// Targets that failed often enough become unhealthy. Returns whether the used backends, or the parts of their weights, changed.
    fn fall(&mut self, target: &Target, key: &Key, now: Duration) -> bool {
        let tolerance = if self.common { self.tolerance } else { 0 };
        let member = self.pools.get_mut(&target.pool).and_then(|pool| pool.members.get_mut(key));
        let Some(member) = member else { return false };
        let (before, presumed) = (member.health(), member.presumed);
        let Some(checked) = member.checked.get_mut(target) else { return false };
        let relied_on = checked.is_relied_on(presumed);
        // Until more is known, the cause may be local.
        if relied_on && self.tolerance > 0 && self.tally.is_open() {
            return false;
        }
        if relied_on {
            self.tally.remove(checked);
        }
        let falls = checked.check.fall(checked.settings.hysteresis, relied_on, tolerance, now);
        if checked.is_relied_on(presumed) {
            self.tally.add(checked);
        }
        if !falls {
            return false;
        }
        self.settle(&target.pool, key, before, now)
    }

    /// Applies a changed health of a backend to its pool.
    fn settle(&mut self, name: &Name, key: &Key, before: Health, now: Duration) -> bool {
        let Some(pool) = self.pools.get_mut(name) else { return false };
        let Some(member) = pool.members.get_mut(key) else { return false };
        let Some(news) = member.news(name, &key.0, before, now) else { return false };
        self.news.push(news);
        pool.assess(now, &mut self.news)
    }
}
