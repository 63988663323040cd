//! How neighbors are asked, by the kernel's own means. It must not know when.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::decide::{Neighbour, Place};
use super::messages;
use crate::connection::{self, Requests};
use crate::error::NetError;

/// Has the kernel find out a neighbor's MAC address, as if a packet were to be sent to it.
pub(super) async fn find(requests: &Requests, (interface, address): Place) -> Result<(), NetError> {
    let request = requests.handle.neighbours().add(interface, address);
    let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
    if let Err(error) = connection::done("ask for a neighbor", request.execute()).await? {
        tracing::debug!(%address, interface, %error, "neighbor could not be asked for");
    }
    Ok(())
}

/// Has the kernel ask a neighbor at its known MAC address at once whether it is there; packets go on meanwhile. It asks three
/// times, one second apart, and then takes the neighbor for failed.
pub(super) async fn confirm(requests: &Requests, place @ (interface, address): Place) -> Result<(), NetError> {
    let request = requests.handle.neighbours().add(interface, address).state(NeighbourState::Probe).replace();
    match connection::done("confirm a neighbor", request.execute()).await? {
        Ok(()) => Ok(()),
        // Its MAC address is not known any more.
        Err(_) => find(requests, place).await,
    }
}

/// The neighbor's entry in the kernel's table now.
pub(super) async fn look(requests: &Requests, (interface, address): Place) -> Result<Option<Neighbour>, NetError> {
    const WHAT: &str = "look up a neighbor";
    let mut message = NeighbourMessage::default();
    message.header.family = messages::family(address);
    message.header.ifindex = interface;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
    request.header.flags = NLM_F_REQUEST;
    let answer = requests.handle.clone().request(request).map_err(|source| NetError::Request { what: WHAT, source })?;
    match connection::first(WHAT, answer).await?.map(|message| message.payload) {
        Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message))) => {
            Ok(messages::neighbour(&message).and_then(|(_, state)| state))
        }
        _ => Ok(None),
    }
}
