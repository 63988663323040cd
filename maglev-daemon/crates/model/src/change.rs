//! Changes to the services, and why they are refused. It must not know what is published or saved.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use maglev_common::maps::{MAX_MEMBERS, MAX_POOLS, MAX_VIPS};

use super::admission::{Found, InTheWay};
use super::places;
use super::refusal::listed;
use super::{
    Backend, Change, HealthChange, Name, OuterSources, Pool, PoolHealth, PoolSettings, Refusal, Rules, Services,
};
use super::{SettingsChange, Vip};

impl Services {
    /// The services after a change.
    ///
    /// # Errors
    /// One line that names the conflict and the remedy.
    pub fn apply(&self, change: &Change, rules: &Rules) -> Result<Self, Refusal> {
        let mut next = self.clone();
        next.admit(change.clone(), rules)?;
        Ok(next)
    }

    /// Makes a change in place; a refused change leaves the services as they were.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn admit(&mut self, change: Change, rules: &Rules) -> Result<(), Refusal> {
        match change {
            Change::AddVip(vip) => self.add_vip(vip, rules),
            Change::RemoveVip(name) => match self.vips.remove(&name) {
                Some(_) => Ok(()),
                None => Err(self.no_vip(&name)),
            },
            Change::SetVip { vip, change } => self.set_vip(&vip, &change),
            Change::AddPool(pool) => self.add_pool(pool, rules),
            Change::RemovePool(name) => self.remove_pool(&name),
            Change::SetPool { pool, change, health } => self.set_pool(&pool, &change, &health),
            Change::SetCheck { pool, backend, own } => self.set_override(&pool, &backend, own),
            Change::AddBackend { pool, backend } => {
                let found = Found::by_scan(self, &pool, &backend);
                self.check_backend(&pool, &backend, rules, &found)?;
                self.pool_mut(&pool)?.backends.insert(backend.name.clone(), backend);
                Ok(())
            }
            // Whether connections would be dropped is not known here: the caller refuses such a change.
            Change::RemoveBackend { pool, backend, force: _ } => {
                let pool = self.pool_mut(&pool)?;
                match pool.backends.remove(&backend) {
                    Some(_) => {
                        pool.health.overrides.remove(&backend);
                        Ok(())
                    }
                    None => Err(pool.no_backend(&backend)),
                }
            }
            Change::SetWeight { pool, backend, weight } => {
                let pool = self.pool_mut(&pool)?;
                match pool.backends.get_mut(&backend) {
                    Some(found) => found.weight = weight,
                    None => return Err(pool.no_backend(&backend)),
                }
                Ok(())
            }
            Change::SetState { pool, backend, change } => self.set_state(&pool, &backend, change),
        }
    }

    /// All errors of the services on a node with these rules: each pool, backend and VIP is admitted anew.
    pub fn validate(&self, rules: &Rules) -> Vec<Refusal> {
        let mut admitted = Self::default();
        let mut refusals = Vec::new();
        for pool in self.pools.values() {
            let Pool { name, settings, health, backends } = &**pool;
            let (settings, health) = (*settings, health.clone());
            let pool = Pool { settings, health, ..Pool::new(name.clone()) };
            refusals.extend(admitted.admit(Change::AddPool(pool), rules).err());
            let mut pool = admitted.backends_of(name, rules);
            refusals.extend(backends.values().filter_map(|backend| pool.add(backend.clone()).err()));
        }
        let mut vips = admitted.vips_of_file(rules);
        refusals.extend(self.vips.values().filter_map(|vip| vips.add(vip.clone()).err()));
        refusals
    }

    /// The VIPs that a pool serves, in the order of their names.
    pub fn vips_of<'a>(&'a self, pool: &'a Name) -> impl Iterator<Item = &'a Vip> {
        self.vips.values().filter(move |vip| vip.pool == *pool)
    }

    /// How many backends all pools have together.
    pub fn backend_count(&self) -> usize {
        self.pools.values().map(|pool| pool.backends.len()).sum()
    }

    fn add_vip(&mut self, vip: Vip, rules: &Rules) -> Result<(), Refusal> {
        let found = InTheWay::by_scan(self, &vip);
        self.check_vip(&vip, rules, &found)?;
        self.vips.insert(vip.name.clone(), vip);
        Ok(())
    }

    /// `found` is the object that already has the VIP's service or address.
    pub(super) fn check_vip(&self, vip: &Vip, rules: &Rules, found: &InTheWay<'_>) -> Result<(), Refusal> {
        let Vip { name, service, pool, announce: _, when_empty: _, affinity: _ } = vip;
        service.check(name)?;
        if self.vips.contains_key(name) {
            return Err(taken("VIP", name.as_str()));
        }
        if let Some(clash) = &found.clash {
            return Err(places::refusal(vip, clash, self.vips.values()));
        }
        self.pool(pool)?;
        vip.check_announce()?;
        vip.check_affinity()?;
        if let Some((pool, backend)) = found.backend {
            let Backend { name: backend, address, .. } = backend;
            let what = if service.has_one_address() {
                format!("{address} is the address of")
            } else {
                format!("{} contains {address}, the address of", service.network)
            };
            return Err(Refusal::Invalid(format!(
                "VIP {name}: {what} backend {backend} of pool {pool}; choose an address that no backend has"
            )));
        }
        check_limit("VIPs", "limits.vips", self.vips.len(), rules.limits.vips, MAX_VIPS)
    }

    fn add_pool(&mut self, pool: Pool, rules: &Rules) -> Result<(), Refusal> {
        let Pool { name, settings, health, backends } = pool;
        settings.transition.check()?;
        if self.pools.contains_key(&name) {
            return Err(taken("pool", name.as_str()));
        }
        check_limit("pools", "limits.pools", self.pools.len(), rules.limits.pools, MAX_POOLS)?;
        self.pools.insert(name.clone(), Pool { settings, health, ..Pool::new(name.clone()) }.into());
        let mut admission = self.backends_of(&name, rules);
        let admitted = backends.into_values().try_for_each(|backend| admission.add(backend));
        if admitted.is_err() {
            self.pools.remove(&name);
        }
        admitted
    }

    /// Sets all or nothing.
    fn set_pool(&mut self, pool: &Name, change: &SettingsChange, health: &HealthChange) -> Result<(), Refusal> {
        if change.is_empty() && health.is_empty() {
            let allowed = "tracking, learning, idle, udp, min_healthy, encap, check, panic, slow_start, on_all_dead";
            return Err(Refusal::Invalid(format!("nothing to set; allowed: {allowed}")));
        }
        let before = self.pool(pool)?.settings;
        if !change.is_empty() {
            self.set_settings(pool, change)?;
        }
        if health.is_empty() {
            return Ok(());
        }
        let set = self.set_health(pool, health);
        if set.is_err() {
            self.pool_mut(pool)?.settings = before;
        }
        set
    }

    fn remove_pool(&mut self, name: &Name) -> Result<(), Refusal> {
        self.pool(name)?;
        let users: Vec<_> = self.vips_of(name).map(|vip| vip.name.as_str()).collect();
        if !users.is_empty() {
            let users = listed(users.into_iter(), "maglev vip list");
            return Err(Refusal::Conflict(format!("pool {name} serves VIPs ({users}); remove them first")));
        }
        self.pools.remove(name);
        Ok(())
    }

    /// `found` is the object that already has the backend's address.
    pub(super) fn check_backend(
        &self,
        pool: &Name,
        backend: &Backend,
        rules: &Rules,
        found: &Found<'_>,
    ) -> Result<(), Refusal> {
        let Backend { name, address, weight: _, state: _, mtu: _ } = backend;
        let pool = self.pool(pool)?;
        check_unicast(name, *address)?;
        check_reachable(name, *address, &rules.outer)?;
        if pool.backends.contains_key(name) {
            return Err(taken("backend", &format!("{name} in pool {}", pool.name)));
        }
        if let Some(other) = found.backend {
            return Err(Refusal::Conflict(format!(
                "{address} is already backend {other} of pool {}; remove it first, or choose another address",
                pool.name
            )));
        }
        if let Some(vip) = found.vip {
            let what = if vip.service.has_one_address() {
                "the address".to_owned()
            } else {
                format!("within {}, the prefix", vip.service.network)
            };
            return Err(Refusal::Invalid(format!(
                "backend {name}: {address} is {what} of VIP {}; choose an address that no VIP has",
                vip.name
            )));
        }
        check_limit("backends", "limits.backends", found.backends, rules.limits.backends, MAX_MEMBERS)
    }

    /// The pool with this name.
    ///
    /// # Errors
    /// The pool is unknown; the known names.
    pub fn pool(&self, name: &Name) -> Result<&Pool, Refusal> {
        self.pools.get(name).map(Arc::as_ref).ok_or_else(|| self.no_pool(name))
    }

    /// The same, to change it.
    ///
    /// # Errors
    /// The pool is unknown; the known names.
    pub fn pool_mut(&mut self, name: &Name) -> Result<&mut Pool, Refusal> {
        // Names are listed only if the pool is unknown: there may be many.
        if !self.pools.contains_key(name) {
            return Err(self.no_pool(name));
        }
        let pool = self.pools.get_mut(name).map(Arc::make_mut);
        pool.ok_or_else(|| Refusal::unknown("pool", name, std::iter::empty()))
    }

    fn no_pool(&self, name: &Name) -> Refusal {
        Refusal::unknown("pool", name, self.pools.keys().map(Name::as_str))
    }

    pub(super) fn no_vip(&self, name: &Name) -> Refusal {
        Refusal::unknown("VIP", name, self.vips.keys().map(Name::as_str))
    }
}

impl Change {
    /// The pool and the backend that it is about, if it is about one.
    pub const fn backend(&self) -> Option<(&Name, &Name)> {
        match self {
            Self::AddBackend { pool, backend } => Some((pool, &backend.name)),
            Self::RemoveBackend { pool, backend, .. }
            | Self::SetWeight { pool, backend, .. }
            | Self::SetCheck { pool, backend, .. }
            | Self::SetState { pool, backend, .. } => Some((pool, backend)),
            Self::AddVip(_)
            | Self::RemoveVip(_)
            | Self::SetVip { .. }
            | Self::AddPool(_)
            | Self::RemovePool(_)
            | Self::SetPool { .. } => None,
        }
    }
}

impl Pool {
    /// A pool without backends, with the default settings.
    pub fn new(name: Name) -> Self {
        Self { name, settings: PoolSettings::default(), health: PoolHealth::default(), backends: BTreeMap::new() }
    }

    /// The refusal of an unknown backend of a pool.
    pub fn no_backend(&self, name: &Name) -> Refusal {
        Refusal::unknown_backend(&self.name, name, self.backends.keys().map(Name::as_str))
    }
}

fn taken(what: &str, name: &str) -> Refusal {
    Refusal::Conflict(format!("there is already a {what} {name}; choose another name"))
}

/// `most` is the highest value of the limit.
fn check_limit(what: &str, key: &str, count: usize, limit: u32, most: u32) -> Result<(), Refusal> {
    if count < limit as usize {
        return Ok(());
    }
    let raise = if limit < most { format!("raise {key} in maglev.yaml or ") } else { String::new() };
    Err(Refusal::Conflict(format!("limit of {limit} {what} reached; {raise}remove one")))
}

/// Packets are sent to a single host's address: no other address can be balanced or encapsulated to.
fn check_unicast(name: &Name, address: IpAddr) -> Result<(), Refusal> {
    match not_unicast(address) {
        Some(kind) => Err(Refusal::Invalid(format!("backend {name}: {address} is {kind}"))),
        None => Ok(()),
    }
}

/// The kind of an address that is not a single host's on a network.
pub fn not_unicast(address: IpAddr) -> Option<&'static str> {
    Some(match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.octets()[0] == 0 => "an address of \"this network\" (0.0.0.0/8)",
        IpAddr::V4(v4) if v4.octets()[0] >= 240 => "a broadcast or reserved address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4-mapped address; write it as IPv4",
        _ => return None,
    })
}

fn check_reachable(name: &Name, address: IpAddr, outer: &OuterSources) -> Result<(), Refusal> {
    let (family, key) = match address {
        IpAddr::V4(_) if outer.v4.is_none() => ("IPv4", "encap.source"),
        IpAddr::V6(_) if outer.v6.is_none() => ("IPv6", "encap.source6"),
        _ => return Ok(()),
    };
    Err(Refusal::Invalid(format!("backend {name}: {address} needs an {family} outer source; set {key} in maglev.yaml")))
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
