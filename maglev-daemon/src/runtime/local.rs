//! VIPs that are addresses of this node: refused, because packets to such an address never reach the host again.

use crate::model::{Change, Refusal, Services, Vip};
use crate::net::addresses;

/// Refuses a change that adds a VIP with an address of this node.
pub(super) fn check_change(change: &Change) -> Result<(), Refusal> {
    match change {
        Change::AddVip(vip) => check([vip]).map_err(Refusal::Conflict),
        _ => Ok(()),
    }
}

/// Refuses services with such a VIP.
pub(super) fn check_services(services: &Services) -> Result<(), String> {
    check(services.vips.values())
}

fn check<'a>(vips: impl IntoIterator<Item = &'a Vip>) -> Result<(), String> {
    let mut vips = vips.into_iter().peekable();
    if vips.peek().is_none() {
        return Ok(());
    }
    let local = addresses::local();
    match vips.find_map(|vip| Some((vip, local.get(&vip.service.address)?))) {
        None => Ok(()),
        Some((Vip { name, service, .. }, interface)) => Err(format!(
            "VIP {name}: {} is an address of this node, on {interface}; a VIP's packets do not reach the node itself: \
             choose another address, or remove it from {interface}",
            service.address
        )),
    }
}
