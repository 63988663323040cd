//! The difference between the published and the desired state, as ordered steps. It must not know requests, disks or
//! why something is desired.
//!
//! ```text
//! adding    new members' records → tables → pool words → VIP directories
//! removing  VIP directories → pool words → (barrier) members marked dead → (barrier) their flow entries are cleared
//! ```
//!
//! A table that was unpublished is filled again only after a barrier; ids, pool and VIP numbers that a plan frees
//! are allocated by a later plan at the earliest.
// long: one plan in the order of its steps

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::backend::{MemberId, NextHop};
use maglev_common::settings::Tracking;
use maglev_common::table::{PoolIndex, PoolWord, TableIndex};
use maglev_common::vip::{Contents, Key4, Key6, VipId};

use super::ids::{MemberIds, Numbers};
use super::published::{HOLD, Member, PublishedPool};
use super::tables::Tables;
use super::{Listed, Step, directories, member_record};
use crate::Standing;
use crate::transition::{Pinned, Transition};
use crate::{AdminState, Backend, Limits, Name, OuterSources, PacketSettings, Pool, PoolSettings, Services, Vip};

/// The published state, and the free numbers.
#[derive(Debug)]
pub struct Planner {
    pub(super) outer: OuterSources,
    packets: PacketSettings,
    pub(super) pools: BTreeMap<Name, PublishedPool>,
    pub(super) vips: BTreeMap<Name, VipId>,
    directory4: Contents<Key4>,
    directory6: Contents<Key6>,
    pub(super) member_ids: MemberIds,
    pub(super) pool_numbers: Numbers,
    pub(super) vip_numbers: Numbers,
    pub(super) tables: Tables,
    /// The pools that VIPs used in the last plan. No other pool has flows. `None` before the first plan.
    served: Option<BTreeSet<Name>>,
    /// Nothing was planned before: this node does not know the state before it.
    pub(super) fresh: bool,
    /// Until the first plan, if the maps outlived another daemon: their contents beyond the known state.
    pub(super) unaccounted: Option<Unaccounted>,
}

/// Live objects in maps that outlived their daemon that are not in its saved state. The contents of their VIP directories
/// are unknown too.
#[derive(Debug, Default)]
pub(super) struct Unaccounted {
    pub(super) members: Vec<MemberId>,
    /// With the tables they use.
    pub(super) pools: Vec<(PoolIndex, [TableIndex; 2])>,
    /// Accounted for: the next hops of the known backends.
    pub(super) next_hops: BTreeMap<IpAddr, NextHop>,
}

/// The state of backends in addition to the desired services.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The next hop of an address.
    pub next_hop: &'a dyn Fn(IpAddr) -> NextHop,
    /// The standing of a backend by its health: by pool, name and address.
    pub standing: StandingOf<'a>,
    /// Both are as they were in the last plan, of the backends of pools that are desired as they were.
    pub unchanged: bool,
}

/// The standing of a backend by its health: by pool, name and address.
type StandingOf<'a> = &'a dyn Fn(&Name, &Name, IpAddr) -> Standing;

/// A question to the flow tables about a pool.
#[derive(Clone, Debug)]
pub struct SurveyOrder {
    /// The pool.
    pub pool: PoolIndex,
    /// Its slots as they are published.
    pub transition: Arc<Transition>,
    /// Seconds after which a silent flow counts as ended.
    pub idle: u16,
    /// Whether entries of slots that are not in transition count too.
    pub all_slots: bool,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// The pool.
    pub pool: PoolIndex,
    /// Its slots as they were when the survey began.
    pub transition: Arc<Transition>,
    /// Its pinned flows.
    pub pinned: Pinned,
}

/// A plan.
#[derive(Debug)]
pub struct Planned {
    /// Its steps; none if there is nothing to do.
    pub steps: Vec<Step>,
    /// Whether it leads to the desired state. If numbers are short, the first plan frees some and a second one continues.
    pub complete: bool,
}

impl Planner {
    /// Nothing is published yet: all maps hold zeroes.
    pub fn new(limits: Limits, outer: OuterSources) -> Self {
        Self {
            outer,
            packets: PacketSettings::default(),
            pools: BTreeMap::new(),
            vips: BTreeMap::new(),
            directory4: Contents::default(),
            directory6: Contents::default(),
            member_ids: MemberIds::new(limits.backends),
            pool_numbers: Numbers::new(0..limits.pools),
            vip_numbers: Numbers::new(0..limits.vips),
            tables: Tables::new(limits.pools),
            served: None,
            fresh: true,
            unaccounted: None,
        }
    }

    /// The same, of a node with these settings.
    #[must_use]
    pub fn with_packets(self, packets: PacketSettings) -> Self {
        Self { packets, ..self }
    }

    /// A pool as it is published.
    pub fn pool(&self, name: &Name) -> Option<&PublishedPool> {
        self.pools.get(name)
    }

    /// When time alone causes the next change.
    pub fn deadline(&self) -> Option<Duration> {
        self.pools.values().filter_map(PublishedPool::deadline).min()
    }

    /// The surveys of the flow tables that pools in transition, or with backends that are draining, wait for.
    pub fn surveys(&self, services: &Services) -> Vec<SurveyOrder> {
        let wanted = |(name, pool): (&Name, &PublishedPool)| {
            let desired = services.pools.get(name)?;
            let always = pool.settings.tracking == Tracking::Always;
            let draining = desired.backends.values().any(|b| matches!(b.state, AdminState::Draining { .. }));
            let unknown = !pool.transition.is_settled() || always && (draining || pool.pinned.is_none());
            unknown.then(|| SurveyOrder {
                pool: pool.index,
                transition: Arc::clone(&pool.transition),
                idle: idle_seconds(&pool.settings),
                all_slots: always,
            })
        };
        self.pools.iter().filter_map(wanted).collect()
    }

    /// Applies the results of surveys. Returns whether there is something to publish.
    pub fn surveyed(&mut self, found: Vec<Surveyed>) -> bool {
        let mut settled = false;
        for Surveyed { pool: index, transition, pinned } in found {
            if let Some(pool) = self.pools.values_mut().find(|pool| pool.index == index) {
                settled |= pool.surveyed(&transition, pinned);
            }
        }
        settled
    }

    /// The number of a published VIP.
    pub fn vip(&self, name: &Name) -> Option<VipId> {
        self.vips.get(name).copied()
    }

    /// Plans the steps to these services and next hops, and treats them as published from here on. The caller carries the
    /// plan out, again if need be, before it asks for another.
    /// `now` is the time by which transitions run: of any clock that only goes forward.
    pub fn plan(&mut self, services: &Services, known: &Known<'_>, now: Duration) -> Planned {
        let Known { next_hop, standing, unchanged } = *known;
        let stage = self.stage(services);
        let complete = stage.is_none();
        let target = stage.as_ref().unwrap_or(services);
        for (name, pool) in &mut self.pools {
            pool.differs = !target.pools.get(name).is_some_and(|desired| pool.is_desired(desired));
            pool.is_known = unchanged && !pool.differs && !pool.has_lost();
        }
        let mut steps = Vec::new();
        self.set_next_hops(target, next_hop, now, &mut steps);
        self.set_encaps(target, &mut steps);
        self.write_members(target, next_hop, &mut steps);
        self.set_idle(target, &mut steps);
        debug_assert!(self.pools.iter().all(|(name, pool)| !pool.is_known || pool.agrees(name, target, known)));
        let fallen = self.set_standings(standing, &mut steps);
        let lingering = self.switch_pools(target, now, &mut steps);
        let unaccounted = self.unaccounted.take();
        self.switch_directories(target, unaccounted.is_some(), &mut steps);
        self.remove_pools(target, &mut steps);
        let mut dying = self.leaving_members(target);
        let Unaccounted { members, pools, next_hops: _ } = unaccounted.unwrap_or_default();
        self.remove_strangers(&pools, &mut steps);
        dying.extend(members);
        self.remove_members(target, &dying, &fallen, lingering, &mut steps);
        pools.iter().for_each(|(index, _)| self.pool_numbers.release(index.0));
        self.fresh = false;
        Planned { steps, complete }
    }

    /// The last plan is carried out: what it began, begins now.
    pub fn published(&mut self, now: Duration) {
        for pool in self.pools.values_mut() {
            pool.begin(now);
        }
    }

    /// If there are too few free numbers for everything new: the services without the objects that must wait until others are
    /// removed. Only nodes at their limits get here; the waiting objects are not served for that moment.
    fn stage(&self, services: &Services) -> Option<Services> {
        let is_new = |pool: &Name, backend: &Name, address: IpAddr| {
            self.pools.get(pool).is_none_or(|pool| pool.member(backend, address).is_none())
        };
        let new_backends = |pool: &Arc<Pool>| {
            if self.pools.get(&pool.name).is_some_and(|published| published.is_desired(pool)) {
                return 0;
            }
            let members = pool.backends.values().filter(|backend| !backend.is_disabled());
            members.filter(|backend| is_new(&pool.name, &backend.name, backend.address)).count()
        };
        let mut ids = self.member_ids.free();
        let mut pools = self.pool_numbers.free();
        let mut vips = self.vip_numbers.free();
        if services.pools.values().map(new_backends).sum::<usize>() <= ids
            && services.pools.keys().filter(|name| !self.pools.contains_key(name)).count() <= pools
            && services.vips.keys().filter(|name| !self.vips.contains_key(name)).count() <= vips
        {
            return None;
        }
        let spend = |known: bool, free: &mut usize| known || free.checked_sub(1).map(|rest| *free = rest).is_some();
        let mut stage = services.clone();
        stage.pools.retain(|name, _| spend(self.pools.contains_key(name), &mut pools));
        for pool in stage.pools.values_mut().map(Arc::make_mut) {
            let mut takers = pool.backends.values().filter(|backend| backend.takes_new_flows());
            let mut served = takers.any(|b| !is_new(&pool.name, &b.name, b.address));
            pool.backends.retain(|_, backend| {
                let known = !is_new(&pool.name, &backend.name, backend.address);
                // A pool that would be left without an owner is the first to get an id.
                let keep = known || !served && backend.takes_new_flows() && spend(false, &mut ids);
                served |= keep && backend.takes_new_flows();
                keep
            });
        }
        let pools = &stage.pools;
        stage.vips.retain(|name, vip| pools.contains_key(&vip.pool) && spend(self.vips.contains_key(name), &mut vips));
        Some(stage)
    }

    fn set_next_hops(
        &mut self,
        target: &Services,
        next_hop: &dyn Fn(IpAddr) -> NextHop,
        now: Duration,
        steps: &mut Vec<Step>,
    ) {
        for (name, pool) in self.pools.iter_mut().filter(|(_, pool)| !pool.is_known) {
            let desired = target.pools.get(name);
            for ((backend, address), member) in &mut pool.members {
                let backend = desired.and_then(|pool| pool.backends.get(backend));
                let next_hop = next_hop(*address).within(backend.and_then(mtu_of));
                let is_lost_for_good = member.lost.is_some() && !member.is_reached(now);
                if is_lost_for_good {
                    member.lost = None;
                }
                pool.stirred |= is_lost_for_good || member.next_hop != next_hop;
                if member.next_hop != next_hop {
                    member.reach(next_hop, now);
                    steps.push(Step::SetNextHop { id: member.id, next_hop });
                }
            }
        }
    }

    /// Encapsulates packets for the members of a pool as it desires from now on.
    fn set_encaps(&mut self, target: &Services, steps: &mut Vec<Step>) {
        for (name, pool) in self.pools.iter_mut().filter(|(_, pool)| pool.differs) {
            target.pools.get(name).into_iter().for_each(|desired| pool.encapsulate(desired.settings.encap, steps));
        }
    }

    /// Applies the members' health. Packets can reach revived members from here on; dead ones, which are returned, until no table
    /// names them any more.
    fn set_standings(&mut self, standing: StandingOf<'_>, steps: &mut Vec<Step>) -> Vec<MemberId> {
        let mut fallen = Vec::new();
        for (name, pool) in self.pools.iter_mut().filter(|(_, pool)| !pool.is_known) {
            for ((backend, address), member) in &mut pool.members {
                let standing = standing(name, backend, *address);
                pool.stirred |= member.standing != standing;
                member.standing = standing;
                if member.dead == member.standing.lives {
                    member.dead = !member.standing.lives;
                    if member.dead { fallen.push(member.id) } else { steps.push(Step::ReviveMember { id: member.id }) }
                }
            }
        }
        fallen
    }

    /// Writes the records of backends that have no member yet. An address that changed makes a new member; a disabled
    /// backend has none.
    fn write_members(&mut self, target: &Services, next_hop: &dyn Fn(IpAddr) -> NextHop, steps: &mut Vec<Step>) {
        for (name, desired) in &target.pools {
            if !self.pools.contains_key(name) {
                let Some(index) = self.pool_numbers.take() else { continue };
                self.pools.insert(name.clone(), PublishedPool::new(PoolIndex(index)));
            }
            let Some(pool) = self.pools.get_mut(name).filter(|pool| pool.differs) else { continue };
            for backend in desired.backends.values().filter(|backend| !backend.is_disabled()) {
                let key = (backend.name.clone(), backend.address);
                if pool.members.contains_key(&key) {
                    continue;
                }
                let Some(id) = self.member_ids.take() else { continue };
                let next_hop = next_hop(backend.address).within(mtu_of(backend));
                let kind = desired.settings.encap;
                let record = member_record(pool.index, backend.address, kind, &self.outer, next_hop);
                steps.push(Step::WriteMember { id, record });
                pool.members.insert(key, Member::new(id, next_hop, kind));
            }
        }
    }

    /// Updates the pools that stay to the desired state. Returns whether a packet may still see an earlier state of a table.
    fn switch_pools(&mut self, target: &Services, now: Duration, steps: &mut Vec<Step>) -> bool {
        let mut lingering = false;
        let serves = || target.vips.values().map(|vip| vip.pool.clone()).collect();
        // Before the first plan, flows of this pool may have been sent by other nodes.
        let served = self.served.take().unwrap_or_else(serves);
        self.served = Some(serves());
        for (name, desired) in &target.pools {
            let Some(pool) = self.pools.get_mut(name) else { continue };
            let is_served = served.contains(name);
            if self.fresh && is_served {
                pool.awaits = Some(now + HOLD);
            }
            if pool.has_news(now) {
                pool.turn_over(desired, is_served, now);
            }
            if self.fresh && is_served {
                pool.derive(desired, now);
            }
            lingering |= pool.publish(&mut self.tables, steps);
        }
        lingering
    }

    /// Has flow entries bind each pool's flows for as long as it settles by. Without members a pool has none.
    fn set_idle(&mut self, target: &Services, steps: &mut Vec<Step>) {
        for (name, pool) in self.pools.iter_mut().filter(|(_, pool)| pool.differs && !pool.members.is_empty()) {
            target.pools.get(name).into_iter().for_each(|desired| pool.idle(idle_seconds(&desired.settings), steps));
        }
    }

    fn switch_directories(&mut self, target: &Services, unknown: bool, steps: &mut Vec<Step>) {
        for name in target.vips.keys() {
            if !self.vips.contains_key(name) {
                let Some(id) = self.vip_numbers.take().map(VipId) else { continue };
                steps.push(Step::ResetVip { id });
                self.vips.insert(name.clone(), id);
            }
        }
        let entries = target.vips.values().filter_map(|vip| {
            let (id, pool) = (self.vips.get(&vip.name)?, self.pools.get(&vip.pool)?);
            let Vip { service, when_empty, affinity, .. } = *vip;
            let is_serving = !pool.owners.is_empty();
            Some(Listed { service, id: *id, pool: pool.index, when_empty, affinity, is_serving })
        });
        let (directory4, directory6) = directories(entries, self.packets);
        if unknown || directory4 != self.directory4 {
            steps.push(Step::SwitchDirectory4 { contents: directory4.clone() });
            self.directory4 = directory4;
        }
        if unknown || directory6 != self.directory6 {
            steps.push(Step::SwitchDirectory6 { contents: directory6.clone() });
            self.directory6 = directory6;
        }
    }

    /// Unpublishes the tables of pools that are removed; no directory names them any more.
    fn remove_pools(&mut self, target: &Services, steps: &mut Vec<Step>) {
        for (_, pool) in self.pools.iter_mut().filter(|(name, _)| !target.pools.contains_key(*name)) {
            pool.unpublish(&mut self.tables, steps);
        }
    }

    /// Unpublishes the tables of unknown pools; no directory names them any more.
    fn remove_strangers(&mut self, pools: &[(PoolIndex, [TableIndex; 2])], steps: &mut Vec<Step>) {
        for (pool, tables) in pools {
            steps.push(Step::SwitchPool { pool: *pool, word: PoolWord::default() });
            steps.push(Step::SetIdle { pool: *pool, seconds: 0 });
            tables.iter().for_each(|&table| self.tables.retire(table));
        }
    }

    /// Marks the members dead whose backend is removed or disabled; no table names them any more.
    fn leaving_members(&mut self, target: &Services) -> Vec<MemberId> {
        let mut leaving = Vec::new();
        for (name, pool) in self.pools.iter_mut().filter(|(_, pool)| pool.differs) {
            let desired = target.pools.get(name);
            pool.desired = desired.cloned();
            let backends = desired.map(|pool| &pool.backends);
            pool.members.retain(|(backend, address), member| {
                let backend = backends.and_then(|backends| backends.get(backend));
                let stays = backend.is_some_and(|backend| backend.address == *address && !backend.is_disabled());
                if !stays {
                    leaving.push(member.id);
                }
                stays
            });
        }
        leaving
    }

    /// Frees the members, and all numbers that are unused after this plan. Members dead by their health may live again, by the
    /// same ids.
    fn remove_members(
        &mut self,
        target: &Services,
        dying: &[MemberId],
        fallen: &[MemberId],
        lingering: bool,
        steps: &mut Vec<Step>,
    ) {
        let leaving: BTreeSet<_> = dying.iter().collect();
        let fallen: Vec<_> = fallen.iter().filter(|id| !leaving.contains(id)).copied().collect();
        let dead: Vec<_> = dying.iter().chain(&fallen).copied().collect();
        if !dead.is_empty() || lingering || self.tables.linger() {
            steps.push(Step::Barrier);
        }
        if !dead.is_empty() {
            steps.extend(dying.iter().map(|&id| Step::RemoveMember { id }));
            steps.extend(fallen.iter().map(|&id| Step::KillMember { id }));
            steps.push(Step::Barrier);
            steps.push(Step::PurgeFlows { ids: dead });
        }
        dying.iter().for_each(|&id| self.member_ids.release(id));
        self.tables.release();
        let Self { pools, vips, pool_numbers, vip_numbers, .. } = self;
        pools.retain(|name, pool| {
            let stays = target.pools.contains_key(name);
            if !stays {
                pool_numbers.release(pool.index.0);
            }
            stays
        });
        vips.retain(|name, id| {
            let stays = target.vips.contains_key(name);
            if !stays {
                vip_numbers.release(id.0);
            }
            stays
        });
    }
}

/// Settings keep it within 15 bits.
fn idle_seconds(settings: &PoolSettings) -> u16 {
    u16::try_from(settings.transition.idle.as_secs()).unwrap_or(u16::MAX / 2)
}

/// The MTU of the path to a backend as the operator names it.
pub(super) fn mtu_of(backend: &Backend) -> Option<u32> {
    backend.mtu.map(|mtu| mtu.bytes().into())
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
