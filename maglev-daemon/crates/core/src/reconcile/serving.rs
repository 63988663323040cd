//! The inputs of announcements: the VIPs with a prefix, and the state of their pools; and the one definition of a
//! usable backend. It must not know the announced prefixes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use maglev_common::backend::NextHop;
use maglev_model::plan::{HOLD, PublishedPool};
use maglev_model::{Backend, Community, Health, Name, OnAllDead, Pool, PoolSettings, Services, Vip};

use super::Reconciler;
use super::publish::next_hop;

/// The VIPs with a prefix, and their pools, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// The VIPs, in the order of their names.
    pub vips: Vec<ServedVip>,
    /// Their pools.
    pub pools: BTreeMap<Name, PoolUse>,
    /// It is not known which VIPs the packet path serves: no plan has been carried out yet, or the last one failed.
    pub pending: bool,
    /// Every check that was due at the start has ended once, in all pools.
    pub checked: bool,
    /// No next hop is being resolved, in any of these pools.
    pub resolved: bool,
}

/// A VIP with a prefix.
#[derive(Clone, Debug)]
pub struct ServedVip {
    /// Its name.
    pub name: Name,
    /// The prefix by which it is announced.
    pub prefix: IpNet,
    /// The pool that serves it.
    pub pool: Name,
    /// Communities of the prefix.
    pub communities: BTreeSet<Community>,
    /// Why it cannot be served, if so.
    pub conflict: Option<String>,
    /// The packet path does not serve it yet, or not by enough backends or as many as it can: a plan that changes this is under way or
    /// waits.
    pub pending: bool,
}

impl Serving {
    /// Whether the packet path serves every VIP that it can serve, by as many backends as there are.
    pub fn is_complete(&self) -> bool {
        self.checked
            && self.resolved
            && !self.pending
            && !self.vips.iter().any(|vip| vip.pending && vip.conflict.is_none())
    }
}

/// The services of the packet path after a plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    /// The VIPs, each with its pool.
    pub(super) services: Arc<Services>,
    /// The pools of announced VIPs.
    pools: BTreeMap<Name, PoolUse>,
}

impl Served {
    /// Whether packets for a VIP reach its pool; and enough backends, if there are enough now, and as many as can be reached now.
    fn serves(&self, vip: &Vip, now: &PoolUse) -> bool {
        let is_there = |found: &Vip| found.service == vip.service && found.pool == vip.pool;
        let is_whole = |then: &PoolUse| (then.is_enough() || !now.is_enough()) && then.reached() >= now.reached();
        self.services.vips.get(&vip.name).is_some_and(is_there) && self.pools.get(&vip.pool).is_some_and(is_whole)
    }
}

/// The conditions for new connections to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendUse {
    /// Its administrative state lets it take new connections: it is active, and has a weight.
    pub active: bool,
    /// Its health lets it own slots. In a pool in panic it does even if its checks fail.
    pub serves: bool,
    /// Packets are sent to it.
    pub reached: bool,
    /// Its checks fail.
    pub unhealthy: bool,
}

impl BackendUse {
    /// Whether the backend is usable: one that this node cannot reach, others may.
    pub const fn is_usable(self) -> bool {
        self.active && self.serves && self.reached
    }
}

/// The state of a pool for its VIPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// How many usable backends its VIPs need.
    pub min_healthy: u32,
    /// Its usable backends. None once all have been dead for so long that the pool's rule withdraws them.
    pub usable: usize,
    /// Those of them whose checks do not fail.
    pub healthy: usize,
    /// Its active backends.
    pub active: usize,
    /// Those of them that are unreachable.
    pub unreachable: usize,
    /// Backends in use that have not been checked since the start.
    pub awaited: usize,
    /// Backends that get slots in a moment, as they have on other nodes already: their next hops are being resolved.
    pub resolving: usize,
    /// No backend answers now.
    pub dead: bool,
    /// That has lasted for 60 s.
    pub long_dead: bool,
    /// What happens then.
    pub on_all_dead: OnAllDead,
}

impl PoolUse {
    /// Counts backends. `known` holds what does not depend on them.
    pub fn count(known: Self, backends: impl IntoIterator<Item = BackendUse>) -> Self {
        let gone = known.long_dead && known.on_all_dead == OnAllDead::Withdraw;
        backends.into_iter().fold(known, |mut pool, backend| {
            let usable = backend.is_usable() && !gone;
            pool.usable += usize::from(usable);
            pool.healthy += usize::from(usable && !backend.unhealthy);
            pool.active += usize::from(backend.active);
            pool.unreachable += usize::from(backend.active && !backend.reached);
            pool
        })
    }

    /// The backends that count for `min_healthy`. A pool in panic uses those whose checks fail: one of them will do where one
    /// backend is asked for, as it is unless an operator asks for more.
    pub const fn counted(&self) -> usize {
        if self.min_healthy <= 1 { self.usable } else { self.healthy }
    }

    /// The active backends that packets are sent to.
    const fn reached(&self) -> usize {
        self.active - self.unreachable
    }

    /// Whether its VIPs may be announced, as far as the number of backends goes.
    pub const fn is_enough(&self) -> bool {
        self.counted() >= self.min_healthy as usize
    }
}

/// For how long the first next hop of a backend is awaited: longer than the kernel asks for a neighbor (3 s).
const RESOLVING: Duration = Duration::from_secs(10);

impl Reconciler {
    /// The inputs of announcements, now.
    pub fn serving(&self) -> Serving {
        let pools = self.pool_uses(&self.target);
        let resolved = pools.values().all(|pool| pool.resolving == 0);
        let vips = self.target.vips.values().filter_map(|vip| self.served_vip(vip, pools.get(&vip.pool)?)).collect();
        Serving {
            vips,
            pools,
            pending: self.settled.is_none() || self.failing.is_some(),
            checked: self.target.pools.keys().all(|pool| self.fleet.awaited(pool) == 0),
            resolved,
        }
    }

    /// When time alone ends the wait for a next hop.
    pub(super) fn resolving_until(&self) -> Option<Duration> {
        let waiting = self.lost.iter().filter(|(address, _)| self.is_resolving(**address));
        waiting.map(|(_, since)| *since + RESOLVING).min()
    }

    /// Whether it will soon be known if packets can be sent to an address; or it is, and a plan with its next hop is due.
    fn is_resolving(&self, address: IpAddr) -> bool {
        match self.resolutions.get(&address) {
            None => true,
            Some(found) if found.is_waiting() => {
                self.lost.get(&address).is_some_and(|since| self.now < *since + RESOLVING)
            }
            Some(found) => next_hop(Some(found), &self.settings.interfaces) != NextHop::UNRESOLVED,
        }
    }

    /// The services of the packet path after the plan that was just made.
    pub(super) fn plan_serves(&self) -> Served {
        Served { services: Arc::clone(&self.served), pools: self.pool_uses(&self.served) }
    }

    /// The pools of VIPs that have a prefix.
    fn pool_uses(&self, services: &Services) -> BTreeMap<Name, PoolUse> {
        let announced = services.vips.values().filter(|vip| vip.prefix().is_some());
        let named: BTreeSet<&Name> = announced.map(|vip| &vip.pool).collect();
        let pools = named.into_iter().filter_map(|name| services.pools.get(name));
        pools.map(|pool| (pool.name.clone(), self.pool_use(pool))).collect()
    }

    fn served_vip(&self, vip: &Vip, pool: &PoolUse) -> Option<ServedVip> {
        // A plan that is under way keeps it: it was made for these services, unless one failed.
        let is_served = self.settled.as_ref().is_some_and(|settled| settled.serves(vip, pool));
        Some(ServedVip {
            pending: !is_served,
            name: vip.name.clone(),
            prefix: vip.prefix()?,
            pool: vip.pool.clone(),
            communities: vip.announce.communities.clone(),
            conflict: self.conflicts.get(&vip.name).cloned(),
        })
    }

    fn pool_use(&self, pool: &Pool) -> PoolUse {
        let PoolSettings { min_healthy, .. } = pool.settings;
        let (dead, long_dead) = self.fleet.is_all_dead(&pool.name);
        let awaited = self.fleet.awaited(&pool.name);
        let on_all_dead = pool.health.on_all_dead;
        let published = self.planner.pool(&pool.name);
        let is_resolving = |backend: &&Backend| {
            let BackendUse { active, serves, reached, .. } = self.backend_use(pool, published, backend);
            active && serves && !reached && self.is_resolving(backend.address)
        };
        let resolving = pool.backends.values().filter(is_resolving).count();
        let known = PoolUse { min_healthy, awaited, resolving, dead, long_dead, on_all_dead, ..PoolUse::default() };
        PoolUse::count(known, pool.backends.values().map(|backend| self.backend_use(pool, published, backend)))
    }

    /// The conditions for a backend of a pool to be usable.
    pub(super) fn backend_use(&self, of: &Pool, published: Option<&PublishedPool>, backend: &Backend) -> BackendUse {
        let Backend { name, address, weight: _, state: _, mtu: _ } = backend;
        BackendUse {
            active: backend.takes_new_flows(),
            serves: self.fleet.standing(&of.name, name, *address).serves,
            reached: !self.is_lost(*address) && published.is_some_and(|pool| pool.reaches(name, *address, self.now)),
            unhealthy: self.fleet.state(&of.name, name, *address) == Some(Health::Unhealthy),
        }
    }

    /// Whether a next hop is unresolved for so long that it counts, while plans fail: until then the next plan would say so.
    fn is_lost(&self, address: IpAddr) -> bool {
        self.failing.is_some() && self.lost.get(&address).is_some_and(|since| *since + HOLD <= self.now)
    }
}
