//! Addresses that the node or its backends need: a VIP with one of them would cut them off, since the node's own packets to a
//! VIP are dropped, and those that arrive for it are balanced. Pure: the needed addresses are parameters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use maglev_model::{Change, Host, Name, OuterSources, Refusal, Services, Vip, shown_network};

/// Addresses that the node needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// From `maglev.yaml`: BGP neighbors, the node's ends of those sessions, and the metrics address; each with its name.
    pub configured: Vec<(IpAddr, String)>,
    /// The outer sources.
    pub outer: OuterSources,
    /// Its own addresses and gateways.
    pub host: Host,
}

impl Needed {
    /// The uses that a VIP with these addresses would cut off, each with its address; none if it may be one.
    fn uses(&self, network: IpNet, services: &Services) -> Vec<(IpAddr, String)> {
        let within = network.network()..=network.broadcast();
        let own = self.host.own.range(within.clone());
        let own = own.map(|(at, interface)| (*at, format!("an address of this node, on {interface}")));
        let gateways = self.host.gateways.range(within);
        let gateways = gateways.map(|(at, route)| (*at, format!("the gateway of {route}")));
        let configured = self.configured.iter().filter(|(at, _)| network.contains(at)).cloned();
        let outer = self.outer(network).map(|at| (at, "within the outer source".to_owned()));
        let backends = services.pools.values().flat_map(|pool| pool.backends.values().map(move |found| (pool, found)));
        let mut backends = backends.filter(|(_, backend)| network.contains(&backend.address));
        let backend = backends.next();
        let backend =
            backend.map(|(pool, found)| (found.address, format!("backend {} of pool {}", found.name, pool.name)));
        own.chain(gateways).chain(configured).chain(outer).chain(backend).collect()
    }

    /// The first address that is one of the outer source's too.
    fn outer(&self, network: IpNet) -> Option<IpAddr> {
        let outer = match network {
            IpNet::V4(_) => IpNet::from(self.outer.v4?),
            IpNet::V6(_) => IpNet::from(self.outer.v6?),
        };
        let inner = if network.prefix_len() > outer.prefix_len() { network } else { outer.trunc() };
        (network.contains(&inner) && outer.contains(&inner)).then(|| inner.network())
    }

    /// Why a VIP cannot be served, if so.
    pub(super) fn conflict(&self, vip: &Vip, services: &Services) -> Option<String> {
        const FEW: usize = 4;
        let (network, uses) = (vip.service.network, self.uses(vip.service.network, services));
        if uses.is_empty() {
            return None;
        }
        if vip.service.has_one_address() {
            let uses: Vec<_> = uses.into_iter().map(|(_, what)| what).collect();
            return Some(format!("{} is {}", shown_network(network), uses.join(" and ")));
        }
        let more = uses.len().saturating_sub(FEW);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let uses: Vec<_> = uses.into_iter().take(FEW).map(|(at, what)| format!("{at} ({what})")).collect();
        Some(format!("{network} contains {}{more}", uses.join(", ")))
    }

    /// The VIPs that cannot be served, and why.
    pub fn conflicts(&self, services: &Services) -> BTreeMap<Name, String> {
        let conflict = |vip: &Vip| Some((vip.name.clone(), self.conflict(vip, services)?));
        let all = services.vips.values();
        // Backends are many: each VIP is compared with them only if one has the address of a VIP at all.
        let places = services.places();
        let backends = services.pools.values().flat_map(|pool| pool.backends.values());
        if backends.into_iter().any(|backend| places.hold(backend.address)) {
            return all.filter_map(conflict).collect();
        }
        let none = Services::default();
        all.filter_map(|vip| Some((vip.name.clone(), self.conflict(vip, &none)?))).collect()
    }

    /// Refuses a change that makes a conflict: of a VIP, or of a backend that gets a VIP's address.
    ///
    /// # Errors
    /// The use that would be cut off.
    pub fn check_change(&self, change: &Change, services: &Services) -> Result<(), Refusal> {
        let refused = |name: &Name, conflict: &str| Err(Refusal::Conflict(refusal(name, conflict)));
        // A conflict within the services is an error on every node; one with this node's addresses, on this node alone.
        let rejected = |name: &Name, conflict: &str| Err(Refusal::Invalid(refusal(name, conflict)));
        match change {
            Change::AddVip(vip) => match self.conflict(vip, &Services::default()) {
                Some(conflict) => refused(&vip.name, &conflict),
                None => self.conflict(vip, services).map_or(Ok(()), |conflict| rejected(&vip.name, &conflict)),
            },
            Change::AddBackend { pool, backend } => {
                match services.vips.values().find(|vip| vip.service.network.contains(&backend.address)) {
                    Some(vip) => {
                        let conflict = format!("{} would be backend {} of pool {pool}", backend.address, backend.name);
                        rejected(&vip.name, &conflict)
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Refuses addresses of another `maglev.yaml` that make a conflict with a VIP that has none.
    ///
    /// # Errors
    /// The use that would be cut off, one line for each VIP.
    pub(super) fn check_configured(
        &self,
        configured: &[(IpAddr, String)],
        services: &Services,
    ) -> Result<(), Vec<String>> {
        self.check_next(&Self { configured: configured.to_vec(), ..self.clone() }, services)
    }

    /// The same for other addresses of any kind.
    pub(super) fn check_next(&self, next: &Self, services: &Services) -> Result<(), Vec<String>> {
        if self == next {
            return Ok(());
        }
        let known = self.conflicts(services);
        let new = next.conflicts(services).into_iter().filter(|(name, _)| !known.contains_key(name));
        let lines: Vec<String> = new.map(|(name, conflict)| refusal(&name, &conflict)).collect();
        if lines.is_empty() { Ok(()) } else { Err(lines) }
    }

    /// Refuses services with a conflict that those before did not have: an existing conflict is shown as such, and
    /// must not keep the rest from being reloaded.
    ///
    /// # Errors
    /// The use that would be cut off, one line for each VIP.
    pub fn check_services(&self, before: &Services, after: &Services) -> Result<(), Vec<String>> {
        let known = self.conflicts(before);
        let is_known = |name: &Name| {
            let network = |services: &Services| services.vips.get(name).map(|vip| vip.service.network);
            known.contains_key(name) && network(before) == network(after)
        };
        let new = self.conflicts(after).into_iter().filter(|(name, _)| !is_known(name));
        let lines: Vec<String> = new.map(|(name, conflict)| refusal(&name, &conflict)).collect();
        if lines.is_empty() { Ok(()) } else { Err(lines) }
    }
}

fn refusal(vip: &Name, conflict: &str) -> String {
    format!(
        "VIP {vip}: {conflict}; packets between this node and a VIP's address are balanced or dropped, so that would be cut \
         off: choose another address"
    )
}

#[cfg(test)]
mod faults {
    use super::*;
    use maglev_model::{AdminState, Backend, Pool, Rules, Service, Weight};
    use maglev_testing::matrix::Row;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn vip(of: &str, address: &str) -> Vip {
        let service = Service::parse(address, "443", "tcp").unwrap();
        Vip {
            name: name(of),
            service,
            pool: name("web"),
            announce: maglev_model::Announce::default(),
            when_empty: maglev_model::Unserved::Drop,
            affinity: maglev_model::Affinity::default(),
        }
    }

    /// One backend, 10.9.2.11, and a VIP without a conflict.
    fn services() -> Services {
        let rules =
            Rules { outer: OuterSources { v4: Some("10.64.11.0/24".parse().unwrap()), v6: None }, ..Rules::default() };
        let mut services = Services::default();
        let backend = Backend {
            name: name("web1"),
            address: at("10.9.2.11"),
            weight: Weight::DEFAULT,
            state: AdminState::Active,
            mtu: None,
        };
        for change in [
            Change::AddPool(Pool::new(name("web"))),
            Change::AddBackend { pool: name("web"), backend },
            Change::AddVip(vip("www", "203.0.113.10")),
        ] {
            services.admit(change, &rules).unwrap();
        }
        services
    }

    fn needed() -> Needed {
        Needed {
            configured: vec![(at("10.9.1.1"), "BGP neighbor router".to_owned())],
            outer: OuterSources { v4: Some("10.64.11.0/24".parse().unwrap()), v6: None },
            host: Host {
                own: [(at("10.9.1.11"), "eth0".to_owned())].into(),
                gateways: [(at("10.9.1.1"), "the default route".to_owned())].into(),
            },
        }
    }

    #[test]
    fn a_vip_on_an_address_that_the_node_needs_is_refused() {
        for (case, address, cuts) in [
            (
                "a VIP is the gateway and a BGP neighbor",
                "10.9.1.1",
                "the gateway of the default route and BGP neighbor router",
            ),
            ("a VIP is an address of the node", "10.9.1.11", "an address of this node, on eth0"),
            ("a VIP is a backend", "10.9.2.11", "backend web1 of pool web"),
            ("a VIP is within the outer source", "10.64.11.7", "within the outer source"),
        ] {
            let _row = Row::fault("D5", case);
            let refused = needed().check_change(&Change::AddVip(vip("gw", address)), &services()).unwrap_err();
            assert!(refused.to_string().contains(&format!("VIP gw: {address} is {cuts}")), "{refused}");
            let mut after = services();
            after.vips.insert(name("gw"), vip("gw", address));
            assert_eq!(needed().check_services(&services(), &after).unwrap_err().len(), 1);
            assert_eq!(needed().check_services(&after, &after), Ok(()), "it is known already");
        }
        assert_eq!(needed().check_change(&Change::AddVip(vip("other", "203.0.113.11")), &services()), Ok(()));
        assert!(needed().conflicts(&services()).is_empty());
    }

    #[test]
    fn a_prefix_around_an_address_that_the_node_needs_is_refused() {
        let _row =
            Row::fault("D5", "the prefix of a VIP contains addresses of node, neighbors, backends, outer source");
        for (network, contains) in [
            (
                "10.9.1.0/28",
                "10.9.1.11 (an address of this node, on eth0), 10.9.1.1 (the gateway of the default route), 10.9.1.1 (BGP \
                 neighbor router); ",
            ),
            ("10.9.2.0/24", "10.9.2.11 (backend web1 of pool web); "),
            ("10.64.11.128/25", "10.64.11.128 (within the outer source); "),
            ("10.64.0.0/16", "10.64.11.0 (within the outer source); "),
        ] {
            let refused = needed().check_change(&Change::AddVip(vip("gw", network)), &services()).unwrap_err();
            assert!(refused.to_string().contains(&format!("VIP gw: {network} contains {contains}")), "{refused}");
            let mut after = services();
            after.vips.insert(name("gw"), vip("gw", network));
            assert_eq!(needed().conflicts(&after).len(), 1);
            assert_eq!(needed().check_services(&after, &after), Ok(()), "it is known already");
        }
        for beside in ["10.9.1.16/28", "10.64.12.0/24", "2001:db8::/32"] {
            assert_eq!(needed().check_change(&Change::AddVip(vip("other", beside)), &services()), Ok(()));
        }
        let mut wide = services();
        wide.vips.insert(name("wide"), vip("wide", "198.51.100.0/24"));
        let (address, state) = (at("198.51.100.7"), AdminState::Active);
        let backend = Backend { name: name("web2"), address, weight: Weight::DEFAULT, state, mtu: None };
        let change = Change::AddBackend { pool: name("web"), backend };
        let refused = needed().check_change(&change, &wide).unwrap_err().to_string();
        assert!(refused.contains("VIP wide: 198.51.100.7 would be backend web2 of pool web"), "{refused}");
    }

    #[test]
    fn a_backend_in_the_place_of_a_vip_is_refused() {
        let _row = Row::fault("D5", "a backend gets the address of a VIP");
        let backend = Backend {
            name: name("web2"),
            address: at("203.0.113.10"),
            weight: Weight::DEFAULT,
            state: AdminState::Active,
            mtu: None,
        };
        let change = Change::AddBackend { pool: name("web"), backend };
        let refused = needed().check_change(&change, &services()).unwrap_err().to_string();
        assert!(refused.contains("VIP www: 203.0.113.10 would be backend web2 of pool web"), "{refused}");
    }
}
