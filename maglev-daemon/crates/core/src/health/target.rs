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

/// The targets of a backend, or why it has none.
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
