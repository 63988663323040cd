//! The published state as a daemon saves it for the next one, and how that one continues from it with the maps that outlived the
//! first. It must not know where it is kept, nor how maps outlive a daemon.
//!
//! It is saved before a plan is carried out, and describes the state after it. So the maps may be behind it, anywhere between
//! two steps. The next plan reaches the desired state whatever the maps hold: tables are filled aside and switched to, and live
//! objects in the maps that are unknown here are removed.

mod last;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use maglev_common::backend::{MemberId, MemberRecord, NextHop, PathMtu};
use maglev_common::encap::EncapKind;
use maglev_common::settings::Tracking;
use maglev_common::table::{PoolIndex, PoolWord, TableIndex};
use maglev_common::vip::VipId;
use serde::{Deserialize, Serialize};

use super::owners::Owners;
use super::planner::Unaccounted;
use super::published::{Begun, Member, PublishedPool};
use super::{Planner, member_record};
use crate::transition::{Outdated, SavedTransition, Transition};
use crate::{
    Affinity, Announce, AnnounceBy, Limits, Name, OuterSources, Ports, Protocol, Service, Unserved, Vip, Weight,
};

pub(super) use last::LastSaved;

/// The planner's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The outer sources that members' records were written with.
    outer: [Option<String>; 2],
    /// The member id allocated last: those before it rest.
    last_id: u16,
    /// VIP numbers by name.
    vips: BTreeMap<String, u16>,
    /// The VIPs that are served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    served: Vec<SavedVip>,
    /// The last key: a writer may append them one by one.
    pools: Vec<Arc<SavedPool>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedVip {
    name: String,
    address: IpAddr,
    /// The length of the prefix; absent: one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<u8>,
    /// The first; 0 is any.
    port: u16,
    /// The last, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<u16>,
    /// 0 is any.
    protocol: u8,
    pool: String,
}

/// A pool. As long as it does not change, so is its allocation the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPool {
    name: String,
    index: u16,
    /// Whether every flow is tracked.
    always: bool,
    members: Vec<SavedMember>,
    /// Members whose next hop was lost lately, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<(u16, Duration)>,
    /// The input of the table: weight and id, in the order of names.
    owners: Vec<(u16, u16)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transition: Option<SavedTransition>,
    /// The learning that began with the plan, and the pool's word that shows that the plan was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<(Begun, u64)>,
}

/// A backend's member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedMember {
    name: String,
    address: IpAddr,
    id: u16,
    /// The next hop's word.
    next_hop: u64,
    /// The MTU of the path, if it has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    /// Whether its packets are encapsulated in GUE.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gue: bool,
}

/// The contents of maps that outlived their daemon.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Every pool's word, by index.
    pub pools: Vec<PoolWord>,
    /// The records of the members that are alive.
    pub members: BTreeMap<MemberId, MemberRecord>,
}

/// Backends by pool.
pub type InUse = BTreeMap<Name, BTreeSet<(Name, IpAddr)>>;

impl Saved {
    /// The same, with the VIPs that are served.
    #[must_use]
    pub fn with_served<'a>(mut self, vips: impl Iterator<Item = &'a Vip>) -> Self {
        self.served = vips.map(SavedVip::new).collect();
        self
    }

    /// The state without its pools, whose list is empty and ends it, and the pools.
    pub fn apart(&self) -> (Self, &[Arc<SavedPool>]) {
        let Self { outer, last_id, vips, served, pools } = self;
        let (outer, vips, served) = (outer.clone(), vips.clone(), served.clone());
        (Self { outer, last_id: *last_id, vips, served, pools: Vec::new() }, pools)
    }

    /// The VIPs that were served, as far as they are valid. None is announced, and their packets are never answered.
    pub fn served(&self) -> Vec<Vip> {
        self.served.iter().filter_map(SavedVip::vip).collect()
    }

    /// Whether the members' records were written with these outer sources.
    pub fn has_sources(&self, outer: &OuterSources) -> bool {
        self.outer == written(outer)
    }

    /// Gives each next hop the place that `moved` says its interface has now. One without a place is lost, at this time.
    pub fn move_next_hops(&mut self, moved: &dyn Fn(NextHop) -> Option<NextHop>, now: Duration) {
        for SavedPool { members, lost, .. } in self.pools.iter_mut().map(Arc::make_mut) {
            for member in members.iter_mut().filter(|member| member.next_hop().is_resolved()) {
                member.next_hop = match moved(member.next_hop()) {
                    Some(next_hop) => next_hop.0,
                    None => {
                        lost.push((member.id, now));
                        NextHop::UNRESOLVED.0
                    }
                };
            }
        }
    }

    /// The records of its members as they were, with these outer sources, for maps that begin anew. A member with an invalid id is
    /// left out.
    pub fn members(&self, outer: &OuterSources) -> BTreeMap<MemberId, MemberRecord> {
        let members = self.pools.iter().flat_map(|pool| pool.members.iter().map(move |member| (pool.index, member)));
        let record = |(pool, member): (u16, &SavedMember)| {
            let record = member_record(PoolIndex(pool), member.address, member.encap(), outer, member.next_hop());
            Some((MemberId::new(member.id)?, record))
        };
        members.filter_map(record).collect()
    }

    /// The backends that owned slots, by pool, as far as they are valid.
    pub fn in_use(&self) -> InUse {
        let in_use = |pool: &SavedPool| {
            let owning: BTreeSet<u16> = pool.owners.iter().map(|(_, owner)| *owner).collect();
            let owners = pool.members.iter().filter(|member| owning.contains(&member.id));
            owners.filter_map(|member| Some((name(&member.name).ok()?, member.address))).collect()
        };
        self.pools.iter().filter_map(|pool| Some((name(&pool.name).ok()?, in_use(pool.as_ref())))).collect()
    }
}

impl SavedPool {
    pub(super) fn new(name: &Name, pool: &PublishedPool) -> Self {
        Self {
            name: name.to_string(),
            index: pool.index.0,
            always: pool.settings.tracking == Tracking::Always,
            members: pool.members.iter().map(|(backend, member)| SavedMember::new(backend, member)).collect(),
            lost: pool.lost_members().collect(),
            owners: pool.owners.iter().map(|(_, weight, id)| (weight.0, id.get())).collect(),
            transition: pool.transition.save(),
            begun: pool.begun_learning(),
        }
    }
}

impl SavedMember {
    fn new((name, address): &(Name, IpAddr), Member { id, next_hop, encap, .. }: &Member) -> Self {
        Self {
            name: name.to_string(),
            address: *address,
            id: id.get(),
            next_hop: next_hop.0,
            mtu: next_hop.1.get(),
            gue: *encap == EncapKind::Gue,
        }
    }

    fn next_hop(&self) -> NextHop {
        NextHop(self.next_hop, PathMtu::NONE).limited_to(self.mtu)
    }

    const fn encap(&self) -> EncapKind {
        if self.gue { EncapKind::Gue } else { EncapKind::IpIp }
    }
}

impl SavedVip {
    fn new(vip: &Vip) -> Self {
        let Service { network, ports, protocol } = vip.service;
        let (port, last) = match ports {
            Ports::Any => (0, None),
            Ports::Range { first, last } => (first.get(), Some(last.get()).filter(|last| *last != first.get())),
        };
        Self {
            name: vip.name.to_string(),
            address: network.addr(),
            length: Some(network.prefix_len()).filter(|_| !vip.service.has_one_address()),
            port,
            last,
            protocol: protocol.number(),
            pool: vip.pool.to_string(),
        }
    }

    fn vip(&self) -> Option<Vip> {
        let Self { name: vip, address, length, port, last, protocol, pool } = self;
        let network = match length {
            None => IpNet::from(*address),
            Some(length) => IpNet::new(*address, *length).ok()?.trunc(),
        };
        let ports = match (NonZeroU16::new(*port), last) {
            (None, _) => Ports::Any,
            (Some(first), None) => Ports::one(first),
            (Some(first), Some(last)) => {
                Ports::Range { first, last: NonZeroU16::new(*last).filter(|last| first <= *last)? }
            }
        };
        let service = Service { network, ports, protocol: Protocol::from_number(*protocol)? };
        let announce = Announce { by: AnnounceBy::Nothing, ..Announce::default() };
        let (name, pool) = (name(vip).ok()?, name(pool).ok()?);
        let (when_empty, affinity) = (Unserved::default(), Affinity::default());
        Some(Vip { name, service, pool, announce, when_empty, affinity })
    }
}

impl Planner {
    /// The state that the next daemon needs.
    pub fn save(&mut self) -> Saved {
        let pools = self.pools.iter_mut().map(|(name, pool)| pool.save(name)).collect();
        self.saved(pools)
    }

    pub(super) fn saved(&self, pools: Vec<Arc<SavedPool>>) -> Saved {
        Saved {
            outer: written(&self.outer),
            last_id: self.member_ids.last(),
            vips: self.vips.iter().map(|(name, id)| (name.to_string(), id.0)).collect(),
            served: Vec::new(),
            pools,
        }
    }

    /// Continues where a daemon ended, with the maps it left.
    ///
    /// # Errors
    /// The inconsistency.
    pub fn restore(limits: Limits, outer: OuterSources, saved: &Saved, live: &Live) -> Result<Self, String> {
        let Saved { outer: _, last_id, vips, served: _, pools } = saved;
        let mut planner = Self::new(limits, outer);
        planner.fresh = false;
        planner.member_ids.go_on_after(*last_id);
        for (vip, number) in vips {
            claimed(planner.vip_numbers.claim(*number), "VIP", *number)?;
            planner.vips.insert(name(vip)?, VipId(*number));
        }
        let mut unaccounted = Unaccounted::default();
        for pool in pools {
            planner.restore_pool(pool, live, &mut unaccounted)?;
        }
        planner.meet(live, &mut unaccounted);
        planner.unaccounted = Some(unaccounted);
        Ok(planner)
    }

    /// A planner that continues this one with maps that begin anew, and the records of the members that they are to begin with.
    /// `moved` gives each next hop the place that its interface has there.
    ///
    /// # Errors
    /// A number is beyond the new limits.
    pub fn succeed(
        &self,
        limits: Limits,
        outer: OuterSources,
        moved: &dyn Fn(NextHop) -> Option<NextHop>,
        now: Duration,
    ) -> Result<(Self, BTreeMap<MemberId, MemberRecord>), String> {
        let pools = self.pools.iter().map(|(name, pool)| SavedPool::new(name, pool).into()).collect();
        let mut saved = self.saved(pools);
        saved.move_next_hops(moved, now);
        let live = Live { pools: Vec::new(), members: saved.members(&outer) };
        Ok((Self::restore(limits, outer, &saved, &live)?, live.members))
    }

    fn restore_pool(&mut self, saved: &SavedPool, live: &Live, unaccounted: &mut Unaccounted) -> Result<(), String> {
        claimed(self.pool_numbers.claim(saved.index), "pool", saved.index)?;
        let mut pool = PublishedPool::new(PoolIndex(saved.index));
        let lost: BTreeMap<u16, Duration> = saved.lost.iter().copied().collect();
        for member in &saved.members {
            let (backend, address, word) = (&member.name, &member.address, &member.next_hop);
            let id = member_id(member.id)?;
            // No packet reached a member without a record: it is made anew, and its id rests.
            let Some(record) = live.members.get(&id) else { continue };
            let (next_hop, kind) = (record.next_hop(), record.state().encap().kind());
            let reached_by = NextHop(*word, next_hop.1);
            if *record != member_record(pool.index, *address, kind, &self.outer, next_hop) {
                return Err(format!("member {} is no longer {backend} of pool {}", id.get(), saved.name));
            }
            claimed(self.member_ids.claim(id), "member", id.get())?;
            let lost = lost.get(&id.get()).copied();
            if reached_by.is_resolved() || lost.is_some() {
                pool.living.insert(id);
            }
            if reached_by.is_resolved() {
                unaccounted.next_hops.insert(*address, reached_by);
            }
            // The contents of the maps, so that differences are written.
            let lost = lost.filter(|_| !next_hop.is_resolved());
            pool.members.insert((name(backend)?, *address), Member { lost, ..Member::new(id, next_hop, kind) });
        }
        if saved.always {
            pool.settings.tracking = Tracking::Always;
        }
        let slots = pool.rebuild(owners(saved)?);
        let lives = |id| pool.living.contains(&id);
        let transition = Transition::restore(slots, saved.transition.as_ref(), &lives);
        pool.transition = transition.ok_or_else(|| format!("the slots of pool {} are invalid", saved.name))?.into();
        // The tables may be older than this state: none is assumed to hold what it should.
        pool.outdated = Outdated { both: true, ..Outdated::default() };
        pool.published = live.pools.get(usize::from(saved.index)).copied().unwrap_or_default();
        pool.begun = saved.begun.filter(|(_, word)| *word != pool.published.0).map(|(begun, _)| begun);
        [pool.current, pool.previous] = tables(pool.published);
        self.tables.claim(pool.current);
        self.tables.claim_previous(pool.previous);
        self.pools.insert(name(&saved.name)?, pool);
        Ok(())
    }

    /// Records live objects in the maps that are unknown: their numbers are allocated once they are removed.
    fn meet(&mut self, live: &Live, unaccounted: &mut Unaccounted) {
        unaccounted.members = live.members.keys().copied().filter(|&id| self.member_ids.claim(id)).collect();
        for (index, word) in (0..).zip(&live.pools).filter(|(_, word)| **word != PoolWord::default()) {
            if self.pool_numbers.claim(index) {
                tables(*word).into_iter().for_each(|table| self.tables.claim(table));
                unaccounted.pools.push((PoolIndex(index), tables(*word)));
            }
        }
    }

    /// The next hops of backends, as the daemon that left the maps knew them.
    pub fn next_hops(&self) -> BTreeMap<IpAddr, NextHop> {
        self.unaccounted.as_ref().map(|unaccounted| unaccounted.next_hops.clone()).unwrap_or_default()
    }
}

fn written(OuterSources { v4, v6 }: &OuterSources) -> [Option<String>; 2] {
    [v4.map(|net| net.to_string()), v6.map(|net| net.to_string())]
}

fn tables(word: PoolWord) -> [TableIndex; 2] {
    [word.current().table(), word.previous().table()]
}

/// Every owner is a member.
fn owners(SavedPool { members, owners, .. }: &SavedPool) -> Result<Owners, String> {
    let names: BTreeMap<u16, &String> = members.iter().map(|member| (member.id, &member.name)).collect();
    let mut found = BTreeMap::new();
    for (weight, id) in owners {
        let owner = names.get(id).ok_or_else(|| format!("owner {id} is not a member"))?;
        claimed(found.insert(name(owner)?, (Weight(*weight), member_id(*id)?)).is_none(), "owner", *id)?;
    }
    Ok(found.into_iter().map(|(name, (weight, id))| (name, weight, id)).collect())
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| error.to_string())
}

fn member_id(id: u16) -> Result<MemberId, String> {
    MemberId::new(id).ok_or_else(|| format!("{id} is not a member's id"))
}

fn claimed(free: bool, what: &str, number: u16) -> Result<(), String> {
    if free { Ok(()) } else { Err(format!("{what} {number} is used twice, or beyond the limit")) }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod faults;
