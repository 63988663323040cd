//! Route and neighbour messages as the decision needs them. It must not know what follows from them.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use nix::errno::Errno;
use rtnetlink::packet_core::ErrorMessage;

use super::decide::{Neighbour, Place, Route};

/// Asks for the route to one address: the kernel chooses as it does for a packet, among several paths too.
pub(super) fn route_request(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    (message.header.address_family, message.header.destination_prefix_length) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.attributes.push(RouteAttribute::Destination(address.into()));
    message
}

/// The kernel's answer.
pub(super) fn route(message: &RouteMessage) -> Route {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Route::Local,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => return Route::Refused,
        other => return Route::Unknown(format!("it is of type {other:?}")),
    }
    let interface = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let gateway = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) | RouteAttribute::Via(RouteVia::Inet6(address)) => {
            Some(IpAddr::V6(*address))
        }
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        _ => None,
    });
    interface.map_or(Route::Missing, |interface| Route::Unicast { interface, gateway })
}

/// What an error to a route request means. A blackhole answers EINVAL, a prohibit route EACCES, an unreachable route
/// EHOSTUNREACH.
pub(super) fn route_error(error: &ErrorMessage) -> Route {
    match Errno::from_raw(-error.raw_code()) {
        Errno::ENETUNREACH | Errno::ESRCH => Route::Missing,
        Errno::EHOSTUNREACH | Errno::EINVAL | Errno::EACCES => Route::Refused,
        errno => Route::Unknown(errno.to_string()),
    }
}

/// A neighbour and its state; `None` for what is not the kernel's table of IP neighbours.
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
    let usable = |permanent| mac.map(|mac| Neighbour::Usable { mac, permanent });
    let state = match header.state {
        NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => {
            usable(false)
        }
        NeighbourState::Permanent | NeighbourState::Noarp => usable(true),
        NeighbourState::Incomplete => Some(Neighbour::Incomplete),
        NeighbourState::Failed => Some(Neighbour::Failed),
        NeighbourState::None | NeighbourState::Other(_) => None,
        _ => None,
    };
    Some(((header.ifindex, address), state))
}
