//! Route and neighbor messages as the decision needs them. It must not know their effects.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType, RouteVia,
};
use nix::errno::Errno;
use rtnetlink::packet_core::ErrorMessage;

use super::decide::{Neighbour, Path, Place, Proof, Route};

/// Asks for the route to one address: the whole route that the kernel chooses for a packet, with all its paths, and its own
/// MTU. The path MTU that the kernel learned by ICMP is not in it: any host can send such a message.
pub(super) fn route_request(address: IpAddr) -> RouteMessage {
    let mut message = one_path_request(address);
    message.header.flags = RouteFlags::FibMatch;
    message
}

/// Asks for the one path that the kernel would take.
pub(super) fn one_path_request(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(address.into()));
    message
}

/// The family of an address.
pub(super) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The kernel's answer; `None` if it names a next hop object by its number only (`nexthop_compat_mode` 0).
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Some(Route::Local),
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => return Some(Route::Refused),
        other => return Some(Route::Unknown(format!("its type is {other:?}"))),
    }
    let mut paths: Vec<Path> = message.attributes.iter().filter_map(several).flatten().collect();
    paths.extend(path(&message.attributes, None, 1));
    paths.sort_unstable();
    let mtu = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(mtu),
        _ => None,
    });
    (!paths.is_empty()).then_some(Route::Unicast { paths, mtu })
}

fn mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    }
}

/// The paths of a multipath route, but those that the kernel calls dead, unless it calls all of them so.
fn several(attribute: &RouteAttribute) -> Option<Vec<Path>> {
    let RouteAttribute::MultiPath(hops) = attribute else { return None };
    let dead = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
    let all_dead = hops.iter().all(|hop| hop.flags.intersects(dead));
    let usable = hops.iter().filter(|hop| all_dead || !hop.flags.intersects(dead));
    Some(usable.filter_map(|hop| path(&hop.attributes, Some(hop.interface_index), u16::from(hop.hops) + 1)).collect())
}

fn path(attributes: &[RouteAttribute], interface: Option<u32>, weight: u16) -> Option<Path> {
    let named = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let gateway = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) | RouteAttribute::Via(RouteVia::Inet6(address)) => {
            Some(IpAddr::V6(*address))
        }
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        _ => None,
    });
    interface.or(named).map(|interface| Path { interface, gateway, weight })
}

/// The meaning of an error in answer to a route request. A blackhole answers EINVAL, a prohibit route EACCES, an unreachable route
/// EHOSTUNREACH.
pub(super) fn route_error(error: &ErrorMessage) -> Route {
    match Errno::from_raw(-error.raw_code()) {
        Errno::ENETUNREACH | Errno::ESRCH => Route::Missing,
        Errno::EHOSTUNREACH | Errno::EINVAL | Errno::EACCES => Route::Refused,
        errno => Route::Unknown(errno.to_string()),
    }
}

/// A neighbor and its state; `None` for entries outside the kernel's table of IP neighbors.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(Place, Option<Neighbour>)> {
    let header = &message.header;
    let ip = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6);
    if !ip || header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let usable = |proof| mac.map(|mac| Neighbour::Usable { mac, proof });
    let state = match header.state {
        NeighbourState::Reachable => usable(Proof::Answered),
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => usable(Proof::Old),
        NeighbourState::Permanent | NeighbourState::Noarp => usable(Proof::Permanent),
        NeighbourState::Incomplete => Some(Neighbour::Incomplete),
        NeighbourState::Failed => Some(Neighbour::Failed),
        NeighbourState::None | NeighbourState::Other(_) => None,
        _ => None,
    };
    Some(((header.ifindex, address), state))
}
