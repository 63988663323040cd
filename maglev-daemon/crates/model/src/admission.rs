//! The backends of one pool, and all VIPs, admitted one after the other, as a file lists them: each is compared with those before it
//! by a look-up, so that a whole file takes time in proportion to its size. It must not know files.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Backend, Name, Refusal, Rules, Service, Services, Vip};

/// What stands in the way of a backend's address, and how many backends there are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found<'a> {
    /// The backend of the same pool that has the address.
    pub(super) backend: Option<&'a Name>,
    /// A VIP that has the address.
    pub(super) vip: Option<&'a Name>,
    /// The backends of all pools.
    pub(super) backends: usize,
}

impl<'a> Found<'a> {
    /// For a single backend.
    pub(super) fn by_scan(services: &'a Services, pool: &Name, backend: &Backend) -> Self {
        let others = services.pools.get(pool).into_iter().flat_map(|pool| pool.backends.values());
        Self {
            backend: others.filter(|other| other.address == backend.address).map(|other| &other.name).next(),
            vip: services.vips.values().find(|vip| vip.service.address == backend.address).map(|vip| &vip.name),
            backends: services.backend_count(),
        }
    }
}

/// What stands in the way of a VIP.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InTheWay<'a> {
    /// The VIP that has the service.
    pub(super) vip: Option<&'a Name>,
    /// A backend that has the address, and its pool before it.
    pub(super) backend: Option<(&'a Name, &'a Name)>,
}

impl<'a> InTheWay<'a> {
    /// For a single VIP.
    pub(super) fn by_scan(services: &'a Services, service: Service) -> Self {
        let backend = services.pools.values().find_map(|pool| {
            let backend = pool.backends.values().find(|backend| backend.address == service.address)?;
            Some((&pool.name, &backend.name))
        });
        Self { vip: services.vips.values().find(|vip| vip.service == service).map(|vip| &vip.name), backend }
    }
}

/// VIPs, to be admitted once all pools are.
#[derive(Debug)]
pub struct VipAdmission<'a> {
    services: &'a mut Services,
    rules: &'a Rules,
    /// The VIPs by service.
    taken: HashMap<Service, Name>,
    /// Pool and name of the first backend with an address.
    backends: HashMap<IpAddr, (Name, Name)>,
}

impl VipAdmission<'_> {
    /// Admits a VIP.
    ///
    /// # Errors
    /// What is in the way, and the remedy; nothing changed.
    pub fn add(&mut self, vip: Vip) -> Result<(), Refusal> {
        let Self { services, rules, taken, backends } = self;
        let backend = backends.get(&vip.service.address).map(|(pool, backend)| (pool, backend));
        services.check_vip(&vip, rules, &InTheWay { vip: taken.get(&vip.service), backend })?;
        taken.insert(vip.service, vip.name.clone());
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
    /// The pool's backends by address.
    taken: HashMap<IpAddr, Name>,
    /// The VIPs by address.
    vips: HashMap<IpAddr, Name>,
    /// The backends of all pools.
    backends: usize,
}

impl Services {
    /// Admits VIPs, one after the other.
    pub fn vips_of_file<'a>(&'a mut self, rules: &'a Rules) -> VipAdmission<'a> {
        let mut backends = HashMap::new();
        for pool in self.pools.values() {
            for backend in pool.backends.values() {
                backends.entry(backend.address).or_insert_with(|| (pool.name.clone(), backend.name.clone()));
            }
        }
        let taken = self.vips.values().map(|vip| (vip.service, vip.name.clone())).collect();
        VipAdmission { services: self, rules, taken, backends }
    }

    /// Admits backends to a pool, one after the other.
    pub fn backends_of<'a>(&'a mut self, pool: &Name, rules: &'a Rules) -> Admission<'a> {
        let backends = self.pools.get(pool).into_iter().flat_map(|pool| pool.backends.values());
        Admission {
            pool: pool.clone(),
            rules,
            taken: backends.map(|backend| (backend.address, backend.name.clone())).collect(),
            vips: self.vips.values().map(|vip| (vip.service.address, vip.name.clone())).collect(),
            backends: self.backend_count(),
            services: self,
        }
    }
}

impl Admission<'_> {
    /// Admits a backend.
    ///
    /// # Errors
    /// What is in the way, and the remedy; nothing changed.
    pub fn add(&mut self, backend: Backend) -> Result<(), Refusal> {
        let Self { services, pool, rules, taken, vips, backends } = self;
        let address = &backend.address;
        let found = Found { backend: taken.get(address), vip: vips.get(address), backends: *backends };
        services.check_backend(pool, &backend, rules, &found)?;
        taken.insert(backend.address, backend.name.clone());
        *backends += 1;
        services.pool_mut(pool)?.backends.insert(backend.name.clone(), backend);
        Ok(())
    }
}
