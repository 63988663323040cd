//! The backends of one pool, and all VIPs, admitted one after the other in a file's order: each is compared with those before it
//! by a look-up, so that a whole file takes time in proportion to its size. It must not know files.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::places::{Clash, Places};
use super::{Backend, Name, Refusal, Rules, Services, Vip};

/// Conflicts with a backend's address, and the number of backends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found<'a> {
    /// The backend of the same pool that has the address.
    pub(super) backend: Option<&'a Name>,
    /// A VIP that has the address, alone or within its prefix.
    pub(super) vip: Option<&'a Vip>,
    /// The backends of all pools.
    pub(super) backends: usize,
}

impl<'a> Found<'a> {
    /// For a single backend.
    pub(super) fn by_scan(services: &'a Services, pool: &Name, backend: &Backend) -> Self {
        let others = services.pools.get(pool).into_iter().flat_map(|pool| pool.backends.values());
        Self {
            backend: others.filter(|other| other.address == backend.address).map(|other| &other.name).next(),
            vip: services.vips.values().find(|vip| vip.service.network.contains(&backend.address)),
            backends: services.backend_count(),
        }
    }
}

/// Conflicts with a VIP.
#[derive(Clone, Debug, Default)]
pub(super) struct InTheWay<'a> {
    /// Why the service cannot be added to those of the other VIPs.
    pub(super) clash: Option<Clash>,
    /// A backend that has one of the addresses, and its pool before it.
    pub(super) backend: Option<(&'a Name, &'a Backend)>,
}

impl<'a> InTheWay<'a> {
    /// For a single VIP.
    pub(super) fn by_scan(services: &'a Services, vip: &Vip) -> Self {
        Self { clash: services.places().clash(vip), backend: backend_within(services, vip.service.network) }
    }
}

fn backend_within(services: &Services, network: IpNet) -> Option<(&Name, &Backend)> {
    services.pools.values().find_map(|pool| {
        let backend = pool.backends.values().find(|backend| network.contains(&backend.address))?;
        Some((&pool.name, backend))
    })
}

/// VIPs, to be admitted once all pools are.
#[derive(Debug)]
pub struct VipAdmission<'a> {
    services: &'a mut Services,
    rules: &'a Rules,
    /// The services of VIPs.
    taken: Places,
    /// The addresses of backends.
    backends: BTreeSet<IpAddr>,
}

impl VipAdmission<'_> {
    /// Admits a VIP.
    ///
    /// # Errors
    /// The conflict and the remedy; nothing changed.
    pub fn add(&mut self, vip: Vip) -> Result<(), Refusal> {
        let Self { services, rules, taken, backends } = self;
        let network = vip.service.network;
        let is_backend = backends.range(network.network()..=network.broadcast()).next().is_some();
        let backend = if is_backend { backend_within(services, network) } else { None };
        let found = InTheWay { clash: taken.clash(&vip), backend };
        services.check_vip(&vip, rules, &found)?;
        taken.insert(&vip);
        services.vips.insert(vip.name.clone(), vip);
        Ok(())
    }
}

/// The backends of one pool, to be admitted.
#[derive(Debug)]
pub struct Admission<'a> {
    services: &'a mut Services,
    pool: Name,
    rules: &'a Rules,
    /// The addresses of the pool's backends.
    taken: HashSet<IpAddr>,
    /// The services of VIPs.
    vips: Places,
    /// The backends of all pools.
    backends: usize,
}

impl Services {
    /// The services of all VIPs.
    pub fn places(&self) -> Places {
        self.vips.values().collect()
    }

    /// Admits VIPs, one after the other.
    pub fn vips_of_file<'a>(&'a mut self, rules: &'a Rules) -> VipAdmission<'a> {
        let backends = self.pools.values().flat_map(|pool| pool.backends.values());
        VipAdmission {
            rules,
            taken: self.places(),
            backends: backends.map(|backend| backend.address).collect(),
            services: self,
        }
    }

    /// Admits backends to a pool, one after the other.
    pub fn backends_of<'a>(&'a mut self, pool: &Name, rules: &'a Rules) -> Admission<'a> {
        let backends = self.pools.get(pool).into_iter().flat_map(|pool| pool.backends.values());
        Admission {
            pool: pool.clone(),
            rules,
            taken: backends.map(|backend| backend.address).collect(),
            vips: self.places(),
            backends: self.backend_count(),
            services: self,
        }
    }
}

impl Admission<'_> {
    /// Admits a backend.
    ///
    /// # Errors
    /// The conflict and the remedy; nothing changed.
    pub fn add(&mut self, backend: Backend) -> Result<(), Refusal> {
        let Self { services, pool, rules, taken, vips, backends } = self;
        let is_free = !taken.contains(&backend.address) && !vips.hold(backend.address);
        let found = if is_free { Found::default() } else { Found::by_scan(services, pool, &backend) };
        services.check_backend(pool, &backend, rules, &Found { backends: *backends, ..found })?;
        taken.insert(backend.address);
        *backends += 1;
        services.pool_mut(pool)?.backends.insert(backend.name.clone(), backend);
        Ok(())
    }
}
