//! The difference between what is published and what is desired, as ordered steps. It must not know requests, disks or
//! why something is desired.
//!
//! ```text
//! adding    new members' records → tables → pool words → VIP directories
//! removing  VIP directories → pool words → (barrier) members die → (barrier) their flow entries are cleared
//! ```
//!
//! A table that was unpublished is filled again only after a barrier; ids, pool and VIP numbers that a plan sets free
//! are given out by a later plan at the earliest.

use std::collections::BTreeMap;
use std::net::IpAddr;

use maglev_common::backend::{MemberId, NextHop};
use maglev_common::maps::SPARE_TABLES;
use maglev_common::table::{PoolIndex, PoolWord, TableIndex};
use maglev_common::vip::{Key4, Key6, VipId, VipWord};

use super::ids::{MemberIds, Numbers};
use super::published::{Member, PublishedPool};
use super::{Step, directories, member_record};
use crate::model::{Backend, Limits, Name, OuterSources, Pool, Services, Weight};

/// What is published, and the numbers that are free.
#[derive(Debug)]
pub struct Planner {
    outer: OuterSources,
    pools: BTreeMap<Name, PublishedPool>,
    vips: BTreeMap<Name, VipId>,
    keys4: Vec<(Key4, VipWord)>,
    keys6: Vec<(Key6, VipWord)>,
    member_ids: MemberIds,
    pool_numbers: Numbers,
    vip_numbers: Numbers,
    table_numbers: Numbers,
}

/// A plan.
#[derive(Debug)]
pub struct Planned {
    /// Its steps; none if there is nothing to do.
    pub steps: Vec<Step>,
    /// Whether it leads all the way. If numbers are short, the first plan sets some free and a second one goes on.
    pub complete: bool,
}

impl Planner {
    /// Nothing is published yet: all maps hold zeroes.
    pub fn new(limits: Limits, outer: OuterSources) -> Self {
        Self {
            outer,
            pools: BTreeMap::new(),
            vips: BTreeMap::new(),
            keys4: Vec::new(),
            keys6: Vec::new(),
            member_ids: MemberIds::new(limits.backends),
            pool_numbers: Numbers::new(0..limits.pools),
            vip_numbers: Numbers::new(0..limits.vips),
            // Table 0 is the empty one.
            table_numbers: Numbers::new(1..limits.pools + SPARE_TABLES),
        }
    }

    /// A pool as it is published.
    pub fn pool(&self, name: &Name) -> Option<&PublishedPool> {
        self.pools.get(name)
    }

    /// The number of a published VIP.
    pub fn vip(&self, name: &Name) -> Option<VipId> {
        self.vips.get(name).copied()
    }

    /// Plans the way to these services and next hops, and takes it as published from here on. The caller carries the
    /// plan out, again if need be, before it asks for another.
    pub fn plan(&mut self, services: &Services, next_hop: &dyn Fn(IpAddr) -> NextHop) -> Planned {
        let stage = self.stage(services);
        let complete = stage.is_none();
        let target = stage.as_ref().unwrap_or(services);
        let mut steps = Vec::new();
        let mut retired = Vec::new();
        self.set_next_hops(next_hop, &mut steps);
        self.write_members(target, next_hop, &mut steps);
        self.switch_pools(target, &mut retired, &mut steps);
        self.switch_directories(target, &mut steps);
        self.remove_pools(target, &mut retired, &mut steps);
        let dying = self.leaving_members(target);
        self.bury(target, &dying, &retired, &mut steps);
        Planned { steps, complete }
    }

    /// If free numbers do not suffice for all that is new: the services without what must wait until something that is
    /// leaving has left. Only nodes at their limits come here; what waits is not served for that moment.
    fn stage(&self, services: &Services) -> Option<Services> {
        let is_new = |pool: &Name, backend: &Name, address: IpAddr| {
            self.pools.get(pool).is_none_or(|pool| pool.member(backend, address).is_none())
        };
        let new_backends = |pool: &Pool| {
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
        for pool in stage.pools.values_mut() {
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

    fn set_next_hops(&mut self, next_hop: &dyn Fn(IpAddr) -> NextHop, steps: &mut Vec<Step>) {
        for pool in self.pools.values_mut() {
            for ((_, address), member) in &mut pool.members {
                let now = next_hop(*address);
                if member.next_hop != now {
                    member.next_hop = now;
                    steps.push(Step::SetNextHop { id: member.id, next_hop: now });
                }
            }
        }
    }

    /// Writes the records of backends that have no member yet. An address that changed makes a new member; a disabled
    /// backend has none.
    fn write_members(&mut self, target: &Services, next_hop: &dyn Fn(IpAddr) -> NextHop, steps: &mut Vec<Step>) {
        for (name, Pool { backends, .. }) in &target.pools {
            if !self.pools.contains_key(name) {
                let Some(index) = self.pool_numbers.take() else { continue };
                self.pools.insert(name.clone(), PublishedPool::new(PoolIndex(index)));
            }
            let Some(pool) = self.pools.get_mut(name) else { continue };
            for backend in backends.values().filter(|backend| !backend.is_disabled()) {
                let key = (backend.name.clone(), backend.address);
                if pool.members.contains_key(&key) {
                    continue;
                }
                let Some(id) = self.member_ids.take() else { continue };
                let next_hop = next_hop(backend.address);
                let record = member_record(pool.index, backend.address, &self.outer, next_hop);
                steps.push(Step::WriteMember { id, record });
                pool.members.insert(key, Member { id, next_hop });
            }
        }
    }

    /// Builds the tables of pools that changed, and switches to them one by one. Spare tables are few: when they run
    /// out, a barrier gives back those that were unpublished on the way.
    fn switch_pools(&mut self, target: &Services, retired: &mut Vec<TableIndex>, steps: &mut Vec<Step>) {
        for (name, Pool { backends, .. }) in &target.pools {
            let Some(pool) = self.pools.get_mut(name) else { continue };
            let owners = owners(pool, backends.values());
            if owners == pool.owners {
                continue;
            }
            let mut table_index = TableIndex::EMPTY;
            if !owners.is_empty() {
                if self.table_numbers.free() == 0 {
                    steps.push(Step::Barrier);
                    retired.drain(..).for_each(|table| self.table_numbers.release(table.0));
                }
                // Never without one: there are more tables than pools.
                let Some(number) = self.table_numbers.take() else { continue };
                table_index = TableIndex(number);
            }
            pool.rebuild(owners);
            if table_index != TableIndex::EMPTY {
                steps.push(Step::FillTable { table: table_index, slots: pool.slot_words() });
            }
            steps.push(Step::SwitchPool { pool: pool.index, word: PoolWord::settled(table_index) });
            let old = std::mem::replace(&mut pool.table_index, table_index);
            if old != TableIndex::EMPTY {
                retired.push(old);
            }
        }
    }

    fn switch_directories(&mut self, target: &Services, steps: &mut Vec<Step>) {
        for name in target.vips.keys() {
            if !self.vips.contains_key(name) {
                let Some(id) = self.vip_numbers.take().map(VipId) else { continue };
                steps.push(Step::ResetVip { id });
                self.vips.insert(name.clone(), id);
            }
        }
        let entries = target.vips.values().filter_map(|vip| {
            let (id, pool) = (self.vips.get(&vip.name)?, self.pools.get(&vip.pool)?);
            Some((vip.service, *id, pool.index))
        });
        let (keys4, keys6) = directories(entries);
        if keys4 != self.keys4 {
            steps.push(Step::SwitchDirectory4 { entries: keys4.clone() });
            self.keys4 = keys4;
        }
        if keys6 != self.keys6 {
            steps.push(Step::SwitchDirectory6 { entries: keys6.clone() });
            self.keys6 = keys6;
        }
    }

    /// Unpublishes the tables of pools that are leaving; no directory names them any more.
    fn remove_pools(&mut self, target: &Services, retired: &mut Vec<TableIndex>, steps: &mut Vec<Step>) {
        for (name, pool) in &mut self.pools {
            if !target.pools.contains_key(name) && pool.table_index != TableIndex::EMPTY {
                steps.push(Step::SwitchPool { pool: pool.index, word: PoolWord::default() });
                retired.push(std::mem::replace(&mut pool.table_index, TableIndex::EMPTY));
            }
        }
    }

    /// Takes out the members that no backend is any more, or only a disabled one; no table names them any more.
    fn leaving_members(&mut self, target: &Services) -> Vec<MemberId> {
        let mut leaving = Vec::new();
        for (name, pool) in &mut self.pools {
            let backends = target.pools.get(name).map(|pool| &pool.backends);
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

    /// Ends the members, and sets free all numbers that nothing names after this plan.
    fn bury(&mut self, target: &Services, dying: &[MemberId], retired: &[TableIndex], steps: &mut Vec<Step>) {
        if !dying.is_empty() || !retired.is_empty() {
            steps.push(Step::Barrier);
        }
        if !dying.is_empty() {
            steps.extend(dying.iter().map(|&id| Step::KillMember { id }));
            steps.push(Step::Barrier);
            steps.push(Step::PurgeFlows { ids: dying.to_vec() });
        }
        dying.iter().for_each(|&id| self.member_ids.release(id));
        retired.iter().for_each(|table| self.table_numbers.release(table.0));
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

/// Who owns a pool's slots: backends that take new flows and have a next hop. Where none has a next hop, all that take
/// new flows: their packets are then dropped as unresolved, which says more than "no backend".
fn owners<'a>(pool: &PublishedPool, backends: impl Iterator<Item = &'a Backend>) -> Vec<(Name, Weight, MemberId)> {
    let takers = backends.filter(|backend| backend.takes_new_flows());
    let members = takers.filter_map(|backend| {
        let member = pool.members.get(&(backend.name.clone(), backend.address))?;
        Some((member.next_hop.is_resolved(), (backend.name.clone(), backend.weight, member.id)))
    });
    let members: Vec<_> = members.collect();
    let all_wait = members.iter().all(|(resolved, _)| !resolved);
    members.into_iter().filter(|(resolved, _)| *resolved || all_wait).map(|(_, owner)| owner).collect()
}
