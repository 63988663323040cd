//! Valid frames: a packet of a flow, or all fragments of a datagram.

use std::net::IpAddr;

use fastrand::Rng;

use super::addresses::{self, Flow};
use super::{ethernet, icmp, ipv4, ipv6, one_in, transport};
use crate::world::World;

/// The frames of one packet or datagram. `sent`: the node itself sends it, as a health check.
pub(super) fn frames(rng: &mut Rng, world: &World, sent: bool) -> Vec<Vec<u8>> {
    let flow = addresses::flow(rng, world);
    if !sent && one_in(rng, 6) {
        return message(rng, world, flow);
    }
    let payload = match flow.protocol {
        4 | 41 if !one_in(rng, 8) => nested(rng, world),
        _ => transport::payload(rng, flow),
    };
    packets(rng, world, flow, &payload)
}

fn message(rng: &mut Rng, world: &World, flow: Flow) -> Vec<Vec<u8>> {
    let payload = icmp::message(rng, flow);
    let protocol = if flow.destination.is_ipv4() { 1 } else { 58 };
    packets(rng, world, Flow { protocol, ..flow }, &payload)
}

/// A packet in a packet, to the same VIP or to another address.
fn nested(rng: &mut Rng, world: &World) -> Vec<u8> {
    let inner = addresses::flow(rng, world);
    let payload = transport::payload(rng, inner);
    ip(rng, inner, &payload, None).into_iter().next().unwrap_or_default()
}

fn packets(rng: &mut Rng, world: &World, flow: Flow, payload: &[u8]) -> Vec<Vec<u8>> {
    let size = one_in(rng, 10).then(|| match rng.u8(..4) {
        0 => 8,
        1 => rng.usize(8..64),
        _ => rng.usize(64..1_400),
    });
    let ether_type = if flow.destination.is_ipv4() { 0x0800 } else { 0x86dd };
    let packets = ip(rng, flow, payload, size);
    packets.iter().map(|packet| ethernet::frame(rng, world, ether_type, packet)).collect()
}

/// The IP packet of a flow, or its fragments of about so many bytes.
pub(super) fn ip(rng: &mut Rng, flow: Flow, payload: &[u8], size: Option<usize>) -> Vec<Vec<u8>> {
    match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Header::new(rng, source, destination, flow.protocol);
            match size {
                Some(size) => header.fragments(rng, payload, size),
                None => vec![header.packet(payload)],
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6::Header::new(rng, source, destination, flow.protocol);
            match size {
                Some(size) => header.fragments(rng, payload, size),
                None => vec![header.packet(payload)],
            }
        }
        _ => Vec::new(),
    }
}
