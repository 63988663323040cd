//! Frames that a backend receives: tunnels of every kind that it takes or refuses, some with lies in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::IpNet;

use super::{LEAST, one_in};
use crate::world::DecapWorld;

use inner::inner;

mod inner;

/// The registered port of GUE.
const PORT: u16 = 6080;

/// A frame for a backend: well-formed, or with some of its bytes changed, or random.
pub fn frame(rng: &mut Rng, world: &DecapWorld) -> Vec<u8> {
    let mut frame = if one_in(rng, 40) { random(rng, LEAST, 200) } else { well_formed(rng, world) };
    if one_in(rng, 2) {
        mutate(rng, &mut frame);
    }
    let length = frame.len().max(LEAST);
    frame.resize(length, 0);
    frame
}

/// A frame without lies, though perhaps not for this backend.
fn well_formed(rng: &mut Rng, world: &DecapWorld) -> Vec<u8> {
    let (is_v6, inner) = inner(rng, world, 0);
    let (mut protocol, mut payload) = (if is_v6 { 41 } else { 4 }, inner);
    let outer_is_v6 = rng.bool();
    match rng.u8(..16) {
        0..7 => {}
        7..13 => {
            let gue = gue0(rng, protocol, &payload);
            (protocol, payload) = (17, datagram(rng, gue));
        }
        13..15 => (protocol, payload) = (17, datagram(rng, payload)),
        // Without an outer header: what a backend receives from others.
        _ => return in_ethernet(rng, is_v6, &payload),
    }
    let packet =
        if outer_is_v6 { outer6(rng, world, protocol, payload) } else { outer4(rng, world, protocol, payload) };
    in_ethernet(rng, outer_is_v6, &packet)
}

/// An Ethernet header with up to three tags, and now and then padding behind the packet.
fn in_ethernet(rng: &mut Rng, is_v6: bool, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5];
    let tags = if one_in(rng, 4) { rng.u8(1..=3) } else { 0 };
    for _ in 0..tags {
        frame.extend(if rng.bool() { [0x81, 0x00] } else { [0x88, 0xa8] });
        frame.extend(rng.u16(..).to_be_bytes());
    }
    frame.extend(if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
    if one_in(rng, 5) {
        frame.extend(random(rng, 0, 46));
    }
    frame
}

fn outer4(rng: &mut Rng, world: &DecapWorld, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    let options = if one_in(rng, 10) { 4 * rng.usize(1..=10) } else { 0 };
    let fragment: u16 = match rng.u8(..24) {
        0 => 0x2000,
        1 => rng.u16(..) & 0x3fff,
        2 => 0x8000,
        3..8 => 0,
        _ => 0x4000,
    };
    let length = 20 + options + payload.len();
    let mut packet = vec![0x40 | (5 + options / 4) as u8, rng.u8(..)];
    packet.extend((length as u16).to_be_bytes());
    packet.extend(rng.u16(..).to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([ttl(rng), protocol, 0, 0]);
    packet.extend(octets(outer_source(rng, world, false)));
    packet.extend([10, 0, 1, 11]);
    packet.extend((0..options).map(|_| rng.choice([0, 1, 7, 131, 137, 148]).unwrap_or(1)));
    sum4(&mut packet);
    packet.extend(payload);
    packet
}

fn outer6(rng: &mut Rng, world: &DecapWorld, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    let (mut protocol, mut payload) = (protocol, payload);
    if one_in(rng, 8) {
        for _ in 0..rng.u8(1..=3) {
            (protocol, payload) = extended(rng, protocol, &payload);
        }
    }
    let mut packet = vec![0x60 | rng.u8(..16), rng.u8(..), rng.u8(..), rng.u8(..)];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([protocol, ttl(rng)]);
    packet.extend(octets(outer_source(rng, world, true)));
    packet.extend([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11]);
    packet.extend(payload);
    packet
}

/// A payload behind an extension header (RFC 8200 section 4), often the tunnel encapsulation limit (RFC 2473 section 4.1.1).
fn extended(rng: &mut Rng, next: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let (kind, header) = match rng.u8(..7) {
        0 | 1 => (60, vec![next, 0, 4, 1, rng.u8(..), 1, 1, 0]),
        2 => (0, vec![next, 0, 1, 4, 0, 0, 0, 0]),
        3 => (43, vec![next, 0, rng.u8(..5), rng.u8(..2), 0, 0, 0, 0]),
        4 => (44, [&[next, 0], &fragment6(rng)[..], &[0, 0, 0, 7]].concat()),
        5 => (51, [&[next, 4, 0, 0], &random(rng, 20, 20)[..]].concat()),
        _ => (60, [&[next, 2, 1, 20], &[0; 20][..]].concat()),
    };
    (kind, [header, payload.to_vec()].concat())
}

/// Offset and flag of a fragment header: those of a whole packet, too.
fn fragment6(rng: &mut Rng) -> [u8; 2] {
    rng.choice([0, 1, 0x0008, 0x0009, 0x05d0]).unwrap_or(0_u16).to_be_bytes()
}

/// A UDP datagram for GUE, seldom for another port; its checksum is never verified.
fn datagram(rng: &mut Rng, payload: Vec<u8>) -> Vec<u8> {
    let port = if one_in(rng, 20) { rng.u16(..) } else { PORT };
    let checksum = if rng.bool() { 0 } else { rng.u16(..) };
    let mut bytes = Vec::new();
    for word in [rng.u16(49_152..), port, 8 + payload.len() as u16, checksum] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(payload);
    // The length may leave out bytes behind it: RFC 9868.
    if one_in(rng, 20) {
        bytes.extend(random(rng, 1, 12));
    }
    bytes
}

/// GUE of version 0, mostly as it is taken.
fn gue0(rng: &mut Rng, protocol: u8, packet: &[u8]) -> Vec<u8> {
    let words = if rng.bool() { 0 } else { rng.u8(..32) };
    let mut first = words;
    let (mut protocol, mut flags) = (protocol, 0);
    match rng.u8(..24) {
        0 => first |= 0x20,
        1 => first |= rng.u8(1..4) << 6,
        2 => flags = 1 << rng.u8(..16),
        3 => protocol = rng.choice([0, 1, 17, 47, 59, 255]).unwrap_or(59),
        _ => {}
    }
    let mut bytes = vec![first, protocol];
    bytes.extend(u16::to_be_bytes(flags));
    bytes.extend(random(rng, usize::from(words) * 4, usize::from(words) * 4));
    bytes.extend(packet);
    bytes
}

fn outer_source(rng: &mut Rng, world: &DecapWorld, v6: bool) -> IpAddr {
    if one_in(rng, 12) {
        return if v6 { IpAddr::from([0x2001, 0xdb8, 9, 9, 9, 9, 9, rng.u16(..)]) } else { [192, 0, 2, 9].into() };
    }
    of_family(rng, &world.sources, v6)
}

/// An address in one of the prefixes of a family.
fn of_family(rng: &mut Rng, prefixes: &[IpNet], v6: bool) -> IpAddr {
    let of: Vec<_> = prefixes.iter().filter(|prefix| prefix.addr().is_ipv6() == v6).collect();
    match rng.choice(of) {
        Some(prefix) => address_in(rng, *prefix),
        None => address_in(rng, if v6 { DOCUMENTATION6 } else { DOCUMENTATION4 }),
    }
}

const DOCUMENTATION4: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24));
const DOCUMENTATION6: IpNet =
    IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 51, 0, 0, 0, 0, 0), 48));

fn ttl(rng: &mut Rng) -> u8 {
    rng.choice([0, 1, 2, 64, 254, 255]).unwrap_or(64)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Writes the checksum of an IPv4 header (RFC 1071).
fn sum4(header: &mut [u8]) {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

/// Random bytes, so many at least and at most.
fn random(rng: &mut Rng, least: usize, most: usize) -> Vec<u8> {
    let count = rng.usize(least..=most);
    (0..count).map(|_| rng.u8(..)).collect()
}

/// An address within a prefix.
fn address_in(rng: &mut Rng, prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(prefix) => {
            Ipv4Addr::from(u32::from(prefix.network()) | rng.u32(..) & u32::from(prefix.hostmask())).into()
        }
        IpNet::V6(prefix) => {
            Ipv6Addr::from(u128::from(prefix.network()) | rng.u128(..) & u128::from(prefix.hostmask())).into()
        }
    }
}

/// Changes a few bytes of a frame, mostly of its headers, or its length.
fn mutate(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..rng.u8(1..=3) {
        let Some(last) = frame.len().checked_sub(1) else { return };
        // Most headers end within 120 bytes.
        let at = if one_in(rng, 6) { rng.usize(..=last) } else { rng.usize(12.min(last)..=last.min(120)) };
        match rng.u8(..10) {
            0..4 => frame[at] ^= 1 << rng.u8(..8),
            4..6 => frame[at] = rng.u8(..),
            6 => frame[at] = rng.choice([0, 1, 4, 17, 41, 0x45, 0x46, 0x60, 255]).unwrap_or(0),
            7 => frame[at] = frame[at].wrapping_add(if rng.bool() { 1 } else { 255 }),
            8 => frame.truncate(at),
            _ => frame.extend(vec![0; rng.usize(1..40)]),
        }
    }
}
