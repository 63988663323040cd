//! Targets of checks: the pairs of a backend and the path that a pool's check asks for. It must not know results.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use maglev_model::{Backend, Check, Name, Pool, Services, Via, Vip};

/// One check target, without the check's settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The pool.
    pub pool: Name,
    /// The backend.
    pub backend: Name,
    /// Its address.
    pub address: IpAddr,
    /// The VIP to which packets are sent through the encapsulation; `None`: they are sent to the backend directly.
    pub vip: Option<Name>,
    /// The destination address of the packets.
    pub destination: SocketAddr,
}

/// Targets, and how each is checked.
pub type Targets = BTreeMap<Arc<Target>, Arc<Check>>;

/// The targets of a backend, or why it has none. Of a VIP's prefix the first address is checked, and of its ports the first.
///
/// # Errors
/// The reason, for an operator.
pub fn targets(services: &Services, pool: &Pool, backend: &Backend, check: &Arc<Check>) -> Result<Targets, String> {
    let vips: Vec<&Vip> = services.vips_of(&pool.name).collect();
    if vips.is_empty() && (matches!(check.via, Via::Encap { .. }) || check.port.is_none()) {
        return Err(format!("no VIP uses pool {}: an encapsulated check needs one", pool.name));
    }
    let target = |vip: Option<Name>, address, port: NonZeroU16| Target {
        pool: pool.name.clone(),
        backend: backend.name.clone(),
        address: backend.address,
        vip,
        destination: SocketAddr::new(address, port.get()),
    };
    let direct = |port| target(None, backend.address, port);
    let found: Vec<Target> = match (&check.via, check.port) {
        (Via::Direct, Some(port)) => vec![direct(port)],
        (Via::Direct, None) => vips.iter().filter_map(|vip| Some(direct(vip.service.ports.first()?))).collect(),
        (Via::Encap { vip: chosen }, port) => {
            let asked = vips.iter().filter(|vip| chosen.as_ref().is_none_or(|chosen| vip.name == *chosen));
            let one = |vip: &&Vip| {
                Some(target(Some(vip.name.clone()), vip.service.address(), port.or(vip.service.ports.first())?))
            };
            asked.filter_map(one).collect()
        }
    };
    if found.is_empty() {
        return Err(match &check.via {
            Via::Encap { vip: Some(vip) } if vips.iter().all(|known| known.name != *vip) => {
                format!("VIP {vip} does not use pool {}", pool.name)
            }
            _ => "the VIPs take any port: check.port must say which".to_owned(),
        });
    }
    Ok(found.into_iter().map(|target| (Arc::new(target), Arc::clone(check))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_model::{AdminState, Announce, Change, Hysteresis, OuterSources, Probe, Rules, Service, Weight};
    use std::time::Duration;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// The destinations that a check through the encapsulation has for VIPs of these addresses, ports and protocols.
    fn checked(vips: &[[&str; 3]], port: Option<u16>) -> Result<Vec<String>, String> {
        let outer = OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None };
        let rules = Rules { outer, ..Rules::default() };
        let mut services = Services::default();
        services.admit(Change::AddPool(Pool::new(name("web"))), &rules).unwrap();
        let (address, state) = ([10, 0, 1, 11].into(), AdminState::Active);
        let backend = Backend { name: name("web1"), address, weight: Weight::DEFAULT, state };
        services.admit(Change::AddBackend { pool: name("web"), backend: backend.clone() }, &rules).unwrap();
        for (n, [address, ports, protocol]) in vips.iter().enumerate() {
            let service = Service::parse(address, ports, protocol).unwrap();
            let (name, pool) = (name(&format!("v{n}")), name("web"));
            services
                .admit(
                    Change::AddVip(Vip {
                        name,
                        service,
                        pool,
                        announce: Announce::default(),
                        when_empty: maglev_model::Unserved::Drop,
                        affinity: maglev_model::Affinity::default(),
                    }),
                    &rules,
                )
                .unwrap();
        }
        let check = Check {
            probe: Probe::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            jitter: Duration::ZERO,
            hysteresis: Hysteresis { fall: 2, rise: 2 },
            port: port.and_then(NonZeroU16::new),
            via: Via::Encap { vip: None },
        };
        let found = targets(&services, &services.pools[&name("web")], &backend, &Arc::new(check))?;
        Ok(found.keys().map(|target| target.destination.to_string()).collect())
    }

    #[test]
    fn the_first_address_and_the_first_port_are_checked() {
        let wide = ["203.0.113.16/28", "any", "any"];
        let range = ["203.0.113.10", "8000-8100", "tcp"];
        assert_eq!(checked(&[range, wide], None), Ok(vec!["203.0.113.10:8000".to_owned()]));
        let both = vec!["203.0.113.10:80".to_owned(), "203.0.113.16:80".to_owned()];
        assert_eq!(checked(&[range, wide], Some(80)), Ok(both));
        let portless = ["203.0.113.10", "any", "esp"];
        let refused = checked(&[wide, portless], None).unwrap_err();
        assert_eq!(refused, "the VIPs take any port: check.port must say which");
    }
}
