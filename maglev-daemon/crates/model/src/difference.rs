//! How two sets of services differ, counted. It must not know which of them is in use.

use std::collections::BTreeMap;

use super::{Backend, Name, Override, Services};

/// How many of each kind differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// VIPs, by name.
    pub vips: Counts,
    /// Pools, by name; a change of a backend does not count as a change of its pool.
    pub pools: Counts,
    /// Backends, by pool and name.
    pub backends: Counts,
}

/// How many of a kind differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that are new.
    pub added: usize,
    /// Those that are others than before.
    pub changed: usize,
    /// Those that are gone.
    pub removed: usize,
}

impl Services {
    /// What leads from these services to others.
    pub fn difference(&self, next: &Self) -> Difference {
        let settings = |services: &Self| {
            let pool = |pool: &super::Pool| {
                let mut health = pool.health.clone();
                health.overrides.clear();
                (pool.name.clone(), (pool.settings, health))
            };
            services.pools.values().map(pool).collect::<BTreeMap<_, _>>()
        };
        let mut backends = Counts::default();
        let empty = BTreeMap::new();
        for name in self.pools.keys().chain(next.pools.keys().filter(|name| !self.pools.contains_key(*name))) {
            let of = |services: &Self| services.pools.get(name).map_or_else(|| empty.clone(), with_checks);
            backends = backends.and(Counts::new(&of(self), &of(next)));
        }
        Difference {
            vips: Counts::new(&self.vips, &next.vips),
            pools: Counts::new(&settings(self), &settings(next)),
            backends,
        }
    }
}

/// A pool's backends, each with what of the pool's check is different for it.
fn with_checks(pool: &super::Pool) -> BTreeMap<Name, (Backend, Option<Override>)> {
    let own = |backend: &Backend| (backend.clone(), pool.health.overrides.get(&backend.name).cloned());
    pool.backends.iter().map(|(name, backend)| (name.clone(), own(backend))).collect()
}

impl Counts {
    /// How two maps differ.
    fn new<K: Ord, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Self {
        let kept = || before.iter().filter_map(|(key, value)| Some((value, after.get(key)?)));
        Self {
            added: after.len() - kept().count(),
            changed: kept().filter(|(before, after)| before != after).count(),
            removed: before.len() - kept().count(),
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            added: self.added + other.added,
            changed: self.changed + other.changed,
            removed: self.removed + other.removed,
        }
    }
}
