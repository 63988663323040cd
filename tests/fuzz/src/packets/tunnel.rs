//! Packets as nodes send them to backends: in IP in IP and GUE, as they should be and nearly so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use super::addresses::{self, Flow};
use super::{build, choose, ethernet, icmp, one_in, transport};
use crate::world::World;

/// A frame with an encapsulated packet.
pub fn encapsulated(rng: &mut Rng, world: &World) -> Vec<u8> {
    let mut flow = addresses::flow(rng, world);
    let payload = if one_in(rng, 6) {
        flow.protocol = if flow.destination.is_ipv4() { 1 } else { 58 };
        icmp::message(rng, flow)
    } else {
        transport::payload(rng, flow)
    };
    let inner = build::ip(rng, flow, &payload, None).into_iter().next().unwrap_or_default();
    let inside = if flow.destination.is_ipv4() { 4 } else { 41 };
    let (protocol, wrapped) = if one_in(rng, 2) { (inside, inner) } else { (17, gue(rng, inside, &inner)) };
    let outer = Flow { protocol, ..outer(rng) };
    let size = one_in(rng, 24).then(|| rng.usize(8..1_000));
    let packets = build::ip(rng, outer, &wrapped, size);
    let packet = if packets.is_empty() { Vec::new() } else { packets[rng.usize(..packets.len())].clone() };
    let ether_type = if outer.destination.is_ipv4() { 0x0800 } else { 0x86dd };
    ethernet::frame(rng, world, ether_type, &packet)
}

/// From a node to a backend, mostly.
fn outer(rng: &mut Rng) -> Flow {
    let [a, b] = [rng.u8(..), rng.u8(..)];
    let (source, destination): (IpAddr, IpAddr) = if one_in(rng, 2) {
        let source = choose(rng, &[[10, 64, 11, a], [10, 64, 11, a], [10, 64, a, b], [10, a, b, 1], [192, 0, 2, a]]);
        (Ipv4Addr::from(source).into(), Ipv4Addr::new(10, 0, 1, 11).into())
    } else {
        let low = u16::from(a);
        let source = choose(
            rng,
            &[
                Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 7),
                Ipv6Addr::new(0xfd00, 0x64, 0, low, low, low, low, low),
                Ipv6Addr::new(0xfd00, 0x65, 0, 0, 0, 0, 0, low),
            ],
        );
        (source.into(), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x11).into())
    };
    Flow { source, destination, protocol: 0, source_port: 0, port: 0 }
}

/// UDP and GUE.
fn gue(rng: &mut Rng, inside: u8, inner: &[u8]) -> Vec<u8> {
    let private = if one_in(rng, 4) { rng.u8(..32) } else { 0 };
    let mut header = match rng.u8(..16) {
        // Version 1: the packet itself.
        0 | 1 => Vec::new(),
        2 => vec![rng.u8(..), inside, rng.u8(..), rng.u8(..)],
        3 => vec![private, rng.u8(..), 0, 0],
        _ => vec![private, inside, 0, 0],
    };
    if !header.is_empty() {
        let words = usize::from(header[0] & 0x1f);
        header.extend(vec![rng.u8(..); words * 4]);
    }
    let port: u16 = if one_in(rng, 24) { rng.u16(..) } else { 6_080 };
    let length = (8 + header.len() + inner.len()) as u16;
    let udp = [rng.u16(..) | 0xc000, port, length, if one_in(rng, 4) { rng.u16(..) } else { 0 }];
    [udp.iter().flat_map(|word| word.to_be_bytes()).collect(), header, inner.to_vec()].concat()
}
