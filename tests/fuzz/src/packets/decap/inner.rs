//! Packets that come in tunnels: those of clients, and those that must not come out.

use std::net::{IpAddr, Ipv6Addr};

use fastrand::Rng;

use super::{DOCUMENTATION4, DOCUMENTATION6, address_in, extended, octets, of_family, random, sum4, ttl};
use crate::packets::one_in;
use crate::world::DecapWorld;

/// A packet inside a tunnel, and whether it is one of IPv6.
pub(super) fn inner(rng: &mut Rng, world: &DecapWorld, depth: u8) -> (bool, Vec<u8>) {
    let v6 = rng.bool();
    let (protocol, payload) = payload(rng, world, v6, depth);
    let destination = destination(rng, world, v6);
    let source = if one_in(rng, 30) { destination } else { source(rng, v6) };
    (
        v6,
        if v6 {
            packet6(rng, protocol, payload, source, destination)
        } else {
            packet4(rng, protocol, &payload, source, destination)
        },
    )
}

fn packet4(rng: &mut Rng, protocol: u8, payload: &[u8], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let options = if one_in(rng, 12) { 4 * rng.usize(1..=10) } else { 0 };
    let fragment = if one_in(rng, 12) { rng.u16(..) } else { 0x4000 };
    let mut packet = vec![0x40 | (5 + options / 4) as u8, rng.u8(..)];
    packet.extend(((20 + options + payload.len()) as u16).to_be_bytes());
    packet.extend(rng.u16(..).to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([ttl(rng), protocol, 0, 0]);
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend(vec![1; options]);
    sum4(&mut packet);
    packet.extend(payload);
    packet
}

fn packet6(rng: &mut Rng, protocol: u8, payload: Vec<u8>, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (mut protocol, mut payload) = (protocol, payload);
    if one_in(rng, 6) {
        for _ in 0..rng.u8(1..=10) {
            (protocol, payload) = extended(rng, protocol, &payload);
        }
    }
    let mut packet = vec![0x60 | rng.u8(..16), rng.u8(..), rng.u8(..), rng.u8(..)];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([protocol, ttl(rng)]);
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend(payload);
    packet
}

/// A transport header with some bytes behind it; messages of the link; tunnels in the tunnel.
fn payload(rng: &mut Rng, world: &DecapWorld, v6: bool, depth: u8) -> (u8, Vec<u8>) {
    match rng.u8(..12) {
        0..4 => (6, segment(rng)),
        4..7 => (17, [&[0x9c, 0x40, 0, 53, 0, 12, 0, 0][..], &random(rng, 4, 4)].concat()),
        7 => (if v6 { 58 } else { 1 }, [&[rng.u8(..), 0, 0, 0, 0, 0, 0, 0][..], &random(rng, 0, 40)].concat()),
        8 if v6 => (58, [&[rng.u8(133..=137), 0, 0, 0, 0, 0, 0, 0][..], &random(rng, 16, 40)].concat()),
        8 => (1, vec![rng.choice([5, 9, 10]).unwrap_or(5), 0, 0, 0, 192, 0, 2, 1]),
        9 if depth < 3 => {
            let (is_v6, packet) = inner(rng, world, depth + 1);
            (if is_v6 { 41 } else { 4 }, packet)
        }
        10 => (if v6 { 59 } else { 47 }, random(rng, 0, 8)),
        _ => (rng.u8(..), random(rng, 0, 40)),
    }
}

/// A TCP segment: mostly a SYN or an answer to one, with an MSS.
fn segment(rng: &mut Rng) -> Vec<u8> {
    let flags = rng.choice([0x02, 0x12, 0x10, 0x04]).unwrap_or(0x02);
    let mut bytes = [&rng.u16(1024..).to_be_bytes()[..], &[0, 80], &random(rng, 8, 8)].concat();
    bytes.extend([0x60, flags, 0xfa, 0, 0, 0, 0, 0, 2, 4, 0x05, 0xb4]);
    bytes
}

fn destination(rng: &mut Rng, world: &DecapWorld, v6: bool) -> IpAddr {
    if one_in(rng, 12) { special(rng, v6) } else { of_family(rng, &world.vips, v6) }
}

fn source(rng: &mut Rng, v6: bool) -> IpAddr {
    if one_in(rng, 12) {
        return special(rng, v6);
    }
    address_in(rng, if v6 { DOCUMENTATION6 } else { DOCUMENTATION4 })
}

/// An address that no single remote host can have, or a neighbor of such an address.
fn special(rng: &mut Rng, v6: bool) -> IpAddr {
    let text = if v6 {
        rng.choice([
            "::",
            "::1",
            "::c000:0201",
            "::ffff:192.0.2.1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "64:ff9b::c000:201",
            "2002:c000:201::1",
            "fd00::9",
            "::1:0:0:1",
            "fe7f::1",
        ])
    } else {
        rng.choice([
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.1.1",
            "169.253.255.255",
            "224.0.0.1",
            "239.1.2.3",
            "240.0.0.1",
            "255.255.255.255",
            "10.0.0.1",
            "223.255.255.255",
            "126.0.0.1",
            "1.0.0.0",
        ])
    };
    text.and_then(|text| text.parse().ok()).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}
