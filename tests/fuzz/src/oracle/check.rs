//! What the program at the egress makes of a packet that the node itself sends (docs/packets.md: health checks).

use super::choice::{self, Flow};
use super::encap::{self, Inner};
use super::ip::{self, Packet, protocol};
use super::link::{HEADER, Link, link};
use super::{Balanced, Predicted, Verdict};
use crate::world::{INGRESS, World};

/// Where an outgoing packet comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The mark of its socket.
    pub mark: u32,
    /// Whether the node only forwards it.
    pub forwarded: bool,
}

/// Predicts the fate of a packet that is sent on [`INGRESS`]. Passed: it is sent there.
pub fn check(world: &World, origin: Origin, frame: &[u8]) -> Balanced {
    let pass = || Predicted { verdict: Verdict::Pass, bytes: Some(frame.to_vec()), counted: Vec::new() }.into();
    let Link::Ip(family, l3) = link(frame) else { return pass() };
    let Some([_, destination]) = ip::addresses(&frame[l3..], family) else { return pass() };
    if origin.forwarded || !choice::is_vip_address(world, destination) {
        return pass();
    }
    let backend = checked(origin.mark).and_then(|id| world.backend(id));
    let Some((pool, backend)) = backend else { return Predicted::drop("stray").into() };
    let unsent = || Predicted::drop("check_unsent").into();
    // A socket's packet has one tag at most: that of the VLAN device that it was sent by.
    if l3 > HEADER + 4 {
        return unsent();
    }
    let Ok(packet) = ip::parse(&frame[l3..], family) else { return unsent() };
    let Packet { bytes, source, class, protocol, transport, fragment, .. } = packet;
    let has_ports = protocol::least_with_ports(protocol).is_some();
    let Some(ports) = ip::ports(bytes, protocol, transport).filter(|_| has_ports && fragment.is_none()) else {
        return unsent();
    };
    let Some(hop) = backend.next_hop.filter(|hop| bytes.len() <= encap::longest(world, pool, backend, *hop)) else {
        return unsent();
    };
    let hash = Flow { source, destination, ports, protocol }.hash(world).0;
    let inner = Inner { family, class, length: bytes.len(), bytes: &frame[l3..], hash };
    let frame = encap::frame(world, pool, backend, hop, &inner);
    let is_here = world.interfaces[hop.slot].index == INGRESS;
    let verdict = if is_here { Verdict::Pass } else { Verdict::Redirect };
    Predicted { verdict, bytes: Some(frame), counted: vec!["check_sent"] }.into()
}

/// The member that a mark names: 0x4d41 in the high half, and 15 bits.
fn checked(mark: u32) -> Option<u16> {
    (mark & 0xffff_8000 == 0x4d41_0000).then_some((mark & 0x7fff) as u16).filter(|id| *id != 0)
}
