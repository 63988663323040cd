//! How much a change may take out of service at once. One rule for every order that can: a backend's removal, drain, weight
//! and state, a pool's removal, and a reload of the file. It must not know the source of an order.
//!
//! A backend is *available* if it is active and has a weight ([`Backend::takes_new_flows`]); one that is drained, disabled,
//! removed, moved to another address or given weight 0 is taken out. A VIP is taken out if it is removed, or no longer
//! announced. A change is refused without force if it takes out
//! - more than 30 % and more than one of a pool's available backends, or the last of them;
//! - more than 10 % and more than one of the VIPs, or leaves a VIP to a pool that has no available backend.

use std::sync::Arc;

use super::refusal::listed;
use super::{AnnounceBy, Backend, Change, Name, Pool, Refusal, Services, StateChange, Vip, Weight};

/// The shares that may go at once, in percent.
const OF_BACKENDS: usize = 30;
const OF_VIPS: usize = 10;

/// How much of a set is taken out, and its size before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loss {
    before: usize,
    lost: usize,
    after: usize,
}

impl Loss {
    /// Whether more than one is taken out, and more than this share.
    const fn is_beyond(self, percent: usize) -> bool {
        self.lost > 1 && self.lost * 100 > self.before * percent
    }

    /// The refusal of taking these out of a pool.
    fn pool_refusal(self, pool: &Name) -> Option<String> {
        let Self { before, lost, after } = self;
        if lost > 0 && after == 0 {
            return Some(format!(
                "pool {pool}: takes out {lost} of {before} available backends and leaves none (limit: one must stay)"
            ));
        }
        self.is_beyond(OF_BACKENDS).then(|| {
            format!(
                "pool {pool}: takes out {lost} of {before} available backends (limit: {OF_BACKENDS} %, or one, at once)"
            )
        })
    }

    /// The refusal of taking these VIPs out.
    fn vips_refusal<'a>(self, names: impl ExactSizeIterator<Item = &'a str>) -> Option<String> {
        let Self { before, lost, after: _ } = self;
        self.is_beyond(OF_VIPS).then(|| {
            let names = listed(names, "maglev vip list");
            format!("takes out {lost} of {before} VIPs (limit: {OF_VIPS} %, or one, at once): {names}")
        })
    }
}

impl Services {
    /// Whether a change takes out no more than is allowed without force. A change that is invalid may pass.
    ///
    /// # Errors
    /// What is taken out, the limit, and the remedy.
    pub fn guard_change(&self, change: &Change) -> Result<(), Refusal> {
        let takes_out = |backend: &&Backend| backend.takes_new_flows();
        let one = |pool: &Name, backend: &Name| {
            let pool = self.pools.get(pool)?;
            pool.backends.get(backend).filter(takes_out)?;
            let before = pool.available();
            Some((&pool.name, Loss { before, lost: 1, after: before - 1 }))
        };
        let found = match change {
            Change::RemoveBackend { pool, backend, force: _ }
            | Change::SetWeight { pool, backend, weight: Weight(0) }
            | Change::SetState { pool, backend, change: StateChange::Drain { .. } | StateChange::Disable { .. } } => {
                one(pool, backend)
            }
            // VIPs of a removed pool are reported where it is removed.
            Change::RemovePool(name) => {
                self.pools.get(name).filter(|_| self.vips_of(name).next().is_none()).map(|pool| {
                    let before = pool.available();
                    (&pool.name, Loss { before, lost: before, after: 0 })
                })
            }
            Change::AddVip(_)
            | Change::RemoveVip(_)
            | Change::SetVip { .. }
            | Change::AddPool(_)
            | Change::SetPool { .. }
            | Change::AddBackend { .. }
            | Change::SetWeight { .. }
            | Change::SetCheck { .. }
            | Change::SetState { change: StateChange::Undrain | StateChange::Enable, .. } => None,
        };
        refused(&found.and_then(|(pool, loss)| loss.pool_refusal(pool)).into_iter().collect::<Vec<_>>())
    }

    /// Whether a switch to other services takes out no more than is allowed without force.
    ///
    /// # Errors
    /// Everything taken out beyond the limits, with the remedy.
    pub fn guard(&self, next: &Self) -> Result<(), Refusal> {
        let changed = self.pools.values().map(|pool| (pool, next.pools.get(&pool.name)));
        let changed = changed.filter(|(pool, next)| Some(*pool) != *next);
        let of_pools = changed.filter_map(|(pool, next)| pool.loss(next.map(Arc::as_ref)).pool_refusal(&pool.name));
        let lost: Vec<&Vip> = self.vips.values().filter(|vip| !next.keeps(vip)).collect();
        let loss = Loss { before: self.vips.len(), lost: lost.len(), after: self.vips.len() - lost.len() };
        let of_vips = loss.vips_refusal(lost.iter().map(|vip| vip.name.as_str()));
        let moved = self.vips.values().filter_map(|vip| self.deserted(vip, next));
        refused(&of_vips.into_iter().chain(of_pools).chain(moved).collect::<Vec<_>>())
    }

    /// Whether a VIP exists, under any name, and is announced if the other one is.
    fn keeps(&self, vip: &Vip) -> bool {
        let is_announced = |vip: &Vip| vip.announce.by != AnnounceBy::Nothing;
        let by_name = self.vips.get(&vip.name).filter(|found| found.service == vip.service);
        let found = by_name.or_else(|| self.vips.values().find(|found| found.service == vip.service));
        found.is_some_and(|found| is_announced(found) || !is_announced(vip))
    }

    /// The refusal of moving a VIP from a pool with available backends to one without.
    fn deserted(&self, vip: &Vip, next: &Self) -> Option<String> {
        let moved = next.vips.get(&vip.name).filter(|moved| moved.pool != vip.pool && moved.service == vip.service)?;
        let available = |services: &Self, pool: &Name| services.pools.get(pool).map_or(0, |pool| pool.available());
        (available(self, &vip.pool) > 0 && available(next, &moved.pool) == 0).then(|| {
            let Vip { name, .. } = vip;
            format!(
                "VIP {name}: goes over to pool {}, which has 0 available backends (limit: at least one)",
                moved.pool
            )
        })
    }
}

impl Pool {
    /// How many of its backends are available: active, and with a weight.
    pub fn available(&self) -> usize {
        self.backends.values().filter(|backend| backend.takes_new_flows()).count()
    }

    /// How many of them a change to this state takes out.
    fn loss(&self, next: Option<&Self>) -> Loss {
        let stays = |backend: &&Backend| {
            let next = next.and_then(|pool| pool.backends.get(&backend.name));
            next.is_some_and(|next| next.takes_new_flows() && next.address == backend.address)
        };
        let before = self.available();
        let stay = self.backends.values().filter(|backend| backend.takes_new_flows()).filter(stays).count();
        Loss { before, lost: before - stay, after: next.map_or(0, Self::available) }
    }
}

/// One line, if anything exceeds the limits.
fn refused(faults: &[String]) -> Result<(), Refusal> {
    const FEW: usize = 8;
    if faults.is_empty() {
        return Ok(());
    }
    let more = faults.len().saturating_sub(FEW);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let few = faults.iter().take(FEW).cloned().collect::<Vec<_>>().join("; ");
    Err(Refusal::Conflict(format!("{few}{more}; --force does it")))
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod faults;
