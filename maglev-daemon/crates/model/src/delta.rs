//! The difference between two states of the services, object by object, as a history records it. It depends on no rule of how
//! changes are admitted, so that another release replays it alike. It must not know files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Backend, Change, Counts, Difference, Name, Override, Pool, PoolHealth, Services, Vip};

/// A backend, and its override of the pool's check.
type WholeBackend = (Backend, Option<Override>);

/// The objects that are new or changed, and the names of those that are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New and changed objects. A pool in it has only its new and changed backends; an unchanged pool is included where a backend or
    /// a VIP needs it: these are complete services, written and read like all others.
    pub set: Services,
    /// Removed objects.
    pub removed: Removed,
    /// How many of each kind differ.
    pub counts: Difference,
}

/// Names of removed objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Pools, each with all of its backends.
    pub pools: BTreeSet<Name>,
    /// Backends, by pool and name, of pools that stay.
    pub backends: BTreeSet<(Name, Name)>,
    /// VIPs.
    pub vips: BTreeSet<Name>,
}

impl Delta {
    /// The difference between two states of the services.
    pub fn between(before: &Services, after: &Services) -> Self {
        let mut delta = Self::default();
        for name in before.pools.keys().chain(after.pools.keys().filter(|name| !before.pools.contains_key(*name))) {
            let (before, after) = (before.pools.get(name), after.pools.get(name));
            if before != after {
                delta.pool(name, before.map(Arc::as_ref), after.map(Arc::as_ref));
            }
        }
        for name in before.vips.keys().chain(after.vips.keys().filter(|name| !before.vips.contains_key(*name))) {
            delta.vip(name, before.vips.get(name), after);
        }
        delta
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.counts == Difference::default()
    }

    /// The pools that it affects.
    pub fn pools(&self) -> BTreeSet<&Name> {
        let of_backends = self.removed.backends.iter().map(|(pool, _)| pool);
        self.set.pools.keys().chain(&self.removed.pools).chain(of_backends).collect()
    }

    /// The backends that it affects, by pool and name, without those of a removed pool.
    pub fn backends(&self) -> impl Iterator<Item = (&Name, &Name)> {
        let set = self.set.pools.iter().flat_map(|(pool, found)| found.backends.keys().map(move |name| (pool, name)));
        set.chain(self.removed.backends.iter().map(|(pool, name)| (pool, name)))
    }

    fn pool(&mut self, name: &Name, before: Option<&Pool>, after: Option<&Pool>) {
        let Some(now) = after else {
            if let Some(gone) = before {
                self.removed.pools.insert(name.clone());
                self.counts.pools.removed += 1;
                self.counts.backends.removed += gone.backends.len();
            }
            return;
        };
        let header = without_backends(now);
        if before.map(without_backends).as_ref() != Some(&header) {
            count(&mut self.counts.pools, before.is_some());
            self.set.pools.insert(name.clone(), header.into());
        }
        let differs = |name: &&Name| part(before, name) != part(after, name);
        for backend in before.iter().flat_map(|pool| pool.backends.keys()).filter(differs) {
            self.backend(name, backend, whole_backend(before, backend).as_ref(), after);
        }
        let is_new = |name: &&Name| before.is_none_or(|pool| !pool.backends.contains_key(*name));
        now.backends.keys().filter(is_new).for_each(|backend| self.backend(name, backend, None, after));
    }

    fn backend(&mut self, pool: &Name, name: &Name, before: Option<&WholeBackend>, after: Option<&Pool>) {
        let now = whole_backend(after, name);
        match (after, now) {
            (Some(of), Some(now)) if before != Some(&now) => {
                count(&mut self.counts.backends, before.is_some());
                let set = self.set.pools.entry(pool.clone()).or_insert_with(|| without_backends(of).into());
                put(Arc::make_mut(set), now);
            }
            (_, None) if before.is_some() => {
                self.counts.backends.removed += 1;
                self.removed.backends.insert((pool.clone(), name.clone()));
            }
            _ => {}
        }
    }

    fn vip(&mut self, name: &Name, before: Option<&Vip>, after: &Services) {
        match after.vips.get(name) {
            Some(now) if before != Some(now) => {
                count(&mut self.counts.vips, before.is_some());
                if let Some(pool) = after.pools.get(&now.pool) {
                    self.set.pools.entry(now.pool.clone()).or_insert_with(|| without_backends(pool).into());
                }
                self.set.vips.insert(name.clone(), now.clone());
            }
            None if before.is_some() => {
                self.counts.vips.removed += 1;
                self.removed.vips.insert(name.clone());
            }
            _ => {}
        }
    }
}

/// An object that is new or changed.
const fn count(counts: &mut Counts, existed: bool) {
    if existed {
        counts.changed += 1;
    } else {
        counts.added += 1;
    }
}

fn without_backends(pool: &Pool) -> Pool {
    let Pool { name, settings, health, backends: _ } = pool;
    let PoolHealth { check, overrides: _, panic, slow_start, on_all_dead } = health;
    let (check, overrides) = (check.clone(), BTreeMap::new());
    let health = PoolHealth { check, overrides, panic: *panic, slow_start: *slow_start, on_all_dead: *on_all_dead };
    Pool { settings: *settings, health, ..Pool::new(name.clone()) }
}

fn whole_backend(pool: Option<&Pool>, name: &Name) -> Option<WholeBackend> {
    part(pool, name).map(|(backend, own)| (backend.clone(), own.cloned()))
}

/// A backend of a pool, and its override of the pool's check.
fn part<'a>(pool: Option<&'a Pool>, name: &Name) -> Option<(&'a Backend, Option<&'a Override>)> {
    let pool = pool?;
    Some((pool.backends.get(name)?, pool.health.overrides.get(name)))
}

fn put(pool: &mut Pool, (backend, own): WholeBackend) {
    match own {
        Some(own) => drop(pool.health.overrides.insert(backend.name.clone(), own)),
        None => drop(pool.health.overrides.remove(&backend.name)),
    }
    pool.backends.insert(backend.name.clone(), backend);
}

/// The object that a change affects, as it is before.
#[derive(Debug)]
pub struct Touched(Object);

#[derive(Debug)]
enum Object {
    Backend(Name, Name, Option<WholeBackend>),
    Pool(Name, Option<Arc<Pool>>),
    Vip(Name, Option<Vip>),
}

impl Touched {
    /// The objects of these services that a change affects.
    pub fn by(change: &Change, before: &Services) -> Self {
        Self(match change {
            Change::AddPool(Pool { name, .. }) | Change::RemovePool(name) | Change::SetPool { pool: name, .. } => {
                Object::Pool(name.clone(), before.pools.get(name).cloned())
            }
            Change::AddVip(Vip { name, .. }) | Change::RemoveVip(name) | Change::SetVip { vip: name, .. } => {
                Object::Vip(name.clone(), before.vips.get(name).cloned())
            }
            Change::AddBackend { pool, backend: Backend { name, .. } }
            | Change::RemoveBackend { pool, backend: name, .. }
            | Change::SetWeight { pool, backend: name, .. }
            | Change::SetCheck { pool, backend: name, .. }
            | Change::SetState { pool, backend: name, .. } => Object::Backend(
                pool.clone(),
                name.clone(),
                whole_backend(before.pools.get(pool).map(Arc::as_ref), name),
            ),
        })
    }

    /// The effect of the change, in time in proportion to the objects it affects.
    pub fn delta(self, after: &Services) -> Delta {
        let mut delta = Delta::default();
        let pool = |name: &Name| after.pools.get(name).map(Arc::as_ref);
        match self.0 {
            Object::Backend(of, name, before) => delta.backend(&of, &name, before.as_ref(), pool(&of)),
            Object::Pool(name, before) => delta.pool(&name, before.as_deref(), pool(&name)),
            Object::Vip(name, before) => delta.vip(&name, before.as_ref(), after),
        }
        delta
    }
}

impl Services {
    /// Applies the difference.
    pub fn patch(&mut self, delta: Delta) {
        let Delta { set, removed: Removed { pools, backends, vips }, counts: _ } = delta;
        vips.iter().for_each(|name| drop(self.vips.remove(name)));
        pools.iter().for_each(|name| drop(self.pools.remove(name)));
        for (pool, name) in backends {
            if let Some(pool) = self.pools.get_mut(&pool).map(Arc::make_mut) {
                pool.backends.remove(&name);
                pool.health.overrides.remove(&name);
            }
        }
        for (name, pool) in set.pools {
            let Pool { name: _, settings, mut health, backends } = Arc::unwrap_or_clone(pool);
            let mut own = std::mem::take(&mut health.overrides);
            let pool = Arc::make_mut(self.pools.entry(name.clone()).or_insert_with(|| Pool::new(name).into()));
            let overrides = std::mem::take(&mut pool.health.overrides);
            (pool.settings, pool.health) = (settings, PoolHealth { overrides, ..health });
            for (name, backend) in backends {
                put(pool, (backend, own.remove(&name)));
            }
        }
        self.vips.extend(set.vips);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AdminState, Announce, Check, HealthChange, Hysteresis, Probe, Rules, Service, SettingsChange, Via, Weight,
    };
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn name(prefix: &str, n: u8) -> Name {
        Name::parse(&format!("{prefix}{n}")).unwrap()
    }

    fn check() -> Arc<Check> {
        let second = Duration::from_secs(1);
        let (hysteresis, port, via) = (Hysteresis::default(), None, Via::Direct);
        Arc::new(Check {
            probe: Probe::Tcp,
            interval: 2 * second,
            timeout: second,
            jitter: second / 5,
            hysteresis,
            port,
            via,
        })
    }

    /// A change that may or may not be admitted.
    fn change() -> impl Strategy<Value = Change> {
        let pool = || (0..3_u8).prop_map(|n| name("pool", n));
        let backend = |n: u8, weight: u16| {
            let address = [10, 0, 1, n].into();
            Backend { name: name("b", n), address, weight: Weight(weight), state: AdminState::Active, mtu: None }
        };
        let vip = |n: u8, pool: Name| {
            let service = Service::parse(&format!("203.0.113.{n}"), "443", "tcp").unwrap();
            Vip {
                name: name("vip", n),
                service,
                pool,
                announce: Announce::default(),
                when_empty: crate::Unserved::Drop,
                affinity: crate::Affinity::default(),
            }
        };
        let checked = check();
        let own = Override { port: std::num::NonZeroU16::new(8_080), ..Override::default() };
        prop_oneof![
            pool().prop_map(|name| Change::AddPool(Pool::new(name))),
            pool().prop_map(Change::RemovePool),
            (pool(), 1..4_u32).prop_map(|(pool, least)| {
                let change = SettingsChange { min_healthy: Some(least), ..SettingsChange::default() };
                Change::SetPool { pool, change, health: HealthChange::default() }
            }),
            (pool(), any::<bool>()).prop_map(move |(pool, on)| {
                let health = HealthChange { check: Some(on.then(|| checked.clone())), ..HealthChange::default() };
                Change::SetPool { pool, change: SettingsChange::default(), health }
            }),
            (pool(), 1..6_u8, 0..9_u16)
                .prop_map(move |(pool, n, weight)| Change::AddBackend { pool, backend: backend(n, weight) }),
            (pool(), 1..6_u8).prop_map(|(pool, n)| Change::RemoveBackend { pool, backend: name("b", n), force: true }),
            (pool(), 1..6_u8, 0..9_u16).prop_map(|(pool, n, weight)| Change::SetWeight {
                pool,
                backend: name("b", n),
                weight: Weight(weight)
            }),
            (pool(), 1..6_u8, any::<bool>()).prop_map(move |(pool, n, on)| {
                Change::SetCheck { pool, backend: name("b", n), own: on.then(|| own.clone()) }
            }),
            (pool(), 1..6_u8).prop_map(move |(pool, n)| Change::AddVip(vip(n, pool))),
            (1..6_u8).prop_map(|n| Change::RemoveVip(name("vip", n))),
        ]
    }

    /// How many objects differ, counted one by one.
    fn counted(before: &Services, after: &Services) -> Difference {
        fn counts<K: Ord, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Counts {
            let kept = || before.iter().filter_map(|(key, value)| Some((value, after.get(key)?)));
            Counts {
                added: after.len() - kept().count(),
                changed: kept().filter(|(before, after)| before != after).count(),
                removed: before.len() - kept().count(),
            }
        }
        let pools = |services: &Services| -> BTreeMap<Name, Pool> {
            services.pools.iter().map(|(name, pool)| (name.clone(), without_backends(pool))).collect()
        };
        let backends = |services: &Services| -> BTreeMap<(Name, Name), WholeBackend> {
            let of = |pool: &Arc<Pool>| {
                let key = |backend: &Name| (pool.name.clone(), backend.clone());
                pool.backends
                    .keys()
                    .filter_map(|name| Some((key(name), whole_backend(Some(pool), name)?)))
                    .collect::<Vec<_>>()
            };
            services.pools.values().flat_map(of).collect()
        };
        Difference {
            vips: counts(&before.vips, &after.vips),
            pools: counts(&pools(before), &pools(after)),
            backends: counts(&backends(before), &backends(after)),
        }
    }

    fn rules() -> Rules {
        let outer = crate::OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None };
        Rules { outer, ..Rules::default() }
    }

    proptest! {
        #[test]
        fn a_delta_leads_from_each_state_to_the_next(changes in prop::collection::vec(change(), 1..60)) {
            let (mut now, mut states) = (Services::default(), vec![Services::default()]);
            for change in changes {
                let (before, touched) = (now.clone(), Touched::by(&change, &now));
                if now.admit(change, &rules()).is_err() {
                    continue;
                }
                let (delta, whole) = (touched.delta(&now), Delta::between(&before, &now));
                prop_assert_eq!(&delta, &whole, "what a change touched is all that differs");
                prop_assert_eq!(delta.counts, counted(&before, &now));
                prop_assert_eq!(delta.is_empty(), before == now);
                prop_assert_eq!(delta.set.validate(&rules()), vec![], "it can be written and read alone");
                let mut patched = before;
                patched.patch(delta);
                prop_assert_eq!(&patched, &now);
                states.push(now.clone());
            }
            for from in states.iter().step_by(7) {
                let mut patched = from.clone();
                patched.patch(Delta::between(from, &now));
                prop_assert_eq!(&patched, &now);
            }
        }
    }
}
